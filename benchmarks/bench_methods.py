"""Every method as its scene recipe trains it: pictures a second and memory, against DEEN's or IDE+'s in the same run.

The networks are those of the recipes `*_synth`, which are found; of several that differ in their data alone, the
shortest name stands for all. Steps and extraction go through the code of `tapetum train` and `tapetum extract`, with
half the recipe's batch, in its last epoch, when every term of a loss has set in. The pictures are random, of the
recipe's size, and loaded before the clock runs. Pictures a second count each view, as `tapetum train` does; extraction
is without the mirror.

Each measurement is a process of its own, whose peak memory is that of its training steps, with what Python and PyTorch
take themselves. All methods of a family take turns, so that a slow minute of the machine strikes all of them; medians
are compared. `--only NAME` measures some methods beside the one they are compared with.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import cv2
import numpy as np
import torch
from torch import nn

from benchmarks.measure import build_row, once
from tapetum.core.errors import RecipeError, nearest_name
from tapetum.core.memory import forget_peak, keep_freed_memory, read_peak
from tapetum.core.method import BeginsEpochs, Method, TrainingFacts
from tapetum.core.types import Batch, Modality, Record
from tapetum.data.loader import TrainLoader
from tapetum.inference.devices import computing_in
from tapetum.inference.embeddings import embed_pictures
from tapetum.inference.precision import Precision, has_fast_bf16
from tapetum.layers.curve_net import CurveNet
from tapetum.methods import build_method, build_options, find_method
from tapetum.runs.recipe import Recipe, list_recipes, load_recipe
from tapetum.runs.sources import augment_options, picture_options, sampler_options
from tapetum.training.beginning import Beginning
from tapetum.training.optimisation import build_optimisers, set_learning_rates
from tapetum.training.stepping import Stepper, turns_of

LONG = True
TAKES_NAMES = True
SUFFIX = "_synth"
REFERENCES = {"infrared": "deen", "visible": "ide"}  # whose figures the others of a family are compared with
ROUNDS = 2  # processes of each method and precision
STEPS = 3  # measured ones of each process, after two that are not
OWN_BATCH, BATCH = 32, 16  # pictures of every scene recipe, and here; the views of one count once
PEOPLE, PICTURES = 16, 4
CAMIDS = (1, 9)  # the second sees by day in enlighten_gan's scene
CPU = torch.device("cpu")
CONTEXT = get_context("forkserver")
LATE_IMPORTS = ("timm", "torch._dynamo")  # by networks and optimisers: half of a process's time, so before all of them


@dataclass(frozen=True)
class Found:
    """What one process measured.

    Attributes:
        batch: pictures of a step, each view counted.
        steps, extractions: seconds of each, over the whole batch.
        peak: bytes of memory at most until the last step; None where the system does not say.
    """

    batch: int
    steps: tuple[float, ...]
    extractions: tuple[float, ...]
    peak: int | None


def list_subjects() -> dict[str, list[str]]:
    """Family -> names of the recipes that train different networks, without the suffix; the reference comes first."""
    families: dict[str, list[str]] = {family: [] for family in REFERENCES}
    seen = set()
    for name in sorted((name for name in list_recipes() if name.endswith(SUFFIX)), key=lambda name: (len(name), name)):
        recipe = load_recipe(name)
        network = describe_network(recipe)
        if network not in seen:
            seen.add(network)
            families[family_of(recipe)].append(name.removesuffix(SUFFIX))
    return {
        family: sorted(names, key=lambda name: (name != REFERENCES[family], name)) for family, names in families.items()
    }


def describe_network(recipe: Recipe) -> tuple[str, str]:
    """Equal for recipes of one network."""
    method = recipe.method
    return find_method(method.name)[0].__name__, repr(build_options(method.name, method.options))


def family_of(recipe: Recipe) -> str:
    return "infrared" if recipe.sampler.name == "cross_modality" else "visible"


def run(only: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Rows of one family after the other.

    Args:
        only: names of recipes without the suffix; all where there are none.
    Raises:
        RecipeError: there is no such recipe, or another one stands for it.
    """
    families = list_subjects()
    everything = [name for names in families.values() for name in names]
    for name in only:
        if name not in everything:
            raise RecipeError(f"--only {name}: no such method; {nearest_name(name, everything)}")
    precisions: tuple[Precision, ...] = ("fp32", "bf16") if has_fast_bf16("cpu") else ("fp32",)
    for family, names in families.items():
        wanted = [name for name in names if not only or name in only]
        if wanted:
            yield from measure_family(list(dict.fromkeys([REFERENCES[family], *wanted])), precisions)


