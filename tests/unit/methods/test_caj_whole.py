"""CAJ at published size against what its release computes (tests/golden/networks)."""

import copy
import dataclasses
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from golden.networks.fill import Case
from golden_files import FOLDER
from tapetum.core.errors import CheckpointError
from tapetum.core.types import Batch, Modality
from tapetum.core.vectors import normalise
from tapetum.methods import agw_vi, build_method, convert_from, convert_to
from tapetum.methods._official import to_theirs
from tapetum.methods.caj import modality_divergence
from tapetum.runs.convert import import_checkpoint
from tapetum.runs.recipe import load_recipe
from tapetum.training.optimisation import build_optimisers, set_learning_rates
from tapetum.training.stepping import turns_of

pytestmark = pytest.mark.slow  # whole published networks

LAYOUT = "caj-official"


@dataclass(frozen=True)
class Whole:
    """The method with the weights of its golden case."""

    case: Case
    released: dict[str, Tensor]
    method: nn.Module


@pytest.fixture(scope="module")
def whole() -> Whole:
    case = Case(FOLDER / "networks" / "caj.npz")
    released = case.checkpoint(torch.from_numpy)["net"]
    sums = torch.stack([released[key].sum(dtype=torch.float64) for key in case.keys])
    torch.testing.assert_close(sums, torch.from_numpy(case.arrays["weights/cfg/sum"]), rtol=1e-6, atol=1e-6)
    found = convert_from(LAYOUT, released)
    method = build_method(found.method, found.options, found.num_ids)
    method.load_state_dict(found.state)
    return Whole(case, released, method)


def assert_near(case: Case, entry: str, found: Tensor, rows: Tensor | slice = slice(None)) -> None:
    """Within the tolerance of an entry such as "eval/visible_pool", relative to its largest value."""
    kind, name = entry.split("/")
    expected = torch.from_numpy(case.arrays[f"{kind}/out/{name}"]).double()
    allowed = case.tolerance(entry) * float(expected.abs().max())
    expected = expected[rows] if expected.ndim else expected
    assert found.shape == expected.shape
    deviation = float((found.detach().double() - expected).abs().max())
    assert deviation <= allowed, f"{entry}: {deviation:.3g} where {allowed:.3g} is allowed"


