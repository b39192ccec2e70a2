"""What the commands around the service share."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tapetum.service.audit import AuditLog

LIBRARIES = ("fastapi", "uvicorn", "argon2", "prometheus_client", "python_multipart")
Gallery = Annotated[str, typer.Option("--gallery", help="Folder of the gallery, or milvus://host:port/name.")]
Folder = Annotated[Path | None, typer.Option(help="For users, log and jobs of a Milvus gallery; a folder has its own.")]


def require_libraries() -> None:
    """Refuse where the extra "serve" is not installed.

    Raises:
        RecipeError: a library cannot be imported.
    """
    from tapetum.core.errors import RecipeError
    from tapetum.core.extras import install_hint

    for library in LIBRARIES:
        try:
            importlib.import_module(library)
        except ImportError as error:
            raise RecipeError(
                f"{library} cannot be imported ({error}); install it with: {install_hint(library)}"
            ) from None


def find_folder(gallery: str, folder: Path | None) -> Path:
    """Where users, log and jobs of a gallery are; the gallery itself is not opened.

    Args:
        gallery: as the operator names it.
        folder: as the operator says.
    Raises:
        GalleryError: there is no such gallery, or one on a server without a folder.
    """
    from tapetum.core.errors import GalleryError
    from tapetum.service.state import FOLDER

    if folder is not None:
        return folder / FOLDER
    if "://" in gallery or gallery.startswith("milvus:"):
        raise GalleryError(f"{gallery}: has no folder for users and log; name one with --folder")
    if not (Path(gallery) / "gallery.json").is_file():
        raise GalleryError(f"{gallery}: no gallery is there; make one with: tapetum index SOURCE --gallery {gallery}")
    return Path(gallery) / FOLDER


def record(log: "AuditLog", action: str, **facts: object) -> None:
    """Write down what an operator did on the command line.

    Args:
        log: of the gallery.
        action: e.g. "user add".
        facts: plain values.
    """
    import getpass

    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # an account without a name
        name = "unknown"
    log.write(action, f"command line ({name})", **facts)
