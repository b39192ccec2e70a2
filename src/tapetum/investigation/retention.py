"""Erasing sightings with everything that belongs to them, at request or when they are too old.

Of a sighting a gallery's folder holds row, vector and crop (the store's), and a line in the list of its source. All of
them go. What stays is a digest of its id in ``erased.txt``: from it nobody can tell who or what it was, and indexing
the same footage again knows that this sighting must not come back.
"""

import hashlib
from pathlib import Path

from tapetum.core.errors import OutputError

ERASED = "erased.txt"


def digest_id(name: str) -> str:
    """What is kept of an erased sighting.

    Args:
        name: its id.
    """
    return hashlib.sha256(f"erased {name}".encode()).hexdigest()[:32]


def read_erased(folder: Path) -> set[str]:
    """Digests of every sighting that was erased from a gallery.

    Args:
        folder: of the gallery.
    Raises:
        OutputError: the file cannot be read.
    """
    try:
        return set((folder / ERASED).read_text(encoding="ascii").split())
    except FileNotFoundError:
        return set()
    except (OSError, ValueError) as error:
        raise OutputError(
            f"{folder / ERASED}: cannot be read ({error}), and without it erased sightings could come back; "
            "restore it from a backup"
        ) from None
