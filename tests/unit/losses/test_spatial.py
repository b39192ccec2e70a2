import pytest
import torch

from tapetum.losses.spatial import spatial_consistency, spatial_consistency_map


def test_spatial_consistency_equals_the_original(golden, assert_matches):
    case = golden("losses_enhancement", "spatial")
    original, enhanced = case.leaves("original", "enhanced")
    loss = spatial_consistency(original, enhanced, pool=int(case.cfg["pool"]))
    loss.backward()
    assert_matches(loss, case.out["loss"], 2e-5)
    assert_matches(spatial_consistency_map(original, enhanced), case.out["map"], 2e-5)
    assert_matches(original.grad, case.grad["original"], 2e-5)
    assert_matches(enhanced.grad, case.grad["enhanced"], 2e-5)


@pytest.mark.parametrize("reading", ["code", "paper"])
def test_spatial_consistency_equals_a_slow_loop_over_regions(rng, reading):
    original, enhanced = torch.rand(2, 2, 3, 6, 4, generator=rng, dtype=torch.float64)

    def level(picture, row, column):
        if not (0 <= row < 3 and 0 <= column < 2):
            return 0.0
        return float(picture[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].mean())

    total = 0.0
    for before, after in zip(original, enhanced, strict=True):
        for row in range(3):
            for column in range(2):
                for down, right in ((0, -1), (0, 1), (-1, 0), (1, 0)):
                    contrasts = [
                        level(picture, row, column) - level(picture, row + down, column + right)
                        for picture in (before, after)
                    ]
                    if reading == "paper":
                        contrasts = [abs(contrast) for contrast in contrasts]
                    total += (contrasts[0] - contrasts[1]) ** 2
    ours = spatial_consistency(original, enhanced, pool=2, reading=reading)
    assert float(ours) == pytest.approx(total / 12, rel=1e-12)


def test_a_picture_is_consistent_with_itself(rng):
    picture = torch.rand(1, 3, 8, 8, generator=rng)
    assert float(spatial_consistency(picture, picture)) == 0
