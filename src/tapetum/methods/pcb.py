"""PCB, the part-based convolutional baseline: each horizontal stripe of a picture is described and classified apart.

Source: "Beyond Part Models: Person Retrieval with Refined Part Pooling" (Sun et al., ECCV 2018). The default is the
form of layumi/Person_reID_baseline_pytorch, which the IDF paper most likely compares with. The authors' own release,
syfafterzy/PCB_RPP_for_reID, is ``reduction: shared``; refined part pooling, its second stage, ``pooling: refined``.
Differs: the backbone's dead 1000-way ImageNet classifier is not built; exported checkpoints hold it as zeros. Refined
pooling also goes with layumi's heads, which have none there. The authors do not search with the mirror; where a
recipe asks for it, raw parts are summed as in layumi's code.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.errors import RecipeError
from tapetum.core.method import TrainingFacts
from tapetum.core.options import option
from tapetum.core.types import Batch
from tapetum.core.vectors import normalise
from tapetum.layers.backbones import Maps, build_backbone, check_maps
from tapetum.layers.branch import Features, HeadOutput, whole_of
from tapetum.layers.normalisation import Normalisation
from tapetum.layers.pooling import pool_stripes
from tapetum.methods._official import OfficialFormat, Renaming, Tensors, read_tensor_size
from tapetum.methods._single_branch import BackboneBranch, SingleBranch
from tapetum.methods.ide import ClassBlock, dead_classifiers, head_renaming

SMALL = {"backbone": "test_resnet", "last_stride": 2, "part_width": 16, "dropout": 0.0}  # for tests
LATER_STAGE = ("part_classifier",)  # refined pooling may begin with a run of plain stripes


@dataclass(frozen=True)
class Options:
    """What a recipe may set under ``method:``."""

    backbone: str = option("resnet50", "a timm model that gives maps")
    last_stride: int = option(1, "2 halves the last stage's resolution")
    parts: int = option(6, "described and classified apart, from head to foot", least=1)
    pooling: Literal["stripes", "refined"] = option(
        "stripes", "of equal height; or parts that a classifier of places finds (second stage)"
    )
    reduction: Literal["each", "shared"] = option(
        "each", "each part's own (layumi); or one for all, with a ReLU behind (authors)"
    )
    part_width: int = option(256, "of a part behind the reduction", least=1)
    dropout: float = option(0.5, "before each reduction, and of layumi's also behind it", least=0, below=1)
    classifier_std: float = option(0.001, "initial weights; later layumi releases use 0.0001", least=0)
    input_scale: float = option(1.0, "pictures in 0..1 are multiplied by this", above=0)
    normalisation: Normalisation = option("imagenet", "of the pictures")
    test_feature: Literal["backbone", "head"] = option(
        "backbone", "searched with: the parts as they are pooled (ResNet-50: 12288 numbers), or reduced (1536)"
    )


class PartClassifier(nn.Module):
    """Refined part pooling: to which part each place of a map belongs, and the average of each part's places.

    With c the map averaged over groups of channels, less its mean over all places: the shares of a place are
    softmax(W c + b), they add up to one, and part p is the mean over all places of parts * share_p * map.

    Source: the authors' release; its dropout is on what the shares are computed from.
    """

    def __init__(self, width: int, parts: int, *, channels: int, dropout: float) -> None:
        super().__init__()
        if width % channels:
            raise RecipeError(
                f"method.part_width: {channels} does not divide the backbone's {width} channels, which refined pooling "
                "averages in groups; choose one that does"
            )
        self.channels = channels
        self.dropout = nn.Dropout(dropout)
        self.shares = nn.Conv2d(channels, parts, 1)
        nn.init.kaiming_normal_(self.shares.weight, mode="fan_out")
        nn.init.zeros_(self.shares.bias)  # type: ignore[arg-type]

    def compute_shares(self, maps: Tensor) -> Tensor:
        """(B, parts, h, w) float32 (or better, as the map comes), which add up to one at each place."""
        kind = torch.promote_types(maps.dtype, torch.float32)
        grouped = self.dropout(maps).unflatten(1, (self.channels, -1)).mean(2, dtype=kind)
        with torch.autocast(maps.device.type, enabled=False):
            shares: Tensor = self.shares(grouped - grouped.mean((2, 3), keepdim=True))
            return shares.softmax(1)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, parts, C) of (B, C, h, w), float32 (or better, as the map comes)."""
        shares = self.compute_shares(maps).flatten(2)
        with torch.autocast(maps.device.type, enabled=False):
            parts = shares @ maps.to(shares.dtype).flatten(2).transpose(1, 2)
        return parts * (shares.shape[1] / shares.shape[2])


