"""Search in a gallery of a million embeddings, against bare FAISS on the same matrix.

18,000 people are seen 50 times each by 40 cameras, in visible light and infrared, and 100,000 others once: 512 numbers
a sighting, whose spectrum falls as that of real embeddings does (two of one person: cosine 0.62 on average; the closest
thousandth of a thousand pairs of strangers: above 0.5). Queries are further sightings of people in the gallery. It
stays in runs/bench-gallery, so that only the first run builds it.

Both sides make a mask of the filter from columns in memory, search, and give numbers of rows; FAISS has the matrix in
memory and gets the mask as a bitmap. The answers must be equal. "The whole answer" is what a user of the gallery waits
for: the filter read from text, the table looked at for news, and every row found read from it, which FAISS knows
nothing of. The approximate search, always whole, stands beside FAISS's own index of the same kind at a similar recall.
"""

import json
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measure import alternate, build_row, once
from tapetum.core.atomic import write_bytes
from tapetum.core.sighting import Sighting
from tapetum.core.types import Modality
from tapetum.gallery.filters import parse_filter, rows_passing
from tapetum.gallery.opening import open_gallery
from tapetum.gallery.schema import ModelInfo, Row, Run, SearchResult
from tapetum.gallery.store import Store

Real = NDArray[np.float32]
Whole = NDArray[np.int64]

LONG = True
FOLDER = Path("runs") / "bench-gallery"
VERSION = 2
DIMENSION = 512
CAMERAS = 40
NIGHT = 1_795_291_200.0  # 2026-11-21 20:00 UTC
DAYS = 30
BATCH = 20_000
K = 20
QUERIES = 64
RECALL_QUERIES = 256
FILTERS = {  # share of the rows: filter
    "50 %": "modality == infrared",
    "5 %": 'camera in ("c7", "c23")',
    "0.1 %": f'camera == "c7" and time >= {NIGHT} and time < {NIGHT + 0.04 * DAYS * 86_400}',
}
MODEL = ModelInfo("bench", DIMENSION, "drawn, not computed")


class People:
    """Who is seen, and how; the same numbers at each call.

    Args:
        people: seen fifty times.
        distractors: seen once.
    """

    def __init__(self, people: int, distractors: int) -> None:
        self.rng = np.random.default_rng(0)
        spread = (1.0 + np.arange(DIMENSION)) ** -0.5
        self.spread = (spread / np.linalg.norm(spread)).astype(np.float32)
        self.faces = self.rng.standard_normal((people + distractors, DIMENSION), dtype=np.float32) * self.spread
        self.cameras = 0.3 * self.rng.standard_normal((CAMERAS, DIMENSION), dtype=np.float32) * self.spread
        self.infrared = 0.4 * self.rng.standard_normal(DIMENSION, dtype=np.float32) * self.spread
        seen = np.concatenate([np.repeat(np.arange(people), 50), np.arange(people, people + distractors)])
        self.who: Whole = self.rng.permutation(seen)
        count = len(seen)
        self.camera = self.rng.integers(0, CAMERAS, count)
        self.modality = self.rng.integers(0, 2, count)
        self.time = NIGHT + self.rng.uniform(0, DAYS * 86_400, count)

    def draw(self, who: Whole, camera: Whole, modality: Whole) -> Real:
        """Embeddings of sightings."""
        noise = self.rng.standard_normal((len(who), DIMENSION), dtype=np.float32) * np.float32(0.7 / DIMENSION**0.5)
        drawn = self.faces[who] + self.cameras[camera] + modality[:, None].astype(np.float32) * self.infrared + noise
        return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), np.float32)

    def ask(self, count: int) -> torch.Tensor:
        """Further sightings of people in the gallery."""
        rng = np.random.default_rng(1)
        self.rng = np.random.default_rng(2)
        who = self.who[rng.integers(0, len(self.who), count)]
        return torch.from_numpy(self.draw(who, rng.integers(0, CAMERAS, count), rng.integers(0, 2, count)))


