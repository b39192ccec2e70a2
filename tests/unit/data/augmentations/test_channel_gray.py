import numpy as np
import torch

from fixed_draws import FixedDraws, draw_anew
from tapetum.data.augmentations.channel_gray import Options, change
from tapetum.data.transforms import to_float, to_tensor
from tapetum.layers.normalisation import Normalise

PICTURES = np.random.default_rng(0).integers(0, 256, (6, 8, 4, 3), dtype=np.uint8)


def test_behind_the_normalisation_a_picture_is_one_channel_grey_or_as_it_was() -> None:
    numbers = np.array([[0.1, 0.9], [0.3, 0.9], [0.6, 0.9], [0.8, 0.4], [0.8, 0.6], [0.99, 0.0]])
    images = to_tensor(change(to_float(PICTURES), Options(), FixedDraws(numbers)))
    before, after = (Normalise("imagenet")(each) for each in (to_tensor(to_float(PICTURES)), images))
    for place, channel in enumerate((0, 1, 2)):
        torch.testing.assert_close(after[place], before[place, [channel] * 3], atol=2e-6, rtol=0)
    for place in (3, 5):
        grey = 0.2989 * before[place, 0] + 0.5870 * before[place, 1] + 0.1140 * before[place, 2]
        torch.testing.assert_close(after[place], grey.expand(3, 8, 4), atol=2e-6, rtol=0)
    assert torch.equal(images[4], to_tensor(to_float(PICTURES))[4])


def test_the_four_choices_and_grey_are_as_likely_as_in_the_release() -> None:
    pictures = np.tile(np.array([0.1, 0.4, 0.7], np.float32), (4000, 1, 1, 1)).reshape(4000, 1, 1, 3)
    found = change(pictures.copy(), Options(normalisation="none"), draw_anew(0, 4000))[:, 0, 0]
    same = (found == pictures[0, 0, 0]).all(1).mean()
    channels = [np.isclose(found, value).all(1).mean() for value in (0.1, 0.4, 0.7)]
    assert np.abs(np.array(channels) - 0.25).max() < 0.035
    assert abs(same - 0.125) < 0.03
