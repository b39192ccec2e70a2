"""From the data section of a recipe, or ``NAME=ROOT`` on the command line, to an opened dataset."""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from tapetum.core.atomic import make_folder
from tapetum.core.errors import DataError, RecipeError, TrainingError
from tapetum.core.locks import locked
from tapetum.core.protocol import Protocol
from tapetum.core.types import Record
from tapetum.data.catalog import (
    Dataset,
    check_options,
    load_dataset_module,
    load_reader,
    open_dataset,
    read_division,
)
from tapetum.data.datasets.synth import NAME as SYNTH
from tapetum.data.datasets.synth import SCENE_FILE
from tapetum.data.generate import generate_dataset, scene_settings
from tapetum.data.loose import list_pictures
from tapetum.data.pictures import PictureOptions, drop_corrupt
from tapetum.data.sampler import Sampling, read_sampling
from tapetum.data.threads import Progress
from tapetum.data.transforms import Operation, read_operations
from tapetum.runs.recipe import DataSection, Recipe, scene_options
from tapetum.synth.scene import SceneOptions

CACHE = Path("runs/data")
_OPTION = re.compile(r"(.+=.+),(\w+)=([^,=]*)")  # the last reading option behind NAME=ROOT
WORTH_A_PROCESS = 100  # pictures that take about as long to render as a process takes to begin


@dataclass(frozen=True)
class OpenedData:
    """A dataset as a recipe wants it.

    Attributes:
        skipped: one message for each picture left out.
    """

    dataset: Dataset
    skipped: tuple[str, ...] = ()


def parse_source(text: str) -> tuple[str, str | None]:
    """``NAME=ROOT``, or ``NAME`` alone, in two parts.

    Raises:
        RecipeError: a part is empty.
    """
    name, equals, root = text.partition("=")
    if not name or (equals and not root):
        raise RecipeError(f"--data {text!r} is not of the form NAME=ROOT, e.g. night600=/data/Night600, or synth")
    return name, root or None


@dataclass(frozen=True)
class NamedRoot:
    """A dataset to be looked at, without a recipe; `root` may be None for the generated scene."""

    name: str
    root: Path | None
    options: Mapping[str, Any] = field(default_factory=dict)

    def label(self, *, with_root: bool) -> str:
        """Its name with its reading options, and its folder's name where others have the same."""
        parts = [self.root.name] if with_root and self.root is not None else []
        parts += [f"{key}={value}" for key, value in self.options.items()]
        return f"{self.name} ({', '.join(parts)})" if parts else self.name


def parse_named_root(text: str) -> NamedRoot:
    """``NAME=ROOT`` or ``NAME``, behind a root any number of ``,KEY=VALUE`` reading options (JSON, else text).

    Raises:
        RecipeError: it is not of that form.
    """
    options: dict[str, Any] = {}
    rest = text
    while match := _OPTION.fullmatch(rest):
        rest, key, text_of_value = match.groups()
        try:
            value = json.loads(text_of_value)
        except ValueError:
            value = text_of_value
        options = {key: value, **options}
    name, root = parse_source(rest)
    return NamedRoot(name, None if root is None else Path(root), options)


def label_roots(sources: Sequence[NamedRoot]) -> list[str]:
    """A label a dataset, by which figures and tables tell them apart.

    Raises:
        RecipeError: two of the datasets are the same.
    """
    plain = Counter(source.label(with_root=False) for source in sources)
    labels = [source.label(with_root=plain[source.label(with_root=False)] > 1) for source in sources]
    for label, count in Counter(labels).items():
        if count > 1:
            raise RecipeError(f"{label} is given {count} times; name each dataset once, its folders by different names")
    return labels


