"""Pictures that lie about: files and folders without a data set's layout."""

from collections.abc import Sequence
from pathlib import Path

from tapetum.core.errors import DataError
from tapetum.core.types import UNKNOWN_CAMERA, Record
from tapetum.data.layout import is_picture

NOBODY = -1  # the pid of a picture of which nobody says whom it shows


def list_pictures(places: Sequence[Path], *, split: str = "gallery") -> list[Record]:
    """Records of loose pictures: files as given, folders with everything below them, sorted.

    Raises:
        DataError: a place is missing, or a folder holds no picture.
    """
    records = []
    for place in places:
        if not place.exists():
            raise DataError(f"{place}: no such picture or folder; check the path")
        paths = [place]
        if place.is_dir():
            paths = sorted(path for path in place.rglob("*") if is_picture(path) and path.is_file())
            if not paths:
                raise DataError(f"{place}: no picture in this folder or below it; give another folder")
        records += [Record(path, NOBODY, UNKNOWN_CAMERA, split=split) for path in paths]
    return records
