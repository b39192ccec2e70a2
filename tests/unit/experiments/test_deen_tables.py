"""The tables of DEEN's poster by their command, every row of them, on scenes with two modalities."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tapetum.cli.main import app
from tapetum.experiments.paper_tables import rows_of

SCENE = ("num_train_people=8", "num_test_people=4", "pictures_per_camera=2", "size=[64, 32]")
SHORT = ("epochs=1", "warmup_epochs=0")
BATCH = ("steps=1", "ids=4", "pictures=2")
SETTINGS = [
    "data.size=[64, 32]",
    *(f"{section}.{part}" for section, parts in (("data.scene", SCENE), ("schedule", SHORT), ("sampler", BATCH))
      for part in parts),
]  # fmt: skip


@pytest.fixture
def written(table: str, small_networks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where `tapetum reproduce` has made a table of tiny trainings."""
    monkeypatch.chdir(tmp_path)  # where the scenes are kept
    options = [word for setting in SETTINGS for word in ("--set", setting)]
    done = CliRunner().invoke(app, ["reproduce", table, "--data", "synth", "--out", "out", "--quiet", *options])
    assert done.exit_code == 0, done.exception
    assert f"out{os.sep}{table}.md and .json: written" in done.output
    return tmp_path / "out"


@pytest.mark.slow
@pytest.mark.parametrize("table", ["deen-table2", "deen-table3", "deen-table4"])
def test_every_method_of_the_poster_is_trained_once_and_tested_in_each_way(table: str, written: Path) -> None:
    rows = rows_of(table, scene=True)
    shown = json.loads((written / f"{table}.json").read_text(encoding="utf-8"))["rows"]
    assert [row["label"] for row in shown] == [row.label for row in rows]
    tests: dict[str, list[str]] = {}
    for row, entry in zip(rows, shown, strict=True):
        if row.recipe is None:
            assert "ours_percent" not in entry
            continue
        assert all(0 <= each["mean"] <= 100 for each in entry["ours_percent"].values())
        tests.setdefault(row.run, []).append(entry["protocol"])
    assert {path.parent.name.rpartition("_seed")[0] for path in written.glob("*/recipe.yaml")} == set(tests)
    for protocols in tests.values():
        assert len(set(protocols)) == len(protocols)
    text = (written / f"{table}.md").read_text(encoding="utf-8")
    if table == "deen-table2":
        assert "| SYSU-MM01 all-search: MAUM | not run |" in text
        assert set(shown[0]["ours_percent"]) == {"rank1", "rank10", "rank20", "mean_ap"}
    if table == "deen-table4":
        assert "Paper: LLCM, infrared queries" in text
        assert shown[-1]["paper_percent"] == {"rank1": 54.9, "rank5": None, "rank10": None, "mean_ap": 62.9}
