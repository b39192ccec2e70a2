"""``tapetum search``: who looks like this person, and is it that person?"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tapetum.cli._choices import Quiet

if TYPE_CHECKING:
    from tapetum.core.sighting import Box
    from tapetum.core.types import Modality
    from tapetum.data.image_io import Picture
    from tapetum.gallery.filters import Filter
    from tapetum.gallery.store import Store
    from tapetum.searching.find import Findings
    from tapetum.searching.query import Query
    from tapetum.searching.tracklets import Found

AUTO = "auto"
K = 10
KEPT_QUALITY = 95  # of a query picture in a case
WITHOUT_GALLERY = (  # what a search in a data set, a folder or a file of embeddings takes; the rest needs a gallery
    *("gallery", "model", "query", "at", "k", "modality", "group", "false_alarms", "prior", "calibration"),
    *("precision", "trust_code", "quiet"),
)


def command(
    context: typer.Context,
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
    rank: Annotated[
        str | None,
        typer.Option(
            help="Which rows come into question: similarity, the most similar of all (the default); or calibrated, the "
            "most similar of each modality, merged by the calibrated log-odds of their pair."
        ),
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
    from tapetum.core.errors import GalleryError, MissingGalleryError, RecipeError, nearest_name
    from tapetum.core.types import Modality

    kinds: dict[str, Modality | None] = {each.name.lower(): each for each in Modality} | {AUTO: None}
    if modality not in kinds:
        raise RecipeError(f"--modality {modality}: is unknown; {nearest_name(modality, kinds)}")
    if not is_gallery(gallery):
        if model is None and not Path(gallery).exists():
            raise MissingGalleryError(
                f"{gallery}: no gallery is there; make one with: tapetum index SOURCE --gallery {gallery}"
            )
        for option in context.command.params:
            if option.name not in WITHOUT_GALLERY and context.params.get(option.name or ""):
                needs = f"{option.opts[0]} needs one; make it with `tapetum index`"
                raise GalleryError(f"{gallery}: is no gallery, and {needs}")
        kind = kinds[modality] or Modality.VISIBLE
        _search_pictures(model, query or [], gallery, k, kind, false_alarms, prior, calibration, quiet=quiet)
        return

    from tapetum.gallery.opening import open_gallery
    from tapetum.searching.calibrated import calibration_of_gallery, stored_calibration_of
    from tapetum.searching.find import SAID, find
    from tapetum.searching.query import cut_person, join_queries, query_of_pictures, query_of_rows, query_of_tracklet
    from tapetum.searching.question import FindOptions

    if case is not None:
        from tapetum.searching.case import check_case_path

        check_case_path(case)
    with open_gallery(gallery, folder=folder) as store:
        options = FindOptions(
            k=k,
            filter=_build_filter(store, filter, camera or [], since, until),
            exact=True if exact else None,
            group=group,  # type: ignore[arg-type]  # checked there
            exclude_seconds=exclude_seconds,
            rank=rank or "similarity",  # type: ignore[arg-type]  # checked there
            rerank=rerank,
            false_alarms=false_alarms,
            prior=prior,
        )
        queries: list[Query] = []
        pictures: list[list[bytes]] = []
        embedder = None
        for label, picture, person in _read_pictures(query or [], video, at, box):
            if embedder is None:
                from tapetum.core.pixels import encode_jpeg
                from tapetum.searching.gallery_model import open_gallery_model

                naming = f"tapetum search MODEL --gallery {store.where}"
                embedder = open_gallery_model(store, model, precision=precision, trust_code=trust_code, naming=naming)
            queries.append(query_of_pictures(embedder, [picture], [label], modality=kinds[modality], boxes=[person]))
            pictures.append([encode_jpeg(cut_person(picture, person, label), KEPT_QUALITY)])
        queries += [query_of_rows(store, [each]) for each in row or []]
        queries += [query_of_tracklet(store, each) for each in tracklet or []]
        pictures += [[] for _ in queries[len(pictures) :]]
        if embedder is None and kinds[modality] is not None and queries:
            raise RecipeError(f"--modality {modality}: is of pictures; rows and tracklets have their own; leave it out")
        if not queries:
            raise RecipeError(
                "search: nobody to search for; give --query, --row, --tracklet, or --video with --at and --box"
            )
        if together:
            queries, pictures = [join_queries(queries)], [[each for some in pictures for each in some]]
        for one in queries:
            _echo_query(one)
        if embedder is not None and calibration is None:
            known, why = stored_calibration_of(embedder), ""
        else:
            known, why = calibration_of_gallery(store, model, calibration)
        if why:
            typer.echo(why, err=True)
        findings = find(store, queries, options, known)
        for one, answers in zip(queries, findings, strict=True):
            if len(queries) > 1:
                typer.echo(f"answers for {', '.join(one.labels)}")
            _echo_findings(answers)
        if any(each.probability is not None for answers in findings for each in answers.found):
            for word, meaning in SAID.items():
                typer.echo(f"{word}: {meaning}")
        if store.folder is not None and any(answers.found for answers in findings):
            typer.echo(f"crops lie in {store.folder}")
        if json_file is not None or case is not None:
            from tapetum.core.atomic import write_bytes
            from tapetum.searching.case import build_case, write_case

            export = build_case(store, queries, findings, options, pictures=pictures, model=embedder)
            if json_file is not None:
                write_bytes(json_file, (json.dumps(export.content, indent=1, ensure_ascii=False) + "\n").encode())
            if case is not None:
                write_case(case, export)
                typer.echo(f"case written to {case}")


def is_gallery(where: str) -> bool:
    """Whether a place is meant to be a gallery of sightings; it may be damaged."""
    folder = Path(where)
    return (
        "://" in where
        or where.startswith("milvus:")
        or any((folder / name).exists() for name in ("gallery.json", "rows.lance"))
    )


def _build_filter(
    store: "Store", text: str | None, cameras: list[str], since: str | None, until: str | None
) -> "Filter | None":
    from tapetum.core.errors import FilterError, nearest_name
    from tapetum.searching.provenance import cameras_of, listed_sources
    from tapetum.searching.question import RowSelection, check_fields

    selection = {"expression": text, "cameras": cameras, "since": since, "until": until}
    rows = check_fields(RowSelection, selection, "search").to_filter()
    known: set[str] = set()
    if cameras:
        known.update(store.columns(["camera"])["camera"])
        for source in listed_sources(store).values():  # also those where nobody was found
            known |= cameras_of(source)
    for camera in cameras:
        if known and camera not in known:
            raise FilterError(f"--camera {camera}: the gallery has no such camera; {nearest_name(camera, known)}")
    return rows


def _read_pictures(
    query: Sequence[Path], video: Path | None, at: float, box: str | None
) -> "list[tuple[str, Picture, Box | None]]":
    """Label, picture and box of everything that must be embedded."""
    from tapetum.core.errors import DataError, RecipeError
    from tapetum.data.image_io import read_picture, without_option

    paths = []
    if query:
        from tapetum.data.loose import list_pictures

        paths = [record.path for record in list_pictures(query, split="query")]
    person = None if box is None else _parse_box(box)
    if person is not None and len(paths) + (video is not None) != 1:
        raise RecipeError(f"--box {box}: belongs to one picture; give one --query picture, or --video with --at")
    try:
        pictures = [(str(path), read_picture(path), person) for path in paths]
    except DataError as error:
        raise DataError(without_option(error)) from None
    if video is not None:
        from tapetum.footage.frames import read_frame_at
        from tapetum.footage.sources import find_sources

        source = find_sources([video])[0]  # of several streams, the first
        pictures.append((f"{video} at {at:g} s", read_frame_at(source, at).picture, person))
    elif at:
        raise RecipeError(f"--at {at:g}: belongs to a video; give --video too")
    return pictures


def _parse_box(text: str) -> "Box":
    from tapetum.core.errors import RecipeError

    try:
        left, top, width, height = (int(value) for value in text.split(","))
    except ValueError:
        raise RecipeError(f"--box {text}: want four whole numbers, left,top,width,height, e.g. 40,10,64,128") from None
    return left, top, width, height


def _echo_query(query: "Query") -> None:
    """What is asked, before it is searched: a line for each picture, with what spoils it or makes it doubtful."""
    from tapetum.footage.doubt import say_doubts

    for label, modality, remark, doubts in zip(
        query.labels, query.modalities, query.remarks, query.doubts, strict=True
    ):
        facts = filter(None, (modality.name.lower(), remark, say_doubts(doubts)))
        typer.echo(f"query {label}  ({', '.join(facts)})")


def _echo_findings(findings: "Findings") -> None:
    """What counts as a match, and one line an answer."""
    typer.echo(findings.verdict)
    if not findings.exact:
        from tapetum.searching.find import say_recall

        typer.echo(f"approximate search: {say_recall(findings.recall)}; --exact compares all")
    if hard := findings.hard.say(findings.searched):
        typer.echo(hard)
    for answer in findings.found:
        uncertain = any(row.sighting.id in findings.uncertain for row in answer.rows)
        typer.echo(_line(answer, guess=findings.guess, uncertain=uncertain))
    if words := findings.say_uncertain():
        typer.echo(f"? {words}")


def _line(answer: "Found", *, guess: bool, uncertain: bool) -> str:
    from tapetum.footage.clock import format_time

    seen = answer.row.sighting
    more = ""
    if len(answer.rows) > 1:
        tracklets = len({row.sighting.tracklet for row in answer.rows})
        cameras = sorted({row.sighting.camera for row in answer.rows})
        more = f" ({len(answer.rows)} pictures" + (
            f", {tracklets} tracklets, cameras {' '.join(cameras)})" if tracklets > 1 else ")"
        )
    remark = f"  {seen.remark}" if seen.remark else ""
    verdict = _verdict(answer.probability, answer.accepted, guess)
    moment = format_time(seen.time) + "?" * uncertain
    return (
        f"{answer.rank:4d}  {verdict}{answer.similarity:.4f}  {seen.camera}  {moment}  "
        f"{seen.tracklet}{more}  {seen.crop or 'no crop'}{remark}"
    )


def _verdict(probability: float | None, accepted: bool | None, guess: bool) -> str:
    if probability is None:
        return ""
    word = ("match?" if guess else "match") if accepted else "-"
    return f"{100 * probability:5.1f} %  {word:^{6 if guess else 5}}  "


def _search_pictures(
    run: Path | None,
    query: list[Path],
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
    from tapetum.core.errors import GalleryError, ProtocolError
    from tapetum.core.types import Modality

    if run is None:
        raise GalleryError(
            f"{gallery}: is no gallery, which would remember its model; give the run: tapetum search RUN --gallery "
            f"{gallery}, or make a gallery with `tapetum index`"
        )
    if not query:
        raise GalleryError("search: nobody to search for; give --query")

    from tapetum.data.loose import list_pictures
    from tapetum.inference.embedder import Embedder
    from tapetum.inference.identity import calibration_path, find_calibration
    from tapetum.runs.progress import showing_pictures
    from tapetum.runs.sources import records_of
    from tapetum.searching.match_rule import build_match_rule
    from tapetum.searching.pictures import count_modalities, search_pictures

    embedder = Embedder(run)
    known = find_calibration(run, embedder.facts, calibration)
    if known is None and (false_alarms is not None or prior is not None):
        option = "--prior" if false_alarms is None else "--false-alarms"
        raise ProtocolError(f"{option}: there is no {calibration_path(run)}; make it with `tapetum calibrate {run}`")
    if Path(gallery).is_file():
        embeddings = embedder.read(Path(gallery))
    else:
        with showing_pictures("extracting", quiet=quiet) as progress:
            records = records_of(gallery, embedder.recipe.data, "gallery", progress=progress)
            embeddings, _ = embedder.describe(records, progress=progress)
    rule, caveat = None, ""
    if known is not None:
        sizes = count_modalities(embeddings)
        rule = build_match_rule(known, sizes, modalities=[modality], rate=false_alarms, prior=prior)
        caveat = known.caveat and f"{known.caveat}: "
        typer.echo(f"{caveat}match from {rule.words}; probabilities assume {100 * rule.prior:g} % before looking")
    pictures = [record.path for record in list_pictures(query)]  # a folder stands for what is in it
    answers = search_pictures(embedder, pictures, embeddings, k, modality=modality)
    kinds = dict(zip(embeddings.paths, map(Modality, embeddings.modalities.tolist()), strict=True))
    for picture, matches in zip(pictures, answers, strict=True):
        typer.echo(f"query {picture}")
        sides = [(match.similarity, modality, kinds[match.path]) for match in matches]
        if rule is not None and not any(rule.accepts(*side) for side in sides):
            typer.echo(f"no match above {rule.words}; the nearest are")
        for match, side in zip(matches, sides, strict=True):
            who = f"person {match.pid}  camera {match.camid}" if match.pid >= 0 else "person unknown"
            verdict = "" if rule is None else _verdict(rule.probability(*side), rule.accepts(*side), bool(caveat))
            typer.echo(f"{match.rank:4d}  {match.similarity:.4f}  {verdict}{who}  {match.path}")
