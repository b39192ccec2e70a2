"""From the plain values of a report to what its templates print: texts, table cells, charts, pictures as addresses."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from tapetum import __version__
from tapetum.plots.cmc import describe_cmc, draw_cmc
from tapetum.plots.curves import describe_curves, draw_curves, list_quantities
from tapetum.plots.distances import describe_distances, draw_distances
from tapetum.plots.embedding import describe_embedding, draw_embedding
from tapetum.plots.histograms import PANELS, Panel, PictureArrays, describe_histograms, draw_histograms
from tapetum.plots.ranking_list import describe_ranks
from tapetum.plots.reliability import describe_reliability, draw_reliability
from tapetum.plots.slices import describe_slices, draw_slices
from tapetum.plots.style import SERIES, Figure, svg_text
from tapetum.plots.verification import describe_verification, draw_open_set, draw_verification
from tapetum.report import cards, numbers
from tapetum.report.content import (
    QUANTITIES,
    Array,
    Breakdown,
    EnhancedPair,
    Picture,
    PublishedRow,
    QueryRanking,
    RankedPicture,
    RealClip,
    ReportContent,
    Result,
    WorstSlice,
)
from tapetum.report.directions import Direction, compare_methods, find_directions
from tapetum.report.views import (
    Across,
    Breakdowns,
    CalibrationView,
    CameraMatrix,
    CardView,
    Cell,
    Chart,
    Data,
    Failures,
    Page,
    Pair,
    Pairs,
    PictureView,
    RankingView,
    Real,
    Results,
    SearchView,
    TableRow,
    TableView,
    Tile,
)

LARGEST_HEIGHT = 192  # pixels; pictures are shown about 128 high, and a night picture holds no finer detail
JPEG_QUALITY = 86
ANSWERS = 10
ALWAYS_BESIDE = ("protocol", "AP rule", "seed")
OVERVIEW = ("rank1", "mean_ap", "mean_inp")  # the CMC figure beside shows the other ranks


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
    directions = find_directions(content.results)
    main = directions[0].results if directions else content.results
    sliced = cards.breakdowns(main) if content.breakdowns is None else content.breakdowns
    worst = cards.worst_slices(main) if content.worst_slices is None else content.worst_slices
    results = _results(main, directions, _chance(content.chance, main), charts) if main else None
    breakdowns = _breakdowns(sliced, main, charts) if sliced else None
    searches = _searches(content.rank_lists)
    across = _across(content, charts)
    calibrated = _calibrated(content.calibrations, charts) if content.calibrations else None
    pairs = _pairs(content.pairs)
    failures = _failures(worst, content.worst_queries)
    curves = _curves(content.curves, charts)
    data = _data(content, charts)
    real = _real(content.real) if content.real else None
    published = _published(content.published) if content.published else None
    sections = (
        ("results", "Results", results),
        ("breakdown", breakdowns.title if breakdowns else "", breakdowns),
        ("searches", "Searching", searches),
        ("across", "Across modalities", across),
        ("calibration", "Is it the same person?", calibrated),
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
        notes=[_code_spans(note) for note in content.notes],
        results=results,
        breakdowns=breakdowns,
        searches=searches,
        across=across,
        calibrated=calibrated,
        pairs=pairs,
        failures=failures,
        curves=curves,
        data=data,
        real=real,
        published=published,
        has_searches=bool(searches or (failures and failures.searches) or (real and real.searches)),
        command=content.command,
        cards=_cards(content),
        footer=f"Made by Tapetum {__version__}. This file holds everything it shows: no network, no script.",
    )


def _results(
    results: Sequence[Result], directions: Sequence[Direction], chance: Mapping[str, float], charts: Charts
) -> Results:
    first = results[0].card
    level = first.get("bootstrap", {}).get("level")
    explain = "Percent; higher is better."
    if level is not None:
        explain += f" Small figures are {100 * level:.0f}\u00a0% bootstrap intervals over queries."
    if "mean_ap" in chance:
        explain += f" A ranking by lot would reach {numbers.percent(chance['mean_ap'])}\u00a0% mAP"
        explain += f" and {numbers.percent(chance['rank1'])}\u00a0% rank-1." if "rank1" in chance else "."
    if len(directions) > 1:
        explain += f" Tiles and figures are those of {directions[0].name}, {directions[0].protocol}."
    curves = {result.label: cards.cmc(result.card) for result in results}
    ranks = min(20, max(len(curve) for curve in curves.values()))
    names = dict.fromkeys(cards.circumstances(result.card)["protocol"] for result in results)
    cmc = charts.add(
        draw_cmc(curves, ranks=ranks), describe_cmc(curves), "CMC: found by rank k", f"Protocol {', '.join(names)}."
    )
    figures = [_overview(results, charts), cmc]
    if not directions:
        tables, details = [_result_table("Every measure, percent", results, chance)], []
    else:
        tables = [compare_methods(directions)]
        details = [
            _result_table(f"Every measure, percent: {each.name}", each.results, cards.chance(each.results[0].card))
            for each in directions
        ]
    return Results(explain, _tiles(results, chance), tables, details, figures)


def _overview(results: Sequence[Result], charts: Charts) -> Chart:
    """The table's main numbers as bars."""
    levels = [QUANTITIES[name] for name in OVERVIEW]
    values = {r.label: np.array([_or_nan(cards.number(r.card, name)) for name in OVERVIEW]) for r in results}
    intervals = {
        r.label: np.array([cards.interval(r.card, name) or (math.nan, math.nan) for name in OVERVIEW]) for r in results
    }
    figure = draw_slices(levels, None, values, intervals=intervals, quantity="")
    alt = describe_slices(levels, None, values, intervals=intervals, quantity="")
    return charts.add(figure, alt, "At a glance", "Whiskers are the intervals of the table.")


