"""Which results belong to one direction, and what a method is called there."""

from dataclasses import replace
from typing import Any

import pytest

from tapetum.evaluation.card import from_content
from tapetum.report.content import Result
from tapetum.report.directions import compare_methods, find_directions


def result(label: str, protocol: str, query: str | None, gallery: str | None, *, recipe: str = "deen") -> Result:
    card: dict[str, Any] = {
        "rules": {"name": protocol, "query_modality": query, "gallery_modality": gallery},
        "metrics": {"rank1": 0.5, "mean_ap": 0.25},
        "recipe": {"name": recipe},
    }
    return Result(label, from_content(card), note=protocol)


def test_results_are_grouped_by_protocol_and_named_after_their_recipe() -> None:
    directions = find_directions(
        [
            result("a there", "there", "infrared", "visible", recipe="agw"),
            result("a back", "back", "visible", "infrared", recipe="agw"),
            result("d there", "there", "infrared", "visible"),
        ]
    )
    assert [(each.name, [one.label for one in each.results]) for each in directions] == [
        ("IR→VIS", ["agw", "deen"]),
        ("VIS→IR", ["agw"]),
    ]
    table = compare_methods(directions)
    assert [row[0].text for row in table.rows] == ["agw", "deen"]
    assert [row[0].small for row in table.rows] == ["", "there"], "a note on one direction is none on the row"
    assert [cell.text for cell in table.rows[1][1:6]] == ["50.0", "–", "–", "25.0", "–"]
    assert {cell.text for cell in table.rows[1][6:]} == {"–"}, "it was not evaluated in that direction"


def test_two_protocols_of_one_direction_are_told_apart_by_their_names() -> None:
    results = [result("x", name, "infrared", "visible") for name in ("standard", "released_script")]
    assert [each.name for each in find_directions(results)] == ["IR→VIS, standard", "IR→VIS, released_script"]


def test_the_released_script_of_llcm_is_headed_by_the_direction_that_it_is_printed_for() -> None:
    names = ("llcm_revised_nir_to_vis", "llcm_revised_vis_to_nir_released_script")
    directions = find_directions([result("x", name, "infrared", "visible") for name in names])
    assert [each.name for each in directions] == ["IR→VIS", "VIS→IR (released script)"]
    both = [
        result("x", names[1].replace("revised", release), "infrared", "visible") for release in ("revised", "original")
    ]
    assert [each.name for each in find_directions(both)] == [
        f"VIS→IR (released script), llcm_{release}_vis_to_nir_released_script" for release in ("revised", "original")
    ]


def test_methods_searched_with_and_without_their_mirror_say_so_beside_each_other() -> None:
    def searched(label: str, protocol: str, *, mirror: bool) -> Result:
        found = result(label, protocol, "infrared", "visible", recipe=label)
        return Result(label, replace(found.card, mirror=mirror, chance={"rank1": 0.1}), seconds=60.0)

    apart = [searched("deen", "a", mirror=True), searched("agw", "a", mirror=False), searched("agw", "b", mirror=True)]
    table = compare_methods(find_directions(apart))
    place = table.columns.index("mirror")
    assert table.columns[place:] == ["mirror", "training"]
    assert [row[place].text for row in table.rows] == ["on", "on and off", ""]
    assert {len(row) for row in table.rows} == {len(table.columns)}
    alike = compare_methods(find_directions([searched(name, "a", mirror=True) for name in ("deen", "agw")]))
    assert "mirror" not in alike.columns


def test_one_recipe_twice_in_a_direction_keeps_the_labels_of_its_results() -> None:
    results = [result(f"seed {seed}", "there", "infrared", "visible") for seed in (1, 2)]
    (direction,) = find_directions(results)
    assert [each.label for each in direction.results] == ["seed 1", "seed 2"]


@pytest.mark.parametrize("modalities", [(None, None), ("visible", "visible"), ("infrared", None)])
def test_results_within_a_modality_have_no_direction(modalities: tuple[str | None, str | None]) -> None:
    results = [result("a", "there", "infrared", "visible"), result("b", "within", *modalities)]
    assert find_directions(results) == ()
