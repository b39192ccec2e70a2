"""AGW for visible and infrared pictures: non-local blocks, generalised-mean pooling, weighted regularised triplets.

Source: "Deep Learning for Person Re-identification: A Survey and Outlook" (Ye et al., TPAMI 2021) and its
visible-infrared release.
Differs: pictures of both modalities come in one batch in any order; non-local blocks never form the affinity of all
places with all places; the two ResNets of which the release uses the stem alone are kept in exported checkpoints only,
as zeros. Mirrored pictures are not part of its test; where a recipe asks for them, raw vectors are summed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tapetum.core.method import TrainingFacts
from tapetum.core.options import option
from tapetum.core.types import Batch
from tapetum.layers.branch import HeadOutput
from tapetum.layers.non_local import InnerWidth, NonLocalStages
from tapetum.layers.normalisation import Normalisation
from tapetum.layers.two_stream import STAGES
from tapetum.losses.weighted_triplet import Numerics, weighted_triplet
from tapetum.methods._official import Converted, OfficialFormat, Renaming, read_tensor_size, to_ours, to_theirs
from tapetum.methods._two_stream import Pooling, TestFeature, TwoStreamMethod, two_stream_renaming, unused_tensors

SMALL = {"backbone": "test_resnet", "last_stride": 2}  # for tests


@dataclass(frozen=True)
class Options:
    """What a recipe may set under ``method:``."""

    backbone: str = option("resnet50", "a plain ResNet or EfficientNet of timm")
    last_stride: int = option(1, "2 halves the last stage's resolution")
    non_local: tuple[int, int, int, int] = option(
        (0, 2, 3, 0), "blocks of each stage that one follows, counted from its end", least=0
    )
    non_local_width: InnerWidth = option("one", "the release's; 'half': of the stage's channels, as in the paper")
    pooling: Pooling = option("gem", "generalised mean of power 3; or 'average'")
    label_smoothing: float = option(0.0, "share of the target that goes to all classes alike", least=0, below=1)
    triplet_weight: float = option(1.0, "0 switches the term off", least=0)
    triplet_numerics: Numerics = option("released", "'stable': a softmax that stays one at large distances")
    normalisation: Normalisation = option("imagenet", "of pictures in 0..1")
    test_feature: TestFeature = option(
        "head", "'head': behind the neck; 'backbone': before it; 'both': one beside the other"
    )


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
        """The last feature maps.

        Args:
            images: (B, 3, H, W), normalised.
            modalities: (B,) int64.
        """
        maps: Tensor = self.non_local(self.network.stem(images, modalities), self.network.stages)
        return maps

    def losses(self, output: HeadOutput, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy behind the neck, weighted triplets before it, over pictures of both modalities."""
        options = self.options
        smoothing = options.label_smoothing
        losses = {"id": functional.cross_entropy(output.logits, batch.labels, label_smoothing=smoothing)}
        if options.triplet_weight:
            losses["triplet"] = options.triplet_weight * self.compare(output.feature, batch.labels)
        return losses

    def compare(self, features: Tensor, labels: Tensor) -> Tensor:
        """The metric loss, unweighted.

        Args:
            features: (B, width), before the neck.
            labels: (B,) int64.
        """
        return weighted_triplet(features, labels, numerics=self.options.triplet_numerics)


# Checkpoints of the visible-infrared release.
LAYOUT = "agw-vi-official"
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
    options: Any,
    recipe: str,
    recipes_by_ids: Mapping[int, str],
    *,
    layout: str,
    left_out: Sequence[str] = (),
) -> OfficialFormat:
    """How checkpoints of this release are read and written, and of others that train its network: strictly.

    Args:
        method: whose they are.
        options: the method's own, as released.
        recipe: under which the release trains.
        recipes_by_ids: see `OfficialFormat`.
        layout: how messages call it.
        left_out: modules of ours that such files do not hold.
    """
    place, backbone = f"{layout} checkpoint", Options.backbone

    def read(state: Mapping[str, Tensor]) -> Converted:
        num_ids = read_tensor_size(state, "classifier.weight", place)
        unused = unused_tensors(backbone)
        used = {name: tensor for name, tensor in state.items() if name not in unused}
        with torch.device("meta"):
            expected = Method(Options(), TrainingFacts(num_ids)).state_dict()
        return Converted(method, asdict(options), num_ids, to_ours(used, expected, RENAMING, (), place))

    def write(own: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG001
        network = {name: tensor for name, tensor in state.items() if name.partition(".")[0] not in left_out}
        theirs = to_theirs(network, RENAMING, ()) | unused_tensors(backbone)
        read(theirs)  # the same strict check
        return theirs

    return OfficialFormat(read=read, write=write, key="net", recipe=recipe, recipes_by_ids=recipes_by_ids)


RECIPES_BY_IDS = {206: "agw_regdb", 713: "agw_star_llcm"}  # the only code released for LLCM erases
OFFICIAL_FORMATS = {LAYOUT: released_format("agw_vi", Options(), "agw_sysu", RECIPES_BY_IDS, layout=LAYOUT)}
