import pytest
import torch

from tapetum.losses.orthogonality import orthogonality


@pytest.mark.parametrize(("suffix", "dtype", "tolerance"), [("", torch.float32, 2e-5), ("_f64", torch.float64, 1e-9)])
def test_orthogonality_equals_the_original(golden, assert_matches, suffix, dtype, tolerance):
    case = golden("losses_metric", "orthogonal")
    (expansions,) = case.leaves("expansions", dtype=dtype)
    loss = orthogonality(expansions.view(3, int(case.cfg["batch"]), -1))
    loss.backward()
    assert_matches(loss, case.out[f"loss{suffix}"], tolerance)
    assert_matches(expansions.grad, case.grad[f"expansions{suffix}"], tolerance)


@pytest.mark.parametrize("pairs", ["branches", "all"])
@pytest.mark.parametrize("normalise", [False, True])
def test_orthogonality_equals_a_slow_loop_over_pictures_and_pairs(rng, pairs, normalise):
    features = torch.rand(3, 5, 4, generator=rng, dtype=torch.float64)
    total = 0.0
    for picture in range(5):
        for a, b in [(1, 2)] if pairs == "branches" else [(0, 1), (0, 2), (1, 2)]:
            first, second = features[a, picture], features[b, picture]
            product = float(first @ second)
            total += product / float(first.norm() * second.norm()) if normalise else product
    assert float(orthogonality(features, normalise=normalise, pairs=pairs)) == pytest.approx(total / 15, rel=1e-9)


def test_branches_that_say_different_things_cost_nothing(rng):
    features = torch.rand(3, 2, 6, generator=rng)
    features[1, :, :3] = 0
    features[2, :, 3:] = 0
    assert orthogonality(features) == 0
    assert orthogonality(features, pairs="all") > 0
