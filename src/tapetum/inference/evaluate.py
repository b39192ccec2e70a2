"""From a checkpoint and a dataset to a result card: extract, rank, count, and say where it fails.

Embeddings are kept beside the card; an evaluation by other rules takes them from there if checkpoint, pictures and
arithmetic are the same.
"""

import hashlib
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import numpy as np
import torch

from tapetum.core.atomic import new_folder
from tapetum.core.errors import DataError, ProtocolError
from tapetum.core.protocol import Protocol, Side
from tapetum.core.types import EmbeddingSet, Record
from tapetum.data.catalog import Dataset, fingerprint
from tapetum.data.lighting import PictureStatistics, light_levels, measure_pictures, size_levels
from tapetum.data.threads import Progress
from tapetum.evaluation.card import Card, build_card, write_card
from tapetum.evaluation.metrics import Evaluation, evaluate
from tapetum.evaluation.ranking import multi_query as join_queries
from tapetum.evaluation.rerank import RerankOptions
from tapetum.evaluation.slices import by_camera_pair, mean_precisions, thirds
from tapetum.evaluation.trials import SEEDED, draw_records, evaluate_trials, order_rows
from tapetum.inference.embedder import Embedder
from tapetum.inference.embeddings import read_embeddings, save_embeddings
from tapetum.inference.precision import resolve_precision
from tapetum.runs.recipe import DataSection
from tapetum.runs.run_folder import RunFolder
from tapetum.runs.sources import CACHE, check_division, list_split, open_data

QUERY: Literal["query"] = "query"
GALLERY: Literal["gallery"] = "gallery"
TEST = "test"  # of records whose side a protocol decides
WORST = 10
DRAWS = 1000
LONGEST = 100  # letters of options in a file name


@dataclass(frozen=True)
class Evaluated:
    """A result and what it was computed from.

    Attributes:
        card: the result card.
        path: where it was written.
        query, gallery: embeddings; where galleries are drawn, of every picture that some trial takes.
        protocol: the rules of `evaluation`; where the card's draw a side, the same with nothing drawn.
        statistics: light, size and noise of each query picture as given.
        trials: per query, without re-ranking: one evaluation a trial, or a single one.
        drawn: (n,) int64 a trial, rows of the side that it drew; None where nothing is drawn.
    """

    card: Card
    path: Path
    query: EmbeddingSet
    gallery: EmbeddingSet
    protocol: Protocol
    statistics: PictureStatistics
    trials: tuple[Evaluation, ...]
    drawn: tuple[torch.Tensor, ...] | None = None

    @cached_property
    def evaluation(self) -> Evaluation:
        """Per query, without re-ranking, by `protocol`: the one to show rank lists with."""
        return self.trials[0] if self.drawn is None else evaluate(self.query, self.gallery, self.protocol)


class EvaluationSettings(TypedDict, total=False):
    """What may be set for an evaluation; what is left out is as the run's recipe has it.

    Attributes:
        dataset: None opens the one that the run's recipe names.
        data: how `dataset` was opened; options other than the recipe's become part of the card's name.
        mirror: whether a picture is joined with its mirror.
        rerank: report re-ranked numbers as well.
        multi_query: average all pictures of a query's person under its camera (split "multi_query").
        precision: arithmetic.
        out: folder for card and embeddings; else ``evaluation/`` of the run, or beside the checkpoint file.
        draws: resamplings of the bootstrap.
        cache: folder for generated scenes.
        progress: called with (done, total) pictures.
    """

    dataset: Dataset | None
    data: DataSection | None
    mirror: bool | None
    rerank: RerankOptions | None
    multi_query: bool
    precision: str | None
    out: Path | None
    draws: int
    cache: Path
    progress: Progress | None


def evaluate_run(place: Path, protocol: str | None = None, **settings: Unpack[EvaluationSettings]) -> Evaluated:
    """Evaluate the chosen checkpoint of a run, or a checkpoint file, by one protocol.

    Args:
        place: a run folder, or a checkpoint file.
        protocol: one of the dataset's; None takes the recipe's choice, else the dataset's default.
        settings: see `EvaluationSettings`.
    Raises:
        TapetumError: as `evaluate_protocols`.
    """
    (found,) = evaluate_protocols(place, [] if protocol is None else [protocol], **settings)
    return found


