"""One battery over every method that has a scene recipe: a new one is killed, resumed and trained by two processes too.

Methods with settings of their own, such as a warm-up that ends, are in `test_demanding_methods`.
"""

import json
import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.multiprocessing.spawn import ProcessRaisedException

from interruption import FailAfter, StopAfter
from tapetum.data.catalog import Dataset
from tapetum.methods import small_options, views_of
from tapetum.runs.recipe import Recipe, list_recipes, load_recipe
from tapetum.runs.run_folder import RunFolder
from tapetum.training.loop import STEPS_BETWEEN_ASKING
from tapetum.training.state import load_state
from tapetum.training.train import TrainingInterrupted, train

Build = Callable[..., Recipe]
SCENES = [load_recipe(name) for name in list_recipes() if name.endswith("_synth")]
METHODS = {  # with an extractor where a method has several -> whether it takes both modalities
    (recipe.method.name, recipe.method.options.get("extractor", "")): recipe.sampler.name == "cross_modality"
    for recipe in SCENES
}
NAMES = [pytest.param(*method, id=" with ".join(filter(None, method))) for method in METHODS]
CHANCE = ("dropout", "drop_path")  # ends of options' names
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
# So that two epochs of three steps have all that a method does between them.
SETTINGS = {"cm_nas": ("method.average_every=1",)}
# No look at all pictures: it goes by running statistics, which are of the first process's share there.
UNJUDGED = {"dart": ("method.warmup_epochs=2",)}
IMPORTED = ["tapetum.training.train", "timm", "torch._dynamo"]  # seconds of a process

pytestmark = pytest.mark.slow


def small_recipe(build: Build, method: str, extractor: str, *settings: str, chance: bool) -> Recipe:
    """Two epochs of three steps with a small network.

    Args:
        chance: with the network's own dropout; small ones have none otherwise.
    """
    options: dict[str, Any] = {**small_options(method)}
    if extractor:
        options |= {"extractor": extractor, "extractor_options": small_options(extractor)}
    options = without_chance_off(options) if chance else options
    infrared = METHODS[method, extractor]
    sampler = {"name": "cross_modality" if infrared else "pk", "ids": 4, "pictures": 2, "steps": 3}
    return build(
        overrides=[
            f"method={json.dumps({'name': method, **options})}",
            f"sampler={json.dumps({**sampler, 'views': views_of(method)})}",
            "data.size=[64, 32]",
            "schedule.epochs=2",
            "optimiser.lr=0.001",
            "optimiser.group_lr={}",
            *SETTINGS.get(method, ()),
            *settings,
        ]
    )


def without_chance_off(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: without_chance_off(value) if isinstance(value, dict) else value
        for name, value in options.items()
        if not name.endswith(CHANCE)
    }


@pytest.mark.parametrize(("method", "extractor"), NAMES)
def test_killed_and_resumed_it_ends_with_the_same_weights(
    method: str, extractor: str, tiny_recipe: Build, two_modalities: Dataset, tmp_path: Path
) -> None:
    recipe = small_recipe(tiny_recipe, method, extractor, chance=True)
    whole = load_file(train(recipe, tmp_path / "whole", dataset=two_modalities).folder.last)
    with pytest.raises(TrainingInterrupted):
        train(recipe, tmp_path / "run", dataset=two_modalities, reporter=StopAfter(4))  # within the second epoch
    found = load_file(train(recipe, tmp_path / "run", dataset=two_modalities).folder.last)
    assert found.keys() == whole.keys()
    assert [key for key, value in whole.items() if not torch.equal(found[key], value)] == []


