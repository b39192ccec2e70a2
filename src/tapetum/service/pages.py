"""The page: what the API does, for people with a browser. Its essentials work without JavaScript.

A form that changes something is answered by a redirect, so that loading a page again does nothing twice.
"""

import json
import mimetypes
from importlib import resources
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from tapetum.core.errors import TapetumError
from tapetum.core.pixels import encode_jpeg
from tapetum.data.image_io import read_picture
from tapetum.footage.doubt import say_doubts
from tapetum.gallery.filters import write_filter
from tapetum.searching.enhance import enhance, name_enhancement
from tapetum.searching.find import SAID, say_recall
from tapetum.searching.question import RowSelection, check_fields
from tapetum.service import api
from tapetum.service.api import Administrator, Client, Held, Indexer, Searcher
from tapetum.service.audit import AuditError, read_log
from tapetum.service.crops import find_crop
from tapetum.service.errors import ForbiddenError, NotFoundError, ServiceError
from tapetum.service.overview import browse, find_tracklet
from tapetum.service.page_form import (
    SearchForm,
    form_of,
    is_changed,
    read_boxes,
    read_search_form,
    search_options,
    selected_rows,
    text_of,
)
from tapetum.service.page_render import clock, percent, render
from tapetum.service.page_timeline import draw_line
from tapetum.service.schemas import FindingsOut, LogIn, NewCase, NewJob, RowOut, SearchPictures, SearchRows, show_row
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


class QueryPicture(NamedTuple):
    """A picture that somebody searched with."""

    address: str
    label: str
    remark: str  # what spoils it; empty where nothing does
    doubt: str = ""  # why it may not show one person; empty where nothing says so


@router.get("/static/{name}")
async def static(name: str) -> Response:
    """Style and scripts."""
    if name not in STATIC:
        raise NotFoundError(f"static/{name[:40]}: there is no such file")
    content = resources.files("tapetum.service").joinpath("static", name).read_bytes()
    return Response(content, media_type=mimetypes.guess_type(name)[0])


@router.get("/login")
async def login_page(
    request: Request, service: Held, onward: Annotated[str, Query(alias="next", max_length=4096)] = "/"
) -> Response:
    """The form to log in."""
    return await _door(request, service, onward)


@router.post("/login")
async def log_in(request: Request, service: Held, client: Client) -> Response:
    """Start a session."""
    form = await read_form(request)
    onward, name = text_of(form, "next"), text_of(form, "name")
    try:
        fields = {"name": name, "password": form.get("password") or "", "token": text_of(form, "token")}
        _, session_id = await service.light.run(service.log_in, client, check_fields(LogIn, fields))
    except TapetumError as error:
        return await _door(request, service, onward, name, error)
    response = RedirectResponse(_inside(onward), 303)
    api.set_cookie(request, response, session_id)
    return response


@router.post("/logout")
async def log_out(request: Request, service: Held, who: Searcher) -> Response:
    """End the session."""
    response = RedirectResponse("/login", 303)
    await api.log_out(request, response, service, who)
    return response


@router.get("/")
async def search_page(
    request: Request, service: Held, who: Searcher, row: Annotated[list[str] | None, Query(max_length=100)] = None
) -> Response:
    """The form to search; with rows, their person is searched for."""
    return await _search_form(request, service, who, read_search_form(), row or [])


@router.post("/search")
async def search(request: Request, service: Held, who: Searcher) -> Response:
    """Search, and go to the results."""
    content = await read_form(request)
    form = read_search_form(content)
    rows = [value for value in content.getlist("row") if isinstance(value, str)]
    again, tracklet = text_of(content, "search"), text_of(content, "tracklet")
    try:
        if rows or again or tracklet:
            start = {"rows": rows, "search": again or None, "tracklet": tracklet or None}
            by_rows = check_fields(SearchRows, start | search_options(form))
            done = await service.heavy.run(service.search_rows, who, by_rows)
        else:
            uploads = find_pictures(content)
            pictures = {"modality": form["told"] or None, "boxes": read_boxes(content, len(uploads))}
            by_pictures = check_fields(SearchPictures, pictures | search_options(form))
            done = await service.heavy.run(service.search_pictures, who, by_pictures, uploads)
    except NotFoundError:
        raise
    except TapetumError as error:
        if again:
            before = await service.light.run(service.searches.find, again, who.name)
            return await _results(request, service, who, before, form, error)
        return await _search_form(request, service, who, form, rows, error)
    return RedirectResponse(f"/results/{quote(done.id)}", 303)


@router.get("/results/{search_id}")
async def results(request: Request, service: Held, who: Searcher, search_id: str) -> Response:
    """What a search found."""
    done = await service.light.run(service.searches.find, search_id, who.name)
    return await _results(request, service, who, done, form_of(done.options))


