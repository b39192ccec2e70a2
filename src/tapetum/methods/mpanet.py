"""MPANet: one network for both modalities that loses what tells them apart, and parts that it finds by itself.

Source: "Discover Cross-Modality Nuances for Visible-Infrared Person Re-Identification" (Wu et al., CVPR 2021) and its
release, DoubtedSteam/MPANet.
Differs:
- losses find people and modalities by label and modality, where the release counts rows: its batches stand in groups of
  one person. On such batches the values are its values;
- the averages of the two modalities' classifiers move once a step, before the first batch of it is compared, where the
  release moves them with each forward pass; here they never share memory with the classifiers, as they do in a network
  that the release has just built;
- each modality's cross-entropy has one weight. The release adds its term of 0.5 twice: 1.0 here;
- how the mask's and the two classifiers' weights begin is not known of the release: as new convolutions and as the
  neck's classifier do, here. It does not search with the mirror; where a recipe asks for it, raw vectors are summed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.errors import TrainingError
from tapetum.core.method import TrainingFacts
from tapetum.core.options import option
from tapetum.core.types import Batch, Modality
from tapetum.layers.backbones import build_backbone, load_backbone, pool_average
from tapetum.layers.bnneck import BNNeck
from tapetum.layers.branch import HeadOutput
from tapetum.layers.normalisation import Normalisation, Normalise
from tapetum.layers.two_stream import divide_backbone, output_width
from tapetum.layers.winograd import use_winograd
from tapetum.losses.centre_cluster import cluster_around_centres
from tapetum.losses.distillation import distillation
from tapetum.methods._mirrored import Mirrored
from tapetum.methods._official import OfficialFormat, Renaming, Tensors, read_tensor_size

SMALL = {"backbone": "test_efficientnet", "last_stride": 1}  # for tests: its last maps are no single places
TRAINING_ONLY = ("by_modality",)  # of the network; a training may begin with a checkpoint without them
ALLEVIATED = 2  # of a ResNet's stages, the last ones
REDUCTION = 16  # of the channels, within a gate
EPS = 1e-5  # beside a variance, as instance norms have it
FULL_RATE_EPOCHS = 100  # while the averages move at their full rate


@dataclass(frozen=True)
class Options:
    """What a recipe may set under ``method:``."""

    backbone: str = option("resnet50", "a plain ResNet or EfficientNet of timm, one for both modalities")
    last_stride: int = option(1, "2 halves the last stage's resolution")
    parts: int = option(6, "that the network finds by itself", least=2)
    normalisation: Normalisation = option("imagenet", "of pictures in 0..1")
    separation_weight: float = option(0.5, "of the overlap of the parts' masks", least=0)
    centre_weight: float = option(1.0, "of gathering around centres that stay apart", least=0)
    centre_margin: float = option(0.7, "distance below which two people's centres are too close", least=0)
    modality_id_weight: float = option(
        1.0, "of the cross-entropy of each modality's own classifier; the release writes 0.5 and adds it twice", least=0
    )
    kl_weight: float = option(
        2.5, "of the divergence of a picture's own classifier from the average of the other modality's", least=0
    )
    average_rate: float = option(
        0.2, "by which the averages follow the classifiers, each step; falls as 100 / (epoch + 2) after 99", above=0,
        most=1,
    )  # fmt: skip
    test_feature: Literal["head", "backbone"] = option(
        "head", "searched with: behind the neck, or before it; parts and whole (ResNet-50: 14336 numbers)"
    )


class Alleviation(nn.Module):
    """Modality alleviation: a gate for each channel, between the map as it is and its instance norm.

    With a = sigmoid(W2 relu(W1 mean(x))): a x + (1 - a) (x - mean(x)) / sqrt(var(x) + 1e-5), mean and variance over the
    places of each picture's channel. That is one factor and one summand a channel, and is computed so, in float32 (or
    better) also under autocast.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = max(width // REDUCTION, 1)
        self.reduce = nn.Conv2d(width, inner, 1, bias=False)
        self.expand = nn.Conv2d(inner, width, 1, bias=False)
        for convolution in (self.reduce, self.expand):
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out")

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) of the same."""
        with torch.autocast(maps.device.type, enabled=False):
            exact = maps.to(torch.promote_types(maps.dtype, torch.float32))
            variance, mean = torch.var_mean(exact, (2, 3), correction=0, keepdim=True)
            gate = self.expand(self.reduce(mean).relu()).sigmoid()
            normed = (1 - gate) * (variance + EPS).rsqrt()
            made: Tensor = torch.addcmul(-normed * mean, exact, gate + normed).to(maps.dtype)
            return made


class AveragedClassifier(nn.Module):
    """A classifier without bias, and a slow average of it, which learns nothing by itself."""

    average: Tensor

    def __init__(self, width: int, num_ids: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_ids, width))
        nn.init.normal_(self.weight, std=0.001)
        self.register_buffer("average", self.weight.detach().clone())

    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, num_ids) class scores of (B, width) embeddings."""
        return functional.linear(embeddings, self.weight)

    @torch.no_grad()
    def score_by_average(self, embeddings: Tensor) -> Tensor:
        """(B, num_ids) class scores of the average, without gradient."""
        return functional.linear(embeddings, self.average)

    @torch.no_grad()
    def follow(self, rate: float) -> None:
        """Move the average towards the classifier by a share of the way."""
        self.average.lerp_(self.weight, rate)


