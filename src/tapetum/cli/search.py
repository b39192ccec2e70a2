"""``tapetum search``: who looks like this picture?"""

from pathlib import Path
from typing import Annotated

import typer

from tapetum.cli._choices import Quiet


def command(
    run: Annotated[Path, typer.Argument(help="Run folder or checkpoint file.")],
    query: Annotated[list[Path], typer.Option(help="Picture of the person searched for; repeatable.")],
    gallery: Annotated[
        str, typer.Option(help="Where to search: a file of `tapetum extract`, NAME=ROOT of a dataset, or a folder.")
    ],
    k: Annotated[int, typer.Option("-k", min=1, help="Answers for each picture.")] = 10,
    quiet: Quiet = False,
) -> None:
    """Search a gallery for the people on some pictures; one line an answer: rank, similarity, person, camera, picture.

    Example: tapetum search runs/ide_synth --query person.jpg --gallery runs/gallery.safetensors -k 5
    """
    from tapetum.engine.describer import Describer
    from tapetum.engine.progress import showing_pictures
    from tapetum.engine.search import search_pictures
    from tapetum.engine.sources import records_of

    describer = Describer(run)
    if Path(gallery).is_file():
        searched = describer.read(Path(gallery))
    else:
        with showing_pictures("extracting", quiet=quiet) as progress:
            records = records_of(gallery, describer.recipe.data, "gallery", progress=progress)
            searched, _ = describer.describe(records, progress=progress)
    for picture, answers in zip(query, search_pictures(describer, query, searched, k), strict=True):
        typer.echo(f"query {picture}")
        for match in answers:
            who = f"person {match.pid}  camera {match.camid}" if match.pid >= 0 else "person unknown"
            typer.echo(f"{match.rank:4d}  {match.similarity:.4f}  {who}  {match.path}")
