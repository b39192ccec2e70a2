"""Models of the package, known by name from anywhere."""

from pathlib import Path

import pytest

from tapetum.core.errors import CheckpointError, OutputError
from tapetum.runs import packaged
from tapetum.runs.header import find_checkpoint


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package, here = tmp_path / "package", tmp_path / "here"
    package.mkdir()
    here.mkdir()
    (package / "owl.safetensors").write_bytes(b"")
    monkeypatch.setattr(packaged, "FOLDER", package)
    monkeypatch.chdir(here)
    return package


def test_a_name_stands_for_the_package_s_file_until_something_of_that_name_lies_here(folder: Path) -> None:
    owl = Path("owl")
    assert find_checkpoint(owl) == folder / "owl.safetensors"
    assert packaged.is_present(owl)
    assert packaged.name_of(owl) == "owl"
    owl.mkdir()
    assert packaged.locate(owl) == owl
    assert packaged.name_of(owl) == str(Path.cwd() / "owl")
    with pytest.raises(CheckpointError, match="owl: no checkpoint at"):
        find_checkpoint(owl)


@pytest.mark.parametrize("place", ["hawk", "./../package/owl", "runs/owl", "owl.safetensors", "", ".", "/owl"])
def test_nothing_else_is_taken_for_a_packaged_model(folder: Path, place: str) -> None:
    assert packaged.locate(Path(place)) == Path(place)
    assert not packaged.is_packaged(Path(place))


def test_nothing_is_written_into_the_package(folder: Path) -> None:
    with pytest.raises(OutputError, match="owl: comes with the package, into which nothing is written; use --out"):
        packaged.refuse_packaged(Path("owl"), "use --out")
    packaged.refuse_packaged(Path("hawk"), "use --out")
