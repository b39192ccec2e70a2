"""Training from a recipe to a finished run folder; typed again, it goes on where it stopped.

The result is a function of recipe, data and number of processes and threads: whatever is random derives from the
seed and the place in the training, so a run that was killed at any moment and resumed ends with the same weights as
one that was left alone (bit for bit on a CPU).
"""

import contextlib
import json
import logging
import platform
import shlex
import signal
import threading
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any, cast

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

from tapetum.core import errors
from tapetum.core.errors import OutputError, RecipeError, TrainingError
from tapetum.core.method import Method, TrainingFacts
from tapetum.core.protocol import Protocol
from tapetum.core.recipe_keys import DECIDE_NO_WEIGHTS, is_within
from tapetum.core.seeding import derive_seed
from tapetum.core.versions import read_versions
from tapetum.data.catalog import Dataset, fingerprint
from tapetum.data.loader import class_labels, drop_unpaired, modality_values, outfit_values
from tapetum.data.sampler import build_sampler, name_pictures
from tapetum.inference.devices import choose_device
from tapetum.inference.planned import SIDES
from tapetum.inference.precision import resolve_precision
from tapetum.layers.products import products_as_found, products_keep_up
from tapetum.methods import absent_at_start, build_method
from tapetum.runs.checkpoint import is_checkpoint, load_checkpoint, start_from
from tapetum.runs.header import find_checkpoint, read_header
from tapetum.runs.history import read_history
from tapetum.runs.progress import Reporter, Silence
from tapetum.runs.recipe import Recipe, check_recipe, plain_recipe, write_yaml
from tapetum.runs.recipe_text import parse_yaml
from tapetum.runs.run_folder import RunFolder, write_json, write_text
from tapetum.runs.same_people import check_division, check_untrained
from tapetum.runs.sources import CACHE, open_data, sampler_options, training_records
from tapetum.training.holdout import Validation, split_holdout, validate_on_test
from tapetum.training.loop import TALKATIVE, Interrupted, TrainingLoop, TrainingPlan, silence_lightning
from tapetum.training.optimisation import build_optimisers
from tapetum.training.start_weights import load_pretrained
from tapetum.training.state import State, load_state, restore_memory
from tapetum.training.stepping import turns_of

MIRROR = "evaluation.mirror"  # which decides where weights are chosen by what was found with it


class TogetherStrategy(DDPStrategy):
    """Processes that train together. The step averages the gradients itself, so the network is not wrapped."""

    def configure_ddp(self) -> None:
        """Leave the network as it is."""


class TrainingInterrupted(KeyboardInterrupt):
    """The user stopped the training; the state is saved and the same call goes on from there."""


@dataclass(frozen=True)
class TrainResult:
    """A finished run."""

    folder: RunFolder
    checkpoint: Path  # the weights that the recipe's rule chooses
    chosen_by: str
    num_ids: int
    epochs: int
    seconds: float  # over all sittings
    history: list[dict[str, float]]
    skipped: tuple[str, ...]  # one message for each damaged picture left out


