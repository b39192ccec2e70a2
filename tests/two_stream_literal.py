"""The released two-stream network and AGW, written down once more from their published layout, step by step.

Plain and slow on purpose: whole ResNets where a stem is enough, visible pictures first, affinities of all places with
all places. Module names are those of released checkpoints.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Bottleneck(nn.Module):
    def __init__(self, into: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(into, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = None
        if stride != 1 or into != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(into, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        y = self.bn3(self.conv3(y))
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class ResNet50(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        into = 64
        for stage, (width, blocks, stride) in enumerate([(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 1)], start=1):
            layers = []
            for block in range(blocks):
                layers.append(Bottleneck(into, width, stride if block == 0 else 1))
                into = 4 * width
            self.add_module(f"layer{stage}", nn.Sequential(*layers))

    def stem(self, x: Tensor) -> Tensor:
        return functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)


class NonLocal(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.g = nn.Sequential(nn.Conv2d(channels, 1, 1))
        self.W = nn.Sequential(nn.Conv2d(1, channels, 1), nn.BatchNorm2d(channels))
        self.theta = nn.Conv2d(channels, 1, 1)
        self.phi = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        rows = [part(x).flatten(2).transpose(1, 2) for part in (self.theta, self.phi, self.g)]  # (B, N, 1)
        affinity = rows[0] @ rows[1].transpose(1, 2) / rows[0].shape[1]
        y = (affinity @ rows[2]).transpose(1, 2).reshape(len(x), 1, *x.shape[2:])
        return self.W(y) + x


class Holder(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.add_module(name, ResNet50())


class Released(nn.Module):
    """Visible pictures, then infrared ones; ``agw`` adds non-local blocks and generalised-mean pooling."""

    def __init__(self, num_ids: int, *, agw: bool) -> None:
        super().__init__()
        self.agw = agw
        self.thermal_module = Holder("thermal")
        self.visible_module = Holder("visible")
        self.base_resnet = Holder("base")
        if agw:
            self.NL_2 = nn.ModuleList(NonLocal(512) for _ in range(2))
            self.NL_3 = nn.ModuleList(NonLocal(1024) for _ in range(3))
        self.bottleneck = nn.BatchNorm1d(2048)
        self.bottleneck.bias.requires_grad_(False)
        self.classifier = nn.Linear(2048, num_ids, bias=False)

    def forward(self, visible: Tensor, infrared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pooled features, features behind the neck, class scores."""
        maps = []
        if len(visible):
            maps.append(self.visible_module.visible.stem(visible))
        if len(infrared):
            maps.append(self.thermal_module.thermal.stem(infrared))
        x = torch.cat(maps)
        base = self.base_resnet.base
        x = base.layer1(x)
        for number, block in enumerate(base.layer2):
            x = block(x)
            if self.agw and number in (2, 3):
                x = self.NL_2[number - 2](x)
        for number, block in enumerate(base.layer3):
            x = block(x)
            if self.agw and number in (3, 4, 5):
                x = self.NL_3[number - 3](x)
        x = base.layer4(x)
        pooled = (x.flatten(2).pow(3).mean(2) + 1e-12).pow(1 / 3) if self.agw else x.flatten(2).mean(2)
        normed = self.bottleneck(pooled)
        return pooled, normed, self.classifier(normed)


def leave_out_what_is_never_used(network: nn.Module) -> None:
    """The stages of both stems' networks, which a release carries along: two thirds of all weights."""
    for whole in (network.visible_module.visible, network.thermal_module.thermal):
        for stage in range(1, 5):
            setattr(whole, f"layer{stage}", nn.Identity())


def normalise_pictures(images: Tensor) -> Tensor:
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    return (images - mean) / deviation


def distances_of(features: Tensor) -> Tensor:
    squared = features.square().sum(1)
    return (squared[:, None] + squared[None, :] - 2 * features @ features.T).clamp(min=1e-12).sqrt()


def hard_triplet(features: Tensor, labels: Tensor, margin: float = 0.3) -> Tensor:
    distances, terms = distances_of(features), []
    for i, label in enumerate(labels):
        same = labels == label
        terms.append((distances[i][same].max() - distances[i][~same].min() + margin).clamp(min=0))
    return torch.stack(terms).mean()


def weighted_triplet(features: Tensor, labels: Tensor) -> Tensor:
    distances, terms = distances_of(features), []
    for i, label in enumerate(labels):
        mine = (labels == label).to(features.dtype)
        sums = []
        for values, mask in ((distances[i], mine), (-distances[i], 1 - mine)):
            masked = values * mask
            weights = (masked - masked.max()).exp() * mask
            sums.append((weights / (weights.sum() + 1e-6) * distances[i]).sum())
        terms.append((1 + (sums[0] - sums[1]).exp()).log())
    return torch.stack(terms).mean()
