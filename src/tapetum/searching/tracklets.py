"""What an answer is: rows put together, and one similarity that decides both its probability and whether it matches.

A tracklet is as similar as its mean vector, the normalised mean of its rows that pass the filter. Its best row
decides nothing: what a calibration says of two pictures is said too often of the best of several, and holds for their
mean (measured: docs/searching.md). An identity is as similar as its most probable tracklet, so that one is told alike
however answers are grouped; where nothing is grouped, a row stands for itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tapetum.core.arrays import Real, unit_rows
from tapetum.core.types import Modality
from tapetum.evaluation.calibration import Calibration
from tapetum.gallery.filters import Among, And, Filter
from tapetum.gallery.schema import Row
from tapetum.gallery.store import Store, chunks
from tapetum.searching.identities import Presence, join_alike
from tapetum.searching.match_rule import Rule

TRACKLETS_AT_ONCE = 1_000  # whose vectors are in memory

Means = Mapping[Modality, Real]  # (D,) of the query's pictures of each modality
TrackletKey = tuple[str, Modality]  # tracklet, and which of its rows: a camera may switch to infrared on the way


@dataclass(frozen=True)
class FoundRow:
    """A row, its similarity to the query's pictures of one modality, and that modality: the one it is nearest to."""

    row: Row
    similarity: float
    asked: Modality

    @property
    def tracklet(self) -> TrackletKey | None:
        """The tracklet that the row belongs to; None where it stands alone."""
        seen = self.row.sighting
        return (seen.tracklet, seen.modality) if seen.tracklet else None


Group = list[FoundRow]


@dataclass(frozen=True)
class Found:
    """One answer.

    Attributes:
        rank: counted from 1.
        row: the one to show: the most similar one found of the tracklet that decides.
        similarity: cosine in [-1, 1] to the mean vector of the tracklet's rows that pass the filter; of an identity, to
            that of its most probable tracklet; where nothing is grouped, to the row.
        probability: that the answer shows the person searched for, at this similarity; None where that is not
            calibrated.
        accepted: whether it is a match: this similarity reaches the threshold, so that no answer that is none is more
            probable; None where that is not calibrated.
        rows: all rows found of this tracklet or identity: `row` first, then the others, most similar first.
        similarities: of `rows`, each by itself.
    """

    rank: int
    row: Row
    similarity: float
    probability: float | None
    accepted: bool | None
    rows: tuple[Row, ...]
    similarities: tuple[float, ...]


def group_rows(rows: Sequence[FoundRow]) -> list[Group]:
    """Rows of one tracklet together, in the order of their first row; a row without a tracklet stands alone."""
    groups: dict[str, Group] = {}
    for each in rows:
        sighting = each.row.sighting
        groups.setdefault(f"t {sighting.tracklet}" if sighting.tracklet else f"r {sighting.id}", []).append(each)
    return list(groups.values())


def join_identities(
    store: Store, tracklets: Sequence[Group], rows: Filter | None, calibration: Calibration
) -> list[Group]:
    """Tracklets that `join_alike` takes for one person, each by its mean vector.

    Args:
        rows: which rows of a tracklet count.
    """
    means = dict(mean_vectors(store, [group[0].tracklet for group in tracklets if group[0].tracklet], rows))
    entries = store.fetch([group[0].row.sighting.id for group in tracklets if group[0].tracklet is None])
    alone = {row.sighting.id: entries.matrix[place] for place, row in enumerate(entries.rows)}
    alive, vectors = [], []
    for group in tracklets:
        first = group[0]
        vector = alone.get(first.row.sighting.id) if first.tracklet is None else means.get(first.tracklet)
        if vector is not None:  # it was not deleted meanwhile
            alive.append(group)
            vectors.append(vector)
    if len(alive) < 2:
        return alive
    modalities = [group[0].row.sighting.modality for group in alive]
    presence = _read_presence(store, [group[0].tracklet for group in alive])
    groups = join_alike(np.stack(vectors), modalities, calibration, presence)
    return [[each for number in members for each in alive[number]] for members in groups]


def _read_presence(store: Store, keys: Sequence[TrackletKey | None]) -> Presence:
    """When each tracklet was seen, by all its rows; a loose picture has no moment that it shares with another."""
    spans: dict[str, tuple[float, float]] = {}
    recordings: dict[str, tuple[str, str]] = {}  # of tracklets that come from frames; see `strangers`
    for names in chunks(sorted({key[0] for key in keys if key is not None}), TRACKLETS_AT_ONCE):
        columns = store.columns(["tracklet", "time", "camera", "frame"], Among("tracklet", tuple(names)))
        for name, moment, camera, frame in zip(*columns.values(), strict=True):
            first, last = spans.get(name, (moment, moment))
            spans[name] = min(first, moment), max(last, moment)
            if frame:
                recordings[name] = recording_of(name), camera
    numbers = {recording: number for number, recording in enumerate(sorted(set(recordings.values())))}
    walks = {name: number for number, name in enumerate(spans)}
    names_of = ["" if key is None else key[0] for key in keys]
    return Presence(
        np.array([numbers[recordings[name]] if name in recordings else -1 for name in names_of], dtype=np.int64),
        np.array([walks.get(name, -1) for name in names_of], dtype=np.int64),
        np.array([spans.get(name, (0.0, 0.0)) for name in names_of], dtype=np.float64).reshape(-1, 2),
    )


