"""What all lists below a folder name, for the tests of footage, indices and retention."""

from collections.abc import Iterator
from pathlib import Path

from tapetum.core.sighting import Sighting
from tapetum.footage.lists import LISTS, read_list


def read_all_sightings(out: Path) -> Iterator[Sighting]:
    """The sightings of every finished source below a folder, as `read_list` has them."""
    for path in sorted((out / LISTS).glob("[!.]*.jsonl")):  # . is a begun one
        yield from read_list(path)
