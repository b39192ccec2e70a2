from dataclasses import replace
from pathlib import Path

import pytest

from gallery_rows import MODEL, NIGHT, a_row, some_rows, some_vectors
from street_clip import street, write_clip
from tapetum.core.errors import FilterError
from tapetum.core.types import Modality
from tapetum.footage.lists import ListCounts, writing_list
from tapetum.footage.sources import find_sources
from tapetum.gallery.opening import open_gallery
from tapetum.searching.facts import Span, read_facts
from tapetum.searching.find import find
from tapetum.searching.query import Query
from tapetum.searching.question import FindOptions
from tapetum.searching.retention import erase, write_keep_days


def test_a_gallery_is_told_in_numbers(tmp_path: Path) -> None:
    with open_gallery(tmp_path / "night", MODEL) as store:
        empty = read_facts(store)
        assert (empty.whole, empty.cameras, empty.recall) == (Span(0, 0.0, 0.0), {}, None)
        store.upsert(some_rows(30), some_vectors(30))
        dark = replace(a_row(40), sighting=replace(a_row(40).sighting, remark="too small; blurred"))
        store.upsert([dark], some_vectors(1, seed=3))
        write_keep_days(store, 30.0)
        erase(store, "frame == 29")
        facts = read_facts(store)
    assert facts.whole == Span(30, NIGHT + 1 / 3, NIGHT + 2400 + 1 / 3)
    assert {name: span.rows for name, span in facts.cameras.items()} == {"c1": 10, "c2": 11, "c3": 9}
    assert facts.modalities == {
        kind.name.lower(): sum(kind == number % 2 for number in (*range(29), 40)) for kind in sorted(Modality)
    }
    assert facts.remarks == {"too dark to match": 5, "too small": 1, "blurred": 1}
    assert (facts.keep_days, facts.erased, facts.runs) == (30.0, 1, {"first night": 30})
    assert facts.size_bytes is not None
    assert facts.size_bytes > 30 * 4 * MODEL.dimension
    assert "camera c1: 10 rows, 2026-11-21T20:00:00Z to 2026-11-21T20:27:00Z" in facts.lines()
    assert "search: every row is compared" in facts.lines()
    assert facts.lines()[-2:] == ["kept: 30 days", "erased so far: 1 sightings"]


def test_footage_too_dark_to_detect_anybody_is_told_though_it_has_no_rows(tmp_path: Path) -> None:
    clip = find_sources([write_clip(tmp_path / "yard.mp4", [street(0)] * 2)])[0]
    with open_gallery(tmp_path / "night", MODEL) as store:
        assert read_facts(store).dark == ()
        (tmp_path / "night" / "crops" / "ab").mkdir(parents=True)
        with writing_list(tmp_path / "night", "ab", clip, "seeing", lambda: ListCounts(frames=50, undetectable=40)):
            pass
        assert f"too dark to detect: {clip.name} by camera yard, 40 of 50 frames; who was there is not known" in (
            read_facts(store).lines()
        )
        (findings,) = find(store, [Query(some_vectors(1), (Modality.VISIBLE,), ("x",))], FindOptions(), None)
    assert findings.verdict.startswith("the gallery is empty, and 1 of what was indexed was too dark to detect anybody")


def test_the_approximate_index_states_its_recall(tmp_path: Path) -> None:
    with open_gallery(tmp_path / "night", MODEL, approximate_above=500) as store:
        store.upsert(some_rows(600), some_vectors(600))
        recall = store.compact()
        assert recall is not None
        facts = read_facts(store)
    assert facts.recall == recall
    assert f"search: approximate, finds {100 * recall:.1f} % of the ten nearest rows without a filter" in facts.lines()


def test_a_field_that_is_none_is_named(tmp_path: Path) -> None:
    with (
        open_gallery(tmp_path / "night", MODEL) as store,
        pytest.raises(FilterError, match="'camra' is no field; did you mean camera"),
    ):
        store.columns(["time", "camra"])
