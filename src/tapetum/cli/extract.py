"""``tapetum extract``: embeddings of pictures in a file."""

from pathlib import Path
from typing import Annotated

import typer

from tapetum.cli._choices import Mirror, Precision, Quiet, SkipCorrupt, echo_skipped


def command(
    run: Annotated[Path, typer.Argument(help="Run folder or checkpoint file.")],
    source: Annotated[str, typer.Argument(help="NAME=ROOT of a dataset, or a folder of pictures.")],
    out: Annotated[Path, typer.Option(help="File to write, usually ending in .safetensors.")],
    split: Annotated[str, typer.Option(help="Which pictures of a dataset: train, query or gallery.")] = "gallery",
    mirror: Mirror = None,
    precision: Precision = None,
    skip_corrupt: SkipCorrupt = False,
    quiet: Quiet = False,
) -> None:
    """Write the embeddings of a dataset's pictures or of a folder, for search and for other programs.

    Example: tapetum extract runs/ide_synth synth --out runs/gallery.safetensors
    """
    from tapetum.inference.embedder import Embedder
    from tapetum.runs.progress import showing_pictures
    from tapetum.runs.sources import records_of

    embedder = Embedder(run, mirror=mirror, precision=precision)
    with showing_pictures("extracting", quiet=quiet) as progress:
        records = records_of(source, embedder.recipe.data, split, progress=progress)
        embeddings, skipped = embedder.describe(records, skip_corrupt=skip_corrupt, progress=progress)
    embedder.save(out, embeddings)
    echo_skipped(skipped)
    typer.echo(f"{out}: {len(embeddings)} pictures, {embeddings.vectors.shape[1]} numbers each")
