"""BoT and AGW at published size against what their releases compute (tests/golden/networks)."""

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from golden.networks.fill import Case, tensor
from golden_files import FOLDER
from tapetum.core.errors import CheckpointError
from tapetum.core.types import Batch
from tapetum.methods import agw, bot, build_method, convert_from, convert_to
from tapetum.runs.convert import export_checkpoint, import_checkpoint
from tapetum.runs.recipe import load_recipe
from tapetum.training.optimisation import build_optimisers, set_learning_rates
from tapetum.training.stepping import turns_of

RENAMING = {"bot": bot.RENAMING, "agw": agw.RENAMING}
NUM_TENSORS = {"bot": 324, "agw": 390}
CENTRES = "head.centres.weight"


@dataclass(frozen=True)
class Whole:
    """A method with the weights of its golden case, and class centres."""

    name: str
    case: Case
    released: dict[str, Tensor]
    method: nn.Module


@pytest.fixture(scope="module", params=["bot", "agw"])
def whole(request) -> Whole:
    case = Case(FOLDER / "networks" / f"{request.param}.npz")
    released = case.checkpoint(torch.from_numpy)
    sums = torch.stack([released[key].sum(dtype=torch.float64) for key in case.keys])
    torch.testing.assert_close(sums, torch.from_numpy(case.arrays["weights/cfg/sum"]), rtol=1e-6, atol=1e-6)
    found = convert_from(f"{request.param}-official", released)
    method = build_method(request.param, None, found.num_ids)
    width = method.branch.width
    centres = torch.from_numpy(tensor("centres", (found.num_ids, width), case.info["seed"], 0, 1))
    method.load_state_dict(found.state | {CENTRES: centres})
    return Whole(request.param, case, released, method)


def assert_near(case: Case, entry: str, found: Tensor) -> None:
    """Within the tolerance of an entry such as "eval/embedding", relative to the largest value."""
    kind, name = entry.split("/")
    expected = torch.from_numpy(case.arrays[f"{kind}/out/{name}"]).double()
    assert found.shape == expected.shape
    deviation = float((found.detach().double() - expected).abs().max())
    allowed = case.tolerance(entry) * float(expected.abs().max())
    assert deviation <= allowed, f"{entry}: {deviation:.3g} where {allowed:.3g} is allowed"


def their_name(whole: Whole, ours: str) -> str:
    return next(theirs + ours.removeprefix(own) for own, theirs in RENAMING[whole.name] if ours.startswith(own))


def places(whole: Whole) -> dict[str, nn.Module]:
    """Whose outputs the case knows."""
    branch = whole.method.branch
    found = {"stem": branch.backbone.bn1}
    found |= {f"layer{number}": branch.backbone.get_submodule(f"layer{number}")[-1] for number in range(1, 5)}
    if whole.name == "agw":
        found |= {"non_local_2_1": branch.non_local[1][1], "non_local_3_2": branch.non_local[2][2], "pool": branch.pool}
    return found


