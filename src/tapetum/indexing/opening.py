"""A gallery and the model whose vectors it takes, opened together."""

from pathlib import Path

from tapetum.core.errors import MissingGalleryError
from tapetum.gallery.opening import open_gallery
from tapetum.gallery.store import Store
from tapetum.indexing.index import open_gallery_for
from tapetum.indexing.shards import one_maker
from tapetum.inference.model import Model
from tapetum.inference.sessions import open_model
from tapetum.runs.packaged import DEFAULT
from tapetum.searching.gallery_model import open_gallery_model


def open_to_index(
    gallery: str,
    place: Path | None = None,
    *,
    folder: Path | None = None,
    precision: str = "auto",
    trust_code: bool = False,
) -> tuple[Store, Model]:
    """A gallery, made where there is none, and its model.

    Args:
        gallery: a folder or a Milvus address.
        place: run folder, checkpoint or artefact; None takes the one that the gallery remembers, for a new one the
            packaged model.
        folder: for the crops of a Milvus gallery.
    Raises:
        GalleryError: it is another model's, its model is no longer there, or it cannot be opened.
        CheckpointError: the model cannot be opened.
    """
    try:
        store = open_gallery(gallery, folder=folder)
    except MissingGalleryError:
        where = place or Path(DEFAULT)
        model = open_model(where, precision=precision, trust_code=trust_code)
        with one_maker(folder or Path(gallery)):
            return open_gallery_for(gallery, model, where, folder), model
    return store, open_gallery_model(store, place, precision=precision, trust_code=trust_code)
