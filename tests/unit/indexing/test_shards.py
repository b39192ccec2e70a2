import os
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

from tapetum.core.errors import DataError, RecipeError
from tapetum.footage.detect import BackgroundDetector
from tapetum.footage.facts import SourceOptions
from tapetum.footage.report import FootageReport
from tapetum.footage.sources import Source, find_sources
from tapetum.gallery.opening import open_gallery
from tapetum.gallery.schema import Run
from tapetum.gallery.store import Store
from tapetum.indexing import shards
from tapetum.indexing.index import IndexOptions, IndexReport, Progress, index_sources, open_gallery_for
from tapetum.indexing.shards import (
    Made,
    ShardJob,
    index_in_shards,
    plan_shards,
    read_plan,
    read_shard,
    world,
    write_shard,
)
from tapetum.inference.sessions import Model, open_model
from tapetum.methods import build_method
from tapetum.runs.checkpoint import Header, save_checkpoint
from tapetum.runs.recipe import load_recipe
from tapetum.searching.retention import erase, write_keep_days

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
    """Two folders of upright pictures, one of them damaged, one twice."""
    root = tmp_path_factory.mktemp("footage")
    rng = np.random.default_rng(0)
    for number in range(PICTURES):
        folder = root / ("gate" if number % 3 else "yard")
        folder.mkdir(exist_ok=True)
        picture = rng.integers(60, 200, (48, 20, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"cam{number % 2 + 1}_{number:04d}.png"), picture)
    (root / "gate" / "cam1_9999.png").write_bytes(b"\x89PNG no picture")
    return root


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "PART", 4)


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
    where: Path, model: Model, run_file: Path, find: Callable[[], list[Source]], progress: Progress | None = None
) -> IndexReport | None:
    with open_gallery_for(where, model, run_file) as store:
        options = IndexOptions(run="first")
        return index_in_shards(find, store, model, DETECTOR, name=["here"], options=options, progress=progress)[0]


def test_two_workers_bring_what_one_brings_row_for_row(
    crops: Path, model: Model, run_file: Path, tmp_path: Path, small_parts: None
) -> None:
    alone = index_alone(tmp_path / "alone", model, run_file, find_sources([crops]))
    reports: list = []
    asked: list[int] = []
    seen: list[tuple[int, int]] = []

    def find() -> list[Source]:
        asked.append(1)
        return find_sources([crops])

    def take_part() -> None:
        seeing = lambda done, total: seen.append((done, total))  # noqa: E731
        reports.append(index_with_others(tmp_path / "shared", model, run_file, find, seeing))

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
    assert (report.footage.sources, report.footage.num_problems) == (2, 1)
    assert max(seen) == (PICTURES + 1, PICTURES + 1)
    with open_gallery(tmp_path / "shared") as shared:
        assert_same(shared, alone)
    assert [path.suffix for path in (tmp_path / "shared" / "shards").iterdir()] == [".lock", ".lock"]


