"""Packages whose own file is run when somebody first asks them for a name, rather than when they are imported."""

import sys
import threading
from importlib.util import find_spec, module_from_spec
from typing import Any

_GUARD = threading.RLock()


def postpone(package: str) -> None:
    """Let a package's modules be imported without running the package's own ``__init__.py`` first.

    It runs as soon as the package is asked for any name that is not one of its modules, so that whoever uses it finds
    the real thing; what comes late is only the time that it takes. Nothing is done where the package is imported
    already, where it is not installed, and where it is no package.
    """
    if package in sys.modules:
        return
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return
    if spec is None or spec.loader is None or spec.submodule_search_locations is None:
        return
    loader, module = spec.loader, module_from_spec(spec)

    def run(name: str) -> Any:
        with _GUARD:
            if vars(module).pop("__getattr__", None) is not None:  # else another thread has run it meanwhile
                try:
                    loader.exec_module(module)
                except BaseException:
                    sys.modules.pop(package, None)
                    raise
        try:
            return vars(module)[name]
        except KeyError:
            raise AttributeError(f"module {package!r} has no attribute {name!r}") from None

    vars(module)["__getattr__"] = run
    sys.modules[package] = module
