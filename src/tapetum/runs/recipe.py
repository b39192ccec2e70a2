"""A recipe: everything a training needs, as typed options read from one YAML file that can be read alone.

A recipe is checked whole before anything starts; an unknown key or a wrong type is an error that names the key, the
value and what was expected. The resolved recipe is saved beside every checkpoint and result.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, get_origin, get_type_hints

import yaml
from pydantic import BaseModel, ValidationError, create_model, field_validator

from tapetum.core.errors import RecipeError, nearest_name
from tapetum.core.options import require
from tapetum.runs.recipe_batches import FLIP_BEFORE, batch_keys, batch_sections, override_augment
from tapetum.runs.recipe_sections import (
    Count,
    CountFromZero,
    MethodSection,
    SamplerSection,
    Section,
    key,
)
from tapetum.runs.recipe_sections import DataSection as DataSection
from tapetum.runs.recipe_sections import EvaluationSection as EvaluationSection
from tapetum.runs.recipe_sections import InitSection as InitSection
from tapetum.runs.recipe_sections import OptimiserRule as OptimiserRule
from tapetum.runs.recipe_sections import OptimiserSection as OptimiserSection
from tapetum.runs.recipe_sections import OwnOptimiserSection as OwnOptimiserSection
from tapetum.runs.recipe_sections import ScheduleSection as ScheduleSection
from tapetum.runs.recipe_sections import SelectionSection as SelectionSection
from tapetum.runs.recipe_sections import TrainingSection as TrainingSection
from tapetum.runs.recipe_text import parse_yaml
from tapetum.synth.scene import SceneOptions

_QUICK = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, five times as fast, where yaml was built with it
ANY = "GROUP"  # stands in a key for a name that the method gives


class Recipe(Section):
    """Everything that decides the outcome of a training, and nothing else."""

    name: str = key(..., "of the recipe: letters, digits, `.`, `_` and `-`; the default run folder is called so")
    about: str = key("", "one line for people")
    seed: CountFromZero = key(0, "of every random stream")
    method: MethodSection = key(..., "which method, and its options")
    init: InitSection = key(InitSection(), "weights before training")
    data: DataSection = key(DataSection(), "which pictures, and how they are read")
    augment: list[dict[str, Any]] = key(
        [{"name": "flip", "probability": FLIP_BEFORE}],
        "changes to training pictures in their order, each a file of `tapetum.data.augmentations` with its own options",
    )
    sampler: SamplerSection = key(..., "how batches are drawn")
    optimiser: OptimiserSection = key(OptimiserSection(), "how weights move")
    schedule: ScheduleSection = key(..., "length of the training and course of the learning rates")
    training: TrainingSection = key(TrainingSection(), "how the machine is used")
    selection: SelectionSection = key(SelectionSection(), "which epoch's weights are kept")
    evaluation: EvaluationSection = key(EvaluationSection(), "how the trained method is tested")

    @field_validator("name")
    @classmethod
    def _is_a_plain_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
            raise ValueError("must be a plain name of letters, digits, '.', '_' and '-'")
        return name


def list_recipes() -> list[str]:
    """Names of the recipes that come with the package, sorted."""
    folder = resources.files("tapetum") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


class RecipeLine(NamedTuple):
    """A recipe of the package in a line.

    Attributes:
        data: name of the data set; of the generated scene in another data set's layout: "synth as llcm".
    """

    name: str
    method: str
    data: str
    about: str


def describe_recipes() -> list[RecipeLine]:
    """The recipes that come with the package, in the order of their names, in a line each."""
    lines = []
    for name in list_recipes():
        content = yaml.load(_read_text(name)[1], Loader=_QUICK)  # noqa: S506  # safe, and the package's own text
        data = content.get("data", {})
        layout = data.get("scene", {}).get("layout")
        source = data.get("name", DataSection().name) + (f" as {layout}" if layout else "")
        lines.append(RecipeLine(name, content["method"]["name"], source, content.get("about", "")))
    return lines


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        source: name of a recipe of the package ("idf_synth"), or a YAML file.
        overrides: "key.key=value" each, the value written as in YAML; applied in order, before checking.
    Raises:
        RecipeError: no such recipe, no valid YAML, an unknown key, a wrong type or a value that cannot work.
    """
    place, text = _read_text(source)
    content = parse_yaml(text, place)
    if not isinstance(content, dict):
        raise RecipeError(f"recipe {place}: holds {type(content).__name__}, expected a mapping of sections")
    _apply_overrides(content, overrides, place)
    return check_recipe(content, place)