def measure_family(names: Sequence[str], precisions: Sequence[Precision]) -> Iterator[dict[str, Any]]:
    """Measure in turns, then give the rows of each; the first name is the reference."""
    CONTEXT.set_forkserver_preload([__name__, *LATE_IMPORTS])
    found: dict[tuple[str, Precision], list[Found]] = {}
    for _ in range(ROUNDS):
        for name in names:
            for precision in precisions:
                with ProcessPoolExecutor(1, mp_context=CONTEXT) as alone:
                    found.setdefault((name, precision), []).append(alone.submit(measure, name, precision).result())
    reference, size = names[0], " x ".join(map(str, load_recipe(names[0] + SUFFIX).data.size))
    for (name, precision), rounds in found.items():
        against = "" if name == reference else f", against {reference}"
        place = f"{size}, batch {rounds[0].batch}, {precision}{against}"
        for what, unit, figure in FIGURES:
            ours = figure(rounds)
            peer = None if name == reference else figure(found[reference, precision])
            if ours is not None:
                yield build_row(f"{name} {what}, {place}", ours, peer, unit)


def rate_of(seconds: Callable[[Found], tuple[float, ...]]) -> Callable[[Sequence[Found]], float]:
    def rate(rounds: Sequence[Found]) -> float:
        return rounds[0].batch / statistics.median(each for found in rounds for each in seconds(found))

    return rate


def largest_peak(rounds: Sequence[Found]) -> float | None:
    peaks = [found.peak for found in rounds if found.peak is not None]
    return max(peaks) / 2**30 if peaks else None


FIGURES: tuple[tuple[str, str, Callable[[Sequence[Found]], float | None]], ...] = (
    ("training step", "pictures/s", rate_of(lambda found: found.steps)),
    ("extraction", "pictures/s", rate_of(lambda found: found.extractions)),
    ("peak memory", "GiB", largest_peak),
)


def measure(name: str, precision: Precision, overrides: Sequence[str] = ()) -> Found:
    """Train and extract in this process.

    Args:
        name: of a recipe, without the suffix.
        overrides: of the recipe.
    """
    forget_peak()
    keep_freed_memory()  # as `tapetum train` does
    with TemporaryDirectory() as folder:
        recipe = open_recipe(name, Path(folder), overrides)
        training = Training(recipe, precision, write_pictures(Path(folder), recipe))
        training.begin(0)
        warm, *batches = training.draw(epoch=recipe.schedule.epochs - 1)
        losses = training.step(warm)
        training.begin(recipe.schedule.epochs - 1, losses)
    training.step(warm)  # with what the look has turned on
    steps = tuple(once(lambda batch=batch: training.step(batch))[0] for batch in batches)
    peak = read_peak()
    training.network.eval()
    training.extract(warm)
    return Found(len(warm), steps, tuple(once(lambda: training.extract(warm))[0] for _ in range(STEPS)), peak)


