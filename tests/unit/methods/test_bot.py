"""BoT; its whole network at published size is compared in test_strong_baseline.py."""

from dataclasses import asdict

import pytest
import timm
import torch
from torch.nn import functional

from tapetum.core.errors import CheckpointError, RecipeError
from tapetum.core.types import Batch
from tapetum.core.vectors import normalise
from tapetum.layers.backbones import build_backbone, pool_average
from tapetum.layers.bnneck import BNNeck
from tapetum.layers.normalisation import Normalise
from tapetum.losses.triplet import batch_hard_triplet
from tapetum.methods import build_method, build_options, convert_to
from tapetum.methods.bot import SMALL
from tapetum.runs.checkpoint import Header, load_checkpoint, save_checkpoint
from tapetum.runs.convert import export_checkpoint
from tapetum.runs.recipe import check_recipe, load_recipe


def make_batch():
    labels = torch.arange(6) // 2
    images = torch.rand(6, 3, 64, 32, generator=torch.Generator().manual_seed(3))
    return Batch(images, labels, labels, labels, torch.zeros_like(labels))


def build(**options):
    torch.manual_seed(0)
    return build_method("bot", SMALL | options, 3)


def run(method, batch):
    return method(batch.images, batch.modalities, batch.camids)


def test_triplets_and_centres_see_the_feature_before_the_neck_and_classes_the_one_behind_it():
    method, batch = build(), make_batch()
    output = run(method, batch)
    losses = method.losses(output, batch)
    assert torch.equal(losses["id"], functional.cross_entropy(output.logits, batch.labels, label_smoothing=0.1))
    assert torch.equal(losses["triplet"], batch_hard_triplet(output.feature, batch.labels, margin=0.3))
    distances = (output.feature - method.head.centres.weight[batch.labels]).square().sum(1)
    torch.testing.assert_close(losses["centre"], 0.0005 * distances.mean())
    torch.testing.assert_close(output.logits, output.embedding @ method.head.classifier.weight.T)


def test_each_term_can_be_weighted_and_switched_off():
    batch = make_batch()
    whole = build()
    expected = whole.losses(run(whole, batch), batch)
    output = run(build(), batch)
    for options, name, factor in (
        ({"triplet_weight": 0.5}, "triplet", 0.5),
        ({"centre_weight": 0.001}, "centre", 2.0),
        ({"triplet_weight": 0.0}, "triplet", None),
        ({"centre_weight": 0.0}, "centre", None),
    ):
        method = build(**options)
        losses = method.losses(run(method, batch), batch)
        assert losses.keys() == expected.keys() - (set() if factor else {name})
        if factor:
            torch.testing.assert_close(losses[name], factor * expected[name])
    soft = build(triplet_margin=None)
    found = soft.losses(run(soft, batch), batch)["triplet"]
    torch.testing.assert_close(found, batch_hard_triplet(output.feature, batch.labels, margin=None))


def test_centres_are_a_group_of_their_own_and_are_not_built_without_their_loss():
    method = build()
    groups = method.parameter_groups()
    assert [tuple(weights.shape) for weights in groups["centres"]] == [(3, method.branch.width)]
    assert all(weights is not method.head.centres.weight for weights in groups["head"])
    plain = build(centre_weight=0.0)
    assert plain.parameter_groups().keys() == {"backbone", "head"}
    assert "head.centres.weight" not in plain.state_dict()


def test_no_relu_follows_the_first_norm_unless_asked_for():
    images = torch.randn(2, 3, 64, 32)
    theirs = timm.create_model("test_resnet", num_classes=0, global_pool="").eval()
    for relu in (False, True):
        network = build(stem_relu=relu).branch.backbone.eval()
        network.load_state_dict(theirs.state_dict())
        seen = []
        network.maxpool.register_forward_pre_hook(lambda module, inputs, seen=seen: seen.append(inputs[0]))
        with torch.no_grad():
            network(images)
            normed = theirs.bn1(theirs.conv1(images))
        torch.testing.assert_close(seen[0], normed.relu() if relu else normed)
    assert normed.min() < 0


def test_a_backbone_whose_first_relu_cannot_be_left_out_is_refused_with_the_remedy():
    other = {"backbone": "mobilenetv3_small_050", "last_stride": 2}
    with pytest.raises(
        RecipeError, match=r"method\.stem_relu: false, but backbone mobilenetv3_small_050 .*set it to true"
    ):
        build_method("bot", other, 3)
    assert build_method("bot", other | {"stem_relu": True}, 3).branch.width > 0


def test_the_last_stage_keeps_its_resolution_by_default():
    method = build_method("bot", {"backbone": "resnet18"}, 3)
    with torch.no_grad():
        assert method.branch.backbone(torch.zeros(1, 3, 64, 32)).shape[2:] == (4, 2)


def test_the_search_feature_is_behind_the_neck_or_before_it():
    batch = make_batch()
    for place in ("head", "backbone"):
        method = build(test_feature=place).eval()
        with torch.no_grad():
            output = run(method, batch)
            vectors = method.embed(batch.images, batch.modalities, batch.camids)
        raw = output.embedding if place == "head" else output.feature
        torch.testing.assert_close(vectors, raw / raw.norm(dim=1, keepdim=True))


