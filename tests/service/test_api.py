"""The API as a program uses it."""

import asyncio
import errno
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
from fastapi.testclient import TestClient

from gallery_rows import MODEL, some_rows, some_vectors
from service.conftest import ROWS, MakeServer, a_picture, add_user, log_in, service_of
from tapetum.gallery.opening import open_gallery
from tapetum.gallery.schema import Run
from tapetum.gallery.store import Store
from tapetum.searching.retention import erase
from tapetum.service import overview
from tapetum.service.audit import FILE, read_log
from tapetum.service.errors import NotFoundError
from tapetum.service.users import Role


def search(client: TestClient, **asked: Any) -> dict[str, Any]:
    answer = client.post("/api/v1/search", json=asked)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def test_a_search_by_row_ranks_all_others(client: TestClient) -> None:
    told = search(client, rows=["row00003"], group="none", k=5)
    found = told["queries"][0]["found"]
    assert "row00003" not in {each["row"]["id"] for each in found}
    assert [each["rank"] for each in found] == [1, 2, 3, 4, 5]
    similarities = [each["similarity"] for each in found]
    assert similarities == sorted(similarities, reverse=True)


def test_a_search_is_repeated_with_other_options_without_sending_pictures_again(client: TestClient) -> None:
    files = [("pictures", ("person.jpg", a_picture(1), "image/jpeg"))]
    first = client.post("/api/v1/search/pictures", files=files).json()
    again = search(client, search=first["search"], where={"cameras": ["c2"]}, group="none")
    assert again["queries"][0]["labels"] == ["person.jpg"]
    assert {each["row"]["camera"] for each in again["queries"][0]["found"]} == {"c2"}


def test_a_search_of_somebody_else_is_nobodys(client: TestClient) -> None:
    done = search(client, rows=["row00003"])["search"]
    add_user(client, "anna", Role.SEARCH)
    log_in(client, "anna")
    answer = client.post("/api/v1/search", json={"search": done})
    assert answer.status_code == 404
    assert "search again" in answer.json()["error"]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, "name one of rows, tracklet and search"),
        ({"rows": ["row00001"], "tracklet": "c1-0"}, "name one of"),
        ({"rows": ["gone"]}, "may have been deleted"),
        ({"rows": ["row00001"], "where": {"expression": 'camra == "c1"'}}, "did you mean camera?"),
        ({"rows": ["row00001"], "where": {"since": "yesterday"}}, "is no time"),
        ({"rows": ["row00001"], "where": {"since": "2026-11-21 20:00"}}, "has no zone"),
        ({"rows": ["row00001"], "false_alarms": 0.01}, "calibrat"),
        ({"rows": ["row00001"], "cameras": ["c1"]}, "Extra inputs"),
        ({"rows": ["row00001"], "k": 10_000}, "less than or equal to 200"),
    ],
    ids=lambda each: "" if isinstance(each, dict) else each.replace(" ", "_"),
)
def test_a_wrong_question_is_an_error_with_a_remedy(client: TestClient, asked: dict[str, Any], words: str) -> None:
    answer = client.post("/api/v1/search", json=asked)
    assert 400 <= answer.status_code < 500
    assert words in answer.json()["error"]


def test_errors_do_not_say_where_the_gallery_lies(client: TestClient, store: Store) -> None:
    answer = client.post("/api/v1/search", json={"rows": ["gone"]})
    assert str(store.folder) not in answer.text
    assert answer.json()["error"].startswith("gallery: has no row 'gone'")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("WHERE/rows.lance: cannot be read", "gallery/rows.lance: cannot be read"),
        ("WHERE: busy", "gallery: busy"),
        ("FOLDER/crops/a.jpg: damaged", "gallery/crops/a.jpg: damaged"),
        ("ROOT/yard.mp4: no video", "footage/yard.mp4: no video"),
        ("WHERE-2 is another one", "night-2 is another one"),
        ("run `tapetum calibrate ELSEWHERE/ide`", "run `tapetum calibrate ide`"),
        (
            "'ELSEWHERE/a.jpg': damaged; see /footage, /api/v1/jobs",
            "'a.jpg': damaged; see /footage, /api/v1/jobs",
        ),
    ],
)
def test_a_message_names_places_as_clients_know_them(
    serve: MakeServer, store: Store, tmp_path: Path, text: str, shown: str
) -> None:
    root = tmp_path / "footage"
    root.mkdir()
    hide = service_of(serve(footage_roots=(root,))).hide

    def fill(words: str) -> str:
        for word, place in (
            ("ELSEWHERE", str(tmp_path)),
            ("WHERE", store.where),
            ("FOLDER", str(store.folder)),
            ("ROOT", str(root)),
        ):
            words = words.replace(word, place)
        return words

    assert hide(fill(text)) == fill(shown)