def train(
    recipe: Recipe,
    run_dir: Path,
    *,
    dataset: Dataset | None = None,
    skipped: Sequence[str] = (),
    reporter: Reporter | None = None,
    cache: Path = CACHE,
) -> TrainResult:
    """Train a method, or go on with it, or return at once where the run is finished.

    What fails before the first step is taken leaves the folder as it was, or none (with several processes, which do
    not tell how far they came, recipe and facts stay).

    Args:
        run_dir: the run's folder; it may hold an unfinished run of the same recipe and data, or one that failed before
            it saved anything.
        dataset: already opened; None opens the one the recipe names.
        skipped: one message for each damaged picture that was left out of `dataset`.
        reporter: hears of the progress; None is silent.
        cache: folder for generated scenes.
    Raises:
        RecipeError: the recipe does not fit the method, the data or the run in the folder.
        DataError: pictures are missing or damaged.
        TrainingError: too few identities, or a loss or weight is no longer finite.
        MethodError: the method's file breaks the contract.
        OutputError: the folder cannot be written or is in use.
        CheckpointError: pretrained weights cannot be had, or the state to resume from is damaged.
        TrainingInterrupted: Ctrl-C; typed again, it goes on.
    """
    folder = RunFolder(run_dir)
    with folder.held(), contextlib.ExitStack() as stack:
        begins = not folder.holds_training
        if not begins:
            check_same_recipe(folder, recipe)
        if dataset is None:
            source = open_data(recipe.data, cache=cache)
            dataset, skipped = source.dataset, source.skipped
        pictures = fingerprint(dataset.records)
        facts = {} if begins else check_same_data(folder, dataset, pictures)
        if facts.get("finished"):
            return _read_result(folder, facts)
        if not begins and not folder.state.is_file():
            _refuse_to_begin_again(folder)
        start = facts.get("started")
        if "threads" in facts:  # another number adds up in another order
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(facts["threads"])
        if "products_keep_up" in facts:
            stack.enter_context(products_as_found(facts["products_keep_up"]))
        state = load_state(folder.state) if folder.state.is_file() else None
        plan, network = _make_plan(recipe, folder, dataset, pictures, facts, state)
        loop = TrainingLoop(network, plan, reporter or Silence(), state)
        if begins:
            stack.enter_context(folder.taken_back(unless=lambda: recipe.training.devices > 1 or loop.place.steps > 0))
        if begins or not folder.recipe.is_file():
            write_text(folder.recipe, write_yaml(recipe))
        facts = {**plan.origin, "dataset": dataset.name, "data_root": str(dataset.root), "skipped": list(skipped)}
        facts |= {"left_out": [str(path) for path in dataset.left_out]} if dataset.left_out else {}
        facts |= {"people": dataset.people} if dataset.people else {}
        facts |= {"earlier": list(plan.earlier)}
        facts |= {"started": start or _now(), "finished": False}
        write_json(folder.facts, facts)
        if loop.place.epoch < recipe.schedule.epochs:
            _fit(loop)
        place = load_state(folder.state).place
        facts |= {"finished": True, "ended": _now(), "epochs": place.epoch, "seconds": round(place.seconds, 3)}
        facts["num_ids"] = len(plan.pids)
        write_json(folder.facts, facts)
        folder.state.unlink(missing_ok=True)
        return _read_result(folder, facts)


def _refuse_to_begin_again(folder: RunFolder) -> None:
    """A run that cannot go on would begin at its first step, and write over the weights that it has.

    Raises:
        OutputError: there are weights of more than the first epoch, after which a run may stop before its state is
            there, and no state to go on from.
    """
    weights = next((path for path in (folder.best, folder.last) if path.is_file()), None)
    if weights is not None and read_header(folder.last if folder.last.is_file() else weights).epoch > 1:
        raise OutputError(
            f"{folder.root}: has weights ({weights.name}) but no state to go on from ({folder.state}); put it back, "
            f"train into another folder, or remove {weights.parent} to begin anew"
        )


def _make_plan(
    recipe: Recipe, folder: RunFolder, dataset: Dataset, pictures: str, before: Mapping[str, Any], state: State | None
) -> tuple[TrainingPlan, nn.Module]:
    """What to do, and with which network.

    A training goes on in the precision and is validated by the protocol that it was begun with.
    """
    everybody = training_records(dataset)
    records = drop_unpaired(everybody, sampler_options(recipe))
    unpaired = len({record.pid for record in everybody}) - len({record.pid for record in records})
    validation: Validation | None = None
    tested_by = dataset.protocol(recipe.evaluation.protocol if dataset.name == recipe.data.name else None)
    protocol = before.get("selection_protocol")
    if recipe.selection.rule != "last":
        rules = dataset.protocol(protocol or tested_by.name)
        protocol = rules.name
        if recipe.selection.rule == "best_on_test":
            validation = validate_on_test(dataset, rules)
        else:
            records, validation = split_holdout(records, recipe.selection.ids, recipe.seed, rules)
    held_out = {record.pid for record in validation.gallery} if validation and not validation.at_test else ()
    labels, pids = class_labels(records)
    training, modalities = recipe.training, modality_values(records)
    build_sampler(  # fails before anything is written
        sampler_options(recipe),
        name_pictures(sampler_options(recipe), labels, modalities),
        modalities,
        outfits=outfit_values(records),
        seed=recipe.seed,
        world=training.devices,
        parts=training.accumulate,
    )
    device = choose_device(training.accelerator)
    if device.type == "cuda" and training.devices > torch.cuda.device_count():
        num_gpus = torch.cuda.device_count()
        raise RecipeError(
            f"training.devices is {training.devices}, but this machine offers {num_gpus} GPU(s); lower it"
        )
    camids = tuple(sorted({record.camid for record in records}))
    views = max(sampler_options(recipe).views)
    facts = TrainingFacts(len(pids), camids, recipe.data.size, len(records), views)
    earlier = _read_earlier(recipe, before, dataset, {*held_out}, tested_by)
    network = _build_network(recipe, facts, state)
    precision = before.get("precision") or resolve_precision(training.precision, device.type, network=network)
    origin = {
        "data": pictures,
        "dataset": dataset.name,
        "held_out_ids": len(held_out),
        "unpaired_ids": unpaired,
        "selection_protocol": protocol,
        "precision": precision,
        "threads": torch.get_num_threads(),
        "products_keep_up": products_keep_up(),
        **_tell_sittings(before, 0 if state is None else state.place.steps, device),
    }
    return (
        TrainingPlan(recipe, folder, tuple(records), validation, tuple(pids), facts, precision, origin, earlier),
        network,
    )


