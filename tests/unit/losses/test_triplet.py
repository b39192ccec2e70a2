import math

import pytest
import torch

from tapetum.core.errors import TrainingError
from tapetum.core.vectors import normalise
from tapetum.losses.triplet import batch_hard_triplet

CASES = [
    "triplet_batch_hard_m03",
    "triplet_batch_hard_m03_shuffled_batch",
    "triplet_batch_hard_soft_margin",
    "triplet_batch_hard_normalised_m03",
]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("suffix", "dtype", "tolerance"), [("", torch.float32, 2e-5), ("_f64", torch.float64, 1e-9)])
def test_batch_hard_triplet_equals_the_original(golden, assert_matches, name, suffix, dtype, tolerance):
    case = golden("losses_metric", name)
    (features,) = case.leaves("feats", dtype=dtype)
    margin = float(case.cfg["margin"]) if "margin" in case.cfg else None
    used = normalise(features) if "normalised" in name else features
    loss = batch_hard_triplet(used, case.inputs["labels"], margin=margin)
    loss.backward()
    assert_matches(loss, case.out[f"loss{suffix}"], tolerance)
    assert_matches(features.grad, case.grad[f"feats{suffix}"], tolerance)


@pytest.mark.parametrize("margin", [0.3, None])
def test_batch_hard_triplet_equals_a_slow_loop_over_anchors(rng, margin):
    features = torch.randn(9, 4, generator=rng, dtype=torch.float64)
    labels = torch.tensor([2, 0, 1, 0, 2, 2, 1, 0, 1])
    total = 0.0
    for i in range(9):
        distances = [math.dist(features[i].tolist(), features[j].tolist()) for j in range(9)]
        positive = max(d for d, label in zip(distances, labels, strict=True) if label == labels[i])
        negative = min(d for d, label in zip(distances, labels, strict=True) if label != labels[i])
        excess = positive - negative
        total += math.log1p(math.exp(excess)) if margin is None else max(excess + margin, 0.0)
    assert float(batch_hard_triplet(features, labels, margin=margin)) == pytest.approx(total / 9, rel=1e-9)


def test_equal_features_have_a_finite_gradient():
    features = torch.ones(4, 3, requires_grad=True)
    batch_hard_triplet(features, torch.tensor([0, 0, 1, 1])).backward()
    assert torch.isfinite(features.grad).all()


def test_a_batch_of_one_identity_is_refused():
    with pytest.raises(TrainingError, match="one identity only"):
        batch_hard_triplet(torch.randn(3, 2), torch.zeros(3, dtype=torch.int64))
