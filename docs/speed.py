"""README's table of speeds, of what `python -m benchmarks` wrote.

`python docs/speed.py runs/bench.json` keeps the rows that the table takes in docs/results/bench.json and writes the
table into README.md; without a file it writes the table of what is kept.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "docs/results/bench.json"
README = ROOT / "README.md"
HEAD = "| what | ours | peer | times as good | NAME |\n|---|---|---|---|---|\n"
RELEASED = "what the released code computes, float32"
WALKED = "the released codes' procedure"


@dataclass(frozen=True)
class Line:
    """A line of the table: what it says, the rows it takes its numbers from, who the peer of each is."""

    what: str
    rows: tuple[str, ...]
    peers: tuple[str, ...]
    name: str  # of the benchmark


METRICS = "evaluation: distances to all metrics"
DEEN, IDF, TRIALS = "DEEN training step, 384 x 144, 2 x 4 x 2", "ResNet-50, 256 x 128", "size, vectors to all metrics"
DIVISIONS = "", " with NumPy's division"
AGAINST = "against the released code's, fp32"
LINES = (
    Line(
        "vectors to all metrics, 3,368 x 19,732 x 2048",
        ("evaluation: vectors to all metrics, against product + row sort",),
        ("the bare matrix product and NumPy's sort of each row",),
        "evaluation",
    ),
    Line(
        "distances to all metrics, same size",
        (f"{METRICS}, against NumPy's sort of each row", f"{METRICS}, against torchreid (Python)"),
        ("NumPy's sort of each row", "torchreid's evaluation in Python"),
        "evaluation",
    ),
    Line(
        "the same, where people are told apart badly",
        (f"{METRICS}, people told apart badly, against NumPy's sort of each row",),
        ("NumPy's sort of each row",),
        "evaluation",
    ),
    Line(
        "re-ranking 1,000 x 5,000 from distances",
        ("re-ranking 1000 x 5000 from distances, against torchreid",),
        ("torchreid 0.2.5",),
        "reranking",
    ),
    Line(
        "memory of 100,000 x 100,000 x 512, all metrics",
        ("evaluation: peak memory of 100000 x 100000 x 512",),
        (),
        "evaluation",
    ),
    Line(
        "DEEN training step, ResNet-50, 384 x 144, 2 x 4 x 2 pictures, float32",
        (f"{DEEN}: fp32, {AGAINST}",),
        (RELEASED,),
        "deen",
    ),
    Line("the same in bf16", (f"{DEEN}: bf16, {AGAINST}",), (RELEASED,), "deen"),
    Line("its peak memory in bf16", (f"{DEEN}: peak memory, bf16, {AGAINST}",), (RELEASED,), "deen"),
    Line(
        "DEEN extraction with mirror, float32", (f"DEEN extraction with mirror: fp32, {AGAINST}",), (RELEASED,), "deen"
    ),
    Line("the same in bf16", (f"DEEN extraction with mirror: bf16, {AGAINST}",), (RELEASED,), "deen"),
    Line(
        "IDF training step, ResNet-50, 256 x 128, 8 pictures, float32",
        (f"IDF training step, {IDF}, batch 8: fp32, {AGAINST}",),
        (RELEASED,),
        "idf",
    ),
    Line("the same in bf16", (f"IDF training step, {IDF}, batch 8: bf16, {AGAINST}",), (RELEASED,), "idf"),
    Line(
        "IDF extraction with mirror, float32",
        (f"IDF extraction with mirror, {IDF}: fp32, {AGAINST}",),
        (RELEASED,),
        "idf",
    ),
    Line("the same in bf16", (f"IDF extraction with mirror, {IDF}: bf16, {AGAINST}",), (RELEASED,), "idf"),
    Line(
        "ten trials of SYSU-MM01's size, vectors to all metrics",
        tuple(f"trials: ten of SYSU-MM01's {TRIALS}, against the plain procedure{end}" for end in DIVISIONS),
        (WALKED, "the same with a query's precisions divided by NumPy"),
        "trials",
    ),
    Line(
        "ten trials of LLCM's size",
        tuple(f"trials: ten of LLCM's {TRIALS}, against the plain procedure{end}" for end in DIVISIONS),
        (WALKED, "as above"),
        "trials",
    ),
    Line(
        "training pictures, decoded in two threads",
        ("training pictures, decoding, 2 threads (peer: Pillow + torchvision, decoding, 1 process)",),
        ("Pillow and torchvision, one process",),
        "loader",
    ),
    Line(
        "night scene, 256 x 128, with sensor and JPEG, once warm",
        ("night scene 256 x 128, 2 workers, once warm",),
        (),
        "synth",
    ),
)


def build_table(rows: list[dict[str, Any]]) -> str:
    """The table's text; a line whose rows were not measured is left out.

    Args:
        rows: as in `runs/bench.json`.
    """
    by_name = {row["name"]: row for row in rows}
    return HEAD + "".join(
        _show(line, [by_name[name] for name in line.rows]) for line in LINES if by_name.keys() >= set(line.rows)
    )


def _show(line: Line, rows: list[dict[str, Any]]) -> str:
    peers = [f"{_amount(row['peer'], row['unit'])}: {peer}" for row, peer in zip(rows, line.peers, strict=False)]
    ratios = [_ratio(row["ratio"]) for row in rows[: len(peers)]]
    cells = [line.what, _amount(rows[0]["ours"], rows[0]["unit"]), "; ".join(peers) or "–", "; ".join(ratios) or "–"]
    return f"| {' | '.join(cells)} | `{line.name}` |\n"


def _ratio(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}" if ratio >= 2 else f"{ratio:.2f}"


def _amount(number: float, unit: str) -> str:
    """Two or three digits and the unit."""
    text = f"{number:.0f}" if number >= 100 else f"{number:.1f}" if number >= 10 else f"{number:.2f}"
    return f"{int(text):,} {unit}" if "." not in text else f"{text} {unit}"


def main(files: list[str]) -> None:
    if files:
        taken = {name for line in LINES for name in line.rows}
        rows = [row for row in json.loads(Path(files[0]).read_text(encoding="utf-8")) if row["name"] in taken]
        KEPT.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition("| what | ours | peer | times as good |")
    _, _, after = rest.partition("\n\n")
    table = build_table(json.loads(KEPT.read_text(encoding="utf-8")))
    README.write_text(f"{before}{table}\n{after}", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
