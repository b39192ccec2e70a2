"""Who is this person, and where else was she or he seen? Questions to a gallery, and answers with an error rate.

Several pictures of one person become one vector, their normalised mean, for each modality they have. Measured on the
scene of `make demo`: three pictures by one camera, all other cameras searched, thresholds of 1 % of comparisons from
one half of its test people, tried on the other half (IDF / IDE):

    a row's similarity is         rank-1          false alarms of comparisons
    that to a single picture      0.542 / 0.512   0.8 % / 1.0 %
    the greatest of the three     0.621 / 0.554   1.7 % / 2.0 %
    their mean                    0.629 / 0.588   0.4 % / 0.5 %
    that to the mean vector       0.629 / 0.588   1.0 % / 1.1 %

So the mean vector finds most, and what `tapetum calibrate` found on single pictures still holds for it.

A tracklet is as similar as its best row: thresholds of searches were made for the best of all pictures of a gallery,
and a person seen well once is found although the rest of the walk was dark. So a gallery counts by its rows also where
answers are grouped: for 10 % of searches, tracklets of four gave 7 % false alarms, and 21 % counted by tracklets. The
probability is made for one pair; said of the best of four rows it is ten points too high, of their mean vector hardly
(docs/calibration.md). So it is that of the tracklet's mean.
"""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from tapetum.core.errors import GalleryError, ProtocolError, nearest_name
from tapetum.core.types import Modality
from tapetum.core.vectors import normalise
from tapetum.engine.search import Judge, build_judge
from tapetum.evaluation.calibration import Calibration
from tapetum.evaluation.rerank import rerank
from tapetum.evaluation.verification import pair_name
from tapetum.gallery.filters import Among, And, Compare, Filter, Not, as_filter, write_filter
from tapetum.gallery.schema import Row
from tapetum.gallery.store import MOST_ANSWERS, Store, chunks
from tapetum.investigation.calibrated import advise_calibration
from tapetum.investigation.identities import comparison_rates, join_alike
from tapetum.investigation.query import Query

Group = Literal["tracklet", "identity", "none"]
ROWS_A_GROUP = 8  # fetched at first for each group wanted; a tracklet keeps up to eight crops
WALKS_AT_ONCE = 1_000  # in one question to the gallery
FETCH_MORE = 4  # times as many in the next round, where too few groups came out


@dataclass(frozen=True)
class FindOptions:
    """How a gallery is searched.

    Attributes:
        k: answers a query.
        filter: only rows that pass are searched.
        exact: True compares every row, None lets the gallery decide by its size.
        group: what an answer is: a tracklet, an estimated identity (tracklets joined), or a single row.
        exclude_seconds: leave out what the query's own camera saw within so many seconds of it.
        rerank: order the shortlist by k-reciprocal neighbours too. Probabilities and matches stay those of plain
            similarities, for which they were calibrated.
        shortlist: rows that are re-ranked, and tracklets that are looked at for identities.
        false_alarms: share of searches for somebody who is not there that may give a match; None takes the lowest
            that the calibration supports.
        prior: probability, before looking, that an answer shows the person; None takes the calibration's.
    """

    k: int = 20
    filter: str | Filter | None = None
    exact: bool | None = None
    group: Group = "tracklet"
    exclude_seconds: float | None = None
    rerank: bool = False
    shortlist: int = 200
    false_alarms: float | None = None
    prior: float | None = None

    def __post_init__(self) -> None:
        if self.group not in get_args(Group):
            raise GalleryError(f"search: group is {self.group!r}; {nearest_name(self.group, get_args(Group))}")
        for name, value in (("k", self.k), ("shortlist", self.shortlist)):
            if not 1 <= value <= MOST_ANSWERS:
                raise GalleryError(f"search: {name} is {value}; ask for 1 to {MOST_ANSWERS}")
        if self.exclude_seconds is not None and not 0 <= self.exclude_seconds < math.inf:
            raise GalleryError(f"search: exclude_seconds is {self.exclude_seconds}; it must be 0 or more")


@dataclass(frozen=True)
class Found:
    """One answer.

    Attributes:
        rank: counted from 1.
        row: the most similar one of the answer; similarity and accepted speak of it.
        similarity: cosine in [-1, 1].
        probability: that its tracklet shows the person searched for, by the mean vector of the tracklet's rows that
            pass the filter; where nothing is grouped, that the row does. None where that is not calibrated.
        accepted: whether it is a match; None where that is not calibrated.
        rows: all rows found of this tracklet or identity, most similar first.
        similarities: of `rows`.
    """

    rank: int
    row: Row
    similarity: float
    probability: float | None
    accepted: bool | None
    rows: tuple[Row, ...]
    similarities: tuple[float, ...]


