"""Embeddings of pictures: computed, written and read."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from tapetum.core.atomic import make_folder, write_bytes
from tapetum.core.errors import DataError, MethodError
from tapetum.core.method import Method
from tapetum.core.types import Batch, EmbeddingSet
from tapetum.data.loader import EvalLoader
from tapetum.data.threads import Progress
from tapetum.inference.devices import computing_in
from tapetum.inference.precision import Precision

FORMAT = 1
HEADER = "tapetum_embeddings"
CPU_PIXELS = 8 * 384 * 144  # that a CPU computes at once: the maps of more leave its caches and its kept memory
LENGTH_TOLERANCE = 1e-3
FIELDS = ("vectors", "pids", "camids", "modalities")


def extract(
    network: nn.Module,
    loader: EvalLoader,
    *,
    precision: Precision = "fp32",
    mirror: bool = True,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> EmbeddingSet:
    """Embeddings of every picture of a loader, in its order.

    Args:
        network: a method, on `device`; it is put into evaluation mode and back afterwards.
        precision: arithmetic of the network; vectors are float32 in any case.
    """
    device = torch.device(device)
    was_training = network.training
    network.eval()

    def embed(batch: Batch) -> Tensor:
        there = batch.to(device)
        return embed_pictures(network, there.images, there.modalities, there.camids, mirror=mirror)

    with computing_in(precision, device):
        embeddings = collect_embeddings(loader, embed, progress)
    network.train(was_training)
    return embeddings


def embed_pictures(network: nn.Module, images: Tensor, modalities: Tensor, camids: Tensor, *, mirror: bool) -> Tensor:
    """(B, D) vectors, float32, of pictures where the network is; on a CPU a few pictures at a time, which is faster.

    Args:
        network: a method in evaluation mode.
        images: (B, 3, H, W) float32 in 0..1.
        modalities: (B,) int64.
        camids: (B,) int64.
    Raises:
        MethodError: what the method gives is no vector of unit length for each picture.
    """
    height, width = images.shape[2:]
    step = max(1, CPU_PIXELS // (height * width)) if images.device.type == "cpu" else len(images)
    vectors = []
    with torch.inference_mode():
        for start in range(0, len(images), step):
            rows = slice(start, start + step)
            pictures = images[rows].contiguous(memory_format=torch.channels_last)
            part = cast(Method, network).embed(pictures, modalities[rows], camids[rows], mirror=mirror)
            check_vectors(part, len(pictures), type(network).__module__)
            vectors.append(part.float())
        return torch.cat(vectors)


def check_vectors(vectors: Any, count: int, place: str) -> None:
    """Complain about vectors that cannot be searched with; a picture of which a network says nothing may have zeros.

    Raises:
        MethodError: there are no (count, D), or one is neither of unit length nor zero.
    """
    if not isinstance(vectors, Tensor) or vectors.ndim != 2 or len(vectors) != count:
        shape = tuple(vectors.shape) if isinstance(vectors, Tensor) else type(vectors).__name__
        raise MethodError(f"{place}: embed gives {shape} for {count} pictures; give a tensor of shape ({count}, D)")
    lengths = vectors.float().norm(dim=1)
    wrong = ~(((lengths - 1).abs() < LENGTH_TOLERANCE) | (lengths == 0))
    if bool(wrong.any()):
        raise MethodError(
            f"{place}: embed gives vectors of length {float(lengths[wrong][0]):.4g}; give each unit length, e.g. by "
            "tapetum.core.vectors.normalise"
        )


def collect_embeddings(
    loader: EvalLoader, embed: Callable[[Batch], Tensor], progress: Progress | None = None
) -> EmbeddingSet:
    """What `embed` makes of every batch of a loader, in its order."""
    vectors, pids, camids, modalities = [], [], [], []
    done = 0
    for batch in loader:
        vectors.append(embed(batch).cpu())
        pids.append(batch.pids)
        camids.append(batch.camids)
        modalities.append(batch.modalities)
        done += len(batch)
        if progress:
            progress(done, len(loader.records))
    return EmbeddingSet(
        vectors=torch.cat(vectors).clone(),
        paths=tuple(record.path for record in loader.records),
        pids=torch.cat(pids),
        camids=torch.cat(camids),
        modalities=torch.cat(modalities),
    )


def save_embeddings(path: Path, embeddings: EmbeddingSet, facts: Mapping[str, Any]) -> None:
    """Write embeddings as one safetensors file, whole or not at all.

    Args:
        facts: what made them (checkpoint, precision, mirror, ...); vectors of different making must not be mixed.
    Raises:
        OutputError: it cannot be written.
    """
    make_folder(path.parent)
    header = {"format": FORMAT, "paths": [str(path) for path in embeddings.paths], "facts": dict(facts)}
    tensors = {name: getattr(embeddings, name).contiguous() for name in FIELDS}
    write_bytes(path, save(tensors, metadata={HEADER: json.dumps(header, ensure_ascii=False)}))


def read_embeddings(path: Path) -> tuple[EmbeddingSet, dict[str, Any]]:
    """Embeddings and what is known about their making.

    Raises:
        DataError: no such file, damaged, or not such a file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(HEADER)
            tensors = {name: file.get_tensor(name) for name in FIELDS} if text else {}
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; make one with `tapetum extract`") from None
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: cannot be read as embeddings ({error}); make it with `tapetum extract`") from None
    if text is None:
        raise DataError(f"{path}: holds no embeddings; make such a file with `tapetum extract`")
    try:
        header = json.loads(text)
        paths = tuple(Path(name) for name in header["paths"])
        version, facts = header["format"], dict(header["facts"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged header ({error}); extract again") from None
    if version != FORMAT:
        raise DataError(f"{path}: format {version}, this version reads {FORMAT}; extract again")
    if any(len(tensor) != len(paths) for tensor in tensors.values()):
        raise DataError(f"{path}: damaged, its {len(paths)} pictures do not fit its vectors; extract again")
    return EmbeddingSet(paths=paths, **tensors), facts
