"""Who may enter, what they may do, and what another site cannot make them do."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.conftest import PASSWORD, TOKEN, MakeServer, add_user, log_in, service_of
from tapetum.core.errors import TapetumError
from tapetum.service.audit import FILE
from tapetum.service.errors import RateError, SignInError
from tapetum.service.security import COOKIE, Security
from tapetum.service.users import Role, UserBook

SEARCH = {"rows": ["row00001"]}
DELETE = {"where": {"cameras": ["c1"]}, "dry_run": True}
NEEDS = {  # path -> body, and the least role
    "/api/v1/search": (SEARCH, Role.SEARCH),
    "/api/v1/browse": ({}, Role.SEARCH),
    "/api/v1/jobs": ({"path": "nowhere"}, Role.INDEX),
    "/api/v1/delete": (DELETE, Role.ADMINISTER),
}


def test_nobody_gets_anything_but_health(serve: MakeServer) -> None:
    client = serve(signed_in=False)
    assert client.get("/api/v1/health/live").json() == {"status": "alive"}
    assert client.get("/api/v1/health/ready").json() == {"status": "ready"}
    # every route of the description, so that a new one cannot be forgotten
    described = client.get("/api/v1/openapi.json").json()["paths"]
    public = {"/api/v1/health/live", "/api/v1/health/ready", "/api/v1/login"}
    for path, methods in described.items():
        for method in methods:
            if path not in public:
                answer = client.request(method, path.replace("{row_id}", "row00001").replace("{job_id}", "x"))
                assert answer.status_code == 401, (method, path)
                assert answer.headers["www-authenticate"] == "Bearer"
                assert "log in" in answer.json()["error"]


def test_a_server_that_cannot_write_anything_down_is_not_ready(
    serve: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve()
    monkeypatch.setattr("tapetum.service.state.READY_SECONDS", 0.0)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    assert client.get("/api/v1/health/ready").status_code == 200
    folder = service_of(client).folder
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        full = client.get("/api/v1/health/ready")
    assert (full.status_code, full.json()["error"]) == (503, "nothing can be written down; see the server's log")
    assert client.get("/api/v1/health/ready").status_code == 200
    (folder / FILE).rename(folder / "elsewhere")
    (folder / FILE).symlink_to(folder / "elsewhere")
    assert client.get("/api/v1/health/ready").status_code == 503
    assert not list(folder.glob("*probe*"))


@pytest.mark.parametrize("role", list(Role))
def test_a_role_may_do_what_it_may_and_no_more(serve: MakeServer, role: Role) -> None:
    client = serve(signed_in=False)
    add_user(client, "anna", role)
    log_in(client, "anna")
    for path, (body, least) in NEEDS.items():
        status = client.post(path, json=body).status_code
        assert (status == 403) == (role < least or path.endswith("jobs")), (path, status)  # jobs: no such root
        if role < least:
            assert "needs the role" in client.post(path, json=body).json()["error"]
    assert client.get("/api/v1/metrics").status_code == (200 if role is Role.ADMINISTER else 403)


def test_the_cookie_is_out_of_reach_for_scripts_and_other_sites(serve: MakeServer) -> None:
    client = serve(signed_in=False)
    add_user(client, "anna", Role.SEARCH)
    cookie = client.post("/api/v1/login", json={"name": "anna", "password": PASSWORD}).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "path=/" in cookie
    assert "secure" not in cookie


def test_over_tls_the_cookie_is_for_tls_only(serve: MakeServer) -> None:
    client = serve(signed_in=False)
    add_user(client, "anna", Role.SEARCH)
    client.base_url = "https://localhost"  # type: ignore[assignment]
    answer = client.post("/api/v1/login", json={"name": "anna", "password": PASSWORD})
    assert answer.headers["set-cookie"].startswith("__Host-")
    assert "secure" in answer.headers["set-cookie"].lower()
    assert answer.headers["strict-transport-security"]
    assert client.get("/api/v1/session").json()["name"] == "anna"


def test_over_tls_a_cookie_that_another_host_may_have_set_is_not_believed(serve: MakeServer) -> None:
    client = serve(signed_in=False)
    add_user(client, "anna", Role.SEARCH)
    log_in(client, "anna")
    cookie = {"cookie": f"{COOKIE}={client.cookies[COOKIE]}"}
    client.cookies.clear()
    assert client.get("http://localhost/api/v1/session", headers=cookie).status_code == 200
    assert client.get("https://localhost/api/v1/session", headers=cookie).status_code == 401


def test_a_session_needs_its_token_for_every_change_and_a_key_needs_none(serve: MakeServer) -> None:
    client = serve(signed_in=False)
    add_user(client, "anna", Role.SEARCH)
    log_in(client, "anna")
    right = client.headers.pop("x-csrf-token")
    for wrong in ({}, {"x-csrf-token": "x"}, {"x-csrf-token": right[:-1]}):
        answer = client.post("/api/v1/search", json=SEARCH, headers=wrong)
        assert answer.status_code == 403
        assert "token" in answer.json()["error"]
    assert client.post("/api/v1/search", json=SEARCH, headers={"x-csrf-token": right}).status_code == 200
    _, key = service_of(client).users.add_key("anna", "a script")
    client.cookies.clear()
    answer = client.post("/api/v1/search", json=SEARCH, headers={"authorization": f"Bearer {key}"})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"origin": "http://localhost:9999", "sec-fetch-site": "same-site"},
    ],
    ids=str,
)
def test_another_site_cannot_log_somebody_in(serve: MakeServer, headers: dict[str, str]) -> None:
    client = serve(signed_in=False)
    answer = client.post("/api/v1/login", json={"token": TOKEN}, headers=headers)
    assert answer.status_code == 403
    assert "another site" in answer.json()["error"]


def test_a_name_that_is_not_the_servers_is_refused(serve: MakeServer) -> None:
    client = serve()
    answer = client.get("/api/v1/gallery", headers={"host": "evil.example:8000"})
    assert answer.status_code == 421
    assert "--public-name evil.example" in answer.json()["error"]
    for name in ("localhost:8000", "127.0.0.1", "[::1]:8000", "LOCALHOST"):
        assert client.get("/api/v1/gallery", headers={"host": name}).status_code == 200
    named = serve(hosts=frozenset({"people.example.org"}))
    assert named.get("/api/v1/gallery", headers={"host": "people.example.org"}).status_code == 200
    assert named.get("/api/v1/gallery", headers={"host": "localhost"}).status_code == 421


def test_a_supervisor_asks_for_health_by_whatever_name_or_address(serve: MakeServer) -> None:
    named = serve(signed_in=False, hosts=frozenset({"people.example.org"}))
    for host in ("127.0.0.1:8000", "10.88.0.20:8000", "tapetum"):
        assert named.get("/api/v1/health/live", headers={"host": host}).json() == {"status": "alive"}
        assert named.get("/api/v1/health/ready", headers={"host": host}).json() == {"status": "ready"}
        assert named.get("/api/v1/openapi.json", headers={"host": host}).status_code == 421


def test_the_owners_token_opens_a_session_and_a_wrong_one_does_not(serve: MakeServer) -> None:
    client = serve(signed_in=False)
    answer = client.post("/api/v1/login", json={"token": TOKEN + "x"})
    assert answer.status_code == 401
    assert "earlier start" in answer.json()["error"]
    assert client.post("/api/v1/login", json={"token": TOKEN}).json()["role"] == "administer"
    assert client.get("/api/v1/session").json()["name"] == "owner"


def test_without_a_token_nobody_is_the_owner(serve: MakeServer) -> None:
    client = serve(signed_in=False, token=None)
    for token in ("", "None", TOKEN):
        assert client.post("/api/v1/login", json={"token": token}).status_code == 401


def test_an_ended_session_says_why(serve: MakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    client = serve(signed_in=False)
    add_user(client, "anna", Role.SEARCH)
    log_in(client, "anna")
    now = time.time()
    monkeypatch.setattr("tapetum.service.security.time.time", lambda: now + 13 * 3600)
    answer = client.get("/api/v1/session")
    assert answer.status_code == 401
    assert answer.json()["error"] == "the session has expired; log in again"


def test_logging_out_ends_the_session_for_whoever_kept_the_cookie(serve: MakeServer) -> None:
    client = serve(signed_in=False)
    add_user(client, "anna", Role.SEARCH)
    log_in(client, "anna")
    kept = client.cookies[COOKIE]
    assert client.post("/api/v1/logout").status_code == 204
    assert COOKIE not in client.cookies
    answer = client.get("/api/v1/session", headers={"cookie": f"{COOKIE}={kept}"})
    assert answer.status_code == 401
    assert "log in again" in answer.json()["error"]


def test_a_removed_user_and_a_new_password_end_sessions_at_once(serve: MakeServer, tmp_path: Path) -> None:
    client = serve(signed_in=False)
    for change in ("password", "removal", "role"):
        add_user(client, "anna", Role.SEARCH)
        log_in(client, "anna")
        book = UserBook(service_of(client).folder)  # another process
        if change == "password":
            book.add("anna", Role.SEARCH, "another long password")
        elif change == "removal":
            book.remove("anna")
        else:
            book.add("anna", Role.ADMINISTER, None)
            assert client.get("/api/v1/session").json()["role"] == "administer"
            continue
        assert client.get("/api/v1/session").status_code == 401


def test_keys_are_told_apart_by_what_is_wrong_with_them(serve: MakeServer) -> None:
    client = serve(signed_in=False)
    add_user(client, "robot", Role.INDEX)
    users = service_of(client).users
    key, secret = users.add_key("robot", "old", days=0.000001)
    time.sleep(0.1)
    answer = client.get("/api/v1/session", headers={"authorization": f"Bearer {secret}"})
    assert (answer.status_code, answer.json()["error"]) == (401, f"the API key {key.id} has expired; ask for a new one")
    key, secret = users.add_key("robot", "new")
    told = client.get("/api/v1/session", headers={"authorization": f"bearer {secret}"}).json()
    assert (told["role"], told["by"]) == ("index", f"key:{key.id}")
    users.remove_key(key.id)
    assert client.get("/api/v1/session", headers={"authorization": f"Bearer {secret}"}).status_code == 401
    for odd in ("Basic YTpi", "Bearer", "Bearer ", "Bearer \u00e9\u00e9"):
        answer = client.get("/api/v1/session", headers={"authorization": odd.encode()})
        assert answer.status_code == 401, odd


def test_guessing_passwords_is_slowed_down(serve: MakeServer) -> None:
    client = serve(signed_in=False)
    add_user(client, "anna", Role.SEARCH)
    wrong = {"name": "anna", "password": "wrong password here"}
    statuses = [client.post("/api/v1/login", json=wrong).status_code for _ in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    answer = client.post("/api/v1/login", json=wrong | {"password": PASSWORD})  # not even the right one
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1


def test_a_right_password_gives_the_attempts_back(tmp_path: Path) -> None:
    users = UserBook(tmp_path)
    users.add("anna", Role.SEARCH, PASSWORD)
    security = Security(users, None, attempts=3)
    for _ in range(3):
        security.log_in("anna", PASSWORD, "192.0.2.1")
        with pytest.raises(TapetumError, match="wrong"):
            security.log_in("anna", "not the password", "192.0.2.1")


def refusals(log_in: Callable[[int], object], times: int = 12) -> list[type[Exception]]:
    """How each of so many wrong attempts is refused."""
    refused: list[type[Exception]] = []
    for number in range(times):
        with pytest.raises((SignInError, RateError)) as error:
            log_in(number)
        refused.append(error.type)
    return refused


def test_one_account_cannot_be_guessed_from_many_addresses(tmp_path: Path) -> None:
    users = UserBook(tmp_path)
    users.add("anna", Role.SEARCH, PASSWORD)
    security = Security(users, None)
    refused = refusals(lambda number: security.log_in("anna", "wrong password here", f"192.0.2.{number}"))
    assert refused == [SignInError] * 10 + [RateError] * 2


def test_many_accounts_cannot_be_guessed_from_one_address(tmp_path: Path) -> None:
    security = Security(UserBook(tmp_path), None)
    refused = refusals(lambda number: security.log_in(f"user{number}", "wrong password here", "192.0.2.1"))
    assert refused == [SignInError] * 10 + [RateError] * 2


def test_guessing_the_token_is_slowed_down(tmp_path: Path) -> None:
    security = Security(UserBook(tmp_path), TOKEN)
    refused = refusals(lambda number: security.log_in_by_token(f"token {number}", "192.0.2.1"))
    assert refused == [SignInError] * 10 + [RateError] * 2


def test_one_client_cannot_ask_without_end(serve: MakeServer) -> None:
    client = serve(requests_per_minute=20.0)
    statuses = [client.get("/api/v1/session").status_code for _ in range(8)]
    assert statuses[:5] == [200] * 5
    assert statuses[-1] == 429
    answer = client.get("/api/v1/session")
    assert 1 <= int(answer.headers["retry-after"]) <= 4


def test_every_answer_carries_the_headers_that_protect_it(serve: MakeServer) -> None:
    client = serve()
    for path in ("/api/v1/gallery", "/api/v1/nothing", "/login", "/static/style.css", "/api/v1/rows/none/crop"):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cache-control"] == ("max-age=600" if path.startswith("/static/") else "no-store")
        assert "server" not in headers


def test_a_principal_never_shows_its_secrets(serve: MakeServer) -> None:
    client: TestClient = serve(signed_in=False)
    add_user(client, "anna", Role.SEARCH)
    log_in(client, "anna")
    cookie = client.cookies[COOKIE]
    state = repr(vars(service_of(client).security))
    assert cookie not in state
    assert TOKEN not in state
    stored = (service_of(client).folder / "users.json").read_text()
    assert PASSWORD not in stored
