"""IDE+ at published size against what layumi's release computes (tests/golden/networks)."""

import copy

import pytest
import torch
from torch.nn import functional

from golden_networks import Whole, read_whole, take_step, watch
from tapetum.core.errors import CheckpointError
from tapetum.core.types import Batch
from tapetum.methods import convert_from
from tapetum.runs.convert import export_checkpoint, import_checkpoint
from tapetum.runs.recipe import load_recipe

pytestmark = pytest.mark.slow  # whole published networks

LAYOUT = "ide-official"
DEAD = ("model.fc.weight", "model.fc.bias")


@pytest.fixture(scope="module")
def whole() -> Whole:
    """With dropout off, as the case is."""
    return read_whole("ide_plus", LAYOUT, changed={"dropout": 0.0})


def test_a_released_checkpoint_comes_in_and_goes_out_with_equal_tensors(whole, tmp_path):
    case, released = whole.case, whole.released
    assert len(released) == 329
    torch.save(released, tmp_path / case.info["checkpoint"]["file"])
    header = import_checkpoint(LAYOUT, tmp_path / case.info["checkpoint"]["file"], tmp_path / "ours.safetensors")
    assert (header.method, header.num_ids) == ("ide", 300)
    assert header.recipe["data"] == load_recipe("ide_night600").model_dump(mode="json")["data"]
    assert header.recipe["evaluation"]["mirror"]
    export_checkpoint(LAYOUT, tmp_path / "ours.safetensors", tmp_path / "theirs.pth")
    again = torch.load(tmp_path / "theirs.pth", weights_only=True)
    assert again.keys() == released.keys()
    for name, value in released.items():
        assert torch.equal(again[name], torch.zeros_like(value) if name in DEAD else value), name
    for missing in ("classifier.add_block.1.bias", "model.fc.weight"):
        with pytest.raises(CheckpointError, match=rf"1 missing tensor\(s\), first '{missing}'"):
            convert_from(LAYOUT, {name: value for name, value in released.items() if name != missing})


def test_the_vector_for_search_and_the_maps_before_it_are_the_releases(whole):
    method = whole.method.eval()
    backbone = method.branch.backbone
    places = {"stem": backbone.bn1} | {f"layer{n}": backbone.get_submodule(f"layer{n}")[-1] for n in range(1, 5)}
    images = whole.pictures("eval", "visible")
    nowhere = torch.zeros(len(images), dtype=torch.int64)
    with torch.no_grad():
        with watch(places) as maps:
            output = method(images, nowhere, nowhere)
        vectors = method.embed(images, nowhere, nowhere, mirror=True)
    whole.near_maps(maps)
    whole.near("eval/pooled", output.feature)
    whole.near("eval/feature", output.embedding)
    whole.near("eval/logits", output.logits)
    whole.near("eval/embedding", vectors)


def test_a_training_step_with_the_recipe_is_the_releases(whole):
    """Losses, gradients, running statistics, and how far the optimiser moves each weight."""
    case, method = whole.case, copy.deepcopy(whole.method).train()
    labels = torch.from_numpy(case.arrays["train/in/labels"])
    images = whole.pictures("train", "images")
    batch = Batch(images, labels, labels, labels, torch.zeros_like(labels))

    output = method(images, batch.modalities, batch.camids)
    whole.near("train/loss.id", functional.cross_entropy(output.logits, labels))
    losses = method.losses(output, batch)
    assert losses.keys() == {"id"}
    whole.near("train/loss.total", losses["id"])
    step = take_step(method, losses["id"], load_recipe("ide_night600"))
    whole.check_step(step)
    whole.check_statistics(method)
