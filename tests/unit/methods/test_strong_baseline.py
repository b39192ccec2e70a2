"""BoT and AGW at published size against what their releases compute (tests/golden/networks)."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from golden.networks.fill import tensor
from golden_networks import Whole, read_whole, take_step, watch
from tapetum.core.errors import CheckpointError
from tapetum.core.types import Batch
from tapetum.methods import build_options, convert_from, convert_to
from tapetum.runs.convert import export_checkpoint, import_checkpoint
from tapetum.runs.recipe import load_recipe

NUM_TENSORS = {"bot": 324, "agw": 390}
CENTRES = "head.centres.weight"


@pytest.fixture(scope="module", params=["bot", "agw"])
def whole(request) -> Whole:
    """With class centres, which the releases keep in a file of their own."""
    weight = build_options(request.param).centre_weight
    found = read_whole(request.param, f"{request.param}-official", changed={"centre_weight": weight}, beside=CENTRES)
    centres = found.method.head.centres.weight
    values = tensor("centres", tuple(centres.shape), found.case.info["seed"], 0, 1)
    centres.data.copy_(torch.from_numpy(values))
    return found


def places(whole: Whole) -> dict[str, nn.Module]:
    """Whose outputs the case knows."""
    branch = whole.method.branch
    found = {"stem": branch.backbone.bn1}
    found |= {f"layer{number}": branch.backbone.get_submodule(f"layer{number}")[-1] for number in range(1, 5)}
    if whole.layout.method == "agw":
        found |= {"non_local_2_1": branch.non_local[1][1], "non_local_3_2": branch.non_local[2][2], "pool": branch.pool}
    return found


def without(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.slow
def test_a_released_checkpoint_comes_in_and_goes_out_with_equal_tensors(whole):
    layout, released = whole.layout.layout, whole.released
    assert len(released) == NUM_TENSORS[whole.layout.method]
    found = convert_from(layout, released)
    assert (found.method, found.num_ids, found.options["centre_weight"]) == (whole.layout.method, 300, 0.0)
    written = convert_to(layout, found.options, found.state)
    assert written.keys() == released.keys()
    assert all(torch.equal(written[name], value) for name, value in released.items())
    with_centres = convert_to(layout, {}, found.state | {CENTRES: torch.zeros(300, 2048)})
    assert with_centres.keys() == released.keys(), "the releases keep centres in a file of their own"
    for broken, message in (
        (released | {"extra.weight": torch.zeros(1)}, r"1 unknown tensor\(s\), first 'extra.weight'"),
        (released | {"base.conv1.weight": torch.zeros(64, 1, 7, 7)}, r"base.conv1.weight' is \(64, 1, 7, 7\)"),
        (without(released, "bottleneck.bias"), r"1 missing tensor\(s\), first 'bottleneck.bias'"),
        (without(released, "classifier.weight"), "no tensor 'classifier.weight'"),
    ):
        with pytest.raises(CheckpointError, match=message):
            convert_from(layout, broken)


@pytest.mark.parametrize("whole", ["agw"], indirect=True)
def test_a_released_file_becomes_one_of_ours_with_the_pictures_of_its_recipe(whole, tmp_path):
    file = tmp_path / whole.case.info["checkpoint"]["file"]
    torch.save(whole.released, file)
    header = import_checkpoint("agw-official", file, tmp_path / "ours.safetensors")
    assert (header.method, header.num_ids) == ("agw", 300)
    assert header.recipe["data"] == load_recipe("agw_market1501").model_dump(mode="json")["data"]
    export_checkpoint("agw-official", tmp_path / "ours.safetensors", tmp_path / "theirs.pth")
    again = torch.load(tmp_path / "theirs.pth", weights_only=True)
    assert again.keys() == whole.released.keys()
    assert all(torch.equal(again[name], value) for name, value in whole.released.items())


def test_the_vector_for_search_and_the_maps_before_it_are_the_releases(whole):
    method = whole.method.eval()
    images = whole.pictures("eval", "visible")
    nowhere = torch.zeros(len(images), dtype=torch.int64)
    with torch.no_grad(), watch(places(whole)) as maps:
        output = method(images, nowhere, nowhere)
    whole.near_maps({name: found if found.ndim == 4 else found[:, :, None, None] for name, found in maps.items()})
    if "eval/out/feature_before" in whole.case.arrays:
        whole.near("eval/feature_before", output.feature)
    whole.near("eval/feature_after", output.embedding)
    whole.near("eval/embedding", functional.normalize(output.embedding))


def test_a_training_step_with_the_recipe_is_the_releases(whole):
    """Losses, gradients, running statistics, and how far both optimisers move each weight in the first epoch."""
    case, method = whole.case, copy.deepcopy(whole.method).train()
    labels = torch.from_numpy(case.arrays["train/in/labels"])
    images = whole.pictures("train", "images")
    batch = Batch(images, labels, labels, labels, torch.zeros_like(labels))

    losses = method.losses(method(images, batch.modalities, batch.camids), batch)
    assert losses.keys() == {"id", "triplet", "centre"}
    total = torch.stack(list(losses.values())).sum()
    step = take_step(method, total, load_recipe(f"{whole.layout.method}_market1501"))

    for name, value in losses.items():
        whole.near(f"train/loss.{name}", value)
    whole.near("train/loss.total", total)
    whole.check_step(step)
    whole.check_statistics(method)

    rows = torch.from_numpy(case.arrays["train/out/extra.centre_rows"])
    whole.near("train/extra.centre_step", step.moved[CENTRES][rows, :64])
    others = torch.ones(len(step.moved[CENTRES]), dtype=torch.bool)
    others[rows] = False
    assert not step.moved[CENTRES][others].any()
