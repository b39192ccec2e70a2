"""Options that several subcommands share."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

Mirror = Annotated[
    bool | None,
    typer.Option("--mirror/--no-mirror", help="Join pictures with their mirror; default: as the recipe says."),
]
Precision = Annotated[str | None, typer.Option(help="fp32, bf16, fp16 or auto; default: as the recipe says.")]
SkipCorrupt = Annotated[bool, typer.Option("--skip-corrupt", help="Leave damaged pictures out and count them.")]
MethodNames = Annotated[
    str, typer.Option("--methods", help="Methods to train, separated by commas, the baseline first.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar.")]


def split_names(text: str) -> tuple[str, ...]:
    """Names from an option that takes several.

    Args:
        text: separated by commas.
    """
    return tuple(name for part in text.split(",") if (name := part.strip()))


def echo_table(columns: Sequence[str], rows: Mapping[str, Sequence[float | None]]) -> None:
    """Print percentages, the first column as wide as the longest label.

    Args:
        columns: titles.
        rows: label -> a fraction for each column; None leaves the place empty.
    """
    width = max(map(len, rows)) + 2
    typer.echo(" " * width + "".join(f"{title:>9}" for title in columns))
    for label, values in rows.items():
        cells = ("" if value is None else f"{100 * value:.2f}" for value in values)
        typer.echo(f"{label:{width}}" + "".join(f"{cell:>9}" for cell in cells).rstrip())


def echo_columns(rows: Sequence[Sequence[str]]) -> None:
    """Print cells under each other, each column as wide as its longest."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def echo_skipped(skipped: Sequence[str]) -> None:
    """Say how many damaged pictures were left out, if any.

    Args:
        skipped: one message each.
    """
    if skipped:
        typer.echo(f"{len(skipped)} damaged pictures left out, first: {skipped[0]}", err=True)


def echo_left_out(left_out: Sequence[Path]) -> None:
    """Say how many pictures lie beside a dataset's layout, if any.

    Args:
        left_out: their files.
    """
    if left_out:
        typer.echo(f"{len(left_out)} pictures beside the layout left out, first: {left_out[0]}", err=True)
