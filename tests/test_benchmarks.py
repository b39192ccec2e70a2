"""Benchmarks for other machines: the same scripts, small, so that they start when such a machine is there."""

import json
from pathlib import Path

import pytest
from benchmarks import device


@pytest.mark.slow
def test_what_is_run_on_a_gpu_runs_on_a_cpu_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "CACHE", tmp_path / "data")
    device.main(["--small", "--steps", "2", "--out", str(tmp_path / "device.json")])
    content = json.loads((tmp_path / "device.json").read_text())
    assert content["small"] is True
    assert list(content["rows"]) == ["IDF", "DEEN", "TransReID"]
    for by_precision in content["rows"].values():
        assert "bf16" in by_precision
        for row in by_precision.values():
            assert row["training_pictures_per_second"] > 0
            assert row["extraction_pictures_per_second"] > 0
            assert row["loading_share"] > 0
            assert row["evaluation_seconds"] > 0
            assert row["peak_bytes"] is None or row["peak_bytes"] > 2**20
