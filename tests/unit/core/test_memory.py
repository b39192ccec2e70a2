import os
import platform
import subprocess
import sys

import numpy as np
import pytest

from tapetum.core.memory import VARIABLES, forget_peak, keep_freed_memory, read_peak

# Pages that the system clears when they are asked for again count as faults.
COUNT_FAULTS = """
import resource
import sys
import numpy
from tapetum.core.memory import keep_freed_memory

if sys.argv[1:]:
    assert keep_freed_memory()
numpy.ones(6 * 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    numpy.ones(6 * 2**20)  # 48 MiB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.fixture(autouse=True)
def no_choice_of_the_user(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def count_faults(*arguments: str) -> int:
    command = [sys.executable, "-c", COUNT_FAULTS, *arguments]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=True, timeout=100)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep memory")
def test_memory_that_was_freed_is_not_asked_from_the_system_again():
    assert count_faults("keep") < count_faults() / 10


@pytest.mark.parametrize("name", VARIABLES)
def test_a_choice_of_the_user_is_left_alone(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    assert not keep_freed_memory()


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts the most memory of a part of a process's life")
def test_the_peak_is_that_of_the_time_since_it_was_forgotten():
    size = 256 * 2**20
    assert np.ones(size // 8).sum() > 0
    before = read_peak()
    if not forget_peak():
        pytest.skip("this system does not let a process forget its peak")
    after = read_peak()
    assert after <= before - size // 2
    assert np.ones(size // 8).sum() > 0
    assert read_peak() >= after + size // 2
