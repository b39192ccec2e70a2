import pytest
import torch

from tapetum.core.errors import TrainingError
from tapetum.losses.exposure import exposure


def test_exposure_equals_the_original(golden, assert_matches):
    case = golden("losses_enhancement", "exposure_16_06")
    (enhanced,) = case.leaves("enhanced")
    loss = exposure(enhanced, patch=int(case.cfg["patch"]), level=float(case.cfg["level"]))
    loss.backward()
    assert_matches(loss, case.out["loss"], 2e-5)
    assert_matches(enhanced.grad, case.grad["enhanced"], 2e-5)


@pytest.mark.parametrize("power", [1, 2])
def test_exposure_equals_a_slow_loop_over_patches(rng, power):
    enhanced = torch.rand(2, 3, 9, 8, generator=rng, dtype=torch.float64)
    deviations = [
        abs(float(picture[:, top : top + 4, left : left + 4].mean()) - 0.6) ** power
        for picture in enhanced
        for top in (0, 4)  # the ninth row fills no patch
        for left in (0, 4)
    ]
    ours = exposure(enhanced, patch=4, power=power)
    assert float(ours) == pytest.approx(sum(deviations) / len(deviations), rel=1e-12)


def test_pictures_smaller_than_a_patch_are_refused_with_both_sizes():
    with pytest.raises(TrainingError, match=r"12x40 hold no patch of 16"):
        exposure(torch.zeros(1, 3, 12, 40))
