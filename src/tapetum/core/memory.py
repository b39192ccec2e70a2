"""A process that keeps the memory it frees for its own next use.

By itself glibc, the C library of most Linuxes, gives large pieces back to the system, which clears them page by page
when they are asked for again a moment later; a training step on a CPU loses up to a quarter of its time so. It is told
otherwise by an environment variable that it reads once, when the process starts.
"""

import os
import platform
import sys

VARIABLE = "GLIBC_TUNABLES"
SETTINGS = {
    "mmap_threshold": 2**28,  # bytes; larger pieces still go back
    "trim_threshold": 2**31,  # bytes kept at the end of the memory
    "tcache_count": 0,  # splinters kept for quick use would lie between large pieces, so that none fits again
    "mxfast": 0,
}


def keeping_memory() -> dict[str, str]:
    """What the environment of a process lacks to keep what it frees; nothing where that is settled or not glibc's."""
    if platform.libc_ver()[0] != "glibc" or VARIABLE in os.environ:
        return {}
    return {VARIABLE: ":".join(f"glibc.malloc.{name}={value}" for name, value in SETTINGS.items())}


def restart_keeping_memory() -> None:
    """Begin this program again in the same process, with memory that is kept; return at once where that is settled."""
    added = keeping_memory()
    if added:
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | added)  # noqa: S606
