"""The list of a source, written once its crops are safe."""

import os
from pathlib import Path

import pytest

from street_clip import street, write_clip
from tapetum.footage.lists import ListCounts, list_path, writing_list
from tapetum.footage.sources import find_sources


def test_the_names_of_crops_are_on_the_disk_before_the_list_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = find_sources([write_clip(tmp_path / "yard.mp4", [street(0)] * 2)])[0]
    crops, written = tmp_path / "crops" / "ab", list_path(tmp_path, "ab")
    crops.mkdir(parents=True)
    sync, listed_at_sync = os.fsync, list[bool]()

    def watch(descriptor: int) -> None:
        if os.path.samestat(os.fstat(descriptor), crops.stat()):
            listed_at_sync.append(written.exists())
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    with writing_list(tmp_path, "ab", source, "seeing", ListCounts):
        pass
    assert listed_at_sync == [False]
    assert written.exists()