def _result_table(caption: str, results: Sequence[Result], chance: Mapping[str, float]) -> TableView:
    """A row a result, one more for its re-ranked form, and one for chance."""
    circumstances = [cards.circumstances(result.card) for result in results]
    differing = [name for name in circumstances[0] if len({found.get(name) for found in circumstances}) > 1]
    described = list(dict.fromkeys([*ALWAYS_BESIDE, *differing]))
    timed = any(result.seconds is not None for result in results)
    columns = ["method", *QUANTITIES.values(), *described, *(["training"] if timed else [])]
    best = {name: max(_or_nan(cards.number(result.card, name)) for result in results) for name in QUANTITIES}
    rows = []
    for result, found in zip(results, circumstances, strict=True):
        cells = [_number_cell(result, name, best=best[name] if len(results) > 1 else math.nan) for name in QUANTITIES]
        beside = _beside(result.card, found, described)
        time = [Cell(numbers.duration(result.seconds))] if timed else []
        rows.append(TableRow([Cell(result.label, result.note), *cells, *beside, *time]))
        reranked = result.card.get("reranked")
        if reranked:
            cells = [Cell(numbers.percent(reranked.get(name))) for name in QUANTITIES]
            beside = _beside({**result.card, "metrics": reranked}, found, described)
            rows.append(TableRow([Cell(result.label, "re-ranked"), *cells, *beside, *([Cell("")] if timed else [])]))
    if chance:
        cells = [Cell(numbers.percent(chance[name]) if name in chance else "") for name in QUANTITIES]
        empty = [Cell("")] * (len(columns) - len(cells) - 1)
        rows.append(TableRow([Cell("chance", "a ranking by lot"), *cells, *empty], aside=True))
    first_text = 1 + len(QUANTITIES)
    return TableView(caption, columns, rows, (0, *range(first_text, first_text + len(described))))


def _number_cell(result: Result, name: str, *, best: float) -> Cell:
    """A number with its interval, and with its deviation where there were several trials."""
    value = cards.number(result.card, name)
    small = (numbers.percent_interval(cards.interval(result.card, name)), cards.trials(result.card, name))
    return Cell(numbers.percent(value), ", ".join(filter(None, small)), best=value is not None and value == best)


def _beside(card: cards.Card, circumstances: Mapping[str, str], described: Sequence[str]) -> list[Cell]:
    """What stands beside the numbers; under the AP rule that was used, the mean AP by the other one."""
    return [
        Cell(circumstances.get(name, numbers.NOTHING), cards.other_rule(card) if name == "AP rule" else "")
        for name in described
    ]


