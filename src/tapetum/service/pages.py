"""The page: what the API does, for people with a browser. Its essentials work without JavaScript.

A form that changes something is answered by a redirect, so that loading a page again does nothing twice.
"""

import json
import mimetypes
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources
from typing import Annotated, Any, TypeVar
from urllib.parse import quote, urlencode

import jinja2
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from markupsafe import Markup
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, QueryParams

import tapetum
from tapetum.core.errors import TapetumError
from tapetum.data.image_io import read_picture
from tapetum.footage.clock import format_time
from tapetum.gallery.filters import parse_time, write_filter
from tapetum.investigation.enhance import enhance, name_enhancement
from tapetum.service import api
from tapetum.service.api import Administrator, Client, Held, Indexer, Searcher
from tapetum.service.audit import AuditError, read_log
from tapetum.service.crops import crop_path
from tapetum.service.errors import NotFoundError, ServiceError
from tapetum.service.overview import browse, find_tracklet
from tapetum.service.schemas import (
    FindingsOut,
    LogIn,
    NewCase,
    NewJob,
    RowOut,
    SearchOptions,
    SearchPictures,
    SearchRows,
    TimelineOut,
    Where,
    show_row,
)
from tapetum.service.searches import Search
from tapetum.service.security import CSRF_FIELD, Principal
from tapetum.service.state import Service
from tapetum.service.uploads import find_pictures, read_form
from tapetum.service.users import Role
from tapetum.synth.sensor import encode_jpeg

TICKS = 5
ROWS_A_PAGE = 48
MOST_SHOWN = 8  # pictures of a walk that somebody searched with
NAMED = 3  # ids of a list in the audit log
BRIEF = 100  # letters of a value there
LINES_SHOWN = 200  # of the audit log
JOBS_SHOWN = 50
NEVER_EMPTY = 4  # percent: so high is the bar of a single crop at least
GROUPS = ("tracklet", "identity", "none")
BOX = ("left", "top", "width", "height")
STATIC = ("style.css", "page.js", "login.js", "drop.js", "timeline.js", "jobs.js", "icon.svg")
LINKS = (
    ("Search", "/", Role.SEARCH),
    ("Browse", "/browse", Role.SEARCH),
    ("Footage", "/footage", Role.INDEX),
    ("Audit log", "/audit", Role.ADMINISTER),
)
HEADINGS = {401: "Log in first", 403: "Not allowed", 404: "Not found", 413: "Too large", 429: "Too many requests"}

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
Values = FormData | QueryParams
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Asked:
    """The fields of the search form as text, so that a page shows again what was asked.

    Attributes:
        cameras: ticked; none means all.
        since, until: of the timeline, UTC, without a zone.
        modality: of the answers; empty for both.
        quality: percent, at least.
        group: what one answer is.
        k: answers.
        exclude: seconds around the query in which its own camera is left out.
        false_alarms: allowed rate.
        prior: percent, the belief before looking that an answer shows the person.
        told: modality of the uploaded pictures; empty lets each picture tell.
        rerank: by their neighbours.
        exact: compare every crop.
    """

    cameras: tuple[str, ...] = ()
    since: str = ""
    until: str = ""
    modality: str = ""
    quality: str = ""
    group: str = "tracklet"
    k: str = "20"
    exclude: str = ""
    false_alarms: str = ""
    prior: str = ""
    told: str = ""
    rerank: bool = False
    exact: bool = False

    @property
    def changed(self) -> bool:
        """Whether a search is asked for in another way than usual."""
        plain = Asked(self.cameras, self.since, self.until, self.modality, self.quality)
        return self != plain

    def where(self) -> Where:
        """Which rows are meant.

        Raises:
            ServiceError: a field holds something else.
        """
        return _checked(
            Where,
            cameras=list(self.cameras),
            since=f"{self.since}Z" if self.since else None,
            until=f"{self.until}Z" if self.until else None,
            modality=self.modality or None,
            min_quality=_number(self.quality, "quality") / 100 if self.quality else None,
        )

    def options(self) -> dict[str, Any]:
        """How to search, as fields of `SearchOptions`.

        Raises:
            ServiceError: a field holds something else.
        """
        return {
            "where": self.where(),
            "k": self.k or "20",
            "group": self.group,
            "exclude_seconds": self.exclude or None,
            "rerank": self.rerank,
            "exact": True if self.exact else None,
            "false_alarms": self.false_alarms or None,
            "prior": _number(self.prior, "prior") / 100 if self.prior else None,
        }


