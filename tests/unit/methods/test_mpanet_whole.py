"""MPANet at published size against what its release computes (tests/golden/networks)."""

import pytest
import torch

from golden_networks import Whole, read_whole, take_step, watch
from tapetum.core.types import Modality
from tapetum.methods import convert_from, convert_to
from tapetum.runs.recipe import load_recipe

pytestmark = pytest.mark.slow  # whole published networks

LAYOUT = "mpanet-official"
EVERY = 7  # of the embedding's numbers the file keeps


@pytest.fixture(scope="module")
def whole() -> Whole:
    return read_whole("mpanet", LAYOUT)


def test_a_released_checkpoint_comes_in_and_goes_out_with_equal_tensors(whole):
    released = whole.released
    assert len(released) == 334
    assert sum(released[name].numel() for name in whole.renamed(dict(whole.method.named_parameters()))) == 41_192_518
    found = convert_from(LAYOUT, released)
    assert (found.method, found.num_ids, found.options["parts"]) == ("mpanet", 395, 6)
    written = convert_to(LAYOUT, found.options, found.state)
    assert written.keys() == released.keys()
    assert all(torch.equal(written[name], value) for name, value in released.items())


def test_vectors_for_search_and_the_maps_before_them_are_the_releases(whole):
    method = whole.method.eval()
    images = whole.pictures("eval", "visible")
    nowhere = torch.zeros(len(images), dtype=torch.int64)
    with torch.no_grad(), watch(dict(zip(("mam3", "mam4"), method.alleviations, strict=True))) as maps:
        output = method(images, nowhere, nowhere)
    whole.near("eval/visible_embedding", torch.nn.functional.normalize(output.embedding)[:, ::EVERY])
    whole.near_maps(maps | {"masks": output.maps["masks"]}, "visible.")
    with torch.no_grad():  # one network, which describes pictures alike whatever they were seen by
        visible, infrared = (method.embed(images, nowhere + modality, nowhere) for modality in Modality)
    whole.near("eval/visible_embedding", infrared[:, ::EVERY])
    assert torch.equal(visible, infrared)


def test_a_training_step_with_the_recipe_is_the_releases(whole):
    """From a batch in another order than the release's, which has four pictures of each person together."""
    theirs = whole.batch()
    order = torch.randperm(len(theirs), generator=torch.Generator().manual_seed(0))
    batch, method = theirs.select(order), whole.method.train()
    losses = method.losses(method(batch.images, batch.modalities, batch.camids), batch)
    total = torch.stack(list(losses.values())).sum()
    step = take_step(method, total, load_recipe("mpanet_sysu"))
    for name, value in losses.items():
        whole.near(f"train/loss.{'center_cluster' if name == 'centre_cluster' else name}", value)
    whole.near("train/loss.total", total)
    whole.check_step(step)
    whole.check_statistics(method)
    average = whole.renamed(method.state_dict())["visible_classifier_.weight"]
    whole.near("train/extra.visible_classifier_ema_first_columns", average[:, :4])