def recording_of(tracklet: str) -> str:
    """The key of the recording that a tracklet's name begins with."""
    return tracklet.rpartition("-")[0]


def weigh_tracklets(
    store: Store,
    groups_of_queries: Sequence[Sequence[Group]],
    queries: Sequence[Means],
    rules: Sequence[Rule | None],
    rows: Filter | None,
) -> list[list[Found]]:
    """Each group by its most probable tracklet; where no probability is known, by the most similar one.

    Args:
        rules: of each query; None where it has none.
        rows: which rows of a tracklet count.
    """
    answers: list[list[Found]] = []
    for places in _share_out([len(groups) for groups in groups_of_queries]):
        tracklets = {each.tracklet for place in places for group in groups_of_queries[place] for each in group}
        vectors = np.stack([vector for place in places for vector in queries[place].values()])
        means = mean_vectors(store, [tracklet for tracklet in tracklets if tracklet is not None], rows)
        alike = {tracklet: vectors @ mean for tracklet, mean in means}
        first = 0
        for place in places:
            columns = {modality: first + number for number, modality in enumerate(queries[place])}
            first += len(columns)
            answers.append([weigh_group(group, rules[place], columns, alike) for group in groups_of_queries[place]])
    return answers


def _share_out(counts: Sequence[int]) -> Iterator[list[int]]:
    """Queries that are weighed together: as many as have so few groups that their tracklets fit into memory."""
    some: list[int] = []
    groups = 0
    for place, count in enumerate(counts):
        if some and groups + count > TRACKLETS_AT_ONCE:
            yield some
            some, groups = [], 0
        some.append(place)
        groups += count
    if some:
        yield some


def mean_vectors(
    store: Store, tracklets: Sequence[TrackletKey], rows: Filter | None
) -> Iterator[tuple[TrackletKey, Real]]:
    """(D,) of each tracklet that has rows which pass, some tracklets' rows in memory at a time."""
    keys = set(tracklets)
    for names in chunks(sorted({name for name, _ in keys}), TRACKLETS_AT_ONCE):
        own: Filter = Among("tracklet", tuple(names))
        entries = store.fetch(store.columns(["id"], own if rows is None else And((own, rows)))["id"])
        members: dict[TrackletKey, list[int]] = {}
        for number, row in enumerate(entries.rows):
            members.setdefault((row.sighting.tracklet, row.sighting.modality), []).append(number)
        for tracklet, places in members.items():
            if tracklet in keys:
                yield tracklet, unit_rows(entries.matrix[places].mean(0, keepdims=True))[0]


def weigh_group(
    group: Group,
    rule: Rule | None,
    columns: Mapping[Modality, int],
    alike: Mapping[TrackletKey, Real],
) -> Found:
    """An answer, not ranked yet, by the similarities of its tracklets; a row whose tracklet has none is its own.

    Args:
        rule: what similarities mean; None where that is not known.
        columns: modality of the query -> its place in each of `alike`.
        alike: of a tracklet, similarity to each of the queries' vectors.
    """
    by_similarity = sorted(group, key=lambda each: -each.similarity)
    best: dict[TrackletKey | str, FoundRow] = {}  # of a tracklet, or a row that stands alone: the most similar row
    for each in by_similarity:
        best.setdefault(each.tracklet or each.row.sighting.id, each)
    sides: list[tuple[FoundRow, float, float | None, bool | None]] = []
    for each in best.values():
        similar = None if each.tracklet is None else alike.get(each.tracklet)
        similarities = {each.asked: each.similarity}
        if similar is not None:
            similarities = {modality: float(similar[column]) for modality, column in columns.items()}
        for modality, similarity in similarities.items():
            side = similarity, modality, each.row.sighting.modality
            verdict = (None, None) if rule is None else (rule.probability(*side), rule.accepts(*side))
            sides.append((each, similarity, *verdict))
    first, similarity, probability, accepted = sides[best_first([side[1:] for side in sides])[0]]
    members = first, *(each for each in by_similarity if each is not first)
    rows, similarities_of_rows = zip(*((each.row, each.similarity) for each in members), strict=True)
    return Found(0, first.row, similarity, probability, accepted, rows, similarities_of_rows)


def best_first(answers: Sequence[tuple[float, float | None, bool | None]]) -> list[int]:
    """The order of some answers: by probability where each has one, else by similarity.

    Args:
        answers: similarity, probability and match of each.
    """
    calibrated = all(probability is not None for _, probability, _ in answers)

    def worth(place: int) -> tuple[float, float, float]:
        similarity, probability, accepted = answers[place]
        return (float(accepted or 0), probability or 0.0, similarity) if calibrated else (0.0, 0.0, similarity)

    return sorted(range(len(answers)), key=worth, reverse=True)
