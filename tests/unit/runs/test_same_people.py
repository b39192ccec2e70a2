import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tapetum.core.errors import DataError, RecipeError
from tapetum.data.catalog import Dataset
from tapetum.runs.header import Header
from tapetum.runs.recipe import DataSection
from tapetum.runs.same_people import check_division, check_untrained, find_seen, find_trained, shows_same_people

SCENE = {"num_train_people": 4, "num_test_people": 4}


def scene(root: Path, layout: str = "synth", **settings: Any) -> Dataset:
    """A generated scene of which nothing but its file is there."""
    root.mkdir(exist_ok=True)
    (root / "scene.json").write_text(json.dumps({"dataset": layout, "options": {**SCENE, **settings}}))
    return Dataset("synth", root, (), {}, "")


def header(own: DataSection, pids: Sequence[int] = (), before: Sequence[Mapping[str, Any]] = ()) -> Header:
    return Header("ide", {}, len(pids), recipe={"data": own.model_dump(mode="json")}, pids=pids, before=before)


def test_scenes_of_one_identity_seed_show_the_same_people_whatever_else_differs(tmp_path: Path) -> None:
    own = DataSection(name="synth", scene={**SCENE, "identity_seed": 3})
    there = scene(tmp_path / "there", identity_seed=3)
    assert shows_same_people(there, own)
    assert shows_same_people(replace(there, name="night600"), own)  # the folder may be read as its layout, too
    assert shows_same_people(scene(tmp_path / "dark", identity_seed=3, light_scale=8.0, num_test_people=9), own)
    assert shows_same_people(there, DataSection(name="synth", root=str(tmp_path / "there")))
    assert not shows_same_people(scene(tmp_path / "other", identity_seed=2), own)
    assert not shows_same_people(there, DataSection(name="synth", scene=SCENE))
    assert not shows_same_people(there, DataSection(name="synth", root=str(tmp_path / "other")))
    assert not shows_same_people(there, DataSection(name="night600", root="/night600"))
    assert not shows_same_people(replace(there, root=tmp_path), own)


def test_pictures_of_cameras_show_the_same_people_where_the_dataset_is_the_same(tmp_path: Path) -> None:
    dataset = Dataset("night600", tmp_path, (), {}, "")
    assert shows_same_people(dataset, DataSection(name="night600", root="/elsewhere"))
    assert not shows_same_people(dataset, DataSection(name="knight", root=str(tmp_path)))
    anybodys = replace(dataset, name="folder")
    assert shows_same_people(anybodys, DataSection(name="folder", root=f"{tmp_path}/."))
    assert not shows_same_people(anybodys, DataSection(name="folder", root="/elsewhere"))


def test_who_was_trained_on_is_found_by_pid_and_named(tmp_path: Path) -> None:
    own = DataSection(name="synth", scene=SCENE)
    here = scene(tmp_path / "here", num_train_people=2, num_test_people=20)
    assert find_trained(here, range(3, 23), [1, 2, 3, 4], own) == {3, 4}
    assert find_trained(here, range(3, 23), [], own) == {3, 4}  # a packed model of before: the scene's settings tell
    with pytest.raises(DataError, match=r"run: was trained on 2 of the people whom synth in .*here tests \(pid 3, 4\)"):
        check_untrained(here, range(3, 23), header(own, [1, 2, 3, 4]), Path("run"))
    check_untrained(here, range(5, 23), header(own, [1, 2, 3, 4]), Path("run"))
    check_untrained(scene(tmp_path / "b", identity_seed=1), range(1, 9), header(own, [1, 2, 3, 4]), Path("run"))
    cameras = Dataset("night600", tmp_path, (), {}, "")
    with pytest.raises(DataError, match=r"7 of .* \(pid 1, 2, 3, 4, 5, \.\.\.\); read the data as it was trained with"):
        check_untrained(cameras, range(1, 8), header(DataSection(name="night600", root="/n"), range(9)), Path("run"))
    check_untrained(cameras, range(1, 8), header(DataSection(name="knight", root="/n"), range(9)), Path("run"))


def test_an_earlier_training_behind_the_weights_counts_as_the_last_one_does(tmp_path: Path) -> None:
    here, elsewhere = scene(tmp_path / "here", num_train_people=2), DataSection(name="night600", root="/n")
    first = {"data": DataSection(name="synth", scene=SCENE).model_dump(mode="json"), "pids": [1, 2, 3]}
    assert find_seen(here, [3, 4, 5, 6], header(elsewhere, [3, 4], before=[first])) == {3}
    assert find_seen(here, [3, 4, 5, 6], header(elsewhere, [3, 4])) == set()
    assert find_seen(here, [3, 4, 5, 6], Header("ide", {}, 4, pids=[3, 4])) == set()  # converted: no recipe
    with pytest.raises(DataError, match=r"was trained on 1 of the people"):
        check_untrained(here, [3, 4], header(elsewhere, before=[first]), Path("run"))


def test_where_people_are_numbered_anew_the_scene_s_settings_tell(tmp_path: Path) -> None:
    own = DataSection(name="synth", scene={**SCENE, "layout": "llcm"})
    same = scene(tmp_path / "same", "llcm")
    assert find_trained(same, [1, 2, 3], [0, 1, 2, 3], own) == set()
    other = scene(tmp_path / "other", "llcm", num_train_people=1)
    assert find_trained(other, [1, 2, 3], [0, 1, 2, 3], own) == {2, 3, 4}
    assert find_trained(other, [1, 2, 3], [], own) == {2, 3, 4}


def test_another_division_is_refused_in_a_scene_of_the_same_people_under_other_light(tmp_path: Path) -> None:
    own = DataSection(name="synth", scene={**SCENE, "layout": "regdb"})
    bright = replace(scene(tmp_path / "bright", "regdb", light_scale=8.0), division={"trial": 2})
    with pytest.raises(RecipeError, match=r"trained with data\.options\.trial = 1; synth with trial = 2 divides"):
        check_division(bright, header(own), Path("run"))
    check_division(replace(bright, division={"trial": 1}), header(own), Path("run"))
    others = replace(scene(tmp_path / "others", "regdb", identity_seed=1), division={"trial": 2})
    check_division(others, header(own), Path("run"))


def test_a_scene_s_file_of_unknown_settings_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"scene\.json: its options are none of a scene"):
        shows_same_people(scene(tmp_path / "later", moons=2), DataSection(name="synth"))
