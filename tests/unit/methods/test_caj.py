"""CAJ's losses against slow loops and golden arrays, and its views.

It is trained as a whole in tests/unit/training/test_demanding_methods.py.
"""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tapetum.core.errors import RecipeError, TrainingError
from tapetum.core.lots import draw_tickets
from tapetum.core.types import Batch
from tapetum.core.vectors import normalise
from tapetum.data.augmentations.erasing import fill_colour
from tapetum.data.transforms import BatchPosition, augment_batch, read_operations
from tapetum.layers.normalisation import STATISTICS
from tapetum.losses.weighted_triplet import weighted_triplet
from tapetum.methods import build_method, small_options
from tapetum.methods.caj import enhanced_triplet, modality_divergence, view_consistency
from tapetum.runs.recipe import load_recipe
from tapetum.runs.sources import augment_options

ADAPTIVE = [f"triplet_adaptive_{case}" for case in ("a1_g1_s0", "a1_g1_s1", "a2_g05_s1", "a2_g3_s0")]
RECIPES = ("caj_sysu", "caj_regdb", "caj_llcm", "caj_plus_sysu")
NUM_IDS = 3


def make_batch(repeated: bool = False) -> Batch:
    """Of three people two visible pictures in two views and two infrared ones; rows are no positions."""
    labels = torch.arange(NUM_IDS).repeat_interleave(6)
    views = torch.tensor([0, 1, 0, 1, 0, 0]).repeat(NUM_IDS)
    modalities = torch.tensor([0, 0, 0, 0, 1, 1]).repeat(NUM_IDS)
    rows = torch.tensor([7, 7, 4, 4, 1, 2]).repeat(NUM_IDS) + 10 * labels
    if repeated:  # the first person's two visible pictures are one that was drawn twice
        rows[:4] = 7
    images = torch.rand(len(labels), 3, 32, 16, generator=torch.Generator().manual_seed(3))
    return Batch(images, labels, labels, torch.zeros_like(labels), modalities, rows, views)


def shuffled(batch: Batch) -> Batch:
    return batch.select(torch.randperm(len(batch), generator=torch.Generator().manual_seed(4)))


def make_logits(batch: Batch) -> Tensor:
    """Scores that belong to a picture and not to its place in the batch."""
    means = batch.images.mean((1, 2, 3), dtype=torch.float64)
    return torch.stack([(1 + number) * 40 * means**2 for number in range(5)], dim=1).sin() * 3


def small(**options: object) -> torch.nn.Module:
    torch.manual_seed(1)
    return build_method("caj", small_options("caj") | options, NUM_IDS)


# The losses


@pytest.mark.parametrize("name", ADAPTIVE)
@pytest.mark.parametrize(("suffix", "dtype", "tolerance"), [("", torch.float32, 2e-3), ("_f64", torch.float64, 1e-5)])
def test_the_enhanced_triplet_equals_the_original(golden, assert_matches, name, suffix, dtype, tolerance):
    case = golden("caj", name)
    (features,) = case.leaves("feats", dtype=dtype)
    alpha, gamma, square = (case.cfg[key].item() for key in ("alpha", "gamma", "square"))
    loss = enhanced_triplet(features, case.inputs["labels"], alpha=alpha, gamma=gamma, square=bool(square))
    loss.backward()
    assert_matches(loss, case.out[f"loss{suffix}"], tolerance)
    assert_matches(features.grad, case.grad[f"feats{suffix}"], tolerance)


