"""TransReID: a vision transformer with overlapping patches, a vector for each camera, and shuffled groups of patches.

Source: "TransReID: Transformer-based Object Re-Identification" (He et al., ICCV 2021) and its release; the stem ics:
"Self-Supervised Pre-Training for Transformer-Based Person Re-Identification" (Luo et al., 2021, TransReID-SSL), whose
release has the same layout.
Differs: a picture of a camera that was not trained, which the release cannot describe, gets the mean of the trained
cameras' vectors. Of the backbone's last block and norm the release keeps untrained originals beside the two trained
copies; they and its ImageNet classifier exist in exported checkpoints only, as zeros. Points of view have no vectors.
Mirrored pictures are not part of its test; where a recipe asks for them, raw vectors are summed.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.errors import CheckpointError, RecipeError
from tapetum.core.method import TrainingFacts
from tapetum.core.options import option, require
from tapetum.core.types import Batch
from tapetum.layers.backbones import build_any_backbone, load_backbone
from tapetum.layers.bnneck import BNNeck
from tapetum.layers.branch import Features, HeadOutput, join_parts
from tapetum.layers.normalisation import Normalisation
from tapetum.layers.tokens import Stem, TokenBackbone, patch_grid
from tapetum.losses.triplet import batch_hard_triplet
from tapetum.methods._official import OfficialFormat, Renaming, Tensors, read_tensor_size
from tapetum.methods._single_branch import SingleBranch

SMALL = {"backbone": "test_vit", "drop_path": 0.0}  # for tests


@dataclass(frozen=True)
class Options:
    """What a recipe may set under ``method:``. The defaults are the published network's."""

    backbone: str = option("vit_base_patch16_224", "a plain vision transformer of timm with a class token")
    patch_stride: int | None = option(
        12, "pixels from one patch to the next; null: a patch's side, no overlap", least=1
    )
    stem: Stem = option("patches", "what patches are cut from: pictures; or three convolutions, TransReID-SSL's ics")
    drop_path: float = option(
        0.1, "how often the last block is left out in training; rises linearly from 0", least=0, below=1
    )
    sie: bool = option(True, "a learned vector for each training camera is added to all tokens")
    sie_weight: float = option(3.0, "on that vector", least=0)
    jigsaw: bool = option(True, "parts of the picture are described beside the whole")
    shift: int = option(5, "the patch that comes first before the shuffle, counted from 1", least=1)
    groups: int = option(2, "of the shuffle: as many stretches of patches are dealt out in turn", least=1)
    parts: int = option(4, "stretches of shuffled patches, each of which is described", least=1)
    label_smoothing: float = option(0.0, "of the cross-entropy's targets", least=0, below=1)
    triplet_weight: float = option(1.0, "on the triplets beside the cross-entropy; 0 switches them off", least=0)
    triplet_margin: float | None = option(None, "null: the soft margin", least=0)
    input_scale: float = option(1.0, "pictures in 0..1 are multiplied by this", above=0)
    normalisation: Normalisation = option(
        "half", "mean and deviation 0.5 of each channel, as the release's weights want"
    )
    test_feature: Literal["head", "backbone"] = option(
        "backbone", "searched with: what comes before the necks, as in the release; or behind them: head"
    )


class CameraVectors(nn.Module):
    """A learned vector for each training camera; any other camera has their mean.

    Source: TransReID, side information embedding.
    """

    def __init__(self, camids: Sequence[int], width: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.empty(len(camids), 1, width))
        nn.init.trunc_normal_(self.vectors, std=0.02)
        self.register_buffer("camids", torch.tensor(camids, dtype=torch.int64), persistent=False)

    def forward(self, camids: Tensor) -> Tensor:
        """Vectors, (B, 1, width)."""
        same = camids[:, None] == cast(Tensor, self.camids)
        shares = torch.where(same.any(1, keepdim=True), same.to(self.vectors.dtype), 1 / same.shape[1])
        with torch.autocast(self.vectors.device.type, enabled=False):
            return (shares @ self.vectors.flatten(1))[:, None]