def _tiles(results: Sequence[Result], chance: Mapping[str, float]) -> list[Tile]:
    tiles = []
    baseline, rules = cards.number(results[0].card, "mean_ap"), results[0].card["rules"]
    for place, result in enumerate(results):
        value = cards.number(result.card, "mean_ap")
        reach = numbers.percent_interval(cards.interval(result.card, "mean_ap"))
        parts = [f"interval {reach}"] if reach else []
        parts.append(f"rank-1 {numbers.percent(cards.number(result.card, 'rank1'))}\u00a0%")
        if place and value is not None and baseline is not None and result.card["rules"] == rules:
            difference = f"{100 * (value - baseline):+.1f}".replace("-", "−")
            parts.append(f"{difference} points mAP to {results[0].label}")
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


def _breakdowns(breakdowns: Sequence[Breakdown], results: Sequence[Result], charts: Charts) -> Breakdowns:
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
            rows.append(TableRow(cells))
        columns = [shown.name.lower(), "queries", *(f"{label}, {shown.quantity}" for label in shown.values)]
        tables.append(TableView(f"{shown.quantity} by {shown.name.lower()}, percent", columns, rows))
    names = [shown.name.lower() for shown in breakdowns]
    listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    matrices = [matrix for result in results if (matrix := _matrix(result)) is not None]
    return Breakdowns(f"By {listed}", figures, tables, matrices)


def _matrix(result: Result) -> CameraMatrix | None:
    """Camera against camera of one method."""
    pairs = cards.camera_pairs(result.card)
    if not pairs:
        return None
    columns = sorted({theirs for _, theirs in pairs})
    rows = []
    for ours in sorted({ours for ours, _ in pairs}):
        found = [pairs.get((ours, theirs)) for theirs in columns]
        cells = [
            ("", "0", "") if one is None else (f"{100 * one[0]:.0f}", f"{one[0]:.3f}", f"{one[1]} queries")
            for one in found
        ]
        rows.append((str(ours), cells))
    return CameraMatrix(
        f"{result.label}: mAP, query camera (rows) to gallery camera", [str(camera) for camera in columns], rows
    )


def _across(content: ReportContent, charts: Charts) -> Across | None:
    """One chart a method, all over the same axes."""
    if not content.distances and not content.maps:
        return None
    distances = [
        charts.add(
            draw_distances({label: found}, columns=1, titles=False, beside=content.distances),
            describe_distances({label: found}),
            f"{label}: distances of all pairs",
            f"One person {found.intra_mean:.3f}, two people {found.inter_mean:.3f} on average; "
            f"{100 * found.overlap():.1f} % of the areas overlap.",
        )
        for label, found in content.distances.items()
    ]
    maps = [
        charts.add(
            draw_embedding({label: found}, columns=1, titles=False),
            words := describe_embedding({label: found}),
            f"{label}: map of embeddings",
            words.partition(". ")[2].removeprefix(f"{label}: "),
        )
        for label, found in content.maps.items()
    ]
    return Across(distances, maps)


def _calibrated(checked: Mapping[str, Mapping[str, Any]], charts: Charts) -> CalibrationView:
    """Reliability, verification, open set, and every threshold with what it does."""
    figures = [
        charts.add(draw_reliability(checked), describe_reliability(checked), "Probability said and seen"),
        charts.add(draw_verification(checked), describe_verification(checked), "Comparisons of two pictures"),
        charts.add(draw_open_set(checked), describe_verification(checked), "Whole searches"),
    ]
    rows = []
    for label, found in checked.items():
        for row in found["thresholds"]:
            of = "comparisons" if row["gallery"] is None else f"searches in {row['gallery']:,} pictures"
            rates = [
                Cell(f"{100 * row[name]:.3g}", f"{100 * low:.3g} to {100 * high:.3g}")
                for name in ("observed", "found")
                for low, high in (row[f"{name}_interval"],)
            ]
            rows.append(
                TableRow(
                    [Cell(label), Cell(of), Cell(f"{100 * row['rate']:g}"), Cell(f"{row['threshold']:.3f}"), *rates]
                )
            )
    columns = ["pictures", "false alarms of", "wanted", "similarity from", "seen", "found"]
    tables = [TableView("Thresholds, percent", columns, rows, (0, 1))] if rows else []
    return CalibrationView(figures, tables)