def _tell_sittings(before: Mapping[str, Any], steps: int, device: torch.device) -> dict[str, Any]:
    """On what a training runs: "device" and "versions" of its beginning, and "sittings" where later ones had others.

    Args:
        before: what an earlier sitting told.
        steps: optimiser steps behind; of a sitting that began there, or later, nothing is left.
    """
    now = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
        "versions": read_versions(),
    }
    first = {name: before[name] for name in now if name in before} or now
    earlier = before.get("sittings", [{"steps": 0, **first}])
    kept = [each for each in earlier if each["steps"] < steps] or [{"steps": 0, **now}]
    if any(kept[-1].get(name) != now[name] for name in now):
        kept.append({"steps": steps, **now})
    beginning = {name: kept[0][name] for name in now if name in kept[0]}
    return beginning | ({"sittings": kept} if len(kept) > 1 else {})


def _read_earlier(
    recipe: Recipe, before: Mapping[str, Any], dataset: Dataset, held_out: Collection[int], rules: Protocol
) -> list[Mapping[str, Any]]:
    """The trainings behind the weights that this one begins on, see `Header.trainings`.

    Args:
        before: what the run folder says of a training that goes on: its start may be gone by now.
        rules: of the test.
    Raises:
        DataError: they were trained on people who are held out or tested here.
        RecipeError: they may have been.
    """
    if "earlier" in before:
        return list(before["earlier"])
    place = Path(recipe.init.weights)
    if not is_checkpoint(place):
        return []
    header = read_header(find_checkpoint(place))
    if not before:  # else a run of an earlier version goes on
        check_division(dataset, header, place)
        tested = {record.pid for side in SIDES for record in dataset.side(side, rules.name)} - {*rules.ignored_pids, -1}
        check_untrained(dataset, {*held_out, *tested}, header, place, "holds out or tests")
    return header.trainings


def _build_network(recipe: Recipe, facts: TrainingFacts, state: State | None) -> nn.Module:
    torch.manual_seed(derive_seed(recipe.seed, "weights"))
    network = build_method(recipe.method.name, recipe.method.options, **vars(facts))
    method = cast(Method, network)
    try:
        build_optimisers(  # fails before anything is written
            network, method.parameter_groups(), recipe.optimiser, turns_of(network)
        )
    except RecipeError as error:
        raise RecipeError(f"recipe {recipe.name}: {error}") from None
    if state is not None:
        network.load_state_dict(state.network)
        restore_memory(network, state.memory)
    elif is_checkpoint(Path(recipe.init.weights)):
        start = load_checkpoint(Path(recipe.init.weights), method=recipe.method.name, num_ids=facts.num_ids)
        start_from(network, start, absent_at_start(recipe.method.name))
    else:
        load_pretrained(method, recipe.init.weights)
    if recipe.training.channels_last:
        network = network.to(memory_format=torch.channels_last)
    return network


