import filecmp
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tapetum.core.errors import DataError, OutputError
from tapetum.core.locks import locked
from tapetum.data import darken as module
from tapetum.data.catalog import open_dataset
from tapetum.data.darken import darken_dataset
from tapetum.data.datasets import night600
from tapetum.data.image_io import read_picture, write_picture
from tapetum.data.rewrite import RewriteResult
from tapetum.synth.sensor import gamma_darken

MARKER = "darken.json"


@pytest.fixture
def day(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    root = tmp_path / "day"
    night600.write_miniature(root, rng)
    for path in root.rglob("*.jpg"):
        if "_test" in str(path) or "train" in str(path):
            write_picture(path, rng.integers(90, 230, (64, 32, 3), dtype=np.uint8))
    for path in (root / "query_3").iterdir():
        shutil.copy(root / "bounding_box_test" / path.name, path)
    (root / "readme.txt").write_text("a word")
    (root / ".hidden").write_text("not mine")
    return root


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and path.name != ".lock")


@pytest.mark.parametrize("model", ["sensor", "gamma"])
def test_tree_and_names_stay_and_pictures_become_dark(day: Path, tmp_path: Path, model: str) -> None:
    night = tmp_path / "night"
    result = darken_dataset(day, night, model=model)  # type: ignore[arg-type]
    assert result == RewriteResult(written=37, existing=0, copied=1, skipped=())
    assert files(night) == sorted([*(name for name in files(day) if name != ".hidden"), MARKER])
    assert (night / "readme.txt").read_text() == "a word"
    for before, after in zip(
        open_dataset("night600", day).records, open_dataset("night600", night).records, strict=True
    ):
        assert (before.pid, before.camid, before.split) == (after.pid, after.camid, after.split)
        bright, dark = read_picture(before.path), read_picture(after.path)
        assert bright.shape == dark.shape
        assert dark.mean() < 0.6 * bright.mean()


def test_gamma_is_the_plain_power(day: Path, tmp_path: Path) -> None:
    picture = np.random.default_rng(1).integers(0, 255, (20, 10, 3), dtype=np.uint8)
    write_picture(day / "bounding_box_train" / "0000_c1_000050.png", picture)
    darken_dataset(day, tmp_path / "night", model="gamma", gamma=2.0)
    dark = read_picture(tmp_path / "night" / "bounding_box_train" / "0000_c1_000050.png")
    assert np.array_equal(dark, gamma_darken(picture, 2.0))
    assert np.array_equal(dark, np.rint(255 * (picture / 255.0) ** 2).astype(np.uint8))


def test_bytes_depend_on_the_seed_alone_and_not_on_workers_or_order(day: Path, tmp_path: Path) -> None:
    darken_dataset(day, tmp_path / "one", num_workers=0)
    darken_dataset(day, tmp_path / "three", num_workers=3)
    darken_dataset(day, tmp_path / "other", seed=1)
    names = [name for name in files(day) if name.endswith(".jpg")]
    assert filecmp.cmpfiles(tmp_path / "one", tmp_path / "three", names, shallow=False)[0] == names
    assert filecmp.cmpfiles(tmp_path / "one", tmp_path / "other", names, shallow=False)[1] == names


def test_copies_of_a_picture_stay_copies(day: Path, tmp_path: Path) -> None:
    darken_dataset(day, tmp_path / "night")
    for path in (tmp_path / "night" / "query_3").iterdir():
        assert path.read_bytes() == (tmp_path / "night" / "bounding_box_test" / path.name).read_bytes()


def test_interrupted_run_leaves_only_whole_pictures_and_goes_on(
    day: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    darken_dataset(day, whole)
    night, calls = tmp_path / "night", 0
    original = module.darken_picture

    def interrupted(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 10:
            raise KeyboardInterrupt
        return original(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(module, "darken_picture", interrupted)
        with pytest.raises(KeyboardInterrupt):
            darken_dataset(day, night, num_workers=0)
    begun = [name for name in files(night) if name.endswith(".jpg")]
    assert len(begun) == 9
    assert json.loads((night / MARKER).read_text())["complete"] is False
    assert filecmp.cmpfiles(night, whole, begun, shallow=False)[0] == begun
    result = darken_dataset(day, night)
    assert (result.written, result.existing) == (28, 9)
    assert files(night) == files(whole)
    assert not filecmp.cmpfiles(night, whole, files(whole), shallow=False)[1]
    assert json.loads((night / MARKER).read_text())["complete"] is True


def test_other_settings_or_other_content_in_the_goal_are_refused(day: Path, tmp_path: Path) -> None:
    darken_dataset(day, tmp_path / "night")
    with pytest.raises(OutputError, match="begun with other settings"):
        darken_dataset(day, tmp_path / "night", seed=1)
    with pytest.raises(OutputError, match="begun with other settings"):
        darken_dataset(day, tmp_path / "night", model="gamma")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    with pytest.raises(OutputError, match="is not empty and was not begun by darken"):
        darken_dataset(day, tmp_path / "full")
    for inside in (day, day / "night"):
        with pytest.raises(OutputError, match="lies inside"):
            darken_dataset(day, inside)
    assert (tmp_path / "full" / "thesis.tex").read_text() == "x"


def test_other_pictures_of_the_same_names_are_refused_but_a_moved_source_is_not(day: Path, tmp_path: Path) -> None:
    night = tmp_path / "night"
    darken_dataset(day, night)
    moved = day.rename(tmp_path / "moved")
    assert darken_dataset(moved, night).existing == 37
    with next(moved.rglob("*.jpg")).open("ab") as file:
        file.write(b"more")
    with pytest.raises(OutputError, match="was begun from other pictures"):
        darken_dataset(moved, night)
    (night / MARKER).write_text("{")
    with pytest.raises(OutputError, match="begun with other settings"):
        darken_dataset(moved, night)


def test_two_runs_do_not_write_into_one_folder(day: Path, tmp_path: Path) -> None:
    night = tmp_path / "night"
    night.mkdir()
    with locked(night / ".lock", "held"), pytest.raises(OutputError, match="is in use by another run"):
        darken_dataset(day, night)
    assert not files(night)


def test_missing_or_pictureless_source_is_refused_and_nothing_is_made(day: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, message in ((tmp_path / "gone", "does not exist"), (tmp_path / "empty", "no picture in")):
        with pytest.raises(DataError, match=message):
            darken_dataset(source, tmp_path / "night")
    assert not (tmp_path / "night").exists()


def test_damaged_picture_is_named_or_skipped_and_counted(day: Path, tmp_path: Path) -> None:
    damaged = day / "bounding_box_train" / "0000_c1_000000.jpg"
    damaged.write_bytes(damaged.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"0000_c1_000000\.jpg: the picture is damaged"):
        darken_dataset(day, tmp_path / "strict")
    seen: list[tuple[int, int]] = []
    result = darken_dataset(day, tmp_path / "lenient", skip_corrupt=True, progress=lambda *state: seen.append(state))
    assert result.written == 36
    assert len(result.skipped) == 1
    assert "0000_c1_000000.jpg" in result.skipped[0]
    assert seen[-1] == (38, 38)
