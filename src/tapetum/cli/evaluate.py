"""``tapetum evaluate``: a result card for a run or a checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from tapetum.cli._choices import Mirror, Precision, Quiet, SkipCorrupt, echo_columns, echo_left_out, echo_skipped
from tapetum.core.errors import RecipeError, nearest_name

if TYPE_CHECKING:
    from tapetum.evaluation.card import Card

TABLE = {"rank1": "rank-1", "rank10": "rank-10", "rank20": "rank-20", "mean_ap": "mAP", "mean_inp": "mINP"}
SETTABLE = ("data.name", "data.root", "data.options", "data.scene", "data.skip_corrupt")


def command(
    run: Annotated[Path, typer.Argument(help="Run folder or checkpoint file.")],
    data: Annotated[str | None, typer.Option(help="NAME=ROOT of another dataset than the run's, or synth.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="data.options.KEY=VALUE or data.scene.KEY=VALUE, changes which pictures are read, "
            "e.g. data.options.subset=c13; repeatable.",
        ),
    ] = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="A protocol, or `all`: each one whose rules differ; repeatable, each picture is described once. "
            "Default: its usual one.",
        ),
    ] = None,
    rerank: Annotated[
        bool, typer.Option("--rerank", help="Report k-reciprocal re-ranking (20, 6, 0.3) as well.")
    ] = False,
    mirror: Mirror = None,
    multi_query: Annotated[
        bool, typer.Option("--multi-query", help="Average all pictures of a query's person and camera (Market-1501).")
    ] = False,
    camera_norm: Annotated[
        str | None,
        typer.Option(
            help="none, centre (each camera's mean is taken out of its vectors), standard (mean and deviation) or "
            "modality (the mean of each modality), counted on the unlabelled test pictures; default: the recipe's."
        ),
    ] = None,
    rank: Annotated[
        str,
        typer.Option(
            help="similarity, or calibrated: by the calibrated log-odds of each pair of modalities, which must have "
            "been fitted on other people."
        ),
    ] = "similarity",
    calibration: Annotated[
        Path | None, typer.Option(help="For --rank calibrated: a file of `tapetum calibrate`; default: the run's own.")
    ] = None,
    precision: Precision = None,
    out: Annotated[Path | None, typer.Option(help="Folder for card and embeddings; default: RUN/evaluation.")] = None,
    skip_corrupt: SkipCorrupt = False,
    quiet: Quiet = False,
) -> None:
    """Evaluate a trained method and write a result card that holds every rule and circumstance of its numbers.

    Example: tapetum evaluate runs/ide_synth --rerank

    Example: tapetum evaluate runs/deen_llcm --protocol all
    """
    from tapetum.evaluation.camera_norm import CameraNorm
    from tapetum.evaluation.rerank import RerankOptions
    from tapetum.inference.evaluate import Ranking, evaluate_run, override_data
    from tapetum.runs.progress import showing_pictures
    from tapetum.runs.sources import open_data

    for change in set_ or []:
        key = change.partition("=")[0].strip()
        if not f"{key}.".startswith(tuple(f"{name}." for name in SETTABLE)):
            raise RecipeError(
                f"--set {change}: an evaluation takes {key} from the checkpoint; only {', '.join(SETTABLE)} can be set"
            )
    if camera_norm is not None and camera_norm not in get_args(CameraNorm):
        raise RecipeError(f"--camera-norm is {camera_norm!r}, expected {', '.join(get_args(CameraNorm))}")
    if rank not in get_args(Ranking):
        raise RecipeError(f"--rank {rank}: is unknown; {nearest_name(rank, get_args(Ranking))}")
    if calibration is not None and rank != "calibrated":
        raise RecipeError(f"--calibration {calibration}: only --rank calibrated takes one")
    changes = [*(set_ or []), *["data.skip_corrupt=true"] * skip_corrupt]
    section = override_data(run, data, changes + ["data.options.multi_query=true"] * multi_query)
    with showing_pictures("evaluating", quiet=quiet) as progress:
        source = open_data(section, progress=progress)
        results = evaluate_run(
            run,
            protocol or [None],
            dataset=source.dataset,
            data=section,
            mirror=mirror,
            rerank=RerankOptions() if rerank else None,
            multi_query=multi_query,
            camera_norm=cast("CameraNorm | None", camera_norm),
            rank=cast("Ranking", rank),
            calibration=calibration,
            precision=precision,
            out=out,
            progress=progress,
        )
    echo_skipped(source.skipped)
    echo_left_out(source.dataset.left_out)
    if (stranger := results[0].stranger) is not None:
        typer.echo(
            f"{stranger}: is of other pictures than those in {source.dataset.root}, and stays; what is written now has "
            "the first digits of its pictures' fingerprint in its name",
            err=True,
        )
    if len(results) == 1:
        _echo_card(results[0].card)
    else:
        _echo_table([each.card for each in results])
    for each in results:
        typer.echo(str(each.path))


def _echo_card(card: "Card") -> None:
    """Every number of one protocol and what must stand beside it."""
    from tapetum.evaluation.bootstrap import QUANTITIES
    from tapetum.evaluation.slices import FIRST_WRONG, LOOKALIKE_LEVELS, LOOKALIKES

    for name, numbers in (("", card.metrics), ("re-ranked ", card.reranked)):
        if numbers:
            values = [f"{key} {100 * numbers[key]:.2f}" for key in QUANTITIES]
            typer.echo(f"{name}{'  '.join(values)}  (percent)")
    if card.galleries:
        deviations = card.trials["deviation"]
        values = [f"{key} ±{100 * deviations[key]:.2f}" for key in QUANTITIES]
        typer.echo(f"{'  '.join(values)}  (over {card.num_trials} trials, {card.galleries})")
    if met := card.slices.get(LOOKALIKES, {}).get(LOOKALIKE_LEVELS[0]):
        taken = f", first wrong answer one for {100 * met[FIRST_WRONG]:.2f}" if FIRST_WRONG in met else ""
        typer.echo(
            f"{met['num_queries']} queries with a {LOOKALIKE_LEVELS[0]}: rank1 {100 * met['rank1']:.2f}  "
            f"mean_ap {100 * met['mean_ap']:.2f}{taken}  (percent)"
        )
    _echo_ranking(card)
    typer.echo(
        f"protocol {card.rules.name}, AP {card.rules.ap}, {card.metrics['num_queries']} queries, "
        f"chance mAP {100 * card.chance['mean_ap']:.2f}, weights: {card.checkpoint['chosen_by']}"
    )


def _echo_ranking(card: "Card") -> None:
    if damaged := card.data.get("damaged"):
        typer.echo(f"without {damaged} damaged pictures of the dataset, which count for nobody")
    if card.camera_norm != "none":
        typer.echo(f"camera norm {card.camera_norm}, from the unlabelled test pictures")
    if card.calibration is not None:
        name = card.calibration["people"].get("name")
        typer.echo(f"ranked by the calibrated log-odds of each pair of modalities, fitted on other people, of {name}")
        if card.recipe.get("evaluation", {}).get("rerank"):
            typer.echo("the recipe's re-ranking is left out: a calibration is of plain similarities")


def _echo_table(cards: "Sequence[Card]") -> None:
    """The numbers of several protocols under each other, each mean with its deviation over trials."""
    rows = [["protocol", *TABLE.values(), "queries", "trials"]]
    for card in cards:
        for name, numbers in (("", card.metrics), (" re-ranked", card.reranked)):
            if numbers:
                deviations = card.trials["deviation"] if card.galleries and not name else {}
                cells = [_cell(numbers[key], deviations.get(key)) for key in TABLE]
                trials = ", ".join(filter(None, (str(card.num_trials), card.galleries)))
                rows.append([card.rules.name + name, *cells, str(numbers["num_queries"]), trials])
    echo_columns(rows)
    _echo_ranking(cards[0])
    typer.echo(f"percent, mean and deviation over trials; weights: {cards[0].checkpoint['chosen_by']}")


def _cell(value: float, deviation: float | None) -> str:
    return f"{100 * value:.2f}" + ("" if deviation is None else f" ±{100 * deviation:.2f}")
