"""Models in use: a run, a checkpoint or an artefact opened, and pictures made into vectors by it.

`Model.facts` says which arithmetic the precision asked for became; it is stored beside each vector.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tapetum.core.errors import DataError, RecipeError
from tapetum.core.method import part_for_search
from tapetum.core.types import UNKNOWN_CAMERA, EmbeddingSet, Modality, Record
from tapetum.data.image_io import Picture, resize
from tapetum.data.transforms import Bytes, to_float, to_tensor
from tapetum.inference.artefact import ArtefactError, ModelSettings, is_artefact, model_id, read_artefact
from tapetum.inference.identity import checkpoint_facts, settings_of, stored_calibration
from tapetum.inference.precision import Precision, choose_device, resolve_precision
from tapetum.inference.runtimes import SESSIONS, Device, NetworkSession, TorchSession

if TYPE_CHECKING:
    from tapetum.data.threads import Progress
    from tapetum.inference.probe import Probe
    from tapetum.runs.checkpoint import Checkpoint

Numbers = Sequence[int] | NDArray[np.int64] | Tensor | int  # one for each picture, or one for all
BATCH = 32
MIN_COSINE = 0.999  # of a vector in bf16 to the same in fp32


@dataclass(frozen=True)
class Model:
    """A model in use.

    Attributes:
        id: of its weights and settings; vectors of different ids must never be compared.
        runtime: "torch", "onnx", "openvino" or "torchscript".
        dimension: D, length of a vector.
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
        images: Bytes | NDArray[np.float32] | Tensor,
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
        pictures = images.numpy() if isinstance(images, Tensor) else images
        self._check_shape(pictures)
        count = len(pictures)
        kinds = _one_each(modalities, "modalities", count)
        if count and not (kinds.min() >= min(Modality) and kinds.max() <= max(Modality)):
            known = ", ".join(f"{kind.value} ({kind.name.lower()})" for kind in Modality)
            raise DataError(f"modalities run from {int(kinds.min())} to {int(kinds.max())}; known: {known}")
        cameras = _one_each(UNKNOWN_CAMERA if camids is None else camids, "cameras", count)
        vectors = [torch.empty(0, self.dimension)]
        for start in range(0, count, BATCH):
            rows = slice(start, start + BATCH)
            vectors.append(self.session.run(to_images(pictures[rows]), kinds[rows], cameras[rows]))
        return torch.cat(vectors)

    def describe_records(
        self,
        records: Sequence[Record],
        *,
        batch_size: int = BATCH,
        num_workers: int = 2,
        skip_corrupt: bool = False,
        progress: "Progress | None" = None,
    ) -> tuple[EmbeddingSet, list[str]]:
        """Embeddings of picture files, and one message for each damaged one that was left out.

        Args:
            num_workers: threads that decode ahead while the model computes; 0 decodes in the caller.
            skip_corrupt: leave damaged pictures out instead of stopping.
            progress: called with (done, total) pictures.
        Raises:
            DataError: no picture, or a damaged one.
        """
        from tapetum.data.loader import EvalLoader
        from tapetum.data.pictures import PictureOptions
        from tapetum.inference.embeddings import collect_embeddings

        settings = self.settings
        options = PictureOptions(settings.size, settings.interpolation, settings.backend, num_workers=num_workers)
        loader = EvalLoader(records, options, batch_size=batch_size, skip_corrupt=skip_corrupt)
        run = self.session.run
        embeddings = collect_embeddings(loader, lambda some: run(some.images, some.modalities, some.camids), progress)
        return embeddings, loader.skipped

    def resize(self, pictures: Sequence[Picture]) -> Bytes:
        """Pictures of any size as the model wants them, (N, H, W, 3) uint8, with the filter that belongs to it.

        Args:
            pictures: (h, w, 3) uint8 RGB each.
        """
        settings = self.settings
        resized = np.empty((len(pictures), *settings.size, 3), np.uint8)
        for row, picture in enumerate(pictures):
            resized[row] = resize(
                picture, settings.size, interpolation=settings.interpolation, backend=settings.backend
            )
        return resized

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
        from tapetum.runs.checkpoint import load_checkpoint

        checkpoint = load_checkpoint(place)
        model = open_checkpoint(checkpoint, place, precision=precision, device=device, mirror=mirror)
        facts = checkpoint_facts(checkpoint.path, model.settings)
        return replace(model, calibration=stored_calibration(place, facts))
    model = open_artefact(place, precision=precision, device=device, trust_code=trust_code)
    if mirror is not None and mirror != model.settings.mirror:
        raise RecipeError(
            f"{place}: mirror is {model.settings.mirror} in this artefact; export the run with "
            f"{'--mirror' if mirror else '--no-mirror'}"
        )
    return model


