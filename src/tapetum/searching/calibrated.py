"""What is known of a model's similarities: the calibration of a model in use, or of the one a gallery was made with."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tapetum.core.errors import CheckpointError, GalleryError
from tapetum.evaluation.calibration import Calibration, from_content, read_calibration
from tapetum.gallery.schema import ModelInfo
from tapetum.gallery.store import Store
from tapetum.inference.artefact import is_artefact
from tapetum.inference.identity import identify
from tapetum.inference.model import Model


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
        known = identify(where)
    except CheckpointError as error:
        if place is not None or file is not None:
            raise
        return None, str(error)
    if place is not None or file is not None:
        store.expect(ModelInfo(known.id, store.info.dimension))
    elif known.id != store.info.id:
        return None, f"{where}: holds another model now than the one this gallery was made with"
    if file is None:
        return _from_stored(known.calibration, str(where)), ""
    calibration = read_calibration(file)
    comparable = {name: value for name, value in calibration.model.items() if name in known.facts}
    replace(calibration, model=comparable).check_model(known.facts, str(file))
    return calibration, ""


def _from_stored(content: Mapping[str, object], place: str) -> Calibration | None:
    return from_content(dict(content), place) if content.get("pairs") else None


def advise_calibration(store: Store) -> str:
    """How a gallery's model becomes calibrated."""
    place = Path(store.info.place or "RUN")
    if is_artefact(place):
        return "run `tapetum calibrate` on the run that this model was exported from, and export it again"
    return f"run `tapetum calibrate {place}`"
