"""Index jobs: footage into the gallery in the background, one at a time, known again after a restart.

Each job is a small file below `jobs/`. What a job added stays whatever happens to it; a job that was interrupted is
resumed by doing it again, because indexing passes over what is finished.
"""

import contextlib
import json
import logging
import os
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from tapetum.core.atomic import make_folder, write_bytes
from tapetum.core.errors import TapetumError
from tapetum.service.errors import ConflictError, ForbiddenError, NotFoundError, OverloadError

log = logging.getLogger(__name__)
State = Literal["waiting", "running", "done", "failed", "cancelled", "interrupted"]
ENDED = ("done", "failed", "cancelled", "interrupted")
MOST_WAITING = 100
MOST_KEPT = 1000  # records of jobs
MOST_SHOWN = 1000  # files and folders of a place
SAVED_EVERY_SECONDS = 2.0
MOST_LINES = 200  # of a report, for people
STOPPED = "the server was stopped; resume the job"
_ID = re.compile(r"[0-9]{14}-[0-9a-f]{8}")


@dataclass(frozen=True)
class Job:
    """An index job and how far it is."""

    id: str  # sorts by time
    path: str  # below a root, as asked for
    settings: dict[str, Any]  # of the sources and the run, plain values
    who: str  # asked for it
    made: float  # seconds since 1970-01-01 UTC, as the other times
    state: State = "waiting"
    started: float | None = None
    ended: float | None = None
    done: int = 0  # frames and pictures read
    total: int = 0  # of so many; 0 where footage does not tell
    message: str = ""  # one line about the end
    lines: list[str] = field(default_factory=list)  # the report, for people
    report: dict[str, Any] = field(default_factory=dict)  # the report, for programs


Progress = Callable[[int, int], None]
Work = Callable[[Job, Path, Progress, Callable[[], bool]], tuple[list[str], dict[str, Any], bool]]


