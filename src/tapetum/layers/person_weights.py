"""Files of vision transformers that learned from unlabelled pictures of people: whose they are, under our names.

Their trainings follow DINO and leave a teacher: tensors called "backbone.", and "head." those of its projection.
Source: the releases of TransReID-SSL (damo-cv/TransReID-SSL), PASS (CASIA-IVA-Lab/PASS-reID) and SOLIDER
(tinyvision/SOLIDER). The layouts are from their code; no file of theirs was at hand.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from tapetum.core.errors import CheckpointError

WRAPPER, BACKBONE = "module.", "backbone."
PARTS = (1, 2, 3)  # of PASS: tokens beside the class token, each with a position of its own
SWIN_TABLE = "relative_position_bias_table"
STEM = "patch_embed.conv."


def settle_person_weights(state: Mapping[str, Tensor], place: str, *, stem: bool) -> dict[str, Tensor]:
    """A file's tensors as a plain vision transformer has them; those of any other file stay as they are.

    Names lose "module." and "backbone.", and a projection beside the backbone is left out. Of PASS the tokens of parts
    are left out, and the class token's position stands before those of the patches.

    Args:
        stem: whether the network begins with convolutions (TransReID-SSL's "ICS").
    Raises:
        CheckpointError: it is a Swin transformer (SOLIDER's), which no backbone here is; or it begins with convolutions
            where the network does not, or the other way round.
    """
    named = {name.removeprefix(WRAPPER): tensor for name, tensor in state.items()}
    if any(name.startswith(BACKBONE) for name in named):
        named = {name.removeprefix(BACKBONE): tensor for name, tensor in named.items() if name.startswith(BACKBONE)}
    if any(name.endswith(SWIN_TABLE) for name in named):
        raise CheckpointError(
            f"{place}: is a Swin transformer, as SOLIDER's are, which merges patches from stage to stage and has no "
            "class token; no backbone here is one; supply a plain vision transformer, e.g. TransReID-SSL's or PASS's"
        )
    begins = any(name.startswith(STEM) for name in named)
    if begins != stem:
        told, remedy = ("begins with convolutions", "ics") if begins else ("begins with no convolutions", "patches")
        raise CheckpointError(
            f"{place}: {told}, this network otherwise; take method transreid with stem: {remedy}, or another file"
        )
    if {"cls_pos", "pos_embed"} <= named.keys():
        named["pos_embed"] = torch.cat((named.pop("cls_pos"), named["pos_embed"]), 1)
        for part in PARTS:
            named.pop(f"part_token{part}", None)
            named.pop(f"part{part}_pos", None)
    return named
