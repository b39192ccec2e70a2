"""BNNeck: batch norm between the feature that metric losses see and the one that is classified and searched."""

import torch
from torch import Tensor, nn

from tapetum.layers.branch import HeadOutput


class BNNeck(nn.Module):
    """Batch norm whose bias stays zero, then a classifier without bias. The embedding is the normed feature.

    Computed in float32 (or better, as given) also under autocast.

    Source: "Bag of Tricks" strong baseline (Luo et al., 2019).
    """

    def __init__(self, width: int, num_ids: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)
        self.norm.bias.requires_grad_(False)
        self.classifier = nn.Linear(width, num_ids, bias=False)
        nn.init.normal_(self.classifier.weight, std=0.001)

    def forward(self, feature: Tensor) -> HeadOutput:
        """Embedding (after the neck) and class scores of (B, width) features."""
        with torch.autocast(feature.device.type, enabled=False):
            feature = feature.to(torch.promote_types(feature.dtype, torch.float32))
            embedding: Tensor = self.norm(feature)
            return HeadOutput(feature, embedding, self.classifier(embedding))


class Centres(nn.Module):
    """A centre for each class, from a standard normal distribution; they are trained apart from all other weights."""

    def __init__(self, num_ids: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_ids, width))


class CentredNeck(BNNeck):
    """A BNNeck with a centre for each class in the space before it."""

    def __init__(self, width: int, num_ids: int) -> None:
        super().__init__(width, num_ids)
        self.centres = Centres(num_ids, width)


def centres_of(network: nn.Module) -> list[nn.Parameter]:
    """All class centres of a network: the parameters of its group "centres"."""
    return [module.weight for module in network.modules() if isinstance(module, Centres)]
