"""Random erasing (Zhong et al., AAAI 2020): a rectangle of each picture is filled.

The methods normalise after erasing, most releases before it. ``normalisation`` says behind which a filling is meant:
a release's constant c then becomes mean + deviation * c here, channel by channel, and is c again in the network. The
options of each release stand in docs/augmentations.md.

Source: the rejection of the original's up to 100 tries, with all tries drawn at once and the first that fits taken.
"""

from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from tapetum.core.options import option, require
from tapetum.data.sampler import Rows
from tapetum.data.transforms import Draws, Images
from tapetum.layers.normalisation import STATISTICS, Normalisation

WORKS_ON = "floats"
PROBABILITY = 0.5


@dataclass(frozen=True)
class Options:
    """The rectangle and its filling."""

    area: tuple[float, float] = option((0.02, 0.4), "smallest and largest fraction of the picture", above=0)
    aspect: tuple[float, float] = option((0.3, 1 / 0.3), "smallest and largest height over width", above=0)
    aspect_scale: Literal["uniform", "log"] = option("uniform", "the aspect, or its logarithm, is drawn uniformly")
    fill: Literal["black", "mean", "noise"] | tuple[float, float, float] = option(
        "black", "black; mean (ImageNet's, zero behind its normalisation); noise for each pixel; or a colour"
    )
    normalisation: Normalisation = option("none", "behind which a colour, or the noise, is meant; none: in 0..1")
    tries: int = option(100, "rectangles drawn until one fits; none fits: the picture stays whole", least=1)
    noise_mean: float = option(0.5, "of noise, for each pixel and channel")
    noise_deviation: float = option(0.5, "of noise", least=0)
    clip: bool = option(True, "noise is kept within 0..1; releases that draw it behind the normalisation do not")

    def __post_init__(self) -> None:
        for name, (low, high) in (("area", self.area), ("aspect", self.aspect)):
            require(low <= high, f"erasing: {name} is [{low:g}, {high:g}]; write the smaller number first")
        if self.normalisation == "none" and not isinstance(self.fill, str):
            within = all(0 <= value <= 1 for value in self.fill)
            require(
                within,
                f"erasing: fill {list(self.fill)} is no colour in 0..1; name a normalisation if it is behind one",
            )


def draw_chance(generator: np.random.Generator, batch: int) -> NDArray[np.float64]:
    """(B,) in [0, 1): a picture below the probability loses a rectangle."""
    return generator.random(batch)


def change(pictures: Images, options: Options, draws: Draws) -> Images:
    """Pictures with a filled rectangle, in place."""
    boxes = draw_boxes(options, draws.chosen, (pictures.shape[1], pictures.shape[2]), draws.generator)
    pixels = _pixels_within(boxes[draws.positions], pictures.shape[2], pictures.shape[1])
    flat = pictures.reshape(-1, 3)
    if options.fill == "noise":
        flat[pixels] = _draw_noise(boxes, options, draws.positions, draws.generator)
    else:
        flat[pixels] = fill_colour(options)
    return pictures


def fill_colour(options: Options) -> tuple[float, float, float]:
    """(3,) the constant that fills a rectangle, in 0..1 before normalisation.

    Args:
        options: whose fill is not noise.
    """
    if isinstance(options.fill, str):
        return STATISTICS["imagenet"][0] if options.fill == "mean" else (0.0, 0.0, 0.0)
    means, deviations = STATISTICS[options.normalisation]
    red, green, blue = (m + s * c for m, s, c in zip(means, deviations, options.fill, strict=True))
    return red, green, blue


def draw_boxes(
    options: Options, chosen: NDArray[np.bool_], size: tuple[int, int], generator: np.random.Generator
) -> NDArray[np.int64]:
    """Rectangles to erase in a global batch.

    Args:
        chosen: (B,) which pictures lose one.
    Returns:
        (B, 4) top, left, height, width; all 0 where nothing is erased.
    """
    batch = len(chosen)
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


def _pixels_within(boxes: NDArray[np.int64], width: int, height: int) -> Rows:
    """Numbers of the erased pixels among (b * H * W), picture by picture and row by row."""
    top, left, rows, columns = boxes.T
    counts = rows * columns
    picture = np.repeat(np.arange(len(boxes)), counts)
    within = np.arange(len(picture)) - np.repeat(np.cumsum(counts) - counts, counts)
    row, column = np.divmod(within, columns[picture])
    return cast(Rows, (picture * height + top[picture] + row) * width + left[picture] + column)


def _draw_noise(
    boxes: NDArray[np.int64], options: Options, positions: Rows, generator: np.random.Generator
) -> NDArray[np.float32]:
    """(pixels erased in this slice, 3), out of noise drawn for the whole global batch."""
    sizes = boxes[:, 2] * boxes[:, 3]
    noise = generator.standard_normal((int(sizes.sum()), 3), dtype=np.float32)
    ends = np.cumsum(sizes)
    own_sizes = sizes[positions]
    within = np.arange(own_sizes.sum()) - np.repeat(np.cumsum(own_sizes) - own_sizes, own_sizes)
    rows = np.repeat((ends - sizes)[positions], own_sizes) + within
    colours = noise[rows] * np.float32(options.noise_deviation) + np.float32(options.noise_mean)
    if options.normalisation != "none":
        means, deviations = (np.array(values, np.float32) for values in STATISTICS[options.normalisation])
        colours = colours * deviations + means
    return cast(NDArray[np.float32], np.clip(colours, 0, 1) if options.clip else colours)
