"""What the processes of one training tell each other; alone, a process hears itself."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

Kind = TypeVar("Kind")
_BUCKET = 1 << 25  # bytes sent at once


def count_processes() -> int:
    """Processes that train together; 1 outside a training of several."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def add_up(values: Tensor) -> Tensor:
    """The sum over all processes of values that have one shape everywhere."""
    if count_processes() == 1:
        return values
    total = values.clone()
    distributed.all_reduce(total)
    return total


def gather(values: Kind) -> list[Kind]:
    """What every process has, in their order; plain values."""
    if count_processes() == 1:
        return [values]
    everybody: list[Any] = [None] * count_processes()
    distributed.all_gather_object(everybody, values)
    return everybody


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Put the mean over all processes in place of each gradient; one that no process has stays away."""
    world = count_processes()
    if world == 1:
        return
    for bucket in _buckets(list(parameters)):
        present = torch.tensor([float(each.grad is not None) for each in bucket], device=bucket[0].device)
        parts = [torch.zeros_like(each) if each.grad is None else each.grad for each in bucket]
        flat = torch.cat([present.to(parts[0].dtype), *((part / world).reshape(-1) for part in parts)])
        distributed.all_reduce(flat)
        sizes = [len(bucket), *(part.numel() for part in parts)]
        somewhere, *means = torch.split(flat, sizes)
        for parameter, mean, count in zip(bucket, means, somewhere.tolist(), strict=True):
            if count:
                parameter.grad = mean.reshape(parameter.shape).to(memory_format=_format_of(parameter)).clone()


def share_buffers(network: nn.Module) -> None:
    """Give every process the buffers of the first, such as the running statistics of its norms."""
    if count_processes() == 1:
        return
    for buffer in network.buffers():
        distributed.broadcast(buffer, 0)


def _buckets(parameters: list[nn.Parameter]) -> list[Sequence[nn.Parameter]]:
    """Runs of parameters of one type, of some megabytes each."""
    runs: list[list[nn.Parameter]] = []
    size = 0
    for parameter in parameters:
        if not runs or runs[-1][0].dtype != parameter.dtype or size >= _BUCKET:
            runs.append([])
            size = 0
        runs[-1].append(parameter)
        size += parameter.numel() * parameter.element_size()
    return [tuple(run) for run in runs]


def _format_of(parameter: nn.Parameter) -> torch.memory_format:
    last = parameter.ndim == 4 and parameter.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
