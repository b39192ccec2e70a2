"""What BoT and AGW for visible pictures share: BNNeck, class centres, losses; a method adds what is its own.

Also the part of the released checkpoints' layout that is the same in both.
"""

from dataclasses import dataclass
from typing import Any, Literal, cast

from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.errors import RecipeError
from tapetum.core.method import TrainingFacts
from tapetum.core.options import option
from tapetum.core.types import Batch
from tapetum.layers.bnneck import BNNeck, CentredNeck
from tapetum.layers.branch import HeadOutput
from tapetum.layers.normalisation import Normalisation
from tapetum.methods._official import OfficialFormat, Renaming, Tensors, read_tensor_size
from tapetum.methods._single_branch import BackboneBranch


@dataclass(frozen=True)
class StrongBaselineOptions:
    """Options of both."""

    backbone: str = option("resnet50", "a plain ResNet or EfficientNet of timm")
    last_stride: int = option(1, "2 halves the last stage's resolution")
    stem_relu: bool = option(False, "a ReLU behind the first batch norm, which the release leaves out")
    label_smoothing: float = option(0.1, "of the cross-entropy", least=0, below=1)
    triplet_weight: float = option(1.0, "of the triplets; 0 switches them off", least=0)
    centre_weight: float = option(0.0005, "of the centre loss; 0 leaves it and its centres out", least=0)
    input_scale: float = option(1.0, "pictures in 0..1 are multiplied by this", above=0)
    normalisation: Normalisation = option("imagenet", "of the pictures")
    test_feature: Literal["head", "backbone"] = option(
        "head", "what is searched with: behind the neck, or the pooled map before it"
    )


def centre_loss(features: Tensor, labels: Tensor, centres: Tensor, *, weight: float = 1.0) -> Tensor:
    """weight * L with L = mean over the batch of the squared Euclidean distance between a feature and its centre.

    The features learn from weight * L, the centres from L itself: the weight says how much the loss counts beside
    others, and the centres move by an optimiser of their own, at its full rate.

    Args:
        features: (B, D), not normalised; rows in any order.
        labels: (B,) int64.
        centres: (num_ids, D).
    Source: Wen et al., ECCV 2016, as in the strong baseline's release, which divides the centres' gradient by the
        weight before their optimiser steps. That release also adds 1e-12 for each picture and each other class.
    """
    own = centres[labels]
    moving = (features.detach() - own).square().sum(1).mean()
    drawing = (features - own.detach()).square().sum(1).mean()
    return weight * drawing + (moving - moving.detach())  # the second term is zero and has the centres' gradient


class StrongBranch(BackboneBranch):
    """A backbone, the heads that go with it and their losses."""

    def __init__(self, options: StrongBaselineOptions, facts: TrainingFacts) -> None:
        super().__init__(options, facts)
        if not options.stem_relu:
            if not isinstance(getattr(self.backbone, "act1", None), nn.ReLU):
                raise RecipeError(
                    f"method.stem_relu: false, but backbone {options.backbone} has no ReLU of its own behind the first "
                    "batch norm; set it to true, or choose a plain ResNet"
                )
            self.backbone.register_module("act1", nn.Identity())

    @property
    def compares_distances(self) -> bool:
        """Triplets and centres do."""
        return True

    def build_fused_head(self, width: int, num_ids: int) -> nn.Module:
        """The neck and classifier for features of a width."""
        return CentredNeck(width, num_ids) if self.options.centre_weight else BNNeck(width, num_ids)

    def triplet(self, features: Tensor, labels: Tensor) -> Tensor:
        """The method's triplet loss of (B, width) features before the neck, not weighted."""
        raise NotImplementedError

    def losses(self, output: HeadOutput, batch: Batch, head: nn.Module) -> dict[str, Tensor]:
        """Smoothed cross-entropy behind the neck, triplets and centre loss before it; the head has the centres."""
        options, labels = self.options, batch.labels
        smoothing = options.label_smoothing
        losses = {"id": functional.cross_entropy(output.logits, labels, label_smoothing=smoothing)}
        if options.triplet_weight:
            losses["triplet"] = options.triplet_weight * self.triplet(output.feature, labels)
        if options.centre_weight:
            centres = cast(CentredNeck, head).centres.weight
            losses["centre"] = centre_loss(output.feature, labels, centres, weight=options.centre_weight)
        return losses


# Checkpoints of the two releases, which keep centres in a file of their own.
RENAMING: Renaming = (
    ("branch.backbone.", "base."),
    ("head.norm.", "bottleneck."),
    ("head.classifier.", "classifier."),
)


def released_format(method: str, network: type[nn.Module], kind: type[Any], renaming: Renaming) -> OfficialFormat:
    """How checkpoints of a release are read and written."""

    def architecture(state: Tensors, place: str) -> tuple[Any, dict[str, Any]]:
        return kind(centre_weight=0.0), {"num_ids": read_tensor_size(state, "classifier.weight", place)}

    return OfficialFormat(
        f"{method}-official", method, network, kind, architecture, lambda _: renaming, f"{method}_market1501",
        left_out=("head.centres.",),
        released=("last_stride", "stem_relu", "input_scale", "normalisation"),
    )  # fmt: skip
