"""A search's question beside the person: which rows, and how. Page, API, command line and library share it."""

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    SkipValidation,
    ValidationError,
    model_validator,
)

from tapetum.core.errors import GalleryError, nearest_name
from tapetum.gallery.filters import LONGEST_FILTER, Among, And, Compare, Filter, as_filter, parse_filter
from tapetum.gallery.store import MOST_ANSWERS

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

MOST_IDS = 1000
M = TypeVar("M", bound=BaseModel)
Text = Annotated[str, Field(max_length=4096)]
ModalityName = Literal["visible", "infrared"]
Grouping = Literal["tracklet", "identity", "none"]
Ranking = Literal["similarity", "calibrated"]
Time = Annotated[str | float, Field(description="ISO 8601 with its zone, or seconds since 1970-01-01 UTC")]


class RequestBody(BaseModel):
    """Base of what somebody asks for: an unknown field is an error."""

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
        default=None, max_length=LONGEST_FILTER, description="in the filter language of the documentation"
    )

    def to_filter(self) -> Filter | None:
        """As a checked filter; None where nothing is said.

        Raises:
            FilterError: a time without a zone, a wrong expression.
        """
        lists = {"camera": self.cameras, "tracklet": self.tracklets, "run": self.runs, "id": self.ids}
        parts: list[Filter] = [Among(field, tuple(values)) for field, values in lists.items() if values]
        parts += [
            Compare(field, sign, value)
            for field, sign, value in (
                ("time", ">=", self.since),
                ("time", "<", self.until),
                ("modality", "==", self.modality),
                ("quality", ">=", self.min_quality),
                ("light", ">=", self.min_light),
            )
            if value is not None
        ]
        if self.expression is not None and self.expression.strip():
            parts.append(parse_filter(self.expression))
        return as_filter(parts[0] if len(parts) == 1 else And(tuple(parts))) if parts else None


class Question(RequestBody):
    """How to search."""

    k: int = Field(default=20, ge=1, le=MOST_ANSWERS, description="answers for each query")
    group: Grouping = Field(
        default="tracklet",
        description="what an answer is: a tracklet, an estimated identity (tracklets joined), or a single row",
    )
    exclude_seconds: float | None = Field(
        default=None, ge=0, le=1e9, description="leave out what the query's own camera saw so near in time"
    )
    rank: Ranking = Field(
        default="similarity",
        description="which rows come into question: the most similar of all, or the most similar of each modality, "
        "merged by the calibrated log-odds of their pair of modalities; where a picture finds its own modality first",
    )
    rerank: bool = Field(
        default=False,
        description="order by k-reciprocal neighbours too; probabilities and matches stay those of plain similarities, "
        "for which they were calibrated",
    )
    exact: bool | None = Field(default=None, description="compare every row; null leaves it to the gallery's size")
    false_alarms: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="share of searches for somebody who is not there that may give a match; null takes the lowest "
        "that the calibration supports",
    )
    prior: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="probability, before looking, of the same person; null takes the calibration's",
    )


class FindOptions(Question):
    """How a gallery is searched: the fields of `Question`, and two more.

    ``filter`` (text or a tree) says which rows are searched; the first ``shortlist`` rows are re-ranked, and so many
    tracklets looked at for identities.

    Raises:
        GalleryError: a value is out of range.
    """

    filter: Annotated[str | Filter | None, SkipValidation] = None
    shortlist: int = Field(default=200, ge=1, le=MOST_ANSWERS)

    @model_validator(mode="wrap")
    @classmethod
    def _refuse_in_one_line(cls, values: Any, handler: ModelWrapValidatorHandler["FindOptions"]) -> "FindOptions":
        try:
            return handler(values)
        except ValidationError as error:
            problem = error.errors()[0]
            remedy = _say(problem).replace("Input", "it")
            raise GalleryError(f"search: {problem['loc'][0]} is {problem['input']!r}; {remedy}") from None


def check_fields(kind: type[M], values: Any, place: str = "") -> M:
    """What form fields, options or JSON text say, checked.

    Args:
        values: a mapping, or JSON as text.
        place: begins the message.
    Raises:
        GalleryError: one of them is something else.
    """
    try:
        return kind.model_validate_json(values) if isinstance(values, str) else kind.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in (*([place] if place else []), *problem["loc"]))
        raise GalleryError(f"{where}: {_say(problem)}"[:400]) from None


def _say(problem: "ErrorDetails") -> str:
    """What is wrong with a value; of a misspelt name also which one is meant."""
    message, value = problem["msg"], problem["input"]
    if problem["type"] == "literal_error" and isinstance(value, str):
        names = re.findall(r"'([^']+)'", problem["ctx"]["expected"])
        close = nearest_name(value, names)
        message += f"; {close}" * close.startswith("did you mean")
    return message
