"""MMN, Middle Modality Network: beside each picture stands one between the modalities, which a small generator makes.

Source: "Towards a Unified Middle Modality Learning for Visible-Infrared Person Re-Identification" (Zhang et al., ACM MM
2021) and its release, ZYK100/MMN.
Differs: pictures come in any order, in one batch; the two ResNets of which the release uses the stem alone are not
kept; and
- which middle pictures of a person are compared is drawn by what they are; the release compares those drawn in the same
  place. ``pairs`` "all" is ours;
- stripes share a row where four do not divide the map's height; the release makes the lowest one lower;
- the projection before that comparison is in no optimiser there: a draw that stays. So it is here, unless
  ``projection`` is "learned";
- what of the release's similarities its authors report is not said: ``test_score`` has the sum of all four. The script
  also prints the least and the greatest of the four of each pair, which are no inner products and so are no option;
- the generator's first ReLU closes where a normalised pixel is below zero: of a picture darker than the data's mean
  nothing is left, and nothing is learnt. ``generator_input`` "plain" is ours, for night pictures;
- flags of the release's scripts for non-local blocks and generalised means do nothing there, and are not options here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.errors import TrainingError
from tapetum.core.lots import draw_tickets
from tapetum.core.method import TrainingFacts
from tapetum.core.options import option
from tapetum.core.types import Batch, Modality
from tapetum.layers.bnneck import BNNeck
from tapetum.layers.normalisation import Normalisation, Normalise
from tapetum.layers.pooling import pool_stripes
from tapetum.layers.two_stream import TwoStream, apply_by_modality
from tapetum.layers.unit_sums import join_unit_sums
from tapetum.losses.pairs import PAIRING, Pairing, pair_across
from tapetum.methods._official import OfficialFormat, Renaming, Tensors, read_tensor_size
from tapetum.methods._two_stream import two_stream_renaming, unused_tensors

SMALL = {"backbone": "test_resnet", "last_stride": 2, "generator_input": "plain"}  # for tests, whose pictures are dark
TRAINING_ONLY = ("projection",)  # where it is learned; a training may begin with a checkpoint without it
PLAIN, MIDDLE = 0, 1
SMALLEST = 1e-12  # squared distance, so that the root has a gradient
THIRD = 0.333  # with which the generator's weights begin


@dataclass(frozen=True)
class Options:
    """What a recipe may set under ``method:``; every default is the release's."""

    backbone: str = option("resnet50", "a plain ResNet or EfficientNet of timm")
    last_stride: int = option(1, "2 halves the last stage's resolution")
    normalisation: Normalisation = option("imagenet", "of pictures in 0..1")
    generator_input: Literal["normalised", "plain"] = option(
        "normalised", "as released, where pixels darker than the mean are lost; plain: pictures in 0..1, for dark ones"
    )
    stripes: int = option(4, "described and classified apart, from head to foot", least=1)
    triplet_weight: float = option(1.0, "0 switches the term off", least=0)
    triplet_margin: float = option(0.3, "of the triplets, before the necks", least=0)
    middle_weight: float = option(
        0.2, "delta, of the distance between a person's middle pictures; the release has 0.5 with one stripe", least=0
    )
    pairs: Pairing = option("lot", f"middle pictures whose distance counts; {PAIRING}")
    projection_width: int = option(256, "of the space in which that distance is measured", least=1)
    projection: Literal["fixed", "learned"] = option(
        "fixed", "fixed: the draw that it began as, as released; learned: a parameter group of that name"
    )
    test_score: Literal["sum", "plain", "middle"] = option(
        "sum", "of all four similarities of pictures and middle pictures; or of pictures, or of middle pictures, alone"
    )


@dataclass(frozen=True)
class Output:
    """What the network gives of B pictures (first) and their middle pictures (second), of S stripes each.

    Attributes:
        features: (2, S, B, D) float32 pooled features.
        embeddings: (2, S, B, D) float32, the same after the necks.
        scores: (2, S, B, num_ids) float32 class scores.
        middle: (B, 3, H, W) float32 middle pictures, as the stems see them.
    """

    features: Tensor
    embeddings: Tensor
    scores: Tensor
    middle: Tensor

    @property
    def logits(self) -> Tensor:
        """(B, num_ids) class scores of the pictures themselves: the mean of their stripes'."""
        return self.scores[PLAIN].mean(0)


class Brightness(nn.Module):
    """One number a pixel of three, through two linear layers with a ReLU each and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Conv2d(3, 1, 1)
        self.scale = nn.Conv2d(1, 1, 1)
        self.norm = nn.BatchNorm2d(1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, H, W) of (B, 3, H, W)."""
        values: Tensor = self.norm(self.scale(self.encode(images).relu()).relu())
        return values


