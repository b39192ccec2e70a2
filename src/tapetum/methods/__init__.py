"""Re-identification methods, one a file; the file name is the registration."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType, ModuleType
from typing import Any

from torch import Tensor, nn

from tapetum.core import discovery
from tapetum.core.errors import CheckpointError, RecipeError, nearest_name
from tapetum.core.method import TrainingFacts
from tapetum.core.options import plain_options, read_options
from tapetum.methods._contract import check_file, check_kind, check_method
from tapetum.methods._official import Converted, OfficialFormat, UntoldError

# Names of former versions, which recipes and checkpoints go on using: name -> method, and the options it stands for.
FORMER_NAMES: dict[str, tuple[str, dict[str, Any]]] = {
    "bnneck": ("bot", {"backbone": "resnet18", "stem_relu": True, "centre_weight": 0.0}),
}

# Numbers of today that were switches once, in recipes and checkpoints: (method, option) -> what off and on meant.
FORMER_SWITCHES: dict[tuple[str, str], tuple[int, int]] = {("deen", "recompute"): (0, 3)}


def find_method(name: str) -> tuple[ModuleType, dict[str, Any]]:
    """A method's file, and the options that its name stands for; those of today's names are none.

    Args:
        name: "idf", a dotted module name, or a name of a former version; likewise below.
    Raises:
        RecipeError: there is no such method.
    """
    name, meant = FORMER_NAMES.get(name, (name, {}))
    return discovery.load("tapetum.methods", name), meant


def method_options(name: str) -> type[Any]:
    """The options dataclass of a method.

    Raises:
        RecipeError: there is no such method, or its file breaks the contract.
    """
    module, _ = find_method(name)
    check_file(module, name)
    options: type[Any] = module.Options
    return options


def small_options(name: str) -> dict[str, Any]:
    """Options of a network that is small enough for tests, as the method's file names them under ``SMALL``."""
    return dict(getattr(find_method(name)[0], "SMALL", {}))


def views_of(name: str) -> tuple[int, int]:
    """Views of each visible and of each infrared picture that a method needs (``VIEWS`` in its file; one each).

    Raises:
        RecipeError: there is no such method, or its ``VIEWS`` are no two counts.
    """
    views = getattr(find_method(name)[0], "VIEWS", (1, 1))
    if not (isinstance(views, tuple) and len(views) == 2 and all(type(count) is int and count > 0 for count in views)):
        raise RecipeError(
            f"method {name!r}: VIEWS is {views!r} in its file; write how many views of a visible and of an infrared "
            "picture it needs, e.g. VIEWS = (2, 1)"
        )
    visible, infrared = views
    return visible, infrared


def absent_at_start(name: str) -> frozenset[str]:
    """Parts of a network that a training may begin without: words of tensors' names.

    They are what only a training needs (``TRAINING_ONLY`` in the file), and what a later stage adds (``LATER_STAGE``).
    """
    module = find_method(name)[0]
    return frozenset((*getattr(module, "TRAINING_ONLY", ()), *getattr(module, "LATER_STAGE", ())))


def build_options(name: str, options: Mapping[str, Any] | None = None) -> Any:
    """A method's options from what a recipe says under ``method:``; what is not named keeps its default.

    Raises:
        RecipeError: an option is unknown, has the wrong type, or does not go with another.
    """
    values = {**find_method(name)[1], **(options or {})}
    for (method, option), meant in FORMER_SWITCHES.items():
        if method == name and isinstance(values.get(option), bool):
            values[option] = meant[values[option]]
    return read_options(method_options(name), values)


def write_options(name: str, options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A method's options as plain values, every default written out: they mean the same where a default has changed.

    An ``Options`` that holds another file's options has ``written_out()``, which writes out those too.

    Raises:
        RecipeError: as `build_options`.
    """
    settings = build_options(name, options)
    plain: dict[str, Any] = settings.written_out() if hasattr(settings, "written_out") else plain_options(settings)
    return plain


def build_method(
    name: str,
    options: Mapping[str, Any] | None,
    num_ids: int,
    *,
    camids: Sequence[int] = (),
    size: tuple[int, int] = TrainingFacts.size,
    num_pictures: int = 0,
    num_views: int = 1,
) -> nn.Module:
    """A method with random weights; arguments as of `build_options` and `TrainingFacts`.

    Raises:
        RecipeError: the method or an option is unknown or has the wrong type, there are no identities, or the method
            cannot work with these facts.
        MethodError: the method's file breaks the contract.
    """
    if num_ids < 1:
        raise RecipeError(f"method {name}: num_ids is {num_ids}; a method needs at least one training identity")
    settings = build_options(name, options)
    kind = find_method(name)[0].Method
    check_kind(kind, name)
    method: nn.Module = kind(settings, TrainingFacts(num_ids, tuple(camids), size, num_pictures, num_views))
    check_method(method, name)
    return method


def official_formats() -> dict[str, OfficialFormat]:
    """Layouts of released code that can be read and written, by name, from every method file that knows some."""
    formats: dict[str, OfficialFormat] = {}
    for name in discovery.list_names("tapetum.methods"):
        formats |= getattr(discovery.load("tapetum.methods", name), "OFFICIAL_FORMATS", {})
    return formats


def convert_from(layout: str, state: Mapping[str, Tensor], told: Mapping[str, str] = MappingProxyType({})) -> Converted:
    """A checkpoint of released code in our terms.

    Args:
        told: options that the layout asks for, as such files may not tell them.
    Raises:
        RecipeError: the layout is unknown.
        CheckpointError: the tensors do not have it; the message says which other layouts they have.
    """
    form = _format(layout)
    try:
        return form.read(state, told)
    except CheckpointError as error:
        fitting = other_layouts(layout, state)
        if not fitting:
            raise
        raise CheckpointError(f"{error} (this file has the layout {' or '.join(fitting)}; give --from that)") from None


def layouts_of(state: Mapping[str, Tensor]) -> list[str]:
    """Names of the layouts of released code that a file has; of several files, that one of them has."""
    return [name for name, form in official_formats().items() if _fits(form, state)]


def other_layouts(layout: str, state: Mapping[str, Tensor]) -> list[str]:
    """Names of the layouts, beside one, that a file has: some releases share names and shapes of all tensors.

    Args:
        state: the file's tensors; of several files, behind the word and a dot of each. The first then counts as itself.
    Raises:
        RecipeError: the layout is unknown.
    """
    files = _format(layout).files
    first = f"{files[0]}." if files else ""
    own = {name.removeprefix(first): tensor for name, tensor in state.items() if name.startswith(first)}
    return [name for name in layouts_of(own) if name != layout]


def convert_to(layout: str, options: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A method's state, by its options, in the layout of released code.

    Raises:
        RecipeError: the layout is unknown.
        CheckpointError: the state does not fit it.
    """
    return _format(layout).write(options, state)


def _fits(form: OfficialFormat, state: Mapping[str, Tensor]) -> bool:
    """Whether a file has a layout; of a layout of several files, whether it is one of them."""
    try:
        form.read({f"{word}.{name}": state[name] for word in form.files for name in state} if form.files else state)
    except UntoldError:
        return True
    except CheckpointError:
        return False
    return True


def _format(layout: str) -> OfficialFormat:
    formats = official_formats()
    if layout not in formats:
        raise RecipeError(f"checkpoint layout {layout!r} is unknown; {nearest_name(layout, formats)}")
    return formats[layout]
