"""``tapetum gallery``: what is in a gallery, and taking out of it what must go."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="What is in a gallery, deletion, retention.", no_args_is_help=True, rich_markup_mode=None)

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

    Indexing the same footage again does not bring them back.

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


def _place_of(where: str | None, named: str | None) -> str:
    """The gallery, said with or without `--gallery`."""
    from tapetum.core.errors import RecipeError

    if where is not None and named is not None and where != named:
        raise RecipeError(f"gallery: {where} and --gallery {named} are two; name one gallery")
    place = where if named is None else named
    if place is None:
        raise RecipeError("gallery: which one is not said; name it, e.g. --gallery galleries/night")
    return place
