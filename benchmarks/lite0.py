"""What the packaged model is worth beside the demo's two: the table of docs/lite0.md, and docs/results/lite0.json.

`python -m benchmarks.lite0 [--clips FOLDER] LABEL=MODEL ...`, e.g. `tapetum-lite0=tapetum-lite0 IDE+=runs/demo/ide
IDF=runs/demo/idf`; all of them see the same pictures in the same sitting.

Scenes: seeds that nothing was trained or chosen on, with other people, cameras and moments than any training's; the
demo's layout (eight cameras at night, Night600's rules) and the packaged model's own (24 places, both modalities,
night and day). A calibration is the model's own, as `tapetum search` would use it; its error is that of Naeini et al.
at a prior of one half. Clips: people are cut out of each by `--detector`, without one by its background; the first
half of an appearance searches the second, as the pictures are and darkened; "apart" is the mean similarity of one
person less that of two.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.__main__ import describe_machine
from tapetum.core.atomic import write_bytes
from tapetum.core.errors import DataError
from tapetum.core.protocol import Protocol
from tapetum.core.types import EmbeddingSet, Record
from tapetum.data.catalog import Dataset, open_dataset
from tapetum.data.darken import darken_dataset
from tapetum.evaluation.calibration import from_content, probabilities_of_bins
from tapetum.evaluation.metrics import evaluate
from tapetum.evaluation.verification import build_comparisons, compute_reliability, count_pairs
from tapetum.footage.crop_video import crop_video
from tapetum.footage.detectors import FALLBACK, build_detector
from tapetum.inference.model import Model
from tapetum.inference.sessions import open_model
from tapetum.runs.sources import open_scene

SEEDS = (11, 12, 13)
SCENES: dict[str, dict[str, Any]] = {
    "eight cameras": {"num_train_people": 0, "num_test_people": 80, "cameras": 8, "pictures_per_camera": 2},
    "a city": {
        "layout": "city", "light": "both", "num_train_people": 0, "num_test_people": 80, "cameras": 24,
        "cameras_per_person": 3, "pictures_per_camera": 1,
    },
}  # fmt: skip
RESULT = Path("docs/results/lite0.json")
CACHE = Path("runs/lite0-scenes")


@dataclass(frozen=True)
class Sides:
    """Pictures that search and pictures that are searched, by one protocol."""

    rules: Protocol
    query: list[Record]
    gallery: list[Record]


def sides_of(dataset: Dataset, protocol: str) -> Sides:
    rules = dataset.protocol(protocol)
    return Sides(rules, dataset.side("query", rules.name), dataset.side("gallery", rules.name))


def measure(model: Model, sides: Sides) -> dict[str, float]:
    """Rank-1 and mAP in percent, calibration error in percent for each pair of modalities, and pictures a second."""
    records = list(dict.fromkeys([*sides.query, *sides.gallery]))
    begin = time.perf_counter()
    embeddings, _ = model.describe_records(records)
    seconds = time.perf_counter() - begin
    place = {record: row for row, record in enumerate(records)}
    query, gallery = (
        embeddings.select(torch.tensor([place[record] for record in some])) for some in (sides.query, sides.gallery)
    )
    found = evaluate(query, gallery, sides.rules).metrics
    return {
        "rank1": 100 * found.rank(1),
        "mean_ap": 100 * found.mean_ap,
        "pictures_per_second": len(records) / seconds,
        **{f"calibration_error {pair}": error for pair, error in calibration_errors(model, embeddings, sides.rules)},
    }


def calibration_errors(model: Model, embeddings: EmbeddingSet, rules: Protocol) -> Iterator[tuple[str, float]]:
    if not model.calibration["pairs"]:
        return
    calibration = from_content(dict(model.calibration), model.id)
    for pair, comparison in build_comparisons(embeddings, rules).items():
        if pair in calibration.pairs:
            probabilities = probabilities_of_bins(calibration.pairs[pair], calibration.prior)
            yield pair, 100 * compute_reliability(count_pairs(comparison), probabilities, calibration.prior).error


def measure_clip(model: Model, dataset: Dataset) -> dict[str, float | None]:
    """Of a clip with one person alone, what tells people apart is None."""
    sides = sides_of(dataset, dataset.default_protocol)
    numbers = measure(model, sides)
    query, gallery = (model.describe_records(some)[0] for some in (sides.query, sides.gallery))
    similarity = query.vectors @ gallery.vectors.T
    same = query.pids[:, None] == gallery.pids[None]
    one_person = float(similarity[same].mean())
    two_people = float(similarity[~same].mean()) if (~same).any() else None
    return {
        **{name: numbers[name] for name in ("rank1", "mean_ap")},
        "one person": one_person,
        "two people": two_people,
        "apart": None if two_people is None else one_person - two_people,
    }


def clips_of(folder: Path, work: Path, detector: str | None) -> Iterator[tuple[str, Dataset]]:
    """Each clip's crops as they are and darkened; a clip of fewer than two appearances is left out, and said so."""
    for path in sorted(folder.glob("*.mp4")):
        stem = path.stem
        try:
            crop_video(path, work / stem / "day", detector=None if detector is None else build_detector(detector))
        except DataError as error:
            print(f"{path.name}: left out ({error})")
            continue
        darken_dataset(work / stem / "day", work / stem / "night")
        for look, name in (("day", "as it is"), ("night", "darkened")):
            yield f"{path.name}, {name}", open_dataset("folder", work / stem / look)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="LABEL=MODEL")
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--detector")
    parser.add_argument("--json", type=Path, default=RESULT)
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--people", type=int)
    wanted = parser.parse_args(arguments)
    models = {label: open_model(Path(place)) for label, _, place in (each.partition("=") for each in wanted.models)}
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for name, settings in SCENES.items():
        people = {} if wanted.people is None else {"num_test_people": wanted.people}
        for seed in map(int, wanted.seeds.split(",")):
            seeds = {"identity_seed": seed, "camera_seed": seed, "time_seed": seed}
            dataset = open_scene({**settings, **people, **seeds}, None, CACHE)
            for protocol in [dataset.default_protocol] if name != "a city" else list(dataset.protocols):
                sides = sides_of(dataset, protocol)
                for label, model in models.items():
                    if label != next(iter(models)) and _has_infrared(sides):
                        continue  # trained on visible pictures alone
                    row = rows.setdefault(f"{name}, {protocol}", {}).setdefault(label, {})
                    for quantity, value in measure(model, sides).items():
                        row.setdefault(quantity, []).append(value)
    if wanted.clips is not None:
        with tempfile.TemporaryDirectory() as work:
            for name, dataset in clips_of(wanted.clips, Path(work), wanted.detector):
                for label, model in models.items():
                    rows.setdefault(name, {})[label] = measure_clip(model, dataset)
    show(rows)
    content = {
        "machine": describe_machine(),
        "models": {label: model.facts for label, model in models.items()},
        "seeds": wanted.seeds,
        "detector": wanted.detector or FALLBACK,
        "rows": rows,
    }
    write_bytes(wanted.json, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


def _has_infrared(sides: Sides) -> bool:
    return any(int(record.modality) for record in (*sides.query, *sides.gallery))


def show(rows: dict[str, dict[str, dict[str, Any]]]) -> None:
    """A line a model; of several scenes the mean and their deviation."""
    for name, by_label in rows.items():
        print(f"\n{name}")
        for label, numbers in by_label.items():
            print(f"  {label:<14}", "  ".join(f"{key} {_text(value)}" for key, value in numbers.items()))


def _text(value: float | list[float] | None) -> str:
    if value is None:
        return "-"
    if not isinstance(value, list):
        return f"{value:.2f}"
    deviation = f" ± {statistics.stdev(value):.1f}" if len(value) > 1 else ""
    return f"{np.mean(value):.1f}{deviation}"


if __name__ == "__main__":
    main()
