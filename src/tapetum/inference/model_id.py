"""The name of a model: what its vectors are compared by, or refused."""

import dataclasses
import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from tapetum.inference.artefact import ModelSettings, to_json


def model_id(state: Mapping[str, Tensor], settings: ModelSettings) -> str:
    """A name for a model's weights and settings, 16 hexadecimal digits; runtime and precision have no part in it."""
    digest = hashlib.sha256(to_json(dataclasses.asdict(settings)))
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
