"""OpenVINO's one `Core` of this process.

Its CPU plugin gives the thread that loads it a stack for signals of its own, and takes the memory back when the last
`Core` goes, from whatever thread that happens in. A thread that keeps the address of such a stack dies of the next
signal, Ctrl-C for one, with a segmentation fault (OpenVINO 2026.4). So the one that was made stays.
"""

from collections.abc import Callable
from functools import cache
from typing import Any


def openvino_core() -> Any:
    """The `Core`, kept until the process ends.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    import openvino

    return _kept(openvino.Core)


@cache
def _kept(make: Callable[[], Any]) -> Any:
    return make()
