"""Tubes with elliptic cross-sections, drawn straight into a picture: depth, normal and texture position per pixel.

A body part is an axis with two half-widths that vary along it. On the picture its outline follows from the projected
axis, and the point of the surface behind each pixel follows in closed form from the cross-section (with two steps
of a fixed-point iteration where the axis leans towards the camera), so no mesh is needed.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]

PROFILE_ROWS = 96


@dataclass(frozen=True)
class Tube:
    """The shape of one body part and where its texture lies among the figure's texels."""

    # (PROFILE_ROWS, 3) float32 metres from the lower end: half-width across, half-width in depth, forward offset of the
    # centre. Half-widths shrink to zero at closed ends.
    profile: FloatArray
    texture_start: int
    texture_shape: tuple[int, int]  # along, around; column 0 begins at the part's right side and turns over the front
    behind: float = 0.0  # metres by which the part gives way to others in the depth test (legs under a skirt)


@dataclass(frozen=True)
class Posture:
    """Where each of P parts is."""

    lower: NDArray[np.float64]  # (P, 3) ends of the axes, metres
    upper: NDArray[np.float64]
    sideways: NDArray[np.float64]  # (P, 3) unit vector to the part's own right

    @property
    def centre(self) -> NDArray[np.float64]:
        """(3,) mean of all ends."""
        middle: NDArray[np.float64] = (self.lower.mean(0) + self.upper.mean(0)) / 2
        return middle

    def place(self, at: tuple[float, float], heading: float) -> "Posture":
        """The same posture at (X, Y) of the world (X right, Y away, Z up); heading 0 walks to -Y, pi/2 to +X."""
        sine, cosine = np.sin(heading), np.cos(heading)
        turn = np.array(((-cosine, -sine, 0.0), (sine, -cosine, 0.0), (0.0, 0.0, 1.0)))  # rows: right, forward, up
        origin = np.array((*at, 0.0))
        return Posture(self.lower @ turn + origin, self.upper @ turn + origin, self.sideways @ turn)


