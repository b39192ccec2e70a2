"""The web application: one gate before everything (host, origin, who is asking, how much), then API and pages."""

import asyncio
import errno
import logging
import math
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import tapetum
from tapetum.core.errors import TapetumError
from tapetum.service import api, pages
from tapetum.service.errors import ForbiddenError, HostError, ServiceError, SignInError, TooLargeError, status_of
from tapetum.service.security import SAFE, cookie_name
from tapetum.service.state import Service
from tapetum.service.uploads import FORM, MOST_BODY_BYTES, MOST_UPLOAD_BYTES, content_type

log = logging.getLogger(__name__)
API = "/api/"
SERVICE = "tapetum.service"  # in a request's scope
BODY_SECONDS = 60.0  # between two parts of a body
WHOLE_BODY_SECONDS = 600.0
HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with none at all browsers send forms with the origin "null"
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
METHODS = frozenset({"GET", "HEAD", "POST"})
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


def create_app(service: Service) -> FastAPI:
    """The application of a server, whose state is started and closed with it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            await asyncio.to_thread(service.close)

    app = FastAPI(
        title="Tapetum",
        version=tapetum.__version__,
        description="Search for a person in a gallery of night footage.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # its page loads scripts from another host
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    app.include_router(api.router)
    app.include_router(pages.router)
    for kind in (TapetumError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, refuse)
    app.add_middleware(Gate, service=service)
    return app


class Gate:
    """What every request passes before anything of its body is read; ASGI middleware."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return  # no web sockets here
        start = time.perf_counter()
        scope[SERVICE] = self.service
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                is_static = scope["path"].startswith("/static/") and status < 400
                headers.setdefault("cache-control", "max-age=600" if is_static else "no-store")
                if scope["scheme"] == "https":
                    headers.setdefault("strict-transport-security", "max-age=31536000")
            await send(message)

        request = Request(scope, receive)
        try:
            try:
                self._admit(request)
                await self.app(scope, self._limit(request, receive), answer)
            except Exception as error:
                response = await refuse(request, error)
                if status == 500:  # nothing was sent yet
                    await response(scope, receive, answer)
        finally:
            if FORM in scope:
                await scope[FORM].close()
            path = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in METHODS else "other"  # clients may call it anything
            self.service.metrics.requests.labels(method, path, str(status)).inc()
            self.service.metrics.seconds.labels(path).observe(time.perf_counter() - start)

    def _admit(self, request: Request) -> None:
        """Tell who is asking; refuse a wrong host, another site's request, and too many."""
        path = request.scope["path"]
        host = _host_of(request.headers.get("host", ""))
        if host not in self.service.options.hosts and path not in api.HEALTH:  # supervisors call by address
            raise HostError(f"host {host[:100]!r}: not a name of this server; start it with --public-name {host[:100]}")
        if request.method not in SAFE:
            _check_origin(request.headers, self.service.options.hosts)
        address = api.client_of(request)
        principal, refusal = None, None
        try:
            session_id = request.cookies.get(cookie_name(request.url.scheme))
            principal = self.service.security.find(request.headers, session_id)
        except SignInError as error:
            refusal = str(error)
        request.state.principal = principal and replace(principal, address=address)
        request.state.refusal = refusal
        self.service.rate.take(f"name {principal.name}" if principal else f"address {address}")
        if principal is None and path.startswith(API) and path not in api.PUBLIC:
            raise SignInError(refusal or "log in first, or send an API key")

    def _limit(self, request: Request, receive: Receive) -> Receive:
        """Let a body in up to its limit, whatever it says about its length."""
        known = request.state.principal is not None
        most = MOST_UPLOAD_BYTES if known and content_type(request) == "multipart/form-data" else MOST_BODY_BYTES
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > most:
            raise TooLargeError(f"the request has {length[:20]} bytes; at most {most} are read")
        size, complete = 0, False
        end = time.monotonic() + WHOLE_BODY_SECONDS

        async def limited() -> Message:
            nonlocal size, complete
            if complete:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), min(BODY_SECONDS, end - time.monotonic()))
            except TimeoutError:
                raise HTTPException(
                    408,
                    f"the request did not come: nothing for {BODY_SECONDS:.0f} s, or {WHOLE_BODY_SECONDS:.0f} s in all",
                ) from None
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                complete = not message.get("more_body", False)
                if size > most:
                    raise HTTPException(413, f"the request has more than {most} bytes")
            return message

        return limited


async def refuse(request: Request, error: Exception) -> Response:
    """The answer to a request that ended in an error: JSON to a program, a page to a person."""
    status, message, mark = 500, str(error), None
    headers: dict[str, str] = {}
    if isinstance(error, TapetumError):
        status = status_of(error)
        if isinstance(error, ServiceError) and error.retry_after is not None:
            headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
        if status == 401:
            headers["www-authenticate"] = "Bearer"
    elif isinstance(error, RequestValidationError):
        problems = error.errors()[:5]
        status = 422
        message = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}"[:300] for each in problems)
    elif isinstance(error, HTTPException):
        status, message, headers = error.status_code, str(error.detail), dict(error.headers or {})
    elif isinstance(error, OSError) and error.errno in FULL_DISK:
        status, message = 507, "the disk is full; nothing was lost, free some space"
    else:
        mark = secrets.token_hex(6)
        log.error("error %s: %s %s", mark, request.method, request.url.path, exc_info=error)
        message = f"unexpected error {mark}; it is in the server's log"
    service: Service = request.scope[SERVICE]
    message = service.hide(message)
    if request.url.path.startswith(API):
        return JSONResponse({"error": message} | ({} if mark is None else {"id": mark}), status, headers)
    page = pages.show_error(request, status, message)
    page.headers.update(headers)
    return page


def _host_of(header: str) -> str:
    """The name in a Host header, without the port, in small letters."""
    name = header.strip().lower()
    return name.partition("]")[0] + "]" if name.startswith("[") else name.partition(":")[0]


def _check_origin(headers: Headers, hosts: frozenset[str]) -> None:
    """Browsers say which site made them send a request."""
    origin = headers.get("origin")
    foreign = origin is not None and _host_of(origin.partition("://")[2]) not in hosts
    if foreign or headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise ForbiddenError("the request comes from another site")
