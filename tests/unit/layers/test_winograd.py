import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from tapetum.layers import winograd
from tapetum.layers.winograd import RESULTS, Convolution, _matrices, convolve, use_winograd


@pytest.fixture(autouse=True)
def keep_up(monkeypatch):
    """Products are fast enough, whatever this machine is."""
    monkeypatch.setattr(winograd, "products_keep_up", lambda: True)


def draw(generator, *shape):
    return torch.randn(*shape, generator=generator)


def convolve_directly(maps, weight, dilation):
    """In float64, by PyTorch."""
    return functional.conv2d(maps.double(), weight.double(), padding=dilation, dilation=dilation)


@pytest.mark.parametrize("results", RESULTS)
def test_transformed_filters_times_transformed_pixels_are_a_correlation(results, rng):
    after, filters, before = _matrices(results)
    pixels, taps = draw(rng, results + 2).double().numpy(), draw(rng, 3).double().numpy()
    found = after @ ((filters @ taps) * (before @ pixels))
    expected = [pixels[place : place + 3] @ taps for place in range(results)]
    torch.testing.assert_close(torch.from_numpy(found), torch.tensor(expected))


@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("size", [(24, 9), (7, 5), (1, 1)])
def test_results_and_gradients_are_those_of_a_direct_convolution(size, dilation, rng):
    maps = draw(rng, 3, 256, *size).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = (draw(rng, 260, 256, 3, 3) / 48).requires_grad_()
    found, expected = convolve(maps, weight, dilation=dilation), convolve_directly(maps, weight, dilation)
    assert type(found.grad_fn).__name__ == "_WinogradBackward"
    assert found.is_contiguous(memory_format=torch.channels_last)
    probe = draw(rng, *found.shape)
    pairs = zip(
        (found, *torch.autograd.grad(found, (maps, weight), probe)),
        (expected, *torch.autograd.grad(expected, (maps, weight), probe.double())),
        strict=True,
    )
    for ours, exact in pairs:
        assert (ours - exact).abs().max() < 2e-5 * exact.abs().max()


def test_a_batch_of_many_chunks_gives_what_its_pictures_give_alone(rng, monkeypatch):
    monkeypatch.setattr("tapetum.layers.winograd.CHUNK_BYTES", 1)
    maps, weight = draw(rng, 3, 256, 5, 4), draw(rng, 256, 256, 3, 3).requires_grad_()
    together = convolve(maps, weight)
    torch.testing.assert_close(together, torch.cat([convolve(picture[None], weight) for picture in maps]))
    (gradient,) = torch.autograd.grad(together.sum(), weight)
    exact = convolve_directly(maps, weight, 1)
    (expected,) = torch.autograd.grad(exact.sum(), weight)
    assert (gradient - expected).abs().max() < 2e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("channels", "dtype"), [(255, torch.float32), (256, torch.float64)], ids=["few channels", "double precision"]
)
def test_what_does_not_pay_is_left_to_pytorch(channels, dtype, rng):
    maps, weight = draw(rng, 1, channels, 4, 4).to(dtype), draw(rng, 256, channels, 3, 3).to(dtype)
    assert torch.equal(convolve(maps, weight), functional.conv2d(maps, weight, padding=1))


def test_where_products_are_slow_pytorch_convolves(rng, monkeypatch):
    monkeypatch.setattr(winograd, "products_keep_up", lambda: False)
    found = convolve(draw(rng, 1, 256, 4, 4), draw(rng, 256, 256, 3, 3).requires_grad_())
    assert type(found.grad_fn).__name__ == "ConvolutionBackward0"


def test_under_autocast_pytorch_computes_in_bfloat16(rng):
    maps, weight = draw(rng, 1, 256, 4, 4), draw(rng, 256, 256, 3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert convolve(maps, weight).dtype == torch.bfloat16


def test_a_network_keeps_the_names_and_values_of_its_parameters(rng):
    network = nn.Sequential(
        nn.Conv2d(256, 256, 3, padding=1, bias=False),
        nn.Conv2d(256, 256, 3, padding=1),  # a bias, a stride and a 1x1 filter are not its business
        nn.Conv2d(256, 256, 3, padding=1, stride=2, bias=False),
        nn.Conv2d(256, 256, 1, bias=False),
    )
    plain = copy.deepcopy(network)
    use_winograd(network)
    assert [type(part) for part in network] == [Convolution, nn.Conv2d, nn.Conv2d, nn.Conv2d]
    assert all(torch.equal(network.state_dict()[name], value) for name, value in plain.state_dict().items())
    assert [name for name, _ in network.named_parameters()] == [name for name, _ in plain.named_parameters()]
    maps = draw(rng, 2, 256, 6, 4)
    torch.testing.assert_close(network(maps), plain(maps), rtol=1e-4, atol=1e-5)
