"""Files are the registration: a module in a package is found by its name, a stranger's by its dotted path."""

import importlib
import importlib.util
import pkgutil
from types import ModuleType

from tapetum.core.errors import RecipeError, nearest_name


def list_names(package: str) -> list[str]:
    """Names of the public modules of a package, sorted; files starting with ``_`` do not count.

    Args:
        package: e.g. "tapetum.methods".
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        return []
    found = pkgutil.iter_modules(list(spec.submodule_search_locations))
    return sorted(module.name for module in found if not module.name.startswith("_"))


def load(package: str, name: str) -> ModuleType:
    """The module `name` of `package`; a name with a dot is imported as it stands.

    Args:
        package: e.g. "tapetum.methods".
        name: "idf", or "their_package.their_method".
    Raises:
        RecipeError: there is no such module; the message names the nearest one.
    """
    if "." in name:
        if importlib.util.find_spec(name.split(".")[0]) is None:
            raise RecipeError(f"{name}: package {name.split('.')[0]} is not installed; install it or correct the name")
        return importlib.import_module(name)
    names = list_names(package)
    if name not in names:
        kind = package.rsplit(".", 1)[-1].removesuffix("s")
        raise RecipeError(f"{kind} {name!r} is unknown; {nearest_name(name, names)}")
    return importlib.import_module(f"{package}.{name}")
