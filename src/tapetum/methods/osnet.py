"""OSNet: a small network whose blocks look at four scales at once, and weigh them channel by channel.

Source: "Omni-Scale Feature Learning for Person Re-Identification" (Zhou et al., ICCV 2019), with instance norms (ain)
"Learning Generalisable Omni-Scale Representations for Person Re-Identification" (Zhou et al., TPAMI 2021), and their
release, KaiyangZhou/deep-person-reid (torchreid).
Differs: vectors for search are of unit length, which is how torchreid compares those of ain; its others it compares as
they come. torchreid does not search with the mirror; where a recipe asks for it, raw vectors are summed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.errors import CheckpointError
from tapetum.core.method import TrainingFacts
from tapetum.core.options import option, require
from tapetum.core.types import Batch
from tapetum.layers.backbones import Maps
from tapetum.layers.branch import HeadOutput
from tapetum.layers.normalisation import Normalisation
from tapetum.layers.weights import check_tensors, read_state
from tapetum.methods._official import STEPS, OfficialFormat, Renaming, Tensors, read_tensor_size, to_theirs
from tapetum.methods._single_branch import BackboneBranch, SingleBranch

SMALL = {"width": 0.25}  # for tests
Form = Literal["plain", "ibn", "ain"]
Instance = Literal["nowhere", "inside", "behind"]  # of a block's residual, or of its sum

CHANNELS = (64, 256, 384, 512)  # of the stem and the stages, at width 1
NARROWING, GATE_NARROWING, SCALES, BLOCKS = 4, 16, 4, 2
WIDTH_STEP = 0.25  # the narrowest gate then has one channel
# Where instance norms stand: for each stage that of its blocks.
INSTANCES: dict[Form, tuple[tuple[Instance, Instance], ...]] = {
    "plain": (("nowhere", "nowhere"),) * 3,
    "ibn": (("behind", "behind"), ("nowhere", "nowhere"), ("nowhere", "nowhere")),
    "ain": (("inside", "inside"), ("nowhere", "inside"), ("inside", "nowhere")),
}


@dataclass(frozen=True)
class Options:
    """What a recipe may set under ``method:``."""

    width: float = option(1.0, "on the channels of all layers but the embedding; a multiple of 0.25", least=WIDTH_STEP)
    form: Form = option("plain", "without instance norms; with them at the beginning (ibn), or where a search put them")
    embedding_width: int = option(512, "of the vector that is searched with", least=1)
    label_smoothing: float = option(0.1, "share of the target that goes to all classes alike", least=0, below=1)
    input_scale: float = option(1.0, "pictures in 0..1 are multiplied by this", above=0)
    normalisation: Normalisation = option("imagenet", "of the pictures")
    test_feature: Literal["head", "backbone"] = option(
        "head", "searched with: the embedding, or the pooled map before it"
    )


def name_network(options: Options) -> str:
    """As torchreid calls it, e.g. "osnet_x0_5", "osnet_ain_x1_0"."""
    form = "" if options.form == "plain" else f"{options.form}_"
    return f"osnet_{form}x{options.width}".replace(".", "_")


class NormedConvolution(nn.Module):
    """A convolution without bias that keeps the size (at a stride of 1), a norm, and a ReLU unless it is linear."""

    def __init__(
        self,
        width: int,
        channels: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        linear: bool = False,
        instance: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, channels, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.norm = nn.InstanceNorm2d(channels, affine=True) if instance else nn.BatchNorm2d(channels)
        self.linear = linear

    def forward(self, maps: Tensor) -> Tensor:
        """(B, channels, h / stride, w / stride)."""
        normed: Tensor = self.norm(self.conv(maps))
        return normed if self.linear else normed.relu()


class LightConvolution(nn.Module):
    """A 3 x 3 convolution in two: all channels at a place, then each channel over its places; norm and ReLU behind."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.point = nn.Conv2d(width, width, 1, bias=False)
        self.depth = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, width, h, w)."""
        normed: Tensor = self.norm(self.depth(self.point(maps)))
        return normed.relu()


class ScaleGate(nn.Module):
    """How much each channel of a scale counts in a picture: from its average over all places, 0 to 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(width, width // GATE_NARROWING, 1)
        self.widen = nn.Conv2d(width // GATE_NARROWING, width, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """The maps, weighed."""
        shares = self.widen(self.narrow(maps.mean((2, 3), keepdim=True)).relu()).sigmoid()
        weighed: Tensor = maps * shares
        return weighed


class OmniScaleBlock(nn.Module):
    """A residual of four scales: scale t sees 2t + 1 places across, and one gate weighs them all.

    Args:
        instance: where an instance norm stands: "inside", in place of the residual's last norm; "behind" the sum.
    """

    def __init__(self, width: int, channels: int, instance: Instance) -> None:
        super().__init__()
        middle = channels // NARROWING
        self.reduce = NormedConvolution(width, middle)
        self.scales = nn.ModuleList(
            nn.Sequential(*(LightConvolution(middle) for _ in range(1 + scale))) for scale in range(SCALES)
        )
        self.gate = ScaleGate(middle)
        self.expand = NormedConvolution(middle, channels, linear=True, instance=instance == "inside")
        self.shortcut = nn.Identity() if width == channels else NormedConvolution(width, channels, linear=True)
        self.norm = nn.InstanceNorm2d(channels, affine=True) if instance == "behind" else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """(B, channels, h, w)."""
        reduced = self.reduce(maps)
        seen = torch.stack([self.gate(scale(reduced)) for scale in self.scales]).sum(0)
        total: Tensor = self.norm(self.expand(seen) + self.shortcut(maps))
        return total.relu()


class OmniScaleNetwork(nn.Module):
    """Stem, three stages of two blocks with a halving behind each but the last, and a convolution of places.

    Computed in float32 also under autocast: what bfloat16 rounds at each of so many thin layers adds up, until vectors
    of the same picture point elsewhere.

    Attributes:
        width: channels of the maps that it gives, at a sixteenth of the pictures' size.
    """

    def __init__(self, options: Options) -> None:
        super().__init__()
        stem, *channels = (int(options.width * number) for number in CHANNELS)
        self.stem = NormedConvolution(3, stem, 7, stride=2, instance=options.form != "plain")
        self.stages = nn.ModuleList()
        for width, wider, instances in zip([stem, *channels], channels, INSTANCES[options.form], strict=False):
            first, second = instances
            self.stages.append(nn.Sequential(OmniScaleBlock(width, wider, first), OmniScaleBlock(wider, wider, second)))
        self.halvings = nn.ModuleList(NormedConvolution(width, width) for width in channels[:-1])
        self.width = channels[-1]
        self.last = NormedConvolution(self.width, self.width)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        """(B, width, h / 16, w / 16)."""
        with torch.autocast(images.device.type, enabled=False):
            images = images.to(torch.promote_types(images.dtype, torch.float32))
            maps = functional.max_pool2d(self.stem(images), 3, stride=2, padding=1)
            for number, stage in enumerate(self.stages):
                maps = stage(maps)
                if number < len(self.halvings):
                    maps = functional.avg_pool2d(self.halvings[number](maps), 2)
            last: Tensor = self.last(maps)
            return last


class ReducedHead(nn.Module):
    """Linear layer, batch norm and ReLU make the embedding; a classifier with bias reads it.

    Computed in float32 also under autocast.
    """

    def __init__(self, width: int, num_ids: int, *, embedding_width: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(width, embedding_width)
        self.norm = nn.BatchNorm1d(embedding_width)
        self.classifier = nn.Linear(embedding_width, num_ids)
        for layer in (self.reduce, self.classifier):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, feature: Tensor) -> HeadOutput:
        """Embedding and class scores of (B, width) features."""
        with torch.autocast(feature.device.type, enabled=False):
            feature = feature.float()
            embedding = self.norm(self.reduce(feature)).relu()
            return HeadOutput(feature, embedding, self.classifier(embedding))


class Branch(BackboneBranch):
    """The extractor: the network and the average of its map (see `tapetum.layers.branch`).

    Raises:
        RecipeError: there is no network of this width.
    """

    options: Options

    def build_backbone(self, facts: TrainingFacts) -> tuple[nn.Module, Maps]:  # noqa: ARG002
        """The network."""
        width = self.options.width
        require(
            width % WIDTH_STEP == 0,
            f"method.width: {width} is no multiple of {WIDTH_STEP}; the published ones are 1, 0.75, 0.5 and 0.25",
        )
        network = OmniScaleNetwork(self.options)
        return network, Maps(network.width)

    def build_fused_head(self, width: int, num_ids: int) -> nn.Module:
        """The reduction and classifier for features of a width."""
        return ReducedHead(width, num_ids, embedding_width=self.options.embedding_width)

    def losses(self, output: HeadOutput, batch: Batch, head: nn.Module) -> dict[str, Tensor]:  # noqa: ARG002
        """Smoothed cross-entropy."""
        smoothing = self.options.label_smoothing
        return {"id": functional.cross_entropy(output.logits, batch.labels, label_smoothing=smoothing)}

    def load_pretrained(self, source: str) -> None:
        """Fill the network from one of torchreid's files, see `read_start`."""
        if source != "none":
            start = read_start(source, self.options)
            self.backbone.load_state_dict(
                {name.removeprefix(NETWORK): value for name, value in start.items() if name.startswith(NETWORK)}
            )


class Method(SingleBranch):
    """One branch and its head."""

    extractor = Branch

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """The network, the reduction to the embedding, and the classifier, which torchreid trains alone at first."""
        head = self.head
        return {
            "backbone": list(self.branch.parameters()),
            "reduction": [*head.reduce.parameters(), *head.norm.parameters()],
            "classifier": list(head.classifier.parameters()),
        }

    def load_pretrained(self, source: str) -> None:
        """Fill all but the classifier from one of torchreid's files, see `read_start`."""
        if source != "none":
            self.load_state_dict(self.state_dict() | read_start(source, self.options))


def read_start(source: str, options: Options) -> dict[str, Tensor]:
    """Our tensors, but for the classifier's, of a file in torchreid's layout: its ImageNet weights, or trained ones.

    Args:
        source: the file.
    Raises:
        CheckpointError: the source is no file, or the file is of another network; the message says of which.
    """
    name = name_network(options)
    if source in ("imagenet", "package"):
        raise CheckpointError(
            f"OSNet: init.weights {source}: no package has its ImageNet weights; fetch torchreid's {name}_imagenet.pth "
            "and pass the file with init.weights=PATH"
        )
    place = f"weights {source}"
    state = {key.removeprefix("module."): value for key, value in read_state(source).items()}
    found = read_options_of(state, place)
    if (found.width, found.form) != (options.width, options.form):
        raise CheckpointError(
            f"{place}: is {name_network(found)}, where {name} is built; set method.width: {found.width} and "
            f"method.form: {found.form}, or supply a file of {name}"
        )
    with torch.device("meta"):
        expected = Method(options, TrainingFacts(1)).state_dict()
    ours = [each for each in expected if not each.startswith(CLASSIFIER)]
    theirs = to_theirs({each: expected[each] for each in ours}, renaming(options))
    state = {key: value for key, value in state.items() if not key.startswith("classifier.")}
    steps = {key: torch.zeros((), dtype=torch.int64) for key in theirs if key.endswith(STEPS)}
    state = steps | state  # files of PyTorch before 0.4.1 count none
    check_tensors(state, theirs, place)
    return {each: state[released] for each, released in zip(ours, theirs, strict=True)}


# Checkpoints of torchreid.
LAYOUT = "osnet-official"
NETWORK, CLASSIFIER = "branch.backbone.", "head.classifier."
IMAGENET_CLASSES = 1000


def renaming(options: Options) -> Renaming:
    """Our prefixes and torchreid's."""
    pairs = [("stem.", "conv1."), ("last.", "conv5.")]
    searched = options.form == "ain"
    for stage, instances in enumerate(INSTANCES[options.form]):
        there = f"conv{2 + stage}."
        halving = f"pool{2 + stage}.0." if searched else f"{there}{BLOCKS}.0."
        pairs.append((f"halvings.{stage}.", halving))
        for block, instance in enumerate(instances):
            pairs += [
                (f"stages.{stage}.{block}.{ours}", f"{there}{block}.{theirs}")
                for ours, theirs in _block_names(instance, searched=searched)
            ]
    spelt = [(NETWORK + ours + a, theirs + b) for ours, theirs in pairs for a, b in _layer_names(ours)]
    return (*spelt, ("head.reduce.", "fc.0."), ("head.norm.", "fc.1."), (CLASSIFIER, "classifier."))


def _block_names(instance: Instance, *, searched: bool) -> Iterator[tuple[str, str]]:
    yield from (("reduce.", "conv1."), ("gate.narrow.", "gate.fc1."), ("gate.widen.", "gate.fc2."))
    for scale, letter in enumerate("abcd"):
        for number in range(1 + scale):
            alone = f"conv2{letter}." + (f"{number}." if scale else "")
            yield f"scales.{scale}.{number}.", f"conv2.{scale}.layers.{number}." if searched else alone
    if instance == "inside":
        yield "expand.norm.", "IN."
    yield from (("expand.", "conv3."), ("shortcut.", "downsample."), ("norm.", "IN."))


def _layer_names(ours: str) -> tuple[tuple[str, str], ...]:
    """What a part's layers are called here and there; a part that is one layer has none."""
    last = ours.split(".")[-2]
    if last in ("stem", "last", "reduce", "expand", "shortcut") or ours.startswith("halvings."):
        return (("conv.", "conv."), ("norm.", "bn."))
    if last.isdigit():
        return (("point.", "conv1."), ("depth.", "conv2."), ("norm.", "bn."))
    return (("", ""),)


def read_options_of(state: Tensors, place: str) -> Options:
    """Width, form and the embedding's width, as the tensors tell.

    Raises:
        CheckpointError: they are of no OSNet.
    """
    stem = read_tensor_size(state, "conv1.conv.weight", place)
    width = stem / CHANNELS[0]
    if not width or width % WIDTH_STEP:
        raise CheckpointError(
            f"{place}: its first layer has {stem} channels; OSNet's have 64, 48, 32 or 16 (x1_0, x0_75, x0_5, x0_25); "
            "supply one of these"
        )
    form: Form = "plain"
    if "conv2.0.conv2.0.layers.0.conv1.weight" in state:
        form = "ain"
    elif "conv2.0.IN.weight" in state:
        form = "ibn"
    return Options(width=width, form=form, embedding_width=read_tensor_size(state, "fc.0.weight", place))


def read_architecture(state: Tensors, place: str) -> tuple[Options, dict[str, Any]]:
    """Identities, width and form."""
    options = read_options_of(state, place)
    num_ids = read_tensor_size(state, "classifier.weight", place)
    if num_ids == IMAGENET_CLASSES:
        raise CheckpointError(
            f"{place}: has ImageNet's {IMAGENET_CLASSES} classes: {name_network(options)} before it has seen people; "
            "train from it with init.weights=FILE"
        )
    return options, {"num_ids": num_ids}


OFFICIAL_FORMATS = {
    LAYOUT: OfficialFormat(
        LAYOUT, "osnet", Method, Options, read_architecture, renaming, "osnet_market1501",
        released=("input_scale", "normalisation"),
        variant=lambda options: f" (the file was taken for {name_network(options)})",
    )
}  # fmt: skip
"""Checkpoints in the layout of torchreid, of every width and form."""
