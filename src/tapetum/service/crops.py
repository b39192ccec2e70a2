"""Crops of the gallery as files to give out; nothing else below the folder, or outside it, can be reached."""

import os
from pathlib import Path

from tapetum.gallery.schema import CROPS, Row
from tapetum.gallery.store import Store
from tapetum.service.errors import NotFoundError
from tapetum.service.uploads import tell_kind

MOST_BYTES = 64 * 2**20


def crop_path(store: Store, row: Row) -> Path | None:
    """Where a row's picture is; None where it has none, or where a link would lead elsewhere.

    Args:
        row: of it.
    """
    parts = row.sighting.crop.split("/")
    if store.folder is None or parts[0] != CROPS or len(parts) < 2 or {"", ".", ".."} & set(parts):
        return None
    folder = store.folder.resolve()
    path = folder.joinpath(*parts)
    if path.resolve() != path or not path.is_file():
        return None
    return path


def read_crop(store: Store, row_id: str) -> tuple[bytes, str]:
    """The picture of a row: content and media type.

    Args:
        row_id: of the row.
    Raises:
        NotFoundError: no such row, or no picture.
    """
    rows = store.fetch_rows([row_id])
    path = crop_path(store, rows[0]) if rows else None
    if path is None:
        raise NotFoundError(f"row {row_id[:200]!r}: there is no such row with a picture")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb") as file:
            content = file.read(MOST_BYTES)
    except OSError:
        raise NotFoundError(f"row {row_id!r}: its picture was removed just now") from None
    kind = tell_kind(content)
    if kind is None:
        raise NotFoundError(f"row {row_id!r}: its picture is damaged; compare with a backup")
    return content, kind
