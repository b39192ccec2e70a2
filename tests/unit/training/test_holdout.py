from pathlib import Path

import numpy as np
import pytest

from tapetum.core.errors import TrainingError
from tapetum.core.protocol import Protocol
from tapetum.core.types import Modality, Record
from tapetum.data.catalog import Dataset
from tapetum.training.holdout import split_holdout, validate_on_test

ACROSS = Protocol(
    "across",
    query_modality=Modality.INFRARED,
    gallery_modality=Modality.VISIBLE,
    junk="none",
    junk_camera_pairs=((3, 2),),
    cmc="identities",
    trials=10,
    drawn="gallery",
)


def build_records(people: int = 20, cameras: int = 3, pictures: int = 2) -> list[Record]:
    return [
        Record(Path(f"{pid:04d}_c{camid}_{index}.jpg"), pid, camid)
        for pid in range(people)
        for camid in range(1, cameras + 1)
        for index in range(pictures)
    ]


def build_two_modalities(split: str = "train", infrared_cameras: tuple[int, ...] = (3, 6)) -> list[Record]:
    cameras = [(1, Modality.VISIBLE), (2, Modality.VISIBLE)] + [(c, Modality.INFRARED) for c in infrared_cameras]
    return [
        Record(Path(f"{pid:04d}_c{camid}_{index}.jpg"), pid, camid, modality, split)
        for pid in range(12)
        for camid, modality in cameras
        for index in range(1, 4)
    ]


def test_held_out_people_never_train_and_every_picture_has_a_place() -> None:
    records = build_records()
    train, validation = split_holdout(records, 0.25, seed=3)
    aside = {record.pid for record in validation.gallery}
    assert len(aside) == 5
    assert not aside & {record.pid for record in train}
    assert len(train) + len(validation.gallery) == len(records)
    assert {record.split for record in validation.query} == {"query"}
    assert {record.path.stem[-1] for record in validation.query} == {"0"}, "the first picture of each searches"
    assert [(r.pid, r.camid) for r in validation.query] == sorted({(r.pid, r.camid) for r in validation.gallery})


def test_the_same_seed_sets_the_same_people_aside_whatever_the_order_of_records() -> None:
    records = build_records()
    _, validation = split_holdout(records, 4, seed=1)
    assert split_holdout(records[::-1], 4, seed=1)[1] == validation
    assert split_holdout(records, 4, seed=2)[1].query != validation.query


def test_too_few_people_to_set_aside_or_to_train_on_is_an_error() -> None:
    with pytest.raises(TrainingError, match="leave fewer than 2 to train on"):
        split_holdout(build_records(people=3), 0.1, seed=0)
    with pytest.raises(TrainingError, match="was seen by two cameras"):
        split_holdout(build_records(cameras=1), 0.1, seed=0)


def test_held_out_people_are_searched_for_across_modalities_as_the_protocol_wants() -> None:
    _, validation = split_holdout(build_two_modalities(), 3, seed=0, protocol=ACROSS)
    assert {record.modality for record in validation.query} == {Modality.INFRARED}
    assert {record.modality for record in validation.gallery} == {Modality.VISIBLE}
    assert [record.camid for record in validation.query] == [3, 6] * 3  # one picture a person and camera
    assert len(validation.gallery) == 3 * 2 * 3
    rules = validation.protocol
    assert (rules.name, rules.junk, rules.junk_camera_pairs) == ("holdout", "none", ((3, 2),))
    assert (rules.drawn, rules.trials) == (None, 1)


def test_the_other_direction_swaps_the_sides() -> None:
    swapped = Protocol("swapped", query_modality=Modality.VISIBLE, gallery_modality=Modality.INFRARED)
    _, validation = split_holdout(build_two_modalities(), 3, seed=0, protocol=swapped)
    assert {record.camid for record in validation.query} == {1, 2}
    assert {record.camid for record in validation.gallery} == {3, 6}


def test_held_out_people_of_one_modality_cannot_be_searched_for_in_the_other() -> None:
    with pytest.raises(TrainingError, match="seen in both modalities by cameras that protocol across compares"):
        split_holdout(build_two_modalities(infrared_cameras=()), 3, seed=0, protocol=ACROSS)
    only_camera_2 = [record for record in build_two_modalities(infrared_cameras=(3,)) if record.camid != 1]
    with pytest.raises(TrainingError, match="seen in both modalities by cameras that protocol across compares"):
        split_holdout(only_camera_2, 3, seed=0, protocol=ACROSS)  # camera 3 never searches in camera 2


def test_validation_on_the_test_set_takes_the_first_trial() -> None:
    records = tuple(build_two_modalities("test"))
    dataset = Dataset("toy", Path("root"), records, {"across": ACROSS}, "across")
    validation = validate_on_test(dataset, ACROSS)
    assert validation.at_test
    assert len(validation.query) == 12 * 2 * 3
    assert [(r.pid, r.camid) for r in validation.gallery] == [(pid, camid) for pid in range(12) for camid in (1, 2)]
    assert validation.protocol.drawn is None
    chosen = {(camid, pid): np.full((10, 3), [3, 1, 2]) for camid in (1, 2) for pid in range(12)}
    by_file = validate_on_test(Dataset("toy", Path("root"), records, {"across": ACROSS}, "across", chosen), ACROSS)
    assert {record.path.stem[-1] for record in by_file.gallery} == {"3"}


def test_validation_on_a_test_set_without_a_side_is_refused() -> None:
    records = tuple(record for record in build_two_modalities("test") if record.modality == Modality.VISIBLE)
    dataset = Dataset("toy", Path("root"), records, {"across": ACROSS}, "across")
    with pytest.raises(TrainingError, match="has no query picture for protocol across; complete it, or use"):
        validate_on_test(dataset, ACROSS)
