"""The page: what the API does, for people with a browser. Its essentials work without JavaScript.

A form that changes something is answered by a redirect, so that loading a page again does nothing twice.
"""

import json
import mimetypes
from dataclasses import dataclass
from importlib import resources
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from tapetum.core.errors import TapetumError
from tapetum.core.pixels import encode_jpeg
from tapetum.data.image_io import read_picture
from tapetum.footage.doubt import say_doubts
from tapetum.gallery.filters import write_filter
from tapetum.searching.enhance import enhance, name_enhancement
from tapetum.searching.find import SAID
from tapetum.service import api
from tapetum.service.api import Administrator, Client, Held, Indexer, Searcher
from tapetum.service.audit import AuditError, read_log
from tapetum.service.crops import crop_path
from tapetum.service.errors import NotFoundError, ServiceError
from tapetum.service.overview import browse, find_tracklet
from tapetum.service.page_form import SearchForm, asked_before, check_fields, read_asked, read_boxes, text_of
from tapetum.service.page_render import clock, percent, render
from tapetum.service.page_timeline import draw_line
from tapetum.service.schemas import (
    FindingsOut,
    LogIn,
    NewCase,
    NewJob,
    RowOut,
    RowSelection,
    SearchPictures,
    SearchRows,
    TimelineOut,
    show_row,
)
from tapetum.service.searches import Search
from tapetum.service.security import Principal
from tapetum.service.state import Service
from tapetum.service.uploads import find_pictures, read_form
from tapetum.service.users import Role

ROWS_A_PAGE = 48
MOST_SHOWN = 8  # pictures of a tracklet that somebody searched with
NAMED = 3  # ids of a list in the audit log
BRIEF = 100  # letters of a value there
LINES_SHOWN = 200  # of the audit log
JOBS_SHOWN = 50
STATIC = ("style.css", "page.js", "login.js", "drop.js", "timeline.js", "jobs.js", "icon.svg")
HEADINGS = {401: "Log in first", 403: "Not allowed", 404: "Not found", 413: "Too large", 429: "Too many requests"}

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@dataclass(frozen=True)
class QueryPicture:
    """A picture that somebody searched with.

    Attributes:
        address: where it is.
        label: its name.
        remark: what spoils it; empty where nothing does.
        doubt: why it may not show one person; empty where nothing says so.
    """

    address: str
    label: str
    remark: str
    doubt: str = ""


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
    onward, name = text_of(form, "next"), text_of(form, "name")
    try:
        asked = check_fields(LogIn, name=name, password=form.get("password") or "", token=text_of(form, "token"))
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
    return await _search_form(request, service, who, SearchForm(), tuple(row or ()))


