"""BoT, the strong baseline: BNNeck, smoothed cross-entropy, hard triplets and a centre loss on one ResNet.

Source: "Bag of Tricks and a Strong Baseline for Deep Person Re-identification" (Luo et al., 2019) and its release,
michuanhaohao/reid-strong-baseline.
Differs: the centre loss does not add 1e-12 for each picture and each class that is not its own. The release does not
search with the mirror; where a recipe asks for it, raw vectors are summed.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from tapetum.core.method import TrainingFacts
from tapetum.core.options import option
from tapetum.layers.backbones import Pooling, build_any_backbone
from tapetum.layers.normalisation import Normalisation
from tapetum.losses.triplet import batch_hard_triplet
from tapetum.methods._single_branch import SingleBranch
from tapetum.methods._strong_baseline import RENAMING, StrongBranch, released_format

SMALL = {"backbone": "test_resnet", "last_stride": 2}  # for tests
TRAINING_ONLY = ("centres",)  # a training may begin with a checkpoint without them


@dataclass(frozen=True)
class Options:
    """What a recipe may set under ``method:``."""

    backbone: str = option("resnet50", "a timm model that gives maps, or a plain vision transformer")
    last_stride: int = option(1, "2 halves the last stage's resolution, and is what a vision transformer takes")
    patch_stride: int | None = option(
        None, "of a vision transformer: pixels from one patch to the next; null: a patch's side", least=1
    )
    pooling: Pooling = option("average", "of maps or of the patches' tokens; or a vision transformer's class token")
    stem_relu: bool = option(False, "a ReLU behind the first batch norm, which the release leaves out")
    label_smoothing: float = option(0.1, "of the cross-entropy", least=0, below=1)
    triplet_weight: float = option(1.0, "of the triplets; 0 switches them off", least=0)
    triplet_margin: float | None = option(0.3, "of the triplets; null: soft margin")
    centre_weight: float = option(0.0005, "of the centre loss; 0 leaves it and its centres out", least=0)
    input_scale: float = option(1.0, "pictures in 0..1 are multiplied by this", above=0)
    normalisation: Normalisation = option("imagenet", "of the pictures")
    test_feature: Literal["head", "backbone"] = option(
        "head", "what is searched with: behind the neck, or the pooled map before it"
    )


class Branch(StrongBranch):
    """The extractor: backbone and pooling."""

    options: Options

    def __init__(self, options: Options, facts: TrainingFacts) -> None:
        backbone, gives = build_any_backbone(
            options.backbone,
            size=facts.size,
            last_stride=options.last_stride,
            patch_stride=options.patch_stride,
            pooling=options.pooling,
        )
        super().__init__(options, backbone, gives.width)
        self.gives = gives

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Tensor:  # noqa: ARG002
        """Pooled features, (B, width) float32.

        Args:
            images: (B, 3, H, W), normalised.
        """
        return self.gives.pool(self.backbone(images))

    def triplet(self, features: Tensor, labels: Tensor) -> Tensor:
        """Of the farthest positive and the nearest negative of each picture.

        Args:
            features: (B, width), not normalised.
            labels: (B,) int64.
        """
        return batch_hard_triplet(features, labels, margin=self.options.triplet_margin)


class Method(SingleBranch):
    """One branch and its head; the neck's bias stays zero."""

    def __init__(self, options: Options, facts: TrainingFacts) -> None:
        super().__init__(options, Branch(options, facts), facts)


OFFICIAL_FORMATS = {
    "bot-official": released_format("bot", Method, Options(centre_weight=0.0), RENAMING, recipe="bot_market1501")
}
