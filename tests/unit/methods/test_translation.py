"""Which pictures of a batch are translated, and which goes with which."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from tapetum.core.errors import RecipeError, TrainingError
from tapetum.core.types import Batch
from tapetum.methods import build_method, build_options, small_options
from tapetum.methods._translation import check_people, draw_people, draw_rows, find_partners, split_by_modality
from tapetum.runs.recipe import load_recipe
from tapetum.training.optimisation import build_optimisers
from tapetum.training.stepping import Stepper, turns_of


def slow_partners(labels, keys, others, other_keys, shift):
    """Lists of each person's pictures by key."""
    people = sorted(set(others))
    sets = {p: sorted((i for i, o in enumerate(others) if o == p), key=lambda i: other_keys[i]) for p in people}
    found = []
    for row, label in enumerate(labels):
        mine = sorted((i for i, own in enumerate(labels) if own == label), key=lambda i: keys[i])
        theirs = sets[people[(people.index(label) + shift) % len(people)]]
        found.append(theirs[mine.index(row) % len(theirs)])
    return found


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_partners_are_those_of_lists_by_person_and_key(rng, shift):
    labels, others = [5, 2, 5, 9, 2, 5, 9, 5], [9, 2, 5, 5, 9, 2, 5, 2, 7]
    keys, other_keys = torch.rand(8, generator=rng), torch.rand(9, generator=rng)
    found = find_partners(torch.tensor(labels), keys, torch.tensor(others), other_keys, shift=shift)
    assert found.tolist() == slow_partners(labels, keys.tolist(), others, other_keys.tolist(), shift)


def test_with_as_many_pictures_of_each_person_everyone_is_somebody_s_partner_whatever_the_order(rng):
    labels = torch.arange(12) // 3
    keys, other_keys = torch.rand(2, 12, generator=rng)
    found = find_partners(labels, keys, labels, other_keys)
    assert sorted(found.tolist()) == list(range(12))
    assert torch.equal(labels[found], labels)
    order, other_order = torch.randperm(12, generator=rng), torch.randperm(12, generator=rng)
    again = find_partners(labels[order], keys[order], labels[other_order], other_keys[other_order])
    assert torch.equal(other_order[again], found[order])


def test_rows_are_all_or_as_many_as_wanted_by_chance():
    device = torch.device("cpu")
    assert draw_rows(5, 0, device).tolist() == draw_rows(5, 7, device).tolist() == [0, 1, 2, 3, 4]
    torch.manual_seed(0)
    drawn = [tuple(draw_rows(20, 4, device).tolist()) for _ in range(5)]
    assert len(set(drawn)) == 5
    assert all(list(rows) == sorted(set(rows)) and len(rows) == 4 and rows[-1] < 20 for rows in drawn)


def test_whole_people_are_drawn_with_as_many_pictures_of_each_in_both_modalities():
    labels = torch.tensor([4, 1, 4, 7, 1, 7, 4, 1, 7, 2, 2, 2])
    others = torch.tensor([2, 7, 1, 1, 4, 4, 7, 4, 1, 2, 7])
    torch.manual_seed(0)
    people, kept = set(), set()
    for _ in range(60):
        sides = draw_people(labels, others, 2, 2)
        met = [sorted(own[rows].tolist()) for own, rows in zip((labels, others), sides, strict=True)]
        assert met[0] == met[1]
        assert len(set(met[0])) == 2
        assert len(met[0]) == 4
        assert all(rows.tolist() == sorted(set(rows.tolist())) for rows in sides)
        people.add(tuple(sorted(set(met[0]))))
        kept.update(sides[0].tolist())
    assert len(people) == 6, "any two of four"
    assert len(kept) == 12, "any two of a person's three"
    all_of_them = draw_people(labels, others, 9, 9)
    assert [len(rows) for rows in all_of_them] == [12, 11]


