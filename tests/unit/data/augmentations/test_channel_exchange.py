import numpy as np
import pytest
import torch

from fixed_draws import FixedDraws
from tapetum.data.augmentations.channel_exchange import Options, change
from tapetum.data.transforms import to_float, to_tensor
from tapetum.layers.normalisation import Normalise

PICTURES = np.random.default_rng(0).integers(0, 256, (6, 8, 4, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["imagenet", "half", "none"])
def test_behind_the_normalisation_all_channels_are_the_drawn_one(name: str) -> None:
    numbers = np.array([0.0, 0.3, 0.34, 0.66, 0.67, 0.99])
    images = to_tensor(change(to_float(PICTURES), Options(name), FixedDraws(numbers)))  # type: ignore[arg-type]
    before, after = (Normalise(name)(each) for each in (to_tensor(to_float(PICTURES)), images))  # type: ignore[arg-type]
    for picture, result, channel in zip(before, after, [0, 0, 1, 1, 2, 2], strict=True):
        torch.testing.assert_close(result, picture[[channel] * 3], atol=2e-6, rtol=0)
