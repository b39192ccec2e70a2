"""``tapetum report``: reports of run folders, what two results differ in, and means over several trainings."""

from pathlib import Path
from typing import Annotated

import typer

from tapetum.core.errors import ProtocolError

app = typer.Typer(
    help="Build reports of finished runs; say what two results differ in; average several.",
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


@app.command()
def average(
    cards: Annotated[list[Path], typer.Argument(help="Result cards, or run folders that hold one each.")],
    out: Annotated[Path | None, typer.Option(help="Write the numbers as JSON as well.")] = None,
) -> None:
    """Average results of one method and protocol over seeds, or over the divisions of a dataset's people (RegDB).

    Example: tapetum report average runs/ide_synth runs/ide_synth_seed2
    """
    from tapetum.evaluation.average import average_cards
    from tapetum.evaluation.bootstrap import QUANTITIES
    from tapetum.evaluation.card import read_card
    from tapetum.report.runs import find_card
    from tapetum.runs.run_folder import write_json

    places = [find_card(place) for place in cards]
    twice = next((place for place in places if places.count(place) > 1), None)
    if twice is not None:
        raise ProtocolError(f"{twice}: is named twice; name each training once")
    means = average_cards({str(place): read_card(place) for place in places})
    for name, numbers, deviations in (("", "metrics", "deviation"), ("re-ranked ", "reranked", "reranked_deviation")):
        if means[numbers]:
            values = [
                f"{key} {100 * means[numbers][key]:.2f} ±{100 * means[deviations][key]:.2f}" for key in QUANTITIES
            ]
            typer.echo(f"{name}{'  '.join(values)}  (percent)")
    options = {name: [division[name] for division in means["divisions"]] for name in means["divisions"][0]}
    options["seed"] = list(dict.fromkeys(means["seeds"]))
    parts = [f"{name} {', '.join(map(str, values))}" for name, values in options.items()]
    typer.echo(
        f"mean and deviation over {means['count']} trainings of {means['method']} on {means['data']} "
        f"({'; '.join(parts)}), protocol {means['protocol']}, AP {means['ap']}"
    )
    if out is not None:
        write_json(out, means)
        typer.echo(f"{out}: written")
