"""The HTML report: one file that needs no network, no script and no other file, readable on a phone.

Charts are inline SVG whose colours follow the page's light or dark scheme, pictures are JPEG inside the page.
Everything that came from outside (names of files, people, clips) is escaped by the template engine.
"""

import base64
import io
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
from markupsafe import Markup
from PIL import Image

from tapetum import __version__
from tapetum.core.atomic import make_folder, write_bytes
from tapetum.core.templates import open_templates
from tapetum.plots.ranking_list import describe_ranks
from tapetum.plots.style import SERIES, Picture
from tapetum.report import cards, numbers, tables
from tapetum.report.charts import Charts
from tapetum.report.content import QueryRanking, ReportContent
from tapetum.report.directions import compare_methods, find_directions

LARGEST_HEIGHT = 192  # pixels; pictures are shown about 128 high, and a night picture holds no finer detail
JPEG_QUALITY = 86


def build_report(out_html: Path, content: ReportContent) -> None:
    """Write a report; the file appears whole or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    text = render_report(content)
    make_folder(out_html.parent)
    write_bytes(out_html, text.encode())


def render_report(content: ReportContent) -> str:
    """The report as HTML text."""
    environment = open_templates("tapetum.report")
    environment.filters |= {
        "by_query": _by_query,
        "count": numbers.count,
        "jpeg": _jpeg_address,
        "percent": numbers.percent,
        "ranks": describe_ranks,
        "reach": numbers.percent_interval,
    }
    environment.globals |= {"SERIES": SERIES, "cards": cards, "tables": tables, "compare_methods": compare_methods}
    directions = find_directions(content.results)
    main = directions[0].results if directions else content.results
    breakdowns = cards.breakdowns(main) if content.breakdowns is None else content.breakdowns
    chance = cards.chance(main[0].card) if content.chance is None and main else content.chance or {}
    style = resources.files("tapetum.report") / "templates" / "style.css"
    page = environment.get_template("report.html.j2").render(
        content=content,
        style=Markup(style.read_text(encoding="utf-8")),  # noqa: S704  # our own file
        version=__version__,
        directions=directions,
        main=main,
        chance=chance,
        breakdowns=breakdowns,
        matrices={result.label: pairs for result in main if (pairs := cards.camera_pairs(result.card))},
        worst=cards.worst_slices(main) if content.worst_slices is None else content.worst_slices,
        charts=Charts(content, main, breakdowns),
    )
    return page + "\n"


def _by_query(rankings: Sequence[QueryRanking]) -> list[list[QueryRanking]]:
    """Rankings of the same query stand together, in order of first appearance."""
    groups: dict[tuple[str, bytes], list[QueryRanking]] = {}
    for ranking in rankings:
        groups.setdefault((ranking.caption, ranking.query.tobytes()), []).append(ranking)
    return list(groups.values())


def _jpeg_address(picture: Picture) -> str:
    """A picture as a ``data:`` address; large ones are made smaller first."""
    image = Image.fromarray(np.ascontiguousarray(picture))
    if image.height > LARGEST_HEIGHT:
        width = max(1, round(image.width * LARGEST_HEIGHT / image.height))
        image = image.resize((width, LARGEST_HEIGHT), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
