"""From runs and datasets to the heat maps of a figure: which pictures, asked for what, and where each network looks."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tapetum.core.errors import DataError, RecipeError, nearest_name
from tapetum.core.seeding import numpy_generator
from tapetum.core.types import Batch, Record
from tapetum.data.catalog import Dataset
from tapetum.data.image_io import read_picture
from tapetum.data.loader import EvalLoader
from tapetum.data.threads import Progress
from tapetum.inference.activation import BATCH, ROLLOUT, Targets, explain
from tapetum.inference.devices import choose_device
from tapetum.plots.activation import Activations, RunMaps
from tapetum.runs.checkpoint import Checkpoint, load_checkpoint
from tapetum.runs.recipe import DataSection, Recipe, check_recipe, override_recipe
from tapetum.runs.sources import (
    NamedRoot,
    label_roots,
    list_split,
    open_data,
    parse_named_root,
    picture_options,
    source_overrides,
)

SPLITS = ("query", "gallery", "train")


@dataclass(frozen=True)
class Choice:
    """Which pictures are shown.

    Attributes:
        count: pictures of each dataset.
        split: "query", "gallery" or "train".
        names: files of the dataset, by name or path, which are shown instead of drawn ones.
        seed: draws the pictures, and the other picture of each person.
    """

    count: int = 4
    split: str = "query"
    names: Sequence[str] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise RecipeError(f"split {self.split!r} is unknown; {nearest_name(self.split, SPLITS)}")


@dataclass(frozen=True)
class _Run:
    title: str
    checkpoint: Checkpoint
    recipe: Recipe


@dataclass(frozen=True)
class _Shown:
    """Pictures of a dataset, and another one of each person."""

    section: DataSection
    dataset: Dataset
    split: str
    records: Sequence[Record]
    others: Sequence[Record]


def collect_activations(
    places: Sequence[Path],
    *,
    sources: Sequence[str] = (),
    layers: Sequence[str] = (),
    choice: Choice | None = None,
    progress: Progress | None = None,
) -> list[Activations]:
    """Heat maps of the same pictures under every run, for each dataset.

    A picture whose person the run was trained on is asked for the class score of that person, any other for its
    similarity to another picture of the same person, of another camera where there is one.

    Args:
        places: run folders or checkpoint files.
        sources: NAME=ROOT of datasets, with reading options as for `parse_named_root`; empty takes the first run's.
        layers: as for `tapetum.inference.activation.explain`.
        progress: called with (done, total) where pictures are generated.
    Raises:
        CheckpointError: a run has no checkpoint, or a damaged one.
        DataError: pictures are missing, or a person has one only.
        RecipeError: a dataset or a layer is unknown, or gives no maps.
    """
    choice = choice or Choice()
    runs = _open_runs(places)
    first = runs[0]
    named = [parse_named_root(source) for source in sources]
    changes_of = [_changes_for(source, first.recipe.data) for source in named] or [[]]  # none: the run's own dataset
    titles = label_roots(named) if len(named) > 1 else [""]
    sheets = []
    for title, changes in zip(titles, changes_of, strict=True):
        section = override_recipe(first.recipe, changes, str(places[0])).data
        shown = _choose_pictures(section, open_data(section, progress=progress).dataset, choice)
        sheets.append(
            Activations(
                title=title,
                pictures=[read_picture(record.path) for record in shown.records],
                captions=[f"person {record.pid}\ncamera {record.camid}" for record in shown.records],
                runs=[_look(run, shown, layers) for run in runs],
            )
        )
    return sheets


def _changes_for(source: NamedRoot, section: DataSection) -> list[str]:
    """What a dataset on the command line changes in the run's recipe."""
    text = source.name if source.root is None else f"{source.name}={source.root}"
    options = [f"data.options={json.dumps(dict(source.options))}"] if source.options else []
    return source_overrides(text, section) + options


def _open_runs(places: Sequence[Path]) -> list[_Run]:
    checkpoints = [load_checkpoint(place) for place in places]
    recipes = [check_recipe(each.header.recipe, f"in {each.path}") for each in checkpoints]
    names = [recipe.name for recipe in recipes]
    return [
        _Run(recipe.name if names.count(recipe.name) == 1 else str(place), checkpoint, recipe)
        for place, checkpoint, recipe in zip(places, checkpoints, recipes, strict=True)
    ]


