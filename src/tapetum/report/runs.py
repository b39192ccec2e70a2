"""What lies in run folders, as the results of a report."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from tapetum.core.errors import DataError, ProtocolError, TapetumError
from tapetum.core.types import EmbeddingSet
from tapetum.evaluation.calibration import read_calibration
from tapetum.evaluation.camera_norm import normalise_cameras
from tapetum.evaluation.card import Card, read_card
from tapetum.evaluation.metrics import Sides
from tapetum.inference.embeddings import read_embeddings
from tapetum.inference.filling import drop_filling, meet
from tapetum.inference.identity import calibration_path
from tapetum.inference.kept_embeddings import FILLING
from tapetum.plots.style import Array
from tapetum.report.collect import (
    choose_queries,
    collect_across,
    collect_pairs,
    collect_searches,
    collect_worst_queries,
    read_curves,
)
from tapetum.report.content import EnhancedPair, ReportContent, Result
from tapetum.report.sides import hold_same_pictures
from tapetum.runs.checkpoint import load_checkpoint
from tapetum.runs.recipe import check_recipe, load_recipe
from tapetum.runs.run_folder import RunFolder
from tapetum.runs.sources import default_protocol


@dataclass(frozen=True)
class RunResults:
    """One run."""

    folder: RunFolder
    results: tuple[Result, ...]  # one a card, sorted by the cards' names; labels are unique among runs read together
    curves: Mapping[str, Array] = field(default_factory=dict)  # quantity -> (E,) values of the training


@dataclass(frozen=True)
class Kept(Sides):
    """Kept embeddings; where galleries are drawn, the gallery is every picture that some trial takes."""

    everything: EmbeddingSet | None = None  # every picture kept, where the protocol decides on the sides

    @property
    def whole(self) -> Sides:
        """What was kept of both sides: of a drawn one also the pictures that another direction asked with."""
        return self if self.everything is None else Sides(self.everything, self.everything, self.protocol)


def read_runs(folders: Sequence[Path]) -> list[RunResults]:
    """Result cards and training curves of run folders.

    Raises:
        DataError: a folder is missing, holds no result card, or a card is damaged.
    """
    runs = []
    for place in folders:
        folder = RunFolder(place)
        seconds = folder.read_facts().get("seconds")
        seconds = float(seconds) if isinstance(seconds, int | float) else None
        results = []
        for path in find_cards(place):
            card = read_card(path)
            name = str(card.recipe.get("name") or place.name)
            results.append(Result(name, card, seconds, note=path.stem, method=name))
        runs.append(RunResults(folder, tuple(results), read_curves(folder.metrics)))
    return _with_unique_labels(runs)


def read_training(folders: Sequence[Path]) -> dict[str, dict[str, Array]]:
    """Training curves of run folders, evaluated or not.

    Returns:
        Name of the recipe, or of the folder where that is not unique -> quantity -> (E,) values.
    Raises:
        DataError: a run has no complete epoch.
    """
    recipes = [RunFolder(place).recipe for place in folders]
    names = [
        load_recipe(path).name if path.is_file() else place.name for path, place in zip(recipes, folders, strict=True)
    ]
    curves_of = {}
    for place, name in zip(folders, names, strict=True):
        curves = read_curves(RunFolder(place).metrics)
        if not curves:
            raise DataError(
                f"{place}: no complete epoch in {RunFolder(place).metrics}; train a run with `tapetum train`"
            )
        curves_of[name if names.count(name) == 1 else str(place)] = curves
    return curves_of


def read_test(folder: RunFolder, card: Card) -> Kept | None:
    """The embeddings behind a card; None where they were not kept, stand for several pictures or rank by a calibration.

    Where galleries are drawn, they are searched as one: the numbers of the trials stand on the card.

    Raises:
        DataError: the embeddings are damaged.
        ProtocolError: they do not belong to the card.
    """
    name, ending = card.data["name"], f"{'' if card.mirror else '_no_mirror'}.safetensors"
    galleries = sorted(folder.evaluation.glob(f"{name}*_gallery{ending}"))
    pairs = [(path.with_name(path.name.replace("_gallery", "_query")), path) for path in galleries]
    pairs = [pair for pair in pairs if pair[0].is_file()]
    stores = sorted(folder.evaluation.glob(f"{name}*_test{ending}"))
    if card.data.get("multi_query") or card.calibration is not None or not (pairs or stores):
        return None
    protocol = replace(card.rules, trials=1, drawn=None)
    for pair in pairs:
        (query, query_facts), (gallery, gallery_facts) = map(read_embeddings, pair)
        if _made_for(card, "query", query_facts) and _made_for(card, "gallery", gallery_facts):
            query, gallery, filling = meet(query, gallery, query_facts.get(FILLING, 0))
            return Kept(*normalise_cameras(query, gallery, card.camera_norm), protocol, filling=filling)
    for path in stores:
        store, facts = read_embeddings(path)
        sides = facts.get("sides", {}).get(protocol.name)
        if sides and all(
            _made_for(card, side, {**facts, "pictures": each["pictures"]}) for side, each in sides.items()
        ):
            query, gallery = (store.select(torch.tensor(sides[side]["rows"])) for side in ("query", "gallery"))
            store = drop_filling(store, facts.get(FILLING, 0))
            store, _ = normalise_cameras(store, store, card.camera_norm)  # by all that is shown
            query, gallery, filling = meet(query, gallery, facts.get(FILLING, 0))
            return Kept(*normalise_cameras(query, gallery, card.camera_norm), protocol, store, filling=filling)
    raise ProtocolError(
        f"{folder.evaluation}: the embeddings are of other weights, pictures or precision than the result card of "
        f"{name}; make both again with `tapetum evaluate {folder.root}`"
    )


def _made_for(card: Card, side: str, facts: Mapping[str, Any]) -> bool:
    """Whether embeddings with these facts are those behind a card; a card that does not say decides nothing."""
    facts_of_card = {
        "checkpoint": card.checkpoint.get("digest"),
        "precision": card.checkpoint.get("precision"),
        "pictures": card.data.get("pictures", {}).get(side),
    }
    return all(value is None or facts.get(name) == value for name, value in facts_of_card.items())


def collect_content(folders: Sequence[Path], *, title: str, command: str, searches: int = 6) -> ReportContent:
    """Everything that run folders hold, as a report: the last run is taken for the method, the first for its baseline.

    Args:
        folders: with result cards and, for rank lists, the embeddings beside them.
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
    notes = []
    found_tests = [_first_test(run) for run in runs]
    for name, run, found in zip(names, runs, found_tests, strict=True):
        if found is None:
            notes.append(f"No rank lists of {name}: {_say_missing(run)}.")
            continue
        _, test = found
        first = next(iter(tests), name)  # all others are like it
        try:
            alike = not tests or (
                test.protocol == tests[first].protocol and hold_same_pictures(test.query, tests[first].query)
            )
        except DataError as error:
            notes.append(f"No rank lists of {name}: {error}.")
            continue
        if alike:
            tests[name] = test
        else:
            notes.append(f"No rank lists of {name}: its queries or its protocol are others than those of {first}.")
    label, method = list(tests.items())[-1] if tests else ("", None)
    distances, maps = collect_across({label: test.whole for label, test in tests.items()})
    return ReportContent(
        title=title,
        command=command,
        lead=" ".join(dict.fromkeys(str(result.card.recipe.get("about", "")) for result in results)).strip(),
        facts=_facts(results),
        results=results,
        curves={name: run.curves for name, run in zip(names, runs, strict=True) if run.curves},
        rank_lists=collect_searches(tests, count=searches) if tests else (),
        worst_queries=collect_worst_queries(label, method) if method else (),
        distances=distances,
        maps=maps,
        calibrations=_calibrations(names, runs),
        pairs=_last_pairs([run for run, found in zip(runs, found_tests, strict=True) if found]),
        notes=tuple(notes),
    )


