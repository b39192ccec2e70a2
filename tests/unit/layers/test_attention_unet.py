"""EnlightenGAN's generator at published size against what its release computes (tests/golden/networks)."""

import pickle

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from golden.networks.fill import Case, uniform
from golden_files import FOLDER
from golden_networks import assert_near, thin_out
from tapetum.core.errors import CheckpointError
from tapetum.core.method import Enhancer
from tapetum.layers.attention_unet import AttentionUNet, compute_darkness

LAST_OF_STAGE = {"bn1_2": "conv1_2", "bn3_2": "conv3_2", "bn5_2": "bottom", "bn6_2": "up6", "bn9_1": "up9"}


@pytest.fixture(scope="module")
def case() -> Case:
    return Case(FOLDER / "networks" / "enlightengan.npz")


@pytest.fixture
def released(case: Case, tmp_path) -> AttentionUNet:
    """With the golden weights, read from a file such as the release's."""
    torch.save(case.checkpoint(torch.from_numpy), tmp_path / "200_net_G_A.pth")
    network = AttentionUNet()
    network.load_weights(tmp_path / "200_net_G_A.pth")
    return network.eval()


def small(**options) -> AttentionUNet:
    torch.manual_seed(0)
    return AttentionUNet(2, **options).eval()


def random_images(rng: torch.Generator, *size: int) -> Tensor:
    return 2 * torch.rand(*size, generator=rng) - 1


