"""Embeddings of test pictures, kept beside the cards that were computed from them.

An evaluation by other rules takes them from there if checkpoint, pictures and arithmetic are the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tapetum.core.errors import DataError
from tapetum.core.types import EmbeddingSet, Record
from tapetum.data.catalog import Dataset, fingerprint
from tapetum.data.threads import Progress
from tapetum.evaluation.pair_distances import picture_keys, record_key
from tapetum.inference.embedder import Embedder
from tapetum.inference.embeddings import read_embeddings, save_embeddings
from tapetum.inference.planned import SIDES, TEST, PlannedTest

FILLING = "filling"  # how many numbers at the end of each vector are, see `tapetum.inference.filling`


def describe_tests(
    embedder: Embedder, dataset: Dataset, tests: Sequence[PlannedTest], stem: Path, progress: Progress | None
) -> list[tuple[EmbeddingSet, EmbeddingSet]]:
    """Query and gallery of every test, each picture described once."""
    records = {side: {record for test in tests for record in test.records[side]} for side in SIDES}
    if any(record.split == TEST for some in records.values() for record in some):
        stores = dict.fromkeys(SIDES, _embed_test(embedder, dataset, tests, stem, progress))
    else:
        stores = {
            side: embed_split(
                embedder, [each for each in dict.fromkeys(dataset.records) if each in some], side, stem, progress
            )
            for side, some in records.items()
        }
    return [
        (_pick(stores["query"], test.records["query"]), _pick(stores["gallery"], test.records["gallery"]))
        for test in tests
    ]


def _pick(embeddings: EmbeddingSet, records: Sequence[Record]) -> EmbeddingSet:
    """The rows of some pictures, in their order."""
    paths = tuple(record.path for record in records)
    if paths == embeddings.paths:
        return embeddings
    rows = {path: row for row, path in enumerate(embeddings.paths)}
    return embeddings.select(torch.tensor([rows[path] for path in paths], dtype=torch.int64))


def _embed_test(
    embedder: Embedder, dataset: Dataset, tests: Sequence[PlannedTest], stem: Path, progress: Progress | None
) -> EmbeddingSet:
    """Embeddings of all test pictures that some of the tests asks for; those of earlier evaluations stay.

    One file holds each picture once, whatever its side is in a protocol; its facts say for each protocol which rows
    are the query and which the gallery.
    """
    path = _embeddings_path(stem, TEST, embedder)
    known = [record for record in dataset.records if record.split == TEST]
    facts = kept_facts(embedder)
    kept = read_kept(path, facts, known)
    parts, sides = ([kept[0]], dict(kept[1].get("sides", {}))) if kept else ([], {})
    missing = {record.path for test in tests for some in test.records.values() for record in some}
    missing -= {path for part in parts for path in part.paths}
    if missing:
        new = [record for record in dataset.records if record.path in missing]
        parts.append(embedder.describe(new, progress=progress, filled=True)[0])
    store = join_embeddings(parts)
    rows = {place: row for row, place in enumerate(store.paths)}
    ours = {
        test.rules.name: {
            side: {"pictures": test.fingerprints[side], "rows": [rows[record.path] for record in records]}
            for side, records in test.records.items()
        }
        for test in tests
    }
    if missing or any(sides.get(name) != entry for name, entry in ours.items()):
        record_of = {record.path: record for record in known}
        pictures = fingerprint([record_of[place] for place in store.paths])
        save_embeddings(path, store, {**facts, "pictures": pictures, "sides": sides | ours})
    return store


def kept_facts(embedder: Embedder) -> dict[str, Any]:
    """About the making of embeddings that are kept: with their filling, where the method has some."""
    return {**embedder.facts, **({FILLING: embedder.filling} if embedder.filling else {})}


def find_strangers(stem: Path, embedder: Embedder, dataset: Dataset) -> Path | None:
    """A file of embeddings by the same weights and arithmetic, but of other pictures than a dataset's; None without.

    Args:
        stem: what the file's name begins with.
    """
    facts = kept_facts(embedder)
    for split in (*SIDES, TEST):
        path = _embeddings_path(stem, split, embedder)
        try:
            theirs = read_embeddings(path)[1] if path.exists() else {}
        except DataError:
            continue  # damaged: made anew
        if not theirs or any(theirs.get(name) != value for name, value in facts.items()):
            continue
        if read_kept(path, facts, [record for record in dataset.records if record.split == split]) is None:
            return path
    return None


def read_kept(
    path: Path, facts: Mapping[str, Any], records: Sequence[Record]
) -> tuple[EmbeddingSet, dict[str, Any]] | None:
    """Embeddings that an earlier evaluation kept, and all facts about them.

    Args:
        facts: that must be theirs.
        records: the pictures must be among these; their files may lie elsewhere now.
    Returns:
        None where the file is missing or damaged, or where something that matters has changed since.
    """
    try:
        embeddings, kept = read_embeddings(path)
    except DataError:
        return None  # made anew
    keys, theirs = picture_keys(embeddings), [record_key(record) for record in records]
    known = dict(zip(theirs, records, strict=True))
    pictures = records if keys == theirs else [known[key] for key in keys if key in known]
    alike = all(kept.get(name) == value for name, value in facts.items()) and len(pictures) == len(embeddings)
    if not alike or kept.get("pictures") != fingerprint(pictures):
        return None
    return replace(embeddings, paths=tuple(picture.path for picture in pictures)), kept


def join_embeddings(parts: Sequence[EmbeddingSet]) -> EmbeddingSet:
    """One or several sets, one after the other."""
    return EmbeddingSet(
        vectors=torch.cat([part.vectors for part in parts]),
        paths=tuple(path for part in parts for path in part.paths),
        pids=torch.cat([part.pids for part in parts]),
        camids=torch.cat([part.camids for part in parts]),
        modalities=torch.cat([part.modalities for part in parts]),
    )


def _embeddings_path(stem: Path, split: str, embedder: Embedder) -> Path:
    return stem.with_name(f"{stem.name}_{split}{'' if embedder.mirror else '_no_mirror'}.safetensors")


def embed_split(
    embedder: Embedder, records: Sequence[Record], split: str, stem: Path, progress: Progress | None
) -> EmbeddingSet:
    """Embeddings of one split, from an earlier evaluation where nothing that matters has changed."""
    path = _embeddings_path(stem, split, embedder)
    facts = kept_facts(embedder)
    kept = read_kept(path, facts, records)
    if kept and kept[0].paths == tuple(record.path for record in records):
        return kept[0]
    embeddings, _ = embedder.describe(records, progress=progress, filled=True)
    save_embeddings(path, embeddings, {**facts, "pictures": fingerprint(records)})
    return embeddings
