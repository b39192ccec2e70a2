import pytest
import torch
from torch import Tensor, nn
from torchvision.models import vgg as torchvision_vgg

from tapetum.core.errors import CheckpointError
from tapetum.layers.vgg import CONVOLUTIONS, VggFeatures

LAST, POOL_LEFT_OUT = 25, 23  # relu5_1 and the pooling before conv5_1 among torchvision's features


@pytest.fixture(scope="module")
def features() -> nn.Sequential:
    torch.manual_seed(0)
    return torchvision_vgg.make_layers(torchvision_vgg.cfgs["D"])


def by_torchvision(features: nn.Sequential, images: Tensor) -> Tensor:
    for number, layer in enumerate(features[: LAST + 1]):
        if number != POOL_LEFT_OUT:
            images = layer(images)
    return images


def test_torchvisions_weights_see_pictures_as_torchvision_prepares_them(features, tmp_path, rng) -> None:
    torch.save({f"features.{name}": value for name, value in features.state_dict().items()}, tmp_path / "vgg16.pth")
    network, images = VggFeatures(), torch.rand(2, 3, 32, 24, generator=rng)
    network.load_weights(tmp_path / "vgg16.pth")
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    prepared = (images - mean[:, None, None]) / deviation[:, None, None]
    with torch.no_grad():
        found, expected = network(2 * images - 1), by_torchvision(features, prepared)
    assert found.shape == (2, 512, 4, 3)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_the_releases_weights_see_blue_first_in_0_to_255(features, tmp_path, rng) -> None:
    state = features.state_dict()
    named = {
        f"{name}.{kind}": state[f"{number}.{kind}"]
        for name, (number, _, _) in CONVOLUTIONS.items()
        for kind in ("weight", "bias")
    }
    torch.save(named | {"conv5_2.weight": torch.zeros(1)}, tmp_path / "vgg16.weight")
    network, images = VggFeatures(), torch.rand(2, 3, 32, 24, generator=rng)
    network.load_weights(tmp_path / "vgg16.weight")
    with torch.no_grad():
        found, expected = network(2 * images - 1), by_torchvision(features, 255 * images.flip(1))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_it_keeps_nothing_in_checkpoints_and_nothing_of_it_learns() -> None:
    network = VggFeatures()
    assert not network.state_dict()
    assert not list(network.parameters())


def test_without_weights_or_with_those_of_another_network_it_is_refused(tmp_path) -> None:
    network = VggFeatures()
    with pytest.raises(CheckpointError, match="VGG-16 has no weights yet"):
        network(torch.zeros(1, 3, 16, 16))
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "part.pth")
    with pytest.raises(CheckpointError, match=r"VGG-16 in .*part.pth: 21 missing tensor\(s\), first 'features.0.bias'"):
        network.load_weights(tmp_path / "part.pth")
    assert not network.is_filled()
