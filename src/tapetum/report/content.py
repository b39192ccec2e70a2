"""What a report shows, as plain values: whoever fills these needs to know nothing about HTML.

Fractions stay fractions here; the report prints percent. Pictures are (H, W, 3) uint8 RGB arrays. Everything but the
title and the command may be left out, and its section is then left out too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tapetum.evaluation.pair_distances import PairDistances
from tapetum.plots.embedding import EmbeddingMap
from tapetum.plots.histograms import PictureArrays

Picture = NDArray[np.uint8]
Array = NDArray[np.float64]
Interval = tuple[float, float]
QUANTITIES = {"rank1": "rank-1", "rank5": "rank-5", "rank10": "rank-10", "mean_ap": "mAP", "mean_inp": "mINP"}


@dataclass(frozen=True)
class Result:
    """One method's numbers on one set of pictures.

    Attributes:
        label: what tables and figures call it, e.g. "IDF"; unique in its report.
        card: its result card, as `tapetum.evaluation.card` builds or reads it.
        seconds: of training, None where not known.
        note: one line for the reader, e.g. "baseline".
        method: what the method is called where it has several results, one a protocol; empty takes the recipe's name.
    """

    label: str
    card: Mapping[str, Any]
    seconds: float | None = None
    note: str = ""
    method: str = ""


@dataclass(frozen=True)
class Breakdown:
    """One quantity over the slices of one property; a bar a slice and method.

    Attributes:
        name: of the property, e.g. "Light".
        levels: names of the S slices.
        counts: queries in each slice.
        values: label of a method -> (S,) fractions, NaN for an empty slice.
        intervals: label -> (S, 2) bootstrap interval.
        quantity: what the values are.
        note: one line, e.g. how the levels are defined.
    """

    name: str
    levels: tuple[str, ...]
    counts: tuple[int, ...]
    values: Mapping[str, Array]
    intervals: Mapping[str, Array] = field(default_factory=dict)
    quantity: str = "mAP"
    note: str = ""


@dataclass(frozen=True)
class RankedPicture:
    """One entry of a rank list.

    Attributes:
        picture: the gallery picture.
        right: whether it shows the query's person.
        caption: e.g. "person 12, camera 3".
        similarity: cosine in [-1, 1], None where not known.
    """

    picture: Picture
    right: bool
    caption: str = ""
    similarity: float | None = None


@dataclass(frozen=True)
class QueryRanking:
    """A query and its first answers, nearest first.

    Attributes:
        method: label of the method that ranked.
        query: the query picture.
        answers: at most ten are shown.
        caption: e.g. "person 12, camera 3".
        note: e.g. "AP 0.03, first right answer at rank 41".
        modality: of the query, "visible" or "infrared", where the test crosses modalities; else empty.
    """

    method: str
    query: Picture
    answers: tuple[RankedPicture, ...]
    caption: str = ""
    note: str = ""
    modality: str = ""


@dataclass(frozen=True)
class EnhancedPair:
    """A night picture and its enhancement.

    Attributes:
        night: as the method receives it.
        enhanced: as the method's enhancer makes it.
        caption: e.g. "person 12, camera 3".
        original: the picture before it was darkened, where there was one.
    """

    night: Picture
    enhanced: Picture
    caption: str = ""
    original: Picture | None = None


@dataclass(frozen=True)
class WorstSlice:
    """One row of "where it fails".

    Attributes:
        method: label.
        slice: e.g. "light: low", "camera 2 to camera 5".
        count: queries in it.
        mean_ap, rank1: fractions.
        interval: of mean_ap.
    """

    method: str
    slice: str
    count: int
    mean_ap: float
    rank1: float
    interval: Interval | None = None


@dataclass(frozen=True)
class RealClip:
    """The same models on real pictures.

    Attributes:
        name: of the clip.
        facts: name -> value, e.g. people, crops, frames.
        as_is, darkened: results on the crops as they are, and through the sensor model.
        rank_lists: searches on either.
        pairs: crops beside their darkened and enhanced forms.
        command: which makes this section again.
        note: what a reader must know to weigh the figures.
        chance: rank1 and mean_ap of a ranking by lot; where empty, the first card's.
    """

    name: str
    facts: Mapping[str, object] = field(default_factory=dict)
    as_is: tuple[Result, ...] = ()
    darkened: tuple[Result, ...] = ()
    rank_lists: tuple[QueryRanking, ...] = ()
    pairs: tuple[EnhancedPair, ...] = ()
    command: str = ""
    note: str = ""
    chance: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class PublishedRow:
    """A row of a published table, always shown as the paper's.

    Attributes:
        label: as printed.
        source: paper, table and data it was measured on.
        rank1, rank5, rank10, mean_ap: percent as printed, None where the paper prints none.
        remark: what is odd about it.
    """

    label: str
    source: str
    rank1: float | None = None
    rank5: float | None = None
    rank10: float | None = None
    mean_ap: float | None = None
    remark: str = ""


@dataclass(frozen=True)
class ReportContent:
    """Everything a report shows.

    Attributes:
        title: of the page.
        command: which makes the report again; shown first and last.
        lead: a sentence or two under the title.
        facts: name -> value about the pictures, e.g. people, cameras, seed.
        results: one a method, the baseline first; several a method where they search one modality with the other in
            both directions: the figures then show the first direction.
        chance: rank1, mean_ap and so on of a ranking by lot; None takes the first card's.
        curves: label of a run -> quantity -> (E,) values ("epoch" is the common axis).
        breakdowns: by light, size, noise, camera; None takes those of the cards.
        rank_lists: searches; those of one query by several methods are shown under each other.
        distances: label of a method -> distances of all pairs across modalities.
        maps: label of a method -> map of some people's embeddings.
        calibrations: label of a run, and pair of modalities -> what the check of its calibration found.
        pairs: night beside enhanced.
        worst_slices: where it fails, worst first; None takes those of the cards.
        worst_queries: the queries with the lowest AP.
        pictures: statistics of the pictures, for the histograms.
        samples: pictures of the data, with captions.
        real: the same on a real clip.
        published: rows of published tables, for orientation.
        notes: what a reader must know to weigh the figures.
    """

    title: str
    command: str
    lead: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)
    results: tuple[Result, ...] = ()
    chance: Mapping[str, float] | None = None
    curves: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)
    breakdowns: tuple[Breakdown, ...] | None = None
    rank_lists: tuple[QueryRanking, ...] = ()
    distances: Mapping[str, PairDistances] = field(default_factory=dict)
    maps: Mapping[str, EmbeddingMap] = field(default_factory=dict)
    calibrations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pairs: tuple[EnhancedPair, ...] = ()
    worst_slices: tuple[WorstSlice, ...] | None = None
    worst_queries: tuple[QueryRanking, ...] = ()
    pictures: PictureArrays | None = None
    samples: tuple[tuple[Picture, str], ...] = ()
    real: RealClip | None = None
    published: tuple[PublishedRow, ...] = ()
    notes: tuple[str, ...] = ()
