"""Which model a place holds, how it sees pictures and how it is calibrated, without opening it for use."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tapetum.core.digest import digest_file
from tapetum.data.image_io import Backend, Interpolation
from tapetum.evaluation.calibration import Calibration, read_calibration, to_content
from tapetum.inference.artefact import ModelSettings, is_artefact, read_artefact
from tapetum.inference.model_id import model_id_of_file
from tapetum.runs.header import Header, find_checkpoint, read_header
from tapetum.runs.packaged import locate

FILE = "calibration.json"


@dataclass(frozen=True)
class Identity:
    """A model that lies somewhere.

    Attributes:
        id: of its weights and settings; vectors of different ids must never be compared.
        facts: with which a calibration of it agrees.
        calibration: what `tapetum calibrate` stored, as `to_content` gives it; without pairs where it was not run.
    """

    id: str
    facts: Mapping[str, Any]
    calibration: Mapping[str, Any]


def identify(place: Path) -> Identity:
    """The model of a run, a checkpoint or an artefact.

    Raises:
        CheckpointError: nothing there, or damaged.
    """
    if is_artefact(place):
        artefact = read_artefact(place)
        own = artefact.calibration.get("model", {}).get("checkpoint")
        facts = picture_facts(artefact.settings) | ({"checkpoint": own} if own else {})
        return Identity(artefact.model, facts, artefact.calibration)
    path = find_checkpoint(place)
    header = read_header(path)
    if not header.normalisation:  # written before files said it: the network knows
        from tapetum.runs.checkpoint import load_checkpoint

        header = load_checkpoint(path).header
    settings = _settings_told(header) or settings_of(header, path)
    facts = checkpoint_facts(path, settings)
    return Identity(model_id_of_file(path, settings), facts, stored_calibration(place, facts))


def settings_of(header: Header, place: Path, mirror: bool | None = None) -> ModelSettings:
    """How a checkpoint's model sees pictures.

    Args:
        place: the file, for messages.
        mirror: None takes the recipe's choice.
    Raises:
        RecipeError: the checkpoint does not hold a whole recipe.
    """
    from tapetum.runs.recipe import check_recipe

    recipe = check_recipe(header.recipe, f"in {place}")
    data, usual = recipe.data, recipe.evaluation.mirror
    return _settings(header, data.size, data.interpolation, data.backend, mirror=usual if mirror is None else mirror)


def _settings_told(header: Header) -> ModelSettings | None:
    """As `settings_of`, of a recipe that says all of it; nothing is checked, for which its method would be imported."""
    try:
        data, mirror = header.recipe["data"], header.recipe["evaluation"]["mirror"]
        height, width = data["size"]
        size = int(height), int(width)
        return _settings(header, size, data["interpolation"], data["backend"], mirror=bool(mirror))
    except (KeyError, TypeError, ValueError):
        return None


def _settings(
    header: Header, size: tuple[int, int], interpolation: Interpolation, backend: Backend, *, mirror: bool
) -> ModelSettings:
    return ModelSettings(
        method=header.method,
        options=dict(header.options),
        size=size,
        interpolation=interpolation,
        backend=backend,
        mirror=mirror,
        normalisation=header.normalisation,
    )


FILLING_METHODS = ("dart", "deen", "mmn")  # with `Method.filling`, known here without their networks


def checkpoint_facts(checkpoint: Path, settings: ModelSettings) -> dict[str, Any]:
    """What calibrations and files of embeddings say about the weights and the pictures that made them."""
    return {"checkpoint": digest_file(checkpoint)[:16], **picture_facts(settings)}


def picture_facts(settings: ModelSettings) -> dict[str, Any]:
    """How pictures were read, as plain values."""
    return {
        "mirror": settings.mirror,
        "size": list(settings.size),
        "interpolation": settings.interpolation,
        "backend": settings.backend,
        **({"filled": False} if settings.method in FILLING_METHODS else {}),  # an earlier version's were
    }


def calibration_path(place: Path) -> Path:
    """Where the calibration of a run or a checkpoint lies."""
    place = locate(place)
    return place / FILE if place.is_dir() else place.with_suffix(".calibration.json")


def stored_calibration(place: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What `tapetum calibrate` left beside a run, if it was for these weights and settings; else without pairs.

    Args:
        place: run folder or checkpoint file.
        facts: of `checkpoint_facts`.
    Raises:
        CheckpointError: the calibration is damaged.
    """
    path = calibration_path(place)
    if not path.exists():
        return {"pairs": {}}
    calibration = read_calibration(path)
    fits = all(calibration.model.get(name) == value for name, value in facts.items())
    return to_content(calibration) if fits else {"pairs": {}}


def find_calibration(place: Path, facts: Mapping[str, Any], file: Path | None = None) -> Calibration | None:
    """The calibration of a model in use, or None where none was made.

    Args:
        place: run folder or checkpoint file.
        facts: of what makes its vectors.
        file: a calibration elsewhere, which must exist.
    Raises:
        CheckpointError: it is damaged.
        ProtocolError: it belongs to another model.
    """
    path = file or calibration_path(place)
    if file is None and not path.exists():
        return None
    calibration = read_calibration(path)
    calibration.check_model(facts, str(path))
    return calibration
