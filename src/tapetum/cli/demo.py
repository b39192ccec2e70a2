"""``tapetum demo``: from nothing to a report."""

from pathlib import Path
from typing import Annotated

import typer

from tapetum.cli._choices import MethodNames, Quiet, echo_table, split_names


def command(
    out: Annotated[Path, typer.Option(help="Folder of everything the demo writes.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the scene and of the trainings.")] = 2021,
    people: Annotated[int, typer.Option(min=2, help="People for training, and as many others for testing.")] = 60,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each training.")] = 12,
    methods: MethodNames = "ide,idf",
    clip: Annotated[
        Path | None, typer.Option(help="A real video of a static camera to try the trained methods on.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="KEY.KEY=VALUE, changes one entry of all recipes; repeatable.")
    ] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Use no ImageNet weights, though their package be installed.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Generate a night scene, train IDE+ and IDF on it, evaluate, search, and write a report.

    Ctrl-C leaves a usable state; the same command goes on from there, and with more methods it trains those alone.

    Example: tapetum demo --out runs/demo --methods ide,bot,agw,transreid,idf
    """
    from tapetum.experiments.demo import DemoOptions, check_out, list_folders, run_demo

    check_out(out, list_folders())
    options = DemoOptions(
        out,
        seed,
        people,
        epochs,
        split_names(methods),
        clip=clip,
        overrides=tuple(set_ or ()),
        from_scratch=from_scratch,
    )
    typer.echo(f"networks start from {options.start}")
    try:
        metrics = run_demo(options, quiet=quiet)
    except KeyboardInterrupt:
        typer.echo(f"tapetum: stopped; `{options.command}` goes on from here", err=True)
        raise typer.Exit(130) from None
    names = {"rank1": "rank-1", "rank5": "rank-5", "rank10": "rank-10", "mean_ap": "mAP", "mean_inp": "mINP"}
    first = next(iter(metrics["methods"].values()))
    typer.echo(f"protocol {first['protocol']}, AP {first['ap']}, seed {seed}; percent")
    chance = metrics["chance"]
    rows = {**metrics["methods"], "chance": {name: chance[name] for name in ("rank1", "mean_ap")}}
    echo_table(list(names.values()), {label: [row.get(name) for name in names] for label, row in rows.items()})
    typer.echo(f"{out / 'report.html'}: open it in a browser")
