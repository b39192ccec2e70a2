import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from interruption import press_ctrl_c
from listed_sightings import read_all_sightings
from plain_model import pictures_seen, plain_model
from street_clip import street, write_clip, write_street
from tapetum.core.arrays import Real, Whole
from tapetum.core.errors import CheckpointError, GalleryError, OutputError, RecipeError
from tapetum.core.types import Modality
from tapetum.data.image_io import read_picture
from tapetum.footage import crops
from tapetum.footage.detect import BackgroundDetector, Detections
from tapetum.footage.extract import extract_all
from tapetum.footage.facts import SourceOptions
from tapetum.footage.options import ExtractOptions
from tapetum.footage.sources import Source, find_sources
from tapetum.gallery.opening import open_gallery
from tapetum.gallery.store import Store
from tapetum.indexing.index import IndexOptions, index_sources, open_gallery_for
from tapetum.indexing.report import ERASED_BEFORE, IndexReport
from tapetum.inference.sessions import Model
from tapetum.searching import gallery_model
from tapetum.searching.gallery_model import open_gallery_model
from tapetum.searching.retention import write_keep_days

SMALL = IndexOptions(batch=2, run="first night", compact=False)
CLIP = Path(
    os.environ.get("TAPETUM_CLIP", Path(__file__).parents[4] / "shared" / "data" / "one-by-one-person-detection.mp4")
)


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


class Unasked(BackgroundDetector):
    """A detector that nobody may ask."""

    def detect(self, picture: np.ndarray) -> Detections:
        raise AssertionError(picture.shape)


class Interrupting(BackgroundDetector):
    """Presses Ctrl-C at a frame."""

    def __init__(self, frame: int) -> None:
        super().__init__()
        self.left = frame

    def detect(self, picture: np.ndarray) -> Detections:
        self.left -= 1
        if not self.left:
            press_ctrl_c()
        return super().detect(picture)


def threads_left() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("tapetum-")]


def ids(store: Store) -> list[str]:
    return [row.sighting.id for row in store.find()]


def crops_on_disk(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in (folder / "crops").rglob("*") if path.is_file()}


def write_crops(folder: Path, count: int = 6) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        cv2.imwrite(str(folder / f"cam{number % 2}_{number}.png"), rng.integers(60, 200, (48, 20, 3), dtype=np.uint8))
    return folder


def test_footage_becomes_rows_whose_vectors_are_those_of_their_crops(
    sources: list[Source], store: Store, model: Model
) -> None:
    report = index_sources(sources, store, model, BackgroundDetector(), options=IndexOptions(run="first night"))
    rows = store.find()
    assert report.added == report.rows == report.footage.crops == len(rows) > 8
    assert len({row.sighting.tracklet for row in rows}) == report.footage.tracklets == 2
    assert {(row.sighting.camera, row.sighting.modality) for row in rows} == {("cam3", Modality.VISIBLE)}
    assert {(row.run.model, row.run.runtime, row.run.precision, row.run.name) for row in rows} == {
        ("stripes-1", "torch", "fp32", "first night")
    }
    assert store.folder is not None
    pictures = model.resize([read_picture(store.folder / row.sighting.crop) for row in rows])
    vectors = model.describe(pictures, [int(row.sighting.modality) for row in rows])
    torch.testing.assert_close(store.fetch(ids(store)).vectors, vectors)
    assert {row.sighting.crop for row in rows} == crops_on_disk(store.folder)
    assert "fallback for static cameras" in "\n".join(report.lines())
    assert json.loads(json.dumps(report.to_dict()))["footage"]["crops"] == len(rows)


