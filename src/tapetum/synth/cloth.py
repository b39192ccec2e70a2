"""The painted surface of a person, once for all pictures; each part is a rectangle of texels, along and around it."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from tapetum.core.seeding import numpy_generator
from tapetum.synth.people import Dye, Garment, Person
from tapetum.synth.raster import PROFILE_ROWS, FloatArray

Mask = NDArray[np.bool_]

INFRARED, WARMTH = 3, 4  # behind red, green and blue
CHANNELS = 5
_SHAPES = {  # texels along and around; every other part is small
    "trunk": (96, 128), "coat_skirt": (56, 112), "skirt": (56, 112), "pelvis": (32, 64), "head": (56, 80),
    "hair": (40, 64), "backpack": (40, 64), "pocket": (24, 40), "hat": (24, 48), "bag": (32, 48),
}  # fmt: skip
_LIMB_SHAPE = (44, 40)
_BARE_WARMTH = 1.0  # of skin, relative; thin cloth lets about half of it through
_BLACK = Dye("shadow", (0.01, 0.01, 0.01), 0.05)
_CLOTH_WARMTH = {"t_shirt": 0.62, "shirt": 0.55, "jacket": 0.38, "coat": 0.3}


class Canvas:
    """The texels of one part, (rows, columns, CHANNELS), and where each of them lies on it.

    Channels: linear red, green, blue albedo, near-infrared reflectance, warmth (0 that of the air, 1 that of skin).
    """

    def __init__(self, name: str, length_m: float, profile: FloatArray) -> None:
        self.stem = name.removeprefix("left_").removeprefix("right_")
        self.side = 1 if name.startswith("right") else -1
        self.length_m = length_m
        rows, columns = self.shape = _SHAPES.get(self.stem, _LIMB_SHAPE)
        self.texels = np.zeros((rows, columns, CHANNELS), np.float32)
        self.t: FloatArray = ((np.arange(rows) + 0.5) / rows).astype(np.float32)[:, None]  # along, 0 at the lower end
        self.z: FloatArray = self.t * np.float32(length_m)  # metres above the lower end
        # (1, columns) 0 at the person's right, a quarter turn in front
        self.angle = ((np.arange(columns, dtype=np.float32) + 0.5) * np.float32(2 * np.pi / columns))[None]
        self.front = np.sin(self.angle)  # 1 straight in front, -1 straight behind
        half = profile[(self.t[:, 0] * PROFILE_ROWS).astype(np.int32), :1]
        self.x: FloatArray = half * np.cos(self.angle)  # (rows, columns) metres to the person's right
        turn = (self.angle - np.float32(np.pi / 2) + np.float32(np.pi)) % np.float32(2 * np.pi) - np.float32(np.pi)
        self.arc: FloatArray = turn * np.float32(profile[:, :2].mean())  # metres around the part, 0 in front

    def fill(self, dye: Dye, warmth: float) -> None:
        """The whole part in one dye."""
        self.texels[:] = (*dye.albedo, dye.infrared, warmth)

    def paint(self, where: Mask | NDArray[np.floating], dye: Dye, warmth: float | None = None) -> None:
        """A dye over the texels of a mask, or blended by weights in 0..1."""
        weight = np.asarray(where, np.float32)[..., None]
        target = np.array((*dye.albedo, dye.infrared), np.float32)
        self.texels[..., :4] += weight * (target - self.texels[..., :4])
        if warmth is not None:
            self.texels[..., 4:] += weight * (np.float32(warmth) - self.texels[..., 4:])

    def shade(self, factor: NDArray[np.floating] | float) -> None:
        """Less (or more) light on the texels; the same in visible light and infrared."""
        self.texels[..., :4] *= np.asarray(factor, np.float32)[..., None]


def paint_part(person: Person, name: str, length_m: float, profile: FloatArray) -> FloatArray:
    """The texels of one part of a person, (rows, columns, CHANNELS); the profile is that of `raster.Tube`."""
    canvas = Canvas(name, length_m, profile)
    _PAINTERS[canvas.stem](canvas, person, numpy_generator(person.texture_seed, "cloth", canvas.stem))
    return np.clip(canvas.texels, 0.004, 1, out=canvas.texels)


def _paint_trunk(canvas: Canvas, person: Person, rng: np.random.Generator) -> None:
    upper = person.upper
    _cloth(canvas, upper)
    front, x, t = canvas.front > 0, canvas.x, canvas.t
    motif = numpy_generator(person.texture_seed, "motif")
    if upper.pattern == "logo":
        canvas.paint(front & _motif(x, canvas.z - np.float32(0.66 * canvas.length_m), motif), upper.second)
    elif upper.pattern == "plain" and upper.kind == "t_shirt":
        canvas.paint(t > 0.965, upper.second)
    if motif.uniform() < 0.2 and upper.kind in ("t_shirt", "jacket"):  # a print on the back only
        canvas.paint((canvas.front < 0) & _motif(x, canvas.z - np.float32(0.6 * canvas.length_m), motif), upper.second)
    if upper.front_open:
        half = 0.045 + 0.03 * t  # the inner shirt shows between the two sides, with a shadow at the edge
        canvas.paint(front & (np.abs(np.abs(x) - half) < 0.012), _mixed(upper.first, _BLACK, 0.6))
        canvas.paint(front & (np.abs(x) < half), upper.second, 0.6)
    elif upper.kind in ("jacket", "coat"):
        canvas.paint(front & (np.abs(x) < 0.008), _mixed(upper.first, upper.second, 0.35))
        lapel = 0.10 * np.clip((t - 0.72) / 0.25, 0, 1)
        canvas.paint(front & (np.abs(x) < lapel), upper.second)
    elif upper.kind == "shirt":
        canvas.paint(front & (np.abs(x) < 0.009), _mixed(upper.first, upper.second, 0.3))
        canvas.paint((t > 0.93) & (np.abs(x) < 0.09), _mixed(upper.first, upper.second, 0.5))
    if upper.kind != "coat":
        canvas.shade(1 - 0.25 * (t < 0.035))
    _folds(canvas, rng, 0.16)
    canvas.shade(1 - 0.28 * np.exp(-((np.abs(canvas.front) / 0.25) ** 2)) * (t < 0.8))  # under the arms
    if person.bag == "backpack":
        strap = (canvas.front > 0.1) & (np.abs(np.abs(x) - 0.092) < 0.02) & (t > 0.42)
        canvas.paint(strap, person.bag_dye, 0.3)
    elif person.bag == "shoulder_bag":
        line = x - np.float32(0.17) + (t - 0.12) * np.float32(0.34)
        canvas.paint(np.abs(line) < 0.02, person.bag_dye, 0.35)


def _paint_arm(canvas: Canvas, person: Person, rng: np.random.Generator) -> None:
    upper = person.upper
    fore = canvas.stem == "forearm"
    if fore and not person.long_sleeves:
        canvas.fill(person.skin, _BARE_WARMTH)
    else:
        _cloth(canvas, upper, sleeve=True)
        _folds(canvas, rng, 0.2)
        if fore:
            canvas.paint((canvas.t < 0.09), _mixed(upper.first, upper.second, 0.6))
        elif not person.long_sleeves:
            canvas.paint(canvas.t < 0.46, _mixed(upper.first, upper.second, 0.5))
            canvas.paint(canvas.t < 0.42, person.skin, _BARE_WARMTH)
    inner = -np.cos(canvas.angle) * canvas.side
    canvas.shade(1 - 0.3 * np.clip(inner, 0, 1))


def _paint_hand(canvas: Canvas, person: Person, _: np.random.Generator) -> None:
    canvas.fill(person.skin, 0.85 * _BARE_WARMTH)


def _paint_neck(canvas: Canvas, person: Person, _: np.random.Generator) -> None:
    canvas.fill(person.skin, _BARE_WARMTH)
    if person.hair == "long":
        canvas.paint(canvas.front < -0.1, person.hair_dye, 0.5)
    if person.upper.kind in ("shirt", "jacket", "coat"):
        canvas.paint(canvas.t < 0.45, person.upper.first, 0.5)
    canvas.shade(0.7)


def _paint_head(canvas: Canvas, person: Person, _: np.random.Generator) -> None:
    canvas.fill(person.skin, _BARE_WARMTH)
    t, x, front = canvas.t, canvas.x, canvas.front
    dark = Dye("eye", (0.02, 0.018, 0.016), 0.1)
    face = front > 0.35
    brow = _mixed(person.hair_dye, person.skin, 0.35)
    canvas.paint(face & (np.abs(np.abs(x) - 0.031) < 0.013) & (np.abs(t - 0.50) < 0.028), dark)
    canvas.paint(face & (np.abs(np.abs(x) - 0.031) < 0.017) & (np.abs(t - 0.585) < 0.02), brow)
    canvas.paint(face & (np.abs(x) < 0.021) & (np.abs(t - 0.20) < 0.02), Dye("lip", (0.28, 0.10, 0.08), 0.45))
    canvas.shade(1 - 0.25 * (face & (np.abs(x) < 0.013) & (np.abs(t - 0.31) < 0.02)))
    if person.hair != "bald":
        hairline = (t > 0.8) | ((t > 0.42) & (front < 0.25)) | ((t > 0.2) & (front < -0.2))
        canvas.paint(hairline, person.hair_dye, 0.5)
    else:
        canvas.paint((t < 0.32) & (front > 0.2) & (np.abs(t - 0.2) > 0.03), _mixed(person.skin, person.hair_dye, 0.6))
    canvas.shade(1 - 0.3 * np.clip(0.12 - t, 0, 1) / 0.12)


def _paint_hair(canvas: Canvas, person: Person, rng: np.random.Generator) -> None:
    canvas.fill(person.hair_dye, 0.45)
    strands = cv2.resize(rng.normal(0, 1, (3, 32)).astype(np.float32), canvas.shape[::-1])
    canvas.shade(1 + 0.25 * np.asarray(strands, np.float32))


def _paint_hat(canvas: Canvas, person: Person, rng: np.random.Generator) -> None:
    canvas.fill(person.hat_dye, 0.35)
    if person.hat == "beanie":
        canvas.shade(1 + 0.15 * np.sin(canvas.angle * 24))
        canvas.shade(1 - 0.25 * (np.abs(canvas.t - 0.3) < 0.04))
    elif canvas.stem == "hat" and rng.uniform() < 0.5:
        canvas.paint((canvas.front > 0.8) & (np.abs(canvas.t - 0.4) < 0.2), person.upper.second)


def _paint_lower(canvas: Canvas, person: Person, rng: np.random.Generator) -> None:
    _cloth(canvas, person.lower, warmth=0.55)
    _folds(canvas, rng, 0.22 if canvas.stem == "skirt" else 0.15)
    if canvas.stem == "skirt":
        canvas.shade(1 + 0.12 * np.sin(canvas.angle * 14 + 1) * (1 - canvas.t))
    elif canvas.stem == "pelvis":
        canvas.paint(canvas.t > 0.93, Dye("belt", (0.03, 0.025, 0.02), 0.2))
        canvas.shade(1 - 0.2 * (canvas.t < 0.3))


def _paint_leg(canvas: Canvas, person: Person, rng: np.random.Generator) -> None:
    shin = canvas.stem == "shin"
    if person.lower.kind == "trousers":
        if person.lower.pattern == "blocks":  # a stripe down the outer seam
            canvas.fill(person.lower.first, 0.55)
            canvas.paint(canvas.side * np.cos(canvas.angle) > 0.86, person.lower.second)
        else:
            _cloth(canvas, person.lower, warmth=0.55)
        _folds(canvas, rng, 0.2)
    elif person.tights:
        canvas.fill(Dye("tights", (0.03, 0.03, 0.032), 0.35), 0.8)
    else:
        canvas.fill(person.skin, _BARE_WARMTH)
        if shin and person.texture_seed % 2:
            canvas.paint(canvas.t < 0.16, Dye("socks", (0.7, 0.7, 0.68), 0.6), 0.6)
    inner = -np.cos(canvas.angle) * canvas.side
    canvas.shade(1 - 0.35 * np.clip(inner, 0, 1))


def _paint_coat_skirt(canvas: Canvas, person: Person, rng: np.random.Generator) -> None:
    _cloth(canvas, person.upper)
    if person.upper.front_open:
        canvas.paint((canvas.front > 0) & (np.abs(canvas.x) < 0.05), person.lower.first, 0.5)
    else:
        canvas.paint(
            (canvas.front > 0) & (np.abs(canvas.x) < 0.007), _mixed(person.upper.first, person.upper.second, 0.4)
        )
    canvas.shade(1 - 0.35 * ((canvas.front < -0.9) & (np.abs(canvas.x) < 0.008)))  # the slit behind
    _folds(canvas, rng, 0.2)


def _paint_shoe(canvas: Canvas, person: Person, _: np.random.Generator) -> None:
    canvas.fill(person.shoes, 0.3)
    canvas.paint(canvas.front < -0.45, _mixed(person.shoes, Dye("sole", (0.5, 0.5, 0.48), 0.5), 0.6))
    canvas.shade(1 - 0.3 * ((canvas.front > 0.7) & (np.sin(canvas.t * 60) > 0.3) & (np.abs(canvas.t - 0.5) < 0.15)))


def _paint_bag(canvas: Canvas, person: Person, rng: np.random.Generator) -> None:
    canvas.fill(person.bag_dye, 0.12)
    dark = _mixed(person.bag_dye, Dye("seam", (0.02, 0.02, 0.02), 0.1), 0.6)
    canvas.paint((np.abs(canvas.t - 0.72) < 0.025) & (canvas.front < 0.6), dark)
    if canvas.stem == "pocket":
        canvas.shade(0.85)
        canvas.paint((np.abs(canvas.x) < 0.02) & (np.abs(canvas.t - 0.45) < 0.12), person.upper.second)
    _folds(canvas, rng, 0.08)


def _cloth(canvas: Canvas, garment: Garment, *, sleeve: bool = False, warmth: float | None = None) -> None:
    """A garment's pattern over the whole part."""
    heat = _CLOTH_WARMTH.get(garment.kind, 0.55) if warmth is None else warmth
    canvas.fill(garment.first, heat)
    scale, second = np.float32(garment.scale_m), garment.second
    if garment.pattern == "stripes":
        canvas.paint((canvas.z / scale) % 2 < 1, second)
    elif garment.pattern == "vertical_stripes":
        canvas.paint((canvas.arc / scale + 0.5) % 2 < 0.8, second)
    elif garment.pattern == "checks":
        down, around = (canvas.z / scale) % 2 < 1, (canvas.arc / scale + 0.5) % 2 < 1
        canvas.paint((down.astype(np.float32) + around) / 2, second)
    elif garment.pattern == "blocks":
        style = int(garment.scale_m * 1e5) % 4
        if sleeve:
            canvas.paint(np.asarray(style in (1, 2)), second)
        elif style == 0:
            canvas.paint(canvas.t > 0.6, second)
        elif style == 1:
            canvas.paint(np.abs(canvas.t - 0.55) < 0.14, second)
        elif style == 3:
            canvas.paint(np.cos(canvas.angle) > 0, second)


