"""Who walks through the night: bodies, clothes and habits, drawn from the identity stream alone.

Every coloured surface has a visible albedo and a near-infrared reflectance that was drawn independently of it:
dyes that look black reflect near-infrared freely, so an infrared camera sees other contrasts.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from tapetum.core.seeding import numpy_generator

Pattern = Literal["plain", "stripes", "vertical_stripes", "checks", "blocks", "logo"]
HairKind = Literal["short", "long", "bald"]
HatKind = Literal["none", "cap", "beanie"]
BagKind = Literal["none", "backpack", "shoulder_bag", "handbag"]
Colour = tuple[float, float, float]

PALETTE: dict[str, Colour] = {  # linear albedo of cloth and leather
    "black": (0.025, 0.025, 0.028),
    "charcoal": (0.07, 0.07, 0.075),
    "grey": (0.22, 0.22, 0.22),
    "light grey": (0.45, 0.45, 0.44),
    "white": (0.78, 0.78, 0.75),
    "navy": (0.02, 0.035, 0.14),
    "blue": (0.04, 0.13, 0.50),
    "light blue": (0.28, 0.46, 0.68),
    "red": (0.52, 0.035, 0.04),
    "burgundy": (0.20, 0.02, 0.05),
    "pink": (0.68, 0.30, 0.42),
    "orange": (0.68, 0.24, 0.03),
    "yellow": (0.72, 0.55, 0.07),
    "beige": (0.52, 0.41, 0.26),
    "brown": (0.15, 0.075, 0.035),
    "olive": (0.14, 0.15, 0.05),
    "green": (0.04, 0.28, 0.09),
    "lime": (0.30, 0.62, 0.10),
    "teal": (0.03, 0.26, 0.28),
    "purple": (0.20, 0.05, 0.36),
    "lilac": (0.45, 0.34, 0.62),
}
UPPER_WEIGHTS = {"black": 3.0, "charcoal": 2.0, "grey": 1.5, "white": 2.5, "navy": 1.5}  # every other colour 1
LOWER_WEIGHTS = {"black": 4.0, "charcoal": 2.0, "navy": 3.0, "blue": 2.0, "beige": 1.5, "grey": 1.5}  # others 0.5
SKINS: tuple[Colour, ...] = (
    (0.55, 0.36, 0.27),
    (0.48, 0.30, 0.20),
    (0.36, 0.21, 0.13),
    (0.22, 0.12, 0.07),
    (0.11, 0.06, 0.04),
)
HAIRS: dict[str, Colour] = {
    "black": (0.015, 0.013, 0.012),
    "dark brown": (0.045, 0.025, 0.014),
    "brown": (0.12, 0.06, 0.03),
    "blond": (0.42, 0.29, 0.12),
    "red": (0.26, 0.08, 0.03),
    "grey": (0.33, 0.33, 0.33),
}


@dataclass(frozen=True)
class Dye:
    """One surface colour as both sensors see it."""

    name: str
    albedo: Colour  # linear RGB reflectance
    infrared: float  # near-infrared reflectance, drawn without looking at `albedo`


@dataclass(frozen=True)
class Garment:
    """A piece of clothing."""

    kind: str
    pattern: Pattern
    first: Dye  # the dyes; "plain" shows the second at trims only
    second: Dye
    length: float  # sleeves of an upper garment (0 short, 1 long), hem of a skirt or coat (0 high, 1 low)
    scale_m: float  # width of a stripe or check, in metres
    front_open: bool = False  # an upper garment worn open, so that the inner shirt (in `second`) shows in front


@dataclass(frozen=True)
class Person:
    """Everything that makes a person recognisable."""

    pid: int
    height_m: float  # with shoes
    build: float  # width of the body, 1 is average
    shoulders: float  # width of the shoulders against that of the hips, 1 is average
    skin: Dye
    hair: HairKind
    hair_dye: Dye
    hat: HatKind
    hat_dye: Dye
    upper: Garment
    lower: Garment
    shoes: Dye
    tights: bool
    bag: BagKind
    bag_dye: Dye
    stride: float  # swing of the legs in radians
    arm_swing: float  # swing of the arms in radians
    elbow: float  # bend of the elbows in radians
    lean: float  # forward lean of the trunk in radians
    stance: float  # distance between the feet as a share of hip width
    cadence_hz: float  # double steps a second
    texture_seed: int  # of folds and motifs

    @property
    def long_sleeves(self) -> bool:
        """Whether the upper garment covers the forearms."""
        return self.upper.length > 0.5


def draw_person(identity_seed: int, pid: int) -> Person:
    """The person `pid` of the world `identity_seed`; the same whatever cameras and times are asked for."""
    rng = numpy_generator(identity_seed, "identity", pid)
    # Infrared reflectances come from a stream of their own, so they cannot follow the visible colours.
    infrared = numpy_generator(identity_seed, "identity", pid, "infrared")
    feminine = rng.uniform() < 0.5
    height = float(np.clip(rng.normal(1.64 if feminine else 1.76, 0.07), 1.45, 2.0))
    skin_tone = np.array(SKINS[rng.choice(len(SKINS), p=(0.3, 0.3, 0.2, 0.12, 0.08))]) * rng.uniform(0.9, 1.1)
    skin = Dye("skin", _colour(skin_tone), float(infrared.uniform(0.5, 0.62)))
    hair = _choose(rng, {"long": 6, "short": 4} if feminine else {"short": 8, "long": 1, "bald": 1})
    hair_name = _choose(rng, {"black": 4, "dark brown": 3, "brown": 2, "blond": 1.5, "red": 0.5, "grey": 0.8})
    hair_dye = Dye(hair_name, HAIRS[hair_name], float(infrared.uniform(0.15, 0.6)))
    return Person(
        pid=pid,
        height_m=height,
        build=float(np.clip(rng.normal(1.0, 0.12), 0.8, 1.4)),
        shoulders=float(rng.normal(0.94 if feminine else 1.06, 0.04)),
        skin=skin,
        hair=hair,  # type: ignore[arg-type]
        hair_dye=hair_dye,
        hat=_choose(rng, {"none": 7, "cap": 1.7, "beanie": 1.3}),  # type: ignore[arg-type]
        hat_dye=_dye(rng, infrared, {}),
        upper=_draw_upper(rng, infrared),
        lower=_draw_lower(rng, infrared, feminine),
        shoes=_dye(rng, infrared, {"black": 5, "white": 4, "brown": 2, "grey": 2, "red": 1, "blue": 1}, others=0.1),
        tights=bool(feminine and rng.uniform() < 0.4),
        bag=_choose(rng, {"none": 5, "backpack": 3, "shoulder_bag": 1.2, "handbag": 0.8}),  # type: ignore[arg-type]
        bag_dye=_dye(rng, infrared, {"black": 3}),
        stride=float(rng.uniform(0.28, 0.52)),
        arm_swing=float(rng.uniform(0.15, 0.6)),
        elbow=float(rng.uniform(0.08, 0.5)),
        lean=float(rng.normal(0.04, 0.03)),
        stance=float(rng.uniform(0.6, 1.1)),
        cadence_hz=float(rng.uniform(0.8, 1.1)),
        texture_seed=int(rng.integers(2**31)),
    )


def dress_alike(person: Person, other: Person) -> Person:
    """The person in the other one's clothes and shoes, with the same prints and folds; hat and bag stay their own."""
    return replace(
        person,
        upper=other.upper,
        lower=other.lower,
        shoes=other.shoes,
        tights=other.tights,
        texture_seed=other.texture_seed,
    )


