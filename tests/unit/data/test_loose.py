from pathlib import Path

import pytest

from tapetum.core.errors import DataError
from tapetum.data.loose import list_pictures


def test_loose_pictures_are_files_and_all_that_is_below_a_folder(people: Path, tmp_path: Path) -> None:
    picture = sorted((people / "query_3").iterdir())[0]
    assert [record.path for record in list_pictures([picture])] == [picture]
    assert len(list_pictures([people])) == 64 + 32 + 8
    with pytest.raises(DataError, match="no such picture or folder"):
        list_pictures([tmp_path / "nothing"])
    with pytest.raises(DataError, match="no picture in this folder"):
        list_pictures([tmp_path])


def test_what_a_mac_leaves_beside_each_picture_is_none(people: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(sorted((people / "query_3").iterdir())[0].read_bytes())
    (tmp_path / "._a.jpg").write_bytes(b"resource fork")
    assert [record.path.name for record in list_pictures([tmp_path])] == ["a.jpg"]