class MiddleGenerator(nn.Module):
    """Middle pictures: one number a pixel is left of a picture, and drawn in three channels that both modalities share.

    Computed in float32 (or better, as given) also under autocast: eight bits of brightness are finer than bfloat16.
    """

    def __init__(self) -> None:
        super().__init__()
        self.brightness = nn.ModuleList(Brightness() for _ in Modality)
        self.decode = nn.Conv2d(1, 3, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.constant_(layer.weight, THIRD)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor, modalities: Tensor) -> Tensor:
        """Middle pictures, (B, 3, H, W), in the same layout of memory."""
        with torch.autocast(images.device.type, enabled=False):
            images = images.to(torch.promote_types(images.dtype, torch.float32))
            middle: Tensor = self.decode(apply_by_modality(self.brightness, images, modalities)).relu()
        last = images.is_contiguous(memory_format=torch.channels_last)
        return middle.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


class Projection(nn.Module):
    """To unit vectors of a smaller space; its norms know the batch alone. One for all stripes.

    Args:
        learned: its weights are parameters; otherwise buffers, which no checkpoint keeps.
    """

    def __init__(self, width: int, projected: int, *, learned: bool) -> None:
        super().__init__()
        self.reduce = nn.Linear(width, projected, bias=False)
        self.norm = nn.BatchNorm1d(projected, track_running_stats=False)
        self.mix = nn.Linear(projected, projected)
        self.last_norm = nn.BatchNorm1d(projected, track_running_stats=False)
        if not learned:
            for layer in self.children():
                for name, weight in list(layer.named_parameters()):
                    delattr(layer, name)
                    layer.register_buffer(name, weight.detach(), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """(N, projected) of (N, width), whatever the length of these."""
        hidden = self.norm(self.reduce(functional.normalize(features, dim=1))).relu()
        return functional.normalize(self.last_norm(self.mix(hidden)), dim=1)


def triplets_across(features: Tensor, labels: Tensor, modalities: Tensor, *, margin: float) -> Tensor:
    """Batch-hard triplets among visible and infrared pictures of which each side is, or is not, in its middle form.

    The mean over stripes, over these four sets of B pictures, and over the anchors of each.

    Args:
        features: (2, S, B, D) of pictures and their middle pictures, not normalised.
        labels: (B,) int64.
        modalities: (B,) values of `Modality`.
    Raises:
        TrainingError: the batch shows one identity only, so that there is no negative.
    """
    same = labels[:, None] == labels[None, :]
    if bool(same.all()):
        raise TrainingError("mmn: the batch shows one identity only; use the sampler cross_modality with ids >= 2")
    count = len(labels)
    forms = torch.arange(2, device=labels.device)
    visible, infrared = torch.meshgrid(forms, forms, indexing="ij")
    form = torch.where(modalities == Modality.VISIBLE, visible.reshape(4, 1), infrared.reshape(4, 1))  # (4, B)
    rows = form * count + torch.arange(count, device=labels.device)
    chosen = features.transpose(0, 1).flatten(1, 2)[:, rows].flatten(0, 1)  # (4 S, B, D)
    norms = chosen.square().sum(2)
    products = torch.baddbmm(norms[:, None].expand(-1, count, -1), chosen, chosen.mT, alpha=-2.0)
    distances = (products + norms[:, :, None]).clamp(min=SMALLEST).sqrt()
    positive = distances.masked_fill(~same, 0.0).amax(2)
    negative = distances.masked_fill(same, torch.inf).amin(2)
    return (positive - negative + margin).clamp(min=0).mean()


def middle_distance(projected: Tensor, pairs: tuple[Tensor, Tensor]) -> Tensor:
    """Mean Euclidean distance of middle pictures.

    Args:
        projected: (S, B, D) unit vectors, of which each stripe's are compared apart.
        pairs: (R,) and (R,) int64 rows of a visible and an infrared picture of one person; see `pair_across`.
    """
    seen, met = pairs
    return (projected[:, seen] - projected[:, met]).square().sum(2).clamp(min=SMALLEST).sqrt().mean()


class Method(nn.Module):
    """Two stems and one trunk, which see pictures and middle pictures; a neck for each stripe.

    Attributes:
        projection: None where the distance of middle pictures has no weight.
    """

    filling = len(Modality)  # numbers, see `embed`

    def __init__(self, options: Options, facts: TrainingFacts) -> None:
        super().__init__()
        self.options = options
        self.num_ids = facts.num_ids
        self.normalise = Normalise(options.normalisation)
        self.generator = MiddleGenerator()
        self.network = TwoStream(options.backbone, last_stride=options.last_stride)
        width = self.network.widths[-1]
        self.necks = nn.ModuleList(BNNeck(width, facts.num_ids) for _ in range(options.stripes))
        for neck in self.necks:
            nn.init.normal_(neck.norm.weight, mean=1.0, std=0.01)  # type: ignore[union-attr, arg-type]
        self.projection = (
            Projection(width, options.projection_width, learned=options.projection == "learned")
            if options.middle_weight
            else None
        )

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Output:  # noqa: ARG002
        """Stripes of pictures of both modalities in any order, and of their middle pictures."""
        seen = self.normalise(images)
        middle = self.generator(seen if self.options.generator_input == "normalised" else images, modalities)
        maps = self.network(torch.cat([seen.to(middle.dtype), middle]), modalities.repeat(2))
        stripes = pool_stripes(maps, self.options.stripes).unbind(1)
        # Four. One batch norm for all of them takes two thirds of their time and none of a whole step's.
        made = [neck(stripe) for neck, stripe in zip(self.necks, stripes, strict=True)]
        features, embeddings, scores = (
            torch.stack(parts).reshape(len(parts), 2, images.shape[0], -1).transpose(0, 1)
            for parts in zip(*((each.feature, each.embedding, each.logits) for each in made), strict=True)
        )
        return Output(features, embeddings, scores, middle)

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy of all stripes, triplets across modalities and forms, the distance of middle pictures."""
        options = self.options
        scores = output.scores.flatten(0, 2)
        losses = {"id": functional.cross_entropy(scores, batch.labels.repeat(len(scores) // len(batch)))}
        if options.triplet_weight:
            losses["triplet"] = options.triplet_weight * triplets_across(
                output.features, batch.labels, batch.modalities, margin=options.triplet_margin
            )
        if options.middle_weight:
            lots = draw_tickets(batch) if options.pairs == "lot" else None
            pairs = pair_across(batch.labels, batch.modalities, lots=lots, owner="mmn.middle_weight")
            losses["middle"] = self.middle_loss(output, pairs)
        return losses

    def middle_loss(self, output: Output, pairs: tuple[Tensor, Tensor]) -> Tensor:
        """The weighted distance of middle pictures; see `middle_distance`."""
        projection = self.get_submodule("projection")
        # Four. One product and one norm for all of them take as long: 6.5 ms for 32 pictures of published size, forward
        # and back, on one core of an AMD EPYC, as against a step of tens of seconds there.
        projected = torch.stack([projection(stripe) for stripe in output.features[MIDDLE]])
        return self.options.middle_weight * middle_distance(projected, pairs)

    def embed(self, images: Tensor, modalities: Tensor, camids: Tensor, *, mirror: bool = False) -> Tensor:
        """Vectors for search, (B, S D + 2) float32 of unit length.

        The inner product of a visible and an infrared picture is the mean of the similarities of the one, its middle
        picture (and their mirrors) with the other's; see `join_unit_sums`.
        """
        parts = self._describe(images, modalities, camids)
        if mirror:
            parts = torch.cat([parts, self._describe(images.flip(3), modalities, camids)])
        return join_unit_sums(parts, modalities)

    def _describe(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Tensor:
        """(forms, B, S D) unit vectors: a picture's stripes have one length together."""
        embeddings = self.forward(images, modalities, camids).embeddings
        forms = {"sum": embeddings, "plain": embeddings[:1], "middle": embeddings[1:]}[self.options.test_score]
        return functional.normalize(forms.float().transpose(1, 2).flatten(2), dim=2)

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Backbone, head (all necks and classifiers), generator; a projection that learns."""
        groups = {
            "backbone": self.network.parameters(),
            "head": (weights for weights in self.necks.parameters() if weights.requires_grad),
            "generator": self.generator.parameters(),
            "projection": self.projection.parameters() if self.projection is not None else (),
        }
        return {name: members for name, weights in groups.items() if (members := list(weights))}

    def load_pretrained(self, source: str) -> None:
        """Fill both stems and the trunk."""
        self.network.load_pretrained(source)


# Checkpoints of the release: 998 tensors.
FORMAT = "mmn-official"


def renaming_of(options: Options) -> Renaming:
    """Our prefixes and the release's, which counts from 1."""
    generator = [
        (f"generator.brightness.{modality}.{ours}.", f"{theirs}{modality + 1}.")
        for modality in range(len(Modality))
        for ours, theirs in (("encode", "encode"), ("scale", "fc"), ("norm", "bn"))
    ]
    necks = [
        (f"necks.{stripe}.{ours}.", f"{theirs}{stripe + 1}.")
        for stripe in range(options.stripes)
        for ours, theirs in (("norm", "bottleneck"), ("classifier", "classifier"))
    ]
    return (*two_stream_renaming("network."), *generator, ("generator.decode.", "decode."), *necks)


def read_architecture(state: Tensors, place: str) -> tuple[Options, dict[str, Any]]:
    """The number of identities."""
    return Options(), {"num_ids": read_tensor_size(state, "classifier1.weight", place)}


OFFICIAL_FORMATS = {
    FORMAT: OfficialFormat(
        FORMAT, "mmn", Method, Options, read_architecture, renaming_of, "mmn_sysu",
        {206: "mmn_regdb", 713: "mmn_llcm"}, "net", lambda *_: unused_tensors(Options.backbone),
        left_out=("projection.",),
        released=("backbone", "last_stride", "normalisation", "generator_input", "stripes"),
    )
}  # fmt: skip
