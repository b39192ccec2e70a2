"""Makes docs/results/domains.json: IDE+ on scenes it never saw, with and without darkening and camera statistics.

    python docs/domains.py runs/domains --train-on A,B

Typed again it goes on where it stopped. Each training sees one scene; every other scene is a domain with other people,
cameras and nights. Needs the package of the timm backbone's weights (see docs/training.md).
"""

import argparse
import json
import statistics
from pathlib import Path

from tapetum.core.atomic import write_bytes
from tapetum.experiments.reproduce import SCENES
from tapetum.inference.evaluate import evaluate_run
from tapetum.runs.recipe import load_recipe
from tapetum.runs.sources import open_data
from tapetum.training.train import train

SMALL = {
    "num_train_people": 40,
    "num_test_people": 30,
    "cameras": 4,
    "pictures_per_camera": 2,
    "queries_per_camera": 1,
    "size": [128, 64],
}
START = (  # ImageNet's weights out of a package, at a small network and small pictures
    "init.weights=package",
    "method.backbone=tf_efficientnet_lite0",
    "method.normalisation=half",
    "data.size=[96, 48]",
    "schedule.epochs=6",
    "evaluation.mirror=false",
)
DARKEN = (  # every second picture is taken again under other light, before what ide_synth does
    "augment=[{name: darken, probability: 0.5, lightness: [5.0, 60.0], tint: 0.25}, {name: pad_crop, pad: 5}, "
    "{name: flip, probability: 0.5}]"
)
METHODS: dict[str, tuple[str, ...]] = {"IDE+": (), "IDE+ with darkening": (DARKEN,)}
RECIPE = "ide_synth"
NORMS = ("none", "centre", "standard")
QUANTITIES = ("rank1", "mean_ap")


def main() -> None:
    """Train, test, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--train-on", default=",".join(SCENES))
    parser.add_argument("--json", type=Path, default=Path("docs/results/domains.json"))
    wanted = parser.parse_args()
    found: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    cache = wanted.out / "data"
    for seed in map(int, wanted.seeds.split(",")):
        for source in wanted.train_on.split(","):
            for label, changes in METHODS.items():
                recipe = load_recipe(RECIPE, [*START, *changes, f"seed={seed}", f"data.scene={scene(source)}"])
                folder = wanted.out / f"{'darken' if changes else 'plain'}_{source}_seed{seed}"
                train(recipe, folder, cache=cache)
                for target in SCENES:
                    section = recipe.data.model_copy(update={"scene": json.loads(scene(target))})
                    dataset = open_data(section, cache=cache).dataset
                    for norm in NORMS:
                        place = folder / f"on_{target}"
                        (test,) = evaluate_run(folder, dataset=dataset, camera_norm=norm, out=place, draws=10)
                        kind = "the scene trained on, other people" if target == source else "other scenes"
                        numbers = found.setdefault((label, norm, kind), {name: [] for name in QUANTITIES})
                        for name in QUANTITIES:
                            numbers[name].append(100 * float(test.card.metrics[name]))
                write(wanted, found)


def scene(name: str) -> str:
    """Settings of a small scene."""
    return json.dumps({**SMALL, **SCENES[name]})


def write(wanted: argparse.Namespace, found: dict[tuple[str, str, str], dict[str, list[float]]]) -> None:
    """Means and deviations over seeds and scenes, in percent."""
    rows = [
        {
            "method": label,
            "camera_norm": norm,
            "tested_on": kind,
            **{
                name: {"mean": round(statistics.fmean(values), 2), "deviation": round(statistics.pstdev(values), 2)}
                for name, values in numbers.items()
            },
            "tests": len(numbers["rank1"]),
        }
        for (label, norm, kind), numbers in found.items()
    ]
    command = f"OMP_NUM_THREADS=1 python docs/domains.py {wanted.out} --seeds {wanted.seeds}"
    content = {
        "command": f"{command} --train-on {wanted.train_on}",
        "recipe": RECIPE,
        "settings": list(START),
        "methods": METHODS,
        "scene": SMALL,
        "scenes": SCENES,
        "protocol": "night600",
        "deviation": "over seeds and pairs of scenes, of the population",
        "percent": rows,
    }
    write_bytes(wanted.json, (json.dumps(content, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
