"""One battery over every dataset there is: a new file in `tapetum.data.datasets` is tested without a line here."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tapetum.core.discovery import list_names
from tapetum.core.errors import DataError, TapetumError
from tapetum.core.protocol import Protocol
from tapetum.core.types import Modality, Record
from tapetum.data.catalog import PACKAGE, load_dataset_module, open_dataset
from tapetum.data.check import check_dataset
from tapetum.data.image_io import read_picture
from tapetum.data.layout import Counts, write_sample_picture

pytestmark = pytest.mark.parametrize("name", list_names(PACKAGE))


@pytest.fixture
def module(name: str) -> ModuleType:
    return load_dataset_module(name)


@pytest.fixture
def root(module: ModuleType, tmp_path: Path) -> Path:
    folder = tmp_path / "miniature"
    folder.mkdir()
    module.write_miniature(folder, np.random.default_rng(0))
    return folder


def test_file_says_what_a_dataset_must_say(module: ModuleType, name: str) -> None:
    assert name == module.NAME
    assert module.DEFAULT_PROTOCOL in module.PROTOCOLS
    for key, protocol in module.PROTOCOLS.items():
        assert isinstance(protocol, Protocol)
        assert protocol.name == key
        assert protocol.source
    assert all(isinstance(counts, Counts) for counts in module.PUBLISHED.values())
    assert module.LAYOUTS
    assert module.OBTAIN


def test_miniature_reads_back_sorted_and_whole(root: Path, name: str) -> None:
    records = open_dataset(name, root).records
    assert {record.split for record in records} == {"train", "query", "gallery"}
    assert len({record.path for record in records}) == len(records)
    for split in ("train", "query", "gallery"):
        paths = [record.path for record in records if record.split == split]
        assert paths == sorted(paths)
    for record in records:
        assert isinstance(record, Record)
        assert record.modality == Modality.VISIBLE
        assert read_picture(record.path).shape[2] == 3
    training = {record.pid for record in records if record.split == "train"}
    queries = {record.pid for record in records if record.split == "query"}
    assert len(training) >= 2
    assert queries
    assert not training & queries


def test_every_query_of_the_miniature_has_a_match_in_another_camera(root: Path, name: str) -> None:
    assert check_dataset(name, root).queries_without_match == ()


def test_reading_twice_gives_the_same_records(root: Path, name: str) -> None:
    assert open_dataset(name, root).records == open_dataset(name, root).records


def test_picture_path_and_reader_agree(module: ModuleType, root: Path, name: str) -> None:
    for split in ("train", "query", "gallery"):
        path = module.picture_path(split, 12, 2, 3, Modality.VISIBLE)
        assert not path.is_absolute()
        assert path != module.picture_path(split, 12, 2, 4, Modality.VISIBLE)


def test_dataset_written_through_picture_path_reads_back(module: ModuleType, tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    wanted = set()
    for split, pid in (("train", 2), ("query", 3), ("gallery", 3)):
        for camid in (1, 2):
            write_sample_picture(tmp_path / "made" / module.picture_path(split, pid, camid, 7, Modality.VISIBLE), rng)
            wanted.add((split, pid, camid))
    if name == "synth":
        (tmp_path / "made" / module.SCENE_FILE).write_text("{}")
    found = {(record.split, record.pid, record.camid) for record in open_dataset(name, tmp_path / "made").records}
    assert found == wanted


def test_infrared_picture_is_refused_where_the_layout_has_no_place_for_it(module: ModuleType, name: str) -> None:
    with pytest.raises(DataError, match=r"visible pictures only, not infrared"):
        module.picture_path("train", 1, 1, 0, Modality.INFRARED)


def test_missing_root_is_named_and_says_how_to_obtain_the_dataset(
    module: ModuleType, tmp_path: Path, name: str
) -> None:
    with pytest.raises(DataError, match="does not exist") as caught:
        open_dataset(name, tmp_path / "gone")
    assert str(tmp_path / "gone") in str(caught.value)
    assert module.OBTAIN in str(caught.value)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is a file, not a folder"):
        open_dataset(name, tmp_path / "file")


def test_wrong_layout_says_which_layouts_were_looked_for(module: ModuleType, tmp_path: Path, name: str) -> None:
    (tmp_path / "holiday").mkdir()
    with pytest.raises(DataError, match="no known layout") as caught:
        open_dataset(name, tmp_path)
    for layout in module.LAYOUTS:
        assert layout in str(caught.value)
    assert "holiday" in str(caught.value)


def test_layout_without_any_picture_is_refused(module: ModuleType, root: Path, name: str) -> None:
    for record in open_dataset(name, root).records:
        record.path.unlink()
    with pytest.raises(DataError, match=r"no picture|no known layout"):
        open_dataset(name, root)


def test_name_that_cannot_be_parsed_is_named_or_collected(root: Path, name: str) -> None:
    records = open_dataset(name, root).records
    stray = next(record.path for record in records if record.split == "train").with_name("somebody.jpg")
    write_sample_picture(stray, np.random.default_rng(0))
    with pytest.raises(DataError, match=r"somebody\.jpg") as caught:
        open_dataset(name, root)
    assert "tapetum data check" in str(caught.value)
    failures: list[Path] = []
    assert open_dataset(name, root, failures=failures).records == records
    assert failures == [stray]


def test_files_that_are_no_pictures_are_left_alone(root: Path, name: str) -> None:
    records = open_dataset(name, root).records
    for folder in {record.path.parent for record in records}:
        (folder / "Thumbs.db").write_bytes(b"x")
        (folder / "readme.txt").write_text("x")
        (folder / ".0001_c1_000000.jpg.ab12.jpg").write_bytes(b"rest of an interrupted copy")
    assert open_dataset(name, root).records == records


def test_error_messages_are_one_line(module: ModuleType, tmp_path: Path, name: str) -> None:
    for path in (tmp_path / "gone", tmp_path):
        with pytest.raises(TapetumError) as caught:
            open_dataset(name, path)
        assert "\n" not in str(caught.value)
