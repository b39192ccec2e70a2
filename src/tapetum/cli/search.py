"""``tapetum search``: who looks like this person, and is it that person?"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tapetum.cli._choices import Quiet

if TYPE_CHECKING:
    from tapetum.core.sighting import Box
    from tapetum.core.types import Match, Modality
    from tapetum.data.image_io import Picture
    from tapetum.evaluation.calibration import Calibration
    from tapetum.gallery.filters import Filter
    from tapetum.gallery.store import Store
    from tapetum.inference.sessions import Model
    from tapetum.searching.find import Findings, Found
    from tapetum.searching.match_rule import MatchRule
    from tapetum.searching.query import Query

AUTO = "auto"
K = 10
KEPT_QUALITY = 95  # of a query picture in a case


def command(
    gallery: Annotated[
        str,
        typer.Option(
            help="Where to search: a gallery of `tapetum index`; or a file of `tapetum extract`, NAME=ROOT of a data "
            "set, a folder of pictures."
        ),
    ],
    model: Annotated[
        Path | None, typer.Argument(help="Run, checkpoint or artefact; a gallery remembers which it was made with.")
    ] = None,
    query: Annotated[
        list[Path] | None,
        typer.Option(help="Picture of the person searched for, or a folder of such; repeatable."),
    ] = None,
    tracklet: Annotated[list[str] | None, typer.Option(help="Search for the person of this tracklet.")] = None,
    row: Annotated[list[str] | None, typer.Option(help="Search for the person of this row, by its id.")] = None,
    video: Annotated[Path | None, typer.Option(help="Search for somebody in this video: --at and --box.")] = None,
    at: Annotated[float, typer.Option(min=0, help="Seconds since the video began.")] = 0.0,
    box: Annotated[
        str | None, typer.Option(help="The person in the --query picture or the --video: left,top,width,height.")
    ] = None,
    together: Annotated[
        bool, typer.Option("--together", help="All that is searched for shows one person, not one each.")
    ] = False,
    k: Annotated[int, typer.Option("-k", min=1, help="Answers for each person.")] = K,
    modality: Annotated[
        str,
        typer.Option(
            help="Of the pictures: visible, infrared, or auto: told by each; visible where no gallery is searched."
        ),
    ] = AUTO,
    filter: Annotated[  # noqa: A002
        str | None, typer.Option(help="Only rows that pass, e.g. 'quality > 0.3 and modality == infrared'.")
    ] = None,
    camera: Annotated[list[str] | None, typer.Option(help="Only of this camera; repeatable.")] = None,
    since: Annotated[str | None, typer.Option("--from", help="Only from this time on, e.g. 2026-11-21T20:00Z.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Only before this time.")] = None,
    group: Annotated[
        str, typer.Option(help="What an answer is: tracklet, identity (an estimate), or none: each row.")
    ] = "tracklet",
    exclude_seconds: Annotated[
        float | None,
        typer.Option(help="Leave out what the camera of a --row or --tracklet saw within so many seconds of it."),
    ] = None,
    rerank: Annotated[bool, typer.Option("--rerank", help="Order the answers by k-reciprocal neighbours too.")] = False,
    exact: Annotated[bool, typer.Option("--exact", help="Compare every row, also in a large gallery.")] = False,
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
        Path | None, typer.Option(help="A file of `tapetum calibrate`; default: the model's own, where it has one.")
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="Folder with the crops of a Milvus gallery.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the answers to this file.")] = None,
    case: Annotated[
        Path | None,
        typer.Option(help="Also write a case: one page with pictures (.html), or that with crops and JSON (.zip)."),
    ] = None,
    precision: Annotated[str, typer.Option(help="Of the model: fp32, bf16 or auto.")] = AUTO,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Run a TorchScript artefact, which is a program.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Search a gallery for people; one line an answer, best first.

    A line: rank, probability and whether it is a match (where the model is calibrated), similarity, camera, time (UTC),
    tracklet, crop. In a data set: rank, similarity, person, camera, picture. One similarity, that of the tracklet,
    decides both: the probability says how likely it shows the person, and a match reaches the threshold that is stated
    with its rate of false alarms.

    Example: tapetum search --query person.jpg --gallery galleries/night -k 5
    """
    from tapetum.core.errors import RecipeError, nearest_name
    from tapetum.core.types import Modality

    kinds: dict[str, Modality | None] = {each.name.lower(): each for each in Modality} | {AUTO: None}
    if modality not in kinds:
        raise RecipeError(f"--modality {modality}: is unknown; {nearest_name(modality, kinds)}")
    if not is_gallery(gallery):
        only = {
            "--tracklet": tracklet,
            "--row": row,
            "--video": video,
            "--box": box,
            "--together": together,
            "--filter": filter,
            "--camera": camera,
            "--from": since,
            "--to": until,
            "--exclude-seconds": exclude_seconds,
            "--rerank": rerank,
            "--exact": exact,
            "--folder": folder,
            "--json": json_file,
            "--case": case,
        }
        run, people = _check_without_gallery(gallery, only, model, query or [])
        chosen = kinds[modality] or Modality.VISIBLE
        _search_pictures(run, people, gallery, k, chosen, false_alarms, prior, calibration, quiet=quiet)
        return

    from tapetum.gallery.opening import open_gallery
    from tapetum.searching.case import build_case, case_content, check_case_path, write_case
    from tapetum.searching.find import FindOptions, find
    from tapetum.searching.query import join_queries, query_of_rows, query_of_tracklet

    if case is not None:
        check_case_path(case)
    with open_gallery(gallery, folder=folder) as store:
        options = FindOptions(
            k=k,
            filter=_build_filter(store, filter, camera or [], since, until),
            exact=True if exact else None,
            group=group,  # type: ignore[arg-type]  # checked there
            exclude_seconds=exclude_seconds,
            rerank=rerank,
            false_alarms=false_alarms,
            prior=prior,
        )
        shown = _read_pictures(query or [], video, at, box)
        opened = None
        if shown:
            from tapetum.indexing.index import open_gallery_model

            naming = f"tapetum search MODEL --gallery {store.where}"
            opened = open_gallery_model(store, model, precision=precision, trust_code=trust_code, naming=naming)
        asked, pictures = _ask_pictures(opened, shown, kinds[modality]) if opened else ([], [])
        asked += [query_of_rows(store, [each]) for each in row or []]
        asked += [query_of_tracklet(store, each) for each in tracklet or []]
        pictures += [[] for _ in asked[len(pictures) :]]
        if not asked:
            raise RecipeError(
                "search: nobody to search for; give --query, --row, --tracklet, or --video with --at and --box"
            )
        if together:
            asked, pictures = [join_queries(asked)], [[each for some in pictures for each in some]]
        for one in asked:
            _echo_query(one)
        known, why = _find_calibration(store, model, opened, calibration)
        if why:
            typer.echo(why, err=True)
        findings = find(store, asked, options, known)
        for one, found in zip(asked, findings, strict=True):
            if len(asked) > 1:
                typer.echo(f"answers for {', '.join(one.labels)}")
            _echo_findings(found)
        _echo_words(findings)
        if store.folder is not None and any(found.found for found in findings):
            typer.echo(f"crops lie in {store.folder}")
        if json_file is not None or case is not None:
            built = build_case(store, asked, findings, options, pictures=pictures, model=opened)
            if json_file is not None:
                from tapetum.core.atomic import write_bytes

                write_bytes(json_file, (json.dumps(case_content(built), indent=1, ensure_ascii=False) + "\n").encode())
            if case is not None:
                write_case(case, built)
                typer.echo(f"case written to {case}")


