"""The sections of a recipe: each key with its type, its default, its bounds and what it does, in one place.

`describe_section` gives the rows of a table about one, as `tapetum.core.options.describe_options` does of a method's.
"""

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.fields import FieldInfo

from tapetum.core.options import spell_type, spell_value

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
CountFromZero = Annotated[int, Field(ge=0)]
PairOfCounts = Annotated[tuple[Count, Count], Field(strict=False)]
Precision = Literal["fp32", "bf16", "fp16", "auto"]
WORDS = (("ge", "from"), ("gt", "above"), ("le", "up to"), ("lt", "below"))  # of a bound, as pydantic calls it


def key(default: Any, text: str) -> Any:
    """A key of a section.

    Args:
        default: what holds where a recipe does not name it; ``...`` where each recipe must.
        text: what it does, for people; without a full stop.
    """
    return Field(default, description=text)


class Section(BaseModel):
    """Base of all sections: frozen, finite, no unknown key, no silent conversion (``true`` is not 1, ``"3"`` not 3)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class MethodSection(BaseModel):
    """Which method, and what its own ``Options`` say; those are checked against the method's file."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    name: str = key(
        ...,
        "a file of `tapetum.methods`, or a dotted name of your own; the section's other keys are that file's options",
    )

    @property
    def options(self) -> dict[str, Any]:
        """Everything under ``method:`` except the name."""
        return dict(self.model_extra or {})


class InitSection(Section):
    """Weights before training, never silently random."""

    weights: str = key(
        "imagenet",
        "what the network begins with: `imagenet` (through timm), `package` (ImageNet's, out of an installed package), "
        "`random` or `none`, or the path of a weights file or run",
    )


class DataSection(Section):
    """Pictures: where from, how large, read by which library."""

    name: str = key("night600", "a file of `tapetum.data.datasets`, or `synth` for the generated night scene")
    root: str | None = key(None, "folder of the data set; `--data NAME=ROOT` gives it on the command line")
    size: PairOfCounts = key((256, 128), "height and width, in pixels, that every picture is resized to")
    interpolation: Literal["bicubic", "bilinear", "lanczos"] = key(
        "bicubic", "the resize filter, which is part of the trained model"
    )
    backend: Literal["cv2", "pil"] = key(
        "cv2",
        "the library that resizes: `cv2` is faster, `pil` gives the pixels that published checkpoints learnt from",
    )
    cache: Literal["memory", "disk", "none"] = key(
        "none", "where resized pictures are kept for the next epoch, if at all"
    )
    workers: CountFromZero = key(2, "threads that read pictures; 0 reads in the thread that trains")
    options: dict[str, Any] = key(
        {},
        "the data set's own reading options, e.g. `trial` of regdb, `holdout_first` of night600 or `subset` of knight",
    )
    skip_corrupt: bool = key(False, "count damaged pictures and go on, instead of stopping at the first")
    scene: dict[str, Any] = key({}, "settings of the generated night scene, where `name` is `synth`")


class SamplerSection(BaseModel):
    """How a batch is drawn: a file of `tapetum.data.samplers`, and its own ``Options``, every default written out.

    The global batch is the same whatever the number of processes.
    """

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    name: str = key(..., "a file of `tapetum.data.samplers`; the section's other keys are that file's options")

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
    """How weights move."""

    name: Literal["sgd", "adam", "adamw"] = key("sgd", "the rule by which weights move")
    lr: Positive = key(0.05, "learning rate, before the factor of `schedule`")
    momentum: Fraction = key(0.9, "of sgd: how much of the last step goes on in the next")
    nesterov: bool = key(True, "of sgd: look ahead along the momentum; off where `momentum` is 0")
    betas: Annotated[tuple[Fraction, Fraction], Field(strict=False)] = key(
        (0.9, 0.999), "of adam and adamw: how slowly the means of gradients and of their squares forget"
    )
    amsgrad: bool = key(False, "of adam and adamw: divide by the largest second moment so far, not by the latest")
    weight_decay: NotNegative = key(5e-4, "pull of each weight towards zero, as a factor on the weight")


