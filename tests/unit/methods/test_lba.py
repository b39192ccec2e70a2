"""LbA: alignment and partners against slow loops, both readings of the dense triplets, and the whole network."""

import copy
import dataclasses
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from golden_networks import Whole, read_whole, watch
from tapetum.core.errors import CheckpointError, RecipeError, TrainingError
from tapetum.core.types import Batch, Modality
from tapetum.core.vectors import normalise
from tapetum.layers.pooling import pool_gem
from tapetum.methods import build_method, build_options, convert_from, convert_to, lba, small_options
from tapetum.methods.lba import align, dense_triplet, draw_partners, partners_in
from tapetum.runs.recipe import load_recipe
from tapetum.training.optimisation import build_optimisers, compute_lr_factor
from tapetum.training.stepping import Stepper, turns_of

LAYOUT = "lba-official"
NUM_IDS = 3


def make_batch() -> Batch:
    labels = torch.tensor([2, 0, 1, 0, 2, 1, 0, 1])
    images = torch.rand(8, 3, 64, 32, generator=torch.Generator().manual_seed(3))
    return Batch(images, labels, labels, labels, torch.tensor([0, 1, 0, 0, 1, 1, 1, 0]), torch.arange(8))


def small(**options: object) -> torch.nn.Module:
    torch.manual_seed(1)
    return build_method("lba", small_options("lba") | options, NUM_IDS)


def run(method: torch.nn.Module, batch: Batch):
    return method(batch.images, batch.modalities, batch.camids)


# The alignment


def slow_stretch(values: list[float]) -> list[float]:
    return [(value - min(values)) / (max(values) - min(values) + 1e-12) for value in values]


def slow_alignment(maps: Tensor, positive: list[int], negative: list[int], temperature: float):
    """Rebuilt maps, hinges without margin and masks, one place of one picture at a time."""
    count, _, height, width = maps.shape
    pixels = maps.flatten(2)
    shown = [
        slow_stretch([float(pixels[n, :, i].detach().norm()) for i in range(height * width)]) for n in range(count)
    ]
    rebuilt, distances, masks = torch.zeros_like(pixels), torch.zeros(2, count, height * width).double(), []
    for n in range(count):
        seen = []
        for i in range(height * width):
            place = pixels[n, :, i]
            for side, partner in enumerate((positive[n], negative[n])):
                others = [pixels[partner, :, j] for j in range(height * width)]
                scores = [temperature * functional.cosine_similarity(place, other, dim=0) for other in others]
                match = torch.stack(scores).softmax(0)
                warped = sum(weight * other for weight, other in zip(match, others, strict=True))
                made = shown[n][i] * warped + (1 - shown[n][i]) * place
                distances[side, n, i] = (place - made + 1e-6).square().sum().sqrt()
                if side == 0:
                    rebuilt[n, :, i] = made
                    matched = sum(float(w.detach()) * m for w, m in zip(match, shown[partner], strict=True))
                    seen.append(shown[n][i] * matched)
        masks.append(slow_stretch(seen))
    return rebuilt.unflatten(2, (height, width)), distances, torch.tensor(masks, dtype=torch.float64)


@pytest.mark.parametrize("channels_last", [False, True])
def test_an_alignment_equals_a_slow_loop_over_pictures_and_places(rng, channels_last):
    maps = torch.rand(5, 4, 3, 2, generator=rng, dtype=torch.float64)
    if channels_last:
        maps = maps.contiguous(memory_format=torch.channels_last)
    positive, negative = torch.tensor([3, 4, 4, 0, 1]), torch.tensor([4, 3, 3, 2, 2])
    found = align(maps, positive, negative, temperature=7.0)
    rebuilt, distances, masks = slow_alignment(maps, positive.tolist(), negative.tolist(), 7.0)
    torch.testing.assert_close(found.rebuilt, rebuilt, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.distances, distances, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.masks, masks, rtol=1e-10, atol=1e-12)
    hinges = [
        [max(a - b + 0.3, 0.0) for a, b in zip(*rows, strict=True)] for rows in zip(*distances.tolist(), strict=True)
    ]
    paper = sum(masks[n, i] * hinges[n][i] for n in range(5) for i in range(6)) / 30
    released = sum(masks[n, i] * hinges[m][i] for n in range(5) for m in range(5) for i in range(6)) / 150
    torch.testing.assert_close(dense_triplet(found, margin=0.3), paper)
    torch.testing.assert_close(dense_triplet(found, margin=0.3, form="released"), released)
    assert abs(paper - released) > 1e-3


