"""The seam between a network that describes a picture and whatever is built on top of it.

A method whose file has a class ``Branch`` can serve as IDF's extractor: IDF builds two branches, joins their features
and asks the branch for the heads that suit it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from tapetum.core.types import Batch


@dataclass(frozen=True)
class Features:
    """What an extractor with parts makes of a picture; a simple one gives the whole alone, as a tensor.

    Attributes:
        whole: (B, width), what a fusion reads.
        parts: (B, P, width of a part); None where it has none.
        maps: name -> (B, C, h, w), where heads or losses look at maps.
    """

    whole: Tensor
    parts: Tensor | None = None
    maps: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class HeadOutput:
    """What a head makes of a feature.

    Attributes:
        feature: (B, width) float32, as it came in; of several parts, the whole.
        embedding: (B, D) float32, for search; not of unit length.
        logits: (B, num_ids) float32 class scores, or (G, B, num_ids) of G classifiers, the one of the whole first where
            there is one.
        parts: (B, P, width of a part) features of the parts; None where there are none.
        maps: as in `Features`.
    """

    feature: Tensor
    embedding: Tensor
    logits: Tensor
    parts: Tensor | None = None
    maps: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def first_logits(self) -> Tensor:
        """(B, num_ids) class scores of the whole picture: those of the first classifier."""
        return self.logits if self.logits.ndim == 2 else self.logits[0]

    @property
    def whole_and_parts(self) -> Tensor:
        """(B, D), what came in joined as `join_parts` says; the feature alone where there are no parts."""
        return join_parts([self.feature, *([] if self.parts is None else self.parts.unbind(1))])


def join_parts(features: Sequence[Tensor]) -> Tensor:
    """(B, sum of widths): the whole's, which comes first, and those of the parts, which are divided by their number.

    Source: TransReID, the vector for search.
    """
    whole, *parts = features
    return torch.cat([whole, *(part / len(parts) for part in parts)], 1)


def whole_of(feature: Tensor | Features) -> Tensor:
    """(B, width), what a fusion reads of an extractor's output, see `Branch.forward`."""
    if isinstance(feature, Features):
        return feature.whole
    return feature if feature.ndim == 2 else feature[:, 0]


class Branch(Protocol):
    """An extractor: normalised pictures in, a feature out (an ``nn.Module`` built as ``Branch(options, facts)``).

    Attributes:
        width: of the feature that a fusion reads.
    """

    width: int

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Tensor | Features:
        """(B, width) float32 features; an extractor with parts gives (B, 1 + parts, width), or `Features`."""
        ...

    def build_head(self, num_ids: int) -> nn.Module:
        """A module from what this branch gives to a `HeadOutput`."""
        ...

    def build_fused_head(self, width: int, num_ids: int) -> nn.Module:
        """A head of the same kind for a feature of that width, made from several branches."""
        ...

    def losses(self, output: HeadOutput, batch: Batch, head: nn.Module) -> dict[str, Tensor]:
        """Named, weighted scalar losses that train a head of this kind.

        Args:
            head: that gave the output, where a loss has weights of its own there.
        """
        ...

    def load_pretrained(self, source: str) -> None:
        """Fill the backbone from "imagenet", "package" or a weights file, or leave it ("none")."""
        ...


@runtime_checkable
class RegularisesWeights(Protocol):
    """A branch with losses of its own weights, which no output tells; of two branches each has its own."""

    def weight_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Named, weighted scalar losses; of the batch its epoch and step count."""
        ...