class OwnOptimiserSection(OptimiserRule):
    """The optimiser of one parameter group that does not share the others'."""

    scheduled: bool = key(True, "whether `schedule` moves this group's rate, too; false keeps it as it is")


class OptimiserSection(OptimiserRule):
    """Optimisers and learning rates."""

    group_lr: dict[str, Positive] = key(
        {}, "rates of a method's named groups, in place of `lr`, e.g. `{backbone: 0.01}`"
    )
    bias_lr_factor: Positive = key(1.0, "factor on the learning rate of biases")
    bias_weight_decay: NotNegative | None = key(None, "weight decay of biases; null: that of all weights")
    own: dict[str, OwnOptimiserSection] = key(
        {}, "groups with an optimiser of their own, e.g. `{centres: {name: sgd, lr: 0.5, momentum: 0}}`"
    )
    frozen: dict[str, Count] = key(
        {},
        "group to number of epochs at the beginning in which it does not move and its norms keep their statistics; "
        "when a group thaws, all optimisers begin without momentum",
    )


class ScheduleSection(Section):
    """Length of the training and course of the learning rates (a factor on every group)."""

    epochs: Count = key(..., "length of the training")
    name: Literal["constant", "step", "multistep", "cosine", "linear"] = key(
        "step",
        "course of the factor: `step` multiplies it by `gamma` every `step` epochs, `multistep` at each of "
        "`milestones`; `cosine` falls from 1 to `final` over all epochs, `linear` on a straight line to `final`, from "
        "the one epoch in `milestones` on, or from the beginning",
    )
    step: Count | None = key(None, "epochs between two drops; `name: step` needs it")
    gamma: Positive = key(0.1, "factor of each drop of `step` and `multistep`")
    milestones: Annotated[tuple[Count, ...], Field(strict=False)] = key(
        (), "epochs at which `multistep` drops; for `linear` the one from which it falls"
    )
    final: Fraction = key(0.01, "where `cosine` and `linear` end, as a fraction of the rate")
    by: Literal["epoch", "step"] = key(
        "epoch", "whether the factor changes once an epoch, or smoothly at each optimiser step"
    )
    warmup_epochs: CountFromZero = key(
        0, "epochs in which the factor also rises, in a straight line, from `warmup_factor` to 1"
    )
    warmup_factor: Fraction = key(0.1, "where the warm-up begins, as a fraction of the rate")
    warmup_alone: bool = key(
        False, "while the warm-up lasts, the course of `name` does not count; else the two are multiplied"
    )
    floor: Literal["group", "base"] = key(
        "group", "what `warmup_factor` and `final` are fractions of: each group's own rate, or `base`: `optimiser.lr`"
    )
    counts_from: Literal[0, 1] = key(
        0, "the number that the first epoch has in this course, as some releases count from 1"
    )

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
    """

    precision: Precision = key(
        "fp32",
        "arithmetic of the forward pass; `auto` takes bf16 where the machine computes this network fast in it, else "
        "fp32",
    )
    accelerator: Literal["auto", "cpu", "gpu"] = key(
        "auto", "where the network is trained; `auto` takes a GPU where there is one, else the CPU"
    )
    devices: Count = key(1, "processes that share each batch, one a device")
    accumulate: Count = key(1, "parts in which a process computes its share of a batch; their gradients are averaged")
    gradient_clip: Positive | None = key(
        None, "longest gradient of all weights together (its L2 norm); a longer one is shortened to it; null: never"
    )
    channels_last: bool = key(
        True, "keep pictures and maps in memory with the channels of a pixel side by side, which is faster"
    )
    save_minutes: Positive = key(
        10.0, "within long epochs, minutes from one saved state to resume from to the next; each epoch ends with one"
    )


class SelectionSection(Section):
    """Which weights a run ends with; the test set is not looked at, unless `rule` says so."""

    rule: Literal["holdout", "last", "best_on_test"] = key(
        "holdout",
        "`holdout` sets training identities aside and keeps the epoch with the best mAP on them; `last` trains on "
        "everybody and keeps the final epoch; `best_on_test` trains on everybody and keeps the epoch with the best "
        "rank-1 on the TEST set (trial 0, no mirror), as some releases do: such a number is too high, and the result "
        "card says so",
    )
    ids: Positive = key(0.1, "identities that `holdout` sets aside: a fraction below 1, or a number from 2 on")
    every: Count = key(5, "epochs between two looks at them, or at the test set")

    @field_validator("ids")
    @classmethod
    def _is_a_fraction_or_a_number(cls, ids: float) -> float:
        if ids >= 1 and (ids < 2 or ids != int(ids)):
            raise ValueError("expected a fraction below 1 or a whole number of identities from 2 on")
        return ids


class RerankSection(Section):
    """k-reciprocal re-ranking with the constants of its paper."""

    k1: Count = key(20, "nearest neighbours among which mutual ones are looked for")
    k2: Count = key(6, "nearest neighbours whose descriptions are averaged")
    lambda_value: Fraction = key(0.3, "share of the original distance in the final one")
    original: Literal["squared_euclidean", "fourth_power"] = key(
        "squared_euclidean", "distance that it starts from; fourth_power: (2 - 2s)^2, as IDF's release and layumi's"
    )


class EvaluationSection(Section):
    """How the trained method is tested, unless the command line says otherwise."""

    protocol: str | None = key(None, "one of the data set's protocols; null: its default")
    mirror: bool = key(True, "join each picture with its mirror")
    rerank: RerankSection | None = key(None, "k-reciprocal re-ranking, by keys of its own; null: none")
    camera_norm: Literal["none", "centre", "standard", "modality"] = key(
        "none",
        "what is taken out of the vectors: each camera's mean (`centre`), its mean and deviation (`standard`), or the "
        "mean of a modality's cameras together (`modality`), counted on the unlabelled test pictures, so that such a "
        "number is not one of a single query",
    )
    precision: Precision = key("fp32", "arithmetic of the extraction, as `training.precision`")
    batch: Count = key(128, "pictures in a step of the extraction; does not change the result")


def describe_section(section: type[BaseModel]) -> list[tuple[str, str, str, str]]:
    """(name, type and range, default, text) of each key of a section, or of a whole recipe."""
    hints = get_type_hints(section, include_extras=True)
    rows = []
    for name, field in section.model_fields.items():
        plain, bounds = _take_apart(hints[name])
        form = ", ".join([spell_type(plain), *dict.fromkeys(bounds)])
        default = field.get_default(call_default_factory=True)
        text = "required" if field.is_required() else "{}" if isinstance(default, BaseModel) else spell_value(default)
        rows.append((name, form, text, field.description or ""))
    return rows


def _take_apart(hint: Any) -> tuple[Any, list[str]]:
    """A type without its bounds, and these in words; a section within is a mapping."""
    if get_origin(hint) is Annotated:
        base, *extras = get_args(hint)
        plain, bounds = _take_apart(base)
        limits = [limit for extra in extras if isinstance(extra, FieldInfo) for limit in extra.metadata]
        words = [f"{word} {getattr(limit, name):g}" for limit in limits for name, word in WORDS if hasattr(limit, name)]
        return plain, [*bounds, *words]
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return dict, []
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (None, Literal):
        return hint, []
    taken = [(part, []) if part is Ellipsis else _take_apart(part) for part in parts]
    plain = tuple(part for part, _ in taken)
    whole = Union[plain] if origin in (Union, types.UnionType) else origin[plain]  # noqa: UP007  # parts known only here
    return whole, [word for _, words in taken for word in words]
