"""MPANet's losses against slow loops from their formulas, its averages, and what it refuses.

At published size it stands in test_mpanet_whole.py.
"""

import copy
import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.errors import CheckpointError, RecipeError, TrainingError
from tapetum.core.types import Batch
from tapetum.losses.centre_cluster import cluster_around_centres
from tapetum.methods import build_method, convert_from, convert_to, mpanet, small_options
from tapetum.methods.mpanet import Alleviation, overlap_of_masks
from tapetum.runs.recipe import load_recipe
from tapetum.runs.sources import augment_options
from tapetum.training.optimisation import compute_lr_factor

NUM_IDS = 3


def build(**options: object) -> nn.Module:
    torch.manual_seed(3)
    return build_method("mpanet", small_options("mpanet") | options, NUM_IDS).train()


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


def test_an_alleviation_is_its_formula_channel_by_channel(rng):
    block, maps = Alleviation(32), 3 * torch.randn(2, 32, 5, 3, generator=rng) + 1
    found = block(maps)
    for b in range(2):
        means = maps[b].mean((1, 2))
        gates = block.expand.weight[:, :, 0, 0] @ (block.reduce.weight[:, :, 0, 0] @ means).clamp(min=0)
        for c in range(32):
            gate = 1 / (1 + (-gates[c]).exp())
            normed = (maps[b, c] - means[c]) / (maps[b, c].var(unbiased=False) + 1e-5).sqrt()
            torch.testing.assert_close(found[b, c], gate * maps[b, c] + (1 - gate) * normed, rtol=1e-4, atol=1e-5)


