"""Items that are taken and dealt with ahead: their order, how many wait, errors, early ends."""

import threading
import time
from collections.abc import Iterator

import pytest

from interruption import press_ctrl_c
from tapetum.data.threads import map_in_threads, read_ahead


def threads_left() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("tapetum-")]


class Numbers:
    """Numbers as they are taken."""

    def __init__(self, count: int, *, wrong: int | None = None) -> None:
        self.count, self.wrong = count, wrong
        self.taken: list[int] = []
        self.ended_by = ""

    def __iter__(self) -> Iterator[int]:
        try:
            for number in range(self.count):
                if number == self.wrong:
                    raise ValueError(f"number {number}")
                self.taken.append(number)
                yield number
        finally:
            self.ended_by = threading.current_thread().name


def settle(numbers: Numbers, count: int) -> None:
    """Until so many were taken, and a moment longer, in which no more may be."""
    until = time.monotonic() + 10
    while len(numbers.taken) < count and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(0.05)


def test_items_are_taken_ahead_in_their_order_and_no_more_than_may_wait() -> None:
    numbers = Numbers(20)
    ahead = read_ahead(numbers, 3, weigh=lambda _: 1, heaviest=100)
    assert next(ahead) == 0
    settle(numbers, 4)
    assert numbers.taken == [0, 1, 2, 3]
    assert list(ahead) == list(range(1, 20))
    assert not threads_left()


def test_heavy_items_wait_one_at_a_time() -> None:
    numbers = Numbers(6)
    ahead = read_ahead(numbers, 8, weigh=lambda number: 100 if number > 1 else 1, heaviest=50)
    assert next(ahead) == 0
    settle(numbers, 3)
    assert numbers.taken == [0, 1, 2]
    assert list(ahead) == [1, 2, 3, 4, 5]


def test_heavy_items_are_dealt_with_one_at_a_time() -> None:
    numbers = Numbers(6)
    results = map_in_threads(lambda number: -number, numbers, 2, ahead=4, weigh=lambda _: 100, heaviest=50)
    assert next(results) == 0
    assert numbers.taken == [0]
    assert list(results) == [-1, -2, -3, -4, -5]


def test_an_error_comes_where_its_item_would_have() -> None:
    ahead = read_ahead(Numbers(9, wrong=5), 8, weigh=lambda _: 1, heaviest=100)
    assert [next(ahead) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="number 5"):
        next(ahead)
    assert not threads_left()


def test_whoever_leaves_early_leaves_no_thread_and_nothing_open() -> None:
    numbers = Numbers(1000)
    ahead = read_ahead(numbers, 2, weigh=lambda _: 1, heaviest=100)
    assert next(ahead) == 0
    ahead.close()
    assert not threads_left()
    assert numbers.ended_by == "tapetum-ahead"
    assert len(numbers.taken) < 10


def test_ctrl_c_while_waiting_for_an_item_ends_the_thread() -> None:
    def slow() -> Iterator[int]:
        yield 0
        time.sleep(0.2)
        press_ctrl_c()
        time.sleep(0.2)
        yield 1

    ahead = read_ahead(slow(), 2, weigh=lambda _: 1, heaviest=100)
    assert next(ahead) == 0
    with pytest.raises(KeyboardInterrupt):
        next(ahead)
    assert not threads_left()
