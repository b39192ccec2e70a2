"""Models opened for use, whatever computes them: a run by PyTorch, an artefact by its own library.

Precision is always chosen by name and told to the library; `Model.facts` says which one it became, to be stored beside
each vector. OpenVINO, left alone, takes bf16 on some CPUs and fp32 on others.
"""

import importlib
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tapetum.core.errors import DataError, RecipeError
from tapetum.core.types import UNKNOWN_CAMERA, Modality
from tapetum.data.image_io import Picture, resize
from tapetum.data.pictures import Pictures
from tapetum.data.transforms import to_float, to_tensor
from tapetum.evaluation.calibration import read_calibration, to_content
from tapetum.inference.artefact import (
    ArtefactError,
    ModelSettings,
    Runtime,
    digest_file,
    is_artefact,
    model_id,
    read_artefact,
)
from tapetum.inference.calibrate import calibration_path
from tapetum.inference.embeddings import embed_pictures
from tapetum.inference.precision import Precision, choose_device, computing_in, has_fast_bf16, resolve_precision
from tapetum.inference.probe import KEPT, Probe, compare, draw_probe, read_probe
from tapetum.runs.checkpoint import Header, load_checkpoint
from tapetum.runs.recipe import check_recipe

Device = Literal["auto", "cpu", "gpu"]
Numbers = Sequence[int] | NDArray[np.int64] | Tensor | int  # one for each picture, or one for all
BATCH = 32
CPU = torch.device("cpu")
MIN_COSINE = 0.999  # of a vector in bf16 to the same in fp32
INPUTS = ("images", "modalities", "camids")  # of an exported graph; one that looks at no cameras lacks the last
NETWORK_FILES: Mapping[Runtime, tuple[str, ...]] = {
    "onnx": ("network.onnx",),
    "openvino": ("network.xml", "network.bin"),
    "torchscript": ("network.torchscript",),
}


class NetworkSession(Protocol):
    """A network ready to compute.

    Attributes:
        precision: of its arithmetic.
        device: "cpu" or "cuda".
    """

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


@dataclass(frozen=True)
class Model:
    """A model in use.

    Attributes:
        id: of its weights and settings; vectors of different ids must never be compared.
        settings: how it sees pictures.
        runtime: "torch", "onnx", "openvino" or "torchscript".
        dimension: length of a vector.
        session: the network.
        cosine_to_fp32: smallest cosine of a vector to the same in fp32, found when it was opened in bf16; 1 in fp32.
        calibration: what `tapetum calibrate` stored, for `from_content` of `tapetum.evaluation.calibration`; without
            pairs where it was not run for this model.
    """

    id: str
    settings: ModelSettings
    runtime: str
    dimension: int
    session: NetworkSession
    cosine_to_fp32: float = 1.0
    calibration: Mapping[str, Any] = field(default_factory=lambda: {"pairs": {}})

    @property
    def precision(self) -> Precision:
        """Of the arithmetic."""
        return self.session.precision

    @property
    def facts(self) -> dict[str, Any]:
        """What is stored beside each vector: which model, computed by what, in which precision."""
        return {
            "model": self.id,
            "method": self.settings.method,
            "runtime": self.runtime,
            "precision": self.precision,
            "device": self.session.device,
            "mirror": self.settings.mirror,
            "size": list(self.settings.size),
            "interpolation": self.settings.interpolation,
            "backend": self.settings.backend,
            "metric": self.settings.metric,
            "dimension": self.dimension,
        }

    def describe(
        self,
        images: Pictures | NDArray[np.float32] | Tensor,
        modalities: Numbers,
        camids: Numbers | None = None,
    ) -> Tensor:
        """Vectors of pictures, (N, D) float32 of unit length, 32 pictures at a time.

        Args:
            images: (N, H, W, 3) uint8, or (N, 3, H, W) float32 in 0..1; RGB, of the model's size.
            modalities: one value of `Modality` for each picture, or one for all.
            camids: camera of each picture as the model's training data number it, or one for all; a model that looks at
                cameras has an answer for those it does not know. None: not known of any picture.
        Raises:
            DataError: the pictures have another size, type or range, the modalities are none, or there are not as many
                cameras as pictures.
        """
        shown = images.numpy() if isinstance(images, Tensor) else images
        self._check_shape(shown)
        kinds = _check_modalities(modalities, len(shown))
        cameras = _one_each(UNKNOWN_CAMERA if camids is None else camids, "cameras", len(shown))
        vectors = [torch.empty(0, self.dimension)]
        for start in range(0, len(shown), BATCH):
            rows = slice(start, start + BATCH)
            vectors.append(self.session.run(to_images(shown[rows]), kinds[rows], cameras[rows]))
        return torch.cat(vectors)

    def resize(self, pictures: Sequence[Picture]) -> Pictures:
        """Pictures of any size as the model wants them, (N, H, W, 3) uint8, with the filter that belongs to it.

        Args:
            pictures: (h, w, 3) uint8 RGB each.
        """
        settings = self.settings
        shown = np.empty((len(pictures), *settings.size, 3), np.uint8)
        for row, picture in enumerate(pictures):
            shown[row] = resize(picture, settings.size, interpolation=settings.interpolation, backend=settings.backend)
        return shown

    def _check_shape(self, images: NDArray[Any]) -> None:
        height, width = self.settings.size
        kinds: dict[Any, tuple[int, ...]] = {np.dtype("u1"): (height, width, 3), np.dtype("f4"): (3, height, width)}
        if images.dtype not in kinds:
            raise DataError(f"pictures are {images.dtype}; give uint8 (N, H, W, 3) or float32 (N, 3, H, W) in 0..1")
        if images.shape[1:] != kinds[images.dtype]:
            raise DataError(
                f"pictures are {images.shape}, model {self.id} takes (N, *{kinds[images.dtype]}) of {images.dtype}; "
                f"bring them to {width} x {height} with Model.resize"
            )


