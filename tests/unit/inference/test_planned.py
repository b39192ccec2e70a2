from dataclasses import replace
from pathlib import Path

import pytest

from tapetum.core.errors import DataError, ProtocolError
from tapetum.core.types import Modality
from tapetum.data.catalog import Dataset, open_dataset
from tapetum.inference.planned import choose_protocols, plan_test


def test_several_trials_of_nothing_drawn_are_refused(people: Path) -> None:
    dataset = open_dataset("night600", people)
    with pytest.raises(ProtocolError, match="wants 10 trials and draws nothing"):
        plan_test(dataset, replace(dataset.protocol(), trials=10))


def test_a_missing_modality_is_named_with_the_data_set(crossed: Dataset) -> None:
    visible = tuple(record for record in crossed.records if record.modality == Modality.VISIBLE)
    with pytest.raises(DataError, match=r"llcm: no infrared picture as query for protocol llcm_revised_nir_to_vis in .*"
                       "it has 36 test visible, 12 train"):  # fmt: skip
        plan_test(replace(crossed, records=visible), crossed.protocol())


def test_a_plan_holds_of_a_drawn_side_what_some_trial_takes(crossed: Dataset) -> None:
    plan = plan_test(crossed, crossed.protocol())
    assert plan.drawn is not None
    assert {row for rows in plan.drawn for row in rows.tolist()} == set(range(len(plan.records["gallery"])))
    assert set(plan.records["gallery"]) <= set(plan.whole["gallery"])
    assert plan.records["query"] == plan.whole["query"]


def test_protocols_are_chosen_once_each_and_the_default_where_none_is_named(crossed: Dataset) -> None:
    usual = crossed.default_protocol
    names = [rules.name for rules in choose_protocols(crossed, [None, "llcm_mixed", usual])]
    assert names == [usual, "llcm_mixed"]
