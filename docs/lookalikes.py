"""Makes docs/results/lookalikes.json: BoT with look-alikes in one batch, and with people drawn by lot.

    python docs/lookalikes.py runs/lookalikes

Typed again it goes on where it stopped. Both samplers see the same scene, in which two people each wear the same
clothes, by the budget of BoT in the visible league but for smaller pictures. Needs the package of the timm backbone's
weights (see docs/training.md).
"""

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import torch
from domains import DRAWS, budget, difference, spread, training_speed, values_of
from numpy.typing import NDArray

from tapetum.core.atomic import write_bytes
from tapetum.core.processor import describe_processor
from tapetum.core.versions import read_versions
from tapetum.evaluation.slices import LOOKALIKE_LEVELS, by_lookalikes, first_wrong_rows
from tapetum.inference.evaluate import Evaluated, evaluate_run
from tapetum.runs.recipe import load_recipe
from tapetum.runs.sources import open_data
from tapetum.training.train import train

RECIPE = "bot_lookalikes_synth"
LABEL = "BoT"  # the league's row whose budget is taken
SAMPLERS = ("lookalikes", "pk")  # RECIPE's own, and what bot_synth has
ALIKE = {"lookalikes": 2}
SMALL = "data.size=[96, 48]"  # half the cost of the league's 128 x 64
WRONG = "first_wrong_lookalike"


def main() -> None:
    """Train, test, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--set", action="append", default=[], help="KEY=VALUE for both recipes; applied last")
    parser.add_argument("--json", type=Path, default=Path("docs/results/lookalikes.json"))
    wanted = parser.parse_args()
    scene, settings = budget(LABEL)
    settings = (*settings, SMALL, *wanted.set)
    scene = {**scene, **ALIKE}
    found: dict[tuple[str, str], list[dict[str, NDArray[np.float64]]]] = {}
    people: dict[str, NDArray[np.int64]] = {}
    speeds: list[float] = []
    for seed in map(int, wanted.seeds.split(",")):
        for sampler in SAMPLERS:
            changes = [*settings, f"sampler.name={sampler}", f"seed={seed}"]
            recipe = load_recipe(RECIPE, [f"data.scene={json.dumps(scene)}", *changes])
            folder = wanted.out / f"{sampler}_seed{seed}"
            dataset = open_data(recipe.data, cache=wanted.out / "data").dataset
            train(recipe, folder, dataset=dataset)
            speeds.append(training_speed(folder))
            (test,) = evaluate_run(folder, dataset=dataset, draws=10)
            outfits = {record.path: record.outfit for record in dataset.records}
            for level, (pids, values) in slices_of(test, outfits).items():
                found.setdefault((level, sampler), []).append(values)
                people[level] = pids
        content = {
            "command": f"OMP_NUM_THREADS=1 python docs/lookalikes.py {wanted.out} --seeds {wanted.seeds}"
            + "".join(f" --set {shlex.quote(change)}" for change in wanted.set),
            "machine": describe_processor(),
            "versions": read_versions(),
            "training_pictures_per_second": [round(speed, 1) for speed in speeds],
            "recipe": RECIPE,
            "settings": list(settings),
            "samplers": SAMPLERS,
            "scene": scene,
            "protocol": "night600",
            "deviation": "over seeds, of the sample",
            "interval": f"95 %, {DRAWS} draws of people and of trainings",
            "percent": [summarise(found, level, pids) for level, pids in people.items()],
        }
        write_bytes(wanted.json, (json.dumps(content, indent=1) + "\n").encode())


def slices_of(
    test: Evaluated, outfits: dict[Path, int]
) -> dict[str, tuple[NDArray[np.int64], dict[str, NDArray[np.float64]]]]:
    """Of all queries and of each level: their people, and what each query gave.

    Args:
        outfits: of each picture, -1 where nothing is known.
    """
    query, gallery, evaluation = test.query, test.gallery, test.evaluation
    values = values_of(evaluation)
    pids = query.pids[evaluation.query_rows].numpy()
    ours, theirs = (torch.tensor([outfits[path] for path in side.paths]) for side in (query, gallery))
    slices = {"all": (pids, values)}
    levels, _ = by_lookalikes(query, gallery, test.protocol, (ours, theirs))
    wrong = 100 * (theirs[first_wrong_rows(query, gallery, test.protocol)] == ours).double().numpy()
    for level in LOOKALIKE_LEVELS:
        mask = np.array([each == level for each in levels])[evaluation.query_rows.numpy()]
        if mask.any():
            extra = {WRONG: wrong[evaluation.query_rows.numpy()][mask]} if level == LOOKALIKE_LEVELS[0] else {}
            slices[level] = pids[mask], {name: some[mask] for name, some in values.items()} | extra
    return slices


def summarise(
    found: dict[tuple[str, str], list[dict[str, NDArray[np.float64]]]],
    level: str,
    people: NDArray[np.int64],
) -> dict[str, Any]:
    """Both samplers on some of the queries, and the first less the second."""
    entry: dict[str, Any] = {"queries": level, "people": len(np.unique(people))}
    for name in found[level, SAMPLERS[0]][0]:
        values = [np.stack([each[name] for each in found[level, sampler]]) for sampler in SAMPLERS]
        entry[name] = {s: spread(some.mean(1).tolist()) for s, some in zip(SAMPLERS, values, strict=True)}
        entry[name]["over_pk"] = difference(values[0], values[1], people)
    return entry


if __name__ == "__main__":
    main()
