"""CM-NAS at published size against what its release computes (tests/golden/networks)."""

import pytest
import torch

from golden.networks.fill import Case
from golden_files import FOLDER
from golden_networks import Whole, read_whole, take_step, watch
from tapetum.core.errors import CheckpointError
from tapetum.methods import convert_from, convert_to
from tapetum.runs.recipe import load_recipe

pytestmark = pytest.mark.slow  # whole published networks

LAYOUT = "cm-nas-official"
DIGITS = " ".join(map(str, Case(FOLDER / "networks" / "cm_nas.npz").info["options"]["config"]))


@pytest.fixture(scope="module")
def whole() -> Whole:
    return read_whole("cm_nas", LAYOUT, told={"config": DIGITS})


def test_a_released_checkpoint_comes_in_by_the_norms_that_counted_steps_and_goes_out_without_the_others(whole):
    released = whole.released
    assert len(released) == 854
    with pytest.raises(CheckpointError, match=r"does not tell its config; add --set method\.config=VALUE"):
        convert_from(LAYOUT, released)  # all its norms have counted a hundred
    used = {f"module.{name}" for name in whole.renamed(whole.method.state_dict())}
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
    images = whole.pictures("eval", side)
    modalities = torch.full((len(images),), int(side == "infrared"))
    with torch.no_grad(), watch({name: method.backbone.get_submodule(name) for name in ("layer3", "layer4")}) as maps:
        output = method(images, modalities, modalities)
    whole.near_maps(maps, f"{side}.")
    whole.near(f"eval/{side}_pool", output.feature)
    whole.near(f"eval/{side}_embedding", torch.nn.functional.normalize(output.embedding))


def test_a_training_step_with_the_recipe_is_the_releases(whole):
    """From a batch in another order than the release's, whose first half is visible."""
    theirs = whole.batch()
    order = torch.randperm(len(theirs), generator=torch.Generator().manual_seed(0))
    batch, method = theirs.select(order), whole.method.train()
    losses = method.losses(method(batch.images, batch.modalities, batch.camids), batch)
    total = torch.stack(list(losses.values())).sum()
    step = take_step(method, total, load_recipe("cm_nas_sysu"))
    for ours, name in (("id", "id"), ("triplet", "triplet"), ("similarity", "sp"), ("discrepancy", "cmmd")):
        whole.near(f"train/loss.{name}", losses.pop(ours))
    assert not losses
    whole.near("train/loss.total", total)
    whole.check_step(step)
    whole.check_statistics(method, unused=78)
