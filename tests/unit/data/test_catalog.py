import shutil
from pathlib import Path

import numpy as np
import pytest

from tapetum.core.discovery import list_names
from tapetum.core.errors import DataError, RecipeError
from tapetum.data.catalog import PACKAGE, fingerprint, open_dataset, order_key
from tapetum.data.datasets import night600


@pytest.fixture
def root(tmp_path: Path) -> Path:
    night600.write_miniature(tmp_path / "a", np.random.default_rng(0))
    return tmp_path / "a"


def test_every_dataset_is_listed() -> None:
    assert list_names(PACKAGE) == [
        "city",
        "folder",
        "knight",
        "llcm",
        "market1501",
        "night600",
        "nightreid",
        "regdb",
        "rgbnt201",
        "synth",
        "sysu_mm01",
    ]


def test_misspelt_dataset_is_answered_with_the_nearest_name(root: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean night600"):
        open_dataset("nigth600", root)


def test_unknown_option_is_answered_with_the_known_ones(root: Path) -> None:
    with pytest.raises(RecipeError, match="option 'holdout' is unknown; did you mean holdout_first"):
        open_dataset("night600", root, options={"holdout": True})
    with pytest.raises(RecipeError, match="it has no options"):
        open_dataset("folder", root, options={"holdout": True})


def test_unknown_protocol_is_answered_with_the_nearest_name(root: Path) -> None:
    dataset = open_dataset("night600", root)
    assert dataset.protocol().name == "night600"
    assert dataset.protocol("night600_step").ap == "step"
    with pytest.raises(RecipeError, match="did you mean night600_step"):
        dataset.protocol("night600_stp")


def test_fingerprint_is_the_same_under_another_root_and_in_another_order(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "elsewhere" / "b")
    one = open_dataset("night600", root).records
    other = open_dataset("night600", tmp_path / "elsewhere" / "b").records
    assert fingerprint(one) == fingerprint(other) == fingerprint(one[::-1])
    assert len(fingerprint(one)) == 16


def test_fingerprint_changes_with_content_name_and_selection(root: Path) -> None:
    records = open_dataset("night600", root).records
    before = fingerprint(records)
    assert fingerprint(records[1:]) != before
    path = records[3].path
    content = path.read_bytes()
    path.write_bytes(content[:-3] + b"\x00" + content[-2:])
    assert fingerprint(records) != before
    path.write_bytes(content)
    assert fingerprint(records) == before
    path.rename(path.with_name("0077_c1_000000.jpg"))
    assert fingerprint(open_dataset("night600", root).records) != before


def test_order_key_follows_the_order(root: Path) -> None:
    records = open_dataset("night600", root).records
    assert order_key(records) == order_key(list(records))
    assert order_key(records) != order_key(records[::-1])


def test_fingerprint_of_a_vanished_file_names_it(root: Path) -> None:
    records = open_dataset("night600", root).records
    records[0].path.unlink()
    with pytest.raises(DataError, match=records[0].path.name):
        fingerprint(records)
