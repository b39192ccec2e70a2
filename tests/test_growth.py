"""How cost grows: each command at a tiny size, what it keeps, and what it refuses."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.growth import __main__ as command
from benchmarks.growth import evaluation, gallery, index, page
from benchmarks.growth.subject import Knee, Needs, Panel, Row, Subject, parse_size

from tapetum.core.errors import RecipeError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "WORK", tmp_path / "work")
    monkeypatch.setattr(command, "WATCHED_SECONDS", 0.01)


def measure(words: str, out: Path) -> list[Row]:
    assert command.main([*words.split(), "--out", str(out)]) == 0
    assert out.with_suffix(".svg").read_text().count("<svg") == 1
    rows: list[Row] = json.loads(out.read_text())["rows"]
    return rows


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A subject that costs nothing; the sizes that were measured."""
    measured: list[int] = []

    def square(size: int, folder: Path) -> Row:
        assert list(folder.iterdir()) == []
        measured.append(size)
        return {"seconds": float(size * size)}

    knee = Knee("seconds", lambda slope: slope >= 1.5, "it grows with the square")
    subject = Subject(
        counted="things",
        sizes=(1, 2, 4),
        needs=lambda size: Needs(memory=0, disk=0 if size < 100 else 2**60),
        measure=square,
        panels=(Panel("Time, s", {"all": "seconds"}, knee),),
        beyond="nothing",
    )
    monkeypatch.setattr(evaluation, "build", lambda: subject)
    monkeypatch.setattr(command, "share_of_others", lambda: 0.0)
    return measured


def test_a_size_that_is_in_the_file_is_measured_again_only_on_request(asked: list[int], tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    assert [row["size"] for row in measure("evaluation --sizes 1,4", out)] == [1, 4]
    assert [row["size"] for row in measure("evaluation", out)] == [1, 2, 4]
    assert asked == [1, 4, 2]
    measure("evaluation --sizes 2 --again", out)
    assert asked == [1, 4, 2, 2]
    content = json.loads(out.read_text())
    assert content["knees"] == {}
    assert "16 at 4 things" in content["figure"]


def test_a_row_of_a_busy_machine_is_marked_and_measured_again_by_a_quiet_one(
    asked: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "rows.json"
    monkeypatch.setattr(command, "share_of_others", lambda: 0.7)
    assert measure("evaluation --sizes 1", out)[0]["others"] == 0.7
    assert "1 of 1 sizes on a busy machine" in json.loads(out.read_text())["figure"]
    measure("evaluation --sizes 1", out)
    assert asked == [1]
    monkeypatch.setattr(command, "share_of_others", lambda: 0.05)
    assert measure("evaluation --sizes 1", out)[0]["others"] == 0.05
    assert asked == [1, 1]


def test_a_size_without_room_is_left_out_and_says_why(asked: list[int], tmp_path: Path) -> None:
    rows = measure("evaluation --sizes 1,200", tmp_path / "rows.json")
    assert "GiB of disk" in rows[1]["left_out"]
    assert asked == [1]
    assert Needs(memory=2**60).refuse(tmp_path).startswith("needs 1073741824.0 GiB of memory")


def test_rows_of_another_machine_are_not_mixed_with_ours(
    asked: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.json"
    measure("evaluation --sizes 1", out)
    content = json.loads(out.read_text()) | {"machine": "a far larger one"}
    out.write_text(json.dumps(content))
    assert command.main(["evaluation", "--out", str(out)]) == 2
    assert "was measured on 'a far larger one'" in capsys.readouterr().err
    assert json.loads(out.read_text()) == content
    assert [row["size"] for row in measure("evaluation --sizes 2 --again", out)] == [2]
    out.write_text("no JSON")
    assert command.main(["evaluation", "--out", str(out)]) == 2
    assert "is no JSON of this command" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("evaluation --sizes 10q", "'10q' is no size"),
        ("gallery --sizes 0", "'0' is no size"),
        ("gallery --seconds 3", "--seconds is no option of it"),
        ("service --detector background", "--detector is no option of it"),
        ("index --seconds -1", "-1.0 is no time"),
    ],
)
def test_what_cannot_be_measured_is_said(
    words: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([*words.split(), "--out", str(tmp_path / "rows.json")]) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "rows.json").exists()


def test_sizes_are_written_as_people_write_them() -> None:
    assert [parse_size(text) for text in ("300", "10k", " 2M")] == [300, 10_000, 2_000_000]
    with pytest.raises(RecipeError, match="no size"):
        parse_size("-5")


def test_a_knee_is_the_first_size_from_which_every_step_is_steep() -> None:
    def find(*values: float) -> float | None:
        rows: list[dict[str, Any]] = [{"size": 10**power, "cost": value} for power, value in enumerate(values)]
        return Knee("cost", lambda slope: slope >= 0.8, "").find([*rows, {"size": 10**6, "left_out": "too large"}])

    def say(*values: float) -> str:
        rows: list[dict[str, Any]] = [{"size": 10**power, "cost": value} for power, value in enumerate(values)]
        return Knee("cost", lambda slope: slope >= 0.8, "").say(rows, "rows")

    assert find(1, 1.1, 10, 100) == 10
    assert say(1, 1.1, 10, 100) == "at 10 rows"
    assert find(1, 10, 100, 1000) is None  # nothing changes
    assert say(1, 10, 100, 1000) == "from the smallest size on, 1 rows"
    assert say(1, 10, 100, 110) == say(1, 10) == "not reached"
    assert find(1, 10, 11, 110) == 100  # the first steep step was none of a lasting growth
    assert find(1, 10, 100, 110) is None
    assert find(1, 10) is None


def test_answers_of_shards_are_put_together_by_similarity() -> None:
    one, other = [[(0.9, "a"), (0.2, "b")]], [[(0.8, "a")] + [(0.5, f"c{number}") for number in range(9)]]
    (best,) = gallery.merge([one, other])
    assert len(best) == 10
    assert {(0, "a"), (1, "a")} <= best
    assert (0, "b") not in best


@pytest.mark.slow
def test_evaluation_is_measured(tmp_path: Path) -> None:
    (row,) = measure("evaluation --sizes 200", tmp_path / "rows.json")
    assert row["seconds"] > 0
    assert row["peak_gib"] > row["matrix_gib"] > 0


@pytest.mark.slow
def test_a_gallery_is_measured_also_in_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "SHARD_ROWS", 1500)
    (row,) = measure("gallery --sizes 3k", tmp_path / "rows.json")
    assert row["shards"] == 2
    assert 0.9 < row["recall_at_10"] <= 1
    assert row["bytes_per_row"] > 2 * 4 * 512  # in the table and as blocks
    assert min(row[key] for panel in gallery.build().panels for key in panel.lines.values()) > 0


