"""ABD-Net: attention over channels and over places, and maps and weights that are kept orthogonal.

A shared trunk ends in two copies of its last stage. One is pooled whole; the map of the other is cut into horizontal
strips, each of which goes through a plain head, one with channel attention and one with position attention.

Source: "ABD-Net: Attentive but Diverse Person Re-Identification" (Chen et al., ICCV 2019) and its release,
VITA-Group/ABD-Net.
Differs: vectors for search have unit length, as all of Tapetum's; the release compares raw ones. Power iterations
start at one vector for all pictures of a step, drawn from epoch and step, so that no loss depends on the order of the
batch. A map whose rows cannot be divided evenly is cut into strips that differ by one row. All convolutions of the
trunk are kept orthogonal, as in the paper; the release reaches the first alone (`ow_scope: direct`, as in its recipes).
"""

import copy
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.errors import CheckpointError
from tapetum.core.method import TrainingFacts
from tapetum.core.options import option, require
from tapetum.core.seeding import derive_seed
from tapetum.core.types import Batch
from tapetum.layers.attention import ChannelAttention, PositionAttention
from tapetum.layers.backbones import Maps, build_backbone, load_backbone, pool_average
from tapetum.layers.branch import Features, HeadOutput
from tapetum.layers.normalisation import Normalisation
from tapetum.layers.two_stream import divide_backbone
from tapetum.losses.spectral_gap import spectral_gap
from tapetum.losses.triplet import batch_hard_triplet
from tapetum.methods._official import OfficialFormat, Renaming, Tensors, read_tensor_size
from tapetum.methods._single_branch import BackboneBranch, SingleBranch

SMALL = {  # for tests
    "backbone": "test_resnet", "last_stride": 2, "width": 16,
    "dropout": 0.0, "map_dropout": 0.0, "of_from": 0, "ow_from": 0,
}  # fmt: skip
SHALLOW, STRIPS = "shallow", "strips"  # names of maps
OF_BATCH = 32  # the release's sum over the batch is divided by the batch's size in units of this


@dataclass(frozen=True)
class Options:
    """What a recipe may set under ``method:``. Defaults are the release's, but `ow_scope` is the paper's."""

    backbone: str = option("resnet50", "a plain ResNet or EfficientNet of timm")
    last_stride: int = option(1, "2 halves the last stage's resolution")
    width: int = option(1024, "of the feature of the whole and of each strip", least=2)
    parts: int = option(2, "horizontal strips of the map", least=1)
    shallow_attention: bool = option(True, "channel attention behind the first stage")
    channel_attention: bool = option(True, "a head with channel attention beside the plain one")
    position_attention: bool = option(True, "a head with position attention beside the plain one")
    dropout: float = option(0.5, "of the feature of the whole, in training", least=0, below=1)
    map_dropout: float = option(0.1, "of whole channels of the heads' maps, in training", least=0, below=1)
    label_smoothing: float = option(0.1, "of the cross-entropy", least=0, below=1)
    triplet_weight: float = option(0.1, "of the triplets; 0 switches them off", least=0)
    triplet_margin: float | None = option(1.2, "of the triplets; null: soft margin", least=0)
    of_weight: float = option(1e-6, "beta of the orthogonality of features; 0 switches it off", least=0)
    of_shallow: float = option(0.01, "on that of the map behind the first stage", least=0)
    of_from: int = option(
        33, "first epoch with it, counted from 0; the release's 23 counts from the tenth, when the trunk thaws",
        least=0,
    )  # fmt: skip
    ow_weight: float = option(1e-3, "beta of the orthogonality of weights; 0 switches it off", least=0)
    ow_scope: Literal["all", "direct"] = option(
        "all", "convolutions it keeps orthogonal: the trunk's as in the paper; direct: the stem's, as in the release"
    )
    ow_from: int = option(
        10, "first epoch with it, counted from 0; the release has none while parts stand still", least=0
    )
    power_iterations: int = option(1, "before an eigenvalue is read off", least=1)
    input_scale: float = option(1.0, "pictures in 0..1 are multiplied by this", above=0)
    normalisation: Normalisation = option("imagenet", "of the pictures")
    test_feature: Literal["head", "backbone"] = option(
        "head", "what is searched with: features of whole and strips, or the pooled map before them"
    )


