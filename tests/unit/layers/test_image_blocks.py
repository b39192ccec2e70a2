"""Blocks of networks that make and judge pictures, written out."""

import torch
from torch import nn
from torch.nn import functional

from tapetum.layers.image_blocks import ResidualBlock, draw_weights, halve


class Scaled(nn.Module):
    """A norm that is told what to multiply by."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels

    def forward(self, maps, factor):
        return factor * maps


def test_a_residual_block_is_two_convolutions_a_relu_and_the_way_around(rng):
    maps = torch.randn(2, 3, 5, 4, generator=rng)
    block = ResidualBlock(3, Scaled, padding="reflect")
    first, second = (layer.weight for layer in block.convolutions)
    inner = (2 * functional.conv2d(functional.pad(maps, (1, 1, 1, 1), mode="reflect"), first)).relu()
    expected = maps - functional.conv2d(functional.pad(inner, (1, 1, 1, 1), mode="reflect"), second)
    styles = ((torch.tensor(2.0),), (torch.tensor(-1.0),))
    torch.testing.assert_close(block(maps, styles), expected)
    assert [norm.channels for norm in block.norms] == [3, 3]


def test_a_residual_block_pads_with_zeros_where_nothing_else_is_said_and_has_no_biases(rng):
    maps = torch.randn(2, 3, 5, 4, generator=rng)
    block = ResidualBlock(3, lambda channels: nn.InstanceNorm2d(channels))
    first, second = (layer.weight for layer in block.convolutions)
    inner = functional.instance_norm(functional.conv2d(maps, first, padding=1)).relu()
    expected = maps + functional.instance_norm(functional.conv2d(inner, second, padding=1))
    torch.testing.assert_close(block(maps), expected)
    assert {name for name, _ in block.named_parameters()} == {"convolutions.0.weight", "convolutions.1.weight"}


def test_a_halving_halves_both_sides():
    assert halve(3, 5)(torch.rand(1, 3, 8, 6)).shape == (1, 5, 4, 3)


def test_weights_are_drawn_with_their_deviation_and_biases_begin_at_zero():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(8, 64, 3), nn.ConvTranspose2d(64, 32, 4, bias=False), nn.Linear(4, 4))
    linear = network[2].weight.clone()
    draw_weights(network, 0.02)
    for layer in network[:2]:
        assert abs(layer.weight.std().item() - 0.02) < 1e-3
    assert not network[0].bias.any()
    assert torch.equal(network[2].weight, linear)
