import numpy as np

from fixed_draws import draw_anew
from tapetum.data.augmentations.flip_vertical import Options, change


def test_a_mirrored_picture_is_reversed_from_top_to_bottom() -> None:
    pictures = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    found = change(pictures, Options(), draw_anew(0, 2))
    for y in range(3):
        assert np.array_equal(found[:, y], pictures[:, 2 - y])