@dataclass(frozen=True)
class Bar:
    """One part of the timeline.

    Attributes:
        all: height of the bar of every camera, percent.
        chosen: of those asked for.
        words: from when until when, and how many crops.
    """

    all: int
    chosen: int
    words: str


@dataclass(frozen=True)
class Line:
    """The timeline as drawn.

    Attributes:
        start, end: seconds since 1970-01-01 UTC.
        bars: in the order of time.
        ticks: what stands below, evenly spread.
        left, right: of the chosen time, in units of the drawing: ten a bar.
        words: the same for those who do not see it.
    """

    start: float
    end: float
    bars: tuple[Bar, ...]
    ticks: tuple[str, ...]
    left: float
    right: float
    words: str


@dataclass(frozen=True)
class Shown:
    """A picture that somebody searched with.

    Attributes:
        address: where it is.
        label: its name.
        remark: what spoils it; empty where nothing does.
    """

    address: str
    label: str
    remark: str


@router.get("/static/{name}")
async def static(name: str) -> Response:
    """Style and scripts."""
    if name not in STATIC:
        raise NotFoundError(f"static/{name[:40]}: there is no such file")
    content = resources.files("tapetum.service").joinpath("static", name).read_bytes()
    return Response(content, media_type=mimetypes.guess_type(name)[0])


@router.get("/login", response_model=None)
async def login_page(
    request: Request, service: Held, onward: Annotated[str, Query(alias="next", max_length=4096)] = "/"
) -> Response:
    """The form to log in."""
    return await _door(request, service, onward)


@router.post("/login", response_model=None)
async def log_in(request: Request, service: Held, client: Client) -> Response:
    """Start a session."""
    form = await read_form(request)
    onward, name = _text(form, "next"), _text(form, "name")
    try:
        asked = _checked(LogIn, name=name, password=form.get("password") or "", token=_text(form, "token"))
        _, session_id = await api.start_session(service, client, asked)
    except ServiceError as error:
        return await _door(request, service, onward, name, error)
    response = RedirectResponse(_inside(onward), 303)
    api.set_cookie(request, response, session_id)
    return response


@router.post("/logout", response_model=None)
async def log_out(request: Request, service: Held, client: Client, who: Searcher) -> Response:
    """End the session."""
    response = RedirectResponse("/login", 303)
    await api.end_session(request, response, service, client, who)
    return response


@router.get("/", response_model=None)
async def search_page(
    request: Request, service: Held, who: Searcher, row: Annotated[list[str] | None, Query(max_length=100)] = None
) -> Response:
    """The form to search; with rows, their person is searched for."""
    return await _search_form(request, service, who, Asked(), tuple(row or ()))


@router.post("/search", response_model=None)
async def search(request: Request, service: Held, client: Client, who: Searcher) -> Response:
    """Search, and go to the results."""
    form = await read_form(request)
    asked = read_asked(form)
    rows = tuple(value for value in form.getlist("row") if isinstance(value, str))
    again = _text(form, "search")
    try:
        if rows or again or _text(form, "tracklet"):
            start = {"rows": list(rows), "search": again or None, "tracklet": _text(form, "tracklet") or None}
            by_rows = _checked(SearchRows, **start, **asked.options())
            done = await service.heavy.run(service.search_rows, who, client, by_rows)
        else:
            sent = find_pictures(form)
            by_pictures = _checked(
                SearchPictures, modality=asked.told or None, boxes=_boxes(form, len(sent)), **asked.options()
            )
            done = await service.heavy.run(service.search_pictures, who, client, by_pictures, sent)
    except NotFoundError:
        raise
    except TapetumError as error:
        if again:
            before = await service.light.run(service.searches.find, again, who.name)
            return await _results(request, service, who, before, asked, error)
        return await _search_form(request, service, who, asked, rows, error)
    return RedirectResponse(f"/results/{quote(done.id)}", 303)


