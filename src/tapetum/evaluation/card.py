"""Result cards: a number together with everything one must know to believe or to repeat it; and what two differ in."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tapetum.core.atomic import write_bytes
from tapetum.core.errors import DataError
from tapetum.core.protocol import Protocol
from tapetum.core.seeding import numpy_generator
from tapetum.core.types import Modality
from tapetum.core.versions import read_versions
from tapetum.evaluation.bootstrap import QUANTITIES, RANKS, Interval, bootstrap, combine
from tapetum.evaluation.camera_norm import CameraNorm
from tapetum.evaluation.chance import chance_level
from tapetum.evaluation.metrics import Evaluation, Metrics
from tapetum.evaluation.rerank import RerankOptions
from tapetum.evaluation.slices import by_label

FORMAT = 1
GROUPS = {  # which part of a difference each field of a card belongs to
    "protocol": (
        "rules",
        "trials.count",
        "galleries",
        "mirror",
        "camera_norm",
        "calibration",
        "rerank",
        "bootstrap.level",
        "bootstrap.draws",
    ),
    "data": ("data",),
    "model": ("method", "recipe", "checkpoint", "seed", "versions"),
}
MEASURED = ("protocol", "data")  # numbers that differ in these cannot be compared
REPEATED = ("protocol", "ap", "cmc", "format")  # say nothing that other fields do not say
Section = Mapping[str, Any]  # of JSON values; fractions stay fractions


@dataclass(frozen=True)
class Card:
    """Everything about one result; what an older card lacks is empty."""

    rules: Protocol
    metrics: Section  # each of `QUANTITIES`, mean_ap_step, mean_ap_trapezoid, num_queries, num_dropped, cmc
    trials: Section = field(default_factory=dict)  # count, deviation (of each quantity), each (one's metrics)
    galleries: str | None = None  # what the trials drew, and how; None where the data set fixes everything
    bootstrap: Section = field(default_factory=dict)  # level, draws, and each quantity to its low and high end
    chance: Section = field(default_factory=dict)  # rank1 and mean_ap of a ranking by lot
    rerank: Section | None = None  # settings
    reranked: Section | None = None  # as `metrics`
    mirror: bool = False  # pictures were joined with their mirror
    camera_norm: CameraNorm = "none"  # what was taken out of the vectors of each camera, see `evaluation.camera_norm`
    calibration: Section | None = None  # whose evidence ranked; None where similarity did
    checkpoint: Section = field(default_factory=dict)  # how it was chosen ("chosen_by") and what else identifies it
    data: Section = field(default_factory=dict)  # name and fingerprint of the pictures, and what else identifies them
    method: str = ""
    recipe: Section = field(default_factory=dict)  # as resolved
    seed: int = 0  # of the training
    seconds: float = 0.0  # of extraction and evaluation
    versions: Section = field(default_factory=dict)
    slices: Mapping[str, Mapping[str, Section]] = field(default_factory=dict)  # property -> level -> some of `metrics`
    worst_queries: Sequence[Section] | None = None

    @property
    def num_trials(self) -> int:
        """How many evaluations the numbers are means of."""
        return int(self.trials.get("count", 1))

    def deviation(self, quantity: str) -> float | None:
        """The sample standard deviation over several trials."""
        return self.trials.get("deviation", {}).get(quantity) if self.num_trials > 1 else None


def build_card(
    evaluations: Evaluation | Sequence[Evaluation],
    *,
    method: str,
    recipe: Section,
    checkpoint: Section,
    data: Section,
    mirror: bool,
    seed: int,
    seconds: float,
    reranked: Evaluation | Sequence[Evaluation] | None = None,
    rerank: RerankOptions | None = None,
    camera_norm: CameraNorm = "none",
    calibration: Section | None = None,
    labels: Mapping[str, Sequence[str]] | None = None,
    slices: Mapping[str, Mapping[str, Metrics]] | None = None,
    figures: Mapping[str, Mapping[str, Section]] | None = None,
    galleries: str | None = None,
    worst_queries: Sequence[Section] | None = None,
    draws: int = 1000,
) -> Card:
    """A card; what is not computed here is a field of `Card`.

    Args:
        evaluations: one, or one a trial.
        reranked: the same after re-ranking.
        labels: property -> names of levels, one a query as given, e.g. {"light": ["low", ...]}; metrics and interval of
            each level.
        slices: property -> level -> metrics that were computed elsewhere, e.g. by camera pair.
        figures: property -> level -> what else is known of the queries of a slice.
        draws: resamplings of the bootstrap.
    """
    trials = _listed(evaluations)
    averages = combine([trial.metrics for trial in trials])
    intervals = bootstrap(trials, rng=numpy_generator(seed, "bootstrap"), draws=draws)
    chances = [chance_level(trial) for trial in trials]
    each_slice = {
        name: {level: _short(metrics) for level, metrics in levels.items()} for name, levels in (slices or {}).items()
    }
    for name, names in (labels or {}).items():
        each_slice[name] = _levels(trials, names, rng=numpy_generator(seed, "bootstrap", name), draws=draws)
    for name, levels in (figures or {}).items():
        for level in levels.keys() & each_slice[name].keys():
            each_slice[name][level] |= levels[level]
    return Card(
        rules=averages.metrics.protocol,
        metrics=_plain(_numbers(trials)),
        trials=_plain(
            {
                "count": averages.count,
                "deviation": averages.deviations,
                "each": [_short(trial.metrics) for trial in trials],
            }
        ),
        galleries=galleries,
        bootstrap=_plain(
            {
                "level": intervals["rank1"].level,
                "draws": draws,
                **{name: _ends(interval) for name, interval in intervals.items()},
            }
        ),
        chance=_plain({name: np.mean([getattr(each, name) for each in chances]) for name in ("rank1", "mean_ap")}),
        rerank=None if rerank is None else _plain(asdict(rerank)),
        reranked=None if reranked is None else _plain(_numbers(_listed(reranked))),
        mirror=mirror,
        camera_norm=camera_norm,
        calibration=None if calibration is None else _plain(calibration),
        checkpoint=_plain(checkpoint),
        data=_plain(data),
        method=method,
        recipe=_plain(recipe),
        seed=seed,
        seconds=_plain(seconds),
        versions=_plain(read_versions()),
        slices=_plain(each_slice),
        worst_queries=_plain(worst_queries),
    )


def to_content(card: Card) -> dict[str, Any]:
    """A card as JSON values; three of its rules stand first: they must stand beside every number."""
    rules = _plain(asdict(card.rules))
    content = {"format": FORMAT, "protocol": card.rules.name, "ap": card.rules.ap, "cmc": card.rules.cmc}
    content |= {each.name: getattr(card, each.name) for each in fields(card)} | {"rules": rules}
    return {name: value for name, value in content.items() if name != "worst_queries" or value is not None}


def from_content(content: Section) -> Card:
    """A card from what `to_content` gave.

    Raises:
        TypeError, KeyError, ValueError: it is none.
    """
    rules = {name: _read_rule(name, value) for name, value in content["rules"].items()}
    values = {each.name: content[each.name] for each in fields(Card) if each.name in content}
    return Card(**{**values, "rules": Protocol(**rules)})


def write_card(path: Path, card: Card) -> None:
    """Write a card as JSON, whole or not at all; an existing card is replaced.

    Raises:
        OutputError: the file cannot be written.
    """
    text = json.dumps(to_content(card), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    write_bytes(path, text.encode())


def read_card(path: Path) -> Card:
    """Read a card.

    Raises:
        DataError: the file is missing, damaged or no result card.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); give a result card written by an evaluation"
        ) from None
    except ValueError:
        raise DataError(f"{path}: is not JSON; give a result card written by an evaluation") from None
    if not isinstance(content, dict) or not isinstance(content.get("metrics"), dict) or "rules" not in content:
        raise DataError(f"{path}: is JSON but no result card (it lacks metrics or rules); give one of an evaluation")
    try:
        return from_content(content)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: its rules cannot be read ({error}); give a card of this version") from None


