"""DCE-Net: estimates light-enhancement curves for each pixel and applies them (Zero-DCE, CVPR 2020)."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.layers.weights import check_names, check_shapes, read_state

PREFIXES = ("", "E_Net.", "enhancer.", "module.")  # Zero-DCE's snapshot, IDF's release, ours, a parallel wrapper's


def apply_curves(images: Tensor, curves: Tensor) -> Tensor:
    """I <- I + r (I^2 - I) once for each group of three curve maps; nothing is clipped.

    Args:
        images: (B, 3, H, W).
        curves: (B, 3 n, H, W), r_1 ... r_n in order; a negative r brightens.
    Returns:
        (B, 3, H, W).
    Source: Zero-DCE release; the paper's A is -r.
    """
    for step in torch.split(curves.to(images.dtype), 3, dim=1):
        images = torch.addcmul(images, step, images * images - images)
    return images


class CurveNet(nn.Module):
    """Seven 3x3 convolutions with symmetric skips; the last one gives the curve maps through tanh.

    Args:
        width: channels of the hidden layers (32 in the original: 79,416 parameters).
        iterations: how often the curves are applied.
        curve_scale: 1 estimates the curves at the pictures' resolution, as the original does; 0.5 at half of it, with
            bilinear upsampling of the maps (about a quarter of the cost).
    """

    def __init__(self, width: int = 32, *, iterations: int = 8, curve_scale: float = 1.0) -> None:
        super().__init__()
        self.curve_scale = curve_scale
        self.e_conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.e_conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.e_conv3 = nn.Conv2d(width, width, 3, padding=1)
        self.e_conv4 = nn.Conv2d(width, width, 3, padding=1)
        self.e_conv5 = nn.Conv2d(2 * width, width, 3, padding=1)
        self.e_conv6 = nn.Conv2d(2 * width, width, 3, padding=1)
        self.e_conv7 = nn.Conv2d(2 * width, 3 * iterations, 3, padding=1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Enhanced pictures and the maps that made them.

        Args:
            images: (B, 3, H, W).
        Returns:
            (B, 3, H, W) and (B, 3 n, H, W).
        """
        curves = self.curves(images)
        return apply_curves(images, curves), curves

    def curves(self, images: Tensor) -> Tensor:
        """Curve maps in -1..1, (B, 3 n, H, W) in the pictures' type, r_1 ... r_n in order.

        Args:
            images: (B, 3, H, W).
        """
        x = images
        if self.curve_scale != 1:
            x = functional.interpolate(x, scale_factor=self.curve_scale, mode="bilinear", antialias=True)
        x1 = functional.relu(self.e_conv1(x), inplace=True)
        x2 = functional.relu(self.e_conv2(x1), inplace=True)
        x3 = functional.relu(self.e_conv3(x2), inplace=True)
        x4 = functional.relu(self.e_conv4(x3), inplace=True)
        x5 = functional.relu(self.e_conv5(torch.cat((x3, x4), 1)), inplace=True)
        x6 = functional.relu(self.e_conv6(torch.cat((x2, x5), 1)), inplace=True)
        maps = torch.tanh(self.e_conv7(torch.cat((x1, x6), 1)))
        # One copy to dense planes: the curves are applied three channels at a time, and summed over in float32.
        maps = maps.to(images.dtype, memory_format=torch.contiguous_format)
        if self.curve_scale != 1:
            maps = functional.interpolate(maps, size=images.shape[2:], mode="bilinear")
        return maps

    def load_weights(self, path: Path | str) -> None:
        """Fill the network from a Zero-DCE snapshot, an IDF checkpoint of either layout, or a file of its own.

        Args:
            path: the weights file.
        Raises:
            CheckpointError: the file does not hold such a network of this width.
        """
        self.load_state_dict(select_weights(read_state(path), self.state_dict(), str(path)))


def select_weights(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], place: str) -> dict[str, Tensor]:
    """The curve network's tensors out of a larger state.

    Args:
        state: tensors of a file, e.g. ``e_conv1.weight`` or ``E_Net.e_conv1.weight``.
        expected: the network's own state.
        place: the file, for messages.
    Raises:
        CheckpointError: they are not there, or of another width.
    """
    prefix = next((p for p in PREFIXES if f"{p}e_conv1.weight" in state), "")
    chosen = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(f"{prefix}e_conv")}
    check_names(chosen, expected, f"curve network in {place}")
    check_shapes(chosen, expected, f"curve network in {place}")
    return chosen