@router.get("/results/{search_id}", response_model=None)
async def results(request: Request, service: Held, who: Searcher, search_id: str) -> Response:
    """What a search found."""
    done = await service.light.run(service.searches.find, search_id, who.name)
    return await _results(request, service, who, done, asked_before(done.options))


@router.get("/results/{search_id}/pictures/{number}", response_model=None)
async def searched_picture(service: Held, who: Searcher, search_id: str, number: int) -> Response:
    """A picture that was uploaded for a search."""
    done = await service.light.run(service.searches.find, search_id, who.name)
    pictures = [picture for each in done.pictures for picture in each]
    if not 0 <= number < len(pictures):
        raise NotFoundError(f"picture {number}: the search has {len(pictures)}")
    return Response(pictures[number], media_type="image/jpeg")


@router.post("/case", response_model=None)
async def export(request: Request, service: Held, client: Client, who: Searcher) -> Response:
    """A search as one file to keep."""
    form = await read_form(request)
    asked = _checked(
        NewCase,
        search=_text(form, "search"),
        title=_text(form, "title"),
        notes=_text(form, "notes"),
        format=_text(form, "format") or "html",
    )
    return await api.case(service, client, who, asked)


@router.get("/browse", response_model=None)
async def browse_page(
    request: Request,
    service: Held,
    who: Searcher,
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
    deleted: Annotated[int | None, Query(ge=0)] = None,
) -> Response:
    """Rows in the order of time."""
    asked = read_asked(request.query_params)
    failed: TapetumError | None = None
    try:
        chosen = asked.where().to_filter()
    except TapetumError as error:
        failed, chosen = error, None
    total, rows = await service.heavy.run(browse, service.store, chosen, offset, ROWS_A_PAGE)
    keep = [(name, value) for name, value in request.query_params.multi_items() if name not in ("offset", "deleted")]

    def page(start: int) -> str:
        return f"/browse?{urlencode([*keep, ('offset', str(start))])}"

    return await _show_with_line(
        request,
        service,
        who,
        "browse.html.j2",
        asked,
        status=_status(failed),
        error=str(failed or ""),
        rows=[show_row(row) for row in rows],
        total=total,
        offset=offset,
        filter=write_filter(chosen),
        filtered=chosen is not None,
        before=page(max(0, offset - ROWS_A_PAGE)) if offset else "",
        after=page(offset + ROWS_A_PAGE) if offset + len(rows) < total else "",
        notice="" if deleted is None else f"{deleted} {'crop was' if deleted == 1 else 'crops were'} deleted for good.",
    )


@router.get("/sightings/{row_id}", response_model=None)
async def sighting(request: Request, service: Held, who: Searcher, row_id: str) -> Response:
    """A crop, and the walk that it belongs to."""
    rows = [show_row(row) for row in await service.heavy.run(find_tracklet, service.store, row_id)]
    row = next(each for each in rows if each.id == row_id)
    return _show(
        request,
        "sighting.html.j2",
        who=who,
        gallery=await api.gallery(service, who),
        row=row,
        rows=rows,
        facts=_facts(row),
        enhanced_by=await service.heavy.run(name_enhancement, service.model),
        may_delete=who.role >= Role.ADMINISTER,
    )


@router.get("/sightings/{row_id}/enhanced", response_model=None)
async def enhanced(service: Held, _: Searcher, row_id: str) -> Response:
    """A crop as the model's own enhancement sees it, or plainly brightened; the page of the crop says which."""
    return Response(await service.heavy.run(_enhance, service, row_id), media_type="image/jpeg")


