"""The front door: what most programs need, in the words of the field. Each function imports its room when called."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tapetum.core import discovery
from tapetum.core.extras import naming_extras

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from tapetum.evaluation.card import Card
    from tapetum.gallery.store import Store
    from tapetum.indexing.report import IndexReport
    from tapetum.inference.model import Model
    from tapetum.searching.find import Findings

    Place = str | Path
    Pictures = Sequence[str | Path | NDArray[np.uint8]]
    Light = Literal["visible", "infrared"]


@naming_extras
def load_model(
    place: Place = "tapetum-lite0",
    *,
    released: str | None = None,
    precision: str = "auto",
    device: Literal["auto", "cpu", "gpu"] = "auto",
) -> Model:
    """A model ready to embed pictures.

    Args:
        place: a run folder, a checkpoint, a folder of `tapetum export`, or a checkpoint of released code; the name is
            that of the model in the package.
        released: layout of released code, e.g. "idf-official"; docs/training.md, "Official checkpoints", lists them.
        precision: "fp32", "bf16", or "auto": bf16 where the machine computes it fast and no vector turns away.
        device: "auto" takes a GPU where there is one.
    Raises:
        CheckpointError: nothing there, damaged, or a library is missing.
        RecipeError: the layout is unknown, or this precision is not available here.
    """
    from tapetum.inference.sessions import open_model

    if released is None:
        return open_model(Path(place), precision=precision, device=device)
    from tapetum.runs.convert import import_checkpoint

    with tempfile.TemporaryDirectory() as folder:
        ours = Path(folder) / "converted.safetensors"
        import_checkpoint(released, Path(place), ours)
        return open_model(ours, precision=precision, device=device)


@naming_extras
def from_hub(
    repository: str, *, revision: str | None = None, precision: str = "auto", trust_code: bool = False
) -> Model:
    """A model of the Hugging Face hub, fetched unless it was already, ready to embed pictures.

    Args:
        repository: "organisation/name" of what `push_to_hub` sent.
        revision: branch, tag or commit.
        precision: as for `load_model`.
        trust_code: a TorchScript artefact is a program; true runs it. For files of people whom you trust.
    Raises:
        CheckpointError: it is not there, holds no model of `tapetum export`, or cannot be fetched.
    """
    from tapetum.inference.hub import fetch_from_hub
    from tapetum.inference.sessions import open_model

    return open_model(fetch_from_hub(repository, revision=revision), precision=precision, trust_code=trust_code)


@naming_extras
def push_to_hub(
    folder: Place, repository: str, *, private: bool = True, licence: str | None = None, about: str = ""
) -> str:
    """Send a model of `tapetum export` to the Hugging Face hub, or one of the package by its name; its address there.

    Args:
        repository: "organisation/name"; made where it is not there.
        private: of one that is made.
        licence: as the hub names them, e.g. "apache-2.0"; a model of the package has one.
        about: what it was trained and measured on, in Markdown, for its card.
    Raises:
        CheckpointError: no such model.
        OutputError: the hub refuses it or cannot be reached.
    """
    from tapetum.inference import hub

    return hub.push_to_hub(Path(folder), repository, private=private, licence=licence, about=about)


@naming_extras
def embed(model: Model, pictures: Pictures, *, modality: Light | Sequence[Light] = "visible") -> Tensor:
    """Vectors of pictures of people, (N, D) float32 of unit length: their inner products are similarities.

    Args:
        model: of `load_model`.
        pictures: files, or (h, w, 3) uint8 RGB arrays, of any size; one person fills each.
        modality: of all pictures, or one each.
    Raises:
        DataError: a picture is missing or damaged.
        RecipeError: an unknown modality.
    """
    import numpy as np
    import torch

    from tapetum.core.errors import DataError
    from tapetum.data.image_io import read_picture

    named = isinstance(pictures, str | Path)
    if named or getattr(pictures, "ndim", 0) == 3:  # would be taken letter by letter, or row by row
        raise DataError(f"{pictures if named else 'an array'}: is one picture; give a list of pictures")
    inputs = list(pictures)
    kinds = [modality] * len(inputs) if isinstance(modality, str) else list(modality)
    numbers = np.array([_modality(each) for each in kinds], dtype=np.int64)
    vectors = [torch.empty(0, model.dimension)]
    for start in range(0, len(inputs), CHUNK):
        some = [  # one after the other: a chunk of photographs as they are would take gigabytes
            model.resize([read_picture(Path(each)) if isinstance(each, str | Path) else each])
            for each in inputs[start:][:CHUNK]
        ]
        vectors.append(model.describe(np.concatenate(some), numbers[start:][:CHUNK]))
    return torch.cat(vectors)


@naming_extras
def evaluate(place: Place, *, data: str | None = None, protocol: str | None = None) -> Card:
    """Test a run by a protocol of a data set; the result card is also written beside the run.

    Args:
        place: a run folder or a checkpoint.
        data: "NAME=ROOT" of a data set; None takes the one that the run's recipe names.
        protocol: one of the data set's; None takes the recipe's choice, else the data set's default.
    Returns:
        The card: ``card.metrics["rank1"]`` and ``["mean_ap"]`` are fractions.
    Raises:
        TapetumError: the run or the pictures are missing or damaged, or the protocol cannot be carried out on them.
    """
    from tapetum.inference.evaluate import evaluate_run, override_data
    from tapetum.runs.sources import open_data

    section = override_data(Path(place), data)
    (result,) = evaluate_run(Path(place), [protocol], dataset=open_data(section).dataset, data=section)
    return result.card


@naming_extras
def open_gallery(place: Place) -> Store:
    """A gallery that is there.

    Args:
        place: a folder, or milvus://host:port/name.
    Raises:
        GalleryError: there is none, it is damaged, or the server does not answer.
    """
    from tapetum.gallery import opening

    return opening.open_gallery(place)


@naming_extras
def index(
    sources: Sequence[str | Path] | str | Path,
    gallery: Place,
    model: Place | None = None,
    *,
    detector: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> IndexReport:
    """Read videos, folders of frames or crops into a gallery; what it holds already is passed over.

    Args:
        sources: files and folders.
        gallery: where it is or shall be.
        model: a run folder, a checkpoint or a folder of `tapetum export`; None takes the one that the gallery
            remembers, for a new one "tapetum-lite0", which comes with the package.
        detector: finds people in frames: "auto" (the best that is there; the report says which), "background", a
            fetched detector's name, "torchvision:NAME", or an ONNX or TFLite file.
        progress: called with (done, total) frames and pictures.
    Returns:
        What was read, stored and refused; ``print(*report.lines(), sep="\\n")`` tells it to people.
    Raises:
        TapetumError: a source, the model or the gallery cannot be used; every row counted so far is stored.
    """
    from tapetum.footage.detectors import build_detector
    from tapetum.footage.sources import find_sources
    from tapetum.indexing.index import index_sources
    from tapetum.indexing.opening import open_to_index
    from tapetum.indexing.report import IndexReport

    report = IndexReport()
    places = [sources] if isinstance(sources, str | Path) else list(sources)
    finder = build_detector(detector)
    store, embedder = open_to_index(str(gallery), None if model is None else Path(model))
    with store:
        footage = find_sources(map(str, places), report=report.footage)
        return index_sources(footage, store, embedder, finder, report=report, progress=progress)


@naming_extras
def search(
    gallery: Store,
    person: str | Path | NDArray[np.uint8] | None = None,
    *,
    tracklet: str | None = None,
    model: Model | None = None,
    k: int = 20,
    **options: Any,
) -> Findings:
    """Who of a gallery looks like this person, and is it that person?

    Args:
        gallery: of `open_gallery`.
        person: a picture that one person fills, file or (h, w, 3) uint8 RGB; or None, where `tracklet` says who.
        tracklet: of the gallery; needs no model.
        model: the gallery's own, opened, and no other; None opens the one that it remembers, for a picture.
        k: answers.
        options: further fields of `tapetum.searching.question.FindOptions`, e.g. ``filter="camera == 'yard'"``.
    Returns:
        Answers, best first: ``findings.found[0].probability``, ``.accepted``, ``.row``; and a verdict in words.
    Raises:
        TapetumError: the picture, the filter or an option is wrong, or the model is another or not where it was.
    """
    from tapetum.core.errors import GalleryError
    from tapetum.searching.calibrated import calibration_of_gallery
    from tapetum.searching.find import find
    from tapetum.searching.query import query_of_pictures, query_of_tracklet
    from tapetum.searching.question import FindOptions

    wrong = GalleryError("search: give a picture of the person, or the name of a tracklet, and not both")
    if person is not None and tracklet is not None:
        raise wrong
    settings = FindOptions(k=k, **options)
    if tracklet is not None:
        query = query_of_tracklet(gallery, tracklet)
    elif person is not None:
        from tapetum.data.image_io import read_picture
        from tapetum.searching.gallery_model import open_gallery_model

        picture = read_picture(Path(person)) if isinstance(person, str | Path) else person
        label = str(person) if isinstance(person, str | Path) else "picture"
        query = query_of_pictures(model or open_gallery_model(gallery), [picture], [label])
    else:
        raise wrong
    calibration, _ = calibration_of_gallery(gallery)
    return find(gallery, [query], settings, calibration)[0]


def list_methods() -> list[str]:
    """Names for ``method.name`` of a recipe."""
    return discovery.list_names("tapetum.methods")


def list_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    from tapetum.runs import recipe

    return recipe.list_recipes()


def list_datasets() -> list[str]:
    """Names for ``data.name`` of a recipe, and for NAME=ROOT."""
    return discovery.list_names("tapetum.data.datasets")


CHUNK = 256  # pictures decoded at once


def _modality(name: str) -> int:
    from tapetum.core.errors import RecipeError, nearest_name
    from tapetum.core.types import Modality

    names = {each.name.lower(): int(each) for each in Modality}
    if name not in names:
        raise RecipeError(f"modality {name!r} is unknown; {nearest_name(name, names)}")
    return names[name]
