from pathlib import Path

import pytest

from tapetum.core.errors import OutputError
from tapetum.runs.history import Curves, read_history, write_history


def test_rows_with_different_columns_read_back_as_written(tmp_path: Path) -> None:
    rows = [{"epoch": 1.0, "loss": 0.123456789}, {"epoch": 2.0, "loss": 1e-9, "holdout_mean_ap": 0.5}]
    write_history(tmp_path / "logs" / "metrics.csv", rows)
    assert (tmp_path / "logs" / "metrics.csv").read_text().splitlines()[:2] == [
        "epoch,loss,holdout_mean_ap",
        "1,0.123456789,",
    ]
    assert read_history(tmp_path / "logs" / "metrics.csv") == rows
    assert read_history(tmp_path / "nothing.csv") == []


def test_steps_that_are_trained_again_replace_the_curve_from_there(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first, value in ((0, 1.0), (2, 5.0)):
        curves = Curves(tmp_path, first)
        for step in range(first, 4):
            curves.add({"loss/id": value}, step)
        curves.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [event.value for event in events.Scalars("loss/id")] == [1.0, 1.0, 5.0, 5.0]


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        Curves(tmp_path / "file" / "logs", 0)
