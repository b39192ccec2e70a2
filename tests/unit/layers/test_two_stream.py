import pytest
import torch

from tapetum.core.errors import CheckpointError, RecipeError
from tapetum.core.types import Modality
from tapetum.layers.backbones import build_backbone
from tapetum.layers.two_stream import STAGES, STEM, TwoStream

SIZES = {"resnet18": (64, 64, 128, 256, 512), "resnet50": (64, 256, 512, 1024, 2048)}


@pytest.fixture
def small() -> TwoStream:
    torch.manual_seed(3)
    return TwoStream("test_resnet", last_stride=2).eval()


def test_each_picture_goes_through_the_stem_of_its_own_modality_and_keeps_its_place(small, rng):
    images = torch.rand(7, 3, 32, 16, generator=rng)
    modalities = torch.tensor([1, 0, 0, 1, 0, 1, 1])
    with torch.no_grad():
        maps = small.stem(images, modalities)
        alone = [small.stems[int(m)](images[i : i + 1])[0] for i, m in enumerate(modalities)]
    torch.testing.assert_close(maps, torch.stack(alone))


@pytest.mark.parametrize("modality", list(Modality))
def test_a_batch_of_one_modality_uses_one_stem(small, rng, modality):
    images = torch.rand(3, 3, 32, 16, generator=rng)
    small.train()
    before = [stem[1].num_batches_tracked.item() for stem in small.stems]
    small.stem(images, torch.full((3,), int(modality)))
    after = [stem[1].num_batches_tracked.item() for stem in small.stems]
    assert [b - a for a, b in zip(before, after, strict=True)] == [int(m == modality) for m in Modality]


def test_the_order_of_a_batch_changes_neither_features_nor_gradients(small, rng):
    images = torch.rand(8, 3, 32, 16, generator=rng, dtype=torch.float64)
    modalities = torch.arange(8) % 2
    order = torch.randperm(8, generator=rng)
    small.double().train()
    gradients = []
    for rows in (torch.arange(8), order):
        small.zero_grad()
        maps = small(images[rows], modalities[rows])
        maps.square().sum().backward()
        gradients.append([maps.detach()[rows.argsort()], *(p.grad.clone() for p in small.parameters())])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("backbone", SIZES)
def test_widths_are_those_of_the_stem_and_of_each_stage(backbone):
    with torch.device("meta"):
        assert TwoStream(backbone).widths == SIZES[backbone]
        assert TwoStream(backbone, num_stages=3).widths == SIZES[backbone][:4]


def test_a_last_stride_of_one_keeps_the_resolution_of_the_last_stage():
    network = TwoStream("resnet18").eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 64, 32), torch.zeros(1, dtype=torch.int64)).shape[2:] == (4, 2)


def test_one_networks_weights_fill_both_stems_and_the_trunk(small, tmp_path):
    torch.manual_seed(4)
    network, _ = build_backbone("test_resnet")
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    small.load_pretrained(str(tmp_path / "weights.pth"))
    for stem in small.stems:
        for part, name in zip(stem, STEM, strict=True):
            for key, value in network.get_submodule(name).state_dict().items():
                assert torch.equal(part.state_dict()[key], value)
    for stage, name in zip(small.stages, STAGES, strict=True):
        for key, value in network.get_submodule(name).state_dict().items():
            assert torch.equal(stage.state_dict()[key], value)


def test_without_weights_the_network_stays_as_it_is_and_wrong_ones_are_refused(small, tmp_path):
    before = {name: value.clone() for name, value in small.state_dict().items()}
    small.load_pretrained("none")
    torch.save(build_backbone("resnet18")[0].state_dict(), tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth"):
        small.load_pretrained(str(tmp_path / "other.pth"))
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())


def test_a_network_that_is_no_resnet_is_refused():
    with pytest.raises(RecipeError, match="no separate stem and four stages"):
        TwoStream("mobilenetv3_small_050", last_stride=2)