def overlap_of_masks(masks: Tensor) -> Tensor:
    """Mean inner product of two masks of one picture, over its pairs of parts and over pictures.

    Args:
        masks: (B, parts, h, w), not of unit length.
    """
    flat = masks.flatten(2)
    parts = flat.shape[1]
    products = (flat.sum(1).square().sum(1) - flat.square().sum((1, 2))) / 2  # of all i < j, without their table
    return products.mean() / (parts * (parts - 1) / 2)


class Method(Mirrored):
    """A backbone with two alleviations, masks of parts, BNNeck, and a classifier for each modality while it trains.

    Attributes:
        by_modality: `AveragedClassifier`, by modality number; none where no loss asks for them.
    """

    def __init__(self, options: Options, facts: TrainingFacts) -> None:
        super().__init__()
        self.options = options
        self.facts, self.num_ids = facts, facts.num_ids
        self.normalise = Normalise(options.normalisation)
        self.backbone, self.width = build_backbone(options.backbone, last_stride=options.last_stride)
        use_winograd(self.backbone)
        _, stages = self._divide()
        self.alleviations = nn.ModuleList(Alleviation(output_width(stage)) for stage in stages[-ALLEVIATED:])
        self.masks = nn.Conv2d(self.width, options.parts, 1)
        nn.init.kaiming_normal_(self.masks.weight)
        nn.init.zeros_(self.masks.bias)  # type: ignore[arg-type]
        joined = (options.parts + 1) * self.width
        self.head = BNNeck(joined, facts.num_ids)
        apart = bool(options.modality_id_weight or options.kl_weight)
        self.by_modality = nn.ModuleList(AveragedClassifier(joined, facts.num_ids) for _ in Modality if apart)
        self._moved = (-1, -1)  # epoch and step at which the averages last moved

    def _divide(self) -> tuple[nn.Module, list[nn.Sequential]]:
        stem, stages, _ = divide_backbone(self.backbone, self.options.backbone)
        return stem, stages

    def compute_maps(self, images: Tensor) -> Tensor:
        """The last feature maps, (B, width, h, w), of normalised pictures."""
        stem, stages = self._divide()
        maps: Tensor = stem(images)
        for number, stage in enumerate(stages, ALLEVIATED - len(stages)):
            maps = stage(maps)
            if number >= 0:
                maps = self.alleviations[number](maps)
        return maps

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor) -> HeadOutput:  # noqa: ARG002
        """Parts and whole as one feature, its embedding and class scores; ``maps["masks"]`` are (B, parts, h, w)."""
        maps = self.compute_maps(self.normalise(images))
        whole = pool_average(maps, self.width)
        with torch.autocast(maps.device.type, enabled=False):
            exact = maps.to(whole.dtype)
            masks = self.masks(exact).sigmoid()
            parts = masks.flatten(2) @ exact.flatten(2).transpose(1, 2) / maps[0, 0].numel()
        output = self.head(torch.cat([parts.flatten(1), whole], dim=1))
        return HeadOutput(output.feature, output.embedding, output.logits, maps={"masks": masks})

    def losses(self, output: HeadOutput, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy, separation of the masks, centres, and what the modalities' own classifiers say.

        In training the classifiers' averages follow them first, once a step.

        Raises:
            TrainingError: the batch shows one identity or one modality only.
        """
        options = self.options
        losses = {"id": functional.cross_entropy(output.logits, batch.labels)}
        if options.separation_weight:
            losses["separation"] = options.separation_weight * overlap_of_masks(output.maps["masks"])
        if options.centre_weight:
            clustering = cluster_around_centres(output.feature, batch.labels, margin=options.centre_margin)
            losses["centre_cluster"] = options.centre_weight * clustering
        return losses | self._modality_losses(output.embedding, batch) if self.by_modality else losses

    def _modality_losses(self, embeddings: Tensor, batch: Batch) -> dict[str, Tensor]:
        options = self.options
        rows = [(batch.modalities == modality).nonzero().squeeze(1) for modality in Modality]
        if not all(map(len, rows)):
            raise TrainingError(
                "mpanet: the batch shows one modality only, and each has a classifier; set sampler.name to "
                "cross_modality, or method.modality_id_weight and method.kl_weight to 0"
            )
        self._move_averages(batch)
        visible, infrared = self._classifiers()
        seen, felt = (embeddings[own] for own in rows)
        own = [visible(seen), infrared(felt)]
        losses = {}
        if options.modality_id_weight:
            for name, scores, which in zip(("id_visible", "id_infrared"), own, rows, strict=True):
                losses[name] = options.modality_id_weight * functional.cross_entropy(scores, batch.labels[which])
        if options.kl_weight:
            other = [infrared.score_by_average(seen), visible.score_by_average(felt)]
            divergence = distillation(torch.cat(other), torch.cat(own), detach_teacher=False)
            losses["kl"] = options.kl_weight * divergence
        return losses

    def _move_averages(self, batch: Batch) -> None:
        now = (batch.epoch, batch.step)
        if not self.training or not torch.is_grad_enabled() or now == self._moved:
            return
        self._moved = now
        rate = self.options.average_rate * min(FULL_RATE_EPOCHS / (batch.epoch + 2), 1.0)
        for classifier in self._classifiers():
            classifier.follow(rate)

    def _classifiers(self) -> list[AveragedClassifier]:
        return [cast(AveragedClassifier, each) for each in self.by_modality]

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Backbone with its alleviations; masks, neck and classifiers as the head."""
        head = [*self.masks.parameters(), *self.head.parameters(), *self.by_modality.parameters()]
        return {
            "backbone": [*self.backbone.parameters(), *self.alleviations.parameters()],
            "head": [parameter for parameter in head if parameter.requires_grad],
        }

    def load_pretrained(self, source: str) -> None:
        """Fill the backbone."""
        load_backbone(self.backbone, self.options.backbone, source, for_distances=True)


# Checkpoints of the release: the averages are classifiers with a line behind their names.
RENAMING: Renaming = (
    *(
        (f"alleviations.{number}.{ours}.", f"backbone.MAM{number + 3}.channel_attention.{theirs}.")
        for number in range(ALLEVIATED)
        for ours, theirs in (("reduce", 0), ("expand", 2))
    ),
    ("backbone.", "backbone."),
    ("masks.", "spatial_attention."),
    *(
        (f"by_modality.{number}.{ours}", f"{name}_classifier{line}.weight")
        for number, name in enumerate(("visible", "infrared"))
        for ours, line in (("weight", ""), ("average", "_"))
    ),
    ("head.norm.", "bn_neck."),
    ("head.classifier.", "classifier."),
)
RECIPES_BY_IDS = {206: "mpanet_regdb", 713: "mpanet_llcm"}


def _read_architecture(state: Tensors, place: str) -> tuple[Options, dict[str, Any]]:
    """Parts and identities."""
    parts = read_tensor_size(state, "spatial_attention.weight", place)
    return Options(parts=parts), {"num_ids": read_tensor_size(state, "classifier.weight", place)}


OFFICIAL_FORMATS = {
    "mpanet-official": OfficialFormat(
        "mpanet-official", "mpanet", Method, Options, _read_architecture, lambda _: RENAMING, "mpanet_sysu",
        RECIPES_BY_IDS, released=("last_stride", "normalisation"),
    )
}  # fmt: skip
