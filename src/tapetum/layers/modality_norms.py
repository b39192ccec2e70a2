"""Batch norms that exist once for each modality, in networks that call their norms with maps and nothing else.

What a forward pass shows is told to all norms at once, by `showing`; each thread tells its own.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class _Pass:
    modalities: Tensor
    visible: int


_SHOWN: ContextVar[_Pass] = ContextVar("modalities of a forward pass")


@contextmanager
def showing(modalities: Tensor, visible: int) -> Iterator[None]:
    """Tell the norms of a forward pass which modality each picture is of.

    Args:
        modalities: (B,) int64.
        visible: how many pictures at the beginning of the batch are visible, all others being infrared. In training
            batches stand in this order; in evaluation it does not count.
    """
    token = _SHOWN.set(_Pass(modalities, visible))
    try:
        yield
    finally:
        _SHOWN.reset(token)


class SplitNorm(nn.Module):
    """A batch norm for each modality in the place of one, and the activation that timm's one had.

    In training each norm takes its statistics over the pictures of its modality. In evaluation, each picture's channels
    are multiplied and shifted by what its modality's norm says.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.visible, self.infrared = copy_norm(norm), copy_norm(norm)
        after = [getattr(norm, part) for part in ("drop", "act") if hasattr(norm, part)]
        self.after = nn.Sequential(*after) if after else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) of the same."""
        normed: Tensor = self.after(self.norm_apart(maps))
        return normed

    def norm_apart(self, maps: Tensor) -> Tensor:
        """The maps before the activation."""
        shown, norms = _SHOWN.get(), (self.visible, self.infrared)
        if not self.visible.training:
            return _norm_each(norms, maps, shown.modalities)
        parts = zip(norms, torch.split(maps, [shown.visible, len(maps) - shown.visible]), strict=True)
        normed = [norm(part) for norm, part in parts if len(part)]
        return normed[0] if len(normed) == 1 else torch.cat(normed)


class MixedNorm(SplitNorm):
    """sigmoid(balance) of a norm of both modalities, and what is left of a norm of each; the balance is learned."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__(norm)
        self.shared = copy_norm(norm)
        self.balance = nn.Parameter(torch.zeros(()))

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) of the same."""
        apart, shared = self.norm_apart(maps), self.shared(maps)
        mixed: Tensor = self.after(torch.lerp(apart, shared, self.balance.sigmoid().to(apart.dtype)))
        return mixed


def copy_norm(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """A plain norm of the same size and settings, as it is made."""
    return nn.BatchNorm2d(norm.num_features, eps=norm.eps, momentum=norm.momentum)


def _norm_each(norms: Sequence[nn.BatchNorm2d], maps: Tensor, modalities: Tensor) -> Tensor:
    scales = [norm.weight * (cast(Tensor, norm.running_var) + norm.eps).rsqrt() for norm in norms]
    shifts = [norm.bias - cast(Tensor, norm.running_mean) * scale for norm, scale in zip(norms, scales, strict=True)]
    scale, shift = (torch.stack(each)[modalities][:, :, None, None] for each in (scales, shifts))
    return (maps * scale + shift).to(maps.dtype)