def _fit(loop: TrainingLoop) -> None:
    recipe, folder = loop.plan.recipe, loop.plan.folder
    devices, epochs = recipe.training.devices, recipe.schedule.epochs
    cuda = choose_device(recipe.training.accelerator).type == "cuda"
    with _quiet_lightning(), _deterministic():
        trainer = Trainer(
            max_epochs=epochs - loop.place.epoch,
            accelerator="gpu" if cuda else "cpu",
            devices=devices,
            strategy=TogetherStrategy(start_method="spawn") if devices > 1 else "auto",
            use_distributed_sampler=False,  # our sampler shares the global batch out
            default_root_dir=folder.root,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        try:
            with _listening(loop, trainer):
                trainer.fit(loop)
        except Interrupted:
            where = f" in epoch {loop.place.epoch + 1} of {epochs}" if devices == 1 else ""
            has_state = folder.state.is_file()
            rest = f"goes on from {folder.state}" if has_state else "begins afresh, nothing was saved yet"
            raise TrainingInterrupted(f"stopped{where}; the same command {rest}") from None
        except ProcessRaisedException as error:
            raise error_of_worker(error) from error
        except ProcessExitedException as error:
            raise TrainingError(
                f"{folder.root}: a training process ended ({error}); the same command goes on from the last state"
            ) from None
        finally:
            loop.teardown("fit")  # Lightning does it only where nothing was raised


def error_of_worker(error: ProcessRaisedException) -> Exception:
    """The error that a worker raised on purpose, from the last line of its traceback; else the original."""
    place, _, message = str(error).rstrip().rpartition("\n")[2].partition(": ")
    module, _, name = place.rpartition(".")
    kind = getattr(errors, name, None) if module == errors.__name__ else None
    return kind(message) if kind else error


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
    """`silence_lightning` for the time of a training."""
    loggers = [logging.getLogger(name) for name in TALKATIVE]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        silence_lightning()
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextlib.contextmanager
def _deterministic() -> Iterator[None]:
    """The same kernels in every run."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


@contextlib.contextmanager
def _listening(loop: TrainingLoop, trainer: Trainer) -> Iterator[None]:
    """Ctrl-C and SIGTERM ask for a stop between two steps; a second one, or several processes, stop at once.

    With several processes the state of the last epoch (or of the last `save_minutes`) is the one to go on from.
    """

    def hear(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if loop.plan.recipe.training.devices == 1 and not loop.stop_wanted:
            loop.stop_wanted = True
            return
        if trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.SIGKILL)  # what the workers write is whole or absent
        raise Interrupted

    heard = threading.current_thread() is threading.main_thread()  # elsewhere no signal is
    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM) if heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check_same_recipe(folder: RunFolder, recipe: Recipe) -> None:
    """A folder holds one recipe; some settings may change all the same.

    Raises:
        RecipeError: it was begun with another, and which setting differs.
    """
    if not folder.recipe.is_file():
        return
    there = check_recipe(parse_yaml(folder.recipe.read_text(encoding="utf-8"), str(folder.recipe)), str(folder.recipe))
    old, new = (dict(_flatten(plain_recipe(which))) for which in (there, recipe))
    held = {MIRROR} if there.selection.rule == "holdout" else set()
    for key in sorted(old.keys() | new.keys(), key=lambda key: (key != "method.name", key)):
        if old.get(key) != new.get(key) and (key in held or not is_within(key, DECIDE_NO_WEIGHTS)):
            way = ""
            if key.startswith("method.") and key in old and key != "method.name":  # maybe a default that changed
                setting = shlex.quote(f"{key}={json.dumps(old[key])}")
                way = f", or go on as before with --set {setting}"
            raise RecipeError(
                f"{folder.root} holds a run with {key} = {old.get(key)!r}, now it is {new.get(key)!r}; "
                f"choose another --out, or delete the folder{way}"
            )


def check_same_data(folder: RunFolder, dataset: Dataset, pictures: str) -> dict[str, Any]:
    """A run sees the same pictures in every sitting.

    Args:
        pictures: fingerprint of the dataset's records.
    Returns:
        What is known about the run; nothing where it has not begun.
    Raises:
        RecipeError: it was begun with others.
    """
    facts = folder.read_facts()
    if facts and facts.get("data") != pictures:
        raise RecipeError(
            f"{folder.root} was begun with other pictures (fingerprint {facts.get('data')}, now {pictures} in "
            f"{dataset.root}); give the same data, or choose another --out"
        )
    return facts


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _read_result(folder: RunFolder, facts: Mapping[str, Any]) -> TrainResult:
    checkpoint = find_checkpoint(folder.root)
    return TrainResult(
        folder=folder,
        checkpoint=checkpoint,
        chosen_by=read_header(checkpoint).chosen_by,
        num_ids=facts["num_ids"],
        epochs=facts["epochs"],
        seconds=facts["seconds"],
        history=read_history(folder.metrics),
        skipped=tuple(facts.get("skipped", ())),
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
