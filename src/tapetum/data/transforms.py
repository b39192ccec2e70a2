"""Changes to training pictures, a whole batch at a time: jitter, grey, mirror, pad and crop, erasing.

What happens to a picture depends on (seed, epoch, number of the global batch, position in it) alone: the random
numbers are drawn for the global batch, and a process applies those of its own positions.

Order: colour jitter, grey, pad, crop and mirror on uint8; erasing in 0..1. The IDF and DEEN releases crop before they
mirror, BoT after; with equal padding on both sides the two have the same distribution, and the black of the padding is
grey already. The methods normalise after erasing, the releases before it, so a filling colour is given here in 0..1
before normalisation: a release's constant c becomes mean + deviation * c, channel by channel.
"""

from dataclasses import dataclass
from typing import Literal, cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tapetum.core.seeding import numpy_generator
from tapetum.data.sampler import Rows
from tapetum.synth.sensor import LIGHTNESS_WEIGHTS

Images = NDArray[np.float32]  # (B, H, W, 3) RGB in 0..1
Fill = Literal["black", "mean", "noise"] | tuple[float, float, float]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
BOT_FILL = (0.596065, 0.558144, 0.49735)  # BoT and DEEN erase with 0.485, 0.456, 0.406 after normalisation
CAJ_FILL = (0.5975306, 0.5640128, 0.5064625)  # CAJ erases with 0.4914, 0.4822, 0.4465 after normalisation
GREY_WEIGHTS = (19595, 38470, 7471)  # of 65536: Pillow's conversion to "L"


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
        grayscale: probability that a picture loses its colours.
    """

    pad: int = 0
    flip: float = 0.5
    erasing: ErasingOptions = ErasingOptions()
    colour_jitter: tuple[float, float, float, float] | None = None
    grayscale: float = 0.0


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
    if options.grayscale > 0:
        draws = numpy_generator(seed, "augment", epoch, number, "grayscale").random(batch)
        pictures = take_colours(pictures, draws[positions] < options.grayscale)
    geometry = numpy_generator(seed, "augment", epoch, number, "geometry").random((batch, 3))[positions]
    pictures = mirror_and_crop(pictures, options.pad, geometry[:, 0] < options.flip, geometry[:, 1:])
    images = to_float(pictures)
    if options.erasing.probability > 0:
        generator = numpy_generator(seed, "augment", epoch, number, "erasing")
        boxes = draw_boxes(options.erasing, batch, (pictures.shape[1], pictures.shape[2]), generator)
        erase(images, boxes, options.erasing, positions=positions, generator=generator)
    return to_tensor(images)


def to_float(pictures: NDArray[np.uint8]) -> Images:
    """Pictures in 0..1; NumPy, because its arithmetic starts no threads of its own inside a loader's thread.

    Args:
        pictures: (B, H, W, 3) uint8 RGB.
    """
    return np.multiply(pictures, np.float32(1 / 255), dtype=np.float32)


def to_tensor(images: Images) -> Tensor:
    """The same memory as (B, 3, H, W), that is in channels-last layout.

    Args:
        images: (B, H, W, 3) float32.
    """
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def take_colours(pictures: NDArray[np.uint8], chosen: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Make some pictures grey, by Pillow's integer weights, to the last bit.

    Args:
        pictures: (B, H, W, 3) uint8 RGB.
        chosen: (B,) which ones.
    Returns:
        (B, H, W, 3) uint8, new memory where any is chosen.
    """
    if not chosen.any():
        return pictures
    changed = pictures.copy()
    coloured = pictures[chosen]
    grey = np.full(coloured.shape[:3], 0x8000, np.uint32)  # half of 65536, to round
    for channel, weight in enumerate(GREY_WEIGHTS):
        grey += coloured[..., channel] * np.uint32(weight)
    changed[chosen] = (grey >> 16)[..., None]
    return changed


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
    images: Images,
    boxes: NDArray[np.int64],
    options: ErasingOptions,
    *,
    positions: Rows,
    generator: np.random.Generator,
) -> None:
    """Fill rectangles, in place.

    Args:
        images: (b, H, W, 3) float32 in 0..1.
        boxes: (B, 4) of the global batch, from `draw_boxes`.
        options: fill.
        positions: (b,) places of `images` in the global batch.
        generator: noise comes from it.
    """
    rows, columns = np.arange(images.shape[1]), np.arange(images.shape[2])
    top, left, height, width = boxes[positions].T[..., None]  # (b, 1) each
    in_rows = (rows >= top) & (rows < top + height)
    in_columns = (columns >= left) & (columns < left + width)
    mask = in_rows[:, :, None] & in_columns[:, None, :]  # (b, H, W)
    if options.fill == "noise":
        images[mask] = _draw_noise(boxes, options, positions, generator)
    else:
        named = {"black": (0.0, 0.0, 0.0), "mean": IMAGENET_MEAN}
        images[mask] = named[options.fill] if isinstance(options.fill, str) else options.fill


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
    images = pictures.astype(np.float32) * np.float32(1 / 255)
    limits = np.array(strength)
    amounts = ((draws[:, :4] * 2 - 1) * limits + np.array([1, 1, 1, 0])).astype(np.float32)
    amounts[:, :3].clip(min=0, out=amounts[:, :3])
    order = np.argsort(draws[:, 4:], axis=1, kind="stable")
    changes = (_brighten, _contrast, _saturate, _turn_hue)
    for step in range(4):
        for kind, change in enumerate(changes):
            chosen = np.flatnonzero(order[:, step] == kind)
            if len(chosen) and limits[kind] > 0:
                changed = change(images[chosen], amounts[chosen, kind].reshape(-1, 1, 1, 1))
                images[chosen] = changed.clip(0, 1, out=changed)
    return cast(NDArray[np.uint8], np.rint(images * np.float32(255)).astype(np.uint8))


def _recolour(images: Images, *codes: int) -> Images:
    """OpenCV's conversions of a whole batch, laid out as one tall picture."""
    tall = images.reshape(-1, *images.shape[2:])
    for code in codes:
        tall = cast(Images, cv2.cvtColor(tall, code))
    return tall.reshape(images.shape)


def _brighten(images: Images, amount: Images) -> Images:
    images *= amount
    return images


def _contrast(images: Images, amount: Images) -> Images:
    means = images.mean((1, 2), keepdims=True) @ np.array(LIGHTNESS_WEIGHTS, np.float32)
    images *= amount
    images += means[..., None] * (1 - amount)
    return images


def _saturate(images: Images, amount: Images) -> Images:
    grey = _recolour(images, cv2.COLOR_RGB2GRAY, cv2.COLOR_GRAY2RGB)
    images -= grey
    images *= amount
    images += grey
    return images


def _turn_hue(images: Images, amount: Images) -> Images:
    """Turn the hue of the HSV colour circle by `amount` turns; value and saturation stay."""
    hsv = _recolour(images, cv2.COLOR_RGB2HSV)  # hue in degrees
    hue = hsv[..., 0] + 360 * amount[..., 0]
    hsv[..., 0] = np.where(hue >= 360, hue - 360, np.where(hue < 0, hue + 360, hue))
    return _recolour(hsv, cv2.COLOR_HSV2RGB)
