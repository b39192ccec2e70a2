"""Searching a gallery for a person: questions, groups, exclusions, re-ranking, and what is called a match."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gallery_rows import MODEL, NIGHT, RUN, a_row, some_vectors
from tapetum.core.arrays import Real, Whole
from tapetum.core.errors import DataError, FilterError, GalleryError, ProtocolError
from tapetum.core.sighting import Sighting
from tapetum.core.types import Modality
from tapetum.data.image_io import Picture, read_picture
from tapetum.evaluation.calibration import Calibration, PairCalibration, to_content, write_calibration
from tapetum.evaluation.thresholds import Tail
from tapetum.footage.detect import BackgroundDetector
from tapetum.footage.extract import extract_sightings
from tapetum.footage.quality import CUT, TOO_DARK, TOO_SMALL
from tapetum.footage.sources import find_sources
from tapetum.gallery.filters import Among, Filter, Not, write_filter
from tapetum.gallery.opening import open_gallery
from tapetum.gallery.schema import ModelInfo, Row, Run
from tapetum.gallery.store import SearchResult, Store
from tapetum.inference.artefact import ModelSettings
from tapetum.inference.sessions import Model
from tapetum.searching import find as finding
from tapetum.searching.calibrated import calibration_of_gallery, stored_calibration_of
from tapetum.searching.case import build_case, render_case
from tapetum.searching.find import find
from tapetum.searching.identities import link
from tapetum.searching.query import Query, join_queries, query_of_pictures, query_of_rows, query_of_tracklet
from tapetum.searching.question import FindOptions

CLIP = Path(
    os.environ.get("TAPETUM_CLIP", Path(__file__).parents[4] / "shared" / "data" / "one-by-one-person-detection.mp4")
)
VISIBLE, INFRARED = Modality.VISIBLE, Modality.INFRARED
PEOPLE = 6
ROWS_OF_ONE = 12  # of each person: three cameras, four rows a tracklet


def calibrated(threshold: float = 0.6, **settings: object) -> Calibration:
    """Thresholds by hand: one false alarm in a hundred comparisons, or in ten searches of any gallery."""
    comparisons = Tail(rates=(0.01, 0.1, 1.0), thresholds=(threshold, threshold - 0.2, -1.0))
    searches = {100: Tail(rates=(0.1, 1.0), thresholds=(threshold + 0.1, -1.0))}
    pair = PairCalibration((0.0, 1.0), (0.05, 0.95), comparisons, searches, {"people": 300})
    pairs = {"visible-visible": pair, "visible-infrared": pair, "infrared-infrared": pair}
    plain = Calibration({}, {}, "synth", 0, 0.5, "isotonic", (0.1, 0.01), pairs)
    return replace(plain, **settings)  # type: ignore[arg-type]


def row_of(person: int, number: int, **changes: object) -> Row:
    camera = f"c{number // 4 + 1}"
    sighting = replace(
        a_row(0).sighting,
        id=f"p{person}-{number}",
        camera=camera,
        time=NIGHT + 1000.0 * person + 100.0 * (number // 4) + number % 4,
        tracklet=f"{camera}-p{person}",
        modality=VISIBLE,
    )
    return Row(replace(sighting, **changes), RUN)  # type: ignore[arg-type]


def crowd() -> tuple[list[Row], Tensor]:
    """Six people, each seen by three cameras in a tracklet of four rows."""
    rows = [row_of(person, number) for person in range(PEOPLE) for number in range(ROWS_OF_ONE)]
    people = some_vectors(PEOPLE, seed=1).repeat_interleave(ROWS_OF_ONE, 0)
    return rows, functional.normalize(people + 0.3 * some_vectors(len(rows), seed=2))


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with open_gallery(tmp_path_factory.mktemp("galleries") / "street", create=MODEL) as store:
        store.upsert(*crowd())
        yield store


def picture_query(person: int, *, modality: Modality = VISIBLE, count: int = 1) -> Query:
    base = some_vectors(PEOPLE, seed=1)[person]
    vectors = functional.normalize(base + 0.3 * some_vectors(count, seed=30 + person))
    return Query(vectors, (modality,) * count, tuple(f"picture {number}" for number in range(count)))


def test_a_query_of_another_model_is_refused_and_so_is_one_of_two_models(street: Store) -> None:
    own, other = (replace(picture_query(2), model=model) for model in (MODEL.id, "another"))
    assert find(street, [own], FindOptions(), None)[0].found
    for queries in ([other], [own, other]):
        with pytest.raises(GalleryError, match=f"holds embeddings of model '{MODEL.id}'.* not of 'another'"):
            find(street, queries, FindOptions(), None)
    (row, *_) = street.find()
    of_row = query_of_rows(street, [row.sighting.id])
    assert of_row.model == query_of_tracklet(street, row.sighting.tracklet).model == MODEL.id
    assert join_queries([picture_query(2), of_row]).model == MODEL.id
    with pytest.raises(GalleryError, match="another and idf-1234 are of two models; embed them with one"):
        join_queries([of_row, other])


def ids(rows: Sequence[Row]) -> list[str]:
    return [row.sighting.id for row in rows]


def test_answers_are_tracklets_best_first_with_their_rows(street: Store) -> None:
    (findings,) = find(street, [picture_query(2)], FindOptions(k=5), calibrated())
    assert [each.rank for each in findings.found] == [1, 2, 3, 4, 5]
    assert {each.row.sighting.tracklet for each in findings.found[:3]} == {"c1-p2", "c2-p2", "c3-p2"}
    for each in findings.found:
        assert each.row == each.rows[0]
        assert each.similarities[0] == max(each.similarities)
        assert len({row.sighting.tracklet for row in each.rows}) == 1
    similarities = [each.similarity for each in findings.found]
    assert similarities == sorted(similarities, reverse=True)
    assert (findings.exact, findings.recall, findings.searched) == (True, None, PEOPLE * ROWS_OF_ONE)
    assert findings.seconds > 0


def test_a_calibration_of_generated_people_is_called_a_guess_before_anything_else(street: Store) -> None:
    (sure,) = find(street, [picture_query(2)], FindOptions(k=5), calibrated())
    (guess,) = find(street, [picture_query(2)], FindOptions(k=5), calibrated(data={"generated": True}))
    assert (sure.guess, guess.guess, guess.matches) == (False, True, sure.matches)
    caveat = "a guess where pictures show real people, as the calibration is of generated ones: "
    assert guess.verdict == caveat + sure.verdict
    (case,) = build_case(street, [picture_query(2)], [guess], FindOptions(k=5)).content["searches"]
    assert case["guess"] is True
    page = render_case(build_case(street, [picture_query(2)], [guess], FindOptions(k=5)))
    assert ">match?<" in page
    assert ">match<" not in page


def test_rows_come_one_by_one_where_nothing_is_grouped(street: Store) -> None:
    query = picture_query(2)
    (findings,) = find(street, [query], FindOptions(k=7, group="none"), None)
    expected = street.search(query.vectors, 7).hits[0]
    assert [each.row for each in findings.found] == [hit.row for hit in expected]
    assert [each.similarity for each in findings.found] == pytest.approx([hit.similarity for hit in expected])


def test_as_many_groups_come_as_are_asked_for_though_one_tracklet_fills_the_first_rows(tmp_path: Path) -> None:
    rows = [replace(a_row(n), sighting=replace(a_row(n).sighting, tracklet="long")) for n in range(300)]
    rows += [replace(a_row(n), sighting=replace(a_row(n).sighting, tracklet=f"t{n}")) for n in range(300, 310)]
    near, far = some_vectors(1), some_vectors(10, seed=5)
    vectors = torch.cat([near + 0.01 * some_vectors(300, seed=3), far])
    with open_gallery(tmp_path / "g", create=MODEL) as store:
        store.upsert(rows, vectors)
        (findings,) = find(store, [Query(near, (VISIBLE,), ("x",))], FindOptions(k=5), None)
        assert findings.found[0].row.sighting.tracklet == "long"
        assert len(findings.found) == 5
        assert len(findings.found[0].rows) == 300
        (every,) = find(store, [Query(near, (VISIBLE,), ("x",))], FindOptions(k=100), None)
        assert len(every.found) == 11


def test_rows_without_a_tracklet_are_groups_of_their_own(tmp_path: Path) -> None:
    rows = [replace(a_row(n), sighting=replace(a_row(n).sighting, tracklet="")) for n in range(4)]
    with open_gallery(tmp_path / "g", create=MODEL) as store:
        store.upsert(rows, some_vectors(4))
        (findings,) = find(store, [Query(some_vectors(1), (VISIBLE,), ("x",))], FindOptions(), None)
        assert len(findings.found) == 4
        (without,) = find(store, [query_of_rows(store, ["row00001"])], FindOptions(), None)
        assert {each.row.sighting.id for each in without.found} == {"row00000", "row00002", "row00003"}


def test_all_queries_are_searched_in_one_question_to_the_gallery(
    street: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    search = street.search

    def counting(vectors: Tensor, *arguments: object, **named: object) -> object:
        asked.append(len(vectors))
        return search(vectors, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(street, "search", counting)
    queries = [picture_query(person, count=3) for person in range(PEOPLE)]
    findings = find(street, queries, FindOptions(k=3), calibrated())
    assert asked == [PEOPLE]
    for person, each in enumerate(findings):
        assert {found.row.sighting.tracklet for found in each.found} == {f"c{n}-p{person}" for n in (1, 2, 3)}


def test_several_pictures_of_one_person_count_as_their_mean_vector(street: Store) -> None:
    query = picture_query(1, count=3)
    (findings,) = find(street, [query], FindOptions(k=1), None)
    mean = functional.normalize(torch.from_numpy(query.vectors).mean(0), dim=0)
    walk = functional.normalize(street.fetch(ids(findings.found[0].rows)).vectors.mean(0), dim=0)
    assert findings.found[0].similarity == pytest.approx(float(walk @ mean), abs=1e-5)
    parts = [Query(query.vectors[n : n + 1], (VISIBLE,), (str(n),)) for n in range(3)]
    assert join_queries(parts).labels == ("0", "1", "2")
    (joined,) = find(street, [join_queries(parts)], FindOptions(k=1), None)
    assert joined.found == findings.found


def test_of_pictures_in_two_modalities_a_row_counts_with_the_more_similar_one(street: Store) -> None:
    one, other = picture_query(0), picture_query(4, modality=INFRARED)
    (findings,) = find(street, [join_queries([one, other])], FindOptions(k=6), calibrated())
    assert {each.row.sighting.tracklet[-2:] for each in findings.found} == {"p0", "p4"}
    (alone,) = find(street, [one], FindOptions(k=1), calibrated())
    same = next(each for each in findings.found if each.row == alone.found[0].row)
    assert same.similarity == pytest.approx(alone.found[0].similarity)
    assert "visible-infrared" in findings.verdict


def test_a_row_finds_the_person_elsewhere_and_never_its_own_tracklet(street: Store) -> None:
    query = query_of_rows(street, ["p3-1"])
    assert query.labels == ("row p3-1",)
    (findings,) = find(street, [query], FindOptions(k=2), calibrated())
    assert {each.row.sighting.tracklet for each in findings.found} == {"c2-p3", "c3-p3"}
    (every,) = find(street, [query], FindOptions(k=500, group="none"), None)
    assert not [row for row in every.found if row.row.sighting.tracklet == "c1-p3"]
    assert every.searched == PEOPLE * ROWS_OF_ONE - 4


def test_a_tracklet_is_a_query_of_all_its_rows(street: Store) -> None:
    query = query_of_tracklet(street, "c2-p5")
    assert ids(query.rows) == ["p5-4", "p5-5", "p5-6", "p5-7"]
    (findings,) = find(street, [query], FindOptions(k=2), None)
    assert {each.row.sighting.tracklet for each in findings.found} == {"c1-p5", "c3-p5"}


def test_what_the_query_s_camera_saw_around_it_is_left_out_by_the_gallery_itself(tmp_path: Path) -> None:
    rows = [row_of(0, n, camera="c1" if n < 9 else "c2", time=NIGHT + 10.0 * n, tracklet=f"t{n}") for n in range(12)]
    with open_gallery(tmp_path / "g", create=MODEL) as store:
        store.upsert(rows, some_vectors(12))
        query = query_of_rows(store, ["p0-2", "p0-3"])
        (findings,) = find(store, [query], FindOptions(k=3, exclude_seconds=20), None)
        assert findings.searched == 6
        assert len(findings.found) == 3  # k of what is left
        (every,) = find(store, [query], FindOptions(exclude_seconds=20), None)
        assert {each.row.sighting.id for each in every.found} == {f"p0-{n}" for n in (6, 7, 8, 9, 10, 11)}
        (touching,) = find(store, [query_of_rows(store, ["p0-9"])], FindOptions(exclude_seconds=0), None)
        assert touching.searched == 11
        (nobody,) = find(store, [query], FindOptions(exclude_seconds=20, filter='id in ("p0-2", "p0-4")'), None)
        assert nobody.verdict == "no row is left beside the query itself and what was excluded around it"
    with pytest.raises(GalleryError, match="exclude_seconds needs a query from the gallery"):
        find(store, [picture_query(0)], FindOptions(exclude_seconds=5), None)


def test_a_filter_that_nothing_passes_is_said_and_a_misspelt_one_is_an_error(street: Store, tmp_path: Path) -> None:
    (findings,) = find(street, [picture_query(0)], FindOptions(filter='camera == "c9"'), calibrated())
    assert findings.found == ()
    assert findings.verdict == 'no row passes the filter camera == "c9"; the gallery has 72 rows'
    with pytest.raises(FilterError, match="did you mean camera"):
        find(street, [picture_query(0)], FindOptions(filter='camra == "c1"'), None)
    with open_gallery(tmp_path / "new", create=MODEL) as store:
        (empty,) = find(store, [picture_query(0)], FindOptions(), None)
    assert empty.verdict == "the gallery is empty; fill it with `tapetum index`"


def test_the_threshold_is_that_of_the_rows_that_pass_and_its_rate_is_said(street: Store) -> None:
    (findings,) = find(street, [picture_query(2)], FindOptions(k=5), calibrated())
    assert findings.matches == 3
    assert [each.accepted for each in findings.found] == [True, True, True, False, False]
    assert findings.verdict == (
        "3 of 5 answers are matches: similarity from 0.7000, which 10 % of searches in 72 pictures for somebody who is "
        "not there reach; probabilities assume 50 % before looking"
    )
    first = findings.found[0]
    walk = functional.normalize(street.fetch(ids(first.rows)).vectors.mean(0), dim=0)
    assert first.probability == pytest.approx(0.05 + 0.9 * float(walk.numpy() @ picture_query(2).vectors[0]))
    (few,) = find(street, [picture_query(2)], FindOptions(k=5, filter='camera == "c1"', prior=0.01), calibrated())
    assert "of searches in 24 pictures" in few.verdict
    assert few.found[0].probability is not None
    assert first.probability is not None
    assert few.found[0].probability < first.probability / 2
    (nobody,) = find(street, [picture_query(2)], FindOptions(k=5), calibrated(1.0))
    assert nobody.matches == 0
    assert nobody.verdict.startswith("no match above 1.0000, which 10 % of searches")
    with pytest.raises(ProtocolError, match=r"too few for a false-alarm rate of 0\.001"):
        find(street, [picture_query(2)], FindOptions(false_alarms=0.001), calibrated())


def test_similarity_probability_and_match_are_those_of_a_whole_walk_and_not_of_its_best_row(tmp_path: Path) -> None:
    asked, other = torch.linalg.qr(some_vectors(2, seed=5).T)[0].T
    rows = [row_of(0, number) for number in range(4)] + [
        row_of(1, 4, tracklet=""),
        row_of(0, 3, id="ir", modality=INFRARED),
    ]
    vectors = torch.stack([asked, other, other, other, asked, asked])  # one crop of four shows somebody alike
    query = Query(asked[None], (VISIBLE,), ("picture",))
    with open_gallery(tmp_path / "g", create=MODEL) as store:
        store.upsert(rows, vectors)
        (walks,) = find(store, [query], FindOptions(filter="modality == visible"), calibrated())
        (alone,) = find(store, [query], FindOptions(filter="modality == visible", group="none"), calibrated())
        (passing,) = find(store, [query], FindOptions(filter=Among("id", ("p0-0", "p0-1"))), calibrated())
    likely = calibrated().probability(np.array([1.0, 10**-0.5, 2**-0.5]), "visible-visible")
    by_tracklet = {found.row.sighting.tracklet: found for found in walks.found}
    assert by_tracklet[""].probability == pytest.approx(likely[0])
    assert by_tracklet["c1-p0"].probability == pytest.approx(likely[1])  # 1 / |(1, 3)|
    assert by_tracklet["c1-p0"].similarity == pytest.approx(10**-0.5)
    assert by_tracklet["c1-p0"].similarities[0] == pytest.approx(1)
    assert (by_tracklet[""].accepted, by_tracklet["c1-p0"].accepted) == (True, False)
    assert alone.found[0].probability == alone.found[1].probability == pytest.approx(likely[0])
    assert passing.found[0].probability == pytest.approx(likely[2])


def test_rows_that_are_hardly_found_are_counted_and_said(tmp_path: Path) -> None:
    remarks = [TOO_DARK, f"{TOO_DARK}; {CUT}", CUT, "blurred", "", TOO_SMALL, ""]
    rows = [row_of(0, number, remark=remark, tracklet=f"t{number}") for number, remark in enumerate(remarks)]
    with open_gallery(tmp_path / "g", create=MODEL) as store:
        store.upsert(rows, some_vectors(len(rows)))
        query = picture_query(0)
        (findings,) = find(store, [query], FindOptions(), None)
        (some,) = find(store, [query], FindOptions(filter='id in ("p0-3", "p0-4", "p0-5")'), None)
        (none,) = find(store, [query], FindOptions(filter='id == "p0-4"'), None)
    assert findings.hard.say(findings.searched) == (
        "4 of 7 crops searched are hardly found: 2 too dark to match, 2 cut by the frame's edge, 1 too small"
    )
    assert (some.hard.rows, some.hard.why, none.hard.say(1)) == (1, {TOO_SMALL: 1}, "")


def test_an_answer_is_found_though_its_best_row_is_not_among_the_best(tmp_path: Path) -> None:
    """Walks are fetched by their best row and ordered by their mean vector."""
    asked, other, third = torch.linalg.qr(some_vectors(3, seed=5).T)[0].T
    lone = functional.normalize(torch.stack([0.9 * asked + 0.4 * other, other, other, other]))
    steady = functional.normalize((0.8 * asked + 0.6 * third).repeat(4, 1))
    rows = [row_of(0, number) for number in range(4)] + [row_of(1, number + 4) for number in range(4)]
    with open_gallery(tmp_path / "g", create=MODEL) as store:
        store.upsert(rows, torch.cat([lone, steady]))
        (findings,) = find(store, [Query(asked[None], (VISIBLE,), ("x",))], FindOptions(k=1), calibrated())
    assert findings.found[0].row.sighting.tracklet == "c2-p1"
    assert findings.found[0].similarity == pytest.approx(0.8, abs=1e-4)


def test_without_a_calibration_nothing_is_called_a_match_and_the_remedy_is_named(street: Store) -> None:
    (findings,) = find(street, [picture_query(2)], FindOptions(k=2), None)
    assert (findings.matches, findings.found[0].accepted, findings.found[0].probability) == (None, None, None)
    assert findings.verdict == ("not calibrated, so that no answer can be called a match; run `tapetum calibrate RUN`")
    for options in (FindOptions(group="identity"), FindOptions(prior=0.1), FindOptions(false_alarms=0.1)):
        with pytest.raises(ProtocolError, match="needs a calibration: run `tapetum calibrate RUN`"):
            find(street, [picture_query(2)], options, None)


def test_a_pair_of_modalities_that_is_not_calibrated_is_said_and_never_a_match(street: Store) -> None:
    only = calibrated()
    only = replace(only, pairs={"visible-visible": only.pairs["visible-visible"]})
    (findings,) = find(street, [picture_query(2, modality=INFRARED)], FindOptions(k=2), only)
    assert findings.matches is None
    assert findings.verdict.startswith("visible-infrared is not calibrated")
    both = join_queries([picture_query(2), picture_query(4, modality=INFRARED)])
    (mixed,) = find(street, [both], FindOptions(k=6), only)
    told = {each.row.sighting.tracklet[-2:]: each.accepted for each in mixed.found}
    assert told == {"p2": True, "p4": None}
    assert "; visible-infrared is not calibrated; " in mixed.verdict


def test_identities_join_tracklets_and_are_called_an_estimate(street: Store) -> None:
    (findings,) = find(street, [picture_query(2)], FindOptions(k=3, group="identity"), calibrated())
    people = [{row.sighting.tracklet[-2:] for row in each.rows} for each in findings.found]
    assert all(len(one) == 1 for one in people)
    assert people[0] == {"p2"}
    assert len(findings.found[0].rows) == ROWS_OF_ONE
    assert len({row.sighting.camera for row in findings.found[0].rows}) == 3
    assert (
        "identities are an estimate: tracklets are joined where they are on average more similar than all but 1 %"
        in (findings.verdict)
    )
    (strict,) = find(street, [picture_query(2)], FindOptions(k=3, group="identity"), calibrated(1.01))
    assert {len(each.rows) for each in strict.found} == {4}


def test_average_linkage_joins_the_nearest_first_and_stops_at_the_threshold() -> None:
    margins = np.array([[0, 0.3, -0.5, -0.9], [0.3, 0, 0.2, -0.9], [-0.5, 0.2, 0, -0.9], [-0.9, -0.9, -0.9, 0]])
    assert link(margins.copy()) == [[0, 1], [2], [3]]  # 2 is near 1 but not near both
    margins[0, 2] = margins[2, 0] = -0.2
    assert link(margins.copy()) == [[0, 1, 2], [3]]
    assert link(np.full((3, 3), -np.inf)) == [[0], [1], [2]]
    rng = np.random.default_rng(0)
    for _ in range(20):
        noise = rng.normal(0, 0.4, (9, 9))
        margins = (noise + noise.T) / 2
        assert link(margins.copy()) == linked_slowly(margins)
    assert link(np.empty((0, 0))) == []


def linked_by_all_pairs(margins: np.ndarray) -> list[list[int]]:
    """Every join looks at all pairs, and takes the first of the greatest."""
    mean = margins.copy()
    np.fill_diagonal(mean, -np.inf)
    groups = {number: [number] for number in range(len(mean))}
    while len(groups) > 1:
        first, second = sorted(divmod(int(mean.argmax()), len(mean)))
        if not mean[first, second] >= 0:
            break
        own, other = len(groups[first]), len(groups[second])
        means = (own * mean[first] + other * mean[second]) / (own + other)
        mean[first], mean[:, first] = means, means
        mean[first, first] = -np.inf
        mean[second], mean[:, second] = -np.inf, -np.inf
        groups[first] += groups.pop(second)
    return [sorted(groups[number]) for number in sorted(groups)]


@pytest.mark.parametrize("steps", [None, 1, 2, 5])  # of equal margins; None: no two are equal
def test_joins_are_those_of_a_look_at_all_pairs_each_time_also_where_margins_are_equal(steps: int | None) -> None:
    rng = np.random.default_rng(7)
    for size in (2, 3, 10, 40, 90):
        for middle in (-0.3, 0.0, 0.4):
            noise = rng.normal(middle, 0.4, (size, size))
            noise = noise if steps is None else np.round(noise * steps) / steps
            margins = np.triu(noise) + np.triu(noise, 1).T
            apart = rng.integers(2, size=size)
            for some in (margins, np.where(apart[:, None] != apart, -np.inf, margins), np.full_like(margins, 0.25)):
                assert link(some.copy()) == linked_by_all_pairs(some)


def linked_slowly(margins: np.ndarray) -> list[list[int]]:
    groups = [[n] for n in range(len(margins))]
    while True:
        means = {
            (a, b): float(np.mean([margins[i, j] for i in groups[a] for j in groups[b]]))
            for a in range(len(groups))
            for b in range(a + 1, len(groups))
        }
        best = max(means, key=lambda pair: means[pair], default=None)
        if best is None or means[best] < 0:
            return sorted(sorted(group) for group in groups)
        groups[best[0]] += groups.pop(best[1])


def test_re_ranking_changes_the_order_and_not_what_a_match_is(street: Store) -> None:
    query = picture_query(2)
    (plain,) = find(street, [query], FindOptions(k=72, group="none"), calibrated())
    (again,) = find(street, [query], FindOptions(k=72, group="none", rerank=True), calibrated())
    assert ids([each.row for each in again.found]) != ids([each.row for each in plain.found])
    told = {each.row.sighting.id: (each.similarity, each.probability, each.accepted) for each in plain.found}
    assert {each.row.sighting.id: (each.similarity, each.probability, each.accepted) for each in again.found} == told
    assert {each.row.sighting.id[:2] for each in again.found[:ROWS_OF_ONE]} == {"p2"}
    assert again.verdict.endswith("; the order is re-ranked, similarity and probability are not")
    (short,) = find(street, [query], FindOptions(k=72, group="none", rerank=True, shortlist=10), None)
    assert ids([each.row for each in short.found])[10:] == ids([each.row for each in plain.found])[10:]
    (groups,) = find(street, [query], FindOptions(k=3, rerank=True), None)
    assert {each.row.sighting.tracklet[-2:] for each in groups.found} == {"p2"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k is 0; it should be greater than or equal to 1"),
        ({"shortlist": 20_000}, "shortlist is 20000"),
        ({"group": "person"}, "group is 'person'; it should be .tracklet., .identity. or .none."),
        ({"exclude_seconds": -1.0}, "exclude_seconds is -1.0; it should be greater than or equal to 0"),
        ({"exclude_seconds": math.nan}, "exclude_seconds is nan"),
    ],
)
def test_options_that_cannot_work_are_refused(options: Mapping[str, object], message: str) -> None:
    with pytest.raises(GalleryError, match=message):
        FindOptions(**options)  # type: ignore[arg-type]


def test_what_the_gallery_does_not_have_is_no_query(street: Store) -> None:
    with pytest.raises(GalleryError, match="has no row 'p9-9'; it may have been deleted"):
        query_of_rows(street, ["p1-1", "p9-9"])
    with pytest.raises(GalleryError, match="no row was named"):
        query_of_rows(street, [])
    for name in ("c1-p99", ""):
        with pytest.raises(GalleryError, match="has no tracklet"):
            query_of_tracklet(street, name)


@dataclass
class Colours:
    """A session whose vector is the colours down the middle of a picture: no network, no training."""

    precision: str = "fp32"
    device: str = "cpu"

    def run(self, images: Real, modalities: Whole, camids: Whole) -> Real:
        cells = functional.adaptive_avg_pool2d(torch.from_numpy(images), (8, 3))[..., 1].flatten(1)
        return functional.normalize(cells - cells.mean(1, keepdim=True) + 1e-6).numpy()


SETTINGS = ModelSettings("colours", {}, (64, 32), "bicubic", "cv2", False, "none")
COLOURS = Model("colours-1", SETTINGS, "torch", 24, Colours())  # type: ignore[arg-type]


def a_picture(seed: int = 0, height: int = 60, width: int = 30) -> Picture:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3)).astype(np.uint8)


def test_a_query_of_pictures_tells_modality_by_each_and_remarks_what_spoils_it() -> None:
    grey = np.repeat(a_picture(1, 90, 40)[..., :1], 3, 2)
    query = query_of_pictures(COLOURS, [a_picture(0, 90, 40), grey], ["a", "b"])
    assert query.modalities == (VISIBLE, INFRARED)
    assert query.vectors.shape == (2, 24)
    dark = (a_picture(2, 90, 40) // 128).astype(np.uint8)
    told = query_of_pictures(COLOURS, [dark], ["c"], modality=INFRARED)
    assert told.modalities == (INFRARED,)
    assert "too dark to match" in told.remarks[0]


def test_a_box_in_a_frame_is_the_person_alone() -> None:
    frame = a_picture(3, 120, 200)
    boxed = query_of_pictures(COLOURS, [frame], ["frame"], boxes=[(50, 20, 30, 80)])
    alone = query_of_pictures(COLOURS, [frame[20:100, 50:80]], ["crop"])
    assert np.array_equal(boxed.vectors, alone.vectors)
    whole = query_of_pictures(COLOURS, [frame], ["frame"], boxes=[(0, 0, 200, 120)])
    assert whole.vectors.shape == (1, 24)


@pytest.mark.parametrize(
    ("picture", "box", "message"),
    [
        (a_picture(0, 60, 100), None, r"f.jpg: is 100 x 60 pixels, wider than a person; .* or 0,0,100,60 for all"),
        (a_picture(), (20, 10, 30, 40), "f.jpg: box 20,10,30,40 does not lie in its 30 x 60 pixels"),
        (a_picture(), (-1, 0, 20, 40), "does not lie in"),
        (a_picture(), (0, 0, 4, 40), "at least 8 pixels wide and high"),
        (np.full((60, 30, 3), 9, np.uint8), None, "f.jpg: is of one colour throughout, there is no person"),
    ],
)
def test_a_picture_on_which_there_can_be_no_person_is_refused(
    picture: Picture, box: tuple[int, int, int, int] | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        query_of_pictures(COLOURS, [picture], ["f.jpg"], boxes=[box])


def test_pictures_labels_and_boxes_belong_together() -> None:
    for pictures, labels in (([], []), ([a_picture()], ["a", "b"])):
        with pytest.raises(DataError, match="give one of each a picture"):
            query_of_pictures(COLOURS, pictures, labels)


def test_the_calibration_of_an_opened_model_is_used_where_there_is_one() -> None:
    assert stored_calibration_of(COLOURS) is None
    assert stored_calibration_of(replace(COLOURS, calibration=to_content(calibrated()))) == calibrated()


def test_a_gallery_whose_model_is_gone_is_searched_without_probabilities(tmp_path: Path) -> None:
    with open_gallery(tmp_path / "a", create=replace(MODEL, place=str(tmp_path / "gone"))) as store:
        found, why = calibration_of_gallery(store)
        assert found is None
        assert "gone" in why
    with open_gallery(tmp_path / "b", create=MODEL) as store:
        assert calibration_of_gallery(store)[1].endswith("does not say where its model is")
        write_calibration(tmp_path / "c.json", calibrated())
        with pytest.raises(GalleryError, match=r"c\.json cannot be checked; give the model too"):
            calibration_of_gallery(store, None, tmp_path / "c.json")


def test_no_python_runs_over_the_rows_of_the_gallery(street: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    group = finding._group

    def counting(store: Store, ordered: Sequence[object], *rest: object) -> object:
        seen.append(len(ordered))
        return group(store, ordered, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(finding, "_group", counting)
    find(street, [picture_query(0)], FindOptions(k=2), calibrated())
    assert seen == [2 * finding.LOOKED_AT * finding.ROWS_A_GROUP]


@pytest.mark.slow
@pytest.mark.skipif(not CLIP.is_file(), reason=f"the real clip is not at {CLIP}; set TAPETUM_CLIP to try it")
def test_a_crop_of_the_first_half_of_an_appearance_brings_its_second_half_back(tmp_path: Path) -> None:
    """Six people one after another; their colours tell them apart, so that no training stands behind this test.

    A crop cut by the frame's edge may hold a leg alone: it counts with the others of its half, not by itself.
    """
    (source,) = find_sources([CLIP])
    sightings = list(extract_sightings(source, tmp_path / "g", BackgroundDetector()))
    run = Run(COLOURS.id, "torch", "fp32")
    walks: dict[str, list[Sighting]] = {}
    for each in sightings:
        walks.setdefault(each.tracklet, []).append(each)
    assert len(walks) == 6
    with open_gallery(tmp_path / "g", create=ModelInfo(COLOURS.id, COLOURS.dimension)) as store:
        crops = {each.id: read_picture(tmp_path / "g" / each.crop) for each in sightings}
        vectors = COLOURS.describe(COLOURS.resize(list(crops.values())), [int(each.modality) for each in sightings])
        store.upsert([Row(each, run) for each in sightings], vectors)
        for walk in walks.values():
            first, second = walk[: len(walk) // 2], {each.id for each in walk[len(walk) // 2 :]}
            asked = [query_of_pictures(COLOURS, [crops[each.id]], [each.remark]) for each in first]
            rest = Not(Among("id", tuple(each.id for each in first)))
            options = FindOptions(k=1, group="none", filter=rest)
            for query, findings in zip(asked, find(store, asked, options, None), strict=True):
                assert findings.found[0].row.sighting.id in second or CUT in query.labels[0]
            (together,) = find(store, [join_queries(asked)], options, None)
            assert together.found[0].row.sighting.id in second


def steeper(low: float, high: float) -> PairCalibration:
    """A pair of modalities of which similarities from `low` to `high` say all."""
    plain = calibrated().pairs["visible-visible"]
    return replace(plain, similarities=(low, high), probabilities=(0.02, 0.98))


def both_kinds(folder: Path) -> Store:
    """Sixty rows in either modality, each alone; an infrared row's vector is mostly what all infrared ones share."""
    store = open_gallery(folder, create=MODEL)
    rows = [row_of(0, n, id=f"r{n:03}", tracklet="", modality=INFRARED if n % 2 else VISIBLE) for n in range(120)]
    shift = 1.5 * some_vectors(1, seed=7)
    vectors = functional.normalize(some_vectors(120, seed=8) + 0.4 * some_vectors(1, seed=9))
    vectors[1::2] = functional.normalize(vectors[1::2] + shift)
    store.upsert(rows, vectors)
    return store


