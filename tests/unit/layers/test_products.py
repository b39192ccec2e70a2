import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import flop_registry

from tapetum.layers import products
from tapetum.layers.products import HAS_ONEDNN, Linear, counting_flops, multiply, use_fast_products

KEEP_UP = products.products_keep_up
pytestmark = pytest.mark.skipif(not products.HAS_ONEDNN, reason="this PyTorch is built without oneDNN")


@pytest.fixture(autouse=True)
def lag(monkeypatch):
    """Products are slow beside convolutions, whatever this machine is."""
    monkeypatch.setattr(products, "products_keep_up", lambda: False)


def draw(generator, *shape):
    return torch.randn(*shape, generator=generator)


@pytest.mark.parametrize("shape", [(300,), (3, 100), (2, 5, 30)], ids=["rows", "tokens", "windows"])
@pytest.mark.parametrize("biased", [True, False])
def test_results_and_gradients_are_those_of_exact_products(shape, biased, rng):
    values, weight = draw(rng, *shape, 64).requires_grad_(), (draw(rng, 96, 64) / 8).requires_grad_()
    bias = draw(rng, 96).requires_grad_() if biased else None
    given = [tensor for tensor in (values, weight, bias) if tensor is not None]
    found, probe = multiply(values, weight, bias), draw(rng, *shape, 96)
    assert type(found.grad_fn).__name__ == "_ProductBackward"
    expected = functional.linear(*(tensor.double() for tensor in given))
    pairs = zip(
        (found, *torch.autograd.grad(found, given, probe)),
        (expected, *torch.autograd.grad(expected, given, probe.double())),
        strict=True,
    )
    for ours, exact in pairs:
        assert ours.shape == exact.shape
        assert (ours - exact).abs().max() < 1e-5 * exact.abs().max()


def test_a_gradient_that_is_expanded_or_in_another_order_is_taken(rng):
    values, weight = draw(rng, 300, 64).requires_grad_(), draw(rng, 96, 64).requires_grad_()
    multiply(values, weight).sum().backward()
    expected = torch.autograd.grad(functional.linear(values, weight).sum(), (values, weight))
    torch.testing.assert_close((values.grad, weight.grad), expected, rtol=1e-4, atol=1e-4)


def test_a_frozen_weight_gets_no_gradient(rng):
    values, weight = draw(rng, 300, 64).requires_grad_(), draw(rng, 96, 64)
    multiply(values, weight).sum().backward()
    assert values.grad is not None
    assert weight.grad is None


@pytest.mark.parametrize(
    ("rows", "dtype"), [(2, torch.float32), (300, torch.float64)], ids=["small", "double precision"]
)
def test_what_does_not_pay_is_left_to_pytorch(rows, dtype, rng):
    values, weight = draw(rng, rows, 64).to(dtype), draw(rng, 96, 64).to(dtype).requires_grad_()
    assert torch.equal(multiply(values, weight), functional.linear(values, weight))
    assert type(multiply(values, weight).grad_fn).__name__ != "_ProductBackward"


def test_under_autocast_pytorch_computes_in_bfloat16(rng):
    with torch.autocast("cpu", torch.bfloat16):
        assert multiply(draw(rng, 300, 64), draw(rng, 96, 64)).dtype == torch.bfloat16


def test_multiply_adds_are_counted_as_those_of_any_product(rng):
    values, weight = draw(rng, 3, 100, 64), draw(rng, 96, 64)
    with counting_flops() as ours:
        multiply(values, weight)
    with counting_flops() as plain:
        functional.linear(values, weight)
    assert ours.get_total_flops() == plain.get_total_flops() == 2 * 300 * 64 * 96


@pytest.mark.skipif(not HAS_ONEDNN, reason="without oneDNN there is no such product")
def test_torch_s_own_counters_are_left_as_they_are():
    assert torch.ops.mkldnn._linear_pointwise not in flop_registry


def test_a_network_keeps_the_names_and_values_of_its_parameters(rng):
    network = nn.Sequential(nn.Linear(64, 96), nn.Sequential(nn.ReLU(), nn.Linear(96, 64, bias=False)))
    plain = copy.deepcopy(network)
    use_fast_products(network)
    assert [type(part) for part in network.modules() if isinstance(part, nn.Linear)] == [Linear, Linear]
    assert all(torch.equal(network.state_dict()[name], value) for name, value in plain.state_dict().items())
    values = draw(rng, 300, 64)
    torch.testing.assert_close(copy.deepcopy(network)(values), plain(values), rtol=1e-4, atol=1e-5)


def test_what_was_found_before_holds_and_is_forgotten(monkeypatch):
    monkeypatch.setattr(products, "_found", [True])
    with products.products_as_found(False):
        assert not KEEP_UP()
    assert KEEP_UP()


@pytest.mark.parametrize(("product", "keeps_up"), [(1.0, True), (1.5, True), (2.0, False)])
def test_a_machine_is_judged_by_the_time_of_both(product, keeps_up, monkeypatch):
    seconds = iter([1.0, product])  # of a convolution, then of a product with as many multiplications
    monkeypatch.setattr(products, "_shortest", lambda work: next(seconds))
    assert products._compare() is keeps_up


def test_a_machine_is_measured_once_and_nobody_counts_it(monkeypatch):
    asked = []
    monkeypatch.setattr(products, "_shortest", lambda work: asked.append(work().shape) or 1.0)
    monkeypatch.setattr(products, "_found", [])
    with counting_flops() as counter:
        assert KEEP_UP()
        assert KEEP_UP()
    assert asked == [(1, 256, 24, 24), (24 * 24, 256)]
    assert counter.get_total_flops() == 0
