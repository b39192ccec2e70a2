"""``tapetum audit``: what was done in a gallery, by whom and when."""

import json
from typing import Annotated

import typer

from tapetum.cli._serving import Folder, Gallery, find_folder, require_libraries

app = typer.Typer(
    help="The log of a gallery's service.",
    epilog="Example: tapetum audit show --gallery runs/night --action search",
    no_args_is_help=True,
)


@app.command("show")
def show(
    gallery: Gallery,
    last: Annotated[int, typer.Option(min=1, help="So many lines, the latest.")] = 50,
    who: Annotated[str | None, typer.Option(help="Only what this user did.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this, e.g. search or delete.")] = None,
    folder: Folder = None,
) -> None:
    """The latest lines, as JSON.

    Example: tapetum audit show --gallery runs/night --action search
    """
    require_libraries()
    from collections import deque

    from tapetum.service.audit import FILE, read_log

    lines = (
        line
        for line in read_log(find_folder(gallery, folder) / FILE)
        if who in (None, line.get("who")) and action in (None, line.get("action"))
    )
    for line in deque(lines, last):
        typer.echo(json.dumps(line))


@app.command("verify")
def verify(
    gallery: Gallery,
    noted: Annotated[
        str | None, typer.Option(help="Digest that an earlier look printed; it must still be in the log.")
    ] = None,
    folder: Folder = None,
) -> None:
    """Check that no line was changed, removed or put in between; print the digest of the last one.

    Note the digest outside this machine: with it, a later look also notices lines that were cut off the end.

    Example: tapetum audit verify --gallery runs/night
    """
    require_libraries()
    from tapetum.service.audit import FILE, verify_log

    verdict = verify_log(find_folder(gallery, folder) / FILE, noted)
    cut_off = f"; {verdict.cut_off} cut off while being written" if verdict.cut_off else ""
    typer.echo(f"{verdict.lines} lines, each follows from the one before{cut_off}")
    typer.echo(f"digest of the last: {verdict.digest}")
