"""AlignGAN: its networks by the description of the release, each loss by a slow loop, and what each turn may move."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.errors import RecipeError, TrainingError
from tapetum.core.types import Batch
from tapetum.core.vectors import normalise
from tapetum.methods import build_method, small_options
from tapetum.methods.align_gan import Discriminator, Generator, PairDiscriminator
from tapetum.runs.recipe import load_recipe
from tapetum.training.optimisation import build_optimisers, compute_lr_factor
from tapetum.training.stepping import Stepper, phases_of, turns_of

NUM_IDS = 3
TURNS = {"feature": ("backbone", "head"), "pixel": ("generators",), "discriminators": ("discriminators",)}


def build(size: tuple[int, int] = (32, 16), **options: object) -> nn.Module:
    torch.manual_seed(3)
    settings = small_options("align_gan") | {"encoder_size": (32, 16)} | options
    return build_method("align_gan", settings, NUM_IDS, size=size).train()


def make_batch(labels: Tensor | None = None, modalities: Tensor | None = None) -> Batch:
    """Of each person two visible and two infrared pictures, in no order."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(12) // 4 if labels is None else labels
    modalities = torch.arange(12) % 2 if modalities is None else modalities
    images = functional.interpolate(torch.rand(12, 3, 8, 4, generator=generator), scale_factor=4)
    order = torch.randperm(12, generator=generator)
    return Batch(images, labels, labels + 40, modalities + 1, modalities).select(order)


def run(method: nn.Module, batch: Batch):
    return method(batch.images, batch.modalities, batch.camids)


def stepper_of(method: nn.Module, optimisers=()) -> Stepper:
    return Stepper(method, turns_of(method), optimisers, "fp32", None, torch.amp.GradScaler("cpu", enabled=False))


def count(network: nn.Module) -> int:
    return sum(weights.numel() for weights in network.parameters())


def test_pictures_of_the_published_size_give_maps_of_the_described_size():
    pictures = torch.rand(1, 3, 128, 128)
    assert Generator(1, 4, tracked=True)(pictures).shape == pictures.shape
    assert Discriminator(1, 5)(pictures).shape == (1, 1, 4, 4)
    assert PairDiscriminator(1, 5, 8, 2)(pictures, torch.rand(1, 8, 24, 12)).shape == (1, 1, 4, 4)


def test_the_networks_of_the_published_width_have_the_described_weights():
    with torch.device("meta"):
        generator = Generator(64, 4, tracked=True)
        plain, pairs = Discriminator(64, 5), PairDiscriminator(64, 5, 2048, 64)
    ends, down, residual = 2 * 3 * 64 * 49, (64 * 128 + 128 * 256) * 16, 4 * 2 * 256 * 256 * 9
    norms = 2 * (2 * (64 + 128) + 256 + 4 * 2 * 256)
    assert count(generator) == ends + 2 * down + residual + norms
    first = 3 * 64 * 16 + 64
    halvings = [64 * 2**number * 128 * 2**number * 16 for number in range(4)]
    assert count(plain) == first + sum(halvings) + 1024 * 9
    joined = (256 + 64) * 512 * 16 + 512 * 1024 * 16
    assert count(pairs) == first + sum(halvings[:2]) + (2048 * 64 + 64) + joined + 1024 * 9


