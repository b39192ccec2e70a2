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
from typing import Annotated, Any, Literal, get_origin, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator, model_validator

from tapetum.core.errors import RecipeError, nearest_name
from tapetum.core.options import require
from tapetum.runs.recipe_batches import batch_keys, batch_sections, override_augment
from tapetum.runs.recipe_text import parse_yaml
from tapetum.synth.scene import SceneOptions

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
ANY = "GROUP"  # stands in a key for a name that the method gives
PairOfCounts = Annotated[tuple[Count, Count], Field(strict=False)]


class Section(BaseModel):
    """Base of all sections: frozen, finite, no unknown key, no silent conversion (``true`` is not 1, ``"3"`` not 3)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class MethodSection(BaseModel):
    """Which method, and what its own ``Options`` say; those are checked against the method's file."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """Everything under ``method:`` except the name."""
        return dict(self.model_extra or {})


class InitSection(Section):
    """Weights before training, never silently random.

    Attributes:
        weights: "imagenet" (through timm), "package" (ImageNet's, of an installed package), "random" or "none", or a
            weights file.
    """

    weights: str = "imagenet"


class DataSection(Section):
    """Pictures: where from, how large, read by which library.

    Attributes:
        name: a file of `tapetum.data.datasets`, or "synth" for the generated night scene.
        root: folder of the dataset; `--data NAME=ROOT` gives it on the command line.
        size: (height, width) in pixels.
        interpolation, backend: the resize filter is part of the model; "pil" reproduces published checkpoints.
        cache: resized pictures kept in memory, on disk, or not at all.
        workers: threads that read pictures; 0 reads in the thread that trains.
        options: the dataset's own reading options, e.g. holdout_first of night600 or subset of knight.
        skip_corrupt: count damaged pictures and go on instead of stopping.
        scene: settings of the generated night scene, for "synth".
    """

    name: str = "night600"
    root: str | None = None
    size: PairOfCounts = (256, 128)
    interpolation: Literal["bicubic", "bilinear", "lanczos"] = "bicubic"
    backend: Literal["cv2", "pil"] = "cv2"
    cache: Literal["memory", "disk", "none"] = "none"
    workers: Annotated[int, Field(ge=0)] = 2
    options: dict[str, Any] = {}
    skip_corrupt: bool = False
    scene: dict[str, Any] = {}


class SamplerSection(BaseModel):
    """How a batch is drawn: a file of `tapetum.data.samplers`, and its own ``Options``, every default written out.

    The global batch is the same whatever the number of processes.
    """

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """Everything under ``sampler:`` except the name."""
        return dict(self.model_extra or {})

    @property
    def global_batch(self) -> int:
        """Pictures in one global batch, each view counted."""
        from tapetum.data.sampler import read_sampling

        return read_sampling(self.model_dump()).global_batch


class OptimiserRule(Section):
    """How weights move.

    Attributes:
        lr: learning rate.
        amsgrad: adam and adamw divide by the largest second moment so far, not by the latest.
    """

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: Positive = 0.05
    momentum: Fraction = 0.9
    nesterov: bool = True
    betas: Annotated[tuple[Fraction, Fraction], Field(strict=False)] = (0.9, 0.999)
    amsgrad: bool = False
    weight_decay: NotNegative = 5e-4


class OwnOptimiserSection(OptimiserRule):
    """The optimiser of one parameter group that does not share the others'."""

    scheduled: bool = True


class OptimiserSection(OptimiserRule):
    """Optimisers and learning rates.

    Attributes:
        lr: of every parameter group that `group_lr` does not name.
        group_lr: absolute rates of a method's named groups, e.g. backbone, enhancer.
        bias_lr_factor: on the rate of biases.
        bias_weight_decay: of biases; null is that of all weights.
        own: groups with an optimiser of their own, e.g. {centres: {name: sgd, lr: 0.5, momentum: 0}}.
        frozen: group -> epochs at the beginning in which it does not move and its norms keep their statistics; when a
            group thaws, all optimisers begin without momentum.
    """

    group_lr: dict[str, Positive] = {}
    bias_lr_factor: Positive = 1.0
    bias_weight_decay: NotNegative | None = None
    own: dict[str, OwnOptimiserSection] = {}
    frozen: dict[str, Count] = {}


