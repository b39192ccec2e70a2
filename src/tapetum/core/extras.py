"""Which optional part of the package brings which library: the one place that says so."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from tapetum.core.errors import MissingLibraryError

P = ParamSpec("P")
R = TypeVar("R")

EXTRAS = {  # library, as it is imported -> extra of the package
    "lightning": "train",
    "tensorboard": "train",
    "av": "footage",
    "lancedb": "gallery",
    "pyarrow": "gallery",
    "matplotlib": "plot",
    "argon2": "serve",
    "fastapi": "serve",
    "prometheus_client": "serve",
    "python_multipart": "serve",
    "starlette": "serve",
    "uvicorn": "serve",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "openvino": "export",
    "pymilvus": "milvus",
    "ray": "ray",
}


def install_hint(library: str) -> str:
    """The command that installs a library of an extra, as every shell takes it."""
    return f"pip install 'tapetum[{EXTRAS[library]}]'"


def explain_missing(error: ModuleNotFoundError) -> MissingLibraryError | None:
    """What to install after a failed import; None where the library belongs to no extra."""
    library = (error.name or "").partition(".")[0]
    if library not in EXTRAS:
        return None
    return MissingLibraryError(
        f"{library} is not installed, and this needs it; install it with: {install_hint(library)}"
    )


def naming_extras(function: Callable[P, R]) -> Callable[P, R]:
    """A function whose missing libraries are errors that say what to install."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except ModuleNotFoundError as error:
            raise explain_missing(error) or error from None

    return call
