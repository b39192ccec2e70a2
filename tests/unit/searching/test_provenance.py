"""What searches say of times that are guesses, and of footage too dark to look at."""

from dataclasses import replace
from pathlib import Path

import pytest

from gallery_rows import MODEL, NIGHT, a_row, some_vectors
from tapetum.core.types import Modality
from tapetum.footage.facts import CameraFact, SourceOptions
from tapetum.footage.lists import ListCounts, writing_list
from tapetum.footage.origin import GUESSED_TIME
from tapetum.footage.sources import Source
from tapetum.gallery.filters import parse_filter
from tapetum.gallery.opening import open_gallery
from tapetum.gallery.store import Store
from tapetum.searching.case import build_case, render_case
from tapetum.searching.exports import export_sightings
from tapetum.searching.find import Findings, find
from tapetum.searching.provenance import dark_sources, say_uncertain
from tapetum.searching.query import Query
from tapetum.searching.question import FindOptions

GUESS = "time from the file's time of writing, a guess"


def list_it(store: Store, key: str, camera: str = "yard", doubts: tuple[str, ...] = (), **counts: object) -> None:
    path = Path(f"/footage/{camera}.mp4")
    fact = CameraFact(camera, camera, "option", "")
    source = Source("video", str(path), path, camera, NIGHT, "mtime", SourceOptions(), doubts=doubts, cameras=(fact,))
    assert store.folder is not None
    (store.folder / "crops" / key).mkdir(parents=True, exist_ok=True)
    with writing_list(store.folder, key, source, "one", lambda: ListCounts(**counts)):  # type: ignore[arg-type]
        pass


def fill(store: Store) -> None:
    for number, tracklet in enumerate(("aa-000001", "bb-000001", "cc-000001")):
        row = a_row(number)
        store.upsert(
            [replace(row, sighting=replace(row.sighting, tracklet=tracklet, camera="gate"))],
            some_vectors(1, seed=number),
        )


def search(store: Store, text: str | None = None) -> Findings:
    query = Query(some_vectors(1), (Modality.VISIBLE,), ("picture",))
    return find(store, [query], FindOptions(filter=text), None)[0]


def test_a_guessed_time_and_a_doubt_stand_beside_the_answers(tmp_path: Path) -> None:
    with open_gallery(tmp_path / "night", create=MODEL) as store:
        fill(store)
        assert search(store).uncertain == {}
        list_it(store, "aa", "gate", (GUESSED_TIME,), time_origins={"mtime": 2})
        list_it(store, "bb", "gate", ("metadata says another day",), time_origins={"metadata": 2, "mtime": 1})
        list_it(store, "cc", "gate", time_origins={"name": 1})
        findings = search(store)
        said = {row.sighting.tracklet: findings.uncertain.get(row.sighting.id) for row in store.find()}
        assert said == {
            "aa-000001": GUESS,
            "bb-000001": f"{GUESS} for 1 of 3 crops of this source; in doubt: metadata says another day",
            "cc-000001": None,
        }
        assert f"{GUESS} (1 of 3 answers)" in findings.say_uncertain()
        query = Query(some_vectors(1), (Modality.VISIBLE,), ("picture",))
        case = build_case(store, [query], [findings], FindOptions())
        told = [row["uncertain"] for answer in case.content["searches"][0]["answers"] for row in answer["rows"]]
        assert sorted(told) == sorted(words or "" for words in said.values())
        assert "in doubt: metadata says another day" in render_case(case)
        export_sightings(store, tmp_path / "s.csv")
        assert GUESS in (tmp_path / "s.csv").read_text()
        assert say_uncertain(store, []) == {}


@pytest.mark.parametrize(
    ("text", "touches"),
    [
        (None, True),
        ('camera == "yard"', True),
        ('camera != "yard"', False),
        ('camera in ("gate", "hall")', False),
        ('not camera == "yard"', False),
        ('time < "2026-11-20T00:00Z"', False),
        ('time >= "2026-11-20T00:00Z"', True),
        ('not time >= "2026-11-20T00:00Z"', False),
        ('time > "2099-11-20T00:00Z"', True),  # how long it was is not known
        ('camera == "gate" or quality > 0.5', True),
        ('camera == "yard" and quality > 0.5', True),
        ('camera == "gate" and quality > 0.5', False),
    ],
)
def test_dark_footage_that_a_filter_leaves_in_is_named(tmp_path: Path, text: str | None, touches: bool) -> None:
    assert parse_filter('time < "2026-11-20T00:00Z"').value < NIGHT  # type: ignore[union-attr]
    with open_gallery(tmp_path / "night", create=MODEL) as store:
        fill(store)
        assert dark_sources(store, None) == []
        list_it(store, "dd", "yard", frames=50, undetectable=40)
        list_it(store, "ee", "hall", frames=50, undetectable=4)
        verdict = search(store, text).verdict
    words = "1 of what was indexed, by camera yard, was too dark to detect anybody: who was there is not known"
    assert (words in verdict) == touches
