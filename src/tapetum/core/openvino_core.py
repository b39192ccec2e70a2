"""OpenVINO's one `Core` of this process, ready for several threads.

Two faults of OpenVINO 2026.4 are kept away here.

Its CPU plugin gives the thread that loads it a stack for signals of its own, and takes the memory back when the last
`Core` goes, from whatever thread that happens in. A thread that keeps the address of such a stack dies of the next
signal, Ctrl-C for one, with a segmentation fault. So the one that was made stays.

Its Python binding looks NumPy up at the first inference, by a guard under which it waits for Python's lock. Where two
threads come first at once, the other holds that lock while it waits for the guard, and neither goes on. So a network of
one layer is computed before anybody has the `Core`.
"""

import threading
from typing import Any

import numpy as np

_making = threading.Lock()
_kept: list[Any] = []


def openvino_core() -> Any:
    """The `Core`, kept until the process ends.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    import openvino

    with _making:
        if not _kept:
            core = openvino.Core()
            _compute_once(core)
            _kept.append(core)
    return _kept[0]


def _compute_once(core: Any) -> None:
    import openvino
    from openvino import opset13

    given = opset13.parameter([1], np.float32)
    network = core.compile_model(openvino.Model([opset13.relu(given)], [given]), "CPU")
    network.create_infer_request().infer([np.zeros(1, np.float32)])
