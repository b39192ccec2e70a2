"""A gallery on a Milvus server, or in a file of Milvus Lite: the same interface as a folder.

The collection `name` holds the rows; the collection `name_about` holds one row, the format and the model, written last.
Dynamic fields are off: with them a misspelt field would be an empty answer. Crops stay in a folder on this side.
"""

import contextlib
import json
import logging
import os
import re
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from tapetum.core.arrays import Real, paired_products
from tapetum.core.atomic import make_folder
from tapetum.core.errors import GalleryError, MissingGalleryError, OutputError
from tapetum.core.extras import install_hint
from tapetum.core.types import Modality
from tapetum.gallery.exact import rounding_margin
from tapetum.gallery.filters import Among, And, Compare, Filter, Not, Or, Value
from tapetum.gallery.schema import (
    LONGEST,
    LONGEST_TEXT,
    REALS,
    TEXTS,
    WHOLES,
    Hit,
    ModelInfo,
    Row,
    flatten,
    unflatten,
)
from tapetum.gallery.store import (
    RECALL_AT,
    RECALL_QUERIES,
    WANTED_RECALL,
    Store,
    check_model,
    chunks,
    near,
    read_about,
    recall_at_ten,
    write_about,
)

PATIENCE_SECONDS = 3.0  # for a connection
ANSWER_SECONDS = 60.0  # for one answer of a server that took the call
ROWS_AT_ONCE = 1_000  # in one message: 1000 x 2048 floats are 8 MiB, a message may have 64
MOST_OF_ONE = 16_384  # answers of one query, by the server's own limit
MOST_AT_ONCE = 2**17  # answers in one message
SPARE = 16  # asked for beyond the wanted ones: among them are those that rounding alone put behind
EFFORTS = (100, 200, 400, 800)  # ef of HNSW until the wanted recall is reached
MEASURED: dict[str, Filter | None] = {  # the questions for which it is measured what the index finds
    "all": None,
    **{modality.name.lower(): Compare("modality", "==", modality) for modality in Modality},
}
FOUND = [*TEXTS, *WHOLES, *REALS]


@dataclass(frozen=True)
class MilvusAddress:
    """Where a Milvus gallery is.

    Attributes:
        text: without a password, for messages.
        uri: for the client: http://host:port, or a file.
        token: user:password, or empty.
        name: of the collection.
        host, port: of the server; an empty host for a file.
    """

    text: str
    uri: str
    token: str
    name: str
    host: str
    port: int