@pytest.mark.parametrize(("suffix", "dtype", "tolerance"), [("", torch.float32, 2e-5), ("_f64", torch.float64, 2e-6)])
def test_the_divergence_equals_the_original(golden, assert_matches, suffix, dtype, tolerance):
    """The original adds 1e-7 to the probabilities, which is why float64 does not agree to more digits."""
    case = golden("caj", "caj_ddag_kl_temperature_3")
    student, teacher = case.leaves("pred", "target", dtype=dtype)
    count = len(student)
    modalities = torch.arange(2).repeat_interleave(count)
    pairs = torch.arange(count).repeat(2)  # as if each were a person with one picture of each modality
    loss = modality_divergence(torch.cat([student, teacher]), torch.zeros_like(pairs), modalities, pairs)
    loss.backward()
    assert_matches(loss, case.out[f"loss{suffix}"], tolerance)
    assert_matches(student.grad, case.grad[f"pred{suffix}"], tolerance)
    assert not teacher.grad.any()


def slow_triplet(features, labels, alpha, gamma, square, numerics):
    total, eps = 0.0, 1e-6 if numerics == "released" else 0.0
    for i, label in enumerate(labels):
        distances = [max(math.dist(a, features[i].tolist()), 1e-6) for a in features.tolist()]
        sums = []
        for sign in (1, -1):
            mine = [d for d, other in zip(distances, labels, strict=True) if (other == label) == (sign > 0)]
            shift = 0.0 if numerics == "released" and sign < 0 else max(sign * alpha * d for d in mine)
            weights = [math.exp(sign * alpha * d - shift) for d in mine]
            sums.append(sum(w * d for w, d in zip(weights, mine, strict=True)) / (sum(weights) + eps))
        positive, negative = sums
        if square:
            size = min(gamma * (positive - negative) ** 2, 88)
            total += math.log(1 + math.exp(size if positive > negative else -size))
        else:
            total += math.log(1 + math.exp(-gamma * (negative - positive)))
    return total / len(labels)


@pytest.mark.parametrize("numerics", ["released", "stable"])
@pytest.mark.parametrize("spread", [0.3, 2.0, 12.0])
@pytest.mark.parametrize(("alpha", "gamma", "square"), [(1, 1, True), (2, 0.5, True), (0.5, 2, False)])
def test_the_enhanced_triplet_equals_a_slow_loop_over_anchors(rng, numerics, spread, alpha, gamma, square):
    features = spread * torch.randn(9, 4, generator=rng, dtype=torch.float64)
    labels = torch.tensor([2, 0, 1, 0, 2, 2, 1, 0, 1])
    found = enhanced_triplet(features, labels, alpha=alpha, gamma=gamma, square=square, numerics=numerics)
    expected = slow_triplet(features, labels.tolist(), alpha, gamma, square, numerics)
    assert float(found) == pytest.approx(expected, rel=1e-9)


def test_without_the_square_it_is_agw_s_triplet(rng):
    features, labels = torch.randn(9, 4, generator=rng), torch.arange(9) // 3
    assert torch.equal(enhanced_triplet(features, labels, square=False), weighted_triplet(features, labels))


