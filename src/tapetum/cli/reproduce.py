"""``tapetum reproduce``: the papers' tables, ours beside theirs."""

from pathlib import Path
from typing import Annotated

import typer

from tapetum.cli._choices import Quiet


def command(
    table: Annotated[str, typer.Argument(help="table3, table5, table6 or table7 of the IDF paper, or deen-table4.")],
    data: Annotated[
        list[str] | None,
        typer.Option(help="NAME=ROOT of a dataset that the rows need, repeatable; synth for the generated scene."),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds separated by commas; default: each recipe's own.")] = "",
    only: Annotated[
        list[str] | None, typer.Option(help="Part of the label of a row to run, repeatable; default: all.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="KEY.KEY=VALUE, changes one entry of every recipe; repeatable.")
    ] = None,
    zero_dce: Annotated[
        Path | None,
        typer.Option(help="Weights of DCE-Net for table3; default: trained on the training pictures."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the table; default: runs/reproduce/TABLE[_synth].")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Train and test the rows of a table and print ours beside the paper's; typed again, it goes on.

    Example: tapetum reproduce table5 --data synth --set schedule.epochs=12
    """
    from tapetum.core.errors import RecipeError
    from tapetum.experiments.reproduce import TABLES, render_table, run_table
    from tapetum.runs.sources import parse_source

    if not data:
        raise RecipeError("--data is missing; add --data night600=ROOT, or --data synth for the generated scene")
    roots = dict(parse_source(text) for text in data)
    unknown = next((text for text in seeds.split(",") if text.strip() and not text.strip().isdecimal()), None)
    if unknown is not None:
        raise RecipeError(f"--seeds {seeds!r}: {unknown.strip()!r} is no whole number; write e.g. --seeds 1,2,3")
    folder = out or Path("runs/reproduce") / (f"{table}_synth" if "synth" in roots else table)
    try:
        content = run_table(
            table,
            roots,
            folder,
            seeds=[int(text) for text in seeds.split(",") if text.strip()],
            overrides=set_ or [],
            only=only or [],
            zero_dce=zero_dce,
            quiet=quiet,
        )
    except KeyboardInterrupt:
        typer.echo("tapetum: stopped; the same command goes on from here", err=True)
        raise typer.Exit(130) from None
    typer.echo(render_table(content), nl=False)
    typer.echo(f"{folder / table}.md and .json: written ({TABLES[table].title})")
