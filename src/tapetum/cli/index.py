"""``tapetum index``: footage into a gallery."""

from pathlib import Path
from typing import Annotated

import typer

from tapetum.cli._choices import Quiet


def command(
    sources: Annotated[
        list[str], typer.Argument(help="Videos, pictures, or folders of them; NAME=ROOT for a data set's pictures.")
    ],
    gallery: Annotated[str, typer.Option(help="The gallery: a folder, or milvus://host:port/name.")],
    model: Annotated[
        Path | None,
        typer.Option(help="Run, checkpoint or artefact that embeds; default: the one the gallery was made with."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Find the people in footage and put them into a gallery; the same command goes on after a stop.

    Example: tapetum index yard.mp4 --gallery galleries/night --model runs/demo/idf
    """
    from tapetum.core.errors import RecipeError
    from tapetum.engine.progress import showing_pictures
    from tapetum.footage.detect import BackgroundDetector
    from tapetum.footage.sources import find_sources
    from tapetum.investigation.index import index_sources, open_gallery_for
    from tapetum.runtime.sessions import open_model

    found = find_sources(sources)
    if model is None:
        raise RecipeError("--model: name a run")
    opened = open_model(model)
    with open_gallery_for(gallery, opened, model) as store, showing_pictures("indexing", quiet=quiet) as progress:
        report = index_sources(found, store, opened, BackgroundDetector(), progress=progress)
    for line in report.lines():
        typer.echo(line)
