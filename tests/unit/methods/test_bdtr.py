"""BDTR: its rankings against a slow loop from their formulas, its AlexNet layer by layer, and what it refuses."""

import dataclasses
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.errors import CheckpointError, RecipeError, TrainingError
from tapetum.core.types import Batch
from tapetum.methods import build_method, build_options, small_options
from tapetum.methods.bdtr import AlexNet, build_normalisation, pool_and_damp, rank_across
from tapetum.runs.recipe import load_recipe
from tapetum.runs.sources import augment_options
from tapetum.training.optimisation import compute_lr_factor

NUM_IDS = 3


def build(**options: object) -> nn.Module:
    torch.manual_seed(3)
    return build_method("bdtr", small_options("bdtr") | options, NUM_IDS).train()


def make_batch() -> Batch:
    """Of each person three pictures of one modality and one of the other, in no order."""
    generator = torch.Generator().manual_seed(5)
    labels, modalities = torch.arange(12) // 4, torch.tensor([0, 0, 0, 1, 1, 1, 1, 0, 0, 1, 0, 0])
    images = functional.interpolate(torch.rand(12, 3, 8, 4, generator=generator), scale_factor=8)
    return Batch(images, labels, labels + 40, modalities + 1, modalities).select(
        torch.randperm(12, generator=generator)
    )


def run(method: nn.Module, batch: Batch):
    return method(batch.images, batch.modalities, batch.camids)


def rank_slowly(features: Tensor, labels: Tensor, modalities: Tensor, margin: float, intra: float) -> list[Tensor]:
    """Each anchor alone; the norms, distances and extremes of each pair are formed one by one."""
    unit = [row / row.norm() for row in features]
    across, within = {0: [], 1: []}, {0: [], 1: []}
    for a, (label, modality) in enumerate(zip(labels.tolist(), modalities.tolist(), strict=True)):
        others = [i for i in range(len(unit)) if modalities[i] != modality]
        own = [i for i in others if labels[i] == label]
        strangers = [i for i in others if labels[i] != label]
        p = max(own, key=lambda i: (unit[a] - unit[i]).norm().item())
        n = min(strangers, key=lambda i: (unit[a] - unit[i]).norm().item())
        across[modality].append(((unit[a] - unit[p]).norm() - (unit[a] - unit[n]).norm() + margin).clamp(min=0))
        within[modality].append((intra - (unit[p] - unit[n]).norm()).clamp(min=0))
    return [sum(torch.stack(terms).mean() for terms in each.values()) for each in (across, within)]


@pytest.mark.parametrize("pictures", [1, 3])
@pytest.mark.parametrize(("margin", "intra"), [(0.5, 0.1), (0.05, 1.2)])
def test_the_rankings_are_the_slow_loop_over_anchors_and_so_are_their_gradients(rng, pictures, margin, intra):
    labels = torch.tensor([7, 2, 0, 5]).repeat(2 * pictures)
    modalities = (torch.arange(len(labels)) >= 4 * pictures).long()
    order = torch.randperm(len(labels), generator=rng)
    labels, modalities = labels[order], modalities[order]
    features = torch.randn(len(labels), 3, generator=rng, dtype=torch.float64, requires_grad=True)
    found = rank_across(features, labels, modalities, margin=margin, intra_margin=intra)
    expected = rank_slowly(features, labels, modalities, margin, intra)
    assert expected[0] > 0
    assert intra < 1 or expected[1] > 0
    for mine, slow in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, slow)
        gradients = (torch.autograd.grad(each, features, retain_graph=True)[0] for each in (mine, slow))
        torch.testing.assert_close(*gradients)


def test_with_one_picture_of_each_person_the_rankings_are_those_of_rows_that_belong_together(rng):
    visible, infrared = (functional.normalize(torch.rand(5, 4, generator=rng, dtype=torch.float64)) for _ in range(2))
    distances = (visible[:, None] - infrared[None]).norm(dim=2)
    expected = []
    for table in (distances, distances.T):
        hinges = [
            table[i, i] - min(table[i, j] for j in range(5) if j != i) + 0.5 for i in range(5)
        ]  # fmt: skip
        expected.append(torch.stack(hinges).clamp(min=0).mean())
    labels, modalities = torch.arange(5).repeat(2), torch.arange(10) // 5
    across, _ = rank_across(torch.cat([visible, infrared]), labels, modalities)
    torch.testing.assert_close(across, sum(expected))


