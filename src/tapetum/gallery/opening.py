"""Opens a gallery by its address: each backend is a file beside this one."""

from pathlib import Path

from tapetum.core.errors import GalleryError
from tapetum.gallery.schema import ModelInfo
from tapetum.gallery.store import APPROXIMATE_ABOVE, Store


def open_gallery(
    where: str | Path,
    create: ModelInfo | None = None,
    *,
    folder: Path | None = None,
    approximate_above: int = APPROXIMATE_ABOVE,
) -> Store:
    """Open a gallery, or make one.

    Args:
        where: a folder; or milvus://[user:password@]host:port/name; or milvus:///file.db/name for Milvus Lite.
        create: make it for this model where there is none; where there is one, it must be this model's.
        folder: where a Milvus gallery keeps its crops; None keeps none.
        approximate_above: rows from which compacting builds an approximate index.
    Raises:
        GalleryError: there is none, it is damaged, of a newer version or another model, or the server does not answer.
    """
    if str(where).startswith("milvus:"):
        from tapetum.gallery.milvus import open_milvus

        return open_milvus(str(where), create, folder, approximate_above)
    if "://" in str(where):
        raise GalleryError(f"{where}: unknown kind of gallery; give a folder or milvus://host:port/name")
    from tapetum.gallery.lance import open_folder

    return open_folder(Path(where), create, approximate_above)