def is_gallery(where: str) -> bool:
    """Whether a place is meant to be a gallery of sightings; it may be damaged.

    Args:
        where: as typed.
    """
    folder = Path(where)
    return (
        "://" in where
        or where.startswith("milvus:")
        or any((folder / name).exists() for name in ("gallery.json", "rows.lance"))
    )


def _check_without_gallery(
    where: str, only: Mapping[str, object], model: Path | None, query: Sequence[Path]
) -> tuple[Path, Sequence[Path]]:
    """The run and the pictures of a search in pictures, or which option needs a gallery."""
    from tapetum.core.errors import GalleryError, MissingGalleryError

    if model is None and not Path(where).exists():
        raise MissingGalleryError(
            f"{where}: no gallery is there; make one with: tapetum index SOURCE --gallery {where}"
        )
    given = [name for name, value in only.items() if value]
    if given:
        raise GalleryError(f"{where}: is no gallery, and {given[0]} needs one; make it with `tapetum index`")
    if model is None:
        raise GalleryError(
            f"{where}: is no gallery, which would remember its model; give the run: tapetum search RUN --gallery "
            f"{where}, or make a gallery with `tapetum index`"
        )
    if not query:
        raise GalleryError("search: nobody to search for; give --query")
    return model, query


def _build_filter(
    store: "Store", text: str | None, cameras: Sequence[str], since: str | None, until: str | None
) -> "Filter | None":
    from tapetum.core.errors import FilterError, nearest_name
    from tapetum.gallery.filters import Among, And, Compare, as_filter

    parts: list[Filter] = []
    chosen = as_filter(text)
    if chosen is not None:
        parts.append(chosen)
    if cameras:
        known = set(store.columns(["camera"])["camera"])
        for camera in cameras:
            if known and camera not in known:
                raise FilterError(f"--camera {camera}: the gallery has no such camera; {nearest_name(camera, known)}")
        parts.append(Among("camera", tuple(cameras)))
    parts += [Compare("time", sign, moment) for sign, moment in ((">=", since), ("<", until)) if moment is not None]
    return as_filter(And(tuple(parts)) if len(parts) > 1 else parts[0] if parts else None)


