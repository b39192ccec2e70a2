"""From the plain values of a report to what its templates print: texts, table cells, charts, pictures as addresses."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np
from markupsafe import Markup
from PIL import Image

from tapetum import __version__
from tapetum.plots.cmc import describe_cmc, draw_cmc
from tapetum.plots.curves import describe_curves, draw_curves, list_quantities
from tapetum.plots.histograms import PANELS, Panel, PictureArrays, describe_histograms, draw_histograms
from tapetum.plots.ranking_list import describe_ranks
from tapetum.plots.slices import describe_slices, draw_slices
from tapetum.plots.style import SERIES, Figure, svg_text
from tapetum.report import numbers
from tapetum.report.content import (
    QUANTITIES,
    Answer,
    Array,
    Breakdown,
    EnhancedPair,
    Picture,
    PublishedRow,
    RankList,
    RealClip,
    ReportContent,
    Result,
    WorstSlice,
)

LARGEST_HEIGHT = 192  # pixels; pictures are shown about 128 high, and a night picture holds no finer detail
JPEG_QUALITY = 86
ANSWERS = 10
OVERVIEW = ("rank1", "mean_ap", "mean_inp")  # the CMC figure beside shows the other ranks


@dataclass(frozen=True)
class Cell:
    """One cell of a table: a text, a smaller remark under it, and whether it is the column's best."""

    text: str
    small: str = ""
    best: bool = False


@dataclass(frozen=True)
class Row:
    """One row; `aside` for rows that are no result, such as chance."""

    cells: Sequence[Cell]
    aside: bool = False


@dataclass(frozen=True)
class Table:
    """A table; `stacked` ones become cards on a phone, others scroll."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Row]
    text_columns: Sequence[int] = (0,)
    stacked: bool = True


@dataclass(frozen=True)
class Chart:
    """A figure as markup with its words."""

    title: str
    svg: Markup
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Shown:
    """A picture on the page."""

    url: str
    alt: str
    small: str = ""
    right: bool = False
    night: bool = True
    name: str = ""


@dataclass(frozen=True)
class Tile:
    """A method's mAP at a glance; `width` and `chance` are places on its meter, in percent."""

    label: str
    note: str
    value: str
    small: str
    series: int
    width: str
    chance: str


@dataclass(frozen=True)
class Results:
    """The first section."""

    explain: str
    tiles: Sequence[Tile]
    table: Table
    figures: Sequence[Chart]


@dataclass(frozen=True)
class Breakdowns:
    """Charts and the same as tables."""

    figures: Sequence[Chart]
    tables: Sequence[Table]


@dataclass(frozen=True)
class ShownList:
    """One ranking."""

    method: str
    note: str
    query: Shown
    answers: Sequence[Shown]


@dataclass(frozen=True)
class Search:
    """The rankings of one query."""

    title: str
    lists: Sequence[ShownList]
    small: str = ""


@dataclass(frozen=True)
class Pair:
    """Two or three forms of one picture."""

    pictures: Sequence[Shown]
    caption: str


@dataclass(frozen=True)
class Pairs:
    """Several of them; `three` where some have the picture before it was darkened."""

    pairs: Sequence[Pair]
    three: bool


@dataclass(frozen=True)
class Failures:
    """Where it fails."""

    table: Table | None
    searches: Sequence[Search]


@dataclass(frozen=True)
class Data:
    """The pictures themselves."""

    facts: Sequence[tuple[str, str]]
    samples: Sequence[Shown]
    figures: Sequence[Chart]


@dataclass(frozen=True)
class Real:
    """The section on a real clip."""

    name: str
    note: str
    facts: Sequence[tuple[str, str]]
    tables: Sequence[Table]
    pairs: Pairs | None
    searches: Sequence[Search]
    command: str


@dataclass(frozen=True)
class CardView:
    """Every field of one result card."""

    label: str
    table: Table


@dataclass(frozen=True)
class Page:
    """Everything the templates print."""

    title: str
    lead: str
    description: str
    style: Markup
    badges: Sequence[tuple[str, str]]
    contents: Sequence[tuple[str, str]]
    notes: Sequence[str]
    results: Results | None
    breakdowns: Breakdowns | None
    searches: Sequence[Search]
    pairs: Pairs | None
    failures: Failures | None
    curves: Sequence[Chart]
    data: Data | None
    real: Real | None
    published: Table | None
    has_pictures: bool
    command: str
    cards: Sequence[CardView]
    footer: str


