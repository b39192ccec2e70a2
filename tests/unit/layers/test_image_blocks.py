"""Blocks of networks that make and judge pictures, written out."""

import torch
from torch import nn
from torch.nn import functional

from tapetum.layers.image_blocks import AdaptiveNorm, InstanceNorm, ResidualBlock, ScaledJudges, draw_weights, halve


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


def test_a_residual_block_may_have_biases_instead_of_norms_and_a_leaky_relu(rng):
    maps = torch.randn(2, 3, 5, 4, generator=rng)
    block = ResidualBlock(3, nn.Identity, bias=True, slope=0.3)
    first, second = block.convolutions
    inner = functional.conv2d(maps, first.weight, first.bias, padding=1)
    inner = torch.where(inner > 0, inner, 0.3 * inner)
    torch.testing.assert_close(block(maps), maps + functional.conv2d(inner, second.weight, second.bias, padding=1))
    assert first.bias.any()


def test_a_map_that_is_one_number_sends_nothing_back_through_a_norm(rng):
    maps = torch.randn(2, 3, 5, 4, generator=rng)
    maps[0, 1] = 0.3
    weights = torch.randn(maps.shape, generator=rng)
    sent = []
    for norm in (InstanceNorm(3), nn.InstanceNorm2d(3)):
        seen = maps.clone().requires_grad_()
        made = norm(seen)
        torch.testing.assert_close(made, functional.instance_norm(maps))
        sent.append(torch.autograd.grad((weights * made).sum(), seen)[0])
    assert not sent[0][0, 1].any()
    assert sent[1][0, 1].abs().max() > 100, "else there is nothing to prevent"
    sent[1][0, 1] = 0
    torch.testing.assert_close(sent[0], sent[1])


def test_an_adaptive_norm_has_the_mean_and_deviation_that_it_is_given(rng):
    maps = 5 + 3 * torch.randn(2, 3, 50, 40, generator=rng)
    mean, deviation = torch.randn(2, 2, 3, generator=rng).unbind()
    made = AdaptiveNorm(3)(maps, mean, deviation)
    torch.testing.assert_close(made.mean((2, 3)), mean, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(made.std((2, 3)), deviation.abs(), rtol=1e-3, atol=1e-4)


def test_judges_of_several_sizes_see_a_picture_each_time_half_as_large(rng):
    judges = ScaledJudges(nn.Identity, 3)
    pictures = torch.rand(1, 3, 9, 6, generator=rng)
    found = judges(pictures)
    assert [each.shape[2:] for each in found] == [(9, 6), (5, 3), (3, 2)]
    assert torch.equal(found[0], pictures)
    torch.testing.assert_close(found[1][:, :, 0, 0], pictures[:, :, :2, :2].mean((2, 3)))
    torch.testing.assert_close(found[2][:, :, 1, 1], found[1][:, :, 1:4, 1:3].mean((2, 3)))


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
