"""Result cards: a number together with everything one must know to believe or to repeat it; and what two differ in.

A card is plain JSON. Fractions stay fractions. `rules` holds the whole protocol, `protocol`, `ap` and `cmc` repeat the
three of its fields that must stand beside every number.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tapetum.core.atomic import write_bytes
from tapetum.core.errors import DataError
from tapetum.core.seeding import numpy_generator
from tapetum.core.versions import read_versions
from tapetum.evaluation.bootstrap import QUANTITIES, RANKS, Interval, bootstrap, combine
from tapetum.evaluation.chance import chance_level
from tapetum.evaluation.metrics import Evaluation, Metrics
from tapetum.evaluation.rerank import RerankOptions
from tapetum.evaluation.slices import by_label

Card = dict[str, Any]
FORMAT = 1
GROUPS = {  # which part of a difference each field of a card belongs to
    "protocol": ("rules", "trials.count", "galleries", "mirror", "rerank", "bootstrap.level", "bootstrap.draws"),
    "data": ("data",),
    "model": ("method", "recipe", "checkpoint", "seed", "versions"),
}
MEASURED = ("protocol", "data")  # numbers that differ in these cannot be compared
REPEATED = ("protocol", "ap", "cmc", "format")  # say nothing that other fields do not say


def build_card(
    evaluations: Evaluation | Sequence[Evaluation],
    *,
    method: str,
    recipe: Mapping[str, Any],
    checkpoint: Mapping[str, Any],
    data: Mapping[str, Any],
    mirror: bool,
    seed: int,
    seconds: float,
    reranked: Evaluation | Sequence[Evaluation] | None = None,
    rerank: RerankOptions | None = None,
    labels: Mapping[str, Sequence[str]] | None = None,
    slices: Mapping[str, Mapping[str, Metrics]] | None = None,
    galleries: str | None = None,
    draws: int = 1000,
) -> Card:
    """Everything about one result.

    Args:
        evaluations: one, or one a trial.
        method: name of the method.
        recipe: the resolved recipe.
        checkpoint: how it was chosen ("chosen_by") and what else identifies it.
        data: name and fingerprint of the pictures, and what else identifies them.
        mirror: whether pictures were joined with their mirror.
        seed: of the training.
        seconds: of extraction and evaluation.
        reranked: the same after re-ranking.
        rerank: settings of the re-ranking; None where there was none.
        labels: property -> names of levels, one a query as given, e.g. {"light": ["low", ...]}; metrics and interval of
            each level.
        slices: property -> level -> metrics that were computed elsewhere, e.g. by camera pair.
        galleries: what the trials drew, and how, e.g. "queries drawn by ..."; None where the dataset fixes everything.
        draws: resamplings of the bootstrap.
    """
    trials = [evaluations] if isinstance(evaluations, Evaluation) else list(evaluations)
    combined = combine([trial.metrics for trial in trials])
    rules = asdict(combined.metrics.protocol)
    intervals = bootstrap(trials, rng=numpy_generator(seed, "bootstrap"), draws=draws)
    chances = [chance_level(trial) for trial in trials]
    card: Card = {
        "format": FORMAT,
        "protocol": rules["name"],
        "ap": rules["ap"],
        "cmc": rules["cmc"],
        "rules": rules,
        "metrics": _numbers(trials),
        "trials": {
            "count": combined.count,
            "deviation": combined.deviations,
            "each": [_short(trial.metrics) for trial in trials],
        },
        "galleries": galleries,
        "bootstrap": {
            "level": intervals["rank1"].level,
            "draws": draws,
            **{name: _ends(interval) for name, interval in intervals.items()},
        },
        "chance": {
            "rank1": float(np.mean([chance.rank1 for chance in chances])),
            "mean_ap": float(np.mean([chance.mean_ap for chance in chances])),
        },
        "rerank": None if rerank is None else asdict(rerank),
        "reranked": None,
        "mirror": mirror,
        "checkpoint": dict(checkpoint),
        "data": dict(data),
        "method": method,
        "recipe": dict(recipe),
        "seed": seed,
        "seconds": seconds,
        "versions": read_versions(),
        "slices": {
            name: {level: _short(metrics) for level, metrics in levels.items()}
            for name, levels in (slices or {}).items()
        },
    }
    if reranked is not None:
        card["reranked"] = _numbers([reranked] if isinstance(reranked, Evaluation) else list(reranked))
    for name, names in (labels or {}).items():
        card["slices"][name] = _levels(trials, names, rng=numpy_generator(seed, "bootstrap", name), draws=draws)
    return {name: _plain(value) for name, value in card.items()}


def write_card(path: Path, card: Mapping[str, Any]) -> None:
    """Write a card as JSON, whole or not at all.

    Args:
        path: where; an existing card is replaced.
        card: what `build_card` gave.
    Raises:
        OutputError: the file cannot be written.
    """
    text = json.dumps(card, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    write_bytes(path, text.encode())


def read_card(path: Path) -> Card:
    """Read a card.

    Args:
        path: a JSON file that `write_card` wrote.
    Raises:
        DataError: the file is missing, damaged or no result card.
    """
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); give a result card written by an evaluation"
        ) from None
    except ValueError:
        raise DataError(f"{path}: is not JSON; give a result card written by an evaluation") from None
    if not isinstance(card, dict) or not isinstance(card.get("metrics"), dict) or "rules" not in card:
        raise DataError(f"{path}: is JSON but no result card (it lacks metrics or rules); give one of an evaluation")
    return card


@dataclass(frozen=True)
class Difference:
    """A field in which two cards differ.

    Attributes:
        name: dotted, e.g. "rules.ap".
        a, b: its values; None where a card lacks it.
    """

    name: str
    a: Any
    b: Any


def diff_cards(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, list[Difference]]:
    """In what two results differ.

    Args:
        a: a card.
        b: another.
    Returns:
        "protocol", "data", "model" and "numbers" to the differing fields, sorted by name; only if the first two are
        empty do the numbers measure the same thing, and "model" says on what.
    """
    left, right = dict(_leaves(a)), dict(_leaves(b))
    groups: dict[str, list[Difference]] = {name: [] for name in (*GROUPS, "numbers")}
    for name in sorted(left.keys() | right.keys()):
        if left.get(name) != right.get(name) and name.split(".")[0] not in REPEATED:
            groups[_group(name)].append(Difference(name, left.get(name), right.get(name)))
    return groups


def describe_diff(groups: Mapping[str, Sequence[Difference]], name_a: str = "A", name_b: str = "B") -> str:
    """A difference for a reader, one field a line.

    Args:
        groups: what `diff_cards` gave.
        name_a: what to call the first card.
        name_b: what to call the second.
    """
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


def _numbers(trials: Sequence[Evaluation]) -> Card:
    """Metrics averaged over trials, the mean AP by both rules."""
    metrics = combine([trial.metrics for trial in trials]).metrics
    by_rule = {
        f"mean_ap_{rule}": float(np.mean([float(trial.ap_by(rule)[trial.counted].mean()) for trial in trials]))
        for rule in ("step", "trapezoid")
    }
    return {**_short(metrics), **by_rule, "num_dropped": metrics.num_dropped, "cmc": metrics.cmc.tolist()}


def _short(metrics: Metrics) -> Card:
    values = (*map(metrics.rank, RANKS), metrics.mean_ap, metrics.mean_inp)
    return {**dict(zip(QUANTITIES, values, strict=True)), "num_queries": metrics.num_queries}


def _ends(interval: Interval) -> Card:
    return {"low": interval.low, "high": interval.high}


def _levels(trials: Sequence[Evaluation], names: Sequence[str], *, rng: np.random.Generator, draws: int) -> Card:
    """Metrics of every level, averaged over the trials in which it has a match, and the interval of its mean AP."""
    asked = [[names[row] for row in trial.query_rows.tolist()] for trial in trials]
    found = [by_label(trial, own) for trial, own in zip(trials, asked, strict=True)]
    levels = {}
    for level in dict.fromkeys(name for own in asked for name in own):
        results = [trial[level] for trial in found if level in trial]
        if results:
            masks = [torch.tensor([name == level for name in own]) for own in asked]
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


def _leaves(card: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in card.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _group(name: str) -> str:
    for group, fields in GROUPS.items():
        if any(name == field or name.startswith(f"{field}.") for field in fields):
            return group
    return "numbers"


def _text(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else "none" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
