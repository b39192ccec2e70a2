"""Changes to training pictures, a whole batch at a time: an ordered list of operations, each a file of its own.

What happens to a picture depends on (seed, epoch, number of the global batch, position in it) alone: an operation draws
its random numbers for the whole global batch from a stream of its own, and a process applies those of its positions.

A file of `tapetum.data.augmentations` has

- ``WORKS_ON``: "bytes" (uint8), "floats" (float32, 0..1 before normalisation) or "either". A batch begins as bytes and
  becomes floats at the first operation that asks for them;
- ``Options``: a frozen dataclass, its fields written with `tapetum.core.options.option`;
- ``change(pictures, options, draws)``: the changed pictures, in the memory of `pictures` or in new memory. It is given
  those pictures alone that the recipe's modality, view and probability choose;
- where wanted ``PROBABILITY``, which holds where a recipe names none (left out, every picture is changed);
- ``STREAM`` and ``draw_chance(generator, batch)`` where figures of before depend on them: the name of the stream, and
  the numbers that are compared with the probability, from that stream and not from one of their own.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tapetum.core import discovery
from tapetum.core.errors import RecipeError, nearest_name
from tapetum.core.options import option, plain_options, read_options
from tapetum.core.seeding import numpy_generator
from tapetum.core.types import Modality
from tapetum.data.pictures import to_float
from tapetum.data.sampler import Rows

PACKAGE = "tapetum.data.augmentations"
Bytes = NDArray[np.uint8]  # (B, H, W, 3) RGB
Images = NDArray[np.float32]  # (B, H, W, 3) RGB in 0..1
Pictures = Bytes | Images
_WORKS_ON = ("bytes", "floats", "either")
_MODALITIES = {modality.name.lower(): modality for modality in Modality}


@dataclass(frozen=True)
class OperationScope:
    """Which pictures an operation changes: what every entry of `augment:` may name beside its file's own options."""

    modality: str | None = option(None, "visible or infrared pictures alone; null: both")
    view: int | None = option(None, "pictures of this view alone (see a sampler's `views`), from 0; null: all", least=0)
    probability: float | None = option(
        None, "that a picture is changed; null takes the file's own, or changes every picture", least=0, most=1
    )


@dataclass(frozen=True)
class Operation:
    """One entry of a recipe's `augment:`.

    Attributes:
        where: which pictures it changes; the probability is the file's own where the recipe names none.
    """

    name: str  # of the file, or a dotted module name
    options: Any
    where: OperationScope = OperationScope()

    @property
    def module(self) -> ModuleType:
        """Its file."""
        return _load(self.name)


@cache
def _load(name: str) -> ModuleType:
    """The file of an operation, looked for once and not for each batch."""
    return discovery.load(PACKAGE, name)


@dataclass(frozen=True)
class Draws:
    """Random numbers of one operation in one global batch."""

    generator: np.random.Generator
    chosen: NDArray[np.bool_]  # (B,) which pictures of the global batch are changed, in all processes together
    positions: Rows  # (b,) places in the global batch of the pictures that are handed over here; all of them are chosen

    def random(self, *shape: int) -> NDArray[np.float64]:
        """(b, *shape) in [0, 1) for the pictures handed over; drawn for the whole global batch."""
        return self.generator.random((len(self.chosen), *shape))[self.positions]

    def generators(self) -> list[np.random.Generator]:
        """b generators, one for each picture handed over, for what cannot be drawn a batch at a time."""
        seeds = self.generator.integers(2**63, size=len(self.chosen))[self.positions]
        return [np.random.Generator(np.random.PCG64(seed)) for seed in seeds.tolist()]


@dataclass(frozen=True)
class BatchPosition:
    """Where the random numbers of a global batch come from, and what it holds."""

    seed: int
    epoch: int
    number: int
    modalities: Rows  # (B,) values of `Modality`, of the whole global batch
    views: Rows  # (B,) which view of its picture each is
    stream: str = "augment"  # name of the stream, "augment" in training

    def generator(self, *names: str | int) -> np.random.Generator:
        """Of one operation, or of the choice of its pictures."""
        return numpy_generator(self.seed, self.stream, self.epoch, self.number, *names)


def read_operations(entries: Sequence[Mapping[str, Any]], *, place: str = "augment") -> tuple[Operation, ...]:
    """Operations from what a recipe says under `augment:`; one whose probability is 0 is left out.

    Args:
        entries: each with a name, the operation's own options, and modality, view and probability where wanted.
    Raises:
        RecipeError: an operation, option or modality is unknown or wrong, a file breaks the contract, or an operation
            on bytes stands behind one on floats.
    """
    operations: list[Operation] = []
    floats_since = ""
    for number, entry in enumerate(entries):
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
            raise RecipeError(f"{place}.{number} is {entry!r}; write an operation as {{name: flip, probability: 0.5}}")
        operation = _read_operation(entry, f"{place}.{number}")
        works_on = operation.module.WORKS_ON
        if works_on == "bytes" and floats_since:
            raise RecipeError(
                f"{place}.{number}: {operation.name} works on bytes, but stands behind {floats_since}, which makes "
                f"them floats; move it before {floats_since}"
            )
        if works_on == "floats":
            floats_since = floats_since or operation.name
        if operation.where.probability != 0:
            operations.append(operation)
    return tuple(operations)


