"""The training loop proper: a Lightning module that begins epochs, steps, validates, saves and stops.

Lightning starts the processes, chooses devices and runs the epochs that are left, of which the first may begin in the
middle. The step itself is ours (`tapetum.training.stepping`), and so is the place in the training
(`tapetum.training.state`): Lightning is not asked to restore anything.
"""

import copy
import dataclasses
import logging
import math
import signal
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from torch import nn

from tapetum.core.errors import TrainingError
from tapetum.core.method import BeginsEpochs, Method, TrainingFacts
from tapetum.core.processes import add_up, gather, share_buffers
from tapetum.core.seeding import derive_seed
from tapetum.core.types import Batch, Record
from tapetum.data.loader import EvalLoader, TrainLoader
from tapetum.evaluation.metrics import evaluate
from tapetum.inference.devices import computing_in
from tapetum.inference.embeddings import extract
from tapetum.inference.filling import filling_of, meet
from tapetum.inference.precision import Precision
from tapetum.methods import write_options
from tapetum.runs.checkpoint import save_checkpoint
from tapetum.runs.header import Header
from tapetum.runs.history import Curves, write_history
from tapetum.runs.progress import Reporter
from tapetum.runs.recipe import Recipe
from tapetum.runs.run_folder import RunFolder
from tapetum.runs.sources import augment_options, picture_options, sampler_options
from tapetum.training.beginning import Beginning
from tapetum.training.holdout import Validation
from tapetum.training.optimisation import build_optimisers, set_learning_rates
from tapetum.training.state import State, TrainingPosition, read_memory, save_state
from tapetum.training.stepping import Stepper, freeze, turns_of

STEPS_BETWEEN_ASKING = 10  # of several processes, whether it is time to save: asking makes all wait
TALKATIVE = ("lightning.pytorch", "lightning.fabric", "torch.multiprocessing.spawn")


class Interrupted(Exception):  # noqa: N818  # not an error
    """Ctrl-C or SIGTERM arrived; the state is saved. Not a KeyboardInterrupt, which Lightning turns into exit 1."""


@dataclass(frozen=True)
class TrainingPlan:
    """All that the loop needs to know, in every process."""

    recipe: Recipe  # resolved
    folder: RunFolder
    train: tuple[Record, ...]
    validation: Validation | None  # None for selection.rule = last
    pids: tuple[int, ...]  # by class index
    facts: TrainingFacts
    precision: Precision
    origin: Mapping[str, Any]  # facts about data and machine, for the checkpoints' headers
    earlier: Sequence[Mapping[str, Any]] = ()  # trainings on whose weights this one began, see `Header.before`


class Epochs:
    """What Lightning iterates: the steps of one epoch each time, from the place where the training stands.

    Args:
        place: the training's own, which moves on.
        parts: pieces of this process's share of a step.
    """

    def __init__(self, loader: TrainLoader, place: TrainingPosition, parts: int) -> None:
        self.loader = loader
        self._place = place
        self._parts = parts

    def count_steps(self) -> int:
        """Optimiser steps of the current epoch, those behind it included; P x K epochs differ in length."""
        if self.loader.sampler.epoch != self._place.epoch:
            self.loader.set_epoch(self._place.epoch)
        return len(self.loader) // self._parts

    def __iter__(self) -> Iterator[tuple[Batch, ...]]:
        self.loader.set_epoch(self._place.epoch)
        self.loader.sampler.start_batch = self._place.step
        pieces = iter(self.loader)
        return iter(lambda: tuple(islice(pieces, self._parts)), ())


