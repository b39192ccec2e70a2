"""What a method is to everybody outside `tapetum.methods`.

A method never hears a dataset's name, never writes a file and never depends on the order of the batch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from tapetum.core.types import Batch


@dataclass(frozen=True)
class TrainingFacts:
    """What a method learns of its training data when it is built; a checkpoint keeps it.

    Attributes:
        num_ids: training identities.
        camids: cameras of the training pictures as the dataset writes them, in order; empty where they are unknown.
        size: (height, width) of the pictures.
        num_pictures: training pictures, of which a method may remember something each; 0 outside a training.
        num_views: most views of a picture that the training's sampler gives; 1 outside a training.
    """

    num_ids: int
    camids: tuple[int, ...] = ()
    size: tuple[int, int] = (256, 128)
    num_pictures: int = 0
    num_views: int = 1


@runtime_checkable
class Method(Protocol):
    """The class ``Method`` of every file in `tapetum.methods` (an ``nn.Module`` with these additions).

    Built as ``Method(options, facts)`` with random weights and no file or network access;
    `load_pretrained` then fills the backbones where a recipe asks for it.
    """

    num_ids: int
    # A method may also say `filling`: how many numbers at the end of `embed`'s vectors only fill them up to unit
    # length, so that pairs across modalities have the release's similarity. Pairs of one modality go without them.

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Any:
        """Network output of the method's own frozen dataclass, the same type in training and evaluation.

        Args:
            images: (B, 3, H, W) float32 in 0..1, not normalised.
            modalities: (B,) int64.
            camids: (B,) int64; outside a training also of cameras that were not trained, and `UNKNOWN_CAMERA`. A method
                that looks at cameras has an answer for these.
        """
        ...

    def losses(self, output: Any, batch: Batch) -> dict[str, Tensor]:
        """Named scalar losses, already weighted: the engine sums and logs them. They may depend on the batch's epoch.

        The training calls it outside autocast, with every tensor that `forward` gave in float32: no loss has to.
        """
        ...

    def embed(self, images: Tensor, modalities: Tensor, camids: Tensor, *, mirror: bool = False) -> Tensor:
        """The vectors used for search, (B, D) float32 with unit L2 norm; arguments as for `forward`.

        Args:
            mirror: join each picture with its horizontal mirror, in the way of the method's source.
        """
        ...

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Every trainable parameter exactly once, under the names that a recipe's learning rates use."""
        ...

    def load_pretrained(self, source: str) -> None:
        """Fill the backbones before training.

        Args:
            source: "imagenet" (through timm, exactly the weights the method's source names), "package" (an installed
                package of weights), a weights file, or "none": backbones stay random, and only what the method's own
                options name is filled.
        Raises:
            CheckpointError: the weights cannot be fetched or do not fit; the message says how to supply a file.
        """
        ...


@runtime_checkable
class ReadsBatches(Protocol):
    """A method that learns by more than `forward` is told of pictures, such as whom they show: by whole batches."""

    def forward_batch(self, batch: Batch) -> Any:
        """What `forward` gives, of a training's batch; the training calls it in the place of `forward`."""
        ...


@dataclass(frozen=True)
class Turn:
    """Some of a method's parameters and the losses that train them, apart from the others within a step.

    Attributes:
        name: e.g. "discriminator".
        groups: of `parameter_groups`; what the losses send to other groups is dropped.
        losses: named, weighted scalar losses from the output of `forward` and its batch.
        fresh: `forward` runs anew for this turn, after the turns before it have stepped. Otherwise the turns share one
            forward pass, each sends its gradients, and then all step.
    """

    name: str
    groups: tuple[str, ...]
    losses: Callable[[Any, Batch], dict[str, Tensor]]
    fresh: bool = False


@runtime_checkable
class TakesTurns(Protocol):
    """A method of several optimisers in turn, such as a generator and a discriminator; `losses` gives those of all."""

    def turns(self) -> Sequence[Turn]:
        """The turns of a step, in order; each parameter group belongs to one."""
        ...


class EpochStart(Protocol):
    """What a method can ask for at the beginning of an epoch.

    Attributes:
        epoch: complete epochs behind.
        losses: name -> its mean over the epoch before, over all processes; empty before the first.
    """

    epoch: int
    losses: Mapping[str, float]

    def pictures(self, *, augmented: bool = False) -> Iterator[Batch]:
        """This process's share of the training pictures, each once, on the device; `rows` says which they are.

        Args:
            augmented: as training sees them, with every view that the sampler gives.
        """
        ...

    def gather(self, rows: Tensor, values: Tensor, views: Tensor | None = None) -> Tensor:
        """What all processes found out about the pictures, by row; zero where nothing was said.

        Args:
            rows: (b,) int64 rows of this process's share.
            values: (b, ...).
            views: (b,) int64 which view each value is of, where a picture has one for each.
        Returns:
            (num_pictures, ...); with views (num_pictures, most views, ...).
        """
        ...


@runtime_checkable
class BeginsEpochs(Protocol):
    """A method that looks at its training pictures before each epoch.

    What it learns it keeps in buffers that are not persistent: those are saved with an unfinished training and resumed,
    and are no part of a checkpoint.
    """

    def begin_epoch(self, start: EpochStart) -> None:
        """Look, without gradients, in evaluation mode and the training's precision."""
        ...


@runtime_checkable
class Enhancer(Protocol):
    """A method that also brightens pictures (for reports)."""

    def enhance(self, images: Tensor) -> Tensor:
        """Enhanced pictures, (B, 3, H, W) float32 clipped to 0..1, as those given are."""
        ...


@runtime_checkable
class NamesEnhancement(Protocol):
    """An `Enhancer` that says by what it brightens, such as "DCE-Net"; None in an ablation that brightens nothing."""

    enhancement: str | None


@runtime_checkable
class KeepsLess(Protocol):
    """A method of which a search needs a part, such as a student that had a teacher."""

    def for_search(self) -> nn.Module:
        """That part, a method itself; it gives the vectors of the whole."""
        ...


def part_for_search(method: nn.Module) -> nn.Module:
    """What of a method is put to use and exported: all of it, unless it names a part."""
    return method.for_search() if isinstance(method, KeepsLess) else method
