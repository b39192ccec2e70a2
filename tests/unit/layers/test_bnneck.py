import pytest
import torch
from torch import nn

from tapetum.layers.bnneck import BNNeck, CentredNeck, Centres, centres_of


@pytest.fixture
def build(golden):
    def make(name):
        case = golden("modules_other", name)
        neck = BNNeck(12, 5)
        state = {
            key.replace("bottleneck", "norm"): value for key, value in case.param.items() if not key.startswith("_")
        }
        neck.load_state_dict(state)
        return case, neck

    return make


def test_in_training_class_scores_come_from_behind_the_neck_and_the_metric_feature_from_before(build, assert_matches):
    case, neck = build("bnneck_train")
    (x,) = case.leaves("x")
    output = neck.train()(x.mean((2, 3)))
    probed = {"logits": output.logits, "metric_feature": output.feature}
    sum((value * case.inputs[f"probe_{name}"]).sum() for name, value in probed.items()).backward()
    for name, value in probed.items():
        assert_matches(value, case.out[name], 2e-4)
    assert_matches(x.grad, case.grad["x"], 1e-3)
    assert_matches(neck.norm.weight.grad, case.grad["param.bottleneck.weight"], 1e-3)
    assert_matches(neck.classifier.weight.grad, case.grad["param.classifier.weight"], 1e-3)
    assert_matches(neck.norm.running_mean, case.out["after.bottleneck.running_mean"], 2e-4)
    assert_matches(neck.norm.running_var, case.out["after.bottleneck.running_var"], 2e-4)


@pytest.mark.parametrize("place", ["after", "before"])
def test_the_search_feature_is_after_or_before_the_neck(build, assert_matches, place):
    case, neck = build(f"bnneck_eval_{place}")
    output = neck.eval()(case.inputs["x"].mean((2, 3)))
    assert_matches(output.embedding if place == "after" else output.feature, case.out["y"], 2e-4)


def test_the_necks_bias_is_not_trained():
    neck = BNNeck(4, 2)
    assert not neck.norm.bias.requires_grad
    assert neck.classifier.bias is None


def test_centres_are_drawn_from_a_standard_normal_distribution():
    torch.manual_seed(0)
    weight = Centres(300, 64).weight
    assert weight.shape == (300, 64)
    assert abs(weight.mean().item()) < 0.02
    assert abs(weight.std().item() - 1) < 0.02


def test_a_neck_with_centres_gives_what_one_without_gives():
    plain, centred = BNNeck(8, 3).eval(), CentredNeck(8, 3).eval()
    missing = centred.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing == ["centres.weight"]
    feature = torch.randn(4, 8)
    assert torch.equal(centred(feature).logits, plain(feature).logits)


def test_all_centres_of_a_network_are_found():
    heads = nn.ModuleDict({"first": CentredNeck(8, 3), "plain": BNNeck(8, 3), "second": CentredNeck(4, 3)})
    assert [tuple(weight.shape) for weight in centres_of(heads)] == [(3, 8), (3, 4)]
    assert centres_of(BNNeck(8, 3)) == []