def test_a_job_that_was_stopped_goes_on_with_its_finished_shards(
    crops: Path, model: Model, run_file: Path, tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = index_alone(tmp_path / "alone", model, run_file, find_sources([crops]))
    made: list[int] = []
    make = ShardJob.make

    def watch(job: ShardJob, *given: object) -> None:
        if len(made) == 3:
            raise KeyboardInterrupt
        make(job, *given)  # type: ignore[arg-type]
        made.append(1)

    def begin() -> IndexReport | None:
        return index_with_others(tmp_path / "shared", model, run_file, lambda: find_sources([crops]))

    monkeypatch.setattr(ShardJob, "make", watch)
    with pytest.raises(KeyboardInterrupt):
        begin()
    with open_gallery(tmp_path / "shared") as shared:
        assert shared.count() == 0
    monkeypatch.setattr(ShardJob, "make", lambda job, *given: (made.append(2), make(job, *given)))
    assert begin() is not None
    assert made == [1, 1, 1, 2, 2, 2]
    with open_gallery(tmp_path / "shared") as shared:
        assert_same(shared, alone)
    again = begin()
    assert again is not None
    assert (again.added, again.known, again.footage.finished_before) == (0, PICTURES, 2)


def test_a_damaged_shard_is_made_again_and_what_was_erased_stays_away(
    crops: Path, model: Model, run_file: Path, tmp_path: Path, small_parts: None
) -> None:
    store = open_gallery_for(tmp_path / "shared", model, run_file)
    job = ShardJob(store, model, DETECTOR, IndexOptions(), ["here"])
    job.open_plan(lambda: find_sources([crops / "yard"]))
    assert job.work() == 2
    damaged = job.path(job.plan.shards[1])
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
    (tmp_path / "shared" / "sources" / f"{job.plan.shards[0].key}.jsonl").unlink()  # so that it is read again
    job.open_plan(lambda: find_sources([crops / "yard"]))
    job.work()
    report = job.merge()
    assert report is not None
    assert (report.added, report.known, report.erased, store.count()) == (0, 7, 1, 7)
    assert not (tmp_path / "shared" / gone.crop).exists()


def test_loose_pictures_that_were_too_old_are_read_again_once_the_gallery_keeps_longer(
    crops: Path, model: Model, run_file: Path, tmp_path: Path, small_parts: None
) -> None:
    store = open_gallery_for(tmp_path / "shared", model, run_file)
    ten_days_ago = SourceOptions(start=time.time() - 10 * 86_400)
    job = ShardJob(store, model, DETECTOR, IndexOptions(), ["here"])
    for days, added in ((3.0, 0), (30.0, 8)):
        write_keep_days(store, days)
        job.open_plan(lambda: find_sources([crops / "yard"], ten_days_ago))
        job.work()
        report = job.merge()
        assert report is not None
        assert (report.added, store.count()) == (added, added)


def test_a_plan_cuts_loose_pictures_and_keeps_videos_whole(crops: Path, tmp_path: Path) -> None:
    loose = find_sources([crops / "gate"], SourceOptions(camera="gate"))[0]
    gone = replace(loose, kind="video", path=tmp_path / "gone.mp4", pictures=())
    plan = plan_shards([loose, gone], tmp_path, DETECTOR, IndexOptions(), part=10)
    assert [(shard.source, shard.first, shard.last) for shard in plan.shards] == [(0, 0, 10), (0, 10, 16), (1, 0, 0)]
    path = tmp_path / "plan.json"
    path.write_text("{}")
    with pytest.raises(DataError, match="delete the folder"):
        read_plan(path)


def test_a_plan_is_read_as_it_was_written(crops: Path, model: Model, run_file: Path, tmp_path: Path) -> None:
    sources = find_sources([crops], SourceOptions(start=5.0))
    with open_gallery_for(tmp_path / "shared", model, run_file) as store:
        job = ShardJob(store, model, DETECTOR, IndexOptions(), ["here"])
        job.open_plan(lambda: sources)
        assert job.plan.sources == tuple(sources)
        other = ShardJob(store, model, DETECTOR, IndexOptions(), ["here"])
        other.open_plan(lambda: pytest.fail("there is a plan"))
        assert other.plan == job.plan
        assert ShardJob(store, model, DETECTOR, IndexOptions(), ["elsewhere"]).folder != job.folder


def test_a_shard_keeps_everything(model: Model, tmp_path: Path) -> None:
    footage = FootageReport(detector="one", sources=2)
    footage.note("a", "b")
    footage.remarks["dark"] = 3
    made = Made((), np.empty((0, 4), np.float32), Run("m", "torch", "fp32", "first"), footage)
    write_shard(tmp_path / "one.shard", made)
    found = read_shard(tmp_path / "one.shard", "m")
    assert (found.sightings, found.run, found.footage) == ((), made.run, footage)
    with pytest.raises(DataError, match="another model"):
        read_shard(tmp_path / "one.shard", "other")
    with pytest.raises(DataError, match="cannot be read"):
        read_shard(tmp_path / "two.shard", "m")


def test_frames_without_a_detector_are_refused(model: Model, run_file: Path, crops: Path, tmp_path: Path) -> None:
    sources = find_sources([crops / "gate"], SourceOptions(kind="frames"))
    with (
        open_gallery_for(tmp_path / "shared", model, run_file) as store,
        pytest.raises(RecipeError, match="no detector"),
    ):
        index_in_shards(lambda: sources, store, model, None, name=["here"])


def test_the_size_of_the_world_is_torchruns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert world() == 1
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert world() == 4


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
