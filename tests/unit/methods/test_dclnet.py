"""DCLNet's masks and losses against slow loops from their formulas, what each of them trains, and what it refuses."""

import dataclasses
import math
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.errors import RecipeError, TrainingError
from tapetum.core.lots import draw_tickets
from tapetum.core.types import Batch
from tapetum.data.augmentations.erasing import fill_colour
from tapetum.layers.backbones import build_backbone
from tapetum.losses.centre_cluster import cluster_around_centres
from tapetum.losses.pairs import pair_across
from tapetum.losses.place_contrast import contrast_places
from tapetum.methods import build_method, small_options
from tapetum.methods.dclnet import (
    LEVELS,
    Options,
    OwnFirstStage,
    PixelHead,
    find_erased,
    find_parts,
    predict_parts,
    score_continuity,
    score_pixels,
)
from tapetum.runs.recipe import load_recipe
from tapetum.runs.sources import augment_options
from tapetum.training.optimisation import compute_lr_factor

NUM_IDS = 3


def build(**options: object) -> nn.Module:
    torch.manual_seed(3)
    return build_method("dclnet", small_options("dclnet") | options, NUM_IDS).train()


def make_batch(modalities: Tensor | None = None, labels: Tensor | None = None) -> Batch:
    """Of each person three pictures of one modality and one of the other, in no order."""
    generator = torch.Generator().manual_seed(5)
    order = torch.randperm(12, generator=generator)
    labels = torch.arange(12) // 4 if labels is None else labels
    modalities = torch.tensor([0, 0, 0, 1, 1, 1, 1, 0, 0, 1, 0, 0]) if modalities is None else modalities
    images = functional.interpolate(torch.rand(12, 3, 8, 4, generator=generator), scale_factor=8)
    return Batch(images, labels, labels + 40, modalities + 1, modalities).select(order)


def run(method: nn.Module, batch: Batch):
    return method(batch.images, batch.modalities, batch.camids)


def test_each_modality_has_a_stem_and_a_first_stage_and_the_rest_is_shared():
    torch.manual_seed(0)
    network = OwnFirstStage("test_resnet", last_stride=2).eval()
    assert [len(parts) for parts in (network.stems, network.firsts, network.stages)] == [2, 2, 3]
    images, modalities = torch.rand(5, 3, 64, 32), torch.tensor([1, 0, 0, 1, 0])
    with torch.no_grad():
        levels = list(network.compute_levels(images, modalities))
        for row, modality in enumerate(modalities.tolist()):
            maps = network.stems[modality](images[row : row + 1])
            expected = [maps, network.firsts[modality](maps)]
            for stage in network.stages:
                expected.append(stage(expected[-1]))
            for found, own in zip(levels, expected, strict=True):
                torch.testing.assert_close(found[row : row + 1], own, rtol=1e-4, atol=1e-5)
        assert torch.equal(network(images, modalities), levels[-1])
    assert [maps.shape[1] for maps in levels] == list(network.widths)


def test_a_file_of_weights_fills_both_first_stages_and_each_shared_one(tmp_path):
    torch.manual_seed(1)
    source, _ = build_backbone("test_resnet")
    safetensors.torch.save_file(source.state_dict(), tmp_path / "weights.safetensors")
    method = build(backbone="test_resnet", last_stride=2)
    method.load_pretrained(str(tmp_path / "weights.safetensors"))
    parts = [*(("layer1", first) for first in method.network.firsts)]
    parts += [(f"layer{number}", stage) for number, stage in enumerate(method.network.stages, 2)]
    assert len(parts) == 5
    for name, part in parts:
        for key, value in part.state_dict().items():
            assert torch.equal(value, source.state_dict()[f"{name}.{key}"]), (name, key)


