"""torchvision's own weights of a detector: a file in PyTorch's cache, in which others may have written."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tapetum.core.digest import digest_file
from tapetum.core.errors import DataError, first_line

# Of PyTorch: with the first, whoever calls `torch.load`, code in a file is not executed; with both it refuses to load.
_ONLY_TENSORS, _ANYTHING = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
_forcing = threading.Lock()


def torchvision_is_cached(model: str) -> bool:
    """Whether the weights of one of torchvision's detectors were downloaded before.

    Where no file in PyTorch's cache begins with its name, PyTorch is not imported to ask further.
    """
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch"
    files = (Path(home).expanduser() / "hub" / "checkpoints").glob(f"{model}*")
    return any(files) and torchvision_file(model).is_file()


def torchvision_file(model: str) -> Path:
    """Where PyTorch keeps the weights of one of torchvision's detectors once they were downloaded."""
    import torch
    from torchvision.models import get_model_weights

    address = str(get_model_weights(model)["DEFAULT"].url)
    return Path(torch.hub.get_dir()) / "checkpoints" / address.rpartition("/")[2]


def build_with_own_weights(model: str, build: Callable[..., Any]) -> Any:
    """One of torchvision's detectors with torchvision's own weights, downloaded where they are not there.

    torchvision compares a file with the checksum in its name only while it downloads it, and would execute what it
    holds; here it is compared each time, and nothing but tensors is taken from it.

    Args:
        model: of `TORCHVISION_DETECTORS`.
        build: torchvision's function of that name: how a network is set up for its own weights is known there alone.
    Raises:
        DataError: the weights cannot be downloaded, or are not those that torchvision names.
    """
    path = torchvision_file(model)
    again = f"delete it, and fetch it again: tapetum detector get torchvision:{model}"
    was_there = path.is_file()
    if was_there:
        _check_name(path, again)
    try:
        with _tensors_only():
            return build(weights="DEFAULT")
    except Exception as error:  # of the network, or every way in which a file can be no weights of this model
        reason = first_line(error)
        if was_there:
            raise DataError(
                f"{path}: holds no weights of {model}, and code in it is never executed ({reason}); {again}"
            ) from None
        raise DataError(
            f"detector {model}: its weights cannot be downloaded ({reason}); give their file: tapetum index "
            f"SOURCE --detector torchvision:{model} --detector-weights FILE"
        ) from None


def _check_name(path: Path, again: str) -> None:
    try:
        found = digest_file(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); make it readable, or {again}") from None
    named = path.stem.rpartition("-")[2]  # the first eight digits of its SHA-256
    if not found.startswith(named):
        raise DataError(
            f"{path}: is cut short or was changed, its SHA-256 begins with {found[: len(named)]}, where its name says "
            f"{named}; {again}"
        )


@contextmanager
def _tensors_only() -> Iterator[None]:
    """PyTorch's own switch, for as long as torchvision reads; one thread at a time, or another would turn it back."""
    with _forcing:
        before = {name: os.environ.pop(name, None) for name in (_ONLY_TENSORS, _ANYTHING)}
        os.environ[_ONLY_TENSORS] = "1"
        try:
            yield
        finally:
            del os.environ[_ONLY_TENSORS]
            os.environ |= {name: value for name, value in before.items() if value is not None}
