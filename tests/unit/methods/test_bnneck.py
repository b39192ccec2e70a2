import torch

from tapetum.core.types import Batch
from tapetum.losses.triplet import batch_hard_triplet
from tapetum.methods import build_method

SMALL = {"backbone": "resnet18"}


def make_batch():
    labels = torch.arange(6) // 2
    images = torch.rand(6, 3, 64, 32, generator=torch.Generator().manual_seed(3))
    return Batch(images, labels, labels, labels, torch.zeros_like(labels))


def test_triplets_see_the_feature_before_the_neck_and_classes_the_one_behind_it():
    method, batch = build_method("bnneck", SMALL, 3), make_batch()
    output = method(batch.images, batch.modalities, batch.camids)
    losses = method.losses(output, batch)
    expected = torch.nn.functional.cross_entropy(output.logits, batch.labels, label_smoothing=0.1)
    assert torch.equal(losses["id"], expected)
    assert torch.equal(losses["triplet"], batch_hard_triplet(output.feature, batch.labels, margin=0.3))
    torch.testing.assert_close(output.logits, output.embedding @ method.head.classifier.weight.T)


def test_the_triplet_term_can_be_weighted_softened_and_switched_off():
    batch = make_batch()
    for options, expected in (
        ({"triplet_weight": 0.5}, 0.5),
        ({"triplet_margin": None}, 1.0),
        ({"triplet_weight": 0.0}, None),
    ):
        torch.manual_seed(0)
        method = build_method("bnneck", SMALL | options, 3)
        output = method(batch.images, batch.modalities, batch.camids)
        losses = method.losses(output, batch)
        if expected is None:
            assert losses.keys() == {"id"}
        else:
            margin = options.get("triplet_margin", 0.3)
            torch.testing.assert_close(
                losses["triplet"], expected * batch_hard_triplet(output.feature, batch.labels, margin=margin)
            )


def test_the_last_stage_keeps_its_resolution_by_default():
    method = build_method("bnneck", SMALL, 3)
    with torch.no_grad():
        assert method.branch.backbone(torch.zeros(1, 3, 64, 32)).shape[2:] == (4, 2)


def test_the_search_feature_is_behind_the_neck_or_before_it():
    batch = make_batch()
    for place in ("head", "backbone"):
        method = build_method("bnneck", SMALL | {"test_feature": place}, 3).eval()
        with torch.no_grad():
            output = method(batch.images, batch.modalities, batch.camids)
            vectors = method.embed(batch.images, batch.modalities, batch.camids)
        raw = output.embedding if place == "head" else output.feature
        torch.testing.assert_close(vectors, raw / raw.norm(dim=1, keepdim=True))
