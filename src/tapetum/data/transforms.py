"""Changes to training pictures, a whole batch at a time: jitter, mirror, pad and crop, erasing.

What happens to a picture depends on (seed, epoch, number of the global batch, position in it) alone: the random
numbers are drawn for the global batch, and a process applies those of its own positions.

Order: colour jitter, mirror, pad and crop on uint8; erasing in 0..1. The IDF release crops before it mirrors, BoT
after; with equal padding on both sides the two have the same distribution. The methods normalise after erasing, the
releases before it, so a filling colour is given here in 0..1 before normalisation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tapetum.core.seeding import numpy_generator
from tapetum.data.sampler import Rows

Fill = Literal["black", "mean", "noise"] | tuple[float, float, float]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
BOT_FILL = (0.596065, 0.558144, 0.49735)  # BoT erases with the value 0.485, 0.456, 0.406 after normalisation
GREY_WEIGHTS = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class ErasingOptions:
    """Random erasing (Zhong et al., AAAI 2020).

    Attributes:
        probability: that a picture loses a rectangle.
        area: smallest and largest fraction of the picture.
        aspect: smallest and largest height over width.
        aspect_scale: "uniform" (IDF, BoT) or "log" (TransReID draws the logarithm uniformly).
        fill: "black"; "mean" (of ImageNet, zero after normalisation); "noise"; or a colour in 0..1.
        tries: rectangles drawn until one fits; none fits: the picture stays whole.
        noise_mean, noise_deviation: of "noise", for each pixel and channel (TransReID: N(0, 1) after normalisation with
            0.5 and 0.5; clipped to 0..1 here, because that is what a batch holds).
    """

    probability: float = 0.0
    area: tuple[float, float] = (0.02, 0.4)
    aspect: tuple[float, float] = (0.3, 1 / 0.3)
    aspect_scale: Literal["uniform", "log"] = "uniform"
    fill: Fill = "black"
    tries: int = 100
    noise_mean: float = 0.5
    noise_deviation: float = 0.5


@dataclass(frozen=True)
class AugmentOptions:
    """Changes to training pictures.

    Attributes:
        pad: black pixels on each side before cropping back to size at a random place; 0 for none.
        flip: probability of a mirror.
        erasing: random erasing.
        colour_jitter: largest change of brightness, contrast, saturation (as factors around 1) and hue (turns, up to
            0.5), in a random order for each picture; None for none.
    """

    pad: int = 0
    flip: float = 0.5
    erasing: ErasingOptions = ErasingOptions()
    colour_jitter: tuple[float, float, float, float] | None = None


def augment_batch(
    pictures: NDArray[np.uint8],
    options: AugmentOptions,
    *,
    seed: int,
    epoch: int,
    number: int,
    batch: int,
    positions: Rows,
) -> Tensor:
    """Change one process's pictures of a global batch.

    Args:
        pictures: (b, H, W, 3) uint8 RGB.
        options: what to do.
        seed: of the run.
        epoch: of the global batch.
        number: of the global batch in its epoch.
        batch: B, pictures in the global batch.
        positions: (b,) places of `pictures` in the global batch.
    Returns:
        (b, 3, H, W) float32 in 0..1, in channels-last memory.
    """
    if options.colour_jitter is not None:
        draws = numpy_generator(seed, "augment", epoch, number, "jitter").random((batch, 8))
        pictures = jitter_colours(pictures, options.colour_jitter, draws[positions])
    geometry = numpy_generator(seed, "augment", epoch, number, "geometry").random((batch, 3))[positions]
    pictures = mirror_and_crop(pictures, options.pad, geometry[:, 0] < options.flip, geometry[:, 1:])
    images = to_float(pictures)
    if options.erasing.probability > 0:
        generator = numpy_generator(seed, "augment", epoch, number, "erasing")
        boxes = draw_boxes(options.erasing, batch, (pictures.shape[1], pictures.shape[2]), generator)
        erase(images, boxes, options.erasing, positions=positions, generator=generator)
    return images


def to_float(pictures: NDArray[np.uint8]) -> Tensor:
    """(B, H, W, 3) uint8 as (B, 3, H, W) float32 in 0..1, in channels-last memory.

    Args:
        pictures: uint8 RGB.
    """
    return torch.from_numpy(pictures).to(torch.float32).mul_(1 / 255).permute(0, 3, 1, 2)


def mirror_and_crop(
    pictures: NDArray[np.uint8], pad: int, mirrored: NDArray[np.bool_], offsets: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Mirror some pictures, pad all with black and cut each back to size.

    Args:
        pictures: (B, H, W, 3) uint8.
        pad: pixels on each side.
        mirrored: (B,) which ones to mirror.
        offsets: (B, 2) in [0, 1): row and column of the cut, as a fraction of the 2 * pad + 1 places.
    Returns:
        (B, H, W, 3) uint8, new memory.
    """
    count, height, width, channels = pictures.shape
    if pad:
        padded = np.zeros((count, height + 2 * pad, width + 2 * pad, channels), np.uint8)
        padded[:, pad : pad + height, pad : pad + width] = pictures
        tops, lefts = (offsets * (2 * pad + 1)).astype(np.int64).T
        # rows of pixels are runs of bytes, so a window over bytes copies whole runs
        runs = padded.reshape(count, height + 2 * pad, -1)
        windows = np.lib.stride_tricks.sliding_window_view(runs, (height, width * channels), axis=(1, 2))
        cut = windows[np.arange(count), tops, lefts * channels].reshape(pictures.shape)
    else:
        cut = pictures.copy()
    cut[mirrored] = cut[mirrored][:, :, ::-1]
    return cast(NDArray[np.uint8], cut)


