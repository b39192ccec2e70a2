"""Index jobs: one at a time, in the background, known again after a restart."""

import errno
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.conftest import ROWS, MakeServer, a_picture, service_of
from tapetum.core.errors import DataError
from tapetum.footage.clock import format_time
from tapetum.gallery.store import Store
from tapetum.service.errors import ConflictError, ForbiddenError, NotFoundError
from tapetum.service.jobs import Job, Jobs, Progress

Stop = Callable[[], bool]
Result = tuple[list[str], dict[str, Any], bool]


def wait_for(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)


class Bench:
    """Jobs whose work waits until it is let go."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "footage"
        (self.root / "night").mkdir(parents=True, exist_ok=True)
        self.go, self.begun = threading.Event(), threading.Event()
        self.told: list[tuple[str, str]] = []
        self.active = self.most_active = 0
        self.error: Exception | None = None
        self.jobs = self.restart()

    def restart(self) -> Jobs:
        self.jobs = Jobs(self.folder, (self.root,), self.work, lambda job: self.told.append((job.id, job.state)))
        return self.jobs

    def work(self, job: Job, place: Path, progress: Progress, stop: Stop) -> Result:
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            progress(3, 10)
            self.begun.set()
            while not self.go.wait(0.005):
                if stop():
                    return [], {}, True
            if self.error:
                raise self.error
            return ["rows: 5 added"], {"added": 5}, False
        finally:
            self.active -= 1


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.jobs.close()


def test_a_job_goes_from_waiting_to_done_and_says_how_far_it_is(bench: Bench) -> None:
    job = bench.jobs.add("footage/night", {}, "anna")
    assert job.state == "waiting"
    bench.jobs.start()
    assert bench.begun.wait(30)
    now = bench.jobs.find(job.id)
    assert (now.state, now.done, now.total) == ("running", 3, 10)
    bench.go.set()
    wait_for(lambda: bench.told[-1][1] == "done")
    assert bench.jobs.find(job.id).report == {"added": 5}
    assert [state for _, state in bench.told] == ["waiting", "running", "done"]


def test_jobs_run_one_at_a_time_in_their_order(bench: Bench) -> None:
    made = [bench.jobs.add("footage", {"n": number}, "anna") for number in range(4)]
    bench.go.set()
    bench.jobs.start()
    wait_for(lambda: all(job.state == "done" for job in bench.jobs.newest_first()))
    assert bench.most_active == 1
    started = [job for job, state in bench.told if state == "running"]
    assert sorted(started) == sorted(job.id for job in made)


def test_a_job_is_cancelled_waiting_or_running_and_resumed(bench: Bench) -> None:
    first, second = bench.jobs.add("footage", {}, "anna"), bench.jobs.add("footage", {}, "anna")
    bench.jobs.start()
    assert bench.begun.wait(30)
    running = next(job for job in bench.jobs.newest_first() if job.state == "running")
    waiting = first if running.id == second.id else second
    assert bench.jobs.cancel(waiting.id).state == "cancelled"
    bench.jobs.cancel(running.id)
    wait_for(lambda: bench.jobs.find(running.id).state == "cancelled")
    with pytest.raises(ConflictError, match="is cancelled already"):
        bench.jobs.cancel(running.id)
    bench.go.set()
    assert bench.jobs.resume(running.id).state == "waiting"
    wait_for(lambda: bench.jobs.find(running.id).state == "done")
    with pytest.raises(ConflictError, match="is done"):
        bench.jobs.resume(running.id)


def test_after_a_restart_jobs_are_there_and_unfinished_ones_can_be_resumed(bench: Bench) -> None:
    job = bench.jobs.add("footage", {"camera": "yard"}, "anna")
    bench.jobs.start()
    assert bench.begun.wait(30)
    later = bench.jobs.add("footage", {}, "anna")
    bench.jobs.close()
    again = bench.restart()
    assert {again.find(each.id).state for each in (job, later)} == {"interrupted"}
    bench.go.set()
    again.start()
    again.resume(job.id)
    wait_for(lambda: again.find(job.id).state == "done")
    assert again.find(job.id).settings == {"camera": "yard"}


def test_a_killed_server_leaves_its_job_as_interrupted(bench: Bench) -> None:
    job = bench.jobs.add("footage", {}, "anna")
    path = bench.jobs.folder / f"{job.id}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"state": "running", "done": 4}))
    (bench.jobs.folder / "20260101000000-00000000.json").write_text("{")
    again = bench.restart()
    assert [(each.id, each.state, each.done) for each in again.newest_first()] == [(job.id, "interrupted", 4)]


def test_an_error_ends_its_job_and_not_the_next(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.error = DataError("yard.mp4: no video")
    bench.go.set()
    bench.jobs.start()
    job = bench.jobs.add("footage", {}, "anna")
    wait_for(lambda: bench.jobs.find(job.id).state == "failed")
    assert bench.jobs.find(job.id).message == "yard.mp4: no video"
    bench.error = RuntimeError("the secret of the house")
    job = bench.jobs.resume(job.id)
    wait_for(lambda: bench.jobs.find(job.id).state == "failed")
    assert "secret" not in bench.jobs.find(job.id).message
    assert "secret of the house" in caplog.text
    bench.error = None
    job = bench.jobs.resume(job.id)
    wait_for(lambda: bench.jobs.find(job.id).state == "done")


def test_nothing_outside_the_roots_can_be_read(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (bench.root / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "footage2").mkdir()
    for path in ("", "/", "secret", "footage2", str(tmp_path / "secret"), "footage/../secret", "footage/link", "\0"):
        with pytest.raises(ForbiddenError, match="root"):
            bench.jobs.add(path, {}, "anna")
    for path in ("footage/none", "footage/night/\0"):
        with pytest.raises((NotFoundError, ForbiddenError)):
            bench.jobs.add(path, {}, "anna")
    assert bench.jobs.look("") == [("footage", True)]
    assert bench.jobs.look("footage") == [("footage/night", True)]


def test_a_folder_with_odd_names_is_shown_and_one_that_cannot_be_read_is_named(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bench.root / "night" / "yard.mp4").touch()
    (bench.root / "night" / os.fsdecode(b"b\xff.mp4")).touch()
    assert bench.jobs.look("footage/night") == [("footage/night/yard.mp4", False)]

    def refuse(_: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tapetum.service.jobs.os.scandir", refuse)
    with pytest.raises(ForbiddenError, match=r"cannot be looked into \(Permission denied\)"):
        bench.jobs.look("footage/night")


def test_a_job_that_is_cancelled_just_before_it_begins_does_not_begin(bench: Bench) -> None:
    with bench.jobs.writing():  # the job is taken up and waits for this
        job = bench.jobs.add("footage", {}, "anna")
        bench.jobs.start()
        time.sleep(0.05)
        assert bench.jobs.cancel(job.id).state == "cancelled"
    bench.go.set()
    last = bench.jobs.add("footage", {}, "anna")
    wait_for(lambda: bench.jobs.find(last.id).state == "done")
    assert [state for name, state in bench.told if name == job.id] == ["waiting", "cancelled"]


def test_old_jobs_are_forgotten(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tapetum.service.jobs.MOST_KEPT", 3)
    bench.go.set()
    bench.jobs.start()
    for _ in range(6):
        job = bench.jobs.add("footage", {}, "anna")
        wait_for(lambda: bench.told[-1] == (job.id, "done"))  # noqa: B023
    assert len(bench.jobs.newest_first()) == len(list(bench.jobs.folder.glob("*.json"))) == 3
    assert bench.jobs.find(job.id).state == "done"


def test_nobody_deletes_while_a_job_writes(bench: Bench) -> None:
    bench.jobs.start()
    bench.jobs.add("footage", {}, "anna")
    assert bench.begun.wait(30)
    with pytest.raises(ConflictError, match="wait for it or cancel it"), bench.jobs.writing():
        pass
    bench.go.set()

    def can_write() -> bool:
        try:
            with bench.jobs.writing():
                return True
        except ConflictError:
            return False

    wait_for(can_write)
    assert bench.jobs.counts()["done"] == 1


def footage(folder: Path) -> Path:
    crops = folder / "footage" / "yard"
    crops.mkdir(parents=True)
    for number in range(3):
        (crops / f"person_{number}.jpg").write_bytes(a_picture(100 + number, (96, 40)))
    return folder / "footage"


def do_job(client: TestClient, **asked: Any) -> dict[str, Any]:
    """Ask for a job and wait for its end."""
    answer = client.post("/api/v1/jobs", json=asked)
    assert answer.status_code == 201, answer.text
    name = answer.json()["id"]
    wait_for(lambda: client.get(f"/api/v1/jobs/{name}").json()["ended"] is not None)
    told: dict[str, Any] = client.get(f"/api/v1/jobs/{name}").json()
    return told


def test_a_job_brings_footage_into_the_gallery_that_is_being_searched(
    serve: MakeServer, store: Store, tmp_path: Path
) -> None:
    client: TestClient = serve(footage_roots=(footage(tmp_path),))
    assert client.get("/api/v1/footage").json()["entries"] == [{"path": "footage", "folder": True}]
    told = do_job(client, path="footage/yard", kind="crops", camera="yard", start="2026-11-21T20:00Z", run="first")
    assert told["state"] == "done", told
    assert told["report"]["added"] == 3
    assert client.get("/api/v1/gallery").json()["rows"] == ROWS + 3
    rows = client.post("/api/v1/browse", json={"where": {"runs": ["first"]}}).json()["rows"]
    assert {row["camera"] for row in rows} == {"yard"}
    assert client.get(rows[0]["crop"]).status_code == 200
    assert client.get("/api/v1/jobs").json()[0]["id"] == told["id"]


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ({"path": "footage/none"}, 404, "no such file"),
        ({"path": "elsewhere"}, 403, "roots: footage"),
        ({"path": "footage/../../etc"}, 403, "leads out"),
        ({"path": "footage/yard", "camera": "a b"}, 400, "write 'a-b'"),
        ({"path": "footage/yard", "start": "tonight"}, 400, "is no time"),
        ({"path": "footage/yard", "kind": "film"}, 422, "kind"),
    ],
)
def test_a_wrong_job_is_refused_at_once(
    serve: MakeServer, tmp_path: Path, asked: dict[str, Any], status: int, words: str
) -> None:
    client = serve(footage_roots=(footage(tmp_path),))
    answer = client.post("/api/v1/jobs", json=asked)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]


def test_retention_runs_by_itself_and_is_written_down(serve: MakeServer, store: Store) -> None:
    from tapetum.searching.retention import write_keep_days
    from tapetum.service.audit import FILE, read_log

    write_keep_days(store, 1e-6)
    client = serve()
    log = service_of(client).folder / FILE
    wait_for(lambda: store.count() == 0)
    (line,) = (line for line in read_log(log) if line["action"] == "retention")
    assert (line["count"], len(line["results"])) == (ROWS, ROWS)


def test_what_grew_too_old_during_a_job_is_written_down_with_its_ids_and_its_searches_are_forgotten(
    serve: MakeServer, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tapetum.indexing import index
    from tapetum.searching.retention import write_keep_days
    from tapetum.service.audit import FILE, read_log

    honest = index.Indexing.read

    def read_slowly(self: Any, sources: Any) -> None:
        honest(self, sources)
        write_keep_days(store, 1e-6)

    monkeypatch.setattr(index.Indexing, "read", read_slowly)
    client = serve(footage_roots=(footage(tmp_path),))
    ids = {row.sighting.id for row in store.find()}
    client.post("/api/v1/search", json={"rows": ["row00003"]})
    told = do_job(client, path="footage", kind="crops", start="2026-11-21T20:00Z")
    assert (told["state"], told["report"]["added"], told["report"]["dropped"]) == ("done", 3, ROWS + 3)
    (line,) = (each for each in read_log(service_of(client).folder / FILE) if each["action"] == "retention")
    assert (line["job"], line["count"]) == (told["id"], ROWS + 3)
    assert ids < set(line["results"])
    assert not service_of(client).searches._kept


def test_what_is_too_old_goes_before_a_job_reads_anything(serve: MakeServer, store: Store, tmp_path: Path) -> None:
    from tapetum.searching.retention import write_keep_days
    from tapetum.service.audit import FILE, read_log

    client = serve(footage_roots=(footage(tmp_path),))
    client.post("/api/v1/search", json={"rows": ["row00003"]})
    assert service_of(client).searches._kept
    write_keep_days(store, 1e-6)
    told = do_job(client, path="footage", kind="crops", start=format_time(time.time() + 60))
    assert (told["state"], told["report"]["added"], told["report"]["dropped"]) == ("done", 3, 0)
    (line,) = (each for each in read_log(service_of(client).folder / FILE) if each["action"] == "retention")
    assert "row00003" in line["results"]
    assert (line["count"], "job" in line) == (ROWS, False)
    assert not service_of(client).searches._kept


def test_what_is_too_old_stays_where_it_cannot_be_written_down(
    serve: MakeServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tapetum.core.errors import OutputError
    from tapetum.searching.retention import write_keep_days
    from tapetum.service.audit import AuditLog

    write_keep_days(store, 1e-6)
    refused = threading.Event()
    write = AuditLog.write

    def refuse(self: AuditLog, action: str, who: str, **facts: Any) -> None:
        if action == "retention":
            refused.set()
            raise OutputError("audit.jsonl: cannot be written")
        write(self, action, who, **facts)

    monkeypatch.setattr(AuditLog, "write", refuse)
    service = service_of(serve())
    assert refused.wait(30)
    service.close()
    assert store.count() == ROWS


def test_rows_and_reports_of_a_job_do_not_say_where_the_footage_lies(
    serve: MakeServer, store: Store, tmp_path: Path
) -> None:
    root = footage(tmp_path)
    (root / "yard" / "broken.jpg").write_bytes(b"no picture")
    (root / "empty").mkdir()
    client: TestClient = serve(footage_roots=(root,))
    for path, state in (("footage/yard", "done"), ("footage", "done"), ("footage/empty", "failed")):
        told = do_job(client, path=path, kind="crops", camera="yard")
        assert told["state"] == state, told
        assert str(tmp_path) not in json.dumps(told)
    assert told["message"].startswith("footage/empty: holds no picture and no video")
    rows = client.post("/api/v1/browse", json={"where": {"cameras": ["yard"]}}).json()["rows"]
    assert {row["source"] for row in rows} == {f"footage/yard/person_{number}.jpg" for number in range(3)}


def test_a_job_reads_no_file_that_a_link_brings_in(serve: MakeServer, store: Store, tmp_path: Path) -> None:
    root = footage(tmp_path)
    (tmp_path / "secret.jpg").write_bytes(a_picture(7, (96, 40)))
    (root / "yard" / "secret.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "yard" / "secret.mp4").symlink_to(tmp_path / "secret.jpg")
    client: TestClient = serve(footage_roots=(root,))
    told = do_job(client, path="footage", kind="crops")
    assert (told["state"], told["report"]["added"]) == ("done", 3), told
    problems = told["report"]["footage"]["problems"]
    assert [each["source"] for each in problems] == ["footage/yard/secret.mp4", "footage/yard/secret.jpg"]
    assert all("leads out of its root" in each["message"] for each in problems)


def test_new_rows_are_found_while_their_job_is_still_at_work(
    serve: MakeServer, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tapetum.indexing import index

    go, stored = threading.Event(), threading.Event()
    honest = index.Indexing._store

    def store_and_wait(self: Any) -> None:
        honest(self)
        if self._report.added:
            stored.set()
            assert go.wait(60)

    monkeypatch.setattr(index.Indexing, "_store", store_and_wait)
    client: TestClient = serve(footage_roots=(footage(tmp_path),))
    name = client.post("/api/v1/jobs", json={"path": "footage", "kind": "crops", "run": "now"}).json()["id"]
    try:
        assert stored.wait(60)
        rows = client.post("/api/v1/browse", json={"where": {"runs": ["now"]}}).json()["rows"]
        found = client.post("/api/v1/search", json={"rows": [rows[0]["id"]], "where": {"runs": ["now"]}}).json()
        assert client.get(f"/api/v1/jobs/{name}").json()["state"] == "running"
        assert client.get(rows[0]["crop"]).status_code == 200
        assert (len(rows), found["queries"][0]["searched"]) == (3, 2)  # all but the query
        assert client.post("/api/v1/delete", json={"where": {"runs": ["now"]}}).status_code == 409
    finally:
        go.set()
    wait_for(lambda: client.get(f"/api/v1/jobs/{name}").json()["state"] == "done")
