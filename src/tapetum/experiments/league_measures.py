"""What a league measures of one run: what its training cost, what its test found, and how much work a picture is."""

import os
import time
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from tapetum.core.errors import DataError
from tapetum.core.processor import describe_processor
from tapetum.core.types import UNKNOWN_CAMERA, Modality
from tapetum.evaluation.slices import BIAS, MODALITY, OWN_FIRST, OWN_SHARE
from tapetum.experiments.paper_plans import Plan
from tapetum.inference.evaluate import Evaluated
from tapetum.layers.products import counting_flops
from tapetum.runs.checkpoint import load_checkpoint
from tapetum.runs.history import read_history
from tapetum.runs.recipe import load_recipe
from tapetum.runs.run_folder import RunFolder


def describe_training(folder: RunFolder, plan: Plan, peak: int | None) -> dict[str, Any]:
    """What a training cost.

    Args:
        peak: the most memory of the process, in bytes; None where nobody counted.
    """
    history, facts = read_history(folder.metrics), folder.read_facts()
    seconds = sum(row["seconds"] for row in history)
    pictures = sum(row["images_per_second"] * row["seconds"] for row in history)
    return {
        "epochs": facts["epochs"],
        "steps": plan.recipe.sampler.options.get("steps"),
        "batch": plan.recipe.sampler.global_batch,
        "seconds": facts["seconds"],
        "pictures_per_second": pictures / seconds if seconds else None,
        "peak_memory_bytes": peak,
        "precision": facts["precision"],
        "threads": facts["threads"],
        "machine": describe_processor(),
        "load": _read_load(),
    }


def _read_load() -> list[float] | None:
    return list(os.getloadavg()) if hasattr(os, "getloadavg") else None


def describe_testing(found: Evaluated, plan: Plan, meter: "Speedometer") -> dict[str, Any]:
    """What a test found, and at what speed.

    Args:
        meter: heard of every picture described.
    """
    card = found.card
    return {
        "metrics": {name: card.metrics[name] for name in ("rank1", "rank5", "rank10", "mean_ap", "mean_inp")},
        "chance": dict(card.chance),
        "protocol": card.rules.name,
        "ap": card.rules.ap,
        "checkpoint": card.checkpoint["chosen_by"],
        "mirror": card.mirror,
        "precision": card.checkpoint["precision"],
        "pictures_per_second": meter.speed,
        "load": _read_load(),
        **count_work(plan.folder, mirror=card.mirror),
    }


def describe_mixed(found: Evaluated) -> dict[str, Any]:
    """What a test in one gallery of both modalities found, and how much its own modality draws a picture."""
    card = found.card
    levels = card.slices[MODALITY]
    return {
        "protocol": card.rules.name,
        "metrics": {name: card.metrics[name] for name in ("rank1", "mean_ap")},
        "chance": dict(card.chance),
        "infrared_share": float((found.gallery.modalities == Modality.INFRARED).double().mean()),
        "modality": {
            level: {name: figures[name] for name in (OWN_FIRST, OWN_SHARE, BIAS)} for level, figures in levels.items()
        },
    }


def list_queries(found: Evaluated) -> dict[str, list[Any]]:
    """What each query that is counted gave, averaged over drawn galleries; to pair it with other methods' results."""
    first = found.trials[0]
    if any(not torch.equal(trial.query_rows, first.query_rows) for trial in found.trials):
        raise DataError(f"{found.path}: its trials draw the queries, so methods cannot be paired by query")
    counted = torch.stack([trial.counted for trial in found.trials]).all(0)
    hits = torch.stack([(trial.per_query_first_rank == 1).double() for trial in found.trials]).mean(0)
    precision = torch.stack([trial.per_query_ap for trial in found.trials]).mean(0)
    return {
        "pids": found.query.pids[first.query_rows][counted].tolist(),
        "mean_ap": [round(value, 6) for value in precision[counted].tolist()],
        "rank1": hits[counted].tolist(),
    }


def count_work(place: Path, *, mirror: bool) -> dict[str, int]:
    """Parameters of a run's network, its classifiers too, and multiply-adds to describe one picture.

    Args:
        place: the run's folder.
        mirror: the picture is described together with its mirror, which is counted too.
    """
    checkpoint = load_checkpoint(place)
    height, width = checkpoint.header.size or load_recipe(RunFolder(place).recipe).data.size
    picture = torch.zeros(1, 3, height, width)
    kinds, cameras = torch.zeros(1, dtype=torch.int64), torch.full((1,), UNKNOWN_CAMERA)
    # The fused attention of a CPU is not counted; this one is made of products that are.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counting_flops() as counter:
        checkpoint.method.embed(picture, kinds, cameras, mirror=mirror)
    parameters = sum(each.numel() for each in checkpoint.network.parameters())
    return {"parameters": parameters, "multiply_adds": counter.get_total_flops() // 2}


class Speedometer:
    """Pictures a second from reports of progress: from the first report of each piece of work to its last."""

    def __init__(self) -> None:
        self._last: tuple[int, float] | None = None
        self._pictures, self._seconds = 0, 0.0

    def __call__(self, done: int, total: int) -> None:  # noqa: ARG002
        """Hear of a report."""
        now = time.monotonic()
        if self._last is not None and done > self._last[0]:
            self._pictures += done - self._last[0]
            self._seconds += now - self._last[1]
        self._last = done, now

    @property
    def speed(self) -> float | None:
        """None where an earlier sitting had described the pictures."""
        return self._pictures / self._seconds if self._seconds else None
