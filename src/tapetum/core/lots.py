"""Draws among the pictures of a batch that do not depend on their order: by what the pictures are."""

import torch
from torch import Tensor

from tapetum.core.types import Batch

# Odd numbers that scatter the bits of a product, from the fractions of the golden ratio and of roots.
SCATTER = (-7046029254386353131, -4658895280553007687, -7723592293110705685)


def draw_tickets(batch: Batch) -> Tensor:
    """(B,) int64 that look random: others for another row, view, epoch or step, the same for the same ones."""
    pictures = scatter(batch.rows * SCATTER[0] + batch.views)
    return scatter(pictures + (batch.epoch << 32) + batch.step)


def scatter(numbers: Tensor) -> Tensor:
    """Whole numbers that look random, the same for the same ones."""
    for factor in SCATTER[:2]:
        numbers = (numbers ^ (numbers >> 31)) * factor
    return numbers ^ (numbers >> 31)


def place_among(tickets: Tensor, labels: Tensor, members: Tensor) -> Tensor:
    """(B,) how many members of a picture's label have a smaller ticket; of equal ones, the earlier in the batch.

    Args:
        tickets: (B,) int64.
        labels: (B,) int64.
        members: (B,) bool.
    """
    rows = torch.arange(len(tickets), device=tickets.device)
    smaller = tickets[None, :] < tickets[:, None]
    earlier = (tickets[None, :] == tickets[:, None]) & (rows[None, :] < rows[:, None])
    return ((smaller | earlier) & (labels[None, :] == labels[:, None]) & members[None, :]).sum(1)
