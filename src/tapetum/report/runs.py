"""What lies in run folders, as the results of a report."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tapetum.core.errors import DataError
from tapetum.engine.run_folder import RunFolder
from tapetum.evaluation.card import Card, read_card
from tapetum.report.collect import read_curves
from tapetum.report.content import Array, Result


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
            )
            for path in find_cards(place)
            for card in (read_card(path),)
        )
        runs.append(RunResults(folder, results, read_curves(folder.metrics)))
    return _with_unique_labels(runs)


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


def _with_unique_labels(runs: Sequence[RunResults]) -> list[RunResults]:
    """A label that several results have gives way to the names of folder and card."""
    counts = Counter(result.label for run in runs for result in run.results)

    def unique(run: RunResults, result: Result) -> Result:
        if counts[result.label] == 1:
            return result
        return replace(result, label=f"{run.folder.root.name} {result.note}")

    return [replace(run, results=tuple(unique(run, result) for result in run.results)) for run in runs]