@router.get("/results/{search_id}/pictures/{number}")
async def searched_picture(service: Held, who: Searcher, search_id: str, number: int) -> Response:
    """A picture that was uploaded for a search."""
    done = await service.light.run(service.searches.find, search_id, who.name)
    pictures = [picture for each in done.pictures for picture in each]
    if not 0 <= number < len(pictures):
        raise NotFoundError(f"picture {number}: the search has {len(pictures)}")
    return Response(pictures[number], media_type="image/jpeg")


@router.post("/case")
async def export(request: Request, service: Held, who: Searcher) -> Response:
    """A search as one file to keep."""
    form = await read_form(request)
    fields = {name: text_of(form, name) for name in ("search", "title", "notes")}
    case = check_fields(NewCase, fields | {"format": text_of(form, "format") or "html"})
    return await api.case(service, who, case)


@router.get("/browse")
async def browse_page(
    request: Request,
    service: Held,
    who: Searcher,
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
    deleted: Annotated[int | None, Query(ge=0)] = None,
) -> Response:
    """Rows in the order of time."""
    form = read_search_form(request.query_params)
    failure: TapetumError | None = None
    try:
        selection = selected_rows(form).to_filter()
    except TapetumError as error:
        failure, selection = error, None
    total, rows = await service.heavy.run(browse, service.store, selection, offset, ROWS_A_PAGE)
    keep = [(name, value) for name, value in request.query_params.multi_items() if name not in ("offset", "deleted")]

    def page(start: int) -> str:
        return f"/browse?{urlencode([*keep, ('offset', str(start))])}"

    return await _show_with_line(
        request,
        service,
        who,
        "browse.html.j2",
        form,
        failure,
        rows=[show_row(row, service.name_source) for row in rows],
        total=total,
        offset=offset,
        filter=write_filter(selection),
        filtered=selection is not None,
        before=page(max(0, offset - ROWS_A_PAGE)) if offset else "",
        after=page(offset + ROWS_A_PAGE) if offset + len(rows) < total else "",
        notice="" if deleted is None else f"{deleted} {'crop was' if deleted == 1 else 'crops were'} deleted for good.",
    )


@router.get("/sightings/{row_id}")
async def sighting(request: Request, service: Held, who: Searcher, row_id: str) -> Response:
    """A crop, and its tracklet."""
    tracklet = await service.heavy.run(find_tracklet, service.store, row_id)
    rows = [show_row(row, service.name_source) for row in tracklet]
    row = next(each for each in rows if each.id == row_id)
    return render(
        request,
        "sighting.html.j2",
        who,
        gallery=await api.gallery(service, who),
        row=row,
        rows=rows,
        facts=_facts(row),
        enhanced_by=name_enhancement(service.model),
        may_delete=who.role >= Role.ADMINISTER,
    )


@router.get("/sightings/{row_id}/enhanced")
async def enhanced(service: Held, _: Searcher, row_id: str) -> Response:
    """A crop as the model's own enhancement sees it, or plainly brightened; the page of the crop says which."""

    def make() -> bytes:
        _, path = find_crop(service.store, row_id)
        return encode_jpeg(enhance(service.model, read_picture(path)), 90)

    return Response(await service.heavy.run(make), media_type="image/jpeg")


@router.post("/delete")
async def delete(request: Request, service: Held, who: Administrator) -> Response:
    """Remove a crop or its whole tracklet for good."""
    form = await read_form(request)
    if text_of(form, "sure") != "yes":
        raise ServiceError("delete: tick that you know that it cannot be undone")
    row_id, what = text_of(form, "row"), text_of(form, "what")
    rows = await service.heavy.run(find_tracklet, service.store, row_id)
    tracklet = rows[0].sighting.tracklet
    fields = {"tracklets": [tracklet]} if what == "tracklet" and tracklet else {"ids": [row_id]}
    count = await service.heavy.run(service.delete, who, check_fields(RowSelection, fields).to_filter())
    return RedirectResponse(f"/browse?deleted={count}", 303)


@router.get("/footage")
async def footage_page(
    request: Request, service: Held, who: Indexer, path: Annotated[str, Query(max_length=4096)] = ""
) -> Response:
    """What can be indexed, and the jobs that do it."""
    return await _footage(request, service, who, path)


@router.post("/jobs")
async def add_job(request: Request, service: Held, who: Indexer) -> Response:
    """Index footage, in the background."""
    form = await read_form(request)
    path, start = text_of(form, "path"), text_of(form, "start")
    fields = {name: text_of(form, name) or None for name in ("kind", "camera", "modality")}
    more = {"path": path, "start": f"{start}Z" if start else None, "run": text_of(form, "run")}
    try:
        await api.add_job(service, who, check_fields(NewJob, fields | more))
    except NotFoundError:
        raise
    except TapetumError as error:
        return await _footage(request, service, who, path, error)
    return RedirectResponse("/footage#jobs", 303)


@router.post("/jobs/{job_id}/{step}")
async def change_job(service: Held, who: Indexer, job_id: str, step: Literal["cancel", "resume"]) -> Response:
    """End a job after the batch at hand, or go on with it."""
    await api.change_job(service, who, job_id, step)
    return RedirectResponse("/footage#jobs", 303)


