"""One of DART's networks and its losses at published size against what the release computes (tests/golden/networks)."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from golden.networks.fill import Case
from golden_files import FOLDER
from tapetum.core.method import TrainingFacts
from tapetum.core.vectors import normalise
from tapetum.methods import agw_vi
from tapetum.methods._official import to_theirs
from tapetum.methods.dart import Options, Positives, label_losses, network_options, robust_triplet
from tapetum.runs.recipe import load_recipe
from tapetum.training.optimisation import build_optimisers, set_learning_rates
from tapetum.training.stepping import turns_of

pytestmark = pytest.mark.slow  # whole published networks


@pytest.fixture(scope="module")
def case() -> Case:
    return Case(FOLDER / "networks" / "dart.npz")


@pytest.fixture(scope="module")
def network(case: Case) -> agw_vi.Method:
    method = agw_vi.Method(network_options(Options()), TrainingFacts(395))
    names = to_theirs({name: torch.tensor(0) for name in method.state_dict()}, agw_vi.RENAMING)
    values = case.state_dict(list(names)).values()
    state = {name: torch.from_numpy(value) for name, value in zip(method.state_dict(), values, strict=True)}
    method.load_state_dict(state)
    return method


def assert_near(case: Case, entry: str, found: Tensor, rows: Tensor | slice = slice(None)) -> None:
    """Within the tolerance of an entry such as "eval/visible_pool", relative to its largest value."""
    kind, name = entry.split("/")
    expected = torch.from_numpy(case.arrays[f"{kind}/out/{name}"]).double()
    allowed = case.tolerance(entry) * float(expected.abs().max())
    expected = expected[rows] if expected.ndim else expected
    assert found.shape == expected.shape
    deviation = float((found.detach().double() - expected).abs().max())
    assert deviation <= allowed, f"{entry}: {deviation:.3g} where {allowed:.3g} is allowed"


def read_pictures(case: Case, kind: str, name: str) -> Tensor:
    return torch.from_numpy(case.pictures(kind, name)).float() / 255


def test_vectors_for_search_are_the_releases(case, network):
    for modality, side in enumerate(("visible", "infrared")):
        modalities = torch.tensor([modality])
        with torch.no_grad():
            output = network.eval()(read_pictures(case, "eval", side), modalities, modalities)
        assert_near(case, f"eval/{side}_pool", normalise(output.feature))
        assert_near(case, f"eval/{side}_embedding", normalise(output.embedding))


def test_a_training_step_with_the_recipe_is_the_releases(case, network):
    """Losses, gradients and the first step, with the positives and predictions that the case fixes."""
    recipe = load_recipe("dart_sysu")
    (optimiser,) = build_optimisers(network.train(), network.parameter_groups(), recipe.optimiser, turns_of(network))
    before = {name: weights.detach().clone() for name, weights in network.named_parameters()}
    pictures = [read_pictures(case, "train", name) for name in ("visible", "visible_exchanged", "infrared")]
    modalities = torch.tensor([0, 0, 1]).repeat_interleave(len(pictures[0]))
    inputs = {name: torch.from_numpy(values) for name, values in case.part("train/in/").items() if values.ndim}
    labels, clean = inputs["labels"].repeat(3), inputs["clean_probability"]
    output = network(torch.cat(pictures), modalities, modalities)
    predicted = torch.from_numpy(case.arrays["train/in/predicted_class"])
    draws = Positives(inputs["first_positive"], inputs["second_positive"])
    losses = {
        "id": (clean * label_losses(output.logits[None], labels)[0]).mean(),
        "triplet": robust_triplet(output.feature, predicted, labels, clean >= 0.5, draws, margin=0.3),
    }
    total = sum(losses.values())
    total.backward()
    trained = {name: weights for name, weights in network.named_parameters() if weights.requires_grad}
    gradients = to_theirs({name: weights.grad for name, weights in trained.items()}, agw_vi.RENAMING)
    set_learning_rates(optimiser.inner, recipe.schedule, 1.0)
    optimiser.inner.step()
    moved = {name: weights.detach() - before[name] for name, weights in trained.items()}
    moved = to_theirs(moved, agw_vi.RENAMING)

    for name, value in losses.items():
        assert_near(case, f"train/loss.{name}", value)
    assert_near(case, "train/loss.total", total)
    names = [str(name) for name in case.arrays["train/cfg/parameters"]]
    used = torch.tensor([name in gradients for name in names])
    assert torch.equal(torch.from_numpy(case.arrays["train/out/parameter_grad_norm"]) >= 0, used)
    names = [name for name in names if name in gradients]
    assert len(names) == len(gradients)
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