@dataclass(frozen=True)
class View:
    """A pinhole camera that looks at one place, and the pixels of the picture it fills."""

    position: NDArray[np.float64]  # (3,) of the camera in the world (X right, Y away, Z up; metres)
    axes: NDArray[np.float64]  # (3, 3) rows right, up, towards the camera; right-handed
    focal_px: float
    centre_px: tuple[float, float]  # (x, y) pixel where the optical axis meets the picture; x to the right, y down
    size: tuple[int, int]

    def project(self, points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(N, 2) pixels (x right, y down) of (N, 3) world points, and (N,) metres along the optical axis."""
        seen = (points - self.position) @ self.axes.T
        depth = -seen[:, 2]
        pixels = seen[:, :2] * (self.focal_px / depth)[:, None] * (1.0, -1.0) + self.centre_px
        return pixels, depth


@dataclass(frozen=True)
class Surface:
    """What each covered pixel shows, as flat arrays over N pixels."""

    pixels: NDArray[np.int64]  # (N,) int64 position in the flattened picture, rising
    texels: IntArray  # (N,) int32 position among the figure's texels
    normals: FloatArray  # (N, 3) float32 unit normal in the view's axes (right, up, towards the camera)
    near: FloatArray  # (N,) float32 metres towards the camera from the optical centre (negative; larger is closer)
    coverage: FloatArray  # (N,) float32 share of the pixel that is covered, 0..1


def draw_tubes(tubes: tuple[Tube, ...], posture: Posture, view: View) -> Surface:
    """The visible surface of a figure: the pixels that show any of its P parts."""
    height, width = view.size
    near = np.full(height * width, -np.inf, np.float32)
    texels = np.zeros(height * width, np.int32)
    coverage = np.zeros(height * width, np.float32)
    normals = np.zeros((height * width, 3), np.float32)
    aspects = _Aspects.of(tubes, posture, view)
    for part, tube in enumerate(tubes):
        _draw_tube(tube, part, aspects, view, (near, texels, coverage, normals))
    pixels = np.flatnonzero(coverage)
    seen = normals.take(pixels, axis=0)
    seen /= np.sqrt(np.einsum("nc,nc->n", seen, seen))[:, None] + np.float32(1e-6)
    return Surface(pixels, texels.take(pixels), seen, near.take(pixels), coverage.take(pixels))


@dataclass(frozen=True)
class _Aspects:
    """What all parts look like from one view, apart from the single pixel; P parts, R profile rows.

    With a, b the half-widths along the part's own sides e1, e2, and n, m the directions across and towards us, the
    outline's half-width is w = hypot(a e1.n, b e2.n); a pixel at u = across / w shows the point of the ellipse at the
    angle t0 + arccos(u) with tan t0 = b e2.n / (a e1.n), so its sine, cosine, rise towards the camera and normal are
    all linear in u and r = sqrt(1 - u^2), with factors that depend on the row only.
    """

    low: NDArray[np.float64]  # (P, 2) lower end on the picture, pixels, y up from the optical axis
    step: NDArray[np.float64]  # (P, 2) from there to the upper end
    unit: NDArray[np.float64]  # (P, 2) its direction
    apparent: NDArray[np.float64]  # (P,) its length in pixels, never below a third of the full one
    scale: NDArray[np.float64]  # (P,) pixels a metre at the middle
    growth: NDArray[np.float64]  # (P,) relative change of that along the axis
    lean: FloatArray  # (P,) axis positions that one metre of rise hides
    near: FloatArray  # (P, 3) depth: at the lower end, gained along the axis, gained by a metre of rise
    reach: NDArray[np.float64]  # (P,) metres around the axis
    overhang: NDArray[np.float64]  # (P,) axis positions that may be seen beyond the ends
    basis: FloatArray  # (P, 3, 3) rows n, m, axis
    rows: FloatArray  # (P, 12, R) see the constants below

    @classmethod
    def of(cls, tubes: tuple[Tube, ...], posture: Posture, view: View) -> "_Aspects":
        low, high = (posture.lower - view.position) @ view.axes.T, (posture.upper - view.position) @ view.axes.T
        side = posture.sideways @ view.axes.T
        axis = high - low
        length = np.sqrt(np.einsum("pc,pc->p", axis, axis))
        axis /= length[:, None]
        scale_low, scale_high = -view.focal_px / low[:, 2], -view.focal_px / high[:, 2]
        scale = (scale_low + scale_high) / 2
        start = low[:, :2] * scale_low[:, None]
        step = high[:, :2] * scale_high[:, None] - start
        seen = np.hypot(step[:, 0], step[:, 1]) + 1e-9
        unit = step / seen[:, None]
        apparent = np.maximum(seen, 0.3 * length * scale)
        cos_tilt = np.minimum(apparent / (length * scale), 1.0)

        a, b, offset = np.stack([tube.profile for tube in tubes]).transpose(2, 0, 1).astype(np.float64)
        a, b = a + 1e-5, b + 1e-5
        forward = np.cross(axis, side)
        n = np.stack([-unit[:, 1], unit[:, 0], np.zeros(len(tubes))], 1)
        m = np.stack([-axis[:, 2] * unit[:, 0], -axis[:, 2] * unit[:, 1], cos_tilt], 1)
        e1n, e2n, e1m, e2m = (
            np.einsum("pc,pc->p", x, y)[:, None] for x, y in ((side, n), (forward, n), (side, m), (forward, m))
        )
        p, q = a * e1n, b * e2n
        w = np.sqrt(p * p + q * q) + 1e-6
        slope = (np.gradient(a, axis=1) / a + np.gradient(b, axis=1) / b) * (PROFILE_ROWS / 2 / length)[:, None]
        rows = (
            w, 1 / w, offset * e2n, (a * e1m * p + b * e2m * q) / w, (b * e2m * p - a * e1m * q) / w, offset * e2m,
            p / w, q / w, (a / b - b / a) * e1n * e2n / w, np.abs(p * e2m / (w * b) - q * e1m / (w * a)), -slope,
        )  # fmt: skip
        lean = -axis[:, 2] / (length * cos_tilt)
        behind = np.array([tube.behind for tube in tubes])
        return cls(
            low=start,
            step=step,
            unit=unit,
            apparent=apparent,
            scale=scale,
            growth=(scale_high - scale_low) / scale,
            lean=lean.astype(np.float32),
            near=np.stack([low[:, 2] - behind, axis[:, 2] * length, cos_tilt], 1).astype(np.float32),
            reach=(w + np.abs(offset * e2n)).max(1) * (1 + np.abs(scale_high - scale_low) / scale),
            overhang=(a + b).max(1) * np.abs(lean),
            basis=np.stack([n, m, axis], 1).astype(np.float32),
            rows=np.stack(rows, 1).astype(np.float32),
        )


# Rows of `_Aspects.rows`
_HALF, _INVERSE, _OFFSET, _RISE_U, _RISE_R, _RISE_0, _COS, _SIN, _NORMAL_R, _NORMAL_M, _NORMAL_W = range(11)


def _draw_tube(
    tube: Tube, part: int, aspects: _Aspects, view: View, buffers: tuple[FloatArray, IntArray, FloatArray, FloatArray]
) -> None:
    """One part into the depth, texel, coverage and normal buffers."""
    height, width = view.size
    (x_low, y_low), (x_step, y_step) = aspects.low[part].tolist(), aspects.step[part].tolist()
    (x_unit, y_unit), scale = aspects.unit[part].tolist(), float(aspects.scale[part])
    apparent, table, lean = float(aspects.apparent[part]), aspects.rows[part], aspects.lean[part]
    reach, overhang = float(aspects.reach[part]) * scale + 1, float(aspects.overhang[part])
    pad_x = reach * abs(y_unit) + overhang * apparent * abs(x_unit) + 1
    pad_y = reach * abs(x_unit) + overhang * apparent * abs(y_unit) + 1
    x_low, y_low = x_low + view.centre_px[0], y_low - view.centre_px[1]
    left = max(int(x_low + min(x_step, 0) - pad_x), 0)
    right = min(int(x_low + max(x_step, 0) + pad_x) + 1, width)
    top = max(int(-(y_low + max(y_step, 0)) - pad_y), 0)
    bottom = min(int(-(y_low + min(y_step, 0)) + pad_y) + 1, height)
    if left >= right or top >= bottom:
        return

    x: FloatArray = np.arange(left, right, dtype=np.float32) - np.float32(x_low)
    y: FloatArray = np.float32(-y_low) - np.arange(top, bottom, dtype=np.float32)[:, None]
    along: FloatArray = (x * np.float32(x_unit / apparent) + y * np.float32(y_unit / apparent)).ravel()
    across: FloatArray = (x * np.float32(-y_unit / scale) + y * np.float32(x_unit / scale)).ravel()
    across -= across * (along - np.float32(0.5)) * np.float32(aspects.growth[part])  # the nearer end looks larger
    limit = np.float32(reach / scale)
    inside = np.flatnonzero((np.abs(along - np.float32(0.5)) < 0.51 + overhang) & (np.abs(across) < limit))
    along, across = along.take(inside), across.take(inside)

    position = along
    for step in range(2 if abs(lean) > 0.15 else 1):
        _, _, rise = _seen_point(table, _row(position, PROFILE_ROWS), across)
        moved = along - lean * rise
        position = moved if step == 0 else (position + moved) * np.float32(0.5)
    row = _row(position, PROFILE_ROWS)
    gap = table[_HALF].take(row) - np.abs(across - table[_OFFSET].take(row))  # metres inside the outline
    gap *= np.float32(scale)
    gap += np.float32(0.5)
    covered = np.flatnonzero((gap > 0) & (np.abs(position - np.float32(0.5)) < 0.52))
    if not len(covered):
        return
    row, inside = row.take(covered), inside.take(covered)
    position, across = position.take(covered), across.take(covered)
    near, texels, coverage, normals = buffers
    line = inside // (right - left)
    flat = inside + (line * (width - right + left) + (top * width + left))
    coverage[flat] = np.maximum(coverage.take(flat), np.minimum(gap.take(covered), 1))
    u, r, depth = _seen_point(table, row, across)
    depth *= aspects.near[part, 2]
    depth += position * aspects.near[part, 1]
    depth += aspects.near[part, 0]
    front = np.flatnonzero(depth > near.take(flat))
    if not len(front):
        return
    if len(front) < len(flat):
        flat, row, position, depth = flat.take(front), row.take(front), position.take(front), depth.take(front)
        u, r = u.take(front), r.take(front)
    near[flat] = depth
    cos_start, sin_start = table[_COS].take(row), table[_SIN].take(row)
    turn = np.asarray(cv2.phase(cos_start * u - sin_start * r, sin_start * u + cos_start * r), np.float32).ravel()
    rows, columns = tube.texture_shape
    column = (turn * np.float32(columns / (2 * np.pi))).astype(np.int32)
    texels[flat] = _row(position, rows) * columns + np.minimum(column, columns - 1) + tube.texture_start
    local = np.empty((len(flat), 3), np.float32)
    local[:, 0] = table[_INVERSE].take(row) * u + table[_NORMAL_R].take(row) * r
    local[:, 1] = table[_NORMAL_M].take(row) * r
    local[:, 2] = table[_NORMAL_W].take(row)
    normals[flat] = local @ aspects.basis[part]


def _seen_point(table: FloatArray, row: IntArray, across: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """u, r (see `_Aspects`) and the rise towards the camera of the surface behind each pixel."""
    u: FloatArray = (across - table[_OFFSET].take(row)) * table[_INVERSE].take(row)
    np.maximum(u, -1, out=u)  # twice as fast as clip on arrays of this size
    np.minimum(u, 1, out=u)
    r: FloatArray = np.sqrt(1 - u * u)
    rise: FloatArray = table[_RISE_U].take(row) * u
    rise += table[_RISE_R].take(row) * r
    rise += table[_RISE_0].take(row)
    return u, r, rise


def _row(position: FloatArray, count: int) -> IntArray:
    """Which of `count` rows each position along the axis is in."""
    rows: IntArray = (position * np.float32(count)).astype(np.int32)
    np.maximum(rows, 0, out=rows)
    np.minimum(rows, count - 1, out=rows)
    return rows
