"""CAJ: AGW's network, shown each visible picture a second time with one channel in the place of all three.

Source: "Channel Augmented Joint Learning for Visible-Infrared Recognition" (Ye et al., ICCV 2021) and its release,
method "adp"; for the consistency of the views "Channel Augmentation for Visible-Infrared Re-Identification" (Ye et
al., TPAMI 2023), the supervised part.
Differs: what `agw_vi` says of the network, except that pictures and their mirrors are joined as the release does; and
- the changes of the pictures themselves are operations of the recipe, with the views that its sampler gives;
- the views of a picture find each other by its row: a picture that was drawn twice has two of each view, and follows
  the mean of both. The release pairs them by their place in the batch;
- the optional divergence compares a visible picture with an infrared one of its person that is drawn by what they are,
  where the release takes the one drawn in the same place (``kl_pairs`` "all" is ours); and adds no 1e-7 to the
  probabilities;
- stable weights of the triplets are an option (see `agw_vi`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tapetum.core.errors import TrainingError
from tapetum.core.lots import draw_tickets
from tapetum.core.options import option
from tapetum.core.types import Batch, Modality
from tapetum.core.vectors import normalise
from tapetum.layers.branch import HeadOutput
from tapetum.losses.distillation import distillation
from tapetum.losses.pairs import PAIRING, Pairing, pair_across
from tapetum.losses.weighted_triplet import Numerics, weighted_distances
from tapetum.methods import agw_vi

SMALL = agw_vi.SMALL
VIEWS = (2, 1)  # visible pictures as they are and with exchanged channels; infrared ones
PLAIN, EXCHANGED = 0, 1
LARGEST_SQUARE = 88.0  # whose exponential float32 still holds: the release cuts there, and with it the gradient


@dataclass(frozen=True)
class Options(agw_vi.Options):
    """What a recipe may set under ``method:``: AGW's options and these."""

    triplet_alpha: float = option(1.0, "factor on the distances inside the triplets' softmax", above=0)
    triplet_gamma: float = option(1.0, "factor on the (squared) difference of the two weighted distances", above=0)
    triplet_square: bool = option(True, "the difference is squared; false: as AGW has it")
    kl_weight: float = option(
        0.0, "of the divergence of visible pictures' class probabilities from those of infrared ones", least=0
    )
    kl_temperature: float = option(3.0, "of that divergence", above=0)
    kl_pairs: Pairing = option("lot", f"pictures that it compares; {PAIRING}")
    consistency_weight: float = option(
        0.0, "of the term by which plain visible pictures follow the exchanged ones; CAJ+ has 1", least=0
    )


def enhanced_triplet(
    features: Tensor,
    labels: Tensor,
    *,
    alpha: float = 1.0,
    gamma: float = 1.0,
    square: bool = True,
    numerics: Numerics = "released",
) -> Tensor:
    """Weighted triplets whose difference is squared: mean of log(1 + exp(+-gamma (positive - negative)^2)).

    The sign is plus where the positives are farther. The squared difference counts up to 88; beyond, nothing is learnt.

    Args:
        features: (B, D), not normalised; rows in any order.
        labels: (B,) int64.
        alpha: factor on the distances inside the softmax of the weights.
        gamma: factor on the difference or its square.
        square: false takes log(1 + exp(gamma (positive - negative))).
    Raises:
        TrainingError: the batch shows one identity only, so that there is no negative.
    """
    positive, negative = weighted_distances(features, labels, numerics=numerics, sharpness=alpha)
    difference = positive - negative
    if not square:
        return functional.softplus(gamma * difference).mean()
    size = (gamma * difference.square()).clamp(max=LARGEST_SQUARE)
    return functional.softplus(torch.where(difference > 0, size, -size)).mean()


