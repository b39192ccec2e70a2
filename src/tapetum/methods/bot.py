"""BoT, the strong baseline: BNNeck, smoothed cross-entropy, hard triplets and a centre loss on one ResNet.

Source: "Bag of Tricks and a Strong Baseline for Deep Person Re-identification" (Luo et al., 2019) and its release,
michuanhaohao/reid-strong-baseline.
Differs: the centre loss does not add 1e-12 for each picture and each class that is not its own. The release does not
search with the mirror; where a recipe asks for it, raw vectors are summed.
"""

from dataclasses import dataclass

from torch import Tensor

from tapetum.core.options import option
from tapetum.layers.backbones import Pooling
from tapetum.losses.triplet import batch_hard_triplet
from tapetum.methods._single_branch import SingleBranch
from tapetum.methods._strong_baseline import RENAMING, StrongBaselineOptions, StrongBranch, released_format

SMALL = {"backbone": "test_resnet", "last_stride": 2}  # for tests
TRAINING_ONLY = ("centres",)  # a training may begin with a checkpoint without them


@dataclass(frozen=True)
class Options(StrongBaselineOptions):
    """What a recipe may set under ``method:``."""

    backbone: str = option("resnet50", "a timm model that gives maps, or a plain vision transformer")
    last_stride: int = option(1, "2 halves the last stage's resolution, and is what a vision transformer takes")
    patch_stride: int | None = option(
        None, "of a vision transformer: pixels from one patch to the next; null: a patch's side", least=1
    )
    pooling: Pooling = option("average", "of maps or of the patches' tokens; or a vision transformer's class token")
    triplet_margin: float | None = option(0.3, "of the triplets; null: soft margin")


class Branch(StrongBranch):
    """The extractor: backbone and pooling."""

    def triplet(self, features: Tensor, labels: Tensor) -> Tensor:
        """Of the farthest positive and the nearest negative of each picture."""
        return batch_hard_triplet(features, labels, margin=self.options.triplet_margin)


class Method(SingleBranch):
    """One branch and its head; the neck's bias stays zero."""

    extractor = Branch


OFFICIAL_FORMATS = {"bot-official": released_format("bot", Method, Options, RENAMING)}
