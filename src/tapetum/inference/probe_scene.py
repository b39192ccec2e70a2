"""The pictures of a probe: the generated night scene, in both modalities."""

from collections.abc import Sequence
from functools import cache
from itertools import product

import numpy as np

from tapetum.core.arrays import Whole
from tapetum.core.types import UNKNOWN_CAMERA, Modality
from tapetum.data.image_io import Picture, resize
from tapetum.data.pictures import Pictures
from tapetum.inference.artefact import ModelSettings
from tapetum.inference.probe import Probe
from tapetum.synth.scene import Scene, SceneOptions

PEOPLE, SHOTS = 4, 4
COUNT = PEOPLE * SHOTS * len(Modality)
SOME_CAMIDS = (1, 2, 3)  # where a model does not say which it was trained on
LIGHT = 6.0  # of the usual night: colours that a wrong channel order changes


def draw_pictures(settings: ModelSettings, count: int = COUNT) -> tuple[Pictures, Whole]:
    """Pictures of the night scene at a model's size, visible and infrared in turn, and their modalities."""
    pictures = [
        resize(_scene_picture(row), settings.size, interpolation=settings.interpolation, backend=settings.backend)
        for row in range(count)
    ]
    return np.stack(pictures), np.arange(count) % len(Modality)


def draw_probe(settings: ModelSettings, camids: Sequence[int], count: int = COUNT) -> Probe:
    """Pictures without vectors.

    Args:
        camids: that it was trained on; empty where they are not known.
    """
    pictures, modalities = draw_pictures(settings, count)
    known = np.array([*(camids or SOME_CAMIDS), UNKNOWN_CAMERA])
    cameras = known[np.arange(count) // len(Modality) % len(known)]
    return Probe(pictures, modalities, cameras, np.empty(0, dtype=np.float32))


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
