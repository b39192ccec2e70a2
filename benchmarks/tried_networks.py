"""Networks written in another way that gives the same numbers, for `bench_tried`: each gives a changed copy."""

import copy
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tapetum.layers.expansion import DILATIONS, Expansion
from tapetum.layers.winograd import Convolution, convolve

KERNEL = 3


class Shift(nn.Module):
    """Adds a number to each channel: what is left of a norm behind a convolution that takes no bias."""

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.bias = nn.Parameter(bias.detach()[:, None, None])

    def forward(self, maps: Tensor) -> Tensor:
        return maps + self.bias.to(maps.dtype)


def fold_norms(network: nn.Module) -> nn.Module:
    """Each batch norm that directly follows a convolution goes into its weights; for extraction alone.

    In training a norm divides by the deviation of the batch at hand, which is known after the convolution only.
    """
    folded = copy.deepcopy(network).eval()
    for parent in list(folded.modules()):
        for (name, convolution), (behind, norm) in pairwise(list(parent.named_children())):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                fused: Any = fuse_conv_bn_eval(convolution, norm)
                is_winograd = isinstance(convolution, Convolution)
                activation = getattr(norm, "act", nn.Identity())  # timm's norms of an EfficientNet hold theirs
                parent.register_module(behind, Shift(fused.bias) if is_winograd else activation)
                if is_winograd:  # which takes no bias
                    fused.bias = None
                parent.register_module(name, fused)
    return folded


class Hidden(nn.Module):
    """DEEN's expansion up to its 1x1 convolutions: the original maps, then what each branch gives to its own."""

    def __init__(self, expansion: Expansion) -> None:
        super().__init__()
        self.branches = expansion.branches

    def forward(self, maps: Tensor) -> list[Tensor]:
        first, second, third = (
            convolve(maps, self.filters(number), dilation=dilation) for number, dilation in enumerate(DILATIONS)
        )
        hidden = functional.relu((first + second + third) / len(DILATIONS))
        return [maps, *hidden.chunk(len(self.branches), 1)]

    def filters(self, number: int) -> Tensor:
        return torch.cat([branch.get_parameter(f"dilated.{number}.weight") for branch in self.branches])


class Joined(nn.Module):
    """A 1x1 convolution that reads what `Hidden` gives: that of the branches times the branches' own 1x1.

    Args:
        convolution: of the stage behind the expansion, without bias.
        fixed: multiply the weights once, for extraction; else in every call, with gradients for all of them.
    Raises:
        ValueError: the convolution is larger than 1x1: the zeros around its maps come behind the branch's bias.
    """

    def __init__(self, convolution: nn.Conv2d, expansion: Expansion, *, fixed: bool) -> None:
        super().__init__()
        if convolution.kernel_size != (1, 1):
            raise ValueError(f"{convolution} is no 1x1 convolution; choose a backbone of bottlenecks, e.g. resnet50")
        self.convolution = convolution
        self.outs = nn.ModuleList(branch.get_submodule("out") for branch in expansion.branches)
        self.kept: list[tuple[Tensor, Tensor]] | None = None
        if fixed:
            with torch.no_grad():
                self.kept = self.multiply()

    def multiply(self) -> list[tuple[Tensor, Tensor]]:
        """Weight and bias for each branch."""
        own = self.convolution.weight.flatten(1)
        outs: list[Any] = list(self.outs)
        return [((own @ out.weight.flatten(1))[:, :, None, None], own @ out.bias) for out in outs]

    def forward(self, parts: list[Tensor]) -> Tensor:
        maps, *hidden = parts
        stride = self.convolution.stride
        weights = self.multiply() if self.kept is None else self.kept
        made = [
            functional.conv2d(each, weight, bias, stride=stride)
            for each, (weight, bias) in zip(hidden, weights, strict=True)
        ]
        return torch.cat([self.convolution(maps), *made])


def join_expansion(method: Any, *, fixed: bool) -> Any:
    """DEEN whose branches' 1x1 convolutions are multiplied into the two that follow them; without dropout between."""
    joined = copy.deepcopy(method)
    block = joined.network.stages[joined.options.expand_after][0]
    block.conv1 = Joined(block.conv1, joined.expansion, fixed=fixed)
    block.downsample[0] = Joined(block.downsample[0], joined.expansion, fixed=fixed)
    joined.expansion = Hidden(joined.expansion)
    return joined


def pair_networks(first: nn.Module, second: nn.Module) -> nn.Module:
    """Two networks of one shape as one whose convolutions have two groups: (B, 2 C, H, W) in, first's channels first.

    Batch norms count each channel by itself, so that this holds in training, too.
    """
    pair, others = copy.deepcopy(first), dict(second.named_modules())
    for place, parent in list(pair.named_modules()):
        for name, own in list(parent.named_children()):
            other = others[f"{place}.{name}".lstrip(".")]
            if isinstance(own, nn.Conv2d):
                parent.register_module(name, _pair_convolutions(own, other))
            elif isinstance(own, nn.BatchNorm2d):
                parent.register_module(name, _pair_norms(own, other))
    return pair


def _pair_convolutions(own: nn.Conv2d, other: Any) -> nn.Conv2d:
    options: dict[str, Any] = {
        name: getattr(own, name) for name in ("kernel_size", "stride", "padding", "dilation", "padding_mode")
    }
    with torch.device("meta"):
        both = nn.Conv2d(
            2 * own.in_channels, 2 * own.out_channels, groups=2 * own.groups, bias=own.bias is not None, **options
        )
    both.weight = nn.Parameter(torch.cat([own.weight, other.weight]).detach())
    if own.bias is not None:
        both.bias = nn.Parameter(torch.cat([own.bias, other.bias]).detach())
    return both


def _pair_norms(own: nn.BatchNorm2d, other: Any) -> nn.BatchNorm2d:
    both = nn.BatchNorm2d(2 * own.num_features, eps=own.eps, momentum=own.momentum).train(own.training)
    state, more = own.state_dict(), other.state_dict()
    both.load_state_dict({name: torch.cat([v, more[name]]) if v.ndim else v for name, v in state.items()})
    return both


def multiply_columns(maps: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of a 3x3 convolution's weight as one product (im2col); stride 1, zeros around the maps.

    Args:
        maps: (B, C, H, W) that it read, channels last.
        gradient: (B, K, H, W) of what it gave, channels last.
    Returns:
        (K, C, 3, 3).
    """
    height, width = maps.shape[2:]
    padded = functional.pad(maps.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    taps = [padded[:, i : i + height, j : j + width] for i in range(KERNEL) for j in range(KERNEL)]
    columns = torch.cat(taps, dim=3).flatten(0, 2)  # (B H W, 9 C)
    product = gradient.permute(0, 2, 3, 1).flatten(0, 2).T @ columns
    return product.view(-1, KERNEL, KERNEL, maps.shape[1]).permute(0, 3, 1, 2)


def convolve_backward(maps: Tensor, gradient: Tensor, weight: Tensor) -> Tensor:
    """The same gradient, as PyTorch has it computed."""
    ones, zeros = [1, 1], [0, 0]
    made = torch.ops.aten.convolution_backward(
        gradient, maps, weight, None, ones, ones, ones, False, zeros, 1, [False, True, False]
    )
    found: Tensor = made[1]
    return found
