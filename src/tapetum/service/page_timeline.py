"""The timeline as the page draws it."""

from typing import NamedTuple

from tapetum.core.errors import TapetumError
from tapetum.gallery.filters import parse_time
from tapetum.service.page_form import SearchForm
from tapetum.service.page_render import moment_of, when
from tapetum.service.schemas import TimelineOut

TICKS = 5
NEVER_EMPTY = 4  # percent: so high is the bar of a single crop at least


class TimelineBar(NamedTuple):
    """One part of the timeline."""

    all: int  # height of the bar of every camera, percent
    chosen: int  # of those asked for
    words: str  # from when until when, and how many crops


class Line(NamedTuple):
    """The timeline as drawn."""

    start: float = 0.0  # seconds since 1970-01-01 UTC
    end: float = 0.0
    bars: tuple[TimelineBar, ...] = ()  # in the order of time
    ticks: tuple[str, ...] = ()  # what stands below, evenly spread
    left: float = 0.0  # of the chosen time, in units of the drawing: ten a bar
    right: float = 0.0
    words: str = "The gallery is empty."  # the same for those who do not see it


def draw_line(timeline: TimelineOut, form: SearchForm) -> Line:
    """The timeline as a page shows it, with the cameras and the time chosen in the form."""
    bins, start, length = timeline.bins, timeline.start, timeline.end - timeline.start
    cameras = [camera.counts for camera in timeline.cameras]
    counts_in_form = [
        camera.counts for camera in timeline.cameras if not form["camera"] or camera.camera in form["camera"]
    ]
    every, in_form = (
        [sum(counts[place] for counts in some) for place in range(bins)] for some in (cameras, counts_in_form)
    )
    highest = max(every, default=0)
    if highest == 0:
        return Line()

    def height(count: int) -> int:
        return max(NEVER_EMPTY, round(100 * count / highest)) if count else 0

    def words_of(place: int) -> str:
        first, last = (when(start + edge * length / bins) for edge in (place, place + 1))
        return f"{first:%d %b %H:%M:%S} to {last:%H:%M:%S}: {every[place]} crops, {in_form[place]} of them chosen"

    def place_of(text: str, otherwise: float) -> float:
        share = (parse_time(f"{text}Z") - start) / length if text else otherwise
        return round(min(max(share, 0.0), 1.0) * 10 * bins, 2)

    moments = [when(start + length * place / (TICKS - 1)) for place in range(TICKS)]
    style = "%H:%M:%S" if len({moment.date() for moment in moments}) == 1 else "%d %b %H:%M"
    try:
        left, right = place_of(form["since"], 0.0), place_of(form["until"], 1.0)
    except TapetumError:
        left, right = 0.0, 10.0 * bins
    busiest = start + every.index(highest) * length / bins
    return Line(
        start,
        timeline.end,
        tuple(TimelineBar(height(every[place]), height(in_form[place]), words_of(place)) for place in range(bins)),
        tuple(f"{moment:{style}}" for moment in moments),
        left,
        max(left, right),
        f"{sum(every)} crops from {moment_of(start)} to {moment_of(timeline.end)}, most at {moment_of(busiest)}",
    )
