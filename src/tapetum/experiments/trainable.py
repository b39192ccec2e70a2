"""The methods that a demo can train: the package's recipes for its scene, by a short name and with a label.

A file ``NAME_synth.yaml`` is the registration and says which scene it is for; a label is all that may be added.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from types import MappingProxyType

from tapetum.core.errors import RecipeError, nearest_name
from tapetum.runs.recipe import list_recipes, load_recipe

SUFFIX = "_synth"
VISIBLE, ACROSS = "synth", "llcm"  # layout of the scene of each demo
COMMANDS = {VISIBLE: "demo", ACROSS: "demo-ir"}
# Recipe -> what tables and figures call its method; a recipe without a label is called by its short name.
LABELS = {
    "ide_synth": "IDE+",
    "ide_general_synth": "IDE+ general",
    "bnneck_synth": "BNNeck",
    "bot_synth": "BoT",
    "agw_visible_synth": "AGW",
    "abd_net_synth": "ABD-Net",
    "transreid_synth": "TransReID",
    "osnet_synth": "OSNet",
    "pcb_synth": "PCB",
    "mb_mb_synth": "MB+MB",
    "ieb_synth": "IEB",
    "mb_ieb_synth": "MB+IEB",
    "mb_ieb_idm_synth": "MB+IEB+IDM",
    "idf_bnneck_synth": "IDF + BNNeck",
    "idf_bot_synth": "IDF + BoT",
    "idf_agw_synth": "IDF + AGW",
    "idf_transreid_synth": "IDF + TransReID",
    "idf_abd_net_synth": "IDF + ABD-Net",
    "idf_pcb_synth": "IDF + PCB",
    "idf_synth": "IDF",
    "student_synth": "IDF's student",
    "two_stream_synth": "two-stream",
    "agw_synth": "AGW",
    "align_gan_synth": "AlignGAN",
    "bdtr_synth": "BDTR",
    "caj_synth": "CAJ",
    "hi_cmd_synth": "Hi-CMD",
    "jsia_synth": "JSIA-ReID",
    "mclnet_synth": "MCLNet",
    "ddag_synth": "DDAG",
    "lba_synth": "LbA",
    "mpanet_synth": "MPANet",
    "cm_nas_synth": "CM-NAS",
    "dclnet_synth": "DCLNet",
    "deen_synth": "DEEN",
    "mmn_synth": "MMN",
    "dart_synth": "DART",
    "idf_deen_synth": "IDF + DEEN",
}
BRIGHTENERS = ("zero_dce", "enlighten_gan")  # methods that describe nobody
COUNTS = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")


@cache
def list_trainable(layout: str) -> Mapping[str, str]:
    """Short name -> recipe of each method that can be trained on a scene, sorted."""
    found = {name: recipe for name, recipe in _list_recipes(layout).items() if not _reason_against(recipe)}
    return MappingProxyType(found)


def choose_methods(names: Sequence[str], layout: str) -> dict[str, str]:
    """Label -> recipe of the methods that were asked for, in that order.

    Raises:
        RecipeError: there are none, one is named twice, has no recipe for this scene, or cannot be trained alone.
    """
    if not names:
        raise RecipeError(f"--methods names none; write some of {', '.join(list_trainable(layout))}")
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None:
        raise RecipeError(f"--methods {','.join(names)}: {twice} stands there twice; write it once")
    chosen = [_find_recipe(name, layout) for name in names]
    return {LABELS.get(recipe, name): recipe for name, recipe in zip(names, chosen, strict=True)}


def run_name(recipe: str) -> str:
    """The folder of a method's run in a demo's."""
    return recipe.removesuffix(SUFFIX)


def list_run_names(layout: str) -> list[str]:
    """The folders of every run that a demo may make."""
    return [run_name(recipe) for recipe in list_trainable(layout).values()]


def join_words(words: Iterable[str]) -> str:
    """ "A", "A and B", "A, B and C"."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


@cache  # the recipes of the package, which do not change while it runs
def _list_recipes(layout: str) -> dict[str, str]:
    """Short name -> recipe for a scene, whether or not a demo can train it."""
    recipes = [name for name in list_recipes() if name.endswith(SUFFIX)]
    return {
        name.removesuffix(SUFFIX).removesuffix("_visible"): name
        for name in recipes
        if load_recipe(name).data.scene.get("layout", VISIBLE) == layout
    }


def _find_recipe(name: str, layout: str) -> str:
    recipe = _list_recipes(layout).get(name)
    there = list_trainable(layout)
    if recipe is None:
        for other, command in COMMANDS.items():
            if other != layout and name in list_trainable(other):
                raise RecipeError(
                    f"--methods: {name} is a method of `tapetum {command}`; this scene's are {', '.join(there)}"
                )
        nearest = nearest_name(name, there)
        all_of_them = f" (all: {', '.join(there)})" if nearest.startswith("did you mean") else ""
        raise RecipeError(f"--methods: {name!r} has no recipe for this scene; {nearest}{all_of_them}")
    if reason := _reason_against(recipe):
        raise RecipeError(f"--methods: {name} {reason}; choose from {', '.join(there)}")
    return recipe


def _reason_against(recipe: str) -> str:
    """Why a demo cannot train a recipe of its scene; empty where it can."""
    content = load_recipe(recipe)
    method = content.method
    if method.name in BRIGHTENERS:
        return "brightens pictures and finds nobody"
    if content.init.weights != "random":
        return f"is a second stage, which goes on from {content.init.weights}; train it with `tapetum train {recipe}`"
    if method.options.get("enhancer_weights"):
        return "needs a network that is trained first, as `tapetum reproduce table3 --data synth` does"
    if content.data.scene.keys() - {"layout"}:
        return f"is for a scene of its own; train it with `tapetum train {recipe}`"
    return ""
