from pathlib import Path

from tapetum.evaluation.calibration import Calibration, PairCalibration
from tapetum.evaluation.thresholds import Tail
from tapetum.experiments.calibrated import (
    Outcome,
    label_checks,
    note_missing,
    other_settings,
    summarise_calibrations,
)
from tapetum.experiments.demo import DemoOptions
from tapetum.experiments.demo_infrared import InfraredDemoOptions
from tapetum.inference.calibrate import Calibrated

TAIL = Tail((0.1, 1.0), (0.6, -1.0))
FITTED = PairCalibration((0.0, 1.0), (0.1, 0.9), TAIL, {10: TAIL}, {"people": 40})
CHECKED = {"people": 41, "calibration_error": 0.02, "thresholds": [], "same": 7}
OUTCOMES: dict[str, Outcome] = {
    "IDE+": "visible-visible: a similarity says nothing; train the model first",
    "IDF": Calibrated(
        Calibration({}, {}, "p", 3, 0.5, "isotonic", (0.1,), {"visible-visible": FITTED}, {"visible-visible": CHECKED}),
        Path("calibration.json"),
        {"visible-infrared": "visible-infrared: too few people"},
    ),
}


def test_the_people_to_calibrate_with_are_others_under_the_same_cameras(tmp_path: Path) -> None:
    for options, expected in (
        (DemoOptions(tmp_path, seed=5, people=30), (0, 210, 61)),
        (InfraredDemoOptions(tmp_path, seed=5, people=120), (0, 210, 151)),
    ):
        scene, others = options.scene(), options.others()
        assert others == other_settings(scene)
        assert (others["num_train_people"], others["num_test_people"], others["first_pid"]) == expected
        same = [name for name in scene if not name.endswith(("people", "per_camera"))]
        assert {name: others[name] for name in same} == {name: scene[name] for name in same}
        assert {"camera_seed", "identity_seed"} <= set(same)


def test_what_could_be_calibrated_is_told_with_its_people_and_what_could_not_with_the_reason() -> None:
    assert summarise_calibrations(OUTCOMES) == {
        "IDE+": {"reason": OUTCOMES["IDE+"]},
        "IDF": {
            "prior": 0.5,
            "seed": 3,
            "pairs": {
                "visible-visible": {
                    "fitted_people": 40,
                    **{name: CHECKED[name] for name in ("people", "calibration_error", "thresholds")},
                }
            },
            "left_out": {"visible-infrared": "visible-infrared: too few people"},
        },
    }
    assert label_checks(OUTCOMES) == {"IDF, visible-visible": CHECKED}
    assert note_missing(OUTCOMES) == (
        "IDE+ is not calibrated for visible-visible: a similarity says nothing; train the model first.",
        "IDF is not calibrated for visible-infrared: too few people.",
    )