def evaluate_protocols(
    place: Path, protocols: Sequence[str], **settings: Unpack[EvaluationSettings]
) -> list[Evaluated]:
    """`evaluate_run` by several protocols, each picture described once.

    Args:
        place: a run folder, or a checkpoint file.
        protocols: names of the dataset's; "all" stands for each that differs from the others in a rule. None named
            takes the recipe's choice, else the dataset's default.
        settings: see `EvaluationSettings`.
    Raises:
        CheckpointError: no checkpoint, or it is damaged.
        DataError: pictures are missing or damaged.
        ProtocolError: the protocol cannot be carried out on these pictures.
        RecipeError: the dataset has no such protocol, or tests people whom the weights may have been trained on.
        OutputError: the result cannot be written.
    """
    dataset, data, rerank = settings.get("dataset"), settings.get("data"), settings.get("rerank")
    multi_query, progress = settings.get("multi_query", False), settings.get("progress")
    out, draws = settings.get("out"), settings.get("draws", DRAWS)
    embedder = Embedder(place, mirror=settings.get("mirror"), precision=settings.get("precision"))
    recipe = embedder.recipe
    dataset = dataset or open_data(recipe.data, cache=settings.get("cache", CACHE), progress=progress).dataset
    check_division(dataset, recipe.data, place, data)
    usual = recipe.evaluation.protocol if dataset.name == recipe.data.name else None
    tests = [_plan_test(dataset, rules) for rules in choose_protocols(dataset, protocols or [usual])]
    if rerank is None and recipe.evaluation.rerank is not None:
        rerank = RerankOptions(**recipe.evaluation.rerank.model_dump())
    folder = out or (RunFolder(place).evaluation if place.is_dir() else place.with_suffix(".evaluation"))
    with new_folder(folder):
        stem = folder / "_".join([dataset.name, *_variant(embedder, data)])

        begun = time.monotonic()
        sides = _describe_tests(embedder, dataset, tests, stem, progress)
        extra = None
        if multi_query:
            extra = _embed(embedder, list_split(dataset, "multi_query"), "multi_query", stem, progress)
        extraction = time.monotonic() - begun
        found = []
        for test, (query, gallery) in zip(tests, sides, strict=True):
            asking = query if extra is None else join_queries(query, extra)
            found.append(
                _evaluate_test(
                    test, asking, gallery, embedder, dataset, stem,
                    rerank=rerank, multi_query=multi_query, draws=draws, extraction=extraction,
                )
            )  # fmt: skip
    return found


def choose_protocols(dataset: Dataset, names: Sequence[str | None]) -> list[Protocol]:
    """Protocols by name, each once.

    Args:
        dataset: whose protocols they are.
        names: "all" stands for each that differs from the others in a rule; among equals the one named most like the
            default stays (e.g. that of the same release). None is the default.
    Raises:
        RecipeError: the dataset has no such protocol.
    """
    chosen: dict[str, Protocol] = {}
    for name in names:
        if name != "all":
            rules = dataset.protocol(name)
            chosen.setdefault(rules.name, rules)
            continue
        alike = sorted(dataset.protocols, key=lambda each: -_common_letters(each, dataset.default_protocol))
        best: dict[Protocol, str] = {}
        for each in alike:
            best.setdefault(replace(dataset.protocols[each], name="", source=""), each)
        chosen |= {name: each for name, each in dataset.protocols.items() if name in best.values()}
    return list(chosen.values())


