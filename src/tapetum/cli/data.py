"""``tapetum data``: generate, darken, enhance, check and measure datasets, and cut people out of clips."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tapetum.cli._choices import Quiet, echo_columns, echo_skipped

if TYPE_CHECKING:
    from tapetum.data.threads import Progress
    from tapetum.runs.sources import NamedRoot

app = typer.Typer(
    help="Generate, darken, enhance, check and measure datasets; cut people out of clips.",
    epilog="Example: tapetum data generate runs/scene --people 8 --cameras 3",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Root = Annotated[Path, typer.Argument(help="Folder of the dataset.")]
Workers = Annotated[int, typer.Option(min=0, help="Threads that read and write pictures.")]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--option", metavar="KEY=VALUE", help="The dataset's own reading option, e.g. subset=c13; repeatable."
    ),
]
SkipCorrupt = Annotated[bool, typer.Option("--skip-corrupt", help="Leave damaged pictures out and count them.")]


@app.command()
def generate(
    root: Annotated[Path, typer.Argument(help="New folder; the same command resumes an interrupted generation.")],
    layout: Annotated[
        str,
        typer.Option(
            help="Dataset whose folder layout is written; sysu_mm01, regdb, llcm, rgbnt201 and city bring cameras."
        ),
    ] = "synth",
    people: Annotated[
        int | None, typer.Option(min=1, help="People to train on, and as many others to test on.")
    ] = None,
    cameras: Annotated[int | None, typer.Option(min=1, help="Number of cameras.")] = None,
    pictures: Annotated[int | None, typer.Option(min=1, help="Pictures of a person under a camera.")] = None,
    light: Annotated[
        str | None, typer.Option(help="night, day (the same streets and people by daylight), or both; default: night.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Sets the seeds of people, cameras and time at once; see --set.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting of the scene, e.g. camera_seed=7; repeatable."),
    ] = None,
    video_seconds: Annotated[
        float | None, typer.Option("--video", min=0.1, metavar="SECONDS", help="Write a video of each camera instead.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that render.")] = 2,
    quiet: Quiet = False,
) -> None:
    """Generate a night scene: pictures in a dataset's layout, or a video of each camera with its ground truth.

    Example: tapetum data generate runs/scene --people 8 --cameras 3

    Example: tapetum data generate runs/day --people 8 --cameras 3 --light day
    """
    from tapetum.data.generate import generate_dataset, generate_video
    from tapetum.runs.recipe import scene_options

    values: dict[str, Any] = {"layout": layout}
    if people is not None:
        values |= {"num_train_people": people, "num_test_people": people}
    if cameras is not None:
        values["cameras"] = cameras
    if pictures is not None:
        values["pictures_per_camera"] = pictures
    if light is not None:
        values["light"] = light
    if seed is not None:
        values |= {"identity_seed": seed, "camera_seed": seed, "time_seed": seed}
    scene, queries = scene_options(values | _parse_pairs(settings, "--set"))
    with _progress("Rendering", quiet=quiet) as progress:
        if video_seconds is None:
            generate_dataset(root, layout, scene, queries_per_camera=queries, workers=workers, progress=progress)
        else:
            generate_video(root, scene, seconds=video_seconds, workers=workers, progress=progress)
    typer.echo(f"{root}: written")
    if video_seconds is None:
        typer.echo(f"next: tapetum data stats {layout} {root}")


@app.command()
def darken(
    src: Annotated[Path, typer.Argument(help="Folder of a daytime dataset, in any layout.")],
    dst: Annotated[Path, typer.Argument(help="New folder; the same command resumes an interrupted run.")],
    model: Annotated[
        str, typer.Option(help="sensor: light, noise and colours of a night camera; gamma: the plain power.")
    ] = "sensor",
    gamma: Annotated[float, typer.Option(min=0.01, help="Exponent of the model gamma.")] = 3.0,
    seed: Annotated[int, typer.Option(min=0, help="Of light, tint and noise of the model sensor.")] = 0,
    skip_corrupt: SkipCorrupt = False,
    workers: Workers = 2,
    quiet: Quiet = False,
) -> None:
    """Turn a daytime dataset into a night one: same folders and names, darker pictures.

    Example: tapetum data darken runs/scene runs/darker --model gamma
    """
    from tapetum.core.errors import RecipeError, nearest_name
    from tapetum.data.darken import darken_dataset

    if model not in ("sensor", "gamma"):
        raise RecipeError(f"darken: model {model!r} is unknown; {nearest_name(model, ('sensor', 'gamma'))}")
    with _progress("Darkening", quiet=quiet) as progress:
        result = darken_dataset(
            src,
            dst,
            model="gamma" if model == "gamma" else "sensor",
            gamma=gamma,
            seed=seed,
            skip_corrupt=skip_corrupt,
            num_workers=workers,
            progress=progress,
        )
    typer.echo(
        f"{dst}: {result.written} pictures darkened, {result.existing} there before, {result.copied} files copied"
    )
    echo_skipped(result.skipped)


@app.command()
def enhance(
    src: Annotated[Path, typer.Argument(help="Folder of a data set, in any layout.")],
    dst: Annotated[Path, typer.Argument(help="New folder; the same command resumes an interrupted run.")],
    enhancer: Annotated[
        str,
        typer.Option(
            "--with",
            help="ada_gamma, clahe, enlighten_gan, zero_dce, a module's dotted name, or a run that brightens; ./NAME "
            "is the folder of that name.",
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="The enhancer's own option, e.g. weights=FILE; repeatable."),
    ] = None,
    skip_corrupt: SkipCorrupt = False,
    workers: Workers = 2,
    quiet: Quiet = False,
) -> None:
    """Brighten every picture of a data set beforehand: same folders and names, brighter pictures.

    Example: tapetum data enhance runs/scene runs/scene-en --with ada_gamma
    """
    from tapetum.data.rewrite import JPEG_QUALITY, rewrite_dataset
    from tapetum.enhancers import build_enhancer

    brighten, facts = build_enhancer(enhancer, _parse_pairs(settings, "--set"))
    with _progress("Brightening", quiet=quiet) as progress:
        result = rewrite_dataset(
            src,
            dst,
            lambda picture: (brighten(picture), JPEG_QUALITY),
            verb="enhance",
            settings=facts,
            skip_corrupt=skip_corrupt,
            num_workers=workers,
            progress=progress,
        )
    typer.echo(
        f"{dst}: {result.written} pictures brightened, {result.existing} there before, {result.copied} files copied"
    )
    echo_skipped(result.skipped)


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="Name of the dataset, e.g. night600.")],
    root: Root,
    options: Options = None,
    workers: Workers = 2,
    quiet: Quiet = False,
) -> None:
    """Compare a dataset with what was published: counts, names, unreadable pictures, empty people, duplicates.

    "fewest" is the number of pictures of the person who has the fewest. A sampler repeats pictures of people with less
    than it wants.

    Leaves with status 1 where something differs.

    Example: tapetum data check synth runs/scene
    """
    from tapetum.data.check import check_dataset

    with _progress("Checking", quiet=quiet) as progress:
        report = check_dataset(
            name, root, options=_parse_pairs(options, "--option"), num_workers=workers, progress=progress
        )
    rows = [("split", "pictures", "people", "cameras", "fewest", "published")]
    for row in report.splits:
        published = "-"
        if row.published:
            published = f"{row.published.pictures} of {row.published.ids or '?'} people"
            published += "" if row.published.certain else " (not certain)"
        rows.append((row.split, str(row.pictures), str(row.ids), str(row.cameras), str(row.fewest), published))
    echo_columns(rows)
    typer.echo(f"fingerprint {report.fingerprint}")
    if report.people:
        pid, person = min(report.people.items(), key=lambda each: each[1])
        typer.echo(f"{len(report.people)} people have names, of which their pids are made, e.g. {person} is {pid}")
    if report.query_copies:
        typer.echo(f"{report.query_copies} query pictures are in the gallery too; the junk rule covers them")
    for problem in report.problems:
        typer.echo(f"problem: {problem}")
    if report.problems:
        raise typer.Exit(1)
    typer.echo("no problem found")


@app.command()
def stats(
    name: Annotated[str, typer.Argument(help="Name of the dataset, e.g. night600.")],
    root: Root,
    out: Annotated[Path, typer.Option(help="Folder of stats.json, stats.png and the kept measurements.")] = Path(
        "runs/stats"
    ),
    options: Options = None,
    beside: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=ROOT[,KEY=VALUE]", help="Another dataset, with its reading options; repeatable."),
    ] = None,
    skip_corrupt: SkipCorrupt = False,
    workers: Workers = 2,
    quiet: Quiet = False,
) -> None:
    """Histograms of light, scale and colour, as numbers and as a picture.

    With --beside, one figure and one table of all datasets instead: datasets.png, datasets.md and datasets.json in the
    folder, e.g. --beside knight=ROOT,subset=c13. Columns marked as the paper's are printed in its Table I, not counted.

    Example: tapetum data stats synth runs/scene --out runs/stats
    """
    if beside:
        from tapetum.runs.sources import NamedRoot, parse_named_root

        first = NamedRoot(name, root, _parse_pairs(options, "--option"))
        sources = [first, *map(parse_named_root, beside)]
        compare_datasets(sources, out, skip_corrupt=skip_corrupt, workers=workers, quiet=quiet)
        return
    from tapetum.core.atomic import make_folder, write_bytes
    from tapetum.data.catalog import open_dataset
    from tapetum.data.lighting import measure_pictures
    from tapetum.data.pictures import drop_corrupt
    from tapetum.data.stats import compute_histograms
    from tapetum.plots.histograms import draw_histograms
    from tapetum.plots.style import figure_bytes

    dataset = open_dataset(name, root, options=_parse_pairs(options, "--option"))
    records, skipped = list(dataset.records), list[str]()
    make_folder(out)
    with _progress("Measuring", quiet=quiet) as progress:
        if skip_corrupt:
            records, skipped = drop_corrupt(records, num_workers=workers, progress=progress)
        measures = measure_pictures(
            records, cache_file=out / "measurements.npz", num_workers=workers, progress=progress
        )
    histograms = compute_histograms(records, measures)
    write_bytes(out / "stats.json", json.dumps(histograms, indent=1).encode())
    write_bytes(out / "stats.png", figure_bytes(draw_histograms(measures), ".png"))
    rows = [("level", "pictures")]
    rows += [(f"light {level}", str(count)) for level, count in histograms["light"]["levels"].items()]
    rows += [(f"scale {level}", str(count)) for level, count in histograms["scale"]["levels"].items()]
    if any(" " in split for split in histograms["splits"]):
        rows += [
            (split, f"{count['pictures']} of {count['ids']} people" + _one_sided(count))
            for split, count in histograms["splits"].items()
        ]
    rows += [
        (f"camera {camid}", f"{camera['pictures']} (mean lightness {camera['mean_lightness']})")
        for camid, camera in histograms["cameras"].items()
    ]
    echo_columns(rows)
    echo_skipped(skipped)
    typer.echo(f"{out / 'stats.png'} and {out / 'stats.json'}: written")


def compare_datasets(
    sources: Sequence["NamedRoot"],
    out: Path,
    *,
    name: str = "datasets",
    skip_corrupt: bool = False,
    workers: int = 2,
    quiet: bool,
) -> None:
    """Measure datasets; the table is printed as it is written.

    Args:
        name: of the three files, without an ending.
    """
    from tapetum.core.atomic import make_folder, write_bytes
    from tapetum.experiments.datasets import format_datasets, measure_datasets, tabulate_datasets
    from tapetum.plots.histograms import describe_side_by_side, draw_side_by_side
    from tapetum.plots.style import figure_bytes

    make_folder(out)
    with _progress("Measuring", quiet=quiet) as progress:
        measured = measure_datasets(sources, out, skip_corrupt=skip_corrupt, num_workers=workers, progress=progress)
    statistics = {label: each.statistics for label, each in measured.items()}
    rows = tabulate_datasets(measured)
    table = format_datasets(rows)
    write_bytes(out / f"{name}.json", json.dumps(rows, indent=1).encode())
    write_bytes(out / f"{name}.md", table.encode())
    write_bytes(out / f"{name}.png", figure_bytes(draw_side_by_side(statistics), ".png"))
    typer.echo(table)
    typer.echo(describe_side_by_side(statistics))
    echo_skipped([message for each in measured.values() for message in each.skipped])
    typer.echo(f"{out / name}.png, .md and .json: written")


@app.command("crop-video")
def crop_video(
    clip: Annotated[
        Path,
        typer.Argument(help="A video; without --detector of a static camera that sees nobody in the first moments."),
    ],
    out: Annotated[Path, typer.Argument(help="New folder; the dataset 'folder' reads it.")],
    every_seconds: Annotated[float, typer.Option(min=0.01, help="Time between two crops of a person.")] = 0.5,
    margin: Annotated[float, typer.Option(min=0, max=1, help="Added on each side, as a fraction of the box.")] = 0.05,
    detector: Annotated[
        str | None,
        typer.Option(help="As for `tapetum index`; default: what moves before a background that is learned slowly."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Cut people out of a clip.

    The first half of each appearance becomes the query (camera 1), the second half the gallery (camera 2).

    Example: tapetum data crop-video clip.mp4 runs/crops --detector ssd-mobilenet
    """
    from tapetum.footage.crop_video import CropVideoOptions
    from tapetum.footage.crop_video import crop_video as crop
    from tapetum.footage.detectors import build_detector

    with _progress("Looking for people", quiet=quiet) as progress:
        result = crop(
            clip,
            out,
            detector=None if detector is None else build_detector(detector),
            options=CropVideoOptions(every_seconds=every_seconds, margin=margin),
            progress=progress,
        )
    rows: list[tuple[str, ...]] = [("appearance", "from", "to", "query", "gallery")]
    for appearance in range(1, result.appearances + 1):
        crops = [item for item in result.crops if item.appearance == appearance]
        halves = [str(sum(item.camid == camid for item in crops)) for camid in (1, 2)]
        rows.append((str(appearance), f"{crops[0].time_seconds:.1f} s", f"{crops[-1].time_seconds:.1f} s", *halves))
    echo_columns(rows)
    for problem in result.problems:
        typer.echo(problem, err=True)
    typer.echo(f"{out}: {len(result.crops)} crops from {result.frames} frames")
    typer.echo(f"next: tapetum data darken {out} {out}-night")


@contextmanager
def _progress(title: str, *, quiet: bool) -> "Iterator[Progress]":
    """A bar on standard error with the time left, and a callback that moves it; silent where nobody watches."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as bar:
        task = bar.add_task(title, total=None)

        def move(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total or None)

        yield move


def _parse_pairs(pairs: Sequence[str] | None, option: str) -> dict[str, Any]:
    """KEY=VALUE texts as a mapping; the values as in JSON, anything else is text."""
    from tapetum.core.errors import RecipeError

    values: dict[str, Any] = {}
    for pair in pairs or ():
        key, sign, text = pair.partition("=")
        if not sign or not key:
            raise RecipeError(f"{option} {pair!r} is not of the form KEY=VALUE, e.g. {option} subset=c13")
        try:
            values[key] = json.loads(text)
        except ValueError:
            values[key] = text
    return values


def _one_sided(count: dict[str, int]) -> str:
    return f", {count['one_sided']} in one modality only" if count.get("one_sided") else ""
