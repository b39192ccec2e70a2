"""Networks that PyTorch computes: a method, or the program in an artefact of TorchScript."""

import warnings
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from tapetum.core.arrays import Real, Whole
from tapetum.core.locks import SharedContext
from tapetum.inference.devices import choose_device, computing_in
from tapetum.inference.embeddings import embed_pictures
from tapetum.inference.filling import filling_of, without_filling
from tapetum.inference.precision import Device, Precision

# Flags of the whole process, while several threads may compute.
_WITHOUT_TF32 = SharedContext(lambda: torch.backends.cudnn.flags(enabled=True, allow_tf32=False))


class TorchSession:
    """A method computed by PyTorch, channels last; `mirror` joins each picture with its mirror.

    Args:
        filled: give vectors for pairs across modalities alone, see `tapetum.inference.filling`.
    """

    def __init__(
        self, network: nn.Module, precision: Precision, device: torch.device, mirror: bool, *, filled: bool = False
    ) -> None:
        self.network = network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.precision = precision
        self.device = str(device)  # with its number, where it has one
        self.mirror = mirror
        self._filling = 0 if filled else filling_of(network)

    def run(self, images: Real, modalities: Whole, camids: Whole) -> Real:
        """As `runtimes.NetworkSession.run`."""
        device = torch.device(self.device)
        inputs = (torch.from_numpy(each).to(device) for each in (images, modalities, camids))
        with computing_in(self.precision, device), _without_tf32(device):
            vectors = embed_pictures(self.network, *inputs, mirror=self.mirror)
        return without_filling(vectors, self._filling).cpu().numpy()


class TorchScriptSession:
    """A TorchScript file computed by PyTorch, in fp32."""

    def __init__(self, path: Path, precision: Precision, device: Device) -> None:
        self._device = choose_device(device, "device")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PyTorch would rather have its newer formats used
            self._network = torch.jit.load(str(path), map_location=self._device).eval()  # type: ignore[no-untyped-call]
        self._count = len(self._network.forward.schema.arguments) - 1  # without the network itself
        self.precision = precision
        self.device = str(self._device)

    def run(self, images: Real, modalities: Whole, camids: Whole) -> Real:
        """As `runtimes.NetworkSession.run`."""
        inputs = (torch.from_numpy(each).to(self._device) for each in (images, modalities, camids)[: self._count])
        with torch.inference_mode(), _without_tf32(self._device):
            vectors: Tensor = self._network(*inputs)
        return vectors.cpu().numpy()


def _without_tf32(device: torch.device) -> AbstractContextManager[None]:
    """On a GPU fp32 means fp32: PyTorch's convolutions would round to ten bits."""
    return _WITHOUT_TF32.held() if device.type == "cuda" else nullcontext()
