"""Whether a gallery took the same footage, or a camera of the same name, for something else before."""

from collections.abc import Sequence
from pathlib import Path

from tapetum.footage.clock import format_time
from tapetum.footage.lists import Listed, read_listed
from tapetum.footage.report import FootageReport
from tapetum.footage.sources import Source

_CORRECTED = "whom it showed is corrected as far as the same detector and rate find the same boxes"


def compare_with_earlier(sources: Sequence[Source], folder: Path, detector: str, report: FootageReport) -> None:
    """Say where a source has another camera, start or detector than a finished one of its name; a camera another site.

    What a gallery holds keeps its names, unless the operator states others (see `indexing.known.correct`): footage that
    is told otherwise today would be another camera beside it.

    Args:
        sources: that are to be read.
        detector: name of the one that will look at frames; empty where none will.
        report: is told the doubts.
    """
    before: dict[str, list[Listed]] = {}
    sites: dict[str, set[str]] = {}
    spellings: dict[str, set[str]] = {}
    for entry in read_listed(folder):
        before.setdefault(entry.source, []).append(entry)
        for fact in entry.cameras:
            spellings.setdefault(fact.camera, set()).add(fact.written)
            if fact.origin in ("name", "folder"):
                sites.setdefault(fact.camera, set()).add(fact.site)
    cameras_now: dict[str, set[str]] = {}
    for source in sources:
        cameras_now.setdefault(source.name, set()).add(source.camera)
    for source in sources:
        earlier = before.get(source.name, [])
        if earlier and not cameras_now[source.name] & {entry.camera for entry in earlier}:
            what = _CORRECTED if source.options.camera is not None else "whom it showed keeps the first: state --camera"
            report.doubt(
                source.name,
                f"it was camera {earlier[0].camera} in this gallery before, and is {source.camera} now; {what}",
            )
        stated = source.options.camera is not None  # whatever it was before
        looked = {entry.detector for entry in earlier if (stated or entry.camera == source.camera) and entry.detector}
        if source.kind != "crops" and looked and detector and detector not in looked:
            report.doubt(
                source.name,
                f"{', '.join(sorted(looked))} looked for people there before, and whom it found stays beside those of "
                f"{detector}: everybody is there twice; make the gallery anew to have each once",
            )
        starts = [entry.start for entry in earlier if entry.start is not None and entry.camera == source.camera]
        if starts and source.start is not None and source.start_origin != "mtime":  # which is that of a copy
            now = format_time(source.start)
            if now not in starts:
                what = (
                    _CORRECTED if source.options.start is not None else "whom it showed keeps the first: state --start"
                )
                report.doubt(
                    source.name, f"it began at {starts[0]} in this gallery before, and begins at {now} now; {what}"
                )
        for fact in source.cameras:
            others = sites.get(fact.camera, set()) - {fact.site}
            if fact.origin in ("name", "folder") and others and fact.site not in sites[fact.camera]:
                places = ", ".join(map(repr, sorted(others)))
                report.doubt(
                    source.name,
                    f"camera {fact.camera} was found at {places} before and is at {fact.site!r} now; taken as one",
                )
            other_spellings = spellings.get(fact.camera, set()) - {fact.written}
            if other_spellings and fact.written not in spellings[fact.camera]:
                names = ", ".join(map(repr, sorted(other_spellings)))
                report.doubt(source.name, f"camera {fact.camera} was written {names} before; taken as one")
