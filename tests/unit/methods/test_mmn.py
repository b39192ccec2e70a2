"""MMN's generator and losses against slow loops.

The network as a whole is compared with the release in tests/unit/methods/test_mmn_whole.py.
"""

import dataclasses
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from tapetum.core.errors import RecipeError, TrainingError
from tapetum.core.lots import draw_tickets
from tapetum.core.types import Batch
from tapetum.core.vectors import normalise
from tapetum.data.augmentations.erasing import fill_colour
from tapetum.layers.normalisation import STATISTICS
from tapetum.losses.pairs import pair_across
from tapetum.methods import build_method, small_options
from tapetum.methods.mmn import MiddleGenerator, Options, middle_distance, triplets_across
from tapetum.runs.recipe import load_recipe
from tapetum.runs.sources import augment_options
from tapetum.training.optimisation import build_optimisers, compute_lr_factor
from tapetum.training.state import read_memory
from tapetum.training.stepping import Stepper, turns_of

NUM_IDS = 3


def make_batch():
    """Of three people two visible pictures and two infrared ones, and a third infrared one of the first."""
    labels = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2])
    modalities = torch.tensor([0, 0, 1, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1])
    images = torch.rand(len(labels), 3, 64, 32, generator=torch.Generator().manual_seed(3))
    return Batch(images, labels, labels, torch.zeros_like(labels), modalities)


def shuffle(count):
    return torch.randperm(count, generator=torch.Generator().manual_seed(4))


def small(**options):
    torch.manual_seed(1)
    return build_method("mmn", small_options("mmn") | options, NUM_IDS)


def pair(labels, modalities, lots=None):
    return pair_across(labels, modalities, lots=lots, owner="mmn.middle_weight")


def run(method, batch):
    return method(batch.images, batch.modalities, batch.camids)


# The generator


def stir(generator):
    """Other weights and statistics than those it begins with."""
    torch.manual_seed(5)
    for value in generator.state_dict().values():
        if value.is_floating_point():
            value.copy_(0.2 + torch.rand(value.shape))
    return generator


def test_a_middle_picture_is_one_number_a_pixel_drawn_in_three_shared_channels():
    generator, batch = stir(MiddleGenerator()).eval(), make_batch()
    images = batch.images - 0.4
    made = generator(images, batch.modalities)
    assert made.shape == images.shape
    for picture, modality, found in zip(images, batch.modalities.tolist(), made, strict=True):
        own = generator.brightness[modality]
        value = sum(picture[c] * own.encode.weight[0, c, 0, 0] for c in range(3)) + own.encode.bias
        value = (value.clamp(min=0) * own.scale.weight[0, 0, 0, 0] + own.scale.bias).clamp(min=0)
        value = (value - own.norm.running_mean) / (own.norm.running_var + own.norm.eps).sqrt()
        value = value * own.norm.weight + own.norm.bias
        shared = generator.decode
        expected = [(value * shared.weight[c, 0, 0, 0] + shared.bias[c]).clamp(min=0) for c in range(3)]
        torch.testing.assert_close(found, torch.stack(expected))


def test_in_training_each_modality_has_the_statistics_of_its_own_pictures():
    generator, batch = stir(MiddleGenerator()).train(), make_batch()
    made = generator(batch.images, batch.modalities)
    for modality in (0, 1):
        own = batch.modalities == modality
        torch.testing.assert_close(generator(batch.images[own], batch.modalities[own]), made[own])
    both = generator(batch.images, torch.zeros_like(batch.modalities))
    assert (both - made)[batch.modalities == 0].abs().max() > 1e-4


def test_it_begins_with_grey_pictures_of_the_mean_of_the_channels():
    batch = make_batch()
    made = MiddleGenerator().eval()(batch.images, batch.modalities)
    torch.testing.assert_close(
        made, batch.images.mean(1, keepdim=True).expand(-1, 3, -1, -1) * 0.333**2, rtol=2e-3, atol=0
    )


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_middle_pictures_keep_the_layout_of_memory_and_float32_under_autocast(layout):
    generator, batch = stir(MiddleGenerator()).to(memory_format=layout).eval(), make_batch()
    images = batch.images.contiguous(memory_format=layout)
    expected = generator(batch.images, batch.modalities)
    with torch.autocast("cpu", torch.bfloat16):
        made = generator(images, batch.modalities)
    assert made.dtype == torch.float32
    assert made.is_contiguous(memory_format=layout)
    torch.testing.assert_close(made, expected)


def test_of_dark_pictures_the_released_generator_shows_nothing_and_learns_nothing_but_ours_does():
    batch = make_batch()
    dark = dataclasses.replace(batch, images=0.2 * batch.images)
    for given, alive in (("normalised", False), ("plain", True)):
        method = small(generator_input=given).train()
        output = run(method, dark)
        assert bool(output.middle.any()) == alive
        sum(method.losses(output, dark).values()).backward()
        assert any(weights.grad.any() for weights in method.parameter_groups()["generator"]) == alive