def to_images(pictures: NDArray[Any]) -> Tensor:
    """What a session takes, (N, 3, H, W) float32 in 0..1.

    Args:
        pictures: (N, H, W, 3) uint8, or (N, 3, H, W) float32 in 0..1; may be read-only, e.g. mapped from a file.
    Raises:
        DataError: floats outside 0..1.
    """
    if pictures.dtype == np.uint8:
        return to_tensor(to_float(pictures))
    low, high = float(pictures.min()), float(pictures.max())
    if not (low >= 0 and high <= 1):
        raise DataError(f"pictures hold values from {low:g} to {high:g}; give uint8, or float32 in 0..1")
    return torch.from_numpy(pictures if pictures.flags.writeable else pictures.copy())


def open_model(
    place: Path,
    *,
    precision: str = "auto",
    device: Device = "auto",
    mirror: bool | None = None,
    trust_code: bool = False,
) -> Model:
    """Open a run, a checkpoint or an artefact.

    Args:
        place: run folder, checkpoint file or folder of `tapetum export`.
        precision: "fp32", "bf16", or "auto": bf16 where the machine computes it fast and no vector turns away from
            its fp32 form (cosine above 0.999), else fp32.
        device: "auto" takes a GPU where there is one.
        mirror: join each picture with its mirror; None takes the recipe's choice. An artefact's own stands.
        trust_code: a TorchScript artefact is a program; true runs it. For files that you made yourself.
    Raises:
        CheckpointError: nothing there, damaged, of another version, or a library is missing.
        RecipeError: this precision is not available here.
    """
    if not is_artefact(place):
        return _open_run(place, precision, device, mirror)
    model = open_artefact(place, precision=precision, device=device, trust_code=trust_code)
    if mirror is not None and mirror != model.settings.mirror:
        raise RecipeError(
            f"{place}: mirror is {model.settings.mirror} in this artefact; export the run with "
            f"{'--mirror' if mirror else '--no-mirror'}"
        )
    return model


def open_artefact(folder: Path, *, precision: str = "auto", device: Device = "auto", trust_code: bool = False) -> Model:
    """Open an artefact.

    Args:
        folder: of `tapetum export`.
        precision: as for `open_model`.
        device: as for `open_model`.
        trust_code: as for `open_model`.
    Raises:
        ArtefactError: damaged, of another version, or a library is missing.
        RecipeError: this precision is not available here.
    """
    artefact = read_artefact(folder)
    if artefact.runtime == "torchscript" and not trust_code:
        raise ArtefactError(
            f"{folder}: TorchScript is a program that would run here; allow it for a file of your own (trust_code, "
            "--trust-code), or export to onnx or openvino"
        )

    def start(chosen: Precision) -> NetworkSession:
        try:
            return SESSIONS[artefact.runtime](folder, chosen, device)
        except (ArtefactError, RecipeError):
            raise
        except Exception as error:  # the libraries raise types of their own
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ArtefactError(f"{folder}: {artefact.runtime} cannot open it ({reason}); export it again") from error

    wanted = _resolve(precision, artefact.runtime, str(folder))
    session, cosine = start(wanted), 1.0
    if wanted != "fp32":
        cosine = _cosine(session, read_probe(folder))
        if cosine <= MIN_COSINE:
            _refuse_unless_auto(precision, cosine, str(folder))
            session, cosine = start("fp32"), 1.0
    return Model(
        artefact.model,
        artefact.settings,
        artefact.runtime,
        artefact.dimension,
        session,
        cosine,
        artefact.calibration,
    )


