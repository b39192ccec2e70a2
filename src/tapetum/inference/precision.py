"""Arithmetic and device, chosen once by name and recorded with every result."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal, get_args

import torch

from tapetum.core.errors import RecipeError

Precision = Literal["fp32", "bf16", "fp16"]


def choose_device(accelerator: str = "auto") -> torch.device:
    """The device for one process.

    Args:
        accelerator: "auto", "cpu" or "gpu".
    Raises:
        RecipeError: "gpu" is asked for and there is none.
    """
    if accelerator == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if accelerator == "gpu":
        raise RecipeError("training.accelerator is 'gpu', but this machine offers none; use 'auto' or 'cpu'")
    return torch.device("cpu")


def resolve_precision(
    name: str, device: torch.device, place: str = "training.precision", *, runtime: str = "torch"
) -> Precision:
    """What a precision means on this device.

    Args:
        name: "fp32", "bf16", "fp16", or "auto": bf16 where the hardware computes it fast, else fp32.
        place: the setting, or the artefact, for the message.
        runtime: of the artefact; "torch" for a run.
    Raises:
        RecipeError: no such arithmetic, or not with this device and runtime.
    """
    if name == "auto":
        return "bf16" if runtime in ("torch", "openvino") and has_fast_bf16(device) else "fp32"
    if runtime != "torch" and name != "fp32" and (runtime, name) != ("openvino", "bf16"):
        raise RecipeError(f"{place}: precision {name!r} is not available with {runtime}; use fp32 or auto")
    if runtime == "openvino" and name == "bf16" and not has_fast_bf16(device):
        raise RecipeError(
            f"{place}: precision 'bf16' needs a CPU with AMX or AVX-512 BF16, this one has neither; use fp32 or auto"
        )
    if name == "fp16" and device.type == "cpu":
        raise RecipeError(f"{place} is 'fp16', which needs a GPU; use 'bf16' or 'auto'")
    if name not in get_args(Precision):
        raise RecipeError(f"{place} is {name!r}, expected fp32, bf16, fp16 or auto")
    return name  # type: ignore[return-value]


def has_fast_bf16(device: torch.device) -> bool:
    """Whether a device has bfloat16 arithmetic of its own; a CPU by AMX or by AVX-512 BF16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    able = torch.cpu.get_capabilities()
    return bool(able.get("amx_bf16") or able.get("avx512_bf16"))


def computing_in(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """A context in which the forward pass uses this arithmetic."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16 if precision == "bf16" else torch.float16)