def build(folder: Path, world: People, about: dict[str, Any]) -> dict[str, Any]:
    """The gallery; what building cost is kept beside it."""
    path = folder / "bench.json"
    if path.is_file() and json.loads(path.read_text())["about"] == about:
        return dict(json.loads(path.read_text()))
    shutil.rmtree(folder, ignore_errors=True)
    run = Run(MODEL.id, "numpy", "fp32", "bench")
    begun = time.perf_counter()
    drawing = 0.0
    with open_gallery(folder, MODEL, approximate_above=about["approximate_above"]) as store:
        count = len(world.who)
        for first in range(0, count, BATCH):
            rows = slice(first, min(first + BATCH, count))
            seconds, vectors = once(partial(world.draw, world.who[rows], world.camera[rows], world.modality[rows]))
            drawing += seconds
            store.upsert([describe(world, row, run) for row in range(rows.start, rows.stop)], torch.from_numpy(vectors))
            print(f"\r    {rows.stop} rows, {time.perf_counter() - begun:.0f} s", end="", flush=True)
        stored = time.perf_counter() - begun - drawing
        seconds, recall = once(store.compact)
    print(f"\r    built in {time.perf_counter() - begun:.0f} s, {seconds:.0f} s of it compacting with the index")
    result = {"about": about, "store_seconds": stored, "compact_seconds": seconds, "recall": recall}
    write_bytes(path, json.dumps(result).encode())
    return result


def describe(world: People, row: int, run: Run) -> Row:
    """What is known about one sighting."""
    sighting = Sighting(
        id=f"row{row:08d}",
        source="night.mp4",
        camera=f"c{world.camera[row]}",
        time=float(world.time[row]),
        frame=row,
        box=(0, 0, 64, 128),
        tracklet=f"t{world.who[row]}-{world.camera[row]}",
        modality=Modality(int(world.modality[row])),
        light=40.0,
        quality=0.8,
        remark="",
        crop="",
    )
    return Row(sighting, run)


def mask(world: People, share: str) -> NDArray[np.bool_] | None:
    """What FAISS's user would write with NumPy for one of the filters."""
    if share == "50 %":
        return world.modality == 1
    if share == "5 %":
        return (world.camera == 7) | (world.camera == 23)
    if share == "0.1 %":
        return (world.camera == 7) & (world.time >= NIGHT) & (world.time < NIGHT + 0.04 * DAYS * 86_400)
    return None


def search_matrix(store: Any, queries: torch.Tensor, text: str | None) -> Whole:
    """Our rows, without looking for news and without reading them from the table."""
    passing = None if text is None else rows_passing(parse_filter(text), store._column)
    return np.asarray(store._matrix.search(queries, K, passing)[1])


def search_faiss(index: Any, world: People, share: str, queries: Real) -> Whole:
    """FAISS's rows, with a bitmap where there is a filter."""
    passing = mask(world, share)
    if passing is None:
        return np.asarray(index.search(queries, K)[1])
    bits = np.packbits(passing, bitorder="little")
    chosen = faiss.IDSelectorBitmap(len(passing), faiss.swig_ptr(bits))
    return np.asarray(index.search(queries, K, params=faiss.SearchParameters(sel=chosen))[1])


def numbers(answer: SearchResult) -> Whole:
    """The rows of an answer by their place in the matrix."""
    return np.array([[hit.row.sighting.frame for hit in hits] for hits in answer.hits])


def share_found(found: Whole, right: Whole) -> float:
    """Of the first ten."""
    pairs = zip(found[:, :10].tolist(), right[:, :10].tolist(), strict=True)
    return sum(len(set(some) & set(all_)) for some, all_ in pairs) / (10 * len(right))


def compare_exact(store: Store, index: Any, world: People, rounds: int) -> Iterator[dict[str, Any]]:
    """Rows of the exact search."""
    queries = world.ask(QUERIES)
    for share in ("", *FILTERS):
        for count in (1, QUERIES):
            asked = queries[:count]
            alone = partial(search_matrix, store, asked, FILTERS.get(share))
            whole = partial(store.search, asked, K, FILTERS.get(share), exact=True)
            peer = partial(search_faiss, index, world, share, asked.numpy())
            same = float((numbers(whole()) == peer()).mean())
            if same < 0.999:  # nearly equal similarities may change places
                raise AssertionError(f"filter {share!r}, {count} queries: {same:.4f} of the answers are FAISS's")
            sides = {"alone": alone, "whole": whole, "peer": peer}
            seconds = alternate(sides, rounds if count > 1 else 3 * rounds)
            told = f"filter that passes {share}" if share else "no filter"
            told += f", {count} quer{'ies' if count > 1 else 'y'}"
            ours, answer, theirs = (1000 * seconds[side] for side in ("alone", "whole", "peer"))
            yield build_row(f"exact search, {told}, against FAISS", ours, theirs, "ms", target=1 / 1.2)
            yield build_row(f"the whole answer, {told}, against FAISS", answer, theirs, "ms")


