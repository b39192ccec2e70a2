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

A tracklet is as similar as its own mean vector (`searching.tracklets`), and that similarity decides both probability
and match. A gallery counts by its rows also where answers are grouped: thresholds of searches were made for single
pictures, and are on the safe side for tracklets.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tapetum.core.arrays import Real, unit_rows
from tapetum.core.errors import GalleryError, ProtocolError
from tapetum.core.types import Modality
from tapetum.evaluation.calibration import Calibration
from tapetum.evaluation.thresholds import pair_name
from tapetum.footage.quality import CUT, TOO_DARK, TOO_SMALL
from tapetum.gallery.filters import Among, And, Compare, Filter, Not, as_filter, write_filter
from tapetum.gallery.schema import ModelInfo
from tapetum.gallery.store import MOST_ANSWERS, Store
from tapetum.searching.calibrated import advise_calibration
from tapetum.searching.identities import comparison_rates
from tapetum.searching.match_rule import MatchRule, ProbabilityRule, Rule, build_match_rule
from tapetum.searching.provenance import dark_sources, say_dark, say_uncertain
from tapetum.searching.query import Query
from tapetum.searching.question import FindOptions
from tapetum.searching.strangers import Strangers, known_strangers
from tapetum.searching.tracklets import (
    Found,
    FoundRow,
    Group,
    Means,
    best_first,
    group_rows,
    join_identities,
    weigh_group,
    weigh_tracklets,
)

ROWS_A_GROUP = 8  # fetched at first for each group wanted; a tracklet keeps up to eight crops
LOOKED_AT = 3  # tracklets weighed for each answer: they are fetched by their best row, and ordered by their mean vector
FETCH_MORE = 4  # times as many in the next round, where too few groups came out
HARD = (TOO_DARK, CUT, TOO_SMALL)  # what keeps a row from being found
SAID = {  # what each word means, wherever answers are shown
    "probability": (
        "how likely the answer shows the person searched for, as far as its similarity tells, if before looking that "
        "was as likely as is said"
    ),
    "match": (
        "the same similarity reaches the threshold that strangers reach at the stated rate; so no answer that is no "
        "match is more probable than a match"
    ),
    "similarity": (
        "that of the whole tracklet: of the mean vector of its crops that pass the filter; of a person, that of the "
        "most probable tracklet; where nothing is grouped, that of the crop"
    ),
}


@dataclass(frozen=True)
class Hard:
    """Rows searched that are hardly found, whoever they show: how many, and by why; a row may have several reasons."""

    rows: int = 0
    why: Mapping[str, int] = field(default_factory=dict)  # "too dark to match", "cut by the frame's edge", "too small"

    def say(self, searched: int) -> str:
        """For people; empty where there are none.

        Args:
            searched: rows in all.
        """
        if not self.rows:
            return ""
        reasons = ", ".join(f"{count:,} {why}" for why, count in self.why.items())
        return f"{self.rows:,} of {searched:,} crops searched are hardly found: {reasons}"


@dataclass(frozen=True)
class Findings:
    """What a search for one person found.

    Attributes:
        found: answers, best first.
        exact: every row that passes was compared.
        recall: of an approximate search, measured when the index was built; None where exact, and where none was
            measured with this filter.
        matches: how many answers are matches; None where that is not calibrated.
        verdict: one sentence for people: what is a match and how often that is wrong, or why nothing is.
        seconds: the whole search took, all queries together.
        searched: rows that passed filter and exclusion.
        hard: those of them that are hardly found, so that "no match" says little of them.
        uncertain: why time or camera of a row found may be another, by the row's id; of those rows alone.
        guess: matches and probabilities are a guess where the pictures show real people: the model was calibrated with
            generated ones.
    """

    found: tuple[Found, ...]
    exact: bool
    recall: float | None
    matches: int | None
    verdict: str
    seconds: float
    searched: int
    hard: Hard = field(default_factory=Hard)
    guess: bool = False
    uncertain: Mapping[str, str] = field(default_factory=dict)

    def say_uncertain(self) -> str:
        """For people, how many answers have rows whose time or camera is uncertain and why; empty where none has."""
        reasons: dict[str, int] = {}
        for answer in self.found:
            for words in {self.uncertain.get(row.sighting.id, "") for row in answer.rows} - {""}:
                reasons[words] = reasons.get(words, 0) + 1
        told = [f"{words} ({count} of {len(self.found)} answers)" for words, count in sorted(reasons.items())]
        return "time or camera uncertain: " + " | ".join(told) if told else ""


