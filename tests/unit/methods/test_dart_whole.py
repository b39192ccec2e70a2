"""One of DART's networks and its losses at published size against what the release computes (tests/golden/networks)."""

import pytest
import torch

from golden.networks.fill import Case
from golden_files import FOLDER
from golden_networks import Whole, take_step
from tapetum.core.method import TrainingFacts
from tapetum.core.vectors import normalise
from tapetum.methods import agw_vi, official_formats
from tapetum.methods._official import to_theirs
from tapetum.methods.dart import Options, Positives, label_losses, network_options, robust_triplet
from tapetum.runs.recipe import load_recipe

pytestmark = pytest.mark.slow  # whole published networks


@pytest.fixture(scope="module")
def whole() -> Whole:
    """Of a layout that DART's own joins two of."""
    case, layout = Case(FOLDER / "networks" / "dart.npz"), official_formats()["agw-vi-official"]
    method = agw_vi.Method(network_options(Options()), TrainingFacts(395))
    names = to_theirs(method.state_dict(), agw_vi.RENAMING)
    released = {name: torch.from_numpy(value) for name, value in case.state_dict(list(names)).items()}
    method.load_state_dict(dict(zip(method.state_dict(), released.values(), strict=True)))
    return Whole(case, layout, released, method)


def test_vectors_for_search_are_the_releases(whole):
    for modality, side in enumerate(("visible", "infrared")):
        modalities = torch.tensor([modality])
        with torch.no_grad():
            output = whole.method.eval()(whole.pictures("eval", side), modalities, modalities)
        whole.near(f"eval/{side}_pool", normalise(output.feature))
        whole.near(f"eval/{side}_embedding", normalise(output.embedding))


def test_a_training_step_with_the_recipe_is_the_releases(whole):
    """Losses, gradients and the first step, with the positives and predictions that the case fixes."""
    case, network = whole.case, whole.method.train()
    pictures = [whole.pictures("train", name) for name in ("visible", "visible_exchanged", "infrared")]
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
    step = take_step(network, total, load_recipe("dart_sysu"), epoch=1.0)
    for name, value in losses.items():
        whole.near(f"train/loss.{name}", value)
    whole.near("train/loss.total", total)
    whole.check_step(step)
