"""What a server holds: the gallery, its model, the users, the log, the jobs; and how these work together."""

import hashlib
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO

from tapetum.core.errors import GalleryError, OutputError, TapetumError
from tapetum.evaluation.calibration import Calibration
from tapetum.footage.detect import Detector
from tapetum.footage.report import FootageReport, Problem
from tapetum.footage.sources import Source, find_sources
from tapetum.gallery.filters import Compare, Filter, write_filter
from tapetum.gallery.store import SECONDS_A_DAY, Store, chunks
from tapetum.indexing.index import IndexOptions, index_sources
from tapetum.indexing.report import IndexReport
from tapetum.inference.model import Model
from tapetum.searching.calibrated import stored_calibration_of
from tapetum.searching.case import build_case, render_case, zip_case
from tapetum.searching.retention import erase, oldest_kept, read_keep_days
from tapetum.service.audit import AuditLog
from tapetum.service.errors import OverloadError, ServiceError, SignInError
from tapetum.service.jobs import Job, Jobs, Progress
from tapetum.service.limits import RateLimit, WorkPool
from tapetum.service.metrics import ServiceMetrics
from tapetum.service.overview import WholeTimeline
from tapetum.service.schemas import LogIn, NewCase, NewJob, SearchPictures, SearchRows
from tapetum.service.searches import Search, Searches
from tapetum.service.security import Principal, Security
from tapetum.service.users import OWNER, UserBook

log = logging.getLogger(__name__)
FOLDER = "service"  # in the gallery's folder
LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
READY_SECONDS = 5.0  # a look at the gallery is good for
CASE_TITLE = "A search in a gallery"
BINS = 60  # bars of the timeline on the page
MOST_LOGGED = 1000  # ids in one line of the audit log
ADDRESSES = ("api", "static", "results", "sightings", "footage", "browse", "search")  # of pages, not of files
_ABSOLUTE = re.compile(r"(?<![\w.:/\\-])(?:[A-Za-z]:\\|/)[^\s'\"`;,()<>|*?]+")


@dataclass(frozen=True)
class ServiceOptions:
    """How a server runs."""

    hosts: frozenset[str] = LOOPBACK_NAMES  # by which clients may call it, in small letters without a port
    token: str | None = None  # that lets the owner in on loopback; None where only users may enter
    footage_roots: tuple[Path, ...] = ()  # folders below which index jobs may read
    detector: Callable[[], Detector] | None = None  # makes that of a job; None finds people in loose crops only
    requests_per_minute: float = 1200.0  # of one principal, or of one address that is nobody yet
    session_hours: float = 12.0  # until somebody has to log in again
    searches_at_once: int = 2  # threads that compute and search
    queue: int = 64  # calls that may wait for them


