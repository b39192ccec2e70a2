"""MCLNet: AGW's network, a confuser that tells modalities apart until it cannot, centres of people and of cameras.

Source: "Cross-Modality Person Re-Identification via Modality Confusion and Center Aggregation" (Hao et al., ICCV 2021)
and its release.
Differs: what `agw_vi` says of the network, and
- the confuser's loss and the network's are both differentiated before either steps. The release steps the confuser
  between the two, which PyTorch refuses today; `confuser_turn` "first" is the nearest to it that is well defined;
- the confuser's third layer and its sigmoid, which the release makes and never uses, are not here; the others begin as
  PyTorch makes them;
- the weight of a person's nearest picture is the number of their pictures in the batch, which at the release's 4
  pictures of each modality is its 8; `nearest_weight` sets another;
- people and cameras are counted, where the release has 395 and 6 in its text. RegDB has no cameras but its two sensors,
  which its records number 1 and 2;
- confuser and centres are built for training alone: where the training cameras are not known, as in a converted
  checkpoint, they are absent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.errors import TrainingError
from tapetum.core.method import TrainingFacts, Turn
from tapetum.core.options import option
from tapetum.core.types import Batch, Modality
from tapetum.core.vectors import squared_euclidean
from tapetum.layers.branch import HeadOutput
from tapetum.methods import agw_vi

SMALL = agw_vi.SMALL
TRAINING_ONLY = ("confuser", "centres")  # of the network; a training may begin with a checkpoint without them


@dataclass(frozen=True)
class Options(agw_vi.Options):
    """What a recipe may set under ``method:``: AGW's options and these."""

    confusion_weight: float = option(1.0, "of the term that leaves the confuser undecided", least=0)
    confuser_width: int = option(128, "of the confuser's hidden layer", least=1)
    confuser_turn: Literal["shared", "first"] = option(
        "shared", "first: the confuser steps first, and the network answers it with a forward pass of its own"
    )
    centres: Literal["fixed", "learned"] = option(
        "fixed", "fixed: random points, as released; learned: they move, as a parameter group of that name"
    )
    id_centre_weight: float = option(0.0005, "of the aggregation around centres of people", least=0)
    camera_centre_weight: float = option(0.0005, "of the aggregation around centres of cameras", least=0)
    centre_margin: float = option(
        8.0, "how much farther than the nearest of its class a picture may be from the centre", least=0
    )
    centre_separation: float = option(4500.0, "squared distance below which two centres are too close", least=0)
    nearest_weight: float | None = option(
        None, "of a person's nearest picture; null: the number of the person's pictures in the batch", above=0
    )


