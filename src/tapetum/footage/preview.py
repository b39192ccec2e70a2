"""What sources would be taken for, as a table, before anything is read."""

from collections import Counter
from collections.abc import Iterable, Sequence

from tapetum.footage.clock import format_time
from tapetum.footage.origin import ORIGINS, Origin
from tapetum.footage.sources import Source

_HEADINGS = ("kind", "files", "camera", "from", "start", "from", "source")
_MANY = 3  # cameras of one source that are named


def preview_sources(sources: Sequence[Source]) -> list[str]:
    """One line a source under headings; below it a line for each doubt."""
    rows = [_row(source) for source in sources]
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *rows, strict=True)]
    lines = [_line(_HEADINGS, widths)]
    for source, row in zip(sources, rows, strict=True):
        lines.append(_line(row, widths))
        lines += [f"  in doubt: {doubt}" for doubt in source.doubts]
    return lines


def _row(source: Source) -> tuple[str, ...]:
    spellings = {
        fact.camera: fact.camera if fact.written == fact.camera else f"{fact.camera} ({fact.written})"
        for fact in source.cameras
    }
    names = list(spellings.values())
    cameras = ", ".join(names[:_MANY]) + (f" and {len(names) - _MANY} more" if len(names) > _MANY else "")
    start, origins = _start(source)
    return (
        source.kind,
        str(source.num_files),
        cameras,
        _origins(fact.origin for fact in source.cameras),
        start,
        _origins(origins),
        source.name,
    )


def _start(source: Source) -> tuple[str, list[Origin]]:
    """First and last time of a source's crops, or its start; and what says so."""
    if source.start is not None and source.start_origin is not None:
        return format_time(source.start), [source.start_origin]
    times = [picture.time for picture in source.pictures if picture.time is not None]
    if not times:
        return "?", []
    first, last = (format_time(choose(time.seconds for time in times)) for choose in (min, max))
    return first if first == last else f"{first} to {last}", [time.origin for time in times]


def _origins(origins: Iterable[Origin]) -> str:
    return ", ".join(ORIGINS[origin] for origin, _ in Counter(origins).most_common())


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
