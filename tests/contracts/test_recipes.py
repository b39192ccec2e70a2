"""One battery over every recipe of the package."""

import json
import re
from collections.abc import Callable
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tapetum.core.errors import CheckpointError
from tapetum.data.datasets.regdb import write_miniature
from tapetum.data.transforms import Operation
from tapetum.layers.curve_net import CurveNet
from tapetum.layers.normalisation import STATISTICS
from tapetum.methods import build_method, build_options, small_options
from tapetum.runs.recipe import Recipe, list_recipes, load_recipe
from tapetum.runs.sources import augment_options, sampler_options
from tapetum.training.optimisation import build_optimisers, compute_lr_factor
from tapetum.training.stepping import turns_of
from tapetum.training.train import train

NAMES = list_recipes()
TABLE_V = ("ide", "mb_mb", "ieb", "mb_ieb", "mb_ieb_idm")
TABLE_4 = {  # DEEN's ablation: expansion, CPM, orthogonality, aggregation
    "deen_baseline_llcm": (False, False, False, False),
    "deen_dee_llcm": (True, False, False, False),
    "deen_dee_cpm_llcm": (True, True, False, False),
    "deen_dee_ort_llcm": (True, False, True, False),
    "deen_dee_cpm_ort_llcm": (True, True, True, False),
    "deen_mfa_llcm": (False, False, False, True),
    "deen_llcm": (True, True, True, True),
}


def read(name: str) -> str:
    return (resources.files("tapetum") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")


def find_operation(recipe: Recipe, name: str) -> Operation:
    (found,) = (operation for operation in augment_options(recipe) if operation.name == name)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_called_like_its_file_and_says_what_it_is_for(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert len(recipe.about) > 20
    for section in ("method:", "init:", "data:", "augment:", "sampler:", "optimiser:", "schedule:", "selection:"):
        assert section in read(name), f"{name}.yaml cannot be read alone: it does not say {section}"


@cache
def build_empty(name: str, options: str, size: tuple[int, int]) -> nn.Module:
    """A network without numbers; recipes that differ in their data share it."""
    with torch.device("meta"):
        return build_method(name, json.loads(options), 10, camids=range(1, 9), size=size)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_builds_its_method_and_optimiser_with_every_group_named_in_it(name: str) -> None:
    recipe = load_recipe(name)
    network = build_empty(recipe.method.name, json.dumps(recipe.method.options), recipe.data.size)
    groups = network.parameter_groups()  # type: ignore[operator]
    optimisers = build_optimisers(network, groups, recipe.optimiser, turns_of(network))
    rates = {group["name"]: group["lr"] for each in optimisers for group in each.inner.param_groups}
    assert all(rates[group] == rate for group, rate in recipe.optimiser.group_lr.items())
    sampler_options(recipe)
    augment_options(recipe)


@pytest.fixture(scope="module")
def both_modalities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("both")
    write_miniature(root, np.random.default_rng(1))
    return root


def choose_trained() -> list[str]:
    """Of each method with each sampler and extractor the recipe that turns most on; the others are loaded only."""
    most: dict[tuple[str, ...], tuple[int, str]] = {}
    for name in NAMES:
        recipe = load_recipe(name)
        key = (recipe.method.name, recipe.sampler.name, recipe.method.options.get("extractor", ""))
        settings = sum(map(bool, recipe.method.options.values())) + sum(len(entry) for entry in recipe.augment)
        most[key] = max(most.get(key, (0, "")), (settings, name))
    return sorted(name for _, name in most.values())


@pytest.mark.parametrize("name", choose_trained())
def test_a_recipe_takes_training_steps_on_small_pictures(
    name: str, people: Path, both_modalities: Path, one_thread: None, tmp_path: Path
) -> None:
    recipe = load_recipe(name)
    method = recipe.method
    options = small_options(method.name)
    if "extractor" in method.options:
        options["extractor_options"] = small_options(method.options["extractor"])
    small = [f"{option}={json.dumps(value)}" for option, value in options.items()]
    if method.options.get("enhancer_init") == "zero_dce":
        torch.save(CurveNet(4).state_dict(), tmp_path / "curves.pth")
        small.append(f"enhancer_weights={tmp_path / 'curves.pth'}")
    overrides = [f"method.{setting}" for setting in small]
    overrides += ["data.name=night600", f"data.root={people}", "data.size=[64, 32]", "data.workers=0", "data.scene={}"]
    overrides += ["sampler.steps=2", "schedule.epochs=1", "schedule.warmup_epochs=0", "selection.rule=last"]
    overrides += ["init.weights=random", "training.accelerator=cpu", "data.cache=none", "evaluation.protocol=null"]
    overrides += ["data.options={}"]
    if "day_cameras" in method.options:
        overrides.append("method.day_cameras=[]")  # no camera of these pictures sees by day
    if recipe.sampler.name.startswith("cross_modality"):
        overrides += ["data.name=regdb", f"data.root={both_modalities}", "sampler.ids=2", "sampler.pictures=2"]
    elif recipe.sampler.name in ("pk", "lookalikes"):  # none of these people is known to look like another
        overrides += ["sampler.name=pk"]
        overrides += ["sampler.ids=4", "sampler.pictures=2"]
    else:
        overrides += ["sampler.batch=8"]
    result = train(load_recipe(name, overrides), tmp_path / "run")
    assert result.epochs == 1
    assert result.history[0]["loss"] > 0


@pytest.mark.parametrize("row", TABLE_V)
def test_each_row_of_the_ablation_has_a_recipe_for_night600_and_one_for_the_night_scene(row: str) -> None:
    assert load_recipe(f"{row}_night600").init.weights == "imagenet"
    assert load_recipe(f"{row}_synth").init.weights == "random"
    assert load_recipe(f"{row}_synth").data.name == "synth"


@pytest.mark.parametrize(
    ("name", "twin", "protocol"),
    [
        ("idf_knight", "idf_official", None),
        ("idf_agw_knight", "idf_agw_night600", "knight_step"),
        ("idf_bot_knight", "idf_bot_night600", "knight_step"),
        ("idf_pcb_knight", "idf_pcb_night600", None),
        ("idf_abd_net_knight", "idf_abd_net_night600", "knight_step"),
        ("idf_transreid_knight", "idf_transreid_night600", "knight_step"),
    ],
)
def test_a_recipe_for_knight_is_that_for_night600_but_for_the_pictures_and_their_protocol(
    name: str, twin: str, protocol: str | None
) -> None:
    ours, theirs = (load_recipe(each).model_dump() for each in (name, twin))
    assert (ours["data"].pop("name"), ours["data"].pop("options")) == ("knight", {"subset": "c12"})
    assert (theirs["data"].pop("name"), theirs["data"].pop("options")) == ("night600", {})
    assert ours["evaluation"].pop("protocol") == protocol
    theirs["evaluation"].pop("protocol")
    for part in ("name", "about"):
        del ours[part], theirs[part]
    assert ours == theirs


@pytest.mark.parametrize("extractor", ["agw", "bot", "pcb", "abd_net", "transreid"])
def test_idf_over_an_extractor_learns_on_night600_as_the_extractor_does(extractor: str) -> None:
    ours, alone = (load_recipe(f"{name}_night600") for name in (f"idf_{extractor}", extractor))
    assert ours.method.options["extractor"] == extractor
    assert ours.optimiser.group_lr == alone.optimiser.group_lr | {"enhancer": 0.0001}
    assert (ours.data, ours.sampler, ours.evaluation) == (alone.data, alone.sampler, alone.evaluation)
    for part in ("name", "lr", "weight_decay", "frozen", "own"):
        assert getattr(ours.optimiser, part) == getattr(alone.optimiser, part)


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("_synth")])
def test_every_recipe_of_the_night_scene_searches_with_the_mirror(name: str) -> None:
    """Rows of one table would differ in it otherwise, and it alone gives points."""
    assert load_recipe(name).evaluation.mirror


