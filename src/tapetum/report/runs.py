"""What lies in run folders, as the results of a report."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from tapetum.core.errors import DataError, ProtocolError
from tapetum.core.protocol import Protocol
from tapetum.core.types import EmbeddingSet, Modality
from tapetum.evaluation.calibration import read_calibration
from tapetum.evaluation.card import Card, read_card
from tapetum.evaluation.metrics import Evaluation, evaluate
from tapetum.inference.embeddings import read_embeddings
from tapetum.inference.identity import calibration_path
from tapetum.report.collect import (
    choose_queries,
    collect_across,
    collect_pairs,
    collect_searches,
    collect_worst_queries,
    read_curves,
)
from tapetum.report.content import Array, EnhancedPair, ReportContent, Result
from tapetum.report.sides import Sides
from tapetum.runs.checkpoint import load_checkpoint
from tapetum.runs.recipe import check_recipe, load_recipe
from tapetum.runs.run_folder import RunFolder


@dataclass(frozen=True)
class RunResults:
    """One run.

    Attributes:
        folder: of the run.
        results: one a result card, sorted by the cards' names; labels are unique among the runs read together.
        curves: quantity -> (E,) values of the training.
    """

    folder: RunFolder
    results: tuple[Result, ...]
    curves: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Kept:
    """Kept embeddings, evaluated again; see `tapetum.report.collect.Searched`."""

    query: EmbeddingSet
    gallery: EmbeddingSet
    evaluation: Evaluation
    protocol: Protocol
    everything: EmbeddingSet | None = None  # every picture kept, where the protocol decides on the sides

    def asks_like(self, other: "Kept") -> bool:
        """Whether both search with the same pictures in the same order.

        Args:
            other: of another run.
        """
        return self.query.paths == other.query.paths and self.protocol == other.protocol


def read_runs(folders: Sequence[Path]) -> list[RunResults]:
    """Result cards and training curves of several runs.

    Args:
        folders: run folders, the baseline first.
    Raises:
        DataError: a folder is missing, holds no result card, or a card is damaged.
    """
    runs = []
    for place in folders:
        folder = RunFolder(place)
        seconds = folder.read_facts().get("seconds")
        results = tuple(
            Result(
                _label(card, place),
                card,
                seconds=float(seconds) if isinstance(seconds, int | float) else None,
                note=path.stem,
                method=_label(card, place),
            )
            for path in find_cards(place)
            for card in (read_card(path),)
        )
        runs.append(RunResults(folder, results, read_curves(folder.metrics)))
    return _with_unique_labels(runs)


def read_training(folders: Sequence[Path]) -> dict[str, dict[str, Array]]:
    """Training curves of several runs, evaluated or not.

    Args:
        folders: run folders.
    Returns:
        Name of the recipe, or of the folder where that is not unique -> quantity -> (E,) values.
    Raises:
        DataError: a run has no complete epoch.
    """
    names = [_recipe_name(place) for place in folders]
    found = {}
    for place, name in zip(folders, names, strict=True):
        curves = read_curves(RunFolder(place).metrics)
        if not curves:
            raise DataError(
                f"{place}: no complete epoch in {RunFolder(place).metrics}; train a run with `tapetum train`"
            )
        found[name if names.count(name) == 1 else str(place)] = curves
    return found


def read_test(folder: RunFolder, card: Mapping[str, Any]) -> Kept | None:
    """The embeddings behind a card, evaluated again; None where they were not kept or stand for several pictures.

    Where galleries are drawn, the gallery is every picture that some trial takes, searched as one: the numbers of the
    trials stand on the card.

    Args:
        folder: of the run.
        card: one of its result cards.
    Raises:
        DataError: the embeddings are damaged.
        ProtocolError: they do not belong to the card.
    """
    data = card["data"]
    ending = "" if card["mirror"] else "_no_mirror"
    galleries = sorted(folder.evaluation.glob(f"{data['name']}*_gallery{ending}.safetensors"))
    pairs = [(path.with_name(path.name.replace("_gallery", "_query")), path) for path in galleries]
    pairs = [pair for pair in pairs if pair[0].is_file()]
    stores = sorted(folder.evaluation.glob(f"{data['name']}*_test{ending}.safetensors"))
    if data.get("multi_query") or not (pairs or stores):
        return None
    protocol = replace(read_protocol(card), trials=1, drawn=None)
    for query, gallery in pairs:
        sides = read_embeddings(query), read_embeddings(gallery)
        if all(_made_for(card, split, facts) for split, (_, facts) in zip(("query", "gallery"), sides, strict=True)):
            kept = sides[0][0], sides[1][0]
            return Kept(*kept, evaluate(*kept, protocol), protocol)
    for path in stores:
        store, facts = read_embeddings(path)
        rows = facts.get("sides", {}).get(protocol.name)
        if rows is None or not all(
            _made_for(card, side, {**facts, "pictures": rows[side]["pictures"]}) for side in rows
        ):
            continue
        kept = store.select(torch.tensor(rows["query"]["rows"])), store.select(torch.tensor(rows["gallery"]["rows"]))
        return Kept(*kept, evaluate(*kept, protocol), protocol, store)
    raise ProtocolError(
        f"{folder.evaluation}: the embeddings are of other weights, pictures or precision than the result card of "
        f"{data['name']}; make both again with `tapetum evaluate {folder.root}`"
    )


def _made_for(card: Mapping[str, Any], split: str, facts: Mapping[str, Any]) -> bool:
    """Whether embeddings with these facts are those behind a card; a card that does not say decides nothing."""
    checkpoint = card["checkpoint"]
    wanted = {
        "checkpoint": checkpoint.get("digest"),
        "precision": checkpoint.get("precision"),
        "pictures": card["data"].get("pictures", {}).get(split),
    }
    return all(value is None or facts.get(name) == value for name, value in wanted.items())


def read_protocol(card: Mapping[str, Any]) -> Protocol:
    """The rules that a card was computed by."""
    rules = dict(card["rules"])
    for side in ("query_modality", "gallery_modality"):
        name = rules.get(side)
        rules[side] = None if name is None else Modality[name.upper()]
    for name, value in rules.items():
        if isinstance(value, list):
            rules[name] = tuple(tuple(each) if isinstance(each, list) else each for each in value)
    return Protocol(**rules)


def collect_content(folders: Sequence[Path], *, title: str, command: str, searches: int = 6) -> ReportContent:
    """Everything that run folders hold, as a report: the last run is taken for the method, the first for its baseline.

    Args:
        folders: run folders with result cards and, for rank lists, the embeddings beside them.
        command: which makes the report again.
        searches: queries shown.
    Raises:
        DataError: a folder holds no result card, or pictures are missing.
        CheckpointError: a checkpoint or a calibration is damaged.
        ProtocolError: a calibration is of other weights than the result cards.
    """
    runs = read_runs(folders)
    results = tuple(result for run in runs for result in run.results)
    methods = [run.results[0].method for run in runs]
    names = methods if len(set(methods)) == len(runs) else [run.results[0].label for run in runs]
    tests: dict[str, Kept] = {}
    for name, run in zip(names, runs, strict=True):
        test = read_test(run.folder, run.results[0].card)
        if test is not None and all(test.asks_like(other) for other in tests.values()):
            tests[name] = test
    label, method = list(tests.items())[-1] if tests else ("", None)
    distances, maps = collect_across({label: _whole(test) for label, test in tests.items()})
    return ReportContent(
        title=title,
        command=command,
        lead=" ".join(dict.fromkeys(str(result.card["recipe"].get("about", "")) for result in results)).strip(),
        facts=_facts(results),
        results=results,
        curves={name: run.curves for name, run in zip(names, runs, strict=True) if run.curves},
        rank_lists=collect_searches(tests, count=searches) if tests else (),
        worst_queries=collect_worst_queries(label, method) if method else (),
        distances=distances,
        maps=maps,
        calibrations=_calibrations(names, runs),
        pairs=_last_pairs(runs) if tests else (),
    )


def _whole(test: Kept) -> Sides:
    """What was kept of both sides: of a drawn one also the pictures that another direction asked with."""
    if test.everything is None:
        return Sides(test.query, test.gallery, test.protocol)
    return Sides(test.everything, test.everything, test.protocol)


def find_test(place: Path) -> tuple[str, Kept]:
    """The first result of a run whose embeddings were kept.

    Args:
        place: a run folder.
    Returns:
        The result's label, and its test.
    Raises:
        DataError: the run was not evaluated, or its embeddings are gone.
    """
    (run,) = read_runs([place])
    for result in run.results:
        test = read_test(run.folder, result.card)
        if test is not None:
            return result.label, test
    raise DataError(
        f"{place}: the embeddings beside the result cards are gone; make them again with `tapetum evaluate {place}`"
    )


def collect_run_pairs(place: Path, *, count: int = 8) -> tuple[EnhancedPair, ...]:
    """Query pictures of a run beside what its method's enhancer makes of them; nothing for a method without one.

    Args:
        place: a run folder.
        count: pictures, from easily to hardly found ones.
    Raises:
        DataError: the run was not evaluated, its embeddings are gone, or a picture cannot be read.
        CheckpointError: it has no checkpoint, or a damaged one.
    """
    _, test = find_test(place)
    checkpoint = load_checkpoint(place)
    data = check_recipe(checkpoint.header.recipe, f"in {checkpoint.path}").data
    rows = choose_queries([test.evaluation], count)
    return collect_pairs(
        checkpoint.network,
        [test.query.paths[row] for row in rows],
        size=data.size,
        captions=[f"person {int(test.query.pids[row])}, camera {int(test.query.camids[row])}" for row in rows],
        interpolation=data.interpolation,
        backend=data.backend,
    )


def find_cards(place: Path) -> list[Path]:
    """The result cards of a run folder, sorted by name; a card itself stands for itself.

    Args:
        place: a run folder or a result card.
    Raises:
        DataError: there is none; the message says where it was looked for.
    """
    if place.is_file():
        return [place]
    folder = RunFolder(place).evaluation
    found = sorted(folder.glob("*.json"))
    if not found:
        what = "no such run folder or result card" if not place.exists() else f"no result card in {folder}"
        raise DataError(f"{place}: {what}; make one with `tapetum evaluate {place}`")
    return found


def find_card(place: Path) -> Path:
    """The only result card of a run folder, or the card itself.

    Args:
        place: a run folder or a result card.
    Raises:
        DataError: there is none, or there are several.
    """
    found = find_cards(place)
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DataError(f"{place}: holds {len(found)} result cards ({names}); name one, e.g. {found[0]}")
    return found[0]


def _label(card: Card, place: Path) -> str:
    return str(card.get("recipe", {}).get("name") or place.name)


def _recipe_name(place: Path) -> str:
    """The recipe's name; the folder's where the run has no recipe."""
    path = RunFolder(place).recipe
    return load_recipe(path).name if path.is_file() else place.name


def _facts(results: Sequence[Result]) -> dict[str, object]:
    """What the cards say about the pictures of each dataset."""
    facts: dict[str, object] = {}
    for result in results:
        data = result.card["data"]
        where = f"{data['name']}: " if len({str(one.card["data"]["name"]) for one in results}) > 1 else ""
        facts |= {f"{where}query pictures": data.get("query"), f"{where}gallery pictures": data.get("gallery")}
        facts |= {f"{where}fingerprint": data.get("fingerprint")}
    return {name: value for name, value in facts.items() if value is not None}


def _calibrations(names: Sequence[str], runs: Sequence[RunResults]) -> dict[str, Mapping[str, Any]]:
    """What the check of each run's calibration found, where it has one.

    Raises:
        ProtocolError: a calibration is of other weights than the run's result cards.
    """
    found = {}
    for name, run in zip(names, runs, strict=True):
        path = calibration_path(run.folder.root)
        if not (run.folder.root.is_dir() and path.is_file()):
            continue
        calibration = read_calibration(path)
        made_for = calibration.model.get("checkpoint")
        digests = {result.card["checkpoint"]["digest"] for result in run.results}
        if made_for is not None and made_for not in digests:
            raise ProtocolError(
                f"{path}: made for checkpoint {made_for}, the result cards of it for {', '.join(sorted(digests))}; "
                f"run `tapetum calibrate {run.folder.root}` again"
            )
        found[name] = calibration.checked
    return {
        f"{name}, {pair}" if len(found) > 1 else pair: values
        for name, checked in found.items()
        for pair, values in checked.items()
    }


def _last_pairs(runs: Sequence[RunResults]) -> tuple[EnhancedPair, ...]:
    """Pictures enhanced by the last method that has an enhancer and whose weights are there."""
    for run in reversed(runs):
        if run.folder.best.is_file() or run.folder.last.is_file():
            pairs = collect_run_pairs(run.folder.root)
            if pairs:
                return pairs
    return ()


def _with_unique_labels(runs: Sequence[RunResults]) -> list[RunResults]:
    """A label that several results have gives way to the names of folder and card."""
    counts = Counter(result.label for run in runs for result in run.results)

    def unique(run: RunResults, result: Result) -> Result:
        if counts[result.label] == 1:
            return result
        return replace(result, label=f"{run.folder.root.name} {result.note}")

    return [replace(run, results=tuple(unique(run, result) for result in run.results)) for run in runs]