def test_tensors_are_named_and_counted_as_in_the_release(case: Case, released: AttentionUNet) -> None:
    assert {name: tuple(value.shape) for name, value in released.state_dict().items()} == case.shapes
    assert sum(weights.numel() for weights in released.parameters()) == 8_636_675
    sums = torch.stack([released.state_dict()[key].sum(dtype=torch.float64) for key in case.keys])
    torch.testing.assert_close(sums, torch.from_numpy(case.arrays["weights/cfg/sum"]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_whole_network_gives_the_releases_pictures_whatever_their_size(
    case: Case, released: AttentionUNet, *, channels_last: bool
) -> None:
    if channels_last:
        released = released.to(memory_format=torch.channels_last)
    maps = {}
    for ours, theirs in {
        "bn1_2": "conv1_2",
        "bn3_2": "conv3_2",
        "bn5_2": "bottom",
        "bn6_2": "up6",
        "bn9_1": "up9",
    }.items():
        released.get_submodule(ours).register_forward_hook(lambda _, __, out, theirs=theirs: maps.update({theirs: out}))
    for name in ("odd", "visible"):
        pictures = torch.from_numpy(case.normalised(case.pictures("eval", name)))
        with torch.no_grad():
            output, latent = released(pictures)
        assert_near(case, f"eval/{name}_output", output)
        if name == "odd":
            assert_near(case, "eval/odd_latent", latent)
    for name, found in maps.items():
        assert_near(case, f"eval/{name}.mean", found.mean((2, 3)))
        assert_near(case, f"eval/{name}.patch", thin_out(found))


def test_a_training_step_has_the_releases_gradients_and_statistics(case: Case, released: AttentionUNet) -> None:
    pictures = torch.from_numpy(case.normalised(case.pictures("train", "images")))
    output, latent = released.train()(pictures)
    probe = torch.from_numpy(uniform("probe", output.numel(), case.info["seed"])).float().view_as(output)
    losses = {"probe": (output * probe).mean(), "latent": 0.5 * latent.square().mean()}
    for name, loss in losses.items():
        assert_near(case, f"train/loss.{name}", loss)
    sum(losses.values()).backward()
    weights = dict(released.named_parameters())
    names = [str(name) for name in case.arrays["train/cfg/parameters"]]
    assert set(names) == set(weights)
    gradients = torch.stack([weights[name].grad.norm() for name in names])
    assert_near(case, "train/parameter_grad_norm", gradients)
    norms = [released.get_submodule(str(name)) for name in case.arrays["train/cfg/norm_layers"]]
    running = torch.stack([torch.stack((norm.running_mean.norm(), norm.running_var.norm())) for norm in norms])
    assert_near(case, "train/running_norm", running)


def test_darkness_is_one_less_the_luma_of_the_picture(rng: torch.Generator) -> None:
    images = random_images(rng, 2, 3, 4, 5)
    red, green, blue = ((images + 1) / 2).unbind(1)
    torch.testing.assert_close(compute_darkness(images)[:, 0], 1 - (0.299 * red + 0.587 * green + 0.114 * blue))


def test_a_white_picture_is_left_as_it_is_and_a_black_one_is_not() -> None:
    network = small()
    for value, changed in ((1.0, False), (-1.0, True)):
        images = torch.full((1, 3, 16, 16), value)
        with torch.no_grad():
            output, change = network(images)
        assert bool((change.abs() > 1e-5).any()) == changed
        torch.testing.assert_close(output, images + change)


@pytest.mark.parametrize("size", [(1, 1), (2, 40), (5, 17), (16, 33), (64, 32)])
def test_any_size_is_kept_and_padded_by_reflection(size: tuple[int, int], rng: torch.Generator) -> None:
    images, network = random_images(rng, 1, 3, *size), small()
    with torch.no_grad():
        output = network(images)[0]
    assert output.shape == images.shape
    missing = [-length % 16 for length in size]
    around = [part for length in reversed(missing) for part in (length // 2, length - length // 2)]
    if all(2 * each < length for each, length in zip(missing, size, strict=True)):  # PyTorch's own reflection can do it
        with torch.no_grad():
            padded = network(functional.pad(images, around, mode="reflect"))[0]
        expected = padded[:, :, around[2] :, around[0] :][:, :, : size[0], : size[1]]
        torch.testing.assert_close(output, expected)


@pytest.mark.parametrize("size", [(32, 48), (33, 49)])
def test_a_wide_picture_is_halved_and_comes_back_in_its_size(size: tuple[int, int], rng: torch.Generator) -> None:
    images, network = random_images(rng, 1, 3, *size), small(largest_width=40)
    with torch.no_grad():
        output = network(images)[0]
        network.largest_width = 2200
        halved = network(functional.avg_pool2d(images, 2))[0]
    # The darkness is halved too; of a picture that is halved it is the same, because it is linear.
    torch.testing.assert_close(output, functional.interpolate(halved, size=size, mode="bilinear"))


def test_aligned_corners_and_another_skip_make_another_picture(rng: torch.Generator) -> None:
    images = random_images(rng, 1, 3, 32, 16)
    with torch.no_grad():
        output, change = small()(images)
        assert not torch.allclose(small(align_corners=True)(images)[0], output)
        torch.testing.assert_close(small(skip=0.0)(images)[0], change)
        torch.testing.assert_close(small(skip=0.5)(images)[0], output - 0.5 * images)


def test_it_brightens_pictures_in_0_to_1_as_every_enhancer_does(rng: torch.Generator) -> None:
    network, images = small(), torch.rand(2, 3, 24, 12, generator=rng)
    assert isinstance(network, Enhancer)
    with torch.no_grad():
        enhanced = network.enhance(images)
        expected = ((network(2 * images - 1)[0] + 1) / 2).clamp(0, 1)
    assert torch.equal(enhanced, expected)


def test_a_file_without_the_network_or_with_code_in_it_is_refused(tmp_path) -> None:
    network = small()
    path = tmp_path / "weights.pth"
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    torch.save(state, path)
    other = AttentionUNet(2)
    other.load_weights(path)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in network.state_dict().items())
    with pytest.raises(CheckpointError, match=r"'conv1_1.weight' is \(2, 4, 3, 3\) where the network needs \(3, "):
        AttentionUNet(3).load_weights(path)
    del state["module.bn4_1.running_var"]
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"EnlightenGAN's generator in .*missing .*first 'bn4_1.running_var'"):
        network.load_weights(path)
    path.write_bytes(pickle.dumps(print))
    with pytest.raises(CheckpointError, match="code in it is never executed"):
        network.load_weights(path)
