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
class Row:
    """One row; `aside` for rows that are no result, such as chance."""

    cells: Sequence[Cell]
    aside: bool = False


@dataclass(frozen=True)
class Table:
    """A table; `stacked` ones become cards on a phone, others scroll."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Row]
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
class Shown:
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
    tables: Sequence[Table]
    details: Sequence[Table]  # folded away
    figures: Sequence[Chart]


@dataclass(frozen=True)
class Matrix:
    """mAP of query cameras (rows) against gallery cameras (columns); a cell is a text, a share of 1 and a remark."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[tuple[str, str, str]]]]


@dataclass(frozen=True)
class Breakdowns:
    """Charts, the same as tables, and camera against camera."""

    title: str
    figures: Sequence[Chart]
    tables: Sequence[Table]
    matrices: Sequence[Matrix]


@dataclass(frozen=True)
class ShownList:
    """One ranking."""

    method: str
    note: str
    query: Shown
    answers: Sequence[Shown]


@dataclass(frozen=True)
class Search:
    """The rankings of one query."""

    title: str
    lists: Sequence[ShownList]
    small: str = ""


@dataclass(frozen=True)
class Across:
    """How people and modalities lie among the embeddings."""

    distances: Sequence[Chart]
    maps: Sequence[Chart]


@dataclass(frozen=True)
class Calibrated:
    """What probabilities and thresholds are worth."""

    figures: Sequence[Chart]
    tables: Sequence[Table]


@dataclass(frozen=True)
class Pair:
    """Two or three forms of one picture."""

    pictures: Sequence[Shown]
    caption: str


@dataclass(frozen=True)
class Pairs:
    """Several of them; `three` where some have the picture before it was darkened."""

    pairs: Sequence[Pair]
    three: bool


@dataclass(frozen=True)
class Failures:
    """Where it fails."""

    table: Table | None
    searches: Sequence[Search]


@dataclass(frozen=True)
class Data:
    """The pictures themselves."""

    facts: Sequence[tuple[str, str]]
    samples: Sequence[Shown]
    figures: Sequence[Chart]


@dataclass(frozen=True)
class Real:
    """The section on a real clip."""

    name: str
    note: str
    facts: Sequence[tuple[str, str]]
    tables: Sequence[Table]
    pairs: Pairs | None
    searches: Sequence[Search]
    command: str


@dataclass(frozen=True)
class CardView:
    """Every field of one result card."""

    label: str
    table: Table


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
    searches: Sequence[Search]
    across: Across | None
    calibrated: Calibrated | None
    pairs: Pairs | None
    failures: Failures | None
    curves: Sequence[Chart]
    data: Data | None
    real: Real | None
    published: Table | None
    has_searches: bool
    command: str
    cards: Sequence[CardView]
    footer: str
