"""What a report takes out of result cards."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tapetum.core.protocol import Protocol
from tapetum.core.types import EmbeddingSet
from tapetum.core.vectors import normalise
from tapetum.evaluation.card import Card, build_card, from_content, leaves
from tapetum.evaluation.metrics import evaluate
from tapetum.evaluation.slices import by_camera_pair
from tapetum.report import cards
from tapetum.report.content import Result
from tapetum.report.tables import LONGEST_VALUE, short_text


def partial(**content: Any) -> Card:
    return from_content({"rules": {"name": "toy"}, "metrics": {}} | content)


def dark_camera_card() -> Card:
    """Eight people under three cameras as points with noise; camera 3 is so dark that its vectors are pure noise."""
    rng = torch.Generator().manual_seed(0)
    people = torch.randn(8, 16, generator=rng)
    pids, camids = torch.arange(8).repeat_interleave(6), torch.arange(1, 4).repeat_interleave(2).repeat(8)
    noise = torch.randn(48, 16, generator=rng)
    vectors = torch.where((camids == 3).unsqueeze(1), noise, people[pids] + 0.5 * noise)
    everything = EmbeddingSet(
        normalise(vectors), (Path("a.png"),) * 48, pids, camids, torch.zeros(48, dtype=torch.int64)
    )
    query, gallery = everything.select(torch.arange(0, 48, 2)), everything.select(torch.arange(1, 48, 2))
    protocol = Protocol(name="toy")
    return build_card(
        evaluate(query, gallery, protocol),
        method="ide",
        recipe={},
        checkpoint={},
        data={},
        mirror=False,
        seed=0,
        seconds=1.0,
        labels={"light": ["low" if camid == 3 else "high" for camid in query.camids.tolist()]},
        slices={"camera_pair": by_camera_pair(query, gallery, protocol)},
        draws=50,
    )


def test_a_planted_dark_camera_comes_out_worst() -> None:
    card = dark_camera_card()
    (light,) = cards.breakdowns([Result("IDE+", card)])
    assert light.levels == ("low", "high")
    assert light.counts == (8, 16)
    values, ends = light.values["IDE+"], light.intervals["IDE+"]
    assert values[0] < values[1]
    assert (ends[:, 0] <= values).all()
    assert (values <= ends[:, 1]).all()
    worst = cards.worst_slices([Result("IDE+", card)], fewest=8)
    dark = {"light: low", *(f"camera {a} to camera {b}" for a, b in [(1, 3), (2, 3), (3, 1), (3, 2)])}
    assert {one.slice for one in worst[:4]} <= dark
    assert [one.mean_ap for one in worst] == sorted(one.mean_ap for one in worst)


def test_the_worst_slices_of_several_methods_are_those_worst_for_all_of_them() -> None:
    def card(low: float, high: float) -> Card:
        row = {"num_queries": 20, "rank1": 0.5}
        return partial(slices={"light": {"low": {**row, "mean_ap": low}, "high": {**row, "mean_ap": high}}})

    worst = cards.worst_slices([Result("a", card(0.1, 0.2)), Result("b", card(0.5, 0.3))], count=1)
    assert [(one.method, one.slice, one.mean_ap) for one in worst] == [
        ("a", "light: high", 0.2),
        ("b", "light: high", 0.3),
    ]


def test_small_slices_are_left_out_unless_all_are_small() -> None:
    results = [Result("IDE+", dark_camera_card())]
    assert {one.slice for one in cards.worst_slices(results, fewest=16)} == {"light: high"}
    assert len(cards.worst_slices(results, fewest=1000)) == 8


def test_levels_stand_in_their_own_order_and_numbers_in_theirs() -> None:
    row = {"num_queries": 3, "rank1": 0.5, "mean_ap": 0.4}

    def levels(*names: str) -> tuple[str, ...]:
        card = partial(slices={"property": dict.fromkeys(names, row)})
        return cards.breakdowns([Result("IDE+", card)])[0].levels

    assert levels("high", "low", "medium") == ("low", "medium", "high")
    assert levels("big", "small") == ("small", "big")
    assert levels("camera 10", "camera 2", "camera 1") == ("camera 1", "camera 2", "camera 10")


def test_a_method_without_a_slice_has_no_bar_there() -> None:
    row = {"num_queries": 3, "rank1": 0.5, "mean_ap": 0.4, "mean_ap_interval": {"low": 0.3, "high": 0.5}}
    both = [Result("a", partial(slices={"light": {"low": row, "high": row}})), Result("b", partial())]
    (light,) = cards.breakdowns(both)
    assert light.values["a"].tolist() == [0.4, 0.4]
    assert np.isnan(light.values["b"]).all()


def test_every_field_of_a_card_is_listed_and_long_values_are_cut() -> None:
    content = {"a": {"b": 0.123456, "c": None}, "cmc": list(range(200)), "e": {}}
    listed = {name: short_text(value) for name, value in leaves(content)}
    assert listed["a.b"] == "0.1235"
    assert listed["a.c"] == "none"
    assert listed["cmc"].startswith("0, 1, 2")
    assert len(listed["cmc"]) == LONGEST_VALUE


def test_several_trials_show_their_deviation() -> None:
    card = partial(trials={"count": 10, "deviation": {"rank1": 0.0123}})
    assert cards.trials(card, "rank1") == "± 1.2 over 10 trials"
    assert cards.trials(partial(trials={"count": 1, "deviation": {"rank1": 0.0}}), "rank1") == ""


def test_what_the_trials_drew_stands_among_the_circumstances() -> None:
    card = dark_camera_card()
    assert "trials" not in cards.circumstances(card)
    drawn = replace(card, galleries="rand_perm_cam.mat", trials={**card.trials, "count": 10})
    assert cards.circumstances(drawn)["trials"] == "10, rand_perm_cam.mat"
