import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from street_clip import street
from tapetum.core.errors import DataError, RecipeError
from tapetum.footage.detect import BackgroundDetector
from tapetum.footage.facts import SourceOptions
from tapetum.footage.report import FootageReport
from tapetum.footage.sources import Source, find_sources
from tapetum.gallery.opening import open_gallery
from tapetum.gallery.schema import Run
from tapetum.gallery.store import Store
from tapetum.indexing.index import IndexOptions, Progress, index_sources, open_gallery_for
from tapetum.indexing.report import IndexReport
from tapetum.indexing.shards import (
    LAUNCH,
    Made,
    ShardJob,
    begin_job,
    index_in_shards,
    read_shard,
    world,
    write_shard,
)
from tapetum.inference.sessions import Model, open_model
from tapetum.methods import build_method
from tapetum.runs.checkpoint import Header, save_checkpoint
from tapetum.runs.recipe import load_recipe
from tapetum.searching.retention import erase, write_keep_days
from video_files import write_video

PICTURES = 23
DETECTOR = BackgroundDetector()


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    path = tmp_path_factory.mktemp("model") / "best.safetensors"
    torch.manual_seed(0)
    options = {"backbone": "test_resnet", "width": 16}
    recipe = load_recipe("ide_night600", ["data.size=[32, 16]", "evaluation.precision=fp32"])
    save_checkpoint(
        path, build_method("ide", options, 5).eval(), Header("ide", options, 5, recipe.model_dump(mode="json"))
    )
    return path


