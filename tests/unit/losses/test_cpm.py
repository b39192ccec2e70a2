import math

import pytest
import torch

from tapetum.losses.cpm import centre_pair_mining, compute_centres

CASES = ["cpm_requested_margin_02", "cpm_requested_margin_07", "cpm_far_apart"]


def read_blocks(case, dtype):
    """Four blocks of 5 identities x 3 (visible, infrared, both expanded) as original and expanded batch."""
    (features,) = case.leaves("feats", dtype=dtype)
    rows = len(features) // 2
    labels = case.inputs["labels"]
    assert torch.equal(labels[:rows], labels[rows:])
    modalities = torch.arange(rows) // (rows // 2)
    return features, features.view(2, rows, -1), labels[:rows], modalities


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("suffix", "dtype", "tolerance"), [("", torch.float32, 2e-5), ("_f64", torch.float64, 1e-9)])
def test_pair_mining_equals_the_original(golden, assert_matches, name, suffix, dtype, tolerance):
    case = golden("losses_metric", name)
    features, groups, labels, modalities = read_blocks(case, dtype)
    loss = centre_pair_mining(groups, labels, modalities)
    loss.backward()
    assert_matches(loss, case.out[f"loss{suffix}"], tolerance)
    assert_matches(features.grad, case.grad[f"feats{suffix}"], tolerance)


def make_groups(rng, labels, groups=3):
    return 0.3 * torch.randn(groups, len(labels), 4, generator=rng, dtype=torch.float64)


def mine_slowly(features, labels, modalities, *, form="code", sides="mean", margin=0.2):
    """From the formulas, identity by identity."""

    def centre(group, modality, label):
        rows = [
            features[group, i].tolist() for i in range(len(labels)) if labels[i] == label and modalities[i] == modality
        ]
        return [sum(values) / len(rows) for values in zip(*rows, strict=True)]

    seen = [{int(label) for label, m in zip(labels, modalities, strict=True) if m == own} for own in (0, 1)]
    names = sorted(seen[0] & seen[1])
    total = 0.0
    for group in range(1, len(features)):
        parts = []
        for own in (0, 1):
            hinges = []
            for j in names:
                expanded, original = centre(group, own, j), centre(0, own, j)
                across = math.dist(centre(0, 1 - own, j), expanded)
                within = math.dist(original, expanded)
                others = [k for k in names if k != j]
                near_expanded = min((math.dist(expanded, centre(group, own, k)) for k in others), default=math.inf)
                near_original = min((math.dist(original, centre(0, own, k)) for k in others), default=math.inf)
                if form == "poster":
                    hinges.append(max(across - within - near_original + margin, 0))
                else:
                    hinges.append(
                        max(across - within + margin, 0)
                        + max(across - near_expanded + margin, 0) / 2
                        + max(across - near_original + margin, 0) / 2
                    )
            parts.append(sum(hinges) / len(hinges))
        total += sum(parts) / (2 if sides == "mean" else 1)
    return total


LABELS = torch.tensor([4, 1, 1, 0, 4, 0, 1, 1, 4, 0, 0])
MODALITIES = torch.tensor([0, 1, 0, 1, 1, 0, 0, 1, 1, 1, 0])


@pytest.mark.parametrize("form", ["code", "poster"])
@pytest.mark.parametrize("sides", ["mean", "sum"])
def test_pair_mining_equals_a_slow_loop_on_a_shuffled_batch_of_unequal_parts(rng, form, sides):
    features = make_groups(rng, LABELS)
    loss = centre_pair_mining(features, LABELS, MODALITIES, form=form, sides=sides, margin=0.5)
    expected = mine_slowly(features, LABELS, MODALITIES, form=form, sides=sides, margin=0.5)
    assert float(loss) == pytest.approx(expected, rel=1e-9)
    assert expected > 0


def test_the_order_of_the_batch_does_not_matter(rng):
    features = make_groups(rng, LABELS)
    order = torch.randperm(len(LABELS), generator=rng)
    again = centre_pair_mining(features[:, order], LABELS[order], MODALITIES[order])
    torch.testing.assert_close(again, centre_pair_mining(features, LABELS, MODALITIES))


def test_an_identity_of_one_modality_has_no_part(rng):
    features = make_groups(rng, LABELS)
    labels = torch.cat((LABELS, torch.tensor([7, 7, 8])))
    modalities = torch.cat((MODALITIES, torch.tensor([0, 0, 1])))
    longer = torch.cat((features, make_groups(rng, torch.zeros(3))), 1)
    torch.testing.assert_close(
        centre_pair_mining(longer, labels, modalities), centre_pair_mining(features, LABELS, MODALITIES)
    )


def test_without_an_identity_in_both_modalities_the_loss_is_a_zero_with_a_gradient(rng):
    features = make_groups(rng, LABELS).requires_grad_()
    loss = centre_pair_mining(features, LABELS, torch.zeros_like(LABELS))
    loss.backward()
    assert loss == 0
    assert torch.equal(features.grad, torch.zeros_like(features))


def test_a_single_identity_has_no_other_to_be_apart_from(rng):
    features = make_groups(rng, torch.zeros(4)).requires_grad_()
    labels, modalities = torch.zeros(4, dtype=torch.int64), torch.tensor([0, 1, 0, 1])
    loss = centre_pair_mining(features, labels, modalities)
    loss.backward()
    assert loss.item() == pytest.approx(mine_slowly(features.detach(), labels, modalities), rel=1e-9)
    assert torch.isfinite(features.grad).all()


def test_the_distance_within_a_modality_is_detached_unless_asked_for(rng):
    gradients = []
    for detach in (True, False):
        features = make_groups(rng, LABELS).requires_grad_()
        centre_pair_mining(features, LABELS, MODALITIES, detach=detach, margin=5.0).backward()
        gradients.append(features.grad)
    assert not torch.allclose(*gradients)


def test_equal_features_have_a_finite_gradient():
    features = torch.ones(3, len(LABELS), 4, requires_grad=True)
    centre_pair_mining(features, LABELS, MODALITIES).backward()
    assert torch.isfinite(features.grad).all()


def test_centres_are_means_by_label_and_modality(rng):
    features = make_groups(rng, LABELS)
    centres = compute_centres(features, LABELS, MODALITIES)
    assert centres.shape == (3, 2, 3, 4)
    expected = features[2, (LABELS == 4) & (MODALITIES == 1)].mean(0)
    torch.testing.assert_close(centres[2, 1, 2], expected)
