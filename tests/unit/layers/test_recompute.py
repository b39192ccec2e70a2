import copy

import pytest
import torch
from torch import nn

from tapetum.layers.recompute import recompute


@pytest.fixture
def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))


@pytest.mark.parametrize("wanted", [True, False], ids=["with a gradient for the maps", "without"])
def test_outputs_gradients_and_running_statistics_are_those_of_the_plain_pass(network, rng, wanted):
    plain = copy.deepcopy(network)
    maps = torch.rand(5, 3, 6, 4, generator=rng)
    inputs = [maps.clone().requires_grad_(wanted) for _ in range(2)]
    outputs = [plain(inputs[0]), recompute(network, network, inputs[1])]
    for output in outputs:
        output.square().sum().backward()
    assert torch.equal(*outputs)
    if wanted:
        assert torch.equal(inputs[0].grad, inputs[1].grad)
    for expected, found in zip(plain.parameters(), network.parameters(), strict=True):
        assert torch.equal(expected.grad, found.grad)
    for name, expected in plain.state_dict().items():
        assert torch.equal(expected, network.state_dict()[name]), name
    assert plain[1].num_batches_tracked == 1


def test_what_lies_between_is_not_kept_for_the_backward_pass(network, rng):
    kept: list[torch.Tensor] = []
    maps = torch.rand(5, 3, 6, 4, generator=rng)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        recompute(network, network, maps)
        recomputed, kept = kept, []
        network(maps)
    assert all(tensor is maps for tensor in recomputed)
    assert len(kept) > 4


def test_a_norm_counts_again_after_the_backward_pass(network, rng):
    recompute(network, network, torch.rand(5, 3, 6, 4, generator=rng)).sum().backward()
    assert network[1].momentum == 0.1
    network(torch.rand(5, 3, 6, 4, generator=rng))
    assert network[1].num_batches_tracked == 2


def test_without_gradients_it_is_the_plain_pass(network, rng):
    maps = torch.rand(5, 3, 6, 4, generator=rng)
    with torch.no_grad():
        assert torch.equal(recompute(network.eval(), network, maps), network(maps))
