"""Who is asking: sessions of the page, API keys, the token of a server on loopback; and what they may do."""

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from fastapi import Request

from tapetum.service.errors import ForbiddenError, SignInError
from tapetum.service.limits import RateLimit
from tapetum.service.uploads import is_form, read_form
from tapetum.service.users import OWNER, Role, UserBook

COOKIE = "tapetum_session"
SECURE_COOKIE = "__Host-tapetum_session"  # browsers take such a name over TLS only, from this host only
CSRF_HEADER = "x-csrf-token"
CSRF_FIELD = "csrf"
REMEMBERED_SECONDS = 86_400.0  # an ended session is remembered so long, so that the answer says why
MOST_SESSIONS = 10_000
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True)
class LoginSession:
    """Somebody logged in on the page.

    Attributes:
        user: their name.
        stamp: of their password when they logged in; empty for the owner's token.
        csrf: token that every request which changes something must bring along.
        expires: seconds since 1970-01-01 UTC.
    """

    user: str
    stamp: str
    csrf: str
    expires: float


@dataclass(frozen=True)
class Principal:
    """Who is asking.

    Attributes:
        name: of the user.
        role: what they may do now.
        by: "session", "token", or "key:" and the key's id; for the audit log.
        session: theirs, where they came by one.
        address: of the client.
    """

    name: str
    role: Role
    by: str
    session: LoginSession | None = None
    address: str = "unknown"

    @property
    def csrf(self) -> str:
        """Token for the page's forms; empty without a session."""
        return self.session.csrf if self.session else ""


class Security:
    """Logs people in and out, and tells who is asking.

    Args:
        token: of a server on loopback; None where only users may enter.
        hours: a session lasts.
        attempts: to log in, by address and by name, in five minutes.
    """

    def __init__(self, users: UserBook, token: str | None, *, hours: float = 12.0, attempts: int = 10) -> None:
        self.users = users
        self._token = None if token is None else _digest(token)
        self._seconds = hours * 3600
        self._attempts = RateLimit(attempts / 5, attempts, "attempts to log in")
        self._sessions: dict[str, LoginSession] = {}  # digest of the id -> session
        self._guard = threading.Lock()

    def log_in(self, name: str, password: str, address: str) -> tuple[LoginSession, str]:
        """Start a session; takes a while on purpose.

        Returns:
            The session, and its id for the cookie.
        Raises:
            SignInError: name or password is wrong.
            RateError: too many attempts.
        """
        buckets = (f"address {address}", f"name {name[:64]}")
        for bucket in buckets:
            self._attempts.take(bucket)
        user = self.users.check_password(name, password)
        if user is None:
            raise SignInError("name or password is wrong")
        for bucket in buckets:
            self._attempts.forget(bucket)
        return self._start(user.name, user.stamp)

    def log_in_by_token(self, token: str, address: str) -> tuple[LoginSession, str]:
        """As `log_in`, with the token that was printed at the start."""
        self._attempts.take(f"address {address}")
        if not self._is_token(token):
            raise SignInError("the token is wrong, or of an earlier start; use the address printed at the last start")
        self._attempts.forget(f"address {address}")
        return self._start(OWNER, "")

    def of_session(self, session: LoginSession) -> Principal:
        """Who a session belongs to.

        Raises:
            SignInError: it has ended meanwhile.
        """
        if session.expires <= time.time():
            raise SignInError("the session has expired; log in again")
        if session.user == OWNER and not session.stamp:
            return Principal(OWNER, Role.ADMINISTER, "session", session)
        user = self.users.find(session.user)
        if user is None or user.stamp != session.stamp:
            raise SignInError("the user was removed or has a new password; log in again")
        return Principal(user.name, user.role, "session", session)

    def log_out(self, session_id: str) -> None:
        """End a session, by the id in its cookie."""
        with self._guard:
            self._sessions.pop(_digest(session_id), None)

    def find(self, headers: Mapping[str, str], session_id: str | None) -> Principal | None:
        """Who sent a request; None where it names nobody.

        Args:
            headers: of the request, names in small letters.
            session_id: of its cookie (`cookie_name`); None without one.
        Raises:
            SignInError: it names somebody who may not enter: unknown, expired, removed.
        """
        authorization = headers.get("authorization", "")
        if authorization:
            kind, _, key = authorization.partition(" ")
            if kind.lower() != "bearer" or not key.strip():
                raise SignInError("Authorization: send `Bearer KEY`")
            return self._by_key(key.strip())
        if not session_id:
            return None
        with self._guard:
            session = self._sessions.get(_digest(session_id))
        if session is None:
            raise SignInError("the session has ended, or the server was started anew; log in again")
        return self.of_session(session)

    def _by_key(self, text: str) -> Principal:
        if self._is_token(text):
            return Principal(OWNER, Role.ADMINISTER, "token")
        user, key = self.users.find_key(text) or (None, None)
        if user is None or key is None:
            raise SignInError("the API key is unknown or was removed; ask for a new one")
        if key.expires is not None and key.expires <= time.time():
            raise SignInError(f"the API key {key.id} has expired; ask for a new one")
        return Principal(user.name, user.role, f"key:{key.id}")

    def _is_token(self, token: str) -> bool:
        return self._token is not None and hmac.compare_digest(self._token, _digest(token))

    def _start(self, user: str, stamp: str) -> tuple[LoginSession, str]:
        now = time.time()
        session = LoginSession(user, stamp, secrets.token_urlsafe(32), now + self._seconds)
        session_id = secrets.token_urlsafe(32)
        with self._guard:
            old = [name for name, one in self._sessions.items() if one.expires < now - REMEMBERED_SECONDS]
            old += list(self._sessions)[: max(0, len(self._sessions) - MOST_SESSIONS)]
            for name in old:
                self._sessions.pop(name, None)
            self._sessions[_digest(session_id)] = session
        return session, session_id


def need(role: Role) -> Callable[[Request], Awaitable[Principal]]:
    """A dependency: the principal, who has at least this role and sent the request themselves."""

    async def check(request: Request) -> Principal:
        principal: Principal | None = getattr(request.state, "principal", None)
        if principal is None:
            raise SignInError(getattr(request.state, "refusal", None) or "log in first, or send an API key")
        if principal.role < role:
            raise ForbiddenError(f"{principal.name} may {principal.role.label}; this needs the role {role.label}")
        if principal.session and request.method not in SAFE:
            token = request.headers.get(CSRF_HEADER)
            if token is None and is_form(request):
                field = (await read_form(request)).get(CSRF_FIELD)
                token = field if isinstance(field, str) else None
            if token is None or not hmac.compare_digest(token.encode(), principal.csrf.encode()):
                raise ForbiddenError(f"the request lacks this session's token ({CSRF_HEADER}); load the page again")
        return principal

    return check


def cookie_name(scheme: str) -> str:
    """The cookie that holds a session; over TLS another one is not believed, because other hosts of a site can set it.

    Args:
        scheme: "https" or "http".
    """
    return SECURE_COOKIE if scheme == "https" else COOKIE


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
