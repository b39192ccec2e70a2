"""EnlightenGAN's generator: a U-Net that is told how dark each pixel is, and changes the dark ones (TIP 2021)."""

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.layers.weights import check_tensors, read_state

PREFIXES = ("", "module.", "generator.")  # a file of its own, the release's (a parallel wrapper's), a method's
LUMA = (0.299, 0.587, 0.114)
DOWN, UP = (1, 2, 3, 4, 5), (6, 7, 8, 9)  # stages; 5 is the bottom
STEP = 2 ** (len(DOWN) - 1)  # height and width at the bottom are whole where they are multiples of this


def compute_darkness(images: Tensor) -> Tensor:
    """The self-regularised attention, (B, 1, H, W): 1 where a pixel is black, 0 where it is white.

    Args:
        images: (B, 3, H, W) RGB in -1..1.
    """
    luma = images.new_tensor(LUMA).view(1, 3, 1, 1)
    return 1 - ((images + 1) * luma).sum(1, keepdim=True) / 2


class AttentionUNet(nn.Module):
    """Five stages down and four up; skips, bottom and result are multiplied by the darkness at their resolution.

    Each stage is two 3x3 convolutions, each followed by leaky ReLU and then batch norm; the last of all has no norm.
    Upsampling is bilinear with a convolution behind it. Tensors are named as in the release.

    Args:
        width: channels of the first stage; each further one has twice as many (32 in the original: 8,636,675 weights).
        skip: what the picture counts in the result; 0 leaves the change alone.
        align_corners: of the bilinear upsampling. The release was written for PyTorch 0.3, where corners were aligned,
            and does not say so; today its code no longer aligns them.
        largest_width: wider pictures are halved before and doubled after, pixels.
    Source: the released code VITA-Group/EnlightenGAN, class Unet_resize_conv with its published options.
    Differs: reflection goes on where it would need more pixels than there are, which the release refuses; a halved
        picture of odd size comes back in its own size.
    """

    def __init__(
        self, width: int = 32, *, skip: float = 1.0, align_corners: bool = False, largest_width: int = 2200
    ) -> None:
        super().__init__()
        self.skip, self.align_corners, self.largest_width = skip, align_corners, largest_width
        before = 4  # colours and darkness
        for stage in DOWN:
            channels = width * 2 ** (stage - 1)
            self._add_stage(stage, before, channels)
            before = channels
        for stage in UP:
            channels = before // 2
            self.add_module(f"deconv{stage - 1}", nn.Conv2d(before, channels, 3, padding=1))
            self._add_stage(stage, before, channels)
            before = channels
        self.conv10 = nn.Conv2d(width, 3, 1)

    def _add_stage(self, stage: int, before: int, channels: int) -> None:
        for part, inputs in ((1, before), (2, channels)):
            self.add_module(f"conv{stage}_{part}", nn.Conv2d(inputs, channels, 3, padding=1))
            if (stage, part) != (UP[-1], 2):
                self.add_module(f"bn{stage}_{part}", nn.BatchNorm2d(channels))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Brightened pictures and what was added to them, both (B, 3, H, W); neither is clipped.

        Args:
            images: (B, 3, H, W) RGB in -1..1, of any size.
        """
        size = images.shape[2:]
        darkness = compute_darkness(images)
        halved = size[1] > self.largest_width
        if halved:
            images, darkness = (functional.avg_pool2d(maps, 2) for maps in (images, darkness))
        height, width = images.shape[2:]
        images, darkness = (_pad(_pad(maps, 2), 3) for maps in (images, darkness))
        scales = _halvings(darkness)
        maps, kept = self._descend(images, scales)
        for stage, skip, dark in zip(UP, reversed(kept), reversed(scales[:-1]), strict=True):
            maps = functional.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=self.align_corners)
            maps = self._run(f"deconv{stage - 1}", maps)
            maps = self._unit(f"{stage}_2", self._unit(f"{stage}_1", torch.cat((maps, skip * dark), 1)))
        change = self.conv10(maps) * darkness
        results = [change + self.skip * images, change]
        top, left = (images.shape[2] - height) // 2, (images.shape[3] - width) // 2
        results = [maps[:, :, top : top + height, left : left + width] for maps in results]
        if halved:
            results = [
                functional.interpolate(maps, size=size, mode="bilinear", align_corners=self.align_corners)
                for maps in results
            ]
        return results[0], results[1]

    def describe(self, images: Tensor) -> Tensor:
        """What the bottom holds on average, (B, 16 width); pictures as for `forward`."""
        images, darkness = (_pad(_pad(maps, 2), 3) for maps in (images, compute_darkness(images)))
        return self._descend(images, _halvings(darkness))[0].mean((2, 3))

    def enhance(self, images: Tensor) -> Tensor:
        """Brightened pictures, (B, 3, H, W) float32 clipped to 0..1, as those given are."""
        brightened: Tensor = self(2 * images - 1)[0]
        return ((brightened.float() + 1) / 2).clamp(0, 1)

    def _descend(self, images: Tensor, scales: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Maps of the bottom, and those of the stages above it."""
        maps, kept = torch.cat((images, scales[0]), 1), []
        for stage in DOWN[:-1]:
            maps = self._unit(f"{stage}_2", self._unit(f"{stage}_1", maps))
            kept.append(maps)
            maps = functional.max_pool2d(maps, 2)
        return self._unit("5_2", self._unit("5_1", maps) * scales[-1]), kept

    def _unit(self, name: str, maps: Tensor) -> Tensor:
        maps = functional.leaky_relu(self._run(f"conv{name}", maps), 0.2)
        return self._run(f"bn{name}", maps) if f"bn{name}" in self._modules else maps

    def _run(self, name: str, maps: Tensor) -> Tensor:
        return cast(Tensor, self.get_submodule(name)(maps))

    def load_weights(self, path: Path | str) -> None:
        """Fill the network from the release's generator (``200_net_G_A.pth``), or any file that holds this network.

        Raises:
            CheckpointError: the file does not hold such a network of this width.
        """
        state = read_state(path)
        prefix = next((prefix for prefix in PREFIXES if f"{prefix}conv1_1.weight" in state), "")
        own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        check_tensors(own, self.state_dict(), f"EnlightenGAN's generator in {path}")
        self.load_state_dict(own)


def _halvings(darkness: Tensor) -> list[Tensor]:
    """The darkness at each stage's resolution, each the darkest of four of the one before."""
    scales = [darkness]
    for _ in DOWN[1:]:
        scales.append(functional.max_pool2d(scales[-1], 2))
    return scales


def _pad(maps: Tensor, axis: int) -> Tensor:
    """An axis reflected at both ends until its length is a multiple of the network's step; the end has the odd one."""
    length = maps.shape[axis]
    missing = -length % STEP
    if not missing:
        return maps
    places = torch.arange(-(missing // 2), length + missing - missing // 2, device=maps.device)
    period = max(1, 2 * (length - 1))
    places = places.remainder(period)
    return maps.index_select(axis, torch.minimum(places, period - places).clamp(max=length - 1))
