"""A case: a page that needs nothing else and trusts no name, and a ZIP whose digests are right."""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from gallery_rows import MODEL, some_rows, some_vectors
from tapetum.core.errors import OutputError
from tapetum.core.types import Modality
from tapetum.gallery.opening import open_gallery
from tapetum.gallery.schema import Row
from tapetum.gallery.store import Store
from tapetum.searching.case import (
    MOST_SHOWN,
    Case,
    build_case,
    check_case_path,
    render_case,
    write_case,
    zip_case,
)
from tapetum.searching.crops import read_crop
from tapetum.searching.find import find
from tapetum.searching.query import Query, join_queries, query_of_rows
from tapetum.searching.question import FindOptions

EVIL = '<script>alert("x")</script>'
NOW = 1_795_291_200.0  # 2026-11-21 20:00 UTC


def jpeg(seed: int) -> bytes:
    picture = np.random.default_rng(seed).integers(0, 255, (32, 16, 3)).astype(np.uint8)
    return bytes(cv2.imencode(".jpg", picture)[1])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("galleries") / "night"
    with open_gallery(folder, create=replace(MODEL, description=f"IDF {EVIL}")) as opened:
        (folder / "crops").mkdir()
        rows: list[Row] = []
        for number, row in enumerate(some_rows(40)):
            crop = f"crops/{row.sighting.id}.jpg"
            (folder / crop).write_bytes(jpeg(number))
            tracklet = "long" if number < 12 else f"t{number} {EVIL}"
            seen = replace(row.sighting, crop=crop, tracklet=tracklet, source=f"{EVIL}.mp4", remark="too dark & small")
            rows.append(replace(row, sighting=seen))
        near = some_vectors(1) + 0.05 * some_vectors(12, seed=4)
        opened.upsert(rows, torch.cat([near, some_vectors(28, seed=5)]))
        yield opened


def a_query() -> Query:
    return Query(some_vectors(1), (Modality.INFRARED,), (f"my {EVIL} picture.jpg",), (), ("blurred",))


@pytest.fixture(scope="module")
def case(store: Store) -> Case:
    queries = [a_query(), query_of_rows(store, ["row00020"])]
    options = FindOptions(k=4, filter='camera != "c9" and light >= 0')
    findings = find(store, queries, options, None)
    return build_case(store, queries, findings, options, pictures=[[jpeg(99)], []], note=EVIL, exported=NOW)


