"""What the documentation says of growth, out of the measured files: `python -m benchmarks.growth.page`.

Writes the tables of `docs/benchmarks.md` and the plan of `docs/scaling.md` between their marks. The plan is arithmetic:
it takes the largest size measured of each kind and multiplies.
"""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.growth.__main__ import QUIET, RESULTS, build_subject
from benchmarks.growth.gallery import ADDED, VECTOR_BYTES
from benchmarks.growth.index import STARTERS, key_of
from benchmarks.growth.subject import Row
from tapetum.plots.growth import short_number

PAGES = {"docs/benchmarks.md": ("evaluation", "gallery", "index", "service"), "docs/scaling.md": ("plan",)}
CAMERAS, ROWS = 1_000, 1_000_000_000
FRAMES = 10  # a second of a camera, all of them looked at
PASSAGES = 2_000  # of people before a camera in a day
PEAK = 4  # the busiest hour against the mean
MACHINE_CORES, MACHINE_GIB = 64, 256
DETECTOR_MS = 9  # of ssd-mobilenet on a frame that is not brightened: docs/detectors.md
DETECTOR_CPU = "AMD EPYC (Zen 5)"  # which that was measured on
LEAST_FRAMES = 5_000  # of a measurement in which the command's start weighs little
LINK_BYTES, LINKS = 4, 48  # of HNSW with M = 24, as Tapetum asks Milvus for: twice M in the lowest layer
COLUMNS = {
    "evaluation": {
        "time, s": "seconds",
        "processor, s": "processor_seconds",
        "million pairs/s": "million_pairs_per_second",
        "memory, GiB": "peak_gib",
        "one matrix, GiB": "matrix_gib",
    },
    "gallery": {
        "exact, ms": "exact_ms",
        "exact of 64, ms each": "exact_64_ms",
        "approximate, ms": "approximate_ms",
        "recall@10": "recall_at_10",
        "insert, rows/s": "insert_rows_per_second",
        "64 more rows, ms": "insert_64_ms",
        "compact, s": "compact_seconds",
        "delete 0.1 %, s": "delete_seconds",
        "start, s": "start_seconds",
        "disk, GiB": "disk_gib",
        "memory building, GiB": "build_gib",
        "memory searching, GiB": "search_gib",
    },
    "index": {
        "frames": "frames",
        **{starter: key_of(starter) for starter in STARTERS},
        "frames a processor second": "frames_per_processor_second",
        "memory, GiB": "peak_gib",
    },
    "service": {
        "answers/s": "answers_per_second",
        "told to wait/s": "refused_per_second",
        "errors": "errors",
        "median, s": "median_seconds",
        "95th percentile, s": "p95_seconds",
        "server, MiB": "server_mib",
    },
}


def main() -> None:
    """Write the blocks of both pages."""
    for page, names in PAGES.items():
        path = Path(page)
        text = path.read_text(encoding="utf-8")
        for name in names:
            text = replace_block(text, name, write_plan() if name == "plan" else write_table(name))
        path.write_text(text, encoding="utf-8")


def replace_block(text: str, name: str, block: str) -> str:
    """A page with what stands between the marks of a block replaced."""
    marks = f"<!-- growth: {name} -->", f"<!-- end of growth: {name} -->"
    return re.sub(f"{marks[0]}\n.*?{marks[1]}", lambda _: f"{marks[0]}\n{block}\n{marks[1]}", text, flags=re.DOTALL)


def read_results(what: str) -> dict[str, Any]:
    """The file of a subject."""
    return dict(json.loads((RESULTS / f"growth_{what}.json").read_bytes()))


def measured(what: str) -> list[Row]:
    """Its rows that have figures, ascending."""
    return [row for row in read_results(what)["rows"] if "left_out" not in row]


def write_table(what: str) -> str:
    """A table with what it was measured on, its knees, and what is not measured."""
    content, rows, subject = read_results(what), measured(what), build_subject(what, {})
    columns = COLUMNS[what]
    lines = [f"| {subject.counted} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for row in rows:
        mark = "*" if row["others"] > QUIET else ""
        cells = [f"{short_number(row['size'])}{mark}", *(show(row.get(key)) for key in columns.values())]
        lines.append(f"| {' | '.join(cells)} |")
    settings = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in content["settings"].items())
    lines += ["", f"{content['machine']}; {settings}."]
    if any(row["others"] > QUIET for row in rows):
        lines.append(
            "\\* while other programs took more than a tenth of the processors: times are too long, and noisy."
        )
    for panel in subject.panels:
        if panel.knee:
            where = panel.knee.say(rows, subject.counted)
            lines.append(f'Knee of "{panel.title}": **{where}** ({panel.knee.meaning}).')
    left = [f"{short_number(row['size'])} ({row['left_out']})" for row in content["rows"] if "left_out" in row]
    absent = [short_number(size) for size in subject.sizes if size not in {row["size"] for row in content["rows"]}]
    if left or absent:
        lines.append(f"Not measured yet: {', '.join([*absent, *left])}.")
    return "\n".join([*lines, f"Beyond: {subject.beyond}."])


