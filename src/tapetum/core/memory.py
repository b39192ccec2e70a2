"""A process that keeps the memory it frees for its own next use.

By itself glibc, the C library of most Linuxes, gives large pieces back to the system, which clears them page by page
when they are asked for again a moment later.
"""

import ctypes
import os
import platform

VARIABLES = ("GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")  # a user's own choice
# Numbers of glibc's malloc.h -> bytes.
SETTINGS = {
    -3: 2**28,  # M_MMAP_THRESHOLD: larger pieces still go back
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD: kept at the end of the memory
}


def keep_freed_memory() -> bool:
    """Whether this process keeps it from now on: not where a user has settled it, nor with another C library."""
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in VARIABLES):
        return False
    library = ctypes.CDLL(None)
    return all(library.mallopt(number, value) == 1 for number, value in SETTINGS.items())
