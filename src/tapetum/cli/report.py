"""``tapetum report``: reports of run folders, and what two results differ in."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Build reports of finished runs; say what two results differ in.",
    epilog="Example: tapetum report build runs/ide_synth runs/idf_synth --out runs/report.html",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def build(
    runs: Annotated[list[Path], typer.Argument(help="Run folders with result cards, the baseline first.")],
    out: Annotated[Path, typer.Option(help="The HTML file.")] = Path("runs/report.html"),
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Person re-identification at night",
) -> None:
    """Build a self-contained HTML report: tables, slices, rank lists, where it fails, training curves.

    Example: tapetum report build runs/ide_synth runs/idf_synth --out runs/report.html
    """
    import shlex

    from tapetum.report.build import build_report
    from tapetum.report.runs import collect_content

    command = shlex.join(["tapetum", "report", "build", *map(str, runs), "--out", str(out)])
    build_report(out, collect_content(runs, title=title, command=command))
    typer.echo(f"{out}: written")


@app.command()
def diff(
    a: Annotated[Path, typer.Argument(help="A result card, or a run folder that holds one.")],
    b: Annotated[Path, typer.Argument(help="Another.")],
) -> None:
    """Say which fields of protocol, data and model, and which numbers, differ between two results.

    Example: tapetum report diff runs/ide_synth runs/idf_synth
    """
    from tapetum.evaluation.card import describe_diff, diff_cards, read_card
    from tapetum.report.runs import find_card

    typer.echo(describe_diff(diff_cards(read_card(find_card(a)), read_card(find_card(b))), str(a), str(b)))
