"""The log of what was done: complete, linked, without secrets."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.conftest import PASSWORD, TOKEN, a_picture, add_user, log_in, service_of
from tapetum.data.image_io import read_picture
from tapetum.service.audit import FILE, AuditError, AuditLog, hash_thumbnail, read_log, verify_log
from tapetum.service.users import Role


def fill(folder: Path, lines: int = 5) -> Path:
    log = AuditLog(folder)
    for number in range(lines):
        log.write("search", "anna", number=number)
    return folder / FILE


def write_many(folder: Path, who: str) -> None:
    log = AuditLog(folder)
    for number in range(25):
        log.write("search", who, number=number)


@contextmanager
def changed(path: Path) -> Iterator[list[bytes]]:
    lines = path.read_bytes().splitlines()
    yield lines
    path.write_bytes(b"".join(line + b"\n" for line in lines))


def test_an_untouched_log_is_whole(tmp_path: Path) -> None:
    path = fill(tmp_path)
    found = verify_log(path)
    assert (found.lines, found.cut_off) == (5, 0)
    assert [line["number"] for line in read_log(path)] == list(range(5))
    assert os.name == "nt" or path.stat().st_mode & 0o077 == 0


def test_a_changed_line_is_noticed(tmp_path: Path) -> None:
    path = fill(tmp_path)
    with changed(path) as lines:
        lines[2] = lines[2].replace(b"anna", b"otto")
    with pytest.raises(AuditError, match="line 4 does not follow"):
        verify_log(path)


@pytest.mark.parametrize("place", [0, 2])
def test_a_removed_line_is_noticed(tmp_path: Path, place: int) -> None:
    path = fill(tmp_path)
    with changed(path) as lines:
        del lines[place]
    with pytest.raises(AuditError, match=f"line {place + 1} does not follow"):
        verify_log(path)


def test_a_line_put_in_between_is_noticed_even_if_it_is_rubbish(tmp_path: Path) -> None:
    path = fill(tmp_path)
    with changed(path) as lines:
        lines.insert(2, b"rubbish")
    with pytest.raises(AuditError, match="does not follow"):
        verify_log(path)


def test_lines_cut_off_the_end_are_noticed_by_whoever_noted_the_digest(tmp_path: Path) -> None:
    path = fill(tmp_path)
    noted = verify_log(path).digest
    AuditLog(tmp_path).write("search", "anna")
    assert verify_log(path, noted).lines == 6
    with changed(path) as lines:
        del lines[4:]
    assert verify_log(path).lines == 4
    with pytest.raises(AuditError, match="cut off its end"):
        verify_log(path, noted)


@pytest.mark.parametrize("kept", [1, 40, -1])
def test_a_line_that_a_power_cut_interrupted_ends_nothing(tmp_path: Path, kept: int) -> None:
    path = fill(tmp_path)
    whole = path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    path.write_bytes(whole[: -len(last)] + last[:kept])
    AuditLog(tmp_path).write("search", "otto")
    found = verify_log(path)
    assert found.lines + found.cut_off == 6
    assert found.cut_off == (kept != -1)  # all but the line's end is a whole line
    assert list(read_log(path))[-1]["who"] == "otto"


def test_several_writers_make_one_chain(tmp_path: Path) -> None:
    writers = [threading.Thread(target=write_many, args=(tmp_path, f"writer {number}")) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert verify_log(tmp_path / FILE).lines == 100


def test_a_very_long_line_is_linked_like_any_other(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    log.write("search", "anna", results=["row" * 20] * 5000)
    log.write("search", "anna")
    assert verify_log(tmp_path / FILE).lines == 2


def test_a_line_is_on_the_disk_before_the_answer_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(descriptor), sync(descriptor))[1])
    AuditLog(tmp_path).write("search", "anna")
    assert synced


def test_a_log_behind_a_link_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Exception, match="cannot be written"):
        AuditLog(tmp_path / "service").write("search", "anna")
    assert not (tmp_path / "elsewhere").exists()


def lines_of(client: TestClient, action: str) -> list[dict[str, Any]]:
    return [line for line in read_log(service_of(client).folder / FILE) if line["action"] == action]


def test_a_search_is_written_down_with_who_what_and_the_answer(client: TestClient, tmp_path: Path) -> None:
    picture = a_picture(1)
    (tmp_path / "person.jpg").write_bytes(picture)
    files = [("pictures", ("person.jpg", picture, "image/jpeg"))]
    options = json.dumps({"where": {"cameras": ["c1"]}, "k": 3, "group": "none"})
    told = client.post("/api/v1/search/pictures", files=files, data={"options": options}).json()
    (line,) = lines_of(client, "search")
    assert (line["who"], line["by"], line["address"]) == ("owner", "token", "127.0.0.1")
    assert line["query"] == [hash_thumbnail(read_picture(tmp_path / "person.jpg"))]
    assert line["filter"] == 'camera in ("c1")'
    assert line["results"] == [found["row"]["id"] for found in told["queries"][0]["found"]]
    assert line["count"] == 3
    assert line["options"] == {"k": 3, "group": "none"}


def test_all_results_of_a_search_are_written_down_however_many(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tapetum.service.state.MOST_LOGGED", 10)
    answer = client.post("/api/v1/search", json={"rows": ["row00001"], "k": 200, "group": "none"}).json()
    lines = lines_of(client, "search")
    logged = [name for line in lines for name in line["results"]]
    assert len(lines) == 3
    assert logged == [found["row"]["id"] for found in answer["queries"][0]["found"]]
    assert {(line["search"], line["count"]) for line in lines} == {(answer["search"], len(logged))}


def test_a_search_without_results_is_written_down_too(client: TestClient) -> None:
    client.post("/api/v1/search", json={"rows": ["row00001"], "where": {"cameras": ["none"]}})
    (line,) = lines_of(client, "search")
    assert (line["results"], line["count"]) == ([], 0)


def test_the_latest_lines_are_read_alone(tmp_path: Path) -> None:
    path = fill(tmp_path, 5)
    assert list(read_log(path, 2)) == list(read_log(path))[-2:]
    assert list(read_log(path, 99)) == list(read_log(path))


@pytest.mark.parametrize("cut_off", [b"", b'{"time"'])
def test_the_latest_lines_are_read_without_the_rest_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut_off: bytes
) -> None:
    path = fill(tmp_path, 40)
    with path.open("ab") as file:
        file.write(cut_off)
    lines = list(read_log(path))
    monkeypatch.setattr("tapetum.service.audit._TAIL", 64)
    read: list[int] = []
    read_bytes = os.read
    monkeypatch.setattr(os, "read", lambda *asked: read.append(asked[1]) or read_bytes(*asked))
    for last in (1, 2, 7, 39, 40, 41, 1000):
        wanted = last - bool(cut_off)  # the line that was cut off is one of the last, and left out
        assert list(read_log(path, last)) == (lines[-wanted:] if wanted else [])
        assert read[-1] <= 4 * 300 * last
    path.write_bytes(b"")
    assert list(read_log(path, 3)) == []


def test_a_search_by_row_is_written_down_with_the_row_and_its_picture(client: TestClient) -> None:
    client.post("/api/v1/search", json={"rows": ["row00003"]})
    (line,) = lines_of(client, "search")
    assert line["rows"] == ["row00003"]
    assert len(line["query"]) == 1


def test_a_deletion_is_written_down_before_anything_goes(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    client.post("/api/v1/delete", json={"where": {"ids": ["row00001", "row00002"]}})
    (before,), (after,) = lines_of(client, "delete"), lines_of(client, "deleted")
    assert sorted(before["results"]) == ["row00001", "row00002"]
    assert after["count"] == 2

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    store = service_of(client).store
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        assert client.post("/api/v1/delete", json={"where": {"ids": ["row00005"]}}).status_code == 507
    assert store.count('id == "row00005"') == 1


def test_nothing_secret_is_in_the_log(client: TestClient) -> None:
    add_user(client, "anna", Role.ADMINISTER)
    log_in(client, "anna")
    client.post("/api/v1/login", json={"name": "anna", "password": "a wrong password"})
    client.post("/api/v1/login", json={"token": TOKEN})
    text = (service_of(client).folder / FILE).read_text()
    for secret in (PASSWORD, TOKEN, "a wrong password", client.headers["x-csrf-token"], *client.cookies.values()):
        assert secret not in text
    assert {"login", "login refused"} <= {line["action"] for line in read_log(service_of(client).folder / FILE)}
    verify_log(service_of(client).folder / FILE)
