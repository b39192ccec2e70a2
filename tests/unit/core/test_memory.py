import os
import platform
import subprocess
import sys

import pytest

from tapetum.core.memory import VARIABLES, keep_freed_memory

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
