"""DCE-Net: estimates light-enhancement curves for each pixel and applies them (Zero-DCE, CVPR 2020)."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from tapetum.layers.weights import check_tensors, read_state

PREFIXES = ("", "E_Net.", "enhancer.", "module.")  # Zero-DCE's snapshot, IDF's release, ours, a parallel wrapper's


def apply_curves(images: Tensor, curves: Tensor) -> Tensor:
    """I <- I + r (I^2 - I) once for each group of three curve maps; nothing is clipped.

    Args:
        images: (B, 3, H, W).
        curves: (B, 3 n, H, W), r_1 ... r_n in order; a negative r brightens.
    Source: Zero-DCE release; the paper's A is -r.
    """
    # Dense planes: three channels out of a channels-last map lie far apart.
    images, curves = images.contiguous(), curves.to(images.dtype).contiguous()
    if torch.is_grad_enabled() and (images.requires_grad or curves.requires_grad):
        enhanced: Tensor = _CurveIteration.apply(images, curves)
        return enhanced
    for curve in _groups(curves):
        images = torch.addcmul(images, curve, images * images - images)
    return images


def _groups(curves: Tensor) -> list[Tensor]:
    return list(torch.unflatten(curves, 1, (-1, 3)).unbind(1))  # n of (B, 3, H, W)


class _CurveIteration(torch.autograd.Function):
    """`apply_curves` with its gradient written out: a third of the passes over memory that autograd would make."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, curves: Tensor) -> Tensor:
        stages = [images]
        for curve in _groups(curves):
            image = stages[-1]
            change = torch.square(image).sub_(image).mul_(curve)
            stages.append(change.add_(image))
        ctx.save_for_backward(curves, *stages[:-1])
        return stages[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor]:
        curves, *stages = ctx.saved_tensors
        by_curves = torch.empty_like(curves)
        gradient = gradient.contiguous()  # a channels-last network hands it over in another layout than the maps
        for curve, image, by_curve in reversed(list(zip(_groups(curves), stages, _groups(by_curves), strict=True))):
            torch.mul(torch.square(image).sub_(image), gradient, out=by_curve)  # dI_n / dr = I^2 - I
            gradient = torch.addcmul(gradient, (2 * image).sub_(1).mul_(curve), gradient)  # dI_n / dI = 1 + r (2 I - 1)
        return (gradient if ctx.needs_input_grad[0] else None), by_curves


class CurveNet(nn.Module):
    """Seven 3x3 convolutions with symmetric skips; the last one gives the curve maps through tanh.

    Args:
        width: channels of the hidden layers (32 in the original: 79,416 parameters).
        iterations: how often the curves are applied.
        curve_scale: 1 estimates the curves at the pictures' resolution, as the original does; 0.5 at half of it, at
            about a quarter of the cost, the maps being upsampled bilinearly before they are applied.
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
        """Enhanced pictures and the maps that made them, (B, 3 n, h, w), at the resolution they were estimated at."""
        curves = maps = self.curves(images)
        if maps.shape[2:] != images.shape[2:]:
            maps = functional.interpolate(maps, size=images.shape[2:], mode="bilinear")
        return apply_curves(images, maps), curves

    def curves(self, images: Tensor) -> Tensor:
        """Curve maps in -1..1, (B, 3 n, h, w) in the pictures' type, r_1 ... r_n in order."""
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
        # One copy to dense planes in the pictures' type: the curves are applied three channels at a time, and summed.
        return maps.to(images.dtype, memory_format=torch.contiguous_format)

    def load_weights(self, path: Path | str) -> None:
        """Fill the network from a Zero-DCE snapshot, an IDF checkpoint of either layout, or a file of its own.

        Raises:
            CheckpointError: the file does not hold such a network of this width.
        """
        state = read_state(path)
        prefix = next((p for p in PREFIXES if f"{p}e_conv1.weight" in state), "")
        own = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(f"{prefix}e_conv")}
        check_tensors(own, self.state_dict(), f"curve network in {path}")
        self.load_state_dict(own)
