"""Write a night scene to disk: pictures in a dataset's own layout, or whole-frame video, with their ground truth.

Everything is a function of the scene's options, so an interrupted generation goes on where it stopped, and the
result is the same bytes with any number of workers. ``scene.json`` (``video.json``) is written last and says that
the rest is complete.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures import wait as wait_for_all
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2

from tapetum.core.atomic import make_folder, replacing, write_bytes
from tapetum.core.errors import OutputError, RecipeError
from tapetum.core.locks import locked
from tapetum.core.pixels import encode_jpeg
from tapetum.core.seeding import numpy_generator
from tapetum.core.types import Modality, Record
from tapetum.data.catalog import load_dataset_module
from tapetum.data.datasets.synth import SCENE_FILE
from tapetum.synth.scene import Scene, SceneOptions
from tapetum.synth.video import VideoOptions, write_camera_video

Progress = Callable[[int, int], None]  # (done, total)

VIDEO_FILE = "video.json"
_WORK_FOLDER = ".generating"  # the plan, and one file of facts for each finished part
_PLAN_FILE = "plan.json"


@dataclass(frozen=True)
class GenerateResult:
    """What a generation did."""

    root: Path
    total: int  # files of the finished scene (pictures, or videos)
    written: int  # of these, how many were made now
    digest: str  # of the content of all files, the same wherever the scene is made with the same versions


def generate_dataset(
    root: Path,
    dataset_name: str,
    options: SceneOptions,
    *,
    queries_per_camera: int = 3,
    workers: int = 1,
    progress: Progress | None = None,
) -> GenerateResult:
    """Render a scene into the layout of a dataset, with ``scene.json`` beside it.

    Training and testing people are different. Of each testing person under each camera, up to `queries_per_camera`
    pictures drawn at random are queries; whether they are in the gallery as well follows the dataset (Night600: yes).
    A dataset whose protocols choose the sides (SYSU-MM01, RegDB, LLCM) gets testing pictures without roles.

    Args:
        root: new or empty folder, or one in which the same generation was interrupted.
        queries_per_camera: most queries of a person under one camera.
    Raises:
        OutputError: the folder holds something else, or cannot be written.
        RecipeError: the dataset or a setting is unknown, or leaves no gallery.
    """
    module = load_dataset_module(dataset_name)
    scene = Scene(options)
    sides_later = "test" in _splits(module)
    _check_cameras(module, scene)
    if queries_per_camera < 1:
        raise RecipeError(f"scene: queries_per_camera is {queries_per_camera}; it must be 1 or more")
    apart = not sides_later and not _queries_stay_in_gallery(module)
    if apart and options.num_test_people and options.pictures_per_camera < 2:
        raise RecipeError(
            f"scene: pictures_per_camera is 1 and {dataset_name} keeps queries out of the gallery; set it to 2 or more"
        )
    plan = {
        "format": "tapetum-scene",
        "version": 1,
        "dataset": dataset_name,
        "queries_per_camera": queries_per_camera,
        "options": scene_settings(options),
    }
    pids = [*options.train_pids, *options.test_pids]
    tasks = [partial(_render_person, root, dataset_name, options, queries_per_camera, pid) for pid in pids]
    sizes = [len(scene.pictures_of(pid)) for pid in pids]
    job = _Job(root, SCENE_FILE, plan, [f"{pid:05d}" for pid in pids], sizes, progress)

    def finish(parts: list[dict[str, Any]]) -> dict[str, Any]:
        pictures = [picture for part in parts for picture in part["files"]]
        second = [c for c, modality in scene.views() if modality is not scene.camera(c).modality]
        pairs = {str(c): _camera_facts(scene, c, Modality.INFRARED) for c in second}
        facts = {
            "people": {str(pid): _plain(asdict(scene.person(pid))) for pid in pids},
            **({"outfits": {str(pid): scene.outfit(pid) for pid in pids}} if options.lookalikes > 1 else {}),
            "cameras": {str(c): _camera_facts(scene, c) for c in options.camids},
            **({"paired_cameras": pairs} if pairs else {}),
            "pictures": pictures,
        }
        if hasattr(module, "write_index"):
            facts["index"] = [path.as_posix() for path in module.write_index(root, [_record(p) for p in pictures])]
        return facts

    return job.run(tasks, workers, finish)


def generate_video(
    root: Path,
    options: SceneOptions,
    *,
    seconds: float = 30.0,
    video: VideoOptions | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> GenerateResult:
    """A video of each camera through which people walk (``cam1.mp4`` ...), with its ground truth.

    ``cam1.csv`` has a line for each person in each frame: frame, time_seconds, pid, x, y, width, height (the box of
    what is inside the frame, pixels) and visible (share that nobody in front hides). ``video.json`` has the
    settings and the people.

    Args:
        options: the scene; the cameras and people of `generate_dataset` with the same options.
    Raises:
        OutputError: the folder holds something else, or cannot be written.
        RecipeError: a setting cannot work.
    """
    settings = video or VideoOptions()
    plan = {
        "format": "tapetum-video",
        "version": 1,
        "seconds": seconds,
        "video": _plain(asdict(settings)),
        "options": scene_settings(options),
    }
    scene = Scene(options)
    camids = options.camids
    settings.check(seconds)
    tasks = [partial(_render_video, root, options, settings, seconds, camid) for camid in camids]
    job = _Job(root, VIDEO_FILE, plan, [f"cam{camid}" for camid in camids], [1] * len(camids), progress)

    def finish(parts: list[dict[str, Any]]) -> dict[str, Any]:
        seen = sorted({pid for part in parts for pid in part["pids"]})
        return {
            "people": {str(pid): _plain(asdict(scene.person(pid))) for pid in seen},
            "cameras": {str(c): _camera_facts(scene, c) for c in camids},
            "videos": [{key: value for key, value in part.items() if key != "files"} for part in parts],
        }

    return job.run(tasks, workers, finish)


@dataclass(frozen=True)
class _Job:
    """Independent parts of a generation, each with a file of facts that says it is finished."""

    root: Path
    manifest: str
    plan: dict[str, Any]
    names: list[str]
    sizes: list[int]
    progress: Progress | None

    def run(
        self,
        tasks: Sequence[Callable[[], dict[str, Any]]],
        workers: int,
        finish: Callable[[list[dict[str, Any]]], dict[str, Any]],
    ) -> GenerateResult:
        """Do what is missing, then write the manifest; Ctrl-C leaves a folder that the same call completes."""
        done = self._finished()
        if done is not None:
            self._report(sum(self.sizes))
            return GenerateResult(self.root, len(done["digests"]), 0, done["digest"])
        self._begin()
        with locked(self.root / _WORK_FOLDER / "lock", f"{self.root}: another run is writing here"):
            return self._run_missing(tasks, workers, finish)

    def _run_missing(
        self,
        tasks: Sequence[Callable[[], dict[str, Any]]],
        workers: int,
        finish: Callable[[list[dict[str, Any]]], dict[str, Any]],
    ) -> GenerateResult:
        parts = {name: self._part(name) for name in self.names}
        missing = [(name, task) for name, task in zip(self.names, tasks, strict=True) if parts[name] is None]
        count = dict(zip(self.names, self.sizes, strict=True))
        ready = sum(self.sizes) - sum(count[name] for name, _ in missing)
        self._report(ready)
        num_written = 0
        for name, facts in _run_tasks(missing, workers):
            write_bytes(self._part_path(name), _json_bytes(facts))
            parts[name] = facts
            ready += count[name]
            num_written += len(facts["files"])
            self._report(ready)
        return self._complete([part for part in parts.values() if part is not None], num_written, finish)

    def _complete(
        self,
        parts: list[dict[str, Any]],
        num_written: int,
        finish: Callable[[list[dict[str, Any]]], dict[str, Any]],
    ) -> GenerateResult:
        digests = {path: digest for part in parts for path, digest in part["digests"].items()}
        text = "\n".join(f"{path} {digest}" for path, digest in sorted(digests.items()))
        total = hashlib.sha256(text.encode()).hexdigest()[:16]
        content = {**self.plan, "digest": total, **finish(parts), "digests": dict(sorted(digests.items()))}
        write_bytes(self.root / self.manifest, _json_bytes(content))
        shutil.rmtree(self.root / _WORK_FOLDER, ignore_errors=True)
        return GenerateResult(self.root, len(digests), num_written, total)

    def _finished(self) -> dict[str, Any] | None:
        """The manifest of a finished generation with the same plan whose files are all there."""
        path = self.root / self.manifest
        if not path.is_file():
            return None
        manifest = _read_json(path)
        if manifest is None or any(manifest.get(key) != value for key, value in self.plan.items()):
            raise OutputError(f"{self.root}: holds another scene ({self.manifest} differs); choose another folder")
        complete = all((self.root / name).is_file() for name in (*manifest["digests"], *manifest.get("index", ())))
        return manifest if complete else None

    def _begin(self) -> None:
        """Claim the folder for this plan."""
        plan_path = self.root / _WORK_FOLDER / _PLAN_FILE
        if plan_path.is_file() and _read_json(plan_path) != self.plan:
            raise OutputError(f"{self.root}: another scene was begun here; choose another folder, or remove this one")
        known = plan_path.is_file() or (self.root / self.manifest).is_file()
        if not known and self.root.exists() and (not self.root.is_dir() or any(self.root.iterdir())):
            raise OutputError(f"{self.root}: holds other files; choose a new or empty folder")
        make_folder(plan_path.parent)
        if not plan_path.is_file():
            write_bytes(plan_path, _json_bytes(self.plan))

    def _part_path(self, name: str) -> Path:
        return self.root / _WORK_FOLDER / f"{name}.json"

    def _part(self, name: str) -> dict[str, Any] | None:
        """The facts of a finished part whose files are still there in full."""
        facts = _read_json(self._part_path(name))
        if facts is None:
            return None
        sizes: dict[str, int] = facts["bytes"]
        whole = all(_file_size(self.root / path) == size for path, size in sizes.items())
        return facts if whole else None

    def _report(self, done: int) -> None:
        if self.progress is not None:
            self.progress(done, sum(self.sizes))


def _run_tasks(
    tasks: list[tuple[str, Callable[[], dict[str, Any]]]], workers: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Results of the tasks as they come; an interruption lets running tasks end and drops the others."""
    if workers <= 1 or len(tasks) <= 1:
        yield from ((name, task()) for name, task in tasks)
        return
    workers = min(workers, len(tasks))
    pool = ProcessPoolExecutor(workers, mp_context=_fresh_processes(), initializer=_begin_worker)
    try:
        with _interrupts_later():
            wait_for_all([pool.submit(_begin_worker) for _ in range(workers)])
        futures: dict[Future[dict[str, Any]], str] = {pool.submit(task): name for name, task in tasks}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _fresh_processes() -> BaseContext:
    """Workers that start from a clean process: numerical libraries may have threads, which a plain fork would break."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # imported once, for all workers
    return context


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Ctrl-C takes effect at the end of the block; processes born in it are deaf to it.

    Workers that are still starting when their pool goes away, and their common parent, would print tracebacks.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited by the workers' parent, which runs a new program
    try:
        if "forkserver" in multiprocessing.get_all_start_methods():
            forkserver.ensure_running()
        heard: list[int] = []
        signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if heard:
        raise KeyboardInterrupt


def _begin_worker() -> None:
    """A worker leaves Ctrl-C to its parent, uses one core, and ends when its parent is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