@dataclass(frozen=True)
class Difference:
    """A field in which two cards differ; None stands where a card lacks it."""

    name: str  # dotted, e.g. "rules.ap"
    a: Any
    b: Any


def diff_cards(a: Card, b: Card) -> dict[str, list[Difference]]:
    """In what two results differ.

    Returns:
        "protocol", "data", "model" and "numbers" to the differing fields, sorted by name; only if the first two are
        empty do the numbers measure the same thing, and "model" says on what.
    """
    left, right = (dict(leaves(to_content(card))) for card in (a, b))
    groups: dict[str, list[Difference]] = {name: [] for name in (*GROUPS, "numbers")}
    for name in sorted(left.keys() | right.keys()):
        if left.get(name) != right.get(name) and name.split(".")[0] not in REPEATED:
            groups[_group(name)].append(Difference(name, left.get(name), right.get(name)))
    return groups


def describe_diff(groups: Mapping[str, Sequence[Difference]], name_a: str = "A", name_b: str = "B") -> str:
    """What `diff_cards` gave for a reader, one field a line, the cards called by two names."""
    causes = [name for name in MEASURED if groups[name]]
    if causes:
        verb = "differs" if causes == ["protocol"] else "differ"
        verdict = f"The numbers are not of one kind: {' and '.join(causes)} {verb}."
    elif groups["model"]:
        verdict = "The numbers are of one kind: protocol and data are the same; see whether the model differs as meant."
    else:
        verdict = "Protocol, data and model are the same."
    lines = [verdict]
    for group, differences in groups.items():
        lines += ["", f"{group}: {'same' if not differences else f'{len(differences)} differ'}"]
        width = max((len(difference.name) for difference in differences), default=0)
        lines += [
            f"  {difference.name:<{width}}  {name_a}: {_text(difference.a)}   {name_b}: {_text(difference.b)}"
            for difference in differences
        ]
    return "\n".join(lines)


