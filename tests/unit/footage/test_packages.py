import hashlib
import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from detector_files import write_package
from tapetum.core.errors import DataError
from tapetum.footage import packages as module
from tapetum.footage.packages import Package, fetch_package, read_package

NETWORK = "package/network.bin"


def known(path: Path) -> Package:
    return Package("@some/body", "1.0.0", hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_package(tmp_path / "some-body-1.0.0.tgz", {NETWORK: b"weights", "package/other": b"x" * 1000})


def npm_that(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """The first npm on the path is one that runs a script; `$DESTINATION` is where it shall pack to.

    As the real one it is mute where it is told to be silent.
    """
    folder.mkdir()
    program = folder / "npm"
    mute = '[ "$word" = --silent ] && exec 2>/dev/null'
    program.write_text(f'#!/bin/sh\nfor word; do DESTINATION="$word"; {mute}; done\n{script}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/bin{os.pathsep}/usr/bin")


def test_wanted_files_are_read_and_nothing_is_unpacked(archive: Path) -> None:
    assert read_package(known(archive), archive, {NETWORK: 100}) == {NETWORK: b"weights"}
    assert sorted(path.name for path in archive.parent.iterdir()) == [archive.name]


def test_another_version_is_named(archive: Path, tmp_path: Path) -> None:
    newer = write_package(tmp_path / "newer.tgz", {NETWORK: b"others"}, version="1.0.1")
    with pytest.raises(DataError, match=r"is @some/body@1\.0\.1, SHA-256 .* where @some/body@1\.0\.0") as told:
        read_package(known(archive), newer, {NETWORK: 100})
    assert str(told.value).endswith("fetch that: npm pack @some/body@1.0.0")


def test_the_right_version_with_another_content_is_refused(archive: Path, tmp_path: Path) -> None:
    changed = write_package(tmp_path / "changed.tgz", {NETWORK: b"Weights"})
    with pytest.raises(DataError, match=r"is @some/body@1\.0\.0, SHA-256"):
        read_package(known(archive), changed, {NETWORK: 100})


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08\x00"])
def test_what_is_no_package_is_named(archive: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.tgz").write_bytes(content)
    with pytest.raises(DataError, match="is no package, or a damaged one"):
        read_package(known(archive), tmp_path / "x.tgz", {NETWORK: 100})
    with pytest.raises(DataError, match=r"gone\.tgz: cannot be read"):
        read_package(known(archive), tmp_path / "gone.tgz", {NETWORK: 100})


def test_a_package_cut_short_is_damaged_even_where_it_is_expected(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(DataError, match="is a damaged archive"):
        read_package(known(archive), archive, {"package/last": 100})


def test_a_file_that_is_missing_too_large_or_a_link_is_refused(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no package/gone"):
        read_package(known(archive), archive, {"package/gone": 100})
    with pytest.raises(DataError, match="is no plain file of at most 3 bytes"):
        read_package(known(archive), archive, {NETWORK: 3})
    linked = tmp_path / "linked.tgz"
    with tarfile.open(linked, "w:gz") as made:
        link = tarfile.TarInfo(NETWORK)
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        made.addfile(link)
    with pytest.raises(DataError, match="is no plain file"):
        read_package(known(linked), linked, {NETWORK: 100})


def test_an_archive_that_unpacks_to_more_than_allowed_is_refused(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LARGEST_CONTENT", 500)
    with pytest.raises(DataError, match="unpacks to more than"):
        read_package(known(archive), archive, {"package/last": 100})
    monkeypatch.setattr(module, "_LARGEST_PACKAGE", 10)
    with pytest.raises(DataError, match="MiB, more than"):
        read_package(known(archive), archive, {NETWORK: 100})


def test_paths_outside_are_nobody_s_business(tmp_path: Path) -> None:
    outside = tmp_path / "outside.tgz"
    with tarfile.open(outside, "w:gz") as made:
        for label in ("../../escaped", "/escaped", NETWORK):
            member = tarfile.TarInfo(label)
            member.size = 4
            made.addfile(member, io.BytesIO(b"data"))
    assert read_package(known(outside), outside, {NETWORK: 100}) == {NETWORK: b"data"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside.tgz"]


def test_npm_packs_into_the_folder(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm_that(tmp_path / "bin", monkeypatch, f'echo "$@" > {tmp_path}/words\ncp {archive} "$DESTINATION"')
    (tmp_path / "packed").mkdir()
    assert fetch_package(known(archive), tmp_path / "packed").read_bytes() == archive.read_bytes()
    words = (tmp_path / "words").read_text().split()
    assert words[:3] == ["pack", "@some/body@1.0.0", "--ignore-scripts"]


def test_without_npm_the_way_by_hand_is_told(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match=r"npm is not installed here; .* run `npm pack @some/body@1\.0\.0`.* --file"):
        fetch_package(known(archive), tmp_path)


def test_without_a_network_npm_s_reason_is_told(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = (
        "npm error code ENOTFOUND\nnpm error syscall getaddrinfo\nnpm error errno ENOTFOUND\n"
        "npm error network request to the registry failed\nnpm error A complete log of this"
    )
    npm_that(tmp_path / "bin", monkeypatch, f"echo '{said}' >&2\nexit 1")
    (tmp_path / "packed").mkdir()
    with pytest.raises(
        DataError, match=r"\(code ENOTFOUND; network request to the registry failed\); check the network"
    ):
        fetch_package(known(archive), tmp_path / "packed")


@pytest.mark.skipif(shutil.which("npm") is None, reason="there is no npm here (install Node.js to run this)")
def test_the_real_npm_s_reason_is_told(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")  # a port at which nobody listens
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
    (tmp_path / "packed").mkdir()
    with pytest.raises(
        DataError, match=r"could not fetch it \(code ECONNREFUSED; .*127\.0\.0\.1:9.*\); check the netw"
    ):
        fetch_package(known(archive), tmp_path / "packed")


def test_an_npm_that_hangs_or_packs_nothing_is_told(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npm_that(tmp_path / "bin", monkeypatch, "exec sleep 20")
    monkeypatch.setattr(module, "_SECONDS", 0.2)
    (tmp_path / "packed").mkdir()
    with pytest.raises(DataError, match=r"npm took longer than 0\.2 s"):
        fetch_package(known(archive), tmp_path / "packed")
    (tmp_path / "bin" / "npm").write_text("#!/bin/sh\nexit 0\n")
    monkeypatch.setattr(module, "_SECONDS", 20)
    with pytest.raises(DataError, match="it ended with status 0"):
        fetch_package(known(archive), tmp_path / "packed")
