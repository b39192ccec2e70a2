import pytest
import torch

from tapetum.losses.curve_smoothness import curve_smoothness


@pytest.mark.parametrize(("suffix", "dtype", "tolerance"), [("", torch.float32, 2e-5), ("_f64", torch.float64, 1e-9)])
def test_curve_smoothness_equals_the_original(golden, assert_matches, suffix, dtype, tolerance):
    case = golden("losses_enhancement", "tv")
    (curves,) = case.leaves("curves", dtype=dtype)
    loss = curve_smoothness(curves)
    loss.backward()
    assert_matches(loss, case.out[f"loss{suffix}"], tolerance)
    assert_matches(curves.grad, case.grad[f"curves{suffix}"], tolerance)


@pytest.mark.parametrize("reading", ["code", "paper"])
def test_curve_smoothness_equals_a_slow_loop_over_pixels(rng, reading):
    curves = torch.rand(2, 3, 4, 5, generator=rng, dtype=torch.float64)
    vertical = horizontal = crossed = 0.0
    for maps in curves:
        for plane in maps.tolist():
            for row in range(4):
                for column in range(5):
                    down = plane[row + 1][column] - plane[row][column] if row < 3 else 0.0
                    right = plane[row][column + 1] - plane[row][column] if column < 4 else 0.0
                    vertical += down**2
                    horizontal += right**2
                    crossed += (abs(down) + abs(right)) ** 2
    expected = 2 * (vertical / (3 * 5) + horizontal / (4 * 4)) / 2 if reading == "code" else crossed / (2 * 4 * 5)
    assert float(curve_smoothness(curves, reading=reading)) == pytest.approx(expected, rel=1e-12)


def test_the_written_out_gradient_is_the_numerical_one(rng):
    curves = torch.rand(2, 3, 3, 4, generator=rng, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(curve_smoothness, (curves,))


def test_maps_of_one_row_or_column_have_no_steps_that_way():
    assert float(curve_smoothness(torch.tensor([0.0, 1.0]).view(1, 1, 1, 2))) == 2.0
    assert float(curve_smoothness(torch.ones(1, 24, 1, 1))) == 0.0
