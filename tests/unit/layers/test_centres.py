import torch
from torch import nn

from tapetum.layers.bnneck import BNNeck
from tapetum.layers.centres import CentredNeck, Centres, centres_of


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