class Confuser(nn.Module):
    """Scores of the two modalities from a pooled feature: two linear layers without activation, then batch norm."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(width, hidden)
        self.score = nn.Linear(hidden, len(Modality))
        self.norm = nn.BatchNorm1d(len(Modality))

    def forward(self, feature: Tensor) -> Tensor:
        """(B, 2) scores of (B, width) features."""
        scores: Tensor = self.norm(self.score(self.reduce(feature)))
        return scores


class ClassPoints(nn.Module):
    """A point for each class, among the embeddings; weights if learned, otherwise they stay where they began."""

    points: Tensor

    def __init__(self, count: int, width: int, *, learned: bool) -> None:
        super().__init__()
        points = torch.randn(count, width)
        if learned:
            self.points = nn.Parameter(points)
        else:
            self.register_buffer("points", points)


def aggregate_marginally(
    embeddings: Tensor,
    classes: Tensor,
    centres: Tensor,
    *,
    margin: float,
    separation: float,
    nearest_weight: float | None = None,
) -> Tensor:
    """Marginal centre aggregation: pictures come to their class's centre, but not to one point, and centres stay apart.

    With the squared distance of each picture to its own centre: the mean over pictures, less the mean of the smallest
    in each picture's class, less the margin, where that is above zero; and what the mean squared distance of each
    picture's centre to the nearest other one lacks of the separation.

    Args:
        embeddings: (B, D), not normalised; rows in any order.
        classes: (B,) int64.
        centres: (C, D).
        margin: sigma.
        separation: rho; a single centre has none to keep.
        nearest_weight: the nearest picture of a class counts as if it were so many; None: as many as the class has.
    """
    own = (embeddings - centres[classes]).square().sum(1)
    same = classes[:, None] == classes[None, :]
    nearest = own.expand(len(own), -1).masked_fill(~same, torch.inf).amin(1)
    if nearest_weight is not None:
        nearest = nearest * nearest_weight / same.sum(1)
    aggregation = functional.relu(own.mean() - nearest.mean() - margin)
    if len(centres) == 1:
        return aggregation
    itself = classes[:, None] == torch.arange(len(centres), device=classes.device)
    between = squared_euclidean(centres[classes], centres).masked_fill(itself, torch.inf)
    return aggregation + functional.relu(separation - between.amin(1).mean())


class Method(agw_vi.Method):
    """AGW's network; a confuser and centres beside it while it trains.

    Attributes:
        confuser: on the feature before the neck; without training cameras an identity.
        centres: "id" and "camera", among the embeddings behind the neck; without training cameras none.
    """

    options: Options
    cameras: Tensor

    def __init__(self, options: Options, facts: TrainingFacts) -> None:
        super().__init__(options, facts)
        self.confuser: nn.Module = nn.Identity()
        self.centres = nn.ModuleDict()
        self.register_buffer("cameras", torch.tensor(facts.camids, dtype=torch.int64), persistent=False)
        if facts.camids:
            self.confuser = Confuser(self.width, options.confuser_width)
            for name, count in (("id", facts.num_ids), ("camera", len(facts.camids))):
                self.centres[name] = ClassPoints(count, self.width, learned=options.centres == "learned")

    def turns(self) -> tuple[Turn, ...]:
        """The confuser learns, and so does everything else, from one forward pass."""
        others = tuple(name for name in self.parameter_groups() if name != "confuser")
        return (
            Turn("confuser", ("confuser",), self.confuser_losses),
            Turn("network", others, self.network_losses, fresh=self.options.confuser_turn == "first"),
        )

    def losses(self, output: HeadOutput, batch: Batch) -> dict[str, Tensor]:
        """Those of both turns."""
        return self.confuser_losses(output, batch) | self.network_losses(output, batch)

    def confuser_losses(self, output: HeadOutput, batch: Batch) -> dict[str, Tensor]:
        """The confuser's cross-entropy on features that learn nothing from it."""
        self._require_cameras()
        scores = self.confuser(output.feature.detach())
        return {"modality": functional.cross_entropy(scores, batch.modalities)}

    def network_losses(self, output: HeadOutput, batch: Batch) -> dict[str, Tensor]:
        """AGW's, the distance of the confuser from indecision, and aggregation around the centres.

        Raises:
            TrainingError: the training cameras are not known, or the batch shows another.
        """
        self._require_cameras()
        options = self.options
        losses = super().losses(output, batch)
        scores = self._score_apart(output.feature)
        confusion = functional.cross_entropy(scores, torch.full_like(scores, 1 / len(Modality)))
        losses["confusion"] = options.confusion_weight * confusion
        for name, classes, weight, nearest_weight in (
            ("id", batch.labels, options.id_centre_weight, options.nearest_weight),
            ("camera", self._place_cameras(batch.camids), options.camera_centre_weight, None),
        ):
            loss = aggregate_marginally(
                output.embedding, classes, cast(ClassPoints, self.centres[name]).points,
                margin=options.centre_margin, separation=options.centre_separation, nearest_weight=nearest_weight,
            )  # fmt: skip
            losses[f"{name}_centres"] = weight * loss
        return losses

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """AGW's groups and "confuser"; learned centres are "centres"."""
        apart = {"confuser": list(self.confuser.parameters())}
        if self.options.centres == "learned":
            apart["centres"] = list(self.centres.parameters())
        own = {id(parameter) for parameters in apart.values() for parameter in parameters}
        groups = super().parameter_groups()
        return {name: [each for each in groups[name] if id(each) not in own] for name in groups} | apart

    def _score_apart(self, feature: Tensor) -> Tensor:
        """The confuser's scores, for gradients of the feature alone; its weights and statistics stay untouched."""
        state = {name: value.clone() for name, value in self.confuser.state_dict().items()}
        scores: Tensor = torch.func.functional_call(self.confuser, state, (feature,))
        return scores

    def _place_cameras(self, camids: Tensor) -> Tensor:
        """(B,) place of each camera among the training's."""
        matches = camids[:, None] == self.cameras
        unknown = camids[~matches.any(1)]
        if len(unknown):
            known = ", ".join(map(str, self.facts.camids))
            raise TrainingError(
                f"mclnet: camera {int(unknown[0])} has no centre, the network was built for {known}; train on these"
            )
        return matches.int().argmax(1)

    def _require_cameras(self) -> None:
        if not self.facts.camids:
            raise TrainingError(
                "mclnet: this network was built without training cameras, as converted checkpoints are, so it has no "
                "confuser and no centres and only embeds; begin a training with `tapetum train`"
            )


# Checkpoints of the release: AGW's tensors; confuser and centres are not kept there.
RECIPES_BY_IDS = {206: "mclnet_regdb", 713: "mclnet_llcm"}
OFFICIAL_FORMATS = {
    "mclnet-official": agw_vi.released_format(
        "mclnet", Method, Options, "mclnet_sysu", RECIPES_BY_IDS, ("confuser.", "centres.")
    )
}
