from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from tapetum.core.errors import DataError, ProtocolError
from tapetum.core.types import EmbeddingSet, Modality, Record
from tapetum.data.catalog import Dataset, open_dataset
from tapetum.data.datasets import city, llcm, regdb, sysu_mm01
from tapetum.evaluation.metrics import evaluate
from tapetum.evaluation.slices import by_modality
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


@pytest.mark.parametrize(
    ("module", "name"),
    [(sysu_mm01, "sysu_mixed"), (regdb, "regdb_mixed"), (llcm, "llcm_mixed"), (city, "city_mixed")],
)
def test_a_mixed_gallery_is_every_test_picture_but_the_query_s_person_under_its_camera(
    module: ModuleType, name: str, tmp_path: Path
) -> None:
    module.write_miniature(tmp_path, np.random.default_rng(0))
    dataset = open_dataset(module.NAME, tmp_path)
    plan = plan_test(dataset, dataset.protocol(name))
    tested = [record for record in dataset.records if record.split == "test"]
    assert plan.drawn is None
    assert plan.records["query"] == plan.records["gallery"]
    assert set(plan.records["query"]) == set(tested)
    assert {record.modality for record in tested} == {Modality.VISIBLE, Modality.INFRARED}

    everyone = describe_at_random(plan.records["query"])
    found, (_, figures) = evaluate(everyone, everyone, plan.rules), by_modality(everyone, everyone, plan.rules)
    similarities = everyone.vectors @ everyone.vectors.T
    hits, firsts, shares = [], {0: [], 1: []}, {0: [], 1: []}
    for row, query in enumerate(plan.records["query"]):
        ranked = [
            column
            for column, entry in enumerate(plan.records["query"])
            if (entry.pid, entry.camid) != (query.pid, query.camid)
        ]
        assert int(found.num_ranked[row]) == len(ranked)
        nearest = plan.records["query"][max(ranked, key=lambda column: float(similarities[row, column]))]
        hits.append(nearest.pid == query.pid)
        firsts[query.modality].append(nearest.modality == query.modality)
        own = [plan.records["query"][column].modality == query.modality for column in ranked]
        shares[query.modality].append(np.mean(own))
    assert found.metrics.rank(1) == pytest.approx(np.mean(hits))
    for modality in Modality:
        figure = figures[modality.name.lower()]
        assert figure["own_modality_first"] == pytest.approx(np.mean(firsts[modality]))
        assert figure["own_modality_share"] == pytest.approx(np.mean(shares[modality]))
        assert figure["modality_bias"] == pytest.approx(np.mean(firsts[modality]) / np.mean(shares[modality]))


def describe_at_random(records: list[Record]) -> EmbeddingSet:
    """Vectors that hold a little of who is seen."""
    rng = np.random.default_rng(1)
    people = rng.normal(size=(1 + max(record.pid for record in records), 8))
    vectors = torch.from_numpy(np.stack([people[each.pid] + rng.normal(size=8) for each in records])).float()
    return EmbeddingSet(
        vectors=torch.nn.functional.normalize(vectors),
        paths=tuple(record.path for record in records),
        pids=torch.tensor([record.pid for record in records]),
        camids=torch.tensor([record.camid for record in records]),
        modalities=torch.tensor([int(record.modality) for record in records]),
    )
