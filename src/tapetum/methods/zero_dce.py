"""Zero-DCE: the light-enhancement curve network alone, trained without any label (CVPR 2020).

It brightens pictures for others: the rows "w/ DCE" of the IDF paper's Table III run a Re-ID method on what it makes.
Its checkpoint serves as `enhancer_weights` of IDF.

Source: the released code Li-Chongyi/Zero-DCE. Weights of its convolutions start as N(0, 0.02), biases as PyTorch's
default; the terms are weighted 200 (smoothness), 10 (exposure), 5 (colour) and 1 (spatial).
Differs: a black picture gives no NaN (see `tapetum.losses.colour`); the vectors for search, which the original does
not have, are the mean curves: they say how a picture was lit, not who is on it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from tapetum.core.errors import CheckpointError
from tapetum.core.method import TrainingFacts
from tapetum.core.options import option
from tapetum.core.types import Batch
from tapetum.layers.curve_net import CurveNet
from tapetum.methods._enhancement import enhancement_losses
from tapetum.methods._mirrored import Mirrored

SMALL = {"curve_width": 4}  # for tests


@dataclass(frozen=True)
class Options:
    """What a recipe may set under ``method:``. The defaults are the released code's."""

    curve_width: int = option(32, "channels of DCE-Net", least=1)
    weight_std: float = option(0.02, "initial weights of the convolutions", above=0)
    curve_smoothness_weight: float = option(200.0, "of the smoothness of the curves", least=0)
    exposure_weight: float = option(10.0, "of the distance to the well-exposed level", least=0)
    colour_weight: float = option(5.0, "of colour constancy", least=0)
    spatial_weight: float = option(1.0, "of spatial consistency", least=0)
    exposure_level: float = option(0.6, "mean that a well-exposed patch has, in 0..1")
    exposure_patch: int = option(16, "side of the patches whose exposure counts, pixels")


@dataclass(frozen=True)
class Output:
    """Pictures as given and brightened (not clipped), (B, 3, H, W), and the curve maps, (B, 24, H, W)."""

    pictures: Tensor
    enhanced: Tensor
    curves: Tensor


class Method(Mirrored):
    """Zero-DCE."""

    enhancement = "DCE-Net"

    def __init__(self, options: Options, facts: TrainingFacts) -> None:
        super().__init__()
        self.options = options
        self.facts, self.num_ids = facts, facts.num_ids
        self.enhancer = CurveNet(options.curve_width)
        for module in self.enhancer.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=options.weight_std)

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Output:  # noqa: ARG002
        """Enhanced pictures and their curves."""
        enhanced, curves = self.enhancer(images)
        return Output(images, enhanced, curves)

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:  # noqa: ARG002
        """The four terms, weighted; there are no labels."""
        return enhancement_losses(self.options, output.pictures, output.enhanced, output.curves)

    def compute_vectors(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Tensor:  # noqa: ARG002
        """The mean curve of each picture, (B, 24) float32."""
        return self.enhancer.curves(images).float().mean((2, 3))

    def enhance(self, images: Tensor) -> Tensor:
        """Brightened pictures, clipped to 0..1."""
        enhanced: Tensor = self.enhancer(images)[0]
        return enhanced.float().clamp(0, 1)

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """All of it, as "enhancer"."""
        return {"enhancer": list(self.parameters())}

    def load_pretrained(self, source: str) -> None:
        """Fill the network from a Zero-DCE snapshot; there are no ImageNet weights for it.

        Raises:
            CheckpointError: "imagenet", or the file holds no such network.
        """
        if source == "imagenet":
            raise CheckpointError("zero_dce has no ImageNet weights; set init.weights to random or to a weights file")
        if source != "none":
            self.enhancer.load_weights(source)
