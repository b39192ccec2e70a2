"""A demo's models calibrated: each is fitted and checked on people that nobody trained or tested with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tapetum.core.errors import ProtocolError
from tapetum.data.catalog import Dataset
from tapetum.experiments.board import Board
from tapetum.inference.calibrate import Calibrated, calibrate_run

OTHERS = 7  # for each person to test with; docs/calibration.md says how many people a rate needs
Outcome = Calibrated | str  # or why there is none: after too short a training a similarity says nothing


def other_settings(scene: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the people to calibrate with: nobody of the scene, once under each of its cameras."""
    return {
        **scene,
        "num_train_people": 0,
        "num_test_people": OTHERS * scene["num_test_people"],
        "first_pid": scene["num_train_people"] + scene["num_test_people"] + 1,
        "pictures_per_camera": 1,
        "queries_per_camera": 1,
    }


def calibrate_methods(runs: Mapping[str, Path], others: Dataset, board: Board) -> dict[str, Outcome]:
    """A demo's stages "calibrate ...", one a method; a calibration lies in the run's folder.

    Args:
        others: people that no method was trained on or tested with.
    """
    found: dict[str, Outcome] = {}
    for label, place in runs.items():
        board.begin(f"calibrate {label}")
        try:
            found[label] = calibrate_run(place, dataset=others, progress=board.pictures)
        except ProtocolError as error:
            found[label] = str(error)
        board.finish_stage()
    return found


def summarise_calibrations(outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """What each calibration was worth on people it was not fitted on, as plain values."""
    return {
        label: {"reason": outcome} if isinstance(outcome, str) else _numbers(outcome)
        for label, outcome in outcomes.items()
    }


def _numbers(outcome: Calibrated) -> dict[str, Any]:
    calibration = outcome.calibration
    return {
        "prior": calibration.prior,
        "seed": calibration.seed,
        "pairs": {
            pair: {
                "fitted_people": calibration.pairs[pair].counts["people"],
                **{name: checked[name] for name in ("people", "calibration_error", "thresholds")},
            }
            for pair, checked in calibration.checked.items()
        },
        "left_out": dict(outcome.skipped),
    }


def label_checks(outcomes: Mapping[str, Outcome]) -> dict[str, Mapping[str, Any]]:
    """What the check of each calibration found, as a report shows it."""
    return {
        f"{label}, {pair}": checked
        for label, outcome in outcomes.items()
        if not isinstance(outcome, str)
        for pair, checked in outcome.calibration.checked.items()
    }


def note_missing(outcomes: Mapping[str, Outcome]) -> tuple[str, ...]:
    """A sentence for everything that could not be calibrated."""
    return tuple(
        f"{label} is not calibrated for {reason}."
        for label, outcome in outcomes.items()
        for reason in ([outcome] if isinstance(outcome, str) else outcome.skipped.values())
    )
