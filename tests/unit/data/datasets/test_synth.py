from pathlib import Path

import numpy as np
import pytest

from tapetum.core.errors import DataError
from tapetum.data.datasets import night600, synth


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
