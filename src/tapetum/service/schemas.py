"""What the API takes and gives, as its OpenAPI document says it."""

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from tapetum.footage.clock import format_time
from tapetum.footage.facts import SourceOptions
from tapetum.gallery.filters import MODALITIES, parse_time
from tapetum.gallery.schema import Row
from tapetum.searching.find import SAID, Findings, Hard
from tapetum.searching.query import Query
from tapetum.searching.question import ModalityName, Question, RequestBody, RowSelection, Text, Time
from tapetum.service.limits import MOST_SEARCHES, SEARCH_HOURS
from tapetum.service.uploads import MOST_PICTURES

Name = Annotated[str, Field(min_length=1, max_length=200)]


class SearchOptions(Question):
    """How to search."""

    where: RowSelection = RowSelection()
    k: int = Field(default=20, ge=1, le=200, description="answers for each query")


class SearchRows(SearchOptions):
    """A search for the person on rows of the gallery, on a tracklet, or of an earlier search."""

    rows: list[Name] = Field(default=[], max_length=100)
    tracklet: Text | None = None
    search: Name | None = Field(default=None, description="id of an earlier search, to repeat with other options")


class LookAtPictures(RequestBody):
    """What goes with pictures that are only looked at."""

    boxes: list[Annotated[list[int], Field(min_length=4, max_length=4)] | None] = Field(
        default=[],
        max_length=MOST_PICTURES,
        description="for each picture left, top, width, height of the person in it, or null",
    )


class SearchPictures(SearchOptions, LookAtPictures):
    """What goes with uploaded pictures."""

    modality: ModalityName | None = Field(default=None, description="of the pictures; null tells it by each picture")
    separate: bool = Field(
        default=False, description="each picture is a query of its own, instead of all being one person"
    )


class LookedAt(BaseModel):
    """A picture to search with, before it is searched."""

    label: str
    remark: str = Field(description="what spoils it, e.g. too dark to match; empty where nothing does")
    doubt: str = Field(
        description="why it may not show one person, as words after 'it is'; empty where nothing says so"
    )


class LookedOut(BaseModel):
    """Pictures to search with."""

    pictures: list[LookedAt]


class RowOut(BaseModel):
    """One crop of the gallery."""

    id: str
    camera: str
    time: float
    time_text: str
    tracklet: str
    modality: ModalityName
    light: float
    quality: float
    remark: str
    uncertain: str = Field(description="why time or camera of an answer may be another; empty elsewhere")
    source: str
    frame: int
    box: tuple[int, int, int, int]
    crop: str | None = Field(description="address of its picture")
    model: str
    runtime: str
    precision: str
    run: str


class FoundOut(BaseModel):
    """One answer."""

    rank: int
    row: RowOut
    similarity: float = Field(description=SAID["similarity"])
    probability: float | None = Field(description=f"{SAID['probability']}; null where that is not calibrated")
    accepted: bool | None = Field(description=f"a match: {SAID['match']}; null where that is not calibrated")
    members: list[RowOut] = Field(description="all that was found of this tracklet or identity, `row` first")


class FindingsOut(BaseModel):
    """Answers to one query."""

    labels: list[str]
    remarks: list[str] = Field(description="what spoils each query picture, e.g. too dark to match")
    doubts: list[list[str]] = Field(
        description="what makes it doubtful that each query picture shows one person; it was searched all the same"
    )
    verdict: str
    matches: int | None
    guess: bool = Field(
        description="the model was calibrated with generated people: where pictures show real ones, matches and "
        "probabilities are a guess"
    )
    exact: bool
    recall: float | None = Field(
        description="of an approximate search, what share of the ten nearest rows it finds; null where each row was "
        "compared, and where it was not measured with this filter"
    )
    searched: int = Field(description="rows that passed the filter")
    hard: Hard
    seconds: float
    found: list[FoundOut]


class SearchOut(BaseModel):
    """Answers to a search."""

    search: str = Field(
        description=f"id, good for {SEARCH_HOURS} h and {MOST_SEARCHES - 1} further searches: to repeat it, or to "
        "export it"
    )
    filter: str
    queries: list[FindingsOut]


class BrowseRows(RequestBody):
    """Rows in the order of time."""

    where: RowSelection = RowSelection()
    offset: int = Field(default=0, ge=0, le=10_000_000)
    limit: int = Field(default=50, ge=1, le=200)


class BrowseOut(BaseModel):
    """A page of rows."""

    total: int
    offset: int
    rows: list[RowOut]


