import pytest
import torch
from torch import Tensor, nn

from tapetum.layers.attention import ChannelAttention, PositionAttention

OURS = {"query_conv": "query", "key_conv": "key", "value_conv": "value", "gamma": "gamma"}


def ours(name: str) -> str:
    part, dot, rest = name.partition(".")
    return OURS[part] + dot + rest


@pytest.mark.parametrize("kind", ["channel", "position"])
def test_attention_equals_the_originals(golden, assert_matches, kind: str) -> None:
    case = golden("abd_net", f"abd_{kind}_attention")
    block = ChannelAttention() if kind == "channel" else PositionAttention(16)
    block.load_state_dict({ours(name): value for name, value in case.param.items()})
    (x,) = case.leaves("x")
    y = block(x)
    (y * case.inputs["probe_y"]).sum().backward()
    assert_matches(y, case.out["y"], 2e-4)
    assert_matches(x.grad, case.grad["x"], 1e-3)
    gradients = {name: value.grad for name, value in block.named_parameters()}
    if kind == "position":  # the softmax takes a shift of all keys away
        assert gradients.pop("key.bias").abs().max() < 1e-4 * gradients["key.weight"].abs().max()
    expected = {ours(name.removeprefix("param.")): value for name, value in case.grad.items() if name != "x"}
    assert gradients.keys() == expected.keys() - {"key.bias"}
    for name, value in gradients.items():
        assert_matches(value, expected[name], 1e-3)


def slow_channels(block: ChannelAttention, maps: Tensor) -> Tensor:
    result = maps.clone()
    for picture, rows in enumerate(maps.flatten(2)):
        for channel, row in enumerate(rows):
            products = torch.stack([row @ other for other in rows])
            weights = torch.exp(products.max() - products)
            heard = sum(weight * other for weight, other in zip(weights / weights.sum(), rows, strict=True))
            result[picture, channel] += block.gamma * heard.view(maps.shape[2:])
    return result


def slow_positions(block: PositionAttention, maps: Tensor) -> Tensor:
    query, key, value = (part(maps).flatten(2) for part in (block.query, block.key, block.value))
    result = maps.flatten(2).clone()
    for picture in range(len(maps)):
        for place in range(result.shape[2]):
            fits = torch.stack(
                [query[picture, :, place] @ key[picture, :, other] for other in range(result.shape[2])]
            ).exp()
            for other, fit in enumerate(fits):
                result[picture, :, place] += block.gamma * fit / fits.sum() * value[picture, :, other]
    return result.view(maps.shape)


@pytest.mark.parametrize(
    ("block", "slow"), [(ChannelAttention(), slow_channels), (PositionAttention(9), slow_positions)]
)
def test_attention_equals_a_slow_loop_over_channels_or_places(rng, block: nn.Module, slow) -> None:
    block.double()
    maps = torch.randn(2, 9, 3, 2, generator=rng, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(block(maps), maps), "it begins as the identity"
        block.gamma.fill_(0.6)
        found = block(maps)
        assert not torch.allclose(found, maps)
        torch.testing.assert_close(found, slow(block, maps), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("block", [ChannelAttention(), PositionAttention(8)])
def test_under_autocast_the_softmax_is_as_exact_as_the_maps(rng, block: nn.Module) -> None:
    maps = 5 * torch.randn(2, 8, 12, 8, generator=rng)  # at twice that, rounded queries alone turn a softmax
    nn.init.constant_(block.gamma, 1.0)
    given = maps.bfloat16()
    with torch.no_grad():
        expected = block(given.float())
        with torch.autocast("cpu", torch.bfloat16):
            found = block(given)
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).abs().max() < 0.02 * expected.abs().max()


def test_narrow_maps_still_have_one_channel_of_queries() -> None:
    assert PositionAttention(4).query.out_channels == 1