def _read_pictures(
    query: Sequence[Path], video: Path | None, at: float, box: str | None
) -> "list[tuple[str, Picture, Box | None]]":
    """Label, picture and box of everything that must be embedded."""
    from tapetum.core.errors import DataError, RecipeError
    from tapetum.data.image_io import read_picture, without_option
    from tapetum.footage.frames import read_frame_at
    from tapetum.footage.sources import find_sources
    from tapetum.runs.sources import list_pictures

    paths = [record.path for record in list_pictures(query, split="query")]
    person = None if box is None else _parse_box(box)
    if person is not None and len(paths) + (video is not None) != 1:
        raise RecipeError(f"--box {box}: belongs to one picture; give one --query picture, or --video with --at")
    try:
        shown = [(str(path), read_picture(path), person) for path in paths]
    except DataError as error:
        raise DataError(without_option(error)) from None
    if video is not None:
        source = find_sources([video])[0]  # of several streams, the first
        shown.append((f"{video} at {at:g} s", read_frame_at(source, at).picture, person))
    elif at:
        raise RecipeError(f"--at {at:g}: belongs to a video; give --video too")
    return shown


def _parse_box(text: str) -> "Box":
    from tapetum.core.errors import RecipeError

    try:
        left, top, width, height = (int(value) for value in text.split(","))
    except ValueError:
        raise RecipeError(f"--box {text}: want four whole numbers, left,top,width,height, e.g. 40,10,64,128") from None
    return left, top, width, height


def _ask_pictures(
    model: "Model", shown: "Sequence[tuple[str, Picture, Box | None]]", modality: "Modality | None"
) -> "tuple[list[Query], list[list[bytes]]]":
    """A query a picture, and the person of each as JPEG."""
    from tapetum.core.pixels import encode_jpeg
    from tapetum.searching.query import cut_person, query_of_pictures

    asked: list[Query] = []
    pictures: list[list[bytes]] = []
    for label, picture, box in shown:
        asked.append(query_of_pictures(model, [picture], [label], modality=modality, boxes=[box]))
        pictures.append([encode_jpeg(cut_person(picture, box, label), KEPT_QUALITY)])
    return asked, pictures


def _find_calibration(
    store: "Store", place: Path | None, model: "Model | None", file: Path | None
) -> "tuple[Calibration | None, str]":
    """The calibration in use, or why there is none."""
    from tapetum.searching.calibrated import calibration_of_gallery, stored_calibration_of

    if model is not None and file is None:
        return stored_calibration_of(model), ""
    return calibration_of_gallery(store, place, file)


def _echo_query(query: "Query") -> None:
    """What is asked, before it is searched: a line for each picture, with what spoils it or makes it doubtful."""
    from tapetum.footage.doubt import say_doubts

    remarks, doubts = query.remarks or ("",) * len(query.labels), query.doubts or ((),) * len(query.labels)
    for label, modality, remark, doubt in zip(query.labels, query.modalities, remarks, doubts, strict=True):
        told = filter(None, (modality.name.lower(), remark, say_doubts(doubt)))
        typer.echo(f"query {label}  ({', '.join(told)})")


def _echo_findings(findings: "Findings") -> None:
    """What counts as a match, and one line an answer."""
    typer.echo(findings.verdict)
    if findings.recall is not None:
        typer.echo(
            f"approximate search: finds {100 * findings.recall:.1f} % of the ten nearest rows; --exact compares all"
        )
    if hard := findings.hard.say(findings.searched):
        typer.echo(hard)
    for found in findings.found:
        typer.echo(_line(found))


