"""What the templates print, piece by piece: texts, table cells, charts as markup, pictures as addresses."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True)
class Cell:
    """One cell of a table: a text, a smaller remark under it, and whether it is the column's best."""

    text: str
    small: str = ""
    best: bool = False


@dataclass(frozen=True)
class TableRow:
    """One row; `aside` for rows that are no result, such as chance."""

    cells: Sequence[Cell]
    aside: bool = False


@dataclass(frozen=True)
class TableView:
    """A table; `stacked` ones become cards on a phone, others scroll."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[TableRow]
    text_columns: Sequence[int] = (0,)
    stacked: bool = True


@dataclass(frozen=True)
class Chart:
    """A figure as markup with its words."""

    title: str
    svg: Markup
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class PictureView:
    """A picture on the page."""

    url: str
    alt: str
    small: str = ""
    right: bool = False
    name: str = ""


@dataclass(frozen=True)
class Tile:
    """A method's mAP at a glance; `width` and `chance` are places on its meter, in percent."""

    label: str
    note: str
    value: str
    small: str
    series: int
    width: str
    chance: str


@dataclass(frozen=True)
class Results:
    """The first section."""

    explain: str
    tiles: Sequence[Tile]
    tables: Sequence[TableView]
    details: Sequence[TableView]  # folded away
    figures: Sequence[Chart]


@dataclass(frozen=True)
class CameraMatrix:
    """mAP of query cameras (rows) against gallery cameras (columns); a cell is a text, a share of 1 and a remark."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[tuple[str, str, str]]]]


@dataclass(frozen=True)
class Breakdowns:
    """Charts, the same as tables, and camera against camera."""

    title: str
    figures: Sequence[Chart]
    tables: Sequence[TableView]
    matrices: Sequence[CameraMatrix]


@dataclass(frozen=True)
class RankingView:
    """One ranking."""

    method: str
    note: str
    query: PictureView
    answers: Sequence[PictureView]


@dataclass(frozen=True)
class SearchView:
    """The rankings of one query."""

    title: str
    lists: Sequence[RankingView]
    small: str = ""


@dataclass(frozen=True)
class Across:
    """How people and modalities lie among the embeddings."""

    distances: Sequence[Chart]
    maps: Sequence[Chart]


@dataclass(frozen=True)
class CalibrationView:
    """What probabilities and thresholds are worth."""

    figures: Sequence[Chart]
    tables: Sequence[TableView]


@dataclass(frozen=True)
class Pair:
    """Two or three forms of one picture."""

    pictures: Sequence[PictureView]
    caption: str


@dataclass(frozen=True)
class Pairs:
    """Several of them; `three` where some have the picture before it was darkened."""

    pairs: Sequence[Pair]
    three: bool


@dataclass(frozen=True)
class Failures:
    """Where it fails."""

    table: TableView | None
    searches: Sequence[SearchView]


@dataclass(frozen=True)
class Data:
    """The pictures themselves."""

    facts: Sequence[tuple[str, str]]
    samples: Sequence[PictureView]
    figures: Sequence[Chart]


@dataclass(frozen=True)
class Real:
    """The section on a real clip."""

    name: str
    note: str
    facts: Sequence[tuple[str, str]]
    tables: Sequence[TableView]
    pairs: Pairs | None
    searches: Sequence[SearchView]
    command: str


@dataclass(frozen=True)
class CardView:
    """Every field of one result card."""

    label: str
    table: TableView


@dataclass(frozen=True)
class Page:
    """Everything the templates print."""

    title: str
    lead: str
    description: str
    style: Markup
    badges: Sequence[tuple[str, str]]
    contents: Sequence[tuple[str, str]]
    notes: Sequence[Sequence[tuple[bool, str]]]  # pieces: (whether it is code, text)
    results: Results | None
    breakdowns: Breakdowns | None
    searches: Sequence[SearchView]
    across: Across | None
    calibrated: CalibrationView | None
    pairs: Pairs | None
    failures: Failures | None
    curves: Sequence[Chart]
    data: Data | None
    real: Real | None
    published: TableView | None
    has_searches: bool
    command: str
    cards: Sequence[CardView]
    footer: str
