"""A lock that many share or one has alone."""

import threading

import pytest

from tapetum.core.locks import SharedLock


def test_who_wants_a_lock_alone_waits_for_those_who_share_it_and_nobody_comes_in_before() -> None:
    lock, order = SharedLock(), list[str]()
    both_in, may_leave = threading.Barrier(3), threading.Event()

    def share() -> None:
        with lock.shared():
            both_in.wait(20)
            may_leave.wait(20)
            order.append("shared")

    def change() -> None:
        with lock.alone():
            order.append("alone")

    def come_late() -> None:
        with lock.shared():
            order.append("late")

    sharing = [threading.Thread(target=share) for _ in range(2)]
    for thread in sharing:
        thread.start()
    both_in.wait(20)
    changing, late = threading.Thread(target=change), threading.Thread(target=come_late)
    changing.start()
    while not lock._wanted_alone:
        pass
    late.start()
    late.join(0.05)
    assert order == []
    may_leave.set()
    for thread in (*sharing, changing, late):
        thread.join(20)
    assert order == ["shared", "shared", "alone", "late"]


def test_a_lock_is_let_go_of_when_its_block_fails() -> None:
    lock = SharedLock()
    for hold in (lock.alone, lock.shared, lock.alone):
        with pytest.raises(ZeroDivisionError), hold():
            _ = 1 / 0