def settings_of(header: Header, place: Path, mirror: bool | None = None) -> ModelSettings:
    """How a checkpoint's model sees pictures.

    Args:
        header: of the checkpoint; says its normalisation.
        place: the file, for messages.
        mirror: None takes the recipe's choice.
    Raises:
        RecipeError: the checkpoint does not hold a whole recipe.
    """
    recipe = check_recipe(header.recipe, f"in {place}")
    return ModelSettings(
        method=header.method,
        options=dict(header.options),
        size=recipe.data.size,
        interpolation=recipe.data.interpolation,
        backend=recipe.data.backend,
        mirror=recipe.evaluation.mirror if mirror is None else mirror,
        normalisation=header.normalisation,
    )


def stored_calibration(place: Path, checkpoint: Path, settings: ModelSettings) -> dict[str, Any]:
    """What `tapetum calibrate` left beside a run, if it was for these weights and settings; else without pairs.

    Args:
        place: run folder or checkpoint file.
        checkpoint: the file of its weights.
        settings: how its model sees pictures.
    Raises:
        CheckpointError: the calibration is damaged.
    """
    path = calibration_path(place)
    if not path.exists():
        return {"pairs": {}}
    calibration = read_calibration(path)
    own = {
        "checkpoint": digest_file(checkpoint)[:16],
        "mirror": settings.mirror,
        "size": list(settings.size),
        "interpolation": settings.interpolation,
        "backend": settings.backend,
    }
    fits = all(calibration.model.get(name) == value for name, value in own.items())
    return to_content(calibration) if fits else {"pairs": {}}


def import_extra(library: str) -> ModuleType:
    """A library of the extra "export".

    Args:
        library: its name.
    Raises:
        ArtefactError: it is not installed.
    """
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise ArtefactError(
            f"{library} cannot be imported ({error}); install it with `pip install tapetum[export]`"
        ) from None