class MilvusStore(Store):
    """See the module and `Store`; opened by `open_milvus`."""

    def __init__(
        self, address: MilvusAddress, client: Any, info: ModelInfo, folder: Path | None, approximate_above: int
    ) -> None:
        super().__init__(address.text, info, folder, approximate_above)
        self._address = address
        self._client = client
        self._name = address.name

    def close(self) -> None:
        """Close the connection."""
        with self._readers.alone(), contextlib.suppress(Exception):
            self._client.close()

    def _upsert(self, rows: Sequence[Row], vectors: NDArray[np.float32], *, known: bool) -> None:  # noqa: ARG002
        columns = flatten(rows)
        names = list(columns)
        lines = list(zip(*columns.values(), strict=True))
        with self._asking(OutputError):
            for start in range(0, len(rows), ROWS_AT_ONCE):
                batch = [
                    {**dict(zip(names, line, strict=True)), "vector": vector}
                    for line, vector in zip(
                        lines[start : start + ROWS_AT_ONCE], vectors[start : start + ROWS_AT_ONCE], strict=True
                    )
                ]
                self._client.upsert(self._name, batch, timeout=ANSWER_SECONDS)

    def _delete(self, ids: Sequence[str]) -> None:
        with self._asking(OutputError):
            for some in chunks(ids, ROWS_AT_ONCE):
                self._client.delete(
                    self._name, filter=render_expression(Among("id", tuple(some))), timeout=ANSWER_SECONDS
                )
            self._client.flush(self._name)
            self._client.compact(self._name)

    def _compact(self) -> float | None:
        with self._asking(OutputError):
            self._client.flush(self._name)
            self._client.compact(self._name)
        large = self._count(None) > self.approximate_above
        if large != (self._index() == "HNSW"):
            with self._readers.alone(), self._asking(OutputError):  # no search of this process while there is no index
                self._client.release_collection(self._name)
                self._client.drop_index(self._name, "vector")
                self._client.create_index(self._name, index_of(self._client, "HNSW" if large else "FLAT"))
                self._client.load_collection(self._name)
        if not large:
            with self._asking(OutputError):
                self._client.upsert(self._name + "_about", [_note("recall", "")])
            return None
        return self._measure_recall()

    def _measure_recall(self) -> float:
        samples = [near(vectors) for modality in Modality if len(vectors := self._sample(modality))]
        told = {
            name: self._measure(condition, samples)
            for name, condition in MEASURED.items()
            if condition is None or self._count(condition) > self.approximate_above  # of fewer, each is compared
        }
        with self._asking(OutputError):
            self._client.upsert(self._name + "_about", [_note("recall", json.dumps(told))])
        return float(told["all"]["recall_at_10"])

    def _sample(self, modality: Modality) -> Real:
        """Vectors of some rows of a modality, (n, D)."""
        ids = sorted(self._read_columns(["id"], MEASURED[modality.name.lower()])["id"])
        places = np.unique(np.linspace(0, len(ids) - 1, RECALL_QUERIES).astype(int)).tolist() if ids else []
        return self._fetch([ids[place] for place in places])[1]

    def _measure(self, condition: Filter | None, samples: Sequence[Real]) -> dict[str, float]:
        """The least effort that finds as much as is wanted, and what it finds for the worst of the samples."""
        queries, ends = np.concatenate(samples), np.cumsum([0, *map(len, samples)]).tolist()
        right = self._scan(queries, RECALL_AT, condition)
        for effort in EFFORTS:
            found = self._ask(queries, RECALL_AT, condition, effort)
            recall = min(recall_at_ten(found[start:end], right[start:end]) for start, end in pairwise(ends))
            if recall >= WANTED_RECALL:
                break
        return {"recall_at_10": recall, "ef": effort}

    def _search(
        self, queries: Real, k: int, condition: Filter | None, exact: bool | None
    ) -> tuple[list[tuple[Hit, ...]], float | None]:
        if self._index() != "HNSW":
            return self._ask(queries, k, condition, None), None
        if exact or (exact is None and self._count(condition) <= self.approximate_above):
            return self._scan(queries, k, condition), None
        measurement = self._measurement(condition)
        return self._ask(queries, k, condition, max(int(measurement["ef"]), k)), measurement["recall_at_10"]

    def _recall(self) -> float | None:
        return self._measurement(None)["recall_at_10"] if self._index() == "HNSW" else None

    def _measurement(self, condition: Filter | None) -> dict[str, float]:
        """What the index finds of the rows that pass; nothing is promised of a filter that was not measured."""
        with self._asking(GalleryError):
            notes = self._client.get(self._name + "_about", ids=["recall"], output_fields=["text"])
        told = json.loads(notes[0]["text"]) if notes and notes[0]["text"] else {}
        name = next((name for name, measured in MEASURED.items() if measured == condition), "")
        return {"recall_at_10": 0.0, "ef": EFFORTS[-1], **told.get(name, {})}

    def _ask(self, queries: Real, k: int, condition: Filter | None, effort: int | None) -> list[tuple[Hit, ...]]:
        """The server's answers, compared again as `exact.VectorBlocks.search` does: its products are rounded somehow.

        Without an effort its index is exact: it is asked for more than k, until whatever is left cannot be among them.
        """
        margin, most = rounding_margin(queries.shape[1]), max(k, min(MOST_OF_ONE, MOST_AT_ONCE // len(queries)))
        limit = k if effort is not None else min(k + SPARE, most)
        while True:
            answers = self._ask_server(queries, limit, condition, effort)
            close = (
                len(answer) == limit and answer[k - 1]["distance"] - answer[-1]["distance"] <= margin
                for answer in answers
            )
            if effort is not None or limit == most or not any(close):
                break
            limit = min(4 * limit, most)
        names = sorted({hit["id"] for answer in answers for hit in answer})
        vectors = {line["id"]: line["vector"] for line in self._get(names, ["id", "vector"])}
        results = []
        for query, answer in zip(queries, answers, strict=True):
            hits = [hit for hit in answer if hit["id"] in vectors]  # the others were deleted meanwhile
            matrix = np.array([vectors[hit["id"]] for hit in hits], dtype=np.float32).reshape(len(hits), len(query))
            values = paired_products(matrix, query[None]).clip(-1, 1).tolist()
            best = sorted(zip(values, hits, strict=True), key=lambda pair: (-pair[0], pair[1]["id"]))[:k]
            results.append(
                tuple(
                    Hit(unflatten({**hit["entity"], "id": hit["id"]}), value, rank)
                    for rank, (value, hit) in enumerate(best, start=1)
                )
            )
        return results

    def _ask_server(self, queries: Real, limit: int, condition: Filter | None, effort: int | None) -> Any:
        with self._asking(GalleryError):
            return self._client.search(
                self._name,
                queries,
                limit=limit,
                filter="" if condition is None else render_expression(condition),
                search_params={"metric_type": "IP", "params": {} if effort is None else {"ef": max(effort, limit)}},
                output_fields=FOUND,
                anns_field="vector",
                timeout=ANSWER_SECONDS,
            )

    def _scan(self, queries: Real, k: int, condition: Filter | None) -> list[tuple[Hit, ...]]:
        """Exact search where the server only has an approximate index: every vector that passes comes here once."""
        values = np.empty((len(queries), 0), dtype=np.float32)
        nearest = np.empty((len(queries), 0), dtype=np.int64)
        ids: list[str] = []
        for batch in self._batches(condition, ["id", "vector"]):
            vectors = np.array([line["vector"] for line in batch], dtype=np.float32)
            rows = np.broadcast_to(np.arange(len(ids), len(ids) + len(batch)), (len(queries), len(batch)))
            ids += [line["id"] for line in batch]
            products = queries @ vectors.T  # which rows come into question; see `exact.VectorBlocks.search`
            last = min(k, len(batch))
            least = np.partition(products, -last, axis=1)[:, -last, None]
            if values.shape[1] == k:
                least = np.maximum(least, -values[:, -1:])
            query, row = (products >= least - rounding_margin(queries.shape[1])).nonzero()
            exact = np.full_like(products, np.inf)
            exact[query, row] = -paired_products(queries[query], vectors[row])
            values = np.concatenate([values, exact], axis=1)
            nearest = np.concatenate([nearest, rows], axis=1)
            order = np.argsort(values, axis=1, kind="stable")[:, :k]
            values, nearest = np.take_along_axis(values, order, axis=1), np.take_along_axis(nearest, order, axis=1)
        names = sorted({ids[place] for place in np.unique(nearest).tolist()})
        by_id = {row.sighting.id: row for row in self._fetch_rows(names)}
        return [
            tuple(
                Hit(by_id[ids[place]], min(1.0, max(-1.0, -distance)), rank)
                for rank, (place, distance) in enumerate(zip(places, distances, strict=True), start=1)
            )
            for places, distances in zip(nearest.tolist(), values.tolist(), strict=True)
        ]

    def _fetch(self, ids: Sequence[str]) -> tuple[list[Row], NDArray[np.float32]]:
        lines = self._get(ids, [*FOUND, "vector"])
        vectors = np.array([line["vector"] for line in lines], dtype=np.float32)
        return [unflatten(line) for line in lines], vectors.reshape(len(lines), self.info.dimension)

    def _fetch_rows(self, ids: Sequence[str]) -> list[Row]:
        return [unflatten(line) for line in self._get(ids, FOUND)]

    def _get(self, ids: Sequence[str], columns: list[str]) -> list[dict[str, Any]]:
        with self._asking(GalleryError):  # not the client's own call for ids: it does not quote them
            return [
                line
                for some in chunks(ids, ROWS_AT_ONCE)
                for line in self._client.query(
                    self._name,
                    filter=render_expression(Among("id", tuple(some))),
                    output_fields=columns,
                    timeout=ANSWER_SECONDS,
                )
            ]

    def _find(self, condition: Filter | None) -> list[Row]:
        return [unflatten(line) for batch in self._batches(condition, FOUND) for line in batch]

    def _read_columns(self, names: Sequence[str], condition: Filter | None) -> dict[str, list[Any]]:
        lines = [line for batch in self._batches(condition, list(names)) for line in batch]
        return {name: [line[name] for line in lines] for name in names}

    def _count_values(self, field: str, condition: Filter | None) -> dict[str, int]:
        return Counter(self._read_columns([field], condition)[field])

    def _batches(self, condition: Filter | None, columns: list[str]) -> Iterator[list[dict[str, Any]]]:
        with self._asking(GalleryError):
            expression = 'id != ""' if condition is None else render_expression(condition)
            pages = self._client.query_iterator(
                self._name, filter=expression, output_fields=columns, batch_size=ROWS_AT_ONCE, timeout=ANSWER_SECONDS
            )
            try:
                while batch := pages.next():
                    yield batch
            finally:
                pages.close()

    def _count(self, condition: Filter | None) -> int:
        with self._asking(GalleryError):
            expression = "" if condition is None else render_expression(condition)
            answer = self._client.query(
                self._name, filter=expression, output_fields=["count(*)"], timeout=ANSWER_SECONDS
            )
            return int(answer[0]["count(*)"])

    def _index(self) -> str:
        with self._asking(GalleryError):
            return str(self._client.describe_index(self._name, "vector")["index_type"])

    @contextmanager
    def _asking(self, kind: type[GalleryError] | type[OutputError]) -> Iterator[None]:
        with asking(self._address, kind):
            yield


def open_milvus(where: str, create: ModelInfo | None, folder: Path | None, approximate_above: int) -> MilvusStore:
    """A gallery on a Milvus server; see `opening.open_gallery`."""
    address = read_address(where)
    client = connect(address)
    try:
        with asking(address, GalleryError):
            info = read_model(client, address, create)
            client.load_collection(address.name)
        if folder is not None:
            make_folder(folder)
        store = MilvusStore(address, client, info, folder, approximate_above)
        if create is not None:
            store.expect(create)
    except BaseException:
        with contextlib.suppress(Exception):
            client.close()
        raise
    return store


def read_model(client: Any, address: MilvusAddress, create: ModelInfo | None) -> ModelInfo:
    """The model of a gallery, which is made where there is none."""
    if not client.has_collection(address.name + "_about"):
        if create is None:
            raise MissingGalleryError(
                f"{address.text}: no gallery is there; make one with: tapetum index SOURCE --gallery {address.text}"
            )
        check_model(create, address.text)
        make_collections(client, address, create)
    notes = client.get(address.name + "_about", ids=["about"], output_fields=["text"])
    if not notes:
        raise GalleryError(
            f"{address.text}: the gallery is half made; drop {address.name} and {address.name}_about in Milvus, "
            "or take another name"
        )
    return read_about(notes[0]["text"], address.text)


def read_address(where: str) -> MilvusAddress:
    """Where a Milvus gallery is."""
    try:
        parts = urlsplit(where)
        host, port = parts.hostname or "", parts.port or 19530
    except ValueError:
        raise GalleryError(f"{where.rpartition('@')[2]}: no address; write milvus://host:port/name") from None
    file, _, name = unquote(parts.path).rpartition("/")
    address = f"milvus://{host}:{port}/{name}" if host else f"milvus://{file}/{name}"
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,200}", name) or (host and file) or not (host or file):
        raise GalleryError(f"{address}: no address; write milvus://host:port/name, name of letters, digits and '_'")
    token = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""
    token = token or os.environ.get("TAPETUM_MILVUS_TOKEN", "")
    return MilvusAddress(address, f"http://{host}:{port}" if host else file, token, name, host, port)


def connect(address: MilvusAddress) -> Any:
    """A connected client."""
    try:
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # otherwise its keepalive complains on the terminal
        from pymilvus import MilvusClient
    except ImportError:
        raise GalleryError(
            f"{address.text}: galleries on Milvus need pymilvus; install it with: {install_hint('pymilvus')}"
        ) from None
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs what it raises, with a stack
    remedy = "is the server running, and the address right?"
    if address.host:
        try:
            socket.create_connection((address.host, address.port), PATIENCE_SECONDS).close()
        except OSError as error:
            raise GalleryError(f"{address.text}: Milvus is unreachable ({error.strerror or error}); {remedy}") from None
    elif not Path(address.uri).parent.is_dir():
        raise GalleryError(f"{address.text}: no folder {Path(address.uri).parent}; make it first")
    try:
        return MilvusClient(address.uri, token=address.token, timeout=PATIENCE_SECONDS)
    except Exception as error:  # pymilvus raises whatever its transport does
        if not address.host:
            raise GalleryError(
                f"{address.text}: cannot be opened ({_first_line(error)}); Milvus Lite lets one process in at a time, "
                "and needs: pip install milvus-lite"
            ) from None
        raise GalleryError(f"{address.text}: Milvus is unreachable ({_first_line(error)}); {remedy}") from None


@contextmanager
def asking(address: MilvusAddress, kind: type[GalleryError] | type[OutputError]) -> Iterator[None]:
    """Say in one line what a server did not do."""
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except (MilvusException, OSError, RuntimeError) as error:
        raise kind(
            f"{address.text}: Milvus did not answer ({_first_line(error)}); check the server and repeat"
        ) from error


def make_collections(client: Any, address: MilvusAddress, info: ModelInfo) -> None:
    """The two collections of a gallery."""
    from pymilvus import DataType

    if client.has_collection(address.name):
        raise GalleryError(f"{address.text}: a collection of that name is there and is no gallery; take another name")
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    for name in TEXTS:
        schema.add_field(name, DataType.VARCHAR, is_primary=name == "id", max_length=LONGEST.get(name, LONGEST_TEXT))
    for name in WHOLES:
        schema.add_field(name, DataType.INT32)
    for name in REALS:
        schema.add_field(name, DataType.DOUBLE)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=info.dimension)
    client.create_collection(
        address.name, schema=schema, index_params=index_of(client, "FLAT"), consistency_level="Strong"
    )
    about = client.create_schema(auto_id=False, enable_dynamic_field=False)
    about.add_field("id", DataType.VARCHAR, is_primary=True, max_length=64)
    about.add_field("text", DataType.VARCHAR, max_length=8192)
    about.add_field("vector", DataType.FLOAT_VECTOR, dim=2)  # every collection must have one
    client.create_collection(
        address.name + "_about", schema=about, index_params=index_of(client, "FLAT"), consistency_level="Strong"
    )
    client.upsert(address.name + "_about", [_note("about", write_about(info))])