class TrainingLoop(LightningModule):
    """One method in training, from the beginning or from a state."""

    network: Method  # an nn.Module, too
    _epochs: Epochs
    _stepper: Stepper

    def __init__(self, network: nn.Module, plan: TrainingPlan, reporter: Reporter, state: State | None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = cast(Method, network)
        self.plan = plan
        self.reporter = reporter
        self.place = state.place if state else TrainingPosition()
        self.stop_wanted = False
        self._state = state
        self._curves: Curves | None = None
        self._saved_at = self._ticked_at = time.monotonic()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Arrive in a worker process, where Lightning is as talkative as ever."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        silence_lightning()

    # --- what Lightning asks for -------------------------------------------------------------------------------

    def train_dataloader(self) -> Epochs:
        """This process's batches."""
        recipe = self.plan.recipe
        parts = recipe.training.accumulate
        loader = TrainLoader(
            self.plan.train,
            picture_options(recipe.data),
            augment=augment_options(recipe),
            sampler=sampler_options(recipe),
            seed=recipe.seed,
            rank=self.global_rank,
            world=self.trainer.world_size,
            parts=parts,
            pinned=self.device.type == "cuda",
        )
        self._epochs = Epochs(loader, self.place, parts)
        return self._epochs

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """The optimisers, as they were where a training goes on."""
        recipe, precision = self.plan.recipe, self.plan.precision
        network, turns, clip = self._module, turns_of(self._module), recipe.training.gradient_clip
        # asked for once: a method may tell what it trains by what has gradients, which a frozen group has not
        self._groups = groups = self.network.parameter_groups()
        optimisers = build_optimisers(network, groups, recipe.optimiser, turns, fused=clip is None)
        scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        if self._state:
            for optimiser, state in zip(optimisers, self._state.optimisers, strict=True):
                optimiser.inner.load_state_dict(copy.deepcopy(state))  # processes arrive with one memory of it
            if scaler.is_enabled():
                scaler.load_state_dict(self._state.scaler)
            if self._state.sums:
                self.place.sums = self._state.sums[self.global_rank]
            self._state = None
        self._stepper = Stepper(network, turns, optimisers, precision, clip, scaler)
        return [each.inner for each in optimisers]

    def transfer_batch_to_device(
        self,
        batch: tuple[Batch, ...],
        device: torch.device,
        dataloader_idx: int,  # noqa: ARG002
    ) -> tuple[Batch, ...]:
        """The parts of a step where the network is, in the memory layout the recipe asks for."""
        return tuple(self._move(part, device) for part in batch)

    def on_train_start(self) -> None:
        """Open the logs, or go on with them."""
        if self.trainer.world_size > 1:  # the parent process decides; workers are ended by it
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        if self.trainer.is_global_zero:
            self._curves = Curves(self.plan.folder.tensorboard, self.place.steps)
            epochs, steps = self.plan.recipe.schedule.epochs, self._epochs.count_steps()
            self.reporter.start(title=self.plan.recipe.name, epochs=epochs, steps=steps, done=self.place.steps)
        self._saved_at = self._ticked_at = time.monotonic()

    def on_train_epoch_start(self) -> None:
        """Freeze and thaw, and let a method look at its pictures; where an epoch goes on, it has looked already."""
        place, frozen = self.place, self.plan.recipe.optimiser.frozen
        if place.step == 0:
            share_buffers(self._module)
            self._begin_epoch()
        if frozen:
            still = [name for name, epochs in frozen.items() if place.epoch < epochs]
            freeze(self._module, self._groups, still)
            if place.step == 0 and place.epoch in frozen.values():
                for optimiser in self._stepper.optimisers:
                    optimiser.inner.state.clear()

    def training_step(self, batch: tuple[Batch, ...], batch_idx: int) -> None:  # noqa: ARG002
        """One optimiser step, and what is to be done between two of them.

        Args:
            batch: the parts of this process's share of the global batch.
            batch_idx: Lightning's count; ours is `place`.
        """
        place, steps = self.place, self._epochs.count_steps()
        for optimiser in self._stepper.optimisers:
            if optimiser.scheduled:
                set_learning_rates(optimiser.inner, self.plan.recipe.schedule, place.epoch + place.step / steps)
        losses = self._stepper.step(batch, self._seed, self._check_losses)
        for name, value in losses.items():
            place.sums[name] = place.sums.get(name, 0.0) + value
        place.step += 1
        place.steps += 1
        self._tick(training=True)
        if self.trainer.is_global_zero:
            self._report_step(losses)
        if place.step == steps:  # the end of the epoch saves
            return
        if self.stop_wanted:
            self._check_weights()
            if not self.plan.folder.last.is_file():
                self._save_weights(self.plan.folder.last, f"interrupted in epoch 1, step {place.step}")
            self._save_state()
            raise Interrupted
        if self._save_is_due():
            self._save_state()

    def on_train_epoch_end(self) -> None:
        """Close the epoch: validate where due, save weights, logs and state, in this order.

        A process killed in between goes on from the state before and writes the same files again.
        """
        row = self._close_epoch()
        epoch, epochs = self.place.epoch, self.plan.recipe.schedule.epochs
        if self.trainer.is_global_zero:
            self._check_weights()
            if epoch % self.plan.recipe.selection.every == 0 or epoch == epochs:
                row |= self._validate()
            self.place.history.append(row)
            self._save_weights(self.plan.folder.last, f"last complete epoch, {epoch} of {epochs}")
            write_history(self.plan.folder.metrics, self.place.history)
        self._save_state()
        if self.trainer.is_global_zero:
            self.reporter.epoch(row)
        self.trainer.strategy.barrier("epoch")
        if self.stop_wanted and epoch < epochs:
            raise Interrupted

    def teardown(self, stage: str) -> None:  # noqa: ARG002
        """Close the logs, however the training ended."""
        if self._curves:
            self._curves.close()
            self._curves = None
            self.reporter.stop()

    # --- our own -----------------------------------------------------------------------------------------------

    @property
    def _module(self) -> nn.Module:
        return cast(nn.Module, self.network)

    @property
    def _rates(self) -> dict[str, float]:
        return {group["name"]: group["lr"] for each in self._stepper.optimisers for group in each.inner.param_groups}

    def _move(self, batch: Batch, device: torch.device) -> Batch:
        batch = batch.to(device)
        last = self.plan.recipe.training.channels_last
        layout = torch.channels_last if last else torch.contiguous_format
        return dataclasses.replace(batch, images=batch.images.contiguous(memory_format=layout))

    def _seed(self, phase: int, part: int) -> None:
        """Random numbers of a forward pass, from its place alone."""
        later = (phase,) if phase else ()
        place = self.place
        seed = derive_seed(self.plan.recipe.seed, "step", place.epoch, place.step, part, self.global_rank, *later)
        torch.manual_seed(seed)

    def _begin_epoch(self) -> None:
        if not isinstance(self.network, BeginsEpochs):
            return
        torch.manual_seed(derive_seed(self.plan.recipe.seed, "epoch", self.place.epoch, self.global_rank))
        batch = self.plan.recipe.evaluation.batch
        move = partial(self._move, device=self.device)
        self._module.eval()
        with torch.no_grad(), computing_in(self.plan.precision, self.device):
            self.network.begin_epoch(Beginning(self.place.epoch, self.place.means, self._epochs.loader, batch, move))
        self._module.train()
        self._ticked_at = time.monotonic()

    def _check_losses(self, losses: Mapping[str, float]) -> None:
        for name, value in losses.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"{self.plan.folder.root}: loss {name} became {value} in epoch {self.place.epoch + 1}, step "
                    f"{self.place.step + 1}; {self._kept()}; lower optimiser.lr, or look at the pictures of this step"
                )

    def _kept(self) -> str:
        if not self.plan.folder.last.is_file():
            return "no epoch was complete, so no weights are kept"
        return f"the last good weights are kept in {self.plan.folder.last}"

    def _report_step(self, losses: Mapping[str, float]) -> None:
        total = sum(losses.values())
        values = {"loss/total": total, **{f"loss/{name}": loss for name, loss in losses.items()}}
        if self._curves:
            values |= {f"lr/{name}": rate for name, rate in self._rates.items()}
            self._curves.add(values, self.place.steps - 1)
        self.reporter.step(epoch=self.place.epoch + 1, loss=total, images_per_second=self._speed())

    def _speed(self) -> float:
        return self.place.step * self.plan.recipe.sampler.global_batch / max(self.place.epoch_seconds, 1e-9)

    def _tick(self, *, training: bool) -> None:
        now = time.monotonic()
        seconds, self._ticked_at = now - self._ticked_at, now
        self.place.seconds += seconds
        if training:
            self.place.epoch_seconds += seconds

    def _close_epoch(self) -> dict[str, float]:
        """The epoch's row; the place moves on to the next epoch."""
        place = self.place
        losses = {name: total / max(place.step, 1) for name, total in place.sums.items()}
        if self.trainer.world_size > 1:
            sums = add_up(torch.tensor(list(losses.values()), dtype=torch.float64, device=self.device))
            losses = dict(zip(losses, (sums / self.trainer.world_size).tolist(), strict=True))
        place.means = losses
        row = {"epoch": float(place.epoch + 1), "loss": sum(losses.values())}
        row |= {f"loss_{name}": value for name, value in losses.items()}
        row |= {f"lr_{name}": rate for name, rate in self._rates.items()}
        row |= {"seconds": place.epoch_seconds, "images_per_second": self._speed()}
        place.epoch, place.step, place.sums, place.epoch_seconds = place.epoch + 1, 0, {}, 0.0
        return row

    def _check_weights(self) -> None:
        names = [name for name, value in self._module.state_dict().items() if not bool(value.isfinite().all())]
        if names:
            raise TrainingError(
                f"{self.plan.folder.root}: weights {names[0]} ({len(names)} tensors) are not finite after epoch "
                f"{self.place.epoch}; {self._kept()}; lower optimiser.lr or set training.gradient_clip"
            )

    @cached_property
    def _validation_loaders(self) -> list[EvalLoader]:
        validation, recipe = self.plan.validation, self.plan.recipe
        sides = (validation.query, validation.gallery) if validation else ()
        options, size = picture_options(recipe.data), recipe.evaluation.batch
        pinned = self.device.type == "cuda"
        return [EvalLoader(records, options, batch_size=size, pinned=pinned) for records in sides]

    def _validate(self) -> dict[str, float]:
        """Search for the held-out people and keep the epoch with the best mAP; or, on the test set, the best rank-1."""
        validation, recipe, place = self.plan.validation, self.plan.recipe, self.place
        if validation is None:
            return {}
        mirror = recipe.evaluation.mirror and not validation.at_test
        query, gallery = (
            extract(self._module, loader, precision=self.plan.precision, mirror=mirror, device=self.device)
            for loader in self._validation_loaders
        )
        query, gallery, _ = meet(query, gallery, filling_of(self._module))
        metrics = evaluate(query, gallery, validation.protocol).metrics
        if validation.at_test:
            name, score = "test", metrics.rank(1)
            rules = f"{validation.protocol.name}, trial 0, without mirror"
            reason = f"BEST ON THE TEST SET, as the release does: rank-1 {score:.4f} by {rules}"
        else:
            name, score = "holdout", metrics.mean_ap
            people = len({record.pid for record in validation.gallery})
            reason = f"best mAP {score:.4f} on {people} held-out training identities"
        if score > place.best_score:
            place.best_score, place.best_epoch = score, place.epoch
            self._save_weights(self.plan.folder.best, f"{reason}, epoch {place.epoch} of {recipe.schedule.epochs}")
        return {f"{name}_rank1": metrics.rank(1), f"{name}_mean_ap": metrics.mean_ap}

    def _save_weights(self, path: Path, chosen_by: str) -> None:
        recipe = self.plan.recipe
        header = Header(
            method=recipe.method.name,
            options=write_options(recipe.method.name, recipe.method.options),
            num_ids=self.network.num_ids,
            camids=self.plan.facts.camids,
            size=self.plan.facts.size,
            recipe=recipe.model_dump(mode="json"),
            chosen_by=chosen_by,
            epoch=self.place.epoch,
            pids=self.plan.pids,
            before=self.plan.earlier,
            origin=self.plan.origin,
        )
        save_checkpoint(path, self._module, header)

    def _save_is_due(self) -> bool:
        """By the clock of the first process, so that all save after the same step; of several, asked now and then."""
        due = (time.monotonic() - self._saved_at) / 60 >= self.plan.recipe.training.save_minutes
        if self.trainer.world_size == 1:
            return due
        if self.place.steps % STEPS_BETWEEN_ASKING:
            return False
        return bool(add_up(torch.tensor(float(due and self.trainer.is_global_zero), device=self.device)))

    def _save_state(self) -> None:
        """Every process is asked for its sums, so all come here together."""
        self._tick(training=False)
        sums = tuple(gather(self.place.sums))
        if self.trainer.is_global_zero:
            optimisers = tuple(each.inner.state_dict() for each in self._stepper.optimisers)
            scaler, memory = self._stepper.scaler.state_dict(), read_memory(self._module)
            state = State(self.place, self._module.state_dict(), optimisers, scaler, memory, sums)
            save_state(self.plan.folder.state, state)
        self._saved_at = self._ticked_at = time.monotonic()


def silence_lightning() -> None:
    """No banner, no hints about settings that are made on purpose here, no word on processes that are ended."""
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
