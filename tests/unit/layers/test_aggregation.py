import pytest
import torch
from torch.nn import functional

from tapetum.core.errors import RecipeError
from tapetum.layers.aggregation import Aggregation, ChannelAggregation, PositionAggregation

LETTERS = {"value": "g", "query": "theta", "key": "phi", "out": "W.0", "norm": "W.1"}
BLOCKS = {"channel.": "CNL.", "position.": "PNL."}
CASES = [
    f"{block}_flag{flag}_{mode}" for block in ("cnl", "pnl", "mfa") for flag in (0, 1) for mode in ("eval", "train")
]


def theirs(name):
    """A parameter's name in released checkpoints."""
    prefix = next((own for own in BLOCKS if name.startswith(own)), "")
    part, rest = name.removeprefix(prefix).split(".", 1)
    return f"{BLOCKS.get(prefix, '')}{LETTERS[part]}.{rest}"


def build(name, high, low):
    stride = 2 if "flag1" in name else 1
    if name.startswith("cnl"):
        return ChannelAggregation(high, low, stride=stride)
    return PositionAggregation(high, low) if name.startswith("pnl") else Aggregation(high, low, stride=stride)


@pytest.mark.parametrize("name", [*CASES, "mfa_flag1_odd_width_eval", "mfa_flag1_at_init_train"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_blocks_equal_the_original(golden, assert_matches, name, layout):
    case = golden("modules_deen", name)
    high, low = case.leaves("x_h", "x_l")
    block = build(name, high.shape[1], low.shape[1]).to(memory_format=layout)
    block.load_state_dict({own: case.param[theirs(own)] for own in block.state_dict()})
    block.train(name.endswith("train"))
    y = block(high.contiguous(memory_format=layout), low.contiguous(memory_format=layout))
    assert_matches(y, case.out["y"], 2e-4)
    for own, value in block.state_dict().items():
        if f"after.{theirs(own)}" in case.out:
            assert_matches(value, case.out[f"after.{theirs(own)}"], 2e-4)
    (y * case.inputs["probe_y"]).sum().backward()
    assert_matches(high.grad, case.grad["x_h"], 1e-3)
    assert_matches(low.grad, case.grad["x_l"], 1e-3)
    for own, tensor in block.named_parameters():
        expected = case.grad[f"param.{theirs(own)}"]
        if own.endswith("out.bias") and block.training:
            # A bias before a batch norm has no effect: both gradients are rounding noise.
            weight = block.get_parameter(own.removesuffix("bias") + "weight")
            assert tensor.grad.abs().max() <= 1e-4 * weight.grad.abs().max()
            continue
        assert_matches(tensor.grad, expected, 1e-3)


def test_a_new_block_passes_what_it_is_given(rng):
    high, low = torch.randn(2, 8, 4, 2, generator=rng), torch.randn(2, 4, 8, 4, generator=rng)
    assert torch.equal(Aggregation(8, 4, stride=2)(high, low), high)


def aggregate_slowly(block, high, low, stride):
    """Both blocks from their equations: every affinity is formed, pixel by pixel."""

    def conv(part, maps, step=1):
        return functional.conv2d(maps, part.weight, part.bias, stride=step)

    channel, position = block.channel, block.position
    l_channels = low.shape[1]
    rows = []
    for x_h, x_l in zip(high.split(1), low.split(1), strict=True):
        theta = conv(channel.query, x_h).reshape(l_channels, -1)
        phi = conv(channel.key, x_l, stride).reshape(l_channels, -1)
        g = conv(channel.value, x_l).reshape(l_channels, -1)
        y = ((theta @ phi.T) / l_channels @ g).reshape(1, l_channels, *x_l.shape[2:])
        rows.append(conv(channel.out, y, stride))
    z = channel.norm(torch.cat(rows)) + high

    rows = []
    for x_h, x_l in zip(z.split(1), low.split(1), strict=True):
        tokens = []  # token p: the channels at pixel p and half a map further on
        for part, maps in ((position.query, x_h), (position.key, x_l), (position.value, x_l)):
            seen = conv(part, maps)[0].flatten(1)
            half = seen.shape[1] // 2
            tokens.append(torch.stack([torch.stack((seen[:, p], seen[:, p + half]), 1).flatten() for p in range(half)]))
        theta, phi, g = tokens
        y = (theta @ phi.T) / len(phi) @ g  # (N_h / 2, l)
        upper_lower = y.unflatten(1, (-1, 2)).permute(1, 2, 0).flatten(1)
        rows.append(conv(position.out, upper_lower.reshape(1, -1, *x_h.shape[2:])))
    return position.norm(torch.cat(rows)) + z


@pytest.mark.parametrize(("stride", "size"), [(1, (6, 4)), (2, (3, 4))])
def test_aggregation_equals_a_slow_transcription_with_all_affinities(rng, stride, size):
    torch.manual_seed(3)
    block = Aggregation(10, 6, stride=stride).double().eval()
    for norm in (block.channel.norm, block.position.norm):
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.normal_(norm.running_mean)
    high = torch.randn(2, 10, *size, generator=rng, dtype=torch.float64)
    low = torch.randn(2, 6, *(stride * side for side in size), generator=rng, dtype=torch.float64)
    torch.testing.assert_close(block(high, low), aggregate_slowly(block, high, low, stride))


def test_the_blocks_have_the_published_number_of_parameters():
    sizes = [(256, 64, 1), (512, 256, 2), (1024, 512, 2)]
    with torch.device("meta"):
        counts = [sum(p.numel() for p in Aggregation(h, low, stride=s).parameters()) for h, low, s in sizes]
    assert counts == [63_264, 594_048, 2_367_744]


def test_a_map_with_an_odd_number_of_pixels_is_refused_with_its_size(rng):
    block = Aggregation(8, 4, stride=2)
    with pytest.raises(
        RecipeError, match=r"a map of 3 x 5 pixels has no two halves; .* multiple of 32, which always works \(16 w"
    ):
        block(torch.randn(1, 8, 3, 5, generator=rng), torch.randn(1, 4, 6, 10, generator=rng))


def test_large_affinities_do_not_overflow_in_half_precision(rng):
    block = Aggregation(8, 4, stride=1).eval()
    high, low = (20 * torch.rand(1, channels, 64, 64, generator=rng) for channels in (8, 4))
    with torch.no_grad(), torch.autocast("cpu", torch.float16):
        key, value = block.position.key(low), block.position.value(low)
        aggregated = block.position(high, low)
    assert key.dtype == torch.float16
    assert (key.double().flatten(2) @ value.double().flatten(2).mT).abs().max() > torch.finfo(torch.float16).max
    assert torch.isfinite(aggregated).all()


def test_under_autocast_aggregation_stays_close(rng):
    block = Aggregation(16, 8, stride=2).eval()
    for norm in (block.channel.norm, block.position.norm):
        torch.nn.init.ones_(norm.weight)
    high, low = torch.rand(2, 16, 6, 4, generator=rng), torch.rand(2, 8, 12, 8, generator=rng)
    with torch.no_grad():
        expected = block(high, low)
        with torch.autocast("cpu", torch.bfloat16):
            inside = block(high, low)
    torch.testing.assert_close(inside.float(), expected, rtol=0.05, atol=0.05)
