"""DEEN, Diverse Embedding Expansion Network (CVPR 2023), for persons seen by visible and infrared cameras.

Two stems, one for each modality, feed a shared ResNet. Between its stages the maps take up what the stage before showed
(MFA); before the last stage every map becomes three (DEE), which two losses keep diverse (orthogonality) and close to
the other modality (CPM). All three embeddings are searched with.

Source: the paper's poster and the released code ZYK100/LLCM. Where they disagree the default is the code and the
poster's reading is an option, marked "poster:" below.
Differs: pictures come in any order, and CPM finds its centres by label; the two and a half ResNets that the released
network carries unused are not built; the six similarities of the search are one inner product of unit vectors.
Ours, off by default: a branch that brightens visible pictures, as IDF's does (`illumination`); an expansion that begins
as what it expands (`expansion_shortcut`).
"""

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.errors import CheckpointError
from tapetum.core.method import TrainingFacts
from tapetum.core.options import option, require
from tapetum.core.types import Batch, Modality
from tapetum.layers.aggregation import Aggregation, build_silent_norm
from tapetum.layers.backbones import pool_average
from tapetum.layers.bnneck import BNNeck
from tapetum.layers.curve_net import CurveNet
from tapetum.layers.expansion import Expansion
from tapetum.layers.normalisation import Normalisation, Normalise
from tapetum.layers.recompute import recompute
from tapetum.layers.two_stream import TwoStream, is_being_exported, last_norm
from tapetum.layers.weights import check_tensors, read_state
from tapetum.losses.cpm import centre_pair_mining
from tapetum.losses.orthogonality import orthogonality
from tapetum.losses.triplet import batch_hard_triplet
from tapetum.methods._enhancement import enhancement_losses
from tapetum.methods._official import OfficialFormat, Renaming, Tensors, read_tensor_size
from tapetum.methods._two_stream import two_stream_renaming, unused_tensors

BRANCHES = 2  # embeddings made beside the original
TEST_WEIGHTS = {"sum": (1.0, 1.0), "bn_heavy": (0.1, 0.9)}  # of the similarities before and after the neck
SMALL = {"backbone": "test_resnet", "last_stride": 2, "dropout": 0.0}  # for tests


@dataclass(frozen=True)
class Options:
    """What a recipe may set under ``method:``. The defaults are the released code's for SYSU-MM01 and LLCM."""

    # the network
    backbone: str = option("resnet50", "a plain ResNet or EfficientNet of timm")
    last_stride: int = option(1, "of the fourth stage; 2 halves its resolution")
    normalisation: Normalisation = option("imagenet", "of pictures in 0..1")
    expand_after: Literal[2, 3] = option(
        3, "the stage before the expansion; one more follows. 2: the released RegDB variant"
    )
    expansion: bool = option(True, "DEE; false: one embedding, and neither CPM nor orthogonality")
    aggregation: bool = option(True, "MFA behind each stage up to the expansion")
    dropout: float = option(0.01, "on the expanded maps, the original's too", least=0, below=1)
    recompute: int = option(
        3, "the stem and so many stages again in the backward pass: less memory, same results; 0: none", least=0, most=3
    )

    # losses (0 switches a term off)
    id_weight: float = option(1.0, "of cross-entropy", least=0)
    triplet_weight: float = option(1.0, "of the triplet term; 0 switches it off", least=0)
    triplet_margin: float | None = option(0.3, "null: soft margin")
    cpm_weight: float = option(0.8, "lambda_1", least=0)
    cpm_margin: float = option(0.2, "margin of CPM", least=0)
    cpm_form: Literal["code", "poster"] = option("code", "poster: one hinge")
    cpm_sides: Literal["mean", "sum"] = option("mean", "over the two modalities; poster: sum")
    cpm_detach: bool = option(True, "no gradient into the distance within a modality")
    orthogonality_weight: float = option(0.01, "lambda_2", least=0)
    orthogonality_pairs: Literal["branches", "all"] = option("branches", "all: the original takes part too")
    ort_normalise: bool = option(False, "cosines instead of inner products")

    # the vector for search
    test_score: Literal["sum", "bn_heavy"] = option("sum", "bn_heavy: 0.1 before the neck, 0.9 after it")

    # ours: an expansion that begins as what it expands
    expansion_shortcut: bool = option(False, "branches are added to the map and begin as nothing")

    # ours: IDF meets DEEN
    illumination: Literal["none", "branch"] = option(
        "none", "branch: visible pictures also enter brightened, by a second stem"
    )
    curve_width: int = option(32, "channels of DCE-Net", least=1)
    curve_scale: float = option(1.0, "0.5 estimates the curves at half resolution", above=0, most=1)
    curve_smoothness_weight: float = option(200.0, "of the smoothness of the curves", least=0)
    exposure_weight: float = option(10.0, "of the distance to the well-exposed level", least=0)
    colour_weight: float = option(5.0, "of colour constancy", least=0)
    spatial_weight: float = option(1.0, "of spatial consistency", least=0)
    exposure_level: float = option(0.6, "mean that a well-exposed patch has, in 0..1")
    exposure_patch: int = option(16, "side of the patches whose exposure counts, pixels")

    def __post_init__(self) -> None:
        require(
            self.id_weight > 0 or self.triplet_weight > 0,
            "method.id_weight: 0 leaves nothing that tells persons apart when triplet_weight is 0; set one of them",
        )


