"""The training loop proper: a Lightning module that steps, notes losses, looks how good it is, saves and stops.

Lightning moves data, computes in the chosen precision, averages gradients over processes and steps the optimiser. It
is not asked to restore anything: the place in the training is ours (`tapetum.engine.state`), Lightning merely runs
the epochs that are left, of which the first may begin in the middle.
"""

import dataclasses
import logging
import math
import signal
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from tapetum.core.errors import TrainingError
from tapetum.core.method import Method, TrainingFacts
from tapetum.core.seeding import derive_seed
from tapetum.core.types import Batch, Record
from tapetum.data.loader import EvalLoader, TrainLoader, build_eval_loader, build_train_loader
from tapetum.engine.checkpoint import Header, save_checkpoint
from tapetum.engine.extract import extract
from tapetum.engine.holdout import Look
from tapetum.engine.logs import Curves, write_history
from tapetum.engine.optimisation import build_optimiser, set_learning_rates
from tapetum.engine.precision import Precision
from tapetum.engine.progress import Reporter
from tapetum.engine.recipe import Recipe
from tapetum.engine.run_folder import RunFolder
from tapetum.engine.sources import augment_options, picture_settings, sampler_options
from tapetum.engine.state import Place, State, save_state
from tapetum.evaluation.metrics import evaluate

TALKATIVE = ("lightning.pytorch", "lightning.fabric", "torch.multiprocessing.spawn")


class Interrupted(Exception):  # noqa: N818  # not an error
    """Ctrl-C or SIGTERM arrived; the state is saved. Not a KeyboardInterrupt, which Lightning turns into exit 1."""


@dataclass(frozen=True)
class Plan:
    """All that the loop needs to know, in every process.

    Attributes:
        recipe: resolved.
        folder: of the run.
        train: records to train on.
        look: pictures by which epochs are judged; None for selection.rule = last.
        pids: class index -> pid.
        facts: what the method learns of the data.
        precision: resolved.
        origin: facts about data and machine, for the checkpoints' headers.
    """

    recipe: Recipe
    folder: RunFolder
    train: tuple[Record, ...]
    look: Look | None
    pids: tuple[int, ...]
    facts: TrainingFacts
    precision: Precision
    origin: Mapping[str, Any]


class Epochs:
    """What Lightning iterates: one epoch of the loader each time, from the place where the training stands.

    Args:
        loader: of this process.
        place: the training's own, which moves on.
    """

    def __init__(self, loader: TrainLoader, place: Place) -> None:
        self.loader = loader
        self._place = place

    def count_parts(self) -> int:
        """Batches of this process in the current epoch, those behind it included."""
        if self.loader.sampler.epoch != self._place.epoch:
            self.loader.set_epoch(self._place.epoch)
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        self.loader.set_epoch(self._place.epoch)
        self.loader.sampler.start_batch = self._place.step
        return iter(self.loader)


