"""EnlightenGAN's discriminators at published size against what their release computes (tests/golden/networks)."""

import pytest
import torch

from golden.networks.fill import Case
from golden_files import FOLDER
from tapetum.layers.patch_discriminator import PatchDiscriminator
from tapetum.losses.least_squares import least_squares, relativistic_least_squares

LAYERS, WEIGHTS = {"D_A": 5, "D_P": 4}, {"D_A": 11_154_369, "D_P": 6_959_553}


@pytest.fixture(scope="module")
def case() -> Case:
    return Case(FOLDER / "networks" / "enlightengan_discriminators.npz")


@pytest.fixture(scope="module")
def released(case: Case) -> dict[str, PatchDiscriminator]:
    networks = {}
    state = {key: torch.from_numpy(value) for key, value in case.state_dict().items()}
    for name, layers in LAYERS.items():
        networks[name] = PatchDiscriminator(layers)
        own = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
        networks[name].load_state_dict(own)
    return networks


def pictures(case: Case, kind: str, name: str) -> torch.Tensor:
    return torch.from_numpy(case.normalised(case.pictures(kind, name)))


@pytest.mark.parametrize(("name", "given", "entry"), [("D_A", "visible", "global"), ("D_P", "patch", "patch")])
def test_scores_are_those_of_the_release(
    case: Case, released, assert_matches, name: str, given: str, entry: str
) -> None:
    assert sum(weights.numel() for weights in released[name].parameters()) == WEIGHTS[name]
    with torch.no_grad():
        scores = released[name](pictures(case, "eval", given))
    expected = torch.from_numpy(case.arrays[f"eval/out/score_{entry}"])
    assert_matches(scores, expected, case.tolerance(f"eval/score_{entry}"))


def test_losses_and_gradients_of_a_step_are_those_of_the_release(case: Case, released, assert_matches) -> None:
    whole, patch = (released[name] for name in LAYERS)
    real, fake = (whole(pictures(case, "train", name)) for name in ("real", "fake"))
    real_patches, fake_patches = (patch(pictures(case, "train", f"{name}_patches")) for name in ("real", "fake"))
    losses = {
        "loss.d_global": relativistic_least_squares(real, fake),
        "loss.d_patch": (least_squares(real_patches, 1) + least_squares(fake_patches, 0)) / 2,
        "extra.generator_global": relativistic_least_squares(fake, real),
        "extra.generator_patch": least_squares(fake_patches, 1),
    }
    for name, loss in losses.items():
        expected = torch.from_numpy(case.arrays[f"train/out/{name}"])
        assert_matches(loss, expected, case.tolerance(f"train/{name}", floor=1e-4))
    (losses["loss.d_global"] + losses["loss.d_patch"]).backward()
    weights = {f"{name}.{key}": value for name in LAYERS for key, value in released[name].named_parameters()}
    norms = torch.stack([weights[str(name)].grad.norm() for name in case.arrays["train/cfg/parameters"]])
    expected = torch.from_numpy(case.arrays["train/out/parameter_grad_norm"])
    assert_matches(norms, expected, case.tolerance("train/parameter_grad_norm"))
    released["D_A"].zero_grad()
    released["D_P"].zero_grad()


@pytest.mark.parametrize(("layers", "size", "scores"), [(5, (320, 320), (13, 13)), (4, (32, 32), (5, 5))])
def test_the_number_of_scores_is_as_published(layers: int, size: tuple[int, int], scores: tuple[int, int]) -> None:
    with torch.device("meta"):
        assert PatchDiscriminator(layers)(torch.empty(1, 3, *size)).shape == (1, 1, *scores)


@pytest.mark.parametrize("size", [(128, 64), (64, 32), (1, 1)])
def test_pictures_of_any_size_are_scored(size: tuple[int, int]) -> None:
    with torch.device("meta"):
        assert PatchDiscriminator(5, 2)(torch.empty(2, 3, *size)).numel() >= 2