@dataclass(frozen=True)
class PartsOutput(HeadOutput):
    """What a head of parts makes of their features; no classifier looks at the whole."""

    @property
    def first_logits(self) -> Tensor:
        """(B, num_ids) class scores of the whole picture: the mean of the parts'."""
        return self.logits.mean(0)


def _parts_of(feature: Tensor | Features) -> Tensor:
    """(B, parts, width); a fused feature is one part."""
    return cast(Tensor, feature.parts) if isinstance(feature, Features) else feature[:, None]


def _join(feature: Tensor | Features, reduced: Tensor, logits: Sequence[Tensor]) -> PartsOutput:
    """Of the parts: (B, parts, part_width) behind the reduction, and class scores."""
    parts = _parts_of(feature)
    return PartsOutput(whole_of(feature), reduced.flatten(1), torch.stack(list(logits)), parts=parts)


class SeparateHead(nn.Module):
    """Dropout, then a reduction, norm and classifier for each part. The embedding is the normed parts, joined.

    Source: layumi's release, class "PCB".
    """

    def __init__(self, width: int, num_ids: int, options: Options) -> None:
        super().__init__()
        self.dropout = nn.Dropout(options.dropout)
        self.blocks = nn.ModuleList(
            ClassBlock(
                width,
                num_ids,
                embedding_width=options.part_width,
                dropout=options.dropout,
                classifier_std=options.classifier_std,
            )
            for _ in range(options.parts)
        )

    def forward(self, feature: Tensor | Features) -> PartsOutput:
        """Embedding and class scores of (B, parts, width), or of (B, width) as one part."""
        parts = self.dropout(_parts_of(feature)).unbind(1)
        made = [block(part) for block, part in zip(self.blocks, parts, strict=True)]
        return _join(feature, torch.stack([each.embedding for each in made], 1), [each.logits for each in made])


class SharedHead(nn.Module):
    """Dropout, one reduction and norm for all parts, ReLU, a classifier for each. The embedding is the normed parts.

    Computed in float32 also under autocast.

    Source: the authors' release.
    """

    def __init__(self, width: int, num_ids: int, options: Options) -> None:
        super().__init__()
        self.dropout = nn.Dropout(options.dropout)
        self.reduce = nn.Conv2d(width, options.part_width, 1, bias=False)
        self.norm = nn.BatchNorm2d(options.part_width)
        self.classifiers = nn.ModuleList(nn.Linear(options.part_width, num_ids) for _ in range(options.parts))
        nn.init.kaiming_normal_(self.reduce.weight, mode="fan_out")
        for classifier in self.classifiers:
            nn.init.normal_(classifier.weight, std=options.classifier_std)  # type: ignore[arg-type]
            nn.init.zeros_(classifier.bias)  # type: ignore[arg-type]

    def forward(self, feature: Tensor | Features) -> PartsOutput:
        """Embedding and class scores of (B, parts, width), or of (B, width) as one part."""
        parts = _parts_of(feature)
        with torch.autocast(parts.device.type, enabled=False):
            column = self.dropout(parts).transpose(1, 2)[..., None]  # (B, width, parts, 1)
            reduced = self.norm(self.reduce(column)).squeeze(3).transpose(1, 2)
            seen = reduced.relu().unbind(1)
            return _join(feature, reduced, [score(part) for score, part in zip(self.classifiers, seen, strict=True)])


