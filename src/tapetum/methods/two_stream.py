"""The plain visible-infrared baseline: a stem for each modality, one trunk, BNNeck, cross-entropy and triplets.

Source: method "base" of the visible-infrared AGW release (Ye et al., TPAMI 2021), from which the baselines of DDAG
(ECCV 2020) and DEEN (CVPR 2023) descend.
Differs: pictures of both modalities come in one batch in any order, routed by each picture's modality; the released
code wants all visible ones first. The two ResNets of which it uses the stem alone are not kept.
"""

from dataclasses import dataclass

from torch import Tensor

from tapetum.core.options import option
from tapetum.losses.triplet import batch_hard_triplet
from tapetum.methods._two_stream import TwoStreamMethod, TwoStreamOptions

SMALL = {"backbone": "test_resnet", "last_stride": 2}  # for tests


@dataclass(frozen=True)
class Options(TwoStreamOptions):
    """What a recipe may set under ``method:``."""

    triplet_margin: float | None = option(0.3, "null: soft margin")


class Method(TwoStreamMethod):
    """Two stems, one trunk, BNNeck."""

    options: Options

    def triplet(self, features: Tensor, labels: Tensor) -> Tensor:
        """Of the farthest positive and the nearest negative of each picture, of whatever modality."""
        return batch_hard_triplet(features, labels, margin=self.options.triplet_margin)
