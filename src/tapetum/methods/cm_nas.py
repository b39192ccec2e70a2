"""CM-NAS: one ResNet for both modalities, in which each batch norm is either shared or there once for each modality.

Source: "CM-NAS: Cross-Modality Neural Architecture Search for Visible-Infrared Person Re-Identification" (Fu et al.,
ICCV 2021) and its release, JDAI-CV/CM-NAS. Which norms are shared is a row of digits that the authors searched for;
their digits lie beside the code, not in it, and their search was never released.
Differs:
- `method.config` takes the digits or names a simple choice. "search" is **ours**: each norm learns how far it is
  shared, by how well people are found from whom the rest of the network does not learn. How the authors searched is not
  known to us;
- only the norms that a configuration uses are built. The release keeps all three of each; exported files hold the
  others as zeros, and a file tells its configuration by which of them never counted a step;
- pictures come in any order. The losses that compare visible with infrared pictures pair them by person and training
  picture, where the release pairs them by their place in the batch;
- the moving average of the weights takes a step's running statistics with the step before it, and no counters. It
  overwrites the weights after every so many epochs; the release, whenever it has tested;
- the release does not search with the mirror; where a recipe asks for it, raw vectors are summed.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.errors import CheckpointError, RecipeError, TrainingError
from tapetum.core.method import EpochStart, TrainingFacts, Turn
from tapetum.core.options import option
from tapetum.core.types import Batch, Modality
from tapetum.core.vectors import euclidean, normalise
from tapetum.layers.backbones import build_backbone, load_backbone, pool_average
from tapetum.layers.bnneck import BNNeck
from tapetum.layers.branch import HeadOutput
from tapetum.layers.modality_norms import MixedNorm, SplitNorm, showing
from tapetum.layers.normalisation import Normalisation, Normalise
from tapetum.layers.winograd import use_winograd
from tapetum.methods._mirrored import Mirrored
from tapetum.methods._official import OfficialFormat, Renaming, Tensors, read_tensor_size

SMALL = {"backbone": "test_resnet", "last_stride": 2}  # for tests
SEARCH = "search"
FILE = "file:"  # before the path of digits
KINDS = ("shared", "visible", "infrared")  # of norms, as they are called within a switch
WITHHELD = 2  # while it is searched, each such person teaches the switches and nothing else


@dataclass(frozen=True)
class Options:
    """What a recipe may set under ``method:``."""

    backbone: str = option("resnet50", "a timm network with batch norms that gives maps")
    last_stride: int = option(1, "2 halves the last stage's resolution")
    config: str = option(
        "stem",
        "which norms are shared: a digit for each, 1 shared, 0 apart (ResNet-50: 53); or shared (all), separate "
        "(none), stem (all but the first); file:PATH, whose digits stand here then; or search, ours",
    )
    normalisation: Normalisation = option("imagenet", "of pictures in 0..1")
    triplet_weight: float = option(1.0, "of the mean of four triplet terms, within and across modalities", least=0)
    triplet_margin: float = option(0.4, "of the triplets", least=0)
    similarity_weight: float = option(5.0, "of the difference of the modalities' tables of similarities (SP)", least=0)
    discrepancy_weight: float = option(
        0.05, "of the discrepancy of each person's two modalities under a squared inner product (CMMD)", least=0
    )
    average_decay: float = option(0.997, "of the weights' moving average; 0: none; RegDB 0.968", least=0, below=1)
    average_every: int = option(2, "epochs after which the average overwrites the weights; RegDB 10", least=1)
    test_feature: Literal["head", "backbone"] = option("head", "searched with: behind the neck, or before it")

    def __post_init__(self) -> None:
        if self.config.startswith(FILE):  # a checkpoint means the same where there is no such file
            object.__setattr__(self, "config", read_config_file(Path(self.config.removeprefix(FILE))))


# Configurations


def list_norms(network: nn.Module) -> list[str]:
    """Names of a backbone's batch norms in the order of the digits: of each stage, those of its shortcut first."""
    names = [name for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)]
    stages = list(dict.fromkeys(name.split(".")[0] for name in names))
    return sorted(names, key=lambda name: (stages.index(name.split(".")[0]), "downsample" not in name))


