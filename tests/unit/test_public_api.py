"""The front door: what a program gets from ``import tapetum``."""

import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import tapetum
from tapetum.core.errors import CheckpointError, DataError, GalleryError, RecipeError
from tapetum.data.image_io import read_picture
from unit.inference.conftest import make_run  # noqa: F401  (a fixture)

HEAVY = "torch", "lightning", "timm", "lancedb", "cv2", "numpy"


@pytest.fixture(scope="module")
def run(make_run: Callable[..., Path]) -> Path:  # noqa: F811
    return make_run("ide")


@pytest.fixture(scope="module")
def crops(people: Path) -> list[Path]:
    return sorted(path for path in people.rglob("*") if path.is_file())[:6]


def test_importing_it_loads_nothing() -> None:
    command = f"import sys, tapetum; tapetum.list_methods(); print([name for name in {HEAVY} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_it_lists_what_it_has_and_names_it_for_a_wrong_name() -> None:
    assert set(tapetum.__all__) <= set(dir(tapetum))
    assert all(callable(getattr(tapetum, name)) for name in tapetum.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'serach'; it has Model, embed"):
        tapetum.serach  # noqa: B018
    assert {"ide", "idf", "deen"} <= set(tapetum.list_methods())
    assert "idf_night600" in tapetum.list_recipes() or "idf_paper" in tapetum.list_recipes()
    assert {"night600", "llcm"} <= set(tapetum.list_datasets())


def test_files_and_arrays_have_the_same_vectors_in_any_modality(run: Path, crops: list[Path]) -> None:
    model = tapetum.load_model(run)
    files = tapetum.embed(model, crops)
    arrays = tapetum.embed(model, [read_picture(crop) for crop in crops], modality=["visible"] * len(crops))
    assert files.shape == (len(crops), model.dimension)
    assert torch.equal(files, arrays)
    torch.testing.assert_close(files.norm(dim=1), torch.ones(len(crops)))
    assert tapetum.embed(model, []).shape == (0, model.dimension)
    with pytest.raises(RecipeError, match="modality 'infra' is unknown; did you mean infrared"):
        tapetum.embed(model, crops, modality="infra")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="gone"):
        tapetum.embed(model, ["gone.png"])


def test_a_card_says_how_a_run_does_on_a_data_set(run: Path, people: Path) -> None:
    card = tapetum.evaluate(run, data=f"night600={people}")
    assert card.data["query"] == 8
    assert 0 <= card.metrics["mean_ap"] <= 1
    assert list(run.with_suffix(".evaluation").glob("*.json"))


def test_from_crops_to_an_answer(run: Path, crops: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "crops"
    folder.mkdir()
    for crop in crops:
        (folder / crop.name).write_bytes(crop.read_bytes())
    report = tapetum.index(folder, tmp_path / "night", run)
    assert report.added == len(crops)
    with tapetum.open_gallery(tmp_path / "night") as gallery:
        findings = tapetum.search(gallery, crops[0], k=3, group="none")
        assert findings.found[0].similarity == pytest.approx(1, abs=1e-5)
        tracklet = findings.found[0].row.sighting.tracklet
        assert tapetum.search(gallery, tracklet=tracklet).searched == len(crops) - len(
            gallery.find(f"tracklet == '{tracklet}'")
        )
        for wrong in ({}, {"person": crops[0], "tracklet": tracklet}):
            with pytest.raises(GalleryError, match="give a picture of the person, or the name of a tracklet"):
                tapetum.search(gallery, **wrong)  # type: ignore[arg-type]


def test_vectors_of_another_model_are_not_compared_though_they_are_as_long(
    run: Path, crops: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "crops"
    folder.mkdir()
    (folder / crops[0].name).write_bytes(crops[0].read_bytes())
    tapetum.index(folder, tmp_path / "night", run)
    model = tapetum.load_model(run)
    with tapetum.open_gallery(tmp_path / "night") as gallery:
        assert tapetum.search(gallery, crops[0], model=model).searched == 1
        with pytest.raises(GalleryError, match=f"holds embeddings of model '{model.id}'.* not of 'ffff'"):
            tapetum.search(gallery, crops[0], model=replace(model, id="ffff"))


def test_a_released_checkpoint_is_opened_by_its_layout(run: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="idf-oficial"):
        tapetum.load_model(run, released="idf-oficial")
    with pytest.raises(CheckpointError):
        tapetum.load_model(tmp_path / "nothing")


def test_one_picture_that_is_no_list_of_pictures_is_named() -> None:
    model = types.SimpleNamespace(dimension=4)
    array = np.zeros((8, 4, 3), np.uint8)
    for picture, name in (("a.jpg", r"a\.jpg"), (Path("b.jpg"), r"b\.jpg"), (array, "an array")):
        with pytest.raises(DataError, match=rf"{name}: is one picture; give a list of pictures"):
            tapetum.embed(model, picture)