# The losses


def slow_triplets(features, labels, modalities, margin):
    total = []
    for stripe in range(features.shape[1]):
        for visible_form in (0, 1):
            for infrared_form in (0, 1):
                rows = [
                    features[infrared_form if modality else visible_form, stripe, i]
                    for i, modality in enumerate(modalities.tolist())
                ]
                hinges = []
                for i, anchor in enumerate(rows):
                    distances = [(anchor - other).norm() for other in rows]
                    farthest = max(d for d, label in zip(distances, labels, strict=True) if label == labels[i])
                    nearest = min(d for d, label in zip(distances, labels, strict=True) if label != labels[i])
                    hinges.append((farthest - nearest + margin).clamp(min=0))
                total.append(torch.stack(hinges).mean())
    return torch.stack(total).mean()


@pytest.mark.parametrize("margin", [0.3, 2.0])
def test_triplets_are_those_of_a_slow_loop_over_stripes_forms_and_anchors(rng, margin):
    batch = make_batch()
    features = torch.randn(2, 3, len(batch), 4, generator=rng, dtype=torch.float64)
    expected = slow_triplets(features, batch.labels, batch.modalities, margin)
    order = shuffle(len(batch))
    for rows in (slice(None), order):
        found = triplets_across(features[:, :, rows], batch.labels[rows], batch.modalities[rows], margin=margin)
        torch.testing.assert_close(found, expected)


def test_the_distance_of_middle_pictures_is_the_mean_over_pairs_of_a_person_across_modalities(rng):
    batch = make_batch()
    projected = torch.randn(3, len(batch), 4, generator=rng, dtype=torch.float64)
    expected = [
        (stripe[i] - stripe[j]).norm()
        for stripe in projected
        for i in range(len(batch))
        for j in range(len(batch))
        if batch.labels[i] == batch.labels[j] and batch.modalities[i] == 0 and batch.modalities[j] == 1
    ]
    assert len(expected) == 3 * (6 + 4 + 4)
    order = shuffle(len(batch))
    for rows in (slice(None), order):
        found = middle_distance(projected[:, rows], pair(batch.labels[rows], batch.modalities[rows]))
        torch.testing.assert_close(found, torch.stack(expected).mean())


def test_by_lot_each_middle_picture_is_compared_with_one():
    batch = replace(make_batch(), rows=torch.arange(len(make_batch())))
    method = small(pairs="lot", projection="learned").train()
    output = run(method, batch)
    lots = draw_tickets(batch)
    expected = method.middle_loss(output, pair(batch.labels, batch.modalities, lots=lots))
    assert len(pair(batch.labels, batch.modalities, lots=lots)[0]) == 2 + 2 + 2  # of 2 x 3, 2 x 2 and 2 x 2 pairs
    torch.testing.assert_close(method.losses(output, batch)["middle"], expected)


