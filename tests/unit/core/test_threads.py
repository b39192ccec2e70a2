import subprocess
import sys

import pytest
import torch

from tapetum.core import threads
from tapetum.core.threads import count_threads


def test_as_many_threads_as_a_program_told_pytorch() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(before + 2)
    try:
        assert count_threads() == before + 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "5"}, 3),
        ({"MKL_NUM_THREADS": "5"}, 5),
        ({"OMP_NUM_THREADS": "0"}, None),
        ({"OMP_NUM_THREADS": "many"}, None),
        ({}, None),
    ],
)
def test_without_pytorch_the_environment_or_the_cores_say_it(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: int | None
) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    for name in threads.ASKED_BY:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(threads, "_count_cores", lambda: 7)
    assert count_threads() == (expected or 7)


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{"OMP_NUM_THREADS": "2"}, {}])
def test_pytorch_would_take_as_many_in_a_process_of_its_own(environment: dict[str, str]) -> None:
    code = (
        "from tapetum.core.threads import count_threads\n"
        "ours = count_threads()\n"
        "import torch\n"
        "print(ours, torch.get_num_threads())\n"
    )
    kept = {name: value for name, value in threads.os.environ.items() if name not in threads.ASKED_BY}
    told = subprocess.run(
        [sys.executable, "-c", code], env=kept | environment, capture_output=True, text=True, check=True
    )
    ours, theirs = told.stdout.split()
    assert ours == theirs
