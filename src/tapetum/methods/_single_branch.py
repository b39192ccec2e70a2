"""A method that is one branch and its head; the file of a method adds its options and its branch."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from tapetum.core.method import TrainingFacts
from tapetum.core.types import Batch
from tapetum.layers.backbones import Maps, Tokens, build_any_backbone, load_backbone
from tapetum.layers.bnneck import centres_of
from tapetum.layers.branch import Features, HeadOutput
from tapetum.layers.normalisation import Normalise
from tapetum.methods._mirrored import Mirrored


class BackboneBranch(nn.Module):
    """An extractor that is a backbone, and how its output becomes one vector (see `tapetum.layers.branch.Branch`).

    Its options name `backbone`, `last_stride`, `patch_stride` and `pooling`; a branch adds a head and its losses.
    """

    def __init__(self, options: Any, facts: TrainingFacts) -> None:
        super().__init__()
        self.options = options
        self.backbone, self.gives = self.build_backbone(facts)
        self.width = self.gives.width

    @property
    def compares_distances(self) -> bool:
        """Whether losses compare distances between the pooled features themselves."""
        return False

    def build_backbone(self, facts: TrainingFacts) -> tuple[nn.Module, Maps | Tokens]:
        """The network, and what it gives."""
        options = self.options
        return build_any_backbone(
            options.backbone,
            size=facts.size,
            last_stride=options.last_stride,
            patch_stride=options.patch_stride,
            pooling=options.pooling,
        )

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Tensor | Features:  # noqa: ARG002
        """Pooled features, (B, width) float32, of normalised pictures."""
        return self.gives.pool(self.backbone(images))

    def build_head(self, num_ids: int) -> nn.Module:
        """The head for this branch's features."""
        return self.build_fused_head(self.width, num_ids)

    def build_fused_head(self, width: int, num_ids: int) -> nn.Module:
        """The same head for another width."""
        raise NotImplementedError

    def load_pretrained(self, source: str) -> None:
        """Fill the backbone."""
        load_backbone(self.backbone, self.options.backbone, source, for_distances=self.compares_distances)


class SingleBranch(Mirrored):
    """One branch and its head. The options name `input_scale`, `normalisation` and `test_feature` among others."""

    extractor: ClassVar[Any]  # the file's class Branch
    branch: Any

    def __init__(self, options: Any, facts: TrainingFacts) -> None:
        super().__init__()
        self.options = options
        self.facts, self.num_ids = facts, facts.num_ids
        self.normalise = Normalise(options.normalisation)
        self.branch = self.extractor(options, facts)
        self.head = self.branch.build_head(facts.num_ids)

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor) -> HeadOutput:
        """Feature, embedding and class scores."""
        pictures = self.normalise(images * self.options.input_scale)
        output: HeadOutput = self.head(self.branch(pictures, modalities, camids))
        return output

    def losses(self, output: HeadOutput, batch: Batch) -> dict[str, Tensor]:
        """Those of the branch."""
        losses: dict[str, Tensor] = self.branch.losses(output, batch, self.head)
        return losses

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Backbone and head, and centres where the head has some; what the head holds fixed belongs to none."""
        centres = centres_of(self.head)
        apart = {id(parameter) for parameter in centres}
        head = [weights for weights in self.head.parameters() if weights.requires_grad and id(weights) not in apart]
        groups = {"backbone": list(self.branch.parameters()), "head": head, "centres": centres}
        return {name: weights for name, weights in groups.items() if weights}

    def load_pretrained(self, source: str) -> None:
        """Fill the backbone."""
        self.branch.load_pretrained(source)
