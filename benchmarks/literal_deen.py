"""DEEN as its released code computes it, in its own operations and order: what benchmark and tests compare with.

Parameter names are those of the released checkpoints, so that both networks compute with equal weights. Everything is
formed as it is there: three whole ResNets of which most is never used, pixel-by-pixel affinities, one convolution after
the other, identities of the batch one by one, the inner products of the expansions as small Gram matrices.

Source: ZYK100/LLCM, DEEN.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet50

MARGIN_CPM = 0.2
WEIGHT_CPM = 0.8
WEIGHT_ORTHOGONALITY = 0.01


class Stem(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        network = resnet50()
        network.fc = nn.Identity()
        self.add_module(name, network)
        self.network_name = name

    def forward(self, images: Tensor) -> Tensor:
        network = getattr(self, self.network_name)
        return network.maxpool(network.relu(network.bn1(network.conv1(images))))


class Trunk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.base = resnet50()
        self.base.fc = nn.Identity()
        for convolution in (self.base.layer4[0].conv2, self.base.layer4[0].downsample[0]):
            convolution.stride = (1, 1)


def zeroed_norm(width: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(width)
    nn.init.zeros_(norm.weight)
    return norm


class ChannelNonLocal(nn.Module):
    def __init__(self, high: int, low: int, flag: int) -> None:
        super().__init__()
        stride = 2 if flag else 1
        self.low = low
        self.g = nn.Conv2d(low, low, 1)
        self.theta = nn.Conv2d(high, low, 1)
        self.phi = nn.Conv2d(low, low, 1, stride=stride)
        self.W = nn.Sequential(nn.Conv2d(low, high, 1, stride=stride), zeroed_norm(high))

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        batch = len(high)
        values = self.g(low).view(batch, self.low, -1)
        theta = self.theta(high).view(batch, self.low, -1)
        phi = self.phi(low).view(batch, self.low, -1).permute(0, 2, 1)
        energy = torch.matmul(theta, phi)
        attention = energy / energy.size(-1)
        mixed = torch.matmul(attention, values).view(batch, self.low, *low.shape[2:])
        return self.W(mixed) + high


class PositionNonLocal(nn.Module):
    def __init__(self, high: int, low: int) -> None:
        super().__init__()
        inner = low // 2
        self.low, self.inner = low, inner
        self.g = nn.Conv2d(low, inner, 1)
        self.theta = nn.Conv2d(high, inner, 1)
        self.phi = nn.Conv2d(low, inner, 1)
        self.W = nn.Sequential(nn.Conv2d(inner, high, 1), zeroed_norm(high))

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        batch = len(high)
        values = self.g(low).view(batch, self.low, -1).permute(0, 2, 1)
        theta = self.theta(high).view(batch, self.low, -1).permute(0, 2, 1)
        phi = self.phi(low).view(batch, self.low, -1)
        energy = torch.matmul(theta, phi)
        attention = energy / energy.size(-1)
        mixed = torch.matmul(attention, values).permute(0, 2, 1).contiguous()
        return self.W(mixed.view(batch, self.inner, *high.shape[2:])) + high


class Aggregation(nn.Module):
    def __init__(self, high: int, low: int, flag: int) -> None:
        super().__init__()
        self.CNL = ChannelNonLocal(high, low, flag)
        self.PNL = PositionNonLocal(high, low)

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        return self.PNL(self.CNL(high, low), low)


class Expansion(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        for branch in "12":
            for dilation in (1, 2, 3):
                convolution = nn.Conv2d(width, width // 4, 3, padding=dilation, dilation=dilation, bias=False)
                self.add_module(f"FC{branch}{dilation}", convolution)
            self.add_module(f"FC{branch}", nn.Conv2d(width // 4, width, 1))
        self.dropout = nn.Dropout(0.01)

    def forward(self, maps: Tensor) -> Tensor:
        first = self.FC1(functional.relu((self.FC11(maps) + self.FC12(maps) + self.FC13(maps)) / 3))
        second = self.FC2(functional.relu((self.FC21(maps) + self.FC22(maps) + self.FC23(maps)) / 3))
        return self.dropout(torch.cat((maps, first, second)))


class LiteralDEEN(nn.Module):
    """Visible pictures come first, then infrared ones of the same people.

    Args:
        expand_after: 3 for SYSU-MM01 and LLCM; 2 for RegDB, whose network has no fourth stage.
    """

    def __init__(self, num_ids: int, expand_after: int = 3) -> None:
        super().__init__()
        self.regdb = expand_after == 2
        self.thermal_module = Stem("thermal")
        self.visible_module = Stem("visible")
        self.base_resnet = Trunk()
        self.DEE = Expansion(512 if self.regdb else 1024)
        self.MFA1 = Aggregation(256, 64, 0)
        self.MFA2 = Aggregation(512, 256, 1)
        if not self.regdb:
            self.MFA3 = Aggregation(1024, 512, 1)
        width = 1024 if self.regdb else 2048
        self.bottleneck = nn.BatchNorm1d(width)
        self.bottleneck.bias.requires_grad_(False)
        self.classifier = nn.Linear(width, num_ids, bias=False)

    def describe(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        base = self.base_resnet.base
        first = self.MFA1(base.layer1(maps), maps)
        second = self.MFA2(base.layer2(first), first)
        if self.regdb:
            last = base.layer3(self.DEE(second))
        else:
            third = self.MFA3(base.layer3(second), second)
            last = base.layer4(self.DEE(third))
        pooled = functional.adaptive_avg_pool2d(last, 1).flatten(1)
        return pooled, self.bottleneck(pooled)

    def forward(self, visible: Tensor, infrared: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors before and behind the norm and class scores, as they are and of both expansions: 3B rows each."""
        pooled, normed = self.describe(torch.cat((self.visible_module(visible), self.thermal_module(infrared))))
        if pooled.dtype == torch.bfloat16:
            pooled, normed = pooled.float(), normed.float()
        return pooled, normed, self.classifier(normed)

    def losses(self, pooled: Tensor, scores: Tensor, labels: Tensor, people: int) -> dict[str, Tensor]:
        """The weighted terms; `labels` of the visible pictures, whose order the infrared ones share."""
        tripled = labels.repeat(6)
        groups = pooled.chunk(6)
        margins = [centre_margin(*groups[:2], *groups[plus : plus + 2], people) for plus in (2, 4)]
        return {
            "id": functional.cross_entropy(scores, tripled),
            "triplet": hard_triplet(pooled, tripled),
            "cpm": WEIGHT_CPM * (margins[0] + margins[1]),
            "orthogonality": WEIGHT_ORTHOGONALITY * orthogonality(pooled),
        }

    def loss(self, visible: Tensor, infrared: Tensor, labels: Tensor, people: int) -> Tensor:
        """The training loss, see `losses`."""
        pooled, _, scores = self(visible, infrared)
        return torch.stack(list(self.losses(pooled, scores, labels, people).values())).sum()

    @torch.no_grad()
    def embed(self, images: Tensor, *, infrared: bool) -> Tensor:
        """The six vectors of each picture side by side, those of the mirror added: (B, 12288)."""
        stem = self.thermal_module if infrared else self.visible_module
        total = 0
        for view in (images, images.flip(3)):
            pooled, normed = self.describe(stem(view))
            parts = [*functional.normalize(pooled).chunk(3), *functional.normalize(normed).chunk(3)]
            total = total + torch.cat(parts, 1)
        return total


