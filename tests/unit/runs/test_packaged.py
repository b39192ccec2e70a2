"""Models of the package, known by name from anywhere."""

from pathlib import Path

import pytest

from tapetum.core.errors import CheckpointError, OutputError
from tapetum.runs import packaged
from tapetum.runs.header import find_checkpoint


def test_the_packaged_model_opens_by_its_name_small_calibrated_for_every_pair_and_with_its_card() -> None:
    from tapetum.inference.identity import identify

    place = Path(packaged.DEFAULT)
    assert packaged.is_packaged(place)
    known = identify(place)
    assert set(known.calibration["pairs"]) == {"visible-visible", "visible-infrared", "infrared-infrared"}
    assert known.calibration["data"]["generated"] is True
    assert packaged.locate(place).stat().st_size < 10e6
    assert sorted(path.name for path in packaged.FOLDER.iterdir()) == [
        "tapetum-lite0.calibration.json", "tapetum-lite0.md", "tapetum-lite0.safetensors",
    ]  # fmt: skip


def test_every_place_that_names_the_packaged_model_names_the_same() -> None:
    import inspect

    import tapetum
    from tapetum.cli import doctor, index

    assert inspect.signature(tapetum.load_model).parameters["place"].default == packaged.DEFAULT
    for command in (doctor, index):
        assert packaged.DEFAULT in Path(command.__file__).read_text(encoding="utf-8")


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