def test_ranked_by_calibration_answers_are_in_the_order_of_their_log_odds_as_a_slow_loop_says(tmp_path: Path) -> None:
    own, across = steeper(0.0, 0.9), steeper(-0.2, 0.4)
    known = calibrated(pairs={"visible-visible": own, "visible-infrared": across, "infrared-infrared": own})
    with both_kinds(tmp_path / "g") as store:
        for modality in Modality:
            query = replace(query_of_rows(store, ["r001" if modality else "r000"]), rows=())
            every = find(store, [query], FindOptions(k=120, group="none"), None)[0].found
            expected = []
            for each in every:
                pair = own if each.row.sighting.modality == modality else across
                (low, high), (floor, top) = pair.similarities, pair.probabilities
                share = min(max((each.similarity - low) / (high - low), 0.0), 1.0)
                chance = floor + share * (top - floor)
                expected.append((math.log(chance / (1 - chance)), each.similarity, each.row.sighting.id))
            best = [name for *_, name in sorted(expected, reverse=True)]
            for k in (5, 20):
                options = FindOptions(k=k, group="none", rank="calibrated")
                found = find(store, [query], options, known)[0]
                assert [each.row.sighting.id for each in found.found] == best[:k]
                similarity = {each.row.sighting.id: each.similarity for each in every}
                assert all(each.similarity == similarity[each.row.sighting.id] for each in found.found)
                assert "merged by probability, not by similarity" in found.verdict


