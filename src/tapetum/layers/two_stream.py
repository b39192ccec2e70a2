"""Two stems, one trunk: what visible and infrared networks share.

Pictures of both modalities come in one batch, in any order; each goes through the stem of its own modality, and all go
through the trunk together.
"""

import torch
from torch import Tensor, nn

from tapetum.core.errors import RecipeError
from tapetum.core.types import Modality
from tapetum.layers.backbones import build_backbone, load_backbone
from tapetum.layers.winograd import use_winograd

STEM = ("conv1", "bn1", "act1", "maxpool")
STAGES = ("layer1", "layer2", "layer3", "layer4")


class TwoStream(nn.Module):
    """A ResNet whose stem exists once for each modality.

    Attributes:
        stems: by modality number: visible, infrared.
        stages: the shared stages, to be called one after the other (a method may put blocks between them).
        widths: channels of the stem's map and of each stage's.

    Args:
        backbone: a ResNet of timm, e.g. "resnet50".
        last_stride: of the last stage; 1 keeps its resolution.
        num_stages: how many of the four stages the network has.
    Raises:
        RecipeError: the backbone is unknown or not a ResNet.
    Source: the two-stream baseline of the AGW, DDAG and DEEN releases.
    """

    def __init__(self, backbone: str, *, last_stride: int = 1, num_stages: int = 4) -> None:
        super().__init__()
        self.backbone, self.last_stride = backbone, last_stride
        networks = [_build(backbone, last_stride) for _ in Modality]
        self.stems = nn.ModuleList(
            nn.Sequential(*(network.get_submodule(name) for name in STEM)) for network in networks
        )
        shared = _build(backbone, last_stride)
        self.stages = nn.ModuleList(shared.get_submodule(name) for name in STAGES[:num_stages])
        use_winograd(self.stages)
        self.widths = (_width_of(self.stems[0]), *(_width_of(stage) for stage in self.stages))

    def stem(self, images: Tensor, modalities: Tensor) -> Tensor:
        """The maps before the first stage, in the order of the batch.

        Args:
            images: (B, 3, H, W), normalised.
            modalities: (B,) int64 values of `Modality`.
        Returns:
            (B, C, H / 4, W / 4).
        """
        if is_being_exported():
            infrared = (modalities == Modality.INFRARED)[:, None, None, None]
            return torch.where(infrared, self.stems[Modality.INFRARED](images), self.stems[Modality.VISIBLE](images))
        rows = [(modalities == modality).nonzero().squeeze(1) for modality in Modality]
        present = [(modality, own) for modality, own in zip(Modality, rows, strict=True) if len(own)]
        if len(present) == 1:
            maps: Tensor = self.stems[present[0][0]](images)
            return maps
        parts = [self.stems[modality](images[own]) for modality, own in present]
        order = torch.cat([own for _, own in present]).argsort()
        return torch.cat(parts)[order]

    def forward(self, images: Tensor, modalities: Tensor) -> Tensor:
        """Stem and all stages.

        Args:
            images: (B, 3, H, W), normalised.
            modalities: (B,) int64.
        """
        maps = self.stem(images, modalities)
        for stage in self.stages:
            maps = stage(maps)
        return maps

    def load_pretrained(self, source: str) -> None:
        """Fill both stems and the trunk from one network's weights, as the released codes do.

        Args:
            source: "imagenet", "none", or a weights file of the whole backbone.
        Raises:
            CheckpointError: the weights cannot be fetched or do not fit.
        """
        if source == "none":
            return
        network = _build(self.backbone, self.last_stride)
        load_backbone(network, self.backbone, source)
        for stem in self.stems:
            for own, name in zip(stem.children(), STEM, strict=True):
                own.load_state_dict(network.get_submodule(name).state_dict())
        for stage, name in zip(self.stages, STAGES, strict=False):
            stage.load_state_dict(network.get_submodule(name).state_dict())


def is_being_exported() -> bool:
    """Whether a graph is being recorded. It cannot pick rows by their modality: all go both ways, and a mask chooses.

    A stem is a few hundredths of a network, and each picture's numbers are the same on either way.
    """
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return tracing or torch.compiler.is_exporting()


def _build(backbone: str, last_stride: int) -> nn.Module:
    network, _ = build_backbone(backbone, last_stride=last_stride)
    if not all(hasattr(network, name) for name in (*STEM, *STAGES)):
        raise RecipeError(f"backbone {backbone}: has no separate stem and four stages; choose a plain ResNet of timm")
    return network


def _width_of(part: nn.Module) -> int:
    """Channels that come out: the width of the last norm on the main path."""
    norms = [m for name, m in part.named_modules() if isinstance(m, nn.BatchNorm2d) and "downsample" not in name]
    return norms[-1].num_features