@pytest.mark.parametrize("extractor", ["bot", "agw"])
def test_inside_idf_each_head_has_centres_and_all_of_them_are_one_group(extractor):
    options = {"extractor": extractor, "extractor_options": SMALL, "curve_width": 4, "normalisation": "imagenet"}
    method, batch = build_method("idf", options, 3), make_batch()
    groups = method.parameter_groups()
    assert len(groups["centres"]) == 3
    assert sum(len(members) for members in groups.values()) == len([p for p in method.parameters() if p.requires_grad])
    losses = method.losses(run(method, batch), batch)
    assert {f"{loss}_{head}" for loss in ("id", "triplet", "centre") for head in ("enhanced", "night", "fused")} <= set(
        losses
    )
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(weights.grad).all() for weights in groups["centres"])


# The former name: what this package called BoT when it had only a part of it


FORMER = {  # every option there was, with its default
    "backbone": "resnet18",
    "last_stride": 1,
    "label_smoothing": 0.1,
    "triplet_weight": 1.0,
    "triplet_margin": 0.3,
    "input_scale": 1.0,
    "normalisation": "imagenet",
    "test_feature": "head",
}


def literal_bnneck():
    """Backbone and neck as they were built and run then."""
    torch.manual_seed(0)
    backbone, width = build_backbone("test_resnet")
    return backbone, width, BNNeck(width, 3)


def test_bnneck_computes_and_learns_what_it_did_to_the_last_digit():
    batch = make_batch()
    backbone, width, neck = literal_bnneck()
    torch.manual_seed(0)
    method = build_method("bnneck", SMALL, 3)
    state = {f"branch.backbone.{name}": value for name, value in backbone.state_dict().items()}
    state |= {f"head.{name}": value for name, value in neck.state_dict().items()}
    assert state.keys() == method.state_dict().keys()
    assert all(torch.equal(method.state_dict()[name], value) for name, value in state.items())

    expected = neck(pool_average(backbone(Normalise("imagenet")(batch.images)), width))
    losses = {
        "id": functional.cross_entropy(expected.logits, batch.labels, label_smoothing=0.1),
        "triplet": batch_hard_triplet(expected.feature, batch.labels, margin=0.3),
    }
    found = method.losses(run(method, batch), batch)
    assert found.keys() == losses.keys()
    assert all(torch.equal(found[name], value) for name, value in losses.items())
    sum(losses.values()).backward()
    sum(found.values()).backward()
    gradients = {f"branch.backbone.{name}": weights.grad for name, weights in backbone.named_parameters()}
    gradients |= {f"head.{name}": weights.grad for name, weights in neck.named_parameters() if weights.requires_grad}
    assert list(method.parameter_groups()) == ["backbone", "head"]
    for name, weights in method.named_parameters():
        if weights.requires_grad:
            assert torch.equal(weights.grad, gradients[name]), name


def test_bnneck_has_every_option_it_had_with_the_same_default():
    assert asdict(build_options("bnneck")).items() >= FORMER.items()
    assert build_options("bnneck", FORMER) == build_options("bnneck")
    assert build_options("bnneck", {"backbone": "resnet50"}).backbone == "resnet50"


def test_recipes_and_checkpoints_that_say_bnneck_go_on_working(tmp_path):
    for name in ("bnneck_synth", "idf_bnneck_synth"):
        recipe = load_recipe(name)
        assert check_recipe(recipe.model_dump(mode="json"), name) == recipe
    backbone, width, neck = literal_bnneck()
    method = build_method("bnneck", SMALL, 3)
    state = {f"branch.backbone.{name}": value for name, value in backbone.state_dict().items()}
    method.load_state_dict(state | {f"head.{name}": value for name, value in neck.state_dict().items()})
    save_checkpoint(tmp_path / "old.safetensors", method, Header("bnneck", FORMER | SMALL, 3))
    loaded = load_checkpoint(tmp_path / "old.safetensors", method="bnneck", num_ids=3)
    batch = make_batch()
    with torch.no_grad():
        feature = pool_average(backbone.eval()(Normalise("imagenet")(batch.images)), width)
        expected = normalise(neck.eval()(feature).embedding)
        assert torch.equal(loaded.method.embed(batch.images, batch.modalities, batch.camids), expected)


def test_bnneck_as_an_extractor_has_no_centres_and_the_same_heads():
    options = {"extractor": "bnneck", "extractor_options": SMALL, "curve_width": 4}
    method = build_method("idf", options, 3)
    assert type(method.heads["f"]) is BNNeck
    assert method.parameter_groups().keys() == {"backbone", "head", "enhancer"}


def test_a_network_with_that_relu_does_not_pass_for_the_released_one(tmp_path):
    with torch.device("meta"):
        state = build_method("bnneck", {"backbone": "resnet50"}, 3).state_dict()
    for options, message in (
        (
            build_options("bnneck", {"backbone": "resnet50"}),
            r"method\.stem_relu: True has no place in the released layout; only False",
        ),
        (
            build_options("bot", {"last_stride": 2}),
            r"method\.last_stride: 2 has no place in the released layout; only 1 fits it",
        ),
    ):
        with pytest.raises(CheckpointError, match=message):
            convert_to("bot-official", asdict(options), state)
    small = SMALL | {"backbone": "resnet18", "last_stride": 1}
    save_checkpoint(tmp_path / "old.safetensors", build_method("bnneck", small, 3), Header("bnneck", small, 3))
    message = r"old\.safetensors: holds the method 'bnneck' and does not fit bot-official: .*stem_relu: True has"
    with pytest.raises(CheckpointError, match=message):
        export_checkpoint("bot-official", tmp_path / "old.safetensors", tmp_path / "theirs.pth")