@dataclass(frozen=True)
class Output:
    """What the network gives; G is 3 with the expansion (original, branch 1, branch 2), else 1.

    Attributes:
        features: (G, B, D) float32 pooled features, in the order of the batch.
        embeddings: (G, B, D) float32, the same after the neck.
        scores: (G, B, num_ids) float32 class scores.
        pictures: (V, 3, H, W) visible pictures as the illumination branch saw them; None without it.
        enhanced: (V, 3, H, W) the same brightened, not clipped; None without it.
        curves: (V, 24, h, w) curve maps; None without it.
    """

    features: Tensor
    embeddings: Tensor
    scores: Tensor
    pictures: Tensor | None = None
    enhanced: Tensor | None = None
    curves: Tensor | None = None

    @property
    def logits(self) -> Tensor:
        """(B, num_ids) class scores of the original embeddings."""
        return self.scores[0]


class Method(nn.Module):
    """DEEN and the rows of its ablation.

    Attributes:
        enhance, enhancement: there with the illumination branch only, which makes this an `Enhancer`.
    """

    filling = len(Modality)  # numbers, see `embed`

    enhance: Callable[[Tensor], Tensor]
    enhancement: str

    def __init__(self, options: Options, facts: TrainingFacts) -> None:
        super().__init__()
        self.options = options
        self.facts, self.num_ids = facts, facts.num_ids
        self.normalise = Normalise(options.normalisation)
        self.network = TwoStream(options.backbone, last_stride=options.last_stride, num_stages=options.expand_after + 1)
        widths = self.network.widths  # of the stem and the stages
        stages = range(1, options.expand_after + 1) if options.aggregation else ()
        self.aggregation = nn.ModuleList(
            Aggregation(widths[stage], widths[stage - 1], stride=self.network.strides[stage - 1]) for stage in stages
        )
        self.expansion = (
            Expansion(
                widths[options.expand_after],
                dropout=options.dropout,
                branches=BRANCHES,
                shortcut=options.expansion_shortcut,
            )
            if options.expansion
            else None
        )
        self.neck = BNNeck(widths[-1], facts.num_ids)
        nn.init.normal_(self.neck.norm.weight, 1.0, 0.01)

        self.enhancer: CurveNet | None = None
        if options.illumination == "branch":
            self.enhancer = CurveNet(options.curve_width, curve_scale=options.curve_scale)
            self.enhance, self.enhancement = self._brighten, "DCE-Net"
            self.bright_stem = copy.deepcopy(self.network.stems[Modality.VISIBLE])
            # What it sees joins the visible stem's maps through a norm that is silent at the start.
            self.join = nn.Sequential(nn.Conv2d(widths[0], widths[0], 1, bias=False), build_silent_norm(widths[0]))

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Output:  # noqa: ARG002
        """Features, embeddings and class scores of all three expansions."""
        maps = self._run(0, lambda pixels: self.network.stem(pixels, modalities), self.normalise(images))
        pictures = enhanced = curves = None
        if self.enhancer is not None:
            seen = modalities == Modality.VISIBLE
            if is_being_exported():  # every picture is brightened, and a mask keeps what it does to the visible ones
                pictures = images.contiguous()
                enhanced, curves = self.enhancer(pictures)
                bright = self.join(self.bright_stem(self.normalise(enhanced)))
                maps = torch.where(seen[:, None, None, None], maps + bright.to(maps.dtype), maps)
            else:
                visible = seen.nonzero().squeeze(1)
                pictures = images[visible].contiguous()  # the curves are applied plane by plane
                enhanced, curves = self.enhancer(pictures)
                if len(visible):
                    bright = self.join(self.bright_stem(self.normalise(enhanced)))
                    maps = maps.index_add(0, visible, bright.to(maps.dtype))
        for number, stage in enumerate(self.network.stages):
            if number < self.options.expand_after:
                maps = self._run(number, partial(self._climb, number), maps)
                continue
            if self.expansion is not None and number == self.options.expand_after:
                maps = self.expansion(maps)  # (3 B, C, H, W)
            maps = stage(maps)
        groups = 1 if self.expansion is None else 1 + BRANCHES
        made = self.neck(pool_average(maps, self.network.widths[-1]))
        return Output(
            made.feature.reshape(groups, images.shape[0], -1),
            made.embedding.reshape(groups, images.shape[0], -1),
            made.logits.reshape(groups, images.shape[0], -1),
            pictures,
            enhanced,
            curves,
        )

    def _climb(self, number: int, maps: Tensor) -> Tensor:
        """A stage before the expansion, and what its maps take up of those before it."""
        higher: Tensor = self.network.stages[number](maps)
        return self.aggregation[number](higher, maps) if len(self.aggregation) else higher

    def _run(self, stage: int, part: Callable[[Tensor], Tensor], maps: Tensor) -> Tensor:
        return recompute(part, self, maps) if stage < self.options.recompute and self.training else part(maps)

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy, triplets, CPM, orthogonality and the illumination branch's four, weighted.

        Terms whose parts the options leave out are left out too.
        """
        options = self.options
        losses: dict[str, Tensor] = {}
        groups = len(output.features)
        labels = batch.labels.repeat(groups)
        if options.id_weight:
            losses["id"] = options.id_weight * functional.cross_entropy(output.scores.flatten(0, 1), labels)
        if options.triplet_weight:
            triplet = batch_hard_triplet(output.features.flatten(0, 1), labels, margin=options.triplet_margin)
            losses["triplet"] = options.triplet_weight * triplet
        if groups > 1 and options.cpm_weight:
            losses["cpm"] = options.cpm_weight * centre_pair_mining(
                output.features,
                batch.labels,
                batch.modalities,
                margin=options.cpm_margin,
                form=options.cpm_form,
                sides=options.cpm_sides,
                detach=options.cpm_detach,
            )
        if groups > 1 and options.orthogonality_weight:
            losses["orthogonality"] = options.orthogonality_weight * orthogonality(
                output.features, normalise=options.ort_normalise, pairs=options.orthogonality_pairs
            )
        pictures, enhanced, curves = output.pictures, output.enhanced, output.curves
        if pictures is not None and enhanced is not None and curves is not None and len(pictures):
            losses |= enhancement_losses(options, pictures, enhanced, curves)
        return losses

    def embed(self, images: Tensor, modalities: Tensor, camids: Tensor, *, mirror: bool = False) -> Tensor:
        """Vectors for search, (B, 2 G D + 2) float32 of unit length.

        The inner product of a visible and an infrared picture is the released code's sum over six (G = 3) similarity
        matrices, divided by its largest possible value; see `join_parts`. Unit vectors of the mirror are added part by
        part, without scaling the sums.
        """
        parts = self._describe(images, modalities, camids)  # (2 G, B, D)
        largest, missing = 1, (1 - parts.square().sum(2)).round()  # a part of zeros lacks its whole length
        if mirror:
            mirrored = self._describe(images.flip(3), modalities, camids)
            lengths = parts.square().sum(2) + mirrored.square().sum(2)
            # |a + b|^2 = 4 - |a - b|^2 for unit vectors: exact also where picture and mirror look the same.
            largest, missing = 4, (4 - 2 * lengths).round() + (parts - mirrored).square().sum(2)
            parts = parts + mirrored
        pair, repeats = TEST_WEIGHTS[self.options.test_score], len(parts) // 2
        weights = parts.new_tensor(pair).repeat_interleave(repeats)
        return join_parts(parts, weights, weights @ missing, modalities, largest * repeats * sum(pair))

    def _describe(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Tensor:
        """Unit vectors before the neck (original, branches), then after it: (2 G, B, D) float32."""
        output = self.forward(images, modalities, camids)
        return functional.normalize(torch.cat((output.features, output.embeddings)).float(), dim=2)

    def _brighten(self, images: Tensor) -> Tensor:
        """Pictures as the illumination branch brightens them, clipped to 0..1."""
        enhanced: Tensor = self.get_submodule("enhancer")(images)[0]
        return enhanced.float().clamp(0, 1)

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Head (neck and classifier), enhancer (the curve network, where there is one), backbone (all the rest)."""
        head = [parameter for parameter in self.neck.parameters() if parameter.requires_grad]
        enhancer = list(self.enhancer.parameters()) if self.enhancer is not None else []
        apart = {id(parameter) for parameter in (*self.neck.parameters(), *enhancer)}
        backbone = [parameter for parameter in self.parameters() if id(parameter) not in apart]
        groups = {"backbone": backbone, "head": head, "enhancer": enhancer}
        return {name: parameters for name, parameters in groups.items() if parameters}

    def load_pretrained(self, source: str) -> None:
        """Fill the stems and the stages; a second visible stem starts as the first.

        From "package" the norm behind the fourth stage starts with biases of zero.

        Args:
            source: "imagenet", "package", "none", a weights file of the whole backbone, or a checkpoint of the
                released code, which fills everything but the classifier.
        Raises:
            CheckpointError: the weights cannot be fetched or do not fit, e.g. a checkpoint of the other variant.
        """
        state = {} if source in ("imagenet", "package", "none") else read_state(source)
        if VARIANT_TENSOR in state:
            self._load_released(state, source)
        else:
            self.network.load_pretrained(source)
        if source == "package" and self.options.expand_after == 3:
            # Its biases leave 91 % of the last ReLU's values at zero, and no shortcut leads past that ReLU as in a
            # ResNet. Triplets and CPM, which draw three embeddings of every picture together, would close the rest in
            # the first epoch, and nothing that is closed for all pictures learns any more.
            nn.init.zeros_(last_norm(self.network.stages[-1]).bias)
        if self.enhancer is not None:
            self.bright_stem.load_state_dict(self.network.stems[Modality.VISIBLE].state_dict())

    def _load_released(self, state: Tensors, source: str) -> None:
        converted = OFFICIAL_FORMATS[FORMAT].read(state)
        theirs, own = converted.options["expand_after"], self.options.expand_after
        if theirs != own:
            raise CheckpointError(
                f"{source}: is a released DEEN checkpoint of the variant for {VARIANTS[theirs]}, this network is the "
                f"one for {VARIANTS[own]}; set method.expand_after: {theirs} or supply another file"
            )
        if self.options.expansion_shortcut:
            raise CheckpointError(
                f"{source}: is a released DEEN checkpoint, whose expansion has no shortcut; set "
                "method.expansion_shortcut: false or supply another file"
            )
        used = {name: tensor for name, tensor in converted.state.items() if not name.startswith("neck.classifier.")}
        released = ("network.", "aggregation.", "expansion.", "neck.norm.")
        expected = {name: tensor for name, tensor in self.state_dict().items() if name.startswith(released)}
        check_tensors(used, expected, source)
        self.load_state_dict(used, strict=False)