class TorchSession:
    """A method computed by PyTorch, channels last.

    Args:
        precision: of its arithmetic.
        device: where it runs.
        mirror: join each picture with its mirror.
    """

    def __init__(self, network: nn.Module, precision: Precision, device: torch.device, mirror: bool) -> None:
        self.network = network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.precision = precision
        self.device = device.type
        self.mirror = mirror

    def run(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Tensor:
        """(N, D) float32 of unit length.

        Args:
            images: (N, 3, H, W) float32 in 0..1.
            modalities: (N,) int64.
            camids: (N,) int64.
        """
        device = torch.device(self.device)
        shown, kinds, cameras = images.to(device), modalities.to(device), camids.to(device)
        with computing_in(self.precision, device), _without_tf32(device):
            vectors = embed_pictures(self.network, shown, kinds, cameras, mirror=self.mirror)
        return vectors.cpu().clone()


class OnnxSession:
    """An ONNX file computed by ONNX Runtime, in fp32.

    Args:
        folder: of the artefact.
        precision: "fp32".
        device: "auto" takes a GPU where ONNX Runtime was built for one.
    """

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
        """(N, D) float32 of unit length.

        Args:
            images: (N, 3, H, W) float32 in 0..1.
            modalities: (N,) int64.
            camids: (N,) int64.
        """
        given = dict(zip(INPUTS, (images, modalities, camids), strict=True))
        inputs = {each.name: given[each.name].contiguous().numpy() for each in self._session.get_inputs()}
        return torch.from_numpy(self._session.run(None, inputs)[0])


class OpenVinoSession:
    """Two files computed by OpenVINO on the CPU; its precision is always named and read back.

    Args:
        folder: of the artefact.
        precision: "fp32" or "bf16".
        device: "auto" or "cpu".
    """

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
        found = self._network.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if found != hint:
            raise RecipeError(f"{folder}: OpenVINO computes in {found} here, not in {hint}; use precision fp32")
        self._request = self._network.create_infer_request()
        self._lock = threading.Lock()  # a request serves one caller at a time
        self.precision = precision
        self.device = "cpu"

    def run(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Tensor:
        """(N, D) float32 of unit length.

        Args:
            images: (N, 3, H, W) float32 in 0..1.
            modalities: (N,) int64.
            camids: (N,) int64.
        """
        given = (images, modalities, camids)[: len(self._network.inputs)]
        inputs = [each.contiguous().numpy() for each in given]
        with self._lock:
            return torch.from_numpy(np.array(self._request.infer(inputs)[0]))


class TorchScriptSession:
    """A TorchScript file computed by PyTorch, in fp32.

    Args:
        folder: of the artefact.
        precision: "fp32".
        device: "auto" takes a GPU where there is one.
    """

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
        """(N, D) float32 of unit length.

        Args:
            images: (N, 3, H, W) float32 in 0..1.
            modalities: (N,) int64.
            camids: (N,) int64.
        """
        with torch.inference_mode(), _without_tf32(self._device):
            given = (images, modalities, camids)[: self._count]
            vectors: Tensor = self._network(*(each.to(self._device) for each in given))
        return vectors.cpu().clone()


SESSIONS: Mapping[Runtime, Callable[[Path, Precision, Device], NetworkSession]] = {
    "onnx": OnnxSession,
    "openvino": OpenVinoSession,
    "torchscript": TorchScriptSession,
}


def _without_tf32(device: torch.device) -> AbstractContextManager[None]:
    """On a GPU fp32 means fp32: PyTorch's convolutions would round to ten bits."""
    if device.type != "cuda":
        return nullcontext()
    without: AbstractContextManager[None] = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    return without


def _open_run(place: Path, precision: str, device: Device, mirror: bool | None) -> Model:
    checkpoint = load_checkpoint(place)
    settings = settings_of(checkpoint.header, checkpoint.path, mirror)
    identity = model_id(checkpoint.network.state_dict(), settings)
    where = choose_device(device)
    wanted = resolve_precision(precision, where, "precision")
    session = plain = TorchSession(checkpoint.network, "fp32", where, settings.mirror)
    nothing = torch.zeros(1, dtype=torch.int64)
    dimension = plain.run(torch.zeros(1, 3, *settings.size), nothing, nothing).shape[1]
    cosine = 1.0
    if wanted != "fp32":
        probe = draw_probe(settings, checkpoint.header.camids, KEPT)
        probe = replace(probe, vectors=plain.run(probe.images, probe.modalities, probe.camids))
        session = TorchSession(checkpoint.network, wanted, where, settings.mirror)
        cosine = _cosine(session, probe)
        if cosine <= MIN_COSINE:
            _refuse_unless_auto(precision, cosine, str(place))
            session, cosine = plain, 1.0
    calibration = stored_calibration(place, checkpoint.path, settings)
    return Model(identity, settings, "torch", dimension, session, cosine, calibration)


def _resolve(precision: str, runtime: Runtime, place: str) -> Precision:
    """What a precision means for an artefact on this machine."""
    if precision == "auto":
        return "bf16" if runtime == "openvino" and has_fast_bf16(CPU) else "fp32"
    if precision == "fp32":
        return "fp32"
    if precision != "bf16" or runtime != "openvino":
        raise RecipeError(f"{place}: precision {precision!r} is not available with {runtime}; use fp32 or auto")
    if not has_fast_bf16(CPU):
        raise RecipeError(
            f"{place}: precision 'bf16' needs a CPU with AMX or AVX-512 BF16, this one has neither; use fp32 or auto"
        )
    return "bf16"


def _cosine(session: NetworkSession, probe: Probe) -> float:
    return compare(session.run(probe.images, probe.modalities, probe.camids), probe.vectors)[1]


def _refuse_unless_auto(precision: str, cosine: float, place: str) -> None:
    if precision != "auto":
        raise RecipeError(
            f"{place}: in {precision} a vector keeps a cosine of {cosine:.4f} only to its fp32 form, "
            f"{MIN_COSINE} is asked; use fp32 or auto"
        )


def _check_modalities(modalities: Numbers, count: int) -> Tensor:
    kinds = _one_each(modalities, "modalities", count)
    if count and not (kinds.min() >= min(Modality) and kinds.max() <= max(Modality)):
        known = ", ".join(f"{kind.value} ({kind.name.lower()})" for kind in Modality)
        raise DataError(f"modalities run from {int(kinds.min())} to {int(kinds.max())}; known: {known}")
    return kinds


def _one_each(numbers: Numbers, name: str, count: int) -> Tensor:
    each = torch.as_tensor(numbers, dtype=torch.int64)
    if each.ndim == 0:
        each = each.expand(count)
    if each.shape != (count,):
        raise DataError(f"{count} pictures have {name} of shape {tuple(each.shape)}; give one each, or one for all")
    return each