def _echo_words(findings: "Sequence[Findings]") -> None:
    """What the words in the lines mean, once for all of them."""
    from tapetum.searching.find import SAID

    if any(each.probability is not None for found in findings for each in found.found):
        for word, meaning in SAID.items():
            typer.echo(f"{word}: {meaning}")


def _line(found: "Found") -> str:
    from tapetum.footage.clock import format_time

    seen = found.row.sighting
    told = ""
    if found.probability is not None:
        told = f"{100 * found.probability:5.1f} %  {'match' if found.accepted else '  -  '}  "
    more = ""
    if len(found.rows) > 1:
        tracklets = len({row.sighting.tracklet for row in found.rows})
        cameras = sorted({row.sighting.camera for row in found.rows})
        more = f" ({len(found.rows)} pictures" + (
            f", {tracklets} tracklets, cameras {' '.join(cameras)})" if tracklets > 1 else ")"
        )
    remark = f"  {seen.remark}" if seen.remark else ""
    return (
        f"{found.rank:4d}  {told}{found.similarity:.4f}  {seen.camera}  {format_time(seen.time)}  "
        f"{seen.tracklet}{more}  {seen.crop or 'no crop'}{remark}"
    )


def _search_pictures(
    run: Path,
    query: Sequence[Path],
    gallery: str,
    k: int,
    modality: "Modality",
    false_alarms: float | None,
    prior: float | None,
    calibration: Path | None,
    *,
    quiet: bool,
) -> None:
    """Search a data set, a folder of pictures or a file of embeddings."""
    from tapetum.core.errors import ProtocolError
    from tapetum.core.types import Modality
    from tapetum.inference.embedder import Embedder
    from tapetum.inference.identity import calibration_path, find_calibration
    from tapetum.runs.progress import showing_pictures
    from tapetum.runs.sources import list_pictures, records_of
    from tapetum.searching.match_rule import build_match_rule, count_modalities, search_pictures

    embedder = Embedder(run)
    calibrated = find_calibration(run, embedder.facts, calibration)
    if calibrated is None and (false_alarms is not None or prior is not None):
        option = "--prior" if false_alarms is None else "--false-alarms"
        raise ProtocolError(f"{option}: there is no {calibration_path(run)}; make it with `tapetum calibrate {run}`")
    if Path(gallery).is_file():
        searched = embedder.read(Path(gallery))
    else:
        with showing_pictures("extracting", quiet=quiet) as progress:
            records = records_of(gallery, embedder.recipe.data, "gallery", progress=progress)
            searched, _ = embedder.describe(records, progress=progress)
    rule = None
    if calibrated is not None:
        sizes = count_modalities(searched)
        rule = build_match_rule(calibrated, sizes, asked=[modality], rate=false_alarms, prior=prior)
        typer.echo(f"match from {rule.words}; probabilities assume {100 * rule.prior:g} % before looking")
    pictures = [record.path for record in list_pictures(query)]  # a folder stands for what is in it
    found = search_pictures(embedder, pictures, searched, k, modality=modality)
    kinds = dict(zip(searched.paths, map(Modality, searched.modalities.tolist()), strict=True))
    for picture, answers in zip(pictures, found, strict=True):
        typer.echo(f"query {picture}")
        _echo_answers(answers, rule, modality, kinds)


def _echo_answers(
    answers: "Sequence[Match]", rule: "MatchRule | None", asked: "Modality", kinds: "Mapping[Path, Modality]"
) -> None:
    """One line an answer, and before them that there is no match where nobody qualifies."""
    sides = [(match.similarity, asked, kinds[match.path]) for match in answers]
    if rule is not None and not any(rule.accepts(*side) for side in sides):
        typer.echo(f"no match above {rule.words}; the nearest are")
    for match, side in zip(answers, sides, strict=True):
        who = f"person {match.pid}  camera {match.camid}" if match.pid >= 0 else "person unknown"
        verdict = ""
        probability = None if rule is None else rule.probability(*side)
        if rule is not None and probability is not None:
            verdict = f"{100 * probability:5.1f} %  {'match' if rule.accepts(*side) else '  -  '}  "
        typer.echo(f"{match.rank:4d}  {match.similarity:.4f}  {verdict}{who}  {match.path}")
