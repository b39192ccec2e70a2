import pickle

import pytest
from rich.console import Console

from tapetum.runs.progress import ProgressBar, Silence, showing_pictures


def play(reporter: ProgressBar | Silence) -> None:
    reporter.start(title="idf_demo", epochs=2, steps=3, done=1)
    for step in range(1, 6):
        reporter.step(epoch=1 + step // 3, loss=1.5, images_per_second=40.0)
        if step == 2:
            reporter.epoch({"epoch": 1.0, "loss": 1.25, "images_per_second": 40.0, "holdout_mean_ap": 0.5})
    reporter.stop()


def test_without_a_terminal_there_is_one_line_an_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    play(ProgressBar())
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("idf_demo epoch 1/2  loss 1.250  held-out mAP 0.500  40 images/s  0:00:0")


def test_on_a_terminal_there_is_a_bar_with_speed_loss_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tapetum.runs.progress.Console", lambda **settings: Console(**settings, force_terminal=True, width=120)
    )
    play(ProgressBar())
    shown = capsys.readouterr().err
    assert "epoch 2/2  loss 1.500  40 images/s" in shown
    assert "left" in shown
    with showing_pictures("evaluating") as progress:
        progress(3, 10)


def test_silence_says_nothing_and_a_bar_survives_the_way_into_another_process(
    capsys: pytest.CaptureFixture[str],
) -> None:
    play(Silence())
    with showing_pictures("evaluating", quiet=True) as progress:
        progress(3, 10)
    pickle.loads(pickle.dumps(ProgressBar())).stop()
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_there_is_a_line_now_and_then_with_speed_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("tapetum.runs.progress.time.monotonic", lambda: clock[0])
    with showing_pictures("indexing", unit="frames") as progress:
        for done in (0, 40, 80, 120, 160, 200):  # four seconds each
            progress(done, 1000)
            clock[0] += 4
        progress(0, 0)  # other work, of which nothing is known
        clock[0] += 10
        progress(30, 0)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["indexing  120/1000 frames  10/s  0:01:28 left", "indexing  0 frames", "indexing  30 frames  3/s"]
