from pathlib import Path

import numpy as np
import pytest

from tapetum.core.errors import DataError, RecipeError
from tapetum.data.catalog import open_dataset
from tapetum.data.datasets import llcm, night600, synth


def test_the_scene_is_evaluated_by_night600_s_protocols() -> None:
    assert synth.PROTOCOLS == night600.PROTOCOLS
    assert synth.DEFAULT_PROTOCOL == "night600"


def test_damaged_scene_file_is_named(tmp_path: Path) -> None:
    synth.write_miniature(tmp_path, np.random.default_rng(0))
    (tmp_path / "scene.json").write_text('{"seed":')
    with pytest.raises(DataError, match=r"scene\.json is no valid JSON"):
        synth.read_records(tmp_path)


def test_night600_without_a_scene_is_not_taken_for_a_scene(tmp_path: Path) -> None:
    night600.write_miniature(tmp_path, np.random.default_rng(0))
    with pytest.raises(DataError, match=r"looked for scene\.json beside"):
        synth.read_records(tmp_path)


def test_a_scene_in_another_layout_is_read_and_evaluated_as_that_layout_under_its_own_name(tmp_path: Path) -> None:
    llcm.write_miniature(tmp_path, np.random.default_rng(0))
    (tmp_path / "scene.json").write_text('{"dataset": "llcm"}')
    assert synth.read_layout(tmp_path) == "llcm"
    dataset = open_dataset("synth", tmp_path)
    assert dataset.name == "synth"
    assert dataset.protocols == llcm.PROTOCOLS
    assert dataset.default_protocol == "llcm_revised_nir_to_vis"
    assert dataset.records == open_dataset("llcm", tmp_path).records
    (tmp_path / "scene.json").write_text("[]")
    with pytest.raises(DataError, match="is not the file of a scene"):
        open_dataset("synth", tmp_path)
    (tmp_path / "scene.json").write_text('{"dataset": "lcm"}')
    with pytest.raises(RecipeError, match="did you mean llcm"):
        open_dataset("synth", tmp_path)