def check_recipe(content: Mapping[str, Any], place: str) -> Recipe:
    """A recipe from plain values (as stored in a checkpoint or read from YAML).

    Args:
        place: how error messages call the source, e.g. "idf.yaml".
    """
    try:
        recipe = Recipe.model_validate(dict(content) | batch_sections(content))
    except ValidationError as error:
        raise RecipeError(f"recipe {place}: {_explain(error)}") from None
    except RecipeError as error:
        raise RecipeError(f"recipe {place}: {error}") from None
    _check_method(recipe.method, recipe.sampler, place)
    try:
        scene_options(recipe.data.scene)
    except RecipeError as error:
        raise RecipeError(f"recipe {place}: {error}") from None
    return recipe


def override_recipe(recipe: Recipe, overrides: Sequence[str], place: str) -> Recipe:
    """A recipe with some entries changed, checked again."""
    content = recipe.model_dump(mode="json")
    _apply_overrides(content, overrides, place)
    return check_recipe(content, place)


def scene_options(settings: Mapping[str, Any]) -> tuple[SceneOptions, int]:
    """Options of the generated night scene, and the number of queries of a person under one camera.

    Raises:
        RecipeError: a setting is unknown, of a wrong type or out of range.
    """
    checker = _scene_section()
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
    try:
        values = dict(checker.model_validate(plain))
    except ValidationError as error:
        raise RecipeError(_explain(error, "data.scene.", list(checker.model_fields))) from None
    queries_per_camera: int = values.pop("queries_per_camera")
    if (layout := values.pop("layout")) != "synth":
        from tapetum.data.catalog import load_dataset_module  # imports OpenCV; most recipes have no need of it

        module = load_dataset_module(layout)
        if hasattr(module, "scene_defaults"):
            others = {name: values[name] for name in values if name in plain}
            values = module.scene_defaults(plain.get("cameras")) | others
    return SceneOptions(**values), queries_per_camera


@cache
def _scene_section() -> type[Section]:
    hints = get_type_hints(SceneOptions)
    fields: dict[str, Any] = {
        field.name: (hints[field.name], field.default) for field in dataclasses.fields(SceneOptions)
    }
    return create_model("Scene", __base__=Section, queries_per_camera=(Count, 3), layout=(str, "synth"), **fields)