@pytest.mark.parametrize("extractor", ["agw", "bnneck", "bot", "abd_net", "transreid"])
def test_idf_over_an_extractor_is_tested_on_the_night_scene_as_the_extractor_is(extractor: str) -> None:
    alone = "agw_visible" if extractor == "agw" else extractor
    ours, theirs = (load_recipe(f"{name}_synth") for name in (f"idf_{extractor}", alone))
    assert ours.method.options["extractor"] == extractor
    assert (ours.data, ours.evaluation) == (theirs.data, theirs.evaluation)


def test_the_paper_s_training_numbers_are_those_of_the_fact_sheet() -> None:
    for name in ("idf_official", *(f"{row}_night600" for row in TABLE_V)):
        recipe = load_recipe(name)
        assert recipe.data.size == (256, 128)
        assert recipe.data.interpolation == "bicubic"
        assert find_operation(recipe, "pad_crop").options.pad == 10
        assert recipe.sampler.global_batch == 32
        assert (recipe.schedule.epochs, recipe.schedule.step, recipe.schedule.gamma) == (120, 80, 0.1)
        assert (recipe.optimiser.momentum, recipe.optimiser.nesterov) == (0.9, True)
        assert recipe.optimiser.weight_decay == 5e-4
        assert recipe.optimiser.lr == 0.05
        assert recipe.optimiser.group_lr["backbone"] == 0.005
        assert recipe.optimiser.group_lr.get("enhancer", 1e-4) == 1e-4
        assert recipe.seed == 2021