def find_test(place: Path) -> tuple[Result, Kept]:
    """The usual result of a run folder, else the first, among those whose embeddings were kept, and its test.

    Usual is a result by the protocol that the recipe chooses, else by its dataset's default.

    Raises:
        DataError: the run was not evaluated, its embeddings are gone, or no card ranks single pictures by similarity.
    """
    (run,) = read_runs([place])
    found = _first_test(run)
    if found is None:
        raise DataError(f"{place}: {_say_missing(run)}")
    return found


def _first_test(run: RunResults) -> tuple[Result, Kept] | None:
    """The usual result, else the first, with a test; None where none has one."""
    results = sorted(run.results, key=lambda result: not _is_usual(result.card))
    tests = ((result, read_test(run.folder, result.card)) for result in results)
    return next(((result, test) for result, test in tests if test is not None), None)


def _is_usual(card: Card) -> bool:
    """Whether it is of the recipe's own dataset, by the protocol that an evaluation takes where none is named."""
    try:
        recipe = check_recipe(card.recipe, "in a result card")
        usual = recipe.evaluation.protocol or default_protocol(recipe.data)
    except TapetumError:  # e.g. a card of an earlier version, or a dataset that is not here
        return False
    return (card.data.get("name"), card.rules.name) == (recipe.data.name, usual)