class Jobs:
    """The jobs of one gallery.

    Args:
        roots: folders below which footage may be read.
        work: does a job: (job, place, progress, stop) to (lines, report, whether it was stopped).
        changed: called with a job whenever it changes its state; for the audit log.
    """

    def __init__(self, folder: Path, roots: tuple[Path, ...], work: Work, changed: Callable[[Job], None]) -> None:
        self.folder = folder / "jobs"
        self.roots: dict[str, Path] = {}  # by their folder's name, with a number where two have the same
        names = Counter[str]()
        for root in roots:
            name = root.resolve().name or "root"
            names[name] += 1
            self.roots[name if names[name] == 1 else f"{name}-{names[name]}"] = root
        self._work, self._changed = work, changed
        self._guard = threading.Lock()
        self._writing = threading.Lock()  # held by whatever writes to the gallery
        self._wake = threading.Condition(self._guard)
        self._closing = False
        self._cancelled: set[str] = set()
        self._jobs = self._read()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to work on what is asked for."""
        self._thread = threading.Thread(target=self._run, name="index-jobs", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop after the batch at hand; jobs that were not finished can be resumed."""
        with self._guard:
            self._closing = True
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join()
        for job in self.newest_first():
            if job.state == "waiting":
                self._end(job, state="interrupted", message=STOPPED)  # else the next start finds it waiting

    def newest_first(self) -> list[Job]:
        """All jobs, the newest first."""
        with self._guard:
            return sorted(self._jobs.values(), key=lambda job: job.id, reverse=True)

    def find(self, job_id: str) -> Job:
        """One job.

        Raises:
            NotFoundError: there is none.
        """
        with self._guard:
            if job_id not in self._jobs:
                raise NotFoundError(f"job {job_id[:40]!r}: there is none")
            return self._jobs[job_id]

    def add(self, path: str, settings: dict[str, Any], who: str) -> Job:
        """Ask for a job.

        Args:
            path: below a root.
        Raises:
            ForbiddenError: not below a root.
            NotFoundError: nothing is there.
            OverloadError: too many wait.
        """
        self.resolve(path)
        now = time.time()
        stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime(now))
        job = Job(f"{stamp}-{secrets.token_hex(4)}", path, settings, who, now)
        self._put(job)
        return job

    def resume(self, job_id: str) -> Job:
        """Do a job again that did not come to its end.

        Raises:
            ConflictError: it is at work, or done.
        """
        job = self.find(job_id)
        if job.state not in ("failed", "cancelled", "interrupted"):
            raise ConflictError(f"job {job.id}: is {job.state}; only one that was interrupted, failed or cancelled")
        self.resolve(job.path)
        again = replace(job, state="waiting", started=None, ended=None, done=0, total=0, message="")
        self._put(again)
        return again

    def cancel(self, job_id: str) -> Job:
        """End a job after the batch at hand; what it added stays.

        Raises:
            ConflictError: it has ended.
        """
        job = self.find(job_id)
        if job.state in ENDED:
            raise ConflictError(f"job {job.id}: is {job.state} already")
        with self._guard:
            self._cancelled.add(job.id)
        self._change(job.id, only="waiting", state="cancelled", ended=time.time(), message="cancelled before it began")
        return self.find(job.id)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write to the gallery while no job does.

        Raises:
            ConflictError: a job is at work.
        """
        if not self._writing.acquire(blocking=False):
            raise ConflictError("an index job, or another deletion, writes to the gallery; wait for it or cancel it")
        try:
            yield
        finally:
            self._writing.release()

    def resolve(self, path: str) -> Path:
        """The place that a path means.

        Args:
            path: ROOT/FOLDER/..., where ROOT names a root.
        Raises:
            ForbiddenError: outside the roots, by a link perhaps.
            NotFoundError: nothing is there.
        """
        name, _, below = path.strip("/").partition("/")
        if "\0" in path or name not in self.roots:
            known = ", ".join(self.roots) or "none; start the server with --footage-root"
            raise ForbiddenError(f"footage {path[:200]!r}: begins with no known root; roots: {known}")
        root = self.roots[name].resolve()
        try:
            place = (root / below).resolve()
            inside, there = place.is_relative_to(root), place.exists()
        except (OSError, RuntimeError, ValueError):
            inside, there = True, False
        if not inside:  # said before whether anything is there
            raise ForbiddenError(f"footage {path[:200]!r}: leads out of its root")
        if not there:
            raise NotFoundError(f"footage {path[:200]!r}: there is no such file or folder")
        return place

    def look(self, path: str) -> list[tuple[str, bool]]:
        """What is at a place: path and whether it is a folder.

        Args:
            path: as for `resolve`; empty for the roots.
        Raises:
            ForbiddenError: as for `resolve`.
            NotFoundError: likewise.
        """
        if not path.strip("/"):
            return [(name, True) for name in self.roots]
        place = self.resolve(path)
        if not place.is_dir():
            return [(path.strip("/"), False)]
        try:
            with os.scandir(place) as inside:
                entries = [
                    (each.name, each.is_dir())
                    for each in inside
                    if not each.name.startswith(".")
                    and not each.is_symlink()
                    and each.name == each.name.encode(errors="ignore").decode()  # the system lets it be any bytes
                ]
        except OSError as error:
            raise ForbiddenError(f"footage {path[:200]!r}: cannot be looked into ({error.strerror})") from None
        return [(f"{path.strip('/')}/{name}", folder) for name, folder in sorted(entries)[:MOST_SHOWN]]

    def counts(self) -> dict[str, int]:
        """State to number of jobs."""
        return dict.fromkeys(("waiting", "running", *ENDED), 0) | Counter(job.state for job in self.newest_first())

    def _put(self, job: Job) -> None:
        with self._guard:
            if self._closing:
                raise OverloadError("the server is stopping; ask again later", retry_after=10)
            if sum(one.state == "waiting" for one in self._jobs.values()) >= MOST_WAITING:
                raise OverloadError(f"{MOST_WAITING} jobs wait already; try again later", retry_after=60)
        self._save(job)
        with self._guard:
            self._jobs[job.id] = job
            self._forget_oldest()
            self._cancelled.discard(job.id)
            self._wake.notify_all()
        self._changed(job)

    def _forget_oldest(self) -> None:
        names = sorted(name for name, job in self._jobs.items() if job.state in ENDED)
        for name in names[: max(0, len(self._jobs) - MOST_KEPT)]:
            del self._jobs[name]
            with contextlib.suppress(OSError):
                (self.folder / f"{name}.json").unlink()

    def _run(self) -> None:
        while True:
            with self._guard:
                while not self._closing and self._next() is None:
                    self._wake.wait()
                job = self._next()
                if self._closing or job is None:
                    return
            with self._writing:
                self._do(job)

    def _next(self) -> Job | None:
        waiting = [job for job in self._jobs.values() if job.state == "waiting" and job.id not in self._cancelled]
        return min(waiting, key=lambda job: job.id, default=None)

    def _do(self, job: Job) -> None:
        last_save = time.monotonic()

        def progress(done: int, total: int) -> None:
            nonlocal last_save
            due = time.monotonic() - last_save > SAVED_EVERY_SECONDS
            last_save = time.monotonic() if due else last_save
            self._change(job.id, save=due, done=done, total=total)

        def stop() -> bool:
            with self._guard:
                return self._closing or job.id in self._cancelled

        try:
            if not self._change(job.id, only="waiting", state="running", started=time.time()):
                return  # cancelled just now
            lines, report, was_stopped = self._work(job, self.resolve(job.path), progress, stop)
            state: State = "done"
            message = "finished"
            if was_stopped:
                with self._guard:
                    state = "cancelled" if job.id in self._cancelled else "interrupted"
                message = "what was added stays; resume goes on from here"
            self._change(
                job.id, state=state, ended=time.time(), message=message, lines=lines[:MOST_LINES], report=report
            )
        except TapetumError as error:
            self._end(job, state="failed", ended=time.time(), message=str(error))
        except Exception:
            mark = secrets.token_hex(4)
            log.exception("job %s failed, error %s", job.id, mark)
            message = f"unexpected error {mark}; see the server's log"
            self._end(job, state="failed", ended=time.time(), message=message)

    def _end(self, job: Job, **changes: Any) -> None:
        try:
            self._change(job.id, **changes)
        except TapetumError:  # the disk is full: it is known to have ended so as long as the server runs
            log.exception("job %s: its record cannot be written", job.id)

    def _change(self, job_id: str, *, only: State | None = None, save: bool = True, **changes: Any) -> bool:
        """Change a job, where asked for only one in a certain state; whether it was."""
        with self._guard:
            before = self._jobs[job_id]
            if only not in (None, before.state):
                return False
            job = self._jobs[job_id] = replace(before, **changes)
        if save:
            self._save(job)
        if job.state != before.state:
            self._changed(job)
        return True

    def _save(self, job: Job) -> None:
        make_folder(self.folder)
        write_bytes(self.folder / f"{job.id}.json", json.dumps(asdict(job)).encode())

    def _read(self) -> dict[str, Job]:
        jobs: dict[str, Job] = {}
        paths = sorted(self.folder.glob("*.json"), reverse=True) if self.folder.is_dir() else []
        for path in paths:
            if not _ID.fullmatch(path.stem):
                continue
            if len(jobs) >= MOST_KEPT:
                with contextlib.suppress(OSError):
                    path.unlink()
                continue
            try:
                job = Job(**json.loads(path.read_bytes()))
            except (OSError, ValueError, TypeError):
                log.warning("%s: a damaged record of a job is passed over", path)
                continue
            if job.state not in ENDED:
                job = replace(job, state="interrupted", message=STOPPED)
                self._save(job)
            jobs[job.id] = job
        return jobs
