import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from gallery_rows import files_with
from listed_sightings import read_all_sightings
from plain_model import pictures_seen, plain_model
from street_clip import write_street
from tapetum.core.errors import FilterError, GalleryError, OutputError
from tapetum.core.locks import locked
from tapetum.footage.detect import BackgroundDetector
from tapetum.footage.extract import extract_sightings
from tapetum.footage.facts import SourceOptions
from tapetum.footage.options import ExtractOptions
from tapetum.footage.report import FootageReport
from tapetum.footage.sources import Source, find_sources
from tapetum.gallery.store import Store
from tapetum.indexing.index import IndexOptions, index_sources, open_gallery_for
from tapetum.indexing.shards import Made, write_shard
from tapetum.inference.sessions import Model
from tapetum.searching import retention as module
from tapetum.searching.retention import (
    Erasure,
    apply_retention,
    digest_id,
    erase,
    read_erased,
    read_keep_days,
    write_keep_days,
)

SMALL = IndexOptions(batch=2, compact=False)
DAY = 86_400.0


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_street(tmp_path_factory.mktemp("clip") / "cam3_2026-11-20T21-00-00.mp4")


@pytest.fixture
def sources(clip: Path) -> list[Source]:
    return find_sources([clip])


@pytest.fixture
def model() -> Model:
    return plain_model()


@pytest.fixture
def store(tmp_path: Path, model: Model) -> Iterator[Store]:
    with open_gallery_for(tmp_path / "night", model, tmp_path / "model") as opened:
        yield opened


def folder_of(store: Store) -> Path:
    assert store.folder is not None
    return store.folder


def traces(store: Store, names: list[str], vectors: np.ndarray, crops: list[bytes]) -> list[Path]:
    """Every file of the gallery with a byte of these sightings in it."""
    folder = folder_of(store)
    wanted = [*(name.encode() for name in names), *(vector.tobytes() for vector in vectors), *crops]
    return sorted({path for content in wanted for path in files_with(folder, content)})


def test_an_erased_walk_leaves_no_byte_in_any_file_and_does_not_come_back(
    sources: list[Source], store: Store, model: Model
) -> None:
    index_sources(sources, store, model, BackgroundDetector())
    folder = folder_of(store)
    first, *_, last = (row.sighting.tracklet for row in store.find())
    rows = store.find(f'tracklet == "{first}"')
    names = [row.sighting.id for row in rows]
    vectors = store.fetch(names).vectors.numpy()
    crops = [(folder / row.sighting.crop).read_bytes() for row in rows]
    assert len({path.parent.name for path in traces(store, names, vectors, crops)}) >= 4  # table, blocks, crops, list
    erased = erase(store, f'tracklet == "{first}"')
    assert (erased.ids, len(erased), erased.lines) == (tuple(names), len(names), len(names))
    assert traces(store, names, vectors, crops) == []
    assert {row.sighting.tracklet for row in store.find()} == {last}
    seen = pictures_seen(model)
    again = index_sources(sources, store, model, BackgroundDetector())
    assert (again.added, again.footage.finished_before, pictures_seen(model)) == (0, 1, seen)
    other = replace(SMALL, extract=ExtractOptions(max_people=50))  # the source is read anew and finds the same
    again = index_sources(sources, store, model, BackgroundDetector(), options=other)
    assert (again.added, again.erased) == (0, len(names))
    assert traces(store, names, vectors, crops) == []
    assert {row.sighting.crop for row in store.find()} == {
        path.relative_to(folder).as_posix() for path in (folder / "crops").rglob("*") if path.is_file()
    }


def test_who_was_erased_between_a_killed_run_and_the_next_does_not_come_back(
    sources: list[Source], store: Store, model: Model
) -> None:
    folder = folder_of(store)
    index_sources(sources, store, model, BackgroundDetector(), options=SMALL, stop=lambda: pictures_seen(model) > 0)
    running = extract_sightings(sources[0], folder, BackgroundDetector())
    listed = [next(running) for _ in range(5)]
    running.close()
    (key,) = (path.name for path in (folder / "crops").iterdir())
    begun = folder / "sources" / f".{key}.jsonl.0123.jsonl"  # what a kill leaves
    begun.write_text("".join(f"{each}\n" for each in listed))
    rows = store.find()
    stored = len(rows)  # a batch, and one that may have been on its way
    names = [row.sighting.id for row in rows]
    vectors = store.fetch(names).vectors.numpy()
    crops = [(folder / sighting.crop).read_bytes() for sighting in listed]
    erased = erase(store, 'camera == "cam3"')
    assert stored in (2, 4)
    assert (len(erased), erased.unfinished) == (stored, 5 - stored)
    assert traces(store, [sighting.id for sighting in listed], vectors, crops) == []
    again = index_sources(sources, store, model, BackgroundDetector())
    assert again.erased == stored
    assert again.added == again.footage.crops > 3
    assert traces(store, names, vectors, crops[:stored]) == []


