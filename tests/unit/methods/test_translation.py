"""Which pictures of a batch are translated, and which goes with which."""

import pytest
import torch

from tapetum.core.errors import TrainingError
from tapetum.methods._translation import check_people, draw_rows, find_partners, split_by_modality


def slow_partners(labels, keys, others, other_keys, shift):
    """Lists of each person's pictures by key."""
    people = sorted(set(others))
    sets = {p: sorted((i for i, o in enumerate(others) if o == p), key=lambda i: other_keys[i]) for p in people}
    found = []
    for row, label in enumerate(labels):
        mine = sorted((i for i, own in enumerate(labels) if own == label), key=lambda i: keys[i])
        theirs = sets[people[(people.index(label) + shift) % len(people)]]
        found.append(theirs[mine.index(row) % len(theirs)])
    return found


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_partners_are_those_of_lists_by_person_and_key(rng, shift):
    labels, others = [5, 2, 5, 9, 2, 5, 9, 5], [9, 2, 5, 5, 9, 2, 5, 2, 7]
    keys, other_keys = torch.rand(8, generator=rng), torch.rand(9, generator=rng)
    found = find_partners(torch.tensor(labels), keys, torch.tensor(others), other_keys, shift=shift)
    assert found.tolist() == slow_partners(labels, keys.tolist(), others, other_keys.tolist(), shift)


def test_with_as_many_pictures_of_each_person_everyone_is_somebody_s_partner_whatever_the_order(rng):
    labels = torch.arange(12) // 3
    keys, other_keys = torch.rand(2, 12, generator=rng)
    found = find_partners(labels, keys, labels, other_keys)
    assert sorted(found.tolist()) == list(range(12))
    assert torch.equal(labels[found], labels)
    order, other_order = torch.randperm(12, generator=rng), torch.randperm(12, generator=rng)
    again = find_partners(labels[order], keys[order], labels[other_order], other_keys[other_order])
    assert torch.equal(other_order[again], found[order])


def test_rows_are_all_or_as_many_as_wanted_by_chance():
    device = torch.device("cpu")
    assert draw_rows(5, 0, device).tolist() == draw_rows(5, 7, device).tolist() == [0, 1, 2, 3, 4]
    torch.manual_seed(0)
    drawn = [tuple(draw_rows(20, 4, device).tolist()) for _ in range(5)]
    assert len(set(drawn)) == 5
    assert all(list(rows) == sorted(set(rows)) and len(rows) == 4 and rows[-1] < 20 for rows in drawn)


def test_rows_are_split_by_modality_in_the_order_of_the_batch():
    visible, infrared = split_by_modality(torch.tensor([1, 0, 0, 1, 0]))
    assert (visible.tolist(), infrared.tolist()) == ([1, 2, 4], [0, 3])


@pytest.mark.parametrize(
    ("labels", "others", "message"),
    [
        ([0, 0], [0], "method: the batch shows one identity only, .* use the sampler cross_modality with ids >= 2"),
        (
            [0, 1],
            [0, 2],
            "method: 2 of 3 people of the batch are there in one modality only; set sampler.name to cross",
        ),
        ([0, 1], [], "method: 2 of 2 people of the batch are there in one modality only"),
    ],
)
def test_a_batch_without_triplets_across_modalities_is_refused(labels, others, message):
    check_people(torch.tensor([0, 1, 1]), torch.tensor([1, 0]), "method")
    with pytest.raises(TrainingError, match=message):
        check_people(torch.tensor(labels), torch.tensor(others, dtype=torch.int64), "method")
