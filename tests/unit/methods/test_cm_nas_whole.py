"""CM-NAS at published size against what its release computes (tests/golden/networks)."""

import pytest
import torch

from golden.networks.fill import Case
from golden_files import FOLDER
from golden_releases import Whole, check_step, read_patches, read_whole
from tapetum.core.errors import CheckpointError
from tapetum.core.types import Batch
from tapetum.methods import cm_nas, convert_from, convert_to
from tapetum.methods._official import to_theirs
from tapetum.runs.recipe import load_recipe

pytestmark = pytest.mark.slow  # whole published networks

LAYOUT = "cm-nas-official"
DIGITS = " ".join(map(str, Case(FOLDER / "networks" / "cm_nas.npz").info["options"]["config"]))


@pytest.fixture(scope="module")
def whole() -> Whole:
    return read_whole("cm_nas", LAYOUT, {"config": DIGITS})


def renamed(values):
    return to_theirs(values, cm_nas._renaming(cm_nas.Options(config=DIGITS)))


def test_a_released_checkpoint_comes_in_by_the_norms_that_counted_steps_and_goes_out_without_the_others(whole):
    released = whole.released
    assert len(released) == 854
    with pytest.raises(CheckpointError, match=r"does not tell its config; add --set method\.config=VALUE"):
        convert_from(LAYOUT, released)  # all its norms have counted a hundred
    used = {f"module.{name}" for name in renamed(whole.method.state_dict())}
    counted = {
        name: value * (name in used) if name.endswith("num_batches_tracked") else value
        for name, value in released.items()
    }
    found = convert_from(LAYOUT, counted)
    assert (found.method, found.num_ids, found.options["config"]) == ("cm_nas", 395, DIGITS)
    written = convert_to(LAYOUT, found.options, found.state)
    assert written.keys() == released.keys()
    assert all(torch.equal(written[name], released[name]) for name in used)
    assert not any(written[name].any() for name in written.keys() - used)
    again = convert_from(LAYOUT, written)
    assert (again.options, again.state.keys()) == (found.options, found.state.keys())


@pytest.mark.parametrize("side", ["visible", "infrared"])
def test_vectors_for_search_and_the_maps_before_them_are_the_releases(whole, side):
    method = whole.method.eval()
    maps: dict[str, torch.Tensor] = {}
    hooks = [
        method.backbone.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: maps.update({name: output})
        )
        for name in ("layer3", "layer4")
    ]
    images = whole.pictures("eval", side)
    modalities = torch.full((len(images),), int(side == "infrared"))
    with torch.no_grad():
        output = method(images, modalities, modalities)
    for hook in hooks:
        hook.remove()
    for name, value in maps.items():
        whole.near(f"eval/{side}.{name}.patch", read_patches(value))
    whole.near(f"eval/{side}_pool", output.feature)
    whole.near(f"eval/{side}_embedding", torch.nn.functional.normalize(output.embedding))


def test_a_training_step_with_the_recipe_is_the_releases(whole):
    """From a batch in another order than the release's, whose first half is visible."""
    labels = torch.from_numpy(whole.case.arrays["train/in/labels"]).repeat(2)
    count = len(labels) // 2
    modalities, rows = torch.arange(2).repeat_interleave(count), torch.arange(2 * count)
    images = torch.cat([whole.pictures("train", side) for side in ("visible", "infrared")])
    order = torch.randperm(2 * count, generator=torch.Generator().manual_seed(0))
    batch = Batch(images, labels, labels, modalities, modalities, rows).select(order)
    called = {"similarity": "sp", "discrepancy": "cmmd"}
    check_step(whole, whole.method.train(), batch, load_recipe("cm_nas_sysu"), renamed, called)
