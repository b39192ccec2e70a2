"""``tapetum search``: who looks like this picture, and is it that person?"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tapetum.cli._choices import Quiet

if TYPE_CHECKING:
    from tapetum.core.types import Match
    from tapetum.engine.search import Judge


def command(
    run: Annotated[Path, typer.Argument(help="Run folder or checkpoint file.")],
    query: Annotated[
        list[Path], typer.Option(help="Picture of the person searched for, or a folder of such; repeatable.")
    ],
    gallery: Annotated[
        str, typer.Option(help="Where to search: a file of `tapetum extract`, NAME=ROOT of a dataset, or a folder.")
    ],
    k: Annotated[int, typer.Option("-k", min=1, help="Answers for each picture.")] = 10,
    modality: Annotated[str, typer.Option(help="Of the query pictures: visible or infrared.")] = "visible",
    false_alarms: Annotated[
        float | None,
        typer.Option(
            help="Share of searches for somebody who is not in the gallery that may give a match; default: the lowest "
            "that the calibration supports."
        ),
    ] = None,
    prior: Annotated[
        float | None,
        typer.Option(help="Probability, before looking, that a pair shows one person; default: the calibration's."),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="A file of `tapetum calibrate`; default: the run's own, where it has one.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Search a gallery for the people on some pictures; one line an answer: rank, similarity, person, camera, picture.

    Where the run is calibrated, each answer has a probability, and whether it is a match.

    Example: tapetum search runs/ide_synth --query person.jpg --gallery runs/gallery.safetensors -k 5
    """
    from tapetum.core.errors import ProtocolError, RecipeError, nearest_name
    from tapetum.core.types import Modality
    from tapetum.engine.calibrate import calibration_path, find_calibration
    from tapetum.engine.describer import Describer
    from tapetum.engine.progress import showing_pictures
    from tapetum.engine.search import build_judge, search_pictures
    from tapetum.engine.sources import list_pictures, records_of

    names = {each.name.lower(): each for each in Modality}
    if modality not in names:
        raise RecipeError(f"--modality {modality}: is unknown; {nearest_name(modality, names)}")
    describer = Describer(run)
    calibrated = find_calibration(run, describer, calibration)
    if calibrated is None and (false_alarms is not None or prior is not None):
        option = "--prior" if false_alarms is None else "--false-alarms"
        raise ProtocolError(f"{option}: there is no {calibration_path(run)}; make it with `tapetum calibrate {run}`")
    if Path(gallery).is_file():
        searched = describer.read(Path(gallery))
    else:
        with showing_pictures("extracting", quiet=quiet) as progress:
            records = records_of(gallery, describer.recipe.data, "gallery", progress=progress)
            searched, _ = describer.describe(records, progress=progress)
    judge = None
    if calibrated is not None:
        judge = build_judge(calibrated, searched, modality=names[modality], rate=false_alarms, prior=prior)
        typer.echo(f"match from {judge.words}; probabilities assume {100 * judge.prior:g} % before looking")
    pictures = [record.path for record in list_pictures(query)]  # a folder stands for what is in it
    found = search_pictures(describer, pictures, searched, k, modality=names[modality])
    for picture, answers in zip(pictures, found, strict=True):
        typer.echo(f"query {picture}")
        _echo_answers(answers, judge)


def _echo_answers(answers: "Sequence[Match]", judge: "Judge | None") -> None:
    """One line an answer, and before them that there is no match where nobody qualifies."""
    if judge is not None and not any(map(judge.accepts, answers)):
        typer.echo(f"no match above {judge.words}; the nearest are")
    for match in answers:
        who = f"person {match.pid}  camera {match.camid}" if match.pid >= 0 else "person unknown"
        verdict = ""
        if judge is not None:
            verdict = f"{100 * judge.probability(match):5.1f} %  {'match' if judge.accepts(match) else '  -  '}  "
        typer.echo(f"{match.rank:4d}  {match.similarity:.4f}  {verdict}{who}  {match.path}")