def _choose_pictures(section: DataSection, dataset: Dataset, choice: Choice) -> _Shown:
    split = list_split(dataset, choice.split)
    searched = {record.pid for record in (dataset.split("query") if choice.split == "gallery" else split)}
    candidates = [record for record in split if record.pid >= 0 and record.pid in searched]  # no distractors
    known = [record for record in dataset.records if (record.split == "train") == (choice.split == "train")]
    by_person: dict[int, list[Record]] = {}
    for record in known:
        by_person.setdefault(record.pid, []).append(record)

    def others_of(record: Record) -> list[Record]:
        """Other pictures of the person, of other cameras where there are some; a query may lie in the gallery too."""
        rest = [each for each in by_person.get(record.pid, ()) if each.path.name != record.path.name]
        return [each for each in rest if each.camid != record.camid] or rest

    rng = numpy_generator(choice.seed, "activation")
    records = _draw(candidates, others_of, choice.count, rng)
    if records and choice.names:
        records = [_find_picture(name, candidates, dataset) for name in choice.names]
    if not records:
        raise DataError(
            f"{dataset.name}: nobody has two pictures in the split {choice.split} of {dataset.root}; show another split"
        )
    others = []
    for record in records:
        rest = others_of(record)
        if not rest:
            raise DataError(f"{record.path}: is the only picture of person {record.pid}; choose one of somebody else")
        others.append(rest[int(rng.integers(len(rest)))])
    return _Shown(section, dataset, choice.split, records, others)


def _draw(
    candidates: Sequence[Record],
    others_of: Callable[[Record], list[Record]],
    count: int,
    rng: np.random.Generator,
) -> list[Record]:
    """Pictures of as many people as there are, in the order of people and cameras."""
    order = [record for row in rng.permutation(len(candidates)) if others_of(record := candidates[row])]
    people: set[int] = set()
    firsts: list[Record] = []
    rest: list[Record] = []
    for record in order:
        (rest if record.pid in people else firsts).append(record)
        people.add(record.pid)
    some = [*firsts, *rest][:count]
    return sorted(some, key=lambda record: (record.pid, record.camid, record.path))


def _find_picture(name: str, candidates: Sequence[Record], dataset: Dataset) -> Record:
    path = Path(name)
    for record in candidates:
        if record.path == path or record.path.name == name or record.path.resolve() == path.resolve():
            return record
    hint = nearest_name(path.name, [record.path.name for record in candidates])
    hint = hint if hint.startswith("did") else f"it has e.g. {candidates[0].path.name}"
    raise DataError(f"picture {name}: {dataset.name} has none of this name in the split shown; {hint}")


def _look(run: _Run, shown: _Shown, layers: Sequence[str]) -> RunMaps:
    """Where one run looks."""
    device = choose_device(run.recipe.training.accelerator)
    network = run.checkpoint.network.to(device).eval()
    batch, other = (_read(run, records).to(device) for records in (shown.records, shown.others))
    labels = _labels_of(run, shown).to(device)
    parts = zip(*(torch.split(each, BATCH) for each in (other.images, other.modalities, other.camids)), strict=True)
    with torch.no_grad():
        vectors = torch.cat([run.checkpoint.method.embed(*part) for part in parts])
    try:
        found = explain(network, batch.images, batch.modalities, batch.camids, Targets(labels, vectors), layers=layers)
    except RecipeError as error:
        raise RecipeError(f"{run.title}: {error}") from error
    pictures = (batch.images * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return RunMaps(
        title=run.title,
        rules=[f"{each.rule} at {each.layer}" for each in found.maps],
        names=[each.name for each in found.maps],
        pictures=list(pictures),
        heat=[each.values.cpu().double().numpy() for each in found.maps],
        scores=[""] * len(shown.records)
        if all(each.rule == ROLLOUT for each in found.maps)
        else [
            f"class score {score:.1f}" if label >= 0 else f"cosine {score:.2f}\nto camera {record.camid}"
            for label, score, record in zip(labels.tolist(), found.scores.tolist(), shown.others, strict=True)
        ],
    )


def _read(run: _Run, records: Sequence[Record]) -> Batch:
    """All of the pictures as the run receives them; a figure shows few."""
    (batch,) = EvalLoader(records, replace(picture_options(run.recipe.data), cache="none"), batch_size=len(records))
    return batch


def _labels_of(run: _Run, shown: _Shown) -> Tensor:
    """(N,) class index of each picture's person, -1 where the run was not trained on them."""
    own, section = run.recipe.data, shown.section
    same = (own.name, own.scene, own.options) == (section.name, section.scene, section.options)
    classes = {pid: label for label, pid in enumerate(run.checkpoint.header.pids)}
    if not same or shown.split != "train" or run.checkpoint.header.is_packed:  # packed ones have no classes
        return torch.full((len(shown.records),), -1)
    return torch.tensor([classes.get(record.pid, -1) for record in shown.records])
