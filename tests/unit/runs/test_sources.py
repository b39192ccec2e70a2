from dataclasses import replace
from pathlib import Path

import pytest

from tapetum.core.errors import DataError, OutputError, RecipeError, TrainingError
from tapetum.core.protocol import Protocol
from tapetum.core.types import Record
from tapetum.data.catalog import Dataset
from tapetum.data.sampler import read_sampling
from tapetum.runs.recipe import DataSection, load_recipe
from tapetum.runs.sources import (
    augment_options,
    choose_workers,
    list_split,
    open_data,
    parse_source,
    picture_options,
    records_of,
    sampler_options,
    source_overrides,
    training_records,
)
from tapetum.synth.scene import SceneOptions

SCENE = {"num_train_people": 2, "num_test_people": 2, "cameras": 2, "pictures_per_camera": 1, "size": [32, 16]}


@pytest.mark.parametrize(
    ("text", "parts"),
    [("night600=/data/N", ("night600", "/data/N")), ("synth", ("synth", None)), ("a=b=c", ("a", "b=c"))],
)
def test_a_source_is_a_name_and_perhaps_a_root(text: str, parts: tuple[str, str | None]) -> None:
    assert parse_source(text) == parts


@pytest.mark.parametrize("text", ["", "=/data", "night600="])
def test_a_source_with_an_empty_part_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="NAME=ROOT"):
        parse_source(text)


def test_another_dataset_forgets_the_options_of_the_one_before() -> None:
    section = DataSection(name="knight", root="/k", options={"subset": "c13"})
    assert source_overrides("knight", section) == []
    assert source_overrides("night600=/n", section) == [
        "data.name=night600",
        'data.root="/n"',
        "data.options={}",
        "data.scene={}",
    ]
    assert load_recipe("idf_official", source_overrides("night600=/a: b")).data.root == "/a: b"


def test_a_few_pictures_are_rendered_without_waiting_for_processes_to_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    few = SceneOptions(num_train_people=4, num_test_people=4, cameras=8, pictures_per_camera=3)  # 192
    assert choose_workers(few) == 1
    assert choose_workers(replace(few, paired_cameras=(1,))) == 2
    assert choose_workers(replace(few, num_test_people=60)) == 4


def test_a_scene_is_generated_once_for_the_same_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    section = DataSection(name="synth", scene=SCENE)
    first = open_data(section, cache=tmp_path).dataset
    assert first.name == "synth"
    assert len(first.split("train")) == 4
    times = {record.path: record.path.stat().st_mtime_ns for record in first.records}
    again = open_data(section, cache=tmp_path).dataset
    assert {record.path: record.path.stat().st_mtime_ns for record in again.records} == times
    other = open_data(DataSection(name="synth", scene={**SCENE, "camera_seed": 1}), cache=tmp_path).dataset
    assert other.root != first.root
    assert open_data(DataSection(name="synth", root=str(first.root))).dataset.records == first.records
    with pytest.raises(OutputError, match="holds another scene"):
        open_data(DataSection(name="synth", root=str(first.root), scene={**SCENE, "camera_seed": 1}))


def test_unknown_settings_of_scene_or_dataset_are_refused(people: Path) -> None:
    with pytest.raises(RecipeError, match=r"data.scene.camera_sed is unknown; did you mean camera_seed\?"):
        load_recipe("ide_synth", ["data.scene.camera_sed=1"])
    with pytest.raises(RecipeError, match=r"data\.scene\.cameras is 'two', expected integer"):
        load_recipe("ide_synth", ["data.scene.cameras=two"])
    with pytest.raises(RecipeError, match="it must be 0 or more"):
        load_recipe("ide_synth", ["data.scene.difficulty=-1"])
    with pytest.raises(RecipeError, match="option 'holdout_frist' is unknown; did you mean holdout_first"):
        open_data(DataSection(root=str(people), options={"holdout_frist": True}))


def test_the_options_of_a_dataset_reach_its_reader(people: Path) -> None:
    whole = open_data(DataSection(root=str(people))).dataset
    fewer = open_data(DataSection(root=str(people), options={"holdout_first": True})).dataset
    assert len(fewer.split("train")) == len(whole.split("train")) - 8