class Service:
    """A running server's state; made by `build_service`.

    Args:
        calibration: of the model; None where nobody calibrated it.
        folder: of users, log and jobs.
    """

    def __init__(
        self, store: Store, model: Model, calibration: Calibration | None, folder: Path, options: ServiceOptions
    ) -> None:
        self.store, self.model, self.calibration = store, model, calibration
        self.folder, self.options = folder, options
        self.users = UserBook(folder)
        self.audit = AuditLog(folder)
        self.security = Security(self.users, options.token, hours=options.session_hours)
        self.searches = Searches(store, model, calibration, self.hide)
        self.jobs = Jobs(folder, options.footage_roots, self._index, self._record_job)
        self.timeline = WholeTimeline(store, BINS)
        self.metrics = ServiceMetrics()
        self.rate = RateLimit(options.requests_per_minute, max(1, round(options.requests_per_minute / 4)), "requests")
        self.heavy = WorkPool(options.searches_at_once, options.queue, "search")  # the model and the gallery
        self.light = WorkPool(4, 4 * options.queue, "light")  # files, passwords
        self._places = dict(_named_places(store, self.jobs.roots))
        self._stopping = threading.Event()
        self._keeper: threading.Thread | None = None
        self._started = False
        self._ready = -READY_SECONDS

    def start(self) -> None:
        """Begin with jobs and retention; a second call does nothing."""
        if self._started:
            return
        self._started = True
        self.audit.write("start", "server", gallery=self.store.where, model=self.model.id)
        self.jobs.start()
        self._keeper = threading.Thread(target=self._keep, name="retention", daemon=True)
        self._keeper.start()

    def close(self) -> None:
        """Stop in good order: work at hand is finished, jobs can be resumed; a second call does nothing."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self.jobs.close()
        if self._keeper is not None:
            self._keeper.join()
        self.heavy.close()
        self.light.close()
        try:
            self.audit.write("stop", "server")
        except OutputError as error:
            log.warning("%s", error)

    def hide(self, text: str) -> str:
        """A message for a client, without where gallery, model, footage or anything else lies on the disk."""
        for place, name in self._places.items():
            text = re.sub(rf"(?<![\w./-]){re.escape(place)}(?![\w-])", name, text)
        return _ABSOLUTE.sub(_last_name, text)

    def name_source(self, source: str) -> str:
        """A source as clients know it: from its root's name on; elsewhere its own name and that of its folder.

        Args:
            source: as the gallery keeps it, which may be a place on the disk of whoever indexed it.
        """
        for place, name in self._places.items():
            if source == place or source.startswith(f"{place.rstrip('/')}/"):
                return name + source[len(place.rstrip("/")) :]
        pure = PureWindowsPath(source) if PureWindowsPath(source).drive else PurePosixPath(source)
        return "/".join(pure.parts[1:][-2:]) if pure.is_absolute() else source

    def check_ready(self) -> None:
        """Refuse where the gallery does not answer, or nothing can be written down.

        Raises:
            OverloadError: not now.
        """
        if time.monotonic() - self._ready < READY_SECONDS:
            return
        try:
            what = "the gallery does not answer"
            self.store.count()
            what = "nothing can be written down"
            self.audit.check_writable()
        except TapetumError:
            log.exception("not ready")
            raise OverloadError(f"{what}; see the server's log", retry_after=10) from None
        self._ready = time.monotonic()

    def log_in(self, address: str, request: LogIn) -> tuple[Principal, str]:
        """Log somebody in, and write it down: who it is, and the session's id for the cookie.

        Raises:
            SignInError: something is wrong.
            RateError: too many attempts.
        """
        who = OWNER if request.token else request.name
        try:
            if request.token:
                session, session_id = self.security.log_in_by_token(request.token, address)
            else:
                session, session_id = self.security.log_in(request.name, request.password, address)
        except SignInError:
            self.metrics.refused.inc()
            self.audit.write("login refused", who, address=address)
            raise
        self.audit.write("login", session.user, address=address)
        return self.security.of_session(session), session_id

    def log_out(self, who: Principal, session_id: str) -> None:
        """Log somebody out, and write it down."""
        self.security.log_out(session_id)
        self._record("logout", who)

    def search_pictures(self, who: Principal, request: SearchPictures, uploads: list[tuple[str, BinaryIO]]) -> Search:
        """Search for the people on pictures, and write it down.

        Args:
            uploads: label and open file of each picture.
        Raises:
            TapetumError: what is wrong with the question.
        """
        return self._record_search(who, self.searches.by_pictures(who.name, request, uploads), "pictures")

    def search_rows(self, who: Principal, request: SearchRows) -> Search:
        """Search for the person on rows, or repeat a search, and write it down.

        Raises:
            TapetumError: what is wrong with the question.
        """
        return self._record_search(who, self.searches.by_rows(who.name, request), "rows")

    def export_case(self, who: Principal, request: NewCase) -> tuple[bytes, str]:
        """A search as one file, written down: the file, and its media type.

        Raises:
            NotFoundError: the search is unknown, or was forgotten.
        """
        search = self.searches.find(request.search, who.name)
        case = build_case(
            self.store,
            search.queries,
            search.findings,
            search.settings,
            pictures=search.pictures,
            model=self.model if any(search.pictures) else None,
            title=request.title or CASE_TITLE,
            note=request.notes,
        )
        for about, place in ((case.content["gallery"], "where"), (case.content["model"], "place")):
            about[place] = Path(about[place]).name  # a name says which; where it lies is nobody's business
        for one in case.content["searches"]:
            for row in (*one["query"], *(row for answer in one["answers"] for row in answer["rows"])):
                if "source" in row:
                    row["source"] = self.name_source(row["source"])
        content = zip_case(case) if request.format == "zip" else render_case(case).encode()
        digest = hashlib.sha256(content).hexdigest()
        self._record("export", who, search=search.id, format=request.format, sha256=digest)
        return content, "application/zip" if request.format == "zip" else "text/html; charset=utf-8"

    def add_job(self, who: Principal, request: NewJob) -> Job:
        """Ask for an index job.

        Raises:
            TapetumError: what is wrong with it.
        """
        request.to_options()
        settings = request.model_dump(mode="json", exclude={"path"}, exclude_defaults=True)
        return self.jobs.add(request.path, settings, who.name)

    def change_job(self, who: Principal, job_id: str, step: str) -> Job:
        """End a job after the batch at hand ("cancel"), or do it again where it was left ("resume").

        Raises:
            ServiceError: there is no such job, or it is not in a state for that.
        """
        job = self.jobs.find(job_id)
        self._record(f"job {step}", who, job=job.id, path=job.path)
        return self.jobs.cancel(job_id) if step == "cancel" else self.jobs.resume(job_id)

    def delete(self, who: Principal, rows: Filter | None, *, dry_run: bool = False) -> int:
        """Remove rows with everything that belongs to them, or only count them.

        Returns:
            How many.
        Raises:
            ServiceError: no filter, or something else writes to the gallery.
        """
        if rows is None:
            raise ServiceError("delete: say which rows; there is no way to say all of them by leaving it out")
        if dry_run:
            return self.store.count(rows)
        facts = {"by": who.by, "address": who.address, "filter": write_filter(rows)}
        with self.jobs.writing():
            count = self._erase("delete", who.name, rows, facts)
            self.audit.write("deleted", who.name, **facts, count=count)
        return count

    def _record(self, action: str, who: Principal, **facts: Any) -> None:
        self.audit.write(action, who.name, by=who.by, address=who.address, **facts)

    def _record_search(self, who: Principal, search: Search, kind: str) -> Search:
        """Write a search down before its answer is given out; many results take several lines."""
        ids = [answer.row.sighting.id for findings in search.findings for answer in findings.found]
        facts = {
            "search": search.id,
            "query": list(search.thumbnails),
            "rows": [row.sighting.id for query in search.queries for row in query.rows],
            "filter": search.filter,
            "options": search.options.model_dump(mode="json", exclude={"where"}, exclude_defaults=True),
            "count": len(ids),
        }
        for some in chunks(ids, MOST_LOGGED) if ids else [()]:
            self._record("search", who, **facts, results=list(some))
        self.metrics.searches.labels(kind).inc()
        return search

    def _erase(self, action: str, who: str, rows: Filter, facts: dict[str, Any]) -> int:
        """Write down what goes, then remove it; searches that hold it are forgotten."""
        with self.store.writing():  # so that exactly those are removed that are written down
            ids = self.store.columns(["id"], rows)["id"]
            for some in chunks(ids, MOST_LOGGED):
                self.audit.write(action, who, **facts, count=len(ids), results=list(some))
            erasure = erase(self.store, rows)
        self.searches.forget_rows(frozenset(erasure.ids))
        self.metrics.deleted.inc(len(erasure))
        return len(erasure)

    def _retain(self, **facts: Any) -> int:
        """Erase what is older than the gallery keeps; how many rows, none where it keeps everything.

        Args:
            facts: for the log.
        """
        days = read_keep_days(self.store)
        if days is None:
            return 0
        return self._erase("retention", "server", Compare("time", "<", oldest_kept(days)), {"days": days, **facts})

    def _index(
        self, job: Job, place: Path, progress: Progress, stop: Callable[[], bool]
    ) -> tuple[list[str], dict[str, Any], bool]:
        detector = None if self.options.detector is None else self.options.detector()
        report = IndexReport()
        try:
            self._retain()  # nothing too old is shown while the job is at work
            settings = NewJob.model_validate(job.settings | {"path": job.path})
            sources = find_sources([place], settings.to_options(), report=report.footage)
            index_sources(
                self._name_sources(job, sources, report.footage),
                self.store,
                self.model,
                detector,
                options=IndexOptions(run=settings.run or job.id),
                report=report,
                progress=progress,
                stop=stop,
                retain=lambda: self._retain(job=job.id),
            )
        except TapetumError as error:
            raise ServiceError(self.hide(str(error))) from error
        report.gallery = "the gallery"
        footage = report.footage
        for problems in (footage.problems, footage.passed, footage.doubts):
            problems[:] = [Problem(self.hide(each.source), self.hide(each.message)) for each in problems]
        footage.facts[:] = [replace(each, source=self.hide(each.source)) for each in footage.facts]
        return report.lines(), report.to_dict(), report.stopped

    def _name_sources(self, job: Job, sources: list[Source], report: FootageReport) -> list[Source]:
        """Sources named as clients know them, from the root's name on; what a link brings in is left out."""
        root_name = job.path.strip("/").partition("/")[0]
        root = self.jobs.roots[root_name].resolve()

        def name(path: Path) -> str:
            return "/".join((root_name, *path.relative_to(root).parts))

        def is_inside(path: Path) -> bool:
            inside = path.resolve().is_relative_to(root)
            if not inside:
                report.note(name(path), "a link that leads out of its root; it is passed over")
            return inside

        sources_inside = []
        for source in sources:
            pictures = tuple(replace(each, name=name(each.path)) for each in source.pictures if is_inside(each.path))
            if pictures or (not source.pictures and is_inside(source.path)):
                sources_inside.append(replace(source, name=name(source.path), pictures=pictures))
        return sources_inside

    def _record_job(self, job: Job) -> None:
        self.audit.write("job", job.who, job=job.id, path=job.path, state=job.state, message=job.message)

    def _keep(self) -> None:
        """Retention, at the start and once a day; while a job is at work, an hour later."""
        while True:
            wait = SECONDS_A_DAY / 24
            try:
                with self.jobs.writing():
                    self._retain()
                wait = SECONDS_A_DAY
            except TapetumError as error:  # a job, or another process, writes just now
                log.warning("retention is tried again in an hour: %s", error)
            except Exception:
                log.exception("retention failed; tried again in an hour")
            if self._stopping.wait(wait):
                return


