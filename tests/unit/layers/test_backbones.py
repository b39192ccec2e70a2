import warnings

import pytest
import timm
import torch
import torchvision

from tapetum.core.errors import CheckpointError, RecipeError
from tapetum.layers import backbones
from tapetum.layers.backbones import IMAGENET_WEIGHTS, Maps, build_backbone, load_backbone, pool_average


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnets_carry_torchvisions_names_without_the_classifier(name):
    with torch.device("meta"):
        ours = build_backbone(name)[0].state_dict()
        theirs = getattr(torchvision.models, name)().state_dict()
    expected = {key: tensor.shape for key, tensor in theirs.items() if not key.startswith("fc.")}
    assert {key: tensor.shape for key, tensor in ours.items()} == expected


@pytest.mark.parametrize(("name", "width"), [("resnet18", 512), ("mobilenetv3_small_050", 1024), ("regnetx_002", 368)])
def test_the_width_is_that_of_the_feature_map_whose_average_is_taken(rng, name, width):
    network, found = build_backbone(name)
    maps = network.eval()(torch.rand(1, 3, 64, 32, generator=rng))
    assert found == width
    assert Maps(width).pool(maps).shape == (1, width)


def test_the_same_weights_give_torchvisions_feature_maps(rng, tmp_path):
    theirs = torchvision.models.resnet18().eval()
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    ours, width = build_backbone("resnet18")
    load_backbone(ours, "resnet18", str(tmp_path / "resnet18.pth"))
    theirs.fc = torch.nn.Identity()
    images = torch.rand(2, 3, 64, 32, generator=rng)
    with torch.no_grad():
        torch.testing.assert_close(pool_average(ours.eval()(images), width), theirs(images))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "tf_efficientnet_lite0", "test_efficientnet"])
def test_last_stride_one_doubles_the_last_map_and_changes_no_weight(name):
    with torch.device("meta"):
        plain, fine = build_backbone(name)[0], build_backbone(name, last_stride=1)[0]
        images = torch.zeros(1, 3, 256, 128)
        assert plain(images).shape[2:] == (8, 4)
        assert fine(images).shape[2:] == (16, 8)
    assert plain.state_dict().keys() == fine.state_dict().keys()
    assert not [m for m in fine.modules() if isinstance(m, torch.nn.Conv2d) and m.dilation != (1, 1)]


@pytest.mark.parametrize(
    ("name", "last_stride"),
    [("resnet18", 3), ("mobilenetv3_small_050", 1), ("resnet50d", 1), ("tf_efficientnet_lite0", 3)],
)
def test_a_last_stride_that_cannot_be_had_is_refused(name, last_stride):
    with torch.device("meta"), pytest.raises(RecipeError, match=f"backbone {name}: last_stride {last_stride}"):
        build_backbone(name, last_stride=last_stride)


def test_an_unknown_backbone_is_refused_with_the_nearest_name():
    with pytest.raises(RecipeError, match=r"'resnet51' is unknown to timm; did you mean resnet\d+"):
        build_backbone("resnet51")


def test_a_network_of_tokens_is_refused_by_the_pooling():
    with pytest.raises(RecipeError, match="no map of 192 channels"):
        pool_average(torch.zeros(1, 197, 192), 192)
    with pytest.raises(RecipeError, match="no map of 96 channels"):
        pool_average(torch.zeros(1, 7, 7, 96), 96)


def test_pooling_of_bfloat16_maps_accumulates_in_float32(rng):
    maps = torch.rand(2, 4, 16, 8, generator=rng).bfloat16()
    assert torch.equal(pool_average(maps, 4), maps.float().mean((2, 3)))


