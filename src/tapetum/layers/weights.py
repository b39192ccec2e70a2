"""Weights files: tensors and nothing else, whatever the file's ending; loading never executes code."""

import argparse
import pickle
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from tapetum.core.errors import CheckpointError, first_line, nearest_name

# Under which files keep the tensors beside other things, e.g. released scores; "teacher": what DINO's trainings leave.
STATE_KEYS = ("state_dict", "net", "model", "teacher")
# What NumPy's numbers and arrays beside the tensors are made of, under the names of NumPy 1 and 2: values, never code.
NUMPY_MAKERS: tuple[Any, Any] = (np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0])
NUMPY_VALUES: list[Any] = [
    *((maker, f"numpy.{core}.multiarray.{maker.__name__}") for maker in NUMPY_MAKERS for core in ("core", "_core")),
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")),
]
VALUES = [*NUMPY_VALUES, argparse.Namespace]  # the arguments of a training are plain values, too

_BEGIN_BYTES = 512  # of a file, by which a web page is told


def read_state(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a weights file by name: safetensors, or a PyTorch file that holds a plain dictionary of tensors.

    A PyTorch file may keep the dictionary under the key "state_dict", "net", "model" or "teacher", beside plain values.

    Raises:
        CheckpointError: the file is missing or damaged, or holds something other than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such weights file; check the path")
    _refuse_web_page(path)
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        with torch.serialization.safe_globals(VALUES), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles that torch did not write; they are read or refused below
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: is damaged or holds more than tensors, and code in it is never executed; save its state_dict anew"
        ) from error
    except Exception as error:  # what a damaged file makes the readers raise is not bounded
        reason = first_line(error)
        raise CheckpointError(f"{path}: cannot be read as weights ({reason}); fetch or save the file again") from error
    if isinstance(state, Mapping):
        state = next((state[key] for key in STATE_KEYS if isinstance(state.get(key), Mapping)), state)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path}: holds no dictionary of tensors; save the state_dict of the network")
    return dict(state)


def _refuse_web_page(path: Path) -> None:
    """A drive that asks something before it gives a file is saved under the file's name."""
    try:
        with path.open("rb") as file:
            begin = file.read(_BEGIN_BYTES).lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read as weights ({error.strerror}); make it readable") from None
    if begin.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--")):
        raise CheckpointError(
            f"{path}: is a web page, no weights: what was saved is the page before the file; download the file itself"
        )


def check_tensors(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], place: str, *, beside: Iterable[str] = ()
) -> None:
    """Complain unless a file's tensors have the names and shapes that a network needs; `place` is for the message.

    Args:
        beside: names that the file has more, of any shape.
    Raises:
        CheckpointError: naming the first unknown and the first missing tensor, and how many there are of each; or the
            first that does not fit, with both shapes.
    """
    names = {*expected, *beside}
    unknown, missing = sorted(tensors.keys() - names), sorted(names - tensors.keys())
    parts = []
    if unknown:
        hint = f" ({nearest_name(unknown[0], missing)})" if 0 < len(missing) <= 20 else ""
        parts.append(f"{len(unknown)} unknown tensor(s), first {unknown[0]!r}{hint}")
    if missing:
        parts.append(f"{len(missing)} missing tensor(s), first {missing[0]!r}")
    if parts:
        raise CheckpointError(f"{place}: {'; '.join(parts)}; supply a file of this network")
    for name, tensor in expected.items():
        if tensors[name].shape != tensor.shape:
            raise CheckpointError(
                f"{place}: tensor {name!r} is {tuple(tensors[name].shape)} where the network needs "
                f"{tuple(tensor.shape)}; supply a file of this network and width"
            )