def open_artefact(folder: Path, *, precision: str = "auto", device: Device = "auto", trust_code: bool = False) -> Model:
    """Open an artefact; arguments as for `open_model`.

    Raises:
        ArtefactError: damaged, of another version, or a library is missing.
        RecipeError: this precision is not available here.
    """
    from tapetum.inference.probe import read_probe

    artefact = read_artefact(folder)
    if artefact.runtime == "torchscript" and not trust_code:
        raise ArtefactError(
            f"{folder}: TorchScript is a program that would run here; allow it for a file of your own (trust_code, "
            "--trust-code), or export to onnx or openvino"
        )

    def start(kind: Precision) -> NetworkSession:
        try:
            return SESSIONS[artefact.runtime](folder, kind, device)
        except (ArtefactError, RecipeError):
            raise
        except Exception as error:  # the libraries raise types of their own
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ArtefactError(f"{folder}: {artefact.runtime} cannot open it ({reason}); export it again") from error

    kind = resolve_precision(precision, torch.device("cpu"), str(folder), runtime=artefact.runtime)
    session, cosine = start(kind), 1.0
    if kind != "fp32":
        cosine = _check_cosine(session, read_probe(folder), precision, folder)
        if cosine <= MIN_COSINE:
            session, cosine = start("fp32"), 1.0
    return Model(
        artefact.model, artefact.settings, artefact.runtime, artefact.dimension, session, cosine, artefact.calibration
    )


def open_checkpoint(
    checkpoint: "Checkpoint",
    place: Path,
    *,
    precision: str = "auto",
    device: Device = "auto",
    mirror: bool | None = None,
    setting: str = "precision",
    measured: bool = False,
) -> Model:
    """Take a loaded checkpoint into use, without its calibration; other arguments as for `open_model`.

    Args:
        place: where it was found, for messages.
        setting: that names the precision, for the message.
        measured: take the precision as it is, since what it costs will be measured.
    Raises:
        RecipeError: this precision is not available here.
    """
    settings = settings_of(checkpoint.header, checkpoint.path, mirror)
    where = choose_device(device)
    kind = resolve_precision(precision, where, setting)
    network = part_for_search(checkpoint.network)
    session = plain = TorchSession(network, "fp32", where, settings.mirror)
    nothing = torch.zeros(1, dtype=torch.int64)
    dimension = plain.run(torch.zeros(1, 3, *settings.size), nothing, nothing).shape[1]
    cosine = 1.0
    if kind != "fp32":
        session = TorchSession(network, kind, where, settings.mirror)
    if kind != "fp32" and not measured:
        from tapetum.inference.probe import KEPT, draw_probe

        probe = draw_probe(settings, checkpoint.header.camids, KEPT)
        probe = replace(probe, vectors=plain.run(probe.images, probe.modalities, probe.camids))
        cosine = _check_cosine(session, probe, precision, place)
        if cosine <= MIN_COSINE:
            session, cosine = plain, 1.0
    return Model(
        id=model_id(checkpoint.network.state_dict(), settings),
        settings=settings,
        runtime="torch",
        dimension=dimension,
        session=session,
        cosine_to_fp32=cosine,
    )


def _check_cosine(session: NetworkSession, probe: "Probe", precision: str, place: Path) -> float:
    """The smallest cosine of a vector to the same in fp32; too small a one is refused where the precision was named."""
    from tapetum.inference.probe import compare

    cosine = compare(session.run(probe.images, probe.modalities, probe.camids), probe.vectors)[1]
    if cosine <= MIN_COSINE and precision != "auto":
        raise RecipeError(
            f"{place}: in {precision} a vector keeps a cosine of {cosine:.4f} only to its fp32 form, "
            f"{MIN_COSINE} is asked; use fp32 or auto"
        )
    return cosine


def _one_each(numbers: Numbers, name: str, count: int) -> Tensor:
    each = torch.as_tensor(numbers, dtype=torch.int64)
    if each.ndim == 0:
        each = each.expand(count)
    if each.shape != (count,):
        raise DataError(f"{count} pictures have {name} of shape {tuple(each.shape)}; give one each, or one for all")
    return each
