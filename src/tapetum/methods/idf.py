"""IDF, Illumination Distillation Framework (Night600 paper, IEEE TMM 2023).

Two extractors look at the night picture and at the same picture brightened by DCE-Net, which is trained along. A
bottleneck fusion model joins their features; the fused head teaches the two branch heads.

Source: the paper, and the released code Alexadlu/IDF (variant "IDE+"). Where they disagree the default is the code and
the paper's reading is an option, marked "paper:" below.
Differs: a black picture gives no NaN (see `tapetum.losses.colour`); the dead ImageNet classifiers of the two backbones
are not built; no picture files are written while training.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from tapetum.core.errors import RecipeError, TrainingError
from tapetum.core.method import TrainingFacts
from tapetum.core.options import option, plain_options, read_options, require
from tapetum.core.types import Batch
from tapetum.layers.bnneck import centres_of
from tapetum.layers.branch import HeadOutput, RegularisesWeights, whole_of
from tapetum.layers.curve_net import CurveNet
from tapetum.layers.normalisation import Normalisation, Normalise
from tapetum.losses.distillation import distillation
from tapetum.losses.structure import structural_dissimilarity
from tapetum.methods import find_method
from tapetum.methods._enhancement import enhancement_losses
from tapetum.methods._mirrored import Mirrored
from tapetum.methods._official import OfficialFormat, Tensors, read_tensor_size
from tapetum.methods.ide import dead_classifiers, head_renaming

FusionActivation = Literal["tanh_relu", "relu"]
OWN_EXTRACTOR_OPTIONS = ("input_scale", "normalisation", "test_feature")  # IDF decides these for both branches

SMALL = {"extractor_options": {"backbone": "test_resnet", "width": 16, "dropout": 0.0}, "curve_width": 4}  # for tests
TRAINING_ONLY = ("centres",)  # of an extractor's heads


@dataclass(frozen=True)
class Options:
    """What a recipe may set under ``method:``. The defaults are the released code's."""

    # the extractor of both branches
    extractor: str = option("ide", "a method file with a class Branch")
    extractor_options: Mapping[str, Any] = option({}, "that file's options, e.g. backbone: resnet18")

    # the picture
    input_scale: float = option(1 / 255, "pictures in 0..1 are multiplied by this; paper: 1", above=0)
    normalisation: Normalisation = option(
        "none", "of what the extractors see, never of what DCE-Net and its losses see"
    )
    enhancement_input: Literal["enhanced_plus_input", "enhanced"] = option("enhanced_plus_input", "paper: enhanced")

    # which streams there are (Table V)
    streams: Literal["night_and_enhanced", "night_twice", "enhanced"] = option(
        "night_and_enhanced", "night_twice: two extractors and no DCE-Net; enhanced: the enhanced stream alone"
    )
    share_streams: bool = option(False, "both streams through one extractor")
    branch_losses: bool = option(True, "a head and its losses for each stream")
    fusion: Literal["bottleneck", "concat", "none"] = option(
        "bottleneck", "concat: a head on the joined feature; none: no fused head"
    )
    fusion_width: int | None = option(
        None, "null: one branch's width, which for ResNet-50 is the released 2048", least=1
    )
    fusion_activation: FusionActivation = option("tanh_relu", "paper: relu")

    # DCE-Net
    curve_width: int = option(32, "channels of DCE-Net", least=1)
    curve_scale: float = option(1.0, "ours: 0.5 estimates the curves at half resolution", above=0, most=1)
    enhancer_init: Literal["random", "zero_dce"] = option("random", "zero_dce: filled from enhancer_weights")
    enhancer_weights: str = option("", "the weights file for zero_dce")
    enhancer_frozen: bool = option(
        False, "Table III, 'w/ DCE': a fixed preprocessing, clipped as when saved to a picture"
    )

    # losses (weights of the released code; 0 switches a term off)
    curve_smoothness_weight: float = option(200.0, "of the smoothness of the curves", least=0)
    exposure_weight: float = option(10.0, "of the distance to the well-exposed level", least=0)
    colour_weight: float = option(5.0, "of colour constancy", least=0)
    spatial_weight: float = option(1.0, "of spatial consistency", least=0)
    structure_weight: float = option(
        0.0, "structural dissimilarity: in the released code, but not in its total", least=0
    )
    reconstruction_weight: float = option(0.1, "lambda_1", least=0)
    distillation_weight: float = option(0.1, "lambda_2", least=0)
    exposure_power: Literal[1, 2] = option(2, "paper: 1")
    exposure_level: float = option(0.6, "mean that a well-exposed patch has, in 0..1")
    exposure_patch: int = option(16, "side of the patches whose exposure counts, pixels")
    curve_smoothness_reading: Literal["code", "paper"] = option("code", "where the two differ")
    colour_reading: Literal["code", "paper"] = option("code", "where the two differ")
    spatial_reading: Literal["code", "paper"] = option("code", "where the two differ")
    reconstruction_reduction: Literal["mean", "sum"] = option("mean", "paper: sum")
    distillation_reduction: Literal["mean", "sum"] = option("mean", "paper: sum")
    distillation_detach: bool = option(True, "the teacher learns nothing from its students")
    distillation_temperature: float = option(1.0, "divides both logits; the loss is multiplied by its square", above=0)

    # the vector for search
    test_feature: Literal["head", "backbone", "parts"] = option(
        "head", "paper: backbone (pooled features and latent code); parts: these and what TransReID's parts give"
    )
    test_branches: str = option("all", "'evf', 'f' ... of e (enhanced), v (night), f (fused); all: those there are")

    def __post_init__(self) -> None:
        require(
            self.fusion == "none" or self.streams != "enhanced",
            f"method.fusion: {self.fusion} needs two streams, method.streams is enhanced; set fusion: none",
        )
        require(
            self.branch_losses or self.fusion != "none",
            "method.branch_losses: false leaves nothing to train when method.fusion is none; set one of them",
        )
        require(
            (self.enhancer_init == "zero_dce") == bool(self.enhancer_weights),
            f"method.enhancer_weights: {self.enhancer_weights!r} does not go with enhancer_init {self.enhancer_init}; "
            "zero_dce needs a file, random none",
        )
        require(
            self.enhancer_init == "zero_dce" or not self.enhancer_frozen,
            "method.enhancer_frozen: true would keep a random DCE-Net; set enhancer_init and enhancer_weights",
        )
        available = self.available_branches()
        require(
            self.test_branches == "all"
            or (0 < len(self.test_branches) == len(set(self.test_branches)) and set(self.test_branches) <= available),
            f"method.test_branches: {self.test_branches!r} is not made of {', '.join(sorted(available))} once each; "
            "choose among these or write all",
        )
        extractor_settings(self)

    def written_out(self) -> dict[str, Any]:
        """As plain values, the extractor's options whole."""
        return {**plain_options(self), "extractor_options": write_extractor_options(self)}

    def available_branches(self) -> set[str]:
        """Which of e (enhanced or second night stream), v (night), f (fused) can be part of the vector for search."""
        streams = {"e"} if self.streams == "enhanced" else {"e", "v"}
        branches = streams if self.branch_losses or self.test_feature == "backbone" else set()
        return branches | ({"f"} if self.fusion != "none" else set())

    def search_branches(self) -> str:
        """The branches whose vectors are joined for search, in order."""
        if self.test_branches != "all":
            return self.test_branches
        return "".join(letter for letter in "evf" if letter in self.available_branches())


