"""The classifier head of IDE+ and IDF: reduce, normalise, drop, classify."""

import torch
from torch import Tensor, nn

from tapetum.layers.branch import HeadOutput


class ClassBlock(nn.Module):
    """Linear, batch norm, dropout, linear; no activation between. The embedding is taken after the batch norm.

    Computed in float32 also under autocast: batch statistics and class scores are cheap here and sensitive.

    Args:
        width: of the feature.
        num_ids: number of classes.
        embedding_width: of the embedding.
        dropout: probability of dropping an element of the embedding in training.
        classifier_std: deviation of the classifier's initial weights.
    Source: IDF release, class "ClassBlock" (shared with the IDE+ baseline).
    """

    def __init__(
        self,
        width: int,
        num_ids: int,
        *,
        embedding_width: int = 512,
        dropout: float = 0.5,
        classifier_std: float = 0.001,
    ) -> None:
        super().__init__()
        self.reduce = nn.Linear(width, embedding_width)
        self.norm = nn.BatchNorm1d(embedding_width)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(embedding_width, num_ids)
        nn.init.kaiming_normal_(self.reduce.weight, a=0, mode="fan_out")
        nn.init.zeros_(self.reduce.bias)
        nn.init.normal_(self.norm.weight, mean=1.0, std=0.02)
        nn.init.zeros_(self.norm.bias)
        nn.init.normal_(self.classifier.weight, std=classifier_std)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, feature: Tensor) -> HeadOutput:
        """Embedding (after the batch norm) and class scores.

        Args:
            feature: (B, width).
        """
        with torch.autocast(feature.device.type, enabled=False):
            feature = feature.float()
            embedding: Tensor = self.norm(self.reduce(feature))
            return HeadOutput(feature, embedding, self.classifier(self.dropout(embedding)))
