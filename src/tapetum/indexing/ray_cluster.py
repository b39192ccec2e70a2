"""Indexing on a Ray cluster that is there already: Ray Data gives shards to actors, each with its model opened once.

The shards, their files and the merging are those of `tapetum.indexing.shards`: Ray only says who makes which. The
gallery's folder, the footage, the model and Tapetum are where this machine has them, on every node.
"""

import importlib
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tapetum.core import errors
from tapetum.core.errors import GalleryError, RecipeError, TapetumError, first_line
from tapetum.core.extras import install_hint
from tapetum.footage.detect import Detector
from tapetum.footage.sources import Source
from tapetum.gallery.opening import open_gallery
from tapetum.gallery.store import Store
from tapetum.indexing.index import IndexOptions, Progress
from tapetum.indexing.report import IndexReport
from tapetum.indexing.shards import ShardJob, begin_job
from tapetum.inference.model import Model


class ShardMaker:
    """An actor: what it needs to make shards is opened once, with the first of them.

    Args:
        folder: of the gallery's crops.
        name: of the job.
    """

    def __init__(
        self,
        where: str,
        folder: Path | None,
        load_model: Callable[[], Model],
        build_detector: Callable[[], Detector | None],
        options: IndexOptions,
        name: Sequence[str],
        sources: Sequence[Source],
    ) -> None:
        def open_job() -> ShardJob:
            job = ShardJob(open_gallery(where, folder=folder), load_model(), build_detector(), options, name, sources)
            if not job.is_open():
                raise GalleryError("the job is over: another process has put its shards together; type it again")
            return job

        self._open_job = open_job
        self._job: ShardJob | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Make shards that nobody has finished.

        Args:
            batch: "shard" holds their names.
        Returns:
            "error" and "message": for each an error's class and what it says, because Ray wraps what is raised; empty
            where all is well.
        """
        problems = [self._make(str(shard)) for shard in batch["shard"]]
        return {"error": [error for error, _ in problems], "message": [message for _, message in problems]}

    def _make(self, shard: str) -> tuple[str, str]:
        try:
            self._job = self._job or self._open_job()
            self._job.take(shard)
        except Exception as error:  # whatever it is, it is raised again where the command was typed
            return type(error).__name__, str(error)
        return "", ""


def index_on_ray(
    address: str,
    sources: Sequence[Source],
    store: Store,
    model: Model,
    load_model: Callable[[], Model],
    build_detector: Callable[[], Detector | None],
    *,
    name: Sequence[str],
    options: IndexOptions | None = None,
    actors: int | None = None,
    report: IndexReport | None = None,
    progress: Progress | None = None,
) -> IndexReport | None:
    """Index footage by the nodes of a Ray cluster.

    Args:
        address: host:port of the cluster's head, or "auto" on one of its nodes.
        load_model: opens the same model; called on every node.
        build_detector: makes the detector, or None; called here and on every node.
        name: the sources as the operator named them, and how they are read: equal names are one job.
        actors: processes that make shards; None takes one for each CPU of the cluster.
    Returns:
        What was done; None where another process has put the shards together.
    Raises:
        RecipeError: Ray is not installed, or no cluster is at the address.
        GalleryError: the cluster could not make the shards; the finished ones stay.
    """
    settings, report = options or IndexOptions(), report or IndexReport()
    ray = connect(address)
    try:
        job = begin_job(sources, store, model, build_detector(), settings, name, report)
        if job is None:
            return None
        rest = job.unfinished()
        if rest:
            data = importlib.import_module("ray.data")
            data.DataContext.get_current().enable_progress_bars = False
            resources = ray.cluster_resources()
            count = min(actors or max(1, int(resources.get("CPU", 1))), len(rest))
            made = data.from_items([{"shard": shard} for shard in rest], override_num_blocks=len(rest)).map_batches(
                ShardMaker,
                fn_constructor_args=(store.where, store.folder, load_model, build_detector, settings, name, sources),
                batch_size=1,
                compute=data.ActorPoolStrategy(min_size=1, max_size=count),
                num_cpus=1,
                num_gpus=share_of_gpu(model, resources, count),
            )
            for row in made.iter_rows():
                _check(address, row["error"], row["message"])
                if progress:
                    progress(job.total - sum(job.units[shard] for shard in job.unfinished()), job.total)
    except TapetumError:
        raise
    except Exception as error:  # of Ray's own types
        raise _failed(address, (str(error).strip() or type(error).__name__).splitlines()[-1]) from error
    finally:
        ray.shutdown()
    job.work(progress)  # what a lost node left
    return job.merge(report)


def share_of_gpu(model: Model, resources: Mapping[str, float], actors: int) -> float | None:
    """What each of the actors asks for, which without asking see no GPU; None where the model computes on none here."""
    gpus = resources.get("GPU", 0.0)
    if not gpus or not model.session.device.startswith("cuda"):
        return None
    on_one = math.ceil(actors / gpus)  # so that each GPU has room for as many
    return math.floor(1e4 / on_one) / 1e4  # Ray counts in ten-thousandths


def connect(address: str) -> Any:
    """Ray, connected to a cluster; it sends nothing home.

    Raises:
        RecipeError: Ray is not installed, or no cluster is there.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # else a thread that Ray Data leaves behind connects anew after the shutdown, to any cluster it finds
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    try:
        ray = importlib.import_module("ray")
        importlib.import_module("ray.data")
    except ImportError as error:
        raise RecipeError(f"--ray: Ray cannot be imported ({error}); install it with: {install_hint('ray')}") from None
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = first_line(error)
        raise RecipeError(
            f"--ray {address}: no cluster can be reached there ({reason}); start one with `ray start --head`"
        ) from None
    return ray


def _failed(address: str, reason: str) -> GalleryError:
    return GalleryError(
        f"--ray {address}: a shard could not be made ({reason}); finished shards stay: type the same command again"
    )


def _check(address: str, error: str, message: str) -> None:
    """Raise the error that ended the work on a node, as it was."""
    if not error:
        return
    kind = getattr(errors, error, None)
    raise kind(message) if kind is not None else _failed(address, f"{error}: {message}")