def leaves(content: Section, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every field below a section with its dotted name; lists are fields."""
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _read_rule(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(tuple(each) if isinstance(each, list) else each for each in value)
    return Modality[value.upper()] if name.endswith("_modality") and value is not None else value


def _listed(evaluations: Evaluation | Sequence[Evaluation]) -> list[Evaluation]:
    return [evaluations] if isinstance(evaluations, Evaluation) else list(evaluations)


def _numbers(trials: Sequence[Evaluation]) -> dict[str, Any]:
    """Metrics averaged over trials, the mean AP by both rules."""
    metrics = combine([trial.metrics for trial in trials]).metrics
    by_rule = {
        f"mean_ap_{rule}": float(np.mean([float(trial.ap_by(rule)[trial.counted].mean()) for trial in trials]))
        for rule in ("step", "trapezoid")
    }
    return {**_short(metrics), **by_rule, "num_dropped": metrics.num_dropped, "cmc": metrics.cmc.tolist()}


def _short(metrics: Metrics) -> dict[str, Any]:
    values = (*map(metrics.rank, RANKS), metrics.mean_ap, metrics.mean_inp)
    return {**dict(zip(QUANTITIES, values, strict=True)), "num_queries": metrics.num_queries}


def _ends(interval: Interval) -> dict[str, float]:
    return {"low": interval.low, "high": interval.high}


def _levels(
    trials: Sequence[Evaluation], names: Sequence[str], *, rng: np.random.Generator, draws: int
) -> dict[str, Any]:
    """Metrics of every level, averaged over the trials in which it has a match, and the interval of its mean AP."""
    labels = [[names[row] for row in trial.query_rows.tolist()] for trial in trials]
    by_level = [by_label(trial, own) for trial, own in zip(trials, labels, strict=True)]
    levels = {}
    for level in dict.fromkeys(name for own in labels for name in own):
        results = [trial[level] for trial in by_level if level in trial]
        if results:
            masks = [torch.tensor([name == level for name in own]) for own in labels]
            interval = bootstrap(trials, rng=rng, mask=masks, draws=draws)["mean_ap"]
            levels[level] = {**_short(combine(results).metrics), "mean_ap_interval": _ends(interval)}
    return levels


def _plain(value: Any) -> Any:
    """The same as JSON types; numbers that JSON lacks become None."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.name.lower()
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return str(value)


def _group(name: str) -> str:
    for group, names in GROUPS.items():
        if any(f"{name}.".startswith(f"{each}.") for each in names):
            return group
    return "numbers"


def _text(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else "none" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
