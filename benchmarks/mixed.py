"""What helps a search among visible and infrared pictures: the table of docs/protocols.md, docs/results/mixed.json.

`python -m benchmarks.mixed [--people N] [--seeds 11,12,13] [MODEL]`; the packaged model is taken where none is named.
`python -m benchmarks.mixed --runs FOLDER... [--only two_stream,deen]`: the trainings of an infrared league in place of
one model, on their own scene and without a calibration; docs/results/mixed_runs.json.

Scenes: those of `benchmarks.lite0`, seeds that nothing was trained, chosen or calibrated on. Each is searched by the
rules of `city_mixed`, every picture among all others: as it is, with the mean of each modality or of each camera taken
out, and ranked by the calibration of the model. A difference is paired: of the same queries, its interval over people;
it says nothing of another training or another scene, for which there are several.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.__main__ import describe_machine
from benchmarks.lite0 import CACHE, SCENES, SEEDS, sides_of
from tapetum.core.atomic import write_bytes
from tapetum.core.protocol import MIXED, Protocol
from tapetum.core.seeding import numpy_generator
from tapetum.core.types import EmbeddingSet
from tapetum.core.vectors import smallest
from tapetum.evaluation.bootstrap import paired_bootstrap
from tapetum.evaluation.calibration import Calibration, from_content
from tapetum.evaluation.camera_norm import normalise_cameras
from tapetum.evaluation.metrics import Evaluation, evaluate
from tapetum.evaluation.ranking import select_sides
from tapetum.evaluation.slices import by_label, by_modality
from tapetum.inference.evaluate import evaluate_run
from tapetum.inference.sessions import open_model
from tapetum.runs.recipe import load_recipe
from tapetum.runs.run_folder import RunFolder
from tapetum.runs.sources import list_protocols, open_scene

WAYS = ("as it is", "modality", "centre", "calibrated")
PROTOCOL = "city_mixed"
ANSWERS = 20  # of a search, as many as the service shows
RESULT, RESULT_OF_RUNS = Path("docs/results/mixed.json"), Path("docs/results/mixed_runs.json")


def search(
    everyone: EmbeddingSet, rules: Protocol, way: str, calibration: Calibration | None
) -> tuple[Evaluation, dict[str, Any]]:
    """One way to search, and its numbers in percent; of each modality's queries also what they find first."""
    ranked_by = calibration if way == "calibrated" else None
    norm = way if way in ("modality", "centre") else "none"
    query, gallery = normalise_cameras(everyone, everyone, norm)  # type: ignore[arg-type]
    found = evaluate(query, gallery, rules, calibration=ranked_by)
    names, figures = by_modality(query, gallery, rules, ranked_by)
    numbers: dict[str, Any] = {"rank1": 100 * found.metrics.rank(1), "mean_ap": 100 * found.metrics.mean_ap}
    for name, metrics in by_label(found, [names[row] for row in found.query_rows.tolist()]).items():
        own = {"rank1": 100 * metrics.rank(1), "mean_ap": 100 * metrics.mean_ap}
        numbers[name] = own | figures.get(name, {})
    return found, numbers


def compare(
    evaluations: dict[str, Evaluation], people: np.ndarray, seed: int
) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Every way beside each that stands before it: difference, low and high end, in percent."""
    ways = list(evaluations)
    first = evaluations[ways[0]]
    counted = first.counted.numpy()
    rows: dict[str, dict[str, tuple[float, float, float]]] = {}
    for quantity in ("rank1", "mean_ap"):
        values = []
        for found in evaluations.values():
            each = found.per_query_ap if quantity == "mean_ap" else (found.per_query_first_rank == 1).double()
            values.append(each.numpy()[counted][None])
        paired = paired_bootstrap(values, people[counted], rng=numpy_generator(seed, "mixed", quantity))
        for row, name in enumerate(ways):
            for other in range(row):
                ends = (100 * float(each[row, other]) for each in (paired.difference, paired.low, paired.high))
                rows.setdefault(f"{name} less {ways[other]}", {})[quantity] = tuple(ends)  # type: ignore[assignment]
    return rows


def answer(everyone: EmbeddingSet, rules: Protocol, calibration: Calibration, seed: int) -> dict[str, Any]:
    """The first `ANSWERS` of `tapetum search --group none`, by either `--rank`, in percent.

    By similarity they are the most similar ones, ordered by probability; calibrated, the most probable of all.

    Returns:
        "rank1", the first is right; "found", the part of a query's right pictures that is among them; "across", the
        same of its right pictures of the other modality; each a figure for either ranking, and their paired difference.
    """
    sides = [select_sides(everyone, everyone, rules, each) for each in (None, calibration)]
    values: dict[str, list[tuple[Tensor, Tensor]]] = {}
    queries = []
    for (rows, distances), (_, evidence) in zip(*(each.distances() for each in sides), strict=True):
        for side, block in zip(sides, (distances, evidence), strict=True):
            side.candidates.remove_junk(block, rows)
        near = smallest(distances, ANSWERS)[1]
        near = near.gather(1, evidence.gather(1, near).argsort(dim=1, stable=True))
        same = everyone.pids == everyone.pids[rows].unsqueeze(1)
        matches = same & distances.isfinite()
        across = matches & (everyone.modalities != everyone.modalities[rows].unsqueeze(1))
        lists = near, smallest(evidence, ANSWERS)[1]
        for name, wanted in (("found", matches), ("across", across)):
            counts = wanted.sum(1).clamp(min=1)
            one, other = (wanted.gather(1, each).sum(1) / counts for each in lists)
            values.setdefault(name, []).append((one, other))
        first, second = (matches.gather(1, each[:, :1])[:, 0].double() for each in lists)
        values.setdefault("rank1", []).append((first, second))
        queries.append(rows)
    people = everyone.pids[torch.cat(queries)].numpy()
    result = {}
    for name, parts in values.items():
        usual, ranked = (torch.cat(each).double().numpy()[None] for each in zip(*parts, strict=True))
        paired = paired_bootstrap([ranked, usual], people, rng=numpy_generator(seed, "answers", name))
        ends = [100 * float(each[0, 1]) for each in (paired.difference, paired.low, paired.high)]
        result[name] = {"similarity": 100 * usual.mean(), "calibrated": 100 * ranked.mean(), "difference": ends}
    return result


def measure_run(folder: Path) -> dict[str, Any]:
    """A training's gallery of both modalities: as it is, and with the mean of each modality or camera taken out."""
    recipe = load_recipe(RunFolder(folder).recipe)
    protocol = next(name for name in list_protocols(recipe.data) if name.endswith(MIXED))
    (usual,) = evaluate_run(folder, [protocol], camera_norm="none")
    found = {way: search(usual.query, usual.protocol, way, None) for way in WAYS if way != "calibrated"}
    evaluations = {way: evaluation for way, (evaluation, _) in found.items()}
    people = usual.query.pids.numpy()[evaluations[WAYS[0]].query_rows.numpy()]
    return {
        "queries": evaluations[WAYS[0]].metrics.num_queries,
        "protocol": protocol,
        "pictures": usual.card.data["fingerprint"],
        "ways": {way: numbers for way, (_, numbers) in found.items()},
        "differences": compare(evaluations, people, recipe.seed),
    }


