"""AGW for visible and infrared pictures: non-local blocks, generalised-mean pooling, weighted regularised triplets.

Source: "Deep Learning for Person Re-identification: A Survey and Outlook" (Ye et al., TPAMI 2021) and its
visible-infrared release.
Differs: pictures of both modalities come in one batch in any order; non-local blocks never form the affinity of all
places with all places; the two ResNets of which the release uses the stem alone are kept in exported checkpoints only,
as zeros. Mirrored pictures are not part of its test; where a recipe asks for them, raw vectors are summed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from tapetum.core.method import TrainingFacts
from tapetum.core.options import option
from tapetum.layers.non_local import InnerWidth, NonLocalStages
from tapetum.layers.two_stream import STAGES
from tapetum.losses.weighted_triplet import Numerics, weighted_triplet
from tapetum.methods._official import OfficialFormat, Renaming, Tensors, read_tensor_size
from tapetum.methods._two_stream import (
    RELEASED,
    Pooling,
    TwoStreamMethod,
    TwoStreamOptions,
    two_stream_renaming,
    unused_tensors,
)

SMALL = {"backbone": "test_resnet", "last_stride": 2}  # for tests


@dataclass(frozen=True)
class Options(TwoStreamOptions):
    """What a recipe may set under ``method:``."""

    pooling: Pooling = option("gem", "generalised mean of power 3; or 'average'")
    non_local: tuple[int, int, int, int] = option(
        (0, 2, 3, 0), "blocks of each stage that one follows, counted from its end", least=0
    )
    non_local_width: InnerWidth = option("one", "the release's; 'half': of the stage's channels, as in the paper")
    triplet_numerics: Numerics = option("released", "'stable': a softmax that stays one at large distances")


class Method(TwoStreamMethod):
    """Two stems, one trunk with non-local blocks, BNNeck.

    Attributes:
        non_local: for each stage, the blocks that follow its last residual blocks; a stage with fewer residual blocks
            than the options say has one after each.
    """

    options: Options

    def __init__(self, options: Options, facts: TrainingFacts) -> None:
        super().__init__(options, facts)
        self.non_local = NonLocalStages(self.network.stages, options.non_local, options.non_local_width)

    def compute_maps(self, images: Tensor, modalities: Tensor) -> Tensor:
        """The last feature maps, (B, width, h, w), of normalised pictures."""
        maps: Tensor = self.non_local(self.network.stem(images, modalities), self.network.stages)
        return maps

    def triplet(self, features: Tensor, labels: Tensor) -> Tensor:
        """Of all pairs, weighted, of whatever modality."""
        return weighted_triplet(features, labels, numerics=self.options.triplet_numerics)


# Checkpoints of the visible-infrared release.
PARTS = (("g.", "g.0."), ("theta.", "theta."), ("phi.", "phi."), ("out.", "W.0."), ("norm.", "W.1."))
RENAMING: Renaming = (
    *two_stream_renaming("network."),
    *(
        (f"non_local.{stage}.{number}.{ours}", f"NL_{stage + 1}.{number}.{theirs}")
        for stage in range(len(STAGES))
        for number in range(Options.non_local[stage])
        for ours, theirs in PARTS
    ),
    ("head.norm.", "bottleneck."),
    ("head.classifier.", "classifier."),
)


def released_format(
    method: str,
    network: type[nn.Module],
    options: type[Options],
    recipe: str,
    recipes_by_ids: Mapping[int, str],
    left_out: tuple[str, ...] = (),
) -> OfficialFormat:
    """How checkpoints of this release are read and written, and of others that train its network."""

    def architecture(state: Tensors, place: str) -> tuple[Any, dict[str, Any]]:
        return options(), {"num_ids": read_tensor_size(state, "classifier.weight", place)}

    return OfficialFormat(
        f"{method.replace('_', '-')}-official", method, network, options, architecture, lambda _: RENAMING, recipe,
        recipes_by_ids, "net", lambda *_: unused_tensors(Options.backbone), left_out=left_out,
        released=RELEASED,
    )  # fmt: skip


RECIPES_BY_IDS = {206: "agw_regdb", 713: "agw_star_llcm"}  # the only code released for LLCM erases
OFFICIAL_FORMATS = {"agw-vi-official": released_format("agw_vi", Method, Options, "agw_sysu", RECIPES_BY_IDS)}