class Branch(BackboneBranch):
    """The extractor: backbone and parts (see `tapetum.layers.branch`).

    Attributes:
        part_classifier: None without refined pooling.
    """

    options: Options

    def __init__(self, options: Options, facts: TrainingFacts) -> None:
        super().__init__(options, facts)
        self.part_classifier = (
            PartClassifier(self.width, options.parts, channels=options.part_width, dropout=options.dropout)
            if options.pooling == "refined"
            else None
        )

    def build_backbone(self, facts: TrainingFacts) -> tuple[nn.Module, Maps]:  # noqa: ARG002
        """A convolutional network."""
        network, width = build_backbone(self.options.backbone, last_stride=self.options.last_stride)
        return network, Maps(width)

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Features:  # noqa: ARG002
        """Parts, (B, parts, width), and their mean: the average of all places, unless two stripes share a row."""
        maps: Tensor = self.backbone(images)
        check_maps(maps, self.width)
        parts = pool_stripes(maps, self.options.parts) if self.part_classifier is None else self.part_classifier(maps)
        return Features(parts.mean(1), parts)

    def build_head(self, num_ids: int) -> nn.Module:
        """A classifier for each part."""
        return self._build(self.width, num_ids, self.options)

    def build_fused_head(self, width: int, num_ids: int) -> nn.Module:
        """The head of one part, for a feature without any."""
        return self._build(width, num_ids, replace(self.options, parts=1))

    def _build(self, width: int, num_ids: int, options: Options) -> nn.Module:
        return (SeparateHead if options.reduction == "each" else SharedHead)(width, num_ids, options)

    def losses(self, output: HeadOutput, batch: Batch, head: nn.Module) -> dict[str, Tensor]:  # noqa: ARG002
        """The sum of all classifiers' cross-entropies."""
        scores = output.logits  # (parts, B, num_ids)
        labels = batch.labels.repeat(len(scores))
        return {"id": len(scores) * functional.cross_entropy(scores.flatten(0, 1), labels)}


class Method(SingleBranch):
    """One branch and its head. Parts count alike in a search: each is of unit length before they are joined."""

    extractor = Branch

    def describe(self, output: HeadOutput) -> Tensor:
        """The raw parts, (B, parts, width of one)."""
        if self.options.test_feature == "backbone":
            return cast(Tensor, output.parts)
        return output.embedding.reshape(-1, self.options.parts, self.options.part_width)

    def scale(self, vectors: Tensor) -> Tensor:
        """Raw parts, each of unit length, joined channel by channel."""
        return normalise(functional.normalize(vectors, dim=2).transpose(1, 2).flatten(1))

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Backbone, head, and what finds refined parts."""
        found = self.branch.part_classifier
        more = {} if found is None else {"part_classifier": list(found.parameters())}
        return {"backbone": list(self.branch.backbone.parameters()), "head": list(self.head.parameters())} | more


# Checkpoints of both releases.
LAYUMI, AUTHORS = "pcb-official", "pcb-rpp-official"


def renaming_of_layumi(options: Options) -> Renaming:
    """Our prefixes and layumi's."""
    heads = (head_renaming(f"head.blocks.{part}.", f"classifier{part}.") for part in range(options.parts))
    return (("branch.backbone.", "model."), *(entry for each in heads for entry in each))


def renaming_of_authors(options: Options) -> Renaming:
    """Our prefixes and the authors'."""
    return (
        ("branch.backbone.", "base."),
        ("branch.part_classifier.shares.", "local_mask."),
        ("head.reduce.", "local_conv."),
        ("head.norm.", "feat_bn2d."),
        *((f"head.classifiers.{part}.", f"instance{part}.") for part in range(options.parts)),
    )


def read_layumi(state: Tensors, place: str) -> tuple[Options, dict[str, Any]]:
    """Identities, parts and their width."""
    num_ids = read_tensor_size(state, "classifier0.classifier.0.weight", place)
    width = read_tensor_size(state, "classifier0.add_block.0.weight", place)
    return Options(parts=_count(state, "classifier{}.classifier.0.weight"), part_width=width), {"num_ids": num_ids}


def read_authors(state: Tensors, place: str) -> tuple[Options, dict[str, Any]]:
    """Identities, parts, their width, and whether they are refined."""
    num_ids = read_tensor_size(state, "instance0.weight", place)
    width = read_tensor_size(state, "local_conv.weight", place)
    options = Options(
        parts=_count(state, "instance{}.weight"),
        part_width=width,
        reduction="shared",
        pooling="refined" if "local_mask.weight" in state else "stripes",
    )
    return options, {"num_ids": num_ids}


def _count(state: Tensors, name: str) -> int:
    number = 0
    while name.format(number) in state:
        number += 1
    return number


OFFICIAL_FORMATS = {
    LAYUMI: OfficialFormat(
        LAYUMI, "pcb", Method, Options, read_layumi, renaming_of_layumi, "pcb_night600", {751: "pcb_market1501"},
        unused=lambda *_: dead_classifiers("model."), needs_unused=("",),
        released=("last_stride", "pooling", "reduction", "input_scale", "normalisation"),
    ),
    AUTHORS: OfficialFormat(
        AUTHORS, "pcb", Method, Options, read_authors, renaming_of_authors, "pcb_shared_market1501",
        key="state_dict", scores={"best_top1": 0.0}, unused=lambda *_: dead_classifiers("base."),
        released=("last_stride", "input_scale", "normalisation"),
    ),
}  # fmt: skip
