"""What is said of the answers of one search never contradicts itself, whatever was calibrated and however grouped."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from gallery_rows import MODEL, NIGHT, RUN, a_row, some_vectors
from tapetum.core.types import Modality
from tapetum.evaluation.calibration import Calibration, PairCalibration
from tapetum.evaluation.thresholds import PAIR_NAMES, Tail
from tapetum.gallery.opening import open_gallery
from tapetum.gallery.schema import Row
from tapetum.gallery.store import Store
from tapetum.searching.find import Findings, find
from tapetum.searching.match_rule import build_match_rule
from tapetum.searching.query import Query
from tapetum.searching.question import FindOptions, Grouping

PEOPLE, CAMERAS, CROPS = 5, 3, 4
SAME = 1e-6  # of a probability

shares = st.floats(0.001, 0.999)


@st.composite
def curves(draw: st.DrawFn) -> PairCalibration:
    """Any pair of modalities: probabilities that rise with level parts in between, and thresholds that fall."""
    count = draw(st.integers(2, 6))
    similarities = sorted(draw(st.lists(st.floats(-1, 1), min_size=count, max_size=count, unique=True)))
    probabilities = sorted(draw(st.lists(shares, min_size=count, max_size=count)))
    high, low = sorted(draw(st.tuples(st.floats(-0.5, 1.01), st.floats(-0.5, 1.01))), reverse=True)
    tail = Tail((0.01, 0.1, 1.0), (high, low, -1.0))
    return PairCalibration(tuple(similarities), tuple(probabilities), tail, {100: tail}, {"people": 300})


@st.composite
def calibrations(draw: st.DrawFn) -> Calibration:
    pairs = {name: draw(curves()) for name in PAIR_NAMES}
    return Calibration({}, {}, "synth", 0, draw(shares), "isotonic", (0.1, 0.01), pairs)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Walks of which some crops are infrared and some show somebody else."""
    rows: list[Row] = []
    for number in range(PEOPLE * CAMERAS * CROPS):
        walk, place = divmod(number, CROPS)
        person, camera = divmod(walk, CAMERAS)
        sighting = replace(
            a_row(0).sighting,
            id=f"p{person}-c{camera}-{place}",
            camera=f"c{camera}",
            time=NIGHT + 100 * walk + place,
            tracklet="" if walk % 7 == 6 else f"c{camera}-p{person}",
            modality=Modality.INFRARED if camera == 1 or (camera == 2 and place > 1) else Modality.VISIBLE,
        )
        rows.append(Row(sighting, RUN))
    people = some_vectors(PEOPLE, seed=1).repeat_interleave(CAMERAS * CROPS, 0)
    vectors = functional.normalize(people + 0.25 * torch.randn(people.shape, generator=torch.manual_seed(2)))
    with open_gallery(tmp_path_factory.mktemp("galleries") / "night", create=MODEL) as store:
        store.upsert(rows, vectors)
        yield store


def a_query(seed: int, modalities: tuple[Modality, ...]) -> Query:
    person = some_vectors(PEOPLE, seed=1)[seed % PEOPLE]
    vectors = functional.normalize(person + 0.25 * some_vectors(len(modalities), seed=50 + seed))
    return Query(vectors, modalities, tuple("picture" for _ in modalities))


def assert_agreed(findings: Findings) -> None:
    told = [(each.accepted, each.probability) for each in findings.found]
    matches = [probability for accepted, probability in told if accepted]
    others = [probability for accepted, probability in told if accepted is False]
    assert None not in (*matches, *others)
    if matches and others:
        assert min(matches) >= max(others) - SAME  # type: ignore[type-var, operator]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    calibrated=calibrations(),
    seed=st.integers(0, 20),
    modalities=st.sampled_from([(Modality.VISIBLE,), (Modality.INFRARED,), (Modality.VISIBLE, Modality.INFRARED)]),
    group=st.sampled_from(["tracklet", "identity", "none"]),
    rerank=st.booleans(),
    count=st.integers(1, 60),
)
def test_no_answer_that_is_no_match_is_more_probable_than_one_that_is(
    night: Store,
    calibrated: Calibration,
    seed: int,
    modalities: tuple[Modality, ...],
    group: Grouping,
    rerank: bool,
    count: int,
) -> None:
    options = FindOptions(k=count, group=group, rerank=rerank, false_alarms=0.2, prior=0.5)
    (findings,) = find(night, [a_query(seed, modalities)], options, calibrated)
    assert_agreed(findings)
    told = [each.probability or 0.0 for each in findings.found]
    if not rerank:
        assert told == sorted(told, reverse=True)
        marks = [bool(each.accepted) for each in findings.found]
        assert marks == sorted(marks, reverse=True)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(calibrated=calibrations(), seed=st.integers(0, 20))
def test_a_walk_is_told_alike_by_itself_and_as_the_most_probable_one_of_a_person(
    night: Store, calibrated: Calibration, seed: int
) -> None:
    query = a_query(seed, (Modality.VISIBLE,))
    answers = {}
    for group in ("tracklet", "identity"):
        options = FindOptions(k=100, group=group, false_alarms=0.2)
        (answers[group],) = find(night, [query], options, calibrated)
    alone = {row.sighting.id: each for each in answers["tracklet"].found for row in each.rows}
    for person in answers["identity"].found:
        walks = [alone[row.sighting.id] for row in person.rows]
        assert person.probability == pytest.approx(max(each.probability or 0.0 for each in walks), abs=SAME)
        assert person.accepted == any(each.accepted for each in walks)


@settings(max_examples=100)
@given(
    calibrated=calibrations(),
    similarities=st.lists(st.tuples(st.floats(-1, 1), st.booleans(), st.booleans()), min_size=2, max_size=30),
)
def test_a_match_always_reaches_the_threshold_of_its_own_pair_of_modalities(
    calibrated: Calibration, similarities: list[tuple[float, bool, bool]]
) -> None:
    sizes = dict.fromkeys(Modality, 50)
    rule = build_match_rule(calibrated, sizes, modalities=tuple(Modality), rate=0.4)
    for similarity, asked, found in similarities:
        pair = Modality(asked), Modality(found)
        if rule.accepts(similarity, *pair):
            assert similarity >= calibrated.threshold(0.1, rule.bars[pair].pair, gallery=50)
