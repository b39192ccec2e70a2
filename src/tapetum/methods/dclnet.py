"""DCLNet: places of a visible and of an infrared map of one person are compared, by parts that the network finds.

Source: "Not All Pixels Are Matched: Dense Contrastive Learning for Cross-Modality Person Re-Identification" (Sun et
al., ACM MM 2022) and its release, sunhz0117/DCLNet.
Differs: the sum that the release trains is cross-entropy and centres alone; its other four terms stand beside it,
switched off. All are on here, with the weight 1 that they have there; ``released`` gives the sum of the release. Also
- pictures come in any order, in one batch. Which visible and infrared picture of a person are compared is drawn by what
  they are; the release pairs those drawn in the same place. ``pairs`` "all" is ours;
- everybody in the batch is an anchor of the centres' distances; the release's are every eighth row, which leaves some
  people out;
- stripes share a row where they do not divide the map's height;
- a stripe's activation is taken at all places of the last map, enlarged, and compared with its mean over the stripe.
  The release scales it to 0..1 first, which moves no place across that mean unless rows of two stripes are mixed;
- the pixel head scores each level and enlarges the scores, where the release enlarges and joins the levels' maps;
- how corners are aligned in enlarging and how the heads' weights begin (normal, deviation 0.001) we do not know either;
- a place counts as erased where all pixels over it are. How the release shrinks that mask we do not know.
Mirrored pictures are not part of its test; where a recipe asks for them, raw vectors are summed.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.lots import draw_tickets
from tapetum.core.method import TrainingFacts
from tapetum.core.options import option
from tapetum.core.types import Batch, Modality
from tapetum.layers.bnneck import BNNeck
from tapetum.layers.branch import HeadOutput
from tapetum.layers.normalisation import Normalisation, Normalise
from tapetum.layers.pooling import EPS, pool_gem, pool_stripes
from tapetum.layers.two_stream import TwoStream, apply_by_modality, divide_backbone
from tapetum.layers.winograd import use_winograd
from tapetum.losses.centre_cluster import cluster_around_centres
from tapetum.losses.pairs import PAIRING, Pairing, pair_across
from tapetum.losses.place_contrast import COLDEST, contrast_places
from tapetum.methods._mirrored import Mirrored

SMALL = {"backbone": "test_efficientnet"}  # for tests: its last maps are no single places
TRAINING_ONLY = ("part_head", "pixel_head")  # a training may begin with a checkpoint without them
LEVELS = ("stem", "stage1", "stage2", "stage3", "stage4")  # whose maps the pixel head reads
COMPARED, LAST = "stage1", "stage4"  # whose places are compared, and whose stripes are classified
POWER = 3.0  # of the generalised means
ERASED = 1e-5  # magnitude of a normalised pixel below which it is zero


@dataclass(frozen=True)
class Options:
    """What a recipe may set under ``method:``."""

    backbone: str = option("resnet50", "a plain ResNet or EfficientNet of timm")
    last_stride: int = option(1, "2 halves the last stage's resolution")
    normalisation: Normalisation = option("imagenet", "of pictures in 0..1")
    centre_weight: float = option(1.0, "of gathering around centres that stay apart; 0 switches the term off", least=0)
    centre_margin: float = option(0.7, "distance below which two people's centres are too close", least=0)
    released: bool = option(
        False, "the sum of the released code: cross-entropy and centres; the parts and places below count for nothing"
    )
    parts: int = option(6, "horizontal stripes, by which places are told apart", least=2)
    part_weight: float = option(1.0, "of cross-entropy of the stripes together, which trains their head alone", above=0)
    pixel_weight: float = option(
        1.0, "of cross-entropy of each place against what the stripes say, which trains the pixel head alone", above=0
    )
    continuity_weight: float = option(1.0, "of the difference of neighbours in the pixel head's scores", least=0)
    contrast_weight: float = option(1.0, "of the contrast of places across modalities", least=0)
    pairs: Pairing = option("lot", f"pictures whose places are compared; {PAIRING}")
    temperature: float = option(0.05, "of that contrast", least=COLDEST)
    test_feature: Literal["head", "backbone"] = option("head", "searched with: behind the neck, or before it")


class OwnFirstStage(TwoStream):
    """A two-stream network whose first stage, like its stem, exists once for each modality.

    Attributes:
        firsts: by modality number; `stages` are the other three.
    """

    def __init__(self, backbone: str, *, last_stride: int = 1) -> None:
        super().__init__(backbone, last_stride=last_stride)
        second = divide_backbone(self._build(), backbone)[1][0]
        use_winograd(second)
        self.firsts = nn.ModuleList([self.stages.pop(0), second])

    def compute_levels(self, images: Tensor, modalities: Tensor) -> Iterator[Tensor]:
        """The maps of `LEVELS`, one after the other, each in the order of the batch."""
        maps = self.stem(images, modalities)
        yield maps
        maps = apply_by_modality(self.firsts, maps, modalities)
        yield maps
        for stage in self.stages:
            maps = stage(maps)
            yield maps

    def compute_last(self, images: Tensor, modalities: Tensor) -> Tensor:
        """The last of these, without keeping the others."""
        return deque(self.compute_levels(images, modalities), maxlen=1).pop()

    def forward(self, images: Tensor, modalities: Tensor) -> Tensor:
        """Stem and all stages."""
        return self.compute_last(images, modalities)

    def _fill(self, filled: nn.Module, stages: list[nn.Sequential]) -> None:
        for first in self.firsts:
            first.load_state_dict(stages[0].state_dict())
        super()._fill(filled, stages[1:])


class PixelHead(nn.Module):
    """Scores of each place from the maps of all levels: two of background and foreground, and one for each part.

    Each modality has its own weights. A linear layer of joined maps is the sum of linear layers of each, and commutes
    with enlarging: levels are scored where they are, and the scores enlarged.

    Args:
        widths: channels of each level.
    """

    def __init__(self, widths: tuple[int, ...], parts: int) -> None:
        super().__init__()
        self.widths = widths
        self.weight = nn.Parameter(torch.empty(len(Modality), 2 + parts, sum(widths)))
        nn.init.normal_(self.weight, std=0.001)

    def forward(self, levels: list[Tensor], modalities: Tensor, size: torch.Size) -> Tensor:
        """(B, 2 + parts, h, w) scores at a size (h, w), from maps (B, C, h', w') of each level."""
        scores = [
            _resize(_multiply(weights, maps), size)
            for weights, maps in zip(
                torch.split(self.weight[modalities], list(self.widths), dim=2), levels, strict=True
            )
        ]
        return torch.stack(scores).sum(0)


def _multiply(weights: Tensor, maps: Tensor) -> Tensor:
    return torch.einsum("bpc,bchw->bphw", weights, maps)


def _resize(maps: Tensor, size: torch.Size) -> Tensor:
    if maps.shape[2:] == size:
        return maps
    return functional.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def find_parts(maps: Tensor, weights: Tensor, size: torch.Size) -> Tensor:
    """Where each stripe shows what it is recognised by: above the mean of its class activation.

    The activation of stripe s at a place is the product of the place's vector and weights[:, s], enlarged. Stripe s of
    S has the rows r for which floor(r S / h) is s.

    Args:
        maps: (B, C, h', w').
        weights: (B, S, C) of each picture's class, on each stripe.
        size: (h, w) of the result.
    Returns:
        (B, h, w) int64: s + 1 in the foreground of stripe s, otherwise 0.
    """
    count, (height, width) = weights.shape[1], size
    activation = _resize(_multiply(weights, maps), size)
    rows = torch.arange(height, device=maps.device)
    stripe = rows * count // height
    activation = activation[:, stripe, rows]  # (B, h, w), of each row's own stripe
    members = functional.one_hot(stripe, count).to(activation.dtype)
    means = activation.mean(2) @ (members / members.sum(0).clamp(min=1))  # (B, S)
    return (activation > means[:, stripe, None]) * (stripe + 1)[:, None].expand(height, width)


def find_erased(images: Tensor, size: torch.Size) -> Tensor:
    """(B, h, w) bool, of places over which all pixels of a normalised picture, (B, 3, H, W), are zero."""
    kept = (images.abs() > ERASED).any(1, keepdim=True)
    return functional.adaptive_max_pool2d(kept.to(images.dtype), tuple(size))[:, 0] == 0


def predict_parts(scores: Tensor) -> Tensor:
    """(B, h, w) int64 part of each place by a pixel head's (B, 2 + parts, h, w) scores, from 1; 0 is background."""
    return scores[:, :2].argmax(1) * (scores[:, 2:].argmax(1) + 1)


