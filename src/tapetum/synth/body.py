"""A person as an articulated figure: bones moved by the walk, and tubes (see `raster`) fixed to them.

Body frame: x to the person's right, y forward, z up; metres; origin on the ground under the hips. The axis of every
bone points upwards (from toe to heel in the foot), so that "across" is always the person's right.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tapetum.synth.cloth import CHANNELS, paint_part
from tapetum.synth.people import Person
from tapetum.synth.raster import PROFILE_ROWS, FloatArray, Posture, Tube

BONES = (
    "pelvis", "trunk", "neck", "head", "hang",
    "right_upper_arm", "left_upper_arm", "right_forearm", "left_forearm", "right_hand", "left_hand",
    "right_thigh", "left_thigh", "right_shin", "left_shin", "right_foot", "left_foot",
)  # fmt: skip
_BONE_ROW = {bone: row for row, bone in enumerate(BONES)}


@dataclass(frozen=True)
class Part:
    """A tube on a bone."""

    name: str  # `cloth` paints it by this name
    bone: str
    start: float  # ends as fractions of the bone (outside 0..1 reaches beyond it)
    end: float
    shift: tuple[float, float]  # offset (right, forward) from the bone, metres
    profile: FloatArray  # see `raster.Tube`
    behind: float = 0.0  # likewise


@dataclass(frozen=True)
class Figure:
    """A person ready to be posed and drawn: parts, their shapes in the same order, and their painted surface."""

    person: Person
    parts: tuple[Part, ...]
    tubes: tuple[Tube, ...]
    texels: FloatArray  # (N, cloth.CHANNELS), part by part


def build_figure(person: Person) -> Figure:
    """Shapes and painted surface of a person; some milliseconds, so keep the figure while it is needed."""
    parts = _parts(person)
    bones = _bones(person, 0.0, 0.0)
    tubes, surfaces, start = [], [], 0
    for part in parts:
        row = _BONE_ROW[part.bone]
        length = float(np.linalg.norm(bones.upper[row] - bones.lower[row])) * (part.end - part.start)
        texels = paint_part(person, part.name, length, part.profile)
        tubes.append(Tube(part.profile, start, (texels.shape[0], texels.shape[1]), part.behind))
        surfaces.append(texels.reshape(-1, CHANNELS))
        start += len(surfaces[-1])
    return Figure(person, tuple(parts), tuple(tubes), np.concatenate(surfaces))


def pose(figure: Figure, phase: float, *, effort: float = 1.0) -> Posture:
    """The figure at one moment of its walk: phase of the double step in radians, share of the usual swing."""
    bones = _bones(figure.person, phase, effort)
    rows = [_BONE_ROW[part.bone] for part in figure.parts]
    low, high, side = bones.lower[rows], bones.upper[rows], bones.sideways[rows]
    axis = high - low
    forward = np.cross(axis / np.linalg.norm(axis, axis=1, keepdims=True), side)
    ends = np.array([(part.start, part.end) for part in figure.parts])
    shift = np.array([part.shift for part in figure.parts])
    offset = side * shift[:, :1] + forward * shift[:, 1:]
    return Posture(low + axis * ends[:, :1] + offset, low + axis * ends[:, 1:] + offset, side)


# Lengths as shares of the height, after common anthropometric tables (rounded).
_CROTCH, _HIP, _WAIST, _SHOULDER, _NECK, _CHIN = 0.470, 0.520, 0.605, 0.806, 0.838, 0.868
_THIGH, _SHIN, _ANKLE, _FOOT = 0.245, 0.240, 0.040, 0.150
_UPPER_ARM, _FOREARM, _HAND = 0.178, 0.150, 0.095
_HIP_HALF, _SHOULDER_HALF = 0.052, 0.100


def _bones(person: Person, phase: float, effort: float) -> Posture:
    """Where `BONES` are."""
    h = person.height_m
    up = np.array((0.0, 0.0, 1.0))
    hips = np.array((0.0, 0.0, _HIP * h))
    swing = person.stride * effort
    low, high = np.zeros((len(BONES), 3)), np.zeros((len(BONES), 3))
    side = np.tile((1.0, 0.0, 0.0), (len(BONES), 1))

    def put(bone: str, lower: NDArray[np.float64], upper: NDArray[np.float64]) -> None:
        low[_BONE_ROW[bone]], high[_BONE_ROW[bone]] = lower, upper

    twist = 0.10 * effort * np.sin(phase)  # shoulders turn against the hips
    leaning = np.array((0.0, np.sin(person.lean), np.cos(person.lean)))
    waist = hips + up * (_WAIST - _HIP) * h
    neck = waist + leaning * (_NECK - _WAIST) * h
    chin = neck + leaning * (_CHIN - _NECK) * h + np.array((0, 0.012 * h, 0))
    put("pelvis", hips - up * (_HIP - _CROTCH) * h, waist)
    put("trunk", hips, neck)
    put("neck", neck - up * 0.012 * h, chin + up * 0.02 * h)
    put("head", chin, chin + np.array((0.0, -0.01, 1.0)) * (1 - _CHIN) * h)
    put("hang", np.array((0.0, 0.02 * effort * np.cos(2 * phase), 0.0)), waist)
    across = np.array((np.cos(twist), np.sin(twist), 0.0))
    side[_BONE_ROW["trunk"]] = across - leaning * (across @ leaning)
    for name, sign in (("right", 1.0), ("left", -1.0)):
        leg_phase = phase if sign > 0 else phase + np.pi
        thigh = swing * np.sin(leg_phase) + 0.05 * effort
        knee = 0.06 + effort * (0.25 + 1.1 * person.stride) * max(0.0, np.cos(leg_phase)) ** 1.5
        hip = hips + np.array((sign * _HIP_HALF * h * (0.6 + 0.4 * person.stance), 0, 0))
        spread = sign * 0.03 * (person.stance - 0.7)
        knee_at = hip + _THIGH * h * _down(thigh, spread)
        ankle = knee_at + _SHIN * h * _down(thigh - knee, spread * 0.5)
        lift = np.clip(0.45 * (thigh - knee) + 0.12 * effort * np.sin(leg_phase), -0.5, 0.35)  # toe up is positive
        heel = ankle + np.array((0, -0.035 * h, -_ANKLE * h * 0.55))
        toe = heel + _FOOT * h * np.array((sign * 0.12, np.cos(lift), np.sin(lift)))
        put(f"{name}_thigh", knee_at, hip)
        put(f"{name}_shin", ankle, knee_at)
        put(f"{name}_foot", toe, heel)

        arm = -person.arm_swing * effort * np.sin(leg_phase) - 0.03
        bend = person.elbow + 0.35 * effort * max(0.0, arm)
        away = sign * (0.10 + 0.06 * (person.build - 1) * 5)
        shoulder = neck - leaning * (_NECK - _SHOULDER) * h + across * sign * _SHOULDER_HALF * h * person.shoulders
        elbow = shoulder + _UPPER_ARM * h * _down(arm, away)
        wrist = elbow + _FOREARM * h * _down(arm + bend, away * 0.25)
        put(f"{name}_upper_arm", elbow, shoulder)
        put(f"{name}_forearm", wrist, elbow)
        put(f"{name}_hand", wrist + _HAND * h * _down(arm + bend + 0.1, away * 0.1), wrist)

    feet = [_BONE_ROW["right_foot"], _BONE_ROW["left_foot"]]
    rise = 0.02 * h - min(low[feet, 2].min(), high[feet, 2].min())  # the lowest foot stands on the ground
    low[:, 2] += rise
    high[:, 2] += rise
    axis = high - low
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    side -= axis * np.einsum("bc,bc->b", side, axis)[:, None]
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    return Posture(low, high, side)


def _down(swing: float, spread: float) -> NDArray[np.float64]:
    """Unit vector hanging down, swung forward and spread to the right; radians."""
    return np.array((np.sin(spread), np.cos(spread) * np.sin(swing), -np.cos(spread) * np.cos(swing)))


def _parts(person: Person) -> list[Part]:
    """Every part of the person; lengths in metres at a height of 1.7 m, scaled."""
    scale = person.height_m / 1.7
    wide = scale * person.build
    loose = {"t_shirt": 1.03, "shirt": 1.04, "jacket": 1.14, "coat": 1.16}[person.upper.kind]
    chest = 0.5 + 0.5 * person.shoulders
    parts = [
        Part("pelvis", "pelvis", -0.1, 1.0, (0, 0), _tube(
            [(0, .12, .09, -.005), (.25, .158, .112, -.012), (.55, .165, .113, -.012), (1, .138, .098, 0)],
            wide, bottom=0.12), 0.05),
        Part("trunk", "trunk", -0.02 if person.upper.kind != "shirt" else -0.1, 1.03, (0, 0), _tube(
            [(0, .166, .120, -.012), (.1, .164, .118, -.012), (.28, .146, .108, .004), (.55, .165, .122, .004),
             (.72, .174 * chest, .122, .002), (.86, .174 * chest, .108, -.004), (.93, .150 * chest, .088, -.01),
             (.975, .085 * chest, .070, -.01), (1, .058, .06, -.008)], wide * loose, top=0.02)),
        Part("neck", "neck", 0, 1, (0, 0), _tube([(0, .058, .06, 0), (1, .052, .056, 0)], scale)),
        Part("head", "head", -0.04, 1.0, (0, 0.01 * scale), _tube(
            [(0, .03, .035, .022), (.12, .05, .062, .014), (.4, .070, .088, .004), (.65, .075, .096, -.004),
             (.85, .068, .086, -.008), (1, .04, .05, -.01)], scale, bottom=0.1, top=0.22)),
    ]  # fmt: skip
    parts += _head_cover(person, scale)
    sleeve = 1.22 if person.upper.kind in ("jacket", "coat") else 1.1
    covered = person.lower.kind == "skirt" or person.upper.kind == "coat"
    trouser = {"trousers": 1.1, "shorts": 1.0, "skirt": 1.0}[person.lower.kind]
    arm = 0.5 * (wide + scale)
    forearm = sleeve if person.long_sleeves else 1.0
    limbs = [
        ("upper_arm", -0.08, 1.08, (0, 0), _tube(
            [(0, .036, .038, 0), (.5, .046, .05, 0), (.82, .054, .06, 0), (1, .05, .056, 0)],
            arm * sleeve, bottom=0.1, top=0.26), 0.0),
        ("forearm", -0.02, 1.1, (0, 0), _tube(
            [(0, .027, .025, 0), (.6, .038, .038, 0), (1, .036, .037, 0)],
            arm * forearm, bottom=0.04, top=0.12), 0.0),
        ("hand", 0.0, 1.06, (0, 0), _tube(
            [(0, .018, .028, .006), (.45, .022, .042, .004), (.8, .02, .036, 0), (1, .02, .024, 0)],
            scale, bottom=0.25, top=0.1), 0.0),
        ("thigh", -0.06, 1.08, (0, 0), _tube(
            [(0, .052, .056, 0), (.35, .066, .07, 0), (.75, .082, .09, 0), (1, .085, .095, 0)],
            arm * trouser, bottom=0.08, top=0.12), 0.2 if covered else 0.05),
        ("shin", -0.06, 1.08, (0, -0.004), _tube(
            [(0, .036, .04, 0), (.3, .044, .05, -.004), (.7, .055, .06, -.008), (1, .05, .055, 0)]
            if person.lower.kind != "trousers" else
            [(0, .056, .062, 0), (.3, .053, .058, 0), (.7, .057, .062, -.004), (1, .055, .058, 0)],
            arm, bottom=0.03, top=0.08), 0.12 if covered else 0.0),
        ("foot", -0.05, 1.12, (0, 0.012 * scale), _tube(
            [(0, .034, .022, -.012), (.3, .048, .034, -.006), (.65, .044, .052, .006), (1, .038, .062, .018)],
            scale * 1.02, bottom=0.16, top=0.16), 0.0),
    ]  # fmt: skip
    parts += [Part(f"{side}_{limb[0]}", f"{side}_{limb[0]}", *limb[1:]) for side in ("right", "left") for limb in limbs]
    return parts + _skirts(person, wide) + _baggage(person, wide, scale)


def _head_cover(person: Person, scale: float) -> list[Part]:
    """Hair that stands off the head, and the hat."""
    parts = []
    if person.hair == "long":
        parts.append(Part("hair", "head", -0.75, 0.95, (0, -0.035 * scale), _tube(
            [(0, .07, .026, -.012), (.35, .088, .04, -.008), (.62, .088, .066, .004), (.85, .088, .085, .012),
             (1, .07, .07, .012)], scale, bottom=0.06, top=0.22)))  # fmt: skip
    elif person.hair == "short":
        parts.append(Part("hair", "head", 0.28, 1.05, (0, -0.022 * scale), _tube(
            [(0, .066, .066, 0), (.4, .081, .086, .006), (.75, .078, .088, .012), (1, .05, .06, .012)],
            scale, bottom=0.3, top=0.3)))  # fmt: skip
    if person.hat == "cap":
        parts.append(Part("hat", "head", 0.62, 1.08, (0, 0), _tube(
            [(0, .086, .108, -.004), (.5, .085, .105, -.008), (1, .055, .07, -.012)], scale, top=0.5)))  # fmt: skip
        parts.append(Part("brim", "head", 0.62, 0.70, (0, 0.105 * scale), _tube(
            [(0, .066, .068, .01), (1, .066, .066, 0)], scale, bottom=0.2, top=0.3)))  # fmt: skip
    elif person.hat == "beanie":
        parts.append(Part("hat", "head", 0.52, 1.12, (0, -0.006 * scale), _tube(
            [(0, .086, .104, 0), (.5, .086, .104, -.006), (1, .05, .06, -.012)], scale, top=0.5)))  # fmt: skip
    return parts


def _skirts(person: Person, wide: float) -> list[Part]:
    """What hangs from the waist: skirt, legs of shorts, skirts of a coat."""
    parts = []
    waist = _WAIST * person.height_m
    if person.lower.kind == "skirt":
        hem = (0.33 - 0.17 * person.lower.length) * person.height_m
        flare = 0.155 + 0.05 * person.lower.length
        parts.append(Part("skirt", "hang", hem / waist, 0.99, (0, 0), _tube(
            [(0, flare * 1.12, flare * .98, 0), (.55, .172, .135, -.01), (.75, .168, .122, -.01), (1, .136, .1, 0)],
            wide, bottom=0.02)))  # fmt: skip
    elif person.lower.kind == "shorts":
        points = [(0.0, 0.086, 0.094, 0.0), (0.6, 0.09, 0.098, 0.0), (1.0, 0.088, 0.098, 0.0)]
        leg = _tube(points, wide, bottom=0.02, top=0.1)
        start = 0.12 - 0.1 * person.lower.length
        parts += [Part(f"{name}_shorts", f"{name}_thigh", start, 1.06, (0, 0), leg) for name in ("right", "left")]
    if person.upper.kind == "coat":
        hem = (0.42 - 0.15 * person.upper.length * person.stance) * person.height_m
        parts.append(Part("coat_skirt", "hang", hem / waist, 1.06, (0, 0), _tube(
            [(0, .205, .175, 0), (.5, .192, .15, -.006), (1, .166, .122, 0)], wide, bottom=0.02)))  # fmt: skip
    return parts


def _baggage(person: Person, wide: float, scale: float) -> list[Part]:
    if person.bag == "backpack":
        return [Part("backpack", "trunk", 0.3, 1.0, (0, -0.155 * wide), _tube(
            [(0, .12, .06, -.02), (.15, .15, .085, -.02), (.6, .15, .08, -.01), (.9, .12, .06, 0), (1, .1, .05, 0)],
            scale, bottom=0.1, top=0.12)),
            Part("pocket", "trunk", 0.34, 0.66, (0, -0.225 * wide), _tube(
            [(0, .1, .045, -.012), (.5, .11, .052, -.012), (1, .1, .04, 0)],
            scale, bottom=0.15, top=0.15))]  # fmt: skip
    if person.bag == "shoulder_bag":
        return [Part("bag", "trunk", -0.12, 0.34, (0.2 * wide, -0.01), _tube(
            [(0, .045, .13, 0), (.7, .05, .14, 0), (1, .035, .12, 0)], scale, bottom=0.08, top=0.1))]  # fmt: skip
    if person.bag == "handbag":
        return [Part("bag", "left_hand", -2.0, 0.35, (-0.01, 0.0), _tube(
            [(0, .05, .14, 0), (.8, .045, .12, 0), (1, .01, .03, 0)], scale, bottom=0.08, top=0.08))]  # fmt: skip
    return []


def _tube(
    points: list[tuple[float, float, float, float]], scale: float, *, bottom: float = 0.0, top: float = 0.0
) -> FloatArray:
    """A smooth profile through points (t from 0 to 1, half-width, half-depth, forward offset), with rounded ends."""
    table = np.array(points, np.float64)
    t = (np.arange(PROFILE_ROWS) + 0.5) / PROFILE_ROWS
    columns = np.stack([np.interp(t, table[:, 0], table[:, i]) for i in (1, 2, 3)], 1)
    extension = np.pad(columns, ((8, 8), (0, 0)), mode="edge")
    kernel = np.hanning(17) / np.hanning(17).sum()
    columns = np.stack([np.convolve(extension[:, i], kernel, mode="valid") for i in range(3)], 1)
    rounding = np.ones(PROFILE_ROWS)
    if bottom > 0:
        rounding *= np.sqrt(1 - np.clip(1 - t / bottom, 0, 1) ** 2)
    if top > 0:
        rounding *= np.sqrt(1 - np.clip(1 - (1 - t) / top, 0, 1) ** 2)
    columns[:, :2] *= rounding[:, None]
    profile: FloatArray = (columns * scale).astype(np.float32)
    return profile
