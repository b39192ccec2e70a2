"""What the plain two-stream baseline and AGW share: two stems, one trunk, pooling, BNNeck; a method adds its losses.

Also the part of the released checkpoints' layout that belongs to the two streams.
"""

from collections.abc import Iterator, Mapping
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from tapetum.core.method import TrainingFacts
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


class TwoStreamOptions(Protocol):
    """What the options of such a method have among others."""

    @property
    def backbone(self) -> str:
        """A ResNet or EfficientNet of timm."""

    @property
    def last_stride(self) -> int:
        """Of the last stage."""

    @property
    def pooling(self) -> Pooling:
        """Global average, or generalised mean of power 3."""

    @property
    def normalisation(self) -> Normalisation:
        """Of pictures in 0..1."""

    @property
    def test_feature(self) -> TestFeature:
        """What is searched with: "head", behind the neck; "backbone", before it; "both"."""


class TwoStreamMethod(nn.Module):
    """Two stems, one trunk, pooling and BNNeck, without losses."""

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
        """The last feature maps; a method may put blocks between the stages.

        Args:
            images: (B, 3, H, W), normalised.
            modalities: (B,) int64.
        Returns:
            (B, width, h, w).
        """
        maps: Tensor = self.network(images, modalities)
        return maps

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor) -> HeadOutput:  # noqa: ARG002
        """Pooled feature, embedding and class scores.

        Args:
            images: (B, 3, H, W) float32 in 0..1, of both modalities in any order.
            modalities: (B,) int64 values of `Modality`.
        """
        maps = self.compute_maps(self.normalise(images), modalities)
        feature = pool_gem(maps) if self.options.pooling == "gem" else pool_average(maps, self.width)
        output: HeadOutput = self.head(feature)
        return output

    def embed(self, images: Tensor, modalities: Tensor, camids: Tensor, *, mirror: bool = False) -> Tensor:
        """Vectors for search, (B, D) float32 of unit length.

        With the test feature "both", the inner product of two vectors is the mean of the similarities of the two
        features.

        Args:
            images: (B, 3, H, W) float32 in 0..1.
            modalities: (B,) int64.
            camids: (B,) int64.
            mirror: add the horizontal mirror: the raw vectors of both are summed, unless a method joins them otherwise.
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
        """Fill both stems and the trunk.

        Args:
            source: "imagenet", "package", "none" or a weights file.
        """
        self.network.load_pretrained(source)


# Checkpoints of the released two-stream codes. Each stem sits in a whole ResNet of its own, and so does the trunk;
# of the three, most is never used.
STEM_PLACES = ("visible_module.visible.", "thermal_module.thermal.")  # by modality number
TRUNK_PLACE = "base_resnet.base."


def two_stream_renaming(prefix: str) -> Renaming:
    """Renaming of a `TwoStream` to the released layout.

    Args:
        prefix: of the network here, with its dot.
    """
    stems = [
        (f"{prefix}stems.{modality}.{number}.", f"{place}{name}.")
        for modality, place in enumerate(STEM_PLACES)
        for number, name in enumerate(STEM)
    ]
    stages = [(f"{prefix}stages.{number}.", f"{TRUNK_PLACE}{name}.") for number, name in enumerate(STAGES)]
    return (*stems, *stages)


def unused_tensors(backbone: str, *, num_stages: int = 4) -> dict[str, Tensor]:
    """What released checkpoints carry and never use, by name, filled with zeros.

    Args:
        backbone: of the released code, "resnet50".
        num_stages: of the trunk that are used.
    """
    with torch.device("meta"):
        network, _ = build_backbone(backbone)
    used = dict.fromkeys(STEM_PLACES, ("conv1.", "bn1.")) | {TRUNK_PLACE: STAGES[:num_stages]}
    return dict(_unused(network.state_dict(), used))


def _unused(state: Mapping[str, Tensor], used: Mapping[str, tuple[str, ...]]) -> Iterator[tuple[str, Tensor]]:
    for place, prefixes in used.items():
        for name, tensor in state.items():
            if not name.startswith(prefixes):
                yield place + name, torch.zeros(tensor.shape, dtype=tensor.dtype)
