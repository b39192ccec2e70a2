"""The camera's sensor at night: photons, read noise, gain, quantisation, denoising, gamma and JPEG, on arrays.

Everything before `develop` happens in LINEAR light, where photon noise belongs: a picture that is darkened after its
gamma has neither the noise nor the lost colours of a dark street. The night scene and ``tapetum data darken`` share
this file.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from tapetum.core.errors import RecipeError
from tapetum.core.pixels import LIGHTNESS_WEIGHTS

FloatArray = NDArray[np.float32]
Picture = NDArray[np.uint8]

_TABLE_LIMIT = 16.0  # mean electrons below which the exact Poisson table is used
_TABLE_STEP = 1 / 16  # spacing of its rows
_TABLE_COLUMNS = 4096  # quantiles a row


def check_settings(place: str, settings: object, rules: Iterable[tuple[str, bool, str]]) -> None:
    """Complain about the first field of `settings` (its name, whether it holds, what is allowed) that does not hold."""
    for name, holds, rule in rules:
        if not holds:
            raise RecipeError(f"{place}: {name} is {getattr(settings, name)}; it must be {rule}")


@dataclass(frozen=True)
class SensorOptions:
    """One camera's sensor and what its processor does to the picture."""

    exposure: float = 1.0  # electrons of a pixel as a fraction of the full well, per unit of linear light
    full_well_electrons: float = 12_000.0
    gain: float = 1.0  # amplification before the converter; gain 8 saturates at an eighth of the full well
    read_noise_electrons: float = 2.5  # deviation of the noise that is there without any light, in electrons
    row_noise_electrons: float = 0.0  # deviation of the part that a whole row shares (banding), in electrons
    black_level: float = 0.0  # pedestal, as a fraction of the converter's range; keeps the lower half of the read noise
    bits: int = 12
    white_balance: tuple[float, float, float] = (1.0, 1.0, 1.0)  # factors of red, green and blue after the converter
    denoise: float = 0.0  # strength of the camera's noise filter, 0 (none) to 1 (watercolour)
    gamma: float = 2.2  # exponent of the display curve; 2.2 is usual
    jpeg_quality: int = 88

    def __post_init__(self) -> None:
        rules = [
            *((name, vars(self)[name] > 0, "above 0") for name in ("exposure", "full_well_electrons", "gain", "gamma")),
            ("read_noise_electrons", self.read_noise_electrons >= 0, "0 or more"),
            ("row_noise_electrons", self.row_noise_electrons >= 0, "0 or more"),
            ("black_level", 0 <= self.black_level < 1, "in 0..1"),
            ("bits", 2 <= self.bits <= 16, "in 2..16"),
            ("denoise", 0 <= self.denoise <= 1, "in 0..1"),
            ("jpeg_quality", 1 <= self.jpeg_quality <= 100, "in 1..100"),
            ("white_balance", len(self.white_balance) == 3 and min(self.white_balance) > 0, "three values above 0"),
        ]
        check_settings("sensor", self, rules)


NIGHT_SENSOR = SensorOptions(
    gain=16.0, read_noise_electrons=2.0, row_noise_electrons=0.3, black_level=0.004, denoise=0.25, jpeg_quality=85
)


@dataclass(frozen=True)
class DarkenOptions:
    """How `darken_picture` turns a daytime picture into a night one."""

    # smallest and largest mean lightness (0..255) before noise, drawn evenly in the logarithm for each picture; these
    # span the paper's low and medium levels
    lightness: tuple[float, float] = (6.0, 40.0)
    tint: float = 0.12  # deviation of the logarithm of the lamp's colour, per channel
    falloff: float = 0.6  # largest share of the light that is lost across the picture, 0..1
    sensor: SensorOptions = NIGHT_SENSOR  # the camera; its exposure is set from `lightness`

    def __post_init__(self) -> None:
        low, high = self.lightness
        rules = [
            ("lightness", 0 < low <= high < 255, "two values with 0 < low <= high < 255"),
            ("tint", self.tint >= 0, "0 or more"),
            ("falloff", 0 <= self.falloff < 1, "in 0..1"),
        ]
        check_settings("sensor", self, rules)


