import os
import platform
import subprocess
import sys

import pytest

from tapetum.core.memory import VARIABLE, keeping_memory, restart_keeping_memory

# Pages that the system clears when they are asked for again count as faults.
COUNT_FAULTS = """
import resource
import numpy

numpy.ones(6 * 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    numpy.ones(6 * 2**20)  # 48 MiB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
RESTART = """
import os
from tapetum.core.memory import VARIABLE, restart_keeping_memory

print("start", os.getpid())
restart_keeping_memory()
print(os.environ[VARIABLE])
"""


@pytest.fixture(autouse=True)
def no_choice_of_the_user(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


def run_python(code: str, *arguments: str, **environment: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=True, timeout=100
    ).stdout


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep memory")
def test_memory_that_was_freed_is_not_asked_from_the_system_again():
    assert int(run_python(COUNT_FAULTS, **keeping_memory())) < int(run_python(COUNT_FAULTS)) / 10


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep memory")
def test_a_program_begins_again_once_and_in_the_same_process():
    first, second, settings = run_python(RESTART).split("\n")[:3]
    assert first == second
    assert settings == keeping_memory()[VARIABLE]


def test_a_choice_of_the_user_and_another_c_library_are_left_alone(monkeypatch):
    monkeypatch.setenv(VARIABLE, "glibc.malloc.arena_max=1")
    restart_keeping_memory()
    assert keeping_memory() == {}
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    assert keeping_memory() == {}


def test_running_the_command_line_inside_another_program_does_not_begin_that_again(monkeypatch):
    from tapetum.cli.main import run

    monkeypatch.setattr("os.execve", lambda *_: pytest.fail("the program was begun again"))
    monkeypatch.setattr("sys.argv", ["tapetum", "train", "--help"])
    with pytest.raises(SystemExit) as left:
        run()
    assert left.value.code == 0
