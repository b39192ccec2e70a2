import itertools

import numpy as np
import pytest

from tapetum.footage.detect import Detections, find_parts
from tapetum.footage.track import Tracker, TrackerOptions, assign_best


def seen(*boxes: tuple[float, float, float, float], scores: tuple[float, ...] | None = None) -> Detections:
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), np.array(scores or [1.0] * len(boxes), np.float32))


def person(middle: float, *, top: float = 20, height: float = 60) -> tuple[float, float, float, float]:
    return (middle - 10, top, middle + 10, top + height)


def test_assignment_is_the_best_of_all_together() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        worth = rng.uniform(0, 1, (4, 4))
        pairs = assign_best(worth, np.ones((4, 4), bool))
        best = max(sum(worth[row, order[row]] for row in range(4)) for order in itertools.permutations(range(4)))
        assert sum(worth[pair] for pair in pairs) == pytest.approx(best)
    assert assign_best(np.ones((2, 2)), np.array([[True, False], [True, False]])) in ([(0, 0)], [(1, 0)])


def test_two_who_pass_each_other_keep_their_tracklets_by_their_velocity() -> None:
    tracker = Tracker()
    for frame in range(40):
        owners, ended = tracker.update(frame, frame / 10, seen(person(20 + 6 * frame), person(260 - 6 * frame, top=24)))
        assert owners.tolist() == [0, 1]
        assert not ended
    first, second = tracker.finish()
    assert (first.boxes[-1][0], second.boxes[-1][0]) == (20 + 6 * 39 - 10, 260 - 6 * 39 - 10)
    assert first.travel == pytest.approx(6 * 39 / 60)


def test_somebody_hidden_for_a_moment_comes_back_where_expected() -> None:
    tracker = Tracker()
    for frame in range(30):
        found = seen() if 12 <= frame < 20 else seen(person(20 + 8 * frame))
        owners, _ = tracker.update(frame, frame / 10, found)
        assert set(owners.tolist()) <= {0}
    assert len(tracker.finish()) == 1


def test_somebody_gone_for_longer_is_a_new_tracklet() -> None:
    tracker = Tracker(TrackerOptions(max_gap_seconds=1.0))
    tracker.update(0, 0.0, seen(person(50)))
    assert tracker.update(5, 0.5, seen())[1] == []
    owners, ended = tracker.update(20, 2.0, seen(person(50)))
    assert owners.tolist() == [1]
    assert [tracklet.number for tracklet in ended] == [0]


def test_a_jump_of_the_clock_and_the_longest_time_end_tracklets() -> None:
    tracker = Tracker(TrackerOptions(max_seconds=2.0))
    tracker.update(0, 0.0, seen(person(50)))
    owners, ended = tracker.update(1, 0.1, seen(person(50)), broken=True)
    assert (owners.tolist(), len(ended)) == ([1], 1)
    numbers = [tracker.update(frame, frame / 10, seen(person(50)))[0].tolist() for frame in range(2, 40)]
    assert numbers[0] == [1]
    assert numbers[-1] == [2]


def test_a_weak_detection_continues_a_tracklet_and_begins_none() -> None:
    tracker = Tracker(TrackerOptions(start_score=0.5))
    assert tracker.update(0, 0.0, seen(person(50), scores=(0.3,)))[0].tolist() == [-1]
    assert tracker.update(1, 0.1, seen(person(50), scores=(0.8,)))[0].tolist() == [0]
    assert tracker.update(2, 0.2, seen(person(51), scores=(0.3,)))[0].tolist() == [0]


def test_a_stranger_far_away_is_no_continuation() -> None:
    tracker = Tracker()
    tracker.update(0, 0.0, seen(person(50)))
    assert tracker.update(1, 0.1, seen(person(250)))[0].tolist() == [1]


def test_head_and_shoulders_begin_no_tracklet_of_their_own() -> None:
    body, head = (100.0, 20.0, 160.0, 200.0), (110.0, 22.0, 150.0, 90.0)
    tracker = Tracker()
    for frame in range(6):
        owners, _ = tracker.update(frame, frame / 10, seen(body, head) if frame in (2, 3) else seen(body))
        assert owners.tolist() == ([0, -1] if frame in (2, 3) else [0])
    assert [tracklet.number for tracklet in tracker.finish()] == [0]


def test_somebody_small_before_somebody_large_is_no_part() -> None:
    large, child, far = (100.0, 20.0, 160.0, 200.0), (110.0, 90.0, 150.0, 200.0), (120.0, 60.0, 140.0, 120.0)
    assert find_parts(seen(large, child, far).boxes).tolist() == [False, False, False]
    assert find_parts(seen(large, (110.0, 22.0, 150.0, 90.0)).boxes).tolist() == [False, True]
    assert find_parts(seen(large, (90.0, 22.0, 130.0, 90.0)).boxes).tolist() == [False, False]  # beside, half outside
    assert find_parts(seen().boxes).tolist() == []


def follow_every(interval: float, times: list[float], *, stated: float = 0.0) -> list[list[float]]:
    """Times of the tracklets of somebody who stands still, looked at every so often and seen at some times."""
    tracker, ended = Tracker(), []
    for number in range(1 + round(max(times) / interval)):
        now = number * interval
        found = seen(person(50)) if any(abs(now - time) < 1e-9 for time in times) else seen()
        ended += tracker.update(number, now, found, stated_interval=stated)[1]
    return [tracklet.times for tracklet in ended + tracker.finish()]


@pytest.mark.parametrize("interval", [30 / 29.97, 1 / 0.8, 2.0])
def test_where_few_pictures_are_looked_at_one_in_between_may_miss_somebody(interval: float) -> None:
    walk = [interval * number for number in (6, 7, 9)]
    assert follow_every(interval, walk) == [pytest.approx(walk)]  # measured
    early = [interval * number for number in (0, 1, 3)]
    assert follow_every(interval, early, stated=interval) == [pytest.approx(early)]
    assert len(follow_every(interval, [6 * interval, 10 * interval])) == 2


def test_a_pause_of_an_ordinary_recording_ends_tracklets_wherever_it_comes() -> None:
    for stated in (0.0, 0.1, 3600.0):  # of a recording with long pauses a header states few frames a second
        for pause_at in range(1, 12) if stated < 1 else range(2, 12):
            tracker, ended = Tracker(), []
            for number in range(12):
                now = 0.1 * number + 1.5 * (number >= pause_at)
                ended += tracker.update(number, now, seen(person(50)), stated_interval=stated)[1]
            assert [len(tracklet.times) for tracklet in ended + tracker.finish()] == [pause_at, 12 - pause_at]


def test_pictures_many_seconds_apart_show_everybody_anew() -> None:
    assert len(follow_every(7.0, [49.0, 56.0], stated=7.0)) == 2