class Tags(HTMLParser):
    """Every tag of a page with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_holds_everything_it_shows_and_forbids_the_rest(case: Case) -> None:
    text = render_case(case)
    tags = Tags(text).found
    assert not {"script", "iframe", "object", "link", "form", "base"} & {tag for tag, _ in tags}
    assert all(set(attributes) & {"src"} == {"src"} for tag, attributes in tags if tag == "img")
    addresses = [value or "" for _, attributes in tags for name, value in attributes.items() if name in ("src", "href")]
    assert addresses
    assert all(address.startswith("data:image/jpeg;base64,") for address in addresses)
    assert not re.search(r"https?://|url\(|@import", text)
    (policy,) = (attributes for tag, attributes in tags if attributes.get("http-equiv") == "Content-Security-Policy")
    assert (policy["content"] or "").startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert all(attributes.get("alt") for tag, attributes in tags if tag == "img")


def test_names_from_outside_are_text_and_nothing_else(case: Case) -> None:
    text = render_case(case)
    assert EVIL not in text
    assert "&lt;script&gt;" in text
    assert "too dark &amp; small" in text


def test_the_page_says_who_was_searched_how_and_what_it_means(case: Case) -> None:
    text = render_case(case)
    for part in (
        "Search 1 of 2",
        "not calibrated, so that no answer can be called a match",
        "camera != &#34;c9&#34; and light &gt;= 0.0",
        "Exported <time",
        "2026-11-21T20:00:00Z",
        MODEL.id,
        "torch, fp32; first night",
        "What an answer proves, and what it does not",
        "row row00020",
        "infrared, blurred",
    ):
        assert part in text, part
    assert text.count('class="answer"') == 8


def test_a_long_answer_lists_all_rows_and_shows_some(case: Case) -> None:
    first = case.content["searches"][0]["answers"][0]
    assert len(first["rows"]) == 12
    assert sum(row["picture"] is not None for row in first["rows"]) == MOST_SHOWN
    assert all(row["sha256"] for row in first["rows"])
    assert "12 pictures, 8 shown" in render_case(case)


def test_the_zip_holds_page_values_and_the_very_files_of_the_gallery(case: Case, store: Store, tmp_path: Path) -> None:
    write_case(tmp_path / "new" / "case.zip", case)
    with zipfile.ZipFile(tmp_path / "new" / "case.zip") as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert names[:2] == ["index.html", "case.json"]
        assert all(re.fullmatch(r"crops/[0-9]{2}_[a-z0-9_]+\.jpg", name) for name in names[2:])
        assert archive.read("index.html").decode() == render_case(case)
        content = json.loads(archive.read("case.json"))
        assert content == json.loads(json.dumps(case.content))
        for search in content["searches"]:
            for row in [*search["query"], *(row for answer in search["answers"] for row in answer["rows"])]:
                if row["picture"] is not None:
                    picture = archive.read(row["picture"])
                    assert hashlib.sha256(picture).hexdigest() == row["sha256"]
                    if "crop" in row:
                        assert store.folder is not None
                        assert picture == (store.folder / row["crop"]).read_bytes()
    assert zip_case(case) == (tmp_path / "new" / "case.zip").read_bytes()  # the same case, the same bytes


def test_values_name_model_options_and_every_row(case: Case) -> None:
    content = case.content
    assert (content["format"], content["version"], content["exported"]) == ("tapetum-case", 1, "2026-11-21T20:00:00Z")
    assert content["model"]["id"] == MODEL.id
    assert content["options"]["k"] == 4
    asked = content["searches"][0]["query"][0]
    assert (asked["modality"], asked["remark"]) == ("infrared", "blurred")
    assert asked["sha256"] == hashlib.sha256(jpeg(99)).hexdigest()
    assert content["searches"][1]["query"][0]["id"] == "row00020"


def test_pictures_and_rows_of_one_person_stand_side_by_side(store: Store) -> None:
    query = join_queries([query_of_rows(store, ["row00020"]), a_query()])
    options = FindOptions(k=1)
    built = build_case(store, [query], find(store, [query], options, None), options, pictures=[[jpeg(99)]])
    loose, row = built.content["searches"][0]["query"]
    assert loose["label"].startswith("my ")
    assert built.files[loose["picture"]] == jpeg(99)
    assert row["id"] == "row00020"


def test_a_crop_that_is_gone_or_lies_outside_is_shown_as_missing(store: Store, tmp_path: Path) -> None:
    (row,) = store.fetch(["row00025"]).rows
    assert read_crop(store, row) == jpeg(25)
    (tmp_path / "secret").write_bytes(jpeg(1))
    for crop in ("", "crops/none.jpg", "../secret", "gallery.json", str(tmp_path / "secret")):
        assert read_crop(store, replace(row, sighting=replace(row.sighting, crop=crop))) is None
    query = a_query()
    options = FindOptions(k=1)
    (findings,) = find(store, [query], options, None)
    lost = replace(findings.found[0], rows=(replace(row, sighting=replace(row.sighting, crop="crops/none.jpg")),))
    built = build_case(
        store, [query], [replace(findings, found=(replace(lost, similarities=(0.5,)),))], options, exported=NOW
    )
    assert built.files == {}
    assert render_case(built).count("no picture") == 2
    assert "not readable" in render_case(built)


def test_crops_of_every_kind_that_browsers_show_are_in_a_case(tmp_path: Path) -> None:
    with open_gallery(tmp_path, create=MODEL) as store:
        (tmp_path / "crops").mkdir()
        rows = some_rows(4)
        for place, ending in enumerate((".jpg", ".png", ".webp", ".bmp")):
            cv2.imwrite(str(tmp_path / "crops" / f"{place}{ending}"), np.full((32, 16, 3), 80 * place, np.uint8))
            seen = replace(rows[place].sighting, crop=f"crops/{place}{ending}")
            rows[place] = replace(rows[place], sighting=seen)
        store.upsert(rows, some_vectors(4))
        options = FindOptions(group="none")
        built = build_case(store, [a_query()], find(store, [a_query()], options, None), options)
    assert sorted(Path(name).suffix for name in built.files) == [".bmp", ".jpg", ".png", ".webp"]


def test_an_empty_answer_is_a_case_too(store: Store) -> None:
    options = FindOptions(filter='camera == "c9"')
    built = build_case(store, [a_query()], find(store, [a_query()], options, None), options)
    assert "no row passes the filter" in render_case(built)
    assert zipfile.is_zipfile(io.BytesIO(zip_case(built)))


def test_a_name_that_says_neither_page_nor_zip_is_refused(case: Case, tmp_path: Path) -> None:
    for name in ("case.pdf", "case"):
        with pytest.raises(OutputError, match=r"give a name that ends in \.html or \.zip"):
            check_case_path(tmp_path / name)
        with pytest.raises(OutputError, match="is a page or a ZIP"):
            write_case(tmp_path / name, case)
    assert list(tmp_path.iterdir()) == []