@router.post("/delete", response_model=None)
async def delete(request: Request, service: Held, client: Client, who: Administrator) -> Response:
    """Remove a crop or its whole walk for good."""
    form = await read_form(request)
    if _text(form, "sure") != "yes":
        raise ServiceError("delete: tick that you know that it cannot be undone")
    row_id, what = _text(form, "row"), _text(form, "what")
    rows = await service.heavy.run(find_tracklet, service.store, row_id)
    tracklet = rows[0].sighting.tracklet
    named: dict[str, Any] = {"tracklets": [tracklet]} if what == "tracklet" and tracklet else {"ids": [row_id]}
    removed = await service.heavy.run(service.delete, who, client, _checked(Where, **named).to_filter())
    return RedirectResponse(f"/browse?deleted={removed}", 303)


@router.get("/footage", response_model=None)
async def footage_page(
    request: Request, service: Held, who: Indexer, path: Annotated[str, Query(max_length=4096)] = ""
) -> Response:
    """What can be indexed, and the jobs that do it."""
    return await _footage(request, service, who, path)


@router.post("/jobs", response_model=None)
async def add_job(request: Request, service: Held, who: Indexer) -> Response:
    """Index footage, in the background."""
    form = await read_form(request)
    path, start = _text(form, "path"), _text(form, "start")
    try:
        asked = _checked(
            NewJob,
            path=path,
            kind=_text(form, "kind") or None,
            camera=_text(form, "camera") or None,
            start=f"{start}Z" if start else None,
            modality=_text(form, "modality") or None,
            run=_text(form, "run"),
        )
        await api.add_job(service, who, asked)
    except NotFoundError:
        raise
    except TapetumError as error:
        return await _footage(request, service, who, path, error)
    return RedirectResponse("/footage#jobs", 303)


@router.post("/jobs/{job_id}/cancel", response_model=None)
async def cancel_job(service: Held, who: Indexer, job_id: str) -> Response:
    """End a job after the batch at hand."""
    await api.change_job(service, who, job_id, "cancel")
    return RedirectResponse("/footage#jobs", 303)


@router.post("/jobs/{job_id}/resume", response_model=None)
async def resume_job(service: Held, who: Indexer, job_id: str) -> Response:
    """Go on with a job."""
    await api.change_job(service, who, job_id, "resume")
    return RedirectResponse("/footage#jobs", 303)


@router.get("/audit", response_model=None)
async def audit(request: Request, service: Held, who: Administrator) -> Response:
    """The last lines of the audit log."""
    lines = await service.light.run(_last_lines, service)
    gallery = await api.gallery(service, who)
    return _show(request, "audit.html.j2", who=who, gallery=gallery, lines=lines)


def show_error(request: Request, status: int, message: str) -> Response:
    """A refused request as a page; whoever only has to log in is shown the way.

    Args:
        request: refused.
        status: of the answer.
        message: why.
    """
    if status == 401 and request.method == "GET":
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse("/login" if here == "/" else f"/login?next={quote(here, safe='')}", 303)
    who: Principal | None = getattr(request.state, "principal", None)
    heading = HEADINGS.get(status, "That did not work")
    return _show(request, "error.html.j2", status, who=who, heading=heading, message=message)


def read_asked(values: Values) -> Asked:
    """The fields of the search form; unknown ones are passed over.

    Args:
        values: of a form or an address.
    """
    return Asked(
        cameras=tuple(value for value in values.getlist("camera") if isinstance(value, str)),
        since=_moment(_text(values, "since")),
        until=_moment(_text(values, "until")),
        modality=_text(values, "modality"),
        quality=_text(values, "quality"),
        group=_text(values, "group") or "tracklet",
        k=_text(values, "k") or "20",
        exclude=_text(values, "exclude"),
        false_alarms=_text(values, "false_alarms"),
        prior=_text(values, "prior"),
        told=_text(values, "told"),
        rerank=_text(values, "rerank") == "yes",
        exact=_text(values, "exact") == "yes",
    )


