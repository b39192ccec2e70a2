"""From a run and people it was never trained on to a calibration, checked on people that it was not fitted on."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from tapetum.core.errors import DataError, ProtocolError
from tapetum.core.protocol import Protocol
from tapetum.core.seeding import numpy_generator
from tapetum.core.types import EmbeddingSet, Record
from tapetum.data.catalog import Dataset, fingerprint, numbers_anew
from tapetum.data.datasets.synth import SCENE_FILE, read_options
from tapetum.data.threads import Progress
from tapetum.evaluation.bootstrap import Interval
from tapetum.evaluation.calibration import (
    Calibration,
    PairCalibration,
    check_prior,
    probabilities_of_bins,
    write_calibration,
)
from tapetum.evaluation.fitting import METHODS, Method, check_people, fit_pair
from tapetum.evaluation.open_set import SearchCounts, available_pictures, check_searches, count_searches
from tapetum.evaluation.pair_distances import record_key
from tapetum.evaluation.thresholds import similarity_edges
from tapetum.evaluation.verification import (
    FEWEST,
    Comparison,
    PairCounts,
    bootstrap_pairs,
    build_comparisons,
    compute_reliability,
    count_pairs,
    rates_above,
    thin,
)
from tapetum.inference.embedder import Embedder
from tapetum.inference.identity import calibration_path, find_calibration
from tapetum.runs.packaged import refuse_packaged
from tapetum.runs.same_people import find_seen, shows_same_people
from tapetum.runs.sources import CACHE, open_data

RATES = (0.1, 0.01, 0.001)
POWERS = (10, 100, 1_000, 10_000, 100_000)  # gallery sizes that are calibrated where there are so many pictures
People = Literal["test", "holdout"]
SOURCES = ("test", "holdout")
WITHOUT_DEVICE = ("device",)  # the same similarities to five digits wherever they are computed


@dataclass(frozen=True)
class CalibrationOptions:
    """How a calibration is fitted and checked."""

    prior: float = 0.5  # probability before looking that a pair of pictures shows one person
    method: Method = "isotonic"
    rates: tuple[float, ...] = RATES  # of false alarms, that the check states where there are enough people
    galleries: tuple[int, ...] = ()  # sizes in pictures beside those of `POWERS` and the largest that there is
    draws: int = 1000  # resamplings of people for the intervals

    def __post_init__(self) -> None:
        check_prior(self.prior)
        if self.method not in METHODS:
            raise ProtocolError(f"method {self.method!r} is unknown; known: {', '.join(METHODS)}")
        for rate in self.rates:
            if not 0 < rate <= 1:
                raise ProtocolError(f"false-alarm rate {rate:g}: must be above 0 and at most 1, e.g. 0.01")
        for size in self.galleries:
            if size < 1:
                raise ProtocolError(f"gallery of {size} pictures: must hold at least 1")


@dataclass(frozen=True)
class Calibrated:
    """A calibration and where it lies."""

    calibration: Calibration  # fitted and checked
    path: Path
    skipped: Mapping[str, str]  # pairs of modalities that could not be calibrated -> why


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
        dataset: with people the run was never trained on; None opens the one that the run's recipe names.
        protocol: one of the dataset's, for its junk; None takes the recipe's choice, else the dataset's default.
        people: "test", or "holdout" for training people that the run set aside.
        seed: of the cut into halves; None takes the recipe's.
        mirror: None takes the recipe's choice, as for `precision`.
        out: the file; None writes it into the run folder, or beside the checkpoint file.
        cache: folder for generated scenes.
        progress: called with (done, total) pictures.
    Raises:
        CheckpointError: no checkpoint, or it is damaged.
        DataError: the run has no held-out people, or pictures are missing or damaged.
        ProtocolError: too few people, or an option cannot work.
        OutputError: the result cannot be written.
    """
    if people not in SOURCES:
        raise ProtocolError(f"people {people!r} is unknown; known: {', '.join(SOURCES)}")
    check_can_be_kept(place, out)
    embedder = Embedder(place, mirror=mirror, precision=precision)
    recipe = embedder.recipe
    dataset = dataset or open_data(recipe.data, cache=cache, progress=progress).dataset
    named = dataset.name == recipe.data.name
    rules = dataset.protocol(protocol or (recipe.evaluation.protocol if named else None))
    own, header = shows_same_people(dataset, recipe.data), embedder.checkpoint.header
    seen = find_seen(dataset, {record.pid for record in dataset.records}, header)
    records = held_out_records(dataset, rules, header.pids, people=people, own=own, seen=seen)
    seed = recipe.seed if seed is None else seed
    fit, check = split_people(records, seed)
    embeddings, _ = embedder.describe(records, progress=progress)
    first, second = (embeddings.select(torch.isin(embeddings.pids, torch.tensor(pids))) for pids in (fit, check))
    model = {name: value for name, value in embedder.facts.items() if name not in WITHOUT_DEVICE}
    data = {
        "name": dataset.name,
        "fingerprint": fingerprint(records),
        "people": people,
        "generated": (dataset.root / SCENE_FILE).is_file(),
        **_name_people(dataset, people),
        "pictures": len(records),
        "weights_chosen_by": embedder.checkpoint.header.chosen_by,
    }
    options = options or CalibrationOptions()
    calibration, skipped = calibrate_embeddings(
        first, second, rules, options=options, model=model, data=data, seed=seed
    )
    path = out or calibration_path(place)
    write_calibration(path, calibration)
    return Calibrated(calibration, path, skipped)


