"""``tapetum index``: footage into a gallery."""

import contextlib
import json
import os
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tapetum.cli._choices import Quiet

if TYPE_CHECKING:
    from tapetum.core.types import Modality
    from tapetum.data.catalog import Dataset
    from tapetum.footage.facts import SourceOptions
    from tapetum.gallery.store import Store

AUTO = "auto"


def command(
    sources: Annotated[
        list[str], typer.Argument(help="Videos, pictures, or folders of them; NAME=ROOT for a data set's pictures.")
    ],
    gallery: Annotated[
        str | None, typer.Option(help="The gallery: a folder, or milvus://host:port/name; not for --dry-run.")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="Run, checkpoint or artefact that embeds; default: the one the gallery was made with, for a new "
            "gallery tapetum-lite0, which comes with the package."
        ),
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="Folder for the crops of a Milvus gallery.")] = None,
    camera: Annotated[str | None, typer.Option(help="Name of the camera; default: from file or folder.")] = None,
    start: Annotated[
        str | None,
        typer.Option(
            help="When the footage begins, e.g. 2026-11-20T21:00:00+01:00; default: metadata, a time in the name, the "
            "time of writing. Of footage that the gallery has, --start, --camera and --modality correct what was wrong."
        ),
    ] = None,
    path_pattern: Annotated[
        str | None,
        typer.Option(
            help='Which parts of a path are camera and time, compared with its end, e.g. "{date}/{hour}/{camera}/'
            '{minute}.{second}"; default: told by the names, see --dry-run.'
        ),
    ] = None,
    utc_offset: Annotated[float, typer.Option(help="Hours of clocks that say no zone.")] = 0.0,
    frame_rate: Annotated[
        float, typer.Option(help="Of folders of frames whose names hold no times, frames a second.")
    ] = 10.0,
    kind: Annotated[
        str | None, typer.Option(help="What folders of pictures hold, crops or frames; default: told by their shape.")
    ] = None,
    modality: Annotated[str, typer.Option(help="visible, infrared, or auto: told by each frame.")] = AUTO,
    detector: Annotated[
        str,
        typer.Option(
            help="auto: the best that is there; a name of `tapetum detector list`; FILE.onnx, FILE.tflite, "
            "torchvision:NAME, or background: the fallback for static cameras, which takes whatever moves for a person."
        ),
    ] = AUTO,
    detector_layout: Annotated[
        str | None,
        typer.Option(
            help="Of a file's output: for ONNX yolo, yolo_objectness, yolo_end_to_end or boxes; for ONNX or TFLite, "
            "with --person-class, ssd, centernet or nanodet."
        ),
    ] = None,
    detector_weights: Annotated[
        Path | None, typer.Option(help="File with the weights of a torchvision detector.")
    ] = None,
    person_class: Annotated[int | None, typer.Option(help="Which class of an ONNX or TFLite file is a person.")] = None,
    detector_precision: Annotated[
        str,
        typer.Option(
            help="fp32: the same boxes on every CPU; bf16: a fetched detector takes less time, on a CPU with AMX or "
            "AVX-512 BF16."
        ),
    ] = "fp32",
    brighten: Annotated[
        str,
        typer.Option(
            help="Dark frames before detection: auto (gamma for fetched detectors), gamma, off, an enhancer of "
            "`tapetum data enhance`, or a run that brightens (./NAME is the folder of that name); crops stay as they "
            "are."
        ),
    ] = AUTO,
    rate: Annotated[
        float | None,
        typer.Option(
            help="Most frames a second that are looked at; default: all. Below 2.5, somebody who is seen once or twice "
            "is kept too, and one walk may become several."
        ),
    ] = None,
    run: Annotated[str, typer.Option(help="Name of this run, to find again by a filter what it brought.")] = "",
    keep_days: Annotated[
        float | None,
        typer.Option(help="From now on the gallery erases what is older; see also `tapetum gallery keep`."),
    ] = None,
    precision: Annotated[str, typer.Option(help="fp32, bf16 or auto.")] = AUTO,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Run a TorchScript artefact, which is a program.")
    ] = False,
    compact: Annotated[bool, typer.Option(help="Put the gallery's files in order at the end.")] = True,
    score: Annotated[
        bool,
        typer.Option(
            "--score", help="Compare with the ground truth (NAME.csv) beside generated videos; reads them once more."
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only say what each source would be taken for, and what is in doubt."),
    ] = False,
    report: Annotated[Path | None, typer.Option(help="Also write what happened to this JSON file.")] = None,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Let a running Ray cluster do the work: host:port, or auto.")
    ] = None,
    ray_actors: Annotated[int | None, typer.Option(min=1, help="Processes on the cluster; default: its CPUs.")] = None,
    quiet: Quiet = False,
) -> None:
    """Find the people in footage and put them into a gallery; the same command goes on after a stop.

    Example: tapetum index yard.mp4 --gallery galleries/night --camera yard

    Example: tapetum index recordings --path-pattern "{date}/{hour}/{camera}/{minute}.{second}" --dry-run
    """
    from tapetum.core.atomic import write_bytes
    from tapetum.core.errors import OutputError, RecipeError, TapetumError, first_line
    from tapetum.footage.detectors import choose_detector
    from tapetum.footage.options import ExtractOptions
    from tapetum.footage.sources import find_sources
    from tapetum.indexing.finder import choose_finder
    from tapetum.indexing.footage_score import score_footage
    from tapetum.indexing.index import IndexOptions, index_sources
    from tapetum.indexing.opening import open_to_index
    from tapetum.indexing.ray_cluster import index_on_ray
    from tapetum.indexing.report import IndexReport
    from tapetum.indexing.shards import index_in_shards, world
    from tapetum.inference.sessions import open_model
    from tapetum.runs.progress import showing_pictures

    reading = _read_as(kind, camera, start, utc_offset, frame_rate, modality, path_pattern)
    if dry_run:
        _preview(sources, reading, report)
        return
    if gallery is None:
        raise RecipeError("index: no gallery is named; add --gallery FOLDER, or --dry-run to look at the sources alone")
    in_parts = ray is not None or world() > 1
    if in_parts and score:
        raise RecipeError("--score: is one process's work; index without it, then score with one process")
    choice = choose_detector(detector)  # once, here: on another machine the best that is there may be another
    build = choose_finder(
        detector,
        choice,
        layout=detector_layout,
        person_class=person_class,
        weights=detector_weights,
        brighten=brighten,
        precision=detector_precision,
    )
    finder, counts = build(), IndexReport()
    footage = find_sources(map(_open_place, sources), reading, report=counts.footage)
    if choice.reason and any(source.kind != "crops" for source in footage):
        typer.echo(f"detector: {finder.name}; auto took it: {choice.reason}")
    store, embedder = open_to_index(gallery, model, folder=folder, precision=precision, trust_code=trust_code)
    options = IndexOptions(extract=ExtractOptions(rate=rate), run=run, keep_days=keep_days, compact=compact)
    name, content = [*sources, repr(reading)], dict[str, Any]()
    with store:
        try:
            with showing_pictures("indexing", unit="frames", quiet=quiet) as progress:
                common: dict[str, Any] = {"options": options, "report": counts, "progress": progress}
                if ray is not None:
                    load = partial(
                        open_model, model or Path(store.info.place), precision=precision, trust_code=trust_code
                    )
                    common |= {"name": name, "actors": ray_actors}
                    whole = index_on_ray(ray, footage, store, embedder, load, build, **common) is not None
                elif in_parts:
                    together, made = index_in_shards(footage, store, embedder, finder, name=name, **common)
                    whole = together is not None
                    typer.echo(f"rank {os.environ.get('RANK', '?')}: made {made} shards")
                else:
                    whole = index_sources(footage, store, embedder, finder, **common) is not None
        except (TapetumError, KeyboardInterrupt) as error:
            if report is not None and not in_parts:  # of several processes, one tells it all at the end
                early = {"ended_early": first_line(error)}
                with contextlib.suppress(OutputError):  # the first error is the one to tell
                    write_bytes(report, json.dumps(counts.to_dict() | early, indent=1).encode())
            if counts.footage.sources:  # it had begun
                done = f"{counts.added} rows were added and stay"
                typer.echo(f"ended early: {done}; the same command goes on from there", err=True)
            raise
        if not whole:  # another process tells the rest
            return
        for line in counts.lines():
            typer.echo(line)
        content |= counts.to_dict()
        if score:
            footage_score = score_footage(footage, store, finder, options.extract)
            content["score"] = footage_score.to_dict()
            for line in footage_score.lines():
                typer.echo(line)
        if counts.rows:
            typer.echo(f"next: {_next_command(store, folder)}")
    if report is not None:
        write_bytes(report, json.dumps(content, indent=1).encode())
    if counts.footage.failed == len(footage):
        raise typer.Exit(1)


