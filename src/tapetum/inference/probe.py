"""Pictures on which two computations of one model are compared, kept in an artefact; `probe_scene` draws them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from tapetum.core.arrays import Real, Whole, lengths, to_array
from tapetum.core.atomic import write_bytes
from tapetum.core.types import UNKNOWN_CAMERA
from tapetum.data.pictures import Pictures, to_float
from tapetum.inference.artefact import PROBE, ArtefactError

if TYPE_CHECKING:
    from torch import Tensor

KEPT = 8  # in an artefact, with the vectors that PyTorch gave
FIELDS = ("pictures", "modalities", "camids", "vectors")
TINY = 1e-24  # below the product of two lengths


@dataclass(frozen=True)
class Probe:
    """Pictures and the vectors that PyTorch gives in fp32.

    Attributes:
        camids: (N,) int64: the model's cameras in turn, and one that nobody knows.
        vectors: (N, D) float32 of unit length.
    """

    pictures: Pictures
    modalities: Whole
    camids: Whole
    vectors: Real

    @property
    def images(self) -> Real:
        """(N, 3, H, W) float32 in 0..1."""
        return to_float(self.pictures).transpose(0, 3, 1, 2)


def save_probe(folder: Path, probe: Probe) -> None:
    """Keep some pictures and their vectors in an artefact."""
    kept = {name: np.ascontiguousarray(getattr(probe, name)[:KEPT]) for name in FIELDS}
    write_bytes(folder / PROBE, save(kept))


def read_probe(folder: Path) -> Probe:
    """The pictures and vectors of an artefact.

    Raises:
        ArtefactError: they cannot be read.
    """
    path = folder / PROBE
    try:
        arrays = load_file(path)
        # Artefacts of before, which look at no cameras, name none.
        arrays.setdefault("camids", np.full_like(arrays["modalities"], UNKNOWN_CAMERA))
        return Probe(**{name: arrays[name] for name in FIELDS})
    except (SafetensorError, OSError, KeyError) as error:
        raise ArtefactError(f"{path}: damaged ({error}); use another copy of the artefact") from None


def compare(vectors: "Real | Tensor", reference: "Real | Tensor") -> tuple[float, float]:
    """Largest absolute difference of an element, and smallest cosine of a row; NaN counts as the worst.

    Args:
        vectors: (N, D).
        reference: (N, D) of unit length; zeros, of a picture of which the network says nothing, are alike to zeros.
    """
    vectors, reference = to_array(vectors), to_array(reference)
    difference = np.nan_to_num(np.abs(vectors - reference).max(), nan=np.inf)
    ours, theirs = (each.astype(np.float64) for each in (vectors, reference))
    cosines = (ours * theirs).sum(1) / np.maximum(lengths(ours) * lengths(theirs), TINY)
    cosines[(lengths(ours) == 0) & (lengths(theirs) == 0)] = 1
    return float(difference), float(np.nan_to_num(cosines.min(), nan=-1.0))
