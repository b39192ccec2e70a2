"""The plain visible-infrared baseline: a stem for each modality, one trunk, BNNeck, cross-entropy and triplets.

Source: method "base" of the visible-infrared AGW release (Ye et al., TPAMI 2021), from which the baselines of DDAG
(ECCV 2020) and DEEN (CVPR 2023) descend.
Differs: pictures of both modalities come in one batch in any order, routed by each picture's modality; the released
code wants all visible ones first. The two ResNets of which it uses the stem alone are not kept.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from tapetum.core.options import option
from tapetum.core.types import Batch
from tapetum.layers.branch import HeadOutput
from tapetum.layers.normalisation import Normalisation
from tapetum.losses.triplet import batch_hard_triplet
from tapetum.methods._two_stream import Pooling, TestFeature, TwoStreamMethod

SMALL = {"backbone": "test_resnet", "last_stride": 2}  # for tests


@dataclass(frozen=True)
class Options:
    """What a recipe may set under ``method:``."""

    backbone: str = option("resnet50", "a plain ResNet or EfficientNet of timm")
    last_stride: int = option(1, "2 halves the last stage's resolution")
    pooling: Pooling = option("average", "'gem': generalised mean of power 3")
    label_smoothing: float = option(0.0, "share of the target that goes to all classes alike", least=0, below=1)
    triplet_weight: float = option(1.0, "0 switches the term off", least=0)
    triplet_margin: float | None = option(0.3, "null: soft margin")
    normalisation: Normalisation = option("imagenet", "of pictures in 0..1")
    test_feature: TestFeature = option(
        "head", "'head': behind the neck; 'backbone': before it; 'both': one beside the other"
    )


class Method(TwoStreamMethod):
    """Two stems, one trunk, BNNeck."""

    options: Options

    def losses(self, output: HeadOutput, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy behind the neck, batch-hard triplets before it, over pictures of both modalities."""
        options = self.options
        smoothing = options.label_smoothing
        losses = {"id": functional.cross_entropy(output.logits, batch.labels, label_smoothing=smoothing)}
        if options.triplet_weight:
            triplet = batch_hard_triplet(output.feature, batch.labels, margin=options.triplet_margin)
            losses["triplet"] = options.triplet_weight * triplet
        return losses
