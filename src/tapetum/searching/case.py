"""A search as evidence: one page that holds everything it shows, or the same with crops and JSON in a ZIP.

The page needs no network, no script and no other file, and forbids all of them. Pictures are the gallery's own files,
unchanged, each with its SHA-256, so that anybody can check later that it is the same picture. Names of cameras and
files come from outside and are escaped by the template engine.
"""

import base64
import hashlib
import io
import json
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tapetum import __version__
from tapetum.core.atomic import make_folder, write_bytes
from tapetum.core.errors import OutputError
from tapetum.core.templates import open_templates
from tapetum.footage.clock import format_time
from tapetum.footage.doubt import say_doubts
from tapetum.gallery.filters import as_filter, write_filter
from tapetum.gallery.schema import CROPS, Row
from tapetum.gallery.store import Store
from tapetum.inference.model import Model
from tapetum.searching.crops import ENDINGS, read_crop, tell_kind
from tapetum.searching.find import SAID, Findings
from tapetum.searching.query import Query
from tapetum.searching.question import FindOptions

FORMAT = 1
MOST_SHOWN = 8  # pictures of one answer; the other rows are listed without
SUFFIXES = (".html", ".zip")
MEANING = (
    "An answer says that two pictures look alike to the model. It is a lead to be checked by a person against the "
    "original footage, and no identification. Nobody should be accused, stopped or refused on the strength of it.",
    "A probability holds for people, cameras and light like those that the model was calibrated with, and for the "
    "stated belief before looking. A stated rate of false alarms means that so many searches for somebody who is not "
    "there end in a match all the same: whoever searches often has some.",
    "Similar clothes are the usual reason for a wrong match; changed clothes, darkness and a hidden body are the usual "
    "reasons for a missed one. That no match was found does not show that the person was not there.",
    "Times are those of the recorders' clocks as they were read; where nothing said when it was, or two things said "
    "different times, the answer says so. Each picture's SHA-256 shows that it is the file that "
    "the gallery held at the time of export; it says nothing about what happened to the footage before.",
)


@dataclass(frozen=True)
class Case:
    """What is exported.

    Attributes:
        content: plain values, as case.json holds them; pictures are named by their place in `files`.
        files: place in the ZIP -> content of a picture.
    """

    content: dict[str, Any]
    files: Mapping[str, bytes]


def build_case(
    store: Store,
    queries: Sequence[Query],
    findings: Sequence[Findings],
    options: FindOptions,
    *,
    pictures: Sequence[Sequence[bytes]] = (),
    model: Model | None = None,
    title: str = "A search in a gallery",
    note: str = "",
    exported: float | None = None,
) -> Case:
    """Collect everything that a case shows.

    Args:
        findings: of each query.
        pictures: of each query, those of its pictures that are not rows of the gallery, as JPEG or PNG; may be empty.
        model: that embedded the queries; None where they are rows of the gallery.
        note: whatever the exporting person wants to say.
        exported: when, seconds since 1970-01-01 UTC; None is now.
    """
    files: dict[str, bytes] = {}
    info = store.info
    content = {
        "format": "tapetum-case",
        "version": FORMAT,
        "title": title,
        "note": note,
        "exported": format_time(time.time() if exported is None else exported),
        "tapetum": __version__,
        "gallery": {"where": store.where, "rows": store.count()},
        "model": {
            "id": info.id,
            "dimension": info.dimension,
            "description": info.description,
            "place": info.place,
            "query": None if model is None else model.facts,
        },
        "options": options.model_dump(exclude={"filter"}) | {"filter": write_filter(as_filter(options.filter))},
        "searches": [
            _search_content(store, query, answers, own, f"{number:02d}", files)
            for number, (query, answers, own) in enumerate(
                zip(queries, findings, list(pictures) or [()] * len(queries), strict=True), start=1
            )
        ],
        "words": SAID,
        "meaning": list(MEANING),
    }
    return Case(content, files)


