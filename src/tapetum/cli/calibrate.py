"""``tapetum calibrate``: from which similarity on is it the same person, and how sure is that?"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tapetum.cli._choices import Mirror, Precision, Quiet, SkipCorrupt, echo_columns, echo_skipped

if TYPE_CHECKING:
    from tapetum.evaluation.calibration import Calibration

HEAD = ("pair", "of", "wanted", "threshold", "seen", "95 %", "found", "95 %")


def command(
    run: Annotated[Path, typer.Argument(help="Run folder or checkpoint file.")],
    data: Annotated[
        str | None,
        typer.Option(help="NAME=ROOT with people the run was never trained on; default: the run's own data."),
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Protocol whose junk rule leaves pairs out; default: the dataset's usual one.")
    ] = None,
    people: Annotated[
        str, typer.Option(help="test: the test people; holdout: training people that the run set aside.")
    ] = "test",
    prior: Annotated[
        float, typer.Option(help="Probability, before looking, that two pictures show one person; inside 0..1.")
    ] = 0.5,
    method: Annotated[str, typer.Option(help="isotonic, or logistic for few people.")] = "isotonic",
    rate: Annotated[
        list[float] | None,
        typer.Option("--rate", help="False-alarm rate to state; repeatable; default: 0.1 0.01 0.001."),
    ] = None,
    gallery_size: Annotated[
        list[int] | None,
        typer.Option(
            "--gallery-size", min=1, help="Pictures in a searched gallery, in addition to 10, 100, ...; repeatable."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the cut into halves; default: the recipe's.")] = None,
    mirror: Mirror = None,
    precision: Precision = None,
    out: Annotated[Path | None, typer.Option(help="The file; default: RUN/calibration.json.")] = None,
    skip_corrupt: SkipCorrupt = False,
    quiet: Quiet = False,
) -> None:
    """Fit probability and thresholds on half of the held-out people, check them on the other half, and keep them.

    Example: tapetum calibrate runs/idf_synth --prior 0.01
    """
    from tapetum.inference.calibrate import RATES, CalibrationOptions, calibrate_run, check_can_be_kept
    from tapetum.inference.evaluate import override_data
    from tapetum.runs.progress import showing_pictures
    from tapetum.runs.sources import open_data

    check_can_be_kept(run, out)
    options = CalibrationOptions(
        prior=prior,
        method=method,  # type: ignore[arg-type]  # checked there
        rates=tuple(rate or RATES),
        galleries=tuple(gallery_size or ()),
    )
    section = override_data(run, data, ["data.skip_corrupt=true"] * skip_corrupt)
    with showing_pictures("calibrating", quiet=quiet) as progress:
        source = open_data(section, progress=progress)
        result = calibrate_run(
            run,
            options=options,
            dataset=source.dataset,
            protocol=protocol,
            people=people,  # type: ignore[arg-type]  # checked there
            seed=seed,
            mirror=mirror,
            precision=precision,
            out=out,
            progress=progress,
        )
    echo_skipped(source.skipped)
    _echo_tables(result.calibration)
    for reason in result.skipped.values():
        typer.echo(f"left out: {reason}", err=True)
    for path in _write_figures(result.path, result.calibration.checked):
        typer.echo(str(path))
    typer.echo(str(result.path))


def _echo_tables(calibration: "Calibration") -> None:
    """What the check found: calibration error, and every threshold with what it does."""
    rows: list[tuple[str, ...]] = [HEAD]
    for name, check in calibration.checked.items():
        counts = calibration.pairs[name].counts
        low, high = (100 * end for end in check["calibration_error_interval"])
        typer.echo(
            f"{name}: fitted on {counts['people']} people, checked on {check['people']} others "
            f"({check['same']:,} pairs of one person, {check['different']:,} of two): "
            f"calibration error {100 * check['calibration_error']:.1f} % ({low:.1f} to {high:.1f})"
        )
        rows += [_threshold_row(name, row) for row in check["thresholds"]]
        pairs = {(row["gallery"], row["rate"]) for row in check["thresholds"]}
        for gallery in (None, *calibration.pairs[name].searches):
            rates_left_out = [rate for rate in calibration.rates if (gallery, rate) not in pairs]
            if rates_left_out:
                what = "comparisons" if gallery is None else f"searches in {gallery} pictures"
                typer.echo(f"  too few people for {', '.join(f'{rate:g}' for rate in rates_left_out)} of {what}")
    echo_columns(rows)
    typer.echo(
        f"probabilities assume {100 * calibration.prior:g} % before looking; wanted and seen: false alarms in percent, "
        f"found: of true pairs or searches; junk by {calibration.protocol}, seed {calibration.seed}"
    )
    chosen_by = calibration.data.get("weights_chosen_by", "")
    if chosen_by:
        typer.echo(f"weights: {chosen_by}")


def _threshold_row(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    of = "comparisons" if row["gallery"] is None else f"searches in {row['gallery']}"
    cells = [f"{100 * row['rate']:g}", f"{row['threshold']:.4f}"]
    for key in ("observed", "found"):
        low, high = (100 * end for end in row[f"{key}_interval"])
        cells += [f"{100 * row[key]:.3g}", f"{low:.3g} to {high:.3g}"]
    return name, of, *cells


def _write_figures(path: Path, checks: Mapping[str, Any]) -> list[Path]:
    """The three figures beside the file."""
    from tapetum.core.atomic import write_bytes
    from tapetum.plots.reliability import draw_reliability
    from tapetum.plots.style import figure_bytes
    from tapetum.plots.verification import draw_open_set, draw_verification

    figures = {
        path.with_name(f"{path.stem}_{name}.svg"): draw(checks)
        for name, draw in (
            ("reliability", draw_reliability),
            ("verification", draw_verification),
            ("open_set", draw_open_set),
        )
    }
    for place, figure in figures.items():
        write_bytes(place, figure_bytes(figure, ".svg"))
    return list(figures)