def test_each_loss_has_its_weight_and_a_weight_of_zero_leaves_it_out():
    batch = make_batch()
    method = build(ranking_weight=3.0, intra_weight=0.2, margin=0.4, intra_margin=1.5)
    output = run(method, batch)
    across, within = rank_slowly(output.embedding, batch.labels, batch.modalities, 0.4, 1.5)
    found = method.losses(output, batch)
    expected = {
        "id": functional.cross_entropy(output.logits, batch.labels), "ranking": 3 * across, "intra": 0.6 * within
    }  # fmt: skip
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert value > 1e-6, name
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=name)
    assert build(intra_weight=0.0).losses(output, batch).keys() == {"id", "ranking"}
    assert build(ranking_weight=0.0).losses(output, batch).keys() == {"id"}


def test_equal_pictures_have_a_finite_gradient():
    features = torch.ones(4, 3, requires_grad=True)
    across, within = rank_across(features, torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1]))
    (across + within).backward()
    assert torch.isfinite(features.grad).all()


def test_a_picture_goes_through_the_network_of_its_own_modality_alone():
    method, batch = build().eval(), make_batch()
    before = run(method, batch).embedding
    for parameter in method.streams[1].parameters():
        parameter.data.mul_(1.5)
    after = run(method, batch).embedding
    moved = (before - after).abs().amax(1) > 1e-6
    assert torch.equal(moved, batch.modalities == 1)


def test_the_shared_layer_is_its_formula_and_scales_of_norms_do_not_learn():
    method, batch = build().eval(), make_batch()
    output = run(method, batch)
    expected = (output.feature.clamp(min=0) @ method.shared.weight.T + method.shared.bias).clamp(min=0)
    torch.testing.assert_close(output.embedding, expected)
    torch.testing.assert_close(output.logits, expected @ method.classifier.weight.T + method.classifier.bias)
    learning = {id(parameter) for group in method.parameter_groups().values() for parameter in group}
    for stream in method.streams:
        assert torch.equal(stream.norm.weight, torch.ones(stream.width))
        assert id(stream.norm.weight) not in learning
        assert id(stream.norm.bias) in learning


def test_dropout_stands_before_and_behind_the_shared_layer_in_training_alone():
    method, batch = build(dropout=0.5), make_batch()
    output = run(method, batch)
    assert not torch.equal(run(method, batch).embedding, output.embedding)
    expected = functional.linear(output.embedding, method.classifier.weight, method.classifier.bias)
    assert not torch.allclose(output.logits, expected)
    method.eval()
    assert torch.equal(run(method, batch).logits, run(method, batch).logits)


def test_damping_divides_by_the_squares_of_five_channels(rng):
    maps = 100 * torch.rand(2, 7, 3, 3, generator=rng)
    found = pool_and_damp(maps)
    largest = maps.amax((2, 3))
    for c in range(7):
        squares = largest[:, max(c - 2, 0) : c + 3].square().sum(1)
        torch.testing.assert_close(found[:, c, 0, 0], largest[:, c] / (1 + 2e-5 * squares) ** 0.75)


@pytest.fixture(scope="module")
def alexnet() -> AlexNet:
    torch.manual_seed(0)
    return AlexNet().eval()


def test_alexnet_has_caffes_weights_in_number_and_sees_6_x_6_places_of_its_own_pictures(alexnet: AlexNet):
    sizes = {name: sum(weight.numel() for weight in layer.parameters()) for name, layer in alexnet.named_children()}
    assert sizes == {
        "conv1": 34944, "conv2": 307456, "conv3": 885120, "conv4": 663936, "conv5": 442624, "fc6": 37752832
    }  # fmt: skip
    seen = []
    hook = alexnet.conv5.register_forward_hook(lambda *given: seen.append(given[2].shape))
    with torch.no_grad():
        made = alexnet(torch.rand(1, 3, 227, 227))
        smallest = alexnet(torch.rand(1, 3, 67, 67))
    hook.remove()
    assert made.shape == smallest.shape == (1, 4096, 1, 1)
    assert [tuple(shape[2:]) for shape in seen] == [(13, 13), (3, 3)]  # pooled 6 x 6, and one place


def test_caffes_weights_are_read_with_their_first_layer_turned_to_rgb(alexnet: AlexNet, tmp_path: Path):
    state = {name: value.clone() for name, value in alexnet.state_dict().items()}
    state["conv1.weight"] = state["conv1.weight"].flip(1).contiguous()
    state["fc6.weight"] = state["fc6.weight"].flatten(1)
    path = tmp_path / "caffe.safetensors"
    safetensors.torch.save_file(state | {"fc7.weight": torch.zeros(2, 2)}, path)
    with torch.device("meta"):
        method = build_method("bdtr", {}, NUM_IDS, size=(227, 227))
    method.to_empty(device="cpu")
    method.load_pretrained(str(path))
    for stream in method.streams:
        for name, value in alexnet.state_dict().items():
            assert torch.equal(stream.network.state_dict()[name], value), name
    del state["conv5.bias"]
    safetensors.torch.save_file(state, path)
    with pytest.raises(CheckpointError, match=r"Caffe's AlexNet in .*conv5\.bias"):
        method.load_pretrained(str(path))


