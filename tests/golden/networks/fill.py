"""Weights and pictures of the whole-network golden cases, rebuilt from numbers.

The golden files hold no weights.  A weight tensor is `offset + scale * u`, where
u is a sequence in (-1, 1) that depends only on the official key name, the number
of elements and a seed.  All steps are integer or exactly rounded arithmetic, so
every machine gets the same bits.  Needs NumPy only.

    case = Case("transreid.npz")
    state = case.state_dict()            # {official key: array}
    pictures = case.pictures("eval", "visible")   # uint8 [n, 3, h, w]
    x = case.normalised(pictures)                 # float32 network input
"""

import json
import zlib

import numpy as np

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MUL_1 = np.uint64(0xBF58476D1CE4E5B9)
_MUL_2 = np.uint64(0x94D049BB133111EB)
_CHUNK = 2**15


def _scramble(z):
    """The output step of the SplitMix64 generator, on uint64 arrays (wraps around)."""
    z = (z ^ (z >> np.uint64(30))) * _MUL_1
    z = (z ^ (z >> np.uint64(27))) * _MUL_2
    return z ^ (z >> np.uint64(31))


def bits(name, count, seed, first=0):
    """`count` integers in [0, 2**24) for this name and seed (uint64), from the `first` on."""
    start = np.array([zlib.crc32(name.encode()) + (int(seed) << 32)], np.uint64)
    steps = np.arange(first + 1, first + count + 1, dtype=np.uint64) * _GAMMA
    return _scramble(_scramble(start + _GAMMA) + steps) >> np.uint64(40)


def uniform(name, count, seed, first=0):
    """`count` values in (-1, 1), symmetric around 0, float64 (exact in float32 too)."""
    return (2.0 * bits(name, count, seed, first).astype(np.float64) + 1.0) / 2.0**24 - 1.0


def tensor(name, shape, seed, offset, scale):
    """One weight tensor, float32, filled in C order, some numbers at a time: they stay in the processor's cache."""
    values = np.empty(shape, np.float32)
    flat = values.reshape(-1)
    for first in range(0, flat.size, _CHUNK):
        part = flat[first : first + _CHUNK]
        part[:] = offset + scale * uniform(name, part.size, seed, first)
    return values


def fill(shapes, seed, offset, scale):
    """{key: array} for {key: shape}; `offset` and `scale` are {key: number}."""
    return {k: tensor(k, s, seed, offset[k], scale[k]) for k, s in shapes.items()}


def pictures(name, seed, groups, height, width):
    """uint8 [len(groups), 3, height, width].

    Pictures of one group (an identity) share a smooth 12 x 6 pattern; noise is added
    per picture: 60 % pattern, 40 % noise.  Integer arithmetic throughout.
    """
    rows, row_part = _grid(height, 12)
    cols, col_part = _grid(width, 6)
    out = np.empty((len(groups), 3, height, width), np.uint8)
    for i, group in enumerate(groups):
        coarse = (bits(f"{name}/pattern/{group}", 3 * 12 * 6, seed) >> np.uint64(16)).astype(np.int64)
        coarse = coarse.reshape(3, 12, 6)
        across = coarse[:, :, cols] * (256 - col_part) + coarse[:, :, np.minimum(cols + 1, 5)] * col_part
        upper, lower = across[:, rows], across[:, np.minimum(rows + 1, 11)]
        smooth = (upper * (256 - row_part)[:, None] + lower * row_part[:, None]) >> 16
        noise = (bits(f"{name}/noise/{i}", smooth.size, seed) >> np.uint64(16)).astype(np.int64)
        out[i] = (3 * smooth + 2 * noise.reshape(smooth.shape)) // 5
    return out


def _grid(length, cells):
    """Cell index and position inside the cell (0..255) of every pixel."""
    position = np.arange(length, dtype=np.int64) * (cells - 1) * 256 // max(length - 1, 1)
    return position >> 8, position & 255


class Case:
    """One golden file: recipe of the network, inputs and expected values."""

    def __init__(self, path):
        with np.load(path) as z:
            self.arrays = {k: z[k] for k in z.files}
        self.info = json.loads(str(self.arrays["weights/cfg/info"]))
        self.keys = [str(k) for k in self.arrays["weights/cfg/keys"]]
        shapes = zip(self.keys, self.arrays["weights/cfg/shapes"], strict=True)
        self.shapes = {k: tuple(int(d) for d in s if d) for k, s in shapes}

    def part(self, prefix):
        """{name: array} of all entries under a prefix such as "eval/out/"."""
        return {k[len(prefix) :]: v for k, v in self.arrays.items() if k.startswith(prefix)}

    def state_dict(self, keys=None):
        """{official key: array} in the official order, or some of the keys; counters are int64 scalars."""
        a = self.arrays
        offset = dict(zip(self.keys, a["weights/cfg/offset"], strict=True))
        scale = dict(zip(self.keys, a["weights/cfg/scale"], strict=True))
        shapes = self.shapes if keys is None else {k: self.shapes[k] for k in keys}
        state = fill(shapes, self.info["seed"], offset, scale)
        for k in state:
            stored = a.get("weights/param/" + k)
            if stored is not None:
                state[k] = stored.astype(np.float32)
            elif k.endswith("num_batches_tracked"):
                state[k] = np.array(int(offset[k]), np.int64)
        return state

    def pictures(self, case, name):
        """The uint8 pictures of input `name` of "eval" or "train"."""
        spec = self.info[case + "_pictures"][name]
        return pictures(spec["name"], self.info["seed"], spec["groups"], spec["height"], spec["width"])

    def normalised(self, uint8):
        """(pixel / 255 - mean) / std in float32: the network input."""
        mean, std = (np.array(self.info[k], np.float32).reshape(1, 3, 1, 1) for k in ("mean", "std"))
        return (uint8.astype(np.float32) / np.float32(255) - mean) / std

    def checkpoint(self, convert=lambda a: a):
        """The object that the official training script saves, arrays passed through `convert`."""
        layout = self.info["checkpoint"]
        state = {layout["prefix"] + k: convert(v) for k, v in self.state_dict().items()}
        if not layout["inside"]:
            return state
        return {layout["inside"]: state, **{k: _as_saved(v) for k, v in layout["beside"].items()}}

    def tolerance(self, entry, floor=None):
        """Allowed max-abs difference, relative to the largest expected value.

        `entry` is for example "eval/embedding" or "train/loss.total".  Ten times the measured
        float32 rounding of the official network, but never below 1e-4 (outputs, losses) or 1e-3.
        """
        exact = entry.startswith(("eval/", "train/loss."))
        return max(floor or (1e-4 if exact else 1e-3), 10 * self.info["noise"].get(entry, 0.0))


def _as_saved(value):
    """Scores are NumPy objects in the official files (so `weights_only=True` refuses them)."""
    if isinstance(value, list):
        return np.array(value)
    return np.float64(value) if isinstance(value, float) else value
