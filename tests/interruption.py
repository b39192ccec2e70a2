"""What ends a training or another run at a chosen step."""

import os
import signal

from tapetum.runs.progress import Silence


def press_ctrl_c() -> None:
    """What the terminal sends; on Windows `os.kill` would end the process."""
    if os.name == "nt":
        signal.raise_signal(signal.SIGINT)
    else:
        os.kill(os.getpid(), signal.SIGINT)


class StopAfter(Silence):
    """Presses Ctrl-C once so many steps are done."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def step(self, *, epoch: int, loss: float, images_per_second: float) -> None:
        self.steps -= 1
        if self.steps == 0:
            press_ctrl_c()


class FailAfter(Silence):
    """Breaks a training once so many steps are done, before the state of the last is saved."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def step(self, *, epoch: int, loss: float, images_per_second: float) -> None:
        self.steps -= 1
        if self.steps == 0:
            raise RuntimeError("killed")
