"""What BoT and AGW for visible pictures share: backbone, BNNeck, class centres, losses; a method adds what is its own.

Also the part of the released checkpoints' layout that is the same in both.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.errors import CheckpointError, RecipeError
from tapetum.core.method import TrainingFacts
from tapetum.core.options import read_options
from tapetum.core.types import Batch
from tapetum.layers.backbones import load_backbone
from tapetum.layers.bnneck import BNNeck
from tapetum.layers.branch import HeadOutput
from tapetum.layers.centres import CentredNeck, Centres
from tapetum.losses.centre import centre_loss
from tapetum.methods._official import Converted, OfficialFormat, Renaming, read_tensor_size, to_ours, to_theirs


class StrongBaselineOptions(Protocol):
    """What the options of such a method have among others."""

    @property
    def backbone(self) -> str:
        """A timm model."""

    @property
    def stem_relu(self) -> bool:
        """Whether a ReLU follows the first batch norm."""

    @property
    def label_smoothing(self) -> float:
        """Of the cross-entropy."""

    @property
    def triplet_weight(self) -> float:
        """Of the triplets."""

    @property
    def centre_weight(self) -> float:
        """Of the centre loss; without it no centres are built."""


class StrongBranch(nn.Module):
    """A backbone, the heads that go with it and their losses; see `tapetum.layers.branch`.

    Args:
        backbone: the network that they name.
        width: of the pooled feature.
    """

    def __init__(self, options: StrongBaselineOptions, backbone: nn.Module, width: int) -> None:
        super().__init__()
        self.options = options
        self.backbone, self.width = backbone, width
        if not options.stem_relu:
            _leave_out_stem_relu(self.backbone, options.backbone)

    def build_head(self, num_ids: int) -> nn.Module:
        """The neck and classifier for this branch's features.

        Args:
            num_ids: number of classes.
        """
        return self.build_fused_head(self.width, num_ids)

    def build_fused_head(self, width: int, num_ids: int) -> nn.Module:
        """The same for another width.

        Args:
            width: of the feature.
            num_ids: number of classes.
        """
        return CentredNeck(width, num_ids) if self.options.centre_weight else BNNeck(width, num_ids)

    def triplet(self, features: Tensor, labels: Tensor) -> Tensor:
        """The method's triplet loss, not weighted.

        Args:
            features: (B, width) before the neck.
            labels: (B,) int64.
        """
        raise NotImplementedError

    def losses(self, output: HeadOutput, batch: Batch, head: nn.Module) -> dict[str, Tensor]:
        """Smoothed cross-entropy behind the neck, triplets and centre loss before it.

        Args:
            head: that gave it; it has the class centres.
        """
        options, labels = self.options, batch.labels
        smoothing = options.label_smoothing
        losses = {"id": functional.cross_entropy(output.logits, labels, label_smoothing=smoothing)}
        if options.triplet_weight:
            losses["triplet"] = options.triplet_weight * self.triplet(output.feature, labels)
        if options.centre_weight:
            centres = cast(Centres, head.centres).weight
            losses["centre"] = centre_loss(output.feature, labels, centres, weight=options.centre_weight)
        return losses

    def load_pretrained(self, source: str) -> None:
        """Fill the backbone.

        Args:
            source: "imagenet", "package", "none" or a weights file.
        """
        load_backbone(self.backbone, self.options.backbone, source, for_distances=True)


def _leave_out_stem_relu(network: nn.Module, name: str) -> None:
    if not isinstance(getattr(network, "act1", None), nn.ReLU):
        raise RecipeError(
            f"method.stem_relu: false, but backbone {name} has no ReLU of its own behind the first batch norm; "
            "set it to true, or choose a plain ResNet"
        )
    network.register_module("act1", nn.Identity())


# Checkpoints of the two releases.
RENAMING: Renaming = (
    ("branch.backbone.", "base."),
    ("head.norm.", "bottleneck."),
    ("head.classifier.", "classifier."),
)
CENTRES = "head.centres.weight"  # the releases keep them in a file of their own
RELEASED = {"last_stride": 1, "stem_relu": False}  # what the tensors of a network do not tell


def released_format(
    method: str, kind: type[nn.Module], options: Any, renaming: Renaming, recipe: str
) -> OfficialFormat:
    """How checkpoints of a release are read and written: strictly; its centres are not among the tensors.

    Args:
        method: its name here.
        kind: its class.
        options: under which it is the released network without centres.
        renaming: prefixes.
        recipe: under which the release trains.
    """
    place = f"{method}-official checkpoint"

    def read(state: Mapping[str, Tensor]) -> Converted:
        num_ids = read_tensor_size(state, "classifier.weight", place)
        with torch.device("meta"):
            expected = kind(options, TrainingFacts(num_ids)).state_dict()
        return Converted(method, asdict(options), num_ids, to_ours(state, expected, renaming, (), place))

    def write(own: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        settings = read_options(type(options), own)
        for name, value in RELEASED.items():
            if getattr(settings, name) != value:
                raise CheckpointError(f"method.{name} is {getattr(settings, name)}, in the released network {value}")
        theirs = to_theirs({name: tensor for name, tensor in state.items() if name != CENTRES}, renaming, ())
        read(theirs)  # the same strict check
        return theirs

    return OfficialFormat(read=read, write=write, recipe=recipe)
