"""The seam between a network that describes a picture and whatever is built on top of it.

A method whose file has a class ``Branch`` can serve as IDF's extractor: IDF builds two branches, joins their features
and asks the branch for the heads that suit it.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn


@dataclass(frozen=True)
class HeadOutput:
    """What a head makes of a feature.

    Attributes:
        feature: (B, width) float32, as it came in.
        embedding: (B, D) float32, for search; not of unit length.
        logits: (B, num_ids) float32 class scores.
    """

    feature: Tensor
    embedding: Tensor
    logits: Tensor


class Branch(Protocol):
    """An extractor: normalised pictures in, a feature out (an ``nn.Module`` built as ``Branch(options, facts)``).

    Attributes:
        width: of the feature that a fusion reads.
    """

    width: int

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Tensor:
        """(B, width) float32 features; an extractor with parts gives (B, 1 + parts, width), the whole first.

        Args:
            images: (B, 3, H, W), normalised.
            modalities: (B,) int64.
            camids: (B,) int64.
        """
        ...

    def build_head(self, num_ids: int) -> nn.Module:
        """A module from what this branch gives to a `HeadOutput`.

        Args:
            num_ids: number of classes.
        """
        ...

    def build_fused_head(self, width: int, num_ids: int) -> nn.Module:
        """A head of the same kind for a feature that was made from several branches.

        Args:
            width: of that feature.
            num_ids: number of classes.
        """
        ...

    def losses(self, output: HeadOutput, labels: Tensor) -> dict[str, Tensor]:
        """Named, weighted scalar losses that train a head of this kind.

        Args:
            output: what the head gave.
            labels: (B,) int64 class index.
        """
        ...

    def load_pretrained(self, source: str) -> None:
        """Fill the backbone.

        Args:
            source: "imagenet", "package", "none" or a weights file.
        """
        ...
