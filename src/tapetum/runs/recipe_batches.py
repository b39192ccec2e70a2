"""The sections `augment` and `sampler` of a recipe: checked by their files, and read in the form they had before.

Until operations were a list, `augment` was a mapping of five words: ``{pad: 10, flip: 0.5, grayscale: 0.5,
colour_jitter: [...], erasing: {...}}``. Recipes, checkpoints and run folders that hold it mean the list that
`list_operations` makes of it, with equal pictures to the last bit; ``--set augment.flip=0.3`` finds its operation in
the list.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tapetum.core import discovery
from tapetum.core.errors import RecipeError, nearest_name

# word of the mapping -> operation, and which of its options the word's plain value sets; in the order of before
WORDS = {
    "colour_jitter": ("colour_jitter", "strength"),
    "grayscale": ("grayscale", "probability"),
    "pad": ("pad_crop", "pad"),
    "flip": ("flip", "probability"),
    "erasing": ("erasing", ""),
}
ORDER = [operation for operation, _ in WORDS.values()]
FLIP_BEFORE = 0.5  # where no recipe said otherwise
ASPECT_BEFORE = [0.3, 3.3333]  # of erasing where the mapping named none; the operation's own is 1 / 0.3
FORM = "write a list, one operation a line, e.g. - {name: flip, probability: 0.5}"


def batch_sections(content: Mapping[str, Any]) -> dict[str, Any]:
    """The two sections checked, in plain values with every default written out.

    Args:
        content: of the recipe; what is missing there, and has no default, is left to the other checks.
    Raises:
        RecipeError: a sampler, an operation or an option is unknown or wrong, or an operation names a view that the
            sampler does not give.
    """
    from tapetum.data.sampler import read_sampling, write_sampling  # OpenCV; recipes are also listed without
    from tapetum.data.transforms import check_views, read_operations, write_operations

    operations = read_operations(list_operations(content.get("augment", {})))
    sections: dict[str, Any] = {"augment": write_operations(operations)}
    if isinstance(content.get("sampler"), Mapping):
        sampling = read_sampling(_drop_unused(content["sampler"]))
        check_views(operations, sampling.views)
        sections["sampler"] = write_sampling(sampling)
    return sections


def _drop_unused(section: Mapping[str, Any]) -> dict[str, Any]:
    """A sampler's section without what was once written out for all samplers and means nothing."""
    empty = {name for name in ("batch", "ids", "pictures") if name in section and section[name] is None}
    if section.get("name") != "cross_modality" and section.get("unpaired") == "error":
        empty.add("unpaired")
    return {name: value for name, value in section.items() if name not in empty}


def list_operations(section: Any) -> list[dict[str, Any]]:
    """The operations of `augment:`, whether written as a list or as the mapping of before.

    Args:
        section: as in the recipe.
    Raises:
        RecipeError: it is neither, or the mapping has an unknown word.
    """
    if isinstance(section, list):
        return section
    if not isinstance(section, Mapping):
        raise RecipeError(f"augment is {section!r}, expected operations; {FORM}")
    for word in section:
        if word not in WORDS:
            raise RecipeError(f"augment.{word} is unknown; {nearest_name(str(word), WORDS)} Or {FORM}")
    values = {"flip": FLIP_BEFORE} | dict(section)
    return [entry for word in WORDS if (entry := _entry_of_word(word, values.get(word)))]


def _entry_of_word(word: str, value: Any) -> dict[str, Any] | None:
    """The operation that a word of the mapping stands for; None where it asks for nothing."""
    name, option = WORDS[word]
    if not option:
        if value is not None and not isinstance(value, Mapping):
            raise RecipeError(f"augment.{word} is {value!r}, expected a section (key: value)")
        return {"name": name, "probability": 0.0, "aspect": ASPECT_BEFORE} | dict(value) if value else None
    return {"name": name, option: value} if value not in (None, 0) or isinstance(value, bool) else None


def override_augment(section: Any, parts: Sequence[str], value: Any) -> list[dict[str, Any]]:
    """`augment:` with one entry changed.

    Args:
        section: as in the recipe; None where it has none.
        parts: of the key behind `augment`: an operation's name, or its number from 0, or a word of the mapping of
            before, and then an option's name where the word alone does not say it.
    Raises:
        RecipeError: the operation is not there and has no place of its own, or is there twice; the message says what
            to write.
    """
    entries = [dict(entry) for entry in list_operations({} if section is None else section)]
    name, option = WORDS.get(parts[0], (parts[0], ""))
    option = option if len(parts) == 1 else ".".join(parts[1:])
    if name.isdigit():
        places = [int(name)] if int(name) < len(entries) else []
    else:
        places = [number for number, entry in enumerate(entries) if entry.get("name") == name]
    if len(places) > 1:
        numbers = " or ".join(f"augment.{number}" for number in places)
        raise RecipeError(f"{name} is there {len(places)} times; write {numbers} for {name}")
    if not places and not name.isdigit():
        _check_name(name)
    if not option:
        if value is not None and not isinstance(value, Mapping):
            raise RecipeError(f"name the option too, e.g. augment.{parts[0]}.probability={value}")
        new_entry: dict[str, Any] | None = {"name": name} | dict(value) if value else None
        if new_entry and name == "erasing":
            new_entry = {"aspect": ASPECT_BEFORE} | new_entry
    elif len(parts) == 1 and _entry_of_word(parts[0], value) is None:
        new_entry = None
    else:
        before: dict[str, Any] = entries[places[0]] if places else {"name": name}
        if not places and name == "erasing":
            before["aspect"] = ASPECT_BEFORE
        new_entry = before | {option: value}
    if places:
        entries[places[0] : places[0] + 1] = [new_entry] if new_entry else []
    elif new_entry:
        entries.insert(_place_of(name, entries), new_entry)
    return entries


def _check_name(name: str) -> None:
    """Refuse an operation that there is not, with the nearest one, before anything is said of its place."""
    from tapetum.data.transforms import PACKAGE

    known = discovery.list_names(PACKAGE)
    if name not in known and "." not in name:
        raise RecipeError(f"augment.{name} is unknown; {nearest_name(name, [*known, *WORDS])}")


def _place_of(name: str, entries: Sequence[Mapping[str, Any]]) -> int:
    """Where an operation goes that the list does not have: the order of before, if it says anything about this list."""
    names = [str(entry.get("name")) for entry in entries]
    if name.isdigit():
        raise RecipeError(f"there are {len(names)} operations, counted from 0 ({', '.join(names)})")
    if name not in ORDER or not set(names) <= set(ORDER):
        raise RecipeError(
            f"augment has no {name}, and its place among the others is not known; set all: augment=[{{name: ...}}, ...]"
        )
    later = ORDER[ORDER.index(name) + 1 :]
    return next((number for number, there in enumerate(names) if there in later), len(names))


def batch_keys() -> Iterator[str]:
    """Dotted names of the keys of all operations and samplers, as ``--set`` takes them."""
    import dataclasses

    from tapetum.data import sampler, transforms

    for name in discovery.list_names(transforms.PACKAGE):
        yield f"augment.{name}"
        options = discovery.load(transforms.PACKAGE, name).Options
        for field in (*dataclasses.fields(transforms.OperationScope), *dataclasses.fields(options)):
            yield f"augment.{name}.{field.name}"
    yield from (f"augment.{word}" for word in WORDS)
    for name in discovery.list_names(sampler.PACKAGE):
        for field in dataclasses.fields(discovery.load(sampler.PACKAGE, name).Options):
            yield f"sampler.{field.name}"
