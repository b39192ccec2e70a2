"""Convolutional backbones by name: the only place that knows timm.

A backbone gives the last feature map (B, C, h, w); its classifier is never built. Its tensors carry timm's names, which
for the ResNets are torchvision's (``conv1``, ``bn1``, ``layer1.0.conv1`` ...).
"""

from typing import Any

import timm
import torch
from torch import Tensor, nn

from tapetum.core.errors import CheckpointError, RecipeError, nearest_name
from tapetum.layers.strided import widen_narrow_maps
from tapetum.layers.weights import check_names, check_shapes, read_state

# The ImageNet-1k weights of torchvision's first release ("V1"), which the published baselines start from. timm's
# bare names stand for later, stronger training schedules.
IMAGENET_WEIGHTS = {name: f"{name}.tv_in1k" for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")}
REACH_SECONDS = 5.0  # how long the weights hub may take to answer before it counts as out of reach


def build_backbone(name: str, *, last_stride: int = 2) -> tuple[nn.Module, int]:
    """A randomly initialised backbone and the number of channels of its feature map.

    Args:
        name: a timm model, e.g. "resnet50", "resnet18", "mobilenetv3_small_100".
        last_stride: 2, or 1 to keep the resolution of the last stage (ResNets only; no dilation is put in).
    Raises:
        RecipeError: timm has no such model, or its last stride cannot be changed.
    """
    if not timm.is_model(name):
        raise RecipeError(f"backbone {name!r} is unknown to timm; {nearest_name(name, timm.list_models())}")
    network = timm.create_model(name, pretrained=False, num_classes=0, global_pool="")
    if last_stride != 2:
        _set_last_stride(network, name, last_stride)
    widen_narrow_maps(network)
    sizes: Any = network  # timm's own attributes
    return network, int(getattr(sizes, "head_hidden_size", None) or sizes.num_features)


def _set_last_stride(network: nn.Module, name: str, last_stride: int) -> None:
    stage = getattr(network, "layer4", None)
    if last_stride != 1 or stage is None:
        raise RecipeError(f"backbone {name}: last_stride {last_stride} is not available; use 2, or 1 with a ResNet")
    strided = [m for m in stage[0].modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    if len(strided) != 2:  # one convolution of the block and the shortcut
        raise RecipeError(f"backbone {name}: last_stride 1 is not available for this variant; use 2 or a plain ResNet")
    for convolution in strided:
        convolution.stride = (1, 1)


def pool_average(maps: Tensor, width: int) -> Tensor:
    """Global average pooling, accumulated and given in float32 (or better, as the map comes).

    Args:
        maps: (B, C, h, w) feature map.
        width: C as promised by `build_backbone`.
    Returns:
        (B, C) float32.
    Raises:
        RecipeError: the backbone does not give such maps (token networks, channels-last networks).
    """
    if maps.ndim != 4 or maps.shape[1] != width:
        raise RecipeError(
            f"backbone output {tuple(maps.shape)} is no map of {width} channels; choose a convolutional backbone"
        )
    return maps.mean((2, 3), dtype=torch.promote_types(maps.dtype, torch.float32))


def load_backbone(network: nn.Module, name: str, source: str) -> None:
    """Fill a backbone with trained weights; it never stays random unnoticed.

    Args:
        network: from `build_backbone`.
        name: its name.
        source: "imagenet" (through timm: for ResNets exactly torchvision's V1 weights), "none" (leave as it is), or a
            safetensors or .pth file with this backbone's tensor names, with or without the ImageNet classifier.
    Raises:
        CheckpointError: the weights cannot be fetched, or the file does not fit.
    """
    if source == "none":
        return
    if source == "imagenet":
        network.load_state_dict(_fetch_imagenet(name))
        return
    expected = network.state_dict()
    state = read_state(source)
    classifier = _classifier_prefixes(network)
    state = {key: value for key, value in state.items() if not key.startswith(classifier)}
    for key, value in expected.items():  # files of the first torchvision release have no step counters
        if key.endswith("num_batches_tracked"):
            state.setdefault(key, value)
    check_names(state, expected, f"weights {source} for backbone {name}")
    check_shapes(state, expected, f"weights {source} for backbone {name}")
    network.load_state_dict(state)


def _classifier_prefixes(network: nn.Module) -> tuple[str, ...]:
    names = getattr(network, "pretrained_cfg", {}).get("classifier") or "fc"
    return tuple(f"{name}." for name in ([names] if isinstance(names, str) else names))


def _fetch_imagenet(name: str) -> dict[str, Tensor]:
    """ImageNet weights from timm's cache or hub, without timm's minute of retries where there is no network."""
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
        return dict(timm.create_model(tagged, pretrained=True, num_classes=0, global_pool="").state_dict())
    except Exception as error:  # the hub's clients raise types of their own, by version
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
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