@router.post("/search", response_model=None)
async def search(request: Request, service: Held, client: Client, who: Searcher) -> Response:
    """Search, and go to the results."""
    form = await read_form(request)
    asked = read_asked(form)
    rows = tuple(value for value in form.getlist("row") if isinstance(value, str))
    again = text_of(form, "search")
    try:
        if rows or again or text_of(form, "tracklet"):
            start = {"rows": list(rows), "search": again or None, "tracklet": text_of(form, "tracklet") or None}
            by_rows = check_fields(SearchRows, **start, **asked.options())
            done = await service.heavy.run(service.search_rows, who, client, by_rows)
        else:
            sent = find_pictures(form)
            by_pictures = check_fields(
                SearchPictures, modality=asked.told or None, boxes=read_boxes(form, len(sent)), **asked.options()
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
    asked = check_fields(
        NewCase,
        search=text_of(form, "search"),
        title=text_of(form, "title"),
        notes=text_of(form, "notes"),
        format=text_of(form, "format") or "html",
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
        rows=[show_row(row, service.name_source) for row in rows],
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
    """A crop, and its tracklet."""
    tracklet = await service.heavy.run(find_tracklet, service.store, row_id)
    rows = [show_row(row, service.name_source) for row in tracklet]
    row = next(each for each in rows if each.id == row_id)
    return render(
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
    """Remove a crop or its whole tracklet for good."""
    form = await read_form(request)
    if text_of(form, "sure") != "yes":
        raise ServiceError("delete: tick that you know that it cannot be undone")
    row_id, what = text_of(form, "row"), text_of(form, "what")
    rows = await service.heavy.run(find_tracklet, service.store, row_id)
    tracklet = rows[0].sighting.tracklet
    named: dict[str, Any] = {"tracklets": [tracklet]} if what == "tracklet" and tracklet else {"ids": [row_id]}
    removed = await service.heavy.run(service.delete, who, client, check_fields(RowSelection, **named).to_filter())
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
    path, start = text_of(form, "path"), text_of(form, "start")
    try:
        asked = check_fields(
            NewJob,
            path=path,
            kind=text_of(form, "kind") or None,
            camera=text_of(form, "camera") or None,
            start=f"{start}Z" if start else None,
            modality=text_of(form, "modality") or None,
            run=text_of(form, "run"),
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
    return render(request, "audit.html.j2", who=who, gallery=gallery, lines=lines)


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
    return render(request, "error.html.j2", status, who=who, heading=heading, message=message)


async def _door(
    request: Request, service: Service, onward: str, name: str = "", error: ServiceError | None = None
) -> Response:
    has_token = service.options.token is not None
    has_users = bool(await service.light.run(service.users.users))
    return render(
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
    asked: SearchForm,
    rows: tuple[str, ...],
    error: TapetumError | None = None,
) -> Response:
    found = await service.heavy.run(service.store.fetch_rows, list(rows)) if rows else []
    picked = [show_row(row, service.name_source) for row in found]
    if len(picked) < len(set(rows)):
        raise NotFoundError("a picked crop is no longer in the gallery; pick another one")
    return await _show_with_line(
        request, service, who, "search.html.j2", asked, status=_status(error), error=str(error or ""), picked=picked
    )


async def _results(
    request: Request,
    service: Service,
    who: Principal,
    done: Search,
    asked: SearchForm,
    error: TapetumError | None = None,
) -> Response:
    findings = api.show_search(done, service.name_source).queries[0]
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
        hard=done.findings[0].hard.say(findings.searched),
        words=SAID if findings.matches is not None else {"similarity": SAID["similarity"]},
        order="re-ranked"
        if done.options.rerank
        else "most similar first"
        if findings.matches is None
        else "best first",
        pictures=_searched(service, done),
    )


async def _footage(
    request: Request, service: Service, who: Principal, path: str, error: TapetumError | None = None
) -> Response:
    place = path.strip("/")
    found = await api.footage(service, who, "" if isinstance(error, ServiceError) and error.status == 403 else path)
    return render(
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
    request: Request,
    service: Service,
    who: Principal,
    template: str,
    asked: SearchForm,
    *,
    status: int = 200,
    **values: Any,
) -> Response:
    told: TimelineOut = await service.heavy.run(service.timeline.draw)
    return render(
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
        when = clock(str(line.get("time", "")).partition(".")[0])
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
    how = "all compared" if findings.exact else f"approximate, finds {percent(findings.recall or 0)} of the nearest"
    return f"{done.filter or 'The whole gallery'}: {findings.searched:,} crops, {how}, {findings.seconds:.2f} s"


def _searched(service: Service, done: Search) -> list[QueryPicture]:
    query = done.queries[0]
    remarks = query.remarks or ("",) * len(query.labels)
    if done.pictures[0]:
        doubts = query.doubts or ((),) * len(query.labels)
        told = zip(range(len(done.pictures[0])), query.labels, remarks, map(say_doubts, doubts), strict=False)
        return [QueryPicture(f"/results/{quote(done.id)}/pictures/{number}", *about) for number, *about in told]
    rows = [show_row(row, service.name_source) for row in query.rows if row.sighting.crop][:MOST_SHOWN]
    return [QueryPicture(row.crop or "", f"camera {row.camera}, {clock(row.time_text)}", row.remark) for row in rows]


def _facts(row: RowOut) -> list[tuple[str, str]]:
    left, top, width, height = row.box
    return [
        ("Camera", row.camera),
        ("Time", f"{clock(row.time_text)} UTC"),
        ("Source", row.source),
        ("Frame", str(row.frame)),
        ("Box", f"{width} × {height} pixels at {left}, {top}"),
        ("Modality", row.modality),
        ("Quality", percent(row.quality)),
        ("Tracklet", row.tracklet or "none"),
        ("Indexed by", f"{row.run or 'a run without a name'}, {row.runtime} {row.precision}"),
        ("Crop", row.id),
    ]


def _inside(address: str) -> str:
    """An address on this server; the search for any other."""
    inside = address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()
    return address if inside and "\\" not in address else "/"


def _status(error: TapetumError | None) -> int:
    return 200 if error is None else error.status if isinstance(error, ServiceError) else 400