class Charts:
    """Figures as markup, each with ids of its own."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, figure: Figure, alt: str, title: str = "", caption: str = "") -> Chart:
        """One more figure.

        Args:
            figure: drawn by `tapetum.plots`.
            alt: what it says, in words.
            title: above it.
            caption: under it.
        """
        self.count += 1
        return Chart(title, Markup(svg_text(figure, f"f{self.count}")), alt, caption)  # noqa: S704  # drawn and escaped by matplotlib


def compose_page(content: ReportContent) -> Page:
    """Everything the templates print.

    Args:
        content: what the report shows.
    """
    charts = Charts()
    results = _results(content, charts) if content.results else None
    breakdowns = _breakdowns(content.breakdowns, charts) if content.breakdowns else None
    searches = _searches(content.rank_lists)
    pairs = _pairs(content.pairs)
    failures = _failures(content.worst_slices, content.worst_queries)
    curves = _curves(content.curves, charts)
    data = _data(content, charts)
    real = _real(content.real) if content.real else None
    published = _published(content.published) if content.published else None
    sections = (
        ("results", "Results", results),
        ("breakdown", "Light and size", breakdowns),
        ("searches", "Searching", searches),
        ("enhancement", "Enhancement", pairs),
        ("failures", "Where it fails", failures),
        ("training", "Training", curves),
        ("data", "The pictures", data),
        ("real", "Real clip", real),
        ("published", "The paper", published),
        ("again", "Make it again", True),
    )
    return Page(
        title=content.title,
        lead=content.lead,
        description=content.lead or content.title,
        style=Markup((resources.files("tapetum.report") / "templates" / "style.css").read_text(encoding="utf-8")),  # noqa: S704  # our own file
        badges=_badges(content.results),
        contents=[(anchor, name) for anchor, name, filled in sections if filled],
        notes=content.notes,
        results=results,
        breakdowns=breakdowns,
        searches=searches,
        pairs=pairs,
        failures=failures,
        curves=curves,
        data=data,
        real=real,
        published=published,
        has_pictures=bool(searches or pairs or failures or (real and (real.pairs or real.searches))),
        command=content.command,
        cards=_cards(content),
        footer=f"Made by Tapetum {__version__}. This file holds everything it shows: no network, no script.",
    )


def _results(content: ReportContent, charts: Charts) -> Results:
    chance = content.chance
    intervals = any(numbers.interval(result.card, "mean_ap") for result in content.results)
    explain = "Percent; higher is better." + (
        " Small figures are 95 % bootstrap intervals over queries." if intervals else ""
    )
    if "mean_ap" in chance:
        explain += f" A ranking by lot would reach {numbers.percent(chance['mean_ap'])} % mAP"
        explain += f" and {numbers.percent(chance['rank1'])} % rank-1." if "rank1" in chance else "."
    curves = {result.label: curve for result in content.results if (curve := _cmc(result)) is not None}
    figures = [_overview(content.results, charts)]
    if curves:
        ranks = min(20, max(len(curve) for curve in curves.values()))
        figures.append(
            charts.add(
                draw_cmc(curves, ranks=ranks), describe_cmc(curves), "CMC: found by rank k", _protocols(content.results)
            )
        )
    return Results(
        explain,
        _tiles(content.results, chance),
        _result_table("Every measure, percent", content.results, chance),
        figures,
    )


def _overview(results: Sequence[Result], charts: Charts) -> Chart:
    """The table's numbers as bars."""
    shown = [name for name in OVERVIEW if any(numbers.number(result.card, name) is not None for result in results)]
    values = {r.label: np.array([_or_nan(numbers.number(r.card, name)) for name in shown]) for r in results}
    intervals = {
        r.label: np.array([numbers.interval(r.card, name) or (math.nan, math.nan) for name in shown]) for r in results
    }
    levels = [QUANTITIES[name] for name in shown]
    known = any(np.isfinite(ends).any() for ends in intervals.values())
    figure = draw_slices(levels, None, values, intervals=intervals, quantity="")
    alt = describe_slices(levels, None, values, intervals=intervals, quantity="")
    return charts.add(
        figure, alt, "At a glance", "Whiskers are 95 % bootstrap intervals over queries." if known else ""
    )


def _result_table(caption: str, results: Sequence[Result], chance: Mapping[str, float]) -> Table:
    circumstances = [numbers.circumstances(result.card) for result in results]
    described = list(dict.fromkeys(name for found in circumstances for name in found))
    timed = any(result.seconds is not None for result in results)
    columns = ["method", *QUANTITIES.values(), *described, *(["training"] if timed else [])]
    best = {
        name: max((_or_nan(numbers.number(r.card, name)) for r in results), default=math.nan) for name in QUANTITIES
    }
    rows = []
    for result, found in zip(results, circumstances, strict=True):
        cells = [Cell(result.label, result.note)]
        for name in QUANTITIES:
            value = numbers.number(result.card, name)
            cells.append(
                Cell(
                    numbers.percent(value),
                    numbers.percent_interval(numbers.interval(result.card, name)),
                    best=len(results) > 1 and value is not None and value == best[name],
                )
            )
        cells += [Cell(found.get(name, "–")) for name in described]
        cells += [Cell(numbers.duration(result.seconds))] if timed else []
        rows.append(Row(cells))
    if chance:
        cells = [
            Cell("chance", "a ranking by lot"),
            *(Cell(numbers.percent(chance[n]) if n in chance else "") for n in QUANTITIES),
        ]
        rows.append(Row([*cells, *[Cell("")] * (len(columns) - len(cells))], aside=True))
    first_text = 1 + len(QUANTITIES)
    return Table(caption, columns, rows, (0, *range(first_text, first_text + len(described))))