@lru_cache(maxsize=1)
def _scene(options: SceneOptions) -> Scene:
    """The scene of this process; its streets and figures are kept from one task to the next."""
    return Scene(options)


def _render_person(
    root: Path, dataset_name: str, options: SceneOptions, queries_per_camera: int, pid: int
) -> dict[str, Any]:
    """Every picture of one person; returns the facts."""
    scene, module = _scene(options), load_dataset_module(dataset_name)
    testing, sides_later = pid in options.test_pids, "test" in _splits(module)
    stays_in_gallery = _queries_stay_in_gallery(module)
    files: list[dict[str, Any]] = []
    part: dict[str, Any] = {"files": files, "digests": {}, "bytes": {}}
    count = options.pictures_per_camera
    queries: dict[int, set[int]] = {}  # camera -> numbers of its pictures
    if testing and not sides_later:
        for camid in scene.cameras_of(pid):
            order = numpy_generator(options.time_seed, "query", pid, camid).permutation(count)
            queries[camid] = set(order[: min(queries_per_camera, count if stays_in_gallery else count - 1)].tolist())
    for camid, modality, index in scene.pictures_of(pid):
        shot = scene.shot(pid, camid, index, modality)
        content = encode_jpeg(shot.picture, scene.camera(camid, modality).sensor.jpeg_quality)
        if not testing or sides_later:
            splits = ["test" if testing else "train"]
        else:
            is_query = index % count in queries[camid]
            splits = ["query"] * is_query + ["gallery"] * (stays_in_gallery or not is_query)
        facts = {"pid": pid, "camid": camid, "index": index, "modality": shot.modality.name.lower(), **shot.facts}
        for split in splits:
            path = module.picture_path(split, pid, camid, index, shot.modality)
            _write_picture(root / path, content)
            part["digests"][path.as_posix()] = hashlib.sha256(content).hexdigest()[:16]
            part["bytes"][path.as_posix()] = len(content)
            files.append({"path": path.as_posix(), "split": split, **facts})
    return part