def find(
    store: Store, queries: Sequence[Query], options: FindOptions, calibration: Calibration | None
) -> list[Findings]:
    """Search a gallery for some people; findings of each.

    What the query itself is does not come back: neither its rows nor anything of their tracklets.

    Args:
        queries: of the gallery's model; one that says to be of another is refused.
        calibration: of the gallery's model; None gives similarities alone.
    Raises:
        FilterError: the filter is wrong.
        GalleryError: vectors of another model, or options that these queries, or each other, cannot have.
        ProtocolError: a rate, a prior or a ranking that the calibration does not support, or that needs one.
    """
    start = time.perf_counter()
    for query in queries:
        if query.model:
            store.expect(ModelInfo(query.model, query.vectors.shape[1]))
    if options.rerank and options.rank == "calibrated":
        raise GalleryError(
            "search: rerank and rank calibrated both decide on the order, and re-ranked distances are not calibrated; "
            "take one of the two"
        )
    if calibration is None:
        for name, needs_calibration in (
            ("false_alarms", options.false_alarms is not None),
            ("prior", options.prior is not None),
            ("group identity", options.group == "identity"),
            ("rank calibrated", options.rank == "calibrated"),
        ):
            if needs_calibration:
                raise ProtocolError(f"search: {name} needs a calibration: {advise_calibration(store)}")
    passing = as_filter(options.filter)
    alike: dict[Filter | None, list[int]] = {}  # queries that search the same rows are searched together
    for place, query in enumerate(queries):
        alike.setdefault(_without_query(query, passing, options.exclude_seconds), []).append(place)
    findings: dict[int, Findings] = {}
    for rows, places in alike.items():
        some = _find(store, [queries[place] for place in places], rows, passing, options, calibration)
        findings |= zip(places, some, strict=True)
    seconds = time.perf_counter() - start
    return [replace(findings[place], seconds=seconds) for place in range(len(queries))]


def _without_query(query: Query, passing: Filter | None, exclude_seconds: float | None) -> Filter | None:
    """The filter that also leaves the query itself out, and what its camera saw around it."""
    parts = [] if passing is None else [passing]
    if exclude_seconds is not None and not query.rows:
        raise GalleryError(
            "search: exclude_seconds needs a query from the gallery (a row or a tracklet), whose camera and time are "
            "known; for a picture filter by camera and time"
        )
    sightings = [row.sighting for row in query.rows]
    for name, own in (
        ("id", {each.id for each in sightings if not each.tracklet}),
        ("tracklet", {each.tracklet for each in sightings if each.tracklet}),
    ):
        if own:
            parts.append(Not(Among(name, tuple(sorted(own)))))
    if exclude_seconds is not None:
        for camera in sorted({each.camera for each in sightings}):
            times = sorted(each.time for each in sightings if each.camera == camera)
            for first, last in _join_times(times, exclude_seconds):
                around = Compare("time", ">=", first), Compare("time", "<=", last)
                parts.append(Not(And((Compare("camera", "==", camera), *around))))
    return And(tuple(parts)) if len(parts) > 1 else parts[0] if parts else None


def _join_times(times: Iterable[float], seconds: float) -> list[tuple[float, float]]:
    """The intervals around ascending times, those that touch joined."""
    intervals: list[tuple[float, float]] = []
    for moment in times:
        if intervals and moment - seconds <= intervals[-1][1]:
            intervals[-1] = (intervals[-1][0], moment + seconds)
        else:
            intervals.append((moment - seconds, moment + seconds))
    return intervals