def _say_missing(run: RunResults) -> str:
    """Why no result of a run has a test, and what to do."""
    cards = [result.card for result in run.results]
    others = {
        "ranked by a calibration": any(card.calibration is not None for card in cards),
        "of several pictures a query": any(card.data.get("multi_query") for card in cards),
    }
    remedy = f"`tapetum evaluate {run.folder.root}`"
    if any(card.calibration is None and not card.data.get("multi_query") for card in cards):
        return f"the embeddings beside the result cards are gone; make them again with {remedy}"
    what = " or ".join(name for name, some in others.items() if some)
    return (
        f"every result card is {what}, and only single pictures ranked by similarity are drawn; add that with {remedy}"
    )


def collect_run_pairs(place: Path, *, count: int = 8) -> tuple[EnhancedPair, ...]:
    """Query pictures of a run folder, easy to hard ones, beside what its method's enhancer, if any, makes of them.

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

    Raises:
        DataError: there is none; the message says where it was looked for.
    """
    if place.is_file():
        return [place]
    folder = RunFolder(place).evaluation
    cards = sorted(folder.glob("*.json"))
    if not cards:
        what = "no such run folder or result card" if not place.exists() else f"no result card in {folder}"
        raise DataError(f"{place}: {what}; make one with `tapetum evaluate {place}`")
    return cards


def find_card(place: Path) -> Path:
    """The only result card of a run folder, or the card itself.

    Raises:
        DataError: there is none, or there are several.
    """
    cards = find_cards(place)
    if len(cards) > 1:
        names = ", ".join(path.name for path in cards)
        raise DataError(f"{place}: holds {len(cards)} result cards ({names}); name one, e.g. {cards[0]}")
    return cards[0]


def _facts(results: Sequence[Result]) -> dict[str, object]:
    """What the cards say about the pictures of each dataset."""
    facts: dict[str, object] = {}
    several = len({result.card.data["name"] for result in results}) > 1
    for result in results:
        data = result.card.data
        where = f"{data['name']}: " if several else ""
        facts |= {f"{where}query pictures": data.get("query"), f"{where}gallery pictures": data.get("gallery")}
        facts |= {f"{where}fingerprint": data.get("fingerprint")}
    return {name: value for name, value in facts.items() if value is not None}


def _calibrations(names: Sequence[str], runs: Sequence[RunResults]) -> dict[str, Mapping[str, Any]]:
    """What the check of each run's calibration found, where it has one.

    Raises:
        ProtocolError: a calibration is of other weights than the run's result cards.
    """
    checks = {}
    for name, run in zip(names, runs, strict=True):
        path = calibration_path(run.folder.root)
        if not (run.folder.root.is_dir() and path.is_file()):
            continue
        calibration = read_calibration(path)
        made_for = calibration.model.get("checkpoint")
        digests = {result.card.checkpoint["digest"] for result in run.results}
        if made_for is not None and made_for not in digests:
            raise ProtocolError(
                f"{path}: made for checkpoint {made_for}, the result cards of it for {', '.join(sorted(digests))}; "
                f"run `tapetum calibrate {run.folder.root}` again"
            )
        checks[name] = calibration.checked
    return {
        f"{name}, {pair}" if len(checks) > 1 else pair: values
        for name, pairs in checks.items()
        for pair, values in pairs.items()
    }


def _last_pairs(runs: Sequence[RunResults]) -> tuple[EnhancedPair, ...]:
    """Pictures enhanced by the last method that has an enhancer and whose weights are there."""
    complete = (run.folder for run in reversed(runs) if run.folder.best.is_file() or run.folder.last.is_file())
    return next(filter(None, (collect_run_pairs(folder.root) for folder in complete)), ())


def _with_unique_labels(runs: Sequence[RunResults]) -> list[RunResults]:
    """A label that several results have gives way to the names of folder and card."""
    counts = Counter(result.label for run in runs for result in run.results)

    def unique(run: RunResults, result: Result) -> Result:
        if counts[result.label] == 1:
            return result
        return replace(result, label=f"{run.folder.root.name} {result.note}")

    return [replace(run, results=tuple(unique(run, result) for result in run.results)) for run in runs]