@pytest.mark.parametrize("source", ["imagenet", "package"])
def test_alexnets_weights_are_asked_for_as_a_file(source: str):
    with torch.device("meta"):
        method = build_method("bdtr", {}, NUM_IDS)
    with pytest.raises(CheckpointError, match=r"cannot be fetched; pass a file with init.weights=PATH .*resnet50"):
        method.load_pretrained(source)


@pytest.mark.parametrize(
    ("name", "means"), [("own", (123.68, 116.779, 103.939)), ("released", (103.939, 116.779, 123.68))]
)
def test_alexnets_pictures_lose_caffes_mean_in_either_order(name: str, means: tuple[float, ...]):
    picture = torch.tensor(means).view(1, 3, 1, 1).expand(1, 3, 2, 2) / 255
    prepare = build_normalisation(build_options("bdtr", {"normalisation": name}))
    torch.testing.assert_close(prepare(picture), torch.zeros(1, 3, 2, 2), atol=1e-4, rtol=0)
    torch.testing.assert_close(prepare(picture + 1), torch.full((1, 3, 2, 2), 255.0))


def test_what_cannot_be_built_is_refused_in_one_line():
    with pytest.raises(RecipeError, match=r"alexnet: takes pictures of at least 67 x 67, these are 128 x 64; .*size"):
        build_method("bdtr", {}, NUM_IDS, size=(128, 64))
    with pytest.raises(RecipeError, match=r"normalisation released is alexnet's, method.backbone is resnet18"):
        build_method("bdtr", {"backbone": "resnet18", "normalisation": "released"}, NUM_IDS)


def test_a_batch_that_cannot_be_ranked_is_refused_in_one_line():
    method, batch = build(), make_batch()
    output = run(method, batch)
    alone = dataclasses.replace(batch, labels=torch.zeros_like(batch.labels))
    with pytest.raises(TrainingError, match=r"^bdtr: the batch shows one identity only, .* at least 2 identities"):
        method.losses(output, alone)
    modalities = torch.where(batch.labels == 1, 0, batch.modalities)
    with pytest.raises(TrainingError, match=r"^bdtr: 1 of 3 people .* in one modality only, .* to cross_modality, or"):
        method.losses(output, dataclasses.replace(batch, modalities=modalities))
    with pytest.raises(TrainingError, match=r"^bdtr: the batch has a single picture of a modality"):
        run(method, batch.select(torch.cat([(batch.modalities == 0).nonzero()[:, 0], batch.modalities.argmax()[None]])))


def test_a_step_in_bf16_and_channels_last_gives_finite_gradients():
    method, batch = build().to(memory_format=torch.channels_last), make_batch()
    images = batch.images.contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        output = method(images, batch.modalities, batch.camids)
    assert output.embedding.dtype == output.logits.dtype == torch.float32
    torch.stack(list(method.losses(output, batch).values())).sum().backward()
    for group in method.parameter_groups().values():
        assert all(torch.isfinite(parameter.grad).all() for parameter in group)


@pytest.mark.parametrize("data", ["sysu", "regdb", "llcm"])
def test_the_recipes_train_as_the_release_does(data: str):
    recipe = load_recipe(f"bdtr_{data}")
    assert recipe.data.size == (227, 227)
    (crop,) = augment_options(recipe)
    assert (crop.name, round(227 * crop.options.scale)) == ("resize_crop", 256)
    assert recipe.augment[0]["probability"] == 1.0
    assert (recipe.sampler.options["ids"], recipe.sampler.options["pictures"]) == (64, 1)
    assert recipe.sampler.options["steps"] * recipe.schedule.epochs == 5000
    optimiser = recipe.optimiser
    assert (optimiser.name, optimiser.lr, optimiser.momentum, optimiser.weight_decay) == ("sgd", 0.001, 0.9, 0.0)
    assert {compute_lr_factor(recipe.schedule, epoch) for epoch in (0, 1, 30, 49)} == {1.0}
    assert not recipe.evaluation.mirror


def test_a_batch_that_is_seen_again_and_again_is_ranked_across_the_modalities():
    method, batch = build(backbone="test_resnet"), make_batch()
    weights = [weight for group in method.parameter_groups().values() for weight in group]
    optimiser = torch.optim.AdamW(weights, lr=0.001)
    found = []
    for _ in range(25):
        losses = method.losses(run(method, batch), batch)
        found.append({name: loss.item() for name, loss in losses.items()})
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()
    assert found[0]["ranking"] > 0.8
    assert found[-1]["ranking"] < 0.4
    assert found[-1]["id"] < 0.8
