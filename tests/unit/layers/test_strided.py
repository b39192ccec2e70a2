"""Convolutions of stride 2 on narrow maps."""

import pytest
import torch
from torch import nn

from tapetum.layers.backbones import build_backbone
from tapetum.layers.strided import StridedConvolution


@pytest.mark.parametrize(("kernel", "padding"), [(3, 1), (7, 3)])
@pytest.mark.parametrize("height", [1, 2, 5, 8])
@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_outputs_and_gradients_are_those_of_the_plain_convolution(
    kernel: int, padding: int, height: int, width: int, kind: torch.dtype, rng: torch.Generator
) -> None:
    plain = nn.Conv2d(64, 128, kernel, stride=2, padding=padding, bias=False)
    ours = StridedConvolution(nn.Conv2d(64, 128, kernel, stride=2, padding=padding, bias=False))
    ours.load_state_dict(plain.state_dict())
    ours = ours.to(kind, memory_format=torch.channels_last)
    maps = torch.rand(8, 64, height, width, generator=rng).to(kind)
    rounded = nn.Conv2d(64, 128, kernel, stride=2, padding=padding, bias=False)
    rounded.load_state_dict({"weight": ours.weight.float()})
    ends = []
    for convolution, given in ((rounded, maps.float()), (ours, maps.contiguous(memory_format=torch.channels_last))):
        given.requires_grad_()
        seen = convolution(given)
        seen.float().square().sum().backward()
        assert given.grad is not None
        assert convolution.weight.grad is not None
        ends.append((seen.detach().float(), given.grad.float(), convolution.weight.grad.float()))
    for expected, found in zip(*ends, strict=True):
        assert found.shape == expected.shape
        close = 1e-5 if kind == torch.float32 else 3e-2
        assert (found - expected).abs().max() <= close * expected.abs().max()


def test_backbones_hold_them_under_the_same_names() -> None:
    network, _ = build_backbone("resnet18", last_stride=1)
    strided = [name for name, module in network.named_modules() if isinstance(module, StridedConvolution)]
    assert strided == ["conv1", "layer2.0.conv1", "layer3.0.conv1"]
    assert network.state_dict()["layer3.0.conv1.weight"].shape == (256, 128, 3, 3)