class TrackletOut(BaseModel):
    """One walk through a camera's view."""

    tracklet: str
    rows: list[RowOut]


class CameraOut(BaseModel):
    """What one camera saw."""

    camera: str
    rows: int
    first: float
    last: float
    counts: list[int] = Field(description="rows in each part of the time line")


class TimelineOut(BaseModel):
    """When cameras saw somebody."""

    start: float
    end: float
    bins: int
    cameras: list[CameraOut]


class GalleryOut(BaseModel):
    """The gallery and its model."""

    rows: int
    model: str
    dimension: int
    description: str
    method: str
    runtime: str
    precision: str
    calibrated: list[str] = Field(description="pairs of modalities whose similarities have a probability")
    rates: list[float] = Field(description="rates of false alarms that the calibration was checked at")


class DeleteRows(RequestBody):
    """Which rows to remove for good; at least one field of `where` is needed."""

    where: RowSelection
    dry_run: bool = Field(default=False, description="only count")


class DeleteOut(BaseModel):
    """What was removed."""

    rows: int
    dry_run: bool


class NewJob(RequestBody):
    """Footage to index."""

    path: Text = Field(description="ROOT/FOLDER/FILE below a root of `--footage-root`; see /footage")
    kind: Literal["crops", "frames"] | None = None
    camera: Name | None = None
    start: Time | None = None
    utc_offset_hours: float = Field(default=0.0, ge=-14, le=14)
    frames_per_second: float = Field(default=10.0, gt=0, le=1000)
    modality: ModalityName | None = None
    run: Annotated[str, Field(max_length=200)] = ""

    def to_options(self) -> SourceOptions:
        """How its sources are read.

        Raises:
            TapetumError: one of the values will not do.
        """
        return SourceOptions(
            kind=self.kind,
            camera=self.camera,
            start=parse_time(self.start) if isinstance(self.start, str) else self.start,
            utc_offset_hours=self.utc_offset_hours,
            frames_per_second=self.frames_per_second,
            modality=None if self.modality is None else MODALITIES[self.modality],
        )


class FootageEntry(BaseModel):
    """A file or folder that a job may read."""

    path: str
    folder: bool


class FootageOut(BaseModel):
    """What is below a place of the footage roots."""

    path: str
    entries: list[FootageEntry]


class NewCase(RequestBody):
    """A search to put into one file."""

    search: Name = Field(description="id of a search of the last hour")
    title: Annotated[str, Field(max_length=200)] = ""
    notes: Annotated[str, Field(max_length=20_000)] = ""
    format: Literal["html", "zip"] = "zip"


class LogIn(RequestBody):
    """Name and password, or the token printed at the start."""

    name: Annotated[str, Field(max_length=64)] = ""
    password: Annotated[str, Field(max_length=1024)] = ""
    token: Annotated[str, Field(max_length=200)] = ""


class WhoOut(BaseModel):
    """Who is asking."""

    name: str
    role: str = Field(description="search, index or administer")
    by: str
    csrf: str = Field(description="to send as X-CSRF-Token with every change; empty without a session")
    expires: float | None


class ErrorOut(BaseModel):
    """Why a request was refused."""

    error: str
    id: str | None = Field(default=None, description="of an unexpected error, as in the server's log")


class StateOut(BaseModel):
    """Health."""

    status: Literal["alive", "ready"]


def show_row(row: Row, name: Callable[[str], str], uncertain: str = "") -> RowOut:
    """A row as the API gives it.

    Args:
        name: of its source, as clients know it.
        uncertain: why its time or camera may be another.
    """
    sighting = row.sighting
    about = vars(sighting) | vars(row.run)
    return RowOut(
        **about
        | {
            "time_text": format_time(sighting.time),
            "modality": sighting.modality.name.lower(),
            "source": name(sighting.source),
            "crop": f"/api/v1/rows/{sighting.id}/crop" if sighting.crop else None,
            "run": row.run.name,
            "uncertain": uncertain,
        }
    )


def show_findings(query: Query, findings: Findings, name: Callable[[str], str]) -> FindingsOut:
    """Answers to a query as the API gives them.

    Args:
        name: of a source, as clients know it.
    """

    def show(row: Row) -> RowOut:
        return show_row(row, name, findings.uncertain.get(row.sighting.id, ""))

    answers = [
        FoundOut(**vars(answer) | {"row": show(answer.row), "members": [show(each) for each in answer.rows]})
        for answer in findings.found
    ]
    return FindingsOut(
        **vars(findings) | {"labels": query.labels, "remarks": query.remarks, "doubts": query.doubts, "found": answers}
    )