def test_shards_of_an_unfinished_job_that_hold_somebody_go_as_well(
    sources: list[Source], store: Store, model: Model
) -> None:
    index_sources(sources, store, model, BackgroundDetector())
    first, second, *_ = store.find()
    for number, row in enumerate((first, second)):
        vectors = store.fetch([row.sighting.id]).vectors.numpy()
        made = Made((row.sighting,), vectors, row.run, FootageReport())
        (folder_of(store) / "shards" / "job").mkdir(parents=True, exist_ok=True)
        write_shard(folder_of(store) / "shards" / "job" / f"00000{number}.shard", made)
    erase(store, f'id == "{first.sighting.id}"')
    assert [path.name for path in (folder_of(store) / "shards" / "job").iterdir()] == ["000001.shard"]


def test_only_the_lists_that_name_somebody_are_written_again_and_a_damaged_one_goes(
    clip: Path, tmp_path: Path, store: Store, model: Model
) -> None:
    cv2.imwrite(str(tmp_path / "cam1_0.png"), np.full((48, 20, 3), 90, np.uint8))
    index_sources(find_sources([clip, tmp_path / "cam1_0.png"]), store, model, BackgroundDetector())
    lists = sorted((folder_of(store) / "sources").glob("[!.]*.jsonl"))
    loose, walked = sorted(lists, key=lambda path: path.stat().st_size)
    before = loose.stat().st_ino, walked.stat().st_ino
    count = len(erase(store, 'camera == "cam3" and frame < 40'))
    assert count > 0
    assert (loose.stat().st_ino == before[0], walked.stat().st_ino == before[1]) == (True, False)
    assert len(list(read_all_sightings(folder_of(store)))) == store.count()
    walked.write_text(walked.read_text()[:-30])
    erase(store, 'camera == "cam1"')
    assert [path.exists() for path in (loose, walked)] == [True, False]
    again = index_sources(find_sources([clip]), store, model, BackgroundDetector())
    assert (again.erased, again.added) == (count, 0)


def test_a_wrong_filter_erases_nothing_and_no_filter_is_no_way_to_say_all(
    sources: list[Source], store: Store, model: Model
) -> None:
    index_sources(sources, store, model, BackgroundDetector())
    before = store.find()
    with pytest.raises(FilterError, match="unknown field 'tracket'; did you mean tracklet"):
        erase(store, 'tracket == "x"')
    with pytest.raises(GalleryError, match="erasing needs a filter"):
        erase(store, None)  # type: ignore[arg-type]
    assert erase(store, 'camera == "nowhere"') == Erasure()
    assert store.find() == before


def test_erasing_beside_a_run_is_refused(sources: list[Source], store: Store, model: Model) -> None:
    index_sources(sources, store, model, BackgroundDetector(), options=SMALL, stop=lambda: pictures_seen(model) > 0)
    folder = folder_of(store)
    (lock,) = (folder / "sources").glob(".*.lock")
    with locked(lock, "busy"), pytest.raises(OutputError, match="another run is reading a source"):
        erase(store, 'camera == "cam3"')
    count = store.count()
    assert count in (2, 4)  # the batch that was stored, and one that may have been on its way
    assert len(erase(store, 'camera == "cam3"')) == count


