"""Where PyTorch computes, and in which arithmetic."""

import os
from contextlib import AbstractContextManager, nullcontext

import torch

from tapetum.core.errors import RecipeError
from tapetum.inference.precision import Precision


def choose_device(accelerator: str = "auto", place: str = "training.accelerator") -> torch.device:
    """The device for one process: under torchrun, which says `LOCAL_RANK`, each GPU in turn.

    Args:
        accelerator: "auto", "cpu" or "gpu".
        place: the setting, for the message.
    Raises:
        RecipeError: "gpu" is asked for and there is none.
    """
    if accelerator == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        rank = os.environ.get("LOCAL_RANK", "")
        return torch.device("cuda", int(rank) % torch.cuda.device_count()) if rank.isdecimal() else torch.device("cuda")
    if accelerator == "gpu":
        raise RecipeError(f"{place} is 'gpu', but this machine offers none; use 'auto' or 'cpu'")
    return torch.device("cpu")


def computing_in(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """A context in which the forward pass uses this arithmetic."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16 if precision == "bf16" else torch.float16)
