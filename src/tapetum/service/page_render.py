"""Templates into pages, and how times, shares and probabilities are written on them."""

from datetime import UTC, datetime
from functools import cache
from typing import Any

import jinja2
from fastapi import Request
from fastapi.responses import HTMLResponse
from markupsafe import Markup

import tapetum
from tapetum.core.errors import TapetumError
from tapetum.core.templates import open_templates
from tapetum.footage.clock import format_time
from tapetum.service.errors import status_of
from tapetum.service.security import CSRF_FIELD, Principal
from tapetum.service.users import Role

LINKS = (
    ("Search", "/", Role.SEARCH),
    ("Browse", "/browse", Role.SEARCH),
    ("Footage", "/footage", Role.INDEX),
    ("Audit log", "/audit", Role.ADMINISTER),
)


def render(
    request: Request, template: str, who: Principal | None = None, error: TapetumError | None = None, **values: Any
) -> HTMLResponse:
    """A page.

    Args:
        who: is asking.
        error: why what was asked for was not done; the page says it, and its status.
        values: that the template shows.
    """

    def csrf_field() -> Markup:
        return Markup('<input type="hidden" name="{}" value="{}">').format(CSRF_FIELD, who.csrf if who else "")

    values = {
        "who": who,
        "here": request.url.path,
        "links": [(name, address) for name, address, role in LINKS if who and who.role >= role],
        "csrf_field": csrf_field,
        "version": tapetum.__version__,
        "error": request.app.state.service.hide(str(error)) if error else "",
        "notice": "",
        "gallery": None,
    } | values
    return HTMLResponse(_pages().get_template(template).render(values), 200 if error is None else status_of(error))


@cache
def _pages() -> jinja2.Environment:
    environment = open_templates("tapetum.service")
    environment.filters |= {
        "clock": clock,
        "far": _far,
        "moment": moment_of,
        "percent": percent,
        "rate": _rate,
        "sure": _sure,
    }
    return environment


def when(seconds: float) -> datetime:
    """A moment, UTC, from seconds since 1970-01-01 UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def moment_of(seconds: float) -> str:
    """A moment as people read it, UTC, from seconds since 1970-01-01 UTC."""
    return clock(format_time(seconds))


def clock(text: str) -> str:
    """A moment as people read it, UTC, from ISO 8601."""
    return text.replace("T", " ").removesuffix("Z")


def percent(share: float) -> str:
    """A share in whole percent."""
    return f"{100 * share:.0f}\u00a0%"  # never broken before its sign


def _sure(probability: float) -> str:
    """A probability as people read it; never "100 %" and never "0 %"."""
    if probability >= 0.995:
        return ">\u00a099\u00a0%"
    return "<\u00a01\u00a0%" if probability < 0.005 else percent(probability)


def _rate(rate: float) -> str:
    whole = round(1 / rate)
    return f"1 in {whole:,} searches" if abs(whole * rate - 1) < 1e-6 else f"{100 * rate:g} % of searches"


def _far(job: Any) -> str:
    return f"{job.done:,} of {job.total:,} frames and pictures" if job.total else ""