def show(value: float | None) -> str:
    """A figure in a cell."""
    return "" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def write_plan() -> str:
    """The table of the plan: each line is worked out from those above it and from measured figures."""
    gallery, index = measured("gallery")[-1], measured("index")[-1]
    at = f"{short_number(gallery['size'])} rows"
    once = measured("index")[0]  # of a few cameras, each filmed: files of before tell of copies as one recording
    pictures = once["rows"] / once["tracklets"]
    lines: list[tuple[str, str, str]] = []

    def add(what: str, value: float, unit: str, source: str, round_: Callable[[float], float] = float) -> float:
        value = round_(value)
        lines.append((what, f"{show(value)} {unit}".strip(), source))
        return value

    add("frames of a camera", FRAMES, "a second", "assumed")
    frames = add("frames in all", CAMERAS * FRAMES, "a second", f"{CAMERAS:,} cameras")
    if index["frames"] >= LEAST_FRAMES:
        at_index = f"growth_index, {index['size']} cameras"
        one = add("one core, background detector", index["frames_per_processor_second"], "frames/s", at_index)
        add("cores for it", frames / one, "", "frames in all / one core", math.ceil)
        slow = 1 / (1 / one + DETECTOR_MS / 1000)
        trained = add("one core, trained detector", slow, "frames/s", f"+ {DETECTOR_MS} ms a frame, docs/detectors.md")
        cores = add("cores for it", frames / trained, "", "frames in all / one core", math.ceil)
        add(f"machines of {MACHINE_CORES} cores", cores / MACHINE_CORES, "", "", math.ceil)
    else:
        few = f"{index['frames']} frames tell of the command's start alone; {LEAST_FRAMES:,} are needed"
        lines.append(("one core, background detector", "not measured yet", few))
        source = f"docs/detectors.md, {DETECTOR_MS} ms a frame"
        ceiling = add("one core, trained detector alone", 1000 / DETECTOR_MS, "frames/s", source)
        cores = add("cores at least", frames / ceiling, "", "frames in all / one core", math.ceil)
        add(f"machines of {MACHINE_CORES} cores", cores / MACHINE_CORES, "", "", math.ceil)
    add("passages of people", PASSAGES, "a camera and day", "assumed")
    add("pictures of a passage", pictures, "", "growth_index, rows / tracklets; 8 at most")
    daily = add("rows", CAMERAS * PASSAGES * pictures, "a day", "product")
    add(f"days until {ROWS:,} rows", ROWS / daily, "", "")
    peak = add("rows in the busiest hour", PEAK * daily / 86_400, "a second", f"{PEAK} times the mean, assumed")
    stored = add(
        "one writer, 64 rows at once", ADDED / gallery["insert_64_ms"] * 1000, "rows/s", f"growth_gallery, {at}"
    )
    add("writers", peak / stored, "", "busiest hour / one writer", math.ceil)
    row = add("a row on the disk", gallery["bytes_per_row"], "bytes", f"growth_gallery, {at}")
    add("all rows on the disk", row * ROWS / 1e12, "TB", "product")
    if "crop_bytes" in index:
        add(
            "all crops",
            index["crop_bytes"] * ROWS / 1e12,
            "TB",
            f"{index['crop_bytes']:,.0f} bytes a crop, growth_index",
        )
    else:
        lines.append(("all crops", "not measured yet", "growth_index, bytes of a crop"))
    vectors = add("vectors alone", VECTOR_BYTES * ROWS / 2**40, "TiB", "512 numbers of 4 bytes")
    holders = add(
        f"machines of {MACHINE_GIB} GiB that keep them in memory", vectors * 1024 / MACHINE_GIB, "", "", math.ceil
    )
    exact = add(
        "exact search of a million rows", gallery["exact_ms_per_million"], "ms", f"growth_gallery, {at}, one thread"
    )
    add("exact search of all", exact * ROWS / 1e6 / 1000, "s of one core", "product")
    shard = gallery["size"] // gallery["shards"]
    shards = add(f"galleries of {short_number(shard)} rows", ROWS / shard, "", f"growth_gallery, {at}", math.ceil)
    quick = add(
        "approximate search of one",
        gallery["approximate_ms"] / gallery["shards"],
        "ms",
        f"growth_gallery, recall {gallery['recall_at_10']:.3f}",
    )
    total = add("approximate search of all", shards * quick / 1000, "s of one core", "product")
    add(
        f"the same on {holders:.0f} machines of {MACHINE_CORES} cores",
        total / holders / MACHINE_CORES * 1000,
        "ms",
        "if it divides evenly",
    )
    links = (VECTOR_BYTES + LINK_BYTES * LINKS) * ROWS / 2**40
    add("Milvus with HNSW, memory", links, "TiB", "vectors + 48 links of 4 bytes; without its own needs")
    add(f"machines of {MACHINE_GIB} GiB for it", links * 1024 / MACHINE_GIB, "", "one copy", math.ceil)
    lines += [(f"machine of growth_{what}", read_results(what)["machine"], "its file") for what in ("gallery", "index")]
    lines.append(("CPU of the detector's time", DETECTOR_CPU, "docs/detectors.md"))
    return "\n".join(
        ["| quantity | worked out | from |", "|---|---|---|", *(f"| {' | '.join(line)} |" for line in lines)]
    )


if __name__ == "__main__":
    main()
