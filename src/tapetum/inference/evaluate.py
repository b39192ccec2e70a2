"""From a checkpoint and a dataset to a result card: extract, rank, count, and say where it fails.

What a protocol asks for is planned in `tapetum.inference.planned`; embeddings are kept beside the card, see
`tapetum.inference.kept_embeddings`. A data set may lie in several folders with other pictures in each: what the first
gave stays, and names of the next one's cards and embeddings have the first digits of its pictures' fingerprint.
"""

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from tapetum.core.atomic import new_folder
from tapetum.core.errors import DataError, ProtocolError
from tapetum.core.method import part_for_search
from tapetum.core.types import EmbeddingSet
from tapetum.data.catalog import Dataset, fingerprint
from tapetum.data.lighting import PictureStatistics, light_levels, measure_pictures, size_levels
from tapetum.data.threads import Progress
from tapetum.evaluation.calibration import Calibration
from tapetum.evaluation.camera_norm import CameraNorm, normalise_cameras
from tapetum.evaluation.card import Card, build_card, read_card, write_card
from tapetum.evaluation.metrics import Evaluation, Sides, evaluate
from tapetum.evaluation.ranking import multi_query as join_queries
from tapetum.evaluation.rerank import RerankOptions
from tapetum.evaluation.slices import (
    FIRST_WRONG,
    LOOKALIKE_LEVELS,
    LOOKALIKES,
    MODALITY,
    by_camera_pair,
    by_lookalikes,
    by_modality,
    mean_precisions,
    thirds,
)
from tapetum.evaluation.trials import evaluate_trials
from tapetum.inference.calibrate import find_calibration_of_others
from tapetum.inference.embedder import Embedder
from tapetum.inference.filling import drop_filling, meet
from tapetum.inference.identity import calibration_path
from tapetum.inference.kept_embeddings import describe_tests, embed_split, find_strangers
from tapetum.inference.planned import SIDES, TEST, PlannedTest, choose_protocols, plan_test
from tapetum.inference.precision import resolve_precision
from tapetum.runs.header import find_checkpoint, read_header
from tapetum.runs.recipe import DataSection, check_recipe, override_recipe
from tapetum.runs.run_folder import RunFolder
from tapetum.runs.same_people import check_division, check_untrained
from tapetum.runs.sources import CACHE, list_split, open_data, source_overrides

WORST = 10
DRAWS = 1000
LONGEST = 100  # letters of options in a file name
DIGITS = 8  # of a fingerprint in a file name
Ranking = Literal["similarity", "calibrated"]


@dataclass(frozen=True)
class Evaluated(Sides):
    """A result and what it was computed from; where galleries are drawn, the sides hold what some trial takes.

    `protocol` is that of `evaluation`: where the card's draws a side, the same with nothing drawn.
    """

    card: Card
    path: Path  # of the card
    statistics: PictureStatistics  # of each query picture as given
    trials: tuple[Evaluation, ...]  # per query, without re-ranking: one a trial, or a single one
    drawn: tuple[torch.Tensor, ...] | None = None  # (n,) int64 rows that each trial took of the side that it drew
    calibration: Calibration | None = None  # whose evidence ranked; None where similarity did
    stranger: Path | None = None  # what has this result's usual name and is of other pictures: a card or embeddings

    @cached_property
    def evaluation(self) -> Evaluation:
        """Per query, without re-ranking, by `protocol`: the one to show rank lists with."""
        if self.drawn is None:
            return self.trials[0]
        return evaluate(self.query, self.gallery, self.protocol, calibration=self.calibration)


def override_data(place: Path, source: str | None, changes: Sequence[str] = ()) -> DataSection:
    """What the recipe of a run or a checkpoint says about its data, with changes.

    Args:
        source: NAME=ROOT of another dataset.
        changes: "key=value".
    Raises:
        TapetumError: no checkpoint, or a change cannot be made.
    """
    recipe = check_recipe(read_header(find_checkpoint(place)).recipe, f"in {place}")
    overrides = [*(source_overrides(source, recipe.data) if source else []), *changes]
    return override_recipe(recipe, overrides, str(place)).data


