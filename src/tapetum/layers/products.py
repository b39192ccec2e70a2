"""Large float32 products on a CPU, by the library for convolutions where the one for products lags behind.

PyTorch takes float32 products from MKL, which leaves the AVX-512 of an AMD CPU aside, and convolutions from oneDNN,
which does not: on Zen 5 a product reaches 0.4 of a convolution's rate. oneDNN computes products as fast.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

SLOW = 0.65  # of a convolution's rate; 0.4 and about 1 are what was met
MIN_WORK = 2**20  # multiply-adds, below which a call costs more than it computes
HAS_ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")
_measuring = threading.Lock()
_found: list[bool] = []


def products_keep_up() -> bool:
    """Whether a large product reaches about the rate of a convolution on this CPU; measured once, in some 50 ms."""
    with _measuring:
        if not _found:
            with ThreadPoolExecutor(1) as alone:  # a thread that no counting, casting or recording here reaches
                _found.append(alone.submit(_compare).result())
    return _found[0]


@contextmanager
def products_as_found(keep_up: bool) -> Iterator[None]:
    """What `products_keep_up` says in here, so that a resumed training computes as it began."""
    before = _found.copy()
    _found[:] = [keep_up]
    try:
        yield
    finally:
        _found[:] = before


class Linear(nn.Linear):
    """A linear layer that computes by `multiply`, in the place of one whose parameters it takes over."""

    def __init__(self, layer: nn.Linear) -> None:
        with torch.device("meta"):
            super().__init__(layer.in_features, layer.out_features, bias=False)
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # the name that nn.Linear gives it
        """(..., K) of (..., C)."""
        return multiply(input, self.weight, self.bias)


def use_fast_products(network: nn.Module) -> None:
    """Let a network's linear layers compute by `multiply`; parameters keep their names."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                parent.register_module(name, Linear(child))


def multiply(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`: (..., C) and (K, C) give (..., K); no second derivatives."""
    if not _pays(values, weight):
        return functional.linear(values, weight, bias)
    product: Tensor = _Product.apply(values, weight, bias)
    return product


def _pays(values: Tensor, weight: Tensor) -> bool:
    return (
        values.device.type == "cpu"
        and values.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        and not torch.compiler.is_compiling()
        and values.numel() * len(weight) >= MIN_WORK
        and HAS_ONEDNN
        and not products_keep_up()
    )


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(values, weight)
        ctx.has_bias = bias is not None
        return _compute(values, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        values, weight = ctx.saved_tensors
        for_values, for_weight, for_bias = ctx.needs_input_grad
        rows = gradient.reshape(-1, gradient.shape[-1])
        return (
            _compute(rows, weight.T).view(values.shape) if for_values else None,
            _compute(rows.T, values.reshape(-1, values.shape[-1]).T) if for_weight else None,
            rows.sum(0) if for_bias and ctx.has_bias else None,
        )


def _compute(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(values, weight, bias, "none", [], "")
    return product


def _count(values: torch.Size, weight: torch.Size, *_: Any, **__: Any) -> int:
    """Twice the multiply-adds, as torch counts a product's."""
    return 2 * values.numel() * weight[0]


def counting_flops() -> FlopCounterMode:
    """A context that counts floating-point operations, those of `multiply` too."""
    own = {torch.ops.mkldnn._linear_pointwise: _count} if HAS_ONEDNN else {}
    return FlopCounterMode(display=False, custom_mapping=own)


def _compare() -> bool:
    channels, side = 256, 24
    maps = torch.ones(1, channels, side, side).contiguous(memory_format=torch.channels_last)
    filters = torch.ones(channels, channels, 3, 3).contiguous(memory_format=torch.channels_last)
    rows, columns = torch.ones(side * side, channels * 9), torch.ones(channels * 9, channels)  # as many multiply-adds
    with torch.no_grad():
        convolution = _shortest(lambda: functional.conv2d(maps, filters, padding=1))
        return convolution > SLOW * _shortest(lambda: rows @ columns)


def _shortest(work: Callable[[], Tensor], tries: int = 6) -> float:
    """Seconds; the first try also prepares."""
    seconds = []
    for _ in range(tries):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