def asked_before(options: SearchOptions) -> Asked:
    """The form of a search that was done.

    Args:
        options: it was done with.
    """

    def moment(value: str | float | None) -> str:
        seconds = parse_time(value) if isinstance(value, str) else value
        return "" if seconds is None else format_time(seconds).removesuffix("Z")

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:g}"

    where = options.where
    return Asked(
        cameras=tuple(where.cameras),
        since=moment(where.since),
        until=moment(where.until),
        modality=where.modality or "",
        quality=number(None if where.min_quality is None else 100 * where.min_quality),
        group=options.group,
        k=str(options.k),
        exclude=number(options.exclude_seconds),
        false_alarms=number(options.false_alarms),
        prior=number(None if options.prior is None else 100 * options.prior),
        rerank=options.rerank,
        exact=bool(options.exact),
    )


def draw_line(told: TimelineOut, asked: Asked) -> Line:
    """The timeline as a page shows it.

    Args:
        told: crops of each camera in each part.
        asked: the chosen cameras and time.
    """
    part = (told.end - told.start) / told.bins if told.bins else 0.0
    every = [sum(camera.counts[place] for camera in told.cameras) for place in range(told.bins)]
    chosen = [
        sum(camera.counts[place] for camera in told.cameras if not asked.cameras or camera.camera in asked.cameras)
        for place in range(told.bins)
    ]
    highest = max(every, default=0)
    if highest == 0:
        return Line(0.0, 0.0, (), (), 0.0, 0.0, "The gallery is empty.")

    def height(count: int) -> int:
        return max(NEVER_EMPTY, round(100 * count / highest)) if count else 0

    bars = tuple(
        Bar(
            height(all_), height(some), f"{_span(told.start + place * part, part)}: {all_} crops, {some} of them chosen"
        )
        for place, (all_, some) in enumerate(zip(every, chosen, strict=True))
    )
    moments = [told.start + (told.end - told.start) * place / (TICKS - 1) for place in range(TICKS)]
    days = {_when(moment).date() for moment in moments}
    ticks = tuple(
        f"{_when(moment):%H:%M:%S}" if len(days) == 1 else f"{_when(moment):%d %b %H:%M}" for moment in moments
    )

    def place_of(text: str, otherwise: float) -> float:
        seconds = parse_time(f"{text}Z") if text else otherwise
        share = (seconds - told.start) / (told.end - told.start)
        return round(min(max(share, 0.0), 1.0) * 10 * told.bins, 2)

    try:
        left, right = place_of(asked.since, told.start), place_of(asked.until, told.end)
    except TapetumError:
        left, right = 0.0, 10.0 * told.bins
    first, last, busiest = (
        _moment_of(moment) for moment in (told.start, told.end, told.start + part * every.index(highest))
    )
    words = f"{sum(every)} crops from {first} to {last}, most at {busiest}"
    return Line(told.start, told.end, bars, ticks, left, max(left, right), words)


async def _door(
    request: Request, service: Service, onward: str, name: str = "", error: ServiceError | None = None
) -> Response:
    has_token = service.options.token is not None
    has_users = bool(await service.light.run(service.users.users))
    return _show(
        request,
        "login.html.j2",
        _status(error),
        error=str(error or ""),
        name=name,
        next=_inside(onward),
        by_token=has_token,
        by_name=has_users or not has_token,
    )


async def _search_form(
    request: Request,
    service: Service,
    who: Principal,
    asked: Asked,
    rows: tuple[str, ...],
    error: TapetumError | None = None,
) -> Response:
    picked = [show_row(row) for row in await service.heavy.run(service.store.fetch_rows, list(rows))] if rows else []
    if len(picked) < len(set(rows)):
        raise NotFoundError("a picked crop is no longer in the gallery; pick another one")
    return await _show_with_line(
        request, service, who, "search.html.j2", asked, status=_status(error), error=str(error or ""), picked=picked
    )


