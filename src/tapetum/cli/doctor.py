"""``tapetum doctor``: what works on this machine, and whether a model tells people apart."""

from pathlib import Path
from typing import Annotated

import typer

SIGNS = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}


def command(
    model: Annotated[
        Path | None,
        typer.Argument(help="Run, checkpoint or artefact for the self-test; default: tapetum-lite0."),
    ] = None,
) -> None:
    """Look at libraries, arithmetic, folders and a model, in seconds; status 1 where something will not work.

    The self-test searches generated people of one camera among those of another, both ways: vectors that are all the
    same, or of other pictures, show as such, and so does a model that finds no more than plain colours would.

    Example: tapetum doctor runs/demo/idf
    """
    from tapetum.inference.doctor import examine
    from tapetum.runs.packaged import DEFAULT

    problems = 0
    for finding in examine(model or Path(DEFAULT)):
        typer.echo(f"{SIGNS[finding.state]} {finding.what + ':':<12} {finding.text}")
        problems += finding.state == "problem"
    if problems:
        typer.echo(f"{problems} problem(s)", err=True)
        raise typer.Exit(1)
