"""Opening a file itself, never what a link of its name leads to."""

import errno
import os
from pathlib import Path

_PLAINLY = getattr(os, "O_BINARY", 0)  # Windows would change the ends of lines


def open_unlinked(path: Path, flags: int, mode: int = 0o600) -> int:
    """A descriptor of a file, as by `os.open`.

    Windows cannot refuse links while it opens: there a link is refused just before, and one that is made in between is
    followed.

    Args:
        mode: of a file that is made.
    Raises:
        OSError: it is a link, or cannot be opened.
    """
    no_follow = getattr(os, "O_NOFOLLOW", 0)
    if not no_follow and path.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return os.open(path, flags | no_follow | _PLAINLY, mode)
