"""Exported models by way of a hub; a folder stands in for it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

import tapetum
from tapetum.core.errors import CheckpointError, OutputError
from tapetum.inference import hub
from tapetum.inference.hub import fetch_from_hub, push_to_hub
from tapetum.inference.sessions import open_model
from tapetum.runs import packaged

Make = Callable[..., Path]


@dataclass
class FolderHub:
    """What of the hub's client is used, over a folder for each repository."""

    root: Path
    cache: Path

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        assert exist_ok
        (self.root / repo_id).mkdir(parents=True, exist_ok=True)
        (self.root / repo_id / ".private").write_text(str(private))

    def upload_folder(self, *, repo_id: str, folder_path: Path, allow_patterns: list[str], commit_message: str) -> str:
        assert {path.name for path in Path(folder_path).iterdir()} == set(allow_patterns)
        for name in allow_patterns:
            shutil.copy(Path(folder_path) / name, self.root / repo_id / name)
        return f"https://hub.example/{repo_id}"

    def _repository(self, repo_id: str) -> Path:
        if not (self.root / repo_id).is_dir():
            raise OSError(f"404 Client Error. {repo_id} is not there\nand a second line")
        return self.root / repo_id

    def hf_hub_download(self, repo_id: str, filename: str, *, revision: str | None) -> str:
        self.cache.mkdir(exist_ok=True)
        return str(shutil.copy(self._repository(repo_id) / filename, self.cache / filename))

    def get_paths_info(self, repo_id: str, paths: list[str], *, revision: str | None) -> list[SimpleNamespace]:
        return [SimpleNamespace(size=(self._repository(repo_id) / path).stat().st_size) for path in paths]

    def snapshot_download(self, repo_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        for name in allow_patterns:
            shutil.copy(self._repository(repo_id) / name, self.cache / name)
        return str(self.cache)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderHub:
    made = FolderHub(tmp_path / "hub", tmp_path / "cache")
    monkeypatch.setattr(hub, "_connect", lambda: made)
    return made


@pytest.fixture
def exported(make_artefact: Make, tmp_path: Path) -> Path:
    return Path(shutil.copytree(make_artefact("ide", "onnx"), tmp_path / "exported"))


def test_a_model_goes_there_and_comes_back_with_its_vectors(place: FolderHub, exported: Path) -> None:
    address = tapetum.push_to_hub(exported, "lab/night", licence="apache-2.0", about="Trained on *generated* people.")
    assert address == "https://hub.example/lab/night"
    assert (place.root / "lab/night/.private").read_text() == "True"
    model, own = tapetum.from_hub("lab/night", precision="fp32"), open_model(exported, precision="fp32")
    pictures = np.random.default_rng(0).integers(0, 255, (2, *own.settings.size, 3)).astype(np.uint8)
    first, second = (torch.as_tensor(each.describe(pictures, 0)) for each in (own, model))
    assert torch.equal(first, second)
    card = (place.root / "lab/night/README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert (head["library_name"], head["license"]) == ("tapetum", "apache-2.0")
    assert f"`{own.id}`" in card
    assert "Trained on *generated* people." in card
    assert 'tapetum.from_hub("lab/night")' in card


def test_a_card_guesses_neither_licence_nor_figures(place: FolderHub, exported: Path) -> None:
    push_to_hub(exported, "lab/night")
    card = (place.root / "lab/night/README.md").read_text()
    assert "license" not in yaml.safe_load(card.split("---")[1])
    assert "Its maker says nothing of what it was trained and measured on." in card
    assert "nothing: a search gives similarities and no probability" in card


def test_the_package_s_model_goes_by_its_name_with_its_card_and_comes_back_with_its_vectors(
    place: FolderHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tapetum.push_to_hub("tapetum-lite0", "lab/lite0", about="Sent by the lab.")
    assert not (tmp_path / "tapetum-lite0").exists()
    model, own = tapetum.from_hub("lab/lite0", precision="fp32"), open_model(Path("tapetum-lite0"), precision="fp32")
    pictures = np.random.default_rng(0).integers(0, 255, (2, *own.settings.size, 3)).astype(np.uint8)
    first, second = (torch.as_tensor(each.describe(pictures, 0)) for each in (own, model))
    assert (model.id, model.calibration) == (own.id, own.calibration)
    torch.testing.assert_close(first, second, atol=2e-5, rtol=0)
    card = (place.root / "lab/lite0/README.md").read_text(encoding="utf-8")
    assert yaml.safe_load(card.split("---")[1])["license"] == "apache-2.0"
    own_card = (packaged.FOLDER / "tapetum-lite0.md").read_text(encoding="utf-8")
    assert own_card.removeprefix("# tapetum-lite0\n").strip() in card
    assert "What it must not be used for" in card
    assert "Sent by the lab." in card
    assert "ImageNet's pictures are for non-commercial research" in card


@pytest.mark.parametrize("refused", [False, True])
def test_the_folder_s_own_readme_stays_as_it_is(
    refused: bool, place: FolderHub, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (exported / "README.md").write_text("our notes")
    before = {path.name: path.stat().st_mtime_ns for path in exported.iterdir()}
    if refused:
        monkeypatch.setattr(place, "create_repo", lambda *_, **__: (_ for _ in ()).throw(OSError("403 Forbidden")))
        with pytest.raises(OutputError, match="403 Forbidden"):
            push_to_hub(exported, "lab/night")
    else:
        push_to_hub(exported, "lab/night")
        assert (place.root / "lab/night/README.md").read_text().startswith("---\nlibrary_name: tapetum")
    assert {path.name: path.stat().st_mtime_ns for path in exported.iterdir()} == before
    assert (exported / "README.md").read_text() == "our notes"


def test_only_an_exported_model_is_sent(place: FolderHub, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is no exported model; make one with: tapetum export RUN"):
        push_to_hub(tmp_path, "lab/night")
    assert not place.root.exists()


def test_what_the_hub_refuses_is_one_line(place: FolderHub, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "upload_folder", lambda **_: (_ for _ in ()).throw(OSError("403 Forbidden\nmore")))
    with pytest.raises(
        OutputError, match=r"^lab/night: cannot be sent to the hub \(403 Forbidden\); see `hf auth login`$"
    ):
        push_to_hub(exported, "lab/night")
    with pytest.raises(
        CheckpointError,
        match=r"lab/other: no model can be fetched .*\(404 Client Error. lab/other is not.*; compare the name",
    ):
        fetch_from_hub("lab/other")


def test_a_damaged_a_too_large_and_a_strange_repository_are_refused(
    place: FolderHub, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_to_hub(exported, "lab/night")
    monkeypatch.setattr(hub, "LARGEST", 10)
    with pytest.raises(CheckpointError, match=r"lab/night: its model has \d+ bytes, at most 10 are fetched"):
        fetch_from_hub("lab/night")
    monkeypatch.undo()
    monkeypatch.setattr(hub, "_connect", lambda: place)
    with (place.root / "lab/night/network.onnx").open("ab") as file:
        file.write(b"more")
    with pytest.raises(CheckpointError, match="is not the file that was exported"):
        fetch_from_hub("lab/night")
    path = place.root / "lab/night/artefact.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"files": {"../../x": "0", **content["files"]}}))
    with pytest.raises(CheckpointError, match="damaged"):
        fetch_from_hub("lab/night")


def test_without_a_network_the_hub_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="lab/night: no model can be fetched from the hub") as caught:
        fetch_from_hub("lab/night")
    assert "\n" not in str(caught.value)
    assert str(caught.value).index("check the connection") > 0
    assert "compare the name" not in str(caught.value)
    assert issubclass(RepositoryNotFoundError, OSError)  # so that one of a newer client is caught too


@pytest.mark.parametrize("error", [LocalEntryNotFoundError("no way there"), ConnectionError("no way there")])
def test_where_the_hub_does_not_answer_the_connection_is_named_and_not_the_name(
    error: OSError, place: FolderHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "hf_hub_download", lambda *_, **__: (_ for _ in ()).throw(error))
    with pytest.raises(CheckpointError, match=r"\(no way there\); the hub cannot be reached: check the connection, or"):
        fetch_from_hub("lab/night")


@pytest.mark.parametrize("name", ["./exported", "/exports/night", "~/night", "exports/night"])
def test_a_path_is_told_to_be_one(name: str, place: FolderHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "exports" / "night").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"; for a model on this machine use tapetum\.load_model$"):
        tapetum.from_hub(name)
