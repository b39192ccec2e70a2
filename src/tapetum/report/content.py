"""What a report shows, as plain values: whoever fills these needs to know nothing about HTML; the templates print them.

Fractions stay fractions here; the page prints percent. Everything but the title and the command may be left out, and
its section is then left out too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tapetum.evaluation.card import Card
from tapetum.evaluation.pair_distances import PairDistances
from tapetum.plots.embedding import EmbeddingMap
from tapetum.plots.histograms import PictureArrays
from tapetum.plots.style import Array, Picture

Interval = tuple[float, float]
QUANTITIES = {"rank1": "rank-1", "rank5": "rank-5", "rank10": "rank-10", "mean_ap": "mAP", "mean_inp": "mINP"}


@dataclass(frozen=True)
class Result:
    """One method's numbers on one set of pictures."""

    label: str  # what tables and figures call it, e.g. "IDF"; unique in its report
    card: Card
    seconds: float | None = None  # of training, None where not known
    note: str = ""  # one line, e.g. "baseline"
    method: str = ""  # its name where it has several results, one a protocol; empty takes the recipe's name


@dataclass(frozen=True)
class Breakdown:
    """One quantity over the S slices of one property; a bar a slice and method."""

    name: str  # of the property, e.g. "Light"
    levels: tuple[str, ...]  # names of the slices
    counts: tuple[int, ...]  # queries in each
    values: Mapping[str, Array]  # label of a method -> (S,) fractions, NaN for an empty slice
    intervals: Mapping[str, Array] = field(default_factory=dict)  # label -> (S, 2)
    quantity: str = "mAP"
    note: str = ""  # one line, e.g. how the levels are defined


@dataclass(frozen=True)
class RankedPicture:
    """One entry of a rank list."""

    picture: Picture
    right: bool  # it shows the query's person
    caption: str = ""  # e.g. "person 12, camera 3"
    similarity: float | None = None  # cosine


@dataclass(frozen=True)
class QueryRanking:
    """A query and its first answers, nearest first."""

    method: str  # label of the method that ranked
    query: Picture
    answers: tuple[RankedPicture, ...]  # at most ten are shown
    caption: str = ""  # e.g. "person 12, camera 3"
    note: str = ""  # e.g. "AP 3.1 %"
    modality: str = ""  # of the query, where the test crosses modalities


@dataclass(frozen=True)
class EnhancedPair:
    """A night picture and its enhancement."""

    night: Picture  # as the method receives it
    enhanced: Picture
    caption: str = ""
    original: Picture | None = None  # before it was darkened, where it was


@dataclass(frozen=True)
class WorstSlice:
    """One row of "where it fails"."""

    method: str
    slice: str  # e.g. "light: low", "camera 2 to camera 5"
    count: int  # of queries
    mean_ap: float
    rank1: float
    interval: Interval | None = None  # of mean_ap


@dataclass(frozen=True)
class RealClip:
    """The same models on real pictures."""

    name: str
    facts: Mapping[str, object] = field(default_factory=dict)  # e.g. people, crops, frames
    as_is: tuple[Result, ...] = ()
    darkened: tuple[Result, ...] = ()  # through the sensor model
    rank_lists: tuple[QueryRanking, ...] = ()
    pairs: tuple[EnhancedPair, ...] = ()
    command: str = ""  # which makes this section again
    note: str = ""  # what a reader must know to weigh the figures
    chance: Mapping[str, float] = field(default_factory=dict)  # where empty, the first card's


@dataclass(frozen=True)
class PublishedRow:
    """A row of a published table, always shown as the paper's: percent as printed, None where it prints none."""

    label: str
    source: str  # paper, table and data it was measured on
    rank1: float | None = None
    rank5: float | None = None
    rank10: float | None = None
    mean_ap: float | None = None
    remark: str = ""  # what is odd about it


@dataclass(frozen=True)
class ReportContent:
    """Everything a report shows."""

    title: str
    command: str  # which makes the report again
    lead: str = ""  # a sentence or two under the title
    facts: Mapping[str, object] = field(default_factory=dict)  # about the pictures, e.g. people, cameras, seed
    results: tuple[Result, ...] = ()  # one a method and protocol, the baseline first; figures show the first protocol
    chance: Mapping[str, float] | None = None  # of a ranking by lot; None takes the first card's
    curves: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)  # see `tapetum.plots.curves`
    breakdowns: tuple[Breakdown, ...] | None = None  # None takes those of the cards
    rank_lists: tuple[QueryRanking, ...] = ()  # those of one query are shown under each other
    distances: Mapping[str, PairDistances] = field(default_factory=dict)  # label -> of all pairs across modalities
    maps: Mapping[str, EmbeddingMap] = field(default_factory=dict)  # label -> some people's embeddings
    calibrations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # label -> what the check found
    pairs: tuple[EnhancedPair, ...] = ()
    worst_slices: tuple[WorstSlice, ...] | None = None  # worst first; None takes those of the cards
    worst_queries: tuple[QueryRanking, ...] = ()
    pictures: PictureArrays | None = None  # their statistics
    samples: tuple[tuple[Picture, str], ...] = ()  # pictures of the data, with captions
    real: RealClip | None = None
    published: tuple[PublishedRow, ...] = ()
    notes: tuple[str, ...] = ()  # what a reader must know to weigh the figures; `code` in backticks
