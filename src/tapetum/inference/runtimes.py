"""A network ready to compute: the files of an artefact by the library that they are for.

What PyTorch computes is in `inference.torch_sessions`, so that the other libraries do without it.

The precision is told to the library by name: OpenVINO, left alone, takes bf16 on some CPUs and fp32 on others.
"""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from tapetum.core.arrays import Real, Whole
from tapetum.core.errors import RecipeError
from tapetum.core.extras import install_hint
from tapetum.core.openvino_core import import_unreported, openvino_core
from tapetum.core.threads import count_threads
from tapetum.inference.artefact import ArtefactError, Runtime
from tapetum.inference.precision import Device, Precision

INPUTS = ("images", "modalities", "camids")  # of an exported graph; one that looks at no cameras lacks the last
NETWORK_FILES: Mapping[Runtime, tuple[str, ...]] = {
    "onnx": ("network.onnx",),
    "openvino": ("network.xml", "network.bin"),
    "torchscript": ("network.torchscript",),
}


class NetworkSession(Protocol):
    """A network ready to compute in `precision` on `device`: "cpu", "cuda" or, with its number, "cuda:1"."""

    precision: Precision
    device: str

    def run(self, images: Real, modalities: Whole, camids: Whole) -> Real:
        """(N, D) float32 of unit length.

        Args:
            images: (N, 3, H, W) float32 in 0..1.
            modalities: (N,) int64.
            camids: (N,) int64.
        """
        ...


class OnnxSession:
    """An ONNX file computed by ONNX Runtime, in fp32; on a GPU where it was built for one."""

    def __init__(self, folder: Path, precision: Precision, device: Device) -> None:
        onnxruntime = import_extra("onnxruntime")
        on_gpu = device != "cpu" and "CUDAExecutionProvider" in onnxruntime.get_available_providers()
        if device == "gpu" and not on_gpu:
            raise RecipeError(f"{folder}: this ONNX Runtime has no GPU support; install onnxruntime-gpu or use the CPU")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = count_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads sleep
        options.log_severity_level = 3
        cuda: list[Any] = [("CUDAExecutionProvider", {"use_tf32": 0})] if on_gpu else []
        path = folder / NETWORK_FILES["onnx"][0]
        self._session = onnxruntime.InferenceSession(str(path), options, providers=[*cuda, "CPUExecutionProvider"])
        self.precision = precision
        self.device = "cuda" if "CUDAExecutionProvider" in self._session.get_providers() else "cpu"

    def run(self, images: Real, modalities: Whole, camids: Whole) -> Real:
        """As `NetworkSession.run`."""
        by_name = dict(zip(INPUTS, (images, modalities, camids), strict=True))
        inputs = {each.name: np.ascontiguousarray(by_name[each.name]) for each in self._session.get_inputs()}
        return np.asarray(self._session.run(None, inputs)[0])


class OpenVinoSession:
    """Two files computed by OpenVINO on the CPU; the precision it took is read back."""

    def __init__(self, folder: Path, precision: Precision, device: Device) -> None:
        import_extra("openvino")
        if device == "gpu":
            raise RecipeError(f"{folder}: OpenVINO computes on the CPU here; use onnx or the run itself on a GPU")
        hint = {"fp32": "f32", "bf16": "bf16"}[precision]
        settings = {
            "INFERENCE_PRECISION_HINT": hint,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": count_threads(),
            "ENABLE_CPU_PINNING": False,  # a thread that is bound to a core waits for whatever else runs there
        }
        path = folder / NETWORK_FILES["openvino"][0]
        self._network = openvino_core().compile_model(path, "CPU", settings)
        actual = self._network.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if actual != hint:
            raise RecipeError(f"{folder}: OpenVINO computes in {actual} here, not in {hint}; use precision fp32")
        self._request = self._network.create_infer_request()
        self._lock = threading.Lock()  # a request serves one caller at a time
        self.precision = precision
        self.device = "cpu"

    def run(self, images: Real, modalities: Whole, camids: Whole) -> Real:
        """As `NetworkSession.run`."""
        inputs = [np.ascontiguousarray(each) for each in (images, modalities, camids)[: len(self._network.inputs)]]
        with self._lock:
            return np.array(self._request.infer(inputs)[0])


def _open_torchscript(folder: Path, precision: Precision, device: Device) -> NetworkSession:
    from tapetum.inference.torch_sessions import TorchScriptSession

    return TorchScriptSession(folder / NETWORK_FILES["torchscript"][0], precision, device)


SESSIONS: Mapping[Runtime, Callable[[Path, Precision, Device], NetworkSession]] = {
    "onnx": OnnxSession,
    "openvino": OpenVinoSession,
    "torchscript": _open_torchscript,
}


def import_extra(library: str) -> ModuleType:
    """A library of the extra "export".

    Raises:
        ArtefactError: it is not installed.
    """
    try:
        return import_unreported(library)
    except ImportError as error:
        raise ArtefactError(
            f"{library} cannot be imported ({error}); install it with: {install_hint(library)}"
        ) from None