def score_pixels(scores: Tensor, parts: Tensor) -> Tensor:
    """Cross-entropy of background against foreground at all places, and of parts at those of the foreground.

    Args:
        scores: (B, 2 + parts, h, w).
        parts: (B, h, w) int64 from 1; 0 is background.
    """
    ground = functional.cross_entropy(scores[:, :2], parts.sign())
    which = functional.cross_entropy(scores[:, 2:], parts - 1, ignore_index=-1, reduction="sum")
    return ground + which / parts.sign().sum().clamp(min=1)


def score_continuity(scores: Tensor) -> Tensor:
    """Half the mean difference of neighbours above each other, and half of those side by side, of (B, P, h, w)."""
    differences = [scores.diff(dim=dim).abs() for dim in (2, 3)]
    return 0.5 * torch.stack([each.sum() / max(each.numel(), 1) for each in differences]).sum()


class Method(Mirrored):
    """Two stems and first stages, three shared stages, generalised mean, BNNeck; two heads beside it in training.

    Attributes:
        part_head, pixel_head: None where the sum of the release is trained.
    """

    part_head: BNNeck | None
    pixel_head: PixelHead | None

    def __init__(self, options: Options, facts: TrainingFacts) -> None:
        super().__init__()
        self.options = options
        self.num_ids = facts.num_ids
        self.normalise = Normalise(options.normalisation)
        self.network = OwnFirstStage(options.backbone, last_stride=options.last_stride)
        widths = self.network.widths
        self.width = widths[-1]
        self.head = BNNeck(self.width, facts.num_ids)
        self.part_head = self.pixel_head = None
        if not options.released:
            self.part_head = BNNeck(options.parts * self.width, facts.num_ids)
            self.pixel_head = PixelHead(widths, options.parts)

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor) -> HeadOutput:  # noqa: ARG002
        """Pooled feature, embedding and class scores of pictures of both modalities in any order.

        ``maps`` has what the heads of the training read: the maps of `LEVELS`, of which those that are `COMPARED` alone
        send gradients back. It is empty where the sum of the release is trained.
        """
        levels = tuple(self.network.compute_levels(self.normalise(images), modalities))
        output: HeadOutput = self.head(pool_gem(levels[-1], POWER))
        if self.options.released:
            return output
        kept = {name: maps if name == COMPARED else maps.detach() for name, maps in zip(LEVELS, levels, strict=True)}
        return HeadOutput(output.feature, output.embedding, output.logits, maps=kept)

    def losses(self, output: HeadOutput, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy and centres; of parts and places four more, unless the sum of the release is trained.

        Raises:
            TrainingError: the batch shows one identity only, or nobody in both modalities.
        """
        options = self.options
        losses = {"id": functional.cross_entropy(output.logits, batch.labels)}
        if options.centre_weight:
            clustering = cluster_around_centres(output.feature, batch.labels, margin=options.centre_margin)
            losses["centre_cluster"] = options.centre_weight * clustering
        if self.part_head is None or self.pixel_head is None:
            return losses
        part_scores, target = self._find_targets(output.maps, self.part_head)
        size = output.maps[COMPARED].shape[2:]
        erased = find_erased(self.normalise(batch.images), size)
        levels = [output.maps[name].detach() for name in LEVELS]
        scores = self.pixel_head(levels, batch.modalities, size)
        losses["part"] = options.part_weight * functional.cross_entropy(part_scores, batch.labels)
        losses["pixel"] = options.pixel_weight * score_pixels(scores, target.masked_fill(erased, 0))
        if options.continuity_weight:
            losses["continuity"] = options.continuity_weight * score_continuity(scores)
        if options.contrast_weight:
            predicted = predict_parts(scores).masked_fill(erased, 0)
            lots = draw_tickets(batch) if options.pairs == "lot" else None
            pairs = pair_across(batch.labels, batch.modalities, lots=lots, owner="dclnet.contrast_weight")
            contrast = contrast_places(output.maps[COMPARED], predicted, pairs, temperature=options.temperature)
            losses["contrast"] = options.contrast_weight * contrast
        return losses

    def _find_targets(self, maps: Mapping[str, Tensor], head: BNNeck) -> tuple[Tensor, Tensor]:
        """Class scores of the stripes together, (B, num_ids), and the part of each place that they tell, (B, h, w)."""
        last = maps[LAST]
        stripes = pool_stripes(last.clamp(min=0).pow(POWER), self.options.parts).add(EPS).pow(1 / POWER)
        scores = head(stripes.flatten(1)).logits
        weights = head.classifier.weight.detach()[scores.argmax(1)]
        by_stripe = weights.reshape(len(weights), self.options.parts, self.width)
        return scores, find_parts(last, by_stripe, maps[COMPARED].shape[2:])

    def compute_vectors(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Tensor:  # noqa: ARG002
        """Feature or embedding of pictures, (B, D), without the maps that training asks for."""
        # Not the network's own call, of which `forward` makes none: what looks at layers finds the same ones in both.
        last = self.network.compute_last(self.normalise(images), modalities)
        return self.describe(self.head(pool_gem(last, POWER)))

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """The network as the backbone; neck, classifier and the part head as the head; the pixel head."""
        heads = [self.head, *([] if self.part_head is None else [self.part_head])]
        trained = [weights for head in heads for weights in head.parameters() if weights.requires_grad]
        groups = {"backbone": list(self.network.parameters()), "head": trained}
        return groups if self.pixel_head is None else {**groups, "pixel_head": list(self.pixel_head.parameters())}

    def load_pretrained(self, source: str) -> None:
        """Fill both stems, both first stages and the shared ones."""
        self.network.load_pretrained(source)