def plain_recipe(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe as plain values, every default written out, the method's too."""
    from tapetum.methods import write_options  # imports torch; recipes are also listed where torch is not needed

    method = {"name": recipe.method.name} | write_options(recipe.method.name, recipe.method.options)
    return recipe.model_dump(mode="json") | {"method": method}


def write_yaml(recipe: Recipe) -> str:
    """`plain_recipe` as YAML."""
    return yaml.safe_dump(plain_recipe(recipe), sort_keys=False, allow_unicode=True, width=120)


def _read_text(source: str | Path) -> tuple[str, str]:
    path = Path(source)
    if path.is_file():
        try:
            return path.name, path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"recipe {path}: cannot be read ({error}); give a UTF-8 YAML file") from None
    name = str(source).removesuffix(".yaml")
    if path.parent != Path() or name not in list_recipes():
        nearest = nearest_name(name, list_recipes())
        remedy = nearest if nearest.startswith("did you mean") else "`tapetum train --list` names all"
        raise RecipeError(f"recipe {source}: no such file or recipe; {remedy}")
    return f"{name}.yaml", (resources.files("tapetum") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")


def _apply_overrides(content: dict[str, Any], overrides: Sequence[str], place: str) -> None:
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not all(key.split(".")):
            raise RecipeError(f"recipe {place}: --set {override!r} is not of the form key.key=value")
        parts = key.strip().split(".")
        value = parse_yaml(text, f"{place} --set {key}")
        try:
            if parts[0] == "augment" and len(parts) > 1:
                content["augment"] = override_augment(content.get("augment"), parts[1:], value)
            else:
                _put(content, parts, value)
        except RecipeError as error:
            raise RecipeError(f"recipe {place}: --set {override!r}: {error}") from None


def _put(content: dict[str, Any], parts: Sequence[str], value: Any) -> None:
    section = content
    for part in parts[:-1]:
        if section.get(part) is None:
            section[part] = {}
        section = section[part]
        if not isinstance(section, dict):
            raise RecipeError(f"{part} is a value, not a section")
    section[parts[-1]] = value


def _explain(error: ValidationError, prefix: str = "", siblings: Sequence[str] | None = None) -> str:
    """The first problem of a check in one line; an unknown key comes before everything else."""
    problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    problem = problems[0]
    where = prefix + ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        word = str(problem["loc"][-1])
        return f"{where} is unknown; {nearest_name(word, siblings) if siblings else _nearest_key(where)}"
    if problem["type"] == "missing":
        return f"{where} is missing; add it"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "value_error" and message.startswith(where):
        return message
    message = re.sub(r"^(Input|Tuple|List) should (be )?(a )?(valid )?", "expected ", message)
    message = re.sub(r"expected .*instance of .*|expected dictionary", "expected a section (key: value)", message)
    message = re.sub(r"expected have (.*) after validation.*", r"expected \1", message)
    return f"{where} is {problem['input']!r}, {message}"


def known_keys(section: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[str]:
    """Dotted names of all keys of a recipe, those of the method's options aside; `ANY` for names of others."""
    for name, field in section.model_fields.items():
        yield prefix + name
        for candidate in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                open_names = f"{ANY}." if get_origin(field.annotation) is dict else ""
                yield from known_keys(candidate, f"{prefix}{name}.{open_names}")
    if section is Recipe:
        yield from batch_keys()


def _nearest_key(key: str) -> str:
    """The nearest key beside a misspelt one; else the same or nearest word anywhere in a recipe."""
    head, _, word = key.rpartition(".")
    keys = list(known_keys())
    heads = (head, f"{head.rpartition('.')[0]}.{ANY}")
    siblings = [known.rpartition(".")[2] for known in keys if known.rpartition(".")[0] in heads]
    nearest = nearest_name(word, siblings)
    if nearest.startswith("did you mean"):
        return nearest
    shallow_first = sorted(keys, key=lambda known: known.count("."))
    exact = [known for known in shallow_first if known.rpartition(".")[2] == word]
    return f"did you mean {exact[0]}?" if exact else nearest


def _check_method(method: MethodSection, sampler: SamplerSection, place: str) -> None:
    """The method exists, takes these options, and is given the views that it needs."""
    from tapetum import methods  # imports torch; recipes are also listed where torch is not needed

    try:
        methods.build_options(method.name, method.options)
        least_views, views = methods.views_of(method.name), sampler.options["views"]
        require(
            all(least <= there for least, there in zip(least_views, views, strict=True)),
            f"sampler.views is {list(views)}, but method {method.name} needs {least_views[0]} of each visible and "
            f"{least_views[1]} of each infrared picture; set sampler.views to {list(map(max, least_views, views))}",
        )
    except RecipeError as error:
        raise RecipeError(f"recipe {place}: {error}") from None