class NamesExtractor(Protocol):
    """Options of a method that is built on another method's extractor."""

    @property
    def extractor(self) -> str:
        """A method file with a class ``Branch``."""
        ...

    @property
    def extractor_options(self) -> Mapping[str, Any]:
        """That file's options."""
        ...


def extractor_settings(options: NamesExtractor) -> tuple[ModuleType, Any]:
    """The extractor's module and its typed options.

    Raises:
        RecipeError: there is no such extractor, or an option of it is wrong.
    """
    try:
        module, meant = find_method(options.extractor)
    except RecipeError as error:
        raise RecipeError(f"method.extractor: {error}") from error
    if not hasattr(module, "Branch"):
        raise RecipeError(f"method.extractor: {options.extractor} has no class Branch; use one that has, such as ide")
    for name in OWN_EXTRACTOR_OPTIONS:
        require(
            name not in options.extractor_options,
            f"method.extractor_options.{name}: is decided for both branches by method.{name}; set it there",
        )
    settings = read_options(module.Options, {**meant, **options.extractor_options}, place="method.extractor_options")
    return module, settings


def write_extractor_options(options: NamesExtractor) -> dict[str, Any]:
    """The extractor's options as plain values, every default written out but of those that are not the extractor's."""
    plain = plain_options(extractor_settings(options)[1])
    return {name: value for name, value in plain.items() if name not in OWN_EXTRACTOR_OPTIONS}


