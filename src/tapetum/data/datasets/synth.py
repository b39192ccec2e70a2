"""The generated night scene: Night600's flat layout or another dataset's, with its settings in ``scene.json``.

Written by `tapetum data generate`; evaluated by the protocols of its layout (Night600's, if no other was asked for), so
that numbers are counted alike. That the pictures are generated is said by the name of the data, which stands beside the
protocol on every result card.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tapetum.core.atomic import write_bytes
from tapetum.core.errors import DataError
from tapetum.core.types import Record
from tapetum.data.datasets import night600
from tapetum.data.layout import Counts, find_base, wrong_layout
from tapetum.synth.scene import SceneOptions

NAME = "synth"
SCENE_FILE = "scene.json"
OBTAIN = "make it with 'tapetum data generate ROOT'"
PROTOCOLS = night600.PROTOCOLS  # the same rules, so under the same names
DEFAULT_PROTOCOL = night600.DEFAULT_PROTOCOL
QUERIES_STAY_IN_GALLERY = night600.QUERIES_STAY_IN_GALLERY
PUBLISHED: dict[str, Counts] = {}  # its size is an option
LAYOUTS = (f"{SCENE_FILE} beside {night600.LAYOUTS[0]}",)

picture_path = night600.picture_path


def read_records(root: Path, *, failures: list[Path] | None = None) -> list[Record]:
    """Records of train, query, gallery, each sorted by file name.

    Raises:
        DataError: the scene is missing or was not written to its end.
    """
    _read_scene(root)
    return night600.read_records(root, failures=failures)


def read_layout(root: Path) -> str:
    """The dataset in whose layout a scene was written; "synth" for Night600's under the scene's own name.

    Raises:
        DataError: the scene is missing or was not written to its end.
    """
    return str(_read_scene(root).get("dataset", NAME))


def read_options(root: Path) -> SceneOptions | None:
    """The settings of the scene that lies in a folder; None where none lies there, or one without settings.

    Raises:
        DataError: its file is damaged, or of a later version.
    """
    if not (root / SCENE_FILE).is_file():
        return None
    settings = _read_scene(root).get("options")
    if not settings:
        return None
    tuples = {name: tuple(value) for name, value in settings.items() if isinstance(value, list)}
    try:
        return SceneOptions(**{**settings, **tuples})
    except TypeError as error:
        raise DataError(
            f"{NAME}: {root / SCENE_FILE}: its options are none of a scene ({error}); generate the scene again"
        ) from None


def read_outfits(root: Path) -> dict[Path, int]:
    """Picture -> number of the clothes that its person wears with others; empty where all have their own.

    By picture, because some layouts number their training people anew (LLCM, RegDB).

    Raises:
        DataError: the scene is missing or was not written to its end.
    """
    scene = _read_scene(root)
    outfits = scene.get("outfits", {})
    return {root / each["path"]: int(outfits[str(each["pid"])]) for each in scene["pictures"]} if outfits else {}


def _read_scene(root: Path) -> dict[str, Any]:
    base = find_base(root, dataset=NAME, names=(), obtain=OBTAIN)
    scene = base / SCENE_FILE
    if not scene.is_file():
        raise wrong_layout(base, dataset=NAME, layouts=LAYOUTS)
    try:
        content = json.loads(scene.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{NAME}: {scene} is no valid JSON ({error}); generate the scene again") from None
    if not isinstance(content, dict):
        raise DataError(f"{NAME}: {scene} is not the file of a scene; generate the scene again")
    return content


def write_miniature(root: Path, rng: np.random.Generator) -> None:
    """Night600's miniature with an empty ``scene.json``."""
    night600.write_miniature(root, rng)
    write_bytes(root / SCENE_FILE, b"{}\n")