@pytest.fixture(scope="module")
def model(run_file: Path) -> Model:
    return open_model(run_file, precision="fp32")


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six folders of upright pictures, one of them damaged."""
    root = tmp_path_factory.mktemp("footage")
    rng = np.random.default_rng(0)
    for number in range(PICTURES):
        folder = root / ("yard" if number % 3 == 0 else f"gate{number % 5}")
        folder.mkdir(exist_ok=True)
        picture = rng.integers(60, 200, (48, 20, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"cam{number % 2 + 1}_{number:04d}.png"), picture)
    (root / "gate1" / "cam1_9999.png").write_bytes(b"\x89PNG no picture")
    return root


def contents(store: Store) -> dict[str, tuple]:
    rows = store.find()
    vectors = store.fetch([row.sighting.id for row in rows]).vectors
    return {row.sighting.id: (row, vector) for row, vector in zip(rows, vectors, strict=True)}


def assert_same(store: Store, other: Store) -> None:
    """Row for row, and crop for crop."""
    ours, theirs = contents(store), contents(other)
    assert ours.keys() == theirs.keys()
    for name, (row, vector) in ours.items():
        assert row == theirs[name][0]
        torch.testing.assert_close(vector, theirs[name][1], atol=1e-5, rtol=0)
    assert store.folder
    assert other.folder
    for folder in ("crops", "sources"):
        files = [
            {path.relative_to(place): path.read_bytes() for path in (place / folder).rglob("[!.]*") if path.is_file()}
            for place in (store.folder, other.folder)
        ]
        assert files[0] == files[1]


def index_alone(where: Path, model: Model, run_file: Path, sources: list[Source]) -> Store:
    store = open_gallery_for(where, model, run_file)
    index_sources(sources, store, model, DETECTOR, options=IndexOptions(run="first"))
    return store


def index_with_others(
    where: Path, model: Model, run_file: Path, sources: list[Source], progress: Progress | None = None
) -> IndexReport | None:
    with open_gallery_for(where, model, run_file) as store:
        options = IndexOptions(run="first")
        return index_in_shards(sources, store, model, DETECTOR, name=["here"], options=options, progress=progress)[0]


def begin(store: Store, model: Model, sources: list[Source]) -> ShardJob:
    job = begin_job(sources, store, model, DETECTOR, IndexOptions(), ["here"], IndexReport())
    assert job is not None
    return job


def test_two_workers_bring_what_one_brings_row_for_row(
    crops: Path, model: Model, run_file: Path, tmp_path: Path
) -> None:
    alone = index_alone(tmp_path / "alone", model, run_file, find_sources([crops]))
    reports: list = []
    seen: list[tuple[int, int]] = []

    def take_part() -> None:
        seeing = lambda done, total: seen.append((done, total))  # noqa: E731
        reports.append(index_with_others(tmp_path / "shared", model, run_file, find_sources([crops]), seeing))

    open_gallery_for(tmp_path / "shared", model, run_file).close()
    threads = [threading.Thread(target=take_part) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    merged = [report for report in reports if report is not None]
    report = merged[0]
    assert len(merged) == 1 or merged[1].added == 0  # the second may begin when all is done
    assert (report.added, report.known, report.rows, report.footage.crops) == (PICTURES, 0, PICTURES, PICTURES)
    assert (report.footage.sources, report.footage.num_problems) == (6, 1)
    assert max(seen) == (PICTURES + 1, PICTURES + 1)
    with open_gallery(tmp_path / "shared") as shared:
        assert_same(shared, alone)
    assert [path.suffix for path in (tmp_path / "shared" / "shards").iterdir()] == [".lock"]


def test_a_job_that_was_stopped_goes_on_with_its_finished_shards(
    crops: Path, model: Model, run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = index_alone(tmp_path / "alone", model, run_file, find_sources([crops]))
    made: list[int] = []
    make = ShardJob.make

    def watch(job: ShardJob, *given: object) -> None:
        if len(made) == 3:
            raise KeyboardInterrupt
        make(job, *given)  # type: ignore[arg-type]
        made.append(1)

    def go_on() -> IndexReport | None:
        return index_with_others(tmp_path / "shared", model, run_file, find_sources([crops]))

    monkeypatch.setattr(ShardJob, "make", watch)
    with pytest.raises(KeyboardInterrupt):
        go_on()
    with open_gallery(tmp_path / "shared") as shared:
        assert shared.count() == 0
    monkeypatch.setattr(ShardJob, "make", lambda job, *given: (made.append(2), make(job, *given)))
    assert go_on() is not None
    assert made == [1, 1, 1, 2, 2, 2]
    with open_gallery(tmp_path / "shared") as shared:
        assert_same(shared, alone)
    again = go_on()
    assert again is not None
    assert (again.added, again.known, again.footage.finished_before) == (0, PICTURES, 6)


def test_a_damaged_shard_is_made_again_and_what_was_erased_stays_away(
    crops: Path, model: Model, run_file: Path, tmp_path: Path
) -> None:
    store = open_gallery_for(tmp_path / "shared", model, run_file)
    sources = find_sources([crops / "yard"])
    job = begin(store, model, sources)
    assert job.work() == 1
    (damaged,) = map(job.path, job.sources)
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        read_shard(damaged, model.id)
    report = job.merge()
    assert report is not None
    assert (report.added, store.count()) == (8, 8)
    assert job.merge() is None  # the job is over
    gone = store.find()[0].sighting
    erase(store, f'id == "{gone.id}"')
    (listed,) = (tmp_path / "shared" / "sources").glob("[!.]*.jsonl")
    listed.unlink()  # so that it is read again
    job = begin(store, model, sources)
    job.work()
    report = job.merge()
    assert report is not None
    assert (report.added, report.known, report.erased, store.count()) == (0, 7, 1, 7)
    assert not (tmp_path / "shared" / gone.crop).exists()


def test_pictures_erased_elsewhere_after_their_shard_was_made_are_not_put_together(
    crops: Path, model: Model, run_file: Path, tmp_path: Path
) -> None:
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    for path in (crops / "yard").iterdir():
        shutil.copy(path, renamed / f"copy_{path.name}")
    with open_gallery_for(tmp_path / "shared", model, run_file) as store:
        index_sources(find_sources([crops / "yard"]), store, model, DETECTOR)
        job = begin(store, model, find_sources([renamed]))
        job.work()
        erase(store, 'camera != ""')
        report = job.merge()
        assert report is not None
        assert (report.added, report.erased, store.count()) == (0, 8, 0)
    assert not [path for path in (tmp_path / "shared" / "crops").rglob("*") if path.is_file()]
    assert "copy_" not in "".join(path.read_text() for path in (tmp_path / "shared" / "sources").glob("[!.]*.jsonl"))


def test_loose_pictures_that_were_too_old_are_read_again_once_the_gallery_keeps_longer(
    crops: Path, model: Model, run_file: Path, tmp_path: Path
) -> None:
    store = open_gallery_for(tmp_path / "shared", model, run_file)
    ten_days_ago = SourceOptions(start=time.time() - 10 * 86_400)
    for days, added in ((3.0, 0), (30.0, 8)):
        write_keep_days(store, days)
        job = begin(store, model, find_sources([crops / "yard"], ten_days_ago))
        job.work()
        report = job.merge()
        assert report is not None
        assert (report.added, store.count()) == (added, added)


def test_a_shard_is_named_by_its_source_whatever_its_content_and_a_job_by_its_command(
    crops: Path, model: Model, run_file: Path, tmp_path: Path
) -> None:
    grown = shutil.copytree(crops, tmp_path / "grown")
    with open_gallery_for(tmp_path / "shared", model, run_file) as store:
        before = begin(store, model, find_sources([grown]))
        shutil.copy(grown / "yard" / "cam1_0000.png", grown / "yard" / "cam1_8888.png")
        after = begin(store, model, find_sources([grown]))
        assert list(after.sources) == list(before.sources)
        assert (after.folder, after.total) == (before.folder, before.total + 1)
        other = ShardJob(store, model, DETECTOR, IndexOptions(), ["elsewhere"], find_sources([grown]))
        assert other.folder != before.folder


@pytest.mark.parametrize("damaged", [False, True])
def test_a_video_that_has_grown_since_its_shard_was_made_is_read_to_its_end(
    model: Model, run_file: Path, tmp_path: Path, damaged: bool
) -> None:
    live, reading = tmp_path / "live.ts", SourceOptions(start=1.79e9, camera="yard")
    content = write_video(live, [street(frame) for frame in range(145)]).read_bytes()
    live.write_bytes(content[: len(content) // 2])
    with open_gallery_for(tmp_path / "shared", model, run_file) as store:
        job = begin(store, model, find_sources([live], reading))
        assert job.work() == 1
        (shard,) = map(job.path, job.sources)
        early = {sighting.id for sighting in read_shard(shard, model.id).sightings}
        assert early
        if damaged:
            shard.write_bytes(shard.read_bytes()[:-1])
        live.write_bytes(content)
        job = begin(store, model, find_sources([live], reading))  # the same command, after a kill
        job.work()
        report = job.merge()
        assert report is not None
        rows = store.find()
        assert report.added == len(rows) > len(early)
        assert early < {row.sighting.id for row in rows}
        assert max(row.sighting.frame for row in rows) > 100
        assert (report.footage.sources, report.footage.files["read"]) == (1, 1)
    again = index_with_others(tmp_path / "shared", model, run_file, find_sources([live], reading))
    assert again is not None
    assert (again.added, again.rows) == (0, report.rows)


def test_a_folder_that_gained_a_picture_since_its_shard_was_made_is_read_anew(
    crops: Path, model: Model, run_file: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(crops / "yard", tmp_path / "yard")
    with open_gallery_for(tmp_path / "shared", model, run_file) as store:
        begin(store, model, find_sources([folder])).work()
        shutil.copy(folder / "cam1_0000.png", folder / "cam1_8888.png")
        job = begin(store, model, find_sources([folder]))
        assert job.work() == 1
        report = job.merge()
        assert report is not None
        assert (report.added, report.footage.files["read"]) == (9, 9)


def test_a_shard_whose_source_is_as_it_was_is_not_made_again(
    crops: Path, model: Model, run_file: Path, tmp_path: Path
) -> None:
    with open_gallery_for(tmp_path / "shared", model, run_file) as store:
        begin(store, model, find_sources([crops])).work()
        assert begin(store, model, find_sources([crops])).unfinished() == []


def test_a_source_that_is_gone_or_unreadable_is_named_and_counted_once(
    crops: Path, model: Model, run_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    loose, broken = find_sources([crops / "gate2"], SourceOptions(camera="gate"))[0], tmp_path / "broken.mp4"
    gone = replace(loose, kind="video", path=tmp_path / "gone.mp4", name="gone.mp4", pictures=())
    report = index_with_others(tmp_path / "shared", model, run_file, [loose, gone, *find_sources([broken])])
    assert report is not None
    assert (report.footage.failed, report.footage.num_problems, report.added) == (2, 2, len(loose.pictures))
    assert not list((tmp_path / "shared").glob("shards/*/"))


def test_what_another_run_took_the_source_for_is_said(
    crops: Path, model: Model, run_file: Path, tmp_path: Path
) -> None:
    for camera, doubts in (("gate", 0), ("yard", 1)):
        sources = find_sources([crops / "gate2"], SourceOptions(camera=camera))
        report = index_with_others(tmp_path / "shared", model, run_file, sources)
        assert report is not None
        assert report.footage.num_doubts == doubts
        assert (report.added, report.corrected) == ((0, report.rows) if doubts else (report.rows, 0))
        with open_gallery(tmp_path / "shared") as store:
            assert {row.sighting.camera for row in store.find()} == {camera}


def test_the_same_pictures_under_two_cameras_are_in_doubt_once(
    crops: Path, model: Model, run_file: Path, tmp_path: Path
) -> None:
    for camera in ("yard", "yard2"):
        shutil.copytree(crops / "gate2", tmp_path / "in" / camera)
    pair = [
        replace(
            source,
            camera=source.path.name,
            pictures=tuple(replace(each, camera=source.path.name) for each in source.pictures),
        )
        for source in find_sources([tmp_path / "in"])
    ]
    assert len(pair) == 2
    count = len(pair[0].pictures)
    for added in (count, 0):
        report = index_with_others(tmp_path / "shared", model, run_file, pair)
        assert report is not None
        assert (report.added, report.known, report.copies) == (added, 2 * count - added, count)
        (doubt,) = [each for each in report.footage.doubts if "holds the same pictures as" in each.message]
        assert "by camera yard" in doubt.message


def test_a_shard_keeps_everything(model: Model, tmp_path: Path) -> None:
    footage = FootageReport(detector="one", sources=2)
    footage.note("a", "b")
    footage.remarks["dark"] = 3
    made = Made((), np.empty((0, 4), np.float32), Run("m", "torch", "fp32", "first"), footage, 7, 2)
    write_shard(tmp_path / "one.shard", made)
    found = read_shard(tmp_path / "one.shard", "m")
    assert (found.sightings, found.run, found.footage, found.known, found.copies) == ((), made.run, footage, 7, 2)
    with pytest.raises(DataError, match="another model"):
        read_shard(tmp_path / "one.shard", "other")
    with pytest.raises(DataError, match="cannot be read"):
        read_shard(tmp_path / "two.shard", "m")


def test_frames_without_a_detector_are_refused(model: Model, run_file: Path, crops: Path, tmp_path: Path) -> None:
    sources = find_sources([crops / "gate2"], SourceOptions(kind="frames"))
    with (
        open_gallery_for(tmp_path / "shared", model, run_file) as store,
        pytest.raises(RecipeError, match="no detector"),
    ):
        index_in_shards(sources, store, model, None, name=["here"])


def test_the_size_of_the_world_is_torchruns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert world() == 1
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert world() == 4


@pytest.fixture
def come(
    crops: Path, model: Model, run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], int | None]:
    """A rank of three does its share; the rows that were added, where it is this rank that tells."""
    for name in LAUNCH:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "3")

    def take_part(rank: int) -> int | None:
        monkeypatch.setenv("RANK", str(rank))
        report = index_with_others(tmp_path / "gallery", model, run_file, find_sources([crops]))
        return None if report is None else report.added

    return take_part


def test_a_rank_that_comes_when_all_is_done_tells_nothing_and_the_command_given_again_begins_anew(
    come: Callable[[int], int | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [come(rank) for rank in (1, 0, 2)] == [PICTURES, None, None]
    assert not list(tmp_path.glob("gallery/shards/*/")), "all have come"
    assert [come(rank) for rank in (2, 2, 0)] == [0, 0, None], "the second time it was given the command again"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert come(1) == 0, "among two it is another command"


@pytest.mark.parametrize("name", LAUNCH)
def test_the_last_rank_is_late_also_where_all_had_come_to_an_interrupted_launch(
    name: str,
    come: Callable[[int], int | None],
    crops: Path,
    model: Model,
    run_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(name, "1")
    with open_gallery_for(tmp_path / "gallery", model, run_file) as store:
        for rank in range(3):
            monkeypatch.setenv("RANK", str(rank))
            begin(store, model, find_sources([crops]))
    monkeypatch.setenv(name, "2")
    assert [come(rank) for rank in (0, 1, 2)] == [PICTURES, None, None]
    assert not list(tmp_path.glob("gallery/shards/*/")), "all have come"
    assert come(1) == 0
    monkeypatch.setenv(name, "3")
    assert [come(rank) for rank in (2, 0)] == [0, None], "another launch is the command given again"


@pytest.fixture(scope="module")
def many_crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten folders, each a shard."""
    root = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(1)
    for folder in range(10):
        (root / f"cam{folder}").mkdir()
        for number in range(30):
            picture = rng.integers(60, 200, (48, 20, 3), dtype=np.uint8)
            cv2.imwrite(str(root / f"cam{folder}" / f"{number:04d}.png"), picture)
    return root


