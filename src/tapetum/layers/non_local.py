"""Non-local block without softmax: each place of a map hears from every other, at a cost linear in the places."""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.layers.two_stream import output_width

InnerWidth = Literal["one", "half"]


class NonLocal(nn.Module):
    """x + norm(out(y)) with y_i = sum over j of (theta_i . phi_j) g_j / N, N being the number of places.

    Nothing stands between the affinity theta phi^T and its product with g, so the product is taken the other way round,
    theta (phi^T g) / N: the N x N affinity is never formed. The sums over places are taken in float32.
    At the start the norm's weight and bias are zero, so that the block passes its input on.

    Args:
        width: channels C of the map.
        inner: channels of theta, phi and g: "one", or "half" for C / 2.
    Source: non-local network (Wang et al., 2018) as in the visible-infrared release of AGW, whose inner width is one.
    """

    def __init__(self, width: int, inner: InnerWidth = "one") -> None:
        super().__init__()
        inner_width = 1 if inner == "one" else max(width // 2, 1)
        self.g = nn.Conv2d(width, inner_width, 1)
        self.theta = nn.Conv2d(width, inner_width, 1)
        self.phi = nn.Conv2d(width, inner_width, 1)
        self.out = nn.Conv2d(inner_width, width, 1)
        self.norm = nn.BatchNorm2d(width)
        nn.init.zeros_(self.norm.weight)
        nn.init.zeros_(self.norm.bias)

    def forward(self, maps: Tensor) -> Tensor:
        """The map, (B, C, h, w), and what its places heard from each other."""
        parts = (self.theta, self.phi, self.g)
        weight = torch.cat([part.weight for part in parts])  # one convolution reads the map once
        bias = torch.cat([part.bias for part in parts if part.bias is not None])
        projected = functional.conv2d(maps, weight, bias).flatten(2)
        with torch.autocast(maps.device.type, enabled=False):
            theta, phi, g = (projected if projected.dtype == torch.float64 else projected.float()).chunk(3, dim=1)
            context = torch.bmm(g, phi.transpose(1, 2)) / maps[0, 0].numel()  # (B, inner of g, inner of phi)
            heard = torch.bmm(context, theta)
        heard = heard.to(projected.dtype).view(maps.shape[0], -1, *maps.shape[2:])
        residual: Tensor = self.norm(self.out(heard))
        return residual + maps


class NonLocalStages(nn.ModuleList):
    """Non-local blocks behind the last residual blocks of a network's stages.

    Args:
        stages: each a sequence of residual blocks.
        counts: for each stage, how many of its residual blocks one follows; where it has fewer, one follows each.
    """

    def __init__(self, stages: Iterable[nn.Module], counts: Sequence[int], inner: InnerWidth = "one") -> None:
        residuals = [list(stage.children())[::-1][:count][::-1] for stage, count in zip(stages, counts, strict=True)]
        super().__init__(nn.ModuleList(NonLocal(output_width(block), inner) for block in each) for each in residuals)

    def forward(self, maps: Tensor, stages: Iterable[nn.Module]) -> Tensor:
        """The maps behind all stages, from what the first takes; the stages are those of the construction."""
        for stage, followers in zip(stages, self, strict=True):
            residuals, blocks = list(stage.children()), list(followers.children())
            first = len(residuals) - len(blocks)
            for number, residual in enumerate(residuals):
                maps = residual(maps)
                if number >= first:
                    maps = blocks[number - first](maps)
        return maps