def test_damaged_pictures_are_left_out_where_asked(people: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(people, tmp_path / "data")
    victim = sorted((tmp_path / "data" / "query_3").iterdir())[0]
    victim.write_bytes(b"no picture")
    opened = open_data(DataSection(root=str(tmp_path / "data"), skip_corrupt=True))
    assert len(opened.skipped) == 1
    assert victim.name in opened.skipped[0]
    assert len(opened.dataset.split("query")) == 7


def test_junk_does_not_train_and_a_dataset_without_training_pictures_is_refused() -> None:
    records = (Record(Path("a"), -1, 1), Record(Path("b"), 0, 1), Record(Path("c"), 3, 1, split="query"))
    dataset = Dataset("folder", Path("root"), records, {"folder": Protocol("folder")}, "folder")
    assert [record.pid for record in training_records(dataset)] == [0]
    with pytest.raises(TrainingError, match="no training picture in root"):
        training_records(Dataset("folder", Path("root"), records[2:], {}, "folder"))
    with pytest.raises(DataError, match="no picture of split 'gallery' in root; it has query, train"):
        list_split(dataset, "gallery")


def test_pictures_to_embed_come_from_a_folder_a_dataset_or_the_recipes_own(people: Path) -> None:
    section = DataSection(root=str(people))
    assert len(records_of(str(people / "query_3"), section, "gallery")) == 8
    assert len(records_of(f"night600={people}", DataSection(), "query")) == 8
    assert len(records_of("night600", section, "gallery")) == 32


def test_sections_become_the_options_of_the_data_layer() -> None:
    recipe = load_recipe("idf_official", ["augment.colour_jitter=[0.1, 0.1, 0.1, 0]", "sampler.steps=3"])
    jitter, crop, flip, erasing = augment_options(recipe)
    assert jitter.options.strength == (0.1, 0.1, 0.1, 0)
    assert crop.options.pad == 10
    assert flip.where.probability == erasing.where.probability == 0.5
    assert sampler_options(recipe).options.batch == 32
    assert sampler_options(recipe).options.steps == 3
    overrides = ["sampler={name: cross_modality, ids: 6, pictures: 4, unpaired: drop}", "augment.grayscale=0.5"]
    recipe = load_recipe("idf_official", [*overrides, "data.interpolation=lanczos"])
    assert sampler_options(recipe) == read_sampling(
        {"name": "cross_modality", "ids": 6, "pictures": 4, "unpaired": "drop"}
    )
    assert [operation.name for operation in augment_options(recipe)] == ["grayscale", "pad_crop", "flip", "erasing"]
    assert picture_options(recipe.data).interpolation == "lanczos"


SMALL_LAYOUT = {"num_train_people": 2, "num_test_people": 2, "pictures_per_camera": 1, "size": [32, 16]}


@pytest.mark.parametrize("name", ["llcm", "regdb", "sysu_mm01"])
def test_the_scene_in_place_of_a_visible_infrared_dataset_keeps_its_layout(name: str) -> None:
    section = DataSection(name=name, root="/data", options={"trial": 2} if name == "regdb" else {})
    changes = source_overrides("synth", section)
    recipe = load_recipe("ide_night600", changes)
    assert (recipe.data.name, recipe.data.root, recipe.data.options) == ("synth", None, {})
    assert recipe.data.scene == {"layout": name}
    assert source_overrides("synth", recipe.data) == []
    assert "data.scene={}" in source_overrides(f"{name}=/data", recipe.data)


def test_a_scene_in_a_layout_is_generated_once_and_goes_by_the_scene_s_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    settings = {"layout": "regdb", **SMALL_LAYOUT}
    section = DataSection(name="synth", scene=settings, options={"trial": 2})
    dataset = open_data(section, cache=tmp_path).dataset
    assert dataset.name == "synth"
    assert dataset.root.name.startswith("synth-regdb-")
    assert dataset.default_protocol == "regdb_vis_to_ir"
    assert len(dataset.split("query")) == len(dataset.split("gallery")) == 2
    first = open_data(section.model_copy(update={"options": {}}), cache=tmp_path).dataset
    assert first.root == dataset.root
    assert {r.path.parent.name for r in first.split("train")} == {"1", "2"}
    with pytest.raises(RecipeError, match="it must be a whole number from 1 to 10"):
        open_data(section.model_copy(update={"options": {"trial": 11}}), cache=tmp_path)
    section = DataSection(name="synth", root=str(dataset.root), scene={"layout": "regdb"})
    assert open_data(section).dataset.records == first.records
    assert records_of(f"synth={dataset.root}", DataSection(name="regdb"), "query") == first.split("query")
    with pytest.raises(DataError, match="holds a scene in the layout regdb, wanted is llcm"):
        open_data(section.model_copy(update={"scene": {"layout": "llcm"}}))


def test_a_layout_brings_its_cameras_and_what_is_named_comes_before_them() -> None:
    from tapetum.runs.recipe import scene_options

    llcm, _ = scene_options({"layout": "llcm", "cameras": 3, "num_test_people": 7})
    assert (llcm.cameras, llcm.paired_cameras, llcm.num_test_people) == (3, (1, 2), 7)
    sysu, _ = scene_options({"layout": "sysu_mm01"})
    assert (sysu.cameras, sysu.infrared_cameras, sysu.infrared_band) == (6, (3, 6), "near")
    regdb, _ = scene_options({"layout": "regdb", "pictures_per_camera": 4})
    assert (regdb.infrared_cameras, regdb.infrared_band, regdb.pictures_per_camera) == ((2,), "thermal", 4)
    assert scene_options({"layout": "market1501"}) == scene_options({})
    for options in (llcm, sysu, regdb):
        assert options.num_train_people >= 60
    with pytest.raises(RecipeError, match=r"dataset 'lcm' is unknown; did you mean llcm\?"):
        load_recipe("ide_synth", ["data.scene.layout=lcm"])
    with pytest.raises(RecipeError, match=r"data\.scene\.layout is 3, expected string"):
        load_recipe("ide_synth", ["data.scene.layout=3"])
