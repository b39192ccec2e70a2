import pytest
import torch

from tapetum.methods._strong_baseline import centre_loss


@pytest.mark.parametrize(("suffix", "dtype", "tolerance"), [("", torch.float32, 2e-5), ("_f64", torch.float64, 1e-9)])
def test_the_centre_loss_equals_the_original(golden, assert_matches, suffix, dtype, tolerance):
    case = golden("strong_baselines", "center")
    features, centres = case.leaves("feats", "centers", dtype=dtype)
    loss = centre_loss(features, case.inputs["labels"], centres)
    loss.backward()
    assert_matches(loss, case.out[f"loss{suffix}"], tolerance)
    assert_matches(features.grad, case.grad[f"feats{suffix}"], tolerance)
    assert_matches(centres.grad, case.grad[f"centers{suffix}"], tolerance)


def draw(rng):
    features = torch.randn(6, 5, generator=rng, dtype=torch.float64)
    centres = torch.randn(4, 5, generator=rng, dtype=torch.float64)
    return features.requires_grad_(), torch.tensor([2, 0, 2, 3, 0, 2]), centres.requires_grad_()


def test_the_centre_loss_equals_a_slow_loop(rng):
    features, labels, centres = draw(rng)
    total = 0.0
    for row, label in enumerate(labels.tolist()):
        for a, b in zip(features[row].tolist(), centres[label].tolist(), strict=True):
            total += (a - b) ** 2
    assert centre_loss(features, labels, centres).item() == pytest.approx(total / 6, rel=1e-12)
    assert centre_loss(features, labels, centres, weight=0.25).item() == pytest.approx(total / 24, rel=1e-12)


def test_the_weight_scales_what_the_features_learn_and_not_what_the_centres_do(rng):
    features, labels, centres = draw(rng)
    centre_loss(features, labels, centres).backward()
    whole = features.grad.clone(), centres.grad.clone()
    features.grad = centres.grad = None
    centre_loss(features, labels, centres, weight=0.01).backward()
    torch.testing.assert_close(features.grad, 0.01 * whole[0])
    assert torch.equal(centres.grad, whole[1])
    assert not centres.grad[1].any()  # a class without a picture stays where it is
    for label in (0, 2, 3):
        own = features.detach()[labels == label]
        torch.testing.assert_close(centres.grad[label], (2 / 6) * (len(own) * centres.detach()[label] - own.sum(0)))


def test_the_order_of_the_batch_does_not_matter(rng):
    features, labels, centres = draw(rng)
    order = torch.randperm(6, generator=rng)
    found = centre_loss(features[order], labels[order], centres)
    torch.testing.assert_close(found, centre_loss(features, labels, centres))
