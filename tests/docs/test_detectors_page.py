"""The figures by which `auto` chooses stand in the package and in docs/detectors.md: one measurement, told twice."""

import re
from pathlib import Path

import pytest

from tapetum.footage.detector_catalogue import find_known, known_names

PAGE = (Path(__file__).parents[2] / "docs/detectors.md").read_text(encoding="utf-8")


def rows() -> dict[tuple[str, str], list[str]]:
    """Of the table of what they find: (detector, dark frames) -> by day, 32, 16, 8."""
    found, name = {}, ""
    for line in PAGE.split("## What they find", 1)[1].split("## At night", 1)[0].splitlines():
        cells = [cell.strip().replace("*", "").strip("`") for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 7:
            name = cells[0] or name
            found[name, cells[1]] = cells[2:6]
    return found


def people(cell: str) -> int:
    return int(cell.partition("+")[0])


@pytest.mark.parametrize("name", known_names())
def test_the_figures_by_which_auto_chooses_are_those_of_the_page(name: str) -> None:
    known, (by_day, at_32, at_16, _) = find_known(name), rows()[name, "brightened (gamma)"]
    assert f"{known.found}+{known.wrong}" == by_day
    assert known.found_dark == people(at_32) + people(at_16)


@pytest.mark.parametrize("name", known_names())
def test_what_is_fetched_is_what_the_page_names(name: str) -> None:
    known = find_known(name)
    (line,) = re.findall(rf"^\| `{name}` \| .*\| npm .*$", PAGE, re.MULTILINE)
    assert f"npm `{known.package.name}` {known.package.version}," in line
    assert "{1} x {0}".format(*known.size) in line
