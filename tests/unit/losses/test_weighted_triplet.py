import math

import pytest
import torch

from tapetum.core.errors import TrainingError
from tapetum.core.vectors import normalise
from tapetum.losses.weighted_triplet import weighted_triplet


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("losses_metric", "triplet_weighted_regularised"),
        ("losses_metric", "triplet_weighted_regularised_normalised"),
        ("strong_baselines", "triplet_weighted_regularised_single_modality"),
    ],
)
@pytest.mark.parametrize(("suffix", "dtype", "tolerance"), [("", torch.float32, 2e-3), ("_f64", torch.float64, 1e-5)])
def test_the_weighted_triplet_loss_equals_the_original(golden, assert_matches, file, name, suffix, dtype, tolerance):
    case = golden(file, name)
    (features,) = case.leaves("feats", dtype=dtype)
    used = normalise(features) if "normalised" in name else features
    loss = weighted_triplet(used, case.inputs["labels"])
    loss.backward()
    assert_matches(loss, case.out[f"loss{suffix}"], tolerance)
    assert_matches(features.grad, case.grad[f"feats{suffix}"], tolerance)


def slow_loss(features, labels, numerics):
    total = 0.0
    for i in range(len(labels)):
        distances = [max(math.dist(a, features[i].tolist()), 1e-6) for a in features.tolist()]
        eps = 1e-6 if numerics == "released" else 0.0
        positives = [d for d, label in zip(distances, labels, strict=True) if label == labels[i]]
        negatives = [d for d, label in zip(distances, labels, strict=True) if label != labels[i]]
        shift = max(positives)
        weights = [math.exp(d - shift) for d in positives]
        positive = sum(w * d for w, d in zip(weights, positives, strict=True)) / (sum(weights) + eps)
        shift = 0.0 if numerics == "released" else min(negatives)
        weights = [math.exp(shift - d) for d in negatives]
        negative = sum(w * d for w, d in zip(weights, negatives, strict=True)) / (sum(weights) + eps)
        total += math.log1p(math.exp(positive - negative))
    return total / len(labels)


@pytest.mark.parametrize("numerics", ["released", "stable"])
@pytest.mark.parametrize("spread", [0.5, 3.0, 12.0])
def test_the_weighted_triplet_loss_equals_a_slow_loop_over_anchors(rng, numerics, spread):
    features = spread * torch.randn(9, 4, generator=rng, dtype=torch.float64)
    labels = torch.tensor([2, 0, 1, 0, 2, 2, 1, 0, 1])
    found = float(weighted_triplet(features, labels, numerics=numerics))
    assert found == pytest.approx(slow_loss(features, labels, numerics), rel=1e-9)


def test_both_numerics_agree_on_near_pictures_and_part_on_far_ones(rng):
    labels = torch.arange(8) // 2
    centres = torch.randn(4, 6, generator=rng, dtype=torch.float64)[labels]
    features = centres + 0.1 * torch.randn(8, 6, generator=rng, dtype=torch.float64)
    near = [float(weighted_triplet(features, labels, numerics=n)) for n in ("released", "stable")]
    assert near[0] == pytest.approx(near[1], rel=1e-4)
    far = [float(weighted_triplet(40 * centres, labels, numerics=n)) for n in ("released", "stable")]
    assert far[0] == pytest.approx(math.log(2), abs=1e-3)  # the negatives' weighted distance fell to zero
    assert far[1] < 1e-6


@pytest.mark.parametrize("numerics", ["released", "stable"])
def test_the_order_of_the_batch_does_not_matter(rng, numerics):
    features = torch.randn(12, 8, generator=rng)
    labels = torch.arange(12) // 4
    order = torch.randperm(12, generator=rng)
    found = weighted_triplet(features[order], labels[order], numerics=numerics)
    torch.testing.assert_close(found, weighted_triplet(features, labels, numerics=numerics), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("numerics", ["released", "stable"])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e3])
def test_equal_and_very_distant_features_have_a_finite_gradient(rng, numerics, scale):
    features = (scale * torch.randn(6, 5, generator=rng)).requires_grad_()
    loss = weighted_triplet(features, torch.arange(6) // 2, numerics=numerics)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(features.grad).all()


def test_a_batch_of_one_identity_is_refused():
    with pytest.raises(TrainingError, match="one identity only"):
        weighted_triplet(torch.randn(3, 2), torch.zeros(3, dtype=torch.int64))
