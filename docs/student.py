"""Makes docs/results/student.json: the student, IDE+ and IDF on people who had no part in the choice of its losses.

    python docs/student.py runs/reproduce/league_visible

The league's finished runs are tested on its scene with other people; a run is taken from the first folder that has it.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from tapetum.core.atomic import write_bytes
from tapetum.core.processor import describe_processor
from tapetum.evaluation.bootstrap import mean_and_deviation
from tapetum.experiments.league import SEEDS, LeagueOptions, league_rows
from tapetum.experiments.league_measures import list_queries
from tapetum.experiments.league_table import compare_rows
from tapetum.inference.evaluate import evaluate_run, override_data
from tapetum.runs.sources import open_data

LABELS = ("IDE+", "IDF_IDE+", "student")
QUANTITIES = ("rank1", "mean_ap")


def main() -> None:
    """Test every run, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("league", type=Path, nargs="+", help="folders of a visible league, with its runs")
    parser.add_argument("--identity-seed", type=int, default=1, help="of the other people")
    parser.add_argument("--json", type=Path, default=Path("docs/results/student.json"))
    wanted = parser.parse_args()
    options = LeagueOptions(wanted.league[0])
    scene = options.scene | {"identity_seed": wanted.identity_seed}
    place = options.out / f"scene_identity_seed{wanted.identity_seed}"
    changes = [f"data.root={json.dumps(str(place))}", f"data.scene={json.dumps(scene)}"]
    names = {row.label: row.run for row in league_rows(options)}
    runs: list[list[dict[str, Any]]] = []
    for label in LABELS:
        runs.append([])
        for seed in SEEDS:
            folders = [folder / f"{names[label]}_seed{seed}" for folder in wanted.league]
            folder = next(each for each in folders if each.is_dir())
            section = override_data(folder, None, changes)
            dataset = open_data(section).dataset
            (found,) = evaluate_run(folder, dataset=dataset, data=section, mirror=True, precision="fp32")
            metrics = {name: found.card.metrics[name] for name in QUANTITIES}
            runs[-1].append({"label": label, "metrics": metrics, "queries": list_queries(found)})
    content = {
        "scene": scene,
        "protocol": found.card.rules.name,
        "ap": found.card.rules.ap,
        "machine": describe_processor(),
        "rows": [{"label": some[0]["label"], **{name: spread(some, name) for name in QUANTITIES}} for some in runs],
        "pairs": compare_rows(runs),
    }
    write_bytes(wanted.json, f"{json.dumps(content, indent=2)}\n".encode())


def spread(runs: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Mean and deviation over trainings, and each."""
    values = [run["metrics"][name] for run in runs]
    mean, deviation = mean_and_deviation(values)
    return {"mean": mean, "deviation": deviation, "each": values}


if __name__ == "__main__":
    main()
