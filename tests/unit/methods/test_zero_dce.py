import pytest
import torch

from tapetum.core.errors import CheckpointError
from tapetum.core.types import Batch
from tapetum.layers.curve_net import CurveNet
from tapetum.losses.colour import colour_constancy
from tapetum.losses.curve_smoothness import curve_smoothness
from tapetum.losses.exposure import exposure
from tapetum.losses.spatial import spatial_consistency
from tapetum.methods import build_method


def make_batch():
    numbers = torch.zeros(3, dtype=torch.int64)
    return Batch(0.2 * torch.rand(3, 3, 32, 16), numbers, numbers, numbers, numbers)


def test_the_losses_are_the_four_of_the_original_with_its_weights():
    method, batch = build_method("zero_dce", {"curve_width": 4}, 1), make_batch()
    output = method(batch.images, batch.modalities, batch.camids)
    assert method.losses(output, batch) == {
        "curve_smoothness": 200 * curve_smoothness(output.curves),
        "exposure": 10 * exposure(output.enhanced),
        "colour": 5 * colour_constancy(output.enhanced),
        "spatial": spatial_consistency(batch.images, output.enhanced),
    }


def test_convolutions_start_with_the_originals_deviation():
    torch.manual_seed(0)
    weights = build_method("zero_dce", None, 1).enhancer.e_conv5.weight
    assert weights.detach().std().item() == pytest.approx(0.02, rel=0.05)


def test_a_trained_network_serves_idf_as_its_enhancement_weights(tmp_path):
    trained = build_method("zero_dce", {"curve_width": 4}, 1)
    torch.save(trained.state_dict(), tmp_path / "trained.pth")
    extractor = {"backbone": "test_resnet", "width": 16}
    enhancer = {"enhancer_init": "zero_dce", "enhancer_weights": str(tmp_path / "trained.pth"), "input_scale": 1.0}
    idf = build_method("idf", {"extractor_options": extractor, "curve_width": 4} | enhancer, 2)
    idf.load_pretrained("none")
    images = make_batch().images
    with torch.no_grad():
        assert torch.equal(idf.enhance(images), trained.enhance(images))


def test_a_snapshot_can_be_read_and_imagenet_weights_do_not_exist(tmp_path):
    snapshot = CurveNet(4)
    torch.save(snapshot.state_dict(), tmp_path / "snapshot.pth")
    method = build_method("zero_dce", {"curve_width": 4}, 1)
    method.load_pretrained("none")
    method.load_pretrained(str(tmp_path / "snapshot.pth"))
    assert torch.equal(method.enhancer.e_conv7.weight, snapshot.e_conv7.weight)
    with pytest.raises(CheckpointError, match="zero_dce has no ImageNet weights"):
        method.load_pretrained("imagenet")
