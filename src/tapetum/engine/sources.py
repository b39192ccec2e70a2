"""From the data section of a recipe, or ``NAME=ROOT`` on the command line, to an opened dataset."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tapetum.core.errors import RecipeError, TrainingError
from tapetum.core.types import Record
from tapetum.data.catalog import Dataset, open_dataset
from tapetum.data.loader import Progress, drop_corrupt
from tapetum.data.sampler import SamplerOptions
from tapetum.data.transforms import AugmentOptions, ErasingOptions
from tapetum.engine.recipe import DataSection, Recipe

SYNTH = "synth"
CACHE = Path("runs/data")


@dataclass(frozen=True)
class OpenedData:
    """A dataset as a recipe wants it.

    Attributes:
        dataset: with its corrupt pictures left out where the recipe says so.
        skipped: one message for each picture left out.
    """

    dataset: Dataset
    skipped: tuple[str, ...] = ()


def parse_source(text: str) -> tuple[str, str | None]:
    """``NAME=ROOT``, or ``NAME`` alone, in two parts.

    Args:
        text: as typed.
    Raises:
        RecipeError: a part is empty.
    """
    name, equals, root = text.partition("=")
    if not name or (equals and not root):
        raise RecipeError(f"--data {text!r} is not of the form NAME=ROOT, e.g. night600=/data/Night600, or synth")
    return name, root or None


def source_overrides(text: str) -> list[str]:
    """What ``--data NAME=ROOT`` changes in a recipe.

    Args:
        text: as typed.
    """
    name, root = parse_source(text)
    return [f"data.name={name}", f"data.root={json.dumps(root)}"]


def open_data(section: DataSection, *, cache: Path = CACHE, progress: Progress | None = None) -> OpenedData:
    """Open the dataset of a recipe; the generated night scene is made first where it is not there yet.

    Args:
        section: of the recipe.
        cache: folder for generated scenes.
        progress: called with (done, total) while pictures are generated or checked.
    Raises:
        RecipeError: the root is not given, or the dataset has no such option.
        DataError: the dataset cannot be read.
    """
    if section.name == SYNTH:
        dataset = open_scene(section.scene, Path(section.root) if section.root else None, cache, progress)
    else:
        if section.scene:
            raise RecipeError(f"data.scene is for data.name = {SYNTH}, not for {section.name}; remove it")
        if section.root is None:
            raise RecipeError(
                f"data.root is not given; add --data {section.name}=ROOT, or --data {SYNTH} for the generated scene"
            )
        options = {"holdout_first": True} if section.holdout_first else {}
        dataset = open_dataset(section.name, Path(section.root), options=options)
    if not section.skip_corrupt:
        return OpenedData(dataset)
    good, skipped = drop_corrupt(dataset.records, num_workers=max(1, section.workers), progress=progress)
    return OpenedData(replace(dataset, records=tuple(good)), tuple(skipped))


def training_records(dataset: Dataset) -> list[Record]:
    """The dataset's training pictures that show a known person.

    Args:
        dataset: opened.
    Raises:
        TrainingError: there are none.
    """
    records = [record for record in dataset.split("train") if record.pid >= 0]
    if not records:
        raise TrainingError(f"{dataset.name}: no training picture in {dataset.root}; choose a dataset with that split")
    return records


def open_scene(
    settings: Mapping[str, Any], root: Path | None = None, cache: Path = CACHE, progress: Progress | None = None
) -> Dataset:
    """The generated night scene in a dataset's layout, made once for the same settings.

    Args:
        settings: of the scene and of how much of it is written; see `tapetum.data.generate`.
        root: where to put it; None takes a folder of `cache` named after the settings.
        cache: folder for generated scenes.
        progress: called with (done, total) pictures.
    """
    from tapetum.data.generate import generate_dataset

    text = json.dumps(dict(settings), sort_keys=True)
    root = root or cache / f"{SYNTH}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    raise NotImplementedError((generate_dataset, root, progress))


def picture_settings(section: DataSection) -> dict[str, Any]:
    """How pictures are read, as keyword arguments of the loaders.

    Args:
        section: of the recipe.
    """
    return {
        "size": section.size,
        "interpolation": section.interpolation,
        "backend": section.backend,
        "cache": section.cache,
        "num_workers": section.workers,
    }


def sampler_options(recipe: Recipe) -> SamplerOptions:
    """The sampler's options of a recipe."""
    given = recipe.sampler.model_dump(exclude_none=True)
    return SamplerOptions(**given)


def augment_options(recipe: Recipe) -> AugmentOptions:
    """The options of the changes to training pictures of a recipe."""
    section = recipe.augment
    return AugmentOptions(
        pad=section.pad,
        flip=section.flip,
        erasing=ErasingOptions(**section.erasing.model_dump()),
        colour_jitter=section.colour_jitter,
    )
