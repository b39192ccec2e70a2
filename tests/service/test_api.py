"""The API as a program uses it."""

import json
from typing import Any

from fastapi.testclient import TestClient

from service.conftest import ROWS, a_picture
from tapetum.gallery.store import Store


def search(client: TestClient, **asked: Any) -> dict[str, Any]:
    answer = client.post("/api/v1/search", json=asked)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def test_a_search_by_row_finds_that_row_first(client: TestClient) -> None:
    told = search(client, rows=["row00003"], group="none", k=5)
    found = told["queries"][0]["found"]
    assert found[0]["row"]["id"] == "row00003"
    assert found[0]["similarity"] > 0.999
    assert [each["rank"] for each in found] == [1, 2, 3, 4, 5]


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
