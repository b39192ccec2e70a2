"""The API, below /api/v1. Everything but health, log-in and the API's own description needs a role."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ValidationError

from tapetum.service import metrics as numbers
from tapetum.service.crops import read_crop
from tapetum.service.errors import NotFoundError, ServiceError
from tapetum.service.overview import browse, draw_timeline, find_tracklet
from tapetum.service.schemas import (
    BrowseOut,
    BrowseRows,
    DeleteOut,
    DeleteRows,
    ErrorOut,
    FindingsOut,
    FootageEntry,
    FootageOut,
    FoundOut,
    GalleryOut,
    HardOut,
    JobOut,
    LogIn,
    LookAtPictures,
    LookedOut,
    NewCase,
    NewJob,
    RowOut,
    RowSelection,
    SearchOut,
    SearchPictures,
    SearchRows,
    StateOut,
    TimelineOut,
    TrackletOut,
    WhoOut,
    show_row,
)
from tapetum.service.searches import Search, look_at
from tapetum.service.security import Principal, cookie_name, need
from tapetum.service.state import Service
from tapetum.service.uploads import find_pictures, read_form
from tapetum.service.users import Role

PREFIX = "/api/v1"
PUBLIC = frozenset(f"{PREFIX}/{name}" for name in ("health/live", "health/ready", "login", "openapi.json"))
REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorOut, "description": "Refused; `error` says why."},
    "5XX": {"model": ErrorOut, "description": "Not possible now."},
}
UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["pictures"],
                    "properties": {
                        "pictures": {
                            "type": "array",
                            "minItems": 1,
                            "maxItems": 16,
                            "items": {"type": "string", "format": "binary"},
                            "description": "JPEG, PNG, WebP, BMP or TIFF",
                        },
                        "options": {"type": "string", "description": "JSON of `SearchPictures`"},
                    },
                }
            }
        },
    }
}
router = APIRouter(prefix=PREFIX, responses=REFUSALS)
M = TypeVar("M", bound=BaseModel)
Searcher = Annotated[Principal, Depends(need(Role.SEARCH))]
Indexer = Annotated[Principal, Depends(need(Role.INDEX))]
Administrator = Annotated[Principal, Depends(need(Role.ADMINISTER))]


def service_of(request: Request) -> Service:
    """The state of the server that got a request.

    Args:
        request: any.
    """
    service: Service = request.app.state.service
    return service


Held = Annotated[Service, Depends(service_of)]


def client_of(request: Request) -> str:
    """The client's address, as the log names it.

    Args:
        request: any.
    """
    return request.client.host if request.client else "unknown"


Client = Annotated[str, Depends(client_of)]


@router.get("/health/live", tags=["health"])
async def live() -> StateOut:
    """The process answers."""
    return StateOut(status="alive")


@router.get("/health/ready", tags=["health"])
async def ready(service: Held) -> StateOut:
    """The gallery answers."""
    await service.light.run(service.check_ready)
    return StateOut(status="ready")


@router.get("/metrics", tags=["health"], response_class=Response)
async def metrics(service: Held, _: Administrator) -> Response:
    """Numbers for Prometheus, as text."""
    pending = service.heavy.pending + service.light.pending
    text = await service.light.run(service.metrics.show, pending, service.jobs.counts(), service.store.count)
    return Response(text, media_type=numbers.CONTENT_TYPE)


@router.post("/login", tags=["session"])
async def log_in(request: Request, response: Response, service: Held, client: Client, asked: LogIn) -> WhoOut:
    """Start a session: a cookie, and the token to send with every change."""
    principal, session_id = await start_session(service, client, asked)
    set_cookie(request, response, session_id)
    return show_principal(principal)


@router.post("/logout", tags=["session"], status_code=204)
async def log_out(request: Request, response: Response, service: Held, client: Client, who: Searcher) -> None:
    """End the session."""
    await end_session(request, response, service, client, who)


@router.get("/session", tags=["session"])
async def whoami(who: Searcher) -> WhoOut:
    """Who is asking, and what they may do."""
    return show_principal(who)


@router.get("/gallery", tags=["gallery"])
async def gallery(service: Held, _: Searcher) -> GalleryOut:
    """The gallery and its model."""
    return GalleryOut(
        rows=await service.heavy.run(service.store.count),
        model=service.store.info.id,
        dimension=service.store.info.dimension,
        description=service.store.info.description,
        method=service.model.settings.method,
        runtime=service.model.runtime,
        precision=service.model.precision,
        calibrated=sorted(service.calibration.pairs) if service.calibration else [],
        rates=list(service.calibration.rates) if service.calibration else [],
    )


@router.post("/search/pictures", tags=["search"], openapi_extra=UPLOAD)
async def search_pictures(request: Request, service: Held, client: Client, who: Searcher) -> SearchOut:
    """Search for the person on uploaded pictures, or on a box in them."""
    form = await read_form(request)
    sent = find_pictures(form)
    asked = read_model(SearchPictures, form.get("options"), "options")
    search = await service.heavy.run(service.search_pictures, who, client, asked, sent)
    return show_search(search, service.name_source)


@router.post("/pictures", tags=["search"], openapi_extra=UPLOAD)
async def look_at_pictures(request: Request, service: Held, _: Searcher) -> LookedOut:
    """Say what is wrong with pictures before anybody searches with them; nothing is kept."""
    form = await read_form(request)
    asked = read_model(LookAtPictures, form.get("options"), "options")
    return LookedOut(pictures=await service.heavy.run(look_at, find_pictures(form), asked.boxes))


@router.post("/search", tags=["search"])
async def search(service: Held, client: Client, who: Searcher, asked: SearchRows) -> SearchOut:
    """Search for the person on rows of the gallery or on a tracklet, or repeat a search with other options."""
    done = await service.heavy.run(service.search_rows, who, client, asked)
    return show_search(done, service.name_source)


@router.post("/case", tags=["search"], response_class=Response)
async def case(service: Held, client: Client, who: Searcher, asked: NewCase) -> Response:
    """A search as one self-contained file: a page, or a ZIP with the page, its data and its pictures."""
    content, kind = await service.heavy.run(service.export_case, who, client, asked)
    name = f'attachment; filename="case-{asked.search[:40]}.{asked.format}"'
    return Response(content, media_type=kind, headers={"content-disposition": name})


@router.post("/browse", tags=["gallery"])
async def browse_rows(service: Held, _: Searcher, asked: BrowseRows) -> BrowseOut:
    """Rows that pass a filter, in the order of time."""
    total, rows = await service.heavy.run(browse, service.store, asked.where.to_filter(), asked.offset, asked.limit)
    return BrowseOut(total=total, offset=asked.offset, rows=[show_row(row, service.name_source) for row in rows])


@router.post("/timeline", tags=["gallery"])
async def timeline(
    service: Held, _: Searcher, asked: RowSelection, bins: Annotated[int, Query(ge=1, le=500)] = 48
) -> TimelineOut:
    """When which camera saw somebody."""
    return await service.heavy.run(draw_timeline, service.store, asked.to_filter(), bins)


@router.get("/rows/{row_id}", tags=["gallery"])
async def row(service: Held, _: Searcher, row_id: str) -> RowOut:
    """One row."""
    rows = await service.heavy.run(service.store.fetch_rows, [row_id])
    if not rows:
        raise NotFoundError(f"row {row_id[:200]!r}: there is none")
    return show_row(rows[0], service.name_source)


@router.get("/rows/{row_id}/tracklet", tags=["gallery"])
async def tracklet(service: Held, _: Searcher, row_id: str) -> TrackletOut:
    """All rows of the tracklet that a row belongs to, by time."""
    rows = await service.heavy.run(find_tracklet, service.store, row_id)
    return TrackletOut(tracklet=rows[0].sighting.tracklet, rows=[show_row(each, service.name_source) for each in rows])


@router.get("/rows/{row_id}/crop", tags=["gallery"], response_class=Response)
async def crop(service: Held, _: Searcher, row_id: str) -> Response:
    """The picture of a row."""
    content, kind = await service.light.run(read_crop, service.store, row_id)
    return Response(content, media_type=kind)


@router.post("/delete", tags=["gallery"])
async def delete(service: Held, client: Client, who: Administrator, asked: DeleteRows) -> DeleteOut:
    """Remove rows, their vectors and their pictures for good."""
    chosen = asked.where.to_filter()
    removed = await service.heavy.run(service.delete, who, client, chosen, dry_run=asked.dry_run)
    return DeleteOut(rows=removed, dry_run=asked.dry_run)


@router.get("/footage", tags=["jobs"])
async def footage(service: Held, _: Indexer, path: Annotated[str, Query(max_length=4096)] = "") -> FootageOut:
    """What an index job may read, below the roots that the server was started with."""
    entries = await service.light.run(service.jobs.look, path)
    shown = [FootageEntry(path=each, folder=folder) for each, folder in entries]
    return FootageOut(path=path.strip("/"), entries=shown)


@router.post("/jobs", tags=["jobs"], status_code=201)
async def add_job(service: Held, who: Indexer, asked: NewJob) -> JobOut:
    """Index footage, in the background."""
    settings = asked.model_dump(mode="json", exclude={"path"}, exclude_defaults=True)
    job = await service.light.run(service.add_job, who, asked.path, settings)
    return JobOut(**vars(job))


@router.get("/jobs", tags=["jobs"])
async def jobs(service: Held, _: Indexer, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> list[JobOut]:
    """Index jobs, the newest first."""
    return [JobOut(**vars(job)) for job in service.jobs.newest_first()[:limit]]


@router.get("/jobs/{job_id}", tags=["jobs"])
async def job(service: Held, _: Indexer, job_id: str) -> JobOut:
    """How far a job is."""
    return JobOut(**vars(service.jobs.find(job_id)))


@router.post("/jobs/{job_id}/{step}", tags=["jobs"])
async def change_job(service: Held, who: Indexer, job_id: str, step: Literal["cancel", "resume"]) -> JobOut:
    """End a job after the batch at hand, or do it again where it was left."""
    return JobOut(**vars(await service.light.run(service.change_job, who, job_id, step)))


def read_model(kind: type[M], text: Any, what: str) -> M:
    """What a form carries as JSON, checked.

    Args:
        kind: what it shall be.
        text: the field; None takes the defaults.
        what: its name, for the message.
    Raises:
        ServiceError: it is something else.
    """
    if text is None:
        return kind()
    if not isinstance(text, str):
        raise ServiceError(f"{what}: is a file; send JSON as text")
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in (what, *first["loc"]))
        raise ServiceError(f"{place}: {first['msg']}"[:400]) from None


async def start_session(service: Service, client: str, asked: LogIn) -> tuple[Principal, str]:
    """Log somebody in, and write it down.

    Args:
        service: of the server.
        client: address.
        asked: name and password, or token.
    Returns:
        Who it is, and the session's id for the cookie.
    Raises:
        SignInError: something is wrong.
        RateError: too many attempts.
    """
    return await service.light.run(service.log_in, client, asked)


async def end_session(request: Request, response: Response, service: Service, client: str, who: Principal) -> None:
    """Log somebody out, and write it down.

    Args:
        request: theirs.
        response: takes the cookie away.
        service: of the server.
        client: address.
        who: they are.
    """
    name = cookie_name(request.url.scheme)
    session_id = request.cookies.get(name)
    if session_id and who.session:
        service.security.log_out(session_id)
        await service.light.run(service.audit.write, "logout", who.name, by=who.by, address=client)
    response.delete_cookie(name, path="/", secure=request.url.scheme == "https", httponly=True, samesite="strict")


def set_cookie(request: Request, response: Response, session_id: str) -> None:
    """Give a browser its session; the server knows when it ends, so that it can say so.

    Args:
        request: theirs; over TLS the cookie is for TLS only.
        response: carries the cookie.
        session_id: of the session.
    """
    name = cookie_name(request.url.scheme)
    secure = request.url.scheme == "https"
    response.set_cookie(name, session_id, path="/", secure=secure, httponly=True, samesite="strict")


def show_principal(who: Principal) -> WhoOut:
    """Who is asking, as the API gives it.

    Args:
        who: they are.
    """
    return WhoOut(
        name=who.name,
        role=who.role.label,
        by=who.by,
        csrf=who.csrf,
        expires=who.session.expires if who.session else None,
    )


def show_search(done: Search, name: Callable[[str], str]) -> SearchOut:
    """A search as the API gives it.

    Args:
        done: the search.
        name: of a source, as clients know it.
    """
    return SearchOut(
        search=done.id,
        filter=done.filter,
        queries=[
            FindingsOut(
                labels=list(query.labels),
                remarks=list(query.remarks),
                doubts=[list(each) for each in query.doubts],
                verdict=findings.verdict,
                matches=findings.matches,
                exact=findings.exact,
                recall=findings.recall,
                searched=findings.searched,
                hard=HardOut(rows=findings.hard.rows, why=dict(findings.hard.why)),
                seconds=findings.seconds,
                found=[
                    FoundOut(
                        rank=found.rank,
                        row=show_row(found.row, name),
                        similarity=found.similarity,
                        probability=found.probability,
                        accepted=found.accepted,
                        members=[show_row(each, name) for each in found.rows],
                    )
                    for found in findings.found
                ],
            )
            for query, findings in zip(done.queries, done.findings, strict=True)
        ],
    )