@dataclass(frozen=True)
class Findings:
    """What a search for one person found.

    Attributes:
        found: answers, best first.
        exact: every row that passes was compared.
        recall: of an approximate search, measured when the index was built; None where exact.
        matches: how many answers are matches; None where that is not calibrated.
        verdict: one sentence for people: what is a match and how often that is wrong, or why nothing is.
        seconds: the whole search took, all queries together.
        searched: rows that passed filter and exclusion.
    """

    found: tuple[Found, ...]
    exact: bool
    recall: float | None
    matches: int | None
    verdict: str
    seconds: float
    searched: int


@dataclass(frozen=True)
class _Candidate:
    """A row found, by the picture's modality that it is most similar to."""

    row: Row
    similarity: float
    asked: Modality


_Grouped = list[list[_Candidate]]
_Means = Mapping[Modality, Tensor]  # (D,) each
_Walk = tuple[str, Modality]  # tracklet, and which of its rows: a camera may switch to infrared on the way


def find(
    store: Store, queries: Sequence[Query], options: FindOptions, calibration: Calibration | None
) -> list[Findings]:
    """Search a gallery for some people.

    What the query itself is does not come back: neither its rows nor anything of their tracklets.

    Args:
        store: the gallery.
        queries: the people, of the gallery's model.
        options: how.
        calibration: of the gallery's model; None gives similarities alone.
    Returns:
        One for each query.
    Raises:
        FilterError: the filter is wrong.
        GalleryError: vectors of another model, or an option that these queries cannot have.
        ProtocolError: a rate or prior that the calibration does not support, or that needs one.
    """
    begun = time.perf_counter()
    _check_calibrated(store, options, calibration)
    chosen = as_filter(options.filter)
    wanted: dict[Filter | None, list[int]] = {}  # queries that search the same rows are searched together
    for place, query in enumerate(queries):
        wanted.setdefault(_without_query(query, chosen, options.exclude_seconds), []).append(place)
    findings: dict[int, Findings] = {}
    for rows, places in wanted.items():
        some = [queries[place] for place in places]
        sizes = _count(store, rows)
        told = _find(store, some, rows, sizes, chosen, options, calibration)
        findings |= dict(zip(places, told, strict=True))
    seconds = time.perf_counter() - begun
    return [replace(findings[place], seconds=seconds) for place in range(len(queries))]


def _check_calibrated(store: Store, options: FindOptions, calibration: Calibration | None) -> None:
    if calibration is not None:
        return
    for name, given in (
        ("false_alarms", options.false_alarms is not None),
        ("prior", options.prior is not None),
        ("group identity", options.group == "identity"),
    ):
        if given:
            raise ProtocolError(f"search: {name} needs a calibration: {advise_calibration(store)}")


def _without_query(query: Query, chosen: Filter | None, exclude_seconds: float | None) -> Filter | None:
    """The filter that also leaves the query itself out, and what its camera saw around it."""
    parts = [] if chosen is None else [chosen]
    if exclude_seconds is not None and not query.rows:
        raise GalleryError(
            "search: exclude_seconds needs a query from the gallery (a row or a tracklet), whose camera and time are "
            "known; for a picture filter by camera and time"
        )
    sightings = [row.sighting for row in query.rows]
    for field, own in (
        ("id", {each.id for each in sightings if not each.tracklet}),
        ("tracklet", {each.tracklet for each in sightings if each.tracklet}),
    ):
        if own:
            parts.append(Not(Among(field, tuple(sorted(own)))))
    if exclude_seconds is not None:
        for camera in sorted({each.camera for each in sightings}):
            times = sorted(each.time for each in sightings if each.camera == camera)
            for first, last in _join_times(times, exclude_seconds):
                around = Compare("time", ">=", first), Compare("time", "<=", last)
                parts.append(Not(And((Compare("camera", "==", camera), *around))))
    return And(tuple(parts)) if len(parts) > 1 else parts[0] if parts else None


def _join_times(times: Iterable[float], seconds: float) -> list[tuple[float, float]]:
    """The intervals around ascending times, those that touch joined."""
    joined: list[tuple[float, float]] = []
    for moment in times:
        if joined and moment - seconds <= joined[-1][1]:
            joined[-1] = (joined[-1][0], moment + seconds)
        else:
            joined.append((moment - seconds, moment + seconds))
    return joined


def _count(store: Store, rows: Filter | None) -> dict[Modality, int]:
    """Rows that pass, of each modality."""
    visible: Filter = Compare("modality", "==", Modality.VISIBLE)
    count = store.count(rows)
    seen = store.count(visible if rows is None else And((rows, visible))) if count else 0
    return {Modality.VISIBLE: seen, Modality.INFRARED: count - seen}


