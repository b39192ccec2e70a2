"""What an answer is: rows put together, and one similarity that decides both its probability and whether it matches.

A tracklet is as similar as its mean vector, the normalised mean of its rows that pass the filter. Its best row
decides nothing: what a calibration says of two pictures is said too often of the best of several, and holds for their
mean (measured: docs/searching.md). An identity is as similar as its most probable tracklet, so that one is told alike
however answers are grouped; where nothing is grouped, a row stands for itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tapetum.core.types import Modality
from tapetum.core.vectors import normalise
from tapetum.evaluation.calibration import Calibration
from tapetum.gallery.filters import Among, And, Filter
from tapetum.gallery.schema import Row
from tapetum.gallery.store import Store, chunks
from tapetum.searching.identities import join_alike
from tapetum.searching.match_rule import MatchRule

TRACKLETS_AT_ONCE = 1_000  # whose vectors are in memory

Means = Mapping[Modality, Tensor]  # (D,) of the query's pictures of each modality
TrackletKey = tuple[str, Modality]  # tracklet, and which of its rows: a camera may switch to infrared on the way


@dataclass(frozen=True)
class FoundRow:
    """A row found.

    Attributes:
        row: of the gallery.
        similarity: to the query's pictures of one modality.
        asked: that modality, the one to which the row is most similar.
    """

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
class Weighed:
    """A group, and what decides about it.

    Attributes:
        row: the most similar one of the tracklet that decides.
        similarity: of that tracklet's mean vector, or of the row where it stands alone.
        probability: at that similarity; None where that pair of modalities is not calibrated.
        accepted: whether it is a match, by that similarity too; None likewise.
        members: all rows found of the group: `row` first, then the others, most similar first.
    """

    row: Row
    similarity: float
    probability: float | None
    accepted: bool | None
    members: tuple[FoundRow, ...]


def group_rows(ordered: Sequence[FoundRow]) -> list[Group]:
    """Rows of one tracklet together, in the order of their first row; a row without a tracklet stands alone.

    Args:
        ordered: rows found, best first.
    """
    groups: dict[str, Group] = {}
    for each in ordered:
        sighting = each.row.sighting
        groups.setdefault(f"t {sighting.tracklet}" if sighting.tracklet else f"r {sighting.id}", []).append(each)
    return list(groups.values())


def join_identities(
    store: Store, tracklets: Sequence[Group], rows: Filter | None, calibration: Calibration
) -> list[Group]:
    """Tracklets that `join_alike` takes for one person, each by its mean vector.

    Args:
        tracklets: rows found of each.
        rows: which rows of a tracklet count.
        calibration: of the gallery's model.
    """
    means = dict(_describe(store, [group[0].tracklet for group in tracklets if group[0].tracklet], rows))
    loose = [group[0].row.sighting.id for group in tracklets if group[0].tracklet is None]
    entries = store.fetch(loose)
    alone = {row.sighting.id: entries.vectors[place] for place, row in enumerate(entries.rows)}
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
    groups = join_alike(torch.stack(vectors), modalities, calibration)
    return [[each for number in members for each in alive[number]] for members in groups]


def weigh_rows(groups: Sequence[Group], rule: MatchRule | None) -> list[Weighed]:
    """Each group by its first row alone.

    Args:
        groups: of one row each.
        rule: what similarities mean; None where that is not known.
    """
    return [_weigh(group, {}, {}, rule) for group in groups]


def weigh_walks(
    store: Store,
    grouped: Sequence[Sequence[Group]],
    asked: Sequence[Means],
    judges: Sequence[MatchRule | None],
    rows: Filter | None,
) -> list[list[Weighed]]:
    """Each group by its most probable tracklet; where no probability is known, by the most similar one.

    Args:
        grouped: groups of each query.
        asked: the queries.
        judges: of each query; None where it has none.
        rows: which rows of a tracklet count.
    """
    weighed: list[list[Weighed]] = []
    for places in _share_out([len(groups) for groups in grouped]):
        tracklets = [{each.tracklet for group in grouped[place] for each in group} - {None} for place in places]
        vectors = torch.stack([vector for place in places for vector in asked[place].values()])
        wanted = [tracklet for tracklet in set().union(*tracklets) if tracklet is not None]
        alike = {tracklet: vectors @ mean for tracklet, mean in _describe(store, wanted, rows)}
        first = 0
        for place in places:
            columns = dict(zip(asked[place], range(first, first + len(asked[place])), strict=True))
            first += len(columns)
            weighed.append([_weigh(group, columns, alike, judges[place]) for group in grouped[place]])
    return weighed


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


def _describe(
    store: Store, tracklets: Sequence[TrackletKey], rows: Filter | None
) -> Iterator[tuple[TrackletKey, Tensor]]:
    """(D,) mean vector of each tracklet that has rows which pass, some tracklets' rows in memory at a time."""
    wanted = set(tracklets)
    names = sorted({name for name, _ in wanted})
    for some in chunks(names, TRACKLETS_AT_ONCE):
        own: Filter = Among("tracklet", tuple(some))
        entries = store.fetch(store.columns(["id"], own if rows is None else And((own, rows)))["id"])
        members: dict[TrackletKey, list[int]] = {}
        for number, row in enumerate(entries.rows):
            members.setdefault((row.sighting.tracklet, row.sighting.modality), []).append(number)
        for tracklet, places in members.items():
            if tracklet in wanted:
                yield tracklet, normalise(entries.vectors[places].mean(0, keepdim=True))[0]


def _weigh(
    group: Group, columns: Mapping[Modality, int], alike: Mapping[TrackletKey, Tensor], rule: MatchRule | None
) -> Weighed:
    ordered = sorted(group, key=lambda each: -each.similarity)
    best: dict[TrackletKey | str, FoundRow] = {}  # of a tracklet, or a row that stands alone: the most similar row
    for each in ordered:
        best.setdefault(each.tracklet or each.row.sighting.id, each)
    sides: list[tuple[FoundRow, Modality, float]] = []
    for each in best.values():
        similar = None if each.tracklet is None else alike.get(each.tracklet)
        if similar is None:
            sides.append((each, each.asked, each.similarity))
        else:
            sides += [(each, modality, float(similar[column])) for modality, column in columns.items()]

    def told(side: tuple[FoundRow, Modality, float]) -> tuple[float | None, bool | None]:
        pair = side[1], side[0].row.sighting.modality
        if rule is None:
            return None, None
        return rule.probability(side[2], *pair), rule.accepts(side[2], *pair)

    verdicts = [told(side) for side in sides]
    place = best_first([(side[2], *verdict) for side, verdict in zip(sides, verdicts, strict=True)])[0]
    first, _, similarity = sides[place]
    members = first, *(each for each in ordered if each is not first)
    return Weighed(first.row, similarity, *verdicts[place], members)


def best_first(told: Sequence[tuple[float, float | None, bool | None]]) -> list[int]:
    """The order of some answers: by probability where each has one, else by similarity.

    Args:
        told: similarity, probability and match of each.
    Returns:
        Places in `told`.
    """
    calibrated = all(probability is not None for _, probability, _ in told)

    def worth(place: int) -> tuple[float, float, float]:
        similarity, probability, accepted = told[place]
        return (float(accepted or 0), probability or 0.0, similarity) if calibrated else (0.0, 0.0, similarity)

    return sorted(range(len(told)), key=worth, reverse=True)