def capture(linear: FloatArray, options: SensorOptions, rng: np.random.Generator) -> FloatArray:
    """The converter's output: light, photon noise, read noise, gain and quantisation.

    Args:
        linear: (H, W, C) float32 linear light; 1.0 fills the well at exposure 1.
    Returns:
        (H, W, C) float32 in 0..1 of the converter's range, pedestal still inside, a multiple of one step.
    """
    electrons = np.maximum(linear, 0, dtype=np.float32) * np.float32(options.exposure * options.full_well_electrons)
    np.minimum(electrons, options.full_well_electrons, out=electrons)
    electrons = _with_noise(electrons, options.read_noise_electrons, rng)
    if options.row_noise_electrons > 0:
        rows = rng.standard_normal((len(electrons), 1, 1), dtype=np.float32)
        electrons += np.float32(options.row_noise_electrons) * rows
    electrons *= np.float32(options.gain / options.full_well_electrons)
    electrons += np.float32(options.black_level)
    steps = np.float32(2**options.bits - 1)
    electrons *= steps
    np.rint(electrons, out=electrons)
    np.clip(electrons, 0, steps, out=electrons)
    electrons /= steps
    return electrons


def develop(raw: FloatArray, options: SensorOptions) -> Picture:
    """The camera's processor: pedestal off, white balance, display gamma, noise filter."""
    steps = 2**options.bits - 1
    code = (raw * np.float32(steps) + np.float32(0.5)).astype(np.int32)
    code = np.minimum(np.maximum(code, 0), steps) + np.arange(3, dtype=np.int32) * (steps + 1)
    display = np.asarray(_display_table(options).take(code), np.uint8)
    return denoise(display, options.denoise)


@lru_cache(maxsize=64)
def _display_table(options: SensorOptions) -> Picture:
    """Display value of every code of the converter, one table a colour after the other."""
    code = np.arange(2**options.bits) / (2**options.bits - 1)
    light = np.clip((code - options.black_level) / (1 - options.black_level), 0, 1)
    colours = np.clip(light * np.array(options.white_balance)[:, None], 0, 1)
    return np.asarray(np.rint(255 * colours ** (1 / options.gamma)), np.uint8).ravel()


def denoise(picture: Picture, strength: float) -> Picture:
    """The noise filter of a camera, from 0 (unchanged) to 1: smooths colour more than lightness and keeps edges."""
    if strength <= 0:
        return picture
    planes = cv2.cvtColor(picture, cv2.COLOR_RGB2YCrCb)
    colour = cv2.GaussianBlur(planes, (0, 0), 0.4 + 1.8 * strength)
    light = cv2.bilateralFilter(np.ascontiguousarray(planes[..., 0]), 5, 10 + 60 * strength, 0.6 + 1.2 * strength)
    colour[..., 0] = light
    return np.asarray(cv2.cvtColor(colour, cv2.COLOR_YCrCb2RGB), np.uint8)


def darken_picture(picture: Picture, options: DarkenOptions, rng: np.random.Generator) -> Picture:
    """A daytime picture as the same camera would have taken it at night.

    The display gamma is undone, lamp tint and fall-off are applied to linear light, the exposure is chosen so that
    the noise-free result has a mean lightness drawn from `options.lightness`, and the sensor adds what it adds.
    """
    sensor = options.sensor
    low, high = np.log(options.lightness)
    target = float(np.exp(rng.uniform(low, high)))
    tint = np.exp(options.tint * rng.standard_normal(3)).astype(np.float32)
    angle, loss = rng.uniform(0, 2 * np.pi), options.falloff * rng.uniform()
    curve = np.power(np.arange(256, dtype=np.float32) / 255, np.float32(sensor.gamma))
    linear = curve[picture] * (tint / tint.mean())
    linear *= _ramp(picture.shape[0], picture.shape[1], angle, loss)[..., None]
    exposure = _exposure_for(linear, target, sensor)
    sensor = replace(sensor, exposure=exposure)
    return develop(capture(linear, sensor, rng), sensor)


def gamma_darken(picture: Picture, gamma: float) -> Picture:
    """Plain gamma darkening, 255 (v / 255)^gamma of each channel, rounded to the nearest value.

    Source: the IDF paper's Market1501-N, which does not print its gamma.
    """
    if gamma <= 0:
        raise RecipeError(f"sensor: gamma is {gamma}; it must be above 0")
    curve = np.rint(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)
    dark: Picture = curve[picture]
    return dark


def mean_lightness(picture: Picture) -> float:
    """Mean of 0.299 R + 0.587 G + 0.114 B, 0..255."""
    return float(picture.reshape(-1, 3).mean(0) @ np.array(LIGHTNESS_WEIGHTS))