def _next_command(store: "Store", folder: Path | None) -> str:
    """A search for whoever can be told best; its address has no password."""
    columns = store.columns(["quality", "tracklet"])
    _, tracklet = max(zip(columns["quality"], columns["tracklet"], strict=True))
    words = ["tapetum", "search", "--gallery", store.where, "--tracklet", tracklet]
    return shlex.join(words if folder is None else [*words, "--folder", str(folder)])


def _read_as(
    kind: str | None,
    camera: str | None,
    start: str | None,
    utc_offset: float,
    frame_rate: float,
    modality: str,
    path_pattern: str | None,
) -> "SourceOptions":
    from tapetum.core.errors import RecipeError
    from tapetum.footage.clock import parse_time
    from tapetum.footage.facts import SourceOptions

    begins = None if start is None else parse_time(start, utc_offset)
    if start is not None and begins is None:
        raise RecipeError(f"--start {start}: is no date and time; write e.g. 2026-11-20T21:00:00+01:00")
    return SourceOptions(
        kind=kind,  # type: ignore[arg-type]  # checked there
        camera=camera,
        start=begins,
        utc_offset_hours=utc_offset,
        frames_per_second=frame_rate,
        modality=_modality(modality),
        path_pattern=path_pattern,
    )


def _preview(sources: list[str], reading: "SourceOptions", report: Path | None) -> None:
    """What each source would be taken for; nothing is opened but its metadata."""
    from tapetum.core.atomic import write_bytes
    from tapetum.footage.preview import preview_sources
    from tapetum.footage.report import FootageReport
    from tapetum.footage.sources import find_sources

    facts = FootageReport()
    footage = find_sources(map(_open_place, sources), reading, report=facts)
    for line in [*preview_sources(footage), *facts.fact_lines(), *(problem.message for problem in facts.problems)]:
        typer.echo(line)
    if report is not None:
        write_bytes(report, json.dumps(facts.to_dict(), indent=1).encode())


def _modality(name: str) -> "Modality | None":
    from tapetum.core.errors import RecipeError, nearest_name
    from tapetum.core.types import Modality

    names: dict[str, Modality | None] = {AUTO: None} | {each.name.lower(): each for each in Modality}
    if name not in names:
        raise RecipeError(f"--modality {name}: is unknown; {nearest_name(name, names)}")
    return names[name]


def _open_place(text: str) -> "str | Dataset":
    """A data set where the text is NAME=ROOT and no file of that name is there; else a place to look for footage."""
    if "=" not in text or Path(text).exists():
        return text
    from tapetum.data.catalog import open_dataset
    from tapetum.runs.sources import parse_source

    name, root = parse_source(text)
    return open_dataset(name, Path(root or "."))
