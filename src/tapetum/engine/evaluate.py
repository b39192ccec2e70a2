"""From a checkpoint and a dataset to a result card: extract, rank, count, and say where it fails.

Embeddings are kept beside the card; an evaluation by other rules takes them from there if checkpoint, pictures and
arithmetic are the same.
"""

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tapetum.core.atomic import make_folder
from tapetum.core.errors import DataError, ProtocolError
from tapetum.core.protocol import Protocol
from tapetum.core.types import EmbeddingSet, Record
from tapetum.data.catalog import Dataset, fingerprint
from tapetum.data.lighting import PictureStatistics, light_levels, measure_pictures, size_levels
from tapetum.data.loader import Progress
from tapetum.engine.describer import Describer
from tapetum.engine.extract import read_embeddings, save_embeddings
from tapetum.engine.precision import resolve_precision
from tapetum.engine.recipe import DataSection
from tapetum.engine.run_folder import RunFolder
from tapetum.engine.sources import CACHE, list_split, open_data
from tapetum.evaluation.card import Card, build_card, write_card
from tapetum.evaluation.metrics import Evaluation, evaluate
from tapetum.evaluation.ranking import multi_query as join_queries
from tapetum.evaluation.rerank import RerankOptions
from tapetum.evaluation.slices import by_camera_pair, thirds, worst_queries

WORST = 10
DRAWS = 1000
LONGEST = 100  # letters of options in a file name


@dataclass(frozen=True)
class Evaluated:
    """A result and what it was computed from.

    Attributes:
        card: the result card.
        path: where it was written.
        query, gallery: embeddings.
        evaluation: per query, without re-ranking.
        protocol: the rules.
        statistics: light, size and noise of each query picture as given.
    """

    card: Card
    path: Path
    query: EmbeddingSet
    gallery: EmbeddingSet
    evaluation: Evaluation
    protocol: Protocol
    statistics: PictureStatistics


def evaluate_run(
    place: Path,
    *,
    dataset: Dataset | None = None,
    data: DataSection | None = None,
    protocol: str | None = None,
    mirror: bool | None = None,
    rerank: RerankOptions | None = None,
    multi_query: bool = False,
    precision: str | None = None,
    out: Path | None = None,
    draws: int = DRAWS,
    cache: Path = CACHE,
    progress: Progress | None = None,
) -> Evaluated:
    """Evaluate the chosen checkpoint of a run, or a checkpoint file.

    Args:
        place: a run folder, or a checkpoint file.
        dataset: None opens the one that the run's recipe names.
        data: how `dataset` was opened; options other than the recipe's become part of the card's name.
        protocol: one of the dataset's; None takes the recipe's choice, else the dataset's default.
        mirror: None takes the recipe's choice.
        rerank: report re-ranked numbers as well; None takes the recipe's choice.
        multi_query: average all pictures of a query's person under its camera (split "multi_query").
        precision: None takes the recipe's choice.
        out: folder for card and embeddings; None: ``evaluation/`` of the run, or beside the checkpoint file.
        draws: resamplings of the bootstrap.
        cache: folder for generated scenes.
        progress: called with (done, total) pictures.
    Raises:
        CheckpointError: no checkpoint, or it is damaged.
        DataError: pictures are missing or damaged.
        ProtocolError: the protocol cannot be carried out on these pictures.
        RecipeError: the dataset has no such protocol.
        OutputError: the result cannot be written.
    """
    describer = Describer(place, mirror=mirror, precision=precision)
    checkpoint, recipe = describer.checkpoint, describer.recipe
    dataset = dataset or open_data(recipe.data, cache=cache, progress=progress).dataset
    rules = dataset.protocol(protocol or (recipe.evaluation.protocol if dataset.name == recipe.data.name else None))
    if rules.trials > 1:
        raise ProtocolError(
            f"protocol {rules.name} wants {rules.trials} trials, but no galleries are drawn yet; "
            "choose a protocol of one trial"
        )
    if rerank is None and recipe.evaluation.rerank is not None:
        rerank = RerankOptions(**recipe.evaluation.rerank.model_dump())
    folder = out or (RunFolder(place).evaluation if place.is_dir() else place.with_suffix(".evaluation"))
    make_folder(folder)
    stem = "_".join([dataset.name, *_variant(describer, data)])

    begun = time.monotonic()
    query = _embed(describer, dataset, "query", folder / stem, progress)
    gallery = _embed(describer, dataset, "gallery", folder / stem, progress)
    if multi_query:
        query = join_queries(query, _embed(describer, dataset, "multi_query", folder / stem, progress))
    evaluation = evaluate(query, gallery, rules)
    reranked = evaluate(query, gallery, rules, rerank=rerank) if rerank is not None else None
    seconds = time.monotonic() - begun

    records = dataset.split("query")
    statistics = measure_pictures(records)
    rows = evaluation.query_rows
    card = build_card(
        evaluation,
        method=checkpoint.header.method,
        recipe=checkpoint.header.recipe,
        checkpoint={
            "file": checkpoint.path.name,
            "digest": describer.digest,
            "chosen_by": checkpoint.header.chosen_by,
            "epoch": checkpoint.header.epoch,
            "origin": checkpoint.header.origin,
            "precision": describer.precision,
        },
        data={
            "name": dataset.name,
            "fingerprint": fingerprint([*records, *dataset.split("gallery")]),
            "pictures": {split: fingerprint(dataset.split(split)) for split in ("query", "gallery")},
            "query": len(query),
            "gallery": len(gallery),
            "multi_query": multi_query,
            "size": recipe.data.size,
            "interpolation": recipe.data.interpolation,
            "backend": recipe.data.backend,
        },
        mirror=describer.mirror,
        seed=recipe.seed,
        seconds=seconds,
        reranked=reranked,
        rerank=rerank,
        labels={**_labels(statistics, rows), "camera": [f"camera {camid}" for camid in query.camids[rows].tolist()]},
        slices={"camera_pair": by_camera_pair(query, gallery, rules)},
        draws=draws,
    )
    card["worst_queries"] = _worst(evaluation, query)
    path = folder / f"{_card_name(stem, dataset.name, rules, describer.mirror, rerank, multi_query)}.json"
    write_card(path, card)
    return Evaluated(card, path, query, gallery, evaluation, rules, statistics)


