"""A checkpoint in use, computed by PyTorch."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from tapetum.core.method import part_for_search
from tapetum.inference.devices import choose_device
from tapetum.inference.identity import settings_of
from tapetum.inference.model import MIN_COSINE, Model, check_cosine
from tapetum.inference.model_id import model_id
from tapetum.inference.precision import Device, resolve_precision
from tapetum.inference.torch_sessions import TorchSession
from tapetum.runs.checkpoint import Checkpoint


def open_checkpoint(
    checkpoint: Checkpoint,
    place: Path,
    *,
    precision: str = "auto",
    device: Device = "auto",
    mirror: bool | None = None,
    setting: str = "precision",
    measured: bool = False,
    filled: bool = False,
) -> Model:
    """Take a loaded checkpoint into use, without its calibration; other arguments as for `sessions.open_model`.

    Args:
        place: where it was found, for messages.
        setting: that names the precision, for the message.
        measured: take the precision as it is, since what it costs will be measured.
        filled: as for `TorchSession`.
    Raises:
        RecipeError: this precision is not available here.
    """
    settings = settings_of(checkpoint.header, checkpoint.path, mirror)
    where = choose_device(device, "device")
    network = part_for_search(checkpoint.network)
    kind = resolve_precision(precision, where.type, setting, network=network)
    session = plain = TorchSession(network, "fp32", where, settings.mirror, filled=filled)
    nothing = np.zeros(1, dtype=np.int64)
    dimension = plain.run(np.zeros((1, 3, *settings.size), dtype=np.float32), nothing, nothing).shape[1]
    cosine = 1.0
    if kind != "fp32":
        session = TorchSession(network, kind, where, settings.mirror, filled=filled)
    if kind != "fp32" and not measured:
        from tapetum.inference.probe import KEPT
        from tapetum.inference.probe_scene import draw_probe

        probe = draw_probe(settings, checkpoint.header.camids, KEPT)
        probe = replace(probe, vectors=plain.run(probe.images, probe.modalities, probe.camids))
        cosine = check_cosine(session, probe, precision, place)
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
