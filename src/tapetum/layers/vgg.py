"""VGG-16 up to relu5_1 as a fixed judge of what two pictures show; it never learns and is no part of a checkpoint."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.errors import CheckpointError
from tapetum.layers.normalisation import STATISTICS
from tapetum.layers.weights import check_tensors, read_state

# Convolution -> its number among torchvision's `features`, and its channels.
CONVOLUTIONS = {
    "conv1_1": (0, 3, 64),
    "conv1_2": (2, 64, 64),
    "conv2_1": (5, 64, 128),
    "conv2_2": (7, 128, 128),
    "conv3_1": (10, 128, 256),
    "conv3_2": (12, 256, 256),
    "conv3_3": (14, 256, 256),
    "conv4_1": (17, 256, 512),
    "conv4_2": (19, 512, 512),
    "conv4_3": (21, 512, 512),
    "conv5_1": (24, 512, 512),
}
BEHIND_POOLING = ("conv2_1", "conv3_1", "conv4_1")  # not conv5_1, as in EnlightenGAN
KINDS = ("weight", "bias")


class VggFeatures(nn.Module):
    """Features of relu5_1 with the pooling before conv5_1 left out; NaN until weights are loaded.

    Source: the released code VITA-Group/EnlightenGAN, which takes weights converted from Caffe's, and BGR pictures in
    0..255 without subtracting a mean.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, (_, before, after) in CONVOLUTIONS.items():
            self.register_buffer(f"{name}_weight", torch.full((after, before, 3, 3), torch.nan), persistent=False)
            self.register_buffer(f"{name}_bias", torch.full((after,), torch.nan), persistent=False)
        self._was_filled = False
        for name in ("scale", "shift"):
            self.register_buffer(name, torch.full((1, 3, 1, 1), torch.nan), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 512, H // 8, W // 8) of (B, 3, H, W) RGB pictures in -1..1.

        Raises:
            CheckpointError: no weights were loaded.
        """
        if not self.is_filled():
            raise CheckpointError("VGG-16 has no weights yet; call load_weights with a file of them")
        maps = images * self.scale + self.shift
        for name in CONVOLUTIONS:
            if name in BEHIND_POOLING:
                maps = functional.max_pool2d(maps, 2)
            weight, bias = (self.get_buffer(f"{name}_{kind}") for kind in KINDS)
            maps = functional.relu(functional.conv2d(maps, weight, bias, padding=1))
        return maps

    def is_filled(self) -> bool:
        """Whether there are weights, from a file or from the state that a training goes on from."""
        self._was_filled = self._was_filled or not bool(self.scale.isnan().any())  # asked of a device once only
        return self._was_filled

    def load_weights(self, path: Path | str) -> None:
        """Fill the network; the names in the file say how its pictures are prepared.

        Args:
            path: torchvision's names (``features.0.weight``): RGB by ImageNet's mean and deviation. The release's names
                (``conv1_1.weight``): Caffe's weights, BGR in 0..255. Further layers are left out.
        Raises:
            CheckpointError: the file holds no VGG-16 by either name.
        """
        state = read_state(path)
        caffe = "conv1_1.weight" in state
        names = {
            f"{name if caffe else f'features.{number}'}.{kind}": f"{name}_{kind}"
            for name, (number, _, _) in CONVOLUTIONS.items()
            for kind in KINDS
        }
        own = {name: value for name, value in state.items() if name in names}
        check_tensors(own, {name: self.get_buffer(ours) for name, ours in names.items()}, f"VGG-16 in {path}")
        for name, ours in names.items():
            value = own[name]
            self.get_buffer(ours).copy_(value.flip(1) if caffe and ours == "conv1_1_weight" else value)
        if caffe:
            self.scale.fill_(127.5)
            self.shift.fill_(127.5)
        else:
            mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in STATISTICS["imagenet"])
            self.scale.copy_(0.5 / deviation)
            self.shift.copy_((0.5 - mean) / deviation)
