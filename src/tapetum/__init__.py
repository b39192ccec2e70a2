"""Tapetum: person re-identification at night.

What most programs need is here, and loaded when it is first asked for: ``import tapetum`` alone costs nothing.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "Model",
    "embed",
    "evaluate",
    "from_hub",
    "index",
    "list_datasets",
    "list_methods",
    "list_recipes",
    "load_model",
    "open_gallery",
    "push_to_hub",
    "search",
]

if TYPE_CHECKING:
    from tapetum.inference.model import Model
    from tapetum.public_api import (
        embed,
        evaluate,
        from_hub,
        index,
        list_datasets,
        list_methods,
        list_recipes,
        load_model,
        open_gallery,
        push_to_hub,
        search,
    )


def __getattr__(name: str) -> Any:
    """What `tapetum.public_api` defines, and the type of its models."""
    if name == "Model":
        from tapetum.inference.model import Model

        return Model
    if name in __all__:
        from tapetum import public_api

        return getattr(public_api, name)
    raise AttributeError(f"module 'tapetum' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    """What can be asked for."""
    return sorted([*__all__, "__version__"])
