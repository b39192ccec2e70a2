"""A classifier, and a guesser that tries to tell cameras from its features while the classifier hides them.

Source: none, it is made for tests.
Differs: from nothing.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from tapetum.core.method import Turn


@dataclass(frozen=True)
class Options:
    width: int = 6
    fresh: bool = False  # the guesser learns first, and the classifier hides from what it has become


@dataclass(frozen=True)
class Output:
    feature: torch.Tensor
    logits: torch.Tensor
    guess: torch.Tensor  # from the feature, whose gradients it sends on
    blind: torch.Tensor  # the same from a feature that learns nothing


class Method(nn.Module):
    def __init__(self, options, facts):
        super().__init__()
        self.options, self.facts, self.num_ids = options, facts, facts.num_ids
        self.reduce = nn.Linear(3 * 8 * 4, options.width)
        self.classifier = nn.Linear(options.width, facts.num_ids)
        self.guesser = nn.Linear(options.width, 2)

    def forward(self, images, modalities, camids):
        feature = self.reduce(functional.adaptive_avg_pool2d(images, (8, 4)).flatten(1)).tanh()
        return Output(feature, self.classifier(feature), self.guesser(feature), self.guesser(feature.detach()))

    def turns(self):
        return (
            Turn("guess", ("guesser",), self.guessing),
            Turn("hide", ("backbone", "head"), self.hiding, fresh=self.options.fresh),
        )

    def guessing(self, output, batch):
        return {"guess": functional.cross_entropy(output.blind, batch.camids % 2)}

    def hiding(self, output, batch):
        even = torch.full_like(output.guess, 0.5)
        return {
            "id": functional.cross_entropy(output.logits, batch.labels),
            "hide": functional.cross_entropy(output.guess, even),
        }

    def losses(self, output, batch):
        return self.guessing(output, batch) | self.hiding(output, batch)

    def embed(self, images, modalities, camids, *, mirror=False):
        return functional.normalize(self.forward(images, modalities, camids).feature.float())

    def parameter_groups(self):
        parts = {"backbone": self.reduce, "head": self.classifier, "guesser": self.guesser}
        return {name: list(part.parameters()) for name, part in parts.items()}

    def load_pretrained(self, source):
        pass