async def _results(
    request: Request, service: Service, who: Principal, done: Search, asked: Asked, error: TapetumError | None = None
) -> Response:
    findings = api.show_search(done).queries[0]
    kind, headline = _headline(findings)
    return await _show_with_line(
        request,
        service,
        who,
        "results.html.j2",
        asked,
        status=_status(error),
        error=str(error or ""),
        search=done.id,
        findings=findings,
        kind=kind,
        headline=headline,
        looked=_looked(done, findings),
        pictures=_searched(done),
    )


async def _footage(
    request: Request, service: Service, who: Principal, path: str, error: TapetumError | None = None
) -> Response:
    place = path.strip("/")
    found = await api.footage(service, who, "" if isinstance(error, ServiceError) and error.status == 403 else path)
    return _show(
        request,
        "jobs.html.j2",
        _status(error),
        who=who,
        gallery=await api.gallery(service, who),
        error=str(error or ""),
        path=place,
        above=f"?{urlencode({'path': place.rpartition('/')[0]})}" if "/" in place else "",
        entries=[entry for entry in found.entries if entry.path != place],
        roots=list(service.jobs.roots),
        jobs=await api.jobs(service, who, JOBS_SHOWN),
    )


async def _show_with_line(
    request: Request, service: Service, who: Principal, template: str, asked: Asked, *, status: int = 200, **values: Any
) -> Response:
    told: TimelineOut = await service.heavy.run(service.timeline.draw)
    return _show(
        request,
        template,
        status,
        who=who,
        gallery=await api.gallery(service, who),
        cameras=told.cameras,
        line=draw_line(told, asked),
        asked=asked,
        **values,
    )


