"""All pictures of both sides of a test as a run describes them: what the figures across modalities show."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from tapetum.core.errors import DataError
from tapetum.core.protocol import Protocol, Side
from tapetum.core.types import EmbeddingSet, Modality, Record
from tapetum.data.catalog import fingerprint
from tapetum.data.loader import Progress
from tapetum.engine.describer import Describer
from tapetum.engine.extract import read_embeddings
from tapetum.engine.recipe import override_recipe
from tapetum.engine.run_folder import RunFolder
from tapetum.engine.sources import open_data, source_overrides
from tapetum.evaluation.metrics import Evaluation, evaluate


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
    place: Path, *, data: str | None = None, protocol: str | None = None, progress: Progress | None = None
) -> tuple[str, Sides]:
    """Embeddings of both sides; those that an evaluation of the run has kept are taken from there.

    Args:
        place: a run folder or a checkpoint file.
        data: NAME=ROOT of another dataset than the run's; None for the run's.
        protocol: one of the dataset's; None takes the recipe's choice, else the dataset's default.
        progress: called with (done, total) pictures.
    Returns:
        The recipe's name, and the sides.
    Raises:
        CheckpointError: no checkpoint, or it is damaged.
        DataError: pictures are missing, or a side has none.
        RecipeError: the dataset has no such protocol.
    """
    describer = Describer(place)
    recipe = describer.recipe
    section = override_recipe(recipe, source_overrides(data, recipe.data) if data else [], str(place)).data
    dataset = open_data(section, progress=progress).dataset
    rules = dataset.protocol(protocol or (recipe.evaluation.protocol if dataset.name == recipe.data.name else None))
    folder = RunFolder(place).evaluation if place.is_dir() else place.with_suffix(".evaluation")

    def describe(side: Side) -> EmbeddingSet:
        records = dataset.side(side, rules.name)
        if not records:
            raise DataError(f"{dataset.name}: no {side} picture of protocol {rules.name} in {dataset.root}")
        return _kept(folder, describer, records) or describer.describe(records, progress=progress)[0]

    return recipe.name, Sides(describe("query"), describe("gallery"), replace(rules, trials=1, drawn=None))


def split_by_modality(
    query: EmbeddingSet, gallery: EmbeddingSet, protocol: Protocol
) -> tuple[EmbeddingSet, EmbeddingSet]:
    """The infrared and the visible pictures of a test; where it has one modality only, its two sides as they are.

    Args:
        query: the searching set.
        gallery: the searched set.
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
        gallery: the searched set.
    """
    known = set(query.paths)
    rest = gallery.select(torch.tensor([path not in known for path in gallery.paths], dtype=torch.bool))
    return EmbeddingSet(
        vectors=torch.cat([query.vectors, rest.vectors]),
        paths=query.paths + rest.paths,
        pids=torch.cat([query.pids, rest.pids]),
        camids=torch.cat([query.camids, rest.camids]),
        modalities=torch.cat([query.modalities, rest.modalities]),
    )


def _kept(folder: Path, describer: Describer, records: Sequence[Record]) -> EmbeddingSet | None:
    """What an evaluation made of these very pictures with these very weights."""
    wanted = {**describer.facts, "pictures": fingerprint(records)}
    names = [record.path.name for record in records]
    for path in sorted(folder.glob("*.safetensors")):
        try:
            embeddings, facts = read_embeddings(path)
        except DataError:
            continue  # damaged: made anew
        if facts == wanted and [each.name for each in embeddings.paths] == names:
            return replace(embeddings, paths=tuple(record.path for record in records))
    return None
