"""A process that keeps the memory it frees for its own next use, and the most that it held.

By itself glibc, the C library of most Linuxes, gives large pieces back to the system, which clears them page by page
when they are asked for again a moment later.
"""

import ctypes
import gc
import os
import platform
import re
from pathlib import Path

VARIABLES = ("GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")  # a user's own choice
# Numbers of glibc's malloc.h -> bytes.
SETTINGS = {
    -3: 2**28,  # M_MMAP_THRESHOLD: larger pieces still go back
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD: kept at the end of the memory
}
STATUS, FORGET = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # of Linux


def keep_freed_memory() -> bool:
    """Whether this process keeps it from now on: not where a user has settled it, nor with another C library."""
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in VARIABLES):
        return False
    library = ctypes.CDLL(None)
    return all(library.mallopt(number, value) == 1 for number, value in SETTINGS.items())


def forget_peak() -> bool:
    """Give back what is free and count `read_peak` from here; False where the system cannot."""
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
    try:
        FORGET.write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def read_peak() -> int | None:
    """The most resident memory, in bytes, since `forget_peak` or the process's begin; None where nobody counts it."""
    try:
        found = re.search(r"^VmHWM:\s*(\d+) kB", STATUS.read_text(encoding="ascii"), re.MULTILINE)
    except OSError:
        return None
    return 1024 * int(found.group(1)) if found else None