def _searches(lists: Sequence[QueryRanking]) -> list[SearchView]:
    """Rankings of the same query stand together, in order of first appearance."""
    groups: dict[tuple[str, bytes], list[QueryRanking]] = {}
    for ranking in lists:
        groups.setdefault((ranking.caption, ranking.query.tobytes()), []).append(ranking)
    return [
        SearchView(f"Query {place}", [_ranking(ranking) for ranking in group], group[0].caption)
        for place, group in enumerate(groups.values(), 1)
    ]


def _ranking(ranking: QueryRanking) -> RankingView:
    answers = ranking.answers[:ANSWERS]
    found = describe_ranks([answer.right for answer in answers])
    asked = f"query, {ranking.modality}" if ranking.modality else "query"
    query = _shown(ranking.query, f"{asked}: {ranking.caption}" if ranking.caption else asked, ranking.modality)
    note = f"{found}. {ranking.note}" if ranking.note else found
    return RankingView(ranking.method, note, query, [_answer(answer, place) for place, answer in enumerate(answers, 1)])


def _answer(answer: RankedPicture, rank: int) -> PictureView:
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
                name=name,
            )
            for name, picture in forms
            if picture is not None
        ]
        shown.append(Pair(pictures, pair.caption))
    return Pairs(shown, any(pair.original is not None for pair in pairs))


def _failures(slices: Sequence[WorstSlice], queries: Sequence[QueryRanking]) -> Failures | None:
    if not slices and not queries:
        return None
    methods = list(dict.fromkeys(worst.method for worst in slices))
    found: dict[str, dict[str, WorstSlice]] = {}
    for worst in slices:
        found.setdefault(worst.slice, {})[worst.method] = worst
    rows = []
    for name, by_method in found.items():
        cells = [Cell(name), Cell(str(max(worst.count for worst in by_method.values())))]
        for method in methods:
            one = by_method.get(method)
            if one is None:
                cells += [Cell(numbers.NOTHING)] * 2
                continue
            cells.append(Cell(numbers.percent(one.mean_ap), numbers.percent_interval(one.interval)))
            cells.append(Cell(numbers.percent(one.rank1)))
        rows.append(TableRow(cells))
    columns = ["slice", "queries", *(f"{method} {what}" for method in methods for what in ("mAP", "rank-1"))]
    table = TableView("Worst slices, percent", columns, rows) if rows else None
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
        _result_table(caption, results, real.chance or cards.chance(results[0].card))
        for caption, results in (("Crops as they are", real.as_is), ("Crops darkened", real.darkened))
        if results
    ]
    return Real(
        real.name, real.note, _facts(real.facts), tables, _pairs(real.pairs), _searches(real.rank_lists), real.command
    )


def _published(rows: Sequence[PublishedRow]) -> TableView:
    def cell(value: float | None) -> Cell:
        return Cell("–" if value is None else f"{value:.2f}")

    return TableView(
        "As printed, percent",
        ["the paper's", "rank-1", "rank-5", "rank-10", "mAP", "from"],
        [
            TableRow(
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
            TableView(
                "Every field",
                ["field", "value"],
                [TableRow([Cell(a), Cell(b)]) for a, b in cards.flatten(result.card) if not a.startswith("slices.")],
                (0, 1),
            ),
        )
        for where, results in groups
        for result in results
    ]


def _badges(results: Sequence[Result]) -> list[tuple[str, str]]:
    """Circumstances that all results share."""
    found = [cards.circumstances(result.card) for result in results]
    shared = found[0].items() if found else ()
    return [(name, value) for name, value in shared if all(one.get(name) == value for one in found)]


def _chance(given: Mapping[str, float] | None, results: Sequence[Result]) -> Mapping[str, float]:
    return given if given is not None else cards.chance(results[0].card) if results else {}


def _facts(facts: Mapping[str, object]) -> list[tuple[str, str]]:
    return [
        (name, f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) and value > 9999 else str(value))
        for name, value in facts.items()
    ]


def _code_spans(text: str) -> list[tuple[bool, str]]:
    """A text cut at its backticks: (whether it is code, the piece)."""
    return [(place % 2 == 1, piece) for place, piece in enumerate(text.split("`")) if piece]


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _shown(picture: Picture, alt: str, small: str = "", *, right: bool = False, name: str = "") -> PictureView:
    return PictureView(_jpeg_address(picture), alt, small, right, name)


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