def without(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.slow
def test_a_released_checkpoint_comes_in_and_goes_out_with_equal_tensors(whole):
    layout, released = f"{whole.name}-official", whole.released
    assert len(released) == NUM_TENSORS[whole.name]
    found = convert_from(layout, released)
    assert (found.method, found.num_ids, found.options["centre_weight"]) == (whole.name, 300, 0.0)
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
    case, method = whole.case, whole.method.eval()
    maps: dict[str, Tensor] = {}
    hooks = [
        place.register_forward_hook(lambda module, inputs, output, name=name: maps.update({name: output}))
        for name, place in places(whole).items()
    ]
    images = torch.from_numpy(case.pictures("eval", "visible")).float() / 255
    nowhere = torch.zeros(len(images), dtype=torch.int64)
    with torch.no_grad():
        output = method(images, nowhere, nowhere)
    for hook in hooks:
        hook.remove()
    known = {key.split("/")[2].split(".")[0] for key in case.arrays if key.endswith(".mean") and key.startswith("eval")}
    assert maps.keys() == known
    for name, found in maps.items():
        grid = found if found.ndim == 4 else found[:, :, None, None]
        channels, height, width = grid.shape[1:]
        steps = max(1, channels // 16), max(1, height // 6), max(1, width // 3)
        assert_near(case, f"eval/{name}.mean", grid.mean((2, 3)))
        assert_near(case, f"eval/{name}.patch", grid[:, :: steps[0], :: steps[1], :: steps[2]])
    if "eval/out/feature_before" in case.arrays:
        assert_near(case, "eval/feature_before", output.feature)
    assert_near(case, "eval/feature_after", output.embedding)
    assert_near(case, "eval/embedding", functional.normalize(output.embedding))


def test_a_training_step_with_the_recipe_is_the_releases(whole):
    """Losses, gradients, running statistics, and how far both optimisers move each weight in the first epoch."""
    case, method = whole.case, copy.deepcopy(whole.method).train()
    recipe = load_recipe(f"{whole.name}_market1501")
    optimisers = build_optimisers(method, method.parameter_groups(), recipe.optimiser, turns_of(method))
    before = {name: weights.detach().clone() for name, weights in method.named_parameters()}
    labels = torch.from_numpy(case.arrays["train/in/labels"])
    images = torch.from_numpy(case.pictures("train", "images")).float() / 255
    batch = Batch(images, labels, labels, labels, torch.zeros_like(labels))

    losses = method.losses(method(images, batch.modalities, batch.camids), batch)
    assert losses.keys() == {"id", "triplet", "centre"}
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    gradients = {name: weights.grad.clone() for name, weights in method.named_parameters() if weights.requires_grad}
    for each in optimisers:
        if each.scheduled:
            set_learning_rates(each.inner, recipe.schedule, 0.0)
        each.inner.step()
    moved = {name: weights.detach() - before[name] for name, weights in method.named_parameters()}

    for name, value in losses.items():
        assert_near(case, f"train/loss.{name}", value)
    assert_near(case, "train/loss.total", total)
    ours = {their_name(whole, name): name for name in gradients if name != CENTRES}
    parameters = [str(name) for name in case.arrays["train/cfg/parameters"]]
    assert set(parameters) == set(ours)
    rates = {id(w): g["lr"] for each in optimisers for g in each.inner.param_groups for w in g["params"]}
    weights_by_name = dict(method.named_parameters())
    assert [rates[id(weights_by_name[ours[name]])] for name in parameters] == pytest.approx(case.arrays["train/cfg/lr"])
    for kind, values in (("grad", gradients), ("step", moved)):
        norms = torch.stack([values[ours[name]].double().norm() for name in parameters])
        assert_near(case, f"train/parameter_{kind}_norm", norms)
        for top in {name.split(".")[0] for name in parameters}:
            inside = norms[torch.tensor([name.split(".")[0] == top for name in parameters])]
            assert_near(case, f"train/{kind}_norm.{top}", inside.norm())
    first = [functional.pad(gradients[ours[name]].flatten()[:8], (0, 8))[:8] for name in parameters]
    assert_near(case, "train/parameter_grad_first", torch.stack(first))

    state = {their_name(whole, name): value for name, value in method.state_dict().items() if name != CENTRES}
    layers = [str(name) for name in case.arrays["train/cfg/norm_layers"]]
    running = [[state[f"{name}.running_{each}"].double().norm() for each in ("mean", "var")] for name in layers]
    assert_near(case, "train/running_norm", torch.tensor(running, dtype=torch.float64))

    rows = torch.from_numpy(case.arrays["train/out/extra.centre_rows"])
    assert_near(case, "train/extra.centre_step", moved[CENTRES][rows, :64])
    others = torch.ones(len(moved[CENTRES]), dtype=torch.bool)
    others[rows] = False
    assert not moved[CENTRES][others].any()
