"""MPANet at published size against what its release computes (tests/golden/networks)."""

import pytest
import torch

from golden_releases import Whole, check_step, read_patches, read_whole
from tapetum.core.types import Batch
from tapetum.methods import convert_from, convert_to, mpanet
from tapetum.methods._official import to_theirs
from tapetum.runs.recipe import load_recipe

pytestmark = pytest.mark.slow  # whole published networks

LAYOUT = "mpanet-official"
EVERY = 7  # of the embedding's numbers the file keeps


@pytest.fixture(scope="module")
def whole() -> Whole:
    return read_whole("mpanet", LAYOUT)


def renamed(values):
    return to_theirs(values, mpanet.RENAMING)


def test_a_released_checkpoint_comes_in_and_goes_out_with_equal_tensors(whole):
    released = whole.released
    assert len(released) == 334
    assert sum(released[name].numel() for name in renamed(dict(whole.method.named_parameters()))) == 41_192_518
    found = convert_from(LAYOUT, released)
    assert (found.method, found.num_ids, found.options["parts"]) == ("mpanet", 395, 6)
    written = convert_to(LAYOUT, found.options, found.state)
    assert written.keys() == released.keys()
    assert all(torch.equal(written[name], value) for name, value in released.items())


def test_vectors_for_search_and_the_maps_before_them_are_the_releases(whole):
    method = whole.method.eval()
    maps: dict[str, torch.Tensor] = {}
    for name, place in zip(("mam3", "mam4"), method.alleviations, strict=True):
        place.register_forward_hook(lambda module, inputs, output, name=name: maps.update({name: output}))
    images = whole.pictures("eval", "visible")
    nowhere = torch.zeros(len(images), dtype=torch.int64)  # one network: of infrared pictures it computes the same
    with torch.no_grad():
        output = method(images, nowhere, nowhere)
    whole.near("eval/visible_embedding", torch.nn.functional.normalize(output.embedding)[:, ::EVERY])
    whole.near("eval/visible.masks.mean", output.maps["masks"].mean((2, 3)))
    for name, value in (*maps.items(), ("masks", output.maps["masks"])):
        whole.near(f"eval/visible.{name}.patch", read_patches(value))


def test_a_training_step_with_the_recipe_is_the_releases(whole):
    """From a batch in another order than the release's, which has four pictures of each person together."""
    labels = torch.from_numpy(whole.case.arrays["train/in/labels"]).repeat(2)
    modalities = torch.arange(2).repeat_interleave(len(labels) // 2)
    images = torch.cat([whole.pictures("train", side) for side in ("visible", "infrared")])
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    batch = Batch(images, labels, labels, 1 + 2 * modalities, modalities).select(order)
    called = {"centre_cluster": "center_cluster"}
    state = check_step(whole, whole.method.train(), batch, load_recipe("mpanet_sysu"), renamed, called)
    average = state["visible_classifier_.weight"]
    whole.near("train/extra.visible_classifier_ema_first_columns", average[:, :4])