class BottleneckFusion(nn.Module):
    """An autoencoder over the joined feature whose latent code is the fused feature.

    Encoder: width -> width/2 -> latent; decoder: latent -> width/2 -> width, the last one linear.

    Args:
        activation: of the encoder: "tanh_relu" puts tanh after the first layer and ReLU after the second (released
            code), "relu" puts ReLU after both (paper). The decoder has ReLU between its layers either way.
    Source: IDF release, class "BFM"; linear layers keep PyTorch's initialisation.
    """

    def __init__(self, width: int, latent_width: int, activation: FusionActivation = "tanh_relu") -> None:
        super().__init__()
        first = nn.Tanh() if activation == "tanh_relu" else nn.ReLU()
        self.encoder = nn.Sequential(
            nn.Linear(width, width // 2), first, nn.Linear(width // 2, latent_width), nn.ReLU()
        )
        self.decoder = nn.Sequential(nn.Linear(latent_width, width // 2), nn.ReLU(), nn.Linear(width // 2, width))

    def forward(self, joined: Tensor) -> tuple[Tensor, Tensor]:
        """The fused feature, (B, latent_width), and the reconstruction of what was joined, (B, width), float32."""
        latent = self.encoder(joined)
        return latent.float(), self.decoder(latent).float()


def reconstruction(decoded: Tensor, target: Tensor, *, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
    """Squared error of (B, D); the target is not detached, so that it too is drawn towards what can be reconstructed.

    Args:
        reduction: "mean" over all elements (released code), or "sum" over the elements and mean over the batch (the
            paper's squared norm; D times larger).
    Source: IDF release, loss of the bottleneck fusion model.
    """
    errors = (decoded - target).square()
    return errors.mean() if reduction == "mean" else errors.sum(1).mean()


@dataclass(frozen=True)
class Output:
    """What the network gives; enhanced pictures and curves are None without DCE-Net.

    Attributes:
        pictures: (B, 3, H, W) as DCE-Net saw them.
        enhanced: (B, 3, H, W) brightened pictures, not clipped.
        curves: (B, 24, h, w) curve maps at the resolution they were estimated at.
        joined: (B, 2 width) features of both streams, enhanced first; None without a fusion.
        decoded: (B, 2 width) reconstruction of `joined`; None without the bottleneck.
        features: e, v, f -> (B, width) pooled feature or latent code.
        heads: e, v, f -> what its head made of it.
    """

    pictures: Tensor
    enhanced: Tensor | None
    curves: Tensor | None
    joined: Tensor | None
    decoded: Tensor | None
    features: Mapping[str, Tensor]
    heads: Mapping[str, HeadOutput]

    @property
    def logits(self) -> Tensor:
        """(B, num_ids) class scores: the fused head's where there is one."""
        return next(self.heads[name].first_logits for name in "fev" if name in self.heads)


class Method(Mirrored):
    """IDF and the rows of its ablation."""

    def __init__(self, options: Options, facts: TrainingFacts) -> None:
        super().__init__()
        self.options = options
        self.facts, self.num_ids = facts, facts.num_ids
        self.normalise = Normalise(options.normalisation)
        module, settings = extractor_settings(options)

        self.enhancer = (
            None if options.streams == "night_twice" else CurveNet(options.curve_width, curve_scale=options.curve_scale)
        )
        if self.enhancer is not None and options.enhancer_frozen:
            self.enhancer.requires_grad_(False)
        self._enhancer_is_filled = options.enhancer_init == "random"
        self.register_load_state_dict_post_hook(_mark_as_filled)  # type: ignore[no-untyped-call]

        # `second` looks at the enhanced picture (or at the night picture again), `night` at the night picture.
        self.second = module.Branch(settings, facts)
        width = self.second.width
        separate = options.streams != "enhanced" and not options.share_streams
        self.night = module.Branch(settings, facts) if separate else None

        latent = options.fusion_width or width
        self.fusion = (
            BottleneckFusion(2 * width, latent, options.fusion_activation) if options.fusion == "bottleneck" else None
        )
        heads: dict[str, nn.Module] = {}
        if options.branch_losses:
            heads["e"] = self.second.build_head(facts.num_ids)
            if options.streams != "enhanced":
                heads["v"] = self.second.build_head(facts.num_ids)
        if options.fusion != "none":
            fused_width = latent if options.fusion == "bottleneck" else 2 * width
            heads["f"] = self.second.build_fused_head(fused_width, facts.num_ids)
        self.heads = nn.ModuleDict(heads)

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Output:
        """Enhanced pictures, features and class scores."""
        options = self.options
        pictures = images.contiguous()  # the curves are applied plane by plane, see `apply_curves`
        if options.input_scale != 1:
            pictures = pictures * options.input_scale
        enhanced, curves = self._enhance(pictures)
        second_input = pictures
        if enhanced is not None:
            plus_input = options.enhancement_input == "enhanced_plus_input"
            second_input = enhanced + pictures if plus_input else enhanced

        # Raw branch outputs; an extractor with parts puts the whole first, and the fusion reads that.
        branches = {"e": self.second(self.normalise(second_input), modalities, camids)}
        if options.streams != "enhanced":
            night = self.night if self.night is not None else self.second
            repeated = options.share_streams and second_input is pictures
            branches["v"] = branches["e"] if repeated else night(self.normalise(pictures), modalities, camids)
        features = {name: whole_of(feature) for name, feature in branches.items()}
        heads = {name: self.heads[name](branches[name]) for name in branches if name in self.heads}

        joined = decoded = None
        if options.fusion != "none":
            joined = torch.cat((features["e"], features["v"]), 1)  # (B, 2 width)
            features["f"] = joined
            if self.fusion is not None:
                features["f"], decoded = self.fusion(joined)
            heads["f"] = self.heads["f"](features["f"])
        return Output(pictures, enhanced, curves, joined, decoded, features, heads)

    def _enhance(self, pictures: Tensor) -> tuple[Tensor | None, Tensor | None]:
        if self.enhancer is None:
            return None, None
        if not self._enhancer_is_filled:
            raise TrainingError(
                f"enhancer_init is zero_dce but {self.options.enhancer_weights} was not read; call load_pretrained"
            )
        if self.options.enhancer_frozen:
            with torch.no_grad():
                enhanced, curves = self.enhancer(pictures)
            return enhanced.clamp(0, 1), curves
        enhanced, curves = self.enhancer(pictures)
        return enhanced, curves

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Losses of each head and each extractor's weights, DCE-Net's four, reconstruction and distillation, weighted.

        Terms whose parts the options leave out are left out too.
        """
        options = self.options
        names = {"e": "enhanced", "v": "night", "f": "fused"}
        losses = {
            f"{loss}_{names[head]}": value
            for head, made in output.heads.items()
            for loss, value in self.second.losses(made, batch, self.heads[head]).items()
        }
        for extractor, name in ((self.second, "enhanced"), (self.night, "night")):
            if isinstance(extractor, RegularisesWeights):
                losses |= {f"{loss}_{name}": value for loss, value in extractor.weight_losses(batch).items()}
        losses |= self._enhancement_losses(output)
        if output.joined is not None and output.decoded is not None and options.reconstruction_weight:
            losses["reconstruction"] = options.reconstruction_weight * reconstruction(
                output.decoded, output.joined, reduction=options.reconstruction_reduction
            )
        students = [made.first_logits for name, made in output.heads.items() if name != "f"]
        if "f" in output.heads and students and options.distillation_weight:
            divergences = [
                distillation(
                    student,
                    output.heads["f"].first_logits,  # detached inside, unless distillation_detach is off
                    temperature=options.distillation_temperature,
                    detach_teacher=options.distillation_detach,
                    reduction=options.distillation_reduction,
                )
                for student in students
            ]
            losses["distillation"] = options.distillation_weight * torch.stack(divergences).sum()
        return losses

    def _enhancement_losses(self, output: Output) -> dict[str, Tensor]:
        options = self.options
        if output.enhanced is None or output.curves is None or options.enhancer_frozen:
            return {}
        losses = enhancement_losses(
            options,
            output.pictures,
            output.enhanced,
            output.curves,
            power=options.exposure_power,
            smoothness=options.curve_smoothness_reading,
            colour=options.colour_reading,
            spatial=options.spatial_reading,
        )
        if options.structure_weight:
            losses["structure"] = options.structure_weight * structural_dissimilarity(output.pictures, output.enhanced)
        return losses

    def describe(self, output: Output) -> Tensor:
        """The raw vectors for search, (B, D) float32: [e, v, f], or those of the branches that the options name."""
        names = self.options.search_branches()
        match self.options.test_feature:
            case "head":
                vectors = [output.heads[name].embedding for name in names]
            case "backbone":
                vectors = [output.features[name] for name in names]
            case "parts":  # before the heads, each as TransReID alone is searched with
                vectors = [output.heads[name].whole_and_parts for name in names]
        return torch.cat([vector.float() for vector in vectors], dim=1)

    def enhance(self, images: Tensor) -> Tensor:
        """Pictures as DCE-Net brightens them, clipped to 0..1; unchanged in an ablation without DCE-Net."""
        enhanced, _ = self._enhance(images * self.options.input_scale)
        return images if enhanced is None else enhanced.float().clamp(0, 1)

    @property
    def enhancement(self) -> str | None:
        """What `enhance` is by; None in an ablation without it."""
        return None if self.enhancer is None else "DCE-Net"

    @property
    def stream_names(self) -> dict[str, str]:
        """What figures call the extractors, in the order in which they show them: attribute -> name."""
        if self.night is None:
            return {"second": "enhanced" if self.options.streams == "enhanced" else "shared"}
        return {"night": "night", "second": "night again" if self.enhancer is None else "enhanced"}

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Backbone (both extractors), head (heads and fusion), enhancer (DCE-Net), centres (where heads have some)."""
        modules = {
            "backbone": (self.second, self.night),
            "head": (self.heads, self.fusion),
            "enhancer": (self.enhancer,),
        }
        centres = centres_of(self)
        apart = {id(parameter) for parameter in centres}
        groups = {
            name: [
                parameter
                for module in group
                if module is not None
                for parameter in module.parameters()
                if parameter.requires_grad and id(parameter) not in apart
            ]
            for name, group in modules.items()
        }
        groups["centres"] = centres
        return {name: parameters for name, parameters in groups.items() if parameters}

    def load_pretrained(self, source: str) -> None:
        """Give both extractors the same weights, and DCE-Net its own where the options name a file."""
        self.second.load_pretrained(source)
        if self.night is not None:
            self.night.load_pretrained(source)
        if self.enhancer is not None and self.options.enhancer_init == "zero_dce":
            self.enhancer.load_weights(self.options.enhancer_weights)
            self._enhancer_is_filled = True


def _mark_as_filled(method: nn.Module, _keys: Any) -> None:
    method._enhancer_is_filled = True  # type: ignore[assignment]


# Checkpoints of the released code, variant "IDE+": 689 tensors.
RENAMING = (
    ("night.backbone.", "model_v."),
    ("second.backbone.", "model_e."),
    ("fusion.encoder.", "bfm.fuse_in."),
    ("fusion.decoder.", "bfm.fuse_out."),
    ("enhancer.", "E_Net."),
    *head_renaming("heads.v.", "classifier_v."),
    *head_renaming("heads.e.", "classifier_e."),
    *head_renaming("heads.f.", "classifier_f."),
)


def read_architecture(state: Tensors, place: str) -> tuple[Options, dict[str, Any]]:
    """The embedding's width and the number of identities."""
    num_ids = read_tensor_size(state, "classifier_f.classifier.0.weight", place)
    width = read_tensor_size(state, "classifier_f.add_block.0.weight", place)
    return Options(extractor_options={"width": width}), {"num_ids": num_ids}


OFFICIAL_FORMATS = {
    "idf-official": OfficialFormat(
        "idf-official", "idf", Method, Options, read_architecture, lambda _: RENAMING, "idf_official",
        unused=lambda *_: dead_classifiers("model_v.", "model_e."), needs_unused=("",),
        released=(
            "input_scale", "normalisation", "enhancement_input", "fusion_activation", "curve_scale",
        ),
        released_within={"extractor_options": {"last_stride": 2}},
    )
}  # fmt: skip