def check_case_path(path: Path) -> None:
    """Refuse a name that says neither page nor ZIP, before any work is done.

    Raises:
        OutputError: another ending.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(f"{path}: a case is a page or a ZIP; give a name that ends in {' or '.join(SUFFIXES)}")


def write_case(path: Path, case: Case) -> None:
    """Write a case; the file appears whole or not at all.

    Args:
        path: ending in .html or .zip.
    Raises:
        OutputError: another ending, or it cannot be written.
    """
    check_case_path(path)
    make_folder(path.parent)
    write_bytes(path, zip_case(case) if path.suffix.lower() == ".zip" else render_case(case).encode())


def render_case(case: Case) -> str:
    """The page as HTML text."""
    environment = open_templates("tapetum.searching")
    style = (resources.files("tapetum.searching") / "templates" / "case.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return environment.get_template("case.html.j2").render(
        case=case.content,
        addresses={
            name: f"data:{tell_kind(file)};base64,{base64.b64encode(file).decode()}"
            for name, file in case.files.items()
        },
        style=Markup(style),  # noqa: S704  # our own file
        policy=f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        most_shown=MOST_SHOWN,
    )


def zip_case(case: Case) -> bytes:
    """A ZIP with the page, case.json and every picture as a file."""
    moment = datetime.fromisoformat(case.content["exported"]).astimezone(UTC).timetuple()[:6]
    content = json.dumps(case.content, indent=1, ensure_ascii=False) + "\n"
    files = {"index.html": render_case(case).encode(), "case.json": content.encode(), **case.files}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, file in files.items():
            compressed = name.startswith(f"{CROPS}/")  # is compressed already
            entry = zipfile.ZipInfo(name, moment)
            entry.compress_type = zipfile.ZIP_STORED if compressed else zipfile.ZIP_DEFLATED
            archive.writestr(entry, file)
    return buffer.getvalue()


def _search_content(
    store: Store, query: Query, findings: Findings, uploads: Sequence[bytes], prefix: str, files: dict[str, bytes]
) -> dict[str, Any]:
    loose = len(query.labels) - len(query.rows)  # pictures that are no rows stand first
    pictures = []
    about_each = zip(query.labels, query.modalities, query.remarks, map(say_doubts, query.doubts), strict=True)
    for number, (label, modality, remark, doubt) in enumerate(about_each):
        picture = {"label": label, "modality": modality.name.lower(), "remark": remark, "doubt": doubt}
        name = f"{CROPS}/{prefix}_query_{number + 1:03d}"
        if number >= loose:
            picture |= _row_content(store, query.rows[number - loose], name, files, shown=number < MOST_SHOWN)
        else:
            picture |= _keep(uploads[number] if number < len(uploads) else None, name, files, shown=True)
        pictures.append(picture)
    return {
        "query": pictures,
        "verdict": findings.verdict,
        "matches": findings.matches,
        "guess": findings.guess,
        "exact": findings.exact,
        "recall": findings.recall,
        "searched": findings.searched,
        "hard": asdict(findings.hard),
        "answers": [
            {
                "rank": answer.rank,
                "similarity": answer.similarity,
                "probability": answer.probability,
                "match": answer.accepted,
                "rows": [
                    {"similarity": similarity}
                    | _row_content(
                        store, row, f"{CROPS}/{prefix}_{answer.rank:03d}_{place:03d}", files, shown=place <= MOST_SHOWN
                    )
                    | {"uncertain": findings.uncertain.get(row.sighting.id, "")}
                    for place, (row, similarity) in enumerate(
                        zip(answer.rows, answer.similarities, strict=True), start=1
                    )
                ],
            }
            for answer in findings.found
        ],
    }


def _row_content(store: Store, row: Row, name: str, files: dict[str, bytes], *, shown: bool) -> dict[str, Any]:
    sighting = row.sighting
    return {
        **asdict(sighting),
        "modality": sighting.modality.name.lower(),
        "seconds": sighting.time,
        "time": format_time(sighting.time),
        "run": asdict(row.run),
        **_keep(read_crop(store, row), name, files, shown=shown),
    }


def _keep(content: bytes | None, name: str, files: dict[str, bytes], *, shown: bool) -> dict[str, Any]:
    """Take a picture into the case; where it lies there, and its digest."""
    if content is None:
        return {"picture": None, "sha256": None}
    ending = ENDINGS.get(tell_kind(content) or "")
    if shown and ending:
        files[name + ending] = content
    return {"picture": name + ending if shown and ending else None, "sha256": hashlib.sha256(content).hexdigest()}
