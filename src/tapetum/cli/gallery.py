"""``tapetum gallery``: what is in a gallery, taking out of it what must go, and giving it to other programs."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="What is in a gallery, deletion, retention, export.",
    epilog="Example: tapetum gallery info --gallery galleries/night",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Where = Annotated[
    str | None, typer.Argument(metavar="[GALLERY]", help="The gallery: a folder, or milvus://host:port/name.")
]
Named = Annotated[str | None, typer.Option("--gallery", help="The same, as `search`, `index` and `serve` take it.")]
Folder = Annotated[Path | None, typer.Option(help="Folder with the crops of a Milvus gallery.")]


@app.command()
def info(where: Where = None, named: Named = None, folder: Folder = None) -> None:
    """Rows, cameras, times, model, size, how it is searched, how long anything is kept.

    Example: tapetum gallery info --gallery galleries/night
    """
    from tapetum.gallery.opening import open_gallery
    from tapetum.searching.facts import read_facts

    with open_gallery(_place_of(where, named), folder=folder) as store:
        for line in read_facts(store).lines():
            typer.echo(line)


@app.command()
def delete(
    filter: Annotated[  # noqa: A002
        str, typer.Option(help="Which sightings, e.g. 'tracklet == \"...\"' or 'time < \"2026-11-21T20:00Z\"'.")
    ],
    where: Where = None,
    named: Named = None,
    folder: Folder = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Erase sightings for good: rows, vectors, crops, and what the lists of footage say about them.

    Indexing the same footage again does not bring them back; another detector or rate cuts other crops, which may show
    the same people.

    Example: tapetum gallery delete --gallery galleries/night --filter 'camera == "yard"'
    """
    from tapetum.gallery.opening import open_gallery
    from tapetum.searching.retention import erase

    with open_gallery(_place_of(where, named), folder=folder) as store:
        count = store.count(filter)
        if count and not yes:
            typer.confirm(f"erase {count} of {store.count()} sightings in {store.where} for good?", abort=True)
        typer.echo(f"{store.where}: {len(erase(store, filter))} sightings erased, {store.count()} left")