class FeatureHead(nn.Module):
    """A pooled map to a feature and class scores: linear, batch norm, ReLU, dropout; then a classifier.

    Computed in float32 also under autocast.
    """

    def __init__(self, pooled: int, width: int, num_ids: int, dropout: float) -> None:
        super().__init__()
        self.reduction = nn.Sequential(nn.Linear(pooled, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout))
        self.classifier = nn.Linear(width, num_ids)
        _initialise(self)

    def forward(self, feature: Tensor) -> HeadOutput:
        """Embedding and class scores of (B, pooled) features."""
        with torch.autocast(feature.device.type, enabled=False):
            feature = feature.to(torch.promote_types(feature.dtype, torch.float32))
            embedding = self.reduction(feature)
            return HeadOutput(feature, embedding, self.classifier(embedding))


class MapHead(nn.Module):
    """One of a strip's heads: half as many channels, attention, and back to as many as came in.

    Args:
        width: channels of the map.
        attention: from a map of width / 2 channels to one of the same shape.
    """

    def __init__(self, width: int, attention: nn.Module, dropout: float) -> None:
        super().__init__()
        half = width // 2
        self.before = _convolution(width, half)
        self.attention = attention
        self.after = _convolution(half, half)
        self.widen = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(half, width, 1))

    def forward(self, maps: Tensor) -> Tensor:
        """(B, width, h, w) of (B, width, h, w)."""
        seen: Tensor = self.widen(self.after(self.attention(self.before(maps))))
        return seen


