"""The pages as a browser without JavaScript sees them."""

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from httpx import Response
from starlette.datastructures import QueryParams

from gallery_rows import a_row, some_vectors
from service.conftest import PASSWORD, ROWS, TOKEN, MakeServer, a_picture, add_user, row_with_crop, service_of
from tapetum.evaluation.calibration import Calibration, PairCalibration
from tapetum.evaluation.thresholds import Tail
from tapetum.gallery.store import Store
from tapetum.inference.sessions import Model
from tapetum.service.app import create_app
from tapetum.service.page_form import read_search_form
from tapetum.service.page_timeline import draw_line
from tapetum.service.schemas import CameraOut, TimelineOut
from tapetum.service.searches import Searches
from tapetum.service.state import ServiceOptions, build_service
from tapetum.service.users import Role

EVIL = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>"
PAGES = {  # address -> the least role that may see it
    "/": Role.SEARCH,
    "/?row=row00001": Role.SEARCH,
    "/browse": Role.SEARCH,
    "/browse?camera=c1&since=2026-11-21T20:00&until=2026-11-21T20:10&modality=infrared&quality=1": Role.SEARCH,
    "/sightings/row00003": Role.SEARCH,
    "/footage": Role.INDEX,
    "/audit": Role.ADMINISTER,
}
CHANGES = ("/search", "/case", "/delete", "/jobs", "/jobs/x/cancel", "/jobs/x/resume", "/logout")


