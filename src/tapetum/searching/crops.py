"""Crops of a gallery as files to give out; nothing else below the folder, or outside it, can be reached."""

import os
from pathlib import Path

from tapetum.core.unlinked import open_unlinked
from tapetum.gallery.schema import Row, lies_under_crops
from tapetum.gallery.store import Store

LARGEST_CROP = 64 * 2**20  # bytes
ENDINGS = {"image/jpeg": ".jpg", "image/png": ".png", "image/webp": ".webp", "image/bmp": ".bmp"}  # browsers show these
_BMP_HEADERS = {size.to_bytes(4, "little") for size in (12, 40, 52, 56, 64, 108, 124)}


def crop_path(store: Store, row: Row) -> Path | None:
    """Where a row's picture is; None where it has none, or where a link would lead elsewhere."""
    if store.folder is None or not lies_under_crops(row.sighting.crop):
        return None
    path = store.folder.resolve() / row.sighting.crop
    return path if path.resolve() == path and path.is_file() else None


def read_crop(store: Store, row: Row) -> bytes | None:
    """A crop's file as it lies in the gallery; None where it is not there, lies outside, or is too large."""
    path = crop_path(store, row)
    if path is None:
        return None
    try:
        with os.fdopen(open_unlinked(path, os.O_RDONLY), "rb") as file:
            content = file.read(LARGEST_CROP + 1)
    except OSError:
        return None
    return content if len(content) <= LARGEST_CROP else None


def tell_kind(content: bytes) -> str | None:
    """The media type of a picture by its first bytes; None of anything else."""
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "image/webp"
    if content.startswith((b"II*\0", b"MM\0*")):
        return "image/tiff"
    if content.startswith(b"BM") and len(content) > 26 and content[14:18] in _BMP_HEADERS:
        return "image/bmp"
    return None
