import numpy as np

from tapetum.core.types import Modality
from tapetum.footage.choose import CropCandidate, CropChooser
from tapetum.footage.quality import CUT, Quality


def offer(chooser: CropChooser, frame: int, value: float, *, height: int = 20, remark: str = "") -> None:
    if chooser.wants(frame / 10, value):
        box = (0, 0, 10, height)
        chooser.add(CropCandidate(frame, frame / 10, box, Modality.VISIBLE, Quality(value, remark, 50.0), b""))


def test_crops_are_the_best_of_their_time_and_spread_over_the_tracklet() -> None:
    chooser = CropChooser(4, 0.5)
    for frame in range(400):
        offer(chooser, frame, 0.9 if frame in (37, 190, 260, 390) else 0.5)
    assert [each.frame for each in chooser.choose(0.3)] == [37, 190, 260, 390]


def test_memory_stays_bounded_at_any_length() -> None:
    chooser = CropChooser(3, 0.5)
    rng = np.random.default_rng(0)
    for frame in range(20_000):
        offer(chooser, frame, float(rng.uniform()))
        assert len(chooser._kept) <= 6
    chosen = chooser.choose(0.3)
    assert len(chosen) == 3
    assert [each.frame for each in chosen] == sorted(each.frame for each in chosen)
    assert min(np.diff([each.frame for each in chosen])) > 1000


def test_a_short_tracklet_keeps_what_it_has_and_leaves_out_what_is_far_worse() -> None:
    chooser = CropChooser(8, 0.5)
    for frame, value in ((0, 0.9), (10, 0.1), (20, 0.8)):
        offer(chooser, frame, value)
    assert [each.frame for each in chooser.choose(0.5)] == [0, 20]
    assert [each.frame for each in chooser.choose(0.0)] == [0, 10, 20]
    assert CropChooser(8, 0.5).choose(0.5) == []


def test_a_leg_at_the_edge_is_no_crop_of_the_person() -> None:
    chooser = CropChooser(8, 0.5)
    for frame in (0, 10, 20):
        offer(chooser, frame, 0.7, height=100)
    offer(chooser, 30, 0.6, height=90, remark=CUT)
    offer(chooser, 40, 0.6, height=30, remark=CUT)
    assert [each.frame for each in chooser.choose(0.5)] == [0, 10, 20, 30]
    assert chooser.choose(0.0)[-1].quality.value == 0.24
