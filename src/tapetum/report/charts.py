"""The figures of a report as markup, each with its words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from tapetum.plots.cmc import describe_cmc, draw_cmc
from tapetum.plots.curves import describe_curves, draw_curves, list_quantities
from tapetum.plots.distances import describe_distances, draw_distances
from tapetum.plots.embedding import describe_embedding, draw_embedding
from tapetum.plots.histograms import PANELS, TITLES, describe_histograms, draw_histograms
from tapetum.plots.reliability import describe_reliability, draw_reliability
from tapetum.plots.slices import describe_slices, draw_slices
from tapetum.plots.style import Figure, svg_text
from tapetum.plots.verification import describe_verification, draw_open_set, draw_verification
from tapetum.report import cards
from tapetum.report.content import QUANTITIES, Breakdown, ReportContent, Result

OVERVIEW = ("rank1", "mean_ap", "mean_inp")  # the CMC figure beside shows the other ranks


@dataclass(frozen=True)
class Chart:
    """A figure as markup with its words."""

    title: str
    svg: Markup
    alt: str
    caption: str = ""


class Charts:
    """All figures of a page, by section; each has ids of its own."""

    def __init__(self, content: ReportContent, results: Sequence[Result], breakdowns: Sequence[Breakdown]) -> None:
        self.count = 0
        self.results = self._draw_results(results) if results else []
        self.breakdowns = [self._draw_breakdown(each) for each in breakdowns]
        self.distances = [
            self._add(
                draw_distances({label: each}, titles=False, beside=content.distances),
                describe_distances({label: each}),
                f"{label}: distances of all pairs",
                f"One person {each.intra_mean:.3f}, two people {each.inter_mean:.3f} on average; "
                f"{100 * each.overlap():.1f} % of the areas overlap.",
            )
            for label, each in content.distances.items()
        ]
        self.maps = [
            self._add(
                draw_embedding({label: each}, titles=False),
                words := describe_embedding({label: each}),
                f"{label}: map of embeddings",
                words.partition(". ")[2].removeprefix(f"{label}: "),
            )
            for label, each in content.maps.items()
        ]
        self.calibrations = self._draw_calibrations(content.calibrations) if content.calibrations else []
        self.curves = [
            self._add(
                draw_curves(content.curves, quantities=[name], titles=False),
                describe_curves(content.curves, quantities=[name]),
                name,
            )
            for name in list_quantities(content.curves)
        ]
        pictures = content.pictures
        self.pictures = [
            self._add(
                draw_histograms(pictures, shown=[panel], titles=False),
                describe_histograms(pictures, shown=[panel]),
                TITLES[panel],
            )
            for panel in (PANELS if pictures is not None else ())
            if pictures is not None
        ]

    def _add(self, figure: Figure, alt: str, title: str = "", caption: str = "") -> Chart:
        self.count += 1
        return Chart(title, Markup(svg_text(figure, f"f{self.count}")), alt, caption)  # noqa: S704  # drawn and escaped by matplotlib

    def _draw_results(self, results: Sequence[Result]) -> list[Chart]:
        curves = {each.label: np.asarray(each.card.metrics["cmc"], dtype=np.float64) for each in results}
        names = dict.fromkeys(each.card.rules.name for each in results)
        ranks = min(20, max(map(len, curves.values())))
        protocols = f"Protocol {', '.join(names)}."
        cmc = self._add(draw_cmc(curves, ranks=ranks), describe_cmc(curves), "CMC: found by rank k", protocols)
        nothing = (math.nan, math.nan)
        overview = Breakdown(
            "",
            tuple(QUANTITIES[name] for name in OVERVIEW),
            (),
            {each.label: np.array([each.card.metrics.get(name, math.nan) for name in OVERVIEW]) for each in results},
            {
                each.label: np.array([cards.interval(each.card, name) or nothing for name in OVERVIEW])
                for each in results
            },
            quantity="",
        )
        return [self._draw_breakdown(overview, "At a glance", "Whiskers are the intervals of the table."), cmc]

    def _draw_breakdown(self, bars: Breakdown, title: str = "", caption: str = "") -> Chart:
        counts = bars.counts or None
        figure = draw_slices(bars.levels, counts, bars.values, intervals=bars.intervals, quantity=bars.quantity)
        alt = describe_slices(bars.levels, counts, bars.values, intervals=bars.intervals, quantity=bars.quantity)
        return self._add(figure, alt, title or f"{bars.quantity} by {bars.name.lower()}", caption or bars.note)

    def _draw_calibrations(self, checks: Mapping[str, Mapping[str, Any]]) -> list[Chart]:
        words = describe_verification(checks)
        return [
            self._add(draw_reliability(checks), describe_reliability(checks), "Probability said and seen"),
            self._add(draw_verification(checks), words, "Comparisons of two pictures"),
            self._add(draw_open_set(checks), words, "Whole searches"),
        ]
