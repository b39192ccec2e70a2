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
from tapetum.data.generate import generate_dataset
from tapetum.data.image_io import read_picture
from tapetum.data.layout import Counts, write_sample_picture
from tapetum.runs.recipe import scene_options
from tapetum.runs.sources import open_scene

pytestmark = [pytest.mark.parametrize("name", list_names(PACKAGE)), pytest.mark.usefixtures("coarse_streets")]


@pytest.fixture
def module(name: str) -> ModuleType:
    return load_dataset_module(name)


@pytest.fixture
def root(module: ModuleType, tmp_path: Path) -> Path:
    folder = tmp_path / "miniature"
    folder.mkdir()
    module.write_miniature(folder, np.random.default_rng(0))
    return folder


def splits_of(module: ModuleType) -> tuple[str, ...]:
    """The splits of its layout: "test" where the protocols choose the sides."""
    return getattr(module, "SPLITS", ("train", "query", "gallery"))


def cameras_of(module: ModuleType) -> dict[Modality, tuple[int, ...]]:
    return getattr(module, "CAMERAS", {Modality.VISIBLE: (1, 2)})


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


def test_miniature_reads_back_sorted_and_whole(module: ModuleType, root: Path, name: str) -> None:
    records = open_dataset(name, root).records
    assert {record.split for record in records} == set(splits_of(module))
    assert len({record.path for record in records}) == len(records)
    for split in splits_of(module):
        paths = [record.path for record in records if record.split == split]
        assert paths == sorted(paths)
    for record in records:
        assert isinstance(record, Record)
        assert record.camid in cameras_of(module)[record.modality]
        assert read_picture(record.path).shape[2] == 3
    assert {record.modality for record in records} == set(cameras_of(module))
    dataset = open_dataset(name, root)
    training = {record.pid for record in dataset.split("train")}
    assert len(training) >= 2
    for protocol in dataset.protocols:
        queries = {record.pid for record in dataset.side("query", protocol)}
        assert queries
        assert queries <= {record.pid for record in dataset.side("gallery", protocol)}
        assert getattr(module, "PIDS_START_ANEW", False) or not training & queries


def test_every_query_of_the_miniature_has_a_match_in_another_camera(root: Path, name: str) -> None:
    assert check_dataset(name, root).queries_without_match == ()


def test_reading_twice_gives_the_same_records(root: Path, name: str) -> None:
    assert open_dataset(name, root).records == open_dataset(name, root).records


def test_picture_path_and_reader_agree(module: ModuleType, root: Path, name: str) -> None:
    for split in splits_of(module):
        for modality, camids in cameras_of(module).items():
            path = module.picture_path(split, 12, camids[-1], 3, modality)
            assert not path.is_absolute()
            assert path != module.picture_path(split, 12, camids[-1], 4, modality)


def test_dataset_written_through_picture_path_reads_back(module: ModuleType, tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    wanted = []
    for split in splits_of(module):
        for modality, camids in cameras_of(module).items():
            for camid in camids:
                path = module.picture_path(split, 2 if split == "train" else 3, camid, 7, modality)
                write_sample_picture(tmp_path / "made" / path, rng)
                wanted.append(Record(path, 2 if split == "train" else 3, camid, modality, split))
    if name == "synth":
        (tmp_path / "made" / module.SCENE_FILE).write_text("{}")
    if hasattr(module, "write_index"):
        written = module.write_index(tmp_path / "made", wanted)
        assert all((tmp_path / "made" / path).is_file() for path in written)
    found = {
        record.path.relative_to(tmp_path / "made"): record for record in open_dataset(name, tmp_path / "made").records
    }
    assert len(found) == len(wanted)
    for record in wanted:
        assert (found[record.path].split, found[record.path].camid) == (record.split, record.camid)
        assert found[record.path].modality == record.modality
        assert found[record.path].pid == record.pid or hasattr(module, "PIDS_START_ANEW")


def test_picture_of_a_modality_is_refused_where_the_layout_has_no_place_for_it(module: ModuleType, name: str) -> None:
    for modality in Modality:
        if modality not in cameras_of(module):
            with pytest.raises(DataError, match=rf"visible pictures only, not {modality.name.lower()}"):
                module.picture_path("train", 1, 1, 0, modality)
    with pytest.raises(DataError, match="infrared"):
        module.picture_path(splits_of(module)[-1], 1, 1000, 0, Modality.INFRARED)


def test_night_scene_in_this_layout_reads_back_and_has_queries_that_somebody_matches(
    module: ModuleType, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    settings = {"num_train_people": 2, "num_test_people": 2, "pictures_per_camera": 2, "size": [32, 16]}
    settings |= {} if hasattr(module, "scene_defaults") else {"cameras": 2, "queries_per_camera": 1}
    dataset = open_scene({"layout": name, **settings}, cache=tmp_path)
    assert dataset.name == "synth"
    assert dataset.protocols == module.PROTOCOLS
    assert {record.modality for record in dataset.records} == set(cameras_of(module))
    assert check_dataset("synth", dataset.root).problems == []
    scene, queries = scene_options({"layout": name, **settings})
    assert generate_dataset(dataset.root, name, scene, queries_per_camera=queries).written == 0


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
    if (root / "idx").is_dir():  # pictures are named by lists, and no list names this one
        assert open_dataset(name, root).records == records
        return
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
