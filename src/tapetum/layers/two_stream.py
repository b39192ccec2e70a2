"""Two stems, one trunk: what visible and infrared networks share.

Pictures of both modalities come in one batch, in any order; each goes through the stem of its own modality, and all go
through the trunk together.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from tapetum.core.errors import RecipeError
from tapetum.core.types import Modality
from tapetum.layers.backbones import build_backbone, load_backbone
from tapetum.layers.winograd import use_winograd

# Of a ResNet.
STEM = ("conv1", "bn1", "act1", "maxpool")
STAGES = ("layer1", "layer2", "layer3", "layer4")
# Of an EfficientNet: its stem, its groups of blocks, and what follows the last.
EFFICIENT_STEM = ("conv_stem", "bn1")
EFFICIENT_BLOCKS = "blocks"
EFFICIENT_END = ("conv_head", "bn2")


class TwoStream(nn.Module):
    """A ResNet or EfficientNet whose stem exists once for each modality.

    A ResNet's stages are its own four. An EfficientNet's stem is its first convolution; each halving of the resolution
    behind it begins a stage, and the convolution behind its last block ends the fourth.

    Attributes:
        stems: by modality number: visible, infrared.
        stages: the shared stages, to be called one after the other (a method may put blocks between them); each is a
            sequence of blocks.
        widths: channels of the stem's map and of each stage's.
        strides: by how much each stage divides the resolution.

    Args:
        backbone: a ResNet or EfficientNet of timm, e.g. "resnet50" or "tf_efficientnet_lite0".
        last_stride: of the last stage; 1 keeps its resolution.
        num_stages: how many of the four stages the network has.
    Raises:
        RecipeError: the backbone is unknown or of another kind.
    Source: the two-stream baseline of the AGW, DDAG and DEEN releases, whose backbone is a ResNet.
    """

    def __init__(self, backbone: str, *, last_stride: int = 1, num_stages: int = 4) -> None:
        super().__init__()
        self.backbone, self.last_stride = backbone, last_stride
        self.stems = nn.ModuleList(divide_backbone(self._build(), backbone)[0] for _ in Modality)
        _, shared, first_stride = divide_backbone(self._build(), backbone)
        self.stages = nn.ModuleList(shared[:num_stages])
        use_winograd(self.stages)
        self.widths = (output_width(self.stems[0]), *(output_width(stage) for stage in self.stages))
        self.strides = (first_stride, 2, 2, last_stride)[:num_stages]

    def _build(self) -> nn.Module:
        network, _ = build_backbone(self.backbone, last_stride=self.last_stride)
        return network

    def stem(self, images: Tensor, modalities: Tensor) -> Tensor:
        """The maps before the first stage, in the order of the batch.

        Returns:
            (B, C, H / 4, W / 4) of a ResNet, (B, C, H / 2, W / 2) of an EfficientNet.
        """
        return apply_by_modality(self.stems, images, modalities)

    def forward(self, images: Tensor, modalities: Tensor) -> Tensor:
        """Stem and all stages."""
        maps = self.stem(images, modalities)
        for stage in self.stages:
            maps = stage(maps)
        return maps

    def load_pretrained(self, source: str) -> None:
        """Fill both stems and the trunk from one network's weights, as the released codes do; see `load_backbone`."""
        if source == "none":
            return
        network = self._build()
        load_backbone(network, self.backbone, source, for_distances=True)
        filled, stages, _ = divide_backbone(network, self.backbone)
        self._fill(filled, stages)

    def _fill(self, filled: nn.Module, stages: list[nn.Sequential]) -> None:
        for stem in self.stems:
            stem.load_state_dict(filled.state_dict())
        for stage, other in zip(self.stages, stages, strict=False):
            stage.load_state_dict(other.state_dict())


def apply_by_modality(parts: nn.ModuleList, images: Tensor, modalities: Tensor) -> Tensor:
    """Each picture through the part of its own modality; what comes out stands in the order of the batch.

    Args:
        parts: by modality number.
        images: (B, C, H, W).
        modalities: (B,) values of `Modality`.
    """
    if is_being_exported():
        infrared = (modalities == Modality.INFRARED)[:, None, None, None]
        return torch.where(infrared, parts[Modality.INFRARED](images), parts[Modality.VISIBLE](images))
    rows = [(modalities == modality).nonzero().squeeze(1) for modality in Modality]
    present = [(modality, own) for modality, own in zip(Modality, rows, strict=True) if len(own)]
    if len(present) == 1:
        maps: Tensor = parts[present[0][0]](images)
        return maps
    made = [parts[modality](images[own]) for modality, own in present]
    order = torch.cat([own for _, own in present]).argsort()
    return torch.cat(made)[order]


def is_being_exported() -> bool:
    """Whether a graph is being recorded. It cannot pick rows by their modality: all go both ways, and a mask chooses.

    A stem is a few hundredths of a network, and each picture's numbers are the same on either way.
    """
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return tracing or torch.compiler.is_exporting()


def output_width(part: nn.Module) -> int:
    """Channels that come out of a stem, a stage or a block."""
    return last_norm(part).num_features


def last_norm(part: nn.Module) -> nn.BatchNorm2d:
    """The last norm on the main path of a stem, a stage or a block."""
    norms = [m for name, m in part.named_modules() if isinstance(m, nn.BatchNorm2d) and "downsample" not in name]
    return norms[-1]


def divide_backbone(network: nn.Module, name: str) -> tuple[nn.Sequential, list[nn.Sequential], int]:
    """A backbone's stem, its four stages, and by how much the first of them divides the resolution.

    Raises:
        RecipeError: it is of another kind.
    """
    if isinstance(getattr(network, "bn1", None), nn.BatchNorm2d):
        if all(hasattr(network, part) for part in (*STEM, *STAGES)):
            stages = [cast(nn.Sequential, network.get_submodule(stage)) for stage in STAGES]
            return nn.Sequential(*map(network.get_submodule, STEM)), stages, 1
        if all(hasattr(network, part) for part in (*EFFICIENT_STEM, EFFICIENT_BLOCKS, *EFFICIENT_END)):
            groups = _efficient_stages(network)
            if len(groups) == len(STAGES):
                groups[-1].append(nn.Sequential(*map(network.get_submodule, EFFICIENT_END)))
                stem = nn.Sequential(*map(network.get_submodule, EFFICIENT_STEM))
                return stem, [nn.Sequential(*blocks) for blocks in groups], 2
    raise RecipeError(
        f"backbone {name}: has no separate stem and four stages; choose a plain ResNet or EfficientNet of timm"
    )


def _efficient_stages(network: Any) -> list[list[nn.Module]]:
    """Blocks up to each place where timm says that a resolution ends; the stem's own has none but its own blocks."""
    ends = [int(info["module"].rpartition(".")[2]) + 1 for info in network.feature_info][1:]
    groups = list(network.blocks)
    return [
        [block for group in groups[begin:end] for block in group] for begin, end in zip((0, *ends), ends, strict=False)
    ]
