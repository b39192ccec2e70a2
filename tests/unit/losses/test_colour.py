import pytest
import torch

from tapetum.losses.colour import colour_constancy


@pytest.mark.parametrize(("suffix", "dtype", "tolerance"), [("", torch.float32, 2e-5), ("_f64", torch.float64, 1e-9)])
def test_colour_constancy_equals_the_original(golden, assert_matches, suffix, dtype, tolerance):
    case = golden("losses_enhancement", "colour")
    (enhanced,) = case.leaves("enhanced", dtype=dtype)
    loss = colour_constancy(enhanced)
    loss.backward()
    assert_matches(loss, case.out[f"loss{suffix}"], tolerance)
    assert_matches(enhanced.grad, case.grad[f"enhanced{suffix}"], tolerance)


@pytest.mark.parametrize("reading", ["code", "paper"])
def test_colour_constancy_equals_a_slow_loop(rng, reading):
    enhanced = torch.rand(3, 3, 5, 4, generator=rng, dtype=torch.float64)
    total = 0.0
    for picture in enhanced:
        red, green, blue = (float(channel.sum()) / 20 for channel in picture)
        differences = [(red - green) ** 2, (red - blue) ** 2, (blue - green) ** 2]
        total += sum(differences) if reading == "paper" else sum(d**2 for d in differences) ** 0.5
    assert float(colour_constancy(enhanced, reading=reading)) == pytest.approx(total / 3, rel=1e-12)


@pytest.mark.parametrize("level", [0.0, 0.25])
def test_a_black_or_grey_picture_gives_a_zero_loss_with_a_zero_gradient_instead_of_nan(level):
    enhanced = torch.full((2, 3, 8, 4), level, requires_grad=True)
    loss = colour_constancy(enhanced)
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.equal(enhanced.grad, torch.zeros_like(enhanced))


def test_a_coloured_picture_keeps_its_gradient_in_the_range_up_to_one_255th(rng):
    enhanced = (torch.rand(2, 3, 8, 4, generator=rng) / 255).requires_grad_()
    wide = enhanced.detach().double().requires_grad_()
    colour_constancy(enhanced).backward()
    colour_constancy(wide).backward()
    torch.testing.assert_close(enhanced.grad.double(), wide.grad, rtol=1e-3, atol=0)
    assert float(wide.grad.abs().min()) > 0
