"""Training, extraction and evaluation at published size on this machine's GPU: one script, one JSON.

`python -m benchmarks.device [--out FILE] [--steps N] [--only IDF]` trains IDF, DEEN and TransReID from random weights
on the generated scene, with the pictures' size, the batch, the optimiser and the warm-up of their published recipes,
first all in bf16, then in fp16. It writes for each: pictures a second of a warm epoch, the most memory, the share of a
step that loading its pictures would take if nothing hid it, the copy of a batch to the GPU, pictures a second at
extraction (in memory, and from files) and seconds of an evaluation; and once those of an evaluation at Market-1501's
size. What fails says so in its row, and the others go on. Without a GPU there is `--small`: small networks and
pictures, so that the script runs on a CPU in a minute.
"""

import argparse
import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch

from benchmarks.__main__ import describe_machine
from benchmarks.bench_evaluation import DIMENSION, NUM_GALLERY, NUM_QUERIES, PROTOCOL, build_sets
from tapetum.core.atomic import write_bytes
from tapetum.core.memory import forget_peak, read_peak
from tapetum.core.types import EmbeddingSet
from tapetum.data.loader import TrainLoader, modality_values
from tapetum.evaluation.metrics import evaluate
from tapetum.inference.devices import choose_device, computing_in
from tapetum.inference.embedder import Embedder
from tapetum.inference.embeddings import embed_pictures
from tapetum.inference.torch_sessions import TorchSession
from tapetum.methods import find_method
from tapetum.runs.history import read_history
from tapetum.runs.progress import Silence
from tapetum.runs.recipe import Recipe, load_recipe
from tapetum.runs.run_folder import RunFolder
from tapetum.runs.sources import augment_options, open_data, picture_options, sampler_options, training_records
from tapetum.training.train import train

EPOCHS = 2  # the first warms up
STEPS = 150  # of an epoch
ROUNDS = 10  # of what is timed by itself
MOST_LOADED = 100  # batches
SMALL_SETS = (60, 300, 64)  # queries, gallery pictures, numbers
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
            f"data.workers={count_cores()}",
            f"training.precision={precision}",
            "selection.rule=last",
            *((*network, *entry.small) if small else ()),
        ],
    )


def count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Watch(Silence):
    """Sees how cuDNN chooses its kernels while a training steps."""

    cudnn_benchmark = False

    def step(self, *, epoch: int, loss: float, images_per_second: float) -> None:  # noqa: ARG002
        self.cudnn_benchmark = torch.backends.cudnn.benchmark


class Subject:
    """One method in one precision: each part adds its figures to the row."""

    def __init__(self, recipe: Recipe, device: torch.device, folder: Path) -> None:
        self.recipe, self.device, self.folder = recipe, device, folder
        self.dataset = open_data(recipe.data, cache=CACHE).dataset
        self.records = [*self.dataset.side("query"), *self.dataset.side("gallery")]
        self.embeddings: EmbeddingSet | None = None
        self.row: dict[str, Any] = {"picture": list(recipe.data.size), "batch": recipe.sampler.global_batch}

    def train(self) -> None:
        on_gpu = self.device.type == "cuda"
        forget_peak()
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        watch = Watch()
        train(self.recipe, self.folder, dataset=self.dataset, reporter=watch)
        self.row |= {
            "training_pictures_per_second": read_history(RunFolder(self.folder).metrics)[-1]["images_per_second"],
            "peak_bytes": torch.cuda.max_memory_allocated() if on_gpu else read_peak(),
            "reserved_bytes": torch.cuda.max_memory_reserved() if on_gpu else None,
            "workers": self.recipe.data.workers,
            "cudnn_benchmark": watch.cudnn_benchmark,
        }

    def load(self) -> None:
        """Loading that nobody waits for in a training, and the copy of a batch."""
        step = self.recipe.sampler.global_batch / self.row["training_pictures_per_second"]
        self.row["loading_share"] = self.time_loader("memory") / step
        self.row["loading_share_without_cache"] = self.time_loader("none") / step
        self.row["copy_seconds"] = None
        if self.device.type == "cuda":
            batch = next(iter(self.build_loader("memory")))
            self.row["copy_seconds"] = self.time(lambda: batch.to(self.device))

    def build_loader(self, cache: Any) -> TrainLoader:
        return TrainLoader(
            training_records(self.dataset),
            replace(picture_options(self.recipe.data), cache=cache),
            augment=augment_options(self.recipe),
            sampler=sampler_options(self.recipe),
            seed=self.recipe.seed,
            pinned=self.device.type == "cuda",
        )

    def time_loader(self, cache: Any) -> float:
        """Seconds of a batch; with a cache, once pictures are in it."""
        loader = self.build_loader(cache)
        for epoch in range(EPOCHS):
            loader.set_epoch(epoch)
            begin = time.perf_counter()
            batches = sum(1 for _ in islice(loader, MOST_LOADED))
        return (time.perf_counter() - begin) / batches

    def extract(self) -> None:
        """As `tapetum evaluate` does it with files, and the network alone with pictures that lie on the device."""
        precision = self.recipe.training.precision
        embedder = Embedder(self.folder, precision=precision)
        session, size = embedder.model.session, self.recipe.evaluation.batch
        if not isinstance(session, TorchSession):
            raise TypeError(f"a run is computed by {type(session).__name__}")
        some = list(islice(cycle(self.records), size))
        images = torch.rand(size, 3, *self.recipe.data.size, device=self.device)
        modalities = torch.from_numpy(modality_values(some)).to(self.device)
        camids = torch.tensor([record.camid for record in some], device=self.device)

        def embed() -> None:
            with computing_in(embedder.precision, self.device):
                embed_pictures(session.network, images, modalities, camids, mirror=embedder.mirror)

        self.row |= {
            "recompute": embedder.checkpoint.header.options.get("recompute"),
            "mirror": embedder.mirror,
            "extraction_precision": embedder.precision,
            "extraction_batch": size,
            "extraction_pictures_per_second": size / self.time(embed),
        }
        embedder.describe(self.records[:32])
        begin = time.perf_counter()
        self.embeddings, _ = embedder.describe(self.records)
        self.row["extraction_from_files_per_second"] = len(self.records) / (time.perf_counter() - begin)

    def evaluate(self) -> None:
        """The scene's people, with their vectors on the device."""
        if self.embeddings is None:
            return
        queries, count = len(self.dataset.side("query")), len(self.records)
        there = replace(self.embeddings, vectors=self.embeddings.vectors.to(self.device))
        query, gallery = (there.select(torch.arange(*ends)) for ends in ((0, queries), (queries, count)))
        rules = self.dataset.protocol(None)
        self.row["evaluation_seconds"] = self.time(lambda: evaluate(query, gallery, rules))

    def time(self, function: Callable[[], object]) -> float:
        return time_on(self.device, function)


