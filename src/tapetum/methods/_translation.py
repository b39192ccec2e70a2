"""What methods share that translate pictures of one modality into the other: which pictures, and which with which."""

import torch
from torch import Tensor

from tapetum.core.errors import TrainingError
from tapetum.core.options import require
from tapetum.core.types import Modality


def split_by_modality(modalities: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of visible and of infrared pictures, int64, each in the order of the batch."""
    visible, infrared = ((modalities == modality).nonzero().squeeze(1) for modality in Modality)
    return visible, infrared


def draw_rows(count: int, wanted: int, device: torch.device) -> Tensor:
    """Some of `count` rows by chance, in order; all where none or no fewer are wanted."""
    if not 0 < wanted < count:
        return torch.arange(count, device=device)
    return torch.randperm(count, device=device)[:wanted].sort().values


def check_drawing(people: int, pictures: int) -> None:
    """Complain about whole people that cannot be drawn.

    Args:
        people: ``gan_people``.
        pictures: ``gan_pictures``.
    Raises:
        RecipeError: it is one person only, or they have not equally many pictures.
    """
    require(
        not people or (people > 1 and pictures > 0 and pictures % people == 0),
        f"method.gan_people {people} with method.gan_pictures {pictures}: give two people or more, of whom each has as "
        "many pictures, or 0 people to draw pictures of whomever",
    )


def draw_people(labels: Tensor, others: Tensor, people: int, pictures: int) -> tuple[Tensor, Tensor]:
    """Rows of pictures of some people by chance, in order; of each as many by chance, or all where there are no more.

    Args:
        labels: (N,) int64 of the visible pictures.
        others: (M,) int64 of the infrared ones, of the same people.
        people: how many; all where there are no more.
        pictures: of each person in each modality.
    Returns:
        Rows of the visible and of the infrared pictures.
    """
    known = torch.unique(labels)
    chosen = known[draw_rows(len(known), people, known.device)]
    sides = []
    for own in (labels, others):
        turn, *_ = _rank(own, torch.rand(len(own), device=own.device))
        sides.append((torch.isin(own, chosen) & (turn < pictures)).nonzero().squeeze(1))
    return sides[0], sides[1]


def brightness(pictures: Tensor) -> Tensor:
    """(B,) means of pictures; tells pictures of one person apart whatever the order of the batch."""
    return pictures.mean((1, 2, 3))


def find_partners(labels: Tensor, keys: Tensor, others: Tensor, other_keys: Tensor, *, shift: int = 0) -> Tensor:
    """For each picture the row of a partner in another set: its person's, or that of the person so many further on.

    Of several pictures of a person the one that is as many-th by its key meets the one that is as many-th by its own;
    where the partner's person has fewer, counting begins again.

    Args:
        labels: (N,) int64; every one is among the others.
        keys: (N,) by which the pictures of a person are in order, such as their brightness.
        others: (M,) int64 of the other set.
        other_keys: (M,).
        shift: how many people further on in the order of labels; after the last comes the first.
    Returns:
        (N,) int64 rows of the other set.
    """
    ranks, _, _, _ = _rank(labels, keys)
    _, order, people, counts = _rank(others, other_keys)
    starts = counts.cumsum(0) - counts
    person = (torch.searchsorted(people, labels) + shift) % len(people)
    return order[starts[person] + ranks % counts[person]]


def _rank(labels: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(N,) place among the person's own, (N,) rows by person and key, the people, and how many pictures each has."""
    order = keys.argsort(stable=True)
    order = order[labels[order].argsort(stable=True)]
    people, places, counts = torch.unique(labels, return_inverse=True, return_counts=True)
    starts = counts.cumsum(0) - counts
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order), device=order.device) - starts[places[order]]
    return ranks, order, people, counts


def check_people(labels: Tensor, others: Tensor, method: str) -> None:
    """Complain about a batch in which triplets across modalities are not to be had.

    Args:
        labels: (N,) int64 of the visible pictures.
        others: (M,) int64 of the infrared ones.
    Raises:
        TrainingError: it shows one person only, or people in one modality only.
    """
    people = torch.cat([torch.unique(labels), torch.unique(others)])  # once for each modality that somebody is in
    _, seen_in = torch.unique(people, return_counts=True)
    if lonely := int((seen_in == 1).sum()):
        raise TrainingError(
            f"{method}: {lonely} of {len(seen_in)} people of the batch are there in one modality only; set "
            "sampler.name to cross_modality"
        )
    if len(seen_in) < 2:
        raise TrainingError(
            f"{method}: the batch shows one identity only, so that there is no negative; use the sampler "
            "cross_modality with ids >= 2"
        )
