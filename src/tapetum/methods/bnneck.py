"""A small strong baseline: backbone, average pooling and BNNeck, trained by smoothed cross-entropy and triplets.

Source: "Bag of Tricks and a Strong Baseline for Deep Person Re-Identification" (Luo et al., 2019).
Differs: ResNet-18 by default, no centre loss, and the ReLU after the first batch norm, which the original's code leaves
out, is there. It is here as a light second extractor for IDF, and wants a P x K sampler.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.method import TrainingFacts
from tapetum.core.options import option, require
from tapetum.core.types import Batch
from tapetum.layers.backbones import Pooling, build_any_backbone, load_backbone
from tapetum.layers.bnneck import BNNeck
from tapetum.layers.branch import HeadOutput
from tapetum.layers.normalisation import Normalisation
from tapetum.losses.triplet import batch_hard_triplet
from tapetum.methods._single_branch import SingleBranch

SMALL = {"backbone": "test_resnet", "last_stride": 2}  # for tests


@dataclass(frozen=True)
class Options:
    """What a recipe may set under ``method:``."""

    backbone: str = "resnet18"  # a timm model, as for IDE+; the original's is resnet50
    last_stride: int = 1  # 2 halves the last stage's resolution, and is what a vision transformer takes
    patch_stride: int | None = option(
        None, "of a vision transformer: pixels from one patch to the next; null: a patch's side", least=1
    )
    pooling: Pooling = option("average", "of maps or of the patches' tokens; or a vision transformer's class token")
    label_smoothing: float = 0.1
    triplet_weight: float = 1.0  # 0 switches the term off
    triplet_margin: float | None = 0.3  # null: soft margin
    input_scale: float = 1.0  # pictures in 0..1 are multiplied by this
    normalisation: Normalisation = "imagenet"
    test_feature: Literal["head", "backbone"] = "head"  # "head": after the neck; "backbone": before it

    def __post_init__(self) -> None:
        require(
            0 <= self.label_smoothing < 1,
            f"method.label_smoothing: {self.label_smoothing} is out of range; use 0 up to 1, 1 excluded",
        )
        require(self.input_scale > 0, f"method.input_scale: {self.input_scale} is not positive; use 1 or 1/255")


class Branch(nn.Module):
    """The extractor: backbone and pooling (see `tapetum.layers.branch`)."""

    def __init__(self, options: Options, facts: TrainingFacts) -> None:
        super().__init__()
        self.options = options
        self.backbone, self.gives = build_any_backbone(
            options.backbone,
            size=facts.size,
            last_stride=options.last_stride,
            patch_stride=options.patch_stride,
            pooling=options.pooling,
        )
        self.width = self.gives.width

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Tensor:  # noqa: ARG002
        """Pooled features, (B, width) float32.

        Args:
            images: (B, 3, H, W), normalised.
            modalities: not used.
            camids: not used.
        """
        return self.gives.pool(self.backbone(images))

    def build_head(self, num_ids: int) -> nn.Module:
        """The neck and classifier for this branch's features.

        Args:
            num_ids: number of classes.
        """
        return BNNeck(self.width, num_ids)

    def build_fused_head(self, width: int, num_ids: int) -> nn.Module:
        """The same for another width.

        Args:
            width: of the feature.
            num_ids: number of classes.
        """
        return BNNeck(width, num_ids)

    def losses(self, output: HeadOutput, batch: Batch, head: nn.Module) -> dict[str, Tensor]:  # noqa: ARG002
        """Smoothed cross-entropy behind the neck, batch-hard triplets before it.

        Args:
            output: what the head gave.
            batch: the batch.
            head: that gave it.
        """
        options = self.options
        smoothing = options.label_smoothing
        losses = {"id": functional.cross_entropy(output.logits, batch.labels, label_smoothing=smoothing)}
        if options.triplet_weight:
            triplet = batch_hard_triplet(output.feature, batch.labels, margin=options.triplet_margin)
            losses["triplet"] = options.triplet_weight * triplet
        return losses

    def load_pretrained(self, source: str) -> None:
        """Fill the backbone.

        Args:
            source: "imagenet", "package", "none" or a weights file.
        """
        load_backbone(self.backbone, self.options.backbone, source)


class Method(SingleBranch):
    """One branch and its head; the neck's bias stays zero. The original does not add the mirror when it searches.

    Args:
        options: see `Options`.
        facts: of the training data.
    """

    def __init__(self, options: Options, facts: TrainingFacts) -> None:
        super().__init__(options, Branch(options, facts), facts)
