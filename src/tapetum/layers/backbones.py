"""Backbones by name, and what they give: the only place that knows timm, which is imported when one is built.

A backbone's classifier is never built. Its tensors carry timm's names, which for the ResNets are torchvision's
(``conv1``, ``bn1``, ``layer1.0.conv1`` ...).
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tapetum.core.errors import CheckpointError, RecipeError, first_line, nearest_name
from tapetum.layers.person_weights import settle_person_weights
from tapetum.layers.strided import widen_narrow_maps
from tapetum.layers.tokens import Stem, TokenBackbone, patch_grid
from tapetum.layers.weight_packages import read_package
from tapetum.layers.weights import check_tensors, read_state

Pooling = Literal["average", "class"]

# The ImageNet-1k weights that the published baselines start from: torchvision's first release ("V1"), and the first
# conversion of ViT's own. timm's bare names stand for later, stronger training schedules.
IMAGENET_WEIGHTS = {name: f"{name}.tv_in1k" for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")}
IMAGENET_WEIGHTS |= {"vit_base_patch16_224": "vit_base_patch16_224.orig_in21k_ft_in1k"}
REACH_SECONDS = 5.0  # how long the weights hub may take to answer before it counts as out of reach
HALVINGS = 5  # of an EfficientNet's maps, the stem's included
# timm's files of plain vision transformers, and what stands behind the tokens in their weights.
TOKEN_MODULES = tuple(f"timm.models.{module}" for module in ("vision_transformer", "deit", "eva"))
TOKEN_CLASSIFIERS = ("head.", "head_dist.", "pre_logits.", "fc.", "attn_pool.")


@dataclass(frozen=True)
class Maps:
    """A backbone gives feature maps, (B, width, h, w)."""

    width: int

    def pool(self, features: Tensor) -> Tensor:
        """Their average, see `pool_average`."""
        return pool_average(features, self.width)


@dataclass(frozen=True)
class Tokens:
    """A backbone gives tokens, (B, num_prefix + h w, width), those of the patches row by row."""

    width: int
    grid: tuple[int, int]  # rows and columns
    num_prefix: int  # tokens before those of the patches: class token, then registers
    pooling: Pooling = "average"

    def pool(self, features: Tensor) -> Tensor:
        """One vector a picture, (B, width) float32 (or better, as the tokens come)."""
        kind = torch.promote_types(features.dtype, torch.float32)
        if self.pooling == "class":
            return features[:, 0].to(kind)
        return features[:, self.num_prefix :].mean(1, dtype=kind)


def build_backbone(name: str, *, last_stride: int = 2) -> tuple[nn.Module, int]:
    """A randomly initialised backbone that gives feature maps, and their channels.

    Args:
        name: a timm model, e.g. "resnet50", "tf_efficientnet_lite0".
        last_stride: 2, or 1 to keep the resolution of the last stage (ResNets and EfficientNets; no dilation is put
            in).
    Raises:
        RecipeError: timm has no such model, it gives no maps, or its last stride cannot be changed.
    """
    import timm

    _check_name(name)
    if gives_tokens(name):
        raise RecipeError(
            f"backbone {name}: gives tokens where feature maps are needed; choose a convolutional network"
        )
    network = timm.create_model(name, pretrained=False, num_classes=0, global_pool="")
    if last_stride != 2:
        _set_last_stride(network, name, last_stride)
    widen_narrow_maps(network)
    sizes: Any = network  # timm's own attributes
    return network, int(getattr(sizes, "head_hidden_size", None) or sizes.num_features)


def build_any_backbone(
    name: str,
    *,
    size: tuple[int, int],
    last_stride: int = 2,
    patch_stride: int | None = None,
    pooling: Pooling = "average",
    drop_path: float = 0.0,
    stem: Stem = "patches",
) -> tuple[nn.Module, Maps | Tokens]:
    """A randomly initialised backbone, convolutional or a plain vision transformer, and what it gives.

    Args:
        name: a timm model, e.g. "resnet50", "vit_base_patch16_224".
        size: (height, width) of the pictures; decides the grid of a vision transformer.
        last_stride: as for `build_backbone`.
        patch_stride: of a vision transformer: pixels from one patch to the next, less than a patch where they overlap;
            None is a patch's side.
        pooling: how its output becomes one vector; "class" is for vision transformers with a class token.
        drop_path: of a vision transformer: how often its last block is left out in training; rises linearly from 0.
        stem: of a vision transformer, see `TokenBackbone`.
    Returns:
        The network (a `TokenBackbone` where it gives tokens), and `Maps` or `Tokens`.
    Raises:
        RecipeError: timm has no such model, or it cannot be had like this.
    """
    import timm

    _check_name(name)
    if gives_tokens(name):
        if last_stride != 2:
            raise RecipeError(
                f"backbone {name}: last_stride {last_stride} is for convolutional networks; leave it at 2, and set "
                "patch_stride for more tokens"
            )
        return _build_tokens(name, size, patch_stride, pooling, drop_path, stem)
    if patch_stride is not None or pooling != "average" or drop_path or stem != "patches":
        raise RecipeError(
            f"backbone {name}: patch_stride, drop_path, stem and pooling: class are for vision transformers; leave "
            "them out, or choose one such as vit_base_patch16_224"
        )
    config = timm.models.get_pretrained_cfg(name)
    if config is not None and config.fixed_input_size and tuple(config.input_size[1:]) != tuple(size):
        height, width = config.input_size[1:]
        raise RecipeError(
            f"backbone {name}: takes pictures of {height} x {width} alone, these are {size[0]} x {size[1]}; choose a "
            "convolutional network or a plain vision transformer"
        )
    network, width = build_backbone(name, last_stride=last_stride)
    return network, Maps(width)


def _check_name(name: str) -> None:
    import timm

    if not timm.is_model(name):
        raise RecipeError(f"backbone {name!r} is unknown to timm; {nearest_name(name, timm.list_models())}")


def gives_tokens(name: str) -> bool:
    """Whether a timm model is a plain vision transformer, which gives tokens; all others count as giving maps."""
    import timm

    return timm.models.model_entrypoint(name).__module__ in TOKEN_MODULES


def _build_tokens(
    name: str, size: tuple[int, int], patch_stride: int | None, pooling: Pooling, drop_path: float, stem: Stem
) -> tuple[nn.Module, Tokens]:
    import timm

    with torch.device("meta"):
        patches: Any = timm.create_model(name, num_classes=0).patch_embed
    patch = patches.proj.kernel_size
    patch_grid(name, size, patch, patch_stride)  # fails before timm does
    whole = tuple(have // side * side for have, side in zip(size, patch, strict=True))
    network = timm.create_model(name, pretrained=False, num_classes=0, img_size=whole, drop_path_rate=drop_path)
    if pooling == "class" and getattr(network, "cls_token", None) is None:
        raise RecipeError(f"backbone {name}: has no class token; use pooling: average")
    tokens = TokenBackbone(network, name, size, patch_stride=patch_stride, stem=stem)
    return tokens, Tokens(tokens.width, tokens.grid, tokens.num_prefix, pooling)


def _set_last_stride(network: nn.Module, name: str, last_stride: int) -> None:
    from timm.models.efficientnet import EfficientNet

    is_efficient = isinstance(network, EfficientNet)
    stages: Any = getattr(network, "blocks" if is_efficient else "layer4", None)
    if last_stride != 1 or stages is None:
        raise RecipeError(
            f"backbone {name}: last_stride {last_stride} is not available; use 2, or 1 with a ResNet or EfficientNet"
        )
    searched = stages if is_efficient else stages[0]
    strided = [m for m in searched.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    # A ResNet's last stage has one in the first block and one in the shortcut; an EfficientNet one for each halving.
    if len(strided) != (HALVINGS - 1 if is_efficient else 2):
        raise RecipeError(f"backbone {name}: last_stride 1 is not available for this variant; use 2 or a plain ResNet")
    for convolution in strided[-1:] if is_efficient else strided:
        convolution.stride = (1, 1)


def pool_average(maps: Tensor, width: int) -> Tensor:
    """Global average pooling, accumulated and given in float32 (or better, as the map comes).

    Args:
        maps: (B, C, h, w).
        width: C as promised by `build_backbone`.
    Raises:
        RecipeError: as of `check_maps`.
    """
    check_maps(maps, width)
    return maps.mean((2, 3), dtype=torch.promote_types(maps.dtype, torch.float32))


def check_maps(maps: Tensor, width: int) -> None:
    """Complain unless a backbone gives feature maps of a width.

    Raises:
        RecipeError: the backbone does not give such maps (token networks, channels-last networks).
    """
    if maps.ndim != 4 or maps.shape[1] != width:
        raise RecipeError(
            f"backbone output {tuple(maps.shape)} is no map of {width} channels; choose a convolutional backbone"
        )


def load_backbone(network: nn.Module, name: str, source: str, *, for_distances: bool = False) -> None:
    """Fill a backbone with trained weights; it never stays random unnoticed.

    Position embeddings that were trained for another grid are resized.

    Args:
        network: from `build_backbone` or `build_any_backbone`.
        source: "imagenet" (through timm: for ResNets exactly torchvision's V1 weights), "package" (an installed
            package of weights, see `tapetum.layers.weight_packages`), "none" (leave as it is), or a safetensors or .pth
            file with this backbone's tensor names, with or without the ImageNet classifier; of a vision transformer
            also one that learned from people without labels, see `tapetum.layers.person_weights`.
        for_distances: losses will compare distances between its pooled features, to which "package" then fits them;
            other sources are as they are.
    Raises:
        CheckpointError: the weights cannot be had, or do not fit.
    """
    if source == "none":
        return
    if source == "package":
        network.load_state_dict(read_package(name, network, for_distances=for_distances))
        return
    is_hub = source == "imagenet"
    place = f"weights {source} for backbone {name}"
    state = _fetch_imagenet(name) if is_hub else read_state(source)
    if isinstance(network, TokenBackbone) and not is_hub:
        state = settle_person_weights(state, place, stem=network.stem == "ics")
    expected = network.state_dict()
    classifier = _classifier_prefixes(name)
    state = {key: value for key, value in state.items() if key in expected or not key.startswith(classifier)}
    for key, value in expected.items():  # files of the first torchvision release have no step counters
        if key.endswith("num_batches_tracked"):
            state.setdefault(key, value)
    if isinstance(network, TokenBackbone) and "pos_embed" in state:
        state["pos_embed"] = network.fit_positions(state["pos_embed"], place)
    check_tensors(state, expected, place)
    network.load_state_dict(state)


def _classifier_prefixes(name: str) -> tuple[str, ...]:
    import timm

    config = timm.models.get_pretrained_cfg(name)
    names = (config.classifier if config else None) or "fc"
    own = tuple(f"{each}." for each in ([names] if isinstance(names, str) else names))
    return (*own, *TOKEN_CLASSIFIERS) if gives_tokens(name) else own


def _fetch_imagenet(name: str) -> dict[str, Tensor]:
    """ImageNet weights from timm's cache or hub, without timm's minute of retries where there is no network."""
    import timm

    tagged = IMAGENET_WEIGHTS.get(name, name)
    remedy = (
        f"fetch {tagged} where there is a network (timm saves it: timm.create_model({tagged!r}, pretrained=True)) "
        "and pass the file with init.weights=PATH"
    )
    config = timm.models.get_pretrained_cfg(tagged)
    if config is None or not (config.hf_hub_id or config.url):
        raise CheckpointError(f"backbone {name}: timm has no ImageNet weights; train from scratch or pass a file")
    if not _is_cached(config) and not _hub_answers():
        raise CheckpointError(f"backbone {name}: ImageNet weights {tagged} cannot be fetched, no network; {remedy}")
    try:
        settings: dict[str, Any] = {} if gives_tokens(name) else {"global_pool": ""}
        return dict(timm.create_model(tagged, pretrained=True, num_classes=0, **settings).state_dict())
    except Exception as error:  # the hub's clients raise types of their own, by version
        reason = first_line(error)
        raise CheckpointError(
            f"backbone {name}: ImageNet weights {tagged} cannot be fetched ({reason}); {remedy}"
        ) from error


def _is_cached(config: Any) -> bool:
    from huggingface_hub import try_to_load_from_cache

    repository = config.hf_hub_id
    return bool(repository) and isinstance(try_to_load_from_cache(repository, "model.safetensors"), str)


def _hub_answers() -> bool:
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=REACH_SECONDS)
    except Exception:  # no name service, no route, refused, timed out: the client's own types, by version
        return False
    return True
