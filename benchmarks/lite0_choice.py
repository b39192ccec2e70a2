"""What of the recipe `lite0` is worth having: other settings of it, each trained for a quarter of its time.

`python -m benchmarks.lite0_choice FOLDER [--only NAME ...]`; a training that is stopped goes on when the line is typed
again, one that is over is kept. FOLDER holds runs and scenes; docs/results/lite0_choice.json what is known so far.

Validation scenes: seeds that neither the trainings nor the calibration nor the tables of docs/lite0.md use. A
difference is the candidate's mAP less that of the recipe as it is, in points, with the 95 % interval of a paired
bootstrap over people; the recipe by another seed shows how much a training alone moves.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.__main__ import describe_machine
from benchmarks.lite0 import SCENES, sides_of
from tapetum.core.atomic import write_bytes
from tapetum.core.errors import RecipeError, nearest_name
from tapetum.evaluation.bootstrap import paired_bootstrap
from tapetum.evaluation.metrics import evaluate
from tapetum.inference.model import Model
from tapetum.inference.sessions import open_model
from tapetum.runs.recipe import load_recipe
from tapetum.runs.sources import open_scene
from tapetum.training.train import train

BASE = "as the recipe is"
SHORT = ("schedule.epochs=3",)
CANDIDATES: dict[str, tuple[str, ...]] = {
    BASE: (),
    "another seed": ("seed=2022",),
    "triplets without a margin": ("method.triplet_margin=null",),
    "800 people": ("data.scene.num_train_people=800",),
    "3,200 people": ("data.scene.num_train_people=3200",),
    "pairs dressed alike": ("data.scene.lookalikes=2",),
    "pictures of 128 x 64": ("data.size=[128, 64]",),
    "a rate of 0.002": ("optimiser.lr=0.002",),
    "a rate of 0.0005": ("optimiser.lr=0.0005",),
    "twice the steps": ("schedule.epochs=6",),
}
SEEDS = (21, 22)
RESULT = Path("docs/results/lite0_choice.json")


def average_precisions(model: Model, scene: str, cache: Path) -> tuple[list[float], list[int]]:
    """Of each query of the validation scenes, by their default protocol, and whose it is."""
    values: list[float] = []
    people: list[int] = []
    for seed in SEEDS:
        seeds = {"identity_seed": seed, "camera_seed": seed, "time_seed": seed}
        dataset = open_scene({**SCENES[scene], **seeds}, None, cache)
        sides = sides_of(dataset, dataset.default_protocol)
        query, gallery = (model.describe_records(some)[0] for some in (sides.query, sides.gallery))
        found = evaluate(query, gallery, sides.rules)
        counted = found.counted.tolist()
        values += [ap for ap, counts in zip(found.per_query_ap.tolist(), counted, strict=True) if counts]
        people += [seed * 10**6 + pid for pid, counts in zip(query.pids.tolist(), counted, strict=True) if counts]
    return values, people


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Train a candidate, or take it as it was trained, and find the people of the validation scenes."""
    recipe = load_recipe("lite0", [*SHORT, *CANDIDATES[name]])
    result = train(recipe, folder / name.replace(" ", "_").replace(",", ""), cache=folder / "scenes")
    model = open_model(result.checkpoint, precision="fp32")
    found = {scene: average_precisions(model, scene, folder / "scenes") for scene in SCENES}
    return {
        "settings": [*SHORT, *CANDIDATES[name]],
        "seconds": round(result.seconds),
        "machine": describe_machine(),
        "scenes": {
            scene: {"ap": [round(value, 5) for value in values], "people": people}
            for scene, (values, people) in found.items()
        },
    }


def compare(rows: dict[str, dict[str, Any]]) -> list[str]:
    """A line a candidate: mAP in each kind of scene, and how far it is from the recipe as it is."""
    lines = []
    for name, row in rows.items():
        parts = []
        for scene, found in row["scenes"].items():
            own, base = (np.array([some["ap"]]) for some in (found, rows[BASE]["scenes"][scene]))
            paired = paired_bootstrap([own, base], np.array(found["people"]), rng=np.random.default_rng(0))
            low, high = (100 * float(end[0, 1]) for end in (paired.low, paired.high))
            difference = f" ({100 * paired.difference[0, 1]:+.1f}: {low:+.1f} to {high:+.1f})" if name != BASE else ""
            parts.append(f"{scene} {100 * own.mean():.1f}{difference}")
        lines.append(f"{name:<22} {', '.join(parts)}; {row['seconds']} s")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", metavar="NAME", default=list(CANDIDATES))
    parser.add_argument("--json", type=Path, default=RESULT)
    wanted = parser.parse_args(arguments)
    if unknown := [name for name in wanted.only if name not in CANDIDATES]:
        raise RecipeError(f"--only {unknown[0]!r}: {nearest_name(unknown[0], CANDIDATES)}")
    rows: dict[str, dict[str, Any]] = json.loads(wanted.json.read_text())["rows"] if wanted.json.is_file() else {}
    for name in dict.fromkeys([BASE, *wanted.only]):
        if name in rows:
            continue
        rows[name] = measure(name, wanted.folder)
        content = {"seeds": SEEDS, "rows": rows}
        write_bytes(wanted.json, (json.dumps(content, allow_nan=False) + "\n").encode())
        print("\n".join(compare(rows)), flush=True)


if __name__ == "__main__":
    main()
