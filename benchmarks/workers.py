"""Work in a process of its own that waits until it is asked: so several sides can take turns, each with its settings.

A module whose `main` calls `answer` is such a process. It prepares once and then does the same whenever a line comes.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_ADDED: set[str] = set()  # variables that `wait_as_the_program` set in this process
Ask = Callable[[str], Any]


class NotPreparedError(RuntimeError):
    """A process ended instead of answering; the last line that it printed says why."""


@contextmanager
def worker(
    module: str, *words: str, environment: Mapping[str, str] | None = None, source: Path = ROOT / "src"
) -> Iterator[Ask]:
    """A function that asks a process and waits for its answer; the process has prepared itself.

    Args:
        words: of its command line.
        environment: variables besides those of this process.
        source: the `src` folder whose Tapetum it uses.
    Raises:
        NotPreparedError: the process ended, as an earlier checkout's does where it cannot read what today's wrote.
    """
    command = [sys.executable, "-m", module, *words]
    variables = {**environment_for(source), **(environment or {})}
    with (
        tempfile.TemporaryFile("w+", errors="replace") as complaints,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, text=True, env=variables
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        questions, lines = process.stdin, process.stdout

        def read() -> Any:
            for line in lines:
                if line.startswith("{"):  # others are what libraries print
                    return json.loads(line)["answer"]
            status = process.wait()
            complaints.seek(0)
            told = complaints.read().strip()
            print(told, file=sys.stderr)
            last = told.splitlines()[-1] if told else "it said nothing"
            raise NotPreparedError(f"{module} by {source} ended with status {status} ({last})")

        def ask(question: str) -> Any:
            questions.write(question + "\n")
            questions.flush()
            return read()

        try:
            read()
            yield ask
        finally:
            questions.close()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()


def answer(work: Ask) -> None:
    """Be such a process, prepared by now: until nobody can ask any more."""
    print(json.dumps({"answer": "ready"}), flush=True)
    for line in sys.stdin:
        print(json.dumps({"answer": work(line.strip())}), flush=True)


def wait_as_the_program() -> None:
    """Let threads wait for each other as `tapetum` does; an earlier checkout has nothing of the kind.

    To be called before torch is loaded: its OpenMP reads the environment once.
    """
    from tapetum.core import threads

    before = set(os.environ)
    getattr(threads, "sleep_while_waiting", bool)()
    _ADDED.update(set(os.environ) - before)


def environment_for(source: Path) -> dict[str, str]:
    """Variables of a process that uses the Tapetum of a `src` folder: PYTHONPATH and what this process has.

    An earlier checkout is not told how its threads wait, unless a user said it.
    """
    ours = source.resolve() == (ROOT / "src").resolve()
    kept = {name: value for name, value in os.environ.items() if ours or name not in _ADDED}
    return {**kept, "PYTHONPATH": f"{source}{os.pathsep}{ROOT}"}
