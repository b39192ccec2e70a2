"""Take daytime pictures again at night, with the night scene's camera: lamps, photon noise, gain, lost colours.

Source: `tapetum.synth.sensor.darken_picture`, which also makes ``tapetum data darken``.
"""

from dataclasses import dataclass, replace

from tapetum.core.options import option, require
from tapetum.data.transforms import Bytes, Draws
from tapetum.synth.sensor import NIGHT_SENSOR, DarkenOptions, darken_picture

WORKS_ON = "bytes"
_NIGHT = DarkenOptions()


@dataclass(frozen=True)
class Options:
    """The night and the camera."""

    lightness: tuple[float, float] = option(
        _NIGHT.lightness,
        "smallest and largest mean lightness of the result, drawn evenly in the logarithm",
        above=0,
        below=255,
    )
    tint: float = option(_NIGHT.tint, "deviation of the logarithm of the lamp's colour", least=0)
    falloff: float = option(_NIGHT.falloff, "largest share of the light lost across the picture", least=0, below=1)
    gain: float = option(NIGHT_SENSOR.gain, "amplification; the larger, the fewer photons and the more noise", above=0)
    read_noise: float = option(NIGHT_SENSOR.read_noise_electrons, "noise without any light, in electrons", least=0)
    row_noise: float = option(NIGHT_SENSOR.row_noise_electrons, "noise that a row shares, in electrons", least=0)
    denoise: float = option(NIGHT_SENSOR.denoise, "strength of the camera's noise filter", least=0, most=1)

    def __post_init__(self) -> None:
        low, high = self.lightness
        require(low <= high, f"darken: lightness is [{low:g}, {high:g}]; write the smaller number first")


def change(pictures: Bytes, options: Options, draws: Draws) -> Bytes:
    """Night pictures; one after the other, because a camera is simulated for each."""
    sensor = replace(
        NIGHT_SENSOR,
        gain=options.gain,
        read_noise_electrons=options.read_noise,
        row_noise_electrons=options.row_noise,
        denoise=options.denoise,
    )
    night = DarkenOptions(options.lightness, options.tint, options.falloff, sensor)
    for place, generator in enumerate(draws.generators()):
        pictures[place] = darken_picture(pictures[place], night, generator)
    return pictures