def source_overrides(text: str, section: DataSection | None = None) -> list[str]:
    """What ``--data NAME=ROOT`` changes in a recipe; another dataset also forgets the options of the one before.

    A night scene in place of a visible-infrared dataset is one in that dataset's layout.

    Args:
        section: of the recipe, where one is at hand; a root that is not given stays for the same name.
    """
    name, root = parse_source(text)
    if section is not None and name == section.name and root is None:
        return []
    changes = [f"data.name={name}", f"data.root={json.dumps(root)}"]
    if section is not None and name != section.name:
        changes += ["data.options={}", f"data.scene={json.dumps(_scene_in_place_of(section.name, name))}"]
    return changes


def _scene_in_place_of(before: str, name: str) -> dict[str, str]:
    """Settings of the scene that stands in for a dataset: the layout, where it decides who searches whom."""
    stands_in = name == SYNTH and before != SYNTH and hasattr(load_dataset_module(before), "scene_defaults")
    return {"layout": before} if stands_in else {}


def records_of(source: str, section: DataSection, split: str, *, progress: Progress | None = None) -> list[Record]:
    """Records of a dataset's split, or of the pictures in a folder.

    Args:
        source: ``NAME=ROOT``, a dataset's name alone where `section` names its root, or a picture or folder.
        progress: called with (done, total) while pictures are generated.
    Raises:
        DataError: nothing there.
    """
    if Path(source).exists():
        return list_pictures([Path(source)], split=split)
    name, root = parse_source(source)
    same = name == section.name
    values: dict[str, Any] = {"name": name, "root": root or (section.root if same else None)}
    if not same:
        values |= {"options": {}, "scene": _scene_in_place_of(section.name, name)}
    return list_split(open_data(section.model_copy(update=values), progress=progress).dataset, split)


def open_data(section: DataSection, *, cache: Path = CACHE, progress: Progress | None = None) -> OpenedData:
    """Open the dataset of a recipe; the generated night scene is made first where it is not there yet.

    Raises:
        RecipeError: the root is not given, or the dataset has no such option.
        DataError: the dataset cannot be read.
    """
    if section.name == SYNTH:
        place = Path(section.root) if section.root else None
        dataset = open_scene(section.scene, place, cache, progress, options=section.options)
    else:
        if section.scene:
            raise RecipeError(f"data.scene is for data.name = {SYNTH}, not for {section.name}; remove it")
        if section.root is None:
            raise RecipeError(
                f"data.root is not given; add --data {section.name}=ROOT, or --data {SYNTH} for the generated scene"
            )
        dataset = open_dataset(section.name, Path(section.root), options=section.options)
    if not section.skip_corrupt:
        return OpenedData(dataset)
    good, skipped = drop_corrupt(dataset.records, num_workers=max(1, section.workers), progress=progress)
    return OpenedData(replace(dataset, records=tuple(good), damaged=len(skipped)), tuple(skipped))


def list_protocols(section: DataSection) -> dict[str, Protocol]:
    """The protocols that the dataset of a recipe will have; nothing is generated and no picture is listed.

    Raises:
        RecipeError: there is no such dataset.
        DataError: a scene that lies there cannot be read.
    """
    return dict(_load_layout(section).PROTOCOLS)


def default_protocol(section: DataSection) -> str:
    """The usual one of `list_protocols`.

    Raises:
        RecipeError: there is no such dataset.
        DataError: as of `list_protocols`.
    """
    return str(_load_layout(section).DEFAULT_PROTOCOL)


def check_reading(section: DataSection) -> None:
    """The dataset of a recipe has the reading options that are set; nothing is generated and no picture is listed.

    Raises:
        RecipeError: it does not know one, or there is no such dataset.
        DataError: as of `list_protocols`.
    """
    check_options(_load_layout(section), section.options, section.name)


def divide_people(section: DataSection) -> dict[str, Any]:
    """The reading options by which a recipe's dataset is divided into training and test, e.g. {"trial": 1}; else none.

    Raises:
        RecipeError: there is no such dataset.
        DataError: as of `list_protocols`.
    """
    return read_division(_load_layout(section), section.options)