def join_parts(parts: Tensor, weights: Tensor, missing: Tensor, modalities: Tensor, largest: float) -> Tensor:
    """Vectors side by side, such that inner products across modalities are the weighted sum of the parts' own.

    The parts times the roots of their weights are joined. Sums with a mirror differ in length; two more numbers, one
    used by visible and one by infrared pictures, fill each vector up to one length, by which all are divided. Across
    modalities they meet a zero; two pictures of the same modality gain the product of what they lacked.

    Args:
        parts: (E, B, D).
        weights: (E,) of each part's similarity.
        missing: (B,) largest - weighted sum of the parts' squared lengths.
        modalities: (B,) int64.
        largest: squared length that is filled up to.
    Returns:
        (B, E D + 2) of unit length; inner products across modalities are sum_e weights_e <a_e, b_e> / largest.
    """
    joined = (parts * weights.sqrt()[:, None, None]).transpose(0, 1).flatten(1)
    filling = functional.one_hot(modalities, len(Modality)) * missing.clamp(min=0).sqrt()[:, None]
    return torch.cat((joined, filling), 1) / math.sqrt(largest)


# Checkpoints of the released code: 1048 tensors (SYSU-MM01, LLCM) or 1022 (RegDB).
FORMAT = "deen-official"
VARIANT_TENSOR = "DEE.FC1.weight"  # whose size tells the variant
VARIANTS = {3: "SYSU-MM01 and LLCM", 2: "RegDB"}  # by the stage before the expansion
WIDTHS = {3: 1024, 2: 512}  # of that tensor


