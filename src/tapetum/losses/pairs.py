"""Which visible picture meets which infrared one of its person."""

from typing import Literal

from torch import Tensor

from tapetum.core.errors import TrainingError
from tapetum.core.lots import place_among
from tapetum.core.types import Modality

Pairing = Literal["all", "lot"]
PAIRING = "lot: each with one of its person in the other modality, as released; all: with every one"


def pair_across(
    labels: Tensor, modalities: Tensor, *, lots: Tensor | None = None, left_out: Tensor | None = None, owner: str
) -> tuple[Tensor, Tensor]:
    """Rows of pairs of a visible and an infrared picture of one person.

    Args:
        labels: (B,) int64.
        modalities: (B,) values of `Modality`.
        lots: (B,) int64 tickets (see `draw_tickets`). Each picture is then in one pair, or in none where its person
            has fewer of the other modality. None: all pairs.
        left_out: (B,) bool, of pictures that are in no pair.
        owner: METHOD.OPTION, the option that switches off whatever asks for pairs; for the error.
    Returns:
        (R,) int64 rows of visible pictures, ascending, and (R,) of infrared ones.
    Raises:
        TrainingError: there is no such pair.
    """
    infrared = modalities == Modality.INFRARED
    visible = ~infrared
    if left_out is not None:
        visible, infrared = visible & ~left_out, infrared & ~left_out
    pairs = visible[:, None] & infrared[None, :] & (labels[:, None] == labels[None, :])
    if not bool(pairs.any()):
        method, _, name = owner.partition(".")
        raise TrainingError(
            f"{method}: nobody in the batch has both a visible and an infrared picture; set sampler.name to "
            f"cross_modality, or method.{name} to 0"
        )
    if lots is not None:
        ours, theirs = (place_among(lots, labels, members) for members in (visible, infrared))
        pairs = pairs & (ours[:, None] == theirs[None, :])
    seen, met = pairs.nonzero(as_tuple=True)
    return seen, met
