"""``tapetum reproduce``: the papers' tables, ours beside theirs, and a league of methods on one generated scene."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tapetum.cli._choices import Quiet


def command(
    table: Annotated[
        str,
        typer.Argument(
            help="table1 to table7, figure1 or figure8 of the IDF paper, deen-table1 to deen-table4, or league."
        ),
    ],
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=ROOT of a dataset that the rows need, repeatable; synth for the generated scene. table1 counts "
            "those given, with reading options behind a comma."
        ),
    ] = None,
    seeds: Annotated[
        str, typer.Option(help="Seeds separated by commas; default: each recipe's own, of a league 1,2,3.")
    ] = "",
    trials: Annotated[
        str,
        typer.Option(
            help="Of rows on RegDB: divisions of its people, each trained apart, e.g. 1-10; default: the recipe's."
        ),
    ] = "",
    only: Annotated[
        list[str] | None, typer.Option(help="Label of a row to run, or a part of several, repeatable; default: all.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="KEY.KEY=VALUE, changes one entry of every recipe; repeatable.")
    ] = None,
    zero_dce: Annotated[
        Path | None,
        typer.Option(help="Weights of DCE-Net for table3; default: trained on the training pictures."),
    ] = None,
    enlighten_gan: Annotated[
        Path | None,
        typer.Option(help="Weights of EnlightenGAN for table3; default: trained, on the generated scene only."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the table; default: runs/reproduce/TABLE[_synth].")
    ] = None,
    family: Annotated[
        str | None, typer.Option(help="Of a league: visible or infrared.", show_default="visible")
    ] = None,
    people: Annotated[int | None, typer.Option(min=2, help="Of a league: people to train on.")] = None,
    test_people: Annotated[int | None, typer.Option(min=2, help="Of a league: others, to search for.")] = None,
    cameras: Annotated[int | None, typer.Option(min=2, help="Of a league's scene.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of each training of a league.")] = None,
    from_scratch: Annotated[
        bool,
        typer.Option("--from-scratch", help="A league without ImageNet weights, though their package be installed."),
    ] = False,
    kept: Annotated[
        Path | None,
        typer.Option(help="Of a league: folder of small results, one a run; runs found there are not trained again."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Train and test the rows of a table and print ours beside the paper's; the same command resumes.

    A league trains methods on one generated scene by several seeds and says which differences are real. table1 and
    deen-table1 train nothing: they count and measure the data sets given, as `tapetum data stats` does.

    Example: tapetum reproduce table5 --data synth --set schedule.epochs=12
    """
    from tapetum.core.errors import RecipeError
    from tapetum.experiments.paper_page import render_table
    from tapetum.experiments.paper_tables import COUNTED, LEAGUE, find_table
    from tapetum.experiments.reproduce import run_table
    from tapetum.runs.sources import parse_source

    scene = {
        "family": family,
        "people": people,
        "test_people": test_people,
        "cameras": cameras,
        "epochs": epochs,
        "from_scratch": from_scratch or None,
        "kept": kept,
    }
    given = {name: value for name, value in scene.items() if value is not None}
    if table in COUNTED:
        of_trainings = {
            "seeds": seeds,
            "trials": trials,
            "only": only,
            "set": set_,
            "zero-dce": zero_dce,
            "enlighten-gan": enlighten_gan,
        }
        _count(table, data or (), out or Path("runs/reproduce") / table, {**of_trainings, **given}, quiet=quiet)
        return
    printed = None if table == LEAGUE else find_table(table)
    if given and printed is not None:
        option = next(iter(given)).replace("_", "-")
        raise RecipeError(
            f"--{option} is of `tapetum reproduce {LEAGUE}`; for {table} change recipes with --set KEY=VALUE"
        )

    if not data:
        raise RecipeError("--data is missing; add --data night600=ROOT, or --data synth for the generated scene")
    roots = dict(parse_source(text) for text in data)
    if trials and printed is None:
        raise RecipeError("--trials is of the papers' tables on RegDB; a league's scene is divided in one way only")
    numbers = _read_numbers("--seeds", seeds, "1,2,3")
    folder = out or Path("runs/reproduce") / (
        f"{table}_{family or 'visible'}" if table == LEAGUE else f"{table}_synth" if "synth" in roots else table
    )
    try:
        if printed is None:
            _run_league(roots, folder, numbers, only or [], set_ or [], given, quiet=quiet)
            return
        content = run_table(
            table,
            roots,
            folder,
            seeds=numbers,
            trials=_read_numbers("--trials", trials, "1-10"),
            overrides=set_ or [],
            only=only or [],
            zero_dce=zero_dce,
            enlighten_gan=enlighten_gan,
            quiet=quiet,
        )
    except KeyboardInterrupt:
        typer.echo("tapetum: stopped; the same command goes on from here", err=True)
        raise typer.Exit(130) from None
    typer.echo(render_table(content), nl=False)
    files = ".md, .json and .svg" if printed.figure else ".md and .json"
    typer.echo(f"{folder / table}{files}: written ({printed.title})")


def _read_numbers(option: str, text: str, example: str) -> list[int]:
    """Whole numbers separated by commas; "1-3" is 1, 2 and 3."""
    from tapetum.core.errors import RecipeError

    numbers: list[int] = []
    for part in (part.strip() for part in text.split(",")):
        first, dash, last = part.partition("-")
        if part and not (first.isdecimal() and (last if dash else first).isdecimal()):
            raise RecipeError(f"{option} {text!r}: {part!r} is no whole number; write e.g. {option} {example}")
        if dash and int(last) < int(first):
            raise RecipeError(f"{option} {text!r}: {part!r} runs backwards; write e.g. {option} {example}")
        numbers += range(int(first), int(last or first) + 1) if part else []
    return list(dict.fromkeys(numbers))


def _count(table: str, data: Sequence[str], out: Path, others: Mapping[str, Any], *, quiet: bool) -> None:
    """A table of data sets: what is printed of them is beside what is counted.

    Args:
        others: options of the command that such a table has no use for.
    """
    from tapetum.cli.data import compare_datasets
    from tapetum.core.errors import RecipeError
    from tapetum.experiments.paper_tables import COUNTED
    from tapetum.runs.sources import parse_named_root

    wrong = next((name.replace("_", "-") for name, value in others.items() if value), None)
    if wrong is not None:
        raise RecipeError(f"{table} counts data sets and trains nothing, so it takes no --{wrong}; leave it out")
    if not data:
        raise RecipeError(f"--data is missing; add e.g. {COUNTED[table]}")
    compare_datasets([parse_named_root(text) for text in data], out, name=table, quiet=quiet)


def _run_league(
    roots: Mapping[str, str | None],
    out: Path,
    seeds: Sequence[int],
    only: Sequence[str],
    overrides: Sequence[str],
    given: Mapping[str, Any],
    *,
    quiet: bool,
) -> None:
    from tapetum.core.errors import RecipeError
    from tapetum.experiments.league import SEEDS, LeagueOptions, run_league
    from tapetum.experiments.league_table import render_league

    if roots != {"synth": None}:
        raise RecipeError("a league makes its scene itself; give --data synth, without a root")
    options = LeagueOptions(out, seeds=tuple(seeds) or SEEDS, only=tuple(only), overrides=tuple(overrides), **given)
    typer.echo(render_league(run_league(options, quiet=quiet)), nl=False)
    typer.echo(f"{out / 'league'}.md, .json and .svg: written")
