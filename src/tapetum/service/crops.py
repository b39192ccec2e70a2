"""Crops of the gallery, by the id of their row."""

from pathlib import Path

from tapetum.gallery.schema import Row
from tapetum.gallery.store import Store
from tapetum.searching.crops import crop_path, read_crop, tell_kind
from tapetum.service.errors import NotFoundError


def find_crop(store: Store, row_id: str) -> tuple[Row, Path]:
    """A row, and where its picture is.

    Raises:
        NotFoundError: no such row, or no picture.
    """
    rows = store.fetch_rows([row_id])
    path = crop_path(store, rows[0]) if rows else None
    if path is None:
        raise NotFoundError(f"row {row_id[:200]!r}: there is no such row with a picture")
    return rows[0], path


def send_crop(store: Store, row_id: str) -> tuple[bytes, str]:
    """The picture of a row: content and media type.

    Raises:
        NotFoundError: no such row, or no picture.
    """
    content = read_crop(store, find_crop(store, row_id)[0])
    if content is None:
        raise NotFoundError(f"row {row_id!r}: its picture was removed just now")
    kind = tell_kind(content)
    if kind is None:
        raise NotFoundError(f"row {row_id!r}: its picture is damaged; compare with a backup")
    return content, kind
