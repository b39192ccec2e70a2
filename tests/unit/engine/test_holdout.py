from pathlib import Path

import pytest

from tapetum.core.errors import TrainingError
from tapetum.core.types import Record
from tapetum.engine.holdout import split_holdout


def build_records(people: int = 20, cameras: int = 3, pictures: int = 2) -> list[Record]:
    return [
        Record(Path(f"{pid:04d}_c{camid}_{index}.jpg"), pid, camid)
        for pid in range(people)
        for camid in range(1, cameras + 1)
        for index in range(pictures)
    ]


def test_held_out_people_never_train_and_every_picture_has_a_place() -> None:
    records = build_records()
    parts = split_holdout(records, 0.25, seed=3)
    aside = {record.pid for record in parts.gallery}
    assert len(aside) == 5
    assert not aside & {record.pid for record in parts.train}
    assert len(parts.train) + len(parts.gallery) == len(records)
    assert {record.split for record in parts.query} == {"query"}
    assert [(r.pid, r.camid) for r in parts.query] == sorted({(r.pid, r.camid) for r in parts.gallery})


def test_the_same_seed_sets_the_same_people_aside_whatever_the_order_of_records() -> None:
    records = build_records()
    a, b = split_holdout(records, 4, seed=1), split_holdout(records[::-1], 4, seed=1)
    assert (a.query, a.gallery) == (b.query, b.gallery)
    assert split_holdout(records, 4, seed=2).query != a.query


def test_too_few_people_to_set_aside_or_to_train_on_is_an_error() -> None:
    with pytest.raises(TrainingError, match="leave fewer than 2 to train on"):
        split_holdout(build_records(people=3), 0.1, seed=0)
    with pytest.raises(TrainingError, match="was seen by two cameras"):
        split_holdout(build_records(cameras=1), 0.1, seed=0)
