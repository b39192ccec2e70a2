"""Templates into pages, and how times, shares and probabilities are written on them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import jinja2
from fastapi import Request
from fastapi.responses import HTMLResponse
from markupsafe import Markup

import tapetum
from tapetum.footage.clock import format_time
from tapetum.service.security import CSRF_FIELD, Principal
from tapetum.service.users import Role

LINKS = (
    ("Search", "/", Role.SEARCH),
    ("Browse", "/browse", Role.SEARCH),
    ("Footage", "/footage", Role.INDEX),
    ("Audit log", "/audit", Role.ADMINISTER),
)


def render(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page.

    Args:
        request: it answers.
        template: its name.
        status: of the answer.
        values: that the template shows; `who` is asking.
    """
    who: Principal | None = values.pop("who", None)
    if "error" in values:
        values["error"] = request.app.state.service.hide(values["error"])

    def csrf_field() -> Markup:
        return Markup('<input type="hidden" name="{}" value="{}">').format(CSRF_FIELD, who.csrf if who else "")

    text = (
        _pages()
        .get_template(template)
        .render(
            who=who,
            here=request.url.path,
            links=[(name, address) for name, address, role in LINKS if who and who.role >= role],
            csrf_field=csrf_field,
            version=tapetum.__version__,
            **{"notice": "", "gallery": None, **values},
        )
    )
    return HTMLResponse(text, status)


@cache
def _pages() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tapetum.service", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., str]] = {
        "clock": clock,
        "far": _far,
        "moment": moment_of,
        "percent": percent,
        "rate": _rate,
        "sure": _sure,
    }
    environment.filters |= filters
    return environment


def when(seconds: float) -> datetime:
    """A moment, UTC.

    Args:
        seconds: since 1970-01-01 UTC.
    """
    return datetime.fromtimestamp(seconds, UTC)


def span(start: float, seconds: float) -> str:
    """From when until when.

    Args:
        start: seconds since 1970-01-01 UTC.
        seconds: it lasts.
    """
    end = when(start) + timedelta(seconds=seconds)
    return f"{when(start):%d %b %H:%M:%S} to {end:%H:%M:%S}"


def moment_of(seconds: float) -> str:
    """A moment as people read it, UTC.

    Args:
        seconds: since 1970-01-01 UTC.
    """
    return clock(format_time(seconds))


def clock(text: str) -> str:
    """A moment as people read it, UTC.

    Args:
        text: ISO 8601.
    """
    return text.replace("T", " ").removesuffix("Z")


def percent(share: float) -> str:
    """A share in whole percent.

    Args:
        share: in 0..1.
    """
    return f"{100 * share:.0f}\u00a0%"  # never broken before its sign


def _sure(probability: float) -> str:
    """A probability as people read it; never "100 %" and never "0 %"."""
    return (
        ">\u00a099\u00a0%"
        if probability >= 0.995
        else "<\u00a01\u00a0%"
        if probability < 0.005
        else percent(probability)
    )


def _rate(rate: float) -> str:
    whole = round(1 / rate)
    return f"1 in {whole:,} searches" if abs(whole * rate - 1) < 1e-6 else f"{100 * rate:g} % of searches"


def _far(job: Any) -> str:
    return f"{job.done:,} of {job.total:,} frames and pictures" if job.total else ""
