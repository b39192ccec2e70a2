"""Named random streams: one seed gives independent generators for identity, camera, sampler and so on.

Asking for one stream never moves another, so "the same people, other cameras" is a change of one seed.
"""

import hashlib

import numpy as np


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream called `names`, e.g. ("identity", 17); the same on every machine and Python."""
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    """NumPy's generator of the stream `names` under `seed`."""
    return np.random.Generator(np.random.PCG64(derive_seed(seed, *names)))
