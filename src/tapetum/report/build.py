"""The HTML report: one file that needs no network, no script and no other file, readable on a phone.

Charts are inline SVG whose colours follow the page's light or dark scheme, pictures are JPEG inside the page.
Everything that came from outside (names of files, people, clips) is escaped by the template engine.
"""

from pathlib import Path

import jinja2

from tapetum.core.atomic import make_folder, write_bytes
from tapetum.report.content import ReportContent
from tapetum.report.page import compose_page

__all__ = ["ReportContent", "build_report", "render_report"]


def build_report(out_html: Path, content: ReportContent) -> None:
    """Write a report; the file appears whole or not at all.

    Args:
        out_html: where to.
        content: what it shows.
    Raises:
        OutputError: the file cannot be written.
    """
    text = render_report(content)
    make_folder(out_html.parent)
    write_bytes(out_html, text.encode())


def render_report(content: ReportContent) -> str:
    """The report as HTML text.

    Args:
        content: what it shows.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tapetum.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(page=compose_page(content)) + "\n"
