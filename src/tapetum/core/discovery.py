"""Files are the registration: a module in a package is found by its name, a stranger's by its dotted path."""

import importlib
import importlib.util
import os
import pkgutil
import sys
from pathlib import Path
from types import ModuleType

from tapetum.core.errors import RecipeError, nearest_name


def list_names(package: str) -> list[str]:
    """Names of the public modules of a package, sorted; files starting with ``_`` do not count."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        return []
    modules = pkgutil.iter_modules(list(spec.submodule_search_locations))
    return sorted(module.name for module in modules if not module.name.startswith("_"))


def load(package: str, name: str) -> ModuleType:
    """The module `name` of `package`; a name with a dot is imported as it stands.

    Raises:
        RecipeError: there is no such module, or a stranger's cannot be imported; the message names the nearest one.
    """
    if "." in name:
        return _load_dotted(name)
    names = list_names(package)
    if name not in names:
        kind = package.rsplit(".", 1)[-1].removesuffix("s")
        raise RecipeError(f"{kind} {name!r} is unknown; {nearest_name(name, names)}")
    return importlib.import_module(f"{package}.{name}")


def lies_beside(name: str) -> bool:
    """Whether a dotted name would import code of the working directory that nobody asked for.

    It did not where somebody imported the package already, or named the directory in PYTHONPATH.
    """
    first, here = name.split(".")[0], Path.cwd().resolve()
    asked = [Path(place).resolve() for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    if "." not in name or first in sys.modules or here in asked:
        return False
    try:
        spec = importlib.util.find_spec(first)
    except (ImportError, ValueError):
        return False
    places = [] if spec is None else [*(spec.submodule_search_locations or [spec.origin or ""])]
    return any(Path(place).resolve().parent == here for place in places if place)


def _load_dotted(name: str) -> ModuleType:
    """A stranger's module, whose code may do anything when it is imported."""
    package, _, own = name.rpartition(".")
    first = name.split(".")[0]
    if not all(part.isidentifier() for part in name.split(".")):
        raise RecipeError(f"{name} is no dotted name of a module; write package.module")
    if importlib.util.find_spec(first) is None:
        raise RecipeError(f"{name}: package {first} is not installed; install it or correct the name")
    try:
        if importlib.util.find_spec(name) is not None:
            return importlib.import_module(name)
    except Exception as error:
        reason = (str(error).strip() or "no reason given").splitlines()[0]
        raise RecipeError(f"{name}: cannot be imported ({type(error).__name__}: {reason}); mend the file") from error
    raise RecipeError(f"{name}: package {package} has no module {own}; {nearest_name(own, list_names(package))}")