def _last_name(match: re.Match[str]) -> str:
    """The name of a file or folder in place of where it lies; an address of this server stays."""
    place = match[0]
    first = place.split("/")[1]
    if place.startswith("/") and (first in ADDRESSES or not Path("/", first).exists()):
        return place
    return re.split(r"[/\\]", place.rstrip("/\\"))[-1]


def _named_places(store: Store, roots: dict[str, Path]) -> Iterator[tuple[str, str]]:
    """Places on the disk, and what clients call them; the longest first."""
    places = [(store.where, "gallery")]
    if store.info.place:
        places.append((store.info.place, Path(store.info.place).name))
    if store.folder is not None:
        places += [(str(store.folder), "gallery"), (str(store.folder.resolve()), "gallery")]
    for name, root in roots.items():
        places += [(str(root), name), (str(root.resolve()), name)]
    yield from sorted(places, key=lambda place: len(place[0]), reverse=True)


def service_folder(store: Store, folder: Path | None = None) -> Path:
    """Where users, log and jobs of a gallery are; None takes its own folder.

    Raises:
        GalleryError: a gallery on a server without a folder.
    """
    base = folder or store.folder
    if base is None:
        raise GalleryError(f"{store.where}: has no folder for users and log; name one with --folder")
    return base / FOLDER


def build_service(
    store: Store, model: Model, options: ServiceOptions | None = None, *, folder: Path | None = None
) -> Service:
    """A server's state for a gallery.

    Args:
        store: the gallery; it stays the caller's to close.
        model: its own, of `open_gallery_model`.
        folder: of a gallery on a server.
    Raises:
        GalleryError: no folder for users and log.
        UserError: the file of users is damaged.
    """
    place = service_folder(store, folder)
    service = Service(store, model, stored_calibration_of(model), place, options or ServiceOptions())
    service.users.users()  # refuses to start with a damaged file
    return service