def compare_approximate(store: Store, index: Any, matrix: Real, world: People, rounds: int) -> Iterator[dict[str, Any]]:
    """Rows of the approximate search."""
    queries = world.ask(RECALL_QUERIES)
    right = np.asarray(index.search(queries.numpy(), K)[1])

    def one_by_one(**options: Any) -> Whole:
        return np.concatenate([numbers(store.search(query[None], K, **options)) for query in queries])

    own = faiss.index_factory(DIMENSION, f"IVF{round(len(matrix) ** 0.5)},SQ8", faiss.METRIC_INNER_PRODUCT)
    own.train(matrix[:: max(1, len(matrix) // 100_000)])
    own.add(matrix)

    def peer() -> Whole:
        return np.concatenate([own.search(query[None].numpy(), K)[1] for query in queries])

    recall = share_found(one_by_one(exact=False), right)
    for probes in (8, 16, 32, 64, 128):
        own.nprobe = probes
        peer_recall = share_found(peer(), right)
        if peer_recall >= recall:
            break
    seconds = alternate({"ours": partial(one_by_one, exact=False), "peer": peer}, rounds)
    note = f"recall@10 {recall:.4f} on {len(queries)} queries; FAISS IVF,SQ8 with {probes} probes {peer_recall:.4f}"
    ours, theirs = (1000 * seconds[side] / len(queries) for side in ("ours", "peer"))
    yield build_row("approximate search, 1 query, against FAISS IVF,SQ8", ours, theirs, "ms", note=note)
    yield build_row("recall@10 of the approximate search, against 0.98", recall, 0.98, "share/s", target=1.0)


def run(
    people: int = 18_000, distractors: int = 100_000, rounds: int = 5, folder: Path = FOLDER, approximate: int = 200_000
) -> Iterator[dict[str, Any]]:
    world = People(people, distractors)
    about = {"version": VERSION, "people": people, "distractors": distractors, "approximate_above": approximate}
    built = build(folder, world, about)
    count = len(world.who)
    with open_gallery(folder, approximate_above=approximate) as store:
        matrix = draw_again(people, distractors)
        kept = store.fetch([f"row{row:08d}" for row in range(0, count, max(1, count // 100))])
        if not np.array_equal(kept.vectors.numpy(), matrix[[row.sighting.frame for row in kept.rows]]):
            raise AssertionError(f"{folder}: holds other vectors; remove it")
        index = faiss.IndexFlatIP(DIMENSION)
        index.add(matrix)
        matrix = faiss.rev_swig_ptr(index.get_xb(), matrix.size).reshape(matrix.shape)  # one copy is enough
        yield build_row(
            f"{count} rows stored, then compacted with the approximate index",
            built["store_seconds"] + built["compact_seconds"],
            None,
            "s",
            note=f"{built['store_seconds']:.0f} s storing, {built['compact_seconds']:.0f} s compacting and indexing; "
            f"the gallery itself measured recall@10 {built['recall']:.4f}",
        )
        yield from compare_exact(store, index, world, rounds)
        yield from compare_approximate(store, index, matrix, world, rounds)


def draw_again(people: int, distractors: int) -> Real:
    """All vectors, in the order of their numbers."""
    world = People(people, distractors)
    matrix = np.empty((len(world.who), DIMENSION), np.float32)
    for first in range(0, len(matrix), BATCH):
        rows = slice(first, min(first + BATCH, len(matrix)))
        matrix[rows] = world.draw(world.who[rows], world.camera[rows], world.modality[rows])
    return matrix
