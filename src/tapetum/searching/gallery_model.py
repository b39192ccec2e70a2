"""The model that a gallery was made with, opened to describe pictures for a search in it."""

from pathlib import Path

from tapetum.core.errors import CheckpointError, GalleryError
from tapetum.gallery.schema import ModelInfo
from tapetum.gallery.store import Store
from tapetum.inference.model import Model
from tapetum.inference.precision import Device
from tapetum.inference.sessions import open_model
from tapetum.runs.packaged import is_present


def open_gallery_model(
    store: Store,
    place: Path | None = None,
    *,
    precision: str = "auto",
    device: Device = "auto",
    trust_code: bool = False,
    naming: str = "--model MODEL",
) -> Model:
    """The model that a gallery was made with.

    Args:
        place: run folder, checkpoint or artefact; None takes the one that the gallery remembers.
        naming: how the caller's user says where the model is, for messages.
    Raises:
        GalleryError: its model is no longer where it was, or `place` is another model.
        CheckpointError: what is at `place` cannot be opened.
    """
    place_then = store.info.place
    if place is None and not (place_then and is_present(Path(place_then))):
        state = f"was at {place_then}, where nothing is now" if place_then else "is not written down in it"
        raise GalleryError(f"{store.where}: its model ({store.info.id}) {state}; say where it is: {naming}")
    try:
        model = open_model(place or Path(place_then), precision=precision, device=device, trust_code=trust_code)
    except CheckpointError as error:
        if place is not None:
            raise
        raise GalleryError(f"{store.where}: its model cannot be opened: {error}; or name a copy: {naming}") from None
    if place is None and model.id != store.info.id:
        raise GalleryError(
            f"{store.where}: was made with model {store.info.id}, and at {place_then} is another one now ({model.id}); "
            f"name a copy of its own: {naming}; or index into another gallery"
        )
    store.expect(ModelInfo(model.id, model.dimension))
    return model