class LastBlock(nn.Module):
    """The last block of a transformer and the norm behind it; there is a copy for the whole and one for parts."""

    def __init__(self, block: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.block, self.norm = block, norm


class Branch(nn.Module):
    """The extractor: class tokens of the whole and of each part (see `tapetum.layers.branch`).

    Attributes:
        backbone: without its last block and norm.
        whole: these, for all tokens.
        local: a copy of them, for each part's tokens; None without parts.
        cameras: None without them.

    Raises:
        RecipeError: the backbone has no class token, patches do not fit the pictures or the parts, or the cameras are
            not known.
    """

    def __init__(self, options: Options, facts: TrainingFacts) -> None:
        super().__init__()
        require(
            bool(facts.camids) or not options.sie,
            "method.sie: true, but it is not known which cameras there are; build the network with their camids (a "
            "checkpoint that keeps none was trained without), or set method.sie: false",
        )
        self.options, self.facts = options, facts
        network = self._build_backbone()
        self.width = network.width
        last = LastBlock(network.blocks[-1], _final_norm(network))
        self.backbone = network
        self.backbone.blocks = network.blocks[:-1]
        self.backbone.norm = self.backbone.fc_norm = nn.Identity()
        self.whole = last
        self.local = copy.deepcopy(last) if options.jigsaw else None
        self.cameras = CameraVectors(facts.camids, self.width) if options.sie else None
        if options.jigsaw:
            self._check_parts(network)
            order = jigsaw_order(network.num_patches, options.shift, options.groups)
            length = network.num_patches // options.parts  # what is left over is not looked at
            self.register_buffer("order", order[: options.parts * length].view(options.parts, -1), persistent=False)

    def _build_backbone(self) -> TokenBackbone:
        options = self.options
        network, _ = build_any_backbone(
            options.backbone,
            size=self.facts.size,
            patch_stride=options.patch_stride,
            pooling="class",
            drop_path=options.drop_path,
            stem=options.stem,
        )
        return cast(TokenBackbone, network)

    def _check_parts(self, network: TokenBackbone) -> None:
        options = self.options
        if network.rope is not None:
            raise RecipeError(
                f"method.jigsaw: true, but {options.backbone} turns each token by its place, which shuffled ones lose; "
                "set method.jigsaw: false or choose a backbone such as vit_base_patch16_224"
            )
        for name, least in (("parts", options.parts), ("shift", options.shift), ("groups", options.groups)):
            if least > network.num_patches:
                raise RecipeError(
                    f"method.{name}: {least} is more than the {network.num_patches} patches of a picture; use less, a "
                    "smaller method.patch_stride or a larger data.size"
                )

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Features:  # noqa: ARG002
        """Class tokens of the whole, (B, width), and of the parts, (B, parts, width), float32."""
        tokens = self.backbone.embed(images)
        if self.cameras is not None:
            tokens = tokens + self.options.sie_weight * self.cameras(camids)
        tokens = self.backbone.run_blocks(tokens, self.backbone.blocks)
        whole = self._describe(tokens, self.whole)
        if self.local is None:
            return Features(whole)
        parts = self._describe(self._cut(tokens), self.local)
        return Features(whole, parts.view(-1, self.options.parts, self.width))

    def _describe(self, tokens: Tensor, last: LastBlock) -> Tensor:
        behind = self.backbone.run_blocks(tokens, [last.block], first=len(self.backbone.blocks))
        token: Tensor = last.norm(behind)[:, 0]
        return token.to(torch.promote_types(token.dtype, torch.float32))

    def _cut(self, tokens: Tensor) -> Tensor:
        """(B parts, 1 + length, width): the class token and a stretch of the shuffled patches."""
        order = cast(Tensor, self.order)
        patches = tokens[:, self.backbone.num_prefix :]
        stretches = patches[:, order]
        classes = tokens[:, None, :1].expand(-1, len(order), -1, -1)
        return torch.cat([classes, stretches], 2).flatten(0, 1)

    def build_head(self, num_ids: int) -> nn.Module:
        """A neck and classifier for the whole and for each part."""
        return Head(self.width, num_ids, parts=self.options.parts if self.options.jigsaw else 0)

    def build_fused_head(self, width: int, num_ids: int) -> nn.Module:
        """One neck and classifier."""
        return BNNeck(width, num_ids)

    def losses(self, output: HeadOutput, batch: Batch, head: nn.Module) -> dict[str, Tensor]:  # noqa: ARG002
        """Cross-entropy behind the necks, soft-margin triplets before them: half the whole's, half the parts' mean."""
        features, scores = output.feature[None], output.logits.reshape(-1, *output.logits.shape[-2:])
        if output.parts is not None:
            features = torch.cat([features, output.parts.transpose(0, 1)])
        options, labels = self.options, batch.labels
        identity = [functional.cross_entropy(each, labels, label_smoothing=options.label_smoothing) for each in scores]
        losses = _whole_and_parts("id", identity)
        if options.triplet_weight:
            triplets = [
                options.triplet_weight * batch_hard_triplet(each, labels, margin=options.triplet_margin)
                for each in features
            ]
            losses |= _whole_and_parts("triplet", triplets)
        return losses

    def load_pretrained(self, source: str) -> None:
        """Fill the backbone; both copies of the last block and norm start from the same."""
        if source == "none":
            return
        trained = self._build_backbone()
        load_backbone(trained, self.options.backbone, source)
        last = LastBlock(trained.blocks[-1], _final_norm(trained)).state_dict()
        for place in (self.whole, self.local):
            if place is not None:
                place.load_state_dict(last)
        own = self.backbone.state_dict()
        self.backbone.load_state_dict({name: value for name, value in trained.state_dict().items() if name in own})


class Head(nn.Module):
    """A neck and classifier for the whole and one for each part, with statistics of their own."""

    def __init__(self, width: int, num_ids: int, *, parts: int) -> None:
        super().__init__()
        self.necks = nn.ModuleList(BNNeck(width, num_ids) for _ in range(1 + parts))

    def forward(self, features: Features) -> HeadOutput:
        """Scores of all classifiers, the whole's first; the embedding is the normed features, joined."""
        parts = [] if features.parts is None else list(features.parts.unbind(1))
        made: list[HeadOutput] = [
            neck(feature) for neck, feature in zip(self.necks, [features.whole, *parts], strict=True)
        ]
        seen = [each.feature for each in made]
        embedding = join_parts([each.embedding for each in made])
        if not parts:
            return HeadOutput(seen[0], embedding, made[0].logits)
        logits = torch.stack([each.logits for each in made])
        return HeadOutput(seen[0], embedding, logits, parts=torch.stack(seen[1:], 1))


class Method(SingleBranch):
    """One branch and its head; which camera took a picture is part of what describes it."""

    extractor = Branch

    def describe(self, output: HeadOutput) -> Tensor:
        """The raw vectors for search, (B, D): the embedding, or the backbone's whole and parts as they are joined."""
        if self.options.test_feature == "head":
            return output.embedding
        return output.whole_and_parts


def jigsaw_order(number: int, shift: int, groups: int) -> Tensor:
    """Patches as the parts take them, (number or more,) int64 counted from 0.

    The first ``shift - 1`` move to the end. Then as many stretches as there are groups lie one above the other and are
    read column by column; where they are not of equal length the last but one patch fills up the last.
    """
    order = [*range(shift - 1, number), *range(shift - 1)]
    order += order[-2:-1] * (-number % groups)
    return torch.tensor(order).view(groups, -1).T.flatten()


def _final_norm(network: TokenBackbone) -> nn.Module:
    """Networks that average tokens call theirs otherwise."""
    norm: nn.Module = network.fc_norm if isinstance(network.norm, nn.Identity) else network.norm
    return norm


def _whole_and_parts(name: str, losses: Sequence[Tensor]) -> dict[str, Tensor]:
    whole, *parts = losses
    if not parts:
        return {name: whole}
    return {f"{name}_global": whole / 2, f"{name}_local": torch.stack(parts).mean() / 2}


# Checkpoints of the release.
LAYOUT = "transreid-official"
BACKBONES = {768: "vit_base_patch16_224", 384: "deit_small_patch16_224"}  # by their width
SIZES = ((256, 128), (384, 128), (256, 256))  # of the published configurations
STRIDES = (16, 12, 11)
DEPTH, PATCH, CLASSES = 12, 16, 1000
FIRST_CAMID = 1  # released code counts cameras from 0, the data sets from 1


def renaming(options: Options) -> Renaming:
    """Our prefixes and the release's."""
    whole, local = ("b1.0.", "b1.1."), ("b2.0.", "b2.1.")
    if not options.jigsaw:
        whole = (f"base.blocks.{DEPTH - 1}.", "base.norm.")
    numbers = range(1 + (options.parts if options.jigsaw else 0))
    return (
        ("branch.backbone.", "base."),
        ("branch.cameras.vectors", "base.sie_embed"),
        ("branch.whole.block.", whole[0]),
        ("branch.whole.norm.", whole[1]),
        ("branch.local.block.", local[0]),
        ("branch.local.norm.", local[1]),
        *((f"head.necks.{number}.norm.", f"bottleneck{_suffix(number)}.") for number in numbers),
        *((f"head.necks.{number}.classifier.", f"classifier{_suffix(number)}.") for number in numbers),
    )


def _suffix(number: int) -> str:
    return f"_{number}" if number else ""


def unused_tensors(options: Options, theirs: Tensors) -> dict[str, Tensor]:
    """What a released checkpoint carries and never uses, as zeros; widths are those of the used tensors."""
    width = theirs["base.cls_token"].shape[-1]
    unused = {"base.fc.weight": torch.zeros(CLASSES, width), "base.fc.bias": torch.zeros(CLASSES)}
    if options.jigsaw:
        for name, tensor in theirs.items():
            for ours, place in (("b1.0.", f"base.blocks.{DEPTH - 1}."), ("b1.1.", "base.norm.")):
                if name.startswith(ours):
                    unused[place + name.removeprefix(ours)] = torch.zeros(tensor.shape, dtype=tensor.dtype)
    return unused


def read_architecture(state: Tensors, place: str) -> tuple[Options, dict[str, Any]]:
    """Identities, cameras, pictures' size and patches' stride, with or without cameras' vectors and parts."""
    num_ids = read_tensor_size(state, "classifier.weight", place)
    cameras = read_tensor_size(state, "base.sie_embed", place) if "base.sie_embed" in state else 0
    read_tensor_size(state, "base.cls_token", place)
    if "base.part_token1" in state:
        raise CheckpointError(
            f"{place}: is PASS's network, which searches with tokens of parts that TransReID has not; train from "
            "PASS's weights before re-identification with init.weights=FILE"
        )
    read_tensor_size(state, "base.pos_embed", place)
    width, places = int(state["base.cls_token"].shape[-1]), state["base.pos_embed"].shape
    number = places[1] - 1 if len(places) == 3 else 0
    grids = {
        rows * columns: (size, stride)
        for size in SIZES
        for stride in STRIDES
        for rows, columns in [patch_grid(place, size, (PATCH, PATCH), stride)]
    }
    if width not in BACKBONES or number not in grids:
        raise CheckpointError(
            f"{place}: {number} patches of {width} channels are of none of its networks, which have "
            f"{' or '.join(map(str, BACKBONES))} channels; supply one for pictures of "
            f"{' or '.join(f'{height} x {across}' for height, across in SIZES)}"
        )
    size, stride = grids[number]
    jigsaw = any(name.startswith("b1.") for name in state)
    stem: Stem = "ics" if "base.patch_embed.conv.0.weight" in state else "patches"
    options = Options(backbone=BACKBONES[width], patch_stride=stride, stem=stem, sie=bool(cameras), jigsaw=jigsaw)
    camids = tuple(range(FIRST_CAMID, FIRST_CAMID + cameras))
    return options, {"num_ids": num_ids, "camids": camids, "size": size}


OFFICIAL_FORMATS = {
    LAYOUT: OfficialFormat(
        LAYOUT, "transreid", Method, Options, read_architecture, renaming, "transreid_night600",
        {751: "transreid_market1501"}, unused=unused_tensors, needs_unused=("",),
        released=("sie_weight", "shift", "groups", "input_scale", "normalisation"),
    )
}  # fmt: skip