def distances_of(a: Tensor, b: Tensor) -> Tensor:
    squares = a.square().sum(1, keepdim=True) + b.square().sum(1, keepdim=True).t() - 2 * a @ b.t()
    return squares.clamp(min=1e-12).sqrt()


def hard_triplet(features: Tensor, labels: Tensor) -> Tensor:
    distances = distances_of(features, features)
    same = labels[:, None] == labels[None]
    farthest = [distances[row][same[row]].max() for row in range(len(features))]
    nearest = [distances[row][~same[row]].min() for row in range(len(features))]
    return torch.stack([functional.relu(d + 0.3 - n) for d, n in zip(farthest, nearest, strict=True)]).mean()


def centre_margin(
    visible: Tensor, infrared: Tensor, visible_plus: Tensor, infrared_plus: Tensor, people: int
) -> Tensor:
    def centres(group: Tensor) -> Tensor:
        return torch.stack([chunk.mean(0) for chunk in group.chunk(people)])

    def side(own: Tensor, other: Tensor, plus: Tensor) -> Tensor:
        far, near = distances_of(other, plus), distances_of(own, plus)
        among_plus, among_own = distances_of(plus, plus), distances_of(own, own)
        terms = []
        for j in range(people):
            others = [k for k in range(people) if k != j]
            terms.append(
                functional.relu(far[j, j] - near[j, j].detach() + MARGIN_CPM)
                + functional.relu(far[j, j] - among_plus[j, others].min() + MARGIN_CPM) / 2
                + functional.relu(far[j, j] - among_own[j, others].min() + MARGIN_CPM) / 2
            )
        return torch.stack(terms).mean()

    c_v, c_n, c_vp, c_np = (centres(group) for group in (visible, infrared, visible_plus, infrared_plus))
    return (side(c_v, c_n, c_vp) + side(c_n, c_v, c_np)) / 2


def orthogonality(pooled: Tensor) -> Tensor:
    _, first, second = pooled.chunk(3)
    pairs = torch.stack((first, second), dim=1)
    return torch.triu(torch.bmm(pairs, pairs.permute(0, 2, 1)), diagonal=1).sum() / len(pooled)
