"""The losses without labels that train DCE-Net, alone or within a method."""

from typing import Any, Literal

from torch import Tensor

from tapetum.losses.colour import colour_constancy
from tapetum.losses.curve_smoothness import curve_smoothness
from tapetum.losses.exposure import exposure
from tapetum.losses.spatial import spatial_consistency

Reading = Literal["code", "paper"]


def enhancement_losses(
    options: Any,
    pictures: Tensor,
    enhanced: Tensor,
    curves: Tensor,
    *,
    power: Literal[1, 2] = 2,
    smoothness: Reading = "code",
    colour: Reading = "code",
    spatial: Reading = "code",
) -> dict[str, Tensor]:
    """The four terms of Zero-DCE, weighted; a term of weight 0 is left out.

    Args:
        options: with the weight of each, `exposure_patch` and `exposure_level`.
        pictures: (B, 3, H, W).
        enhanced: (B, 3, H, W), not clipped.
        curves: (B, 24, h, w), at the resolution they were estimated at.
        power, smoothness, colour, spatial: where code and paper of IDF differ, see the losses.
    """
    losses = {}
    if options.curve_smoothness_weight:
        # Steps between maps at 1/s of the resolution are s times those between the pictures' own pixels.
        weight = options.curve_smoothness_weight * (curves.shape[2] / pictures.shape[2]) ** 2
        losses["curve_smoothness"] = weight * curve_smoothness(curves, reading=smoothness)
    if options.exposure_weight:
        deviation = exposure(enhanced, patch=options.exposure_patch, level=options.exposure_level, power=power)
        losses["exposure"] = options.exposure_weight * deviation
    if options.colour_weight:
        losses["colour"] = options.colour_weight * colour_constancy(enhanced, reading=colour)
    if options.spatial_weight:
        losses["spatial"] = options.spatial_weight * spatial_consistency(pictures, enhanced, reading=spatial)
    return losses
