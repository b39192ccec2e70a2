"""Options that several subcommands share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

Mirror = Annotated[
    bool | None,
    typer.Option("--mirror/--no-mirror", help="Join pictures with their mirror; default: as the recipe says."),
]
Precision = Annotated[str | None, typer.Option(help="fp32, bf16, fp16 or auto; default: as the recipe says.")]
SkipCorrupt = Annotated[bool, typer.Option("--skip-corrupt", help="Leave damaged pictures out and count them.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar.")]


def echo_skipped(skipped: list[str] | tuple[str, ...]) -> None:
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