def renamed(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return to_theirs(values, agw_vi.RENAMING)


def read_pictures(case: Case, kind: str, name: str) -> Tensor:
    return torch.from_numpy(case.pictures(kind, name)).float() / 255


def test_a_released_checkpoint_comes_in_and_goes_out_with_equal_tensors(whole):
    released = whole.released
    assert len(released) == 1025
    found = convert_from(LAYOUT, released)
    assert (found.method, found.num_ids) == ("caj", 395)
    written = convert_to(LAYOUT, found.options, found.state)
    assert written.keys() == released.keys()
    used = renamed(found.state)
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
    used = set(renamed(whole.method.state_dict()))
    beside = whole.case.checkpoint(torch.from_numpy) | {"net": {k: v for k, v in whole.released.items() if k in used}}
    torch.save(beside, file)
    header = import_checkpoint(LAYOUT, file, tmp_path / "ours.safetensors")
    assert (header.method, header.num_ids) == ("caj", 395)
    usual = load_recipe("caj_sysu").model_dump(mode="json")
    for section in ("data", "augment", "sampler", "evaluation"):
        assert header.recipe[section] == usual[section]


@pytest.mark.parametrize("side", ["visible", "infrared"])
def test_vectors_for_search_and_the_maps_before_them_are_the_releases(whole, side):
    case, method = whole.case, copy.copy(whole.method).eval()
    network, modality = method.network, Modality[side.upper()]
    places = {f"stem_{side}": network.stems[modality]}
    places |= {f"layer{number + 1}": stage[-1] for number, stage in enumerate(network.stages)}
    places |= {"non_local_2_1": method.non_local[1][1], "non_local_3_2": method.non_local[2][2]}
    maps: dict[str, Tensor] = {}
    hooks = [
        place.register_forward_hook(lambda module, inputs, output, name=name: maps.update({name: output}))
        for name, place in places.items()
    ]
    images = read_pictures(case, "eval", side)
    nowhere = torch.zeros(len(images), dtype=torch.int64)
    modalities = torch.full_like(nowhere, modality)
    with torch.no_grad():
        output = method(images, modalities, nowhere)
    for hook in hooks:
        hook.remove()
    known = {key.split("/")[2].split(".")[1] for key in case.arrays if key.startswith(f"eval/out/{side}.")}
    assert maps.keys() == known
    for name, found in maps.items():
        channels, height, width = found.shape[1:]
        steps = max(1, channels // 16), max(1, height // 6), max(1, width // 3)
        assert_near(case, f"eval/{side}.{name}.mean", found.mean((2, 3)))
        assert_near(case, f"eval/{side}.{name}.patch", found[:, :: steps[0], :: steps[1], :: steps[2]])
    assert_near(case, f"eval/{side}_pool", normalise(output.feature))
    assert_near(case, f"eval/{side}_bn", normalise(output.embedding))
    method.options = dataclasses.replace(whole.method.options, test_feature="both")
    with torch.no_grad():
        halves = method.embed(images, modalities, nowhere, mirror=True).chunk(2, dim=1)
    for half, entry in zip(halves, ("embedding_pool", "embedding"), strict=True):
        assert_near(case, f"eval/{side}_{entry}", normalise(half))


def test_a_training_step_with_the_recipe_is_the_releases(whole):
    """Losses, gradients, running statistics and the first step, from a batch in another order than the release's."""
    case, method = whole.case, copy.deepcopy(whole.method).train()
    recipe = load_recipe("caj_sysu")
    (optimiser,) = build_optimisers(method, method.parameter_groups(), recipe.optimiser, turns_of(method))
    before = {name: weights.detach().clone() for name, weights in method.named_parameters()}
    labels = torch.from_numpy(case.arrays["train/in/labels"])
    count = len(labels)
    theirs = Batch(
        images=torch.cat([read_pictures(case, "train", n) for n in ("visible", "visible_exchanged", "infrared")]),
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
    total.backward()
    trained = {name: weights for name, weights in method.named_parameters() if weights.requires_grad}
    gradients = renamed({name: weights.grad.clone() for name, weights in trained.items()})
    set_learning_rates(optimiser.inner, recipe.schedule, 0.0)
    optimiser.inner.step()
    moved = renamed({name: weights.detach() - before[name] for name, weights in trained.items()})

    assert_near(case, "train/extra.feature", output.feature, order)
    assert_near(case, "train/extra.logits", output.logits, order)
    for name, value in losses.items():
        assert_near(case, f"train/loss.{name}", value)
    assert_near(case, "train/loss.total", total)
    pairs = torch.arange(count).repeat(3)[order]  # the release compares the pictures of one place
    divergence = modality_divergence(output.logits, batch.views, batch.modalities, pairs)
    assert_near(case, "train/extra.kl_unweighted", divergence)

    names = [str(name) for name in case.arrays["train/cfg/parameters"]]
    used = torch.tensor([name in gradients for name in names])
    learnt = torch.from_numpy(case.arrays["train/out/parameter_grad_norm"]) >= 0
    assert torch.equal(learnt, used)
    names = [name for name in names if name in gradients]
    assert set(names) == set(gradients)
    rates = {id(weights): group["lr"] for group in optimiser.inner.param_groups for weights in group["params"]}
    weights_of = dict(zip(gradients, trained.values(), strict=True))
    assert [rates[id(weights_of[name])] for name in names] == pytest.approx(case.arrays["train/cfg/lr"][used.numpy()])
    for kind, values in (("grad", gradients), ("step", moved)):
        norms = torch.stack([values[name].double().norm() for name in names])
        assert_near(case, f"train/parameter_{kind}_norm", norms, used)
        for top in {name.split(".")[0] for name in names}:
            inside = norms[torch.tensor([name.split(".")[0] == top for name in names])]
            assert_near(case, f"train/{kind}_norm.{top}", inside.norm())
    first = [functional.pad(gradients[name].flatten()[:8], (0, 8))[:8] for name in names]
    assert_near(case, "train/parameter_grad_first", torch.stack(first), used)

    state = renamed(method.state_dict())
    layers = [str(name) for name in case.arrays["train/cfg/norm_layers"]]
    present = torch.tensor([f"{name}.running_mean" in state for name in layers])
    assert int(present.sum()) == 53 + 1 + 5 + 1  # one ResNet, the other stem, non-local blocks, neck
    running = [
        [state[f"{name}.running_{each}"].double().norm() for each in ("mean", "var")]
        for name in layers
        if f"{name}.running_mean" in state
    ]
    assert_near(case, "train/running_norm", torch.tensor(running, dtype=torch.float64), present)