def _read_operation(entry: Mapping[str, Any], place: str) -> Operation:
    name = entry["name"]
    module = _load(name)
    check_file(module, name)
    place = f"{place} ({name})"
    common = {key: entry[key] for key in ("modality", "view", "probability") if key in entry}
    where = read_options(OperationScope, common, place=place)
    if where.modality is not None and where.modality not in _MODALITIES:
        raise RecipeError(
            f"{place}: modality {where.modality!r} is unknown; {nearest_name(where.modality, _MODALITIES)}"
        )
    own = {key: value for key, value in entry.items() if key != "name" and key not in common}
    known = [field.name for kind in (OperationScope, module.Options) for field in dataclasses.fields(kind)]
    for key in own:
        if key not in known:
            raise RecipeError(f"{place}.{key} is unknown; {nearest_name(str(key), known)}")
    if where.probability is None:
        where = dataclasses.replace(where, probability=getattr(module, "PROBABILITY", None))
    return Operation(name, read_options(module.Options, own, place=place), where)


def check_file(module: ModuleType, name: str) -> None:
    """Complain about an augmentation's file that breaks the contract.

    Raises:
        RecipeError: a part is missing or wrong.
    """
    for part, description in (("Options", "a frozen dataclass"), ("change", "a function (pictures, options, draws)")):
        if not callable(getattr(module, part, None)):
            raise RecipeError(
                f"augmentation {name!r}: its file has no {part}; add {description}, see docs/augmentations.md"
            )
    if getattr(module, "WORKS_ON", None) not in _WORKS_ON:
        raise RecipeError(
            f"augmentation {name!r}: its WORKS_ON is none of {', '.join(_WORKS_ON)}; set it to one of them"
        )


def write_operations(operations: Sequence[Operation]) -> list[dict[str, Any]]:
    """Plain values that `read_operations` makes the same operations of, every default written out."""
    return [
        {"name": each.name}
        | {name: value for name, value in vars(each.where).items() if value is not None}
        | plain_options(each.options)
        for each in operations
    ]


def check_views(operations: Sequence[Operation], views: tuple[int, int], *, place: str = "augment") -> None:
    """Refuse an operation on a view that is never drawn.

    Args:
        views: of a visible and of an infrared picture, as the sampler gives them.
    Raises:
        RecipeError: an operation names a view that there is not.
    """
    for number, operation in enumerate(operations):
        where = operation.where
        most = max(views) if where.modality is None else views[_MODALITIES[where.modality]]
        if where.view is not None and where.view >= most:
            raise RecipeError(
                f"{place}.{number} ({operation.name}): view {where.view} of {where.modality or 'all'} pictures is "
                f"never drawn, sampler.views is {list(views)} and views count from 0; raise sampler.views or lower view"
            )


def augment_batch(pictures: Bytes, operations: Sequence[Operation], place: BatchPosition, positions: Rows) -> Tensor:
    """Change one process's pictures of a global batch.

    Args:
        pictures: (b, H, W, 3) uint8 RGB; its memory may be overwritten.
        positions: (b,) places of `pictures` in the global batch.
    Returns:
        (b, 3, H, W) float32 in channels-last memory, in 0..1 unless an operation says otherwise.
    """
    changed: Pictures = pictures
    seen: dict[str, int] = {}
    for operation in operations:
        repeated = seen.get(operation.name, 0)
        seen[operation.name] = repeated + 1
        if operation.module.WORKS_ON == "floats" and changed.dtype == np.uint8:
            changed = to_float(cast(Bytes, changed))
        changed = _apply(operation, changed, place, positions, (repeated,) if repeated else ())
    images = to_float(cast(Bytes, changed)) if changed.dtype == np.uint8 else cast(Images, changed)
    return to_tensor(images)


def _apply(
    operation: Operation, pictures: Pictures, place: BatchPosition, positions: Rows, repeated: tuple[int, ...]
) -> Pictures:
    """One operation, on the pictures that it is for; a second one of the same name draws from another stream."""
    module, where = operation.module, operation.where
    stream = getattr(module, "STREAM", operation.name)
    generator = place.generator(stream, *repeated)
    chosen = np.ones(len(place.modalities), np.bool_)
    if where.probability is not None:
        if hasattr(module, "draw_chance"):
            chance = module.draw_chance(generator, len(chosen))
        else:
            chance = place.generator(operation.name, "chance", *repeated).random(len(chosen))
        chosen &= chance < where.probability
    if where.modality is not None:
        chosen &= place.modalities == _MODALITIES[where.modality]
    if where.view is not None:
        chosen &= place.views == where.view
    here = chosen[positions]
    if here.all():
        return cast(
            Pictures,
            np.ascontiguousarray(module.change(pictures, operation.options, Draws(generator, chosen, positions))),
        )
    if here.any():
        pictures[here] = module.change(pictures[here], operation.options, Draws(generator, chosen, positions[here]))
    return pictures


def to_tensor(images: Images) -> Tensor:
    """The same memory as (B, 3, H, W), that is in channels-last layout."""
    return torch.from_numpy(images).permute(0, 3, 1, 2)
