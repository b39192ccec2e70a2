"""`tapetum serve`, `users` and `audit` as an operator types them."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gallery_rows import some_rows, some_vectors
from tapetum.cli.main import app
from tapetum.core.errors import TapetumError
from tapetum.gallery.opening import open_gallery
from tapetum.gallery.schema import ModelInfo, Row, Run
from tapetum.inference.sessions import open_model
from tapetum.service.server import ServerAddress
from unit.inference.conftest import MakeRun, make_run  # noqa: F401  (a fixture)

PASSWORD = "four words make one"


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory, make_run: MakeRun) -> Path:  # noqa: F811
    folder = tmp_path_factory.mktemp("served") / "night"
    place = make_run("ide")
    model = open_model(place, precision="fp32", device="cpu")
    info = ModelInfo(model.id, model.dimension, "IDE for tests", str(place))
    with open_gallery(folder, create=info) as store:
        rows = [Row(row.sighting, Run(model.id, "torch", "fp32")) for row in some_rows(6)]
        store.upsert(rows, some_vectors(6, dimension=model.dimension))
    return folder


def run(*words: str | Path, typed: str = "") -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], input=typed)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def refused(*words: str | Path, typed: str = "") -> str:
    with pytest.raises(TapetumError) as error:
        run(*words, typed=typed)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_users_are_added_listed_and_removed(gallery: Path) -> None:
    where = ("--gallery", gallery)
    run("users", "add", "anna", "--role", "administer", "--password-stdin", *where, typed=PASSWORD + "\n")
    run("users", "add", "otto", *where, typed=f"{PASSWORD}\n{PASSWORD}\n")
    run("users", "add", "robot", "--role", "index", "--no-password", *where)
    key = run("users", "key", "add", "robot", "--label", "nightly", "--days", "30", *where)
    secret = re.search(r"^tapetum_\S{43}$", key, re.MULTILINE)
    assert secret
    listed = run("users", "list", *where)
    assert "anna  administer  password" in listed
    assert "otto  search  password" in listed
    assert "robot  index  no password" in listed
    assert "nightly, made" in listed
    assert secret[0] not in listed
    found = re.search(r"key (\w{8})  nightly", listed)
    assert found
    run("users", "key", "remove", found[1], *where)
    run("users", "remove", "otto", *where)
    assert "otto" not in run("users", "list", *where)
    lines = [json.loads(line) for line in run("audit", "show", *where).splitlines()]
    assert [line["action"] for line in lines] == [
        *["user add"] * 3,
        "key add",
        "key remove",
        "user remove",
    ]
    assert PASSWORD not in json.dumps(lines)
    assert "6 lines, each follows" in run("audit", "verify", *where)


def test_users_stay_as_they_are_where_nothing_can_be_written_down(gallery: Path, tmp_path: Path) -> None:
    where = ("--gallery", gallery, "--folder", tmp_path)
    run("users", "add", "robot", "--no-password", *where)
    run("users", "key", "add", "robot", "--label", "nightly", *where)
    found = re.search(r"key (\w{8})", run("users", "list", *where))
    assert found
    book, log = (tmp_path / "service" / name for name in ("users.json", "audit.jsonl"))
    before, lines = book.read_bytes(), log.read_bytes()
    log.unlink()
    log.mkdir()  # also an administrator of the machine cannot write to it now
    for words in (
        ("users", "add", "otto", "--no-password"),
        ("users", "remove", "robot"),
        ("users", "key", "add", "robot", "--label", "another"),
        ("users", "key", "remove", found[1]),
    ):
        assert "nothing is done unrecorded" in refused(*words, *where)
        assert book.read_bytes() == before
    log.rmdir()
    log.write_bytes(lines)
    for words in (("remove", "nobody"), ("key", "add", "nobody", "--label", "x"), ("key", "remove", "00000000")):
        refused("users", *words, *where)
    assert log.read_bytes() == lines  # what is not done is not written down


def test_mistakes_are_told_in_one_line(gallery: Path, tmp_path: Path) -> None:
    where = ("--gallery", gallery)
    assert "did you mean search?" in refused("users", "add", "x", "--role", "serch", "--no-password", *where)
    assert "12 to 1024" in refused("users", "add", "x", "--password-stdin", *where, typed="short\n")
    place = ("--gallery", gallery, "--folder", tmp_path)
    assert "use another name" in refused("users", "add", "a b", *place)  # and no password was asked for
    assert "there is no log" in refused("audit", "show", *place)
    assert "no gallery is there" in refused("users", "list", "--gallery", tmp_path / "nowhere")
    assert "--folder" in refused("users", "list", "--gallery", "milvus://127.0.0.1:1/night")
    assert "no gallery is there" in refused("serve", "--gallery", tmp_path / "nowhere")
    assert "is no folder" in refused("serve", "--footage-root", tmp_path / "nowhere", *where)
    assert "debug, error, info, warning" in refused("serve", "--log-level", "loud", *where)
    assert "there is no log" in refused("audit", "verify", "--gallery", gallery, "--folder", tmp_path)


def test_a_missing_extra_is_named(gallery: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)  # as if it were not installed
    assert refused("serve", "--gallery", gallery).endswith("install it with: pip install 'tapetum[serve]'")
    assert "tapetum[serve]" in refused("users", "list", "--gallery", gallery)


def test_beyond_this_machine_users_must_be_there_first(gallery: Path, tmp_path: Path) -> None:
    where = ("--gallery", gallery, "--folder", tmp_path)
    for words in (["--host", "0.0.0.0"], ["--public-name", "people.example.org"], ["--behind-proxy", "127.0.0.1"]):
        message = refused("serve", *words, *where)
        assert "there are no users" in message
        assert "tapetum users add" in message


def test_a_detector_is_opened_for_index_jobs_alone_and_with_the_options_of_index(
    gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "detectors").mkdir(parents=True)
    (tmp_path / "cache" / "detectors" / "ssd-mobilenet.json").write_text("{")
    where = ("--gallery", gallery, "--folder", tmp_path, "--host", "0.0.0.0")
    assert "there are no users" in refused("serve", *where)  # so far it came
    jobs = (*where, "--footage-root", tmp_path)
    assert "ssd-mobilenet.json: is damaged" in refused("serve", *jobs)
    background = (*jobs, "--detector", "background")
    assert "there are no users" in refused("serve", *background)
    assert "weights are for torchvision:NAME" in refused("serve", *background, "--detector-weights", "x.pth")
    assert "are for ONNX and TFLite files" in refused("serve", *background, "--detector-layout", "ssd")
    assert "are for ONNX and TFLite files" in refused("serve", *background, "--person-class", "4")
    assert "computes in fp32 alone" in refused("serve", *background, "--detector-precision", "bf16")
    assert "brightens dark scenes by itself" in refused("serve", *background, "--brighten", "gamma")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"host": "0.0.0.0"}, "--public-name"),
        ({"host": "192.0.2.1"}, "unencrypted"),
        ({"public_names": ("people.example.org",)}, "unencrypted"),
        ({"proxy": "*", "public_names": ("people.example.org",)}, "is no address"),
        ({"certificate": Path("a.pem")}, "give both"),
        ({"certificate": Path("a.pem"), "key": Path("b.pem")}, "no such file"),
    ],
)
def test_what_is_missing_for_the_outside_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(TapetumError, match=words):
        ServerAddress(**options).check(True, "night")


def test_names_of_a_server() -> None:
    assert ServerAddress().hosts == {"127.0.0.1", "localhost", "[::1]"}
    assert ServerAddress("::1").is_private
    assert ServerAddress("192.0.2.1", plain_http=True).hosts == {"192.0.2.1"}
    outside = ServerAddress("0.0.0.0", public_names=("People.example.org",), plain_http=True)
    assert outside.hosts == {"people.example.org"}
    assert not outside.is_private
    outside.check(True, "night")
    assert not ServerAddress(public_names=("people.example.org",)).is_private
    assert ServerAddress("::1").url(80) == "http://[::1]:80/"


@pytest.fixture
def server(gallery: Path) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """A real process: it, its address and the owner's token."""
    command = [
        sys.executable,
        "-m",
        "tapetum",
        "serve",
        "--gallery",
        str(gallery),
        "--port",
        "0",
        "--precision",
        "fp32",
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    try:
        assert process.stdout is not None
        read = []
        for line in process.stdout:
            read.append(line)
            found = re.search(r"(http://127\.0\.0\.1:\d+/)login#token=([\w-]{43})", line)
            if found:
                yield process, found[1], found[2]
                break
        else:
            pytest.fail("the server did not start: " + "".join(read))
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_server_answers_says_when_its_port_is_taken_and_stops_with_ctrl_c(
    server: tuple[subprocess.Popen[str], str, str], gallery: Path
) -> None:
    import httpx

    process, url, token = server
    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}) as client:
        for attempt in range(100):
            try:
                told = client.get("api/v1/gallery", timeout=60)
                break
            except httpx.ConnectError:
                assert attempt < 99
        assert told.json()["rows"] == 6
        forged = {"x-forwarded-for": "192.0.2.7", "x-forwarded-proto": "https"}  # believed of a named proxy only
        answer = client.post("api/v1/search", json={"rows": ["row00001"]}, headers=forged, timeout=60)
        assert answer.status_code == 200
        assert "strict-transport-security" not in answer.headers
    port = url.rstrip("/").rpartition(":")[2]
    assert f"port {port} of 127.0.0.1 is used by another program" in refused(
        "serve", "--gallery", gallery, "--port", port, "--precision", "fp32"
    )
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert output.rstrip().endswith("stopped")
    assert "Traceback" not in output
    assert token not in output
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", int(port)))
    where = ("--gallery", gallery)
    lines = [json.loads(line) for line in run("audit", "show", "--last", "3", *where).splitlines()]
    assert [line["action"] for line in lines] == ["start", "search", "stop"]
    assert lines[1]["address"] == "127.0.0.1"