def test_of_a_map_of_one_place_an_alleviation_keeps_the_gate_s_share():
    block, maps = Alleviation(32), torch.rand(2, 32, 1, 1)
    gate = block.expand(block.reduce(maps).relu()).sigmoid()
    torch.testing.assert_close(block(maps), gate * maps, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("parts", [2, 6])
def test_the_overlap_of_masks_is_the_slow_loop_over_pairs(rng, parts):
    masks = torch.rand(3, parts, 4, 2, generator=rng, dtype=torch.float64)
    terms = [
        (masks[b, i] * masks[b, j]).sum() for b in range(3) for i in range(parts) for j in range(i + 1, parts)
    ]  # fmt: skip
    torch.testing.assert_close(overlap_of_masks(masks), torch.stack(terms).sum() / (3 * parts * (parts - 1) / 2))


def test_each_loss_is_that_of_its_formula_and_the_averages_have_no_gradient():
    method, batch = build(separation_weight=0.3, centre_weight=0.4, modality_id_weight=0.6, kl_weight=0.8), make_batch()
    for classifier, scale in zip(method.by_modality, (30, 50), strict=True):  # so that all of them differ
        classifier.weight.data.mul_(scale)
    before = copy.deepcopy(method.by_modality)
    output = run(method, batch)
    found = method.losses(output, dataclasses.replace(batch, epoch=118))
    rate = 0.2 * 100 / 120
    terms, divergences = {0: [], 1: []}, []
    for i, (modality, label) in enumerate(zip(batch.modalities.tolist(), batch.labels.tolist(), strict=True)):
        own, other = before[modality], before[1 - modality]
        mine = (own.weight @ output.embedding[i]).log_softmax(0)
        average = other.average * (1 - rate) + other.weight * rate
        theirs = (average @ output.embedding[i]).log_softmax(0).detach()
        terms[modality].append(-mine[label])
        divergences.append((mine.exp() * (mine - theirs)).sum())
    expected = {
        "id": functional.cross_entropy(output.logits, batch.labels),
        "separation": 0.3 * overlap_of_masks(output.maps["masks"]),
        "centre_cluster": 0.4 * cluster_around_centres(output.feature, batch.labels, margin=0.7),
        "id_visible": 0.6 * torch.stack(terms[0]).mean(),
        "id_infrared": 0.6 * torch.stack(terms[1]).mean(),
        "kl": 0.8 * torch.stack(divergences).mean(),
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert value > 1e-6, name
        torch.testing.assert_close(found[name], value, msg=name)
    mine, slow = (
        torch.autograd.grad(loss, output.embedding, retain_graph=True)[0] for loss in (found["kl"], expected["kl"])
    )
    torch.testing.assert_close(mine, slow)
    assert all(not classifier.average.requires_grad for classifier in method.by_modality)


def test_averages_follow_once_a_step_whatever_the_number_of_its_parts_and_in_training_alone():
    method, batch = build(), make_batch()
    classifier = method.by_modality[0]
    classifier.average.zero_()

    def share(part: Batch) -> float:
        method.losses(run(method, part), part)
        return float((classifier.average / classifier.weight.detach()).mean())

    for part, expected in (
        (batch, 0.2),
        (batch.select(torch.arange(11)), 0.2),  # the same step's second part
        (dataclasses.replace(batch, step=1), 0.36),
        (dataclasses.replace(batch, epoch=198, step=1), 0.36 + 0.1 * 0.64),
    ):
        assert share(part) == pytest.approx(expected, rel=1e-4), expected
    there = share(dataclasses.replace(batch, epoch=198, step=1))
    with torch.no_grad():
        assert share(batch) == there
    method.eval()
    assert share(batch) == there


def test_a_network_that_asks_no_modality_has_no_classifiers_of_them_and_learns_from_any_batch():
    method = build(modality_id_weight=0.0, kl_weight=0.0)
    assert not any("by_modality" in name for name in method.state_dict())
    batch = make_batch(modalities=torch.zeros(12, dtype=torch.int64))
    assert method.losses(run(method, batch), batch).keys() == {"id", "separation", "centre_cluster"}


def test_a_batch_of_one_person_or_one_modality_is_refused_in_one_line():
    method = build()
    for batch, message in (
        (make_batch(modalities=torch.ones(12, dtype=torch.int64)), "mpanet: the batch shows one modality only"),
        (make_batch(labels=torch.ones(12, dtype=torch.int64)), "the batch shows one identity only; set sampler.ids"),
    ):
        with pytest.raises(TrainingError, match=message) as caught:
            method.losses(run(method, batch), batch)
        assert "\n" not in str(caught.value)


def test_a_picture_and_its_mirror_are_joined_by_their_raw_sum_on_either_feature():
    batch = make_batch()
    for feature in ("head", "backbone"):
        method = build(test_feature=feature)
        run(method, batch)
        method.eval()
        there = (batch.modalities, batch.camids)
        with torch.no_grad():
            outputs = [method(images, *there) for images in (batch.images, batch.images.flip(3))]
            found = method.embed(batch.images, *there, mirror=True)
        name = "embedding" if feature == "head" else "feature"
        torch.testing.assert_close(found, functional.normalize(sum(getattr(output, name) for output in outputs)))


def test_a_bfloat16_step_on_channels_last_pictures_gives_finite_gradients():
    method, batch = build(), make_batch()
    method.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        output = run(method, dataclasses.replace(batch, images=batch.images.to(memory_format=torch.channels_last)))
    assert {output.feature.dtype, output.embedding.dtype, output.maps["masks"].dtype} == {torch.float32}
    torch.stack(list(method.losses(output, batch).values())).sum().backward()
    assert all(torch.isfinite(weights.grad).all() for weights in method.parameters() if weights.requires_grad)


@pytest.mark.slow
def test_files_of_other_networks_and_networks_of_another_kind_do_not_fit_the_layout():
    with torch.device("meta"):
        others = {
            name: convert_to(f"{name.replace('_', '-')}-official", {}, build_method(name, {}, 5).state_dict())
            for name in ("agw_vi", "deen")
        }
        halved = build_method("mpanet", {"parts": 4}, 5).state_dict()
        small = build_method("mpanet", small_options("mpanet"), 5).state_dict()
    for name, layouts in (
        ("agw_vi", "agw-vi-official or caj-official or mclnet-official"),
        ("deen", "deen-official"),
    ):
        with pytest.raises(
            CheckpointError, match=rf"mpanet-official checkpoint: .* \(this file has the layout {layouts}; give --from"
        ) as caught:
            convert_from("mpanet-official", others[name])
        assert "\n" not in str(caught.value)
    assert convert_from("mpanet-official", convert_to("mpanet-official", {"parts": 4}, halved)).options["parts"] == 4
    with pytest.raises(CheckpointError, match=r"method\.last_stride: 2 has no place in the released layout"):
        convert_to("mpanet-official", {"last_stride": 2}, halved)
    with pytest.raises(CheckpointError):
        convert_to("mpanet-official", {}, small)


def test_the_recipes_numbers_are_those_of_the_fact_sheet():
    for data, size, ids, pictures, drops in (
        ("sysu", (384, 128), 16, 4, (80, 120)),
        ("llcm", (384, 128), 16, 4, (80, 120)),
        ("regdb", (256, 128), 12, 5, (110,)),
    ):
        recipe = load_recipe(f"mpanet_{data}")
        assert mpanet.Options() == mpanet.Options(**recipe.method.options)
        assert (recipe.data.size, recipe.seed, recipe.schedule.epochs) == (size, 1, 140)
        assert (recipe.sampler.options["ids"], recipe.sampler.options["pictures"]) == (ids, pictures)
        assert (recipe.optimiser.name, recipe.optimiser.lr, recipe.optimiser.weight_decay) == ("adam", 3.5e-4, 5e-4)
        for epoch in range(140):
            expected = 0.1 ** sum(epoch >= drop for drop in drops)
            assert compute_lr_factor(recipe.schedule, epoch) == pytest.approx(expected), epoch
        flip, crop, erasing = augment_options(recipe)
        assert (flip.where.probability, crop.options.pad, crop.options.fill) == (0.5, 10, 127)
        assert (erasing.where.probability, erasing.options.area, erasing.options.fill) == (0.5, (0.02, 0.33), "mean")
    options = mpanet.Options()
    assert (options.parts, options.separation_weight, options.centre_margin, options.kl_weight) == (6, 0.5, 0.7, 2.5)
    assert (options.modality_id_weight, options.average_rate, options.centre_weight) == (1.0, 0.2, 1.0)


def test_settings_that_cannot_work_are_refused():
    for options, message in (
        ({"parts": 1}, r"method\.parts: 1 is out of range; use a number from 2"),
        ({"average_rate": 1.5}, r"method\.average_rate: 1\.5 is out of range"),
        ({"kl_weight": -1.0}, r"method\.kl_weight: -1\.0 is out of range"),
    ):
        with pytest.raises(RecipeError, match=message):
            build(**options)
