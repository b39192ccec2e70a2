import subprocess
import sys

import pytest
import torch

from tapetum.core import threads
from tapetum.core.threads import count_threads, sleep_while_waiting


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


@pytest.mark.parametrize("name", threads.WAITING)
def test_how_threads_wait_stays_as_a_user_set_it(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    for each in threads.WAITING:
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, "active")
    assert not sleep_while_waiting()
    assert [each for each in threads.WAITING if each in threads.os.environ] == [name]


def test_how_threads_wait_is_not_settled_after_pytorch_was_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    for each in threads.WAITING:
        monkeypatch.delenv(each, raising=False)
    assert "torch" in sys.modules
    assert not sleep_while_waiting()
    assert "OMP_WAIT_POLICY" not in threads.os.environ


def test_the_program_settles_it_before_its_openmp_is_loaded() -> None:
    code = (
        "import sys\n"
        "from tapetum.cli.main import start\n"
        "sys.argv = ['tapetum', '--version']\n"
        "try:\n    start()\nexcept SystemExit:\n    import torch\n"
    )
    kept = {name: value for name, value in threads.os.environ.items() if name not in threads.WAITING}
    told = subprocess.run(
        [sys.executable, "-c", code],
        env=kept | {"OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=True,
    )
    if "GOMP_SPINCOUNT" not in told.stderr:
        pytest.skip("this PyTorch has another OpenMP than GNU's")
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in told.stderr
    assert "GOMP_SPINCOUNT = '0'" in told.stderr