def test_a_deletion_that_was_killed_between_list_and_table_is_finished_by_repeating_it(
    sources: list[Source], store: Store, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    index_sources(sources, store, model, BackgroundDetector())
    names = [row.sighting.id for row in store.find()]

    def killed(filter: object) -> int:  # noqa: A002
        raise KeyboardInterrupt(filter)

    with monkeypatch.context() as patch:
        patch.setattr(store, "delete", killed)
        with pytest.raises(KeyboardInterrupt):
            erase(store, 'camera == "cam3"')
    assert store.count() == len(names)  # nothing was acknowledged
    assert erase(store, 'camera == "cam3"').ids == tuple(names)
    assert index_sources(sources, store, model, BackgroundDetector()).added == store.count() == 0


def test_retention_is_remembered_and_applied_after_each_indexing(
    clip: Path, tmp_path: Path, store: Store, model: Model
) -> None:
    now = time.time()
    (tmp_path / "other.mp4").write_bytes(clip.read_bytes() + b"other footage")
    old = find_sources([clip], SourceOptions(start=now - 3 * DAY, camera="old"))
    new = find_sources([tmp_path / "other.mp4"], SourceOptions(start=now - 60.0, camera="new"))
    index_sources(old, store, model, BackgroundDetector())
    count = store.count()
    report = index_sources(new, store, model, BackgroundDetector(), options=IndexOptions(keep_days=2.0))
    assert (report.dropped, report.added) == (count, count)
    assert {row.sighting.camera for row in store.find()} == {"new"}
    assert f"erased because they are too old to be kept: {count} rows" in report.lines()
    assert read_keep_days(store) == 2.0
    assert index_sources(old, store, model, BackgroundDetector()).dropped == 0  # nothing came back to be dropped
    assert apply_retention(store, now).ids == ()
    assert len(apply_retention(store, now + 30 * DAY)) == count
    assert store.count() == 0


def test_what_is_too_old_never_reaches_the_disk(clip: Path, store: Store, model: Model) -> None:
    old = find_sources([clip], SourceOptions(start=time.time() - 3 * DAY))
    report = index_sources(old, store, model, BackgroundDetector(), options=IndexOptions(keep_days=1.0))
    assert report.footage.refused.total() > 8
    assert (report.added, report.dropped, report.footage.without_person) == (0, 0, [])
    assert not list((folder_of(store) / "crops").rglob("*.jpg"))
    report = index_sources(old, store, model, BackgroundDetector(), options=IndexOptions(keep_days=1.0))
    assert report.footage.finished_before == 1
    write_keep_days(store, None)
    assert apply_retention(store) == Erasure()


@pytest.mark.parametrize("longer", [30.0, None])
def test_footage_that_was_too_old_is_read_again_once_the_gallery_keeps_longer(
    clip: Path, store: Store, model: Model, longer: float | None
) -> None:
    old = find_sources([clip], SourceOptions(start=time.time() - 3 * DAY))
    index_sources(old, store, model, BackgroundDetector(), options=IndexOptions(keep_days=1.0))
    report = index_sources(old, store, model, BackgroundDetector(), options=IndexOptions(keep_days=2.0))
    assert (report.footage.sources, report.added) == (1, 0)
    write_keep_days(store, longer)
    report = index_sources(old, store, model, BackgroundDetector())
    assert report.added == store.count() > 8
    assert index_sources(old, store, model, BackgroundDetector()).footage.finished_before == 1


def test_a_damaged_rule_is_no_reason_to_lose_footage(clip: Path, store: Store, model: Model) -> None:
    old = find_sources([clip], SourceOptions(start=time.time() - 3 * DAY))
    index_sources(old, store, model, BackgroundDetector(), options=IndexOptions(keep_days=1.0))
    (folder_of(store) / module.KEPT).write_text("{")
    report = index_sources(old, store, model, BackgroundDetector(), options=IndexOptions(keep_days=30.0))
    assert report.added == store.count() > 8


def test_days_that_cannot_be_and_damaged_notes_are_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for days in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(GalleryError, match=f"keep {days} days; want more than 0"):
            write_keep_days(store, days)
    folder = folder_of(store)
    (folder / module.KEPT).write_text("{")
    with pytest.raises(GalleryError, match="say again how long to keep"):
        apply_retention(store)
    (folder / module.ERASED).write_bytes(b"\xff\xfe")
    with pytest.raises(GalleryError, match="erased sightings could come back; restore it"):
        read_erased(folder)
    monkeypatch.setattr(store, "folder", None)
    assert read_keep_days(store) is None
    with pytest.raises(GalleryError, match="has no folder to write retention down in"):
        write_keep_days(store, 3.0)


@pytest.mark.parametrize("ending", [".png", ".bmp"])  # one is kept as it is, the other encoded anew
def test_erased_pictures_do_not_come_back_under_other_names(
    store: Store, model: Model, tmp_path: Path, ending: str
) -> None:
    rng = np.random.default_rng(0)
    first, other = tmp_path / "first", tmp_path / "other"
    first.mkdir()
    for number in range(4):
        cv2.imwrite(str(first / f"cam1_{number}{ending}"), rng.integers(60, 200, (64, 32, 3), np.uint8))
    index_sources(find_sources([first]), store, model, None)
    gone = store.find()[:3]
    for row in gone:
        erase(store, f'id == "{row.sighting.id}"')
    other.mkdir()
    for number, path in enumerate(sorted(first.iterdir())):
        shutil.copy(path, other / f"cam2_holiday_{number}{ending}")
    report = index_sources(find_sources([other]), store, model, None)
    assert (report.added, report.erased, store.count()) == (1, 3, 2)
    assert len(read_erased(folder_of(store))) == 3, "pictures are not counted"
    assert len(list(folder_of(store).glob("crops/*/*"))) == 2


def test_a_picture_that_cannot_be_read_ends_an_erasure_before_anything_is_removed(
    tmp_path: Path, store: Store, model: Model
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    cv2.imwrite(str(pictures / "cam1_0.png"), np.random.default_rng(0).integers(60, 200, (64, 32, 3), np.uint8))
    index_sources(find_sources([pictures]), store, model, None)
    (row,) = store.find()
    crop = folder_of(store) / row.sighting.crop
    crop.unlink()
    crop.mkdir()
    with pytest.raises(OutputError, match=rf"{crop.name}: cannot be read .* nothing was erased"):
        erase(store, f'id == "{row.sighting.id}"')
    assert store.count() == 1


def test_what_stays_of_somebody_is_a_digest_alone(sources: list[Source], store: Store, model: Model) -> None:
    index_sources(sources, store, model, BackgroundDetector())
    ids = erase(store, 'camera == "cam3"').ids
    folder = folder_of(store)
    assert read_erased(folder) == {digest_id(name) for name in ids}
    assert not any(name in digest_id(name) for name in ids)
    (listed,) = (folder / "sources").glob("[!.]*.jsonl")
    head, end = map(json.loads, listed.read_text().splitlines())
    assert set(head) == {"source", "kind", "camera", "start", "start_origin", "cameras", "doubts", "detector"}
    assert end["end"] is True  # it does not say how many there were
