"""Arithmetic and device, chosen once by name and recorded with every result."""

from typing import TYPE_CHECKING, Literal, get_args

from tapetum.core.errors import RecipeError
from tapetum.core.processor import FAST_BF16, read_cpu_facts

if TYPE_CHECKING:
    from torch import nn

Device = Literal["auto", "cpu", "gpu"]
Precision = Literal["fp32", "bf16", "fp16"]


def resolve_precision(
    name: str,
    device: str,
    place: str = "training.precision",
    *,
    runtime: str = "torch",
    network: "nn.Module | None" = None,
) -> Precision:
    """What a precision means on this device.

    Args:
        name: "fp32", "bf16", "fp16", or "auto": bf16 where the hardware computes it fast, else fp32.
        device: its kind, "cpu" or "cuda".
        place: the setting, or the artefact, for the message.
        runtime: of the artefact; "torch" for a run.
        network: to be computed, where it is known: on a CPU, not on a GPU, a depthwise one stays in fp32.
    Raises:
        RecipeError: no such arithmetic, or not with this device and runtime.
    """
    if name == "auto":
        slower = device == "cpu" and network is not None and _is_depthwise(network)
        fast = runtime in ("torch", "openvino") and has_fast_bf16(device) and not slower
        return "bf16" if fast else "fp32"
    if runtime != "torch" and name != "fp32" and (runtime, name) != ("openvino", "bf16"):
        raise RecipeError(f"{place}: precision {name!r} is not available with {runtime}; use fp32 or auto")
    if runtime == "openvino" and name == "bf16" and not has_fast_bf16(device):
        raise RecipeError(
            f"{place}: precision 'bf16' needs a CPU with AMX or AVX-512 BF16, this one has neither; use fp32 or auto"
        )
    if name == "fp16" and device == "cpu":
        raise RecipeError(f"{place} is 'fp16', which needs a GPU; use 'bf16' or 'auto'")
    if name not in get_args(Precision):
        raise RecipeError(f"{place} is {name!r}, expected fp32, bf16, fp16 or auto")
    return name  # type: ignore[return-value]


def _is_depthwise(network: "nn.Module") -> bool:
    """Whether some of its convolutions have a filter for each channel alone."""
    return any(1 < getattr(part, "groups", 1) == getattr(part, "in_channels", 0) for part in network.modules())


def has_fast_bf16(device: str) -> bool:
    """Whether a device, "cpu" or "cuda", has bfloat16 arithmetic of its own; a CPU by AMX or by AVX-512 BF16."""
    if device == "cpu" and (abilities := read_cpu_facts().get("flags", "").split()):
        return not set(FAST_BF16).isdisjoint(abilities)
    import torch

    if device == "cuda":
        return torch.cuda.get_device_capability()[0] >= 8
    told = torch.cpu.get_capabilities()
    return any(told.get(name) for name in FAST_BF16)