def evaluate_run(
    place: Path,
    protocols: Sequence[str | None] = (None,),
    *,
    dataset: Dataset | None = None,
    data: DataSection | None = None,
    mirror: bool | None = None,
    rerank: RerankOptions | None = None,
    multi_query: bool = False,
    camera_norm: CameraNorm | None = None,
    rank: Ranking = "similarity",
    calibration: Path | None = None,
    precision: str | None = None,
    out: Path | None = None,
    draws: int = DRAWS,
    cache: Path = CACHE,
    progress: Progress | None = None,
) -> list[Evaluated]:
    """Evaluate the chosen checkpoint of a run, or a checkpoint file, each picture described once.

    Args:
        place: a run folder, or a checkpoint file.
        protocols: names of the dataset's; "all" stands for each that differs from the others in a rule, None for the
            recipe's choice, else the dataset's default.
        dataset: None opens the one that the run's recipe names.
        data: how `dataset` was opened; options other than the recipe's become part of the card's name.
        mirror: None takes the recipe's choice, as for `rerank`, `camera_norm` and `precision`; ranked by a calibration,
            the recipe's re-ranking is left out.
        rerank: report re-ranked numbers as well.
        multi_query: average all pictures of a query's person under its camera (split "multi_query").
        camera_norm: take the statistics of each camera's test pictures out of its vectors; what is kept on disk, and
            what calibrations and galleries are made of, stays as it is.
        rank: "calibrated" ranks by the calibrated log-odds of each pair of modalities, as a gallery can be searched.
        calibration: a file of `calibrate_run` for that; None takes the run's own. The card's name bears the digest of
            any other.
        out: folder for card and embeddings; else ``evaluation/`` of the run, or beside the checkpoint file. What is of
            other pictures of the data set's name stays there.
        draws: resamplings of the bootstrap.
        cache: folder for generated scenes.
        progress: called with (done, total) pictures.
    Raises:
        CheckpointError: no checkpoint, or it is damaged.
        DataError: pictures are missing or damaged, or of people whom the weights were trained on.
        ProtocolError: the protocol cannot be carried out on these pictures, or there is no calibration to rank by.
        RecipeError: the dataset has no such protocol, or tests people whom the weights may have been trained on.
        OutputError: the result cannot be written.
    """
    embedder = Embedder(place, mirror=mirror, precision=precision)
    recipe = embedder.recipe
    dataset = dataset or open_data(recipe.data, cache=cache, progress=progress).dataset
    header = embedder.checkpoint.header
    check_division(dataset, header, place)
    usual = recipe.evaluation.protocol if dataset.name == recipe.data.name else None
    tests = [plan_test(dataset, rules) for rules in choose_protocols(dataset, [name or usual for name in protocols])]
    for test in tests:
        pids = {record.pid for side in SIDES for record in test.whole[side]} - {*test.rules.ignored_pids, -1}
        check_untrained(dataset, pids, header, place)
    if rerank is None and recipe.evaluation.rerank is not None and rank != "calibrated":
        rerank = RerankOptions(**recipe.evaluation.rerank.model_dump())
    camera_norm = camera_norm or recipe.evaluation.camera_norm
    known, ranked_by = None, ""
    if rank == "calibrated":
        if rerank is not None or camera_norm != "none":
            what, remedy = f"camera_norm {camera_norm}", "add --camera-norm none"
            if rerank is not None:
                what, remedy = "rerank", "leave --rerank out"
            raise ProtocolError(
                f"rank calibrated: calibrations are of plain similarities, and {what} makes others; {remedy}, or rank "
                "by similarity"
            )
        known = find_calibration_of_others(embedder, place, dataset, calibration)
        own = calibration is None or calibration.resolve() == calibration_path(place).resolve()
        ranked_by = "calibrated" if own else f"calibrated_{known.digest}"
    folder = out or (RunFolder(place).evaluation if place.is_dir() else place.with_suffix(".evaluation"))
    settings = ["multi_query"] * multi_query + [f"camera_{camera_norm}"] * (camera_norm != "none")
    settings += (
        [ranked_by] * bool(ranked_by) + ["no_mirror"] * (not embedder.mirror) + ["rerank"] * (rerank is not None)
    )
    with new_folder(folder):
        usual_stem = folder / "_".join([dataset.name, *_variant(embedder, data)])
        stem, stranger = _name_apart(usual_stem, dataset, tests, settings, embedder)
        start = time.monotonic()
        sides = describe_tests(embedder, dataset, tests, stem, progress)
        if multi_query:
            extra = embed_split(embedder, list_split(dataset, "multi_query"), "multi_query", stem, progress)
            sides = [(join_queries(query, extra), gallery) for query, gallery in sides]
        filling = embedder.filling
        bare = [(drop_filling(query, filling), drop_filling(gallery, filling)) for query, gallery in sides]
        # Calibrations were fitted on vectors as a gallery has them; re-ranking compares pictures of one side, too.
        met = [(*both, 0) for both in bare] if known is not None else [meet(*both, filling) for both in sides]
        left = [each[2] for each in met]
        sides, bare = ([normalise_cameras(*each[:2], camera_norm) for each in some] for some in (met, bare))
        extraction = time.monotonic() - start
        return [
            _evaluate_test(
                test,
                *both,
                bare_sides,
                filled,
                embedder,
                dataset,
                _card_path(stem, dataset, test, settings),
                rerank,
                draws,
                extraction,
                multi_query=multi_query,
                camera_norm=camera_norm,
                calibration=known,
                stranger=stranger,
            )
            for test, both, bare_sides, filled in zip(tests, sides, bare, left, strict=True)
        ]