def test_what_lies_below_a_root_in_another_root_is_named_by_the_inner_one(serve: MakeServer, tmp_path: Path) -> None:
    outer, inner = tmp_path / "footage", tmp_path / "footage" / "nights"
    inner.mkdir(parents=True)
    for roots in ((outer, inner), (inner, outer)):
        service = service_of(serve(footage_roots=roots))
        assert service.name_source(str(inner / "yard.mp4")) == "nights/yard.mp4"
        assert service.name_source(str(outer / "yard.mp4")) == "footage/yard.mp4"
        assert service.hide(f"{inner}/yard.mp4: no video") == "nights/yard.mp4: no video"


def test_a_gallery_called_by_a_dot_leaves_other_dots_alone(
    serve: MakeServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "where", ".")
    hide = service_of(serve()).hide
    assert hide("quality: 3.5 is too much... choose 0.5.") == "quality: 3.5 is too much... choose 0.5."
    assert hide(".: busy") == "gallery: busy"


def test_nobody_pushes_out_the_searches_of_others(serve: MakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tapetum.service.searches.MOST_SEARCHES", 3)
    client = serve()
    add_user(client, "anna", Role.SEARCH)
    _, key = service_of(client).users.add_key("anna", "a script")
    hers = client.post("/api/v1/search", json={"rows": ["row00003"]}, headers={"authorization": f"Bearer {key}"}).json()
    mine = [search(client, rows=["row00003"])["search"] for _ in range(5)]
    kept = service_of(client).searches
    assert kept.find(hers["search"], "anna")
    assert [kept.find(each, "owner").id for each in mine[2:]] == mine[2:]
    with pytest.raises(NotFoundError, match="search again"):
        kept.find(mine[1], "owner")


def test_a_search_that_holds_somebody_who_was_deleted_is_forgotten(client: TestClient) -> None:
    by_row = search(client, rows=["row00003"], where={"ids": ["row00003"]})["search"]
    found = search(client, rows=["row00004"], k=200, group="none")["search"]
    other = search(client, rows=["row00004"], where={"ids": ["row00005"]})["search"]
    client.post("/api/v1/delete", json={"where": {"ids": ["row00003"]}})
    statuses = [client.post("/api/v1/search", json={"search": each}).status_code for each in (by_row, found, other)]
    assert statuses == [404, 404, 200]


def test_a_search_that_holds_somebody_whom_another_process_erased_is_forgotten(
    client: TestClient, store: Store
) -> None:
    files = [("pictures", ("person.jpg", a_picture(1), "image/jpeg"))]
    options = {"group": "none", "k": 200}
    answer = client.post("/api/v1/search/pictures", files=files, data={"options": json.dumps(options)})
    found = answer.json()["search"]
    by_row = search(client, rows=["row00003"], where={"ids": ["row00005"]})["search"]
    other = search(client, rows=["row00004"], where={"ids": ["row00005"]})["search"]
    assert store.folder is not None
    with open_gallery(store.folder) as second:
        erase(second, 'id == "row00003"')
    for gone in (found, by_row):
        assert client.post("/api/v1/case", json={"search": gone}).status_code == 404
        assert client.get(f"/results/{gone}").status_code == 404
        assert client.post("/api/v1/search", json={"search": gone}).status_code == 404
    assert client.get(f"/results/{found}/pictures/0").status_code == 404
    assert client.post("/api/v1/case", json={"search": other}).status_code == 200


def test_a_search_by_an_uploaded_picture_honours_filter_and_expression(client: TestClient) -> None:
    options = {"where": {"cameras": ["c1"], "expression": "quality >= 0"}, "group": "none", "k": 50}
    files = [("pictures", ("person.jpg", a_picture(1), "image/jpeg"))]
    answer = client.post("/api/v1/search/pictures", files=files, data={"options": json.dumps(options)})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["filter"] == 'camera in ("c1") and quality >= 0.0'
    found = told["queries"][0]["found"]
    assert found
    assert {each["row"]["camera"] for each in found} == {"c1"}


def test_rows_of_one_time_are_on_one_page_each_also_when_one_is_written_again_meanwhile(tmp_path: Path) -> None:
    rows = [
        replace(row, sighting=replace(row.sighting, time=float(number // 40)))
        for number, row in enumerate(some_rows(100))
    ]
    shuffled = [rows[place] for place in np.random.default_rng(0).permutation(100)]
    with open_gallery(tmp_path / "pages", create=MODEL) as opened:
        opened.upsert(shuffled, some_vectors(100))
        told = []
        for offset in range(0, 120, 30):
            total, page = overview.browse(opened, None, offset, 30)
            assert total == 100
            told += [row.sighting.id for row in page]
            opened.upsert([rows[50 - offset // 3]], some_vectors(1))
        assert told == [row.sighting.id for row in rows] == [row.sighting.id for row in opened.find()]
        assert overview.browse(opened, None, 100, 30) == (100, [])


def test_pages_of_rows_follow_time(client: TestClient) -> None:
    first = client.post("/api/v1/browse", json={"limit": 10}).json()
    second = client.post("/api/v1/browse", json={"limit": 200, "offset": 10}).json()
    times = [row["time"] for row in first["rows"] + second["rows"]]
    assert first["total"] == ROWS == len(times)
    assert times == sorted(times)


def test_the_picture_of_a_row_comes_as_it_was_stored(client: TestClient, store: Store) -> None:
    answer = client.get("/api/v1/rows/row00002/crop")
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.content == a_picture(2)


def test_rows_without_a_picture_and_unknown_ones_are_not_found(client: TestClient, store: Store) -> None:
    for name in ("nobody", "row00001%00", "..%2F..%2Fgallery.json", "x" * 5000):
        answer = client.get(f"/api/v1/rows/{name}/crop")
        assert answer.status_code == 404, name


def test_a_crop_that_is_a_link_is_not_followed(client: TestClient, store: Store, tmp_path: Path) -> None:
    assert store.folder is not None
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(a_picture(99))
    crop = store.folder / store.fetch_rows(["row00002"])[0].sighting.crop
    crop.unlink()
    crop.symlink_to(secret)
    assert client.get("/api/v1/rows/row00002/crop").status_code == 404
    folder = store.folder / "crops" / "c1"
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert client.get("/api/v1/rows/row00003/crop").status_code == 404


def test_the_tracklet_of_a_row_is_told_by_time(client: TestClient) -> None:
    told = client.get("/api/v1/rows/row00007/tracklet").json()
    assert {row["tracklet"] for row in told["rows"]} == {told["tracklet"]}
    assert "row00007" in {row["id"] for row in told["rows"]}
    times = [row["time"] for row in told["rows"]]
    assert times == sorted(times)


def test_the_time_line_counts_every_row_once(client: TestClient) -> None:
    told = client.post("/api/v1/timeline?bins=7", json={}).json()
    assert sum(sum(camera["counts"]) for camera in told["cameras"]) == ROWS
    assert [camera["camera"] for camera in told["cameras"]] == ["c1", "c2", "c3"]
    assert {len(camera["counts"]) for camera in told["cameras"]} == {7}
    none = client.post("/api/v1/timeline", json={"cameras": ["nowhere"]}).json()
    assert none["cameras"] == []


def test_the_time_line_of_all_pages_is_drawn_anew_only_when_rows_came_or_went(
    client: TestClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    draw = overview.draw_timeline
    monkeypatch.setattr(overview, "draw_timeline", lambda *asked: drawn.append(asked) or draw(*asked))
    timeline = service_of(client).timeline
    assert timeline.draw() is timeline.draw()
    assert len(drawn) == 1
    client.post("/api/v1/delete", json={"where": {"ids": ["row00003"]}})
    assert sum(camera.rows for camera in timeline.draw().cameras) == ROWS - 1
    later = time.monotonic() + overview.KEPT_SECONDS
    monkeypatch.setattr("tapetum.service.overview.time.monotonic", lambda: later)
    assert timeline.draw() is timeline.draw()
    assert len(drawn) == 3


def test_a_growing_gallery_has_its_time_line_drawn_every_few_seconds(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(overview, "time", SimpleNamespace(monotonic=lambda: now[0]))
    timeline = overview.WholeTimeline(store, 7)

    def drawn_rows() -> int:
        return sum(camera.rows for camera in timeline.draw().cameras)

    assert drawn_rows() == ROWS
    info = store.info
    run = Run(info.id, "torch", "fp32")
    store.upsert([replace(row, run=run) for row in some_rows(3, 900)], some_vectors(3, dimension=info.dimension))
    now[0] += overview.GROWING_SECONDS - 0.1
    assert drawn_rows() == ROWS
    now[0] += 0.1
    assert drawn_rows() == ROWS + 3
    store.delete("frame == 900")
    assert drawn_rows() == ROWS + 2


def test_deleting_removes_rows_and_pictures_and_says_how_many(client: TestClient, store: Store) -> None:
    assert store.folder is not None
    crop = store.folder / store.fetch_rows(["row00003"])[0].sighting.crop
    where = {"cameras": ["c1"], "until": "2026-11-21T20:10Z"}
    counted = client.post("/api/v1/delete", json={"where": where, "dry_run": True}).json()
    assert counted == {"rows": 4, "dry_run": True}
    assert crop.exists()
    assert client.post("/api/v1/delete", json={"where": where}).json() == {"rows": 4, "dry_run": False}
    assert not crop.exists()
    assert store.count() == ROWS - 4
    assert client.get("/api/v1/rows/row00003").status_code == 404


def test_nobody_deletes_everything_by_leaving_the_filter_out(client: TestClient, store: Store) -> None:
    answer = client.post("/api/v1/delete", json={"where": {}})
    assert answer.status_code == 400
    assert "say which rows" in answer.json()["error"]
    assert store.count() == ROWS


def test_numbers_for_prometheus_count_what_was_done(client: TestClient) -> None:
    search(client, rows=["row00003"])
    text = client.get("/api/v1/metrics").text
    assert 'tapetum_searches_total{kind="rows"} 1.0' in text
    assert 'tapetum_requests_total{method="POST",route="/api/v1/search",status="200"} 1.0' in text
    assert f"tapetum_gallery_rows {ROWS}.0" in text


def test_an_unexpected_error_has_an_id_that_is_in_the_log(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def break_down(*_: object, **__: object) -> None:
        raise RuntimeError("the secret of the house")

    monkeypatch.setattr(service_of(client).store, "count", break_down)
    answer = client.get("/api/v1/gallery")
    assert answer.status_code == 500
    told = answer.json()
    assert told["id"] in told["error"]
    assert "secret" not in answer.text
    assert told["id"] in caplog.text
    assert "secret of the house" in caplog.text


def test_a_full_disk_is_said_to_be_one(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fill)
        answer = client.post("/api/v1/search", json={"rows": ["row00003"]})
    assert answer.status_code == 507
    assert "nothing is done unrecorded" in answer.json()["error"]


def test_a_body_is_not_read_beyond_its_limit(client: TestClient) -> None:
    stated = client.post("/api/v1/search", content=b" " * (2**20 + 1), headers={"content-type": "application/json"})
    assert stated.status_code == 413
    assert "at most 1048576 are read" in stated.json()["error"]


def test_a_body_that_takes_for_ever_is_not_waited_for(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tapetum.service.app.WHOLE_BODY_SECONDS", -1.0)  # its time is over when it begins
    answer = client.post("/api/v1/browse", json={})
    assert answer.status_code == 408
    assert "did not come" in answer.json()["error"]


def test_a_body_without_a_length_is_not_read_beyond_its_limit_either(client: TestClient) -> None:
    parts, answers = 0, []

    async def receive() -> dict[str, Any]:
        nonlocal parts
        parts += 1
        return {"type": "http.request", "body": b" " * 2**16, "more_body": True}

    async def send(message: dict[str, Any]) -> None:
        answers.append(message)

    headers = {"host": "localhost", "content-type": "application/json", **client.headers}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/v1/search",
        "raw_path": b"/api/v1/search",
        "root_path": "",
        "query_string": b"",
        "scheme": "http",
        "http_version": "1.1",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    asyncio.run(client.app(scope, receive, send))  # type: ignore[arg-type]
    assert answers[0]["status"] == 413
    assert b"more than 1048576 bytes" in answers[1]["body"]
    assert parts == 17


def test_too_much_at_once_is_refused_with_a_time_to_wait(serve: MakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    client = serve(searches_at_once=1, queue=0)
    service = service_of(client)
    gate, entered = threading.Event(), threading.Event()
    count = service.store.count

    def slow() -> int:
        entered.set()
        assert gate.wait(30)
        return count()

    monkeypatch.setattr(service.store, "count", slow)
    with ThreadPoolExecutor(1) as others:
        first = others.submit(client.get, "/api/v1/gallery")
        assert entered.wait(30)
        answer = client.get("/api/v1/gallery")
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert client.get("/api/v1/health/live").status_code == 200  # the event loop is not kept waiting
        gate.set()
        assert first.result().status_code == 200


@pytest.mark.parametrize("kind", ["html", "zip"])
def test_a_search_is_exported_as_one_file_with_its_pictures(client: TestClient, kind: str) -> None:
    files = [("pictures", ("person.jpg", a_picture(1), "image/jpeg"))]
    done = client.post("/api/v1/search/pictures", files=files).json()
    asked = {"search": done["search"], "title": "Who was it? <b>", "notes": "the gate", "format": kind}
    answer = client.post("/api/v1/case", json=asked)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-disposition"].startswith("attachment")
    if kind == "zip":
        with ZipFile(BytesIO(answer.content)) as archive:
            assert {"index.html", "case.json"} <= set(archive.namelist())
            page = archive.read("index.html").decode()
    else:
        page = answer.text
        assert "data:image/jpeg;base64," in page
    assert "Who was it? &lt;b&gt;" in page
    assert done["queries"][0]["found"][0]["row"]["id"] in page
    assert "night" in page
    assert str(service_of(client).folder.parent) not in page
    (line,) = [each for each in read_log(service_of(client).folder / FILE) if each["action"] == "export"]
    assert line["sha256"] == sha256(answer.content).hexdigest()