def test_the_pixel_head_is_one_linear_layer_of_the_enlarged_and_joined_maps(rng):
    widths, modalities = (3, 4, 5), torch.tensor([1, 0, 1])
    head = PixelHead(widths, parts=2)
    sizes = ((6, 4), (6, 4), (3, 2))
    levels = [torch.randn(3, width, *size, generator=rng) for width, size in zip(widths, sizes, strict=True)]
    found = head(levels, modalities, torch.Size((6, 4)))
    large = [functional.interpolate(maps, size=(6, 4), mode="bilinear", align_corners=False) for maps in levels]
    joined = torch.cat(large, dim=1)
    for b, modality in enumerate(modalities.tolist()):
        for y in range(6):
            for x in range(4):
                torch.testing.assert_close(found[b, :, y, x], head.weight[modality] @ joined[b, :, y, x])


@pytest.mark.parametrize(("height", "stripes"), [(6, 3), (7, 3), (4, 6)])
def test_the_foreground_of_a_stripe_is_above_the_mean_of_its_activation(rng, height, stripes):
    maps, weights = torch.randn(2, 5, 3, 2, generator=rng), torch.randn(2, stripes, 5, generator=rng)
    found = find_parts(maps, weights, torch.Size((height, 4)))
    large = functional.interpolate(maps, size=(height, 4), mode="bilinear", align_corners=False)
    for b in range(2):
        for s in range(stripes):
            rows = [y for y in range(height) if math.floor(y * stripes / height) == s]
            activation = {(y, x): float(weights[b, s] @ large[b, :, y, x]) for y in rows for x in range(4)}
            for (y, x), value in activation.items():
                assert found[b, y, x] == (s + 1) * (value > sum(activation.values()) / len(activation))


def test_scaling_a_stripes_activation_changes_no_target(rng):
    maps, weights = torch.randn(2, 5, 3, 2, generator=rng), torch.randn(2, 3, 5, generator=rng)
    scaled = weights * torch.tensor([0.5, 4.0, 2.0])[:, None]
    assert torch.equal(find_parts(maps, weights, torch.Size((6, 4))), find_parts(maps, scaled, torch.Size((6, 4))))


def test_pixel_terms_are_the_slow_loop_over_places(rng):
    scores = torch.randn(2, 5, 3, 4, generator=rng, dtype=torch.float64)
    parts = torch.randint(0, 4, (2, 3, 4), generator=rng)
    ground, which = [], []
    for b in range(2):
        for y in range(3):
            for x in range(4):
                part = int(parts[b, y, x])
                ground.append(-scores[b, :2, y, x].log_softmax(0)[min(part, 1)])
                which += [-scores[b, 2:, y, x].log_softmax(0)[part - 1]] if part else []
                seen = int(scores[b, 2:, y, x].argmax()) + 1 if scores[b, 1, y, x] > scores[b, 0, y, x] else 0
                assert predict_parts(scores)[b, y, x] == seen
    expected = torch.stack(ground).mean() + torch.stack(which).mean()
    torch.testing.assert_close(score_pixels(scores, parts), expected)
    background = functional.cross_entropy(scores[:, :2], torch.zeros_like(parts))
    torch.testing.assert_close(score_pixels(scores, torch.zeros_like(parts)), background)


@pytest.mark.parametrize("shape", [(2, 3, 4, 2), (1, 2, 1, 3), (1, 2, 1, 1)])
def test_continuity_is_the_slow_loop_over_neighbours(rng, shape):
    scores = torch.randn(shape, generator=rng, dtype=torch.float64)
    b, p, h, w = shape
    down = [(scores[i, j, y + 1, x] - scores[i, j, y, x]).abs()
            for i in range(b) for j in range(p) for y in range(h - 1) for x in range(w)]  # fmt: skip
    right = [(scores[i, j, y, x + 1] - scores[i, j, y, x]).abs()
             for i in range(b) for j in range(p) for y in range(h) for x in range(w - 1)]  # fmt: skip
    expected = sum(float(torch.stack(terms).mean()) / 2 for terms in (down, right) if terms)
    assert score_continuity(scores).item() == pytest.approx(expected)


