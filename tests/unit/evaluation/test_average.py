"""Means over trainings: which cards may stand together."""

import statistics
from dataclasses import replace
from typing import Any

import pytest

from tapetum.core.errors import ProtocolError
from tapetum.evaluation.average import average_cards
from tapetum.evaluation.bootstrap import QUANTITIES
from tapetum.evaluation.card import Card, from_content


def make(trial: int, *, seed: int = 0, **changes: Any) -> Card:
    """A card of RegDB as an evaluation writes it, in what matters here; "a__b" names what is deeper."""
    card: dict[str, Any] = {
        "format": 1,
        "protocol": "regdb_vis_to_ir",
        "ap": "step",
        "cmc": "pictures",
        "rules": {"name": "regdb_vis_to_ir", "ap": "step"},
        "metrics": dict.fromkeys(QUANTITIES, 0.5 + trial / 100) | {"num_queries": 2060},
        "reranked": None,
        "rerank": None,
        "mirror": False,
        "galleries": None,
        "trials": {"count": 1},
        "checkpoint": {"digest": f"d{trial}", "chosen_by": "last complete epoch, 81 of 81", "precision": "fp32"},
        "data": {
            "name": "regdb",
            "fingerprint": f"f{trial}",
            "pictures": {"query": f"q{trial}", "gallery": f"g{trial}"},
            "division": {"trial": trial},
            "options": {},
            "size": [288, 144],
        },
        "method": "agw_vi",
        "recipe": {"name": "agw_regdb", "seed": seed, "data": {"options": {"trial": trial}, "root": "RegDB"}},
        "seed": seed,
    }
    for name, value in changes.items():
        *path, last = name.split("__")
        inner = card
        for part in path:
            inner = inner[part]
        inner[last] = value
    return from_content(card)


def test_ten_divisions_have_one_mean_and_the_sample_deviation() -> None:
    found = average_cards({f"run {trial}": make(trial) for trial in range(1, 11)})
    values = [0.5 + trial / 100 for trial in range(1, 11)]
    assert found["count"] == 10
    assert found["divisions"] == [{"trial": trial} for trial in range(1, 11)]
    assert found["seeds"] == [0] * 10
    for name in QUANTITIES:
        assert found["metrics"][name] == pytest.approx(statistics.fmean(values))
        assert found["deviation"][name] == pytest.approx(statistics.stdev(values))
    assert found["reranked"] is found["reranked_deviation"] is None


def test_reranked_numbers_are_averaged_as_well() -> None:
    cards = {str(trial): make(trial, rerank={"k1": 20}) for trial in (1, 2)}
    found = average_cards({name: replace(card, reranked=card.metrics) for name, card in cards.items()})
    assert found["reranked"] == found["metrics"]
    assert found["reranked_deviation"] == found["deviation"]


def test_runs_may_lie_elsewhere_and_be_of_several_seeds() -> None:
    others = {"b": make(1, seed=1, recipe__data__root="elsewhere"), "c": make(1, seed=2, checkpoint__digest="other")}
    assert average_cards({"a": make(1), **others})["seeds"] == [0, 1, 2]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (make(2, method="deen"), r"b: differs from a in method \('deen' against 'agw_vi'\)"),
        (make(2, rules__name="regdb_ir_to_vis"), "differs from a in rules.name"),
        (make(2, mirror=True), "differs from a in mirror"),
        (make(2, rerank={"k1": 20}), "differs from a in rerank"),
        (make(2, galleries="rand_perm_cam.mat"), "differs from a in galleries"),
        (make(2, trials__count=10), "differs from a in trials.count"),
        (make(2, checkpoint__precision="bf16"), "differs from a in checkpoint.precision"),
        (make(2, data__name="synth"), "differs from a in data.name"),
        (make(2, recipe__data__size=[384, 144]), "differs from a in recipe.data.size"),
        (make(1, seed=1, data__fingerprint="f2"), "differs from a in data.fingerprint"),
        (make(1, checkpoint__digest="other"), r"b: is of the same training as a \(trial 1, seed 0\)"),
    ],
)
def test_cards_that_differ_in_anything_else_are_refused_by_name(other: Card, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        average_cards({"a": make(1), "b": other})


def test_an_average_of_one_is_refused() -> None:
    with pytest.raises(ProtocolError, match="needs two result cards or more, found 1"):
        average_cards({"a": make(1)})


def test_a_training_that_is_not_over_is_no_equal_of_one_that_is() -> None:
    epochs = {1: 81, 2: 40}  # trial -> behind the weights
    whole, half = (make(n, checkpoint__epoch=each, recipe__selection={"rule": "last"}) for n, each in epochs.items())
    with pytest.raises(ProtocolError, match=r"a was tested after epoch 81 and b after epoch 40; finish the shorter"):
        average_cards({"a": whole, "b": half})
    best = [make(n, checkpoint__epoch=each, recipe__selection={"rule": "best"}) for n, each in epochs.items()]
    assert average_cards(dict(zip("ab", best, strict=True)))["count"] == 2