@router.get("/audit")
async def audit(request: Request, service: Held, who: Administrator) -> Response:
    """The last lines of the audit log."""
    lines = await service.light.run(_last_lines, service)
    return render(request, "audit.html.j2", who, gallery=await api.gallery(service, who), lines=lines)


def show_error(request: Request, status: int, message: str) -> Response:
    """A refused request as a page; whoever only has to log in is shown the way."""
    if status == 401 and request.method == "GET":
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse("/login" if here == "/" else f"/login?next={quote(here, safe='')}", 303)
    who: Principal | None = getattr(request.state, "principal", None)
    heading = HEADINGS.get(status, "That did not work")
    page = render(request, "error.html.j2", who, heading=heading, message=message)
    page.status_code = status
    return page


async def _door(
    request: Request, service: Service, onward: str, name: str = "", error: TapetumError | None = None
) -> Response:
    has_token = service.options.token is not None
    has_users = bool(await service.light.run(service.users.users))
    return render(
        request,
        "login.html.j2",
        error=error,
        name=name,
        next=_inside(onward),
        by_token=has_token,
        by_name=has_users or not has_token,
    )


async def _search_form(
    request: Request,
    service: Service,
    who: Principal,
    form: SearchForm,
    rows: list[str],
    error: TapetumError | None = None,
) -> Response:
    entries = await service.heavy.run(service.store.fetch_rows, rows) if rows else []
    views = [show_row(row, service.name_source) for row in entries]
    if len(views) < len(set(rows)):
        raise NotFoundError("a picked crop is no longer in the gallery; pick another one")
    return await _show_with_line(request, service, who, "search.html.j2", form, error, picked=views)


async def _results(
    request: Request,
    service: Service,
    who: Principal,
    done: Search,
    form: SearchForm,
    error: TapetumError | None = None,
) -> Response:
    findings = api.show_search(service, done).queries[0]
    best = "best first" if findings.matches is not None else "most similar first"
    how = "all compared" if findings.exact else f"approximate, {say_recall(findings.recall)}"
    kind, headline = _headline(findings)
    return await _show_with_line(
        request,
        service,
        who,
        "results.html.j2",
        form,
        error,
        search=done.id,
        findings=findings,
        kind=kind,
        headline=headline,
        looked=f"{done.filter or 'The whole gallery'}: {findings.searched:,} crops, {how}, {findings.seconds:.2f} s",
        hard=done.findings[0].hard.say(findings.searched),
        words=SAID if findings.matches is not None else {"similarity": SAID["similarity"]},
        order="re-ranked" if done.options.rerank else best,
        pictures=_searched(service, done),
    )


async def _footage(
    request: Request, service: Service, who: Principal, path: str, error: TapetumError | None = None
) -> Response:
    place = path.strip("/")
    below = await api.footage(service, who, "" if isinstance(error, ForbiddenError) else path)
    return render(
        request,
        "jobs.html.j2",
        who,
        error,
        gallery=await api.gallery(service, who),
        path=place,
        above=f"?{urlencode({'path': place.rpartition('/')[0]})}" if "/" in place else "",
        entries=[entry for entry in below.entries if entry.path != place],
        roots=list(service.jobs.roots),
        jobs=await api.jobs(service, who, JOBS_SHOWN),
    )


async def _show_with_line(
    request: Request,
    service: Service,
    who: Principal,
    template: str,
    form: SearchForm,
    error: TapetumError | None,
    **values: Any,
) -> Response:
    timeline = await service.heavy.run(service.timeline.draw)
    return render(
        request,
        template,
        who,
        error,
        gallery=await api.gallery(service, who),
        cameras=timeline.cameras,
        line=draw_line(timeline, form),
        asked=form,
        changed=is_changed(form),
        **values,
    )


def _last_lines(service: Service) -> list[dict[str, str]]:
    try:
        lines = list(read_log(service.audit.path, LINES_SHOWN))
    except AuditError:
        return []
    rows = []
    for line in reversed(lines):
        more = "; ".join(
            f"{name} {_brief(value)}"
            for name, value in line.items()
            if name not in ("time", "who", "action", "before") and value not in (None, "", [], {})
        )
        when = clock(str(line.get("time", "")).partition(".")[0])
        rows.append({"time": when, "who": line.get("who", ""), "action": line.get("action", ""), "more": more})
    return rows


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
    words = "1 match" if findings.matches == 1 else f"{findings.matches} matches"
    return "match", f"{words}, by a guess" if findings.guess else words


def _searched(service: Service, done: Search) -> list[QueryPicture]:
    query = done.queries[0]
    if done.pictures[0]:
        about = zip(range(len(done.pictures[0])), query.labels, query.remarks, query.doubts, strict=False)
        return [
            QueryPicture(f"/results/{quote(done.id)}/pictures/{number}", label, remark, say_doubts(doubts))
            for number, label, remark, doubts in about
        ]
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
