"""From a run and people it was never trained on to a calibration, checked on people that it was not fitted on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from tapetum.core.errors import DataError, ProtocolError
from tapetum.core.protocol import Protocol
from tapetum.core.seeding import numpy_generator
from tapetum.core.types import EmbeddingSet, Record
from tapetum.data.catalog import Dataset, fingerprint
from tapetum.data.loader import Progress
from tapetum.evaluation.bootstrap import Interval
from tapetum.evaluation.calibration import (
    METHODS,
    Calibration,
    Method,
    PairCalibration,
    check_people,
    check_prior,
    fit_pair,
    probabilities_of_bins,
    write_calibration,
)
from tapetum.evaluation.open_set import SearchCounts, available_pictures, check_searches, count_searches
from tapetum.evaluation.verification import (
    FEWEST,
    Comparison,
    PairCounts,
    bootstrap_pairs,
    build_comparisons,
    compute_reliability,
    count_pairs,
    rates_above,
    similarity_edges,
    thin,
)
from tapetum.inference.embedder import Embedder
from tapetum.inference.identity import calibration_path
from tapetum.runs.sources import CACHE, open_data

RATES = (0.1, 0.01, 0.001)
PRIOR = 0.5
POWERS = (10, 100, 1_000, 10_000, 100_000)  # gallery sizes that are calibrated where there are so many pictures
DRAWS = 1000
People = Literal["test", "holdout"]
SOURCES = ("test", "holdout")
WITHOUT_DEVICE = ("device",)  # the same similarities to five digits wherever they are computed


@dataclass(frozen=True)
class CalibrationOptions:
    """How a calibration is fitted and checked.

    Attributes:
        prior: probability before looking that a pair of pictures shows one person.
        method: "isotonic" or "logistic".
        rates: false-alarm rates that the check states, where there are enough people.
        galleries: sizes in pictures beside those of `POWERS` and the largest that there is.
        draws: resamplings of people for the intervals.
    """

    prior: float = PRIOR
    method: Method = "isotonic"
    rates: tuple[float, ...] = RATES
    galleries: tuple[int, ...] = ()
    draws: int = DRAWS


@dataclass(frozen=True)
class Calibrated:
    """A calibration and where it lies.

    Attributes:
        calibration: fitted and checked.
        path: the file.
        skipped: pairs of modalities that could not be calibrated, and why.
    """

    calibration: Calibration
    path: Path
    skipped: Mapping[str, str]


def calibrate_run(
    place: Path,
    *,
    options: CalibrationOptions | None = None,
    dataset: Dataset | None = None,
    protocol: str | None = None,
    people: People = "test",
    seed: int | None = None,
    mirror: bool | None = None,
    precision: str | None = None,
    out: Path | None = None,
    cache: Path = CACHE,
    progress: Progress | None = None,
) -> Calibrated:
    """Fit on one half of the held-out people, check on the other, and write what was found beside the run.

    Args:
        place: a run folder, or a checkpoint file.
        options: None takes the defaults.
        dataset: with people the run was never trained on; None opens the one that the run's recipe names.
        protocol: one of the dataset's, for its junk; None takes the recipe's choice, else the dataset's default.
        people: "test", or "holdout" for training people that the run set aside.
        seed: of the cut into halves; None takes the recipe's.
        mirror: None takes the recipe's choice.
        precision: None takes the recipe's choice.
        out: the file; None writes it into the run folder, or beside the checkpoint file.
        cache: folder for generated scenes.
        progress: called with (done, total) pictures.
    Raises:
        CheckpointError: no checkpoint, or it is damaged.
        DataError: the run has no held-out people, or pictures are missing or damaged.
        ProtocolError: too few people, or an option cannot work.
        OutputError: the result cannot be written.
    """
    chosen = options or CalibrationOptions()
    _check_options(chosen, people)
    embedder = Embedder(place, mirror=mirror, precision=precision)
    recipe = embedder.recipe
    dataset = dataset or open_data(recipe.data, cache=cache, progress=progress).dataset
    own = dataset.name == recipe.data.name
    rules = dataset.protocol(protocol or (recipe.evaluation.protocol if own else None))
    records = held_out_records(dataset, rules, embedder.checkpoint.header.pids, people=people, own=own)
    seed = recipe.seed if seed is None else seed
    fit, check = split_people(records, seed)
    embeddings, _ = embedder.describe(records, progress=progress)
    halves = [embeddings.select(torch.isin(embeddings.pids, torch.tensor(pids))) for pids in (fit, check)]
    model = {name: value for name, value in embedder.facts.items() if name not in WITHOUT_DEVICE}
    data = {
        "name": dataset.name,
        "fingerprint": fingerprint(records),
        "people": people,
        "pictures": len(records),
        "weights_chosen_by": embedder.checkpoint.header.chosen_by,
    }
    calibration, skipped = calibrate_embeddings(
        halves[0], halves[1], rules, options=chosen, model=model, data=data, seed=seed
    )
    path = out or calibration_path(place)
    write_calibration(path, calibration)
    return Calibrated(calibration, path, skipped)


def _check_options(options: CalibrationOptions, people: str) -> None:
    check_prior(options.prior)
    if people not in SOURCES:
        raise ProtocolError(f"people {people!r} is unknown; known: {', '.join(SOURCES)}")
    if options.method not in METHODS:
        raise ProtocolError(f"method {options.method!r} is unknown; known: {', '.join(METHODS)}")
    for rate in options.rates:
        if not 0 < rate <= 1:
            raise ProtocolError(f"false-alarm rate {rate:g}: must be above 0 and at most 1, e.g. 0.01")
    for size in options.galleries:
        if size < 1:
            raise ProtocolError(f"gallery of {size} pictures: must hold at least 1")


def held_out_records(
    dataset: Dataset, rules: Protocol, trained: Sequence[int], *, people: People = "test", own: bool = True
) -> list[Record]:
    """Pictures of people that a run was never trained on, each once.

    Args:
        dataset: opened.
        rules: its protocol; "test" takes what it admits on either side.
        trained: pids the run was trained on, as the dataset writes them; empty where unknown: then all training people.
        people: "test", or "holdout" for training people that the run set aside.
        own: the dataset is the run's, so that equal pids are the same people.
    Raises:
        DataError: there are none.
    """
    if people == "holdout" and not (own and trained):
        raise DataError(
            f"{dataset.name}: the people a run set aside are known in its own dataset and from its own checkpoint; "
            "use --people test"
        )
    if people == "holdout":
        found = [record for record in dataset.split("train") if record.pid >= 0]
    else:
        found = [*dataset.side("query", rules.name), *dataset.side("gallery", rules.name)]
    never = set(trained) or {record.pid for record in dataset.split("train")} if own else set()
    ignored = {*rules.ignored_pids, -1}
    kept = {
        (record.pid, record.camid, int(record.modality), record.path.name): record
        for record in found
        if record.pid not in never and record.pid not in ignored
    }
    if not kept:
        remedy = "give --data NAME=ROOT of people it was not trained on"
        if people == "holdout":
            remedy = "train with selection.rule = holdout, or use --people test"
        raise DataError(
            f"{dataset.name}: {dataset.root} holds no {people} people that the run was not trained on; {remedy}"
        )
    return [replace(record, split="gallery") for record in kept.values()]


def split_people(records: Sequence[Record], seed: int) -> tuple[list[int], list[int]]:
    """Cut people into a half to fit on and a half to check on.

    Args:
        records: of all of them.
        seed: of the cut.
    Returns:
        Two sorted lists of pids.
    Raises:
        ProtocolError: there are too few.
    """
    pids = sorted({record.pid for record in records})
    if len(pids) <= 2 * FEWEST:
        raise ProtocolError(
            f"{len(pids)} held-out people are too few to fit on one half and check on the other, more than "
            f"{2 * FEWEST} are wanted; give --data NAME=ROOT with more people"
        )
    order = numpy_generator(seed, "calibration").permutation(len(pids))
    half = (len(pids) + 1) // 2
    return sorted(pids[row] for row in order[:half]), sorted(pids[row] for row in order[half:])


def calibrate_embeddings(
    fit: EmbeddingSet,
    check: EmbeddingSet,
    rules: Protocol,
    *,
    options: CalibrationOptions,
    model: Mapping[str, Any],
    data: Mapping[str, Any],
    seed: int,
) -> tuple[Calibration, dict[str, str]]:
    """Fit on some people's embeddings and check on other people's.

    Args:
        fit: of the people to fit on.
        check: of others.
        rules: the protocol whose junk is left out.
        options: how.
        model: facts about what made the embeddings.
        data: facts about the pictures.
        seed: of the cut, and of the bootstrap.
    Returns:
        The calibration, and why pairs of modalities are not in it.
    Raises:
        ProtocolError: no pair of modalities has enough people.
    """
    first, second = build_comparisons(fit, rules), build_comparisons(check, rules)
    pairs: dict[str, PairCalibration] = {}
    counted: dict[str, tuple[PairCounts, SearchCounts]] = {}
    skipped: dict[str, str] = {}
    for name in first:
        if name not in second:
            skipped[name] = f"{name}: only one half of the people has such pairs; calibrate with more people"
            continue
        sizes = _gallery_sizes(first[name], second[name], options.galleries)
        theirs = count_pairs(second[name])
        try:
            check_people(theirs, name)
            mine = count_pairs(first[name])
            pairs[name] = fit_pair(
                mine, count_searches(first[name], sizes), name, method=options.method, rates=options.rates
            )
        except ProtocolError as error:
            skipped[name] = str(error)
            continue
        counted[name] = (theirs, count_searches(second[name], sizes))
    if not pairs:
        raise ProtocolError(next(iter(skipped.values()), "no pictures of people to calibrate with"))
    calibration = Calibration(
        model, data, rules.name, seed, options.prior, options.method, tuple(sorted(options.rates, reverse=True)), pairs
    )
    checked = {
        name: _check(calibration, name, second[name], *counted[name], draws=options.draws, seed=seed) for name in pairs
    }
    return replace(calibration, checked=checked), skipped


def _gallery_sizes(first: Comparison, second: Comparison, wanted: Sequence[int]) -> list[int]:
    largest = min(available_pictures(first), available_pictures(second))
    for size in wanted:
        if size > largest:
            raise ProtocolError(
                f"{first.pair}: a gallery of {size} pictures cannot be looked at, one half of the people has "
                f"{largest} pictures of other people; ask for at most that, or calibrate with more people"
            )
    return sorted({*wanted, *(size for size in POWERS if size < largest), largest} - {0})


def _check(
    calibration: Calibration,
    name: str,
    comparison: Comparison,
    pairs: PairCounts,
    searches: SearchCounts,
    *,
    draws: int,
    seed: int,
) -> dict[str, Any]:
    """What a pair's calibration is worth on people it was not fitted on, as plain values."""
    fitted = calibration.pairs[name]
    said = probabilities_of_bins(fitted, calibration.prior)
    reliability = compute_reliability(pairs, said, calibration.prior)
    rows = _stated_thresholds(calibration, name)
    single = [row for row in rows if row["gallery"] is None]
    whole = [row for row in rows if row["gallery"] is not None]
    rng = numpy_generator(seed, "calibration", name)
    thresholds = [row["threshold"] for row in single]
    intervals = bootstrap_pairs(comparison, said, thresholds, calibration.prior, rng=rng, draws=draws)
    observed, found = rates_above(pairs.different, thresholds), rates_above(pairs.same, thresholds)
    for place, row in enumerate(single):
        row |= {"observed": float(observed[place]), "found": float(found[place])}
        row |= {
            "observed_interval": _ends(intervals.false_alarms[place]),
            "found_interval": _ends(intervals.found[place]),
        }
    sought = check_searches(comparison, [(row["gallery"], row["threshold"]) for row in whole], rng=rng, draws=draws)
    for place, row in enumerate(whole):
        row |= {"observed": sought.false_alarms[place], "found": sought.found[place]}
        row |= {"observed_interval": _ends(sought.false_alarm_intervals[place])}
        row |= {"found_interval": _ends(sought.found_intervals[place])}
    edges = similarity_edges()
    largest = max(searches.strangers)
    return {
        "people": pairs.people,
        "same": int(pairs.same.sum()),
        "different": int(pairs.different.sum()),
        "searches": searches.searches,
        "calibration_error": reliability.error,
        "calibration_error_interval": _ends(intervals.error),
        "reliability": {
            "predicted": [None if np.isnan(value) else float(value) for value in reliability.predicted],
            "observed": [None if np.isnan(value) else float(value) for value in reliability.observed],
            "share": reliability.share.tolist(),
        },
        "verification": thin(rates_above(pairs.different, edges), rates_above(pairs.same, edges)),
        "open_set": {
            "gallery": largest,
            **thin(rates_above(searches.strangers[largest], edges), 1 - rates_above(searches.enrolled, edges)),
        },
        "thresholds": rows,
    }


def _stated_thresholds(calibration: Calibration, name: str) -> list[dict[str, Any]]:
    """Every stated rate that the fitting half supports: of comparisons, and of searches in each calibrated gallery."""
    found = []
    for gallery in (None, *calibration.pairs[name].searches):
        lowest = calibration.lowest_rate(name, gallery=gallery)
        found += [
            {"gallery": gallery, "rate": rate, "threshold": calibration.threshold(rate, name, gallery=gallery)}
            for rate in calibration.rates
            if rate >= lowest
        ]
    return found


def _ends(interval: Interval) -> list[float]:
    return [interval.low, interval.high]
