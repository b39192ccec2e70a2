"""All pictures of both sides of a test as a run describes them: what the figures across modalities show."""

from dataclasses import replace
from pathlib import Path

import torch

from tapetum.core.errors import DataError
from tapetum.core.protocol import Protocol, Side
from tapetum.core.types import EmbeddingSet, Modality, Record
from tapetum.data.catalog import fingerprint
from tapetum.data.threads import Progress
from tapetum.evaluation.camera_norm import normalise_cameras
from tapetum.evaluation.card import Card
from tapetum.evaluation.metrics import Sides
from tapetum.evaluation.pair_distances import picture_keys
from tapetum.inference.embedder import Embedder
from tapetum.inference.filling import drop_filling, meet
from tapetum.inference.kept_embeddings import join_embeddings, kept_facts, read_kept
from tapetum.runs.recipe import override_recipe
from tapetum.runs.run_folder import RunFolder
from tapetum.runs.sources import open_data, source_overrides


def describe_sides(
    place: Path,
    *,
    data: str | None = None,
    protocol: str | None = None,
    card: Card | None = None,
    progress: Progress | None = None,
) -> tuple[str, Sides]:
    """Embeddings of both sides in full, with one trial of the whole gallery; what evaluations have kept is taken.

    The camera norm is the card's, else the recipe's, with the statistics of both sides in full.

    Args:
        place: a run folder or a checkpoint file.
        data: NAME=ROOT of another dataset than the run's; None for the run's.
        protocol: one of the dataset's; None takes the recipe's choice, else the dataset's default.
        card: a result card that the pictures must be those of, and whose mirror and camera norm are taken; None takes
            any pictures, and the recipe's.
        progress: called with (done, total) pictures.
    Returns:
        The recipe's name, and the sides.
    Raises:
        CheckpointError: no checkpoint, or it is damaged.
        DataError: pictures are missing, are not those of the card, or a side has none.
        ProtocolError: the camera norm cannot be taken out of these pictures.
        RecipeError: the dataset has no such protocol.
    """
    embedder = Embedder(place, mirror=None if card is None else card.mirror)
    recipe = embedder.recipe
    section = override_recipe(recipe, source_overrides(data, recipe.data) if data else [], str(place)).data
    dataset = open_data(section, progress=progress).dataset
    rules = dataset.protocol(protocol or (recipe.evaluation.protocol if dataset.name == recipe.data.name else None))
    folder = RunFolder(place).evaluation if place.is_dir() else place.with_suffix(".evaluation")
    fingerprints = card.data.get("pictures", {}) if card is not None else {}  # of each side; an older card says nothing

    def describe(side: Side) -> EmbeddingSet:
        records = dataset.side(side, rules.name)
        if not records:
            raise DataError(f"{dataset.name}: no {side} picture of protocol {rules.name} in {dataset.root}")
        if side in fingerprints and rules.drawn != side and fingerprints[side] != fingerprint(records):
            raise DataError(
                f"{place}: the pictures in {dataset.root} are not those of its result card; "
                f"name the right ones, e.g. --data {dataset.name}=ROOT"
            )
        known = [record for record in dataset.records if record.split in (side, "test")]
        files = sorted(folder.glob("*.safetensors"))
        parts = [kept[0] for file in files if (kept := read_kept(file, kept_facts(embedder), known)) and len(kept[0])]
        missing = {record.path: record for record in records}
        for part in parts:
            for path in part.paths:
                missing.pop(path, None)
        if missing:
            parts.append(embedder.describe(list(missing.values()), progress=progress, filled=True)[0])
        everything = join_embeddings(parts)
        rows = {path: row for row, path in enumerate(everything.paths)}
        return everything.select(torch.tensor([rows[record.path] for record in records], dtype=torch.int64))

    query, gallery, filling = meet(describe("query"), describe("gallery"), embedder.filling)
    query, gallery = normalise_cameras(
        query, gallery, recipe.evaluation.camera_norm if card is None else card.camera_norm
    )
    return recipe.name, Sides(query, gallery, replace(rules, trials=1, drawn=None), filling=filling)


def bare_sides(test: Sides) -> Sides:
    """The same test, with vectors of which any two may be compared, those of one modality too."""
    query, gallery = (drop_filling(side, test.filling) for side in (test.query, test.gallery))
    return Sides(query, gallery, test.protocol)


def split_by_modality(
    query: EmbeddingSet, gallery: EmbeddingSet, protocol: Protocol
) -> tuple[EmbeddingSet, EmbeddingSet]:
    """The infrared and the visible pictures of a test; where it has one modality only, its two sides as they are.

    Args:
        protocol: pids that it ignores are left out.
    """
    query, gallery = (side.select(protocol.ranks(side.pids)) for side in (query, gallery))
    both = join_sides(query, gallery)
    infrared = both.modalities == int(Modality.INFRARED)
    if infrared.all() or not infrared.any():
        return query, gallery
    return both.select(infrared), both.select(~infrared)


def hold_same_pictures(first: EmbeddingSet, second: EmbeddingSet) -> bool:
    """Whether two sets are of the same pictures in the same order, whatever folders these lie in.

    Raises:
        DataError: pictures of two folders agree in their names, and one is missing.
    """
    if first.paths == second.paths:
        return True
    return picture_keys(first) == picture_keys(second) and _name_content(first) == _name_content(second)


def _name_content(embeddings: EmbeddingSet) -> str:
    columns = (embeddings.pids.tolist(), embeddings.camids.tolist(), embeddings.modalities.tolist())
    entries = zip(embeddings.paths, *columns, strict=True)
    return fingerprint([Record(path, pid, camid, Modality(kind), "") for path, pid, camid, kind in entries])


def join_sides(query: EmbeddingSet, gallery: EmbeddingSet) -> EmbeddingSet:
    """Every picture of a test once, the queries first."""
    known = set(picture_keys(query))
    rest = gallery.select(torch.tensor([key not in known for key in picture_keys(gallery)], dtype=torch.bool))
    return join_embeddings([query, rest])