def draw_boxes(
    options: ErasingOptions, batch: int, size: tuple[int, int], generator: np.random.Generator
) -> NDArray[np.int64]:
    """Rectangles to erase in a global batch.

    Args:
        options: probability, area, aspect, tries.
        batch: B.
        size: (height, width) of the pictures.
        generator: all draws come from it.
    Returns:
        (B, 4) top, left, height, width; height 0 where nothing is erased.
    Source: the rejection of the original's up to 100 tries, with all tries drawn at once and the first that fits taken.
    """
    chosen = generator.random(batch) < options.probability
    area = generator.uniform(*options.area, (batch, options.tries)) * (size[0] * size[1])
    if options.aspect_scale == "log":
        aspect = np.exp(generator.uniform(np.log(options.aspect[0]), np.log(options.aspect[1]), area.shape))
    else:
        aspect = generator.uniform(*options.aspect, area.shape)
    heights = np.rint(np.sqrt(area * aspect)).astype(np.int64)
    widths = np.rint(np.sqrt(area / aspect)).astype(np.int64)
    fits = (heights < size[0]) & (widths < size[1]) & (heights > 0) & (widths > 0)
    first = fits.argmax(1)
    rows = np.arange(batch)
    height, width = heights[rows, first], widths[rows, first]
    top = (generator.random(batch) * (size[0] - height + 1)).astype(np.int64)
    left = (generator.random(batch) * (size[1] - width + 1)).astype(np.int64)
    boxes = np.stack([top, left, height, width], axis=1)
    boxes[~(chosen & fits.any(1))] = 0
    return boxes


def erase(
    images: Tensor,
    boxes: NDArray[np.int64],
    options: ErasingOptions,
    *,
    positions: Rows,
    generator: np.random.Generator,
) -> None:
    """Fill rectangles, in place.

    Args:
        images: (b, 3, H, W) float32 in 0..1.
        boxes: (B, 4) of the global batch, from `draw_boxes`.
        options: fill.
        positions: (b,) places of `images` in the global batch.
        generator: noise comes from it.
    """
    height, width = images.shape[2:]
    top, left, box_height, box_width = torch.from_numpy(boxes[positions]).unsqueeze(2).unbind(1)  # (b, 1) each
    rows, columns = torch.arange(height), torch.arange(width)
    in_rows = (rows >= top) & (rows < top + box_height)
    in_columns = (columns >= left) & (columns < left + box_width)
    mask = in_rows.unsqueeze(2) & in_columns.unsqueeze(1)  # (b, H, W)
    pixels = images.permute(0, 2, 3, 1)  # a view
    if options.fill == "noise":
        pixels[mask] = torch.from_numpy(_draw_noise(boxes, options, positions, generator))
    elif options.fill == "black":
        pixels.masked_fill_(mask.unsqueeze(3), 0.0)
    else:
        colour = torch.tensor(IMAGENET_MEAN if options.fill == "mean" else options.fill)
        torch.where(mask.unsqueeze(3), colour, pixels, out=pixels)


