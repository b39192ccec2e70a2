"""OpenVINO's one `Core` of this process, ready for several threads, and an import of it that tells nobody.

Two faults of OpenVINO 2026.4 are kept away here.

Its CPU plugin gives the thread that loads it a stack for signals of its own, and takes the memory back when the last
`Core` goes, from whatever thread that happens in. A thread that keeps the address of such a stack dies of the next
signal, Ctrl-C for one, with a segmentation fault. So the one that was made stays.

Its Python binding looks NumPy up at the first inference, by a guard under which it waits for Python's lock. Where two
threads come first at once, the other holds that lock while it waits for the guard, and neither goes on. So a network of
one layer is computed before anybody has the `Core`.
"""

import importlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

# OpenVINO reports each import to its maker, from a process that it forks for that; without this library it does not.
TELEMETRY = "openvino_telemetry"
_making = threading.Lock()
_kept: list[Any] = []


def openvino_core() -> Any:
    """The `Core`, kept until the process ends.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    openvino = import_unreported("openvino")
    with _making:
        if not _kept:
            core = openvino.Core()
            _compute_once(core)
            _kept.append(core)
    return _kept[0]


def import_unreported(library: str) -> ModuleType:
    """A library that imports OpenVINO, or OpenVINO itself, without a report of it to OpenVINO's maker.

    Raises:
        ImportError: it is not installed.
    """
    with _without(TELEMETRY):
        return importlib.import_module(library)


@contextmanager
def _without(library: str) -> Iterator[None]:
    """Imports do as if a library were not installed; one that is imported already stays."""
    if library in sys.modules:
        yield
        return
    sys.modules[library] = None  # type: ignore[assignment]  # Python's own way to say so
    try:
        yield
    finally:
        sys.modules.pop(library, None)  # another thread may have come at the same time


def _compute_once(core: Any) -> None:
    import openvino
    from openvino import opset13

    given = opset13.parameter([1], np.float32)
    network = core.compile_model(openvino.Model([opset13.relu(given)], [given]), "CPU")
    network.create_infer_request().infer([np.zeros(1, np.float32)])
