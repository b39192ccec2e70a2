import numpy as np
from PIL import Image

from fixed_draws import draw_anew
from tapetum.data.augmentations.grayscale import Options, change


def test_grey_pictures_are_pillow_s_to_the_last_bit() -> None:
    corners = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    drawn = np.random.default_rng(0).integers(0, 256, (24, 32, 16, 3), dtype=np.uint8)
    pictures = np.concatenate([drawn, np.broadcast_to(corners[:, None, None], (5, 32, 16, 3))])
    found = change(pictures.copy(), Options(), draw_anew(0, 29))
    for picture, result in zip(pictures, found, strict=True):
        assert np.array_equal(result, np.asarray(Image.fromarray(picture).convert("L").convert("RGB")))
