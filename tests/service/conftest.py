"""A small gallery with pictures and a tiny model behind a server, in this process."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from argon2 import PasswordHasher
from fastapi.testclient import TestClient

from gallery_rows import some_rows, some_vectors
from tapetum.core.sighting import Sighting
from tapetum.gallery.opening import open_gallery
from tapetum.gallery.schema import ModelInfo, Row, Run
from tapetum.gallery.store import Store
from tapetum.inference.sessions import Model, open_model
from tapetum.service import users
from tapetum.service.app import create_app
from tapetum.service.state import Service, ServiceOptions, build_service
from tapetum.service.users import Role
from unit.inference.conftest import make_run  # noqa: F401  (a fixture)

TOKEN = "the-token-of-the-tests"
PASSWORD = "four words make one"
ROWS = 24
MakeServer = Callable[..., TestClient]


def a_picture(seed: int = 0, size: tuple[int, int] = (64, 32)) -> bytes:
    """A JPEG of coloured stripes."""
    rng = np.random.default_rng(seed)
    stripes = rng.integers(0, 255, (8, 4, 3)).astype(np.uint8)
    return cv2.imencode(".jpg", cv2.resize(stripes, size[::-1], interpolation=cv2.INTER_NEAREST))[1].tobytes()


def row_with_crop(folder: Path, row: Row, model: Model, number: int) -> Row:
    """The row as if this model had embedded it, with a picture in the gallery's folder."""
    crop = f"crops/{row.sighting.camera}/{row.sighting.id}.jpg"
    (folder / crop).parent.mkdir(parents=True, exist_ok=True)
    (folder / crop).write_bytes(a_picture(number))
    sighting: Sighting = replace(row.sighting, crop=crop)
    return Row(sighting, Run(model.id, model.runtime, model.precision, row.run.name))


@pytest.fixture(autouse=True)
def quick_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashing takes long on purpose; not in tests."""
    monkeypatch.setattr(users, "_HASHER", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))


@pytest.fixture(scope="session")
def model(make_run: Callable[..., Path]) -> Model:  # noqa: F811
    return open_model(make_run("ide"), precision="fp32", device="cpu")


@pytest.fixture(scope="session")
def filled(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gallery with pictures, to be copied: that is quicker than to fill one."""
    folder = tmp_path_factory.mktemp("filled") / "night"
    with open_gallery(folder, create=ModelInfo(model.id, model.dimension, "IDE for tests")) as opened:
        rows = [row_with_crop(folder, row, model, number) for number, row in enumerate(some_rows(ROWS))]
        opened.upsert(rows, some_vectors(ROWS, dimension=model.dimension))
    return folder


@pytest.fixture
def store(filled: Path, tmp_path: Path) -> Iterator[Store]:
    with open_gallery(shutil.copytree(filled, tmp_path / "night")) as opened:
        yield opened


@pytest.fixture
def serve(store: Store, model: Model) -> Iterator[MakeServer]:
    """Starts servers of the gallery; a client of one comes with its address and, if wanted, the owner's token."""
    with ExitStack() as stack:

        def start(*, signed_in: bool = True, **options: Any) -> TestClient:
            service = build_service(store, model, ServiceOptions(**({"token": TOKEN} | options)))
            client = TestClient(create_app(service), base_url="http://127.0.0.1:8000", client=("127.0.0.1", 40000))
            if signed_in:
                client.headers["authorization"] = f"Bearer {TOKEN}"
            return stack.enter_context(client)

        yield start


@pytest.fixture
def client(serve: MakeServer) -> TestClient:
    return serve()


def service_of(client: TestClient) -> Service:
    """The state behind a client."""
    app: Any = client.app
    service: Service = app.state.service
    return service


def add_user(client: TestClient, name: str, role: Role) -> None:
    """A user with the password of the tests."""
    service_of(client).users.add(name, role, PASSWORD)


def log_in(client: TestClient, name: str, password: str = PASSWORD) -> dict[str, Any]:
    """Log in as a browser would; later requests of this client are that user's."""
    client.headers.pop("authorization", None)
    answer = client.post("/api/v1/login", json={"name": name, "password": password})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    client.headers["x-csrf-token"] = told["csrf"]
    return told
