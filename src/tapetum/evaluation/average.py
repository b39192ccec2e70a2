"""The mean over several trainings: result cards that differ in the seed, or in who was trained on and who is tested.

RegDB's published numbers are of this kind: ten divisions of its people, a training on each.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tapetum.core.errors import ProtocolError
from tapetum.core.recipe_keys import DECIDE_NO_WEIGHTS, is_within
from tapetum.evaluation.bootstrap import QUANTITIES, mean_and_deviation
from tapetum.evaluation.card import Card, diff_cards

# What may differ: names, where pictures lie and how they are kept, and the weights that came out.
OWN_TO_A_RUN = (
    "seed",
    "versions",
    "checkpoint.file",
    "checkpoint.digest",
    "checkpoint.chosen_by",
    "checkpoint.epoch",
    "checkpoint.origin",
    "recipe.seed",
    "recipe.name",
    *(f"recipe.{key}" for key in DECIDE_NO_WEIGHTS),
)
OWN_TO_A_DIVISION = ("data.division", "data.fingerprint", "data.pictures", "data.query", "data.gallery")


def average_cards(cards: Mapping[str, Card]) -> dict[str, Any]:
    """Mean and deviation over two or more cards, by what to call them, of one method by one protocol.

    Returns:
        count, protocol, ap, cmc, method, data (its name), divisions and seeds (one a card), metrics and reranked (each
        quantity to its mean; reranked is None where the cards have none) and their sample deviations.
    Raises:
        ProtocolError: fewer than two cards, a training that is there twice, or a difference in more than seed and
            division.
    """
    if len(cards) < 2:
        raise ProtocolError(
            f"an average needs two result cards or more, found {len(cards)}; name those of several runs"
        )
    (first, card), *others = cards.items()
    seen = {_training(card): first}
    for name, other in others:
        _require_alike(first, card, name, other)
        _require_as_long(first, card, name, other)
        twin = seen.setdefault(_training(other), name)
        if twin != name:
            what = ", ".join([*(f"{key} {value}" for key, value in _division(other).items()), f"seed {other.seed}"])
            raise ProtocolError(f"{name}: is of the same training as {twin} ({what}); name each training once")
    means, deviations = _average([each.metrics for each in cards.values()])
    reranked = _average([each.reranked or {} for each in cards.values()]) if card.reranked else (None, None)
    return {
        "count": len(cards),
        "protocol": card.rules.name,
        "ap": card.rules.ap,
        "cmc": card.rules.cmc,
        "method": card.method,
        "data": card.data["name"],
        "divisions": [_division(each) for each in cards.values()],
        "seeds": [each.seed for each in cards.values()],
        "metrics": means,
        "deviation": deviations,
        "reranked": reranked[0],
        "reranked_deviation": reranked[1],
    }


def _require_as_long(first: str, card: Card, name: str, other: Card) -> None:
    """Of trainings whose last weights are tested, one that is not over is no equal; a best epoch may be any.

    Raises:
        ProtocolError: one is behind.
    """
    lengths = [each.checkpoint.get("epoch") for each in (card, other)]
    last = all(each.recipe.get("selection", {}).get("rule") == "last" for each in (card, other))
    if last and lengths[0] != lengths[1]:
        raise ProtocolError(
            f"{first} was tested after epoch {lengths[0]} and {name} after epoch {lengths[1]}; finish the shorter "
            "training and evaluate it again, or leave it out"
        )


def _division(card: Card) -> dict[str, Any]:
    return dict(card.data.get("division") or {})


def _training(card: Card) -> str:
    return f"{sorted(_division(card).items())} {card.seed}"


def _require_alike(first: str, card: Card, name: str, other: Card) -> None:
    """Nothing but the seed and the division differs, and what follows from them."""
    free: tuple[str, ...] = OWN_TO_A_RUN
    if _division(card) != _division(other):
        free += (*OWN_TO_A_DIVISION, *(f"recipe.data.options.{option}" for option in _division(card)))
    groups = diff_cards(card, other)
    for difference in (*groups["protocol"], *groups["model"], *groups["data"]):
        if not is_within(difference.name, free):
            raise ProtocolError(
                f"{name}: differs from {first} in {difference.name} ({difference.b!r} against {difference.a!r}); "
                "average cards of one method and one protocol that differ in the seed or the division of the people "
                "alone"
            )


def _average(results: Sequence[Mapping[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Each quantity to its mean, and to its deviation."""
    pairs = {name: mean_and_deviation([result[name] for result in results]) for name in QUANTITIES}
    return {name: pair[0] for name, pair in pairs.items()}, {name: pair[1] for name, pair in pairs.items()}