def _evaluate_test(
    test: PlannedTest,
    query: EmbeddingSet,
    gallery: EmbeddingSet,
    bare: tuple[EmbeddingSet, EmbeddingSet],
    filling: int,
    embedder: Embedder,
    dataset: Dataset,
    path: Path,
    rerank: RerankOptions | None,
    draws: int,
    extraction: float,
    *,
    multi_query: bool,
    camera_norm: CameraNorm,
    calibration: Calibration | None,
    stranger: Path | None,
) -> Evaluated:
    """Rank and count, and write the card.

    Args:
        bare: both sides without filling, for re-ranking.
        filling: what is left of it in the sides themselves.
        path: of the card.
        stranger: as of `Evaluated`.
    """
    rules, recipe, checkpoint = test.rules, embedder.recipe, embedder.checkpoint
    start = time.monotonic()
    trials = _rank(test, query, gallery, calibration=calibration)
    reranked = _rank(test, *bare, rerank=rerank) if rerank is not None else None
    seconds = extraction + time.monotonic() - start
    statistics = measure_pictures(test.records["query"])
    labels, figures = _lookalikes(test, query, gallery, calibration)
    names, bias = by_modality(query, gallery, test.rules, calibration)
    if bias:
        labels[MODALITY], figures[MODALITY] = names, bias
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
            "fingerprint": _fingerprint_test(test),
            "pictures": test.fingerprints,
            **{side: len(records) for side, records in test.whole.items()},
            "options": dataset.options,
            "division": dataset.division,
            **({"damaged": dataset.damaged} if dataset.damaged else {}),
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
        camera_norm=camera_norm,
        calibration=None if calibration is None else _facts_of(calibration),
        labels={
            "light": light_levels(statistics.lightness).tolist(),
            "size": size_levels(statistics.height).tolist(),
            "noise": thirds(torch.from_numpy(np.ascontiguousarray(statistics.noise))),
            "camera": [f"camera {camid}" for camid in query.camids.tolist()],
            **labels,
        },
        figures=figures,
        slices={"camera_pair": by_camera_pair(query, gallery, rules, test.drawn, calibration)},
        galleries=test.galleries,
        worst_queries=_worst(trials, query, dataset.people),
        draws=draws,
    )
    write_card(path, card)
    rules = rules if test.drawn is None else replace(rules, trials=1, drawn=None)
    return Evaluated(
        query, gallery, rules, card, path, statistics, trials, test.drawn, calibration, stranger, filling=filling
    )