def test_a_squared_difference_counts_up_to_88_and_teaches_nothing_beyond():
    features = torch.tensor([[0.0], [9.0], [100.0], [109.5]], requires_grad=True)
    confused = enhanced_triplet(features, torch.tensor([0, 1, 0, 1]))  # partners stand a hundred apart
    confused.backward()
    assert confused.item() == pytest.approx(88)
    assert not features.grad.any()


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e3])
@pytest.mark.parametrize("square", [True, False])
def test_equal_and_very_distant_features_have_a_finite_gradient(rng, scale, square):
    features = (scale * torch.randn(6, 5, generator=rng)).requires_grad_()
    loss = enhanced_triplet(features, torch.arange(6) // 2, square=square)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(features.grad).all()


def slow_consistency(logits, batch):
    """Each plain visible picture against the mean over its exchanged views, found by comparing rows."""
    terms = []
    for i in range(len(batch)):
        if batch.modalities[i] or batch.views[i]:
            continue
        probabilities = [
            logits[j].softmax(0)
            for j in range(len(batch))
            if batch.rows[j] == batch.rows[i] and batch.views[j] == 1 and batch.modalities[j] == 0
        ]
        target = torch.stack(probabilities).mean(0)
        terms.append(-(target * logits[i].log_softmax(0)).sum())
    return torch.stack(terms).mean()


@pytest.mark.parametrize("repeated", [False, True])
def test_views_are_compared_by_row_and_by_view_in_any_order_of_the_batch(repeated):
    batch = make_batch(repeated)
    other = shuffled(batch)
    expected = slow_consistency(make_logits(batch), batch)
    for each in (batch, other):
        found = view_consistency(make_logits(each), each.views, each.modalities, each.rows)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    swapped = view_consistency(make_logits(batch), 1 - batch.views, batch.modalities, batch.rows)
    assert abs(float(swapped - expected)) > 1e-3


def test_the_exchanged_view_learns_nothing_from_the_consistency_nor_infrared_from_either_term():
    batch = shuffled(make_batch())
    visible = batch.modalities == 0
    plain = visible & (batch.views == 0)
    for loss in (
        lambda logits: view_consistency(logits, batch.views, batch.modalities, batch.rows),
        lambda logits: modality_divergence(logits, batch.views, batch.modalities, batch.labels),
    ):
        logits = make_logits(batch).requires_grad_()
        loss(logits).backward()
        assert torch.equal(logits.grad.abs().sum(1) > 0, plain)


def test_the_divergence_is_the_mean_over_pairs_of_a_person_across_modalities():
    batch = make_batch()
    logits, temperature = make_logits(batch), 2.5
    terms = []
    for i in range(len(batch)):
        for j in range(len(batch)):
            across = batch.modalities[i] == 0 and batch.modalities[j] == 1
            if across and batch.views[i] == 0 and batch.labels[i] == batch.labels[j]:
                target = (logits[j] / temperature).softmax(0)
                own = (logits[i] / temperature).log_softmax(0)
                terms.append((target * (target.log() - own)).sum() * temperature**2)
    assert len(terms) == 12
    expected = torch.stack(terms).mean()
    for each in (batch, shuffled(batch)):
        found = modality_divergence(
            make_logits(each), each.views, each.modalities, each.labels, temperature=temperature
        )
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_a_term_that_does_not_find_its_pictures_says_what_to_set():
    batch = make_batch()
    lonely = batch.select((batch.views == 0) | (batch.rows != 7))
    with pytest.raises(TrainingError, match=r"1 of 6 visible pictures .* no second view; set sampler\.views to \[2, 1"):
        view_consistency(make_logits(lonely), lonely.views, lonely.modalities, lonely.rows)
    nameless = torch.full_like(batch.rows, -1)
    with pytest.raises(TrainingError, match="6 of 6 visible pictures"):
        view_consistency(make_logits(batch), batch.views, batch.modalities, nameless)
    visible = batch.select(batch.modalities == 0)
    with pytest.raises(TrainingError, match="nobody in the batch has both a visible and an infrared picture"):
        modality_divergence(make_logits(visible), visible.views, visible.modalities, visible.labels)


# The method


def test_by_lot_each_plain_picture_is_compared_with_one_infrared_picture_of_its_person():
    batch = make_batch()
    method = small(kl_weight=0.2, kl_pairs="lot").train()
    output = method(batch.images, batch.modalities, batch.camids)
    lots = draw_tickets(batch)
    terms = []
    for label in range(NUM_IDS):
        mine = [
            ((batch.labels == label) & (batch.modalities == modality) & (batch.views == 0)).nonzero()[:, 0]
            for modality in (0, 1)
        ]
        plain, infrared = (sorted(rows.tolist(), key=lambda row: int(lots[row])) for rows in mine)
        for i, j in zip(plain, infrared, strict=True):
            target, own = (output.logits[row].detach() / 3 for row in (j, i))
            terms.append(9 * (target.softmax(0) * (target.log_softmax(0) - own.log_softmax(0))).sum())
    assert len(terms) == 2 * NUM_IDS
    torch.testing.assert_close(method.losses(output, batch)["kl"], 0.2 * torch.stack(terms).mean())
    assert small(kl_weight=0.2, kl_pairs="all").losses(output, batch)["kl"] != method.losses(output, batch)["kl"]


def test_the_terms_are_those_of_the_formulas_with_their_weights():
    batch = make_batch()
    options = {"triplet_alpha": 2.0, "triplet_gamma": 0.5, "triplet_square": False, "triplet_numerics": "stable"}
    method = small(
        **options, triplet_weight=0.7, kl_weight=0.2, kl_temperature=2.0, consistency_weight=0.3, kl_pairs="all"
    ).train()
    output = method(batch.images, batch.modalities, batch.camids)
    found = method.losses(output, batch)
    logits, modalities = output.logits, batch.modalities
    triplet = enhanced_triplet(output.feature, batch.labels, alpha=2, gamma=0.5, square=False, numerics="stable")
    expected = {
        "id": torch.nn.functional.cross_entropy(logits, batch.labels),
        "triplet": 0.7 * triplet,
        "kl": 0.2 * modality_divergence(logits, batch.views, modalities, batch.labels, temperature=2),
        "consistency": 0.3 * view_consistency(logits, batch.views, modalities, batch.rows),
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    assert small().losses(output, batch).keys() == {"id", "triplet"}


@pytest.mark.parametrize("feature", ["head", "backbone", "both"])
def test_a_picture_and_its_mirror_are_joined_by_their_mean_direction(feature):
    batch, method = make_batch(), small(test_feature=feature).eval()
    there = (batch.modalities, batch.camids)
    with torch.no_grad():
        outputs = [method(images, *there) for images in (batch.images, batch.images.flip(3))]
        found = method.embed(batch.images, *there, mirror=True)
    parts = {"head": ("embedding",), "backbone": ("feature",), "both": ("feature", "embedding")}[feature]
    vectors = [normalise(sum(normalise(getattr(output, part)) for output in outputs)) for part in parts]
    torch.testing.assert_close(found, torch.cat(vectors, dim=1) / math.sqrt(len(parts)))
    summed = normalise(sum(getattr(output, parts[0]) for output in outputs))
    assert len(parts) == 2 or (found - summed).abs().max() > 1e-6  # the raw vectors' sum is another


@pytest.mark.parametrize(
    ("option", "value"),
    [("triplet_alpha", 0.0), ("triplet_gamma", -1.0), ("kl_temperature", 0.0), ("consistency_weight", -1.0)],
)
def test_settings_that_cannot_work_are_refused(option, value):
    with pytest.raises(RecipeError, match=rf"method\.{option}: {value} is out of range"):
        small(**{option: value})


# The pictures


def test_recipes_change_pictures_as_the_release_does_on_normalised_ones():
    """Erased pixels hold the release's constants, and channels are exchanged behind the normalisation."""
    means, deviations = (np.array(values, np.float32) for values in STATISTICS["imagenet"])
    pictures = np.random.default_rng(0).integers(0, 256, (400, 24, 12, 3), dtype=np.uint8)
    views = np.tile([0, 1, 0, 0], 100)
    modalities = np.tile([0, 0, 1, 1], 100)
    place = BatchPosition(seed=0, epoch=0, number=0, modalities=modalities, views=views)
    plain = augment_batch(pictures.copy(), read_operations([]), place, np.arange(400)).permute(0, 2, 3, 1).numpy()
    plain = (plain - means) / deviations
    operations = [each for each in augment_options(load_recipe("caj_sysu")) if each.name not in ("pad_crop", "flip")]
    assert [each.name for each in operations] == ["erasing", "channel_exchange", "channel_gray"]
    changed = augment_batch(pictures.copy(), operations, place, np.arange(400)).permute(0, 2, 3, 1).numpy()
    changed = (changed - means) / deviations

    erased_alone = augment_batch(pictures.copy(), operations[:1], place, np.arange(400)).permute(0, 2, 3, 1).numpy()
    erased_alone = (erased_alone - means) / deviations
    erased = (np.abs(erased_alone - plain) > 1e-5).any(3)
    fill = np.array([0.4914, 0.4822, 0.4465])
    np.testing.assert_allclose(erased_alone[erased], np.broadcast_to(fill, (erased.sum(), 3)), atol=1e-5)
    assert 0.4 < erased.any((1, 2)).mean() < 0.6

    kinds = [modalities * 2 + views == kind for kind in (0, 1, 2)]
    np.testing.assert_array_equal(changed[kinds[0]], erased_alone[kinds[0]])
    sources = [np.abs(changed - erased_alone[..., [channel]]).max((1, 2, 3)) < 1e-4 for channel in range(3)]
    assert np.sum(sources, axis=0)[kinds[1]].tolist() == [1] * 100
    assert all(20 < source[kinds[1]].sum() < 50 for source in sources)
    grey = (erased_alone @ np.array([0.2989, 0.5870, 0.1140], np.float32))[..., None]
    kept = np.abs(changed - erased_alone).max((1, 2, 3)) < 1e-4
    turned_grey = np.abs(changed - grey).max((1, 2, 3)) < 1e-4
    infrared = np.stack([*sources, kept, turned_grey])[:, kinds[2]]
    assert (infrared.sum(0) == 1).all()
    np.testing.assert_allclose(infrared.mean(1), [0.25, 0.25, 0.25, 0.125, 0.125], atol=0.08)


def test_training_numbers_are_those_of_the_fact_sheet():
    for name in RECIPES:
        recipe = load_recipe(name)
        assert (recipe.data.size, recipe.seed) == ((288, 144), 0)
        section = recipe.sampler.options
        assert (section["ids"], section["pictures"], list(section["views"])) == (8, 4, [2, 1])
        assert recipe.sampler.global_batch == 96
        assert (recipe.optimiser.lr, recipe.optimiser.group_lr) == (0.1, {"backbone": 0.01})
        rule = recipe.optimiser
        assert (rule.momentum, rule.nesterov, rule.weight_decay) == (0.9, True, 5e-4)
        schedule = recipe.schedule
        assert (schedule.epochs, schedule.milestones, schedule.gamma) == (100, (20, 50), 0.1)
        assert (schedule.warmup_epochs, schedule.warmup_factor) == (9, 0.1)
        assert recipe.evaluation.mirror
        for operation in augment_options(recipe):
            if operation.name == "erasing":
                assert operation.options.area == (0.02, 0.4)
                means, deviations = STATISTICS["imagenet"]
                there = [(v - m) / s for v, m, s in zip(fill_colour(operation.options), means, deviations, strict=True)]
                assert there == pytest.approx([0.4914, 0.4822, 0.4465])
    where = {
        name: [
            (each.name, each.where.modality, each.where.view, each.where.probability)
            for each in augment_options(load_recipe(name))
        ]
        for name in RECIPES
    }
    assert where["caj_sysu"] == where["caj_regdb"] == where["caj_llcm"]
    assert where["caj_sysu"] == [
        ("pad_crop", None, None, None),
        ("flip", None, None, 0.5),
        ("erasing", None, None, 0.5),
        ("channel_exchange", "visible", 1, None),
        ("channel_gray", "infrared", None, None),
    ]
    assert where["caj_plus_sysu"] == [
        ("grayscale", "visible", 0, 0.1),
        ("pad_crop", None, None, None),
        ("flip", None, None, 0.5),
        ("erasing", "visible", None, 0.6),
        ("erasing", "infrared", None, 0.5),
        ("channel_exchange", "visible", 1, None),
        ("channel_gray", "infrared", None, None),
    ]
    greys = [augment_options(load_recipe(name))[-1].options.grey for name in RECIPES]
    assert greys == [0.5, 0.5, 0.5, 0.6]
    weights = [load_recipe(name).method.options.get("consistency_weight", 0) for name in RECIPES]
    assert weights == [0, 0, 0, 1]