def check_can_be_kept(place: Path, out: Path | None) -> None:
    """Refuse, before any picture is looked at, to write beside a model of the package.

    Args:
        place: as for `calibrate_run`, as is the next.
    Raises:
        OutputError: no file is named, and the model is the package's.
    """
    if out is None:
        refuse_packaged(place, "write the calibration elsewhere with --out FILE, and search with --calibration FILE")


def find_calibration_of_others(
    embedder: Embedder, place: Path, dataset: Dataset, file: Path | None = None
) -> Calibration:
    """A model's calibration, to rank test pictures by: of other people than those.

    Args:
        place: run folder or checkpoint file.
        dataset: that is tested on.
        file: a calibration elsewhere; None takes the model's own.
    Raises:
        CheckpointError: it is damaged, or `file` does not exist.
        ProtocolError: there is none, it belongs to another model, or it was fitted on the people to be tested.
    """
    calibration = find_calibration(place, embedder.facts, file)
    remedy = f"run `tapetum calibrate {place}` on other people: --people holdout, or --data NAME=ROOT"
    if calibration is None:
        raise ProtocolError(f"rank calibrated: there is no {calibration_path(place)}; {remedy}")
    if _knows_tested(calibration.data, dataset, embedder):
        raise ProtocolError(
            f"rank calibrated: it was calibrated on test people of {dataset.name}, who are tested; {remedy}"
        )
    return calibration


def _name_people(dataset: Dataset, people: str) -> dict[str, Any]:
    """Who a generated scene's people are, see `shows_same_people`: their seed, and the first pid and the one behind."""
    scene = read_options(dataset.root)
    if scene is None:
        return {}
    pids = scene.train_pids if people == "holdout" else scene.test_pids
    return {"identity_seed": scene.identity_seed, "pids": [pids.start, pids.stop]}


def _knows_tested(data: Mapping[str, Any], dataset: Dataset, embedder: Embedder) -> bool:
    """Whether a calibration was fitted on people who are tested.

    Args:
        data: the calibration's facts about its people.
    """
    tested = _name_people(dataset, "test")
    if tested and "identity_seed" in data:
        (first, stop), (start, end) = data["pids"], tested["pids"]
        return bool(data["identity_seed"] == tested["identity_seed"] and max(first, start) < min(stop, end))
    if data.get("name") != dataset.name or data.get("people") != "test":
        return False
    if not (dataset.root / SCENE_FILE).is_file():
        return True
    # scenes of one name may show other people: an older calibration tells by its pictures alone
    own = shows_same_people(dataset, embedder.recipe.data)
    return data.get("fingerprint") in set(_fingerprints(dataset, embedder, own=own))


def _fingerprints(dataset: Dataset, embedder: Embedder, *, own: bool) -> Iterator[str]:
    """Of the test people that a calibration may have been fitted on, by each of the protocols."""
    for rules in dataset.protocols.values():
        try:
            yield fingerprint(held_out_records(dataset, rules, embedder.checkpoint.header.pids, own=own))
        except DataError:  # nobody is left for this one
            continue