def test_files_without_step_counters_fit_and_files_of_another_network_do_not(tmp_path):
    network, _ = build_backbone("resnet18")
    path = tmp_path / "weights.pth"
    state = torchvision.models.resnet18().state_dict()
    torch.save({key: value for key, value in state.items() if "num_batches" not in key}, path)
    load_backbone(network, "resnet18", str(path))
    assert torch.equal(network.state_dict()["conv1.weight"], state["conv1.weight"])
    torch.save(torchvision.models.resnet34().state_dict(), path)
    with pytest.raises(CheckpointError, match=r"weights.pth for backbone resnet18: \d+ unknown"):
        load_backbone(network, "resnet18", str(path))
    state["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"'conv1.weight' is \(64, 3, 3, 3\)"):
        load_backbone(network, "resnet18", str(path))


def test_none_leaves_the_backbone_as_it_is():
    network, _ = build_backbone("resnet18")
    before = network.conv1.weight.clone()
    load_backbone(network, "resnet18", "none")
    assert torch.equal(network.conv1.weight, before)


def test_imagenet_weights_out_of_reach_are_not_asked_for_and_it_is_said_how_to_supply_a_file(monkeypatch):
    def ask(name, **options):
        raise AssertionError(name)

    monkeypatch.setattr(backbones, "_is_cached", lambda config: False)
    monkeypatch.setattr(backbones, "_hub_answers", lambda: False)
    network, _ = build_backbone("resnet18")
    before = network.conv1.weight.clone()
    monkeypatch.setattr(timm, "create_model", ask)
    with pytest.raises(CheckpointError, match=r"resnet18.tv_in1k cannot be fetched, no network; .*init.weights=PATH"):
        load_backbone(network, "resnet18", "imagenet")
    assert torch.equal(network.conv1.weight, before)


def test_a_hub_that_does_not_answer_is_out_of_reach(monkeypatch):
    import huggingface_hub

    class Mute:
        def head(self, address, timeout):
            patience.append(timeout)
            raise TimeoutError

    patience = []
    assert backbones.REACH_SECONDS <= 5
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub, "get_session", Mute)
        assert backbones._hub_answers() is False
    assert patience == [backbones.REACH_SECONDS]
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert backbones._hub_answers() is False
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert backbones._hub_answers() is False


def test_a_download_that_breaks_off_is_told_in_one_line(monkeypatch):
    def fail(name, **options):
        raise OSError("connection reset\nby peer")

    network, _ = build_backbone("resnet18")
    monkeypatch.setattr(backbones, "_is_cached", lambda config: True)
    monkeypatch.setattr(timm, "create_model", fail)
    with pytest.raises(CheckpointError, match=r"\(connection reset\); fetch resnet18.tv_in1k") as error:
        load_backbone(network, "resnet18", "imagenet")
    assert "\n" not in str(error.value)


def test_imagenet_takes_exactly_torchvisions_first_weights_through_timm(monkeypatch):
    trained = build_backbone("resnet18")[0]
    asked = []

    def create(name, **options):
        asked.append((name, options["pretrained"]))
        return trained

    network, _ = build_backbone("resnet18")
    monkeypatch.setattr(backbones, "_is_cached", lambda config: True)
    monkeypatch.setattr(timm, "create_model", create)
    load_backbone(network, "resnet18", "imagenet")
    assert asked == [("resnet18.tv_in1k", True)]
    assert all(torch.equal(value, trained.state_dict()[key]) for key, value in network.state_dict().items())
    assert IMAGENET_WEIGHTS["resnet50"] == "resnet50.tv_in1k"


def test_the_named_imagenet_weights_exist_in_timm_and_those_of_resnets_come_from_torchvision():
    import timm

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, tagged in IMAGENET_WEIGHTS.items():
            config = timm.models.get_pretrained_cfg(tagged)
            if name.startswith("resnet"):
                assert config.url.startswith("https://download.pytorch.org/models/")
            else:
                assert config.hf_hub_id or config.url


def test_a_backbone_without_published_weights_is_refused():
    network, _ = build_backbone("resnet18")
    with pytest.raises(CheckpointError, match="timm has no ImageNet weights"):
        load_backbone(network, "test_resnet_without_weights", "imagenet")
