"""People before a visible and an infrared camera."""

from dataclasses import replace
from pathlib import Path

import pytest

from tapetum.core.protocol import Protocol
from tapetum.core.types import Modality
from tapetum.data.catalog import Dataset, open_dataset

DIRECTIONS = [
    Protocol(name, query_modality=one, gallery_modality=other, junk="none", trials=10, drawn="gallery")
    for name, one, other in (
        ("infrared_to_visible", Modality.INFRARED, Modality.VISIBLE),
        ("visible_to_infrared", Modality.VISIBLE, Modality.INFRARED),
    )
]


@pytest.fixture(scope="session")
def two_modalities(people: Path) -> Dataset:
    """Camera 2 counts as infrared, and a protocol says who searches."""
    records = tuple(
        replace(
            record,
            modality=Modality(record.camid - 1),
            split="train" if record.split == "train" else "test",
        )
        for record in open_dataset("night600", people).records
        if record.split in ("train", "gallery")
    )
    return Dataset("night600", people, records, {rules.name: rules for rules in DIRECTIONS}, "infrared_to_visible")
