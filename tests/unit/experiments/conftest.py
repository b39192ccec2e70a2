"""Whole tables and leagues with networks that are small enough for tests."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tapetum.experiments import paper_plans
from tapetum.experiments.paper_rows import Domain, PaperRow
from tapetum.methods import small_options
from tapetum.runs.recipe import Recipe, check_recipe


@pytest.fixture
def small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row's method with the options that its own file calls small."""
    whole = paper_plans.row_recipe

    def shrink(row: PaperRow, domain: Domain, roots: Mapping[str, str | None], overrides: Sequence[str]) -> Recipe:
        recipe = whole(row, domain, roots, overrides)
        options = {**recipe.method.options, **_small_parts(recipe.method.name, recipe.method.options)}
        return check_recipe(
            recipe.model_dump(mode="json") | {"method": {"name": recipe.method.name, **options}}, row.label
        )

    monkeypatch.setattr(paper_plans, "row_recipe", shrink)


def _small_parts(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    small = small_options(name)
    if "extractor_options" in small:
        small["extractor_options"] = small_options(options.get("extractor", "ide"))
    return small
