"""Checkpoints between our layout and those of released code."""

import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from tapetum.core.atomic import make_folder, write_bytes
from tapetum.core.errors import CheckpointError, RecipeError
from tapetum.core.method import TrainingFacts
from tapetum.data.catalog import load_dataset_module
from tapetum.layers.weights import read_state
from tapetum.methods import (
    build_method,
    build_options,
    convert_from,
    convert_to,
    official_formats,
    other_layouts,
)
from tapetum.runs.checkpoint import fill, load_checkpoint, save_checkpoint
from tapetum.runs.header import Header, find_checkpoint, read_header
from tapetum.runs.recipe import DataSection, check_recipe, load_recipe, override_recipe


def import_checkpoint(layout: str, source: Path, target: Path, overrides: Sequence[str] = ()) -> Header:
    """Turn a checkpoint of released code into one of ours; it gives the same features.

    Args:
        layout: e.g. "idf-official".
        source: the released file, or the first of those that make up a checkpoint; only tensors are read, no code in
            them is executed.
        overrides: "data.options.KEY=VALUE" each, how the pictures were read that the weights were trained on;
            and "method.OPTION=VALUE" of options that the layout asks for.
    Raises:
        RecipeError: the layout is unknown, or the people trained on depend on an option that is not given.
        CheckpointError: the file does not have this layout, or is one of ours.
    """
    if layout in official_formats():  # else the layout is what is wrong
        _refuse_ours(source)
    state = _read_files(layout, source)
    told, overrides = _split_told(layout, overrides)
    try:
        conversion = convert_from(layout, state, told)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from None
    form = official_formats()[layout]
    usual = form.recipes_by_ids.get(conversion.num_ids, form.recipe)
    content = load_recipe(usual).model_dump(mode="json")
    content["method"] = {"name": conversion.method, **conversion.options}
    if conversion.size:
        content["data"]["size"] = list(conversion.size)
    content |= {"name": layout.replace("-", "_"), "about": f"settings under which {layout} weights were trained"}
    recipe = override_recipe(check_recipe(content, layout), overrides, layout)
    _check_division(recipe.data, source, overrides)
    size = conversion.size or TrainingFacts.size
    network = build_method(
        conversion.method, conversion.options, conversion.num_ids, camids=conversion.camids, size=size
    )
    fill(network, conversion.state, source)
    header = Header(
        method=conversion.method,
        options=conversion.options,
        num_ids=conversion.num_ids,
        recipe=recipe.model_dump(mode="json"),
        chosen_by=f"converted from {source.name} ({layout})",
        camids=conversion.camids,
        size=conversion.size,
    )
    save_checkpoint(target, network, header)
    return header


def list_other_layouts(layout: str, source: Path) -> list[str]:
    """The layouts, beside its own, that a released file fits as well: nothing in it says which it is.

    Args:
        layout, source: as of `import_checkpoint`, which took them.
    """
    return other_layouts(layout, _read_files(layout, source))


def _refuse_ours(source: Path) -> None:
    try:
        header = read_header(find_checkpoint(source))
    except CheckpointError:
        return
    raise CheckpointError(
        f"{source}: holds Tapetum's method {header.method!r} and needs no --from; use it as it is, or give --to LAYOUT"
    )


def _split_told(layout: str, overrides: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """What is said of options that the layout asks for, and the other overrides."""
    form = official_formats().get(layout)
    asked = {f"method.{name}": name for name in form.asked} if form else {}
    pairs = [(override, *override.partition("=")[::2]) for override in overrides]
    told = {asked[key.strip()]: value.strip() for _, key, value in pairs if key.strip() in asked}
    return told, [override for override, key, _ in pairs if key.strip() not in asked]


def _check_division(data: DataSection, source: Path, overrides: Sequence[str]) -> None:
    """A released file does not say which division of the people it was trained on, so somebody must."""
    keys = {override.partition("=")[0].strip() for override in overrides}
    for key in sorted(keys):
        if not f"{key}.".startswith("data.options."):
            raise RecipeError(f"--set {key}: a conversion takes it from the layout; only data.options can be set")
    for name in getattr(load_dataset_module(data.name), "DIVIDED_BY", ()):
        if name not in data.options or not keys & {"data.options", f"data.options.{name}"}:
            raise RecipeError(
                f"{source}: has as many identities as {data.name} trains on, whose people are divided in several ways, "
                f"and does not say which was trained on; add --set data.options.{name}=VALUE"
            )


def export_checkpoint(layout: str, source: Path, target: Path) -> None:
    """Turn one of our checkpoints into the layout of released code.

    Args:
        layout: e.g. "idf-official".
        source: a run folder or a checkpoint of ours.
        target: the file to write (of several, the first), a dictionary of tensors saved by PyTorch. Where the layout
            has a key for it, epoch and scores stand beside; the scores are zeros, as none are known of these weights.
    Raises:
        CheckpointError: the source is none of ours, or its network does not fit the layout.
    """
    checkpoint = load_checkpoint(source)
    try:
        options = asdict(build_options(checkpoint.header.method, checkpoint.header.options))  # with a former name's own
        state = convert_to(layout, options, checkpoint.network.state_dict())
    except CheckpointError as error:
        method = checkpoint.header.method
        raise CheckpointError(f"{source}: holds the method {method!r} and does not fit {layout}: {error}") from None
    plain = {name: tensor.contiguous() for name, tensor in state.items()}
    form = official_formats()[layout]
    files = _list_files(layout, target)
    make_folder(target.parent)
    epoch = checkpoint.header.epoch
    contents = {}
    for prefix, path in files.items():  # all are made before the first is written
        own = {name.removeprefix(prefix): tensor for name, tensor in plain.items() if name.startswith(prefix)}
        buffer = io.BytesIO()
        torch.save({form.key: own, **form.scores, "epoch": epoch} if form.key else own, buffer)
        contents[path] = buffer.getvalue()
    for path, content in contents.items():
        write_bytes(path, content)


def _read_files(layout: str, source: Path) -> dict[str, Tensor]:
    """The tensors of a released checkpoint; of several files, behind the word and a dot of each."""
    return {
        prefix + (name.removeprefix("module.") if prefix else name): tensor
        for prefix, path in _list_files(layout, source).items()
        for name, tensor in read_state(path).items()
    }


def _list_files(layout: str, path: Path) -> dict[str, Path]:
    """Prefix of the tensors -> file of which a released checkpoint consists; `path` is the first."""
    form = official_formats().get(layout)
    if form is None or not form.files:  # of an unknown layout the conversion tells
        return {"": path}
    first, *_ = form.files
    start, found, end = path.name.rpartition(first)
    if not found:
        names = " and ".join(f"{path.stem}_{word}{path.suffix}" for word in form.files)
        raise CheckpointError(
            f"{path}: a {layout} checkpoint is {len(form.files)} files side by side, named for example {names}; "
            f"give the one with {first}"
        )
    return {f"{word}.": path.with_name(start + word + end) for word in form.files}
