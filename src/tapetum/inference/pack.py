"""A checkpoint made small, for search: weights in float16, and nothing that only its training's people need."""

import dataclasses
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from tapetum.core.digest import digest_file
from tapetum.core.errors import OutputError
from tapetum.core.method import Method
from tapetum.inference.artefact import ExportError
from tapetum.inference.identity import settings_of
from tapetum.inference.probe import compare
from tapetum.inference.probe_scene import draw_probe
from tapetum.methods import build_method
from tapetum.runs.checkpoint import load_checkpoint, save_checkpoint
from tapetum.runs.header import FEWEST_CLASSES, PACKED_FROM, Header

MIN_COSINE = 0.9999  # of a vector to what it was before
SUFFIX = ".safetensors"


@dataclasses.dataclass(frozen=True)
class Packed:
    """What was written."""

    path: Path
    bytes: int
    min_cosine: float  # of a vector of the probe to what it was before
    header: Header


def pack_checkpoint(place: Path, out: Path) -> Packed:
    """Write a run's or a checkpoint's weights in float16, without classifiers; opened, they are float32 again.

    What has one axis, as in norms, stays as it is: it is little, and a variance has no place in a half.

    Args:
        out: the file, absent; named ``.safetensors``.
    Raises:
        ExportError: its vectors would turn away from what they were, or hang on the classifier, or it is packed.
        OutputError: `out` is taken, has another ending or cannot be written.
    """
    if out.suffix != SUFFIX:
        raise OutputError(f"{out}: is no name of a file of weights; write one that ends in {SUFFIX}")
    if out.exists():
        raise OutputError(f"{out}: is there already; name another file or remove it")
    checkpoint = load_checkpoint(place)
    header = checkpoint.header
    if header.is_packed:
        raise ExportError(f"{checkpoint.path}: is packed already; copy the file")
    settings = settings_of(header, checkpoint.path)
    small = build_method(header.method, header.options, FEWEST_CLASSES, camids=header.camids, size=settings.size)
    own = small.state_dict()
    kept = {
        name: _shorten(tensor if tensor.shape == own[name].shape else torch.zeros_like(own[name]))
        for name, tensor in checkpoint.network.state_dict().items()
    }
    small.load_state_dict(kept)
    probe = draw_probe(settings, header.camids)
    inputs = tuple(map(torch.from_numpy, (probe.images, probe.modalities, probe.camids)))

    def embed(network: nn.Module) -> Tensor:
        with torch.no_grad():
            return cast(Method, network.eval()).embed(*inputs, mirror=settings.mirror)

    cosine = compare(embed(small), embed(checkpoint.network))[1]
    if cosine < MIN_COSINE:
        raise ExportError(
            f"{checkpoint.path}: in float16 without its classifier its vectors turn away (cosine {cosine:.5f}, allowed "
            f"{MIN_COSINE}); use the checkpoint itself"
        )
    origin = {**header.origin, PACKED_FROM: digest_file(checkpoint.path)[:16], "trained_on_ids": header.num_ids}
    header = dataclasses.replace(header, num_ids=FEWEST_CLASSES, origin=origin)
    save_checkpoint(out, small, header, tensors=kept)
    return Packed(out, out.stat().st_size, cosine, header)


def _shorten(tensor: Tensor) -> Tensor:
    """Halves, as float32 where a half cannot hold them."""
    if tensor.ndim < 2 or not tensor.is_floating_point():
        return tensor
    half = tensor.half()
    return half if torch.isfinite(half).all() else tensor
