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
    state: list[Any] = []  # empty before the package has run; then what it has to say about other names, or None

    def answer(name: str) -> Any:
        with _GUARD:  # whoever comes while another thread runs the package waits for it
            if not state:
                state.append(None)
                try:
                    loader.exec_module(module)
                except BaseException:
                    sys.modules.pop(package, None)
                    raise
                own = vars(module).get("__getattr__")
                state[0] = None if own is answer else own
                vars(module)["__getattr__"] = answer  # stays: a thread may have found the name missing just before
        if name in vars(module):
            return vars(module)[name]
        if state[0] is not None:
            return state[0](name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    vars(module)["__getattr__"] = answer
    sys.modules[package] = module