def held_out_records(
    dataset: Dataset,
    rules: Protocol,
    training_pids: Sequence[int],
    *,
    people: People = "test",
    own: bool = True,
    seen: Collection[int] = (),
) -> list[Record]:
    """Pictures of people that a run was never trained on, each once.

    Args:
        rules: "test" takes what it admits on either side.
        training_pids: the run's, as the dataset writes them; empty where unknown: then all training people.
        people: "test", or "holdout" for training people that the run set aside.
        own: the dataset shows the run's people, see `tapetum.runs.same_people.shows_same_people`.
        seen: of its people those that the weights have seen, see `tapetum.runs.same_people.find_seen`.
    Raises:
        DataError: there are none.
    """
    if people == "holdout" and not (own and training_pids):
        raise DataError(
            f"{dataset.name}: the people a run set aside are known in its own dataset and from its own checkpoint; "
            "use --people test"
        )
    if people == "holdout":
        pictures = [record for record in dataset.split("train") if record.pid >= 0]
    else:
        pictures = [*dataset.side("query", rules.name), *dataset.side("gallery", rules.name)]
    if numbers_anew(dataset) and people == "test":  # which of its numbers they have here is not known
        never = {record.pid for record in pictures} if seen else set()
    elif own:
        never = {*seen} | (set(training_pids) or {record.pid for record in dataset.split("train")})
    else:
        never = {*seen}
    ignored_pids = {*rules.ignored_pids, -1}
    kept = {
        record_key(record): record for record in pictures if record.pid not in never and record.pid not in ignored_pids
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
    """Cut people into a half to fit on and a half to check on: two sorted lists of pids.

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
        rules: the protocol whose junk is left out.
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
    counts: dict[str, tuple[PairCounts, SearchCounts]] = {}
    skipped: dict[str, str] = {}
    for name in first:
        if name not in second:
            skipped[name] = f"{name}: only one half of the people has such pairs; calibrate with more people"
            continue
        sizes = _gallery_sizes(first[name], second[name], options.galleries)
        if not sizes:
            skipped[name] = f"{name}: some query has no picture of another person to search among; calibrate with more"
            continue
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
        counts[name] = (theirs, count_searches(second[name], sizes))
    if not pairs:
        raise ProtocolError(next(iter(skipped.values()), "no pictures of people to calibrate with"))
    calibration = Calibration(
        model, data, rules.name, seed, options.prior, options.method, tuple(sorted(options.rates, reverse=True)), pairs
    )
    checks = {
        name: _check(calibration, name, second[name], *counts[name], draws=options.draws, seed=seed) for name in pairs
    }
    return replace(calibration, checked=checks), skipped


def _gallery_sizes(first: Comparison, second: Comparison, sizes: Sequence[int]) -> list[int]:
    largest = min(available_pictures(first), available_pictures(second))
    for size in sizes:
        if size > largest:
            raise ProtocolError(
                f"{first.pair}: a gallery of {size} pictures cannot be looked at, one half of the people has "
                f"{largest} pictures of other people; ask for at most that, or calibrate with more people"
            )
    return sorted({*sizes, *(size for size in POWERS if size < largest), largest} - {0})


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
    probabilities = probabilities_of_bins(calibration.pairs[name], calibration.prior)
    reliability = compute_reliability(pairs, probabilities, calibration.prior)
    rows = _stated_thresholds(calibration, name)
    single = [row for row in rows if row["gallery"] is None]
    whole = [row for row in rows if row["gallery"] is not None]
    rng = numpy_generator(seed, "calibration", name)
    thresholds = [row["threshold"] for row in single]
    intervals = bootstrap_pairs(comparison, probabilities, thresholds, calibration.prior, rng=rng, draws=draws)
    observed, shares = (rates_above(counts, thresholds).tolist() for counts in (pairs.different, pairs.same))
    _state(single, observed, shares, intervals.false_alarms, intervals.found)
    result = check_searches(comparison, [(row["gallery"], row["threshold"]) for row in whole], rng=rng, draws=draws)
    _state(
        whole,
        result.false_alarms,
        result.found,
        result.false_alarm_intervals,
        result.found_intervals,
    )
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
            **{
                curve: [None if np.isnan(value) else float(value) for value in getattr(reliability, curve)]
                for curve in ("predicted", "observed")
            },
            "share": reliability.share.tolist(),
        },
        "verification": thin(rates_above(pairs.different, edges), rates_above(pairs.same, edges)),
        "open_set": {
            "gallery": largest,
            **thin(rates_above(searches.strangers[largest], edges), 1 - rates_above(searches.enrolled, edges)),
        },
        "thresholds": rows,
    }


def _state(
    rows: Sequence[dict[str, Any]],
    observed: Sequence[float],
    shares: Sequence[float],
    observed_intervals: Sequence[Interval],
    share_intervals: Sequence[Interval],
) -> None:
    """Put into each row what its threshold does."""
    for row, alarms, share, *intervals in zip(rows, observed, shares, observed_intervals, share_intervals, strict=True):
        row |= {"observed": alarms, "found": share}
        row |= zip(("observed_interval", "found_interval"), map(_ends, intervals), strict=True)


def _stated_thresholds(calibration: Calibration, name: str) -> list[dict[str, Any]]:
    """Every stated rate that the fitting half supports: of comparisons, and of searches in each calibrated gallery."""
    return [
        {"gallery": gallery, "rate": rate, "threshold": calibration.threshold(rate, name, gallery=gallery)}
        for gallery in (None, *calibration.pairs[name].searches)
        for rate in calibration.rates
        if rate >= calibration.lowest_rate(name, gallery=gallery)
    ]


def _ends(interval: Interval) -> list[float]:
    return [interval.low, interval.high]
