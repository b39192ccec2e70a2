import pytest
import torch
from torch.nn import functional

from golden.networks.fill import Case
from golden_files import FOLDER
from tapetum.core.errors import CheckpointError, RecipeError
from tapetum.core.types import Batch
from tapetum.losses.triplet import batch_hard_triplet
from tapetum.methods import build_method, convert_from, convert_to

SMALL = {"backbone": "test_resnet", "last_stride": 2}


def make_batch(size=8, seed=3):
    labels = torch.arange(size) // 4
    images = torch.rand(size, 3, 64, 32, generator=torch.Generator().manual_seed(seed))
    return Batch(images, labels, labels, labels, torch.arange(size) % 2)


def run(method, batch):
    return method(batch.images, batch.modalities, batch.camids)


def test_triplets_see_the_feature_before_the_neck_and_classes_the_one_behind_it():
    method, batch = build_method("two_stream", SMALL, 2), make_batch()
    output = run(method, batch)
    losses = method.losses(output, batch)
    assert losses.keys() == {"id", "triplet"}
    assert torch.equal(losses["id"], functional.cross_entropy(output.logits, batch.labels))
    assert torch.equal(losses["triplet"], batch_hard_triplet(output.feature, batch.labels, margin=0.3))


def test_the_triplet_term_can_be_weighted_softened_and_switched_off():
    batch = make_batch()
    for options, weight in (({"triplet_weight": 0.5}, 0.5), ({"triplet_margin": None}, 1.0)):
        method = build_method("two_stream", SMALL | options, 2)
        output = run(method, batch)
        expected = weight * batch_hard_triplet(output.feature, batch.labels, margin=options.get("triplet_margin", 0.3))
        torch.testing.assert_close(method.losses(output, batch)["triplet"], expected)
    method = build_method("two_stream", SMALL | {"triplet_weight": 0.0}, 2)
    assert method.losses(run(method, batch), batch).keys() == {"id"}


@pytest.mark.parametrize("mirror", [False, True])
def test_with_both_features_the_inner_product_is_the_mean_of_two_similarities(mirror):
    batch, similarities = make_batch(), {}
    for place in ("head", "backbone", "both"):
        torch.manual_seed(0)
        method = build_method("two_stream", SMALL | {"test_feature": place}, 2).eval()
        with torch.no_grad():
            vectors = method.embed(batch.images, batch.modalities, batch.camids, mirror=mirror)
        similarities[place] = vectors @ vectors.T
    torch.testing.assert_close(similarities["both"], (similarities["head"] + similarities["backbone"]) / 2)


def test_a_picture_is_seen_by_the_stem_of_its_modality():
    method, batch = build_method("two_stream", SMALL, 2).eval(), make_batch()
    with torch.no_grad():
        as_visible, as_infrared = (
            method.embed(batch.images, torch.full((8,), modality), batch.camids) for modality in (0, 1)
        )
        mixed = method.embed(batch.images, batch.modalities, batch.camids)
    torch.testing.assert_close(mixed[0::2], as_visible[0::2])
    torch.testing.assert_close(mixed[1::2], as_infrared[1::2])
    assert (as_visible - as_infrared).abs().max() > 1e-3


def test_generalised_mean_pooling_is_an_option():
    batch = make_batch()
    features = []
    for pooling in ("average", "gem"):
        torch.manual_seed(0)
        with torch.no_grad():
            features.append(run(build_method("two_stream", SMALL | {"pooling": pooling}, 2).eval(), batch).feature)
    assert (features[1] >= features[0] - 1e-5).all()  # the mean of cubes is never below the cube of the mean


def test_only_neck_and_classifier_are_in_the_group_of_the_head():
    method = build_method("two_stream", SMALL, 2)
    groups = method.parameter_groups()
    assert {id(p) for p in groups["head"]} == {id(method.head.norm.weight), id(method.head.classifier.weight)}
    assert sum(map(len, groups.values())) == len([p for p in method.parameters() if p.requires_grad])


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(RecipeError, match=r"method\.triplet_weight: -1\.0"):
        build_method("two_stream", SMALL | {"triplet_weight": -1.0}, 2)
    with pytest.raises(RecipeError, match=r"method\.label_smoothing: 1\.0"):
        build_method("two_stream", SMALL | {"label_smoothing": 1.0}, 2)


@pytest.mark.slow
def test_a_checkpoint_of_the_release_has_the_tensors_that_lba_s_has_and_goes_both_ways():
    case = Case(FOLDER / "networks" / "lba.npz")  # whose release trains this network, and keeps nothing more
    with torch.device("meta"):
        own = build_method("two_stream", {}, 395).state_dict()
    numbered = {name: torch.full(value.shape, n, dtype=value.dtype) for n, (name, value) in enumerate(own.items(), 1)}
    theirs = convert_to("two-stream-official", {}, numbered)
    assert {name: tuple(value.shape) for name, value in theirs.items()} == case.shapes
    found = convert_from("two-stream-official", theirs)
    assert (found.method, found.num_ids, found.options["pooling"]) == ("two_stream", 395, "average")
    assert found.state.keys() == numbered.keys()
    assert all(torch.equal(found.state[name], value) for name, value in numbered.items())
    used = {name: value for name, value in theirs.items() if value.any()}
    assert len(used) == len(numbered)
    assert convert_from("two-stream-official", used).state.keys() == numbered.keys()
    with pytest.raises(CheckpointError, match=r"two-stream-official checkpoint: 1 unknown tensor\(s\), first 'NL_2"):
        convert_from("two-stream-official", theirs | {"NL_2.0.g.0.bias": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"method\.pooling: 'gem' has no place in the released layout"):
        convert_to("two-stream-official", {"pooling": "gem"}, numbered)
