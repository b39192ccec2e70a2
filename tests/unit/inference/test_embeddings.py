from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tapetum.core.errors import DataError, OutputError
from tapetum.core.types import EmbeddingSet, Record
from tapetum.data.catalog import open_dataset
from tapetum.data.loader import EvalLoader
from tapetum.data.pictures import PictureOptions
from tapetum.inference.embeddings import extract, read_embeddings, save_embeddings
from tapetum.methods import build_method

PICTURES = PictureOptions((32, 16), num_workers=0)


@pytest.fixture
def records(people: Path) -> list[Record]:
    return open_dataset("night600", people).split("gallery")


def build_network() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_method("ide", {"backbone": "test_resnet", "width": 16}, 5)


def extract_all(records: list[Record], *, batch_size: int = 8, **settings: object) -> EmbeddingSet:
    loader = EvalLoader(records, PICTURES, batch_size=batch_size)
    return extract(build_network(), loader, **settings)  # type: ignore[arg-type]


def test_rows_stand_in_the_order_of_the_records_with_unit_norm(records: list[Record], one_thread: None) -> None:
    found = extract_all(records)
    assert found.paths == tuple(record.path for record in records)
    assert found.pids.tolist() == [record.pid for record in records]
    assert found.camids.tolist() == [record.camid for record in records]
    assert found.vectors.dtype == torch.float32
    torch.testing.assert_close(found.vectors.norm(dim=1), torch.ones(len(records)))


def test_the_batch_size_changes_nothing(records: list[Record], one_thread: None) -> None:
    whole, parts = extract_all(records, batch_size=32), extract_all(records, batch_size=5)
    torch.testing.assert_close(whole.vectors, parts.vectors, rtol=1e-5, atol=1e-6)


def test_the_mirror_and_the_precision_are_used(records: list[Record], one_thread: None) -> None:
    plain = extract_all(records, mirror=False)
    assert not torch.allclose(plain.vectors, extract_all(records, mirror=True).vectors, atol=1e-4)
    rounded = extract_all(records, mirror=False, precision="bf16")
    assert rounded.vectors.dtype == torch.float32
    assert 1e-6 < (rounded.vectors - plain.vectors).abs().max() < 0.1


def test_a_network_in_training_is_left_in_training(records: list[Record], one_thread: None) -> None:
    network = build_network().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    extract(network, EvalLoader(records, PICTURES))
    assert network.training
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in before.items())


def test_progress_counts_pictures(records: list[Record], one_thread: None) -> None:
    seen: list[tuple[int, int]] = []
    extract_all(records[:10], batch_size=4, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 10), (8, 10), (10, 10)]


@pytest.fixture
def embeddings() -> EmbeddingSet:
    count = 3
    return EmbeddingSet(
        vectors=torch.eye(count),
        paths=(Path("a b.jpg"), Path("ü.jpg"), Path("c/d.jpg")),
        pids=torch.tensor([3, -1, 7]),
        camids=torch.tensor([1, 2, 3]),
        modalities=torch.zeros(count, dtype=torch.int64),
    )


def test_embeddings_read_back_as_written(embeddings: EmbeddingSet, tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "e.safetensors"
    save_embeddings(path, embeddings, {"mirror": True, "size": [256, 128]})
    found, facts = read_embeddings(path)
    assert facts == {"mirror": True, "size": [256, 128]}
    assert found.paths == embeddings.paths
    for name in ("vectors", "pids", "camids", "modalities"):
        assert torch.equal(getattr(found, name), getattr(embeddings, name))


def test_files_that_are_no_embeddings_are_refused(embeddings: EmbeddingSet, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file; make one with `tapetum extract`"):
        read_embeddings(tmp_path / "nothing")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(DataError, match="cannot be read as embeddings"):
        read_embeddings(tmp_path / "text")
    save_file({"a": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(DataError, match="holds no embeddings"):
        read_embeddings(tmp_path / "other")
    save_embeddings(tmp_path / "short", replace(embeddings, paths=embeddings.paths[:2]), {})
    with pytest.raises(DataError, match="damaged"):
        read_embeddings(tmp_path / "short")


def test_embeddings_that_cannot_be_written_leave_nothing(embeddings: EmbeddingSet, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        save_embeddings(tmp_path / "file" / "e.safetensors", embeddings, {})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
