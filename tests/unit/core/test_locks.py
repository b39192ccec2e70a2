"""A lock file of one process; and a lock that many threads share or one has alone."""

import threading
from pathlib import Path

import pytest

from tapetum.core.errors import InUseError
from tapetum.core.locks import SharedLock, locked


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


def test_a_lock_whose_file_went_while_it_was_waited_for_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl", reason="this system has no such locks")
    path, lock = tmp_path / ".lock", fcntl.flock

    def lock_late(descriptor: int, how: int) -> None:
        path.unlink()  # another run failed and took its folder away
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", lock_late)
    with pytest.raises(InUseError, match="removed by another run just now"), locked(path, "held"):
        pytest.fail("two runs could hold it")