def view_consistency(logits: Tensor, views: Tensor, modalities: Tensor, rows: Tensor) -> Tensor:
    """Cross-entropy of plain visible pictures against the class probabilities of the same pictures exchanged.

    Args:
        logits: (B, num_ids); no gradient goes to those of exchanged pictures.
        views: (B,) 0 is plain, 1 exchanged; others are passed over.
        modalities: (B,) values of `Modality`; infrared pictures are passed over.
        rows: (B,) which picture each is a view of.
    Raises:
        TrainingError: a plain picture is there without its exchanged view.
    """
    visible = modalities == Modality.VISIBLE
    plain, exchanged = visible & (views == PLAIN), visible & (views == EXCHANGED)
    mine = (rows[plain, None] == rows[None, exchanged]) & (rows[plain, None] >= 0)
    counts = mine.sum(1, keepdim=True)
    if not bool((counts > 0).all()):
        raise TrainingError(
            f"caj: {int((counts == 0).sum())} of {len(counts)} visible pictures of the batch have no second view; "
            f"set sampler.views to {list(VIEWS)}, or method.consistency_weight to 0"
        )
    probabilities = logits[exchanged].detach().softmax(1)
    return functional.cross_entropy(logits[plain], (mine / counts).to(logits.dtype) @ probabilities)


def modality_divergence(
    logits: Tensor,
    views: Tensor,
    modalities: Tensor,
    labels: Tensor,
    *,
    temperature: float = 3.0,
    lots: Tensor | None = None,
) -> Tensor:
    """KL(infrared || plain visible) of class probabilities, over such pairs of pictures of one person.

    Args:
        logits: (B, num_ids); no gradient goes to those of infrared pictures.
        views: (B,) visible pictures of view 0 alone count.
        modalities: (B,) values of `Modality`.
        labels: (B,) int64.
        temperature: divides the logits; the loss is multiplied by its square.
        lots: (B,) tickets, by which each picture is in one pair; None takes all. See `pair_across`.
    Raises:
        TrainingError: nobody is there in both modalities.
    """
    exchanged = (modalities == Modality.VISIBLE) & (views != PLAIN)
    student, teacher = pair_across(labels, modalities, lots=lots, left_out=exchanged, owner="caj.kl_weight")
    return distillation(logits[student], logits[teacher], temperature=temperature)


class Method(agw_vi.Method):
    """AGW's network, trained on plain, exchanged and infrared pictures."""

    options: Options

    def losses(self, output: HeadOutput, batch: Batch) -> dict[str, Tensor]:
        """AGW's, with enhanced triplets, over all views of both modalities, and the optional terms."""
        options = self.options
        losses = super().losses(output, batch)
        if options.kl_weight:
            divergence = modality_divergence(
                output.logits,
                batch.views,
                batch.modalities,
                batch.labels,
                temperature=options.kl_temperature,
                lots=draw_tickets(batch) if options.kl_pairs == "lot" else None,
            )
            losses["kl"] = options.kl_weight * divergence
        if options.consistency_weight:
            consistency = view_consistency(output.logits, batch.views, batch.modalities, batch.rows)
            losses["consistency"] = options.consistency_weight * consistency
        return losses

    def triplet(self, features: Tensor, labels: Tensor) -> Tensor:
        """Enhanced triplets."""
        options = self.options
        return enhanced_triplet(
            features,
            labels,
            alpha=options.triplet_alpha,
            gamma=options.triplet_gamma,
            square=options.triplet_square,
            numerics=options.triplet_numerics,
        )

    def _join(self, picture: Tensor, mirrored: Tensor) -> Tensor:
        """The mean direction of a picture's vector and its mirror's."""
        return normalise(picture) + normalise(mirrored)


# Checkpoints of the release: AGW's tensors.
RECIPES_BY_IDS = {206: "caj_regdb", 713: "caj_llcm"}
OFFICIAL_FORMATS = {"caj-official": agw_vi.released_format("caj", Method, Options, "caj_sysu", RECIPES_BY_IDS)}
