"""Indexing on a Ray cluster that is there already: Ray Data gives shards to actors, each with its model opened once.

The shards, their files and the merging are those of `tapetum.indexing.shards`: Ray only says who makes which. The
gallery's folder, the footage, the model and Tapetum are where this machine has them, on every node.
"""

import importlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tapetum.core import errors
from tapetum.core.errors import GalleryError, RecipeError, TapetumError
from tapetum.footage.detect import Detector
from tapetum.footage.sources import Source
from tapetum.gallery.opening import open_gallery
from tapetum.gallery.store import Store
from tapetum.indexing.index import IndexOptions, IndexReport, Progress
from tapetum.indexing.shards import ShardJob
from tapetum.inference.sessions import Model


class ShardMaker:
    """An actor: what it needs to make shards is opened once.

    Args:
        where: the gallery.
        folder: of its crops.
        load_model: opens the model.
        build_detector: makes the detector, or None.
        name: of the job.
        options: how footage becomes rows.
    """

    def __init__(
        self,
        where: str,
        folder: Path | None,
        load_model: Callable[[], Model],
        build_detector: Callable[[], Detector | None],
        name: Sequence[str],
        options: IndexOptions,
    ) -> None:
        def begin() -> ShardJob:
            job = ShardJob(open_gallery(where, folder=folder), load_model(), build_detector(), options, name)
            job.open_plan(_no_plan)
            return job

        self._begin = begin
        self._job: ShardJob | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Make shards that nobody has finished.

        Args:
            batch: "number" holds their numbers in the plan.
        Returns:
            "problem": for each an error's kind and message, because Ray wraps what is raised; empty where all is well.
        """
        return {"problem": [self._make(number) for number in batch["number"].tolist()]}

    def _make(self, number: int) -> str:
        try:
            if self._job is None:
                self._job = self._begin()
            self._job.take(self._job.plan.shards[number])
        except TapetumError as error:
            return f"{type(error).__name__} {error}"
        return ""


def index_on_ray(
    address: str,
    find: Callable[[], Sequence[Source]],
    store: Store,
    model: Model,
    load_model: Callable[[], Model],
    build_detector: Callable[[], Detector | None],
    *,
    name: Sequence[str],
    options: IndexOptions | None = None,
    actors: int | None = None,
    progress: Progress | None = None,
) -> IndexReport | None:
    """Index footage by the nodes of a Ray cluster.

    Args:
        address: host:port of the cluster's head, or "auto" on one of its nodes.
        find: gives the sources.
        store: the gallery; every node sees its folder.
        model: whose embeddings it holds, for what is left to this process.
        load_model: opens the same model; called on every node.
        build_detector: makes the detector, or None; called here and on every node.
        name: the sources as the operator named them, and how they are read: equal names are one job.
        options: settings; None takes the defaults.
        actors: processes that make shards; None takes one for each CPU of the cluster.
        progress: called with (done, total) frames and pictures.
    Returns:
        What was done; None where another process has put the shards together.
    Raises:
        RecipeError: Ray is not installed, or no cluster is at the address.
        GalleryError: the cluster could not make the shards; the finished ones stay.
    """
    settings = options or IndexOptions()
    ray = connect(address)
    try:
        job = ShardJob(store, model, build_detector(), settings, name)
        job.open_plan(find)
        rest = sorted(job.unfinished(), key=lambda shard: -shard.units)
        if rest:
            data = importlib.import_module("ray.data")
            data.DataContext.get_current().enable_progress_bars = False
            given = (store.where, store.folder, load_model, build_detector, tuple(name), settings)
            count = actors or max(1, int(ray.cluster_resources().get("CPU", 1)))
            made = data.from_items(
                [{"number": shard.number} for shard in rest], override_num_blocks=len(rest)
            ).map_batches(
                ShardMaker,
                fn_constructor_args=given,
                batch_size=1,
                compute=data.ActorPoolStrategy(min_size=1, max_size=min(count, len(rest))),
                num_cpus=1,
            )
            total = sum(shard.units for shard in job.plan.shards)
            for row in made.iter_rows():
                _check(row["problem"])
                if progress:
                    progress(total - sum(shard.units for shard in job.unfinished()), total)
    except TapetumError:
        raise
    except Exception as error:  # of Ray's own types
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise GalleryError(
            f"--ray {address}: a shard could not be made ({reason}); finished shards stay: type the same command again"
        ) from error
    finally:
        ray.shutdown()
    job.work(progress)  # what a lost node left
    return job.merge()


def connect(address: str) -> Any:
    """Ray, connected to a cluster; it sends nothing home.

    Args:
        address: as for `index_on_ray`.
    Raises:
        RecipeError: Ray is not installed, or no cluster is there.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray = importlib.import_module("ray")
        importlib.import_module("ray.data")
    except ImportError as error:
        raise RecipeError(
            f"--ray: Ray cannot be imported ({error}); install it with `pip install tapetum[ray]`"
        ) from None
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RecipeError(
            f"--ray {address}: no cluster can be reached there ({reason}); start one with `ray start --head`"
        ) from None
    return ray


def _no_plan() -> Sequence[Source]:
    raise GalleryError("the job's plan is gone: another process has put its shards together; type the command again")


def _check(problem: str) -> None:
    """Raise the error that ended the work on a node, as it was."""
    name, _, message = problem.partition(" ")
    if name:
        kind: type[TapetumError] = getattr(errors, name, GalleryError)
        raise kind(message)
