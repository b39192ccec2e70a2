"""A method that is one branch and its head; the file of a method adds its options and its branch."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from tapetum.core.method import TrainingFacts
from tapetum.core.types import Batch
from tapetum.core.vectors import normalise
from tapetum.layers.branch import HeadOutput
from tapetum.layers.centres import centres_of
from tapetum.layers.normalisation import Normalisation, Normalise


class SingleBranchOptions(Protocol):
    """What the options of such a method have among others."""

    @property
    def input_scale(self) -> float:
        """What pictures in 0..1 are multiplied by."""

    @property
    def normalisation(self) -> Normalisation:
        """Which normalisation follows."""

    @property
    def test_feature(self) -> str:
        """What is searched with: "head", the head's embedding; "backbone", the branch's feature."""


class SingleBranch(nn.Module):
    """One branch and its head.

    Args:
        branch: a module that is a `tapetum.layers.branch.Branch`.
    """

    def __init__(self, options: SingleBranchOptions, branch: Any, facts: TrainingFacts) -> None:
        super().__init__()
        self.options = options
        self.facts, self.num_ids = facts, facts.num_ids
        self.normalise = Normalise(options.normalisation)
        self.branch = branch
        self.head = branch.build_head(facts.num_ids)

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor) -> HeadOutput:
        """Feature, embedding and class scores.

        Args:
            images: (B, 3, H, W) float32 in 0..1.
            modalities: (B,) int64.
            camids: (B,) int64.
        """
        pictures = self.normalise(images * self.options.input_scale)
        output: HeadOutput = self.head(self.branch(pictures, modalities, camids))
        return output

    def losses(self, output: HeadOutput, batch: Batch) -> dict[str, Tensor]:
        """Those of the branch."""
        losses: dict[str, Tensor] = self.branch.losses(output, batch, self.head)
        return losses

    def embed(self, images: Tensor, modalities: Tensor, camids: Tensor, *, mirror: bool = False) -> Tensor:
        """Vectors for search, (B, D) float32 of unit length; with `mirror` the raw vectors of both are summed first.

        Args:
            images: (B, 3, H, W) float32 in 0..1.
            modalities: (B,) int64.
            camids: (B,) int64.
            mirror: add the horizontal mirror.
        """
        vectors = self._describe(images, modalities, camids)
        if mirror:
            vectors = vectors + self._describe(images.flip(3), modalities, camids)
        return normalise(vectors)

    def _describe(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Tensor:
        output = self.forward(images, modalities, camids)
        return output.embedding if self.options.test_feature == "head" else output.feature

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Backbone and head, and centres where the head has some; what the head holds fixed belongs to none."""
        centres = centres_of(self.head)
        apart = {id(parameter) for parameter in centres}
        head = [weights for weights in self.head.parameters() if weights.requires_grad and id(weights) not in apart]
        groups = {"backbone": list(self.branch.parameters()), "head": head, "centres": centres}
        return {name: weights for name, weights in groups.items() if weights}

    def load_pretrained(self, source: str) -> None:
        """Fill the backbone.

        Args:
            source: "imagenet", "package", "none" or a weights file.
        """
        self.branch.load_pretrained(source)