def open_recipe(name: str, folder: Path, overrides: Sequence[str]) -> Recipe:
    """A recipe with this benchmark's batch, and a random enhancer in `folder` where it begins with a trained one."""
    own = load_recipe(name + SUFFIX).sampler.options
    batch = f"sampler.batch={BATCH}" if "batch" in own else f"sampler.ids={own['ids'] * BATCH // OWN_BATCH}"
    settings = [batch, f"sampler.steps={STEPS + 1}", *overrides]
    recipe = load_recipe(name + SUFFIX, settings)
    options = recipe.method.options
    if "enhancer_weights" not in options:
        return recipe
    weights = folder / "curves.pth"
    torch.save(CurveNet(options["curve_width"]).state_dict(), weights)
    return load_recipe(name + SUFFIX, [*settings, f"method.enhancer_weights={weights}"])


def write_pictures(folder: Path, recipe: Recipe) -> list[Record]:
    """Noise, of as many people and modalities as a batch of any recipe needs."""
    rng = np.random.default_rng(0)
    records = []
    for pid, index in np.ndindex(PEOPLE, PICTURES):
        path = folder / f"{pid}_{index}.png"
        cv2.imwrite(str(path), rng.integers(0, 256, (*recipe.data.size, 3), dtype=np.uint8))
        infrared = family_of(recipe) == "infrared" and index % 2
        modality = Modality.INFRARED if infrared else Modality.VISIBLE
        records.append(Record(path, pid, CAMIDS[index // 2 % len(CAMIDS)], modality))
    return records


class Training:
    """What `tapetum train` makes of a recipe, without Lightning, files and logs."""

    def __init__(self, recipe: Recipe, precision: Precision, records: Sequence[Record]) -> None:
        self.recipe, self.precision = recipe, precision
        self.loader = TrainLoader(
            records,
            picture_options(recipe.data),
            augment=augment_options(recipe),
            sampler=sampler_options(recipe),
            seed=recipe.seed,
        )
        facts = TrainingFacts(len(self.loader.pids), CAMIDS, recipe.data.size, len(self.loader.records))
        torch.manual_seed(recipe.seed)
        network = build_method(recipe.method.name, recipe.method.options, **vars(facts))
        cast(Method, network).load_pretrained("none")
        self.layout = torch.channels_last if recipe.training.channels_last else torch.contiguous_format
        self.network: nn.Module = network.to(memory_format=self.layout)
        turns, groups = turns_of(network), cast(Method, network).parameter_groups()
        last, clip = recipe.schedule.epochs - 1, recipe.training.gradient_clip
        optimisers = build_optimisers(network, groups, recipe.optimiser, turns, fused=clip is None)
        for optimiser in optimisers:
            if optimiser.scheduled:
                set_learning_rates(optimiser.inner, recipe.schedule, last)
        network.train()  # whole: groups that are frozen at first have thawed by then
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        self.stepper = Stepper(network, turns, optimisers, precision, clip, scaler)

    def move(self, batch: Batch) -> Batch:
        return replace(batch, images=batch.images.contiguous(memory_format=self.layout))

    def draw(self, epoch: int) -> list[Batch]:
        """The batches of an epoch."""
        self.loader.set_epoch(epoch)
        return [self.move(batch) for batch in islice(self.loader, STEPS + 1)]

    def begin(self, epoch: int, losses: Mapping[str, float] | None = None) -> None:
        """The look at all pictures that some methods take before an epoch."""
        if not isinstance(self.network, BeginsEpochs):
            return
        self.network.eval()
        with torch.no_grad(), computing_in(self.precision, CPU):
            beginning = Beginning(epoch, losses or {}, self.loader, self.recipe.evaluation.batch, self.move)
            self.network.begin_epoch(beginning)
        self.network.train()

    def step(self, batch: Batch) -> dict[str, float]:
        return self.stepper.step([batch], lambda *_: None, self.check)

    def check(self, losses: Mapping[str, float]) -> None:
        if not all(map(math.isfinite, losses.values())):
            raise FloatingPointError(f"{self.recipe.name}, {self.precision}: losses are {dict(losses)}")

    def extract(self, batch: Batch) -> None:
        with computing_in(self.precision, CPU):
            embed_pictures(self.network, batch.images, batch.modalities, batch.camids, mirror=False)