class ScheduleSection(Section):
    """Length of the training and course of the learning rates (a factor on every group).

    Attributes:
        name: "constant"; "step" multiplies by `gamma` every `step` epochs; "multistep" at each of `milestones`;
            "cosine" falls from 1 to `final` over all epochs; "linear" on a straight line to `final`, from the one epoch
            in `milestones` on, or from the beginning.
        by: the factor changes at each epoch, or smoothly at each optimiser step.
        warmup_epochs: the factor also rises linearly from `warmup_factor` to 1 over the first epochs.
        warmup_alone: while it rises, the course of `name` does not count; else the two are multiplied.
        floor: what `warmup_factor` and `final` are fractions of: each group's own rate, or "base": optimiser.lr.
        counts_from: the number that the first epoch has in this course; some releases count from 1.
    """

    epochs: Count
    name: Literal["constant", "step", "multistep", "cosine", "linear"] = "step"
    step: Count | None = None
    gamma: Positive = 0.1
    milestones: Annotated[tuple[Count, ...], Field(strict=False)] = ()
    final: Fraction = 0.01
    by: Literal["epoch", "step"] = "epoch"
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    warmup_factor: Fraction = 0.1
    warmup_alone: bool = False
    floor: Literal["group", "base"] = "group"
    counts_from: Literal[0, 1] = 0

    @model_validator(mode="after")
    def _has_its_numbers(self) -> "ScheduleSection":
        if self.name == "step" and self.step is None:
            raise ValueError("schedule: step needs the number of epochs between two drops as schedule.step")
        if self.name == "multistep" and not self.milestones:
            raise ValueError("schedule: multistep needs schedule.milestones, e.g. [40, 70]")
        if self.name == "linear" and len(self.milestones) > 1:
            raise ValueError(
                f"schedule: linear falls from one epoch on, schedule.milestones has {len(self.milestones)}; leave one"
            )
        return self


class TrainingSection(Section):
    """How the machine is used.

    Parts and processes see a slice of the batch each: batch norm takes its statistics there, and a loss over pairs
    finds its pairs there, so that `accumulate` and `devices` change the result a little.

    Attributes:
        precision: arithmetic of the forward pass; "auto" takes bf16 where the machine computes this network fast in it,
            else fp32.
        accumulate: the global batch is computed in this many parts whose gradients are averaged.
        save_minutes: a state to resume from is written after each epoch, and within long epochs this often.
    """

    precision: Literal["fp32", "bf16", "fp16", "auto"] = "fp32"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: Count = 1
    accumulate: Count = 1
    gradient_clip: Positive | None = None
    channels_last: bool = True
    save_minutes: Positive = 10.0


class SelectionSection(Section):
    """Which weights a run ends with; the test set is not looked at, unless `rule` says so.

    Attributes:
        rule: "holdout" sets training identities aside and keeps the epoch with the best mAP on them; "last" trains
            on every identity and keeps the final epoch, as the paper's tables do; "best_on_test" trains on every
            identity and keeps the epoch with the best rank-1 on the TEST set (trial 0, no mirror), as some releases
            do: such a number is too high, and the result card says how it came about.
        ids: identities set aside: a fraction below 1, or a number.
        every: epochs between two looks.
    """

    rule: Literal["holdout", "last", "best_on_test"] = "holdout"
    ids: Positive = 0.1
    every: Count = 5

    @field_validator("ids")
    @classmethod
    def _is_a_fraction_or_a_number(cls, ids: float) -> float:
        if ids >= 1 and (ids < 2 or ids != int(ids)):
            raise ValueError("expected a fraction below 1 or a whole number of identities from 2 on")
        return ids


class RerankSection(Section):
    """k-reciprocal re-ranking with the constants of its paper."""

    k1: Count = 20
    k2: Count = 6
    lambda_value: Fraction = 0.3


class EvaluationSection(Section):
    """How the trained method is tested, unless the command line says otherwise.

    Attributes:
        protocol: name of one of the dataset's protocols; null takes its default.
        mirror: join each picture with its mirror.
        camera_norm: take each camera's mean ("centre"), its mean and deviation ("standard"), or the mean of a
            modality's cameras together ("modality") out of the vectors; they are counted on the unlabelled test
            pictures, so such a number is not one of a single query.
        precision: arithmetic of the extraction.
        batch: pictures per extraction step; does not change the result.
    """

    protocol: str | None = None
    mirror: bool = True
    rerank: RerankSection | None = None
    camera_norm: Literal["none", "centre", "standard", "modality"] = "none"
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "fp32"
    batch: Count = 128


class Recipe(Section):
    """Everything that decides the outcome of a training, and nothing else.

    Attributes:
        seed: of every random stream.
        augment: changes to training pictures in their order, each a file of `tapetum.data.augmentations` with its own
            ``Options``, every default written out.
    """

    name: str
    about: str = ""
    seed: Annotated[int, Field(ge=0)] = 0
    method: MethodSection
    init: InitSection = InitSection()
    data: DataSection = DataSection()
    augment: list[dict[str, Any]]
    sampler: SamplerSection
    optimiser: OptimiserSection = OptimiserSection()
    schedule: ScheduleSection
    training: TrainingSection = TrainingSection()
    selection: SelectionSection = SelectionSection()
    evaluation: EvaluationSection = EvaluationSection()

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
        raise RecipeError(f"recipe {source}: no such file or recipe; {nearest_name(name, list_recipes())}")
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
