"""``tapetum train``: from a recipe to a run folder."""

from pathlib import Path
from typing import Annotated

import typer

from tapetum.cli._choices import Quiet, SkipCorrupt, echo_columns, echo_left_out, echo_skipped


def print_recipes(wanted: bool) -> None:
    """Print the recipes of the package, one a line, and leave, where asked."""
    if wanted:
        from tapetum.runs.recipe import describe_recipes

        echo_columns([("recipe", "method", "data set", "what it is"), *describe_recipes()])
        raise typer.Exit


def command(
    recipe: Annotated[str, typer.Argument(help="Name of a recipe of the package (see --list), or a YAML file.")],
    data: Annotated[
        str | None, typer.Option(help="NAME=ROOT of the dataset, or synth for the generated night scene.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="KEY.KEY=VALUE, changes one entry of the recipe; repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default: runs/NAME-OF-RECIPE.")] = None,
    skip_corrupt: SkipCorrupt = False,
    quiet: Quiet = False,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the resolved recipe and leave.")] = False,
    list_: Annotated[  # noqa: ARG001  # `print_recipes` has done it
        bool,
        typer.Option("--list", callback=print_recipes, is_eager=True, help="Print the package's recipes and leave."),
    ] = False,
) -> None:
    """Train a method; after an interruption the same command resumes where it stopped.

    `tapetum train --list` says which recipes there are.

    Example: tapetum train ide_synth --data synth --out runs/ide_synth
    """
    from tapetum.runs.recipe import load_recipe, write_yaml

    overrides = list(set_ or [])
    if data is not None:
        from tapetum.runs.sources import parse_source, source_overrides

        own = load_recipe(recipe, overrides).data
        other = own if parse_source(data)[0] != own.name else None  # the recipe's own name asks for its root anew
        overrides = [*source_overrides(data, other), *overrides]
    if skip_corrupt:
        overrides.append("data.skip_corrupt=true")
    settings = load_recipe(recipe, overrides)
    if print_config:
        typer.echo(write_yaml(settings), nl=False)
        return

    from tapetum.runs.progress import ProgressBar, Silence, showing_pictures
    from tapetum.runs.run_folder import RunFolder
    from tapetum.runs.sources import open_data
    from tapetum.training.start_weights import require_start_weights
    from tapetum.training.train import TrainingInterrupted, train

    folder = out or Path("runs") / settings.name
    if not RunFolder(folder).holds_training:  # else it goes on with its own
        require_start_weights(settings)
    reporter = Silence() if quiet else ProgressBar()
    try:
        with showing_pictures("preparing pictures", quiet=quiet) as progress:
            source = open_data(settings.data, progress=progress)
        result = train(settings, folder, dataset=source.dataset, skipped=source.skipped, reporter=reporter)
    except TrainingInterrupted as stop:
        typer.echo(f"tapetum: {stop}", err=True)
        raise typer.Exit(130) from None
    except KeyboardInterrupt:
        typer.echo("tapetum: stopped before the training began; the same command goes on", err=True)
        raise typer.Exit(130) from None
    echo_skipped(result.skipped)
    echo_left_out(source.dataset.left_out)
    typer.echo(f"{result.checkpoint}: {result.chosen_by} ({result.num_ids} identities, {result.seconds:.0f} s)")
    typer.echo(f"next: tapetum evaluate {folder}")
