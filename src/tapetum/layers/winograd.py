"""3x3 convolutions with a third of the multiplications, by Winograd's minimal filtering.

A tile of 6 x 5 pixels gives 4 x 3 results: with both transformed, 30 products take the place of 108. In float32 the
results are those of a direct convolution but for rounding (about 1e-6 of the largest). Transforms cost time, too, and
so this pays on a CPU, for many channels, where products are computed about as fast as convolutions; anything else is
left to PyTorch.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.polynomial import polynomial
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from tapetum.layers.products import products_keep_up
from tapetum.layers.replacing import replace_convolutions

KERNEL = 3
RESULTS = (4, 3)  # of a tile, down and across: maps of 24 x 9 and 48 x 18 are covered without waste
POINTS = (0.0, 1.0, -1.0, 2.0, -2.0)  # at which polynomials are evaluated, beside infinity
MIN_CHANNELS = 256  # in and out, below which transforms cost more than they save
CHUNK_BYTES = 16 * 2**20  # of transformed tiles at a time: they stay in the CPU's caches


def convolve(maps: Tensor, weight: Tensor, *, dilation: int = 1) -> Tensor:
    """A 3x3 convolution of stride 1 that keeps the maps' size; without bias.

    Args:
        maps: (B, C, H, W).
        weight: (K, C, 3, 3).
        dilation: steps between the pixels that a filter sees; as many zeros surround the maps.
    """
    if not _pays(maps, weight):
        return functional.conv2d(maps, weight, padding=dilation, dilation=dilation)
    return filter_maps(maps, weight, dilation=dilation)


def filter_maps(maps: Tensor, weight: Tensor, *, dilation: int = 1) -> Tensor:
    """`convolve` by filtering, whether it pays or not."""
    seen: Tensor = _Winograd.apply(maps, weight, dilation)
    return seen


class Convolution(nn.Conv2d):
    """`convolve` as a module, in the place of a `nn.Conv2d` whose weight it takes over.

    Args:
        convolution: 3x3, stride 1, one group, padding as its dilation, without bias.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        step = convolution.dilation[0]
        with torch.device("meta"):
            super().__init__(
                convolution.in_channels, convolution.out_channels, KERNEL, padding=step, dilation=step, bias=False
            )
        self.weight = convolution.weight

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # the name that nn.Conv2d gives it
        """(B, K, H, W) of (B, C, H, W)."""
        return convolve(input, self.weight, dilation=self.dilation[0])


def use_winograd(network: nn.Module) -> None:
    """Let the convolutions of a network that `convolve` can compute be computed by it; parameters keep their names."""
    replace_convolutions(network, _fits, Convolution)


def _fits(convolution: nn.Conv2d) -> bool:
    own = (convolution.kernel_size, convolution.stride, convolution.groups, convolution.bias, convolution.padding)
    return own == ((KERNEL, KERNEL), (1, 1), 1, None, convolution.dilation)


def _pays(maps: Tensor, weight: Tensor) -> bool:
    return (
        maps.device.type == "cpu"
        and maps.dtype == weight.dtype == torch.float32
        and min(weight.shape[:2]) >= MIN_CHANNELS
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        and not torch.compiler.is_compiling()
        and products_keep_up()
    )


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, dilation: int) -> Tensor:
        ctx.save_for_backward(maps, weight)
        ctx.dilation = dilation
        tiling = _Tiling(maps, dilation)
        filters = _transform_filters(weight)
        seen = maps.new_empty(tiling.covered(len(weight)))
        for rows in tiling.chunks():
            products = torch.bmm(tiling.transform(maps[rows]), filters)
            tiling.results(seen[rows]).copy_((tiling.after @ products.flatten(1)).view(tiling.results_shape(products)))
        return tiling.crop(seen)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        maps, weight = ctx.saved_tensors
        tiling = _Tiling(maps, ctx.dilation)
        for_maps, for_weight = ctx.needs_input_grad[:2]
        filters = _transform_filters(weight) if for_maps else None
        filter_gradient = maps.new_zeros(len(tiling.before), weight.shape[1], weight.shape[0]) if for_weight else None
        padded_gradient = maps.new_zeros(tiling.padded(weight.shape[1])) if for_maps else None
        seen = tiling.fill(gradient)
        for rows in tiling.chunks():
            results = tiling.results(seen[rows])
            products = (tiling.after.T @ results.reshape(len(tiling.after), -1)).view(
                len(tiling.before), -1, weight.shape[0]
            )
            if filter_gradient is not None:
                filter_gradient.baddbmm_(tiling.transform(maps[rows]).mT, products)
            if padded_gradient is not None and filters is not None:
                tiles = tiling.before.T @ torch.bmm(products, filters.mT).flatten(1)
                tiling.add_tiles(padded_gradient[rows], tiles)
        return (
            None if padded_gradient is None else tiling.uncover(padded_gradient),
            None if filter_gradient is None else _filters_back(filter_gradient),
            None,
        )


