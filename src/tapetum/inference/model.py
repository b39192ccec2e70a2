"""A model in use: pictures made into vectors, whatever computes them.

`Model.facts` says which arithmetic the precision asked for became; it is stored beside each vector.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np
from numpy.typing import NDArray

from tapetum.core.arrays import Real, Whole
from tapetum.core.errors import DataError, RecipeError
from tapetum.core.types import UNKNOWN_CAMERA, Batch, EmbeddingSet, Modality, Record
from tapetum.data.image_io import Picture, check_picture, resize
from tapetum.data.pictures import Pictures, to_float
from tapetum.inference.artefact import ModelSettings
from tapetum.inference.precision import Precision
from tapetum.inference.runtimes import NetworkSession

if TYPE_CHECKING:
    from torch import Tensor

    from tapetum.data.threads import Progress
    from tapetum.inference.probe import Probe

Numbers = Union[Sequence[int], Whole, "Tensor", int]  # one for each picture, or one for all
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
        images: "Pictures | Real | Tensor",
        modalities: Numbers,
        camids: Numbers | None = None,
    ) -> "Tensor":
        """Vectors of pictures as a tensor; otherwise as `vectors_of`."""
        import torch

        return torch.from_numpy(self.vectors_of(images, modalities, camids))

    def vectors_of(
        self,
        images: "Pictures | Real | Tensor",
        modalities: Numbers,
        camids: Numbers | None = None,
    ) -> Real:
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
        pictures: NDArray[Any] = images if isinstance(images, np.ndarray) else images.numpy()
        self._check_shape(pictures)
        count = len(pictures)
        kinds = _one_each(modalities, "modalities", count)
        if count and not (kinds.min() >= min(Modality) and kinds.max() <= max(Modality)):
            known = ", ".join(f"{kind.value} ({kind.name.lower()})" for kind in Modality)
            raise DataError(f"modalities run from {int(kinds.min())} to {int(kinds.max())}; known: {known}")
        cameras = _one_each(UNKNOWN_CAMERA if camids is None else camids, "cameras", count)
        vectors = [np.empty((0, self.dimension), dtype=np.float32)]
        for start in range(0, count, BATCH):
            rows = slice(start, start + BATCH)
            vectors.append(self.session.run(to_images(pictures[rows]), kinds[rows], cameras[rows]))
        return np.concatenate(vectors)

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
        import torch

        from tapetum.data.loader import EvalLoader
        from tapetum.data.pictures import PictureOptions
        from tapetum.inference.embeddings import collect_embeddings

        settings = self.settings
        options = PictureOptions(settings.size, settings.interpolation, settings.backend, num_workers=num_workers)
        loader = EvalLoader(records, options, batch_size=batch_size, skip_corrupt=skip_corrupt)
        run = self.session.run

        def embed(some: Batch) -> "Tensor":
            return torch.from_numpy(run(some.images.numpy(), some.modalities.numpy(), some.camids.numpy()))

        embeddings = collect_embeddings(loader, embed, progress)
        return embeddings, loader.skipped

    def resize(self, pictures: Sequence[Picture]) -> Pictures:
        """Pictures of any size as the model wants them, (N, H, W, 3) uint8, with the filter that belongs to it.

        Args:
            pictures: (h, w, 3) uint8 RGB each.
        Raises:
            DataError: one is none.
        """
        settings = self.settings
        resized = np.empty((len(pictures), *settings.size, 3), np.uint8)
        for row, picture in enumerate(pictures):
            check_picture(picture, f"picture {row}")
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


def to_images(pictures: NDArray[Any]) -> Real:
    """What a session takes, (N, 3, H, W) float32 in 0..1.

    Args:
        pictures: (N, H, W, 3) uint8, or (N, 3, H, W) float32 in 0..1; may be read-only, e.g. mapped from a file.
    Raises:
        DataError: floats outside 0..1.
    """
    if pictures.dtype == np.uint8:
        return to_float(pictures).transpose(0, 3, 1, 2)
    low, high = float(pictures.min()), float(pictures.max())
    if not (low >= 0 and high <= 1):
        raise DataError(f"pictures hold values from {low:g} to {high:g}; give uint8, or float32 in 0..1")
    return pictures if pictures.flags.writeable else pictures.copy()  # PyTorch warns of memory it may not write to


def check_cosine(session: NetworkSession, probe: "Probe", precision: str, place: Path) -> float:
    """The smallest cosine of a vector to the same in fp32; too small a one is refused where the precision was named."""
    from tapetum.inference.probe import compare

    cosine = compare(session.run(probe.images, probe.modalities, probe.camids), probe.vectors)[1]
    if cosine <= MIN_COSINE and precision != "auto":
        raise RecipeError(
            f"{place}: in {precision} a vector keeps a cosine of {cosine:.4f} only to its fp32 form, "
            f"{MIN_COSINE} is asked; use fp32 or auto"
        )
    return cosine


def _one_each(numbers: Numbers, name: str, count: int) -> Whole:
    plain = numbers if isinstance(numbers, int | Sequence | np.ndarray) else numbers.cpu().numpy()
    each = np.array(plain, dtype=np.int64)
    if each.ndim == 0:
        each = np.full(count, each)
    if each.shape != (count,):
        raise DataError(f"{count} pictures have {name} of shape {each.shape}; give one each, or one for all")
    return each