def liken(person: Person, share: float) -> Person:
    """The same person; a share from 0 to 1 of each dye's near-infrared reflectance follows its visible lightness."""
    if not share:
        return person

    def pull(dye: Dye) -> Dye:
        lightness = float(np.sqrt(np.dot((0.2126, 0.7152, 0.0722), dye.albedo)))  # nearly as perceived, 0.1..0.95
        return replace(dye, infrared=(1 - share) * dye.infrared + share * (0.06 + 0.8 * lightness))

    def dress(garment: Garment) -> Garment:
        return replace(garment, first=pull(garment.first), second=pull(garment.second))

    return replace(
        person,
        hair_dye=pull(person.hair_dye),
        hat_dye=pull(person.hat_dye),
        upper=dress(person.upper),
        lower=dress(person.lower),
        shoes=pull(person.shoes),
        bag_dye=pull(person.bag_dye),
    )


def _draw_upper(rng: np.random.Generator, infrared: np.random.Generator) -> Garment:
    kind = _choose(rng, {"t_shirt": 3, "shirt": 3, "jacket": 2.5, "coat": 1.5})
    patterns = {"plain": 2.5, "stripes": 2, "vertical_stripes": 0.8, "checks": 1.8, "blocks": 1.6, "logo": 2.3}
    if kind == "coat":
        patterns = {"plain": 4, "checks": 1.5, "blocks": 1, "vertical_stripes": 0.5}
    first = _dye(rng, infrared, UPPER_WEIGHTS)
    return Garment(
        kind=kind,
        pattern=_choose(rng, patterns),  # type: ignore[arg-type]
        first=first,
        second=_contrasting(rng, infrared, first),
        length=0.0 if kind == "t_shirt" else 1.0 if kind != "shirt" else float(rng.uniform() < 0.75),
        scale_m=float(rng.uniform(0.035, 0.09)),
        front_open=bool(kind in ("jacket", "coat") and rng.uniform() < 0.55),
    )


