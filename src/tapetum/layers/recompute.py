"""Less memory for a little time: a part of a network whose inner maps are computed again when gradients need them."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recompute(part: Callable[[Tensor], Tensor], modules: nn.Module, maps: Tensor) -> Tensor:
    """What `part` makes of `maps`; of all that is between, nothing is kept for the backward pass.

    Outputs, gradients and running statistics are the same as without: batch norms count each batch once.

    Args:
        part: a function of one tensor without random numbers.
        modules: holds every module that `part` uses.
    """
    if not torch.is_grad_enabled():
        return part(maps)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), without_statistics(modules)

    made: Tensor = checkpoint(part, maps, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
    return made


@contextmanager
def without_statistics(modules: nn.Module) -> Iterator[None]:
    """Batch norms in training compute as ever, but leave their running statistics alone."""
    norms = [module for module in modules.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
