"""The HTML report: one file that needs no network, no script and no other file, readable on a phone.

Charts are inline SVG whose colours follow the page's light or dark scheme, pictures are JPEG inside the page.
Everything that came from outside (names of files, people, clips) is escaped by the template engine.
"""

import os
import secrets
from pathlib import Path

import jinja2

from tapetum.core.errors import OutputError
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
    unfinished = out_html.with_name(f".{out_html.name}.{secrets.token_hex(4)}.part")
    try:
        out_html.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(out_html)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise OutputError(
            f"{out_html}: the report cannot be written ({error.strerror}); choose another place or free some space"
        ) from None
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


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