class Seen(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open_labels: list[dict[str, str | None]] = []
        self.labelled: set[str] = set()
        self.unlabelled: list[dict[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.tags.append((tag, told))
        if tag == "label":
            self.open_labels.append(told)
            self.labelled.add(told.get("for") or "")
        field = tag in ("input", "select", "textarea") and told.get("type") != "hidden"
        if field and not self.open_labels and "aria-label" not in told:
            self.unlabelled.append(told)

    def handle_endtag(self, tag: str) -> None:
        if tag == "label":
            self.open_labels.pop()

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [told for name, told in self.tags if name == tag]


@pytest.fixture
def page(serve: MakeServer) -> TestClient:
    """A browser that has logged in with the token."""
    client = serve(signed_in=False)
    assert client.post("/login", data={"token": TOKEN}).status_code == 200
    return client


@pytest.fixture
def as_user(serve: MakeServer) -> Callable[[Role], TestClient]:
    def log_in(role: Role) -> TestClient:
        client = serve(signed_in=False, token=None)
        add_user(client, role.label, role)
        answer = client.post("/login", data={"name": role.label, "password": PASSWORD}, follow_redirects=False)
        assert answer.status_code == 303, answer.text
        return client

    return log_in


def token_of(client: TestClient) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', client.get("/").text)
    assert found
    return found[1]


def post(client: TestClient, address: str, **options: Any) -> Response:
    return client.post(address, data={"csrf": token_of(client)} | options.pop("data", {}), **options)


def text_of(answer: Response) -> str:
    """What a person reads."""
    body = re.sub(r"<(script|style|svg)\b.*?</\1>", "", answer.text, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def check_page(answer: Response) -> Seen:
    """What holds for every page: a heading, a language, names for fields and pictures, nothing inline."""
    seen = Seen(answer.text)
    assert answer.headers["content-type"].startswith("text/html")
    assert seen.all("html") == [{"lang": "en"}]
    assert len(seen.all("h1")) == len(seen.all("main")) == 1 <= len(seen.all("title"))
    assert any(told.get("href") == "#main" for told in seen.all("a"))
    assert seen.unlabelled == []
    assert all("alt" in told for told in seen.all("img"))
    ids = [told["id"] for _, told in seen.tags if "id" in told]
    assert len(ids) == len(set(ids))
    assert not seen.all("style")
    assert all("src" in told for told in seen.all("script"))
    assert not [told for _, told in seen.tags for name in told if name == "style" or name.startswith("on")]
    for _, told in seen.tags:
        for name in ("src", "href", "action"):
            address = told.get(name)
            assert address is None or (address.startswith(("/", "#")) and not address.startswith("//")), told
    return seen


@pytest.mark.parametrize("role", Role)
def test_every_page_opens_for_its_roles_and_for_no_others(
    as_user: Callable[[Role], TestClient], role: Role, tmp_path: Path
) -> None:
    client = as_user(role)
    for address, least in PAGES.items():
        answer = client.get(address)
        assert answer.status_code == (200 if role >= least else 403), address
        check_page(answer)
    links = {told["href"] for told in Seen(client.get("/").text).all("a")}
    assert {"/footage" in links, "/audit" in links} <= {role >= Role.INDEX, role >= Role.ADMINISTER}
    assert ("Delete for good" in client.get("/sightings/row00003").text) == (role >= Role.ADMINISTER)


def test_whoever_is_not_logged_in_is_shown_the_door_and_then_the_page_they_wanted(serve: MakeServer) -> None:
    client = serve(signed_in=False)
    add_user(client, "anna", Role.SEARCH)
    for address in PAGES:
        answer = client.get(address, follow_redirects=False)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/login")
    door = client.get("/sightings/row00003")
    seen = check_page(door)
    onward = next(told["value"] for told in seen.all("input") if told.get("name") == "next")
    assert onward == "/sightings/row00003"
    answer = client.post("/login", data={"name": "anna", "password": PASSWORD, "next": onward}, follow_redirects=False)
    assert answer.headers["location"] == onward
    for elsewhere in ("https://example.org/", "//example.org", "/\\example.org", "javascript:alert(1)"):
        answer = client.post(
            "/login", data={"name": "anna", "password": PASSWORD, "next": elsewhere}, follow_redirects=False
        )
        assert answer.headers["location"] == "/"


def test_a_wrong_password_is_said_and_the_name_stays(serve: MakeServer) -> None:
    client = serve(signed_in=False, token=None)
    add_user(client, "anna", Role.SEARCH)
    answer = client.post("/login", data={"name": EVIL[:60], "password": "wrong"})
    assert answer.status_code == 401
    assert "name or password is wrong" in text_of(answer)
    assert "<script>" not in answer.text
    assert client.get("/", follow_redirects=False).status_code == 303


def test_the_door_offers_what_can_open_it(serve: MakeServer) -> None:
    client = serve(signed_in=False)
    fields = {told.get("name") for told in check_page(client.get("/login")).all("input")}
    assert fields == {"next", "token"}
    assert client.post("/login", data={"token": "another"}).status_code == 401
    add_user(client, "anna", Role.SEARCH)
    fields = {told.get("name") for told in check_page(client.get("/login")).all("input")}
    assert fields == {"next", "token", "name", "password"}
    fields = {told.get("name") for told in Seen(serve(signed_in=False, token=None).get("/login").text).all("input")}
    assert fields == {"next", "name", "password"}


@pytest.mark.parametrize("address", CHANGES)
def test_a_change_without_the_sessions_own_token_is_refused(page: TestClient, store: Store, address: str) -> None:
    for data in ({}, {"csrf": "another"}):
        answer = page.post(address, data={"row": "row00001", "sure": "yes", "path": "x", **data})
        assert answer.status_code == 403
        check_page(answer)
    assert store.count() == ROWS


def test_logging_out_ends_the_session(page: TestClient) -> None:
    assert post(page, "/logout").url.path == "/login"
    assert page.get("/", follow_redirects=False).status_code == 303


@pytest.mark.parametrize("address", ["/nothing", "/sightings/none", "/results/none", "/?row=none", "/static/pages.py"])
def test_what_is_not_there_is_a_page_that_says_so(page: TestClient, address: str) -> None:
    answer = page.get(address)
    assert answer.status_code == 404
    check_page(answer)


def test_words_from_outside_are_shown_as_words(page: TestClient, store: Store, model: Model) -> None:
    assert store.folder is not None
    row = row_with_crop(store.folder, a_row(90), model, 1)
    sighting = replace(row.sighting, tracklet=EVIL, source=EVIL, remark=EVIL)
    store.upsert(
        [replace(row, sighting=sighting, run=replace(row.run, name=EVIL))], some_vectors(1, 5, model.dimension)
    )
    files = {"pictures": (EVIL + ".jpg", a_picture(1), "image/jpeg")}
    found = post(page, "/search", data={"k": "50"}, files=files)
    assert found.status_code == 200
    refused = post(page, "/search", data={"quality": EVIL, "camera": EVIL}, files=files)
    assert refused.status_code == 400
    for answer in (
        found,
        refused,
        page.get("/sightings/row00090"),
        page.get("/browse?offset=0"),
        page.get("/browse", params={"camera": EVIL, "until": EVIL}),
        page.get("/footage", params={"path": EVIL}),
        page.get(f"/{EVIL}"),
        page.get("/login", params={"next": EVIL}),
        page.get("/audit"),
    ):
        assert "<script>alert" not in answer.text
        assert "<img src=x" not in answer.text
        check_page(answer)
    assert "&lt;script&gt;" in page.get("/sightings/row00090").text


def test_a_picture_finds_people_and_the_choice_stays_for_the_next_search(page: TestClient) -> None:
    files = {"pictures": ("coat.jpg", a_picture(3), "image/jpeg")}
    answer = post(page, "/search", data={"camera": ["c1", "c2"], "group": "none", "k": "5"}, files=files)
    assert answer.url.path.startswith("/results/")
    seen = check_page(answer)
    assert len([told for told in seen.all("li") if (told.get("class") or "").startswith("card")]) == 5
    ticked = {told["value"] for told in seen.all("input") if told.get("name") == "camera" and "checked" in told}
    assert ticked == {"c1", "c2"}
    (shown,) = [told["src"] or "" for told in seen.all("img") if "/pictures/" in (told["src"] or "")]
    assert cv2.imdecode(np.frombuffer(page.get(shown).content, np.uint8), cv2.IMREAD_COLOR).shape == (64, 32, 3)
    assert page.get(shown.replace("/0", "/1")).status_code == 404
    again = post(page, "/search", data={"search": answer.url.path.rpartition("/")[2], "camera": "c3", "group": "none"})
    cameras = set(re.findall(r'class="camera">([^<]+)<', again.text))
    assert cameras == {"c3"}
    assert page.get(again.url.path).status_code == 200  # loading the page again searches for nothing


def test_results_are_their_askers_own(serve: MakeServer) -> None:
    client = serve(signed_in=False, token=None)
    for name in ("anna", "bert"):
        add_user(client, name, Role.SEARCH)
    client.post("/login", data={"name": "anna", "password": PASSWORD})
    address = post(client, "/search", data={"row": "row00001"}).url.path
    assert client.get(address).status_code == 200
    client.post("/login", data={"name": "bert", "password": PASSWORD})
    assert client.get(address).status_code == 404


def test_a_search_goes_on_from_a_crop_or_a_walk(page: TestClient) -> None:
    answer = post(page, "/search", data={"row": "row00004", "group": "none"})
    assert "/api/v1/rows/row00004/crop" in [told["src"] for told in check_page(answer).all("img")]
    walk = post(page, "/search", data={"tracklet": "c2-0", "group": "tracklet"})
    assert walk.url.path.startswith("/results/")
    assert post(page, "/search", data={"tracklet": "none"}).status_code == 400


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "send at least one"),
        ({"quality": "much"}, "quality: 'much' is no number"),
        ({"k": "0"}, "k: Input should be greater than or equal to 1"),
        ({"row": "row00001", "since": "yesterday"}, "is no time"),
        ({"row": "row00001", "modality": "thermal"}, "modality: Input should be"),
        ({"row": "row00001", "false_alarms": "2"}, "false_alarms"),
        ({"row": "row00001", "rank": "calibratd"}, "rank: Input should be"),
        ({"row": "row00001", "rank": "calibrated"}, "rank calibrated needs a calibration"),
    ],
)
def test_a_wrong_field_is_named_beside_the_form(page: TestClient, fields: dict[str, str], said: str) -> None:
    answer = post(page, "/search", data=fields)
    assert answer.status_code == 400
    check_page(answer)
    assert said in text_of(answer).replace("&#39;", "'")


def test_a_search_since_a_time_in_no_calendar_is_shown_all_the_same(page: TestClient) -> None:
    headers = {"x-csrf-token": token_of(page)}
    asked = {"rows": ["row00001"], "where": {"until": 1e300}}
    done = page.post("/api/v1/search", json=asked, headers=headers).json()["search"]
    check_page(page.get(f"/results/{done}"))


@pytest.mark.parametrize(
    ("box", "status", "said"),
    [
        (("0", "8", "32", "40"), 200, ""),
        (("0", "8", "32", ""), 400, "give left, top, width and height, or none of them"),
        (("900", "8", "32", "40"), 400, "does not lie in its 32 x 64 pixels"),
        (("a", "8", "32", "40"), 400, "is no number"),
        (("inf", "8", "32", "40"), 400, "is no number"),
        (("0", "nan", "32", "40"), 400, "is no number"),
    ],
)
def test_a_box_cuts_the_person_out(page: TestClient, box: tuple[str, ...], status: int, said: str) -> None:
    data = dict(zip(("left", "top", "width", "height"), box, strict=True))
    answer = post(page, "/search", data=data, files={"pictures": ("frame.jpg", a_picture(2), "image/jpeg")})
    assert answer.status_code == status
    assert said in text_of(answer)
    if status == 200:
        shown = re.search(r'src="(/results/[^"]+)"', answer.text)
        assert shown
        picture = cv2.imdecode(np.frombuffer(page.get(shown[1]).content, np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape[:2] == (40, 32)


def test_no_picture_is_named_and_no_error_of_the_server(page: TestClient) -> None:
    answer = post(page, "/search", files={"pictures": (EVIL, b"<svg onload=alert(1)>", "image/svg+xml")})
    assert answer.status_code == 415
    check_page(answer)


def test_a_verdict_is_clear_at_the_top(page: TestClient, store: Store, model: Model) -> None:
    answer = post(page, "/search", data={"row": "row00001"})
    assert "No probability" in text_of(answer)
    assert "not calibrated" in text_of(answer)

    assert store.folder is not None
    twin = row_with_crop(store.folder, a_row(70), model, 1)
    store.upsert([twin], store.fetch(["row00001"]).vectors)
    tail = Tail((0.001, 0.02, 1.0), (0.9, 0.9, -1.0))
    pairs = ("visible-visible", "visible-infrared", "infrared-infrared")
    fitted = PairCalibration((0.1, 0.95), (0.05, 0.999), tail, {100: tail}, {"people": 40})
    calibration = Calibration({}, {}, "test", 0, 0.5, "isotonic", (0.01,), dict.fromkeys(pairs, fitted))
    service = service_of(page)
    service.calibration = calibration
    service.searches = Searches(store, model, calibration, service.hide)
    own = post(page, "/search", data={"row": "row00001", "false_alarms": "0.01"})
    assert re.search(r'class="verdict match".*?<h2 id="verdict">1 match</h2>', own.text, re.DOTALL)
    assert "> 99 %" in text_of(own).replace("&gt;", ">")
    none = post(page, "/search", data={"row": "row00001", "camera": "c3", "false_alarms": "0.01"})
    assert re.search(r'class="verdict miss".*?<h2 id="verdict">No match</h2>', none.text, re.DOTALL)
    assert re.search("(?i)no match above", text_of(none))
    apart = post(page, "/search", data={"row": "row00001", "rank": "calibrated"})
    assert "merged by probability" in text_of(apart)
    (tick,) = [told for told in check_page(apart).all("input") if told.get("name") == "rank"]
    assert "checked" in tick
    for rank in ("similarity", "calibrated"):
        asked = {"rows": ["row00001"], "rank": rank, "k": 50, "group": "none"}
        told = page.post("/api/v1/search", json=asked, headers={"x-csrf-token": token_of(page)}).json()
        assert ("merged by probability" in told["queries"][0]["verdict"]) == (rank == "calibrated")
    nothing = post(page, "/search", data={"row": "row00001", "since": "2031-01-01T00:00"})
    assert "Nothing to compare with" in text_of(nothing)


def test_a_search_is_exported_as_one_file(page: TestClient) -> None:
    found = post(page, "/search", files={"pictures": ("coat.jpg", a_picture(3), "image/jpeg")})
    search = found.url.path.rpartition("/")[2]
    told = {"search": search, "title": EVIL, "notes": "seen at the gate"}
    html = post(page, "/case", data=told | {"format": "html"})
    assert html.headers["content-disposition"].startswith("attachment")
    assert "seen at the gate" in html.text
    assert "<script>alert" not in html.text
    assert post(page, "/case", data=told | {"format": "zip"}).content.startswith(b"PK")
    assert post(page, "/case", data={"search": "none"}).status_code == 404
    assert post(page, "/case", data=told | {"format": "pdf"}).status_code == 400


def test_a_sighting_shows_its_walk_its_facts_and_an_enhanced_picture(page: TestClient, store: Store) -> None:
    answer = page.get("/sightings/row00003")
    seen = check_page(answer)
    words = text_of(answer)
    walk = [row for row in store.find() if row.sighting.tracklet == "c1-0"]
    assert f"{len(walk)} crops" in words
    assert "30 × 80 pixels at 3, 2" in words
    assert "too dark to match" in words
    assert "night1.mp4" in words
    assert "plain brightening" in words  # the model of these tests has no DCE-Net
    (made,) = [told["src"] or "" for told in seen.all("img") if (told["src"] or "").endswith("/enhanced")]
    picture = page.get(made)
    assert picture.headers["content-type"] == "image/jpeg"
    assert cv2.imdecode(np.frombuffer(picture.content, np.uint8), cv2.IMREAD_COLOR).shape == (64, 32, 3)
    assert page.get("/sightings/none/enhanced").status_code == 404


def test_a_crop_that_is_deleted_while_its_page_is_made_is_not_found(
    page: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "find", lambda _: [])
    answer = page.get("/sightings/row00001")
    assert answer.status_code == 404
    assert "deleted just now" in text_of(answer)


def test_deleting_needs_a_tick_and_takes_the_walk_or_one_crop(page: TestClient, store: Store) -> None:
    refused = post(page, "/delete", data={"row": "row00003", "what": "tracklet"})
    assert refused.status_code == 400
    assert store.count() == ROWS
    answer = post(page, "/delete", data={"row": "row00003", "what": "row", "sure": "yes"})
    assert "1 crop was deleted for good." in text_of(answer)
    assert store.count() == ROWS - 1
    answer = post(page, "/delete", data={"row": "row00000", "what": "tracklet", "sure": "yes"})
    assert answer.status_code == 200
    assert store.count('tracklet == "c1-0"') == 0
    assert page.get("/sightings/row00003").status_code == 404
    assert "deleted" in text_of(page.get("/audit"))


def test_browsing_goes_on_by_pages_and_keeps_its_filter(page: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tapetum.service.pages.ROWS_A_PAGE", 5)
    first = page.get("/browse", params={"camera": ["c1", "c2"]})
    assert "16 crops, 1 to 5 shown" in text_of(first)
    (onward,) = [told["href"] or "" for told in check_page(first).all("a") if told.get("rel") == "next"]
    second = page.get(onward)
    assert "6 to 10 shown" in text_of(second)
    assert set(re.findall(r'class="camera">([^<]+)<', second.text)) == {"c1", "c2"}
    wrong = page.get("/browse", params={"since": "yesterday"})
    assert wrong.status_code == 400
    check_page(wrong)


def test_footage_is_chosen_below_the_roots_and_indexed(serve: MakeServer, tmp_path: Path) -> None:
    root = tmp_path / "recorder"
    (root / "night").mkdir(parents=True)
    for number in range(3):
        (root / "night" / f"cam7_{number}.jpg").write_bytes(a_picture(number, (128, 64)))
    client = serve(signed_in=False, footage_roots=(root,))
    client.post("/login", data={"token": TOKEN})
    assert "recorder/" in text_of(client.get("/footage"))
    below = client.get("/footage", params={"path": "recorder/night"})
    assert "cam7_1.jpg" in text_of(below)
    check_page(below)
    answer = post(client, "/jobs", data={"path": "recorder/night", "camera": "yard"})
    assert answer.status_code == 200
    assert "recorder/night" in text_of(answer)
    check_page(answer)
    outside = post(client, "/jobs", data={"path": "recorder/../.."})
    assert outside.status_code == 403
    check_page(outside)
    job = service_of(client).jobs.newest_first()[0]
    assert job.settings["camera"] == "yard"
    assert post(client, "/jobs/none/cancel").status_code == 404
    wrong = post(client, "/jobs", data={"path": "recorder/night", "start": "once"})
    assert wrong.status_code in (200, 400)


def test_the_timeline_says_in_words_what_it_draws() -> None:
    told = TimelineOut(
        start=1_795_291_200.0,
        end=1_795_291_300.0,
        bins=4,
        cameras=[
            CameraOut(camera="c1", rows=3, first=0, last=0, counts=[1, 0, 0, 2]),
            CameraOut(camera="c2", rows=98, first=0, last=0, counts=[0, 0, 0, 98]),
        ],
    )
    line = draw_line(told, read_search_form(QueryParams("camera=c1&since=2026-11-21T20:00:50")))
    assert line.words == "101 crops from 2026-11-21 20:00:00 to 2026-11-21 20:01:40, most at 2026-11-21 20:01:15"
    assert [(bar.all, bar.chosen) for bar in line.bars] == [(4, 4), (0, 0), (0, 0), (100, 4)]
    assert (line.left, line.right) == (20.0, 40.0)
    assert line.ticks[0] == "20:00:00"
    empty = draw_line(TimelineOut(start=0, end=0, bins=4, cameras=[]), read_search_form())
    assert empty.bars == ()


def test_a_searcher_is_shown_no_place_on_the_servers_disk(
    store: Store, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every page, answer and refusal that a searcher can reach, where rows and model were named by absolute paths."""
    place, root = tmp_path / "runs" / "ide", tmp_path / "footage"
    (root / "yard").mkdir(parents=True)
    monkeypatch.setattr(store, "info", replace(store.info, place=str(place)))
    sources = [str(root / "yard" / "1.mp4"), str(tmp_path / "elsewhere" / "gate" / "2.mp4"), "C:\\clips\\gate\\3.mp4"]
    rows = []
    for number, source in enumerate(sources):
        row = row_with_crop(store.folder or tmp_path, a_row(100 + number), model, number)
        rows.append(replace(row, sighting=replace(row.sighting, source=source)))
    store.upsert(rows, some_vectors(len(rows), seed=9, dimension=model.dimension))
    service = build_service(store, model, ServiceOptions(token=TOKEN, footage_roots=(root,)))
    with TestClient(create_app(service), base_url="http://127.0.0.1:8000", client=("127.0.0.1", 40000)) as client:
        add_user(client, "anna", Role.SEARCH)
        assert client.post("/login", data={"name": "anna", "password": PASSWORD}).status_code == 200
        csrf = {"x-csrf-token": token_of(client)}
        asked = [f"row00{number}" for number in range(100, 103)]
        picture = {"pictures": ("coat.jpg", a_picture(3), "image/jpeg")}
        answers = [client.get(address) for address, role in PAGES.items() if role is Role.SEARCH]
        answers += [client.get(f"/sightings/{row}") for row in asked]
        answers += [client.get(f"/api/v1/{name}") for name in ("gallery", "session", "openapi.json", "jobs", "footage")]
        answers += [client.get(f"/api/v1/rows/{row}{more}") for row in asked for more in ("", "/tracklet")]
        answers += [
            client.post(f"/api/v1/{name}", json=body, headers=csrf)
            for name, body in (
                ("browse", {}),
                ("timeline", {}),
                ("search", {"rows": [asked[0]]}),
                ("search", {"rows": ["gone"]}),
                ("search", {"tracklet": "gone"}),
                ("search", {"rows": [asked[0]], "prior": 0.1}),
                ("search", {"rows": [asked[0]], "group": "identity"}),
                ("search", {"rows": [asked[0]], "where": {"expression": "kamera == 1"}}),
                ("jobs", {"path": "footage/yard"}),
                ("delete", {"where": {"ids": [asked[0]]}}),
            )
        ]
        answers += [
            client.post(f"/api/v1/{name}", files=picture, headers=csrf) for name in ("search/pictures", "pictures")
        ]
        answers += [
            post(client, "/search", data=data) for data in ({"row": asked[0]}, {"row": asked[0], "prior": "10"})
        ]
        answers += [post(client, "/search", files=picture), post(client, "/search", data={"tracklet": "gone"})]
        found = client.post("/api/v1/search", json={"rows": [asked[0]]}, headers=csrf).json()
        case = client.post("/api/v1/case", json={"search": found["search"], "format": "html"}, headers=csrf)
        said = {row["id"]: row["source"] for row in client.post("/api/v1/browse", json={}, headers=csrf).json()["rows"]}
    assert [said[row] for row in asked] == ["footage/yard/1.mp4", "gate/2.mp4", "gate/3.mp4"]
    assert "run `tapetum calibrate ide`" in found["queries"][0]["verdict"]
    assert {answer.status_code for answer in answers} >= {200, 400, 403}
    for answer in [*answers, case]:
        for secret in (str(tmp_path), str(store.folder), str(place), "C:\\", str(Path.home()) + "/"):
            assert secret not in answer.text.replace("\\\\", "\\"), (answer.request.url, secret)


def test_a_doubtful_picture_is_said_before_and_beside_its_answers(page: TestClient) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (128, 64, 3)).astype(np.uint8)
    files = {"pictures": ("static.png", cv2.imencode(".png", noise)[1].tobytes(), "image/png")}
    before = page.post("/api/v1/pictures", files=files, headers={"x-csrf-token": token_of(page)}).json()
    assert before["pictures"][0]["doubt"] == "noise, in which nobody can be seen"
    done = post(page, "/search", files=files)
    check_page(done)
    assert "static.png is doubtful because it is noise, in which nobody can be seen. It was searched all the same." in (
        text_of(done)
    )
    answer = page.post("/api/v1/search/pictures", files=files, headers={"x-csrf-token": token_of(page)}).json()
    assert answer["queries"][0]["doubts"] == [["noise, in which nobody can be seen"]]
    nothing = page.post("/api/v1/pictures", headers={"x-csrf-token": token_of(page)}, files={"other": ("x", b"x")})
    assert nothing.status_code == 400