def test_a_generator_is_its_layers_one_after_the_other(rng):
    generator = Generator(2, 1, tracked=False)
    images = torch.randn(2, 3, 8, 4, generator=rng)
    weights = [layer.weight for layer in generator.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]

    def normed(maps):
        return (maps - maps.mean((2, 3), keepdim=True)) / (maps.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt()

    maps = normed(functional.conv2d(images, weights[0], padding=3)).relu()
    for weight in weights[1:3]:
        maps = normed(functional.conv2d(maps, weight, stride=2, padding=1)).relu()
    inner = normed(functional.conv2d(maps, weights[3], padding=1)).relu()
    maps = maps + normed(functional.conv2d(inner, weights[4], padding=1))
    for weight in weights[5:7]:
        maps = normed(functional.conv_transpose2d(maps, weight, stride=2, padding=1)).relu()
    expected = functional.conv2d(maps, weights[7], padding=3).tanh()
    torch.testing.assert_close(generator(images), expected, rtol=1e-4, atol=1e-5)


def test_norms_of_a_generator_outside_a_training_use_what_they_remember_or_each_picture_alone(rng):
    images = torch.randn(4, 3, 8, 8, generator=rng)
    for tracked in (True, False):
        torch.manual_seed(0)
        generator = Generator(2, 1, tracked=tracked)
        in_training = generator(images)
        assert torch.equal(in_training, generator.eval()(images)) is not tracked
        assert any("running_mean" in name for name in generator.state_dict()) is tracked


def test_a_picture_and_its_features_meet_at_the_picture_s_size(rng):
    judge = PairDiscriminator(2, 3, 5, 4)
    images, maps = torch.randn(2, 3, 32, 16, generator=rng), torch.randn(2, 5, 4, 3, generator=rng)
    seen = functional.leaky_relu(judge.pictures[0](images), 0.2)
    felt = functional.leaky_relu(judge.features[0](maps), 0.2)
    felt = functional.interpolate(felt, (16, 8), mode="bilinear", align_corners=False)
    hidden = torch.cat([seen, felt], 1)
    for place in (0, 3):
        convolved = functional.conv2d(hidden, judge.joined[place].weight, stride=2, padding=1)
        hidden = functional.leaky_relu(functional.instance_norm(convolved), 0.2)
    torch.testing.assert_close(judge(images, maps), judge.joined[-1](hidden))
    assert judge(images, maps).shape == (2, 1, 4, 2)


def slow_triplet(ours, labels, theirs, others, margin):
    """T(a, b) by the formula, anchor by anchor, on cosines."""
    terms = []
    for row, label in zip(ours, labels.tolist(), strict=True):
        cosines = [functional.cosine_similarity(row, other, dim=0) for other in theirs]
        own = [c for c, other in zip(cosines, others.tolist(), strict=True) if other == label]
        strangers = [c for c, other in zip(cosines, others.tolist(), strict=True) if other != label]
        terms.append((max(strangers) - min(own) + margin).clamp(min=0))
    return sum(terms) / len(terms)


def by_brightness(pictures, labels, person):
    own = [i for i, label in enumerate(labels.tolist()) if label == person]
    return sorted(own, key=lambda i: pictures[i].mean().item())


def mean_square(scores, target):
    return (scores - target).square().mean()


def test_each_loss_is_that_of_its_formula():
    method, batch = build(), make_batch()
    output = run(method, batch)
    found = method.losses(output, batch)
    v, n = (2 * batch.images[batch.modalities == modality] - 1 for modality in (0, 1))
    labels, others = (batch.labels[batch.modalities == modality] for modality in (0, 1))
    to_visible, to_infrared = method.generators
    fake_n, fake_v = to_infrared(v), to_visible(n)
    seen = method.normalise((torch.cat([fake_n, n]) + 1) / 2)  # of the encoder's size already
    maps = method.encoder(seen)
    pooled = maps.mean((2, 3))
    embedding, logits = method.head.compare(pooled), method.head.classify(pooled)
    fake, real = embedding[:6], embedding[6:]
    partner, stranger = [], []
    for i, person in enumerate(labels.tolist()):
        place = by_brightness(v, labels, person).index(i)
        partner.append(by_brightness(n, others, person)[place])
        stranger.append(by_brightness(n, others, (person + 1) % 3)[place])
    judge = method.discriminators["infrared"]
    maps_fake, maps_real = maps[:6], maps[6:][partner]
    both = slow_triplet(fake, labels, real, others, 1.0) + slow_triplet(real, others, fake, labels, 1.0)
    fooled = (
        mean_square(judge(n[stranger], maps_real), 0)
        + mean_square(judge(n[partner], maps_fake), 0)
        + mean_square(judge(fake_n, maps_real), 0)
        + mean_square(judge(fake_n, maps_fake), 0)
    ) / 4
    plain = method.discriminators["visible"]
    expected = {
        "id": functional.cross_entropy(logits[:6], labels) + functional.cross_entropy(logits[6:], others),
        "triplet": both,
        "joint": 0.1 * mean_square(judge(n[partner], maps_fake), 1),
        "adversarial": (mean_square(plain(fake_v), 1) + mean_square(judge(fake_n, maps_real), 1)) / 2,
        "cycle": 10 * ((to_visible(fake_n) - v).abs().mean() + (to_infrared(fake_v) - n).abs().mean()) / 2,
        "identity": 5 * ((to_visible(v) - v).abs().mean() + (to_infrared(n) - n).abs().mean()) / 2,
        "pixel_triplet": 0.1 * both,
        "pixel_id": 0.1 * functional.cross_entropy(logits[:6], labels),
        "visible_discriminator": (mean_square(plain(v), 1) + mean_square(plain(fake_v), 0)) / 2,
        "infrared_discriminator": (mean_square(judge(n[partner], maps_real), 1) + fooled) / 2,
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert value > 0, name
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


def test_while_it_warms_up_the_encoder_sees_infrared_alone_and_the_generators_know_nothing_of_it():
    method, batch = build(warmup_epochs=4), make_batch()
    output = run(method, batch)
    found = method.losses(output, batch)
    v, n = (2 * batch.images[batch.modalities == modality] - 1 for modality in (0, 1))
    others = batch.labels[batch.modalities == 1]
    pooled = method.encoder(method.normalise((n + 1) / 2)).mean((2, 3))
    embedding = method.head.compare(pooled)
    judges, made = method.discriminators, (method.generators[0](n), method.generators[1](v))
    terms = [
        [
            mean_square(judges[f"{name}_warmup"](pictures), target)
            for pictures, target in ((real, 1), (fake, 0), (fake, 1))
        ]
        for name, real, fake in zip(("visible", "infrared"), (v, n), made, strict=True)
    ]
    expected = {
        "id": functional.cross_entropy(method.head.classify(pooled), others),
        "triplet": slow_triplet(embedding, others, embedding, others, 1.0),
        "adversarial": (terms[0][2] + terms[1][2]) / 2,
        "visible_discriminator": (terms[0][0] + terms[0][1]) / 2,
        "infrared_discriminator": (terms[1][0] + terms[1][1]) / 2,
    }
    assert found.keys() == {*expected, "cycle", "identity"}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")
    assert output.translated is None
    assert len(output.logits) == 6
    moved = list(method.discriminators["infrared"].parameters())
    gradients = torch.autograd.grad(sum(found.values()), moved, allow_unused=True)
    assert set(gradients) == {None}


def test_the_warm_up_ends_with_its_epochs_and_no_checkpoint_remembers_it():
    method, batch = build(warmup_epochs=4), make_batch()
    for epoch, joint in ((3, False), (4, True), (0, False)):
        method.begin_epoch(SimpleNamespace(epoch=epoch))
        assert (run(method, batch).translated is not None) is joint
    assert "joint" not in method.state_dict()
    assert "joint" in dict(method.named_buffers())  # which an unfinished training keeps
    assert run(method.eval(), batch).logits.shape == (12, NUM_IDS)


@pytest.mark.parametrize("warmup_epochs", [0, 4])
def test_each_turn_s_losses_reach_what_it_trains_and_nothing_else(warmup_epochs):
    method, batch = build(warmup_epochs=warmup_epochs), make_batch()
    output = run(method, batch)
    groups = method.parameter_groups()
    alone = {
        turn.name: torch.autograd.grad(
            sum(turn.losses(output, batch).values()),
            [weights for name in turn.groups for weights in groups[name]], allow_unused=True, retain_graph=True,
        )
        for turn in turns_of(method)
    }  # fmt: skip
    stepper_of(method).step([batch], lambda phase, part: None, lambda losses: None)
    assert {turn.name: turn.groups for turn in turns_of(method)} == TURNS
    for name, members in TURNS.items():
        weights = [each for group in members for each in groups[group]]
        for weight, gradient in zip(weights, alone[name], strict=True):
            assert (weight.grad is None) == (gradient is None)
            if gradient is not None:
                torch.testing.assert_close(weight.grad, gradient, rtol=1e-3, atol=1e-5)
    assert (None in alone["discriminators"]) == (warmup_epochs > 0)  # those of the other part of the training rest


def test_discriminators_that_rest_do_not_move():
    method, batch = build(warmup_epochs=4), make_batch()
    section = load_recipe("align_gan_sysu").optimiser
    optimisers = build_optimisers(method, method.parameter_groups(), section, turns_of(method))
    before = {name: weights.clone() for name, weights in method.named_parameters()}
    stepper = stepper_of(method, optimisers)
    for epoch, moving in ((0, ("visible_warmup", "infrared_warmup")), (4, ("visible", "infrared"))):
        method.begin_epoch(SimpleNamespace(epoch=epoch))
        stepper.step([batch], lambda phase, part: None, lambda losses: None)
        for name, judge in method.discriminators.items():
            pairs = [(w, before[f"discriminators.{name}.{key}"]) for key, w in judge.named_parameters()]
            assert all(torch.equal(now, old) for now, old in pairs) is (name not in moving), (epoch, name)
        before = {name: weights.detach().clone() for name, weights in method.named_parameters()}


@pytest.mark.parametrize(("order", "phases"), [("shared", 1), ("released", 2)])
def test_generators_answer_the_encoder_as_it_was_or_as_it_has_become(order, phases):
    method, batch = build(order=order), make_batch()
    assert len(phases_of(turns_of(method))) == phases
    as_it_was = method.generator_losses(run(method, batch), batch)["pixel_id"].item()
    section = load_recipe("align_gan_sysu").optimiser
    optimisers = build_optimisers(method, method.parameter_groups(), section, turns_of(method))
    told = stepper_of(method, optimisers).step([batch], lambda phase, part: None, lambda losses: None)
    assert (told["pixel_id"] == pytest.approx(as_it_was, rel=1e-4)) is (order == "shared")


def test_generators_learn_from_pictures_drawn_by_chance_and_the_encoder_sees_all_translated():
    method, batch = build(gan_pictures=2), make_batch()
    torch.manual_seed(1)
    output = run(method, batch)
    assert [len(rows) for rows in output.drawn] == [2, 2]
    assert output.to_infrared.shape == output.visible_same.shape == (2, 3, 32, 16)
    assert len(output.translated.logits) == 6
    whole = build()
    whole.load_state_dict(method.state_dict())
    for name in ("embedding", "logits", "maps"):
        ours, theirs = (getattr(each.translated, name) for each in (output, run(whole, batch)))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert torch.equal(output.to_infrared, method.generators[1](output.visible[output.drawn[0]]))
    losses = method.losses(output, batch)
    assert all(torch.isfinite(loss) for loss in losses.values())
    chosen = batch.labels[batch.modalities == 0][output.drawn[0]]
    others = batch.labels[batch.modalities == 1]
    fake, real = output.translated.embedding[output.drawn[0]], output.real.embedding
    met = torch.isin(others, chosen)
    assert len(set(chosen.tolist())) == 2, "two people are among those drawn, the third is not"
    expected = slow_triplet(fake, chosen, real, others, 1.0)
    expected = expected + slow_triplet(real[met], others[met], fake, chosen, 1.0)
    torch.testing.assert_close(losses["pixel_triplet"], 0.1 * expected)


def test_of_whole_people_drawn_pictures_are_compared_among_themselves():
    method, batch = build(gan_people=2, gan_pictures=4), make_batch()
    torch.manual_seed(1)
    output = method.forward_batch(batch)
    labels, others = (batch.labels[batch.modalities == modality] for modality in (0, 1))
    v, n = (pictures[own] for pictures, own in zip((output.visible, output.infrared), output.drawn, strict=True))
    chosen, met = labels[output.drawn[0]], others[output.drawn[1]]
    assert len(set(chosen.tolist())) == 2
    assert sorted(chosen.tolist()) == sorted(met.tolist())
    assert len(output.translated.logits) == len(output.real.logits) == 6
    found = method.losses(output, batch)
    fake, real = output.translated.embedding[output.drawn[0]], output.real.embedding[output.drawn[1]]
    both = slow_triplet(fake, chosen, real, met, 1.0) + slow_triplet(real, met, fake, chosen, 1.0)
    torch.testing.assert_close(found["pixel_triplet"], 0.1 * both)
    partner, stranger = [], []
    first, second = sorted(set(chosen.tolist()))
    for i, person in enumerate(chosen.tolist()):
        place = by_brightness(v, chosen, person).index(i)
        partner.append(by_brightness(n, met, person)[place])
        stranger.append(by_brightness(n, met, second if person == first else first)[place])
    judge, plain = method.discriminators["infrared"], method.discriminators["visible"]
    maps_fake, maps_real = output.translated.maps[output.drawn[0]], output.real.maps[output.drawn[1]][partner]
    made = output.to_infrared
    fakes = ((n[stranger], maps_real), (n[partner], maps_fake), (made, maps_real), (made, maps_fake))
    fooled = sum(mean_square(judge(*pair), 0) for pair in fakes) / 4
    expected = (mean_square(judge(n[partner], maps_real), 1) + fooled) / 2
    torch.testing.assert_close(found["infrared_discriminator"], expected)
    expected = (mean_square(plain(output.to_visible), 1) + mean_square(judge(made, maps_real), 1)) / 2
    torch.testing.assert_close(found["adversarial"], expected)
    told = stepper_of(method).step([batch], lambda phase, part: torch.manual_seed(1), lambda losses: None)
    assert told["cycle"] == pytest.approx(found["cycle"].item())


def test_visible_pictures_are_searched_with_as_infrared_ones():
    method, batch = build(), make_batch()
    method.eval()
    with torch.no_grad():
        found = method.embed(batch.images, batch.modalities, batch.camids)
        made = torch.where(
            batch.modalities[:, None, None, None] == 0,
            method.generators[1](2 * batch.images - 1),
            2 * batch.images - 1,
        )
        expected = method.encoder(method.normalise((made + 1) / 2)).mean((2, 3))
        torch.testing.assert_close(found, normalise(expected))
        mirrored = method.encoder(method.normalise((made.flip(3) + 1) / 2)).mean((2, 3))
        method.options = dataclasses.replace(method.options, mirror="translation")
        found = method.embed(batch.images, batch.modalities, batch.camids, mirror=True)
        torch.testing.assert_close(found, normalise(expected + mirrored))


def test_class_scores_of_pictures_of_one_modality_are_those_among_others():
    method, batch = build(generator_statistics="own"), make_batch()
    together = run(method.eval(), batch).logits
    for modality in (0, 1):
        rows = batch.modalities == modality
        torch.testing.assert_close(run(method, batch.select(rows)).logits, together[rows], rtol=1e-3, atol=1e-4)


def test_the_encoder_alone_begins_with_weights_of_images_scaled_for_distances(monkeypatch):
    method, asked = build(), []
    monkeypatch.setattr("tapetum.methods.align_gan.load_backbone", lambda *given, **named: asked.append((given, named)))
    method.load_pretrained("package")
    assert asked == [((method.encoder, "test_resnet", "package"), {"for_distances": True})]


@pytest.mark.parametrize(
    ("labels", "modalities", "message"),
    [
        (torch.zeros(12, dtype=torch.int64), None, "align_gan: the batch shows one identity only"),
        (None, torch.arange(12) // 4 % 2, "align_gan: 3 of 3 people of the batch are there in one modality only"),
        (None, torch.zeros(12, dtype=torch.int64), "align_gan: 3 of 3 people of the batch are there in one modality"),
    ],
)
def test_a_batch_that_has_no_triplets_across_modalities_is_refused(labels, modalities, message):
    method, batch = build(), make_batch(labels, modalities)
    with pytest.raises(TrainingError, match=message):
        method.losses(run(method, batch), batch)


@pytest.mark.parametrize(
    ("size", "options", "message"),
    [
        ((34, 16), {}, r"data.size \(34, 16\): a generator of align_gan needs sides that 4 divides"),
        ((32, 16), {"discriminator_layers": 5}, "method.discriminator_layers 5 leave no more than one place"),
        ((32, 16), {"discriminator_layers": 2}, "method.discriminator_layers"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(size, options, message):
    with pytest.raises(RecipeError, match=message):
        build(size, **options)


def test_the_training_s_numbers_are_those_of_the_description():
    for data in ("sysu", "regdb", "llcm"):
        recipe = load_recipe(f"align_gan_{data}")
        assert recipe.data.size == (128, 128)
        assert (recipe.sampler.options["ids"], recipe.sampler.options["pictures"]) == (18, 4)
        assert recipe.sampler.options["steps"] == 100
        assert recipe.schedule.epochs == 201
        rates = [compute_lr_factor(recipe.schedule, epoch) for epoch in (0, 99, 149, 150, 200)]
        assert rates == pytest.approx([1, 1, 1, 0.1, 0.1])
        assert recipe.optimiser.frozen == {"backbone": 50, "head": 50}
        assert (recipe.optimiser.lr, recipe.optimiser.betas) == (2e-4, (0.5, 0.999))
        own = recipe.optimiser.own
        assert (own["backbone"].lr, own["head"].lr, own["head"].weight_decay) == (0.02, 0.2, 5e-4)
        assert recipe.method.options == {"mirror": "translation", "gan_people": 4}