def test_places_are_erased_where_all_their_pixels_are_filled_as_the_recipe_fills_them():
    method, images = build(), torch.rand(2, 3, 16, 8)
    (erasing,) = (each for each in augment_options(load_recipe("dclnet_sysu")) if each.name == "erasing")
    images[1, :, 4:12, :5] = torch.tensor(fill_colour(erasing.options), dtype=torch.float32)[:, None, None]
    found = find_erased(method.normalise(images), torch.Size((4, 2)))
    assert found.nonzero().tolist() == [[1, 1, 0], [1, 2, 0]]


@pytest.mark.parametrize("pairing", ["all", "lot"])
def test_each_loss_is_that_of_its_formula(pairing):
    weights = {"centre": 0.4, "part": 0.5, "pixel": 0.6, "continuity": 0.7, "contrast": 0.8}
    method = build(**{f"{name}_weight": weight for name, weight in weights.items()}, pairs=pairing)
    batch = replace(make_batch(), rows=torch.arange(len(make_batch())).flip(0))
    batch.images[:, :, 16:32] = method.normalise.mean[0]  # erased
    for head in (method.part_head.classifier, method.pixel_head):
        head.weight.data.mul_(100)
    output = run(method, batch)
    found = method.losses(output, batch)
    last, size = output.maps["stage4"], output.maps["stage1"].shape[2:]
    height, stripes = last.shape[2], []
    for s in range(6):
        rows = last[:, :, math.floor(s * height / 6) : math.ceil((s + 1) * height / 6)]
        stripes.append((rows.clamp(min=0).pow(3).mean((2, 3)) + 1e-12).pow(1 / 3))
    made = method.part_head(torch.cat(stripes, dim=1))
    classes = made.logits.argmax(1)
    own = torch.stack([method.part_head.classifier.weight[label].reshape(6, -1) for label in classes])
    erased = find_erased(method.normalise(batch.images), size)
    assert 0 < erased.sum() < erased.numel()
    target = find_parts(last, own, size) * ~erased
    scores = method.pixel_head([output.maps[name] for name in LEVELS], batch.modalities, size)
    lots = draw_tickets(batch) if pairing == "lot" else None
    pairs = pair_across(batch.labels, batch.modalities, lots=lots, owner="dclnet.contrast_weight")
    predicted = predict_parts(scores) * ~erased
    assert len(predicted.unique()) > 3
    expected = {
        "id": functional.cross_entropy(output.logits, batch.labels),
        "centre_cluster": 0.4 * cluster_around_centres(output.feature, batch.labels, margin=0.7),
        "part": 0.5 * functional.cross_entropy(made.logits, batch.labels),
        "pixel": 0.6 * score_pixels(scores, target),
        "continuity": 0.7 * score_continuity(scores),
        "contrast": 0.8 * contrast_places(output.maps["stage1"], predicted, pairs, temperature=0.05),
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert value > 1e-6, name
        torch.testing.assert_close(found[name], value, msg=name)


def test_heads_of_the_training_learn_alone_and_the_contrast_reaches_the_first_stages():
    method, batch = build(), make_batch()
    losses = method.losses(run(method, batch), batch)
    reached = {}
    for name, loss in losses.items():
        method.zero_grad()
        loss.backward(retain_graph=True)
        weights = [key for key, each in method.named_parameters() if each.grad is not None and each.grad.any()]
        reached[name] = {key.split(".")[0] if key[0] != "n" else ".".join(key.split(".")[:2]) for key in weights}
    assert reached["part"] == {"part_head"}
    assert reached["pixel"] == reached["continuity"] == {"pixel_head"}
    assert reached["contrast"] == {"network.stems", "network.firsts"}
    assert reached["id"] == {"network.stems", "network.firsts", "network.stages", "head"}


def test_the_sum_of_the_release_has_two_terms_and_no_further_heads():
    method, batch = build(released=True), make_batch()
    assert not any("part_head" in name or "pixel_head" in name for name in method.state_dict())
    output = run(method, batch)
    assert method.losses(output, batch).keys() == {"id", "centre_cluster"}
    assert not output.maps


def test_a_search_needs_none_of_the_trainings_heads_and_both_sums_give_it_the_same_vectors():
    whole, released, batch = build().eval(), build(released=True).eval(), make_batch()
    kept = {name: value for name, value in whole.state_dict().items() if name in released.state_dict()}
    released.load_state_dict(kept)
    there = (batch.images, batch.modalities, batch.camids)
    with torch.no_grad():
        for mirror in (False, True):
            assert torch.equal(whole.embed(*there, mirror=mirror), released.embed(*there, mirror=mirror))
        found = whole.embed(*there)
        torch.testing.assert_close(found, functional.normalize(run(whole, batch).embedding))


def test_a_batch_of_one_person_or_of_one_modality_a_person_is_refused_in_one_line():
    method, apart = build(), (torch.arange(12) // 4 == 1).long()
    for batch, message in (
        (make_batch(modalities=apart), "dclnet: nobody in the batch has both a visible and an infrared picture"),
        (make_batch(labels=torch.ones(12, dtype=torch.int64)), "the batch shows one identity only; set sampler.ids"),
    ):
        with pytest.raises(TrainingError, match=message) as caught:
            method.losses(run(method, batch), batch)
        assert "\n" not in str(caught.value)
    alone = build(contrast_weight=0.0)
    batch = make_batch(modalities=apart)
    assert "contrast" not in alone.losses(run(alone, batch), batch)


def test_a_bfloat16_step_on_channels_last_pictures_gives_finite_gradients():
    method, batch = build(), make_batch()
    method.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        output = run(method, dataclasses.replace(batch, images=batch.images.to(memory_format=torch.channels_last)))
    maps = {name: value.float() for name, value in output.maps.items()}
    torch.stack(list(method.losses(dataclasses.replace(output, maps=maps), batch).values())).sum().backward()
    assert all(torch.isfinite(weights.grad).all() for weights in method.parameters() if weights.requires_grad)


def test_the_recipes_numbers_are_those_of_the_fact_sheet():
    for data in ("sysu", "regdb", "llcm"):
        recipe = load_recipe(f"dclnet_{data}")
        assert Options() == Options(**recipe.method.options)
        assert (recipe.data.size, recipe.schedule.epochs) == ((288, 144), 150)
        assert (recipe.sampler.options["ids"], recipe.sampler.options["pictures"]) == (8, 4)
        assert (recipe.optimiser.name, recipe.optimiser.lr, recipe.optimiser.weight_decay) == ("adam", 3.5e-3, 5e-4)
        assert recipe.optimiser.group_lr == {"backbone": 3.5e-4, "pixel_head": 3.5e-4}
        for epoch in range(150):
            expected = min((epoch + 1) / 5, 1) * 0.1 ** sum(epoch >= drop for drop in (15, 27))
            assert compute_lr_factor(recipe.schedule, epoch) == pytest.approx(expected), epoch
        grey, flip, erasing = augment_options(recipe)
        assert (grey.where.probability, grey.where.modality, flip.where.modality) == (0.5, "visible", None)
        assert (erasing.where.probability, erasing.options.area, erasing.options.fill) == (0.5, (0.02, 0.33), "mean")
    options = Options()
    assert (options.parts, options.centre_margin, options.temperature, options.released) == (6, 0.7, 0.05, False)


def test_settings_that_cannot_work_are_refused():
    for options, message in (
        ({"parts": 1}, r"method\.parts: 1 is out of range; use a number from 2"),
        ({"pixel_weight": 0.0}, r"method\.pixel_weight: 0\.0 is out of range; use a number above 0"),
        ({"temperature": 0.01}, r"method\.temperature: 0\.01 is out of range; use a number from 0\.03"),
    ):
        with pytest.raises(RecipeError, match=message):
            build(**options)