def _tiles(results: Sequence[Result], chance: Mapping[str, float]) -> list[Tile]:
    tiles = []
    baseline = numbers.number(results[0].card, "mean_ap")
    for place, result in enumerate(results):
        value = numbers.number(result.card, "mean_ap")
        reach = numbers.percent_interval(numbers.interval(result.card, "mean_ap"))
        parts = [f"interval {reach}"] if reach else []
        rank1 = numbers.number(result.card, "rank1")
        parts += [f"rank-1 {numbers.percent(rank1)} %"] if rank1 is not None else []
        if place and value is not None and baseline is not None:
            parts.append(f"{100 * (value - baseline):+.1f} points mAP to {results[0].label}")
        tiles.append(
            Tile(
                result.label,
                result.note,
                numbers.percent(value),
                " · ".join(parts),
                place % len(SERIES) + 1,
                f"{100 * (value or 0):.1f}",
                f"{100 * chance['mean_ap']:.1f}" if "mean_ap" in chance else "",
            )
        )
    return tiles


def _breakdowns(breakdowns: Sequence[Breakdown], charts: Charts) -> Breakdowns:
    figures, tables = [], []
    for shown in breakdowns:
        figure = draw_slices(
            shown.levels, shown.counts, shown.values, intervals=shown.intervals, quantity=shown.quantity
        )
        alt = describe_slices(
            shown.levels, shown.counts, shown.values, intervals=shown.intervals, quantity=shown.quantity
        )
        figures.append(charts.add(figure, alt, f"{shown.quantity} by {shown.name.lower()}", shown.note))
        rows = []
        for place, (level, count) in enumerate(zip(shown.levels, shown.counts, strict=True)):
            cells = [Cell(level), Cell(str(count))]
            for label, values in shown.values.items():
                ends = shown.intervals.get(label)
                reach = None if ends is None else (float(ends[place, 0]), float(ends[place, 1]))
                cells.append(Cell(numbers.percent(float(values[place])), numbers.percent_interval(reach)))
            rows.append(Row(cells))
        columns = [shown.name.lower(), "queries", *(f"{label}, {shown.quantity}" for label in shown.values)]
        tables.append(Table(f"{shown.quantity} by {shown.name.lower()}, percent", columns, rows))
    return Breakdowns(figures, tables)


def _searches(lists: Sequence[RankList]) -> list[Search]:
    """Rankings of the same query stand together, in order of first appearance."""
    groups: dict[tuple[str, bytes], list[RankList]] = {}
    for ranking in lists:
        groups.setdefault((ranking.caption, ranking.query.tobytes()), []).append(ranking)
    return [
        Search(f"Query {place}", [_ranking(ranking) for ranking in group], group[0].caption)
        for place, group in enumerate(groups.values(), 1)
    ]


def _ranking(ranking: RankList) -> ShownList:
    answers = ranking.answers[:ANSWERS]
    found = describe_ranks([answer.right for answer in answers])
    query = _shown(ranking.query, f"query: {ranking.caption}" if ranking.caption else "query")
    note = f"{found}. {ranking.note}" if ranking.note else found
    return ShownList(ranking.method, note, query, [_answer(answer, place) for place, answer in enumerate(answers, 1)])


def _answer(answer: Answer, rank: int) -> Shown:
    words = f"rank {rank}, {'right' if answer.right else 'wrong'}" + (f": {answer.caption}" if answer.caption else "")
    small = "" if answer.similarity is None else f"{answer.similarity:.2f}"
    return _shown(answer.picture, words, small, right=answer.right)


def _pairs(pairs: Sequence[EnhancedPair]) -> Pairs | None:
    if not pairs:
        return None
    shown = []
    for pair in pairs:
        of = f" of {pair.caption}" if pair.caption else ""
        forms = [("before", pair.original), ("night", pair.night), ("enhanced", pair.enhanced)]
        words = {"before": "picture before darkening", "night": "night picture", "enhanced": "enhanced picture"}
        pictures = [
            _shown(
                picture,
                f"{words[name]}{of}, mean value {np.mean(picture):.0f}",
                f"{np.mean(picture):.0f}",
                night=name == "night",
                name=name,
            )
            for name, picture in forms
            if picture is not None
        ]
        shown.append(Pair(pictures, pair.caption))
    return Pairs(shown, any(pair.original is not None for pair in pairs))