def _find(
    store: Store,
    queries: Sequence[Query],
    rows: Filter | None,
    sizes: Mapping[Modality, int],
    chosen: Filter | None,
    options: FindOptions,
    calibration: Calibration | None,
) -> list[Findings]:
    """Findings of queries that search the same rows."""
    searched = sum(sizes.values())
    if searched == 0:
        verdict = _say_empty(store, rows, chosen)
        return [Findings((), True, None, None, verdict, 0.0, 0) for _ in queries]
    asked = [_mean_vectors(query) for query in queries]
    grouped, exact, recall = _search(store, asked, rows, options, calibration)
    shown = [groups[: options.k] for groups in grouped]
    walks = {} if calibration is None or options.group == "none" else _describe_walks(store, shown, rows)
    findings = []
    for query, vectors, groups in zip(queries, asked, shown, strict=True):
        judge, why = _judge(store, query, sizes, options, calibration)
        found = tuple(_answer(rank, group, judge, walks, vectors) for rank, group in enumerate(groups, start=1))
        known = [each.accepted for each in found if each.accepted is not None]
        matches = sum(known) if judge is not None else None
        verdict = why if judge is None or matches is None else _say(judge, matches, len(found))
        if options.group == "identity" and calibration is not None:
            rate = max(comparison_rates(calibration).values(), default=0.0)
            verdict += (
                "; identities are an estimate: tracklets are joined where they are on average more similar than all "
                f"but {100 * rate:.3g} % of comparisons of two people"
            )
        if options.rerank:
            verdict += "; the order is re-ranked, similarity and probability are not"
        findings.append(Findings(found, exact, recall, matches, verdict, 0.0, searched))
    return findings


def _say_empty(store: Store, rows: Filter | None, chosen: Filter | None) -> str:
    total = store.count()
    if total == 0:
        return "the gallery is empty; fill it with `tapetum index`"
    if rows == chosen or (chosen is not None and store.count(chosen) == 0):
        return f"no row passes the filter {write_filter(chosen)}; the gallery has {total:,} rows"
    return "no row is left beside the query itself and what was excluded around it"


def _say(judge: Judge, matches: int, answers: int) -> str:
    what = "is a match" if matches == 1 else "are matches"
    told = f"{matches} of {answers} answers {what}: similarity from" if matches else "no match above"
    return f"{told} {judge.words}; probabilities assume {100 * judge.prior:g} % before looking"


def _judge(
    store: Store,
    query: Query,
    sizes: Mapping[Modality, int],
    options: FindOptions,
    calibration: Calibration | None,
) -> tuple[Judge | None, str]:
    """The judge of a query, or why there is none."""
    if calibration is None:
        return None, f"not calibrated, so that no answer can be called a match; {advise_calibration(store)}"
    asked = set(query.modalities)
    pairs = {pair_name(one, other) for one in asked for other, size in sizes.items() if size}
    if not pairs & set(calibration.pairs):
        return None, (
            f"{', '.join(sorted(pairs))} is not calibrated, so that no answer can be called a match; calibrate with "
            "people seen in both modalities"
        )
    try:
        return build_judge(calibration, sizes, asked=asked, rate=options.false_alarms, prior=options.prior), ""
    except ProtocolError as error:
        if options.false_alarms is not None or options.prior is not None:
            raise
        return None, f"no answer can be called a match: {error}"


def _describe_walks(store: Store, shown: Sequence[_Grouped], rows: Filter | None) -> dict[_Walk, Tensor]:
    """(D,) normalised mean of a walk's rows that pass, for the walks of the answers' most similar rows."""
    names = sorted({_best(group).row.sighting.tracklet for groups in shown for group in groups} - {""})
    ids: list[str] = []
    for some in chunks(names, WALKS_AT_ONCE):
        own = Among("tracklet", tuple(some))
        ids += store.columns(["id"], own if rows is None else And((own, rows)))["id"]
    entries = store.fetch(ids)
    members: dict[_Walk, list[int]] = {}
    for number, row in enumerate(entries.rows):
        members.setdefault(_walk_of(row), []).append(number)
    return {walk: normalise(entries.vectors[place].mean(0, keepdim=True))[0] for walk, place in members.items()}


def _walk_of(row: Row) -> _Walk:
    return row.sighting.tracklet, row.sighting.modality


def _best(group: Sequence[_Candidate]) -> _Candidate:
    return max(group, key=lambda each: each.similarity)


def _answer(
    rank: int,
    group: Sequence[_Candidate],
    judge: Judge | None,
    walks: Mapping[_Walk, Tensor],
    asked: _Means,
) -> Found:
    ordered = sorted(group, key=lambda each: -each.similarity)
    best = ordered[0]
    pair = best.asked, best.row.sighting.modality
    walk = walks.get(_walk_of(best.row))
    typical = best.similarity if walk is None else float(walk @ asked[best.asked])
    return Found(
        rank,
        best.row,
        best.similarity,
        None if judge is None else judge.probability(typical, *pair),
        None if judge is None else judge.accepts(best.similarity, *pair),
        tuple(each.row for each in ordered),
        tuple(each.similarity for each in ordered),
    )


