"""The name of a model: vectors of different names must never be compared."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tapetum.core.errors import CheckpointError
from tapetum.inference.artefact import ModelSettings, to_json

if TYPE_CHECKING:
    from torch import Tensor

KINDS = {  # of numbers, as a file of safetensors and as PyTorch call them
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
Weight = tuple[str, str, tuple[int, ...], Any]  # name, kind, shape, and memory that `hashlib` takes


def model_id(state: "Mapping[str, Tensor]", settings: ModelSettings) -> str:
    """A name for a model's weights and settings, 16 hexadecimal digits; runtime and precision have no part in it."""
    import torch

    def weights() -> Iterator[Weight]:
        for name in sorted(state):
            tensor = state[name].detach().cpu().contiguous()
            kind = str(tensor.dtype).removeprefix("torch.")
            yield name, kind, tuple(tensor.shape), tensor.flatten().view(torch.uint8).numpy().data

    return _digest(weights(), settings)


def model_id_of_file(path: Path, settings: ModelSettings) -> str:
    """As `model_id`, of the weights in a file of safetensors; PyTorch is not needed.

    Halves are a short form of weights that a network holds as float32.

    Raises:
        CheckpointError: the file is damaged, or holds numbers of a kind that no checkpoint of ours has.
    """

    def weights() -> Iterator[Weight]:
        content = np.memmap(path, dtype=np.uint8, mode="r")
        begin = 8 + int.from_bytes(content[:8].tobytes(), "little")
        if begin > len(content):
            raise ValueError("cut off")
        header = json.loads(content[8:begin].tobytes())
        header.pop("__metadata__", None)
        for name in sorted(header):
            about = header[name]
            first, last = about["data_offsets"]
            numbers = content[begin + first : begin + last]
            if len(numbers) != last - first:
                raise ValueError("cut off")
            kind = KINDS[about["dtype"]]
            if kind == "float16":
                kind, numbers = "float32", numbers.view("<f2").astype("<f4").view(np.uint8)
            yield name, kind, tuple(about["shape"]), numbers

    try:
        return _digest(weights(), settings)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: damaged ({error!r}); use another copy of the file") from None


def _digest(weights: Iterator[Weight], settings: ModelSettings) -> str:
    digest = hashlib.sha256(to_json(dataclasses.asdict(settings)))
    for name, kind, shape, content in weights:
        digest.update(f"{name} torch.{kind} {shape}".encode())
        digest.update(content)
    return digest.hexdigest()[:16]