def _and(rows: Filter | None, part: Filter) -> Filter:
    return part if rows is None else And((rows, part))


def _find(
    store: Store,
    queries: Sequence[Query],
    rows: Filter | None,
    passing: Filter | None,
    options: FindOptions,
    calibration: Calibration | None,
) -> list[Findings]:
    """Findings of queries that search the same rows."""
    num_rows = store.count(rows)
    if num_rows == 0:
        verdict = _say_empty(store, rows, passing)
        return [Findings((), True, None, None, verdict, 0.0, 0) for _ in queries]
    visible = store.count(_and(rows, Compare("modality", "==", Modality.VISIBLE)))
    sizes = {Modality.VISIBLE: visible, Modality.INFRARED: num_rows - visible}
    means = [_mean_vectors(query) for query in queries]
    kinds = [modality for modality, size in sizes.items() if size]
    if options.rank == "calibrated" and calibration is not None:
        asking = {modality for query in queries for modality in query.modalities}
        calibration.check_ranks({pair_name(one, other) for one in asking for other in kinds})
    strangers = known_strangers(store) if calibration is not None else None
    refuted = ""
    if options.group == "identity" and calibration is not None and strangers is not None:
        refuted = strangers.refute_joining(calibration)
    if refuted:
        options = options.model_copy(update={"group": "tracklet"})
    groups_of_queries, exact, recall = _search(store, means, rows, kinds, options, calibration)
    dark = say_dark(dark_sources(store, rows))
    rules_and_why = [_match_rule(store, query, sizes, options, calibration, strangers) for query in queries]
    rules: list[Rule | None] = [rule for rule, _ in rules_and_why]
    if options.rank == "calibrated" and calibration is not None:  # the order needs no rate of false alarms
        rules = [rule or ProbabilityRule(calibration) for rule in rules]
    if options.group == "none":
        answers_of_queries = [
            [weigh_group(row, rule, {}, {}) for row in groups]
            for groups, rule in zip(groups_of_queries, rules, strict=True)
        ]
    else:
        answers_of_queries = weigh_tracklets(store, groups_of_queries, means, rules, rows)
    hard = _count_hard(store, rows)
    findings = []
    for answers, (rule, why) in zip(answers_of_queries, rules_and_why, strict=True):
        order: Sequence[int] = range(len(answers))
        if not options.rerank:
            order = best_first([(each.similarity, each.probability, each.accepted) for each in answers])
        best = tuple(replace(answers[place], rank=rank) for rank, place in enumerate(order[: options.k], start=1))
        known = [each.accepted for each in best if each.accepted is not None]
        matches = sum(known) if rule is not None else None
        verdict = why if rule is None or matches is None else _say(rule, matches, len(best))
        if matches and matches == len(best) == options.k:
            verdict += "; there may be more matches than answers: ask for more answers"
        if rule is not None and strangers is None:
            verdict += "; whether the calibration holds in this gallery was not checked: it has no folder"
        if rule is None:  # as without a ranking: no answer has a probability where none can be a match
            best = tuple(replace(each, probability=None) for each in best)
        verdict += f"; {refuted}" if refuted else ""
        if options.group == "identity" and calibration is not None:
            rate = max(comparison_rates(calibration).values(), default=0.0)
            verdict += (
                "; identities are an estimate: tracklets are joined where they are on average more similar than all "
                f"but {100 * rate:.3g} % of comparisons of two people"
            )
        if options.rerank:
            verdict += "; the order is re-ranked, similarity and probability are not"
        if options.rank == "calibrated":
            verdict += "; each modality's nearest are merged by probability, not by similarity"
        verdict += f"; {dark}" if dark else ""
        guess = rule is not None and bool(rule.calibration.caveat)
        uncertain = say_uncertain(store, (row for answer in best for row in answer.rows))
        findings.append(Findings(best, exact, recall, matches, verdict, 0.0, num_rows, hard, guess, uncertain))
    return findings


