"""Rows, vectors and crops for the tests of galleries."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from tapetum.core.sighting import Sighting
from tapetum.core.types import Modality
from tapetum.gallery.schema import ModelInfo, Row, Run

DIMENSION = 32
MODEL = ModelInfo("idf-1234", DIMENSION, "IDF for tests")
RUN = Run(MODEL.id, "torch", "fp32", "first night")
CAMERAS = ("c1", "c2", "c3")
NIGHT = 1_795_291_200.0  # 2026-11-21 20:00 UTC


def a_row(number: int) -> Row:
    sighting = Sighting(
        id=f"row{number:05d}",
        source=f"night{number % 2}.mp4",
        camera=CAMERAS[number % 3],
        time=NIGHT + 60.0 * number + 1 / 3,
        frame=number,
        box=(number, 2, 30, 80),
        tracklet=f"{CAMERAS[number % 3]}-{number // 5}",
        modality=Modality(number % 2),
        light=float(number % 256),
        quality=(number % 101) / 100,
        remark="too dark to match" if number % 101 < 5 else "",
        crop="",
    )
    return Row(sighting, RUN)


def some_rows(count: int, first: int = 0) -> list[Row]:
    return [a_row(number) for number in range(first, first + count)]


def some_vectors(count: int, seed: int = 0, dimension: int = DIMENSION) -> Tensor:
    return functional.normalize(torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed)))


def with_crops(folder: Path, rows: list[Row]) -> list[Row]:
    """The same rows, each with a crop written to the gallery's folder."""
    told = []
    for row in rows:
        crop = f"crops/{row.sighting.camera}/{row.sighting.id}.jpg"
        (folder / crop).parent.mkdir(parents=True, exist_ok=True)
        (folder / crop).write_bytes(crop_bytes(row.sighting.id))
        told.append(replace(row, sighting=replace(row.sighting, crop=crop)))
    return told


def crop_bytes(name: str) -> bytes:
    return b"\xff\xd8 the picture of " + name.encode() * 20


def files_with(folder: Path, content: bytes) -> list[Path]:
    """Every file below a folder whose bytes contain this."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and content in path.read_bytes()]
