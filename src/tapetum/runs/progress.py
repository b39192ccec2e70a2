"""What a training tells the person who waits for it."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

PictureProgress = Callable[[int, int], None]  # (done, total)
SECONDS_A_LINE = 10.0  # between lines where there is no terminal


class Reporter(Protocol):
    """Hears of a training's progress; lives in the process that trains, so it must survive pickling before `start`."""

    def start(self, *, title: str, epochs: int, steps: int, done: int) -> None:
        """Training begins or goes on.

        Args:
            steps: optimiser steps in the epoch at hand; others may have a few more or fewer.
        """
        ...

    def step(self, *, epoch: int, loss: float, images_per_second: float) -> None:
        """An optimiser step is done.

        Args:
            epoch: counted from 1.
            loss: sum of the losses in this step.
            images_per_second: mean speed of this epoch so far.
        """
        ...

    def epoch(self, row: Mapping[str, float]) -> None:
        """An epoch is complete."""
        ...

    def stop(self) -> None:
        """Training ends, for whatever reason."""
        ...


class Silence:
    """A reporter that says nothing."""

    def start(self, *, title: str, epochs: int, steps: int, done: int) -> None:
        """Nothing."""

    def step(self, *, epoch: int, loss: float, images_per_second: float) -> None:
        """Nothing."""

    def epoch(self, row: Mapping[str, float]) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""


class ProgressBar:
    """A bar with epoch, speed, loss and the time that is left; one line an epoch where there is no terminal."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._console: Console | None = None
        self._task = TaskID(0)
        self._title = ""
        self._epochs = 0
        self._total = 0
        self._done = 0
        self._begun_at = 0.0
        self._begun_with = 0

    def start(self, *, title: str, epochs: int, steps: int, done: int) -> None:
        """Show the bar."""
        self._title, self._epochs = title, epochs
        self._total, self._done, self._begun_with = epochs * steps, done, done
        self._begun_at = time.monotonic()
        self._console = Console(stderr=True)
        if self._console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[facts]}"), console=self._console
            )
            self._task = self._progress.add_task(title, total=self._total, completed=done, facts="")
            self._progress.start()

    def step(self, *, epoch: int, loss: float, images_per_second: float) -> None:
        """Move the bar."""
        self._done += 1
        if self._progress is not None:
            facts = (
                f"epoch {epoch}/{self._epochs}  loss {loss:.3f}  {images_per_second:.0f} images/s  {self._left()} left"
            )
            self._progress.update(self._task, completed=self._done, facts=facts)

    def epoch(self, row: Mapping[str, float]) -> None:
        """Print the epoch's line."""
        if self._console is None:
            return
        scores = f"  held-out mAP {row['holdout_mean_ap']:.3f}" if "holdout_mean_ap" in row else ""
        scores += f"  rank-1 on the test set {row['test_rank1']:.3f}" if "test_rank1" in row else ""
        line = f"{self._title} epoch {row['epoch']:.0f}/{self._epochs}  loss {row['loss']:.3f}{scores}"
        speed = f"{row['images_per_second']:.0f} images/s  {self._left()} left"
        if self._progress is None:
            self._console.print(f"{line}  {speed}", highlight=False, soft_wrap=True)
        elif scores:
            self._progress.console.print(line, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
        self._progress = self._console = None

    def _left(self) -> str:
        """Time left at the mean pace of this sitting, looks at held-out identities included."""
        made = self._done - self._begun_with
        if made == 0:
            return "?"
        return format_left((time.monotonic() - self._begun_at) / made * max(0, self._total - self._done))


@contextmanager
def showing_pictures(title: str, *, unit: str = "pictures", quiet: bool = False) -> Iterator[PictureProgress]:
    """A bar for work on pictures, as a function of (done, total); a line now and then where there is no terminal.

    Args:
        unit: what is counted.
    """
    if quiet:
        yield lambda done, total: None  # noqa: ARG005
        return
    console = Console(stderr=True)
    pace = _Pace(unit)
    if not console.is_terminal:
        due = time.monotonic() + SECONDS_A_LINE

        def tell(done: int, total: int) -> None:
            nonlocal due
            facts = pace.facts(done, total)
            if time.monotonic() >= due:
                due = time.monotonic() + SECONDS_A_LINE
                console.print(f"{title}  {facts}", highlight=False, soft_wrap=True)

        yield tell
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[facts]}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None, facts="")

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total or None, facts=pace.facts(done, total))

        yield show


class _Pace:
    """How much, how fast, how long still; counted from the first report, at which earlier work may be done already."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._total = -1
        self._begun_at, self._begun_with = 0.0, 0

    def facts(self, done: int, total: int) -> str:
        now = time.monotonic()
        if total != self._total:  # the first report, or of the next piece of work
            self._total, self._begun_at, self._begun_with = total, now, done
        seconds, made = now - self._begun_at, done - self._begun_with
        text = f"{done}/{total} {self._unit}" if total else f"{done} {self._unit}"
        if made <= 0 or seconds <= 0:
            return text
        text += f"  {made / seconds:.0f}/s"
        return f"{text}  {format_left(seconds / made * max(0, total - done))} left" if total else text


def format_left(seconds: float) -> str:
    """A duration as h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
