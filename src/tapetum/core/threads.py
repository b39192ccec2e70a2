"""How many threads a computation takes, also where PyTorch is not loaded, and how they wait for each other."""

import os
import sys
from pathlib import Path

ASKED_BY = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # as PyTorch reads them, in its order

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # a user's own choice, by any of OpenMP's makers


def sleep_while_waiting() -> bool:
    """Let OpenMP's threads sleep while they wait for each other; False where a user has settled it, or it is too late.

    By itself PyTorch's OpenMP lets a waiting thread turn round and round for milliseconds first. Beside a busy process
    it takes the time away from the very thread that it waits for, time after time. `python -m benchmarks load`
    measures what that costs. OpenMP reads the environment once, when PyTorch is loaded.
    """
    if "torch" in sys.modules or any(name in os.environ for name in WAITING):
        return False
    os.environ["OMP_WAIT_POLICY"] = "passive"
    return True


def count_threads() -> int:
    """As many as PyTorch takes where it is in use, for a program may have told it; else as many as it would take.

    That is what the environment asks for, and otherwise one for each core that this process may use.
    """
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    for name in ASKED_BY:
        asked = os.environ.get(name, "")
        if asked.isdecimal() and int(asked) > 0:
            return int(asked)
    return _count_cores()


def _count_cores() -> int:
    """Cores, each of which may be several of the processors that the system counts."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    mine = os.sched_getaffinity(0)
    cores = set()
    for number in mine:
        shared = Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list")
        try:
            cores.add(shared.read_text())
        except OSError:
            return len(mine)
    return len(cores)