def index_of(client: Any, kind: str) -> Any:
    """Parameters of an index on the vectors.

    Args:
        kind: "FLAT", which is exact, or "HNSW".
    """
    parameters = client.prepare_index_params()
    options = {"M": 24, "efConstruction": 300} if kind == "HNSW" else {}
    parameters.add_index("vector", index_type=kind, metric_type="IP", params=options)
    return parameters


def render_expression(tree: Filter) -> str:
    """A checked filter in Milvus's language."""
    match tree:
        case Compare(field, sign, value):
            return f"({field} {sign} {_literal(value)})"
        case Among(field, values):
            return f"({field} in [{', '.join(map(_literal, values))}])"
        case And(parts):
            return "(" + " and ".join(map(render_expression, parts)) + ")"
        case Or(parts):
            return "(" + " or ".join(map(render_expression, parts)) + ")"
        case Not(part):
            return f"(not {render_expression(part)})"


def _literal(value: Value) -> str:
    if isinstance(value, Modality):
        return str(int(value))
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(float(value))


def _note(name: str, text: str) -> dict[str, Any]:
    return {"id": name, "text": text, "vector": [1.0, 0.0]}


def _first_line(error: Exception) -> str:
    text = str(getattr(error, "message", "") or error).strip()
    return text.split("\n")[0][:200] or type(error).__name__