def _draw_lower(rng: np.random.Generator, infrared: np.random.Generator, feminine: bool) -> Garment:
    kind = _choose(rng, {"trousers": 5, "shorts": 1.5, "skirt": 3} if feminine else {"trousers": 7, "shorts": 2.5})
    first = _dye(rng, infrared, LOWER_WEIGHTS, others=0.5)
    pattern = _choose(
        rng, {"plain": 8, "checks": 0.8, "stripes": 0.7} if kind == "skirt" else {"plain": 9, "blocks": 1}
    )
    return Garment(
        kind=kind,
        pattern=pattern,  # type: ignore[arg-type]
        first=first,
        second=_contrasting(rng, infrared, first),
        length=float(rng.uniform()),
        scale_m=float(rng.uniform(0.04, 0.09)),
    )


def _choose(rng: np.random.Generator, weights: dict[str, float]) -> str:
    share = np.array(list(weights.values()), float)
    return list(weights)[int(rng.choice(len(share), p=share / share.sum()))]


def _dye(
    rng: np.random.Generator, infrared: np.random.Generator, weights: dict[str, float], others: float = 1.0
) -> Dye:
    name = _choose(rng, {colour: weights.get(colour, others) for colour in PALETTE})
    shade = np.array(PALETTE[name]) * rng.uniform(0.8, 1.2) * rng.uniform(0.92, 1.08, 3)
    return Dye(name, _colour(shade), float(infrared.uniform(0.06, 0.85)))


def _contrasting(rng: np.random.Generator, infrared: np.random.Generator, first: Dye) -> Dye:
    """A second dye that one can tell from the first: the farthest of a few draws, by perceived lightness and hue."""
    candidates = [_dye(rng, infrared, {"white": 2.0, "black": 1.5}) for _ in range(3)]
    root = np.sqrt(np.array(first.albedo))
    return max(candidates, key=lambda dye: float(np.abs(np.sqrt(np.array(dye.albedo)) - root).sum()))


def _colour(values: np.ndarray[Any, np.dtype[np.float64]]) -> Colour:
    red, green, blue = (float(v) for v in np.clip(values, 0.01, 0.9))
    return red, green, blue