def _embed(describer: Describer, dataset: Dataset, split: str, stem: Path, progress: Progress | None) -> EmbeddingSet:
    """Embeddings of one split, from an earlier evaluation where nothing that matters has changed."""
    records = list_split(dataset, split)
    facts = {**describer.facts, "pictures": fingerprint(records)}
    path = stem.with_name(f"{stem.name}_{split}{'' if describer.mirror else '_no_mirror'}.safetensors")
    kept = _read_kept(path, facts, records)
    if kept is not None:
        return kept
    embeddings, _ = describer.describe(records, progress=progress)
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


def _labels(statistics: PictureStatistics, rows: torch.Tensor) -> dict[str, list[str]]:
    """Light, size and noise level of each evaluated query."""
    chosen = rows.numpy()
    return {
        "light": light_levels(statistics.lightness[chosen]).tolist(),
        "size": size_levels(statistics.height[chosen]).tolist(),
        "noise": thirds(torch.from_numpy(np.ascontiguousarray(statistics.noise[chosen]))),
    }


def _worst(evaluation: Evaluation, query: EmbeddingSet) -> list[dict[str, Any]]:
    precision = dict(zip(evaluation.query_rows.tolist(), evaluation.per_query_ap.tolist(), strict=True))
    return [
        {
            "row": row,
            "picture": query.paths[row].name,
            "pid": int(query.pids[row]),
            "camid": int(query.camids[row]),
            "ap": precision[row],
        }
        for row in worst_queries(evaluation, WORST).tolist()
    ]


def _variant(describer: Describer, data: DataSection | None) -> list[str]:
    """In what pictures and arithmetic are others than the recipe's, as parts of a file name."""
    own, parts = describer.recipe.data, []
    if data is not None:
        now = {**data.options, **data.scene}
        before = {**own.options, **own.scene} if data.name == own.name else {}
        changed = [name for name in sorted(now | before) if now.get(name) != before.get(name) and name != "multi_query"]
        parts = [re.sub(r"[^A-Za-z0-9.]+", "-", f"{name}-{now.get(name, 'default')}").strip("-") for name in changed]
        if sum(map(len, parts)) > LONGEST:
            parts = [hashlib.sha256("_".join(parts).encode()).hexdigest()[:12]]
    usual = resolve_precision(describer.recipe.evaluation.precision, describer.device)
    return parts + [describer.precision] * (describer.precision != usual)


def _card_name(
    stem: str, dataset: str, rules: Protocol, mirror: bool, rerank: RerankOptions | None, multi_query: bool
) -> str:
    parts = [stem] if rules.name == dataset else [stem, rules.name]
    parts += ["multi_query"] * multi_query + ["no_mirror"] * (not mirror) + ["rerank"] * (rerank is not None)
    return "_".join(parts)
