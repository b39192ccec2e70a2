"""The plain visible-infrared baseline: a stem for each modality, one trunk, BNNeck, cross-entropy and triplets.

Source: method "base" of the visible-infrared AGW release (Ye et al., TPAMI 2021), from which the baselines of DDAG
(ECCV 2020) and DEEN (CVPR 2023) descend.
Differs: pictures of both modalities come in one batch in any order, routed by each picture's modality; the released
code wants all visible ones first. The two ResNets of which it uses the stem alone are not kept.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from tapetum.core.options import option
from tapetum.losses.triplet import batch_hard_triplet
from tapetum.methods._official import OfficialFormat, Renaming, Tensors, read_tensor_size
from tapetum.methods._two_stream import (
    RELEASED,
    TwoStreamMethod,
    TwoStreamOptions,
    two_stream_renaming,
    unused_tensors,
)

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


# Checkpoints of the release: 960 tensors.
RENAMING: Renaming = (
    *two_stream_renaming("network."),
    ("head.norm.", "bottleneck."),
    ("head.classifier.", "classifier."),
)


def released_format(method: str, network: type[nn.Module], options: type[Options]) -> OfficialFormat:
    """How checkpoints of this release are read and written, and of others that keep its network alone."""

    def architecture(state: Tensors, place: str) -> tuple[Any, dict[str, Any]]:
        return options(), {"num_ids": read_tensor_size(state, "classifier.weight", place)}

    return OfficialFormat(
        f"{method.replace('_', '-')}-official", method, network, options, architecture, lambda _: RENAMING,
        f"{method}_sysu", {206: f"{method}_regdb", 713: f"{method}_llcm"}, "net",
        lambda *_: unused_tensors(Options.backbone), released=RELEASED,
    )  # fmt: skip


OFFICIAL_FORMATS = {"two-stream-official": released_format("two_stream", Method, Options)}
