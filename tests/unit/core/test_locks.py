"""A lock file of one process; and a lock that many threads share or one has alone."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tapetum.core.errors import InUseError
from tapetum.core.locks import SharedContext, SharedLock, locked


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


def test_a_setting_that_threads_share_stays_until_the_last_of_them_leaves() -> None:
    settings, made = ["usual"], list[str]()

    @contextmanager
    def make() -> Iterator[None]:
        before = settings[0]
        settings[0] = "changed"
        made.append(before)
        yield
        settings[0] = before

    shared = SharedContext(make)
    first_in, second_in, first_out = (threading.Event() for _ in range(3))
    seen = list[str]()

    def come_first() -> None:
        with shared.held():
            first_in.set()
            second_in.wait(20)
        first_out.set()

    def leave_last() -> None:
        first_in.wait(20)
        with shared.held():
            second_in.set()
            first_out.wait(20)
            seen.append(settings[0])

    threads = [threading.Thread(target=work) for work in (come_first, leave_last)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert (seen, settings, made) == (["changed"], ["usual"], ["usual"])
    with pytest.raises(ZeroDivisionError), shared.held():
        raise ZeroDivisionError
    assert (settings, made) == (["usual"], ["usual", "usual"])
