"""Checkpoints between our layout and those of released code."""

import io
from pathlib import Path

import torch

from tapetum.core.atomic import make_folder, write_bytes
from tapetum.core.errors import CheckpointError
from tapetum.engine.checkpoint import Header, fill, load_checkpoint, save_checkpoint
from tapetum.engine.recipe import check_recipe, load_recipe
from tapetum.layers.weights import read_state
from tapetum.methods import build_method, convert_from, convert_to, official_formats

RECIPES = {
    "idf-official": "idf_official",
    "ide-official": "ide_night600",
    "agw-vi-official": "agw_sysu",
    "deen-official": "deen_llcm",
}  # under which a layout's weights were trained
RECIPES_BY_IDS = {
    ("agw-vi-official", 206): "agw_regdb",
    ("agw-vi-official", 713): "agw_llcm",
    ("deen-official", 206): "deen_regdb",
    ("deen-official", 395): "deen_sysu",
}  # where the number of identities tells the data set
NO_SCORES = {"cmc": torch.zeros(20), "mAP": 0.0, "mINP": 0.0}  # what releases keep beside a network, and print


def import_checkpoint(layout: str, source: Path, target: Path) -> Header:
    """Turn a checkpoint of released code into one of ours; it gives the same features.

    Args:
        layout: e.g. "idf-official".
        source: the released file; only tensors are read, no code in it is executed.
        target: our file.
    Raises:
        RecipeError: the layout is unknown.
        CheckpointError: the file does not have this layout.
        OutputError: the target cannot be written.
    """
    state = read_state(source)
    try:
        converted = convert_from(layout, state)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from None
    network = build_method(converted.method, converted.options, converted.num_ids)
    fill(network, converted.state, source)
    # How the released code prepares pictures is part of what its weights mean.
    usual = RECIPES_BY_IDS.get((layout, converted.num_ids), RECIPES[layout])
    content = load_recipe(usual).model_dump(mode="json")
    content["method"] = {"name": converted.method, **converted.options}
    content |= {"name": layout.replace("-", "_"), "about": f"settings under which {layout} weights were trained"}
    recipe = check_recipe(content, layout)
    header = Header(
        method=converted.method,
        options=converted.options,
        num_ids=converted.num_ids,
        recipe=recipe.model_dump(mode="json"),
        chosen_by=f"converted from {source.name} ({layout})",
    )
    save_checkpoint(target, network, header)
    return header


def export_checkpoint(layout: str, source: Path, target: Path) -> None:
    """Turn one of our checkpoints into the layout of released code.

    Args:
        layout: e.g. "idf-official".
        source: a run folder or a checkpoint of ours.
        target: the file to write, a dictionary of tensors saved by PyTorch. Where the layout has a key for it, epoch and
            scores stand beside; the scores are zeros, as none are known of these weights.
    Raises:
        RecipeError: the layout is unknown.
        CheckpointError: the source is none of ours, or its network does not fit the layout.
        OutputError: the target cannot be written.
    """
    checkpoint = load_checkpoint(source)
    try:
        state = convert_to(layout, checkpoint.header.options, checkpoint.network.state_dict())
    except CheckpointError as error:
        raise CheckpointError(f"{source}: does not fit {layout}: {error}") from None
    plain = {name: tensor.contiguous() for name, tensor in state.items()}
    key = official_formats()[layout].key
    make_folder(target.parent)
    packed = io.BytesIO()
    epoch = checkpoint.header.epoch
    torch.save({key: plain, **NO_SCORES, "epoch": epoch} if key else plain, packed)
    write_bytes(target, packed.getvalue())
