"""JSIA-ReID: its networks written out, each loss by a loop from its formula, and what each turn may move."""

from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.errors import RecipeError, TrainingError
from tapetum.core.types import Batch
from tapetum.layers.backbones import build_backbone
from tapetum.methods import build_method, build_options, small_options
from tapetum.methods._translation import draw_people
from tapetum.methods.jsia import ScaledDiscriminator, StyleGenerator, symmetric_divergence
from tapetum.runs.recipe import load_recipe
from tapetum.training.optimisation import compute_lr_factor
from tapetum.training.stepping import Stepper, turns_of

NUM_IDS = 3
TURNS = {"encoder": ("backbone", "head"), "generators": ("generators",), "discriminators": ("discriminators",)}


def build(**options: object) -> nn.Module:
    torch.manual_seed(3)
    return build_method("jsia", small_options("jsia") | {"encoder_size": (32, 32)} | options, NUM_IDS).train()


def make_batch(labels: Tensor | None = None, modalities: Tensor | None = None) -> Batch:
    """Of each person two visible and two infrared pictures, in no order."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(12) // 4 if labels is None else labels
    modalities = torch.arange(12) % 2 if modalities is None else modalities
    images = functional.interpolate(torch.rand(12, 3, 8, 8, generator=generator), scale_factor=4)
    order = torch.randperm(12, generator=generator)
    return Batch(images, labels, labels + 40, modalities + 1, modalities).select(order)


def run(method: nn.Module, batch: Batch):
    return method(batch.images, batch.modalities, batch.camids)


def count(network: nn.Module) -> int:
    return sum(weights.numel() for weights in network.parameters())


def convolve(maps: Tensor, layer: nn.Conv2d, pad: int, stride: int = 1) -> Tensor:
    return functional.conv2d(functional.pad(maps, [pad] * 4, mode="reflect"), layer.weight, layer.bias, stride)


def test_the_networks_of_the_published_width_have_the_described_weights():
    with torch.device("meta"):
        generator, judge = StyleGenerator(build_options("jsia"), 256), ScaledDiscriminator(32, 4, 2)
    halvings = 16 * (32 * 64 + 64 * 128 + 2 * 128 * 128) + 64 + 3 * 128
    assert count(generator.style) == 3 * 32 * 49 + 32 + halvings + 128 * 128 + 128
    assert count(generator.mix) == 128 * 256 + 256 + 256 * 256 + 256 + 256 * 2 * 256 * 4 + 2 * 256 * 4
    assert count(generator.blocks) == 2 * 2 * 9 * 256 * 256
    assert count(generator.draw) == 256 * 128 * 25 + 2 * 128 + 128 * 3 * 49 + 3
    assert count(judge) == 2 * (16 * (3 * 32 + 32 * 64 + 64 * 128 + 128 * 256) + 32 + 64 + 128 + 256 + 256 + 1)


def test_a_style_is_found_through_halvings_and_one_average(rng):
    options = build_options("jsia", small_options("jsia") | {"style_channels": 3, "style_width": 5})
    generator = StyleGenerator(options, 8)
    pictures = torch.randn(2, 3, 32, 16, generator=rng)
    layers = [layer for layer in generator.style if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in layers] == [3, 6, 12, 12, 12, 5]
    maps = convolve(pictures, layers[0], 3).relu()
    for layer in layers[1:5]:
        maps = convolve(maps, layer, 1, 2).relu()
    expected = maps.mean((2, 3)) @ layers[5].weight[:, :, 0, 0].T + layers[5].bias
    torch.testing.assert_close(generator.find_style(pictures), expected)


def test_a_picture_is_drawn_from_a_content_whose_statistics_the_style_gives(rng):
    options = build_options("jsia", small_options("jsia") | {"decoder_blocks": 2})
    generator = StyleGenerator(options, 6)
    content, style = torch.randn(2, 6, 8, 4, generator=rng), torch.randn(2, 4, generator=rng)
    first, second, third = (layer for layer in generator.mix if isinstance(layer, nn.Linear))
    numbers = third(second(first(style).relu()).relu())
    assert numbers.shape == (2, 2 * 6 * 4)
    maps, place = content, 0
    for block in generator.blocks:
        inner = maps
        for number, layer in enumerate(block.convolutions):
            inner = convolve(inner, layer, 1)
            mean, deviation = numbers[:, place : place + 6, None, None], numbers[:, place + 6 : place + 12, None, None]
            place += 12
            centred = inner - inner.mean((2, 3), keepdim=True)
            inner = centred / (inner.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt() * deviation + mean
            inner = inner.relu() if number == 0 else inner
        maps = maps + inner
    maps = convolve(maps.repeat_interleave(2, 2).repeat_interleave(2, 3), generator.draw[1], 2)
    maps = (maps - maps.mean((1, 2, 3), keepdim=True)) / (maps.var((1, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
    expected = convolve(maps.relu(), generator.draw[4], 3).tanh()
    found = generator(content, style)
    assert found.shape == (2, 3, 16, 8)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_discriminator_judges_a_picture_and_its_half(rng):
    judge = ScaledDiscriminator(4, 2, 2)
    pictures = torch.randn(2, 3, 32, 16, generator=rng)
    padded, ones = functional.pad(pictures, [1] * 4), functional.pad(torch.ones_like(pictures), [1] * 4)
    half = functional.avg_pool2d(padded, 3, 2) / functional.avg_pool2d(ones, 3, 2)
    found = judge(pictures)
    assert [scores.shape for scores in found] == [(2, 1, 8, 4), (2, 1, 4, 2)]
    for scores, seen, network in zip(found, (pictures, half), judge.judges, strict=True):
        maps = seen
        for place in (0, 2):
            maps = functional.leaky_relu(convolve(maps, network[place], 1, 2), 0.2)
        torch.testing.assert_close(scores, network[4](maps))


def test_the_divergence_is_the_sum_of_both_directions_and_its_target_learns_nothing(rng):
    ours, theirs = torch.randn(2, 4, 5, generator=rng, dtype=torch.float64).unbind()
    ours.requires_grad_()
    theirs.requires_grad_()
    total = 0.0
    for one, other in zip(ours.softmax(1), theirs.softmax(1), strict=True):
        total += sum(p * (p / q).log() + q * (q / p).log() for p, q in zip(one, other, strict=True))
    found = symmetric_divergence(ours, theirs)
    torch.testing.assert_close(found, total / 4)
    expected = torch.autograd.grad(total / 4, ours)[0]
    gradients = torch.autograd.grad(found, (ours, theirs), allow_unused=True)
    torch.testing.assert_close(gradients[0], expected)
    assert gradients[1] is None


def slow_triplet(ours, labels, theirs, others, margin):
    terms = []
    for row, label in zip(ours, labels.tolist(), strict=True):
        distances = [(row - other).norm() for other in theirs]
        own = [d for d, other in zip(distances, others.tolist(), strict=True) if other == label]
        strangers = [d for d, other in zip(distances, others.tolist(), strict=True) if other != label]
        terms.append((max(own) - min(strangers) + margin).clamp(min=0))
    return sum(terms) / len(terms)


def apart(ours, theirs):
    return (ours - theirs).abs().mean()


def judged(scores, target):
    return sum((each - target).square().mean() for each in scores)


def test_each_loss_is_that_of_its_formula():
    method, batch = build(pixel_weight=1.0), make_batch()
    output = run(method, batch)
    found = method.losses(output, batch)
    v, n = (functional.avg_pool2d(batch.images[batch.modalities == m], 2) for m in (0, 1))
    for made, plain in zip(output.translations.pictures, (v, n), strict=True):
        assert apart(made, 2 * plain - 1) < 0.15, "half as large, smoother than by means of four"
    v, n = output.translations.pictures
    visible, infrared = method.generators
    grey = torch.tensor([0.2989, 0.5870, 0.1140]).view(1, 3, 1, 1)

    def contents(*parts):
        seen = functional.interpolate((torch.cat(parts) + 1) / 2, (32, 32), mode="bilinear")
        return method.set_level((method.normalise(seen) * grey).sum(1, keepdim=True).repeat(1, 3, 1, 1))

    def classify(maps):
        return method.head(method.instance_level(maps).mean((2, 3)))

    both = contents(v, n)
    content_v, content_n = both.split(6)
    style_v, style_n = visible.find_style(v), infrared.find_style(n)
    by_light_v, by_light_n = (pictures.mean((1, 2, 3)).argsort() for pictures in (v, n))
    lent_n, lent_v = torch.empty_like(style_n), torch.empty_like(style_v)
    lent_n[by_light_v], lent_v[by_light_n] = style_n[by_light_n], style_v[by_light_v]
    made_n, made_v = infrared(content_v, lent_n), visible(content_n, lent_v)
    found_n, found_v = contents(made_v, made_n).split(6)  # of what was made, each the other modality's
    again = apart(visible(content_v, style_v), v) + apart(infrared(content_n, style_n), n)
    cycled = apart(visible(found_v, style_v), v) + apart(infrared(found_n, style_n), n)
    logits = classify(torch.cat([both, contents(made_v, made_n)])).logits
    logits_v, logits_n, made_v_logits, made_n_logits = logits.split(6)
    d_v, d_n = method.discriminators
    rows = [batch.modalities == m for m in (0, 1)]
    whole = classify(contents(2 * batch.images - 1))
    scores, labels = [whole.logits[own] for own in rows], [batch.labels[own] for own in rows]
    features = [whole.feature[own] for own in rows]
    entropy = [functional.cross_entropy(*pair, label_smoothing=0.1) for pair in zip(scores, labels, strict=True)]
    there = slow_triplet(features[0], labels[0], features[1], labels[1], 0.3)
    back = slow_triplet(features[1], labels[1], features[0], labels[0], 0.3)
    adversarial, reconstruction = judged(d_v(made_v), 1) + judged(d_n(made_n), 1), 10 * (again + cycled)
    expected = {
        "id": (entropy[0] + entropy[1]) / 2,
        "triplet": (there + back) / 2,
        "pixel": symmetric_divergence(made_n_logits, logits_v) + symmetric_divergence(made_v_logits, logits_n),
        "adversarial_encoder": adversarial,
        "reconstruction_encoder": reconstruction,
        "adversarial": adversarial,
        "reconstruction": reconstruction,
        "codes": apart(found_v, content_v)
        + apart(found_n, content_n)
        + apart(visible.find_style(made_v), lent_v)
        + apart(infrared.find_style(made_n), lent_n),
        "visible_discriminator": judged(d_v(v), 1) + judged(d_v(made_v), 0),
        "infrared_discriminator": judged(d_n(n), 1) + judged(d_n(made_n), 0),
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert value > 0, name
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


def test_each_turn_s_losses_reach_what_it_trains_and_nothing_else():
    method, batch = build(), make_batch()
    output, groups = run(method, batch), method.parameter_groups()
    alone = {
        turn.name: torch.autograd.grad(
            sum(turn.losses(output, batch).values()),
            [weights for name in turn.groups for weights in groups[name]], retain_graph=True,
        )
        for turn in turns_of(method)
    }  # fmt: skip
    codes = torch.autograd.grad(
        method.generator_losses(output, batch)["codes"], groups["backbone"], allow_unused=True, retain_graph=True
    )
    assert any(gradient is not None and gradient.any() for gradient in codes), "else this shows nothing"
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    stepper = Stepper(method, turns_of(method), [], "fp32", None, scaler)
    stepper.step([batch], lambda phase, part: None, lambda losses: None)
    assert {turn.name: turn.groups for turn in turns_of(method)} == TURNS
    for name, members in TURNS.items():
        weights = [each for group in members for each in groups[group]]
        for weight, gradient in zip(weights, alone[name], strict=True):
            torch.testing.assert_close(weight.grad, gradient, rtol=1e-3, atol=1e-5)


def test_like_scores_are_asked_of_the_encoder_and_not_of_the_generators():
    method, batch = build(), make_batch()
    losses = method.encoder_losses(run(method, batch), batch)
    generators = torch.autograd.grad(
        losses["pixel"], method.parameter_groups()["generators"], allow_unused=True, retain_graph=True
    )
    assert set(generators) == {None}
    assert any(g is not None and g.any() for g in torch.autograd.grad(
        losses["pixel"], method.parameter_groups()["backbone"], allow_unused=True, retain_graph=True
    ))  # fmt: skip
    (contents,) = torch.autograd.grad(losses["adversarial_encoder"], [next(method.set_level.parameters())])
    assert contents.any()


def test_while_the_generators_warm_up_nothing_is_classified():
    method, batch = build(warmup_epochs=4), make_batch()
    output = run(method, batch)
    assert set(method.encoder_losses(output, batch)) == {"adversarial_encoder", "reconstruction_encoder"}
    with pytest.raises(TrainingError, match="jsia: nothing is classified while the generators warm up"):
        output.logits  # noqa: B018
    assert run(method.eval(), batch).logits.shape == (12, NUM_IDS)
    method.train()
    for epoch, joint in ((3, False), (4, True)):
        method.begin_epoch(SimpleNamespace(epoch=epoch))
        assert ("id" in method.encoder_losses(run(method, batch), batch)) is joint
    assert "joint" not in method.state_dict()
    assert "joint" in dict(method.named_buffers())  # which an unfinished training keeps


def test_generators_learn_from_as_many_pictures_of_each_modality_as_asked():
    method, batch = build(gan_pictures=2), make_batch()
    output = run(method, batch)
    made = output.translations
    assert [len(own) for own in (*made.pictures, *made.made, *made.logits)] == [2] * 6
    assert len(output.logits) == 12
    assert all(torch.isfinite(loss) for loss in method.losses(output, batch).values())
    assert len(run(method.eval(), batch).translations.pictures[0]) == 6, "chance is for training alone"


def test_of_whole_people_a_content_gets_a_style_of_the_same_person():
    method, batch = build(gan_people=2, gan_pictures=4), make_batch()
    labels = [batch.labels[batch.modalities == modality] for modality in (0, 1)]
    torch.manual_seed(1)
    drawn = draw_people(labels[0], labels[1], 2, 2)
    torch.manual_seed(1)
    output = method.forward_batch(batch)
    made = output.translations
    people = [own[rows].tolist() for own, rows in zip(labels, drawn, strict=True)]
    assert sorted(people[0]) == sorted(people[1])
    assert len(set(people[0])) == 2
    for own, pictures, modality in zip(drawn, made.pictures, (0, 1), strict=True):
        images = batch.images[batch.modalities == modality][own]
        assert apart(pictures, 2 * functional.avg_pool2d(images, 2) - 1) < 0.15
    light = [pictures.mean((1, 2, 3)) for pictures in made.pictures]
    for lender in (0, 1):  # what is made of this modality has contents of the other, and styles of this one
        contents, styles = people[1 - lender], people[lender]
        for row, person in enumerate(contents):
            own, theirs = (
                sorted((i for i, p in enumerate(side) if p == person), key=lambda i, m=m: light[m][i].item())
                for side, m in ((contents, 1 - lender), (styles, lender))
            )
            donor = theirs[own.index(row)]
            torch.testing.assert_close(made.lent[lender][row], made.styles[lender][donor])
    assert len(output.logits) == 12
    assert all(torch.isfinite(loss) for loss in method.losses(output, batch).values())


def test_modalities_of_different_numbers_lend_each_other_styles():
    modalities = torch.tensor([0, 0, 0, 1, 1, 0, 0, 0, 1, 0, 1, 0])
    method, batch = build(), make_batch(modalities=modalities)
    made = run(method, batch).translations
    assert [len(own) for own in made.pictures] == [8, 4]
    assert [len(own) for own in made.made] == [4, 8]
    assert all(torch.isfinite(loss) for loss in method.losses(run(method, batch), batch).values())


def test_the_encoder_sees_the_grey_of_normalised_pictures_unless_told_otherwise():
    method, batch = build().eval(), make_batch()
    weights = torch.tensor([0.2989, 0.5870, 0.1140]).view(1, 3, 1, 1)
    level = (method.normalise(batch.images) * weights).sum(1, keepdim=True).repeat(1, 3, 1, 1)
    with torch.no_grad():
        expected = method.head(method.instance_level(method.set_level(level)).mean((2, 3))).embedding
        found = method.embed(batch.images, batch.modalities, batch.camids)
        torch.testing.assert_close(found, functional.normalize(expected))
        other = method.embed(batch.images, 1 - batch.modalities, batch.camids)
        assert torch.equal(found, other), "one encoder for both"
        coloured = build(grey=False).eval()
        coloured.load_state_dict(method.state_dict())
        assert not torch.allclose(coloured.embed(batch.images, batch.modalities, batch.camids), found, atol=1e-3)


@pytest.mark.parametrize("stem_relu", [False, True])
def test_a_content_is_a_resnet_s_first_stage_without_the_first_relu_and_its_weights_come_from_a_file(
    stem_relu, tmp_path, rng
):
    torch.manual_seed(1)
    network, _ = build_backbone("test_resnet", last_stride=2)
    safetensors.torch.save_file(network.state_dict(), tmp_path / "weights.safetensors")
    method = build(stem_relu=stem_relu, grey=False, normalisation="none").eval()
    method.load_pretrained(str(tmp_path / "weights.safetensors"))
    images = torch.rand(2, 3, 32, 32, generator=rng)
    network.eval()
    maps = network.bn1(network.conv1(images))
    expected = network.layer1(network.maxpool(maps.relu() if stem_relu else maps))
    torch.testing.assert_close(method._find_content(images), expected)
    features = network.layer4(network.layer3(network.layer2(expected))).mean((2, 3))
    torch.testing.assert_close(method(images, torch.zeros(2), torch.zeros(2)).described.feature, features)


def test_pictures_of_one_modality_are_classified_and_not_translated():
    method, batch = build().eval(), make_batch()
    together = run(method, batch).logits
    rows = batch.modalities == 1
    output = run(method, batch.select(rows))
    assert output.translations is None
    torch.testing.assert_close(output.logits, together[rows], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("labels", "modalities", "message"),
    [
        (torch.zeros(12, dtype=torch.int64), None, "jsia: the batch shows one identity only"),
        (None, torch.arange(12) // 4 % 2, "jsia: 3 of 3 people of the batch are there in one modality only"),
        (None, torch.zeros(12, dtype=torch.int64), "jsia: 3 of 3 people of the batch are there in one modality only"),
    ],
)
def test_a_batch_that_has_no_triplets_across_modalities_is_refused(labels, modalities, message):
    method, batch = build(), make_batch(labels, modalities)
    with pytest.raises(TrainingError, match=message):
        method.losses(run(method, batch), batch)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder_size": (34, 32)}, r"method.encoder_size \[34, 32\]: 4 must divide both sides"),
        ({"encoder_size": (32, 16)}, r"method.encoder_size \[32, 16\]: a style is found in .* choose 32 or more"),
        ({"discriminator_layers": 4}, "method.discriminator_layers 4 and method.discriminator_scales 2 leave nothing"),
        ({"backbone": "tf_efficientnet_lite0"}, "method.stem_relu: false, but backbone tf_efficientnet_lite0 has no"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        build(**options)


def test_the_training_s_numbers_are_those_of_the_description():
    for data in ("sysu", "regdb", "llcm"):
        recipe = load_recipe(f"jsia_{data}")
        assert recipe.data.size == (256, 128)
        assert (recipe.sampler.options["ids"], recipe.sampler.options["pictures"]) == (16, 4)
        assert (recipe.sampler.options["steps"], recipe.schedule.epochs) == (200, 650)
        rates = [compute_lr_factor(recipe.schedule, epoch) for epoch in (0, 600, 629, 630, 649)]
        assert rates == pytest.approx([1, 1, 1, 0.1, 0.1])
        assert recipe.optimiser.frozen == {"backbone": 600, "head": 600}
        assert (recipe.optimiser.lr, recipe.optimiser.betas, recipe.optimiser.weight_decay) == (
            4.5e-4,
            (0.9, 0.999),
            5e-4,
        )
        for name in ("generators", "discriminators"):
            own = recipe.optimiser.own[name]
            assert (own.lr, own.betas, own.weight_decay) == (1e-4, (0.5, 0.999), 1e-4)
        assert recipe.method.options == {"gan_people": 3}
        assert not recipe.evaluation.mirror
