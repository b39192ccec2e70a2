"""The timeline as the page draws it."""

from dataclasses import dataclass

from tapetum.core.errors import TapetumError
from tapetum.gallery.filters import parse_time
from tapetum.service.page_form import SearchForm
from tapetum.service.page_render import moment_of, span, when
from tapetum.service.schemas import TimelineOut

TICKS = 5
NEVER_EMPTY = 4  # percent: so high is the bar of a single crop at least


@dataclass(frozen=True)
class TimelineBar:
    """One part of the timeline.

    Attributes:
        all: height of the bar of every camera, percent.
        chosen: of those asked for.
        words: from when until when, and how many crops.
    """

    all: int
    chosen: int
    words: str


@dataclass(frozen=True)
class Line:
    """The timeline as drawn.

    Attributes:
        start, end: seconds since 1970-01-01 UTC.
        bars: in the order of time.
        ticks: what stands below, evenly spread.
        left, right: of the chosen time, in units of the drawing: ten a bar.
        words: the same for those who do not see it.
    """

    start: float
    end: float
    bars: tuple[TimelineBar, ...]
    ticks: tuple[str, ...]
    left: float
    right: float
    words: str


def draw_line(told: TimelineOut, asked: SearchForm) -> Line:
    """The timeline as a page shows it.

    Args:
        told: crops of each camera in each part.
        asked: the chosen cameras and time.
    """
    part = (told.end - told.start) / told.bins if told.bins else 0.0
    every = [sum(camera.counts[place] for camera in told.cameras) for place in range(told.bins)]
    chosen = [
        sum(camera.counts[place] for camera in told.cameras if not asked.cameras or camera.camera in asked.cameras)
        for place in range(told.bins)
    ]
    highest = max(every, default=0)
    if highest == 0:
        return Line(0.0, 0.0, (), (), 0.0, 0.0, "The gallery is empty.")

    def height(count: int) -> int:
        return max(NEVER_EMPTY, round(100 * count / highest)) if count else 0

    bars = tuple(
        TimelineBar(
            height(all_), height(some), f"{span(told.start + place * part, part)}: {all_} crops, {some} of them chosen"
        )
        for place, (all_, some) in enumerate(zip(every, chosen, strict=True))
    )
    moments = [told.start + (told.end - told.start) * place / (TICKS - 1) for place in range(TICKS)]
    days = {when(moment).date() for moment in moments}
    ticks = tuple(f"{when(moment):%H:%M:%S}" if len(days) == 1 else f"{when(moment):%d %b %H:%M}" for moment in moments)

    def place_of(text: str, otherwise: float) -> float:
        seconds = parse_time(f"{text}Z") if text else otherwise
        share = (seconds - told.start) / (told.end - told.start)
        return round(min(max(share, 0.0), 1.0) * 10 * told.bins, 2)

    try:
        left, right = place_of(asked.since, told.start), place_of(asked.until, told.end)
    except TapetumError:
        left, right = 0.0, 10.0 * told.bins
    first, last, busiest = (
        moment_of(moment) for moment in (told.start, told.end, told.start + part * every.index(highest))
    )
    words = f"{sum(every)} crops from {first} to {last}, most at {busiest}"
    return Line(told.start, told.end, bars, ticks, left, max(left, right), words)
