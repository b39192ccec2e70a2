"""What a gallery holds: a row is a sighting and the run that embedded it; the fields a filter may name."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tapetum.core.arrays import Real
from tapetum.core.errors import GalleryError
from tapetum.core.sighting import Sighting
from tapetum.core.types import Modality

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1  # of everything a gallery writes; a gallery of a newer one is refused
CROPS = "crops"  # the folder in a gallery under which every crop lies
SHARDS = "shards"  # and the work in hand of many processes, see `tapetum.indexing.shards`
NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")  # of a camera, of a row: Milvus's client pages by id without quoting it
LONGEST = {"id": 200}  # bytes of UTF-8 a text may have; Milvus wants it declared
LONGEST_TEXT = 4096

Kind = Literal["text", "number", "time", "modality"]
FIELDS: dict[str, Kind] = {  # what a filter may name, in the order shown to people
    "camera": "text",
    "time": "time",
    "modality": "modality",
    "light": "number",
    "quality": "number",
    "tracklet": "text",
    "source": "text",
    "frame": "number",
    "id": "text",
    "remark": "text",
    "run": "text",
    "model": "text",
    "runtime": "text",
    "precision": "text",
}
TEXTS = ("id", "source", "camera", "tracklet", "remark", "crop", "run", "model", "runtime", "precision")
WHOLES = ("frame", "left", "top", "width", "height", "modality")
REALS = ("time", "light", "quality")


@dataclass(frozen=True)
class ModelInfo:
    """The model whose embeddings a gallery holds.

    Attributes:
        id: names weights, picture size and normalisation together; equal ids mean comparable embeddings.
        place: the run or artefact it was opened from when the gallery was made, so that a search finds it; may be
            empty, and may have moved since.
    """

    id: str
    dimension: int
    description: str = ""
    place: str = ""


@dataclass(frozen=True)
class Run:
    """Who made an embedding.

    Attributes:
        name: of the indexing run, so that all it brought can be found again; may be empty.
    """

    model: str
    runtime: str
    precision: str
    name: str = ""


@dataclass(frozen=True)
class Row:
    """One crop of a gallery: what is known about it, and who embedded it."""

    sighting: Sighting
    run: Run


@dataclass(frozen=True)
class Entries:
    """Rows with their embeddings.

    Attributes:
        matrix: (N, D) with unit L2 norm, in the same order.
    """

    rows: tuple[Row, ...]
    matrix: Real

    @property
    def vectors(self) -> "Tensor":
        """`matrix` as a tensor, for programs that compute with PyTorch."""
        import torch

        return torch.from_numpy(self.matrix)


@dataclass(frozen=True)
class Hit:
    """One answer of a search.

    Attributes:
        similarity: cosine in [-1, 1].
        rank: counted from 1.
    """

    row: Row
    similarity: float
    rank: int


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        hits: one tuple a query, best first.
        exact: every row that passes the filter was compared.
        recall: of an approximate search, the measured share of the ten nearest rows that it finds; None where exact,
            and where none was measured with its filter.
    """

    hits: tuple[tuple[Hit, ...], ...]
    exact: bool
    recall: float | None


def flatten(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Column name to values, as every store keeps them."""
    sightings = [row.sighting for row in rows]
    columns: dict[str, list[Any]] = {
        name: [getattr(sighting, name) for sighting in sightings]
        for name in ("id", "source", "camera", "tracklet", "remark", "crop", "frame")
    }
    for position, name in enumerate(("left", "top", "width", "height")):
        columns[name] = [int(sighting.box[position]) for sighting in sightings]
    columns["modality"] = [int(sighting.modality) for sighting in sightings]
    for name in REALS:
        columns[name] = [float(getattr(sighting, name)) for sighting in sightings]
    columns["run"] = [row.run.name for row in rows]
    for name in ("model", "runtime", "precision"):
        columns[name] = [getattr(row.run, name) for row in rows]
    return columns


def unflatten(values: Mapping[str, Any]) -> Row:
    """One row from its column values."""
    sighting = Sighting(
        id=values["id"],
        source=values["source"],
        camera=values["camera"],
        time=values["time"],
        frame=values["frame"],
        box=(values["left"], values["top"], values["width"], values["height"]),
        tracklet=values["tracklet"],
        modality=Modality(values["modality"]),
        light=values["light"],
        quality=values["quality"],
        remark=values["remark"],
        crop=values["crop"],
    )
    return Row(sighting, Run(values["model"], values["runtime"], values["precision"], values["run"]))


def check_rows(rows: Iterable[Row], info: ModelInfo, where: str) -> None:
    """Refuse rows that a gallery cannot keep or that another model made."""
    seen: set[str] = set()
    for row in rows:
        sighting = row.sighting
        place = f"{where}: row {sighting.id!r}"
        if row.run.model != info.id:
            raise GalleryError(
                f"{place} was embedded by model {row.run.model!r}, the gallery holds {info.id!r}; "
                "embeddings of two models cannot be compared: use that model or another gallery"
            )
        if not NAME.fullmatch(sighting.id):
            raise GalleryError(f"{place}: want an id of 1 to 200 letters, digits, '.', '_' and '-'")
        if sighting.id in seen:
            raise GalleryError(f"{place}: comes twice in one batch; give each row its own id")
        seen.add(sighting.id)
        texts = {name: getattr(sighting, name) for name in TEXTS[:6]}
        texts |= {"run": row.run.name, "runtime": row.run.runtime, "precision": row.run.precision}
        for name, text in texts.items():
            check_text(text, LONGEST.get(name, LONGEST_TEXT), f"{place}: {name}")
        if not NAME.fullmatch(sighting.camera):
            raise GalleryError(f"{place}: camera={sighting.camera!r}; use letters, digits, '.', '_' and '-'")
        if not (math.isfinite(sighting.time) and 0 <= sighting.light <= 255 and 0 <= sighting.quality <= 1):
            raise GalleryError(
                f"{place}: time={sighting.time}, light={sighting.light}, quality={sighting.quality}; "
                "want a finite time, light in 0..255 and quality in 0..1"
            )
        if len(sighting.box) != 4 or not all(-(2**31) <= value < 2**31 for value in (*sighting.box, sighting.frame)):
            raise GalleryError(
                f"{place}: box={sighting.box}, frame={sighting.frame}; want four whole numbers and one, of 32 bits"
            )
        if sighting.crop and not lies_under_crops(sighting.crop):
            raise GalleryError(f"{place}: crop={sighting.crop!r}; crops lie under {CROPS}/ in the gallery's folder")


def lies_under_crops(crop: str) -> bool:
    """Whether the place of a crop, relative to a gallery's folder, is one where crops may lie."""
    parts = crop.split("/")
    return parts[0] == CROPS and len(parts) > 1 and not {"", ".", ".."} & set(parts)


def check_text(text: str, longest: int, place: str) -> None:
    """Refuse text that some store or terminal would garble.

    Args:
        longest: bytes of UTF-8 it may have.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise GalleryError(f"{place}={text!r} is no valid text; rename the file or camera") from None
    if size > longest:
        raise GalleryError(f"{place}={text[:40]!r}... has {size} bytes, at most {longest} fit; use a shorter one")
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in text):
        raise GalleryError(f"{place}={text!r} has control characters; remove them")