def test_a_crop_of_which_the_model_says_nothing_is_told_and_ends_nothing(
    sources: list[Source], store: Store, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, silent = model.session.run, []

    def run(images: Real, modalities: Whole, camids: Whole) -> Real:
        vectors = honest(images, modalities, camids)
        if not silent:
            silent.append(0)
            vectors[0] = 0
        return vectors

    monkeypatch.setattr(model.session, "run", run)
    report = index_sources(sources, store, model, BackgroundDetector())
    assert report.added == report.footage.crops - 1 == len(store.find())
    assert sum("the model says nothing of it; it cannot be searched for" in line for line in report.lines()) == 1


def test_somebody_is_found_again_by_a_crop_of_the_same_walk(sources: list[Source], store: Store, model: Model) -> None:
    index_sources(sources, store, model, BackgroundDetector())
    rows = [row for row in store.find() if not row.sighting.remark]  # whole, not cut by the frame's edge
    for row in rows:
        others = f'not id == "{row.sighting.id}"'
        (hits,) = store.search(store.fetch([row.sighting.id]).vectors, 1, others).hits
        assert hits[0].row.sighting.tracklet == row.sighting.tracklet


def test_the_same_call_again_reads_and_embeds_nothing(sources: list[Source], store: Store, model: Model) -> None:
    first = index_sources(sources, store, model, BackgroundDetector())
    before = ids(store), pictures_seen(model)
    again = index_sources(sources, store, model, Unasked())
    assert (ids(store), pictures_seen(model)) == before
    assert (again.added, again.known, again.erased) == (0, first.added, 0)
    assert again.footage.finished_before == 1
    assert f"rows: 0 added, {first.added} known before; {first.added} in {store.where}" in again.lines()


def state(clip: Path, **stated: object) -> list[Source]:
    return find_sources([clip], SourceOptions(**stated))  # type: ignore[arg-type]


def told(store: Store) -> list[tuple[str, str, float]]:
    return [(row.sighting.id, row.sighting.camera, row.sighting.time) for row in store.find()]


def test_camera_and_start_that_were_wrong_are_corrected_by_stating_others_and_indexing_again(
    clip: Path, sources: list[Source], store: Store, model: Model
) -> None:
    first = index_sources(sources, store, model, BackgroundDetector(), options=SMALL)
    before, vectors = told(store), store.fetch(ids(store)).vectors
    begin = sources[0].start
    assert begin is not None
    moved = index_sources(state(clip, start=begin + 3600), store, model, BackgroundDetector(), options=SMALL)
    assert told(store) == [(name, camera, pytest.approx(time + 3600)) for name, camera, time in before]
    assert (moved.added, moved.known, moved.corrected) == (0, 0, first.added)
    assert f"corrected: {first.added} rows have the camera, time or modality that was stated now" in moved.lines()
    assert "begins at 2026-11-20T22:00:00Z now; whom it showed is corrected as far as the same" in "\n".join(
        moved.lines()
    )
    named = index_sources(state(clip, camera="yard"), store, model, BackgroundDetector(), options=SMALL)
    assert named.corrected == first.added
    assert told(store) == [(name, "yard", pytest.approx(time + 3600)) for name, _, time in before]
    assert len({row.sighting.tracklet for row in store.find()}) == 2
    back = index_sources(state(clip, start=begin, camera="cam3"), store, model, BackgroundDetector(), options=SMALL)
    assert back.corrected == first.added
    assert [(name, camera, time) for name, camera, time in told(store)] == before
    torch.testing.assert_close(store.fetch(ids(store)).vectors, vectors)
    assert store.folder is not None
    assert {row.sighting.crop for row in store.find()} <= crops_on_disk(store.folder)
    again = index_sources(state(clip, start=begin, camera="cam3"), store, model, Unasked(), options=SMALL)
    assert (again.added, again.known, again.corrected) == (0, first.added, 0)


def test_what_is_not_stated_stays_as_a_gallery_has_it(
    clip: Path, sources: list[Source], store: Store, model: Model, tmp_path: Path
) -> None:
    index_sources(state(clip, camera="yard"), store, model, BackgroundDetector(), options=SMALL)
    before = told(store)
    unsaid = index_sources(sources, store, model, BackgroundDetector(), options=SMALL)
    assert (unsaid.corrected, told(store)) == (0, before)
    assert "it was camera yard in this gallery before, and is cam3 now; whom it showed keeps the first: state" in (
        "\n".join(unsaid.lines())
    )
    (tmp_path / "gate").mkdir()
    copy = Path(shutil.copy(clip, tmp_path / "gate"))
    elsewhere = state(copy, path_pattern="{camera}/{any}_{date}T{hour}-{minute}-{second}")
    copied = index_sources(elsewhere, store, model, BackgroundDetector(), options=SMALL)
    assert (copied.corrected, told(store)) == (0, before)  # a copy at another place is not the same file told otherwise


def test_one_recording_under_two_cameras_is_in_doubt_once_and_not_called_known_before(
    clip: Path, tmp_path: Path, store: Store, model: Model
) -> None:
    for camera in ("camA", "camB"):
        (tmp_path / "in" / camera).mkdir(parents=True)
        shutil.copy(clip, tmp_path / "in" / camera / "2026-11-20T21-00-00.mp4")
    pair = find_sources([tmp_path / "in"])
    assert [source.camera for source in pair] == ["camA", "camB"]
    first = index_sources(pair, store, model, BackgroundDetector(), options=SMALL)
    assert {row.sighting.camera for row in store.find()} == {"camA"}
    assert (first.known, first.copies) == (first.added, first.added)
    lines = first.lines()
    same = f"{first.added} the same as those of a copy"
    assert f"rows: {first.added} added, 0 known before, {same}; {first.rows} in {store.where}" in lines
    doubt = (
        f"in doubt, is the same recording as {pair[0].name} by camera camA in this gallery; its rows stay there, "
        f"unless --camera states another: {pair[1].name}"
    )
    assert [line for line in lines if "same recording" in line] == [doubt]
    again = index_sources(pair, store, model, Unasked(), options=SMALL)
    assert (again.added, again.known, again.copies) == (0, 2 * first.added, first.added)
    assert doubt in again.lines()
    stated = find_sources([pair[1].path], SourceOptions(camera="camB"))
    moved = index_sources(stated, store, model, BackgroundDetector(), options=SMALL)
    assert (moved.corrected, {row.sighting.camera for row in store.find()}) == (first.added, {"camB"})
    assert "same recording" not in "\n".join(moved.lines())


def test_another_modality_is_a_correction_too_and_leaves_walks_whole(
    clip: Path, sources: list[Source], store: Store, model: Model
) -> None:
    index_sources(sources, store, model, BackgroundDetector(), options=SMALL)
    walks = {row.sighting.id: row.sighting.tracklet for row in store.find()}
    (first, *_) = store.find()
    shown = replace(first, sighting=replace(first.sighting, modality=Modality.INFRARED))
    store.upsert([shown], store.fetch([first.sighting.id]).vectors)  # of a walk whose other rows are visible
    report = index_sources(state(clip, modality=Modality.VISIBLE), store, model, BackgroundDetector(), options=SMALL)
    assert report.corrected == 1
    assert {row.sighting.modality for row in store.find()} == {Modality.VISIBLE}
    assert {row.sighting.id: row.sighting.tracklet for row in store.find()} == walks


@pytest.mark.parametrize(
    "nightly", [{"utc_offset_hours": 1.0}, {"path_pattern": "{camera}_{date}T{hour}-{minute}-{second}"}]
)
def test_what_was_corrected_once_stays_so_when_the_nightly_command_comes_again(
    clip: Path, store: Store, model: Model, nightly: dict[str, object]
) -> None:
    index_sources(state(clip, **nightly), store, model, BackgroundDetector(), options=SMALL)
    index_sources(state(clip, **nightly, start=1.7e9, camera="yard"), store, model, BackgroundDetector(), options=SMALL)
    corrected = told(store)
    assert {camera for _, camera, _ in corrected} == {"yard"}
    again = index_sources(state(clip, **nightly), store, model, BackgroundDetector(), options=SMALL)
    assert (again.corrected, told(store)) == (0, corrected)


def test_a_start_that_makes_rows_too_old_to_be_kept_erases_them(
    clip: Path, sources: list[Source], store: Store, model: Model
) -> None:
    index_sources(sources, store, model, BackgroundDetector(), options=SMALL)
    count = store.count()
    write_keep_days(store, (time.time() - (sources[0].start or 0)) / 86400 + 30)
    older = state(clip, start=(sources[0].start or 0) - 365 * 86400)
    report = index_sources(older, store, model, BackgroundDetector(), options=SMALL)
    assert (report.corrected, report.dropped, store.count()) == (count, count, 0)


def test_a_correction_keeps_the_new_picture_where_the_old_one_is_gone(
    clip: Path, sources: list[Source], store: Store, model: Model
) -> None:
    index_sources(sources, store, model, BackgroundDetector(), options=SMALL)
    count = store.count()
    assert store.folder is not None
    shutil.rmtree(store.folder / "crops")
    report = index_sources(state(clip, camera="yard"), store, model, BackgroundDetector(), options=SMALL)
    assert (report.corrected, report.erased, store.count()) == (count, 0, count)
    assert {row.sighting.crop for row in store.find()} == crops_on_disk(store.folder)


def test_a_run_that_was_asked_to_stop_keeps_what_it_stored_and_the_next_one_completes(
    sources: list[Source], store: Store, model: Model, tmp_path: Path
) -> None:
    report = index_sources(sources, store, model, BackgroundDetector(), options=SMALL, stop=lambda: bool(ids(store)))
    stored = ids(store)
    assert report.stopped
    assert len(stored) == report.added == pictures_seen(model) == 4  # the batch stored, and the one under way
    assert store.folder is not None
    assert list(read_all_sightings(store.folder)) == []
    rest = index_sources(sources, store, model, BackgroundDetector(), options=SMALL)
    assert (rest.known, rest.stopped) == (4, False)
    assert pictures_seen(model) == len(ids(store)) == rest.rows
    with open_gallery_for(tmp_path / "undisturbed", model, tmp_path) as other:
        index_sources(sources, other, model, BackgroundDetector())
        assert ids(store) == ids(other)
    assert {row.sighting.crop for row in store.find()} == crops_on_disk(store.folder)


def test_a_long_source_without_anybody_can_be_stopped(tmp_path: Path, store: Store, model: Model) -> None:
    empty = write_clip(tmp_path / "empty.mp4", [street(0, empty=True)] * 60)
    asked: list[int] = []
    report = index_sources(
        find_sources([empty]),
        store,
        model,
        BackgroundDetector(),
        progress=lambda done, total: asked.append(done),
        stop=lambda: bool(asked),
    )
    assert report.stopped
    assert asked == [20]
    assert report.footage.frames < 60


def test_an_error_in_between_loses_no_row_that_was_counted(
    sources: list[Source], store: Store, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush, room = crops.flush, iter(range(5))

    def flush_while_there_is_room(path: Path) -> None:
        if next(room, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(path)

    monkeypatch.setattr(crops, "flush", flush_while_there_is_room)
    report = IndexReport()
    with pytest.raises(OutputError, match="No space left"):
        index_sources(sources, store, model, BackgroundDetector(), options=SMALL, report=report)
    assert len(ids(store)) == report.added == 4
    monkeypatch.setattr(crops, "flush", flush)
    index_sources(sources, store, model, BackgroundDetector(), options=SMALL)
    assert store.folder is not None
    assert len(ids(store)) == pictures_seen(model) == len(list(read_all_sightings(store.folder)))


def test_an_error_while_embedding_comes_out_and_what_was_stored_stays(
    sources: list[Source], store: Store, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, good = model.session.run, iter(range(2))

    def run_twice(images: Real, modalities: Whole, camids: Whole) -> Real:
        if next(good, None) is None:
            raise CheckpointError("stripes: out of memory; use a smaller batch")
        return run(images, modalities, camids)

    report = IndexReport()
    with monkeypatch.context() as patch:
        patch.setattr(model.session, "run", run_twice)
        with pytest.raises(CheckpointError, match="out of memory"):
            index_sources(sources, store, model, BackgroundDetector(), options=SMALL, report=report)
    assert len(ids(store)) == report.added == 4
    assert not threads_left()
    index_sources(sources, store, model, BackgroundDetector(), options=SMALL)
    assert len(ids(store)) == pictures_seen(model)


def test_ctrl_c_stores_what_is_under_way_and_the_next_run_completes(
    sources: list[Source], store: Store, model: Model, tmp_path: Path
) -> None:
    report = IndexReport()
    with pytest.raises(KeyboardInterrupt):
        index_sources(sources, store, model, Interrupting(110), options=SMALL, report=report)
    assert len(ids(store)) == report.added == pictures_seen(model) > 0
    assert not threads_left()
    assert store.folder is not None
    assert list(read_all_sightings(store.folder)) == []
    index_sources(sources, store, model, BackgroundDetector(), options=SMALL)
    with open_gallery_for(tmp_path / "undisturbed", model, tmp_path) as other:
        index_sources(sources, other, model, BackgroundDetector())
        assert ids(store) == ids(other)


def test_a_table_on_a_full_disk_leaves_its_source_unfinished(
    sources: list[Source], store: Store, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(rows: object, vectors: object) -> int:
        raise OutputError("night: cannot be written to; nothing of this batch was stored (No space left on device)")

    with monkeypatch.context() as patch:
        patch.setattr(store, "upsert", fail)
        with pytest.raises(OutputError, match="nothing of this batch was stored"):
            index_sources(sources, store, model, BackgroundDetector())
    assert store.folder is not None
    assert list(read_all_sightings(store.folder)) == []  # the list would say that its rows are in the gallery
    report = index_sources(sources, store, model, BackgroundDetector())
    assert report.added == len(ids(store)) == len(list(read_all_sightings(store.folder)))


def test_crops_of_a_finished_list_that_the_gallery_lacks_are_embedded(
    sources: list[Source], store: Store, model: Model
) -> None:
    assert store.folder is not None
    listed = list(extract_all(sources, store.folder, BackgroundDetector()))
    (store.folder / listed[0].crop).unlink()
    (store.folder / listed[1].crop).write_bytes(b"\xff\xd8\xff no picture")
    report = index_sources(sources, store, model, Unasked())
    assert sorted(ids(store)) == sorted(sighting.id for sighting in listed[2:])
    assert (report.added, report.erased, report.footage.num_problems) == (len(listed) - 2, 1, 1)
    assert f"not kept, {ERASED_BEFORE}: 1 crops" in report.lines()


def test_the_same_footage_with_other_settings_leaves_no_second_crop_of_a_row(
    sources: list[Source], store: Store, model: Model
) -> None:
    index_sources(sources, store, model, BackgroundDetector())
    first = ids(store)
    other = replace(SMALL, extract=ExtractOptions(max_people=50))
    report = index_sources(sources, store, model, BackgroundDetector(), options=other)
    assert ids(store) == first
    assert report.known == report.footage.crops == len(first)
    assert store.folder is not None
    assert {row.sighting.crop for row in store.find()} == crops_on_disk(store.folder)


def test_what_cannot_be_read_is_named_and_the_rest_is_indexed(
    clip: Path, tmp_path: Path, store: Store, model: Model
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(clip, folder / "cam1.mp4")
    (folder / "cam2.mp4").write_bytes(b"no video at all")
    unknown = clip.read_bytes().replace(b"mp4v", b"zzzz").replace(b"esds", b"free")  # nothing says which codec it is
    (folder / "cam4.mp4").write_bytes(unknown)
    (folder / "cam5.mp4").write_bytes(clip.read_bytes()[:20_000] + bytes(4_000) + clip.read_bytes()[24_000:])
    write_clip(folder / "cam6.mp4", [street(0, empty=True)] * 30)
    report = index_sources(find_sources([folder]), store, model, BackgroundDetector())
    text = "\n".join(report.lines())
    assert report.footage.failed == 2
    assert "cam2.mp4: cannot be opened as a video" in text
    assert "cam4.mp4: its codec is unknown to this FFmpeg; convert it, e.g. to H.264 in MP4" in text
    assert "cam5.mp4: damaged in 5 places that cannot be decoded, the first after frame 43" in text
    assert f"nobody found: {folder / 'cam6.mp4'}" in text
    assert {"cam1", "cam5"} == {row.sighting.camera for row in store.find()}


def test_a_camera_clock_that_jumps_back_is_told_and_the_order_stays(tmp_path: Path, store: Store, model: Model) -> None:
    folder = tmp_path / "cam1"
    folder.mkdir()
    for number in range(0, 145, 2):  # the clock falls back from 21:01 to 20:00; names sort by number
        clock = f"21-01-{number // 10:02d}.{number % 10}" if number < 70 else f"20-00-{number // 10:02d}.{number % 10}"
        cv2.imwrite(str(folder / f"{number:03d}_2026-11-20T{clock}.png"), street(number)[..., ::-1])
    found = find_sources([folder], SourceOptions(kind="frames"))
    report = index_sources(found, store, model, BackgroundDetector())
    assert any("the clock jumps back by" in line for line in report.lines())
    rows = store.find()
    assert len(rows) > 4
    assert [row.sighting.frame for row in rows] == sorted(row.sighting.frame for row in rows)


def test_a_second_indexer_is_refused_before_it_looks_at_anything(
    sources: list[Source], store: Store, model: Model
) -> None:
    index_sources(sources, store, model, BackgroundDetector(), options=SMALL)
    with open_gallery(store.where) as other, store.writing():
        with pytest.raises(OutputError, match="another process is writing to this gallery"):
            index_sources(sources, other, model, Unasked())
        assert other.count() == store.count() > 0  # readers go on


def test_another_models_gallery_and_one_without_a_folder_are_refused_before_anything_is_done(
    sources: list[Source], store: Store, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GalleryError, match=r"holds embeddings of model 'stripes-1' .* not of 'stripes-2'"):
        index_sources(sources, store, plain_model("stripes-2"), Unasked())
    monkeypatch.setattr(store, "folder", None)
    with pytest.raises(GalleryError, match="has no folder for crops; name one with --folder"):
        index_sources(sources, store, model, Unasked())
    assert store.count() == 0


def test_progress_counts_what_is_left_to_read_and_never_goes_back(
    clip: Path, tmp_path: Path, store: Store, model: Model
) -> None:
    index_sources(find_sources([clip]), store, model, BackgroundDetector())
    crops = write_crops(tmp_path / "crops")
    shutil.copy(clip, tmp_path / "cam1.mp4")
    with (tmp_path / "cam1.mp4").open("ab") as file:
        file.write(b"longer")
    told: list[tuple[int, int]] = []
    index_sources(
        find_sources([clip, tmp_path / "cam1.mp4", crops]),
        store,
        model,
        BackgroundDetector(),
        options=SMALL,
        progress=lambda done, total: told.append((done, total)),
    )
    totals = {total for _, total in told}
    done = [each for each, _ in told]
    assert totals == {145 + 6}
    assert done == sorted(done)
    assert done[-1] == max(totals)


def test_loose_crops_need_no_detector_and_growing_folders_embed_what_is_new(
    tmp_path: Path, store: Store, model: Model
) -> None:
    folder = write_crops(tmp_path / "crops")
    assert index_sources(find_sources([folder]), store, model, None).added == 6
    shutil.copy(folder / "cam0_0.png", folder / "cam0_9.png")
    report = index_sources(find_sources([folder]), store, model, None)
    assert (report.added, report.known, pictures_seen(model)) == (1, 6, 7)
    assert store.folder is not None
    assert {row.sighting.crop for row in store.find()} == crops_on_disk(store.folder)


def test_a_gallery_finds_its_model_again_and_says_when_it_moved_or_changed(
    store: Store, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Path(store.info.place)
    with pytest.raises(GalleryError, match=r"its model \(stripes-1\) was at .*, where nothing is now; .*--model"):
        open_gallery_model(store)
    place.mkdir()
    with pytest.raises(GalleryError, match=r"its model cannot be opened: .*; or name a copy: --model MODEL"):
        open_gallery_model(store)
    with pytest.raises(CheckpointError):
        open_gallery_model(store, place)
    opened: list[Path] = []

    def fake(name: str) -> Callable[..., Model]:
        def build(place: Path, **options: object) -> Model:
            opened.append(place)
            assert options == {"precision": "fp32", "device": "auto", "trust_code": False}
            return plain_model(name)

        return build

    monkeypatch.setattr(gallery_model, "open_model", fake("stripes-1"))
    assert open_gallery_model(store, precision="fp32").id == model.id
    assert opened == [place]
    monkeypatch.setattr(gallery_model, "open_model", fake("stripes-2"))
    with pytest.raises(GalleryError, match=r"made with model stripes-1, and at .* is another one now \(stripes-2\)"):
        open_gallery_model(store, precision="fp32")
    with pytest.raises(GalleryError, match="holds embeddings of model 'stripes-1'"):
        open_gallery_model(store, place, precision="fp32")


def test_a_gallery_that_is_new_remembers_the_model_and_one_of_another_version_is_refused(
    tmp_path: Path, store: Store, model: Model
) -> None:
    assert store.info.place == str(tmp_path / "model")
    assert store.info.description == "stripes, pictures of 32 x 16"
    with pytest.raises(GalleryError, match="holds embeddings of model 'stripes-1'"):
        open_gallery_for(store.where, plain_model("stripes-2"), tmp_path)
    about = Path(store.where) / "gallery.json"
    about.write_text(about.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(GalleryError, match="made by a newer Tapetum"):
        open_gallery_for(store.where, model, tmp_path)


@pytest.mark.usefixtures("quick_milvus")
def test_a_milvus_gallery_keeps_its_crops_in_its_folder(tmp_path: Path, model: Model) -> None:
    pytest.importorskip("milvus_lite", reason="Milvus Lite is not installed")
    sources = find_sources([write_crops(tmp_path / "in")])
    address = f"milvus://{tmp_path / 'site.db'}/night"
    with open_gallery_for(address, model, tmp_path, tmp_path / "crops of the site") as store:
        assert index_sources(sources, store, model, None).added == 6
        assert index_sources(sources, store, model, None).known == 6
        assert {row.sighting.crop for row in store.find()} == crops_on_disk(tmp_path / "crops of the site")


KILLED = """
import sys
from pathlib import Path
from plain_model import plain_model
from tapetum.footage.detect import BackgroundDetector
from tapetum.footage.sources import find_sources
from tapetum.indexing.index import IndexOptions, index_sources, open_gallery_for

model = plain_model()
with open_gallery_for(sys.argv[2], model, Path("model")) as store:
    upsert = store.upsert

    def tell(rows, vectors):
        count = upsert(rows, vectors)
        print(*[row.sighting.id for row in rows], flush=True)
        return count

    store.upsert = tell
    index_sources(find_sources([sys.argv[1]]), store, model, BackgroundDetector(), options=IndexOptions(batch=2))
"""


@pytest.mark.slow
def test_killed_indexers_lose_nothing_and_the_next_one_completes(clip: Path, tmp_path: Path, model: Model) -> None:
    rng = np.random.default_rng(0)
    folder, gallery = tmp_path / "in", tmp_path / "night"
    folder.mkdir()
    for number in range(3):
        (folder / f"cam{number}.mp4").write_bytes(clip.read_bytes() + bytes(number))
    command = [sys.executable, "-c", KILLED, str(folder), str(gallery)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    told: set[str] = set()
    for _ in range(3):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            for _ in range(int(rng.integers(1, 5))):
                told.update(process.stdout.readline().split())
            time.sleep(float(rng.uniform(0, 0.05)))
            process.send_signal(signal.SIGKILL)
            told.update(process.stdout.read().split())
        with open_gallery(gallery) as store:
            assert told <= set(ids(store))
    with open_gallery(gallery) as store, open_gallery_for(tmp_path / "undisturbed", model, tmp_path) as other:
        report = index_sources(find_sources([folder]), store, model, BackgroundDetector())
        assert report.known >= len(told) > 0
        index_sources(find_sources([folder]), other, model, BackgroundDetector())
        assert store.find() == [replace(row) for row in other.find()]
        assert {row.sighting.crop for row in store.find()} == crops_on_disk(gallery)


@pytest.mark.slow
@pytest.mark.skipif(not CLIP.is_file(), reason=f"the real clip is not at {CLIP}; set TAPETUM_CLIP to try it")
def test_the_real_clip_gives_six_appearances_of_one_person_each(store: Store, model: Model) -> None:
    report = index_sources(find_sources([CLIP]), store, model, BackgroundDetector())
    assert (report.footage.tracklets, report.footage.failed, report.footage.num_problems) == (6, 0, 0)
    rows = store.find()
    assert len(rows) == report.added >= 6 * 5
    assert store.folder is not None
    for row in rows:  # the box is a person's, and the crop is what the box shows
        height, width = read_picture(store.folder / row.sighting.crop).shape[:2]
        assert (width, height) == row.sighting.box[2:]
        assert height > 1.2 * width or "cut" in row.sighting.remark


def test_a_source_that_vanishes_is_named(clip: Path, tmp_path: Path, store: Store, model: Model) -> None:
    shutil.copy(clip, tmp_path / "cam1.mp4")
    found = find_sources([tmp_path / "cam1.mp4"])
    (tmp_path / "cam1.mp4").unlink()
    report = index_sources(found, store, model, BackgroundDetector())
    assert report.footage.failed == 1
    assert any("cam1.mp4: cannot be read (No such file or directory)" in line for line in report.lines())


def test_a_damaged_list_is_named_and_the_rest_goes_on(clip: Path, tmp_path: Path, store: Store, model: Model) -> None:
    index_sources(find_sources([clip]), store, model, BackgroundDetector())
    assert store.folder is not None
    (listed,) = (path for path in (store.folder / "sources").glob("*.jsonl"))
    listed.write_text(listed.read_text()[:-20])
    report = index_sources(find_sources([clip, write_crops(tmp_path / "in")]), store, model, BackgroundDetector())
    assert (report.footage.failed, report.added) == (1, 6)
    assert any("delete it, and the source is read again" in line for line in report.lines())


def test_frames_need_a_detector(sources: list[Source], store: Store, model: Model) -> None:
    with pytest.raises(RecipeError, match="no detector is given"):
        index_sources(sources, store, model, None)
