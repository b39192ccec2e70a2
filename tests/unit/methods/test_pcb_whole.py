"""PCB at published size against what layumi's release computes (tests/golden/networks)."""

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from golden_networks import Whole, read_whole, take_step, watch
from tapetum.core.errors import CheckpointError
from tapetum.core.types import Batch
from tapetum.methods import convert_from, convert_to
from tapetum.runs.convert import export_checkpoint, import_checkpoint
from tapetum.runs.recipe import load_recipe

pytestmark = pytest.mark.slow  # whole published networks

LAYOUT, PARTS = "pcb-official", 6
DEAD = ("model.fc.weight", "model.fc.bias")


@pytest.fixture(scope="module")
def whole() -> Whole:
    """With dropout off, as the case is."""
    return read_whole("pcb", LAYOUT, changed={"dropout": 0.0})


def test_a_released_checkpoint_comes_in_and_goes_out_with_equal_tensors(whole, tmp_path):
    case, released = whole.case, whole.released
    assert len(released) == 374
    torch.save(released, tmp_path / case.info["checkpoint"]["file"])
    header = import_checkpoint(LAYOUT, tmp_path / case.info["checkpoint"]["file"], tmp_path / "ours.safetensors")
    assert (header.method, header.num_ids) == ("pcb", 300)
    assert header.recipe["data"] == load_recipe("pcb_night600").model_dump(mode="json")["data"]
    assert header.recipe["evaluation"]["mirror"]
    export_checkpoint(LAYOUT, tmp_path / "ours.safetensors", tmp_path / "theirs.pth")
    again = torch.load(tmp_path / "theirs.pth", weights_only=True)
    assert again.keys() == released.keys()
    for name, value in released.items():
        assert torch.equal(again[name], torch.zeros_like(value) if name in DEAD else value), name

    def without(name: str) -> dict[str, Tensor]:
        return {key: value for key, value in released.items() if key != name}

    for broken, message in (
        (released | {"extra": torch.zeros(1)}, r"1 unknown tensor\(s\), first 'extra'"),
        (without("model.fc.bias"), r"1 missing tensor\(s\), first 'model.fc.bias'"),
        (without("classifier3.add_block.0.bias"), r"1 missing tensor\(s\), first 'classifier3.add_block.0.bias'"),
        (without("classifier0.classifier.0.weight"), "no tensor 'classifier0.classifier.0.weight'"),
    ):
        with pytest.raises(CheckpointError, match=message):
            convert_from(LAYOUT, broken)
    state = convert_from(LAYOUT, released).state
    for options, message in (
        ({"last_stride": 2}, r"method\.last_stride: 2 has no place in the released layout; only 1 fits it"),
        ({"pooling": "refined"}, r"method\.pooling: 'refined' has no place"),
    ):
        with pytest.raises(CheckpointError, match=message):
            convert_to(LAYOUT, options, state)


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
    whole.near("eval/feature", output.parts.transpose(1, 2))
    whole.near("eval/logits", output.logits.transpose(0, 1))
    whole.near("eval/embedding", vectors)


def test_a_training_step_with_the_recipe_is_the_releases(whole):
    """Losses, gradients, running statistics, and how far the optimiser moves each weight."""
    case, method = whole.case, copy.deepcopy(whole.method).train()
    labels = torch.from_numpy(case.arrays["train/in/labels"])
    images = whole.pictures("train", "images")
    batch = Batch(images, labels, labels, labels, torch.zeros_like(labels))

    output = method(images, batch.modalities, batch.camids)
    for part, scores in enumerate(output.logits):
        whole.near(f"train/loss.id_{part}", functional.cross_entropy(scores, labels))
    losses = method.losses(output, batch)
    assert losses.keys() == {"id"}
    whole.near("train/loss.total", losses["id"])
    step = take_step(method, losses["id"], load_recipe("pcb_market1501"))
    whole.check_step(step)
    whole.check_statistics(method)
