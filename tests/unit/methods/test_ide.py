import pytest
import torch
import torchvision

from tapetum.core.errors import CheckpointError
from tapetum.core.types import Batch
from tapetum.methods import build_method, convert_from, convert_to

SMALL = {"backbone": "resnet18", "width": 16, "dropout": 0.0}


def make_batch(size=4):
    generator = torch.Generator().manual_seed(3)
    numbers = torch.arange(size)
    return Batch(
        torch.rand(size, 3, 64, 32, generator=generator), numbers % 3, numbers, numbers, torch.zeros_like(numbers)
    )


def test_the_network_is_torchvisions_resnet_with_imagenet_input_and_the_head(tmp_path):
    theirs = torchvision.models.resnet18()
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    method = build_method("ide", SMALL, 3)
    method.load_pretrained(str(tmp_path / "weights.pth"))
    theirs.fc = torch.nn.Identity()
    batch = make_batch()
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pictures = (batch.images - mean.view(1, 3, 1, 1)) / deviation.view(1, 3, 1, 1)
    with torch.no_grad():
        feature = theirs.eval()(pictures)
        embedding = method.eval().head.norm(method.head.reduce(feature))
        output = method(batch.images, batch.modalities, batch.camids)
    torch.testing.assert_close(output.feature, feature)
    torch.testing.assert_close(output.embedding, embedding)
    torch.testing.assert_close(output.logits, method.head.classifier(embedding))


def test_the_input_scale_multiplies_before_the_normalisation():
    batch = make_batch()
    torch.manual_seed(0)
    plain = build_method("ide", SMALL | {"normalisation": "none"}, 3).eval()
    torch.manual_seed(0)
    scaled = build_method("ide", SMALL | {"normalisation": "none", "input_scale": 0.25}, 3).eval()
    with torch.no_grad():
        expected = plain(batch.images / 4, batch.modalities, batch.camids)
        assert torch.equal(scaled(batch.images, batch.modalities, batch.camids).feature, expected.feature)


def test_the_mirror_is_added_before_the_only_normalisation():
    method = build_method("ide", SMALL, 3).eval()
    batch = make_batch()
    with torch.no_grad():
        raw = [
            method(images, batch.modalities, batch.camids).embedding for images in (batch.images, batch.images.flip(3))
        ]
        vectors = method.embed(batch.images, batch.modalities, batch.camids, mirror=True)
    total = raw[0] + raw[1]
    torch.testing.assert_close(vectors, total / total.norm(dim=1, keepdim=True))


def test_the_search_feature_can_be_the_pooled_one():
    method = build_method("ide", SMALL | {"test_feature": "backbone"}, 3).eval()
    batch = make_batch()
    with torch.no_grad():
        vectors = method.embed(batch.images, batch.modalities, batch.camids)
    assert vectors.shape == (4, 512)


def test_label_smoothing_is_torchs():
    batch = make_batch()
    torch.manual_seed(0)
    method = build_method("ide", SMALL | {"label_smoothing": 0.1}, 3)
    output = method(batch.images, batch.modalities, batch.camids)
    expected = torch.nn.functional.cross_entropy(output.logits, batch.labels, label_smoothing=0.1)
    assert torch.equal(method.losses(output, batch)["id"], expected)


def official_state(num_ids):
    """A released checkpoint of the baseline, made without our code."""
    torch.manual_seed(5)
    state = {f"model.{name}": tensor for name, tensor in torchvision.models.resnet50().state_dict().items()}
    shapes = {"add_block.0.weight": (512, 2048), "add_block.0.bias": (512,), "add_block.1.weight": (512,)}
    shapes |= {"add_block.1.bias": (512,), "add_block.1.running_mean": (512,), "add_block.1.running_var": (512,)}
    shapes |= {"classifier.0.weight": (num_ids, 512), "classifier.0.bias": (num_ids,)}
    state |= {f"classifier.{name}": torch.rand(shape) for name, shape in shapes.items()}
    state["classifier.add_block.1.num_batches_tracked"] = torch.tensor(7)
    return state


def test_a_released_baseline_converts_there_and_back_and_refuses_strangers():
    official = official_state(6)
    converted = convert_from("ide-official", official)
    assert (converted.method, converted.num_ids) == ("ide", 6)
    method = build_method(converted.method, converted.options, converted.num_ids)
    method.load_state_dict(converted.state)
    assert torch.equal(method.branch.backbone.conv1.weight, official["model.conv1.weight"])
    assert torch.equal(method.head.classifier.weight, official["classifier.classifier.0.weight"])

    back = convert_to("ide-official", converted.options, method.state_dict())
    assert back.keys() == official.keys()
    for name, tensor in back.items():
        expected = torch.zeros_like(official[name]) if name.startswith("model.fc.") else official[name]
        assert torch.equal(tensor, expected), name

    with pytest.raises(CheckpointError, match=r"1 missing tensor\(s\), first 'model.fc.bias'"):
        convert_from("ide-official", {name: value for name, value in official.items() if name != "model.fc.bias"})
    with pytest.raises(CheckpointError, match=r"1 unknown tensor\(s\), first 'extra'"):
        convert_from("ide-official", official | {"extra": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"no tensor 'classifier.classifier.0.weight'"):
        convert_from("ide-official", {})
    with pytest.raises(CheckpointError, match="ide-official"):  # another backbone has no place there
        convert_to("ide-official", SMALL, build_method("ide", SMALL, 3).state_dict())
