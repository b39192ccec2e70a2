"""What the plain two-stream baseline and AGW share: two stems, one trunk, pooling, BNNeck; a method adds its losses.

Also the part of the released checkpoints' layout that belongs to the two streams.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.method import TrainingFacts
from tapetum.core.options import option
from tapetum.core.types import Batch
from tapetum.core.vectors import normalise
from tapetum.layers.backbones import build_backbone, pool_average
from tapetum.layers.bnneck import BNNeck
from tapetum.layers.branch import HeadOutput
from tapetum.layers.normalisation import Normalisation, Normalise
from tapetum.layers.pooling import pool_gem
from tapetum.layers.two_stream import STAGES, STEM, TwoStream
from tapetum.methods._official import Renaming

Pooling = Literal["average", "gem"]
TestFeature = Literal["head", "backbone", "both"]


@dataclass(frozen=True)
class TwoStreamOptions:
    """Options of both."""

    backbone: str = option("resnet50", "a plain ResNet or EfficientNet of timm")
    last_stride: int = option(1, "2 halves the last stage's resolution")
    pooling: Pooling = option("average", "'gem': generalised mean of power 3")
    label_smoothing: float = option(0.0, "share of the target that goes to all classes alike", least=0, below=1)
    triplet_weight: float = option(1.0, "0 switches the term off", least=0)
    normalisation: Normalisation = option("imagenet", "of pictures in 0..1")
    test_feature: TestFeature = option(
        "head", "'head': behind the neck; 'backbone': before it; 'both': one beside the other"
    )


class TwoStreamMethod(nn.Module):
    """Two stems, one trunk, pooling and BNNeck; cross-entropy, and triplets that a method names."""

    def __init__(self, options: TwoStreamOptions, facts: TrainingFacts) -> None:
        super().__init__()
        self.options = options
        self.facts, self.num_ids = facts, facts.num_ids
        self.normalise = Normalise(options.normalisation)
        self.network = TwoStream(options.backbone, last_stride=options.last_stride)
        self.width = self.network.widths[-1]
        self.head = BNNeck(self.width, facts.num_ids)
        nn.init.normal_(self.head.norm.weight, mean=1.0, std=0.01)

    def compute_maps(self, images: Tensor, modalities: Tensor) -> Tensor:
        """The last feature maps, (B, width, h, w), of normalised pictures; a method may put blocks in between."""
        maps: Tensor = self.network(images, modalities)
        return maps

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor) -> HeadOutput:  # noqa: ARG002
        """Pooled feature, embedding and class scores of pictures of both modalities in any order."""
        maps = self.compute_maps(self.normalise(images), modalities)
        output: HeadOutput = self.head(self.pool(maps))
        return output

    def pool(self, maps: Tensor) -> Tensor:
        """(B, width) float32 features of maps, in the way of the options."""
        return pool_gem(maps) if self.options.pooling == "gem" else pool_average(maps, self.width)

    def losses(self, output: HeadOutput, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy behind the neck, triplets before it, over pictures of both modalities."""
        options = self.options
        smoothing = options.label_smoothing
        losses = {"id": functional.cross_entropy(output.logits, batch.labels, label_smoothing=smoothing)}
        if options.triplet_weight:
            losses["triplet"] = options.triplet_weight * self.triplet(output.feature, batch.labels)
        return losses

    def triplet(self, features: Tensor, labels: Tensor) -> Tensor:
        """The method's triplet loss of (B, width) features before the neck, not weighted."""
        raise NotImplementedError

    def embed(self, images: Tensor, modalities: Tensor, camids: Tensor, *, mirror: bool = False) -> Tensor:
        """Vectors for search, (B, D) float32 of unit length.

        With the test feature "both", the inner product of two vectors is the mean of the similarities of the two
        features. The raw vectors of a picture and its mirror are summed, unless a method joins them otherwise.
        """
        vectors = self._describe(images, modalities, camids)
        if mirror:
            mirrored = self._describe(images.flip(3), modalities, camids)
            vectors = [self._join(a, b) for a, b in zip(vectors, mirrored, strict=True)]
        return normalise(torch.cat([normalise(part) for part in vectors], dim=1))

    def _join(self, picture: Tensor, mirrored: Tensor) -> Tensor:
        """One (B, D) vector of a picture's and its mirror's, of any length."""
        return picture + mirrored

    def _describe(self, images: Tensor, modalities: Tensor, camids: Tensor) -> list[Tensor]:
        output = self.forward(images, modalities, camids)
        parts = {"backbone": [output.feature], "head": [output.embedding], "both": [output.feature, output.embedding]}
        return parts[self.options.test_feature]

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Head (neck and classifier), and everything else as the backbone; the neck's fixed bias is in neither."""
        head = [parameter for parameter in self.head.parameters() if parameter.requires_grad]
        inside = {id(parameter) for parameter in self.head.parameters()}
        return {"backbone": [parameter for parameter in self.parameters() if id(parameter) not in inside], "head": head}

    def load_pretrained(self, source: str) -> None:
        """Fill both stems and the trunk."""
        self.network.load_pretrained(source)


# Checkpoints of the released two-stream codes. Each stem sits in a whole ResNet of its own, and so does the trunk;
# of the three, most is never used.
RELEASED = ("backbone", "last_stride", "pooling", "normalisation")  # of which they hold the default
STEM_PLACES = ("visible_module.visible.", "thermal_module.thermal.")  # by modality number
TRUNK_PLACE = "base_resnet.base."


def two_stream_renaming(prefix: str) -> Renaming:
    """Renaming of a `TwoStream` to the released layout; `prefix` is of the network here, with its dot."""
    stems = [
        (f"{prefix}stems.{modality}.{number}.", f"{place}{name}.")
        for modality, place in enumerate(STEM_PLACES)
        for number, name in enumerate(STEM)
    ]
    stages = [(f"{prefix}stages.{number}.", f"{TRUNK_PLACE}{name}.") for number, name in enumerate(STAGES)]
    return (*stems, *stages)


def unused_tensors(backbone: str, *, num_stages: int = 4) -> dict[str, Tensor]:
    """What released checkpoints carry and never use, by name, as zeros, where so many stages of the trunk are used."""
    with torch.device("meta"):
        state = build_backbone(backbone)[0].state_dict()
    used = dict.fromkeys(STEM_PLACES, ("conv1.", "bn1.")) | {TRUNK_PLACE: STAGES[:num_stages]}
    return {
        place + name: torch.zeros(tensor.shape, dtype=tensor.dtype)
        for place, prefixes in used.items()
        for name, tensor in state.items()
        if not name.startswith(prefixes)
    }
