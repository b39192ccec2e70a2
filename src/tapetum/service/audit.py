"""What was done in a gallery, by whom and when: a file of lines that is only ever added to.

Each line is JSON and holds the SHA-256 of the line before it, so that a line that was changed, removed or put in
between later is noticed. Lines cut off at the end are noticed by whoever has noted a later digest (`verify_log`).
Nothing secret is in it: no password, no key, no picture; a query is named by a hash of its thumbnail.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from tapetum.core.atomic import make_folder, write_bytes
from tapetum.core.errors import OutputError, TapetumError
from tapetum.core.locks import locked
from tapetum.core.unlinked import open_unlinked
from tapetum.data.image_io import Picture, resize

FILE = "audit.jsonl"
FIRST = "0" * 64  # stands before the first line
_THUMBNAIL = (64, 32)
_TAIL = 1 << 16  # bytes read at the end of the file for its last lines, first
_PROBE_BYTES = 1 << 12  # more than a usual line takes, and a whole block of the disk


class AuditError(TapetumError):
    """The log was changed, or cannot be read."""


@dataclass(frozen=True)
class Verdict:
    """What a look through the log says."""

    lines: int  # whole ones, all linked
    cut_off: int  # that were being written when the machine stopped; what they were to say was never done
    digest: str  # SHA-256 of the last line; noted elsewhere, it proves later that nothing was cut off the end


class AuditLog:
    """The log of one gallery, in its folder for the service; several processes may write to it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    def write(self, action: str, who: str, **facts: Any) -> None:
        """Add a line; when this returns, it is on the disk.

        Args:
            action: e.g. "search".
            facts: what else is known, plain values.
        Raises:
            OutputError: it cannot be written; what it was to say must not be done then.
        """
        make_folder(self.path.parent)
        with locked(self.path.with_suffix(".lock"), None):
            try:
                self._append(action, who, facts)
            except OSError as error:
                raise _unwritable(self.path, error) from error

    def check_writable(self) -> None:
        """Try whether a line could be added now, without adding one.

        Raises:
            OutputError: it could not.
        """
        probe = self.path.with_suffix(".probe")
        make_folder(self.path.parent)
        write_bytes(probe, bytes(_PROBE_BYTES))
        try:
            probe.unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):  # nothing was written down yet
                os.close(self._open(create=False))
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def _open(self, *, create: bool = True) -> int:
        return open_unlinked(self.path, os.O_RDWR | os.O_APPEND | (os.O_CREAT if create else 0))

    def _append(self, action: str, who: str, facts: Mapping[str, Any]) -> None:
        descriptor = self._open()
        try:
            size = os.fstat(descriptor).st_size
            last = read_last(descriptor, size)
            line = {
                "time": datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="milliseconds"),
                "action": action,
                "who": who,
                **facts,
                "before": FIRST if last is None else digest_of(last.rstrip(b"\n")),
            }
            text = json.dumps(line, ensure_ascii=True).encode() + b"\n"
            if last is not None and not last.endswith(b"\n"):
                text = b"\n" + text  # ends a line that was cut off
            position = 0
            while position < len(text):
                position += os.write(descriptor, text[position:])
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_last(descriptor: int, size: int) -> bytes | None:
    """The last line of an open file of so many bytes, with its end where it has one; None of an empty file."""
    return _read_tail(descriptor, size, 1) if size else None


def _read_tail(descriptor: int, size: int, lines: int) -> bytes:
    """The last lines of an open file, as many as it has; what stands before them is not read, but for a part."""
    step = _TAIL
    while True:
        start = max(0, size - step)
        os.lseek(descriptor, start, os.SEEK_SET)  # lines are appended wherever it stands
        tail = os.read(descriptor, size - start)
        begin = len(tail) - 1  # the last byte ends the last line, or belongs to it
        for _ in range(lines):
            begin = tail.rfind(b"\n", 0, begin)
            if begin < 0:
                break
        if begin >= 0 or start == 0:
            return tail[begin + 1 :]
        step *= 4


def digest_of(line: bytes) -> str:
    """SHA-256 of a line without its end."""
    return hashlib.sha256(line).hexdigest()


def verify_log(path: Path, noted: str | None = None) -> Verdict:
    """Look through a log.

    Args:
        noted: a digest that an earlier look gave; it must be that of some line.
    Raises:
        AuditError: a line was changed, removed or put in between, or the noted one is gone.
    """
    before, whole, cut_off, met = FIRST, 0, 0, noted is None
    broken_number: int | None = None  # of a line that is no JSON; one that was cut off is followed by a linked one
    for number, line in enumerate(_lines(path), 1):
        try:
            link = json.loads(line)["before"]
        except (ValueError, KeyError, TypeError):
            if broken_number is not None:
                raise _changed(path, number) from None
            broken_number, before = number, digest_of(line)
            continue
        if link != before:
            raise _changed(path, number)
        cut_off += broken_number is not None
        broken_number = None
        whole, before = whole + 1, digest_of(line)
        met = met or before == noted
    if broken_number is not None:
        cut_off += 1
    if not met:
        raise AuditError(
            f"{path}: no line has the digest {noted}; lines were cut off its end, or it is another gallery's: "
            "restore a backup"
        )
    return Verdict(whole, cut_off, before)


def read_log(path: Path, last: int | None = None) -> Iterator[dict[str, Any]]:
    """The lines of a log, oldest first; a line that was cut off is left out.

    Args:
        last: so many, the latest; None for all.
    Raises:
        AuditError: it cannot be read.
    """
    for line in _lines(path, last):
        try:
            content = json.loads(line)
        except ValueError:
            continue
        if isinstance(content, dict):
            yield content


def hash_thumbnail(picture: Picture) -> str:
    """Names a picture in the log without showing it: SHA-256 of its pixels at 64 x 32."""
    return hashlib.sha256(np.ascontiguousarray(resize(picture, _THUMBNAIL)).tobytes()).hexdigest()


def _lines(path: Path, last: int | None = None) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            lines = file if last is None else BytesIO(_read_tail(file.fileno(), size, last))
            for line in lines:
                yield line.rstrip(b"\n")
    except FileNotFoundError:
        raise AuditError(f"{path}: there is no log; nothing was done through the service yet") from None
    except OSError as error:
        raise AuditError(f"{path}: cannot be read ({error.strerror}); correct its permissions") from None


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path}: cannot be written ({error.strerror}); free space, nothing is done unrecorded")


def _changed(path: Path, number: int) -> AuditError:
    return AuditError(
        f"{path}: line {number} does not follow from the line before; one was changed, removed or put in: "
        "compare with a backup"
    )
