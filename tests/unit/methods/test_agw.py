"""AGW for visible pictures; its whole network at published size is compared in test_strong_baseline.py."""

import pytest
import torch

from tapetum.core.errors import CheckpointError, RecipeError
from tapetum.core.types import Batch
from tapetum.losses.weighted_triplet import weighted_triplet
from tapetum.methods import build_method, convert_to
from tapetum.methods.agw import SMALL
from tapetum.runs.convert import import_checkpoint


def make_batch():
    labels = torch.arange(6) // 2
    images = torch.rand(6, 3, 64, 32, generator=torch.Generator().manual_seed(3))
    return Batch(images, labels, labels, labels, torch.zeros_like(labels))


def run(method, batch):
    return method(batch.images, batch.modalities, batch.camids)


@pytest.mark.parametrize(
    ("backbone", "counts"), [("resnet50", [0, 2, 3, 0]), ("resnet34", [0, 2, 3, 0]), ("resnet18", [0, 2, 2, 0])]
)
def test_the_blocks_are_those_of_the_release_or_one_behind_each_residual_block(backbone, counts):
    with torch.device("meta"):
        branch = build_method("agw", {"backbone": backbone}, 3).branch
    assert [len(blocks) for blocks in branch.non_local] == counts
    assert [block.g.in_channels for block in branch.non_local[1]] == counts[1] * [
        512 if backbone == "resnet50" else 128
    ]
    assert {block.g.out_channels for blocks in branch.non_local for block in blocks} == {1}


def test_an_efficientnet_takes_the_blocks_behind_its_own_stages():
    options = SMALL | {"backbone": "test_efficientnet", "stem_relu": True}
    method, batch = build_method("agw", options, 3), make_batch()
    assert sum(len(blocks) for blocks in method.branch.non_local) > 0
    with torch.no_grad():
        before = run(method.eval(), batch).feature
        for blocks in method.branch.non_local:
            for block in blocks:
                torch.nn.init.ones_(block.norm.weight)
        after = run(method, batch).feature
    assert before.shape == (6, method.branch.width)
    assert not torch.allclose(before, after)


def test_with_blocks_that_are_fresh_and_average_pooling_the_network_is_that_of_bot():
    batch = make_batch()
    method = build_method("agw", SMALL | {"pooling": "average"}, 3).eval()
    plain = build_method("bot", SMALL, 3).eval()
    assert plain.load_state_dict(method.state_dict(), strict=False).missing_keys == []
    with torch.no_grad():
        torch.testing.assert_close(run(method, batch).logits, run(plain, batch).logits)


def test_the_power_of_the_pooling_starts_as_asked_and_learns():
    batch = make_batch()
    method = build_method("agw", SMALL | {"gem_power": 4.0}, 3)
    assert method.branch.pool.power.tolist() == [4.0]
    sum(method.losses(run(method, batch), batch).values()).backward()
    assert method.branch.pool.power.grad.abs() > 0
    maps = method.branch.compute_maps(method.normalise(batch.images)).clamp(min=1e-6)
    expected = maps.pow(4).mean((2, 3)).pow(1 / 4)
    torch.testing.assert_close(run(method, batch).feature, expected, rtol=1e-4, atol=1e-5)


def test_the_triplet_term_is_the_weighted_one_with_the_numerics_asked_for():
    batch = make_batch()
    for numerics in ("released", "stable"):
        method = build_method("agw", SMALL | {"triplet_numerics": numerics, "triplet_weight": 0.5}, 3)
        output = run(method, batch)
        expected = 0.5 * weighted_triplet(output.feature, batch.labels, numerics=numerics)
        losses = method.losses(output, batch)
        assert losses.keys() == {"id", "triplet", "centre"}
        torch.testing.assert_close(losses["triplet"], expected)


def test_settings_that_cannot_work_are_refused():
    for options, message in (
        ({"non_local": [0, -2, 3, 0]}, r"method\.non_local: -2 is out of range; use a number from 0"),
        ({"non_local_width": "third"}, r"method\.non_local_width: 'third' is none of 'one', 'half'"),
        ({"gem_power": 0.0}, r"method\.gem_power: 0\.0 is out of range; use a number above 0"),
        ({"centre_weight": -1.0}, r"method\.centre_weight: -1\.0 is out of range"),
        ({"backbone": "mobilenetv3_small_050", "stem_relu": True}, "choose a plain ResNet or EfficientNet of timm"),
    ):
        with pytest.raises(RecipeError, match=message):
            build_method("agw", SMALL | options, 3)


def test_another_network_does_not_fit_the_released_layout():
    for options in (
        {"backbone": "resnet18"},
        {"non_local_width": "half"},
        {"non_local": [0, 0, 0, 0]},
        {"pooling": "average"},
        {"stem_relu": True},
        {"last_stride": 2},
    ):
        with torch.device("meta"):
            state = build_method("agw", options, 3).state_dict()
        with pytest.raises(CheckpointError):
            convert_to("agw-official", options, state)


def test_a_whole_pickled_network_is_refused_because_reading_it_would_execute_code(tmp_path):
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 2)), tmp_path / "resnet50_nl_model_120.pth")
    with pytest.raises(CheckpointError, match="code in it is never executed; save its state_dict anew") as caught:
        import_checkpoint("agw-official", tmp_path / "resnet50_nl_model_120.pth", tmp_path / "ours.safetensors")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ours.safetensors").exists()