def _load_layout(section: DataSection) -> ModuleType:
    """The file that will read a recipe's dataset: of a scene, that of its layout."""
    root = Path(section.root) if section.root else None
    if section.name == SYNTH and root is not None and (root / SCENE_FILE).is_file():
        return load_reader(SYNTH, root)
    return load_dataset_module(section.scene.get("layout", section.name))


def training_records(dataset: Dataset) -> list[Record]:
    """The dataset's training pictures that show a known person.

    Raises:
        TrainingError: there are none.
    """
    records = [record for record in dataset.split("train") if record.pid >= 0]
    if not records:
        raise TrainingError(f"{dataset.name}: no training picture in {dataset.root}; choose a dataset with that split")
    return records


def open_scene(
    settings: Mapping[str, Any],
    root: Path | None = None,
    cache: Path = CACHE,
    progress: Progress | None = None,
    *,
    options: Mapping[str, Any] | None = None,
) -> Dataset:
    """The generated night scene; it is generated once, and an interrupted generation is completed.

    Args:
        settings: of `tapetum.synth.scene.SceneOptions`, queries_per_camera and layout; what is not named keeps its
            default, or the layout's.
        root: where it lies or shall lie; None takes a folder of `cache` named after the settings.
        options: reading options of the layout, e.g. {"trial": 2} for regdb.
    Raises:
        RecipeError: a setting is unknown or cannot work.
        DataError: a scene that lies there is in another layout.
    """
    scene, queries_per_camera = scene_options(settings)
    layout = settings.get("layout", SYNTH)
    if root is not None and not set(settings) - {"layout"} and (root / SCENE_FILE).is_file():
        present = load_reader(SYNTH, root).NAME  # somebody's own scene, whatever its settings
        if settings and present != layout:
            raise DataError(f"{root}: holds a scene in the layout {present}, wanted is {layout}; give another folder")
        return open_dataset(SYNTH, root, options=options)
    text = json.dumps([scene_settings(scene), queries_per_camera], sort_keys=True)
    stem = SYNTH if layout == SYNTH else f"{SYNTH}-{layout}"
    root = root or cache / f"{stem}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    make_folder(root.parent)
    with locked(root.with_name(f".{root.name}.lock"), refusal=None):  # two runs may want the same scene
        generate_dataset(
            root,
            layout,
            scene,
            queries_per_camera=queries_per_camera,
            workers=choose_workers(scene),
            progress=progress,
        )
    return open_dataset(SYNTH, root, options=options)


def choose_workers(scene: SceneOptions) -> int:
    """Processes that render a scene: one for each core, but fewer where there is little to render."""
    people = scene.num_train_people + scene.num_test_people
    views = (scene.cameras_per_person or scene.cameras) + len(scene.paired_cameras)
    pictures = people * views * scene.pictures_per_camera
    return max(1, min(os.cpu_count() or 1, pictures // WORTH_A_PROCESS))


def picture_options(section: DataSection) -> PictureOptions:
    """How pictures are read."""
    return PictureOptions(
        section.size, section.interpolation, section.backend, section.cache, num_workers=section.workers
    )


def sampler_options(recipe: Recipe) -> Sampling:
    """The sampler of a recipe."""
    return read_sampling(recipe.sampler.model_dump())


def augment_options(recipe: Recipe) -> tuple[Operation, ...]:
    """The changes to training pictures of a recipe."""
    return read_operations(recipe.augment)


def list_split(dataset: Dataset, split: str) -> list[Record]:
    """Records of one split of a dataset.

    Args:
        split: "train", "query", "gallery", or another one that it has.
    Raises:
        DataError: it has no such pictures.
    """
    records = dataset.split(split)
    if not records:
        known = ", ".join(sorted({record.split for record in dataset.records}))
        raise DataError(f"{dataset.name}: no picture of split {split!r} in {dataset.root}; it has {known}")
    return records