@pytest.fixture
def ready_processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Processes that train together begin with everything imported, not each by importing it for seconds."""
    multiprocessing.set_forkserver_preload(IMPORTED)
    # Lightning goes on believing that they are spawned: of others it thinks that they may share their weights.
    start = partial(torch.multiprocessing.start_processes, start_method="forkserver")
    monkeypatch.setattr(
        torch.multiprocessing,
        "start_processes",
        lambda *arguments, start_method, **more: start(*arguments, **more),
    )
    before = torch.multiprocessing.get_sharing_strategy()
    torch.multiprocessing.set_sharing_strategy("file_system")  # such a process is given 256 open files at most
    yield
    torch.multiprocessing.set_sharing_strategy(before)


@pytest.mark.parametrize(("method", "extractor"), NAMES)
def test_two_processes_train_it_like_two_parts_of_a_batch(
    method: str,
    extractor: str,
    ready_processes: None,
    tiny_recipe: Build,
    two_modalities: Dataset,
    tmp_path: Path,
) -> None:
    """Norms take their statistics over each part, unlike those of a whole batch."""
    small = partial(small_recipe, tiny_recipe, method, extractor, *UNJUDGED.get(method, ()), chance=False)
    compare_two_processes(small, two_modalities, tmp_path)


def compare_two_processes(build: Build, dataset: Dataset, folder: Path) -> list[dict[str, Any]]:
    """Train with a batch in two parts and by two processes, which must end alike; what these noted of each epoch."""
    weights = []
    for setting in ("training.accumulate=2", "training.devices=2"):
        result = train(build(setting), folder / setting, dataset=dataset)
        assert result.epochs == 2
        assert result.folder.read_facts()["finished"]
        weights.append(load_file(result.folder.last))
    parts, found = weights
    assert found.keys() == parts.keys()
    for key, value in parts.items():
        if not key.endswith(STATISTICS):  # of both parts there, of the first here
            assert torch.allclose(found[key], value, rtol=1e-3, atol=1e-5), key
    return list(result.history)


@pytest.mark.parametrize(
    ("method", "afterwards"),
    [
        ("align_gan", {"loss_joint", "loss_pixel_id", "loss_pixel_triplet"}),
        ("jsia", {"loss_id", "loss_pixel", "loss_triplet"}),
    ],
)
def test_two_processes_go_past_the_warm_up_of_generators_that_have_optimisers_of_their_own(
    method: str,
    afterwards: set[str],
    ready_processes: None,
    tiny_recipe: Build,
    two_modalities: Dataset,
    tmp_path: Path,
) -> None:
    """With those of the scene's recipe; at last from pictures that each process draws by a chance of its own."""
    own = load_recipe(f"{method}_synth").model_dump(mode="json")["optimiser"]["own"]
    assert "generators" in own
    settings = ("method.warmup_epochs=1", f"optimiser.own={json.dumps(own)}")
    small = partial(small_recipe, tiny_recipe, method, "", *settings, chance=False)
    warm, joint = compare_two_processes(small, two_modalities, tmp_path)
    assert joint.keys() - warm.keys() == afterwards
    for name, drawing in (("drawn", ()), ("people", ("method.gan_people=2",))):
        recipe = small("training.devices=2", "method.gan_pictures=2", *drawing)
        drawn = train(recipe, tmp_path / name, dataset=two_modalities)
        assert [row.keys() for row in drawn.history] == [warm.keys(), joint.keys()]
        assert all(weights.isfinite().all() for weights in load_file(drawn.folder.last).values())


def test_two_processes_train_two_networks_on_lots_of_their_own_like_two_parts_of_a_batch(
    ready_processes: None, tiny_recipe: Build, two_modalities: Dataset, tmp_path: Path
) -> None:
    """In an epoch of all pictures, and in one of P x K for each."""
    lots = json.dumps({"name": "cross_modality_lots", "ids": 4, "pictures": 2, "steps": 3, "views": [2, 1]})
    settings = (*UNJUDGED["dart"], f"sampler={lots}")
    compare_two_processes(
        partial(small_recipe, tiny_recipe, "dart", "", *settings, chance=False), two_modalities, tmp_path
    )


def test_two_processes_judge_the_names_of_all_pictures_together(
    ready_processes: None, tiny_recipe: Build, two_modalities: Dataset, tmp_path: Path
) -> None:
    recipe = small_recipe(tiny_recipe, "dart", "", "training.devices=2", chance=False)
    warm, judged = train(recipe, tmp_path / "run", dataset=two_modalities).history
    assert judged.keys() - warm.keys() == {"loss_triplet_1", "loss_triplet_2"}


def test_two_processes_that_go_on_within_an_epoch_note_the_losses_of_all_its_steps(
    ready_processes: None, tiny_recipe: Build, two_modalities: Dataset, tmp_path: Path
) -> None:
    settings = ("training.devices=2", "training.save_minutes=0.000001", "schedule.epochs=4")  # of three steps
    recipe = small_recipe(tiny_recipe, "ddag", "", *settings, chance=False)
    whole = train(recipe, tmp_path / "whole", dataset=two_modalities)
    with pytest.raises(ProcessRaisedException, match="killed"):
        train(recipe, tmp_path / "run", dataset=two_modalities, reporter=FailAfter(STEPS_BETWEEN_ASKING + 1))
    state = load_state(RunFolder(tmp_path / "run").state)
    assert (state.place.epoch, state.place.step) == (3, 1)
    assert len(state.sums) == 2
    assert state.sums[0] == state.place.sums != state.sums[1]
    resumed = train(recipe, tmp_path / "run", dataset=two_modalities)
    clocks = {"seconds", "images_per_second"}
    for expected, found in zip(whole.history, resumed.history, strict=True):
        assert {name: value for name, value in found.items() if name not in clocks} == {
            name: value for name, value in expected.items() if name not in clocks
        }
    expected, found = (load_file(each.folder.last) for each in (whole, resumed))
    assert [name for name, value in expected.items() if not torch.equal(found[name], value)] == []