def _renaming(options: Options) -> Renaming:
    """(our prefix, their prefix) of every used tensor."""
    expand_after = options.expand_after
    letters = {"value": "g", "query": "theta", "key": "phi", "out": "W.0", "norm": "W.1"}
    aggregation = [
        (f"aggregation.{stage}.{block}.{ours}.", f"MFA{stage + 1}.{theirs_block}.{theirs}.")
        for stage in range(expand_after)
        for block, theirs_block in (("channel", "CNL"), ("position", "PNL"))
        for ours, theirs in letters.items()
    ]
    expansion = [
        (f"expansion.branches.{branch}.{ours}.", f"DEE.FC{branch + 1}{theirs}.")
        for branch in range(BRANCHES)
        for ours, theirs in (("dilated.0", 1), ("dilated.1", 2), ("dilated.2", 3), ("out", ""))
    ]
    neck = [("neck.norm.", "bottleneck."), ("neck.classifier.", "classifier.")]
    return (*two_stream_renaming("network."), *aggregation, *expansion, *neck)


def read_architecture(state: Tensors, place: str) -> tuple[Options, dict[str, Any]]:
    """The variant and the number of identities."""
    num_ids = read_tensor_size(state, "classifier.weight", place)
    width = read_tensor_size(state, VARIANT_TENSOR, place)
    return Options(expand_after=2 if width == WIDTHS[2] else 3), {"num_ids": num_ids}


def _variant(options: Options) -> str:
    expand_after = options.expand_after
    return f" (read as the variant for {VARIANTS[expand_after]}, whose DEE has {WIDTHS[expand_after]} channels)"


OFFICIAL_FORMATS = {
    FORMAT: OfficialFormat(
        FORMAT, "deen", Method, Options, read_architecture, _renaming, "deen_llcm",
        {206: "deen_regdb", 395: "deen_sysu"}, "net",
        lambda options, _: unused_tensors("resnet50", num_stages=options.expand_after + 1),
        released=("backbone", "expansion", "aggregation", "expansion_shortcut", "illumination"), variant=_variant,
    )
}  # fmt: skip
