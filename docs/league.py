"""Makes docs/results/league/FAMILY.md and .svg, a league's whole table, of the small results that are kept there.

    python docs/league.py

Nothing is generated or trained: `tapetum reproduce league --data synth --kept docs/results/league` makes the results.
"""

from pathlib import Path

from tapetum.core.atomic import write_bytes
from tapetum.experiments.league import FAMILIES, LeagueOptions, tabulate_kept
from tapetum.experiments.league_table import render_league, write_figure

KEPT = Path(__file__).parent / "results/league"


def render(family: str) -> tuple[str, dict]:
    """The page, and what it says as numbers."""
    content = tabulate_kept(LeagueOptions(KEPT, family, kept=KEPT))
    return render_league(content, figure=f"{family}.svg"), content


def main() -> None:
    """Write both families' pages and figures."""
    for family in FAMILIES:
        page, content = render(family)
        write_bytes(KEPT / f"{family}.md", page.encode())
        write_figure(KEPT / f"{family}.svg", content)


if __name__ == "__main__":
    main()