def test_a_short_list_by_similarity_loses_what_each_modality_s_own_search_finds(tmp_path: Path) -> None:
    own, across = steeper(0.5, 1.0), steeper(-0.5, 0.0)  # across modalities any similarity says more
    known = calibrated(pairs={"visible-visible": own, "visible-infrared": across, "infrared-infrared": own})
    with both_kinds(tmp_path / "g") as store:
        query = replace(query_of_rows(store, ["r001"]), rows=())
        kinds = []
        for rank in ("similarity", "calibrated"):
            (found,) = find(store, [query], FindOptions(k=6, group="none", rank=rank), known)
            kinds.append([each.row.sighting.modality for each in found.found])
        assert kinds[0] == [INFRARED] * 6
        assert kinds[1][1:] == [VISIBLE] * 5


@pytest.mark.parametrize("group", ["none", "tracklet"])
def test_a_ranking_by_calibration_needs_no_false_alarm_rate_that_is_supported(tmp_path: Path, group: str) -> None:
    def known(rates: tuple[float, ...]) -> Calibration:
        own, across = steeper(0.5, 1.0), steeper(-0.5, 0.0)
        pairs = {"visible-visible": own, "visible-infrared": across, "infrared-infrared": own}
        return calibrated(pairs=pairs, rates=rates)

    with both_kinds(tmp_path / "g") as store:
        query = replace(query_of_rows(store, ["r001"]), rows=())
        options = FindOptions(k=20, group=group, rank="calibrated")  # type: ignore[arg-type]
        (without,), (with_rate,) = (find(store, [query], options, known(rates)) for rates in ((1e-6,), (0.1,)))
        plain_options = options.model_copy(update={"rank": "similarity"})
        (plain,) = find(store, [query], plain_options, known((1e-6,)))
    assert without.verdict.startswith("no answer can be called a match: ")
    assert plain.verdict in without.verdict
    assert without.matches is None
    assert with_rate.matches is not None
    assert without.found == tuple(replace(each, probability=None, accepted=None) for each in with_rate.found)
    assert {each.row.sighting.id for each in without.found} != {each.row.sighting.id for each in plain.found}