class _Tiling:
    """How maps, (B, C, H, W), are cut into tiles, and back; pixels d apart belong together where the dilation is d."""

    def __init__(self, maps: Tensor, dilation: int) -> None:
        self.batch, self.channels, self.height, self.width = maps.shape
        self.dilation = dilation
        self.down, self.across = (
            -(-size // (dilation * results)) for size, results in zip(maps.shape[2:], RESULTS, strict=True)
        )
        (after_down, _, before_down), (after_across, _, before_across) = (_matrices(results) for results in RESULTS)
        self.before = torch.from_numpy(np.kron(before_down, before_across)).to(maps.dtype)  # (30, 30)
        self.after = torch.from_numpy(np.kron(after_down, after_across)).to(maps.dtype)  # (12, 30)

    def chunks(self) -> Iterator[slice]:
        """Rows of the batch, a few at a time."""
        bytes_each = 4 * len(self.before) * self.down * self.across * self.dilation**2 * self.channels
        step = max(1, CHUNK_BYTES // bytes_each)
        return (slice(start, start + step) for start in range(0, self.batch, step))

    def padded(self, channels: int) -> tuple[int, int, int, int]:
        """(B, H, W, C) of maps with zeros around them, as far as the tiles reach."""
        sides = (self.dilation * (n * r + KERNEL - 1) for n, r in zip((self.down, self.across), RESULTS, strict=True))
        return (self.batch, *sides, channels)  # type: ignore[return-value]

    def covered(self, channels: int) -> tuple[int, int, int, int]:
        """(B, H, W, K) of what the tiles give."""
        sides = (self.dilation * n * r for n, r in zip((self.down, self.across), RESULTS, strict=True))
        return (self.batch, *sides, channels)  # type: ignore[return-value]

    def transform(self, maps: Tensor) -> Tensor:
        """(30, T, C) transformed tiles of (B, C, H, W)."""
        padded = maps.new_zeros(len(maps), *self.padded(self.channels)[1:])
        edge = self.dilation
        padded[:, edge : edge + self.height, edge : edge + self.width] = maps.permute(0, 2, 3, 1)
        tiles = self._tiles(padded).permute(3, 6, 0, 1, 2, 4, 5, 7).reshape(len(self.before), -1)
        return (self.before @ tiles).view(len(self.before), -1, self.channels)

    def add_tiles(self, padded: Tensor, tiles: Tensor) -> None:
        """The way back of cutting: tiles (30, T C) are added where they came from."""
        places = self._tiles(padded)
        size_across = RESULTS[1] + KERNEL - 1
        for number, tile in enumerate(tiles):
            place = places[:, :, :, number // size_across, :, :, number % size_across]
            place.add_(tile.view(place.shape))

    def results(self, seen: Tensor) -> Tensor:
        """(4, 3, B, d, tiles down, d, tiles across, K), a view of maps that the tiles cover, (B, H, W, K)."""
        d, (down, across) = self.dilation, RESULTS
        cut = seen.view(len(seen), self.down, down, d, self.across, across, d, seen.shape[3])
        return cut.permute(2, 5, 0, 3, 1, 6, 4, 7)

    def results_shape(self, products: Tensor) -> tuple[int, ...]:
        """Of `results`, with as many rows as tiles were multiplied."""
        return (*RESULTS, -1, self.dilation, self.down, self.dilation, self.across, products.shape[2])

    def crop(self, seen: Tensor) -> Tensor:
        """(B, K, H, W) of what the tiles gave."""
        return seen[:, : self.height, : self.width].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

    def fill(self, maps: Tensor) -> Tensor:
        """(B, H, W, K) as far as the tiles reach, zero beyond the maps."""
        shape = self.covered(maps.shape[1])
        if shape[1:3] == maps.shape[2:]:
            return maps.permute(0, 2, 3, 1).contiguous()
        filled = maps.new_zeros(shape)
        filled[:, : self.height, : self.width] = maps.permute(0, 2, 3, 1)
        return filled

    def uncover(self, padded: Tensor) -> Tensor:
        """(B, C, H, W) without the zeros around."""
        edge = self.dilation
        inside = padded[:, edge : edge + self.height, edge : edge + self.width]
        return inside.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

    def _tiles(self, padded: Tensor) -> Tensor:
        """(B, d, tiles down, 6, d, tiles across, 5, C): overlapping tiles, a view."""
        d, (down, across) = self.dilation, RESULTS
        batch, height, width, channel = padded.stride()
        shape = (len(padded), d, self.down, down + KERNEL - 1, d, self.across, across + KERNEL - 1, padded.shape[3])
        strides = (batch, height, down * d * height, d * height, width, across * d * width, d * width, channel)
        return padded.as_strided(shape, strides, padded.storage_offset())


def _transform_filters(weight: Tensor) -> Tensor:
    """(30, C, K) of (K, C, 3, 3)."""
    flat = weight.permute(2, 3, 1, 0).reshape(KERNEL * KERNEL, -1)
    return (_filter_matrix(weight) @ flat).view(-1, weight.shape[1], weight.shape[0])


def _filters_back(gradient: Tensor) -> Tensor:
    """(K, C, 3, 3), the gradient of filters from that of the transformed ones, (30, C, K)."""
    flat = _filter_matrix(gradient).T @ gradient.flatten(1)
    return flat.view(KERNEL, KERNEL, *gradient.shape[1:]).permute(3, 2, 0, 1).contiguous()


def _filter_matrix(like: Tensor) -> Tensor:
    (_, down, _), (_, across, _) = (_matrices(results) for results in RESULTS)
    return torch.from_numpy(np.kron(down, across)).to(like.dtype)  # (30, 9)


def _matrices(results: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """A', G and B' of results = A' [(G filter) * (B' pixels)], along one axis.

    A filter and its results are multiplied as polynomials: evaluated at points, and put together again after Lagrange.
    """
    size = results + KERNEL - 1
    points = np.array(POINTS[: size - 1])
    after = np.zeros((results, size))
    after[:, :-1] = points ** np.arange(results)[:, None]
    after[-1, -1] = 1
    filters = np.zeros((size, KERNEL))
    before = np.zeros((size, size))
    for row, point in enumerate(points):
        others = np.delete(points, row)
        filters[row] = point ** np.arange(KERNEL) / np.prod(point - others)
        before[row, :-1] = polynomial.polyfromroots(others)
    filters[-1, -1] = 1
    before[-1] = polynomial.polyfromroots(points)
    return after, filters, before
