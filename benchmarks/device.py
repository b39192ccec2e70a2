"""Training, extraction and evaluation at published size on this machine's accelerator: one script, one JSON.

`python -m benchmarks.device [--out FILE] [--steps N] [--only IDF]` trains IDF, DEEN and TransReID from random weights
on the generated scene, with the pictures' size, the batch and the optimiser of their published recipes, in bf16 (and
fp16 where there is a GPU). It writes for each: pictures a second after a warm epoch, the most memory, the share of a
step that loading its pictures would take if nothing hid it, pictures a second at extraction, and seconds of an
evaluation on the device. `--small` takes small networks and pictures, so that the script runs on a CPU in a minute.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from benchmarks.__main__ import describe_machine
from tapetum.core.atomic import write_bytes
from tapetum.core.memory import forget_peak, read_peak
from tapetum.data.loader import TrainLoader
from tapetum.evaluation.metrics import evaluate
from tapetum.inference.devices import choose_device
from tapetum.inference.embedder import Embedder
from tapetum.methods import find_method
from tapetum.runs.history import read_history
from tapetum.runs.recipe import Recipe, load_recipe
from tapetum.runs.run_folder import RunFolder
from tapetum.runs.sources import augment_options, open_data, picture_options, sampler_options, training_records
from tapetum.training.train import train

EPOCHS = 2  # the first warms up
CACHE = Path("runs/data")


@dataclass(frozen=True)
class Entry:
    """A method at its published size.

    Attributes:
        scene: of the generated pictures, as many as the recipe's batches need.
        small: settings beside a network small enough for a test.
    """

    recipe: str
    scene: dict[str, Any]
    small: tuple[str, ...]


PEOPLE = {"num_train_people": 96, "num_test_people": 48, "pictures_per_camera": 2}
FEW = {"num_train_people": 16, "num_test_people": 4, "pictures_per_camera": 2, "size": [64, 32]}
ENTRIES = {
    "IDF": Entry(
        "idf_official",
        {**PEOPLE, "cameras": 6},
        ("data.size=[64, 32]", "sampler.batch=8"),
    ),
    "DEEN": Entry(
        "deen_llcm",
        {**PEOPLE, "layout": "llcm", "cameras": 4},
        ("data.size=[96, 48]", "sampler.ids=4", "sampler.pictures=2"),
    ),
    "TransReID": Entry(
        "transreid_night600",
        {**PEOPLE, "cameras": 6},
        ("data.size=[64, 32]", "sampler.ids=4", "sampler.pictures=2"),
    ),
}


def build_recipe(entry: Entry, precision: str, steps: int, *, small: bool) -> Recipe:
    scene = {**entry.scene, **FEW} if small else entry.scene
    method = find_method(load_recipe(entry.recipe).method.name)[0]
    network = [f"method.{name}={json.dumps(value)}" for name, value in method.SMALL.items()]
    return load_recipe(
        entry.recipe,
        [
            "data.name=synth",
            f"data.scene={json.dumps(scene)}",
            "data.options={}",
            "data.cache=memory",
            "init.weights=random",
            f"sampler.steps={steps}",
            f"schedule.epochs={EPOCHS}",
            "schedule.warmup_epochs=0",
            f"training.precision={precision}",
            "selection.rule=last",
            *((*network, *entry.small) if small else ()),
        ],
    )


def measure(label: str, recipe: Recipe, device: torch.device, work: Path) -> dict[str, Any]:
    """One method in one precision."""
    dataset = open_data(recipe.data, cache=CACHE).dataset
    forget_peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    folder = work / f"{label}_{recipe.training.precision}"
    train(recipe, folder, dataset=dataset)
    warm = read_history(RunFolder(folder).metrics)[-1]
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else read_peak()
    loading = time_loader(recipe, training_records(dataset))
    embedder = Embedder(folder, precision=None if recipe.training.precision == "fp16" else recipe.training.precision)
    records = [*dataset.side("query"), *dataset.side("gallery")]
    embedder.describe(records[:32])
    begin = time.perf_counter()
    embeddings, _ = embedder.describe(records)
    extraction = time.perf_counter() - begin
    row = {
        "picture": list(recipe.data.size),
        "batch": recipe.sampler.global_batch,
        "training_pictures_per_second": warm["images_per_second"],
        "loading_share": loading / (recipe.sampler.global_batch / warm["images_per_second"]),
        "peak_bytes": peak,
        "extraction_pictures_per_second": len(records) / extraction,
        "extraction_precision": embedder.precision,
    }
    queries = len(dataset.side("query"))
    embeddings = replace(embeddings, vectors=embeddings.vectors.to(device))
    query, gallery = (embeddings.select(torch.arange(*ends)) for ends in ((0, queries), (queries, len(records))))
    begin = time.perf_counter()
    evaluate(query, gallery, dataset.protocol(None))
    if device.type == "cuda":
        torch.cuda.synchronize()
    return {**row, "evaluation_seconds": time.perf_counter() - begin}


def time_loader(recipe: Recipe, records: Sequence[Any]) -> float:
    """Seconds of a batch that nobody trains with, once pictures are in memory."""
    loader = TrainLoader(
        records,
        picture_options(recipe.data),
        augment=augment_options(recipe),
        sampler=sampler_options(recipe),
        seed=recipe.seed,
    )
    for epoch in range(EPOCHS):  # the first decodes
        loader.set_epoch(epoch)
        begin = time.perf_counter()
        batches = sum(1 for _ in islice(loader, 20))
    return (time.perf_counter() - begin) / batches


def run(labels: Sequence[str], steps: int, *, small: bool) -> Iterator[tuple[str, str, dict[str, Any]]]:
    device = choose_device("auto")
    precisions = ("bf16", "fp16") if device.type == "cuda" else ("bf16",)
    with tempfile.TemporaryDirectory() as work:
        for label in labels:
            for precision in precisions:
                recipe = build_recipe(ENTRIES[label], precision, steps, small=small)
                yield label, precision, measure(label, recipe, device, Path(work))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/device.json"))
    parser.add_argument("--steps", type=int, default=30, help="of an epoch")
    parser.add_argument("--only", choices=ENTRIES, action="append", help="a method; repeatable")
    parser.add_argument("--small", action="store_true", help="small networks and pictures")
    wanted = parser.parse_args(arguments)
    chip = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    content: dict[str, Any] = {"machine": describe_machine(), "chip": chip, "small": wanted.small, "rows": {}}
    for label, precision, row in run(wanted.only or list(ENTRIES), wanted.steps, small=wanted.small):
        content["rows"].setdefault(label, {})[precision] = row
        numbers = ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items()
        )
        print(f"{label}, {precision}: {numbers}", flush=True)
        write_bytes(wanted.out, (json.dumps(content, indent=1) + "\n").encode())  # what is known, if the rest fails


if __name__ == "__main__":
    main()