class TrainingLoop(LightningModule):
    """One method in training.

    Args:
        network: the method.
        plan: what to do.
        reporter: hears of the progress, in process 0.
        state: to go on from; None begins.
    """

    def __init__(self, network: nn.Module, plan: Plan, reporter: Reporter, state: State | None) -> None:
        super().__init__()
        self.network = network
        self.plan = plan
        self.reporter = reporter
        self.place = state.place if state else Place()
        self.stop_wanted = False
        self._restored = state
        self._part = 0
        self._step_losses: dict[str, float] = {}
        self._epochs: Epochs | None = None
        self._curves: Curves | None = None
        self._look_loaders: tuple[EvalLoader, EvalLoader] | None = None
        self._saved_at = self._ticked_at = time.monotonic()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Arrive in a worker process, where Lightning is as talkative as ever."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        silence_lightning()

    # --- what Lightning asks for -------------------------------------------------------------------------------

    def train_dataloader(self) -> Epochs:
        """This process's batches."""
        recipe = self.plan.recipe
        loader = build_train_loader(
            self.plan.train,
            augment=augment_options(recipe),
            sampler=sampler_options(recipe),
            seed=recipe.seed,
            rank=self.global_rank,
            world=self.trainer.world_size,
            parts=recipe.training.accumulate,
            **picture_settings(recipe.data),
        )
        self._epochs = Epochs(loader, self.place)
        return self._epochs

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimiser, as it was where a training goes on."""
        groups = self._method.parameter_groups()
        recipe = self.plan.recipe
        fused = recipe.training.gradient_clip is None
        optimiser = build_optimiser(self.network, groups, recipe.optimiser, fused=fused)
        if self._restored:
            optimiser.load_state_dict(self._restored.optimiser)
        return optimiser

    def transfer_batch_to_device(
        self,
        batch: Batch,
        device: torch.device,
        dataloader_idx: int,  # noqa: ARG002
    ) -> Batch:
        """A batch where the network is, in the memory layout the recipe asks for.

        Args:
            batch: from the loader.
            device: of this process.
            dataloader_idx: always 0.
        """
        batch = batch.to(device)
        if self.plan.recipe.training.channels_last:
            images = batch.images.contiguous(memory_format=torch.channels_last)
        else:
            images = batch.images.contiguous()
        return dataclasses.replace(batch, images=images)

    def on_train_start(self) -> None:
        """Open the logs, or go on with them."""
        if self._restored:
            self.trainer.precision_plugin.load_state_dict(self._restored.scaler)
            self._restored = None
        if self.trainer.world_size > 1:  # the parent process decides; workers are ended by it
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        if self.trainer.is_global_zero:
            self._curves = Curves(self.plan.folder.tensorboard, self.place.steps)
            recipe = self.plan.recipe
            epochs, steps = recipe.schedule.epochs, self._steps_in_epoch
            self.reporter.start(title=recipe.name, epochs=epochs, steps=steps, done=self.place.steps)
        self._saved_at = self._ticked_at = time.monotonic()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Random numbers and learning rates of this step, from its place alone.

        Args:
            batch: about to be used.
            batch_idx: Lightning's count; ours is `place`.
        """
        place, recipe = self.place, self.plan.recipe
        seed = derive_seed(recipe.seed, "step", place.epoch, place.step, self._part, self.global_rank)
        torch.manual_seed(seed)
        position = place.epoch + place.step / self._steps_in_epoch
        set_learning_rates(self._optimiser, recipe.schedule, position)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:  # noqa: ARG002
        """Sum of the method's losses; they are computed in float32 whatever the network's precision.

        Args:
            batch: this process's part of the global batch.
            batch_idx: Lightning's count.
        """
        output = self.network(batch.images, batch.modalities, batch.camids)
        with torch.autocast(self.device.type, enabled=False):
            losses = self._method.losses(in_float32(output), batch)
            total = torch.stack([loss.float() for loss in losses.values()]).sum()
        self._note(
            dict(zip(losses, torch.stack([loss.detach().float() for loss in losses.values()]).tolist(), strict=True))
        )
        return total

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:  # noqa: ARG002
        """Move on by one optimiser step once all its parts are done.

        Args:
            outputs: of the step.
            batch: of the step.
            batch_idx: Lightning's count.
        """
        self._part += 1
        if self._part < self.plan.recipe.training.accumulate:
            return
        self._part = 0
        losses, self._step_losses = self._step_losses, {}
        for name, value in losses.items():
            self.place.sums[name] = self.place.sums.get(name, 0.0) + value
        self.place.step += 1
        self.place.steps += 1
        self._tick(training=True)
        if self.trainer.is_global_zero:
            self._report_step(losses, self.place.steps - 1)
        minutes = (time.monotonic() - self._saved_at) / 60
        if self.stop_wanted:
            self._stop()
        elif minutes >= self.plan.recipe.training.save_minutes and self.place.step < self._steps_in_epoch:
            self._save_state()

    def on_train_epoch_end(self) -> None:
        """Close the epoch: look how good it is where due, save weights, logs and state, in this order.

        A process killed in between goes on from the state before and writes the same files again.
        """
        row = self._close_epoch()
        if self.trainer.is_global_zero:
            self._check_weights()
            self._look(row)
            self.place.history.append(row)
            recipe = self.plan.recipe
            self._save_weights(
                self.plan.folder.last, f"last complete epoch, {self.place.epoch} of {recipe.schedule.epochs}"
            )
            write_history(self.plan.folder.metrics, self.place.history)
        self._save_state()
        if self.trainer.is_global_zero:
            self.reporter.epoch(row)
        self.trainer.strategy.barrier("epoch")
        if self.stop_wanted and self.place.epoch < self.plan.recipe.schedule.epochs:
            raise Interrupted

    def teardown(self, stage: str) -> None:  # noqa: ARG002
        """Close the logs, however the training ended.

        Args:
            stage: always "fit".
        """
        if self._curves:
            self._curves.close()
            self._curves = None
            self.reporter.stop()

    # --- our own -----------------------------------------------------------------------------------------------

    @property
    def _method(self) -> Method:
        return cast(Method, self.network)

    @property
    def _optimiser(self) -> torch.optim.Optimizer:
        return self.trainer.optimizers[0]

    @property
    def _steps_in_epoch(self) -> int:
        """Optimiser steps of the current epoch; P x K epochs differ in length."""
        return self._epochs.count_parts() // self.plan.recipe.training.accumulate if self._epochs else 1

    def _note(self, losses: Mapping[str, float]) -> None:
        bad = [name for name, value in losses.items() if not math.isfinite(value)]
        if bad:
            raise TrainingError(
                f"{self.plan.folder.root}: loss {bad[0]} became {losses[bad[0]]} in epoch {self.place.epoch + 1}, "
                f"step {self.place.step + 1}; {self._kept()}; lower optimiser.lr, or look at the pictures of this step"
            )
        parts = self.plan.recipe.training.accumulate
        for name, value in losses.items():
            self._step_losses[name] = self._step_losses.get(name, 0.0) + value / parts

    def _kept(self) -> str:
        if not self.plan.folder.last.is_file():
            return "no epoch was complete, so no weights are kept"
        return f"the last good weights are kept in {self.plan.folder.last}"

    def _report_step(self, losses: Mapping[str, float], step: int) -> None:
        total = sum(losses.values())
        rates = {f"lr/{group['name']}": group["lr"] for group in self._optimiser.param_groups}
        if self._curves:
            self._curves.add({"loss/total": total, **{f"loss/{name}": x for name, x in losses.items()}, **rates}, step)
        self.reporter.step(epoch=self.place.epoch + 1, loss=total, images_per_second=self._speed())

    def _speed(self) -> float:
        return self.place.step * self.plan.recipe.sampler.global_batch / max(self.place.epoch_seconds, 1e-9)

    def _tick(self, *, training: bool) -> None:
        now = time.monotonic()
        passed, self._ticked_at = now - self._ticked_at, now
        self.place.seconds += passed
        if training:
            self.place.epoch_seconds += passed

    def _close_epoch(self) -> dict[str, float]:
        """The epoch's row; the place moves on to the next epoch."""
        place = self.place
        losses = {name: total / max(place.step, 1) for name, total in place.sums.items()}
        row = {"epoch": float(place.epoch + 1), "loss": sum(losses.values())}
        row |= {f"loss_{name}": value for name, value in losses.items()}
        row |= {f"lr_{group['name']}": group["lr"] for group in self._optimiser.param_groups}
        row |= {"seconds": place.epoch_seconds, "images_per_second": self._speed()}
        place.epoch, place.step, place.sums, place.epoch_seconds = place.epoch + 1, 0, {}, 0.0
        return row

    def _check_weights(self) -> None:
        broken = [name for name, value in self.network.state_dict().items() if not bool(value.isfinite().all())]
        if broken:
            raise TrainingError(
                f"{self.plan.folder.root}: weights {broken[0]} ({len(broken)} tensors) are not finite after epoch "
                f"{self.place.epoch}; {self._kept()}; lower optimiser.lr or set training.gradient_clip"
            )

    def _look(self, row: dict[str, float]) -> None:
        """Search for the held-out people and keep the epoch with the best mAP; or, on the test set, the best rank-1."""
        look, recipe, place = self.plan.look, self.plan.recipe, self.place
        if look is None or (place.epoch % recipe.selection.every and place.epoch < recipe.schedule.epochs):
            return
        if self._look_loaders is None:
            settings = picture_settings(recipe.data) | {"batch_size": recipe.evaluation.batch}
            self._look_loaders = (
                build_eval_loader(look.query, **settings),
                build_eval_loader(look.gallery, **settings),
            )
        mirror = recipe.evaluation.mirror and not look.at_test
        query, gallery = (
            extract(self.network, loader, precision=self.plan.precision, mirror=mirror, device=self.device)
            for loader in self._look_loaders
        )
        metrics = evaluate(query, gallery, look.protocol).metrics
        name = "test" if look.at_test else "holdout"
        row |= {f"{name}_rank1": metrics.rank(1), f"{name}_mean_ap": metrics.mean_ap}
        score = metrics.rank(1) if look.at_test else metrics.mean_ap
        if score > place.best_score:
            place.best_score, place.best_epoch = score, place.epoch
            people = len({record.pid for record in look.gallery})
            reason = f"best mAP {score:.4f} on {people} held-out training identities"
            if look.at_test:
                rules = f"{look.protocol.name}, trial 0, without mirror"
                reason = f"BEST ON THE TEST SET, as the release does: rank-1 {score:.4f} by {rules}"
            self._save_weights(self.plan.folder.best, f"{reason}, epoch {place.epoch} of {recipe.schedule.epochs}")

    def _save_weights(self, path: Any, chosen_by: str) -> None:
        recipe = self.plan.recipe
        header = Header(
            method=recipe.method.name,
            options=recipe.method.options,
            num_ids=self._method.num_ids,
            camids=self.plan.facts.camids,
            size=self.plan.facts.size,
            recipe=recipe.model_dump(mode="json"),
            chosen_by=chosen_by,
            epoch=self.place.epoch,
            pids=self.plan.pids,
            origin=self.plan.origin,
        )
        save_checkpoint(path, self.network, header)

    def _save_state(self) -> None:
        self._tick(training=False)
        if self.trainer.is_global_zero:
            scaler = self.trainer.precision_plugin.state_dict()
            state = State(self.place, self.network.state_dict(), self._optimiser.state_dict(), scaler)
            save_state(self.plan.folder.state, state)
        self._saved_at = self._ticked_at = time.monotonic()

    def _stop(self) -> None:
        """Save between two steps and leave; at the end of an epoch its own saving does it."""
        if self.place.step == self._steps_in_epoch:
            return
        self._check_weights()
        if not self.plan.folder.last.is_file():
            self._save_weights(self.plan.folder.last, f"interrupted in epoch 1, step {self.place.step}")
        self._save_state()
        raise Interrupted


def silence_lightning() -> None:
    """No banner, no hints about settings that are made on purpose here, no word on processes that are ended."""
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")


def in_float32(output: Any) -> Any:
    """A method's output with every floating-point tensor in float32, so that losses do not round in bf16.

    Args:
        output: a tensor, or dataclasses, tuples, lists and mappings of them.
    """
    if isinstance(output, Tensor):
        return output.float() if output.is_floating_point() else output
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        fields = [field.name for field in dataclasses.fields(output) if field.init]
        return dataclasses.replace(output, **{name: in_float32(getattr(output, name)) for name in fields})
    if isinstance(output, tuple | list):
        return type(output)(map(in_float32, output))
    if isinstance(output, dict):
        return {name: in_float32(value) for name, value in output.items()}
    return output