def _motif(x: FloatArray, z: FloatArray, rng: np.random.Generator) -> Mask:
    """A print around (0, 0): disc, ring, box, bars, cross, triangle or letters."""
    size = np.float32(rng.uniform(0.055, 0.105))
    kind = int(rng.integers(7))
    radius, wide, tall = np.sqrt(x**2 + z**2), np.abs(x), np.abs(z)
    if kind == 6:
        letters = rng.uniform(size=12) < 0.65
        column = np.clip(((x + size) / (2 * size) * 6).astype(np.int32), 0, 5)
        return np.asarray((wide < size) & (tall < 0.5 * size) & letters[column + 6 * (z > 0)], np.bool_)
    box = (wide < size) & (tall < size)
    masks = (
        x**2 + z**2 < size**2,
        (radius < size) & (radius > 0.55 * size),
        (wide < size) & (tall < 0.7 * size),
        box & ((z / size * 2.5) % 1 < 0.55),
        box & ((wide < 0.3 * size) | (tall < 0.3 * size)),
        (z > -size) & (wide < (size - z) * 0.5),
    )
    return np.asarray(masks[kind], np.bool_)


def _folds(canvas: Canvas, rng: np.random.Generator, amount: float) -> None:
    """Creases: light and dark bands that mostly run across the part, and a fine weave."""
    rows, columns = canvas.shape
    coarse = rng.normal(0, 1, (7, 6)).astype(np.float32)
    coarse = np.concatenate([coarse, coarse[:, :1]], axis=1)  # meets itself behind
    field_ = np.asarray(cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_CUBIC), np.float32)
    weave = rng.normal(0, 0.025, (rows, columns)).astype(np.float32)
    canvas.shade(np.clip(1 + np.float32(amount) * field_ + weave, 0.4, 1.6))


def _mixed(first: Dye, second: Dye, share: float) -> Dye:
    """`share` of the second dye in the first."""
    albedo = tuple(a + share * (b - a) for a, b in zip(first.albedo, second.albedo, strict=True))
    return Dye(
        f"{first.name}/{second.name}",
        (albedo[0], albedo[1], albedo[2]),
        first.infrared + share * (second.infrared - first.infrared),
    )


_PAINTERS: dict[str, Callable[[Canvas, Person, np.random.Generator], None]] = {
    "trunk": _paint_trunk, "upper_arm": _paint_arm, "forearm": _paint_arm, "hand": _paint_hand,
    "neck": _paint_neck, "head": _paint_head, "hair": _paint_hair, "hat": _paint_hat, "brim": _paint_hat,
    "pelvis": _paint_lower, "thigh": _paint_leg, "shin": _paint_leg, "shorts": _paint_lower, "skirt": _paint_lower,
    "coat_skirt": _paint_coat_skirt, "foot": _paint_shoe,
    "backpack": _paint_bag, "pocket": _paint_bag, "bag": _paint_bag,
}  # fmt: skip
