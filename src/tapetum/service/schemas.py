"""What the API takes and gives, as its OpenAPI document says it."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tapetum.core.types import Modality
from tapetum.footage.clock import format_time
from tapetum.gallery.filters import Among, And, Compare, Filter, as_filter
from tapetum.gallery.schema import Row
from tapetum.searching.find import SAID

MOST_IDS = 1000
Text = Annotated[str, Field(max_length=4096)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
ModalityName = Literal["visible", "infrared"]
Group = Literal["tracklet", "identity", "none"]
Time = Annotated[str | float, Field(description="ISO 8601 with its zone, or seconds since 1970-01-01 UTC")]


class RequestBody(BaseModel):
    """Base of what a client sends: an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RowSelection(RequestBody):
    """Which rows are meant; everything said must hold."""

    cameras: list[Text] = Field(default=[], max_length=MOST_IDS)
    since: Time | None = None
    until: Time | None = None
    modality: ModalityName | None = None
    min_quality: float | None = Field(default=None, ge=0, le=1)
    min_light: float | None = Field(default=None, ge=0, le=255)
    tracklets: list[Text] = Field(default=[], max_length=MOST_IDS)
    runs: list[Text] = Field(default=[], max_length=MOST_IDS)
    ids: list[Text] = Field(default=[], max_length=MOST_IDS)
    expression: str | None = Field(
        default=None, max_length=10_000, description="in the filter language of the documentation"
    )

    def to_filter(self) -> Filter | None:
        """As a checked filter; None where nothing is said.

        Raises:
            FilterError: a time without a zone, a wrong expression.
        """
        parts: list[Filter] = []
        for field, values in (
            ("camera", self.cameras),
            ("tracklet", self.tracklets),
            ("run", self.runs),
            ("id", self.ids),
        ):
            if values:
                parts.append(Among(field, tuple(values)))
        if self.since is not None:
            parts.append(Compare("time", ">=", self.since))
        if self.until is not None:
            parts.append(Compare("time", "<", self.until))
        if self.modality is not None:
            parts.append(Compare("modality", "==", self.modality))
        if self.min_quality is not None:
            parts.append(Compare("quality", ">=", self.min_quality))
        if self.min_light is not None:
            parts.append(Compare("light", ">=", self.min_light))
        if self.expression is not None and self.expression.strip():
            parts.append(as_filter(self.expression) or And(()))
        return as_filter(parts[0] if len(parts) == 1 else And(tuple(parts))) if parts else None


class SearchOptions(RequestBody):
    """How to search."""

    where: RowSelection = RowSelection()
    k: int = Field(default=20, ge=1, le=200, description="answers for each query")
    group: Group = "tracklet"
    exclude_seconds: float | None = Field(
        default=None, ge=0, le=1e9, description="leave out what the query's own camera saw so near in time"
    )
    rerank: bool = False
    exact: bool | None = Field(default=None, description="compare every row; null leaves it to the gallery's size")
    false_alarms: float | None = Field(
        default=None, gt=0, le=1, description="share of searches that may give a false match"
    )
    prior: float | None = Field(default=None, gt=0, lt=1, description="probability, before looking, of the same person")


class SearchRows(SearchOptions):
    """A search for the person on rows of the gallery, on a tracklet, or of an earlier search."""

    rows: list[Name] = Field(default=[], max_length=100)
    tracklet: Text | None = None
    search: Name | None = Field(default=None, description="id of an earlier search, to repeat with other options")


class SearchPictures(SearchOptions):
    """What goes with uploaded pictures."""

    modality: ModalityName | None = Field(default=None, description="of the pictures; null tells it by each picture")
    boxes: list[Annotated[list[int], Field(min_length=4, max_length=4)] | None] = Field(
        default=[], max_length=16, description="for each picture left, top, width, height of the person in it, or null"
    )
    separate: bool = Field(
        default=False, description="each picture is a query of its own, instead of all being one person"
    )


class LookAtPictures(RequestBody):
    """What goes with pictures that are only looked at."""

    boxes: list[Annotated[list[int], Field(min_length=4, max_length=4)] | None] = Field(
        default=[], max_length=16, description="for each picture left, top, width, height of the person in it, or null"
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


class HardOut(BaseModel):
    """Crops searched that are hardly found, whoever they show."""

    rows: int
    why: dict[str, int] = Field(description="too dark to match, cut by the frame's edge, too small: how many crops")


class FindingsOut(BaseModel):
    """Answers to one query."""

    labels: list[str]
    remarks: list[str] = Field(description="what spoils each query picture, e.g. too dark to match")
    doubts: list[list[str]] = Field(
        description="what makes it doubtful that each query picture shows one person; it was searched all the same"
    )
    verdict: str
    matches: int | None
    exact: bool
    recall: float | None
    searched: int = Field(description="rows that passed the filter")
    hard: HardOut
    seconds: float
    found: list[FoundOut]


class SearchOut(BaseModel):
    """Answers to a search."""

    search: str = Field(description="id, good for an hour and 31 further searches: to repeat it, or to export it")
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


class JobOut(BaseModel):
    """An index job."""

    id: str
    path: str
    state: Literal["waiting", "running", "done", "failed", "cancelled", "interrupted"]
    who: str
    made: float
    started: float | None
    ended: float | None
    done: int
    total: int
    message: str
    lines: list[str] = Field(description="the report, for people")
    report: dict[str, Any] = Field(description="the report, for programs")


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


def show_row(row: Row, name: Callable[[str], str]) -> RowOut:
    """A row as the API gives it.

    Args:
        row: of the gallery.
        name: of its source, as clients know it.
    """
    sighting = row.sighting
    return RowOut(
        id=sighting.id,
        camera=sighting.camera,
        time=sighting.time,
        time_text=format_time(sighting.time),
        tracklet=sighting.tracklet,
        modality="infrared" if sighting.modality is Modality.INFRARED else "visible",
        light=sighting.light,
        quality=sighting.quality,
        remark=sighting.remark,
        source=name(sighting.source),
        frame=sighting.frame,
        box=sighting.box,
        crop=f"/api/v1/rows/{sighting.id}/crop" if sighting.crop else None,
        model=row.run.model,
        runtime=row.run.runtime,
        precision=row.run.precision,
        run=row.run.name,
    )
