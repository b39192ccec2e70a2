"""All pictures of both sides of a test as a run describes them: what the figures across modalities show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from tapetum.core.errors import DataError
from tapetum.core.protocol import Protocol, Side
from tapetum.core.types import EmbeddingSet, Modality, Record
from tapetum.data.catalog import fingerprint
from tapetum.data.threads import Progress
from tapetum.evaluation.metrics import Evaluation, evaluate
from tapetum.evaluation.pair_distances import picture_keys
from tapetum.inference.embedder import Embedder
from tapetum.inference.embeddings import read_embeddings
from tapetum.inference.evaluate import join_embeddings
from tapetum.runs.recipe import override_recipe
from tapetum.runs.run_folder import RunFolder
from tapetum.runs.sources import open_data, source_overrides


@dataclass(frozen=True)
class Sides:
    """Both sides in full, nothing drawn; see `tapetum.report.collect.Searched`.

    Attributes:
        query: the searching set.
        gallery: the searched set.
        protocol: the rules, with one trial of the whole gallery.
    """

    query: EmbeddingSet
    gallery: EmbeddingSet
    protocol: Protocol

    @cached_property
    def evaluation(self) -> Evaluation:
        """Of all queries against the whole gallery."""
        return evaluate(self.query, self.gallery, self.protocol)


def describe_sides(
    place: Path,
    *,
    data: str | None = None,
    protocol: str | None = None,
    card: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> tuple[str, Sides]:
    """Embeddings of both sides in full; what evaluations of the run have kept is taken from there.

    Args:
        place: a run folder or a checkpoint file.
        data: NAME=ROOT of another dataset than the run's; None for the run's.
        protocol: one of the dataset's; None takes the recipe's choice, else the dataset's default.
        card: a result card that the pictures must be those of; None takes any.
        progress: called with (done, total) pictures.
    Returns:
        The recipe's name, and the sides.
    Raises:
        CheckpointError: no checkpoint, or it is damaged.
        DataError: pictures are missing, are not those of the card, or a side has none.
        RecipeError: the dataset has no such protocol.
    """
    embedder = Embedder(place)
    recipe = embedder.recipe
    section = override_recipe(recipe, source_overrides(data, recipe.data) if data else [], str(place)).data
    dataset = open_data(section, progress=progress).dataset
    rules = dataset.protocol(protocol or (recipe.evaluation.protocol if dataset.name == recipe.data.name else None))
    folder = RunFolder(place).evaluation if place.is_dir() else place.with_suffix(".evaluation")

    def describe(side: Side) -> EmbeddingSet:
        records = dataset.side(side, rules.name)
        if not records:
            raise DataError(f"{dataset.name}: no {side} picture of protocol {rules.name} in {dataset.root}")
        if card is not None and rules.drawn != side and not _is_of(card, side, records):
            raise DataError(
                f"{place}: the pictures in {dataset.root} are not those of its result card; "
                f"name the right ones, e.g. --data {dataset.name}=ROOT"
            )
        known = [record for record in dataset.records if record.split in (side, "test")]
        kept = _read_kept(folder, embedder, known)
        have = {path for part in kept for path in part.paths}
        missing = [record for record in records if record.path not in have]
        parts = [*kept, *([embedder.describe(missing, progress=progress)[0]] if missing else [])]
        everything = join_embeddings(parts)
        rows = {path: row for row, path in enumerate(everything.paths)}
        return everything.select(torch.tensor([rows[record.path] for record in records], dtype=torch.int64))

    return recipe.name, Sides(describe("query"), describe("gallery"), replace(rules, trials=1, drawn=None))


def _is_of(card: Mapping[str, Any], side: Side, records: Sequence[Record]) -> bool:
    """Whether a card was computed on these pictures, in whatever order; a card that does not say decides nothing."""
    expected = card["data"].get("pictures", {}).get(side)
    return expected is None or expected == fingerprint(records)


def split_by_modality(
    query: EmbeddingSet, gallery: EmbeddingSet, protocol: Protocol
) -> tuple[EmbeddingSet, EmbeddingSet]:
    """The infrared and the visible pictures of a test; where it has one modality only, its two sides as they are.

    Args:
        query: the searching set.
        protocol: pids that it ignores are left out.
    """
    ignored = torch.tensor(protocol.ignored_pids, dtype=torch.int64)
    sides = [side.select(~torch.isin(side.pids, ignored)) for side in (query, gallery)]
    both = join_sides(*sides)
    infrared = both.modalities == int(Modality.INFRARED)
    if infrared.all() or not infrared.any():
        return sides[0], sides[1]
    return both.select(infrared), both.select(~infrared)


def join_sides(query: EmbeddingSet, gallery: EmbeddingSet) -> EmbeddingSet:
    """Every picture of a test once, the queries first.

    Args:
        query: the searching set.
    """
    known = set(picture_keys(query))
    rest = gallery.select(torch.tensor([key not in known for key in picture_keys(gallery)], dtype=torch.bool))
    return join_embeddings([query, rest])


def _read_kept(folder: Path, embedder: Embedder, known: Sequence[Record]) -> list[EmbeddingSet]:
    """What evaluations of these weights kept of these pictures, wherever the pictures lie now."""
    records = {(each.pid, each.camid, int(each.modality), each.path.name): each for each in known}
    found = []
    for path in sorted(folder.glob("*.safetensors")):
        try:
            embeddings, facts = read_embeddings(path)
        except DataError:
            continue  # damaged: made anew
        pictures = [records.get(key) for key in picture_keys(embeddings)]
        there = [picture for picture in pictures if picture is not None]
        same = all(facts.get(name) == value for name, value in embedder.facts.items())
        if same and there and len(there) == len(embeddings) and facts.get("pictures") == fingerprint(there):
            found.append(replace(embeddings, paths=tuple(picture.path for picture in there)))
    return found