def _failures(slices: Sequence[WorstSlice], queries: Sequence[RankList]) -> Failures | None:
    if not slices and not queries:
        return None
    rows = [
        Row(
            [
                Cell(worst.slice),
                Cell(worst.method),
                Cell(str(worst.count)),
                Cell(numbers.percent(worst.mean_ap), numbers.percent_interval(worst.interval)),
                Cell(numbers.percent(worst.rank1)),
            ]
        )
        for worst in slices
    ]
    table = (
        Table("Worst slices, percent", ["slice", "method", "queries", "mAP", "rank-1"], rows, (0, 1)) if rows else None
    )
    return Failures(table, _searches(queries))


def _curves(runs: Mapping[str, Mapping[str, Array]], charts: Charts) -> list[Chart]:
    shown = []
    for name in list_quantities(runs):
        figure = draw_curves(runs, quantities=[name], columns=1, titles=False)
        shown.append(charts.add(figure, describe_curves(runs, quantities=[name]), name))
    return shown


def _data(content: ReportContent, charts: Charts) -> Data | None:
    if not content.facts and content.pictures is None and not content.samples:
        return None
    samples = [
        _shown(picture, f"sample: {caption}" if caption else "sample", caption) for picture, caption in content.samples
    ]
    return Data(
        _facts(content.facts), samples, _histograms(content.pictures, charts) if content.pictures is not None else []
    )


def _histograms(pictures: PictureArrays, charts: Charts) -> list[Chart]:
    titles: dict[Panel, str] = {"light": "Light", "scale": "Scale", "colour": "Colour"}
    return [
        charts.add(
            draw_histograms(pictures, shown=[panel], titles=False),
            describe_histograms(pictures, shown=[panel]),
            titles[panel],
        )
        for panel in PANELS
    ]


def _real(real: RealClip) -> Real:
    tables = [
        _result_table(caption, results, real.chance)
        for caption, results in (("Crops as they are", real.as_is), ("Crops darkened", real.darkened))
        if results
    ]
    return Real(
        real.name, real.note, _facts(real.facts), tables, _pairs(real.pairs), _searches(real.rank_lists), real.command
    )


def _published(rows: Sequence[PublishedRow]) -> Table:
    def cell(value: float | None) -> Cell:
        return Cell("–" if value is None else f"{value:.2f}")

    return Table(
        "As printed, percent",
        ["the paper's", "rank-1", "rank-5", "rank-10", "mAP", "from"],
        [
            Row(
                [
                    Cell(row.label, row.remark),
                    cell(row.rank1),
                    cell(row.rank5),
                    cell(row.rank10),
                    cell(row.mean_ap),
                    Cell(row.source),
                ]
            )
            for row in rows
        ],
        (0, 5),
    )


def _cards(content: ReportContent) -> list[CardView]:
    groups = [("", content.results)]
    if content.real:
        groups += [(", clip as it is", content.real.as_is), (", clip darkened", content.real.darkened)]
    return [
        CardView(
            result.label + where,
            Table(
                "Every field",
                ["field", "value"],
                [Row([Cell(a), Cell(b)]) for a, b in numbers.flatten(result.card)],
                (0, 1),
            ),
        )
        for where, results in groups
        for result in results
    ]


def _badges(results: Sequence[Result]) -> list[tuple[str, str]]:
    """Circumstances that all results share."""
    found = [numbers.circumstances(result.card) for result in results]
    return [
        (name, value)
        for name, value in (found[0] if found else {}).items()
        if all(one.get(name) == value for one in found)
    ]


def _protocols(results: Sequence[Result]) -> str:
    names = dict.fromkeys(numbers.circumstances(result.card).get("protocol", "") for result in results)
    return ", ".join(f"protocol {name}" for name in names if name)


def _facts(facts: Mapping[str, object]) -> list[tuple[str, str]]:
    return [
        (name, f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) and value > 9999 else str(value))
        for name, value in facts.items()
    ]


def _cmc(result: Result) -> Array | None:
    return result.cmc if result.cmc is not None else numbers.cmc(result.card)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _shown(
    picture: Picture, alt: str, small: str = "", *, right: bool = False, night: bool = True, name: str = ""
) -> Shown:
    return Shown(_jpeg_address(picture), alt, small, right, night, name)


def _jpeg_address(picture: Picture) -> str:
    """A picture as a ``data:`` address; large ones are made smaller first."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    if image.height > LARGEST_HEIGHT:
        image = image.resize(
            (max(1, round(image.width * LARGEST_HEIGHT / image.height)), LARGEST_HEIGHT), Image.Resampling.LANCZOS
        )
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