def _show(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    who: Principal | None = values.pop("who", None)

    def csrf_field() -> Markup:
        return Markup('<input type="hidden" name="{}" value="{}">').format(CSRF_FIELD, who.csrf if who else "")

    text = (
        _pages()
        .get_template(template)
        .render(
            who=who,
            here=request.url.path,
            links=[(name, address) for name, address, role in LINKS if who and who.role >= role],
            csrf_field=csrf_field,
            version=tapetum.__version__,
            **{"notice": "", "gallery": None, **values},
        )
    )
    return HTMLResponse(text, status)


def _enhance(service: Service, row_id: str) -> bytes:
    rows = service.store.fetch_rows([row_id])
    path = crop_path(service.store, rows[0]) if rows else None
    if path is None:
        raise NotFoundError(f"row {row_id[:200]!r}: there is no such row with a picture")
    return encode_jpeg(enhance(service.model, read_picture(path))[0], 90)


def _last_lines(service: Service) -> list[dict[str, str]]:
    try:
        lines = list(read_log(service.audit.path, LINES_SHOWN))
    except AuditError:
        return []
    shown = []
    for line in reversed(lines):
        more = {name: value for name, value in line.items() if name not in ("time", "who", "action", "before")}
        told = "; ".join(f"{name} {_brief(value)}" for name, value in more.items() if value not in (None, "", [], {}))
        when = _clock(str(line.get("time", "")).partition(".")[0])
        shown.append({"time": when, "who": line.get("who", ""), "action": line.get("action", ""), "more": told})
    return shown


def _brief(value: Any) -> str:
    if isinstance(value, list) and len(value) > NAMED:
        return f"{_brief(value[:NAMED])} and {len(value) - NAMED} more"
    if isinstance(value, list):
        return ", ".join(_brief(each) for each in value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= BRIEF else f"{text[:BRIEF]}…"


def _headline(findings: FindingsOut) -> tuple[str, str]:
    """Which kind of verdict, for its colour, and its few words."""
    if not findings.found:
        return "miss", "Nothing to compare with"
    if findings.matches is None:
        return "", "No probability: the most similar"
    if findings.matches == 0:
        return "miss", "No match"
    return "match", "1 match" if findings.matches == 1 else f"{findings.matches} matches"


def _looked(done: Search, findings: FindingsOut) -> str:
    how = "all compared" if findings.exact else f"approximate, finds {_percent(findings.recall or 0)} of the nearest"
    return f"{done.filter or 'The whole gallery'}: {findings.searched:,} crops, {how}, {findings.seconds:.2f} s"


def _searched(done: Search) -> list[Shown]:
    query = done.queries[0]
    remarks = query.remarks or ("",) * len(query.labels)
    if done.pictures[0]:
        told = zip(range(len(done.pictures[0])), query.labels, remarks, strict=False)
        return [Shown(f"/results/{quote(done.id)}/pictures/{number}", label, remark) for number, label, remark in told]
    rows = [show_row(row) for row in query.rows if row.sighting.crop][:MOST_SHOWN]
    return [Shown(row.crop or "", f"camera {row.camera}, {_clock(row.time_text)}", row.remark) for row in rows]


def _facts(row: RowOut) -> list[tuple[str, str]]:
    left, top, width, height = row.box
    return [
        ("Camera", row.camera),
        ("Time", f"{_clock(row.time_text)} UTC"),
        ("Source", row.source),
        ("Frame", str(row.frame)),
        ("Box", f"{width} × {height} pixels at {left}, {top}"),
        ("Modality", row.modality),
        ("Quality", _percent(row.quality)),
        ("Tracklet", row.tracklet or "none"),
        ("Indexed by", f"{row.run or 'a run without a name'}, {row.runtime} {row.precision}"),
        ("Crop", row.id),
    ]


def _boxes(form: Values, pictures: int) -> list[list[int] | None]:
    """The one box of the form, for a single picture."""
    texts = [_text(form, name) for name in BOX]
    if not any(texts):
        return []
    if pictures != 1:
        raise ServiceError(f"box: there are {pictures} pictures; a box goes with a single one")
    if not all(texts):
        raise ServiceError("box: give left, top, width and height, or none of them")
    return [[round(_number(text, name)) for name, text in zip(BOX, texts, strict=True)]]


def _checked(made: type[M], /, **values: Any) -> M:
    try:
        return made(**values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ServiceError(f"{place}: {first['msg']}"[:400]) from None


def _text(values: Values, name: str) -> str:
    value = values.get(name)
    return value.strip() if isinstance(value, str) else ""


def _number(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ServiceError(f"{name}: {text[:40]!r} is no number; write e.g. 30") from None


def _moment(text: str) -> str:
    """What a browser's field for times holds, to the second."""
    return f"{text}:00" if len(text) == len("2026-11-21T20:00") else text


def _inside(address: str) -> str:
    """An address on this server; the search for any other."""
    inside = address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()
    return address if inside and "\\" not in address else "/"


def _status(error: TapetumError | None) -> int:
    return 200 if error is None else error.status if isinstance(error, ServiceError) else 400


def _when(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _span(start: float, seconds: float) -> str:
    end = _when(start) + timedelta(seconds=seconds)
    return f"{_when(start):%d %b %H:%M:%S} to {end:%H:%M:%S}"


def _moment_of(seconds: float) -> str:
    return _clock(format_time(seconds))


def _clock(text: str) -> str:
    return text.replace("T", " ").removesuffix("Z")


def _percent(share: float) -> str:
    return f"{100 * share:.0f}\u00a0%"  # never broken before its sign


def _sure(probability: float) -> str:
    """A probability as people read it; never "100 %" and never "0 %"."""
    return (
        ">\u00a099\u00a0%"
        if probability >= 0.995
        else "<\u00a01\u00a0%"
        if probability < 0.005
        else _percent(probability)
    )


def _rate(rate: float) -> str:
    whole = round(1 / rate)
    return f"1 in {whole:,} searches" if abs(whole * rate - 1) < 1e-6 else f"{100 * rate:g} % of searches"


def _far(job: Any) -> str:
    return f"{job.done:,} of {job.total:,} frames and pictures" if job.total else ""


@cache
def _pages() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tapetum.service", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., str]] = {
        "clock": _clock,
        "far": _far,
        "moment": _moment_of,
        "percent": _percent,
        "rate": _rate,
        "sure": _sure,
    }
    environment.filters |= filters
    return environment
