"""Embedding expansion: every map turns into three that show the same person differently (DEE of DEEN, CVPR 2023)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.errors import RecipeError
from tapetum.layers.winograd import convolve

DILATIONS = (1, 2, 3)
REDUCTION = 4  # of the channels inside a branch


class ExpansionBranch(nn.Module):
    """The weights of one branch: dilated 3x3 convolutions side by side, and the 1x1 convolution behind their mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = width // REDUCTION
        self.dilated = nn.ModuleList(
            nn.Conv2d(width, inner, 3, padding=dilation, dilation=dilation, bias=False) for dilation in DILATIONS
        )
        self.out = nn.Conv2d(inner, width, 1)
        for convolution in (*self.dilated, self.out):
            nn.init.kaiming_normal_(convolution.weight)


class Expansion(nn.Module):
    """Triples the batch: the maps as they are, then those of each branch; dropout over all of them.

    Args:
        width: channels, a multiple of 4.
        dropout: probability that an element of any of the maps, the original's too, is dropped in training.
        branches: embeddings made beside the original.
        shortcut: what a branch makes is added to the map and begins as nothing, so that all begin as the original:
            stages behind that come with weights keep what they know. Ours; the release has none.
    Raises:
        RecipeError: the channels cannot be divided by 4.
    Source: DEEN release, class "DEE_module".
    """

    def __init__(self, width: int, *, dropout: float = 0.01, branches: int = 2, shortcut: bool = False) -> None:
        super().__init__()
        if width % REDUCTION:
            raise RecipeError(f"expansion of {width} channels: not a multiple of {REDUCTION}; choose another backbone")
        self.branches = nn.ModuleList(ExpansionBranch(width) for _ in range(branches))
        self.shortcut = shortcut
        if shortcut:
            for branch in self.branches:
                nn.init.zeros_(branch.get_parameter("out.weight"))
                nn.init.zeros_(branch.get_parameter("out.bias"))
        self.dropout = nn.Dropout(dropout)

    def forward(self, maps: Tensor) -> Tensor:
        """The expanded batch, ((1 + branches) B, C, H, W): all originals, all of branch 1, all of branch 2."""
        expanded: Tensor = self.dropout(self.expand(maps))
        return expanded

    def expand(self, maps: Tensor) -> Tensor:
        """The same before the dropout."""
        # A dilation's convolutions of all branches read the same maps: one convolution with their filters stacked.
        first, second, third = (
            convolve(maps, self._filters(number), dilation=dilation) for number, dilation in enumerate(DILATIONS)
        )
        hidden = functional.relu((first + second + third) / len(DILATIONS)).chunk(len(self.branches), 1)
        made = [branch.get_submodule("out")(part) for branch, part in zip(self.branches, hidden, strict=True)]
        original = maps.to(made[0].dtype)
        return torch.cat([original, *(original + each if self.shortcut else each for each in made)])

    def _filters(self, number: int) -> Tensor:
        convolutions = (branch.get_submodule(f"dilated.{number}") for branch in self.branches)
        return torch.cat([convolution.get_parameter("weight") for convolution in convolutions])