@pytest.mark.parametrize(("name", "parts"), TABLE_4.items())
def test_each_row_of_deens_ablation_has_a_recipe_with_its_parts_and_the_same_training(
    name: str, parts: tuple[bool, ...]
) -> None:
    recipe, whole = load_recipe(name), load_recipe("deen_llcm")
    options = build_options("deen", recipe.method.options)
    expansion, cpm, ort, aggregation = parts
    assert (options.expansion, options.aggregation) == (expansion, aggregation)
    assert (options.expansion and options.cpm_weight > 0) is cpm
    assert (options.expansion and options.orthogonality_weight > 0) is ort
    left_out = {"name", "about", "method"}
    assert recipe.model_dump(exclude=left_out) == whole.model_dump(exclude=left_out)


def test_deens_training_numbers_are_those_of_the_fact_sheet() -> None:
    rates = {0: 0.1, 4: 0.5, 9: 1.0, 10: 1.0, 19: 1.0, 20: 0.1, 79: 0.1, 80: 0.01, 119: 0.01, 120: 0.01, 150: 0.01}
    for data in ("llcm", "sysu", "regdb"):
        recipe = load_recipe(f"deen_{data}")
        assert recipe.data.size == (384, 144)
        assert (recipe.data.interpolation, recipe.data.backend) == ("lanczos", "pil")
        assert [entry["name"] for entry in recipe.augment] == ["grayscale", "pad_crop", "flip", "erasing"]
        assert find_operation(recipe, "pad_crop").options.pad == 10
        assert all(entry.get("probability", 0.5) == 0.5 for entry in recipe.augment)
        erasing = find_operation(recipe, "erasing").options
        assert erasing.area == ((0.2, 0.8) if data == "sysu" else (0.02, 0.4))
        means, deviations = STATISTICS["imagenet"]
        fill = [mean + mean * deviation for mean, deviation in zip(means, deviations, strict=True)]
        assert erasing.fill == pytest.approx(fill, abs=1e-6)
        assert (recipe.sampler.options["ids"], recipe.sampler.options["pictures"]) == (6, 4)
        assert recipe.sampler.global_batch == 48
        assert (recipe.optimiser.lr, recipe.optimiser.group_lr) == (0.1, {"backbone": 0.01})
        assert (recipe.optimiser.momentum, recipe.optimiser.nesterov, recipe.optimiser.weight_decay) == (
            0.9,
            True,
            5e-4,
        )
        assert recipe.schedule.epochs == 151
        for epoch, rate in rates.items():
            assert compute_lr_factor(recipe.schedule, epoch) == pytest.approx(rate), epoch
        assert recipe.method.options.get("expand_after", 3) == (2 if data == "regdb" else 3)
        assert recipe.evaluation.mirror


def test_where_imagenet_weights_cannot_be_fetched_the_run_stops_and_says_how_to_supply_a_file(
    tiny_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tapetum.layers.backbones._hub_answers", lambda: False)
    monkeypatch.setattr("tapetum.layers.backbones._is_cached", lambda config: False)
    recipe = tiny_recipe(overrides=["init.weights=imagenet", "method.backbone=resnet18"])
    with pytest.raises(CheckpointError, match=r"cannot be fetched, no network; .* init.weights=PATH"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", [name for name in NAMES if "best_on_test" in read(name)])
def test_a_recipe_that_names_the_choice_of_its_release_says_how_often_that_tests(name: str) -> None:
    every = 1 if load_recipe(name).method.name in ("deen", "dclnet") else 2
    assert re.search(rf"best_on_test with every: {every}$", read(name), re.MULTILINE)


def test_galleries_of_sysu_are_drawn_as_the_release_draws_them() -> None:
    """By a seed, but where the release reads the data set's file, or we do not know what it does."""
    by_file = {"mpanet_sysu", "align_gan_sysu", "hi_cmd_sysu", "bdtr_sysu", "jsia_sysu", "dclnet_sysu"}
    found = {name: dict(load_recipe(name).data.options) for name in NAMES if name.endswith("_sysu")}
    assert by_file < found.keys()
    assert found["hi_cmd_sysu"].pop("people") == "train"  # the 296 that its release trains with
    assert found == {name: {} if name in by_file else {"permutations": "seed"} for name in found}


def test_methods_for_two_modalities_resize_real_pictures_as_pil_does() -> None:
    recipes = [load_recipe(name) for name in NAMES if name.endswith(("_sysu", "_regdb", "_llcm"))]
    assert len(recipes) > 40
    assert {recipe.name: recipe.data.backend for recipe in recipes} == {recipe.name: "pil" for recipe in recipes}


def test_no_picture_that_is_brightened_by_curves_leaves_its_range() -> None:
    """Eight times v + a (v^2 - v): outside 0..1 that has no bound."""
    for name in NAMES:
        recipe = load_recipe(name)
        if recipe.method.name != "idf":
            continue
        for operation in recipe.augment:
            assert not (operation.get("fill") == "noise" and operation.get("clip") is False), name
