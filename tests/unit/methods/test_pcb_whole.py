"""PCB at published size against what layumi's release computes (tests/golden/networks)."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from golden.networks.fill import Case
from golden_files import FOLDER
from tapetum.core.errors import CheckpointError
from tapetum.core.types import Batch
from tapetum.methods import build_method, convert_from, convert_to, pcb
from tapetum.methods._official import to_theirs
from tapetum.runs.convert import export_checkpoint, import_checkpoint
from tapetum.runs.recipe import load_recipe
from tapetum.training.optimisation import build_optimisers, set_learning_rates
from tapetum.training.stepping import turns_of

pytestmark = pytest.mark.slow  # whole published networks

LAYOUT, PARTS = "pcb-official", 6
DEAD = ("model.fc.weight", "model.fc.bias")


@pytest.fixture(scope="module")
def case() -> Case:
    return Case(FOLDER / "networks" / "pcb.npz")


@pytest.fixture(scope="module")
def released(case: Case) -> dict[str, Tensor]:
    state = case.checkpoint(torch.from_numpy)
    sums = torch.stack([state[key].sum(dtype=torch.float64) for key in case.keys])
    torch.testing.assert_close(sums, torch.from_numpy(case.arrays["weights/cfg/sum"]), rtol=1e-6, atol=1e-6)
    return state


@pytest.fixture(scope="module")
def whole(released: dict[str, Tensor]) -> nn.Module:
    """With dropout off, as the case is."""
    found = convert_from(LAYOUT, released)
    method = build_method("pcb", found.options | {"dropout": 0.0}, found.num_ids)
    method.load_state_dict(found.state)
    return method


def assert_near(case: Case, entry: str, found: Tensor) -> None:
    """Within the tolerance of an entry such as "eval/embedding", relative to the largest value."""
    kind, name = entry.split("/")
    expected = torch.from_numpy(case.arrays[f"{kind}/out/{name}"]).double()
    assert found.shape == expected.shape
    deviation = float((found.detach().double() - expected).abs().max())
    allowed = case.tolerance(entry) * float(expected.abs().max())
    assert deviation <= allowed, f"{entry}: {deviation:.3g} where {allowed:.3g} is allowed"


def test_a_released_checkpoint_comes_in_and_goes_out_with_equal_tensors(case, released, tmp_path):
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


def test_the_vector_for_search_and_the_maps_before_it_are_the_releases(case, whole):
    method = whole.eval()
    backbone = method.branch.backbone
    places = {"stem": backbone.bn1} | {f"layer{n}": backbone.get_submodule(f"layer{n}")[-1] for n in range(1, 5)}
    maps: dict[str, Tensor] = {}
    # Copies, because the ReLU behind the first norm works in place.
    hooks = [
        place.register_forward_hook(lambda module, inputs, output, name=name: maps.update({name: output.clone()}))
        for name, place in places.items()
    ]
    images = torch.from_numpy(case.pictures("eval", "visible")).float() / 255
    nowhere = torch.zeros(len(images), dtype=torch.int64)
    with torch.no_grad():
        output = method(images, nowhere, nowhere)
        for hook in hooks:
            hook.remove()
        vectors = method.embed(images, nowhere, nowhere, mirror=True)
    known = {key.split("/")[2].split(".")[0] for key in case.arrays if key.endswith(".mean") and key.startswith("eval")}
    assert maps.keys() == known
    for name, found in maps.items():
        channels, height, width = found.shape[1:]
        steps = max(1, channels // 16), max(1, height // 6), max(1, width // 3)
        assert_near(case, f"eval/{name}.mean", found.mean((2, 3)))
        assert_near(case, f"eval/{name}.patch", found[:, :: steps[0], :: steps[1], :: steps[2]])
    assert_near(case, "eval/feature", output.parts.transpose(1, 2))
    assert_near(case, "eval/logits", output.logits.transpose(0, 1))
    assert_near(case, "eval/embedding", vectors)


def test_a_training_step_with_the_recipe_is_the_releases(case, whole):
    """Losses, gradients, running statistics, and how far the optimiser moves each weight."""
    method = copy.deepcopy(whole).train()
    recipe = load_recipe("pcb_market1501")
    (optimiser,) = build_optimisers(method, method.parameter_groups(), recipe.optimiser, turns_of(method))
    before = {name: weights.detach().clone() for name, weights in method.named_parameters()}
    labels = torch.from_numpy(case.arrays["train/in/labels"])
    images = torch.from_numpy(case.pictures("train", "images")).float() / 255
    batch = Batch(images, labels, labels, labels, torch.zeros_like(labels))

    output = method(images, batch.modalities, batch.camids)
    for part, scores in enumerate(output.logits):
        assert_near(case, f"train/loss.id_{part}", functional.cross_entropy(scores, labels))
    losses = method.losses(output, batch)
    assert losses.keys() == {"id"}
    assert_near(case, "train/loss.total", losses["id"])
    losses["id"].backward()
    gradients = {name: weights.grad.clone() for name, weights in method.named_parameters()}
    set_learning_rates(optimiser.inner, recipe.schedule, 0.0)
    optimiser.inner.step()
    moved = {name: weights.detach() - before[name] for name, weights in method.named_parameters()}

    renaming = pcb.renaming_of_layumi(method.options)
    parameters = [str(name) for name in case.arrays["train/cfg/parameters"] if name not in DEAD]
    kept = torch.tensor([name not in DEAD for name in case.arrays["train/cfg/parameters"].tolist()])
    gradients, moved = to_theirs(gradients, renaming), to_theirs(moved, renaming)
    assert gradients.keys() == set(parameters)
    rates = {id(w): g["lr"] for g in optimiser.inner.param_groups for w in g["params"]}
    theirs = dict(zip(to_theirs(dict(method.named_parameters()), renaming), method.parameters(), strict=True))
    expected = torch.from_numpy(case.arrays["train/cfg/lr"])[kept]
    assert [rates[id(theirs[name])] for name in parameters] == pytest.approx(expected.tolist())
    for kind, values in (("grad", gradients), ("step", moved)):
        norms = torch.stack([values[name].double().norm() for name in parameters])
        dead = -1.0 if kind == "grad" else 0.0  # the classifier that is not built
        found = torch.full(kept.shape, dead, dtype=torch.float64).masked_scatter(kept, norms)
        assert_near(case, f"train/parameter_{kind}_norm", found)
        for top in {name.split(".")[0] for name in parameters}:
            inside = norms[torch.tensor([name.split(".")[0] == top for name in parameters])]
            assert_near(case, f"train/{kind}_norm.{top}", inside.norm())
    first = torch.stack([functional.pad(gradients[name].flatten()[:8], (0, 8))[:8] for name in parameters])
    complete = torch.from_numpy(case.arrays["train/out/parameter_grad_first"]).clone()
    complete[kept] = first
    assert_near(case, "train/parameter_grad_first", complete)

    state = to_theirs(method.state_dict(), renaming)
    layers = [str(name) for name in case.arrays["train/cfg/norm_layers"]]
    running = [[state[f"{name}.running_{each}"].double().norm() for each in ("mean", "var")] for name in layers]
    assert_near(case, "train/running_norm", torch.tensor(running, dtype=torch.float64))
