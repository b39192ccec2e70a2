"""What is known of a model's similarities: the calibration of a model in use, or of the one a gallery was made with."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tapetum.core.errors import CheckpointError, GalleryError
from tapetum.evaluation.calibration import Calibration, from_content, read_calibration
from tapetum.gallery.schema import ModelInfo
from tapetum.gallery.store import Store
from tapetum.inference.artefact import digest_file, is_artefact, model_id, read_artefact
from tapetum.inference.sessions import Model, settings_of, stored_calibration
from tapetum.runs.checkpoint import find_checkpoint, load_checkpoint, read_header, read_tensors


def stored_calibration_of(model: Model) -> Calibration | None:
    """What `tapetum calibrate` found for a model in use; None where it did not run for it.

    Raises:
        CheckpointError: the calibration is damaged.
    """
    return _from_stored(model.calibration, f"calibration of model {model.id}")


def calibration_of_gallery(
    store: Store, place: Path | None = None, file: Path | None = None
) -> tuple[Calibration | None, str]:
    """The calibration of a gallery's model, without opening the model for use.

    Args:
        place: run folder, checkpoint or artefact; None takes the one that the gallery remembers.
        file: a calibration elsewhere, which must be of that model.
    Returns:
        The calibration, or None and why it cannot be told; without a reason, nobody calibrated that model.
    Raises:
        GalleryError: `place` is another model.
        CheckpointError: `place` or `file` is damaged.
        ProtocolError: `file` is of another model.
    """
    if place is None and not store.info.place:
        why = f"{store.where}: does not say where its model is"
        if file is not None:
            raise GalleryError(f"{why}, so that {file} cannot be checked; give the model too")
        return None, why
    where = place or Path(store.info.place)
    try:
        model, facts, content = _read_model(where)
    except CheckpointError as error:
        if place is not None or file is not None:
            raise
        return None, str(error)
    if place is not None or file is not None:
        store.expect(ModelInfo(model, store.info.dimension))
    elif model != store.info.id:
        return None, f"{where}: holds another model now than the one this gallery was made with"
    if file is None:
        return _from_stored(content, str(where)), ""
    calibration = read_calibration(file)
    known = {name: value for name, value in calibration.model.items() if name in facts}
    replace(calibration, model=known).check_model(facts, str(file))
    return calibration, ""


def _read_model(place: Path) -> tuple[str, dict[str, object], Mapping[str, object]]:
    """A model's id, what a calibration must agree with, and the calibration stored there."""
    facts: dict[str, object] = {}
    if is_artefact(place):
        artefact = read_artefact(place)
        settings, content, model = artefact.settings, artefact.calibration, artefact.model
        if checkpoint := content.get("model", {}).get("checkpoint"):
            facts["checkpoint"] = checkpoint
    else:
        path = find_checkpoint(place)
        header = read_header(path)
        if not header.normalisation:  # written before files said it: the network knows
            header = load_checkpoint(path).header
        settings = settings_of(header, path)
        content = stored_calibration(place, path, settings)
        facts["checkpoint"] = digest_file(path)[:16]
        model = model_id(read_tensors(path), settings)
    facts |= {
        "mirror": settings.mirror,
        "size": list(settings.size),
        "interpolation": settings.interpolation,
        "backend": settings.backend,
    }
    return model, facts, content


def _from_stored(content: Mapping[str, object], place: str) -> Calibration | None:
    return from_content(dict(content), place) if content.get("pairs") else None


def advise_calibration(store: Store) -> str:
    """How a gallery's model becomes calibrated."""
    place = Path(store.info.place or "RUN")
    if is_artefact(place):
        return "run `tapetum calibrate` on the run that this model was exported from, and export it again"
    return f"run `tapetum calibrate {place}`"
