import shutil
from pathlib import Path

import numpy as np
import pytest

from tapetum.core.errors import DataError, RecipeError
from tapetum.core.types import Modality
from tapetum.data.catalog import open_dataset
from tapetum.data.check import check_dataset
from tapetum.data.datasets import rgbnt201
from tapetum.data.layout import write_sample_picture


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rgbnt201.write_miniature(tmp_path, np.random.default_rng(0))
    return tmp_path


def spectra_of(root: Path, *spectra: str) -> set[str]:
    records = open_dataset("rgbnt201", root, options={"spectra": list(spectra)}).records
    return {record.path.parent.name for record in records}


def test_a_name_gives_person_and_camera_and_the_folder_the_spectrum(root: Path) -> None:
    record = next(each for each in rgbnt201.read_records(root) if each.path.name == "000003_cam4_0_01.jpg")
    assert (record.pid, record.camid, record.split) == (3, 4, "test")
    assert {each.modality for each in rgbnt201.read_records(root)} == set(Modality)


def test_every_testing_picture_of_a_modality_is_query_and_gallery(root: Path) -> None:
    dataset = open_dataset("rgbnt201", root)
    for modality, name in ((Modality.VISIBLE, "rgb"), (Modality.INFRARED, "infrared")):
        sides = [dataset.side(side, f"rgbnt201_{name}_to_{name}") for side in ("query", "gallery")]
        assert sides[0] == sides[1]
        assert {record.modality for record in sides[0]} == {modality}
        assert len(sides[0]) == 3 * 4 * 2


def test_mixed_every_testing_picture_searches_among_those_of_both_modalities(root: Path) -> None:
    dataset = open_dataset("rgbnt201", root)
    for side in ("query", "gallery"):
        records = dataset.side(side, "rgbnt201_mixed")
        assert records == [record for record in dataset.records if record.split == "test"]
        assert len(records) == 2 * 3 * 4 * 2
        assert {record.modality for record in records} == set(Modality)


def test_spectra_are_chosen_and_thermal_is_infrared_too(root: Path) -> None:
    assert spectra_of(root, "RGB") == {"RGB"}
    assert spectra_of(root, "NI") == {"NI"}
    assert spectra_of(root, "RGB", "TI") == {"RGB", "TI"}
    thermal = open_dataset("rgbnt201", root, options={"spectra": ["TI"]})
    assert {record.modality for record in thermal.records} == {Modality.INFRARED}
    assert len(thermal.side("query", "rgbnt201_infrared_to_infrared")) == 24


@pytest.mark.parametrize("spectra", [["NI", "TI"], [], ["RGB", "RGB"]])
def test_two_kinds_of_infrared_at_once_are_refused(root: Path, spectra: list[str]) -> None:
    with pytest.raises(RecipeError, match="write one or two of RGB and either NI or TI"):
        rgbnt201.read_records(root, spectra=spectra)


def test_an_unknown_spectrum_names_the_nearest(root: Path) -> None:
    with pytest.raises(RecipeError, match="spectrum 'NIR' is unknown; did you mean NI"):
        rgbnt201.read_records(root, spectra=["NIR"])


def test_a_missing_spectrum_is_named_with_what_can_be_read_without_it(root: Path) -> None:
    shutil.rmtree(root / "train_171" / "TI")
    with pytest.raises(
        DataError, match=r"no picture in .*train_171/TI; unpack that spectrum there, or read .*spectra: \[RGB\]"
    ):
        rgbnt201.read_records(root, spectra=["RGB", "TI"])
    assert rgbnt201.read_records(root, spectra=["RGB"])


def test_the_check_lists_pictures_without_their_counterpart(root: Path) -> None:
    assert check_dataset("rgbnt201", root).lone == ()
    (root / "test" / "NI" / "000003_cam4_0_01.jpg").unlink()
    (root / "train_171" / "RGB" / "000001_cam1_0_00.jpg").unlink()
    (root / "train_171" / "TI" / "000001_cam1_0_00.jpg").unlink()
    report = check_dataset("rgbnt201", root, options={"spectra": ["TI"]})
    assert report.lone == (
        f"{root / 'train_171/NI/000001_cam1_0_00.jpg'} (no RGB, TI)",
        f"{root / 'test/RGB/000003_cam4_0_01.jpg'} (no NI)",
        f"{root / 'test/TI/000003_cam4_0_01.jpg'} (no NI)",
    )
    problem = f"3 pictures without their counterpart in another spectrum, e.g. {report.lone[0]}"
    assert problem in report.problems


def test_a_copy_with_one_spectrum_lacks_no_counterparts(root: Path) -> None:
    for path in root.glob("*/[NT]I/*"):
        path.unlink()
    assert check_dataset("rgbnt201", root, options={"spectra": ["RGB"]}).lone == ()


def test_a_wrong_name_is_told_with_a_right_one(root: Path) -> None:
    for spectrum in ("RGB", "NI"):
        write_sample_picture(root / "test" / spectrum / "person.jpg", np.random.default_rng(0))
    with pytest.raises(DataError, match=r"expected like 000001_cam1_0_01.jpg"):
        rgbnt201.read_records(root)
