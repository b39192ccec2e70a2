import pytest
import torch

from tapetum.core.errors import CheckpointError, RecipeError
from tapetum.core.types import Batch, Modality
from tapetum.layers.backbones import build_backbone
from tapetum.layers.two_stream import STAGES, STEM, TwoStream
from tapetum.methods import build_method

SIZES = {
    "resnet18": (64, 64, 128, 256, 512),
    "resnet50": (64, 256, 512, 1024, 2048),
    "tf_efficientnet_lite0": (32, 24, 40, 112, 1280),
    "test_efficientnet": (24, 24, 32, 48, 256),
}


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


@pytest.mark.parametrize("last_stride", [1, 2])
@pytest.mark.parametrize("backbone", ["resnet18", "tf_efficientnet_lite0", "test_efficientnet"])
def test_each_stage_divides_the_resolution_by_its_stride(backbone: str, last_stride: int) -> None:
    with torch.device("meta"):
        network = TwoStream(backbone, last_stride=last_stride)
        maps = network.stems[0](torch.zeros(1, 3, 64, 32))
        for stage, width, stride in zip(network.stages, network.widths[1:], network.strides, strict=True):
            height = maps.shape[2]
            maps = stage(maps)
            assert maps.shape[1:3] == (width, height // stride)
    assert network.strides[-1] == last_stride


@pytest.mark.parametrize("backbone", ["test_efficientnet", "tf_efficientnet_lite0"])
def test_an_efficientnets_stem_and_stages_are_its_whole_network(backbone: str, rng, tmp_path) -> None:
    whole, _ = build_backbone(backbone, last_stride=1)
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    network = TwoStream(backbone)
    network.load_pretrained(str(tmp_path / "weights.pth"))
    images, modalities = torch.rand(2, 3, 64, 32, generator=rng), torch.tensor([0, 1])
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(images, modalities), whole.eval()(images))
    blocks = [block for group in whole.blocks for block in group]
    assert sum(len(stage) for stage in network.stages) == len(blocks) + 1  # and the convolution behind the last


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


@pytest.mark.parametrize("backbone", ["mobilenetv3_small_050", "test_efficientnet_gn"])
def test_a_network_that_is_neither_a_resnet_nor_an_efficientnet_is_refused(backbone: str) -> None:
    with pytest.raises(RecipeError, match="no separate stem and four stages"):
        TwoStream(backbone, last_stride=2)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("two_stream", {}),
        ("agw_vi", {"non_local": [1, 1, 3, 2]}),  # in the last stage blocks of several widths
        ("deen", {"dropout": 0.0}),
        ("deen", {"dropout": 0.0, "illumination": "branch", "curve_width": 4}),
        ("deen", {"dropout": 0.0, "expand_after": 2}),
    ],
)
@pytest.mark.parametrize("last_stride", [1, 2])
def test_every_method_across_modalities_trains_on_an_efficientnet(method, options, last_stride, rng) -> None:
    torch.manual_seed(3)
    settings = {"backbone": "test_efficientnet", "last_stride": last_stride, "normalisation": "half"}
    network = build_method(method, settings | options, 2, size=(64, 32))
    labels, modalities = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]), torch.arange(8) % 2
    images = torch.rand(8, 3, 64, 32, generator=rng)
    batch = Batch(images=images, labels=labels, pids=labels, camids=labels, modalities=modalities)
    sum(network.losses(network(images, modalities, labels), batch).values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters() if p.requires_grad)
    with torch.no_grad():
        vectors = network.eval().embed(images, modalities, labels)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(8))
