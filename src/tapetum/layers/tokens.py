"""Vision transformers as backbones: a picture becomes one token for each patch, behind a class token and registers.

Their tensors carry timm's names, which are also those of the weights files that the published methods start from.
"""

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.errors import CheckpointError, RecipeError
from tapetum.layers.products import use_fast_products

PREFIXES = ("cls_token", "dist_token", "reg_token")  # that stand before the patches, in this order
POSITIONS_STD = 0.02
Stem = Literal["patches", "ics"]
STEM_WIDTH, STEM_STRIDE = 64, 2


class HalfInstanceNorm(nn.Module):
    """An instance norm of the first half of the channels, a batch norm of the others."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.IN = nn.InstanceNorm2d(width // 2, affine=True)
        self.BN = nn.BatchNorm2d(width - width // 2)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, width, h, w)."""
        half = self.IN.num_features
        return torch.cat((self.IN(maps[:, :half].contiguous()), self.BN(maps[:, half:].contiguous())), 1)


def build_stem() -> nn.Sequential:
    """Three convolutions before the patches, at half the pictures' resolution: TransReID-SSL's "ICS"."""
    layers: list[nn.Module] = []
    for width, kernel, stride, norm in (
        (3, 7, STEM_STRIDE, HalfInstanceNorm),
        (STEM_WIDTH, 3, 1, HalfInstanceNorm),
        (STEM_WIDTH, 3, 1, nn.BatchNorm2d),
    ):
        convolution = nn.Conv2d(width, STEM_WIDTH, kernel, stride=stride, padding=kernel // 2, bias=False)
        layers += [convolution, norm(STEM_WIDTH), nn.ReLU()]
    return nn.Sequential(*layers)


class TokenBackbone(nn.Module):
    """A plain vision transformer for pictures of one size, whose patches may overlap.

    Attributes:
        grid: rows and columns of patches.
        stem: what patches are cut from.
        num_prefix: tokens before those of the patches; the class token is the first, where there is one.
        blocks: to be called through `run_blocks` by a method that branches off between them.
        norm: behind the last block.

    Args:
        network: of timm, built for pictures of this size; its parts are taken over.
        patch_stride: pixels from one patch to the next; None is a patch's own side, without overlap.
        stem: what patches are cut from: the pictures, or with "ics" three convolutions of them (see `build_stem`).
    Raises:
        RecipeError: the patches do not fit the pictures, or they overlap behind a stem.
    """

    pos_embed: nn.Parameter | None

    def __init__(
        self,
        network: Any,
        name: str,
        size: tuple[int, int],
        *,
        patch_stride: int | None = None,
        stem: Stem = "patches",
    ) -> None:
        super().__init__()
        self.name, self.size, self.stem = name, size, stem
        self.patch_embed = network.patch_embed
        projection = network.patch_embed.proj
        if patch_stride is not None:
            projection.stride = (patch_stride, patch_stride)
        self.grid = patch_grid(name, size, projection.kernel_size, patch_stride)
        self.patch_embed.conv = nn.Identity() if stem == "patches" else build_stem()
        if stem == "ics":
            side = projection.kernel_size[0]
            if projection.stride[0] != side:
                raise RecipeError(
                    f"backbone {name}: behind the stem ics patches do not overlap, but patch_stride is {patch_stride}; "
                    f"set it to null or {side}"
                )
            side //= STEM_STRIDE
            self.patch_embed.proj = nn.Conv2d(STEM_WIDTH, projection.out_channels, side, stride=side)
        for prefix in PREFIXES:
            self.register_parameter(prefix, getattr(network, prefix, None))
        present = [token for token in map(self._parameters.get, PREFIXES) if token is not None]
        self.num_prefix = sum(token.shape[1] for token in present)
        # Newer networks give positions to patches alone.
        self.num_placed = 0 if network.no_embed_class else self.num_prefix
        positions = network.pos_embed
        if positions is not None and positions.shape[1] != self.num_placed + self.num_patches:
            positions = nn.Parameter(positions.new_empty(1, self.num_placed + self.num_patches, positions.shape[2]))
            nn.init.trunc_normal_(positions, std=POSITIONS_STD)
        self.register_parameter("pos_embed", positions)
        self.pos_drop = network.pos_drop
        self.norm_pre = network.norm_pre
        self.rope = getattr(network, "rope", None)
        if self.rope is not None and self.rope.feat_shape is not None:
            self.rope.update_feat_shape(list(self.grid))
        self.is_mixed = bool(getattr(network, "rope_mixed", False))  # a rotation of its own for each block
        self.blocks = nn.ModuleList(network.blocks)
        use_fast_products(self.blocks)
        # Where the published network averages its tokens, it normalises behind the average; tokens want it before.
        self.norm, self.fc_norm = network.norm, network.fc_norm

    @property
    def num_patches(self) -> int:
        """Tokens of patches."""
        return self.grid[0] * self.grid[1]

    @property
    def width(self) -> int:
        """Channels of a token."""
        return int(self.patch_embed.proj.out_channels)

    def embed(self, images: Tensor) -> Tensor:
        """The tokens before the first block, (B, num_prefix + h w, width), of normalised pictures.

        Raises:
            RecipeError: the pictures are of another size than the position embeddings are for.
        """
        if images.shape[2:] != self.size:
            height, width = images.shape[2:]
            raise RecipeError(
                f"backbone {self.name}: was built for pictures of {self.size[0]} x {self.size[1]}, got {height} x "
                f"{width}; set data.size: [{self.size[0]}, {self.size[1]}]"
            )
        maps = self.patch_embed.proj(self.patch_embed.conv(images))
        patches = self.patch_embed.norm(maps.flatten(2).transpose(1, 2))
        if self.pos_embed is not None and not self.num_placed:
            patches = patches + self.pos_embed
        present = [token for token in map(self._parameters.get, PREFIXES) if token is not None]
        tokens = torch.cat([*(token.expand(patches.shape[0], -1, -1) for token in present), patches], 1)
        if self.pos_embed is not None and self.num_placed:
            tokens = tokens + self.pos_embed
        entered: Tensor = self.norm_pre(self.pos_drop(tokens))
        return entered

    def run_blocks(self, tokens: Tensor, blocks: Iterable[nn.Module], *, first: int = 0) -> Tensor:
        """Tokens behind some blocks, which are this network's from the number `first` on, or copies of them."""
        if self.rope is None:
            for block in blocks:
                tokens = block(tokens)
            return tokens
        rope: Any = self.rope
        rotations = rope.get_embed() if rope.feat_shape is not None else rope.get_embed(shape=list(self.grid))
        for number, block in enumerate(blocks, start=first):
            tokens = block(tokens, rope=rotations[number] if self.is_mixed else rotations)
        return tokens

    def forward(self, images: Tensor) -> Tensor:
        """Tokens behind all blocks and the norm, (B, num_prefix + h w, width)."""
        tokens: Tensor = self.fc_norm(self.norm(self.run_blocks(self.embed(images), self.blocks)))
        return tokens

    def fit_positions(self, positions: Tensor, place: str) -> Tensor:
        """Position embeddings that were trained for a square grid, or one twice as high as wide, for this network's.

        Args:
            positions: (1, placed tokens + places, width), or already of this network's shape.
        Raises:
            CheckpointError: they are of another form.
        """
        if self.pos_embed is None or positions.shape == self.pos_embed.shape:
            return positions
        number = positions.shape[1] - self.num_placed if positions.ndim == 3 else 0
        if told_grid(number) is None or positions.shape[2] != self.width:
            raise CheckpointError(
                f"{place}: tensor 'pos_embed' is {tuple(positions.shape)}, no square grid for tokens of {self.width} "
                f"channels behind {self.num_placed} others, nor one twice as high as wide; supply one of this network"
            )
        return resize_positions(positions, self.num_placed, self.grid)


def told_grid(number: int) -> tuple[int, int] | None:
    """Rows and columns that make a number of places: those of a square, or of pictures twice as high as wide."""
    for ratio in (1, 2):
        columns = math.isqrt(max(number, 0) // ratio)
        if columns and ratio * columns * columns == number:
            return ratio * columns, columns
    return None


def resize_positions(positions: Tensor, num_placed: int, grid: tuple[int, int]) -> Tensor:
    """Position embeddings of one grid for another; bilinear, without smoothing.

    Args:
        positions: (1, num_placed + places, C); of which grid the number of places tells, see `told_grid`.
        num_placed: tokens before those of patches; theirs stay as they are.
    Source: TransReID release, and TransReID-SSL's for grids that are not square.
    """
    before, places = positions[:, :num_placed], positions[:, num_placed:]
    told = told_grid(places.shape[1]) or (1, places.shape[1])
    maps = places.reshape(1, *told, -1).permute(0, 3, 1, 2)
    resized = functional.interpolate(maps.float(), grid, mode="bilinear", align_corners=False).to(maps.dtype)
    return torch.cat((before, resized.flatten(2).transpose(1, 2)), 1)


def patch_grid(name: str, size: tuple[int, int], patch: tuple[int, int], stride: int | None = None) -> tuple[int, int]:
    """Rows and columns of patches.

    Patches without overlap must fill the pictures; overlapping ones may leave less than a stride at the edges, as the
    published 256 x 128 with patches of 16 at a stride of 12 does.

    Args:
        stride: pixels from one patch to the next; None is a patch's side.
    Raises:
        RecipeError: the patches do not fit, or would leave out pixels between them.
    """
    if stride is not None and not 1 <= stride <= min(patch):
        raise RecipeError(
            f"backbone {name}: patch_stride {stride} is out of range for patches of {patch[0]} x {patch[1]}; use 1 to "
            f"{min(patch)}"
        )
    apart = stride in (None, patch[0])
    fits = all(have >= side and (not apart or have % side == 0) for have, side in zip(size, patch, strict=True))
    if not fits:
        lower = [max(side, have // side * side) for have, side in zip(size, patch, strict=True)]
        upper = [-(-have // side) * side for have, side in zip(size, patch, strict=True)]
        sizes = " or ".join(dict.fromkeys(map(str, (lower, upper))))
        raise RecipeError(
            f"backbone {name}: patches of {patch[0]} x {patch[1]} do not fit pictures of {size[0]} x {size[1]}; use "
            f"data.size {sizes}"
        )
    step = patch if stride is None else (stride, stride)
    rows, columns = ((have - side) // pace + 1 for have, side, pace in zip(size, patch, step, strict=True))
    return rows, columns