def _count_hard(store: Store, rows: Filter | None) -> Hard:
    """Rows that pass and are hardly found, by why."""
    counts = store.count_values("remark", _and(rows, Compare("remark", "!=", "")))  # of a handful of texts
    by_why = {why: sum(count for text, count in counts.items() if why in text.split("; ")) for why in HARD}
    whole = sum(count for text, count in counts.items() if not set(HARD).isdisjoint(text.split("; ")))
    return Hard(whole, {why: count for why, count in by_why.items() if count})


def _say_empty(store: Store, rows: Filter | None, passing: Filter | None) -> str:
    total = store.count()
    if total == 0:
        dark = dark_sources(store, None)
        if dark:
            return (
                f"the gallery is empty, and {len(dark)} of what was indexed was too dark to detect anybody, such as "
                f"{dark[0].source}: who was there is not known; light the scene or use an infrared camera"
            )
        return "the gallery is empty; fill it with `tapetum index`"
    if rows == passing or (passing is not None and store.count(passing) == 0):
        words = f"no row passes the filter {write_filter(passing)}; the gallery has {total:,} rows"
        return "; ".join(filter(None, (words, say_dark(dark_sources(store, passing)))))
    return "no row is left beside the query itself and what was excluded around it"


def _say(rule: MatchRule, matches: int, answers: int) -> str:
    what = "is a match" if matches == 1 else "are matches"
    begin = f"{matches} of {answers} answers {what}: similarity from" if matches else "no match above"
    said = f"{begin} {rule.words}; probabilities assume {100 * rule.prior:g} % before looking"
    return ": ".join(filter(None, (rule.calibration.caveat, said)))  # the caveat first, where nobody misses it


def _match_rule(
    store: Store,
    query: Query,
    sizes: Mapping[Modality, int],
    options: FindOptions,
    calibration: Calibration | None,
    strangers: Strangers | None,
) -> tuple[MatchRule | None, str]:
    """The rule of a query, or why there is none."""
    if calibration is None:
        return None, f"not calibrated, so that no answer can be called a match; {advise_calibration(store)}"
    modalities = set(query.modalities)
    pairs = {pair_name(one, other) for one in modalities for other, size in sizes.items() if size}
    if not pairs & set(calibration.pairs):
        return None, (
            f"{', '.join(sorted(pairs))} is not calibrated, so that no answer can be called a match; calibrate with "
            "people seen in both modalities"
        )
    try:
        rule = build_match_rule(
            calibration, sizes, modalities=modalities, rate=options.false_alarms, prior=options.prior
        )
    except ProtocolError as error:
        if options.false_alarms is not None or options.prior is not None:
            raise
        return None, f"no answer can be called a match: {error}"
    contradiction = strangers.contradict(rule) if strangers is not None else ""
    return (None, contradiction) if contradiction else (rule, "")


