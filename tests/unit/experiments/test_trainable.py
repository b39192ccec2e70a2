"""Which methods a demo can train, and what it says of others."""

import pytest

from tapetum.core.errors import RecipeError
from tapetum.experiments.trainable import (
    ACROSS,
    LABELS,
    VISIBLE,
    choose_methods,
    join_words,
    list_run_names,
    list_trainable,
)
from tapetum.runs.recipe import list_recipes


def test_every_recipe_for_the_generated_scene_is_a_method_of_one_demo_or_cannot_be_trained_alone() -> None:
    recipes = [recipe for layout in (VISIBLE, ACROSS) for recipe in list_trainable(layout).values()]
    left_out = {"enlighten_gan_synth", "ide_dce_synth", "pcb_rpp_synth", "zero_dce_synth"}
    left_out |= {f"{method}_lookalikes_synth" for method in ("ide", "idf", "bot")}
    assert sorted([*recipes, *left_out]) == [name for name in list_recipes() if name.endswith("_synth")]
    assert set(LABELS) == set(recipes)
    for layout in (VISIBLE, ACROSS):
        labels = [LABELS[recipe] for recipe in list_trainable(layout).values()]
        assert len(set(labels)) == len(labels), "two methods of one demo have one label"


def test_a_name_means_the_recipe_of_the_scene_and_the_order_is_kept() -> None:
    assert choose_methods(["bot", "agw", "ide"], VISIBLE) == {
        "BoT": "bot_synth",
        "AGW": "agw_visible_synth",
        "IDE+": "ide_synth",
    }
    assert choose_methods(["agw", "two_stream"], ACROSS) == {"AGW": "agw_synth", "two-stream": "two_stream_synth"}
    assert {"ide", "idf", "agw_visible", "transreid"} < set(list_run_names(VISIBLE))
    assert "agw_visible" not in list_run_names(ACROSS)


@pytest.mark.parametrize(
    ("names", "layout", "message"),
    [
        (
            ["ide", "bott"],
            VISIBLE,
            r"'bott' has no recipe for this scene; did you mean bot\? \(all: abd_net, agw, bnneck, bot,",
        ),
        (
            ["resnet"],
            ACROSS,
            r"'resnet' has no recipe for this scene; known: agw, align_gan, bdtr, caj, cm_nas, dart, .*two_stream$",
        ),
        (["deen"], VISIBLE, "deen is a method of `tapetum demo-ir`; this scene's are abd_net, agw, "),
        (["ide"], ACROSS, "ide is a method of `tapetum demo`; this scene's are agw, align_gan, bdtr, caj, "),
        (["ide_dce"], VISIBLE, "ide_dce needs a network that is trained first, as `tapetum reproduce table3"),
        (["pcb_rpp"], VISIBLE, "pcb_rpp is a second stage, which goes on from runs/pcb_synth; train it with `tapetum"),
        (["enlighten_gan"], VISIBLE, "enlighten_gan brightens pictures and finds nobody; choose from abd_net, agw, "),
        (
            ["ide_lookalikes"],
            VISIBLE,
            "ide_lookalikes is for a scene of its own; train it with `tapetum train ide_look",
        ),
        (["zero_dce"], VISIBLE, "zero_dce brightens pictures and finds nobody; choose from abd_net, agw, "),
        (["ide", "idf", "ide"], VISIBLE, "--methods ide,idf,ide: ide stands there twice; write it once"),
        ([], VISIBLE, "--methods names none; write some of abd_net, agw, "),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(names: list[str], layout: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        choose_methods(names, layout)
    assert "\n" not in str(caught.value)


def test_words_are_joined_as_people_do() -> None:
    assert [join_words(words) for words in (["A"], ["A", "B"], ["A", "B", "C"])] == ["A", "A and B", "A, B and C"]
