import errno
import os
from pathlib import Path

import pytest

from tapetum.core.atomic import make_folder, replacing, write_bytes, write_with
from tapetum.core.errors import OutputError


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, ValueError])
def test_interrupted_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, interruption: type[BaseException]
) -> None:
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")

    def write(file: object) -> None:
        file.write(b"half of the n")
        raise interruption

    with pytest.raises(interruption):
        write_with(path, write)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a.bin"]


def test_full_disk_becomes_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    def write(file: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OutputError, match=r"a\.bin: cannot be written \(No space left on device\); free space"):
        write_with(tmp_path / "a.bin", write)
    assert names(tmp_path) == []


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write_bytes(tmp_path / "gone" / "a.bin", b"x")


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="the folder cannot be made"):
        make_folder(tmp_path / "file" / "folder")


def test_block_that_writes_nothing_is_an_error_and_keeps_the_old_file(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a.bin", b"old")
    with pytest.raises(OutputError), replacing(tmp_path / "a.bin"):
        pass
    assert (tmp_path / "a.bin").read_bytes() == b"old"


def test_a_file_and_its_name_are_on_the_disk_before_it_counts_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[Path] = []
    monkeypatch.setattr("tapetum.core.atomic.flush", flushed.append)
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("x")
    assert flushed == [temporary, tmp_path]
    with replacing(tmp_path / "b.txt", durable=False) as temporary:
        temporary.write_text("x")
    assert flushed[2:] == []


def test_another_file_that_cannot_be_read_is_not_said_to_be_unwritable(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a.txt", b"old")
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a.txt"):
        (tmp_path / "source.txt").read_bytes()
    assert names(tmp_path) == ["a.txt"]
