"""The API, below /api/v1. Everything but health, log-in and the API's own description needs a role."""

from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel
from starlette.datastructures import FormData

from tapetum.searching.question import RowSelection, check_fields
from tapetum.service import metrics as numbers
from tapetum.service.crops import send_crop
from tapetum.service.errors import ServiceError
from tapetum.service.jobs import Job
from tapetum.service.overview import browse, draw_timeline, find_row, find_tracklet
from tapetum.service.schemas import (
    BrowseOut,
    BrowseRows,
    DeleteOut,
    DeleteRows,
    ErrorOut,
    FootageEntry,
    FootageOut,
    GalleryOut,
    LogIn,
    LookAtPictures,
    LookedOut,
    NewCase,
    NewJob,
    RowOut,
    SearchOut,
    SearchPictures,
    SearchRows,
    StateOut,
    TimelineOut,
    TrackletOut,
    WhoOut,
    show_findings,
    show_row,
)
from tapetum.service.searches import Search, look_at
from tapetum.service.security import Principal, cookie_name, need
from tapetum.service.state import Service
from tapetum.service.uploads import MOST_PICTURES, find_pictures, read_form
from tapetum.service.users import Role

PREFIX = "/api/v1"
HEALTH = frozenset({f"{PREFIX}/health/live", f"{PREFIX}/health/ready"})
PUBLIC = HEALTH | {f"{PREFIX}/login", f"{PREFIX}/openapi.json"}
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
                            "maxItems": MOST_PICTURES,
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
    """The state of the server that got a request."""
    service: Service = request.app.state.service
    return service


def client_of(request: Request) -> str:
    """The client's address, as the log names it."""
    return request.client.host if request.client else "unknown"


Held = Annotated[Service, Depends(service_of)]
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
async def log_in(request: Request, response: Response, service: Held, client: Client, body: LogIn) -> WhoOut:
    """Start a session: a cookie, and the token to send with every change."""
    principal, session_id = await service.light.run(service.log_in, client, body)
    set_cookie(request, response, session_id)
    return show_principal(principal)


@router.post("/logout", tags=["session"], status_code=204)
async def log_out(request: Request, response: Response, service: Held, who: Searcher) -> None:
    """End the session."""
    name = cookie_name(request.url.scheme)
    session_id = request.cookies.get(name)
    if session_id and who.session:
        await service.light.run(service.log_out, who, session_id)
    response.delete_cookie(name, path="/", secure=request.url.scheme == "https", httponly=True, samesite="strict")


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
async def search_pictures(request: Request, service: Held, who: Searcher) -> SearchOut:
    """Search for the person on uploaded pictures, or on a box in them."""
    form = await read_form(request)
    uploads = find_pictures(form)
    done = await service.heavy.run(service.search_pictures, who, read_options(SearchPictures, form), uploads)
    return show_search(service, done)


@router.post("/pictures", tags=["search"], openapi_extra=UPLOAD)
async def look_at_pictures(request: Request, service: Held, _: Searcher) -> LookedOut:
    """Say what is wrong with pictures before anybody searches with them; nothing is kept."""
    form = await read_form(request)
    boxes = read_options(LookAtPictures, form).boxes
    return LookedOut(pictures=await service.heavy.run(look_at, find_pictures(form), boxes))


@router.post("/search", tags=["search"])
async def search(service: Held, who: Searcher, body: SearchRows) -> SearchOut:
    """Search for the person on rows of the gallery or on a tracklet, or repeat a search with other options."""
    return show_search(service, await service.heavy.run(service.search_rows, who, body))


@router.post("/case", tags=["search"], response_class=Response)
async def case(service: Held, who: Searcher, body: NewCase) -> Response:
    """A search as one self-contained file: a page, or a ZIP with the page, its data and its pictures."""
    content, kind = await service.heavy.run(service.export_case, who, body)
    name = f'attachment; filename="case-{body.search[:40]}.{body.format}"'
    return Response(content, media_type=kind, headers={"content-disposition": name})


@router.post("/browse", tags=["gallery"])
async def browse_rows(service: Held, _: Searcher, body: BrowseRows) -> BrowseOut:
    """Rows that pass a filter, in the order of time."""
    total, rows = await service.heavy.run(browse, service.store, body.where.to_filter(), body.offset, body.limit)
    return BrowseOut(total=total, offset=body.offset, rows=[show_row(row, service.name_source) for row in rows])