def test_masks_teach_nothing_and_gradients_are_those_of_the_formula(rng):
    maps = torch.rand(4, 3, 2, 2, generator=rng, dtype=torch.float64)
    partners = torch.tensor([2, 3, 0, 1]), torch.tensor([3, 2, 1, 0])

    def through_slow_loop(values: Tensor) -> Tensor:
        rebuilt, distances, masks = slow_alignment(values, *(each.tolist() for each in partners), 5.0)
        return (rebuilt.square()).sum() + (masks * functional.relu(distances[0] - distances[1] + 0.3)).mean()

    def ours(values: Tensor) -> Tensor:
        found = align(values, *partners, temperature=5.0)
        assert not found.masks.requires_grad
        return found.rebuilt.square().sum() + dense_triplet(found)

    gradients = []
    for loss in (ours, through_slow_loop):
        leaf = maps.clone().requires_grad_()
        loss(leaf).backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_even_and_empty_maps_have_finite_values_and_gradients(value):
    maps = torch.full((4, 3, 2, 2), value, requires_grad=True)
    found = align(maps, torch.tensor([2, 3, 0, 1]), torch.tensor([3, 2, 1, 0]), temperature=50.0)
    (found.rebuilt.sum() + dense_triplet(found)).backward()
    assert torch.equal(found.rebuilt, maps)
    assert maps.grad.isfinite().all()


def test_what_a_partner_that_looks_the_same_makes_of_a_picture_is_the_picture_and_draws_it_nowhere(rng):
    """In float32, in which the distance is a difference of large products."""
    people = 3 * torch.rand(2, 128, 5, 3, generator=rng).square()
    maps = people.repeat(2, 1, 1, 1).requires_grad_()
    found = align(maps, torch.tensor([2, 3, 0, 1]), torch.tensor([3, 2, 1, 0]), temperature=50.0)
    torch.testing.assert_close(found.rebuilt, maps, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.distances[0], torch.full((4, 15), 128**0.5 * 1e-6), rtol=0, atol=5e-3)
    assert found.distances[1].amax(1).min() > 1
    found.distances[0].mean().backward()
    assert maps.grad.abs().max() < 1e-3


# The partners


def draw(labels: Tensor, modalities: Tensor, step: int = 0, pictures: Tensor | None = None):
    return draw_partners(labels, modalities, torch.arange(len(labels)) if pictures is None else pictures, (0, step, 0))


def make_people(people: int, visible: int, infrared: int) -> tuple[Tensor, Tensor]:
    labels = torch.arange(people).repeat_interleave(visible + infrared)
    return labels, torch.tensor([0] * visible + [1] * infrared).repeat(people)


@pytest.mark.parametrize(("people", "visible", "infrared"), [(8, 4, 4), (2, 1, 1), (3, 5, 2), (5, 1, 4)])
def test_partners_are_of_the_other_modality_and_of_the_same_or_another_person(people, visible, infrared):
    labels, modalities = make_people(people, visible, infrared)
    for step in range(20):
        positive, negative = draw(labels, modalities, step)
        assert torch.equal(labels[positive], labels)
        assert (labels[negative] != labels).all()
        for partner in (positive, negative):
            assert (modalities[partner] != modalities).all()
        for person in range(people):
            for modality, (own, others) in enumerate(((visible, infrared), (infrared, visible))):
                mine = (labels == person) & (modalities == modality)
                assert len(set(positive[mine].tolist())) == min(own, others)
                assert len(set(labels[negative[mine]].tolist())) == min(own, people - 1)