def scene_settings(options: SceneOptions) -> dict[str, Any]:
    """The options as plain values; without what older scenes did not have, so that they stay known."""
    later = ("paired_cameras", "infrared_likeness", "light", "lookalikes")
    usual = _plain(asdict(SceneOptions()))
    values = _plain(asdict(options))
    return {name: value for name, value in values.items() if name not in later or value != usual[name]}


def _splits(module: ModuleType) -> tuple[str, ...]:
    splits: tuple[str, ...] = getattr(module, "SPLITS", ("train", "query", "gallery"))
    return splits


def _queries_stay_in_gallery(module: ModuleType) -> bool:
    return bool(getattr(module, "QUERIES_STAY_IN_GALLERY", False))


def _check_cameras(module: ModuleType, scene: Scene) -> None:
    """A layout without a place for one of the cameras, or that needs others, says so before anything is written."""
    for split in _splits(module):
        for camid, modality in scene.views():
            module.picture_path(split, scene.options.first_pid, camid, 0, modality)
    modalities = {rules.query_modality for rules in module.PROTOCOLS.values()} - {None}
    for modality in sorted(modalities - {modality for _, modality in scene.views()}):
        raise RecipeError(
            f"scene: the layout {module.NAME} wants {modality.name.lower()} cameras too and has none; "
            "set infrared_cameras or paired_cameras"
        )


