"""Does a calibration keep its word on people it was not fitted on?

A thousand generated people whom no method was trained on or tested with, drawn as the demos draw those they calibrate
with, are cut by lot into a half to fit on and a half to check on, several times over. "Ours" is how far the check of
the first cut is from what was promised, "peer" is how far it may be; the note has the rate itself with its interval
and in how many cuts the bound holds. The methods are those of `make demo` and `make demo-ir`, where these were run.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import build_row
from tapetum.core.errors import DataError
from tapetum.data.catalog import Dataset
from tapetum.engine.calibrate import CalibrationOptions, calibrate_embeddings, held_out_records, split_people
from tapetum.engine.describer import Describer
from tapetum.engine.sources import open_scene
from tapetum.evaluation.calibration import Calibration
from tapetum.experiments import demo, demo_infrared

PEOPLE = 1000
CUTS = 5
ERROR = 5.0  # percent that said and seen probability may differ
AWAY = 20.0  # percent of the wanted rate that the seen one may be away
SMALLEST = 0.01  # percent; nothing is exact
CACHE = Path("runs") / "bench-calibration"


def run() -> Iterator[dict[str, Any]]:
    here = {
        "demo": (demo.DemoOptions(Path("runs/demo")).others(), demo.METHODS),
        "demo-ir": (demo_infrared.InfraredDemoOptions(Path("runs/demo-ir")).others(), demo_infrared.METHODS),
    }
    runs = {
        name: {label: Path("runs") / name / recipe.removesuffix("_synth") for label, recipe in methods.items()}
        for name, (_, methods) in here.items()
        if (Path("runs") / name / "metrics.json").is_file()
    }
    if not runs:
        raise DataError("runs: holds no demo whose methods could be calibrated; type `make demo` or `make demo-ir`")
    for name, places in runs.items():
        people = open_scene({**here[name][0], "num_test_people": PEOPLE}, CACHE / name)
        for label, place in places.items():
            yield from measure(label, place, people)


def measure(label: str, place: Path, people: Dataset) -> Iterator[dict[str, Any]]:
    describer = Describer(place)
    rules = people.protocol(describer.recipe.evaluation.protocol)
    records = held_out_records(people, rules, describer.checkpoint.header.pids)
    embeddings, _ = describer.describe(records)
    found = []
    for cut in range(CUTS):
        halves = [
            embeddings.select(torch.isin(embeddings.pids, torch.tensor(pids))) for pids in split_people(records, cut)
        ]
        options = CalibrationOptions() if cut == 0 else CalibrationOptions(draws=2)  # intervals of the first alone
        calibration, _ = calibrate_embeddings(halves[0], halves[1], rules, options=options, model={}, data={}, seed=cut)
        found.append(calibration)
    for pair in found[0].checked:
        yield from judge(f"calibration: {label}, {pair}", pair, found)


def judge(title: str, pair: str, found: Sequence[Calibration]) -> Iterator[dict[str, Any]]:
    """A row for the calibration error, and one for each stated rate of false alarms."""
    checks = [each.checked[pair] for each in found if pair in each.checked]
    errors = [100 * check["calibration_error"] for check in checks]
    low, high = (100 * end for end in checks[0]["calibration_error_interval"])
    kept = sum(error <= ERROR for error in errors)
    note = (
        f"fitted on {found[0].pairs[pair].counts['people']} people, checked on {checks[0]['people']} others; "
        f"{low:.1f} to {high:.1f} %; at most {ERROR:g} % in {kept} of {len(errors)} cuts"
    )
    yield build_row(f"{title}: probability, said less seen", errors[0], ERROR, "percent", target=1, note=note)
    for row in checks[0]["thresholds"]:
        what = "comparisons" if row["gallery"] is None else f"searches in {row['gallery']}"
        same = [other for check in checks for other in check["thresholds"] if names(other) == names(row)]
        away = [100 * abs(other["observed"] / other["rate"] - 1) for other in same]
        low, high = (100 * end for end in row["observed_interval"])
        note = (
            f"seen {100 * row['observed']:.3g} % ({low:.3g} to {high:.3g}), found {100 * row['found']:.3g} %; "
            f"within {AWAY:g} % of the wanted rate in {sum(each <= AWAY for each in away)} of {len(away)} cuts"
        )
        name = f"{title}: {100 * row['rate']:g} % of {what}, seen less wanted"
        yield build_row(name, max(SMALLEST, away[0]), AWAY, "percent", target=1, note=note)


def names(row: Mapping[str, Any]) -> tuple[int | None, float]:
    return row["gallery"], row["rate"]
