import math

import pytest
import torch
from torch.nn import functional

from tapetum.layers.pooling import GeM, pool_gem, pool_stripes


def test_generalised_mean_pooling_equals_the_original(golden, assert_matches):
    case = golden("modules_other", "gem_p3")
    (x,) = case.leaves("x")
    pooled = pool_gem(x)
    (pooled * case.inputs["probe_y"].flatten(1)).sum().backward()
    assert_matches(pooled, case.out["y"].flatten(1), 2e-4)
    assert_matches(x.grad, case.grad["x"], 1e-3)


def test_generalised_mean_pooling_equals_a_slow_loop(rng):
    maps = torch.rand(2, 3, 4, 5, generator=rng, dtype=torch.float64)
    for picture in range(2):
        for channel in range(3):
            cubes = [value**3 for value in maps[picture, channel].flatten().tolist()]
            expected = (sum(cubes) / len(cubes) + 1e-12) ** (1 / 3)
            assert float(pool_gem(maps)[picture, channel]) == pytest.approx(expected, rel=1e-12)


def test_a_larger_power_moves_from_the_average_to_the_maximum(rng):
    maps = 0.5 + torch.rand(2, 3, 4, 5, generator=rng, dtype=torch.float64)
    torch.testing.assert_close(pool_gem(maps, 1.0), maps.mean((2, 3)))
    torch.testing.assert_close(pool_gem(maps, 400.0), maps.amax((2, 3)), rtol=0.01, atol=0)


def test_an_empty_channel_has_a_finite_gradient():
    maps = torch.zeros(1, 2, 3, 3, requires_grad=True)
    pool_gem(maps).sum().backward()
    assert torch.isfinite(maps.grad).all()


def test_under_autocast_the_mean_is_taken_in_float32(rng):
    maps = torch.rand(2, 3, 8, 8, generator=rng)
    with torch.autocast("cpu", torch.bfloat16):
        inside = pool_gem(maps)
    assert torch.equal(inside, pool_gem(maps))


def test_negative_values_count_as_zero():
    maps = torch.tensor([[[[-2.0, -1.0]], [[-1.0, 2.0]]]], requires_grad=True)
    pooled = pool_gem(maps)
    torch.testing.assert_close(pooled, pool_gem(maps.detach().clamp(min=0)))
    pooled.sum().backward()
    assert torch.isfinite(maps.grad).all()


def test_learned_pooling_equals_the_original_with_the_gradient_of_its_power(golden, assert_matches):
    case = golden("strong_baselines", "gem_learnable_p25")
    (x,) = case.leaves("x")
    pool = GeM(float(case.param["p"]))
    pooled = pool(x)
    (pooled * case.inputs["probe_y"].flatten(1)).sum().backward()
    assert_matches(pooled, case.out["y"].flatten(1), 2e-4)
    assert_matches(x.grad, case.grad["x"], 1e-3)
    assert_matches(pool.power.grad, case.grad["param.p"], 1e-3)


def test_learned_pooling_equals_a_slow_loop(rng):
    maps = torch.randn(2, 3, 4, 5, generator=rng, dtype=torch.float64)
    pooled = GeM(2.5).double()(maps)
    for picture in range(2):
        for channel in range(3):
            powers = [max(value, 1e-6) ** 2.5 for value in maps[picture, channel].flatten().tolist()]
            assert pooled[picture, channel].item() == pytest.approx((sum(powers) / len(powers)) ** (1 / 2.5), rel=1e-12)


def test_an_empty_channel_gives_a_learned_power_a_finite_gradient():
    maps, pool = torch.zeros(1, 2, 3, 3, requires_grad=True), GeM()
    pool(maps).sum().backward()
    assert torch.isfinite(maps.grad).all()
    assert torch.isfinite(pool.power.grad).all()


def test_under_autocast_the_learned_mean_is_taken_in_float32(rng):
    maps, pool = torch.rand(2, 3, 8, 8, generator=rng), GeM()
    with torch.autocast("cpu", torch.bfloat16):
        inside = pool(maps)
    assert torch.equal(inside, pool(maps))


@pytest.mark.parametrize(("height", "stripes"), [(24, 6), (8, 6), (2, 6), (7, 3), (5, 1)])
def test_stripes_equal_a_slow_loop_and_torchs_adaptive_pooling(height, stripes, rng):
    maps = torch.rand(2, 3, height, 4, generator=rng, dtype=torch.float64)
    found = pool_stripes(maps, stripes)
    assert found.shape == (2, stripes, 3)
    for stripe in range(stripes):
        first, last = stripe * height // stripes, math.ceil((stripe + 1) * height / stripes)
        for picture in range(2):
            for channel in range(3):
                places = maps[picture, channel, first:last].flatten().tolist()
                expected = sum(places) / len(places)
                assert float(found[picture, stripe, channel]) == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(found.transpose(1, 2), functional.adaptive_avg_pool2d(maps, (stripes, 1)).squeeze(3))


def test_stripes_of_a_bfloat16_map_are_averaged_in_float32(rng):
    maps = torch.rand(2, 3, 12, 8, generator=rng).bfloat16()
    assert torch.equal(pool_stripes(maps, 6), pool_stripes(maps.float(), 6))