def test_where_people_have_as_many_pictures_of_both_modalities_partners_are_partners_of_each_other():
    for partner in draw(*make_people(4, 3, 3)):
        assert torch.equal(partner[partner], torch.arange(24))


def test_every_partner_that_is_possible_is_drawn_about_as_often_as_any_other():
    labels, modalities = make_people(4, 3, 3)
    counts = torch.zeros(2, 24, 24)
    steps = 1200
    for step in range(steps):
        for side, partner in enumerate(draw(labels, modalities, step)):
            counts[side, torch.arange(24), partner] += 1
    apart = modalities[:, None] != modalities[None, :]
    same = labels[:, None] == labels[None, :]
    for side, possible in enumerate((apart & same, apart & ~same)):
        assert not counts[side][~possible].any()
        share = counts[side][possible] / steps
        expected = 1 / int(possible[0].sum())
        assert (share - expected).abs().max() < 5 * math.sqrt(expected * (1 - expected) / steps)


def test_partners_depend_on_the_pictures_and_the_step_and_not_on_the_order_of_the_batch():
    labels, modalities = make_people(4, 3, 3)
    rows = torch.randperm(1000, generator=torch.Generator().manual_seed(2))[:24]
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    expected = draw(labels, modalities, pictures=rows)
    found = draw(labels[order], modalities[order], pictures=rows[order])
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(rows[order][ours], rows[theirs][order])
    assert not torch.equal(expected[0], draw(labels, modalities, 1, rows)[0])
    assert not torch.equal(expected[1], draw(labels, modalities, 1, rows)[1])
    assert torch.equal(expected[0], draw(labels, modalities, 0, rows)[0])


def test_pictures_of_which_nothing_is_known_have_partners_too():
    labels, modalities = make_people(3, 2, 2)
    positive, negative = draw(labels, modalities, pictures=torch.full_like(labels, -1))
    assert torch.equal(labels[positive], labels)
    assert (labels[negative] != labels).all()
    assert len(set(positive.tolist())) == 12


def test_people_in_one_modality_and_batches_of_one_person_are_refused():
    method, batch = small(triplet_weight=0.0).train(), make_batch()
    output = run(method, batch)
    alone = dataclasses.replace(batch, labels=torch.zeros_like(batch.labels))
    with pytest.raises(TrainingError, match=r"^lba: the batch shows one identity only, .* at least 2 identities"):
        method.losses(output, alone)
    lonely = dataclasses.replace(batch, modalities=torch.where(batch.labels == 1, 0, batch.modalities))
    with pytest.raises(TrainingError, match=r"^lba: 1 of 3 people .* in one modality only, .* to cross_modality, or"):
        method.losses(output, lonely)
    visible = dataclasses.replace(batch, modalities=torch.zeros_like(batch.modalities))
    with pytest.raises(TrainingError, match=r"^lba: 3 of 3 people"):
        method.losses(output, visible)
    plain = small(triplet_weight=0.0, rebuilt_weight=0.0, dense_weight=0.0)
    assert plain.losses(output, visible).keys() == {"id"}


# The method


def test_each_loss_is_that_of_its_formula_with_its_weight():
    options = {"temperature": 20.0, "rebuilt_weight": 0.3, "dense_weight": 0.7, "dense_margin": 0.1}
    method, batch = small(**options, label_smoothing=0.1).eval(), make_batch()
    output = run(method, batch)
    losses = method.losses(output, batch)
    assert losses.keys() == {"id", "triplet", "id_layer3", "id_layer4", "dense"}
    dense = []
    for number, name in enumerate(("layer3", "layer4")):
        found = align(output.maps[name], *partners_in(batch, number), temperature=20.0)
        rebuilt = found.rebuilt if number else method.network.stages[3](found.rebuilt)
        scores = method.head(pool_gem(rebuilt)).logits
        expected = functional.cross_entropy(scores, batch.labels, label_smoothing=0.1)
        torch.testing.assert_close(losses[f"id_{name}"], 0.3 * expected)
        dense.append(dense_triplet(found, margin=0.1))
    torch.testing.assert_close(losses["dense"], 0.7 * sum(dense))
    assert small(rebuilt_weight=0.0).losses(output, batch).keys() == {"id", "triplet", "dense"}
    assert "dense" not in small(dense_weight=0.0).losses(output, batch)