class StripsHead(nn.Module):
    """A map to a feature and class scores for each of its horizontal strips; all strips share the heads' weights.

    In training each strip's batch norms take the statistics of that strip alone.
    """

    def __init__(self, options: Options, channels: int, num_ids: int) -> None:
        super().__init__()
        width, dropout = options.width, options.map_dropout
        self.reduction = _convolution(channels, width, kernel=1)
        heads = {"plain": MapHead(width, nn.Identity(), dropout)}
        if options.channel_attention:
            heads["channel"] = MapHead(width, ChannelAttention(), dropout)
        if options.position_attention:
            heads["position"] = MapHead(width, PositionAttention(width // 2), dropout)
        self.heads = nn.ModuleDict(heads)
        self.merge = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(width, width, 1))
        self.classifiers = nn.ModuleList(nn.Linear(width, num_ids) for _ in range(options.parts))
        self.width = width
        _initialise(self)

    def forward(self, maps: Tensor) -> tuple[list[Tensor], list[Tensor], dict[str, Tensor]]:
        """(B, width) features and (B, num_ids) class scores of each strip; in training also the maps before these."""
        features, logits = [], []
        seen: dict[str, Tensor] = {}
        for number, strip in enumerate(self.reduction(maps).tensor_split(len(self.classifiers), 2)):
            made = {name: head(strip) for name, head in self.heads.items()}
            made["merged"] = self.merge(torch.stack(list(made.values())).sum(0))
            feature = pool_average(made["merged"], self.width)
            with torch.autocast(feature.device.type, enabled=False):
                logits.append(self.classifiers[number](feature))
            features.append(feature)
            if self.training:
                seen |= {f"{name}_{number}": value for name, value in made.items()}
        return features, logits, seen


class JoinedHead(nn.Module):
    """Features and class scores of the whole and of each strip; the embedding is their features, joined."""

    def __init__(self, options: Options, channels: int, num_ids: int) -> None:
        super().__init__()
        self.whole = FeatureHead(channels, options.width, num_ids, options.dropout)
        self.strips = StripsHead(options, channels, num_ids)

    def forward(self, features: Features) -> HeadOutput:
        """Scores of all classifiers, the whole's first; in training with the maps that are kept orthogonal."""
        whole: HeadOutput = self.whole(features.whole)
        parts, logits, maps = self.strips(features.maps[STRIPS])
        if self.training:
            maps[SHALLOW] = features.maps[SHALLOW]
        return HeadOutput(
            whole.feature, torch.cat([whole.embedding, *parts], 1), torch.stack([whole.logits, *logits]), maps=maps
        )


class Branch(BackboneBranch):
    """The extractor: the trunk with both copies of its last stage.

    Attributes:
        shallow: attention behind the first stage.
        strip_stage: the last stage's second copy, whose map is cut into strips.

    Raises:
        RecipeError: the backbone has no stages, or its map fewer rows than there are strips.
    """

    options: Options

    def __init__(self, options: Options, facts: TrainingFacts) -> None:
        super().__init__(options, facts)
        _, stages = self._parts()
        self.shallow = ChannelAttention() if options.shallow_attention else nn.Identity()
        self.strip_stage = copy.deepcopy(stages[-1])
        rows = -(-facts.size[0] // (16 * options.last_stride))  # the halvings before the last stage, and its own
        require(
            options.parts <= rows,
            f"method.parts: {options.parts} strips of a map of {rows} row(s); use fewer, or a larger data.size",
        )

    def build_backbone(self, facts: TrainingFacts) -> tuple[nn.Module, Maps]:  # noqa: ARG002
        """A convolutional network."""
        network, width = build_backbone(self.options.backbone, last_stride=self.options.last_stride)
        return network, Maps(width)

    def _parts(self) -> tuple[nn.Sequential, list[nn.Sequential]]:
        stem, stages, _ = divide_backbone(self.backbone, self.options.backbone)
        return stem, stages

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Features:  # noqa: ARG002
        """The pooled map of the first copy, the whole map of the second, and that behind the first stage."""
        stem, (first, *middle, last) = self._parts()
        shallow = trunk = self.shallow(first(stem(images)))
        for stage in middle:
            trunk = stage(trunk)
        return Features(self.gives.pool(last(trunk)), maps={SHALLOW: shallow, STRIPS: self.strip_stage(trunk)})

    def build_head(self, num_ids: int) -> nn.Module:
        """Features and classifiers of the whole and of each strip."""
        return JoinedHead(self.options, self.width, num_ids)

    def build_fused_head(self, width: int, num_ids: int) -> nn.Module:
        """The head of the whole alone."""
        return FeatureHead(width, self.options.width, num_ids, self.options.dropout)

    def losses(self, output: HeadOutput, batch: Batch, head: nn.Module) -> dict[str, Tensor]:  # noqa: ARG002
        """Smoothed cross-entropy and triplets, means over whole and strips; from an epoch on, orthogonality of maps."""
        options, labels = self.options, batch.labels
        scores = output.logits.reshape(-1, *output.logits.shape[-2:])  # (G, B, num_ids)
        smoothing = options.label_smoothing
        losses = {
            "id": functional.cross_entropy(scores.flatten(0, 1), labels.repeat(len(scores)), label_smoothing=smoothing)
        }
        if options.triplet_weight:
            features = output.embedding.chunk(len(scores), 1)
            triplets = [batch_hard_triplet(each, labels, margin=options.triplet_margin) for each in features]
            losses["triplet"] = options.triplet_weight * torch.stack(triplets).mean()
        if options.of_weight and batch.epoch >= options.of_from and output.maps:
            gaps = [self._feature_gap(name, maps, batch) for name, maps in output.maps.items()]
            losses["of"] = options.of_weight * torch.stack(gaps).sum()
        return losses

    def _feature_gap(self, name: str, maps: Tensor, batch: Batch) -> Tensor:
        options = self.options
        starts = draw_starts(name, maps.shape[1], batch, normal=True).to(maps)
        gaps = spectral_gap(maps.flatten(2), starts, iterations=options.power_iterations)
        return OF_BATCH * gaps.mean() * (options.of_shallow if name == SHALLOW else 1 / options.parts)

    def weight_losses(self, batch: Batch) -> dict[str, Tensor]:
        """From an epoch on, orthogonality of the trunk's weights."""
        options = self.options
        if not options.ow_weight or batch.epoch < options.ow_from:
            return {}
        by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for convolution in self._regularised():
            rows = convolution.weight.flatten(1)  # one filter a row
            by_shape[rows.shape].append(rows)
        gaps = []
        for shape, weights in by_shape.items():
            starts = draw_starts("weights", shape[0], batch, normal=False).to(weights[0])
            gaps.append(spectral_gap(torch.stack(weights), starts, iterations=options.power_iterations))
        return {"ow": 10 * options.ow_weight * torch.cat(gaps).square().sum()}

    def _regularised(self) -> list[nn.Conv2d]:
        """Not depthwise ones, whose filters see different channels: those are orthogonal whatever they are."""
        stem, stages = self._parts()
        parts: Sequence[nn.Module] = (stem, *stages, self.strip_stage) if self.options.ow_scope == "all" else (stem,)
        convolutions = [module for part in parts for module in part.modules() if isinstance(module, nn.Conv2d)]
        return [module for module in convolutions if module.groups == 1]

    def load_pretrained(self, source: str) -> None:
        """Fill the backbone; both copies of the last stage start from the same."""
        load_backbone(self.backbone, self.options.backbone, source)
        self.strip_stage.load_state_dict(self._parts()[1][-1].state_dict())


class Method(SingleBranch):
    """One branch and its head."""

    extractor = Branch

    def losses(self, output: HeadOutput, batch: Batch) -> dict[str, Tensor]:
        """Those of the output and of the trunk's weights."""
        return {**super().losses(output, batch), **self.branch.weight_losses(batch)}


def draw_starts(name: str, count: int, batch: Batch, *, normal: bool) -> Tensor:
    """Where two power iterations of a step start, (2, count) float32: the same whatever the pictures and their order.

    Args:
        name: of what they are for.
        batch: its epoch and step are the seed.
        normal: standard normal, or uniform in [0, 1).
    """
    generator = torch.Generator().manual_seed(derive_seed(0, "power iteration", name, batch.epoch, batch.step))
    draw = torch.randn if normal else torch.rand
    return draw(2, count, generator=generator)


def _convolution(channels: int, width: int, *, kernel: int = 3) -> nn.Sequential:
    convolution = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU())


def _initialise(network: nn.Module) -> None:
    """As the release does with whatever ImageNet does not fill."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.weight, mean=1.0, std=0.02)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
        bias = getattr(module, "bias", None)
        if isinstance(bias, Tensor):
            nn.init.zeros_(bias)


# Checkpoints of the release.
LAYOUT = "abd-net-official"
TRUNK = (
    ("conv1.", "common_branch.backbone1.0."),
    ("bn1.", "common_branch.backbone1.1."),
    ("layer1.", "common_branch.backbone1.4."),
    ("layer2.", "common_branch.backbone2.0."),
    ("layer3.", "common_branch.backbone2.1."),
    ("layer4.", "branches.0.0.backbone."),
)
MAP_HEADS = {"plain": "before", "channel": "cam", "position": "pam"}
PARTS_OF_HEAD = (
    ("before.0.", "conv5c.0."),
    ("before.1.", "conv5c.1."),
    ("attention.query.", "attention_module.query_conv."),
    ("attention.key.", "attention_module.key_conv."),
    ("attention.value.", "attention_module.value_conv."),
    ("attention.", "attention_module."),
    ("after.0.", "conv52.0."),
    ("after.1.", "conv52.1."),
    ("widen.1.", "conv7.1."),
)
RENAMING: Renaming = (
    *((f"branch.backbone.{ours}", theirs) for ours, theirs in TRUNK),
    ("branch.shallow.", "common_branch.shallow_cam._cam_module."),
    ("branch.strip_stage.", "branches.1.0.backbone."),
    ("head.whole.reduction.", "branches.0.1.fc."),
    ("head.whole.classifier.", "branches.0.1.classifier."),
    ("head.strips.reduction.", "branches.1.1.reduction."),
    *(
        (f"head.strips.heads.{name}.{ours}", f"branches.1.1.{released}_module.{theirs}")
        for name, released in MAP_HEADS.items()
        for ours, theirs in PARTS_OF_HEAD
    ),
    ("head.strips.merge.", "branches.1.1.sum_conv."),
    ("head.strips.classifiers.", "branches.1.1.classifiers."),
)
FORMER_SHALLOW = "common_branch.shallow_cam._cam_module_abc."  # the same module under its former name


def settle_names(state: Tensors) -> Tensors:
    """The branch of the whole as number 0, that of the strips as 1, and each module once.

    The release numbers its branches by the hash of their names, which differs from process to process; what is in them
    tells which is which.
    """
    turned = "branches.1.1.classifier.weight" in state and "branches.0.1.reduction.0.weight" in state
    other = {"branches.0.": "branches.1.", "branches.1.": "branches.0."} if turned else {}
    settled: dict[str, Tensor] = {}
    for name, tensor in state.items():
        place = name[: len("branches.0.")]
        settled[other.get(place, place) + name.removeprefix(place)] = tensor
    for name in [name for name in settled if name.startswith(FORMER_SHALLOW)]:
        settled.setdefault(name.replace("_cam_module_abc.", "_cam_module."), settled[name])
        del settled[name]
    return settled


def read_architecture(state: Tensors, place: str) -> tuple[Options, dict[str, Any]]:
    """Identities, width, strips, and which attention there is."""
    num_ids = read_tensor_size(state, "branches.0.1.classifier.weight", place)
    width = read_tensor_size(state, "branches.1.1.reduction.0.weight", place)
    parts = sum(name.startswith("branches.1.1.classifiers.") and name.endswith(".weight") for name in state)
    if not parts:
        raise CheckpointError(f"{place}: there is no strip's classifier; supply a checkpoint in this layout")
    options = Options(
        width=width,
        parts=parts,
        shallow_attention=any(name.startswith("common_branch.shallow_cam.") for name in state),
        channel_attention=any(name.startswith("branches.1.1.cam_module.") for name in state),
        position_attention=any(name.startswith("branches.1.1.pam_module.") for name in state),
    )
    return options, {"num_ids": num_ids}


OFFICIAL_FORMATS = {
    LAYOUT: OfficialFormat(
        LAYOUT, "abd_net", Method, Options, read_architecture, lambda _: RENAMING, "abd_net_market1501",
        key="state_dict",
        released=("backbone", "last_stride", "input_scale", "normalisation"),
        settle=settle_names, scores={"rank1": 0.0},
    )
}  # fmt: skip
