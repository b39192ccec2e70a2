from pathlib import Path

import numpy as np
import pytest

from tapetum.core.errors import DataError
from tapetum.data.datasets import night600, synth


def test_rules_are_night600_s_under_a_name_of_its_own() -> None:
    for name, original in (("synth", "night600"), ("synth_step", "night600_step")):
        ours, theirs = synth.PROTOCOLS[name], night600.PROTOCOLS[original]
        assert (ours.ap, ours.unmatched, ours.ties, ours.junk) == (
            theirs.ap,
            theirs.unmatched,
            theirs.ties,
            theirs.junk,
        )
        assert ours.name == name


def test_damaged_scene_file_is_named(tmp_path: Path) -> None:
    synth.write_miniature(tmp_path, np.random.default_rng(0))
    (tmp_path / "scene.json").write_text('{"seed":')
    with pytest.raises(DataError, match=r"scene\.json is no valid JSON"):
        synth.read_records(tmp_path)


def test_night600_without_a_scene_is_not_taken_for_a_scene(tmp_path: Path) -> None:
    night600.write_miniature(tmp_path, np.random.default_rng(0))
    with pytest.raises(DataError, match=r"looked for scene\.json beside"):
        synth.read_records(tmp_path)
