"""A network ready to compute: a method by PyTorch, the files of an artefact by the library that they are for.

The precision is told to the library by name: OpenVINO, left alone, takes bf16 on some CPUs and fp32 on others.
"""

import importlib
import threading
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from tapetum.core.errors import RecipeError
from tapetum.inference.artefact import ArtefactError, Runtime
from tapetum.inference.embeddings import embed_pictures
from tapetum.inference.precision import Precision, choose_device, computing_in

Device = Literal["auto", "cpu", "gpu"]
INPUTS = ("images", "modalities", "camids")  # of an exported graph; one that looks at no cameras lacks the last
NETWORK_FILES: Mapping[Runtime, tuple[str, ...]] = {
    "onnx": ("network.onnx",),
    "openvino": ("network.xml", "network.bin"),
    "torchscript": ("network.torchscript",),
}


class NetworkSession(Protocol):
    """A network ready to compute in `precision` on `device`: "cpu" or "cuda"."""

    precision: Precision
    device: str

    def run(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Tensor:
        """(N, D) float32 of unit length, on the CPU.

        Args:
            images: (N, 3, H, W) float32 in 0..1.
            modalities: (N,) int64.
            camids: (N,) int64.
        """
        ...


class TorchSession:
    """A method computed by PyTorch, channels last; `mirror` joins each picture with its mirror."""

    def __init__(self, network: nn.Module, precision: Precision, device: torch.device, mirror: bool) -> None:
        self.network = network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.precision = precision
        self.device = device.type
        self.mirror = mirror

    def run(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Tensor:
        """As `NetworkSession.run`."""
        device = torch.device(self.device)
        inputs = (each.to(device) for each in (images, modalities, camids))
        with computing_in(self.precision, device), _without_tf32(device):
            vectors = embed_pictures(self.network, *inputs, mirror=self.mirror)
        return vectors.cpu().clone()


class OnnxSession:
    """An ONNX file computed by ONNX Runtime, in fp32; on a GPU where it was built for one."""

    def __init__(self, folder: Path, precision: Precision, device: Device) -> None:
        onnxruntime = import_extra("onnxruntime")
        on_gpu = device != "cpu" and "CUDAExecutionProvider" in onnxruntime.get_available_providers()
        if device == "gpu" and not on_gpu:
            raise RecipeError(f"{folder}: this ONNX Runtime has no GPU support; install onnxruntime-gpu or use the CPU")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads sleep
        options.log_severity_level = 3
        cuda: list[Any] = [("CUDAExecutionProvider", {"use_tf32": 0})] if on_gpu else []
        path = folder / NETWORK_FILES["onnx"][0]
        self._session = onnxruntime.InferenceSession(str(path), options, providers=[*cuda, "CPUExecutionProvider"])
        self.precision = precision
        self.device = "cuda" if "CUDAExecutionProvider" in self._session.get_providers() else "cpu"

    def run(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Tensor:
        """As `NetworkSession.run`."""
        by_name = dict(zip(INPUTS, (images, modalities, camids), strict=True))
        inputs = {each.name: by_name[each.name].contiguous().numpy() for each in self._session.get_inputs()}
        return torch.from_numpy(self._session.run(None, inputs)[0])


class OpenVinoSession:
    """Two files computed by OpenVINO on the CPU; the precision it took is read back."""

    def __init__(self, folder: Path, precision: Precision, device: Device) -> None:
        openvino = import_extra("openvino")
        if device == "gpu":
            raise RecipeError(f"{folder}: OpenVINO computes on the CPU here; use onnx or the run itself on a GPU")
        hint = {"fp32": "f32", "bf16": "bf16"}[precision]
        settings = {
            "INFERENCE_PRECISION_HINT": hint,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        path = folder / NETWORK_FILES["openvino"][0]
        self._network = openvino.Core().compile_model(path, "CPU", settings)
        actual = self._network.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if actual != hint:
            raise RecipeError(f"{folder}: OpenVINO computes in {actual} here, not in {hint}; use precision fp32")
        self._request = self._network.create_infer_request()
        self._lock = threading.Lock()  # a request serves one caller at a time
        self.precision = precision
        self.device = "cpu"

    def run(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Tensor:
        """As `NetworkSession.run`."""
        inputs = [each.contiguous().numpy() for each in (images, modalities, camids)[: len(self._network.inputs)]]
        with self._lock:
            return torch.from_numpy(np.array(self._request.infer(inputs)[0]))


class TorchScriptSession:
    """A TorchScript file computed by PyTorch, in fp32."""

    def __init__(self, folder: Path, precision: Precision, device: Device) -> None:
        self._device = choose_device(device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PyTorch would rather have its newer formats used
            path = folder / NETWORK_FILES["torchscript"][0]
            self._network = torch.jit.load(str(path), map_location=self._device).eval()  # type: ignore[no-untyped-call]
        self._count = len(self._network.forward.schema.arguments) - 1  # without the network itself
        self.precision = precision
        self.device = self._device.type

    def run(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Tensor:
        """As `NetworkSession.run`."""
        inputs = (each.to(self._device) for each in (images, modalities, camids)[: self._count])
        with torch.inference_mode(), _without_tf32(self._device):
            vectors: Tensor = self._network(*inputs)
        return vectors.cpu().clone()


SESSIONS: Mapping[Runtime, Callable[[Path, Precision, Device], NetworkSession]] = {
    "onnx": OnnxSession,
    "openvino": OpenVinoSession,
    "torchscript": TorchScriptSession,
}


def import_extra(library: str) -> ModuleType:
    """A library of the extra "export".

    Raises:
        ArtefactError: it is not installed.
    """
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise ArtefactError(
            f"{library} cannot be imported ({error}); install it with `pip install tapetum[export]`"
        ) from None


def _without_tf32(device: torch.device) -> AbstractContextManager[None]:
    """On a GPU fp32 means fp32: PyTorch's convolutions would round to ten bits."""
    if device.type != "cuda":
        return nullcontext()
    without: AbstractContextManager[None] = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    return without
