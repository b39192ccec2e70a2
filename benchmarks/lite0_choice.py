"""What the packaged model's recipe is worth beside recipes that differ in one thing: docs/results/lite0_choice.json.

`OMP_NUM_THREADS=1 python -m benchmarks.lite0_choice runs/lite0-choice`; typed again, it goes on where it stopped.

Every candidate trains for a seventh of the recipe's steps and is tested on generated people of validation seeds, which
neither a training nor a table of docs/lite0.md has: the scenes of `benchmarks.lite0`. The recipe trains by two seeds:
what lies between them is chance, and a candidate that is no further off is not told apart. Needs the package of the
ImageNet weights (see docs/training.md).
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.__main__ import describe_machine
from benchmarks.lite0 import SCENES, SEEDS, measure, sides_of
from tapetum.core.atomic import write_bytes
from tapetum.core.versions import read_versions
from tapetum.inference.sessions import open_model
from tapetum.runs.recipe import load_recipe
from tapetum.runs.sources import open_data, open_scene
from tapetum.training.train import train

RECIPE = "lite0"
BUDGET = ("schedule.epochs=3", "sampler.steps=150")  # of 12 epochs of 250
VALIDATION = (21, 22, 23)
assert not set(VALIDATION) & set(SEEDS)
CANDIDATES: dict[str, tuple[str, ...]] = {
    "as the recipe is": (),
    "as the recipe is, another seed": ("seed=7",),
    "pairs dressed alike": ("data.scene.lookalikes=2",),
    "800 people": ("data.scene.num_train_people=800",),
    "3,200 people": ("data.scene.num_train_people=3200",),
    "pictures of 128 x 64": ("data.size=[128, 64]",),
    "a rate of 0.002": ("optimiser.lr=0.002",),
    "a rate of 0.0005": ("optimiser.lr=0.0005",),
    "no triplets": ("method.triplet_weight=0.0",),
    "half of all in grey": ("augment.grayscale=0.5",),
    "twice the steps": ("schedule.epochs=6",),
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, test, write after each candidate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", action="append", default=[], help="a candidate's name; repeatable")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE for every candidate; applied last")
    parser.add_argument("--people", type=int, help="to test on, in each scene")
    parser.add_argument("--json", type=Path, default=Path("docs/results/lite0_choice.json"))
    wanted = parser.parse_args(arguments)
    unknown = sorted(set(wanted.only) - set(CANDIDATES))
    if unknown:
        parser.error(f"no candidate is called {', '.join(unknown)}; there are {', '.join(CANDIDATES)}")
    rows: dict[str, Any] = {}
    for name in wanted.only or CANDIDATES:
        changes = (*BUDGET, *CANDIDATES[name], *wanted.set)
        recipe = load_recipe(RECIPE, changes)
        folder = wanted.out / name.replace(" ", "_").replace(",", "")
        train(recipe, folder, dataset=open_data(recipe.data, cache=wanted.out / "data").dataset)
        rows[name] = {"settings": list(changes), "percent": test(folder, wanted.out / "data", wanted.people)}
        print(
            name, *(f"{what} {statistics.mean(values):.1f}" for what, values in rows[name]["percent"].items()), sep="  "
        )
        content = {
            "command": f"OMP_NUM_THREADS=1 python -m benchmarks.lite0_choice {wanted.out}",
            "machine": describe_machine(),
            "versions": read_versions(),
            "recipe": RECIPE,
            "quantity": "mean AP in percent, one figure a validation seed",
            "validation_seeds": list(VALIDATION),
            "rows": rows,
        }
        write_bytes(wanted.json, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def test(folder: Path, cache: Path, people: int | None) -> dict[str, list[float]]:
    """Mean AP in percent for each scene and protocol, one number for each validation seed."""
    model = open_model(folder)
    found: dict[str, list[float]] = {}
    for name, settings in SCENES.items():
        number = {} if people is None else {"num_test_people": people}
        for seed in VALIDATION:
            seeds = {"identity_seed": seed, "camera_seed": seed, "time_seed": seed}
            dataset = open_scene({**settings, **number, **seeds}, None, cache)
            for protocol in [dataset.default_protocol] if name != "a city" else list(dataset.protocols):
                values = measure(model, sides_of(dataset, protocol))
                found.setdefault(f"{name}, {protocol}", []).append(values["mean_ap"])
    return found


if __name__ == "__main__":
    main()
