"""DDAG and LbA written straight from the published equations, with no thought of speed: what a benchmark compares with.

Parameter names are those of the released checkpoints, so that both networks compute with equal weights. Everything is
formed as it is written down: three whole ResNets of which most is never used, every pair of nodes of the graph side by
side, one head after the other, one picture's correspondences after the other.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.literal_deen import Stem, Trunk, hard_triplet


class LiteralTwoStream(nn.Module):
    """What both share: two stems, a trunk, a neck and a classifier."""

    def __init__(self, num_ids: int) -> None:
        super().__init__()
        self.visible_module = Stem("visible")
        self.thermal_module = Stem("thermal")
        self.base_resnet = Trunk()
        self.bottleneck = nn.BatchNorm1d(2048)
        self.bottleneck.bias.requires_grad_(False)
        self.classifier = nn.Linear(2048, num_ids, bias=False)

    def climb(self, visible: Tensor, infrared: Tensor) -> tuple[Tensor, Tensor]:
        """The last two maps, of all visible pictures and then of all infrared ones."""
        base = self.base_resnet.base
        maps = torch.cat((self.visible_module(visible), self.thermal_module(infrared)))
        third = base.layer3(base.layer2(base.layer1(maps)))
        return third, base.layer4(third)


class PartAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.full((3,), 1 / 3))
        self.fc1 = nn.Sequential(nn.Conv2d(2048, 2048, 1))
        self.fc2 = nn.Conv2d(2048, 2048, 1)
        self.fc3 = nn.Conv2d(2048, 2048, 1)
        self.W = nn.Sequential(nn.Conv2d(2048, 2048, 1), nn.BatchNorm2d(2048))
        self.bottleneck = nn.BatchNorm1d(2048)
        self.bottleneck.bias.requires_grad_(False)

    def forward(self, maps: Tensor, embedding: Tensor) -> Tensor:
        parts = functional.adaptive_avg_pool2d(maps, (3, 1))
        query, key, value = (layer(parts).view(len(parts), 2048, 3) for layer in (self.fc1, self.fc2, self.fc3))
        attention = torch.bmm(query.permute(0, 2, 1), key).softmax(2)
        refined = torch.bmm(attention, value.permute(0, 2, 1))
        weights = self.gate.softmax(0)
        return self.bottleneck(sum(weights[p] * refined[:, p] for p in range(3)) + embedding)


class GraphHead(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.empty(width, out))
        self.a = nn.Parameter(torch.empty(2 * out, 1))

    def forward(self, nodes: Tensor, adjacency: Tensor, dropout: float) -> Tensor:
        hidden, count = nodes @ self.W, len(nodes)
        pairs = torch.cat((hidden.repeat_interleave(count, 0), hidden.repeat(count, 1)), 1).view(count, count, -1)
        scores = functional.leaky_relu((pairs @ self.a).squeeze(2), 0.2)
        attention = torch.where(adjacency, scores, torch.full_like(scores, -9e15)).softmax(1)
        return functional.elu(functional.dropout(attention, dropout) @ hidden)


class LiteralDDAG(LiteralTwoStream):
    def __init__(self, num_ids: int) -> None:
        super().__init__(num_ids)
        self.classifier1 = nn.Linear(2048, num_ids, bias=False)
        self.classifier2 = nn.Linear(2048, num_ids, bias=False)
        self.wpa = PartAttention()
        for number in range(4):
            self.add_module(f"attention_{number}", GraphHead(2048, 512))
        self.out_att = GraphHead(4 * 512, num_ids)

    def loss(self, visible: Tensor, infrared: Tensor, labels: Tensor, weight: float, dropout: float) -> Tensor:
        """The training loss; `labels` of the visible pictures, whose order the infrared ones share."""
        _, maps = self.climb(visible, infrared)
        labels = labels.repeat(2)
        pooled = functional.adaptive_avg_pool2d(maps, 1).flatten(1)
        embedding = self.bottleneck(pooled)
        attended = self.wpa(maps, embedding)
        told = self.graph(pooled, labels, dropout)
        total = functional.cross_entropy(self.classifier(embedding), labels) + hard_triplet(pooled, labels)
        total = total + functional.cross_entropy(self.classifier(attended), labels)
        return total + weight * functional.nll_loss(told, labels)

    def graph(self, pooled: Tensor, labels: Tensor, dropout: float) -> Tensor:
        """Log-probabilities of what the graph says of each picture."""
        adjacency = torch.tensor([[int(a) == int(b) for b in labels] for a in labels])
        nodes = functional.dropout(pooled, dropout)
        heads = [getattr(self, f"attention_{number}")(nodes, adjacency, dropout) for number in range(4)]
        nodes = functional.dropout(torch.cat(heads, 1), dropout)
        return functional.log_softmax(self.out_att(nodes, adjacency, dropout), 1)


class LiteralLbA(LiteralTwoStream):
    def pool(self, maps: Tensor) -> Tensor:
        return (maps.pow(3).mean((2, 3)) + 1e-12).pow(1 / 3)

    def loss(
        self, visible: Tensor, infrared: Tensor, labels: Tensor, partners: tuple[tuple[Tensor, Tensor], ...]
    ) -> Tensor:
        """The training loss.

        Args:
            partners: for both stages each picture's positive and negative partner, visible pictures first.
        """
        third, maps = self.climb(visible, infrared)
        labels = labels.repeat(2)
        pooled = self.pool(maps)
        total = functional.cross_entropy(self.classifier(self.bottleneck(pooled)), labels)
        total = total + hard_triplet(pooled, labels)
        for number, stage in enumerate((third, maps)):
            rebuilt, dense = align(stage, *partners[number])
            if number == 0:
                rebuilt = self.base_resnet.base.layer4(rebuilt)
            scores = self.classifier(self.bottleneck(self.pool(rebuilt)))
            total = total + functional.cross_entropy(scores, labels) + 0.5 * dense
        return total


def align(maps: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    """Maps built again from the positive partner, and the dense triplets; one picture after the other."""
    masks = [stretch(each.norm(dim=0).detach()) for each in maps]  # (h, w) each
    rebuilt, losses = [], []
    for n in range(len(maps)):
        made = []
        for partner in (int(positive[n]), int(negative[n])):
            query = functional.normalize(maps[n].flatten(1), dim=0)
            key = functional.normalize(maps[partner].flatten(1), dim=0)
            match = (50 * query.t() @ key).softmax(1)
            warped = (match @ maps[partner].flatten(1).t()).t().reshape(maps[n].shape)
            made.append(masks[n] * warped + (1 - masks[n]) * maps[n])
            if not len(made) - 1:
                seen = (match.detach() @ masks[partner].flatten()).reshape(masks[n].shape)
                shown = stretch(masks[n] * seen)
        near, far = ((maps[n] - each + 1e-6).square().sum(0).sqrt() for each in made)
        losses.append((shown * functional.relu(near - far + 0.3)).mean())
        rebuilt.append(made[0])
    return torch.stack(rebuilt), torch.stack(losses).mean()


def stretch(values: Tensor) -> Tensor:
    values = values - values.min()
    return values / (values.max() + 1e-12)
