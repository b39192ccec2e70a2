"""AGW for visible pictures: BoT with non-local blocks, learned generalised-mean pooling and weighted triplets.

Source: "Deep Learning for Person Re-identification: A Survey and Outlook" (Ye et al., TPAMI 2021) and its visible
release, mangye16/ReID-Survey. `tapetum.methods.agw_vi` is AGW for visible and infrared pictures.
Differs: non-local blocks never form the affinity of all places with all places; a picture's distance to itself, a
positive in the weighted triplets, is 1e-6 where the release has rounding noise; the centre loss does not add 1e-12 for
each picture and each class that is not its own. The release does not search with the mirror; where a recipe asks for
it, raw vectors are summed.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from tapetum.core.method import TrainingFacts
from tapetum.core.options import option
from tapetum.layers.backbones import Maps, build_backbone
from tapetum.layers.non_local import InnerWidth, NonLocalStages
from tapetum.layers.pooling import GeM
from tapetum.layers.two_stream import STAGES, divide_backbone
from tapetum.losses.weighted_triplet import Numerics, weighted_triplet
from tapetum.methods import _strong_baseline
from tapetum.methods._official import Renaming
from tapetum.methods._single_branch import SingleBranch
from tapetum.methods._strong_baseline import StrongBaselineOptions, StrongBranch, released_format

SMALL = {"backbone": "test_resnet", "last_stride": 2}  # for tests
TRAINING_ONLY = ("centres",)  # a training may begin with a checkpoint without them


@dataclass(frozen=True)
class Options(StrongBaselineOptions):
    """What a recipe may set under ``method:``."""

    non_local: tuple[int, int, int, int] = option(
        (0, 2, 3, 0), "residual blocks of each stage that a non-local one follows, counted from its end", least=0
    )
    non_local_width: InnerWidth = option(
        "one", "channels inside those: the release's one, or half of the stage's as in the paper"
    )
    pooling: Literal["gem", "average"] = option("gem", "generalised mean of a learned power, or average")
    gem_power: float = option(3.0, "that power at the start", above=0)
    triplet_numerics: Numerics = option("released", "stable: a softmax that stays one at large distances")


class Branch(StrongBranch):
    """The extractor: backbone with non-local blocks, and pooling.

    Attributes:
        non_local: blocks behind the last residual blocks of each stage; a stage with fewer of these than the options
            say has one behind each.
    """

    options: Options

    def __init__(self, options: Options, facts: TrainingFacts) -> None:
        super().__init__(options, facts)
        _, stages = self._parts()
        self.non_local = NonLocalStages(stages, options.non_local, options.non_local_width)
        self.pool = GeM(options.gem_power) if options.pooling == "gem" else None

    def build_backbone(self, facts: TrainingFacts) -> tuple[nn.Module, Maps]:  # noqa: ARG002
        """A convolutional network."""
        network, width = build_backbone(self.options.backbone, last_stride=self.options.last_stride)
        return network, Maps(width)

    def _parts(self) -> tuple[nn.Module, list[nn.Sequential]]:
        stem, stages, _ = divide_backbone(self.backbone, self.options.backbone)
        return stem, stages

    def compute_maps(self, images: Tensor) -> Tensor:
        """The last feature maps, (B, width, h, w), of normalised pictures."""
        stem, stages = self._parts()
        maps: Tensor = self.non_local(stem(images), stages)
        return maps

    def forward(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Tensor:  # noqa: ARG002
        """Pooled features, (B, width) float32, of normalised pictures."""
        maps = self.compute_maps(images)
        pooled: Tensor = self.gives.pool(maps) if self.pool is None else self.pool(maps)
        return pooled

    def triplet(self, features: Tensor, labels: Tensor) -> Tensor:
        """Of all pairs, weighted."""
        return weighted_triplet(features, labels, numerics=self.options.triplet_numerics)


class Method(SingleBranch):
    """One branch and its head; the neck's bias stays zero."""

    extractor = Branch


# Checkpoints of the release.
PARTS = (("g.", "g."), ("theta.", "theta."), ("phi.", "phi."), ("out.", "W.0."), ("norm.", "W.1."))
RENAMING: Renaming = (
    *(
        (f"branch.non_local.{stage}.{number}.{ours}", f"base.NL_{stage + 1}.{number}.{theirs}")
        for stage in range(len(STAGES))
        for number in range(Options.non_local[stage])
        for ours, theirs in PARTS
    ),
    ("branch.pool.power", "global_pool.p"),
    *_strong_baseline.RENAMING,
)
OFFICIAL_FORMATS = {"agw-official": released_format("agw", Method, Options, RENAMING)}
