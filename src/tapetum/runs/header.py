"""What a checkpoint says about itself, read without its weights and without PyTorch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from tapetum.core.discovery import lies_beside
from tapetum.core.errors import CheckpointError
from tapetum.runs.packaged import advise, locate
from tapetum.runs.run_folder import RunFolder

FORMAT = 1
HEADER = "tapetum"
FEWEST_CLASSES = 1  # that every method can be built with; those of a packed model, which knows nobody
PACKED_FROM = "packed_from"  # in the origin of a packed model: digest of the checkpoint


@dataclass(frozen=True)
class Header:
    """What a checkpoint says about itself.

    Attributes:
        method, options, num_ids, camids, size: enough to build the network. Files that were written before cameras and
            size were kept have none; their size is that of their recipe. Likewise older files of trainings leave
            options out that were at their default.
        recipe: the resolved recipe of the training; empty for converted weights.
        chosen_by: why these weights, e.g. "best mAP on 30 held-out identities, epoch 15 of 20".
        epoch: complete epochs of training behind the weights.
        pids: class index -> identity as the dataset writes it, also of a packed model, which has no classes any more;
            empty where unknown.
        before: earlier trainings, on whose weights this one began: of each the data section of its recipe ("data") and
            its identities ("pids").
        normalisation: name of the network's own; empty in files that do not say it.
    """

    method: str
    options: Mapping[str, Any]
    num_ids: int
    recipe: Mapping[str, Any] = field(default_factory=dict)
    chosen_by: str = ""
    epoch: int = 0
    pids: Sequence[int] = ()
    before: Sequence[Mapping[str, Any]] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)
    camids: Sequence[int] = ()
    size: Sequence[int] | None = None
    normalisation: str = ""
    format: int = FORMAT

    @property
    def trainings(self) -> list[Mapping[str, Any]]:
        """This one and the earlier ones, each as in `before`; none where nothing is known."""
        own = {"data": self.recipe.get("data"), "pids": list(self.pids)} if self.recipe else None
        return [*self.before, *([own] if own else [])]

    @property
    def is_packed(self) -> bool:
        """Whether these weights have no classifier, see `tapetum.inference.pack`."""
        return PACKED_FROM in self.origin


def find_checkpoint(place: Path) -> Path:
    """The checkpoint file of a run folder (the best one, else the last), of a packaged model, or the file itself.

    Raises:
        CheckpointError: there is none; the message says where it was looked for.
    """
    place = locate(place)
    if place.is_file():
        return place
    folder = RunFolder(place)
    for candidate in (folder.best, folder.last):
        if candidate.is_file():
            return candidate
    if not place.exists():
        raise CheckpointError(f"{place}: no such run folder or checkpoint file; {advise(place)}")
    raise CheckpointError(f"{place}: no checkpoint at {folder.best} or {folder.last}; has an epoch been completed?")


def read_header(path: Path) -> Header:
    """The header alone."""
    try:
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(HEADER)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; train one with `tapetum train`") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: not a readable safetensors file ({error}); for weights of other projects see `tapetum convert`"
        ) from None
    if text is None:
        raise CheckpointError(f"{path}: has no tapetum header; for weights of other projects see `tapetum convert`")
    try:
        content = json.loads(text)
        version = content["format"]
        if version != FORMAT:
            raise CheckpointError(f"{path}: format {version}, this version reads {FORMAT}; update tapetum")
        header = Header(**content)
        sections = {key: values for key, values in header.recipe.items() if key != "name"}  # its own is anybody's words
        named = [header.method, *_list_modules(header.options), *_list_modules(sections)]
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path}: damaged header ({error}); use another copy of the file") from None
    for name in named:
        if lies_beside(str(name)):
            raise CheckpointError(
                f"{path}: names the module {name}, which lies in the working directory; opening a file runs no code "
                "that may have come with it: import the module first, or name its folder in PYTHONPATH, if it is yours"
            )
    return header


def _list_modules(values: Any) -> list[str]:
    """What a file's values call by name, at any depth."""
    if isinstance(values, Mapping):
        own = [value for key, value in values.items() if key in ("name", "extractor") and isinstance(value, str)]
        return own + [name for value in values.values() for name in _list_modules(value)]
    return [name for value in values for name in _list_modules(value)] if isinstance(values, list) else []