def _with_noise(electrons: FloatArray, read_noise: float, rng: np.random.Generator) -> FloatArray:
    """Photon counts of the mean `electrons` plus read noise; few electrons are exactly Poisson, many are Gaussian."""
    noise = _normal_table().take(rng.integers(0, 2**16, electrons.shape, dtype=np.uint16))
    draw = rng.integers(0, 2**32, electrons.shape, dtype=np.uint32)  # 20 bits choose the row, 12 the quantile
    many = electrons >= _TABLE_LIMIT
    if not many.any():
        counts = _few_photons(electrons, draw)
        noise *= np.float32(read_noise)
        counts += noise
        return counts
    noisy: FloatArray = np.sqrt(electrons + np.float32(read_noise**2))
    noisy *= noise
    noisy += electrons
    if not many.all():
        few = np.flatnonzero(~many)
        counts = _few_photons(electrons.ravel().take(few), draw.ravel().take(few))
        noisy.reshape(-1)[few] = counts + np.float32(read_noise) * noise.ravel().take(few)
    return noisy


def _few_photons(electrons: FloatArray, draw: NDArray[np.uint32]) -> FloatArray:
    """Poisson counts by table; the row is rounded at random between its neighbours, so the mean stays exact."""
    position = electrons * np.float32(1 / _TABLE_STEP)
    position += (draw >> np.uint32(12)).astype(np.float32) * np.float32(2**-20)
    index = position.astype(np.int32)
    index *= _TABLE_COLUMNS
    index += (draw & np.uint32(_TABLE_COLUMNS - 1)).astype(np.int32)
    return _poisson_table().take(index).astype(np.float32)


@lru_cache(maxsize=1)
def _normal_table() -> FloatArray:
    """2^16 equally likely values of a normal distribution, of mean 0 and deviation 1."""
    fine = np.linspace(-6, 6, 200_001)
    density = np.exp(-fine * fine / 2)
    cumulative = np.cumsum((density[1:] + density[:-1]) / 2)
    quantiles = (np.arange(2**16) + 0.5) / 2**16
    values = np.interp(quantiles, cumulative / cumulative[-1], (fine[1:] + fine[:-1]) / 2)
    values = (values - values[::-1]) / 2
    return np.asarray(values / values.std(), np.float32)


@lru_cache(maxsize=1)
def _poisson_table() -> NDArray[np.uint8]:
    """Quantiles of the Poisson distribution: row r is the mean r * step, column c the quantile (c + 1/2) / columns."""
    means = np.arange(int(_TABLE_LIMIT / _TABLE_STEP) + 2) * _TABLE_STEP
    counts = np.arange(64)
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(counts[1:]))])
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.exp(counts * np.log(means[:, None]) - means[:, None] - log_factorial)
    terms[0] = counts == 0
    cumulative = np.cumsum(terms, axis=1)
    quantiles = (np.arange(_TABLE_COLUMNS) + 0.5) / _TABLE_COLUMNS
    return np.stack([np.searchsorted(row, quantiles) for row in cumulative]).astype(np.uint8).ravel()


def _ramp(height: int, width: int, angle: float, loss: float) -> FloatArray:
    """(H, W) factors falling from 1 to 1 - loss along a direction over the picture."""
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * np.float32(np.sin(angle))
    across = np.linspace(-1, 1, width, dtype=np.float32)[None] * np.float32(np.cos(angle))
    reach = abs(np.sin(angle)) + abs(np.cos(angle))
    ramp: FloatArray = (1 - np.float32(loss / 2) * (1 + (down + across) / np.float32(reach))).astype(np.float32)
    return ramp


def _exposure_for(linear: FloatArray, lightness: float, sensor: SensorOptions) -> float:
    """The exposure at which the noise-free display has this mean lightness, by bisection on a thumbnail."""
    gains = np.array(sensor.white_balance, np.float32)
    small: FloatArray = cv2.resize(linear, (16, 32), interpolation=cv2.INTER_AREA).astype(np.float32) * gains
    low, high = -16.0, 8.0  # exposure x gain in powers of two
    for _ in range(24):
        middle = (low + high) / 2
        display = np.clip(small * np.float32(2**middle), 0, 1) ** np.float32(1 / sensor.gamma)
        mean = 255 * float(display.reshape(-1, 3).mean(0) @ np.array(LIGHTNESS_WEIGHTS))
        low, high = (middle, high) if mean < lightness else (low, middle)
    return float(2 ** ((low + high) / 2)) / sensor.gain
