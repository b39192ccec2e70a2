"""CAJ at published size against what its release computes (tests/golden/networks)."""

import copy
import dataclasses

import pytest
import torch

from golden_networks import Whole, read_whole, take_step, watch
from tapetum.core.errors import CheckpointError
from tapetum.core.types import Batch, Modality
from tapetum.core.vectors import normalise
from tapetum.methods import convert_from, convert_to
from tapetum.methods.caj import modality_divergence
from tapetum.runs.convert import import_checkpoint
from tapetum.runs.recipe import load_recipe

pytestmark = pytest.mark.slow  # whole published networks

LAYOUT = "caj-official"


@pytest.fixture(scope="module")
def whole() -> Whole:
    return read_whole("caj", LAYOUT)


def test_a_released_checkpoint_comes_in_and_goes_out_with_equal_tensors(whole):
    released = whole.released
    assert len(released) == 1025
    found = convert_from(LAYOUT, released)
    assert (found.method, found.num_ids) == ("caj", 395)
    written = convert_to(LAYOUT, found.options, found.state)
    assert written.keys() == released.keys()
    used = whole.renamed(found.state)
    assert len(used) == len(whole.method.state_dict())
    assert all(torch.equal(written[name], released[name]) for name in used)
    assert not any(written[name].any() for name in written.keys() - used.keys())
    missing = {name: value for name, value in released.items() if name != "NL_2.0.W.1.weight"}
    for broken, message in (
        (released | {"bottleneck_2.weight": torch.zeros(1)}, r"caj-official checkpoint: 1 unknown tensor\(s\)"),
        (missing, r"caj-official checkpoint: 1 missing tensor\(s\), first 'NL_2.0.W.1.weight'"),
    ):
        with pytest.raises(CheckpointError, match=message):
            convert_from(LAYOUT, broken)


def test_a_released_file_becomes_one_of_ours_with_the_pictures_of_its_recipe(whole, tmp_path):
    file = tmp_path / whole.case.info["checkpoint"]["file"]
    used = set(whole.renamed(whole.method.state_dict()))
    beside = whole.case.checkpoint(torch.from_numpy) | {"net": {k: v for k, v in whole.released.items() if k in used}}
    torch.save(beside, file)
    header = import_checkpoint(LAYOUT, file, tmp_path / "ours.safetensors")
    assert (header.method, header.num_ids) == ("caj", 395)
    usual = load_recipe("caj_sysu").model_dump(mode="json")
    for section in ("data", "augment", "sampler", "evaluation"):
        assert header.recipe[section] == usual[section]


@pytest.mark.parametrize("side", ["visible", "infrared"])
def test_vectors_for_search_and_the_maps_before_them_are_the_releases(whole, side):
    method = copy.copy(whole.method).eval()
    network, modality = method.network, Modality[side.upper()]
    places = {f"stem_{side}": network.stems[modality]}
    places |= {f"layer{number + 1}": stage[-1] for number, stage in enumerate(network.stages)}
    places |= {"non_local_2_1": method.non_local[1][1], "non_local_3_2": method.non_local[2][2]}
    images = whole.pictures("eval", side)
    nowhere = torch.zeros(len(images), dtype=torch.int64)
    modalities = torch.full_like(nowhere, modality)
    with torch.no_grad(), watch(places) as maps:
        output = method(images, modalities, nowhere)
    whole.near_maps(maps, f"{side}.")
    whole.near(f"eval/{side}_pool", normalise(output.feature))
    whole.near(f"eval/{side}_bn", normalise(output.embedding))
    method.options = dataclasses.replace(whole.method.options, test_feature="both")
    with torch.no_grad():
        halves = method.embed(images, modalities, nowhere, mirror=True).chunk(2, dim=1)
    for half, entry in zip(halves, ("embedding_pool", "embedding"), strict=True):
        whole.near(f"eval/{side}_{entry}", normalise(half))


def test_a_training_step_with_the_recipe_is_the_releases(whole):
    """Losses, gradients, running statistics and the first step, from a batch in another order than the release's."""
    case, method = whole.case, copy.deepcopy(whole.method).train()
    labels = torch.from_numpy(case.arrays["train/in/labels"])
    count = len(labels)
    theirs = Batch(
        images=torch.cat([whole.pictures("train", n) for n in ("visible", "visible_exchanged", "infrared")]),
        labels=labels.repeat(3),
        pids=labels.repeat(3),
        camids=torch.zeros(3 * count, dtype=torch.int64),
        modalities=torch.tensor([0, 0, 1]).repeat_interleave(count),
        rows=torch.cat([torch.arange(count).repeat(2), torch.arange(count, 2 * count)]),
        views=torch.tensor([0, 1, 0]).repeat_interleave(count),
    )
    order = torch.randperm(3 * count, generator=torch.Generator().manual_seed(0))
    batch = theirs.select(order)

    output = method(batch.images, batch.modalities, batch.camids)
    losses = method.losses(output, batch)
    assert losses.keys() == {"id", "triplet"}
    total = torch.stack(list(losses.values())).sum()
    step = take_step(method, total, load_recipe("caj_sysu"))

    whole.near("train/extra.feature", output.feature, order)
    whole.near("train/extra.logits", output.logits, order)
    for name, value in losses.items():
        whole.near(f"train/loss.{name}", value)
    whole.near("train/loss.total", total)
    pairs = torch.arange(count).repeat(3)[order]  # the release compares the pictures of one place
    divergence = modality_divergence(output.logits, batch.views, batch.modalities, pairs)
    whole.near("train/extra.kl_unweighted", divergence)

    whole.check_step(step)
    whole.check_statistics(method, unused=105)