def test_the_vector_for_search_is_the_pooled_feature_before_the_neck():
    method, batch = small().eval(), make_batch()
    with torch.no_grad():
        vectors = method.embed(batch.images, batch.modalities, batch.camids)
        torch.testing.assert_close(vectors, normalise(run(method, batch).feature))


def test_a_training_step_in_bf16_and_channels_last_computes_the_rebuilt_maps_in_bf16_too():
    method = small().train().to(memory_format=torch.channels_last)
    batch = make_batch()
    batch = dataclasses.replace(batch, images=batch.images.contiguous(memory_format=torch.channels_last))
    kinds = []
    method.network.stages[3][-1].register_forward_hook(lambda module, inputs, output: kinds.append(output.dtype))
    groups = method.parameter_groups()
    optimisers = build_optimisers(method, groups, load_recipe("lba_sysu").optimiser, turns_of(method))
    before = {name: weights.detach().clone() for name, weights in method.named_parameters()}
    stepper = Stepper(method, turns_of(method), optimisers, "bf16", None, torch.amp.GradScaler("cpu", enabled=False))
    told = stepper.step([batch], lambda phase, part: None, lambda losses: None)
    assert kinds == [torch.bfloat16, torch.bfloat16]
    assert all(math.isfinite(value) for value in told.values())
    moved = {name for name, weights in method.named_parameters() if not torch.equal(weights, before[name])}
    assert all(
        any(name.startswith(part) for name in moved) for part in ("network.stems.0.", "network.stems.1.", "head.")
    )


def test_settings_that_cannot_work_are_refused():
    for options, message in (
        ({"temperature": 0.0}, r"method\.temperature: 0\.0 is out of range; use a number above 0"),
        ({"dense_form": "code"}, r"method\.dense_form: 'code' is none of 'paper', 'released'"),
        ({"dense_weight": -1.0}, r"method\.dense_weight: -1\.0 is out of range"),
    ):
        with pytest.raises(RecipeError, match=message):
            small(**options)


# The whole network


@pytest.fixture(scope="module")
def whole() -> Whole:
    return read_whole("lba", LAYOUT, used_only=True)


@pytest.mark.slow
def test_a_released_checkpoint_comes_in_and_goes_out_with_equal_tensors(whole):
    found = convert_from(LAYOUT, whole.released)  # without what is never used
    assert (found.method, found.num_ids) == ("lba", 395)
    written = convert_to(LAYOUT, found.options, found.state)
    assert {name: tuple(value.shape) for name, value in written.items()} == whole.case.shapes
    assert all(torch.equal(written[name], value) for name, value in whole.released.items())
    assert not any(written[name].any() for name in written.keys() - whole.released.keys())
    for broken, message in (
        (written | {"pool.p": torch.zeros(1)}, r"lba-official checkpoint: 1 unknown tensor\(s\), first 'pool\.p'"),
        ({n: v for n, v in written.items() if n != "bottleneck.bias"}, "first 'bottleneck.bias'"),
        (written | {"wpa.gate": torch.zeros(3)}, r"1 unknown tensor\(s\), first 'wpa\.gate'"),
    ):
        with pytest.raises(CheckpointError, match=message):
            convert_from(LAYOUT, broken)


