"""The front door: every subcommand under one name, and errors as one line.

Subcommand files import heavy packages inside their commands, so that ``tapetum --help`` answers at once.
"""

import errno
import sys
from collections.abc import Sequence
from copy import copy
from typing import Annotated

import typer

import tapetum
from tapetum.cli import (
    audit,
    calibrate,
    convert,
    data,
    demo,
    demo_ir,
    detector,
    doctor,
    evaluate,
    export,
    extract,
    gallery,
    index,
    plot,
    report,
    reproduce,
    search,
    serve,
    train,
    users,
)
from tapetum.core.errors import TapetumError
from tapetum.core.extras import explain_missing
from tapetum.core.memory import keep_freed_memory
from tapetum.core.threads import sleep_while_waiting

OUTPUT_PROBLEMS = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EACCES: "permission denied; choose another folder or change its permissions",
    errno.EROFS: "the file system is read-only; choose another folder",
}

TRAINING = ("train", "reproduce", "demo", "demo-ir")  # commands that work through much memory, step by step

app = typer.Typer(
    name="tapetum",
    help="Person re-identification at night.",
    epilog="Example: tapetum demo --out runs/demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def print_version(wanted: bool) -> None:
    """Print the version and leave, where asked."""
    if wanted:
        typer.echo(f"tapetum {tapetum.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Person re-identification at night."""


app.command("demo")(demo.command)
app.command("demo-ir")(demo_ir.command)
app.command("train")(train.command)
app.command("evaluate")(evaluate.command)
app.command("calibrate")(calibrate.command)
app.command("extract")(extract.command)
app.command("export")(export.command)
app.command("index")(index.command)
app.command("search")(search.command)
app.command("reproduce")(reproduce.command)
app.command("convert")(convert.command)
app.command("serve")(serve.command)
app.add_typer(users.app, name="users")
app.add_typer(audit.app, name="audit")
app.add_typer(data.app, name="data")
app.add_typer(gallery.app, name="gallery")
app.add_typer(detector.app, name="detector")
app.add_typer(plot.app, name="plot")
app.add_typer(report.app, name="report")
app.command("doctor")(doctor.command)


def program(words: Sequence[str]) -> typer.Typer:
    """As much of the program as a command line asks for: Typer works through all that it has, half a hundred commands.

    Args:
        words: of the command line, without the program's name.
    """
    asked = words[0] if words else None
    commands = [each for each in app.registered_commands if each.name == asked]
    groups = [each for each in app.registered_groups if each.name == asked]
    if not (commands or groups):
        return app
    part = copy(app)
    part.registered_commands, part.registered_groups = commands, groups
    return part


def start() -> None:
    """Be the program ``tapetum``: as `run`, in a process of its own."""
    sleep_while_waiting()
    if sys.argv[1:2] and sys.argv[1] in TRAINING:
        keep_freed_memory()
    run()


def run() -> None:
    """Run the command line; a problem the user can mend becomes one line and exit status 2."""
    try:
        program(sys.argv[1:])()
    except TapetumError as error:
        typer.echo(f"tapetum: {error}", err=True)
        sys.exit(2)
    except ModuleNotFoundError as error:
        missing = explain_missing(error)
        if missing is None:
            raise
        typer.echo(f"tapetum: {missing}", err=True)
        sys.exit(2)
    except OSError as error:
        if error.errno not in OUTPUT_PROBLEMS:
            raise
        place = error.filename or "output"
        typer.echo(f"tapetum: {place}: {OUTPUT_PROBLEMS[error.errno]}", err=True)
        sys.exit(2)
