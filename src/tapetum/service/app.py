"""The web application: one gate before everything (host, origin, who is asking, how much), then API and pages."""

import asyncio
import errno
import logging
import math
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.cookies import CookieError, SimpleCookie
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import tapetum
from tapetum.core.errors import InUseError, OutputError, TapetumError
from tapetum.service import api, pages
from tapetum.service.errors import ForbiddenError, HostError, ServiceError, SignInError, TooLargeError
from tapetum.service.security import SAFE, Principal, cookie_name
from tapetum.service.state import Service
from tapetum.service.uploads import FORM, MOST_BODY_BYTES, MOST_UPLOAD_BYTES

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
    """The application of a server.

    Args:
        service: its state; started and closed with the application.
    """

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
    app.add_exception_handler(TapetumError, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_fields)
    app.add_exception_handler(HTTPException, _refuse_plainly)
    app.add_middleware(Gate, service=service)
    return app


class Gate:
    """What every request passes before anything of its body is read.

    Args:
        app: behind it.
        service: the server's state.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request.

        Args:
            scope: of ASGI.
        """
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return  # no web sockets here
        begun = time.perf_counter()
        scope[SERVICE] = self.service
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                fixed = scope["path"].startswith("/static/") and status < 400
                headers.setdefault("cache-control", "max-age=600" if fixed else "no-store")
                if scope["scheme"] == "https":
                    headers.setdefault("strict-transport-security", "max-age=31536000")
            await send(message)

        request = Request(scope, receive)
        try:
            try:
                self._admit(request)
                await self.app(scope, self._limit(request, receive), answer)
            except ServiceError as error:
                await respond(request, error)(scope, receive, answer)
            except Exception as error:
                if isinstance(error, OSError) and error.errno in FULL_DISK and status == 500:
                    await _show(request, 507, "the disk is full; nothing was lost, free some space", {})(
                        scope, receive, answer
                    )
                    return
                mark = secrets.token_hex(6)
                log.exception("error %s: %s %s", mark, scope["method"], scope["path"])
                if status == 500:  # nothing was sent yet
                    await _unexpected(request, mark)(scope, receive, answer)
        finally:
            if FORM in scope:
                await scope[FORM].close()
            route = scope.get("route")
            path = getattr(route, "path", "other")
            method = scope["method"] if scope["method"] in METHODS else "other"  # clients may call it anything
            self.service.metrics.requests.labels(method, path, str(status)).inc()
            self.service.metrics.seconds.labels(path).observe(time.perf_counter() - begun)

    def _admit(self, request: Request) -> None:
        """Tell who is asking; refuse a wrong host, another site's request, and too many."""
        host = _host_of(request.headers.get("host", ""))
        if host not in self.service.options.hosts:
            raise HostError(f"host {host[:100]!r}: not a name of this server; start it with --public-name {host[:100]}")
        if request.method not in SAFE:
            _check_origin(request.headers, self.service.options.hosts)
        state = request.scope.setdefault("state", {})
        state["principal"], state["refusal"] = None, None
        try:
            session_id = _cookies_of(request.headers).get(cookie_name(request.url.scheme))
            state["principal"] = self.service.security.find(request.headers, session_id)
        except SignInError as error:
            state["refusal"] = str(error)
        principal: Principal | None = state["principal"]
        self.service.rate.take(f"name {principal.name}" if principal else f"address {api.client_of(request)}")
        path = request.scope["path"]
        if principal is None and path.startswith(API) and path not in api.PUBLIC:
            raise SignInError(state["refusal"] or "log in first, or send an API key")

    def _limit(self, request: Request, receive: Receive) -> Receive:
        """Let a body in up to its limit, whatever it says about its length."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        most = MOST_UPLOAD_BYTES if kind == "multipart/form-data" else MOST_BODY_BYTES
        if request.scope["state"]["principal"] is None:
            most = MOST_BODY_BYTES
        stated = request.headers.get("content-length", "")
        if stated.isdecimal() and int(stated) > most:
            raise TooLargeError(f"the request has {stated[:20]} bytes; at most {most} are read")
        got, complete = 0, False
        end = time.monotonic() + WHOLE_BODY_SECONDS

        async def limited() -> Message:
            nonlocal got, complete
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
                got += len(message.get("body", b""))
                complete = not message.get("more_body", False)
                if got > most:
                    raise HTTPException(413, f"the request has more than {most} bytes")
            return message

        return limited


def respond(request: Request, error: TapetumError) -> Response:
    """The answer to a request that was refused.

    Args:
        request: refused.
        error: why.
    """
    status = 400
    if isinstance(error, ServiceError):
        status = error.status
    elif isinstance(error, OutputError):
        status = 409 if isinstance(error, InUseError) else 507
    headers = {}
    if isinstance(error, ServiceError) and error.retry_after is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return _show(request, status, str(error), headers)


def _show(request: Request, status: int, message: str, headers: dict[str, str], mark: str | None = None) -> Response:
    service: Service = request.scope[SERVICE]
    message = service.hide(message)
    if not request.url.path.startswith(API):
        answer = pages.show_error(request, status, message)
        answer.headers.update(headers)
        return answer
    content: dict[str, Any] = {"error": message}
    if mark is not None:
        content["id"] = mark
    return JSONResponse(content, status, headers)


async def _refuse(request: Request, error: Exception) -> Response:
    if not isinstance(error, TapetumError):
        raise error
    return respond(request, error)


async def _refuse_fields(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    told = []
    for each in error.errors()[:5]:
        place = ".".join(str(part) for part in each["loc"])
        told.append(f"{place}: {each['msg']}"[:300])
    return _show(request, 422, "; ".join(told), {})


async def _refuse_plainly(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return _show(request, error.status_code, str(error.detail), dict(error.headers or {}))


def _unexpected(request: Request, mark: str) -> Response:
    return _show(request, 500, f"unexpected error {mark}; it is in the server's log", {}, mark)


def _host_of(header: str) -> str:
    """The name in a Host header, without the port, in small letters."""
    name = header.strip().lower()
    if name.startswith("["):
        return name.partition("]")[0] + "]"
    return name.partition(":")[0]


def _check_origin(headers: Headers, hosts: frozenset[str]) -> None:
    """Browsers say which site made them send a request."""
    origin = headers.get("origin")
    if origin is not None and _host_of(origin.partition("://")[2]) not in hosts:
        raise ForbiddenError("the request comes from another site")
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise ForbiddenError("the request comes from another site")


def _cookies_of(headers: Headers) -> dict[str, str]:
    jar: SimpleCookie = SimpleCookie()
    try:
        jar.load(headers.get("cookie", ""))
    except CookieError:
        return {}
    return {name: morsel.value for name, morsel in jar.items()}