def read_config_file(path: Path) -> str:
    """The digits that a file holds, with a space between two.

    Raises:
        RecipeError: there is no such file, or it holds something else.
    """
    try:
        digits = strip_digits(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise RecipeError(f"method.config: {FILE}{path} cannot be read ({reason}); name a file of digits") from None
    if not digits or set(digits) - {"0", "1"}:
        raise RecipeError(f"method.config: {FILE}{path} holds not digits 0 and 1 alone; write one for each norm")
    return " ".join(digits)


def strip_digits(text: str) -> str:
    """A row of digits without the spaces, line ends and commas between them."""
    return re.sub(r"[\s,]", "", text)


def read_config(config: str, norms: int) -> list[bool]:
    """Which norms are shared.

    Args:
        config: as of `Options.config`, other than "search"; spaces and commas between digits do not count.
        norms: how many the backbone has.
    Raises:
        RecipeError: it is no such row of digits, or of another length.
    """
    named = {"shared": "1" * norms, "separate": "0" * norms, "stem": "0" + "1" * (norms - 1)}
    digits = named.get(config, strip_digits(config))
    if not digits or set(digits) - {"0", "1"}:
        raise RecipeError(
            f"method.config: {config!r} is no row of the digits 0 and 1, and none of {', '.join(named)}, "
            f"{FILE}PATH and {SEARCH}; write a digit for each of the backbone's {norms} norms, or one of these"
        )
    if len(digits) != norms:
        raise RecipeError(
            f"method.config: has {len(digits)} digits, the backbone has {norms} norms; write one for each"
        )
    return [digit == "1" for digit in digits]


# Losses


def four_way_triplet(features: Tensor, labels: Tensor, modalities: Tensor, *, margin: float) -> Tensor:
    """Batch-hard triplets, the mean of four: anchors of each modality among pictures of each modality.

    Each is the mean over its anchors of max(0, farthest positive - nearest negative + margin); Euclidean.

    Args:
        features: (B, D), not normalised; rows in any order.
        labels, modalities: (B,) int64.
    Raises:
        TrainingError: as of `check_pairs`.
    """
    check_pairs(labels, modalities)
    distances = euclidean(features, features)
    same = labels[:, None] == labels[None, :]
    of = modalities == torch.arange(len(Modality), device=modalities.device)[:, None]  # (2, B)
    positive = distances.masked_fill(~(same & of[:, None]), -torch.inf).amax(2)
    negative = distances.masked_fill(same | ~of[:, None], torch.inf).amin(2)
    hinges = functional.relu(positive - negative + margin)  # (modality of the others, anchor)
    anchors = of.to(hinges.dtype)
    return (hinges @ (anchors / anchors.sum(1, keepdim=True)).T).mean()


def similarity_difference(embeddings: Tensor, labels: Tensor, modalities: Tensor, rows: Tensor) -> Tensor:
    """Mean squared difference of two tables of inner products, visible and infrared, each line of unit length (SP).

    Line and column i of both belong to one person: a person's visible pictures meet the infrared ones in the order of
    their rows.

    Args:
        embeddings: (B, D), not normalised; in any order.
        labels, modalities: (B,) int64.
        rows: (B,) int64 which training picture each is.
    Raises:
        TrainingError: a person has more pictures of one modality than of the other.
    """
    order = rows.argsort(stable=True)
    order = order[labels[order].argsort(stable=True)]
    seen, felt = (order[modalities[order] == modality] for modality in Modality)
    if not torch.equal(labels[seen], labels[felt]):
        raise TrainingError(
            "cm_nas: somebody in the batch has more pictures of one modality than of the other; set sampler.name to "
            "cross_modality, or method.similarity_weight to 0"
        )
    visible, infrared = (normalise(embeddings[own] @ embeddings[own].T) for own in (seen, felt))
    return functional.mse_loss(visible, infrared)


def modality_discrepancy(embeddings: Tensor, labels: Tensor, modalities: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of each person's two modalities, its mean over people (CMMD).

    The kernel is the squared inner product of vectors of unit length.

    Args:
        embeddings: (B, D); in any order.
        labels, modalities: (B,) int64.
    Raises:
        TrainingError: as of `check_pairs`.
    """
    check_pairs(labels, modalities)
    unit = normalise(embeddings)
    kernel = (unit @ unit.T).square()
    people, counts = _count(labels, modalities)
    sign = 1 - 2 * modalities.to(unit.dtype)
    weights = functional.one_hot(people).T * (sign / counts[people, modalities])  # (people, B)
    return (weights @ kernel * weights).sum(1).mean()


def check_pairs(labels: Tensor, modalities: Tensor) -> None:
    """Complain unless there are two people or more, each in both modalities.

    Raises:
        TrainingError: there are not.
    """
    _, counts = _count(labels, modalities)
    alone = int((counts == 0).any(1).sum())
    if len(counts) < 2 or alone:
        what = f"{alone} of {len(counts)} people in one modality only" if alone else "one identity only"
        raise TrainingError(
            f"cm_nas: the batch shows {what}; set sampler.name to cross_modality, with ids of 2 or more"
        )


def _count(labels: Tensor, modalities: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) which person of the batch each picture shows, and (people, 2) how many pictures each has."""
    known, people = torch.unique(labels, return_inverse=True)
    places = people * len(Modality) + modalities
    return people, torch.bincount(places, minlength=len(known) * len(Modality)).view(-1, len(Modality))


# Network


class Method(Mirrored):
    """A backbone with switched norms and a BNNeck.

    Attributes:
        norms: names of the backbone's norms, in the order of the digits.
        average: moving average of the weights and statistics, one after the other; empty outside a training.
    """

    average: Tensor

    def __init__(self, options: Options, facts: TrainingFacts) -> None:
        super().__init__()
        self.options = options
        self.facts, self.num_ids = facts, facts.num_ids
        self.normalise = Normalise(options.normalisation)
        self.backbone, self.width = build_backbone(options.backbone, last_stride=options.last_stride)
        use_winograd(self.backbone)
        self.norms = list_norms(self.backbone)
        if options.config == SEARCH:
            self._replace(MixedNorm, self.norms)
        else:
            shared = read_config(options.config, len(self.norms))
            self._replace(SplitNorm, [name for name, both in zip(self.norms, shared, strict=True) if not both])
        self.head = BNNeck(self.width, facts.num_ids)
        averaged = facts.num_pictures > 0 and options.average_decay > 0
        size = sum(value.numel() for value in self._values()) if averaged else 0
        self.register_buffer("average", torch.zeros(size), persistent=False)
        self._averaged = (-1, -1)  # epoch and step at which the average last moved

    def _replace(self, kind: type[SplitNorm], names: Sequence[str]) -> None:
        for name in names:
            parent, _, last = name.rpartition(".")
            norm = cast(nn.BatchNorm2d, self.backbone.get_submodule(name))
            self.backbone.get_submodule(parent).register_module(last, kind(norm))

    def found_config(self) -> str:
        """The digits that a search has come to: shared where the shared norm has at least half.

        Raises:
            TrainingError: this network does not search.
        """
        if self.options.config != SEARCH:
            raise TrainingError(
                f"cm_nas: method.config is {self.options.config!r}; only a network of 'search' finds digits"
            )
        return " ".join(str(int(balance >= 0)) for balance in self._balances())

    def _balances(self) -> list[nn.Parameter]:
        switches = [self.backbone.get_submodule(name) for name in self.norms]
        return [switch.balance for switch in switches if isinstance(switch, MixedNorm)]

    def compute_maps(self, images: Tensor, modalities: Tensor) -> Tensor:
        """The last feature maps, (B, width, h, w), of normalised pictures."""
        if not self.training:
            with showing(modalities, 0):
                maps: Tensor = self.backbone(images)
            return maps
        order = modalities.argsort(stable=True)
        with showing(modalities[order], int((modalities == Modality.VISIBLE).sum())):
            maps = self.backbone(images[order])
        return maps[order.argsort()]

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor) -> HeadOutput:  # noqa: ARG002
        """Pooled feature, embedding and class scores of pictures of both modalities in any order."""
        maps = self.compute_maps(self.normalise(images), modalities)
        output: HeadOutput = self.head(pool_average(maps, self.width))
        return output

    def turns(self) -> tuple[Turn, ...]:
        """One; while it is searched, the network learns from some people, and the switches from the others."""
        groups = tuple(self.parameter_groups())
        if self.options.config != SEARCH:
            return (Turn("all", groups, self.losses),)
        network = tuple(name for name in groups if name != "switches")
        return (Turn("network", network, self.network_losses), Turn("switches", ("switches",), self.switch_losses))

    def losses(self, output: HeadOutput, batch: Batch) -> dict[str, Tensor]:
        """Those of all turns."""
        losses = self.network_losses(output, batch)
        return losses | self.switch_losses(output, batch) if self.options.config == SEARCH else losses

    def network_losses(self, output: HeadOutput, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy, and what compares pictures; while it is searched, of the people who are not withheld."""
        self._move_average(batch)
        own = torch.ones_like(batch.labels, dtype=torch.bool)
        if self.options.config == SEARCH:
            own = batch.labels % WITHHELD != WITHHELD - 1
            if not bool(own.any()):
                return {"id": output.logits.sum() * 0}
        losses = {"id": functional.cross_entropy(output.logits[own], batch.labels[own])}
        return losses | self._compare(output, batch, own)

    def switch_losses(self, output: HeadOutput, batch: Batch) -> dict[str, Tensor]:
        """What compares pictures of the withheld people, for the switches; zero where a batch shows fewer than two."""
        losses = self._compare(output, batch, batch.labels % WITHHELD == WITHHELD - 1)
        return {f"switches_{name}": loss for name, loss in losses.items()}

    def _compare(self, output: HeadOutput, batch: Batch, own: Tensor) -> dict[str, Tensor]:
        options = self.options
        feature, embedding = output.feature[own], output.embedding[own]
        labels, modalities, rows = batch.labels[own], batch.modalities[own], batch.rows[own]
        weights = {
            "triplet": options.triplet_weight,
            "similarity": options.similarity_weight,
            "discrepancy": options.discrepancy_weight,
        }
        wanted = {name: weight for name, weight in weights.items() if weight}
        if options.config == SEARCH and len(torch.unique(labels)) < 2:
            return {name: output.embedding.sum() * 0 for name in wanted}
        losses = {}
        for name, weight in wanted.items():
            if name == "triplet":
                loss = four_way_triplet(feature, labels, modalities, margin=options.triplet_margin)
            elif name == "similarity":
                loss = similarity_difference(embedding, labels, modalities, rows)
            else:
                loss = modality_discrepancy(embedding, labels, modalities)
            losses[name] = weight * loss
        return losses

    def _values(self) -> list[Tensor]:
        return [value for value in self.state_dict().values() if value.is_floating_point()]

    def _flat_values(self) -> Tensor:
        return torch.cat([value.flatten() for value in self._values()])

    @torch.no_grad()
    def _move_average(self, batch: Batch) -> None:
        """After each step, when the next one asks for losses; `begin_epoch` sees to the last of an epoch."""
        now = (batch.epoch, batch.step)
        if not self.training or not len(self.average) or batch.step == 0 or now == self._averaged:
            return
        self._averaged = now
        self.average.lerp_(self._flat_values(), 1 - self.options.average_decay)

    @torch.no_grad()
    def begin_epoch(self, start: EpochStart) -> None:
        """Begin the weights' average, or let it follow the last step; every so many epochs it becomes the weights."""
        if not len(self.average):
            return
        now = self._flat_values()
        if start.epoch == 0:
            self.average.copy_(now)
            return
        self.average.lerp_(now, 1 - self.options.average_decay)
        if start.epoch % self.options.average_every == 0:
            values = self._values()
            parts = torch.split(self.average, [value.numel() for value in values])
            for value, part in zip(values, parts, strict=True):
                value.copy_(part.view(value.shape))

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Backbone, head, and while it is searched the switches."""
        switches = self._balances()
        apart = {id(parameter) for parameter in switches}
        backbone = [parameter for parameter in self.backbone.parameters() if id(parameter) not in apart]
        head = [parameter for parameter in self.head.parameters() if parameter.requires_grad]
        return {"backbone": backbone, "head": head} | ({"switches": switches} if switches else {})

    def load_pretrained(self, source: str) -> None:
        """Fill the backbone, each norm of a switch from the one norm of the weights."""
        if source == "none":
            return
        network, _ = build_backbone(self.options.backbone, last_stride=self.options.last_stride)
        load_backbone(network, self.options.backbone, source, for_distances=True)
        one, own = network.state_dict(), self.backbone.state_dict()
        kinds = re.compile(rf"\.({'|'.join(KINDS)})\.")
        self.backbone.load_state_dict(
            {name: one.get(kinds.sub(".", f".{name}")[1:], value) for name, value in own.items()}
        )


# Checkpoints of the release, which has three norms in each switch, whatever its digits.
THEIR_KINDS = {"shared": "sharable_bn", "visible": "visible_bn", "infrared": "thermal_bn"}
NORM_TENSORS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
CONTENT = {0: "conv", 1: "bn"}  # of a shortcut


def _their_name(name: str) -> str:
    return re.sub(r"downsample\.([01])", lambda found: f"downsample.{CONTENT[int(found[1])]}", name)


def _released_norms() -> list[str]:
    with torch.device("meta"):
        return list_norms(build_backbone(Options.backbone)[0])


def _kinds(shared: bool) -> tuple[str, ...]:
    return KINDS[:1] if shared else KINDS[1:]


def _renaming(options: Options) -> Renaming:
    """Of the norms that the digits use; a shared one stands alone here.

    Raises:
        CheckpointError: the network still searches for its digits.
    """
    if options.config == SEARCH:
        raise CheckpointError(
            "method.config: 'search' has no place in the released layout; train with the digits that it found"
        )
    names = _released_norms()
    switches = zip(names, read_config(options.config, len(names)), strict=True)
    return (
        *(
            (f"backbone.{name}.{'' if shared else f'{kind}.'}", f"backbone.{_their_name(name)}.{THEIR_KINDS[kind]}.")
            for name, shared in switches
            for kind in _kinds(shared)
        ),
        *(
            (f"backbone.{stage}.0.downsample.0.", f"backbone.{stage}.0.downsample.conv.")
            for stage in dict.fromkeys(name.split(".")[0] for name in names if "downsample" in name)
        ),
        ("backbone.", "backbone."),
        ("head.norm.", "bnneck."),
        ("head.classifier.", "classifier."),
    )


def _unused(options: Options, used: Tensors) -> dict[str, Tensor]:
    """The norms that the digits do not use."""
    names = _released_norms()
    found = {}
    for name, shared in zip(names, read_config(options.config, len(names)), strict=True):
        place = f"backbone.{_their_name(name)}."
        for kind in _kinds(not shared):
            for tensor in NORM_TENSORS:
                like = used[f"{place}{THEIR_KINDS[_kinds(shared)[0]]}.{tensor}"]
                found[f"{place}{THEIR_KINDS[kind]}.{tensor}"] = torch.zeros(like.shape, dtype=like.dtype)
    return found


def _read_architecture(state: Tensors, place: str) -> tuple[Options, dict[str, Any]]:
    """Identities, and the digits by which norms have counted steps; none where that does not tell them."""
    num_ids = read_tensor_size(state, "classifier.weight", place)
    read_tensor_size(state, MARK, place)
    digits = []
    for name in _released_norms():
        counters = (f"backbone.{_their_name(name)}.{THEIR_KINDS[kind]}.num_batches_tracked" for kind in KINDS)
        shared, *apart = (bool(state[counter] > 0) if counter in state else False for counter in counters)
        if shared == any(apart) or any(apart) != all(apart):
            return Options(config=""), {"num_ids": num_ids}
        digits.append(str(int(shared)))
    return Options(config=" ".join(digits)), {"num_ids": num_ids}


MARK = "backbone.bn1.sharable_bn.weight"
OFFICIAL_FORMATS = {
    "cm-nas-official": OfficialFormat(
        "cm-nas-official", "cm_nas", Method, Options, _read_architecture, _renaming, "cm_nas_sysu",
        {206: "cm_nas_regdb", 713: "cm_nas_llcm"}, "model", _unused,
        released=("backbone", "last_stride", "normalisation"),
        scores={"ema": {}, "optimizer": {}}, prefix="module.", asked=("config",),
    )
}  # fmt: skip