def _common_letters(a: str, b: str) -> int:
    """With how many equal letters two names begin."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


@dataclass(frozen=True)
class _Test:
    """What one protocol asks of a dataset.

    Attributes:
        rules: the protocol.
        query, gallery: records; of the drawn side those that some trial takes.
        fingerprint: of all pictures of both sides, before anything is drawn.
        whole: side -> fingerprint and number of all its pictures.
        drawn: (n,) int64 a trial, numbers among the records of the drawn side; None where nothing is drawn.
        galleries: what was drawn, and how.
    """

    rules: Protocol
    query: list[Record]
    gallery: list[Record]
    fingerprint: str
    whole: dict[str, tuple[str, int]]
    drawn: tuple[torch.Tensor, ...] | None = None
    galleries: str | None = None


def _plan_test(dataset: Dataset, rules: Protocol) -> _Test:
    """Who searches whom, and what each trial draws.

    Raises:
        DataError: a side has no picture.
        ProtocolError: the galleries cannot be drawn.
    """
    if rules.trials > 1 and rules.drawn is None:
        raise ProtocolError(
            f"protocol {rules.name} wants {rules.trials} trials and draws nothing; choose a protocol of one trial"
        )
    query, gallery = (_list_side(dataset, rules, side) for side in (QUERY, GALLERY))
    content = fingerprint([*query, *gallery])
    whole = {QUERY: (fingerprint(query), len(query)), GALLERY: (fingerprint(gallery), len(gallery))}
    if rules.drawn is None:
        return _Test(rules, query, gallery, content, whole)
    permutations = dataset.permutations if rules.drawn == GALLERY else None
    records = query if rules.drawn == QUERY else gallery
    taken = draw_records(records, rules, permutations)
    union = torch.unique(torch.cat(taken))
    place = torch.empty(len(records), dtype=torch.int64)
    place[union] = torch.arange(len(union))
    kept = [records[row] for row in union.tolist()]
    return _Test(
        rules,
        kept if rules.drawn == QUERY else query,
        kept if rules.drawn == GALLERY else gallery,
        content,
        whole,
        tuple(place[rows] for rows in taken),
        f"{'queries' if rules.drawn == QUERY else 'galleries'} {SEEDED}"
        if permutations is None
        else dataset.permutation_file,
    )


def _list_side(dataset: Dataset, rules: Protocol, side: Side) -> list[Record]:
    """The records of one side, where the protocol decides on sides in the order of the released codes."""
    records = dataset.side(side, rules.name)
    if not records:
        modality = rules.query_modality if side == QUERY else rules.gallery_modality
        known = ", ".join(f"{n} {name}" for name, n in _count_pictures(dataset).items())
        what = f"no picture of split {side!r}" if modality is None else f"no {modality.name.lower()} picture as {side}"
        raise DataError(
            f"{dataset.name}: {what} for protocol {rules.name} in {dataset.root}; it has {known}: complete it, "
            "or choose another protocol"
        )
    if not all(record.split == TEST for record in records):
        return records
    camids = rules.query_camids if side == QUERY else rules.gallery_camids
    pids, cameras = np.array([(record.pid, record.camid) for record in records], dtype=np.int64).T
    order = order_rows(pids, cameras, [record.path.name for record in records], camids)
    return [records[row] for row in order.tolist()]


def _count_pictures(dataset: Dataset) -> dict[str, int]:
    """Split, and modality where the protocol decides on sides -> pictures."""
    names = (
        f"{record.split} {record.modality.name.lower()}" if record.split == TEST else record.split
        for record in dataset.records
    )
    return dict(sorted(Counter(names).items()))


def _evaluate_test(
    test: _Test,
    query: EmbeddingSet,
    gallery: EmbeddingSet,
    embedder: Embedder,
    dataset: Dataset,
    stem: Path,
    *,
    rerank: RerankOptions | None,
    multi_query: bool,
    draws: int,
    extraction: float,
) -> Evaluated:
    """Evaluate one protocol and write its card."""
    rules, recipe, checkpoint = test.rules, embedder.recipe, embedder.checkpoint
    begun = time.monotonic()
    trials = _rank(test, query, gallery)
    reranked = _rank(test, query, gallery, rerank) if rerank is not None else None
    seconds = extraction + time.monotonic() - begun
    statistics = measure_pictures(test.query)
    card = build_card(
        trials,
        method=checkpoint.header.method,
        recipe=checkpoint.header.recipe,
        checkpoint={
            "file": checkpoint.path.name,
            "digest": embedder.digest,
            "chosen_by": checkpoint.header.chosen_by,
            "epoch": checkpoint.header.epoch,
            "origin": checkpoint.header.origin,
            "precision": embedder.precision,
        },
        data={
            "name": dataset.name,
            "fingerprint": test.fingerprint,
            "pictures": {side: content for side, (content, _) in test.whole.items()},
            **{side: count for side, (_, count) in test.whole.items()},
            "options": dataset.options,
            "division": dataset.division,
            "multi_query": multi_query,
            "size": recipe.data.size,
            "interpolation": recipe.data.interpolation,
            "backend": recipe.data.backend,
        },
        mirror=embedder.mirror,
        seed=recipe.seed,
        seconds=seconds,
        reranked=reranked,
        rerank=rerank,
        labels={**_labels(statistics), "camera": [f"camera {camid}" for camid in query.camids.tolist()]},
        slices={"camera_pair": by_camera_pair(query, gallery, rules, test.drawn)},
        galleries=test.galleries,
        draws=draws,
    )
    card["worst_queries"] = _worst(trials, query, dataset.people)
    path = stem.with_name(f"{_card_name(stem.name, dataset.name, rules, embedder.mirror, rerank, multi_query)}.json")
    write_card(path, card)
    shown = rules if test.drawn is None else replace(rules, trials=1, drawn=None)
    return Evaluated(card, path, query, gallery, shown, statistics, trials, test.drawn)


def _rank(
    test: _Test, query: EmbeddingSet, gallery: EmbeddingSet, rerank: RerankOptions | None = None
) -> tuple[Evaluation, ...]:
    if test.drawn is None:
        return (evaluate(query, gallery, test.rules, rerank=rerank),)
    return evaluate_trials(query, gallery, test.rules, drawn=test.drawn, rerank=rerank).each


def _describe_tests(
    embedder: Embedder, dataset: Dataset, tests: Sequence[_Test], stem: Path, progress: Progress | None
) -> list[tuple[EmbeddingSet, EmbeddingSet]]:
    """Query and gallery of every test, each picture described once."""
    if not any(record.split == TEST for test in tests for record in (*test.query, *test.gallery)):
        sides = {
            split: _embed(embedder, _join_records(dataset, parts), split, stem, progress)
            for split, parts in ((QUERY, [test.query for test in tests]), (GALLERY, [test.gallery for test in tests]))
        }
        return [(_pick(sides[QUERY], test.query), _pick(sides[GALLERY], test.gallery)) for test in tests]
    store = _embed_test(embedder, dataset, tests, stem, progress)
    return [(_pick(store, test.query), _pick(store, test.gallery)) for test in tests]


def _join_records(dataset: Dataset, parts: Sequence[Sequence[Record]]) -> list[Record]:
    """Every record of the parts once, in the order of reading."""
    wanted = {record for part in parts for record in part}
    return [record for record in dict.fromkeys(dataset.records) if record in wanted]


def _pick(embeddings: EmbeddingSet, records: Sequence[Record]) -> EmbeddingSet:
    """The rows of some pictures, in their order."""
    paths = tuple(record.path for record in records)
    if paths == embeddings.paths:
        return embeddings
    rows = {path: row for row, path in enumerate(embeddings.paths)}
    return embeddings.select(torch.tensor([rows[path] for path in paths], dtype=torch.int64))


def _embed_test(
    embedder: Embedder, dataset: Dataset, tests: Sequence[_Test], stem: Path, progress: Progress | None
) -> EmbeddingSet:
    """Embeddings of all test pictures that some of the tests asks for; those of earlier evaluations stay.

    One file holds each picture once, whatever its side is in a protocol; its facts say for each protocol which rows
    are the query and which the gallery.
    """
    path = _embeddings_path(stem, TEST, embedder)
    known = {_picture_key(record): record for record in dataset.records if record.split == TEST}
    kept, sides = _read_test_store(path, embedder.facts, known)
    wanted = {record.path for test in tests for record in (*test.query, *test.gallery)}
    have = set() if kept is None else set(kept.paths)
    missing = [record for record in dataset.records if record.path in wanted - have]
    parts = [] if kept is None else [kept]
    if missing:
        parts.append(embedder.describe(missing, progress=progress)[0])
    store = parts[0] if len(parts) == 1 else join_embeddings(parts)
    rows = {place: row for row, place in enumerate(store.paths)}
    asked = {
        test.rules.name: {
            side: {"pictures": test.whole[side][0], "rows": [rows[record.path] for record in records]}
            for side, records in ((QUERY, test.query), (GALLERY, test.gallery))
        }
        for test in tests
    }
    if not missing and all(sides.get(name) == entry for name, entry in asked.items()):
        return store
    record_of = {record.path: record for record in known.values()}
    pictures = fingerprint([record_of[place] for place in store.paths])
    save_embeddings(path, store, {**embedder.facts, "pictures": pictures, "sides": sides | asked})
    return store


def _read_test_store(
    path: Path, facts: Mapping[str, Any], known: Mapping[tuple[Any, ...], Record]
) -> tuple[EmbeddingSet | None, dict[str, Any]]:
    """What earlier evaluations kept, where nothing that matters has changed since, and the sides of their protocols."""
    if not path.is_file():
        return None, {}
    try:
        embeddings, found = read_embeddings(path)
    except DataError:
        return None, {}  # damaged: made anew
    keys = zip(
        embeddings.pids.tolist(),
        embeddings.camids.tolist(),
        embeddings.modalities.tolist(),
        (each.name for each in embeddings.paths),
        strict=True,
    )
    records = [known.get(key) for key in keys]
    there = [record for record in records if record is not None]
    if {name: found.get(name) for name in facts} != dict(facts) or len(there) != len(records):
        return None, {}
    if found.get("pictures") != fingerprint(there):
        return None, {}
    return replace(embeddings, paths=tuple(record.path for record in there)), dict(found.get("sides", {}))


def _picture_key(record: Record) -> tuple[int, int, int, str]:
    """What tells a test picture from the others, whatever folder the dataset lies in."""
    return record.pid, record.camid, int(record.modality), record.path.name


def join_embeddings(parts: Sequence[EmbeddingSet]) -> EmbeddingSet:
    """Several sets, one after the other.

    Args:
        parts: at least one.
    """
    return EmbeddingSet(
        vectors=torch.cat([part.vectors for part in parts]),
        paths=tuple(path for part in parts for path in part.paths),
        pids=torch.cat([part.pids for part in parts]),
        camids=torch.cat([part.camids for part in parts]),
        modalities=torch.cat([part.modalities for part in parts]),
    )


def _embeddings_path(stem: Path, split: str, embedder: Embedder) -> Path:
    return stem.with_name(f"{stem.name}_{split}{'' if embedder.mirror else '_no_mirror'}.safetensors")


def _embed(
    embedder: Embedder, records: Sequence[Record], split: str, stem: Path, progress: Progress | None
) -> EmbeddingSet:
    """Embeddings of one split, from an earlier evaluation where nothing that matters has changed."""
    facts = {**embedder.facts, "pictures": fingerprint(records)}
    path = _embeddings_path(stem, split, embedder)
    kept = _read_kept(path, facts, records)
    if kept is not None:
        return kept
    embeddings, _ = embedder.describe(records, progress=progress)
    save_embeddings(path, embeddings, facts)
    return embeddings


def _read_kept(path: Path, facts: Mapping[str, Any], records: Sequence[Record]) -> EmbeddingSet | None:
    if not path.is_file():
        return None
    try:
        embeddings, found = read_embeddings(path)
    except DataError:
        return None  # damaged: made anew
    names = [path.name for path in embeddings.paths]
    if found != facts or names != [record.path.name for record in records]:
        return None
    return replace(embeddings, paths=tuple(record.path for record in records))


def _labels(statistics: PictureStatistics) -> dict[str, list[str]]:
    """Light, size and noise level of each query as given."""
    return {
        "light": light_levels(statistics.lightness).tolist(),
        "size": size_levels(statistics.height).tolist(),
        "noise": thirds(torch.from_numpy(np.ascontiguousarray(statistics.noise))),
    }


def _worst(trials: Sequence[Evaluation], query: EmbeddingSet, people: Mapping[int, str]) -> list[dict[str, Any]]:
    rows, precisions = mean_precisions(trials)
    return [
        {
            "row": row,
            "picture": query.paths[row].name,
            "pid": int(query.pids[row]),
            "camid": int(query.camids[row]),
            "ap": precision,
        }
        | ({"person": people[pid]} if (pid := int(query.pids[row])) in people else {})
        for row, precision in zip(rows[:WORST].tolist(), precisions[:WORST].tolist(), strict=True)
    ]


def _variant(embedder: Embedder, data: DataSection | None) -> list[str]:
    """In what pictures and arithmetic are others than the recipe's, as parts of a file name."""
    own, parts = embedder.recipe.data, []
    if data is not None:
        now = {**data.options, **data.scene}
        before = {**own.options, **own.scene} if data.name == own.name else {}
        changed = [name for name in sorted(now | before) if now.get(name) != before.get(name) and name != "multi_query"]
        parts = [re.sub(r"[^A-Za-z0-9.]+", "-", f"{name}-{now.get(name, 'default')}").strip("-") for name in changed]
        if sum(map(len, parts)) > LONGEST:
            parts = [hashlib.sha256("_".join(parts).encode()).hexdigest()[:12]]
    usual = resolve_precision(embedder.recipe.evaluation.precision, embedder.device)
    return parts + [embedder.precision] * (embedder.precision != usual)


def _card_name(
    stem: str, dataset: str, rules: Protocol, mirror: bool, rerank: RerankOptions | None, multi_query: bool
) -> str:
    parts = [stem] if rules.name == dataset else [stem, rules.name]
    parts += ["multi_query"] * multi_query + ["no_mirror"] * (not mirror) + ["rerank"] * (rerank is not None)
    return "_".join(parts)
