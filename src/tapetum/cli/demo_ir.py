"""``tapetum demo-ir``: from nothing to a report on methods across visible and infrared."""

from pathlib import Path
from typing import Annotated

import typer

from tapetum.cli._choices import MethodNames, Quiet, echo_table, split_names


def command(
    out: Annotated[Path, typer.Option(help="Folder of everything the demo writes.")] = Path("runs/demo-ir"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the scene and of the trainings.")] = 2021,
    people: Annotated[int, typer.Option(min=2, help="People for training; a quarter as many are for testing.")] = 160,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of each training.")] = 8,
    methods: MethodNames = "two_stream,agw,deen",
    enhanced: Annotated[
        bool,
        typer.Option("--enhanced", help="Also train DEEN whose visible pictures also enter brightened, as in IDF."),
    ] = False,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="KEY.KEY=VALUE, changes one entry of all recipes; repeatable.")
    ] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Use no ImageNet weights, though their package be installed.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Generate a night scene in visible and infrared, train the two-stream baseline, AGW and DEEN on it, and report.

    Each is evaluated in both directions with ten drawn galleries. Ctrl-C leaves a usable state; the same command goes
    on from there, and with more methods it trains those alone.

    Example: tapetum demo-ir --out runs/demo-ir --methods two_stream,agw,caj,mclnet,deen
    """
    from tapetum.experiments.demo import check_out
    from tapetum.experiments.demo_infrared import InfraredDemoOptions, list_folders, run_infrared_demo

    check_out(out, list_folders())
    options = InfraredDemoOptions(
        out,
        seed,
        people,
        epochs,
        split_names(methods),
        enhanced=enhanced,
        overrides=tuple(set_ or ()),
        from_scratch=from_scratch,
    )
    typer.echo(f"networks start from {options.start}")
    try:
        metrics = run_infrared_demo(options, quiet=quiet)
    except KeyboardInterrupt:
        typer.echo(f"tapetum: stopped; `{options.command}` goes on from here", err=True)
        raise typer.Exit(130) from None
    names = {"rank1": "rank-1", "rank10": "rank-10", "rank20": "rank-20", "mean_ap": "mAP", "mean_inp": "mINP"}
    for way, protocol in metrics["protocols"].items():
        first = next(iter(metrics["methods"].values()))[way]
        typer.echo(f"{way}: {protocol}, {first['trials']} trials, AP {first['ap']}, seed {seed}; percent")
        chance = {name: metrics["chance"][way][name] for name in ("rank1", "mean_ap")}
        rows = {**{label: ways[way] for label, ways in metrics["methods"].items()}, "chance": chance}
        echo_table(list(names.values()), {label: [row.get(name) for name in names] for label, row in rows.items()})
    typer.echo(f"{out / 'report.html'}: open it in a browser")
