"""Triplets between two sets against a slow loop from their formula."""

import pytest
import torch

from tapetum.losses.cross_triplet import cross_triplet


def slow(distances, labels, others, margin):
    """Anchor by anchor."""
    terms = []
    for row, label in zip(distances, labels.tolist(), strict=True):
        own = [d for d, other in zip(row, others.tolist(), strict=True) if other == label]
        strangers = [d for d, other in zip(row, others.tolist(), strict=True) if other != label]
        if own and strangers:
            terms.append((max(own) - min(strangers) + margin).clamp(min=0))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("margin", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("others", [[2, 0, 0, 1, 2, 1, 0], [2, 0, 0, 2, 2, 0, 0]])
def test_it_is_the_slow_loop_s_with_the_same_gradients(rng, margin, others):
    labels, others = torch.tensor([0, 1, 2, 0, 2]), torch.tensor(others)  # the second time, one anchor has no positive
    distances = torch.rand(5, 7, generator=rng, dtype=torch.float64).requires_grad_()
    found = cross_triplet(distances, labels, others, margin=margin)
    expected = slow(distances, labels, others, margin)
    assert expected > 0
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, distances)[0] for loss in (found, expected)))


def test_where_no_anchor_has_both_partners_it_is_zero_and_so_is_its_gradient():
    distances = torch.rand(2, 3).requires_grad_()
    for labels, others in (([0, 0], [0, 0, 0]), ([0, 1], [2, 2, 2])):
        found = cross_triplet(distances, torch.tensor(labels), torch.tensor(others), margin=0.3)
        assert found == 0
        assert torch.equal(torch.autograd.grad(found, distances)[0], torch.zeros(2, 3))