@pytest.mark.parametrize("name", ["align_gan", "jsia"])
@pytest.mark.parametrize(("people", "pictures"), [(1, 4), (4, 0), (3, 16)])
def test_whole_people_that_cannot_be_drawn_are_refused(name, people, pictures):
    options = small_options(name) | {"gan_people": people, "gan_pictures": pictures}
    with pytest.raises(
        RecipeError, match=rf"^method\.gan_people {people} with method\.gan_pictures {pictures}: give two"
    ):
        build_method(name, options, 3, size=(64, 32))


@pytest.mark.parametrize("name", ["align_gan", "jsia"])
def test_the_recipes_draw_whole_people_as_the_releases_do_and_the_scene_s_does_not(name):
    people = {"align_gan": (4, 16), "jsia": (3, 9)}[name]
    for data in ("sysu", "regdb", "llcm"):
        options = build_options(name, load_recipe(f"{name}_{data}").method.options)
        assert (options.gan_people, options.gan_pictures) == people
    assert "gan_people" not in load_recipe(f"{name}_synth").method.options


def test_rows_are_split_by_modality_in_the_order_of_the_batch():
    visible, infrared = split_by_modality(torch.tensor([1, 0, 0, 1, 0]))
    assert (visible.tolist(), infrared.tolist()) == ([1, 2, 4], [0, 3])


@pytest.mark.parametrize(
    ("labels", "others", "message"),
    [
        ([0, 0], [0], "method: the batch shows one identity only, .* use the sampler cross_modality with ids >= 2"),
        (
            [0, 1],
            [0, 2],
            "method: 2 of 3 people of the batch are there in one modality only; set sampler.name to cross",
        ),
        ([0, 1], [], "method: 2 of 2 people of the batch are there in one modality only"),
    ],
)
def test_a_batch_without_triplets_across_modalities_is_refused(labels, others, message):
    check_people(torch.tensor([0, 1, 1]), torch.tensor([1, 0]), "method")
    with pytest.raises(TrainingError, match=message):
        check_people(torch.tensor(labels), torch.tensor(others, dtype=torch.int64), "method")


@pytest.mark.parametrize(
    ("name", "options"),
    [("align_gan", {"encoder_size": (32, 32)}), ("jsia", {"encoder_size": (32, 32)}), ("hi_cmd", {})],
)
def test_generators_learn_from_a_step_in_bfloat16_and_channels_last(name, options, rng):
    torch.manual_seed(3)
    method = build_method(name, small_options(name) | options, 3, size=(32, 32)).train()
    method = method.to(memory_format=torch.channels_last)
    labels, modalities = torch.arange(12) // 4, torch.arange(12) % 2
    images = functional.interpolate(torch.rand(12, 3, 8, 8, generator=rng), scale_factor=4)
    batch = Batch(images.contiguous(memory_format=torch.channels_last), labels, labels, modalities, modalities)
    generators = method.parameter_groups()["generators"]
    own, computed, gradients = {id(weights) for weights in generators}, set(), {}
    for layer in method.modules():
        if isinstance(layer, nn.Conv2d) and id(layer.weight) in own:
            layer.register_forward_hook(
                lambda _, seen, made: computed.add((made.dtype, made.is_contiguous(memory_format=torch.channels_last)))
            )
    for each in generators:
        each.register_post_accumulate_grad_hook(lambda weights: gradients.update({id(weights): weights.grad.clone()}))
    optimisers = build_optimisers(
        method, method.parameter_groups(), load_recipe(f"{name}_synth").optimiser, turns_of(method)
    )
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    losses = Stepper(method, turns_of(method), optimisers, "bf16", None, scaler).step(
        [batch], lambda phase, part: None, lambda losses: None
    )
    assert (torch.bfloat16, True) in computed
    assert gradients.keys() == own
    assert {gradient.dtype for gradient in gradients.values()} == {torch.float32}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert any(gradient.any() for gradient in gradients.values())
    assert torch.tensor(list(losses.values())).isfinite().all()
    assert all(weights.isfinite().all() for weights in method.parameters())
