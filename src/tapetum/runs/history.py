"""What a run writes down: one CSV line an epoch, and every loss at every step for TensorBoard."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from tapetum.core.atomic import make_folder
from tapetum.core.errors import OutputError
from tapetum.runs.run_folder import write_text


def write_history(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write metrics.csv anew; written from the run's state, it holds each epoch once however often a run was killed.

    Args:
        rows: one mapping an epoch; columns that a row lacks stay empty.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: f"{value:.10g}" for name, value in row.items()} for row in rows)
    write_text(path, text.getvalue())


def read_history(path: Path) -> list[dict[str, float]]:
    """The rows of metrics.csv, empty cells left out; no rows where no epoch is complete."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


class Curves:
    """TensorBoard's event file; after a resume, the steps that are trained again are taken back.

    Args:
        first_step: the step that comes next.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        make_folder(folder)
        try:
            self._writer = SummaryWriter(str(folder), purge_step=first_step)
        except OSError as error:
            raise OutputError(f"{folder}: cannot be written ({error.strerror}); choose another folder") from None

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Add one point to each curve.

        Args:
            values: curve name -> value.
            step: optimiser steps since the training's first.
        """
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is waiting."""
        self._writer.close()