def _search(
    store: Store,
    queries: Sequence[Means],
    rows: Filter | None,
    kinds: Sequence[Modality],
    options: FindOptions,
    calibration: Calibration | None,
) -> tuple[list[list[Group]], bool, float | None]:
    """Groups of each query by their best row; more rows are fetched until there are enough groups.

    Args:
        kinds: modalities of the rows; ranked by the calibration, each is searched for its own nearest rows, so that
            no approximate search and no cut loses those of one among the other's.
    """
    apart: Sequence[Filter | None] = [rows]
    if options.rank == "calibrated" and len(kinds) > 1:
        apart = [_and(rows, Compare("modality", "==", kind)) for kind in kinds]
    ranked_by = calibration if options.rank == "calibrated" else None
    groups_of: dict[int, list[Group]] = {}
    enough = options.k * (1 if options.group == "none" or options.rerank else LOOKED_AT)
    size = options.k if options.group == "none" else enough * ROWS_A_GROUP
    size = min(max(size, options.shortlist if options.rerank else 0), MOST_ANSWERS)
    exact, recalls = True, []
    waiting = list(range(len(queries)))
    while waiting:
        vectors = np.stack([vector for place in waiting for vector in queries[place].values()])
        answers = [store.search(vectors, size, part, exact=options.exact) for part in apart]
        exact = exact and all(answer.exact for answer in answers)
        recalls += [answer.recall for answer in answers if not answer.exact]
        hits = zip(*(answer.hits for answer in answers), strict=True)
        left = []
        for place in waiting:
            asked = [(modality, some) for modality in queries[place] for some in next(hits)]
            complete = size == MOST_ANSWERS or all(len(some) < size for _, some in asked)
            best: dict[str, tuple[float, FoundRow]] = {}
            for modality, some in asked:
                list_rows = [FoundRow(hit.row, hit.similarity, modality) for hit in some]
                for entry in zip(_worth(list_rows, ranked_by), list_rows, strict=True):
                    name = entry[1].row.sighting.id
                    if name not in best or entry[0] > best[name][0]:
                        best[name] = entry
            found_rows = [row for _, row in sorted(best.values(), key=lambda entry: -entry[0])][:size]
            if options.rerank:
                found_rows = _rerank(store, np.stack(list(queries[place].values())), found_rows, options.shortlist)
            groups, full = _group(store, found_rows, rows, options, calibration)
            if complete or full or len(groups) >= enough:
                groups_of[place] = groups[:enough]
            else:
                left.append(place)
        waiting, size = left, min(FETCH_MORE * size, MOST_ANSWERS)
    known = [recall for recall in recalls if recall is not None]
    recall = min(known) if known and len(known) == len(recalls) else None
    return [groups_of[place] for place in range(len(queries))], exact, recall


def say_recall(recall: float | None) -> str:
    """What an approximate search finds, for people."""
    if recall is None:
        return "how many of the ten nearest rows it finds with this filter was not measured"
    return f"finds {100 * recall:.1f} % of the ten nearest rows"


def _worth(rows: Sequence[FoundRow], calibration: Calibration | None) -> list[float]:
    """What orders each row among those of other pairs of modalities: its evidence, else its similarity.

    Args:
        calibration: None ranks by similarity.
    """
    worth = np.array([each.similarity for each in rows], dtype=np.float64)
    if calibration is not None:
        pairs = np.array([pair_name(each.asked, each.row.sighting.modality) for each in rows], dtype=str)
        for pair in np.unique(pairs).tolist():  # once for each: a call costs more than its values
            worth[pairs == pair] = calibration.evidence(worth[pairs == pair], pair)
    found: list[float] = worth.tolist()
    return found


def _mean_vectors(query: Query) -> Means:
    """The normalised mean of a query's vectors for each modality it has."""
    kinds = np.array([int(each) for each in query.modalities])
    modalities = sorted(set(query.modalities))
    means = [unit_rows(query.vectors[kinds == int(each)]).mean(0) for each in modalities]
    return dict(zip(modalities, unit_rows(np.stack(means)), strict=True))


def _rerank(store: Store, vectors: Real, rows: list[FoundRow], shortlist: int) -> list[FoundRow]:
    """The first rows in the order of their re-ranked distance; the others follow as they were."""
    entries = store.fetch([each.row.sighting.id for each in rows[:shortlist]])
    by_id = {each.row.sighting.id: each for each in rows}
    near = [by_id[row.sighting.id] for row in entries.rows]  # one that was deleted meanwhile is left out
    if near:
        import torch

        from tapetum.evaluation.rerank import rerank

        distances = rerank(torch.from_numpy(vectors), torch.from_numpy(entries.matrix)).amin(0)
        near = [near[place] for place in distances.argsort(stable=True).tolist()]
    return near + rows[shortlist:]


def _group(
    store: Store,
    found_rows: Sequence[FoundRow],
    rows: Filter | None,
    options: FindOptions,
    calibration: Calibration | None,
) -> tuple[list[Group], bool]:
    """Groups in the order of their first row, and whether more rows would change nothing."""
    if options.group == "none":
        return [[each] for each in found_rows], False
    tracklets = group_rows(found_rows)
    if options.group == "tracklet" or calibration is None:
        return tracklets, False
    most = max(options.shortlist, options.k)
    return join_identities(store, tracklets[:most], rows, calibration), len(tracklets) >= most