def measure_runs(folders: Sequence[Path], only: Sequence[str]) -> dict[str, Any]:
    """Name -> figures of the finished runs in some folders of leagues.

    Args:
        only: names of runs without their seeds; none takes all.
    """
    runs = {}
    for path in sorted((path for folder in folders for path in folder.glob("*_seed*")), key=lambda path: path.name):
        name = path.name.rpartition("_seed")[0]
        if RunFolder(path).read_facts().get("finished") and (not only or name in only):
            runs[path.name] = measure_run(path)
            show(path.name, runs[path.name])
    return runs


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="tapetum-lite0")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--runs", nargs="+", type=Path, help="folders of infrared leagues")
    parser.add_argument("--only", default="", help="of their runs, names without the seed")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--people", type=int, default=SCENES["a city"]["num_test_people"])
    wanted = parser.parse_args(arguments)
    if wanted.runs:
        only = [name for name in wanted.only.split(",") if name]
        content = {
            "command": "python -m benchmarks.mixed --runs FOLDER..." + (f" --only {wanted.only}" if only else ""),
            "machine": describe_machine(),
            "runs": measure_runs(wanted.runs, only),
        }
        write(wanted.json or RESULT_OF_RUNS, content)
        return
    model = open_model(Path(wanted.model))
    calibration = from_content(dict(model.calibration), model.id)
    scenes: dict[str, Any] = {}
    for seed in map(int, wanted.seeds.split(",")):
        seeds = {"identity_seed": seed, "camera_seed": seed, "time_seed": seed}
        dataset = open_scene({**SCENES["a city"], "num_test_people": wanted.people, **seeds}, None, CACHE)
        sides = sides_of(dataset, PROTOCOL)
        everyone, _ = model.describe_records(list(dict.fromkeys([*sides.query, *sides.gallery])))
        found = {way: search(everyone, sides.rules, way, calibration) for way in WAYS}
        evaluations = {way: evaluation for way, (evaluation, _) in found.items()}
        people = everyone.pids.numpy()[evaluations[WAYS[0]].query_rows.numpy()]
        scenes[str(seed)] = {
            "queries": evaluations[WAYS[0]].metrics.num_queries,
            "ways": {way: numbers for way, (_, numbers) in found.items()},
            "differences": compare(evaluations, people, seed),
            f"first {ANSWERS} answers": answer(everyone, sides.rules, calibration, seed),
        }
        show(f"seed {seed}", scenes[str(seed)])
    content = {
        "command": "python -m benchmarks.mixed",
        "machine": describe_machine(),
        "model": model.facts,
        "calibrated on": calibration.data,
        "protocol": PROTOCOL,
        "people": wanted.people,
        "scenes": scenes,
    }
    write(wanted.json or RESULT, content)


def write(path: Path, content: dict[str, Any]) -> None:
    """JSON with figures of four decimals."""
    write_bytes(path, (json.dumps(_rounded(content), indent=1) + "\n").encode())


def show(title: str, scene: dict[str, Any]) -> None:
    """A line a way, a line a difference, and a line for what answers of a search hold."""
    print(f"\n{title}, {scene['queries']} queries")
    for way, numbers in scene["ways"].items():
        parts = [f"rank-1 {numbers['rank1']:.1f}  mAP {numbers['mean_ap']:.1f}"]
        for name in ("visible", "infrared"):
            own = numbers[name]
            parts.append(
                f"{name} {own['rank1']:.1f} / {own['mean_ap']:.1f}, own first {own['own_modality_first']:.3f}, "
                f"bias {own['modality_bias']:.2f}"
            )
        print(f"  {way:<12}", "  ".join(parts))
    for name, each in scene["differences"].items():
        told = (f"{key} {_with_interval(*ends)}" for key, ends in each.items())
        print(f"  {name:<24}", "  ".join(told))
    for name, each in scene.get(f"first {ANSWERS} answers", {}).items():
        print(
            f"  first {ANSWERS} answers, {name:<8} by similarity {each['similarity']:.1f}, calibrated "
            f"{each['calibrated']:.1f}: {_with_interval(*each['difference'])}"
        )


def _with_interval(difference: float, low: float, high: float) -> str:
    return f"{difference:+.1f} ({low:+.1f} to {high:+.1f})"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