def _fingerprint_test(test: PlannedTest) -> str:
    return fingerprint([*test.whole["query"], *test.whole["gallery"]])


def _card_path(stem: Path, dataset: Dataset, test: PlannedTest, settings: Sequence[str]) -> Path:
    """Where a card goes.

    Args:
        stem: what names of cards and embeddings begin with.
        settings: what the name says of the ranking.
    """
    parts = [stem.name] + [test.rules.name] * (test.rules.name != dataset.name) + [*settings]
    return stem.with_name(f"{'_'.join(parts)}.json")


def _name_apart(
    stem: Path, dataset: Dataset, tests: Sequence[PlannedTest], settings: Sequence[str], embedder: Embedder
) -> tuple[Path, Path | None]:
    """A stem under which nothing is of other pictures: the usual one, else one with digits of these pictures.

    Returns:
        The stem, and what there is of other pictures under the usual one; None where there is nothing.
    """
    stranger = find_strangers(stem, embedder, dataset)
    for test in tests:
        path = _card_path(stem, dataset, test, settings)
        if _read_fingerprint(path) not in (None, _fingerprint_test(test)):
            stranger = path
    if stranger is None:
        return stem, None
    pictures = fingerprint([record for record in dataset.records if record.split in (*SIDES, TEST)])
    return stem.with_name(f"{stem.name}_{pictures[:DIGITS]}"), stranger


def _read_fingerprint(path: Path) -> str | None:
    """Of a card's pictures; None where there is no card, or it does not say."""
    if not path.exists():
        return None
    try:
        found = read_card(path).data.get("fingerprint")
    except DataError:  # damaged: it is written anew
        return None
    return None if found is None else str(found)


def _facts_of(calibration: Calibration) -> dict[str, Any]:
    """What a card says of the calibration that ranked: two of the same people may still differ."""
    return {
        "people": calibration.data,
        "seed": calibration.seed,
        "method": calibration.method,
        "digest": calibration.digest,
    }


def _lookalikes(
    test: PlannedTest, query: EmbeddingSet, gallery: EmbeddingSet, calibration: Calibration | None
) -> tuple[dict[str, list[str]], dict[str, dict[str, dict[str, float]]]]:
    """Slice and figure of the people in the same clothes; nothing where the data set knows of none.

    Where galleries are drawn, both count whatever some trial draws.
    """
    outfits = [torch.tensor([record.outfit for record in test.records[side]]) for side in SIDES]
    if not (outfits[0] >= 0).any():
        return {}, {}
    levels, share = by_lookalikes(query, gallery, test.rules, (outfits[0], outfits[1]), calibration)
    figures = {} if share is None else {LOOKALIKES: {LOOKALIKE_LEVELS[0]: {FIRST_WRONG: share}}}
    return {LOOKALIKES: levels}, figures


def _rank(
    test: PlannedTest,
    query: EmbeddingSet,
    gallery: EmbeddingSet,
    *,
    rerank: RerankOptions | None = None,
    calibration: Calibration | None = None,
) -> tuple[Evaluation, ...]:
    if test.drawn is None:
        return (evaluate(query, gallery, test.rules, rerank=rerank, calibration=calibration),)
    drawn = test.drawn
    return evaluate_trials(query, gallery, test.rules, drawn=drawn, rerank=rerank, calibration=calibration).each


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
        names = [name for name in sorted(now | before) if now.get(name) != before.get(name) and name != "multi_query"]
        parts = [re.sub(r"[^A-Za-z0-9.]+", "-", f"{name}-{now.get(name, 'default')}").strip("-") for name in names]
        if sum(map(len, parts)) > LONGEST:
            parts = [hashlib.sha256("_".join(parts).encode()).hexdigest()[:12]]
    network = part_for_search(embedder.checkpoint.network)
    usual = resolve_precision(embedder.recipe.evaluation.precision, embedder.device.type, network=network)
    return parts + [embedder.precision] * (embedder.precision != usual)
