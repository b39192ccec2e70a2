"""What an experiment of several stages shows: the stage, its own progress, and the time left for the whole."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn


@dataclass(frozen=True)
class Stage:
    """A part of an experiment.

    Attributes:
        weight: its share of the work, in seconds on two CPU cores; only the proportions matter.
    """

    title: str
    weight: float


class Board:
    """Bars for the current stage and the whole on a terminal, lines elsewhere; also a training's `Reporter`."""

    def __init__(self, stages: Sequence[Stage], *, quiet: bool = False) -> None:
        self._stages = list(stages)
        self._quiet = quiet
        self._console = Console(stderr=True, quiet=quiet)
        self._index = -1
        self._fraction = 0.0
        self._begun_at = time.monotonic()
        self._skipped = 0.0  # weight that an earlier sitting has done
        self._steps = self._steps_done = 0
        self._epochs = 0
        self._facts = ""
        self._bars: Progress | None = None
        self._whole = self._part = TaskID(0)

    def __getstate__(self) -> dict[str, Any]:
        """A copy for a training process of its own: it prints lines, since the bars stay with the first process."""
        return self.__dict__ | {"_bars": None, "_console": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._console = Console(stderr=True, quiet=self._quiet)

    @contextmanager
    def showing(self) -> Iterator["Board"]:
        """Show the board while the experiment runs."""
        self._begun_at = time.monotonic()
        if self._quiet or not self._console.is_terminal:
            yield self
            return
        columns = (TextColumn("{task.description:<34}"), BarColumn(), TextColumn("{task.fields[facts]}"))
        with Progress(*columns, console=self._console) as bars:
            self._bars = bars
            self._whole = bars.add_task("all", total=1.0, facts="")
            self._part = bars.add_task("", total=1.0, facts="")
            try:
                yield self
            finally:
                self._bars = None

    def begin(self, title: str) -> None:
        """The next stage starts.

        Args:
            title: of one of the stages; those before it count as done.
        """
        self._index = next(place for place, stage in enumerate(self._stages) if stage.title == title)
        self._fraction, self._facts = 0.0, ""
        if self._bars is None:
            self._print(f"[{self._index + 1}/{len(self._stages)}] {title}; {self._left()}")
        self._draw()

    def pictures(self, done: int, total: int) -> None:
        """Progress of work on pictures or frames.

        Args:
            done: so far.
        """
        self._fraction = done / total if total else 0.0
        self._facts = f"{done} of {total}" if total else str(done)
        self._draw()

    def start(self, *, title: str, epochs: int, steps: int, done: int) -> None:
        """A training begins or goes on."""
        self._epochs, self._steps, self._steps_done = epochs, epochs * steps, done
        self._fraction = done / self._steps
        self._skipped += self._fraction * self._stages[self._index].weight
        if done:
            self._print(f"{title}: goes on after {done} of {self._steps} steps")

    def step(self, *, epoch: int, loss: float, images_per_second: float) -> None:
        """A training step is done."""
        self._steps_done += 1
        self._fraction = self._steps_done / self._steps
        self._facts = f"epoch {epoch}/{self._epochs}  loss {loss:.2f}  {images_per_second:.0f} images/s"
        self._draw()

    def epoch(self, row: Mapping[str, float]) -> None:
        """An epoch is complete."""
        if self._bars is None:
            speed = f"{row['images_per_second']:.0f} images/s"
            self._print(f"  epoch {row['epoch']:.0f}/{self._epochs}  loss {row['loss']:.2f}  {speed}; {self._left()}")

    def stop(self) -> None:
        """A training ends."""

    def finish_stage(self, *, at_once: bool = False) -> None:
        """The current stage is done.

        Args:
            at_once: an earlier sitting had done it, so it says nothing about the pace.
        """
        if at_once:
            self._skipped += self._stages[self._index].weight
        self._fraction = 1.0
        self._draw()

    def _draw(self) -> None:
        if self._bars is None:
            return
        title = self._stages[self._index].title
        self._bars.update(self._whole, completed=self._done() / self._total(), facts=self._left())
        self._bars.update(
            self._part,
            description=f"{self._index + 1}/{len(self._stages)} {title}",
            completed=self._fraction,
            facts=self._facts,
        )

    def _total(self) -> float:
        return sum(stage.weight for stage in self._stages)

    def _done(self) -> float:
        before = sum(stage.weight for stage in self._stages[: self._index])
        return before + self._fraction * self._stages[self._index].weight

    def _left(self) -> str:
        """Time left for the whole, at the pace of this sitting; before there is one, at that of two CPU cores."""
        left = self._total() - self._done()
        worked = self._done() - self._skipped
        pace = (time.monotonic() - self._begun_at) / worked if worked > 0.02 * self._total() else 1.0
        seconds = round(left * pace)
        return f"about {seconds // 60} min {seconds % 60:02d} s left" if seconds >= 60 else f"about {seconds} s left"

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)
