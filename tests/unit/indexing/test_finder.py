from pathlib import Path

import numpy as np
import pytest

from detector_files import centres_of_one, write_centres
from tapetum.core.errors import RecipeError
from tapetum.footage.detect import BackgroundDetector
from tapetum.indexing.finder import build_finder

DARK = np.full((64, 128, 3), 10, np.uint8)


@pytest.fixture
def network(tmp_path: Path) -> str:
    return str(write_centres(tmp_path / "centres.onnx", *centres_of_one((8, 8, 16, 24))))


def test_what_brightens_is_said_and_part_of_the_key(network: str) -> None:
    keys = set()
    for brighten, said in (("auto", None), ("off", None), ("gamma", "gamma"), ("clahe", "clahe")):
        detector = build_finder(network, layout="centernet", person_class=0, brighten=brighten)
        assert detector.name.endswith(f"brightened by {said}") == (said is not None)
        assert detector.detect(DARK).boxes.tolist() == [[32, 0, 64, 64]]
        keys.add(detector.key)
    assert len(keys) == 3  # a file of the operator's own is seen as ever by default


def test_an_unknown_way_and_the_fallback_are_refused(network: str) -> None:
    with pytest.raises(RecipeError, match="enhancer 'gama' is unknown"):
        build_finder(network, layout="centernet", person_class=0, brighten="gama")
    for brighten in ("gamma", "clahe"):
        with pytest.raises(RecipeError, match="detector background: brightens dark scenes by itself"):
            build_finder("background", brighten=brighten)
    assert isinstance(build_finder("background"), BackgroundDetector)
