import pytest
import torch

from tapetum.layers.normalisation import Normalise


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none", [0.5, 0.5, 0.5]),
        ("half", [0.0, 0.0, 0.0]),
        ("imagenet", [(0.5 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0.5 - 0.406) / 0.225]),
    ],
)
def test_each_named_normalisation_shifts_and_scales_by_channel(name, expected):
    normalised = Normalise(name)(torch.full((2, 3, 1, 1), 0.5))
    torch.testing.assert_close(normalised[1, :, 0, 0], torch.tensor(expected))


def test_the_statistics_are_not_written_to_checkpoints():
    assert not Normalise("imagenet").state_dict()