@pytest.mark.slow
@pytest.mark.parametrize("side", ["visible", "infrared"])
def test_vectors_for_search_are_the_releases(whole, side):
    method = copy.copy(whole.method).eval()
    images = whole.pictures("eval", side)
    modalities = torch.full((len(images),), Modality[side.upper()])
    stages = {f"layer{number}": method.network.stages[number - 1][-1] for number in (3, 4)}
    with torch.no_grad(), watch(stages) as maps:
        output = method(images, modalities, modalities)
    whole.near_maps(maps, f"{side}.")
    whole.near(f"eval/{side}_pool", output.feature)
    whole.near(f"eval/{side}_embedding", normalise(output.feature))
    whole.near(f"eval/{side}_logits", output.logits)
    assert method.options.test_feature == "backbone"


@pytest.mark.slow
def test_a_training_step_is_the_releases_with_the_papers_dense_triplets_or_its_own(whole, monkeypatch):
    """Losses, gradients and running statistics, from a batch in another order than the release's, with its pairs."""
    case, method = whole.case, copy.deepcopy(whole.method).train()
    theirs = whole.batch()
    order = torch.randperm(len(theirs), generator=torch.Generator().manual_seed(0))
    batch, places = theirs.select(order), order.argsort()

    def fixed(labels: Tensor, modalities: Tensor, pictures: Tensor, draw: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        name = f"train/in/pairs_layer{3 + draw[-1]}"
        positive, negative = (torch.from_numpy(case.arrays[f"{name}_{side}"]) for side in ("positive", "negative"))
        assert torch.equal(labels[places[positive[order]]], labels)
        return places[positive[order]], places[negative[order]]

    alignments = []

    def watched(*arguments, **named):
        alignments.append(align(*arguments, **named))
        return alignments[-1]

    monkeypatch.setattr(lba, "draw_partners", fixed)
    monkeypatch.setattr(lba, "align", watched)
    losses = method.losses(run(method, batch), batch)
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    own = sum(0.5 * dense_triplet(each, margin=0.3, form="released") for each in alignments)
    assert losses.keys() == {"id", "triplet", "id_layer3", "id_layer4", "dense"}
    for name, value in losses.items():
        whole.near(f"train/loss.{name}", value, other="paper_form" if name == "dense" else "")
    whole.near("train/loss.total", total, other="paper_form")
    whole.near("train/loss.dense", own)
    whole.near("train/loss.total", total - losses["dense"] + own)
    for number, each in enumerate(alignments, 3):
        hinges = functional.relu(each.distances[0] - each.distances[1] + 0.3)
        whole.near(f"train/extra.dense_map_layer{number}", hinges.unflatten(1, (9, 5)), order)
    gradients = {name: weights.grad for name, weights in method.named_parameters() if weights.grad is not None}
    whole.check_weights("grad", gradients, other="paper_form")
    whole.check_statistics(method, unused=105)


def test_the_recipes_numbers_are_those_of_the_fact_sheet():
    rates = {0: 0.1, 4: 0.5, 9: 1.0, 19: 1.0, 20: 0.1, 49: 0.1, 50: 0.01, 80: 0.01}
    for data in ("sysu", "regdb", "llcm"):
        recipe = load_recipe(f"lba_{data}")
        assert recipe.data.size == (288, 144)
        assert [entry["name"] for entry in recipe.augment] == ["flip"]
        assert (recipe.sampler.options["ids"], recipe.sampler.options["pictures"]) == (8, 4)
        assert (recipe.optimiser.lr, recipe.optimiser.group_lr) == (0.1, {"backbone": 0.01})
        assert (recipe.schedule.epochs, recipe.evaluation.mirror, recipe.selection.rule) == (81, False, "last")
        for epoch, rate in rates.items():
            assert math.isclose(compute_lr_factor(recipe.schedule, epoch), rate), epoch
    options = build_options("lba")
    assert (options.temperature, options.dense_weight, options.dense_margin, options.rebuilt_weight) == (
        50,
        0.5,
        0.3,
        1,
    )
    assert (options.pooling, options.triplet_margin, options.dense_form) == ("gem", 0.3, "paper")
