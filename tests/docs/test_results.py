"""The measured figures under docs/results are JSON that any program reads."""

import json
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[2] / "docs/results"


def refuse(constant):
    raise ValueError(f"{constant} is no JSON; write null where there is no figure")


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("*.json")), ids=lambda path: path.name)
def test_a_file_of_results_has_no_figure_that_json_does_not_know(path):
    assert json.loads(path.read_bytes(), parse_constant=refuse)