@pytest.mark.slow
@pytest.mark.parametrize("starter", ["torchrun, 2", "Ray, 2 nodes"])
def test_indexing_is_measured(starter: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "Ray" in starter and importlib.util.find_spec("ray") is None:
        pytest.skip("ray is not installed: pip install 'tapetum[ray]'")
    monkeypatch.setattr(index, "FILMED", 1)
    monkeypatch.setattr(index, "STARTERS", {"1 process": 1, starter: 2})
    (row,) = measure("index --sizes 2 --seconds 4", tmp_path / "rows.json")
    assert row["frames"] == 80
    assert row["rows"] > 0
    assert row[index.key_of(starter)] == pytest.approx(80 / row[index.key_of(starter, "seconds")], rel=1e-3)


@pytest.mark.slow
def test_a_service_is_measured(tmp_path: Path) -> None:
    (row,) = measure("service --sizes 2 --seconds 6", tmp_path / "rows.json")
    assert row["errors"] == 0
    assert row["answers_per_second"] > 0
    assert row["p95_seconds"] >= row["median_seconds"] > 0


@pytest.mark.parametrize(("path", "name"), [(path, name) for path, names in page.PAGES.items() for name in names])
def test_the_pages_say_what_was_measured_and_what_follows_from_it(
    path: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(__file__).parents[1]
    monkeypatch.chdir(root)
    text = (root / path).read_text(encoding="utf-8")
    block = page.write_plan() if name == "plan" else page.write_table(name)
    assert page.replace_block(text, name, block) == text, "type: python -m benchmarks.growth.page"
    assert block in text