def time_on(device: torch.device, function: Callable[[], object]) -> float:
    """Median seconds of a call until the device has done its work, after one that is not measured."""
    seconds = []
    for _ in range(ROUNDS + 1):
        synchronise(device)
        begin = time.perf_counter()
        function()
        synchronise(device)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[1:])


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def reason_of(error: Exception) -> str:
    """One line, after the whole story on standard error."""
    traceback.print_exception(error)
    return f"{type(error).__name__}: {(str(error).strip() or '(no message)').splitlines()[0]}"


def measure(recipe: Recipe, device: torch.device, folder: Path) -> dict[str, Any]:
    """One method in one precision; "failed" says what could not be measured, and why."""
    begin = time.perf_counter()
    try:
        subject = Subject(recipe, device, folder)
    except Exception as error:  # whatever it is, the other rows are wanted
        return {"failed": f"scene: {reason_of(error)}"}
    row, failures = subject.row, list[str]()
    for name in ("train", "load", "extract", "evaluate"):
        try:
            getattr(subject, name)()
        except Exception as error:
            failures.append(f"{name}: {reason_of(error)}")
            if name == "train":  # the others need what it leaves
                break
    if failures:
        row["failed"] = "; ".join(failures)
    row["seconds"] = time.perf_counter() - begin
    del subject
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return row


def measure_published_evaluation(device: torch.device, *, small: bool) -> dict[str, Any]:
    """Vectors on the device to all metrics, at Market-1501's size."""
    sizes = SMALL_SETS if small else (NUM_QUERIES, NUM_GALLERY, DIMENSION)
    row: dict[str, Any] = dict(zip(("queries", "gallery", "dimension"), sizes, strict=True))
    try:
        query, gallery = (replace(side, vectors=side.vectors.to(device)) for side in build_sets(*sizes))
        row["seconds"] = time_on(device, lambda: evaluate(query, gallery, PROTOCOL))
    except Exception as error:
        row["failed"] = reason_of(error)
    return row


def run(labels: Sequence[str], steps: int, *, small: bool) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """All in bf16 first: if time runs out, the precision that is used most is there."""
    device = choose_device("auto")
    with tempfile.TemporaryDirectory() as work:
        for precision in ("bf16", "fp16") if device.type == "cuda" else ("bf16",):
            for label in labels:
                recipe = build_recipe(ENTRIES[label], precision, steps, small=small)
                yield label, precision, measure(recipe, device, Path(work) / f"{label}_{precision}")


def read_driver() -> str | None:
    """The version of NVIDIA's driver; None where nothing says so."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    asking = [command, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(asking, capture_output=True, text=True, check=False)
    return next(iter(done.stdout.split()), None) if done.returncode == 0 else None


def tell(title: str, row: dict[str, Any]) -> None:
    numbers = (f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items())
    print(f"{title}: {', '.join(numbers)}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 2 where there is nothing to measure on, 1 where a row failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/device.json"))
    parser.add_argument("--steps", type=int, default=STEPS, help="of an epoch")
    parser.add_argument("--only", choices=ENTRIES, action="append", help="a method; repeatable")
    parser.add_argument("--small", action="store_true", help="small networks and pictures, on a CPU too")
    wanted = parser.parse_args(arguments)
    on_gpu = torch.cuda.is_available()
    if not on_gpu and not wanted.small:
        print("device: no GPU is here, and on a CPU this takes hours; give --small, or type it where there is one")
        return 2
    chip = torch.cuda.get_device_name() if on_gpu else None
    content: dict[str, Any] = {"machine": describe_machine(), "chip": chip, "driver": read_driver()}
    content |= {"small": wanted.small, "rows": {}}

    def save() -> None:  # at once: what is known, if the rest fails
        write_bytes(wanted.out, (json.dumps(content, indent=1) + "\n").encode())

    row = content["evaluation"] = measure_published_evaluation(choose_device("auto"), small=wanted.small)
    tell("evaluation", row)
    failed = "failed" in row
    save()
    for label, precision, row in run(wanted.only or list(ENTRIES), wanted.steps, small=wanted.small):
        content["rows"].setdefault(label, {})[precision] = row
        tell(f"{label}, {precision}", row)
        failed |= "failed" in row
        save()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