@app.command()
def keep(
    where: Where = None,
    named: Named = None,
    days: Annotated[
        float | None, typer.Option(help="Erase what was seen earlier, now and after each indexing.")
    ] = None,
    forever: Annotated[bool, typer.Option("--forever", help="Keep everything from now on.")] = False,
    folder: Folder = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Decide how long a gallery keeps what it saw, and erase what is older.

    Example: tapetum gallery keep --gallery galleries/night --days 30
    """
    from tapetum.core.errors import RecipeError
    from tapetum.gallery.filters import Compare
    from tapetum.gallery.opening import open_gallery
    from tapetum.searching.retention import apply_retention, check_days, oldest_kept, write_keep_days

    if (days is None) != forever:
        raise RecipeError("gallery keep: say either --days N or --forever")
    with open_gallery(_place_of(where, named), folder=folder) as store:
        if days is not None:
            check_days(days, store.where)
            count = store.count(Compare("time", "<", oldest_kept(days)))
            if count and not yes:
                typer.confirm(f"erase {count} of {store.count()} sightings in {store.where} for good?", abort=True)
        write_keep_days(store, days)
        erasure = apply_retention(store)
        rule = "keeps everything" if days is None else f"keeps {days:g} days"
        typer.echo(f"{store.where}: {rule}; {len(erasure)} sightings erased, {store.count()} left")


@app.command()
def compact(where: Where = None, named: Named = None, folder: Folder = None) -> None:
    """Put a gallery's files in order, and build the approximate index of a large one.

    Example: tapetum gallery compact --gallery galleries/night
    """
    from tapetum.gallery.opening import open_gallery

    with open_gallery(_place_of(where, named), folder=folder) as store:
        recall = store.compact()
        how = "every row is compared" if recall is None else f"approximate, recall@10 {recall:.3f}"
        typer.echo(f"{store.where}: {store.count()} rows; search: {how}")


@app.command()
def bias(
    where: Where = None,
    named: Named = None,
    folder: Folder = None,
    filter: Annotated[str | None, typer.Option(help="Only sightings that pass, e.g. 'quality > 0.3'.")] = None,  # noqa: A002
) -> None:
    """How much more often visible and infrared sightings find their own kind first than its share would have it.

    One sighting of each tracklet is searched for among those of all other cameras. Above 1, the order of answers says
    something about the kind of picture and not about the person.

    Example: tapetum gallery bias --gallery galleries/night
    """
    from tapetum.gallery.opening import open_gallery
    from tapetum.searching.modality_bias import measure_modality_bias

    with open_gallery(_place_of(where, named), folder=folder) as store:
        found = measure_modality_bias(store, filter)
        for each in found:
            typer.echo(str(each))
        if not found:
            typer.echo(f"{store.where}: nothing to measure; it takes visible and infrared sightings of several cameras")


@app.command()
def export(
    to: Annotated[Path, typer.Option(help="File to write, ending in .parquet or .csv; with --as: a folder.")],
    where: Where = None,
    named: Named = None,
    folder: Folder = None,
    program: Annotated[
        str | None, typer.Option("--as", help="Embeddings for another program: projector (TensorBoard) or fiftyone.")
    ] = None,
    embeddings: Annotated[
        bool, typer.Option("--embeddings", help="Of sightings in Parquet: their vectors too.")
    ] = False,
    filter: Annotated[str | None, typer.Option(help="Only sightings that pass, e.g. 'quality > 0.3'.")] = None,  # noqa: A002
    answers: Annotated[
        Path | None, typer.Option(help="Instead of a gallery: what `tapetum search --json` wrote.")
    ] = None,
    results: Annotated[
        list[Path] | None, typer.Option(help="Instead of a gallery: a run, or a result card of it; repeatable.")
    ] = None,
) -> None:
    """Write sightings, answers or results as Parquet or CSV, or embeddings for TensorBoard or FiftyOne.

    \b
    Examples:
      tapetum gallery export --gallery galleries/night --to sightings.csv
      tapetum gallery export --gallery galleries/night --to projector --as projector
      tapetum gallery export --answers answers.json --to answers.parquet
      tapetum gallery export --results runs/idf --results runs/ide --to results.csv
    """
    from tapetum.core.errors import RecipeError

    kinds = [name for name, given in (("--answers", answers), ("--results", results)) if given]
    gallery_options = {"--gallery": where or named, "--as": program, "--embeddings": embeddings, "--filter": filter}
    if kinds:
        others = [*kinds[1:], *(name for name, given in gallery_options.items() if given)]
        if others:
            raise RecipeError(f"gallery export: {kinds[0]} and {others[0]} are two things; export one at a time")
        count, what = _export_answers(answers, to) if answers else _export_results(results or [], to)
    else:
        count, what = _export_gallery(_place_of(where, named), folder, to, program, filter, embeddings=embeddings)
    typer.echo(f"{count} {what} written to {to}")


def _export_gallery(
    place: str,
    folder: Path | None,
    to: Path,
    program: str | None,
    filter: str | None,  # noqa: A002
    *,
    embeddings: bool,
) -> tuple[int, str]:
    from tapetum.core.errors import RecipeError, nearest_name
    from tapetum.gallery.opening import open_gallery
    from tapetum.searching.exports import PROGRAMS, check_table_path, export_sightings

    if program is not None and program not in PROGRAMS:
        raise RecipeError(f"--as {program!r} is unknown; {nearest_name(program, PROGRAMS)}")
    if program is None:
        check_table_path(to)
    with open_gallery(place, folder=folder) as store:
        if program is not None:
            return PROGRAMS[program](store, to, filter), "embeddings"
        return export_sightings(store, to, filter, embeddings=embeddings), "sightings"


def _export_answers(path: Path, to: Path) -> tuple[int, str]:
    import json

    from tapetum.core.errors import DataError
    from tapetum.searching.exports import export_answers

    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); give a file of `tapetum search --json`") from None
    return export_answers(content, to, str(path)), "rows of answers"


def _export_results(paths: list[Path], to: Path) -> tuple[int, str]:
    from tapetum.core.errors import DataError
    from tapetum.evaluation.card import read_card
    from tapetum.runs.run_folder import RunFolder
    from tapetum.searching.exports import export_results

    files: list[Path] = []
    for path in paths:
        own = sorted(RunFolder(path).evaluation.glob("*.json")) if path.is_dir() else [path]
        if not own:
            raise DataError(f"{path}: holds no result; evaluate it first: tapetum evaluate {path}")
        files += own
    return export_results({str(file): read_card(file) for file in dict.fromkeys(files)}, to), "results"


def _place_of(where: str | None, named: str | None) -> str:
    """The gallery, said with or without `--gallery`."""
    from tapetum.core.errors import RecipeError

    if where is not None and named is not None and where != named:
        raise RecipeError(f"gallery: {where} and --gallery {named} are two; name one gallery")
    place = where if named is None else named
    if place is None:
        raise RecipeError("gallery: which one is not said; name it, e.g. --gallery galleries/night")
    return place