def test_the_terms_are_those_of_the_formulas_with_their_weights():
    batch = make_batch()
    weights = {"triplet_weight": 0.7, "triplet_margin": 1.5, "middle_weight": 0.4}
    method = small(**weights, stripes=2, projection_width=8, pairs="all").train()
    output = run(method, batch)
    found = method.losses(output, batch)
    scores = [functional.cross_entropy(each, batch.labels) for form in output.scores for each in form]
    projected = []
    for stripe in output.features[1]:
        layers = method.projection
        hidden = normalise(stripe) @ layers.reduce.weight.T
        hidden = ((hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt()).clamp(min=0)
        hidden = hidden @ layers.mix.weight.T + layers.mix.bias
        projected.append(normalise((hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt()))
    expected = {
        "id": torch.stack(scores).mean(),
        "triplet": 0.7 * triplets_across(output.features, batch.labels, batch.modalities, margin=1.5),
        "middle": 0.4 * middle_distance(torch.stack(projected), pair(batch.labels, batch.modalities)),
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=name)
    bare = small(triplet_weight=0.0, middle_weight=0.0)
    assert bare.projection is None
    assert bare.losses(run(bare, batch), batch).keys() == {"id"}


def test_batches_that_teach_nothing_say_what_to_set():
    method, batch = small().train(), make_batch()
    one = batch.select(batch.labels == 0)
    with pytest.raises(TrainingError, match="mmn: the batch shows one identity only; use the sampler cross_modality"):
        method.losses(run(method, one), one)
    apart = batch.select(batch.modalities == (batch.labels == 1))  # one person visible, the others infrared
    with pytest.raises(TrainingError, match="mmn: nobody in the batch has both a visible and an infrared picture; set"):
        method.losses(run(method, apart), apart)
    some = batch.select((batch.labels != 0) | (batch.modalities == 1))  # one person is not there in visible light
    assert all(loss.isfinite() for loss in method.losses(run(method, some), some).values())


# The method


@pytest.mark.parametrize("mirror", [False, True])
def test_the_similarity_of_two_pictures_is_the_mean_of_those_of_all_their_forms(mirror):
    batch, similarities = make_batch(), {}
    visible, infrared = batch.select(batch.modalities == 0), batch.select(batch.modalities == 1)
    for score in ("plain", "middle", "sum"):
        method = small(test_score=score).eval()
        with torch.no_grad():
            ours, theirs = (
                method.embed(side.images, side.modalities, side.camids, mirror=mirror) for side in (visible, infrared)
            )
            similarities[score] = ours @ theirs.T
            forms = [
                [
                    normalise(torch.cat(list(form), 1))
                    for images in (side.images, side.images.flip(3))[: 1 + mirror]
                    for form in method(images, side.modalities, side.camids).embeddings
                ]
                for side in (visible, infrared)
            ]
    everything = torch.stack([a @ b.T for a in forms[0] for b in forms[1]]).mean(0)
    torch.testing.assert_close(similarities["sum"], everything)
    for score, first in (("plain", 0), ("middle", 1)):
        alone = torch.stack([a @ b.T for a in forms[0][first::2] for b in forms[1][first::2]]).mean(0)
        torch.testing.assert_close(similarities[score], alone)


def test_a_fixed_projection_is_no_weight_but_remembered_and_a_learned_one_is_a_group_of_its_own():
    fixed, learned = small(), small(projection="learned")
    assert not any(name.startswith("projection") for name in fixed.state_dict())
    assert {name for name in read_memory(fixed) if name.startswith("projection")} == {
        name for name in learned.state_dict() if name.startswith("projection")
    }
    assert fixed.parameter_groups().keys() == {"backbone", "head", "generator"}
    assert len(learned.parameter_groups()["projection"]) == 7
    torch.testing.assert_close(fixed.projection.mix.weight, learned.projection.mix.weight)


def test_a_step_in_bfloat16_and_channels_last_learns_nearly_what_one_in_float32_does():
    batch, found = make_batch(), {}
    for precision in ("fp32", "bf16"):
        method = small().train().to(memory_format=torch.channels_last)
        there = dataclasses.replace(batch, images=batch.images.contiguous(memory_format=torch.channels_last))
        optimisers = build_optimisers(
            method, method.parameter_groups(), load_recipe("mmn_sysu").optimiser, turns_of(method)
        )
        before = {name: weights.detach().clone() for name, weights in method.named_parameters()}
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        stepper = Stepper(method, turns_of(method), optimisers, precision, None, scaler)
        losses = stepper.step([there], lambda phase, part: None, lambda losses: None)
        moved = [weights.detach() - before[name] for name, weights in method.named_parameters()]
        found[precision] = losses, torch.cat([each.flatten() for each in moved])
    for name, value in found["fp32"][0].items():
        assert found["bf16"][0][name] == pytest.approx(value, rel=0.05), name
    assert functional.cosine_similarity(found["fp32"][1], found["bf16"][1], dim=0) > 0.9


def test_the_recipes_numbers_are_those_of_the_fact_sheet():
    rates = {0: 0.1, 4: 0.5, 9: 1.0, 19: 1.0, 20: 0.1, 49: 0.1, 50: 0.01, 80: 0.01}
    for data in ("sysu", "regdb", "llcm"):
        recipe = load_recipe(f"mmn_{data}")
        assert Options() == Options(**recipe.method.options)
        assert recipe.data.size == (384, 192)
        crop, flip, erasing = augment_options(recipe)
        assert (crop.name, crop.options.pad, flip.name, flip.where.probability) == ("pad_crop", 10, "flip", 0.5)
        assert (erasing.name, erasing.where.probability, erasing.options.area) == ("erasing", 0.5, (0.02, 0.4))
        assert fill_colour(erasing.options) == pytest.approx(STATISTICS["imagenet"][0])  # zero in the network
        assert (recipe.sampler.options["ids"], recipe.sampler.options["pictures"]) == (4, 4)
        assert (recipe.optimiser.lr, recipe.optimiser.group_lr) == (0.1, {"backbone": 0.01, "generator": 0.01})
        assert recipe.schedule.epochs == 81
        for epoch, rate in rates.items():
            assert compute_lr_factor(recipe.schedule, epoch) == pytest.approx(rate), epoch
    options = Options()
    assert (options.stripes, options.triplet_margin, options.middle_weight) == (4, 0.3, 0.2)
    assert (options.projection_width, options.projection, options.test_score) == (256, "fixed", "sum")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("stripes", 0, r"method\.stripes: 0 is out of range"),
        ("middle_weight", -1.0, r"method\.middle_weight: -1\.0 is out of range"),
        ("projection", "moving", r"method\.projection: 'moving' is none of 'fixed', 'learned'"),
        ("test_score", "max", r"method\.test_score: 'max' is none of 'sum', 'plain', 'middle'"),
    ],
)
def test_settings_that_cannot_work_are_refused(option, value, message):
    with pytest.raises(RecipeError, match=message):
        small(**{option: value})