@router.post("/timeline", tags=["gallery"])
async def timeline(
    service: Held, _: Searcher, body: RowSelection, bins: Annotated[int, Query(ge=1, le=500)] = 48
) -> TimelineOut:
    """When which camera saw somebody."""
    return await service.heavy.run(draw_timeline, service.store, body.to_filter(), bins)


@router.get("/rows/{row_id}", tags=["gallery"])
async def row(service: Held, _: Searcher, row_id: str) -> RowOut:
    """One row."""
    return show_row(await service.heavy.run(find_row, service.store, row_id), service.name_source)


@router.get("/rows/{row_id}/tracklet", tags=["gallery"])
async def tracklet(service: Held, _: Searcher, row_id: str) -> TrackletOut:
    """All rows of the tracklet that a row belongs to, by time."""
    rows = await service.heavy.run(find_tracklet, service.store, row_id)
    return TrackletOut(tracklet=rows[0].sighting.tracklet, rows=[show_row(each, service.name_source) for each in rows])


@router.get("/rows/{row_id}/crop", tags=["gallery"], response_class=Response)
async def crop(service: Held, _: Searcher, row_id: str) -> Response:
    """The picture of a row."""
    content, kind = await service.light.run(send_crop, service.store, row_id)
    return Response(content, media_type=kind)


@router.post("/delete", tags=["gallery"])
async def delete(service: Held, who: Administrator, body: DeleteRows) -> DeleteOut:
    """Remove rows, their vectors and their pictures for good."""
    rows = body.where.to_filter()
    count = await service.heavy.run(service.delete, who, rows, dry_run=body.dry_run)
    return DeleteOut(rows=count, dry_run=body.dry_run)


@router.get("/footage", tags=["jobs"])
async def footage(service: Held, _: Indexer, path: Annotated[str, Query(max_length=4096)] = "") -> FootageOut:
    """What an index job may read, below the roots that the server was started with."""
    entries = await service.light.run(service.jobs.look, path)
    return FootageOut(
        path=path.strip("/"), entries=[FootageEntry(path=each, folder=folder) for each, folder in entries]
    )


@router.post("/jobs", tags=["jobs"], status_code=201)
async def add_job(service: Held, who: Indexer, body: NewJob) -> Job:
    """Index footage, in the background."""
    return await service.light.run(service.add_job, who, body)


@router.get("/jobs", tags=["jobs"])
async def jobs(service: Held, _: Indexer, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> list[Job]:
    """Index jobs, the newest first."""
    return service.jobs.newest_first()[:limit]


@router.get("/jobs/{job_id}", tags=["jobs"])
async def job(service: Held, _: Indexer, job_id: str) -> Job:
    """How far a job is."""
    return service.jobs.find(job_id)


@router.post("/jobs/{job_id}/{step}", tags=["jobs"])
async def change_job(service: Held, who: Indexer, job_id: str, step: Literal["cancel", "resume"]) -> Job:
    """End a job after the batch at hand, or do it again where it was left."""
    return await service.light.run(service.change_job, who, job_id, step)


def read_options(kind: type[M], form: FormData) -> M:
    """What a form carries as JSON in its field "options"; the defaults where there is none.

    Raises:
        TapetumError: it is something else.
    """
    text = form.get("options")
    if text is not None and not isinstance(text, str):
        raise ServiceError("options: is a file; send JSON as text")
    return kind() if text is None else check_fields(kind, text, "options")


def set_cookie(request: Request, response: Response, session_id: str) -> None:
    """Give a browser its session, over TLS for TLS only; the server knows when it ends, so that it can say so."""
    name = cookie_name(request.url.scheme)
    secure = request.url.scheme == "https"
    response.set_cookie(name, session_id, path="/", secure=secure, httponly=True, samesite="strict")


def show_principal(who: Principal) -> WhoOut:
    """Who is asking, as the API gives it."""
    expires = who.session.expires if who.session else None
    return WhoOut(name=who.name, role=who.role.label, by=who.by, csrf=who.csrf, expires=expires)


def show_search(service: Service, done: Search) -> SearchOut:
    """A search as the API gives it."""
    queries = zip(done.queries, done.findings, strict=True)
    return SearchOut(
        search=done.id,
        filter=done.filter,
        queries=[show_findings(query, findings, service.name_source) for query, findings in queries],
    )
