"""Pictures on which two computations of one model are compared: the generated night scene, in both modalities."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from tapetum.core.atomic import write_bytes
from tapetum.core.types import UNKNOWN_CAMERA, Modality
from tapetum.core.vectors import normalise
from tapetum.data.image_io import Picture, resize
from tapetum.data.pictures import Pictures
from tapetum.data.transforms import to_float, to_tensor
from tapetum.inference.artefact import PROBE, ArtefactError, ModelSettings
from tapetum.synth.scene import Scene, SceneOptions

PEOPLE, SHOTS = 4, 4
COUNT = PEOPLE * SHOTS * len(Modality)
KEPT = 8  # in an artefact, with the vectors that PyTorch gave
SOME_CAMIDS = (1, 2, 3)  # where a model does not say which it was trained on
LIGHT = 6.0  # of the usual night: colours that a wrong channel order changes


@dataclass(frozen=True)
class Probe:
    """Pictures and the vectors that PyTorch gives in fp32.

    Attributes:
        camids: (N,) int64: the model's cameras in turn, and one that nobody knows.
        vectors: (N, D) float32 of unit length.
    """

    pictures: Pictures
    modalities: Tensor
    camids: Tensor
    vectors: Tensor

    @property
    def images(self) -> Tensor:
        """(N, 3, H, W) float32 in 0..1."""
        return to_tensor(to_float(self.pictures))


def draw_pictures(settings: ModelSettings, count: int = COUNT) -> tuple[Pictures, Tensor]:
    """Pictures of the night scene at a model's size, visible and infrared in turn, and their modalities."""
    pictures = [
        resize(_scene_picture(row), settings.size, interpolation=settings.interpolation, backend=settings.backend)
        for row in range(count)
    ]
    return np.stack(pictures), torch.arange(count) % len(Modality)


def draw_probe(settings: ModelSettings, camids: Sequence[int], count: int = COUNT) -> Probe:
    """Pictures without vectors.

    Args:
        camids: that it was trained on; empty where they are not known.
    """
    pictures, modalities = draw_pictures(settings, count)
    known = torch.tensor([*(camids or SOME_CAMIDS), UNKNOWN_CAMERA])
    cameras = known[torch.arange(count) // len(Modality) % len(known)]
    return Probe(pictures, modalities, cameras, torch.empty(0))


@cache
def _scene() -> Scene:
    options = SceneOptions(
        num_train_people=PEOPLE,
        num_test_people=0,
        cameras=len(Modality),
        infrared_cameras=(2,),
        pictures_per_camera=SHOTS,
        light_scale=LIGHT,
    )
    return Scene(options)


@cache
def _scene_picture(row: int) -> Picture:
    """Cameras change fastest, then people."""
    scene = _scene()
    index, pid, camid = list(product(range(SHOTS), scene.options.train_pids, (1, 2)))[row]
    return scene.picture(pid, camid, index)


def save_probe(folder: Path, probe: Probe) -> None:
    """Keep some pictures and their vectors in an artefact."""
    tensors = {
        "pictures": torch.from_numpy(probe.pictures[:KEPT].copy()),
        "modalities": probe.modalities[:KEPT].clone(),
        "camids": probe.camids[:KEPT].clone(),
        "vectors": probe.vectors[:KEPT].clone(),
    }
    write_bytes(folder / PROBE, save(tensors))


def read_probe(folder: Path) -> Probe:
    """The pictures and vectors of an artefact.

    Raises:
        ArtefactError: they cannot be read.
    """
    path = folder / PROBE
    try:
        tensors = load_file(path)
        modalities = tensors["modalities"]
        # Artefacts of before, which look at no cameras, name none.
        camids = tensors.get("camids", torch.full_like(modalities, UNKNOWN_CAMERA))
        return Probe(tensors["pictures"].numpy(), modalities, camids, tensors["vectors"])
    except (SafetensorError, OSError, KeyError) as error:
        raise ArtefactError(f"{path}: damaged ({error}); use another copy of the artefact") from None


def compare(vectors: Tensor, reference: Tensor) -> tuple[float, float]:
    """Largest absolute difference of an element, and smallest cosine of a row; NaN counts as the worst.

    Args:
        vectors: (N, D).
        reference: (N, D) of unit length.
    """
    difference = (vectors - reference).abs().max().nan_to_num(torch.inf)
    cosine = (normalise(vectors.double()) * normalise(reference.double())).sum(1).min().nan_to_num(-1)
    return float(difference), float(cosine)