def _draw_noise(
    boxes: NDArray[np.int64], options: ErasingOptions, positions: Rows, generator: np.random.Generator
) -> NDArray[np.float32]:
    """(pixels erased in this slice, 3), out of noise drawn for the whole global batch."""
    sizes = boxes[:, 2] * boxes[:, 3]
    noise = generator.standard_normal((int(sizes.sum()), 3), dtype=np.float32)
    ends = np.cumsum(sizes)
    chosen = sizes[positions]
    within = np.arange(chosen.sum()) - np.repeat(np.cumsum(chosen) - chosen, chosen)
    rows = np.repeat((ends - sizes)[positions], chosen) + within
    scaled = noise[rows] * np.float32(options.noise_deviation) + np.float32(options.noise_mean)
    return cast(NDArray[np.float32], np.clip(scaled, 0, 1))


def jitter_colours(
    pictures: NDArray[np.uint8], strength: tuple[float, float, float, float], draws: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Change brightness, contrast, saturation and hue of each picture, in an order of its own.

    Args:
        pictures: (B, H, W, 3) uint8 RGB.
        strength: largest change of each; hue in turns.
        draws: (B, 8) in [0, 1): four strengths, then four keys whose order is the order of the changes.
    Returns:
        (B, H, W, 3) uint8.
    """
    images = torch.from_numpy(pictures).to(torch.float32).mul_(1 / 255)
    limits = np.array(strength)
    amounts = torch.from_numpy((draws[:, :4] * 2 - 1) * limits + np.array([1, 1, 1, 0])).float()
    amounts[:, :3].clamp_(min=0)
    order = torch.from_numpy(np.argsort(draws[:, 4:], axis=1, kind="stable"))
    changes: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (_brighten, _contrast, _saturate, _turn_hue)
    for step in range(4):
        for kind, change in enumerate(changes):
            chosen = (order[:, step] == kind).nonzero().squeeze(1)
            if len(chosen) and limits[kind] > 0:
                images[chosen] = change(images[chosen], amounts[chosen, kind].view(-1, 1, 1, 1)).clamp_(0, 1)
    return images.mul_(255).round_().to(torch.uint8).numpy()


def _grey(images: Tensor) -> Tensor:
    return (images * torch.tensor(GREY_WEIGHTS)).sum(3, keepdim=True)


def _brighten(images: Tensor, amount: Tensor) -> Tensor:
    return images * amount


def _contrast(images: Tensor, amount: Tensor) -> Tensor:
    mean = _grey(images).mean((1, 2), keepdim=True)
    return mean + (images - mean) * amount


def _saturate(images: Tensor, amount: Tensor) -> Tensor:
    grey = _grey(images)
    return grey + (images - grey) * amount


def _turn_hue(images: Tensor, amount: Tensor) -> Tensor:
    """Turn the hue of the HSV colour circle by `amount` turns; value and saturation stay."""
    value, strongest = images.max(3)
    chroma = value - images.min(3).values
    red, green, blue = images.unbind(3)
    safe = chroma.clamp(min=1e-12)
    by_strongest = torch.stack([(green - blue) / safe, (blue - red) / safe + 2, (red - green) / safe + 4], dim=3)
    sixths = by_strongest.gather(3, strongest.unsqueeze(3)).squeeze(3)  # hue in sixths of a turn
    turned = sixths + amount.view(-1, 1, 1) * 6
    shifts = torch.tensor([5.0, 3.0, 1.0])
    place = (shifts + turned.unsqueeze(3)) % 6
    return value.unsqueeze(3) - chroma.unsqueeze(3) * torch.minimum(place, 4 - place).clamp(0, 1)