def test_within_one_modality_the_ranking_by_calibration_is_that_by_similarity(street: Store) -> None:
    for group in ("none", "tracklet"):
        plain, ranked = (
            find(street, [picture_query(2)], FindOptions(k=20, group=group, rank=rank), calibrated())[0].found
            for rank in ("similarity", "calibrated")
        )
        assert plain == ranked


def test_a_ranking_by_calibration_that_cannot_be_is_refused_with_the_remedy(street: Store) -> None:
    options, only = FindOptions(rank="calibrated"), calibrated()
    with pytest.raises(ProtocolError, match="rank calibrated needs a calibration: run `tapetum calibrate"):
        find(street, [picture_query(2)], options, None)
    only = replace(only, pairs={"visible-visible": only.pairs["visible-visible"]})
    with pytest.raises(
        ProtocolError, match=r"visible-infrared is not calibrated.*; run `tapetum calibrate` with people"
    ):
        find(street, [picture_query(2, modality=INFRARED)], options, only)
    with pytest.raises(GalleryError, match="rerank and rank calibrated both decide"):
        find(street, [picture_query(2)], FindOptions(rank="calibrated", rerank=True), calibrated())
    with pytest.raises(GalleryError, match=r"rank is 'calibratd'; it should be .*; did you mean calibrated\?"):
        FindOptions(rank="calibratd")  # type: ignore[arg-type]


@pytest.mark.parametrize(("rank", "asked"), [("similarity", [None]), ("calibrated", ["visible", "infrared"])])
def test_each_modality_is_searched_for_as_many_rows_as_are_wanted_in_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: str, asked: list[str | None]
) -> None:
    """So an approximate index, too, has to find each modality's own nearest, not what is left among the other's."""
    with both_kinds(tmp_path / "g") as store:
        searched, before = [], store.search

        def note(vectors: Real, k: int, rows: Filter | None = None, *, exact: bool | None = None) -> SearchResult:
            searched.append((k, write_filter(rows) if rows is not None else None))
            return before(vectors, k, rows, exact=exact)

        monkeypatch.setattr(store, "search", note)
        query = replace(query_of_rows(store, ["r000"]), rows=())
        find(store, [query], FindOptions(k=7, group="none", rank=rank), calibrated())  # type: ignore[arg-type]
    assert [k for k, _ in searched] == [7] * len(asked)
    assert [rows and rows.removeprefix("modality == ") for _, rows in searched] == asked
