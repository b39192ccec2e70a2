import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tapetum.core.errors import CheckpointError, OutputError
from tapetum.methods import build_method
from tapetum.runs.checkpoint import load_checkpoint, save_checkpoint
from tapetum.runs.header import FORMAT, HEADER, Header, find_checkpoint, read_header
from tapetum.runs.run_folder import RunFolder

OPTIONS = {"backbone": "test_resnet", "width": 16}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "checkpoints" / "last.safetensors"
    save_checkpoint(
        path, build_method("ide", OPTIONS, 5), Header("ide", OPTIONS, 5, chosen_by="last epoch", pids=(3, 4, 7, 8, 9))
    )
    return path


def test_a_checkpoint_gives_the_same_network_and_header_back(saved: Path) -> None:
    torch.manual_seed(0)
    network = build_method("ide", OPTIONS, 5)
    loaded = load_checkpoint(saved, method="ide", num_ids=5)
    assert not loaded.network.training
    assert loaded.header.pids == [3, 4, 7, 8, 9]
    assert loaded.header.chosen_by == "last epoch"
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, loaded.network.state_dict()[name])


def test_weights_in_channels_last_memory_are_stored_alike(tmp_path: Path) -> None:
    network = build_method("ide", OPTIONS, 5)
    save_checkpoint(tmp_path / "a.safetensors", network, Header("ide", OPTIONS, 5))
    save_checkpoint(
        tmp_path / "b.safetensors", network.to(memory_format=torch.channels_last), Header("ide", OPTIONS, 5)
    )
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_another_method_or_class_count_than_needed_is_refused(saved: Path) -> None:
    with pytest.raises(CheckpointError, match="method is 'ide', expected 'idf'"):
        load_checkpoint(saved, method="idf")
    with pytest.raises(CheckpointError, match="trained on 5 identities, expected 300"):
        load_checkpoint(saved, num_ids=300)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_ids": 6}, r"head.classifier.weight.*\(5, 16\).*\(6, 16\)"),
        ({"method": "idf", "options": {"extractor_options": OPTIONS}}, "missing tensor"),
        ({"options": {"backbone": "test_resnet", "width": 8}}, "where the network needs"),
        ({"method": "nonsense"}, "its method cannot be built: method 'nonsense' is unknown"),
        ({"options": {"width": "wide"}}, "its method cannot be built: method.width"),
        ({"format": FORMAT + 1}, "update tapetum"),
        ({"surprise": 1}, "damaged header"),
    ],
)
def test_a_header_that_does_not_fit_the_weights_is_refused(
    saved: Path, change: dict[str, object], message: str
) -> None:
    header = {"format": FORMAT, "method": "ide", "options": OPTIONS, "num_ids": 5, **change}
    save_file(load_file(saved), saved, metadata={HEADER: json.dumps(header)})
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(saved)
    assert str(saved) in str(caught.value)


def test_files_that_are_no_checkpoint_are_refused_without_running_them(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "exploded",)  # type: ignore[return-value]

    bomb = tmp_path / "bomb.safetensors"
    bomb.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_checkpoint(bomb)
    assert not (tmp_path / "exploded").exists()
    save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(CheckpointError, match="no tapetum header"):
        read_header(tmp_path / "plain.safetensors")
    with pytest.raises(CheckpointError, match="no such file"):
        read_header(tmp_path / "nothing.safetensors")


def test_a_truncated_checkpoint_is_refused(saved: Path) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_checkpoint(saved)


def test_a_run_folder_gives_its_best_checkpoint_else_its_last(saved: Path) -> None:
    root = saved.parents[1]
    assert find_checkpoint(root) == saved
    best = RunFolder(root).best
    best.write_bytes(saved.read_bytes())
    assert find_checkpoint(root) == best
    assert find_checkpoint(saved) == saved


def test_a_place_without_checkpoint_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such run folder"):
        find_checkpoint(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="has an epoch been completed"):
        find_checkpoint(tmp_path)


def test_a_failed_write_leaves_the_old_checkpoint(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        save_checkpoint(saved, build_method("ide", OPTIONS, 5), Header("ide", OPTIONS, 5))
    assert saved.read_bytes() == before
    assert sorted(path.name for path in saved.parent.iterdir()) == [saved.name]


@pytest.mark.parametrize("place", ["method", "sampler", "augment"])
def test_opening_a_file_runs_no_code_that_lies_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "planted").mkdir()
    (tmp_path / "planted/__init__.py").write_text("raise SystemExit('planted code ran')")
    name = "planted.m"
    recipe = {"sampler": {"name": name}} if place == "sampler" else {"augment": [{"name": name}]}
    header = Header(name if place == "method" else "ide", OPTIONS, 5, recipe={} if place == "method" else recipe)
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "stranger.safetensors", build_method("ide", OPTIONS, 5), header)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(CheckpointError, match=r"names the module planted\.m, which lies in the working directory"):
        read_header(Path("stranger.safetensors"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert read_header(Path("stranger.safetensors")).num_ids == 5


def test_a_recipe_may_be_called_like_a_folder_that_lies_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "night").mkdir()
    header = Header("ide", OPTIONS, 5, recipe={"name": "night.v2"})
    save_checkpoint(tmp_path / "mine.safetensors", build_method("ide", OPTIONS, 5), header)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    assert read_header(Path("mine.safetensors")).recipe["name"] == "night.v2"
