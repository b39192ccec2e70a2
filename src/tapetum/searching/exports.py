"""What a gallery, a search or an evaluation holds, in the formats of other programs.

Tables are Parquet or CSV, told by the ending of the file. TensorBoard's projector and FiftyOne get a folder of their
own with everything they show.
"""

import contextlib
import csv
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tapetum.core.atomic import make_folder, replacing, write_bytes
from tapetum.core.errors import DataError, GalleryError, OutputError
from tapetum.data.image_io import Picture, decode_picture, resize, write_picture
from tapetum.evaluation.bootstrap import QUANTITIES
from tapetum.evaluation.card import Card
from tapetum.footage.clock import format_time
from tapetum.gallery.filters import Filter
from tapetum.gallery.schema import Row
from tapetum.gallery.store import Store
from tapetum.searching.crops import ENDINGS, read_crop, tell_kind
from tapetum.searching.provenance import say_uncertain

TABLES = (".parquet", ".csv")
CHUNK = 10_000  # rows at a time
VECTOR = "embedding"  # name of a table's column, and of FiftyOne's field
SPRITE = 8192  # pixels on a side; browsers have no larger textures
THUMBNAIL = 64  # pixels on a side
MOST_PROJECTED = (SPRITE // THUMBNAIL) ** 2  # rows: each has a place in the sprite
_FORMULA = re.compile(r"'*[=+@\t\r-]")  # how a text begins that a spreadsheet takes for one
_SAMPLE = re.compile(r'(?:\{"samples": \[)?\{"filepath": "data/([^"/\\]+)"')  # how a line of samples.json begins
_OWN_PICTURE = re.compile(rf"[0-9a-f]{{24}}({'|'.join(map(re.escape, ENDINGS.values()))})")  # named by a sighting's id
_FIFTYONE_NAMES = {"id": "sighting"}  # FiftyOne has an id of its own
Cells = dict[str, Any]
COLUMNS: dict[str, type] = {
    "id": str, "source": str, "camera": str, "time": str, "seconds": float, "frame": int,
    "left": int, "top": int, "width": int, "height": int, "tracklet": str, "modality": str,
    "light": float, "quality": float, "remark": str, "crop": str, "uncertain": str,
    "run": str, "model": str, "runtime": str, "precision": str,
}  # fmt: skip
ANSWERS: dict[str, type] = {
    "search": int, "query": str, "verdict": str, "rank": int, "match": bool, "guess": bool, "probability": float,
    "answer_similarity": float, "similarity": float,
}  # fmt: skip
RESULTS: dict[str, type] = {
    "file": str, "method": str, "recipe": str, "seed": int, "data": str, "protocol": str, "ap": str, "trials": int,
    "queries": int, "reranked": bool,
    **{name: float for each in QUANTITIES for name in (each, f"{each}_low", f"{each}_high")},
}  # fmt: skip


def check_table_path(path: Path) -> None:
    """Refuse a name that says neither Parquet nor CSV.

    Raises:
        OutputError: another ending.
    """
    if path.suffix.lower() not in TABLES:
        raise OutputError(f"{path}: a table is Parquet or CSV; give a name that ends in {' or '.join(TABLES)}")


def export_sightings(
    store: Store,
    path: Path,
    filter: str | Filter | None = None,  # noqa: A002
    *,
    embeddings: bool = False,
) -> int:
    """Write the rows of a gallery as a table, by time; how many.

    Args:
        embeddings: also each row's vector, as a list of 32-bit numbers.
    Raises:
        OutputError: another ending, a CSV with embeddings, or it cannot be written.
    """
    check_table_path(path)
    if embeddings and path.suffix.lower() == ".csv":
        raise OutputError(f"{path}: embeddings do not fit a CSV; give a name that ends in .parquet")
    dimension = store.info.dimension if embeddings else 0
    count = 0
    with _table(path, COLUMNS, dimension) as write:
        for rows, vectors in _chunks(store, filter, vectors=embeddings):
            said = say_uncertain(store, rows)
            write([_sighting_cells(row, said) for row in rows], vectors)
            count += len(rows)
    return count


def export_answers(content: Mapping[str, Any], path: Path, place: str) -> int:
    """Write a search's answers as a table, a row for each sighting of an answer; how many.

    Args:
        content: of what ``tapetum search --json`` wrote, or of a case's ``case.json``.
        place: of that, for errors.
    Raises:
        DataError: it is no such content.
        OutputError: another ending, or it cannot be written.
    """
    check_table_path(path)
    try:
        cells = [
            _answer_cells(number, search, answer, row)
            for number, search in enumerate(content["searches"], start=1)
            for answer in search["answers"]
            for row in answer["rows"]
        ]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(
            f"{place}: holds no answers of a search ({error}); give a file of `tapetum search --json`"
        ) from None
    with _table(path, ANSWERS | COLUMNS) as write:
        write(cells)
    return len(cells)


def export_results(cards: Mapping[str, Card], path: Path) -> int:
    """Write result cards as a table, a row for each, and one more where it was re-ranked; how many.

    Args:
        cards: by the name that the column `file` shows.
    Raises:
        OutputError: another ending, or it cannot be written.
    """
    check_table_path(path)
    cells = [each for name, card in cards.items() for each in _result_cells(name, card)]
    with _table(path, RESULTS) as write:
        write(cells)
    return len(cells)


def export_projector(
    store: Store,
    folder: Path,
    filter: str | Filter | None = None,  # noqa: A002
) -> int:
    """Write embeddings for TensorBoard's projector, with a table of what is known of each and its picture; how many.

    Raises:
        GalleryError: no row passes, or more than `MOST_PROJECTED`.
        OutputError: it cannot be written.
    """
    count = store.count(filter)
    if not 1 <= count <= MOST_PROJECTED:
        raise GalleryError(
            f"{store.where}: {count} rows pass; a browser's projector shows 1 to {MOST_PROJECTED}: choose by --filter"
        )
    make_folder(folder)
    side = math.ceil(math.sqrt(count))
    sprite = np.zeros((side * THUMBNAIL, side * THUMBNAIL, 3), np.uint8)
    place = 0
    names = list(COLUMNS)
    with (
        replacing(folder / "vectors.tsv") as vectors_file,
        replacing(folder / "metadata.tsv") as facts_file,
        vectors_file.open("w", encoding="utf-8") as numbers,
        facts_file.open("w", encoding="utf-8") as facts,
    ):
        facts.write("\t".join(names) + "\n")
        for rows, vectors in _chunks(store, filter):
            np.savetxt(numbers, vectors, fmt="%.7g", delimiter="\t")
            said = say_uncertain(store, rows)
            for row in rows:
                cells = _sighting_cells(row, said)
                facts.write("\t".join(str(cells[name]) for name in names) + "\n")
                top, left = (THUMBNAIL * each for each in divmod(place, side))
                sprite[top : top + THUMBNAIL, left : left + THUMBNAIL] = _thumbnail(store, row)
                place += 1
    write_picture(folder / "sprite.png", sprite)
    config = (
        'embeddings {\n  tensor_name: "sightings"\n  tensor_path: "vectors.tsv"\n  metadata_path: "metadata.tsv"\n'
        f'  sprite {{\n    image_path: "sprite.png"\n    single_image_dim: {THUMBNAIL}\n'
        f"    single_image_dim: {THUMBNAIL}\n  }}\n}}\n"
    )
    write_bytes(folder / "projector_config.pbtxt", config.encode())
    return place


def export_fiftyone(
    store: Store,
    folder: Path,
    filter: str | Filter | None = None,  # noqa: A002
) -> int:
    """Write sightings with their pictures and embeddings for FiftyOne; how many.

    They are a data set of its type `LegacyFiftyOneDataset`. A sighting's id is its field `sighting`; one without a
    picture names a file that is not there. Pictures of an earlier export to the same folder that this one does not
    write go: who was erased is not to stay there.

    Raises:
        GalleryError: no row passes; an earlier export stays as it is.
        OutputError: it cannot be written.
    """
    if not store.count(filter):
        earlier = f", and delete {folder}, which shows who was there before" * (folder / "samples.json").exists()
        raise GalleryError(f"{store.where}: no row passes; choose others by --filter{earlier}")
    data = folder / "data"
    before, written = _exported_pictures(folder), set[str]()
    make_folder(data)
    kinds = {str: "StringField", int: "IntField", float: "FloatField"}
    fields = {_FIFTYONE_NAMES.get(name, name): kinds[kind] for name, kind in COLUMNS.items()}
    fields |= {"filepath": "StringField", VECTOR: "VectorField"}
    facts = {
        "name": Path(store.where).name,
        "media_type": "image",
        "sample_fields": {name: f"fiftyone.core.fields.{kind}" for name, kind in fields.items()},
        "info": {"gallery": store.where, "model": store.info.id, "description": store.info.description},
    }
    count = 0
    with replacing(folder / "samples.json") as temporary, temporary.open("w", encoding="utf-8") as file:
        for rows, vectors in _chunks(store, filter):
            said = say_uncertain(store, rows)
            for row, vector in zip(rows, vectors, strict=True):
                cells = {_FIFTYONE_NAMES.get(name, name): cell for name, cell in _sighting_cells(row, said).items()}
                name, there = _copy_crop(store, row, data)
                if there:
                    written.add(name)
                sample = {"filepath": f"data/{name}", "tags": [], **cells}
                # As float64 these would be 17 digits of which the last nine say nothing.
                sample[VECTOR] = [float(f"{value:.9g}") for value in vector.tolist()]
                file.write(('{"samples": [' if not count else ",") + "\n" + json.dumps(sample, ensure_ascii=False))
                count += 1
        file.write("\n]}\n")
    write_bytes(folder / "metadata.json", (json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode())
    for name in before - written:
        try:
            (data / name).unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(
                f"{data / name}: cannot be removed, and its sighting is not exported any more ({error.strerror}); "
                "delete it"
            ) from None
    return count


PROGRAMS = {"projector": export_projector, "fiftyone": export_fiftyone}


def _exported_pictures(folder: Path) -> set[str]:
    """Names of the pictures in ``data/`` of an export that only an export for FiftyOne can have written."""
    there = {path.name for path in (folder / "data").glob("*") if path.suffix in ENDINGS.values()}
    named = set[str]()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        if _FIFTYONE_NAMES["id"] not in json.loads((folder / "metadata.json").read_text("utf-8"))["sample_fields"]:
            return {name for name in there if _OWN_PICTURE.fullmatch(name)}  # written by FiftyOne itself
    with contextlib.suppress(OSError, ValueError), (folder / "samples.json").open(encoding="utf-8") as lines:
        named.update(found[1] for line in lines if (found := _SAMPLE.match(line)))
    return {name for name in there if name in named or _OWN_PICTURE.fullmatch(name)}


def _copy_crop(store: Store, row: Row, folder: Path) -> tuple[str, bool]:
    """The name of a row's picture in a folder, and whether there is one: then it is written there."""
    content = read_crop(store, row)
    ending = None if content is None else ENDINGS.get(tell_kind(content) or "")
    name = f"{row.sighting.id}{ending or '.jpg'}"  # a row's id is a plain file name, see `gallery.schema.NAME`
    if content is None or ending is None:
        return name, False
    write_bytes(folder / name, content)
    return name, True


def _chunks(
    store: Store,
    filter: str | Filter | None,  # noqa: A002
    *,
    vectors: bool = True,
) -> Iterator[tuple[tuple[Row, ...], NDArray[np.float32]]]:
    """Rows that pass, by time and id, some at a time; one that is deleted meanwhile is left out.

    Args:
        vectors: read theirs too; else (n, 0) take their place.
    """
    columns = store.columns(["time", "id"], filter)
    ids = [name for _, name in sorted(zip(columns["time"], columns["id"], strict=True))]
    for start in range(0, len(ids), CHUNK):
        wanted = ids[start : start + CHUNK]
        if vectors:
            entries = store.fetch(wanted)
            yield entries.rows, np.asarray(entries.vectors, dtype=np.float32)
        else:
            found = {row.sighting.id: row for row in store.fetch_rows(wanted)}
            rows = tuple(found[name] for name in wanted if name in found)
            yield rows, np.empty((len(rows), 0), np.float32)


def _sighting_cells(row: Row, said: Mapping[str, str]) -> Cells:
    """A line of a table.

    Args:
        said: why time or camera of some rows may be another, by id.
    """
    seen = row.sighting
    cells = {name: getattr(seen, name) for name in ("id", "source", "camera", "frame", "tracklet", "remark", "crop")}
    cells |= dict(zip(("left", "top", "width", "height"), seen.box, strict=True))
    cells |= {"time": format_time(seen.time), "seconds": seen.time, "modality": seen.modality.name.lower()}
    cells |= {"light": seen.light, "quality": seen.quality, "uncertain": said.get(seen.id, ""), "run": row.run.name}
    return cells | {name: getattr(row.run, name) for name in ("model", "runtime", "precision")}


def _answer_cells(number: int, search: Cells, answer: Cells, row: Cells) -> Cells:
    facts = {name: row[name] for name in COLUMNS if name in row and name != "run"}
    facts |= dict(zip(("left", "top", "width", "height"), row["box"], strict=True))
    run = row["run"]
    facts |= {"run": run["name"], **{name: run[name] for name in ("model", "runtime", "precision")}}
    return {
        "search": number,
        "query": ", ".join(picture["label"] for picture in search["query"]),
        "verdict": search["verdict"],
        "rank": answer["rank"],
        "match": answer["match"],
        "guess": search.get("guess"),
        "probability": answer["probability"],
        "answer_similarity": answer["similarity"],
        "similarity": row["similarity"],
        **facts,
    }


def _result_cells(name: str, card: Card) -> Iterator[Cells]:
    facts = {
        "file": name,
        "method": card.method,
        "recipe": card.recipe.get("name", ""),
        "seed": card.seed,
        "data": card.data.get("name", ""),
        "protocol": card.rules.name,
        "ap": card.rules.ap,
        "trials": card.num_trials,
        "queries": card.metrics.get("num_queries"),
    }
    intervals = {
        f"{each}_{end}": card.bootstrap.get(each, {}).get(end) for each in QUANTITIES for end in ("low", "high")
    }
    yield facts | {"reranked": False} | {each: card.metrics.get(each) for each in QUANTITIES} | intervals
    if card.reranked is not None:
        yield facts | {"reranked": True} | {each: card.reranked.get(each) for each in QUANTITIES}


@contextmanager
def _table(path: Path, columns: Mapping[str, type], dimension: int = 0) -> Iterator[Any]:
    """A function that appends rows to a table, which appears whole or not at all; what a row lacks stays empty."""
    make_folder(path.parent)
    with replacing(path) as temporary:
        if path.suffix.lower() == ".csv":
            with temporary.open("w", encoding="utf-8", newline="") as lines:
                writer = csv.DictWriter(lines, list(columns), lineterminator="\n")
                writer.writeheader()
                yield lambda rows, vectors=None: writer.writerows(map(_guard_cells, rows))  # noqa: ARG005
            return
        import pyarrow as pa
        from pyarrow import parquet

        kinds = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
        fields = [pa.field(name, kinds[kind]) for name, kind in columns.items()]
        if dimension:
            fields.append(pa.field(VECTOR, pa.list_(pa.float32(), dimension)))
        schema = pa.schema(fields)

        def write(rows: Sequence[Cells], vectors: NDArray[np.float32] | None = None) -> None:
            arrays = [pa.array([row.get(name) for row in rows], type=schema.field(name).type) for name in columns]
            if dimension and vectors is not None:
                arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dimension))
            file.write_table(pa.Table.from_arrays(arrays, schema=schema))

        with parquet.ParquetWriter(temporary, schema) as file:
            yield write


def _guard_cells(cells: Cells) -> Cells:
    """The same for a spreadsheet: an apostrophe stands before a text that it would compute, as a file's name may be."""
    return {
        name: f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell for name, cell in cells.items()
    }


def _thumbnail(store: Store, row: Row) -> Picture:
    """(THUMBNAIL, THUMBNAIL, 3); the crop in the middle of black, or black where there is none."""
    square = np.zeros((THUMBNAIL, THUMBNAIL, 3), np.uint8)
    content = read_crop(store, row)
    if content is not None and tell_kind(content):
        with contextlib.suppress(DataError):  # it was damaged since the gallery wrote it
            picture = decode_picture(content, Path(row.sighting.crop))
            scale = THUMBNAIL / max(picture.shape[:2])
            height, width = (max(1, round(scale * side)) for side in picture.shape[:2])
            top, left = (THUMBNAIL - height) // 2, (THUMBNAIL - width) // 2
            square[top : top + height, left : left + width] = resize(picture, (height, width))
    return square
