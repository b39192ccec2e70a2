from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tapetum.core.errors import DataError
from tapetum.core.types import Modality, Record
from tapetum.data.catalog import open_dataset
from tapetum.inference.embedder import Embedder
from tapetum.inference.sessions import open_model

Make = Callable[..., Path]


@pytest.fixture
def records(people: Path) -> list[Record]:
    shown = open_dataset("night600", people).split("gallery")
    shown = [*shown, *shown[:5]]
    return [Record(r.path, r.pid, r.camid, Modality(row % 2)) for row, r in enumerate(shown)]


def test_files_become_the_vectors_that_the_engine_gives(records: list[Record], make_run: Make) -> None:
    model = open_model(make_run("two_stream"), precision="fp32", device="cpu")
    seen: list[tuple[int, int]] = []
    found, skipped = model.describe_records(records, progress=lambda done, total: seen.append((done, total)))
    expected, _ = Embedder(make_run("two_stream"), precision="fp32").describe(records)
    torch.testing.assert_close(found.vectors, expected.vectors, rtol=1e-4, atol=1e-5)
    assert found.paths == expected.paths
    for name in ("pids", "camids", "modalities"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    assert (seen, skipped) == ([(32, 37), (37, 37)], [])


def test_an_exported_model_reads_the_same_files_to_the_same_vectors(
    records: list[Record], make_run: Make, make_artefact: Make
) -> None:
    run = open_model(make_run("agw_vi"), precision="fp32", device="cpu")
    exported = open_model(make_artefact("agw_vi", "onnx"), device="cpu")
    ours, theirs = (model.describe_records(records, num_workers=0)[0] for model in (run, exported))
    torch.testing.assert_close(ours.vectors, theirs.vectors, rtol=1e-4, atol=1e-5)


def test_damaged_files_stop_or_are_named_and_left_out(records: list[Record], make_run: Make, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(records[0].path.read_bytes()[:60])
    with_broken = [*records[:2], Record(tmp_path / "broken.png", 1, 1), *records[2:4]]
    model = open_model(make_run("ide"), precision="fp32", device="cpu")
    with pytest.raises(DataError, match=r"broken.png"):
        model.describe_records(with_broken)
    found, skipped = model.describe_records(with_broken, skip_corrupt=True)
    assert len(found) == 4
    assert len(skipped) == 1