def _search(
    store: Store,
    asked: Sequence[_Means],
    rows: Filter | None,
    options: FindOptions,
    calibration: Calibration | None,
) -> tuple[list[_Grouped], bool, float | None]:
    """Groups of each query, best first; more rows are fetched until there are enough groups."""
    grouped: dict[int, _Grouped] = {}
    size = options.k * (1 if options.group == "none" else ROWS_A_GROUP)
    size = min(max(size, options.shortlist if options.rerank else 0), MOST_ANSWERS)
    exact, recall = True, None
    waiting = list(range(len(asked)))
    while waiting:
        answer = store.search(
            torch.stack([vector for place in waiting for vector in asked[place].values()]),
            size,
            rows,
            exact=options.exact,
        )
        exact, recall = exact and answer.exact, answer.recall if recall is None else recall
        hits = iter(answer.hits)
        left = []
        for place in waiting:
            lists = [next(hits) for _ in asked[place]]
            complete = size == MOST_ANSWERS or all(len(some) < size for some in lists)
            best: dict[str, _Candidate] = {}
            for modality, some in zip(asked[place], lists, strict=True):
                for hit in some:
                    before = best.get(hit.row.sighting.id)
                    if before is None or hit.similarity > before.similarity:
                        best[hit.row.sighting.id] = _Candidate(hit.row, hit.similarity, modality)
            ordered = sorted(best.values(), key=lambda each: -each.similarity)[:size]
            if options.rerank:
                ordered = _rerank(store, torch.stack(list(asked[place].values())), ordered, options.shortlist)
            groups, full = _group(store, ordered, options, calibration)
            if complete or full or len(groups) >= options.k:
                grouped[place] = groups
            else:
                left.append(place)
        waiting, size = left, min(FETCH_MORE * size, MOST_ANSWERS)
    return [grouped[place] for place in range(len(asked))], exact, recall


def _mean_vectors(query: Query) -> _Means:
    """The normalised mean of a query's vectors for each modality it has."""
    kinds = torch.tensor([int(each) for each in query.modalities])
    modalities = sorted(set(query.modalities))
    means = [normalise(query.vectors[kinds == int(each)]).mean(0) for each in modalities]
    return dict(zip(modalities, normalise(torch.stack(means)), strict=True))


def _rerank(store: Store, vectors: Tensor, ordered: list[_Candidate], shortlist: int) -> list[_Candidate]:
    """The first rows in the order of their re-ranked distance; the others follow as they were."""
    entries = store.fetch([each.row.sighting.id for each in ordered[:shortlist]])
    by_id = {each.row.sighting.id: each for each in ordered}
    near = [by_id[row.sighting.id] for row in entries.rows]  # one that was deleted meanwhile is left out
    if near:
        distances = rerank(vectors, entries.vectors).amin(0)
        near = [near[place] for place in distances.argsort(stable=True).tolist()]
    return near + ordered[shortlist:]


def _group(
    store: Store, ordered: Sequence[_Candidate], options: FindOptions, calibration: Calibration | None
) -> tuple[_Grouped, bool]:
    """Groups in the order of their first row, and whether more rows would change nothing."""
    if options.group == "none":
        return [[each] for each in ordered], False
    groups: dict[str, list[_Candidate]] = {}
    for each in ordered:
        sighting = each.row.sighting
        groups.setdefault(f"t {sighting.tracklet}" if sighting.tracklet else f"r {sighting.id}", []).append(each)
    tracklets = list(groups.values())
    if options.group == "tracklet" or calibration is None:
        return tracklets, False
    most = max(options.shortlist, options.k)
    return _join_tracklets(store, tracklets[:most], calibration), len(tracklets) >= most


def _join_tracklets(store: Store, tracklets: _Grouped, calibration: Calibration) -> _Grouped:
    """Identities: tracklets that `join_alike` takes for one person, each by the normalised mean of its rows found."""
    entries = store.fetch([each.row.sighting.id for group in tracklets for each in group])
    place = {row.sighting.id: number for number, row in enumerate(entries.rows)}
    alive, means = [], []
    for group in tracklets:
        known = [place[each.row.sighting.id] for each in group if each.row.sighting.id in place]
        if known:
            alive.append(group)
            means.append(entries.vectors[known].mean(0))
    if len(alive) < 2:
        return alive
    modalities = [group[0].row.sighting.modality for group in alive]
    groups = join_alike(normalise(torch.stack(means)), modalities, calibration)
    return [[each for number in members for each in alive[number]] for members in groups]
