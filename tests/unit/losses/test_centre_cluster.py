"""Centre clustering against a slow loop over pictures and people."""

import pytest
import torch

from tapetum.losses.centre_cluster import cluster_around_centres


@pytest.mark.parametrize("margin", [0.7, 5.0])
def test_clustering_is_the_slow_loop_over_pictures_and_people(rng, margin):
    features = torch.randn(9, 4, generator=rng, dtype=torch.float64)
    labels = [2, 0, 7, 0, 2, 2, 7, 0, 2]
    centres = {
        label: torch.stack([row for row, other in zip(features, labels, strict=True) if other == label]).mean(0)
        for label in set(labels)
    }
    pull = [(row - centres[label]).norm() for row, label in zip(features, labels, strict=True)]
    push = []
    for label, centre in centres.items():
        others = [(margin - (centre - other).norm()).clamp(min=0) for name, other in centres.items() if name != label]
        push.append(torch.stack(others).mean())
    expected = torch.stack(pull).mean() + torch.stack(push).mean()
    torch.testing.assert_close(cluster_around_centres(features, torch.tensor(labels), margin=margin), expected)


def test_pictures_on_their_centres_and_equal_centres_have_a_finite_gradient():
    features = torch.ones(4, 3, requires_grad=True)
    loss = cluster_around_centres(features, torch.tensor([0, 0, 1, 1]), margin=0.7)
    loss.backward()
    assert loss.item() == pytest.approx(0.7, abs=1e-4)
    assert torch.isfinite(features.grad).all()