def _record(picture: dict[str, Any]) -> Record:
    """A line of the ground truth as a record, its path from the root."""
    modality = Modality[picture["modality"].upper()]
    return Record(Path(picture["path"]), picture["pid"], picture["camid"], modality, picture["split"])


def _render_video(root: Path, options: SceneOptions, video: VideoOptions, seconds: float, camid: int) -> dict[str, Any]:
    """The video and boxes of one camera; returns the facts."""
    name = f"cam{camid}"
    make_folder(root)
    with replacing(root / f"{name}.mp4") as path:
        boxes = write_camera_video(path, _scene(options), camid, video, seconds)
    lines = ["frame,time_seconds,pid,x,y,width,height,visible"]
    lines += [f"{b.frame},{b.time_seconds:.3f},{b.pid},{b.x},{b.y},{b.width},{b.height},{b.visible:.3f}" for b in boxes]
    write_bytes(root / f"{name}.csv", ("\n".join(lines) + "\n").encode())
    part: dict[str, Any] = {"camid": camid, "pids": sorted({box.pid for box in boxes}), "files": [name]}
    contents = {file: (root / file).read_bytes() for file in (f"{name}.mp4", f"{name}.csv")}
    part["digests"] = {file: hashlib.sha256(content).hexdigest()[:16] for file, content in contents.items()}
    part["bytes"] = {file: len(content) for file, content in contents.items()}
    return part


def _write_picture(path: Path, content: bytes) -> None:
    """Write a picture under a temporary name and rename it.

    No fsync: it would take longer than rendering, and a resumed run checks the size of every file.
    """
    make_folder(path.parent)
    with replacing(path, durable=False) as temporary:
        temporary.write_bytes(content)


def _camera_facts(scene: Scene, camid: int, modality: Modality | None = None) -> dict[str, Any]:
    camera = scene.camera(camid, modality)
    facts = asdict(camera)
    facts["modality"] = camera.modality.name.lower()
    return _plain(facts)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """The same as JSON gives it back (tuples become lists)."""
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def _json_bytes(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=1) + "\n").encode()


def _read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None where the file is missing or cut short."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