def command_of(crops: Path, gallery: Path, run_file: Path) -> list[str]:
    words = ["index", str(crops), "--gallery", str(gallery), "--model", str(run_file)]
    return [*words, "--precision", "fp32", "--run", "first", "--quiet"]


def first_maker(gallery: Path, process: subprocess.Popen) -> int:
    """The process that makes a shard, as soon as there is one."""
    while process.poll() is None:
        for lock in gallery.glob("shards/*/*.lock"):
            if owner := lock.read_text().strip():
                return int(owner)
        time.sleep(0.005)
    raise AssertionError(process.communicate())


def assert_whole(gallery: Path, alone: Store) -> None:
    with open_gallery(gallery) as shared:
        assert_same(shared, alone)
    assert not list(gallery.glob("shards/*/"))


TORCHRUN = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc-per-node",
    "2",
    "-m",
    "--",
    "tapetum",
]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_torchrun_brings_what_one_process_brings_also_when_a_rank_was_killed(
    many_crops: Path, model: Model, run_file: Path, tmp_path: Path
) -> None:
    alone = index_alone(tmp_path / "alone", model, run_file, find_sources([many_crops]))
    whole = command_of(many_crops, tmp_path / "whole", run_file)
    done = subprocess.run([*TORCHRUN, *whole], capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "rows: 300 added" in done.stdout
    made = [int(line.split()[3]) for line in done.stdout.splitlines() if line.startswith("rank ")]
    assert sum(made) == 10
    assert_whole(tmp_path / "whole", alone)

    killed = [*TORCHRUN, *command_of(many_crops, tmp_path / "killed", run_file)]
    with subprocess.Popen(killed, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        os.kill(first_maker(tmp_path / "killed", running), signal.SIGKILL)
        running.communicate(timeout=200)
        assert running.returncode != 0
    done = subprocess.run(killed, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    assert_whole(tmp_path / "killed", alone)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_without_torchrun_the_others_take_over_what_a_killed_process_held(
    many_crops: Path, model: Model, run_file: Path, tmp_path: Path
) -> None:
    alone = index_alone(tmp_path / "alone", model, run_file, find_sources([many_crops]))
    command = [sys.executable, "-m", "tapetum", *command_of(many_crops, tmp_path / "shared", run_file)]
    ranks = [
        subprocess.Popen(
            command,
            env=os.environ | {"WORLD_SIZE": "2", "RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    victim = first_maker(tmp_path / "shared", ranks[0])
    os.kill(victim, signal.SIGKILL)
    told = {rank.pid: rank.communicate(timeout=200) for rank in ranks}
    survivors = [rank for rank in ranks if rank.pid != victim]
    assert [rank.returncode for rank in survivors] == [0], told
    assert "rows: 300 added" in told[survivors[0].pid][0]
    assert_whole(tmp_path / "shared", alone)
