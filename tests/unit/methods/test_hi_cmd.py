"""Hi-CMD: its networks written out, each loss by a loop from its formula, and what each turn may move."""

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.errors import RecipeError, TrainingError
from tapetum.core.types import Batch
from tapetum.layers.backbones import build_backbone
from tapetum.methods import build_method, small_options
from tapetum.methods.hi_cmd import (
    STYLE,
    STYLE_AND_POSE,
    Decoder,
    PrototypeEncoder,
    ResidualDiscriminator,
    exchange,
    penalise_gradients,
    pulled_triplet,
    split_code,
)
from tapetum.runs.recipe import load_recipe
from tapetum.training.optimisation import build_optimisers, compute_lr_factor
from tapetum.training.stepping import Stepper, turns_of

NUM_IDS, SIZE = 3, (32, 16)
NETWORK = ("attributes", "generators", "backbone", "head", "mixing")


def build(size: tuple[int, int] = SIZE, **options: object) -> nn.Module:
    torch.manual_seed(3)
    return build_method("hi_cmd", small_options("hi_cmd") | options, NUM_IDS, size=size).train()


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


def count(network: nn.Module) -> int:
    return sum(weights.numel() for weights in network.parameters())


def convolve(maps: Tensor, layer: nn.Conv2d, pad: int, stride: int = 1, dilation: int = 1) -> Tensor:
    padded = functional.pad(maps, [pad] * 4, mode="reflect") if pad else maps
    return functional.conv2d(padded, layer.weight, layer.bias, stride, dilation=dilation)


def leaky(maps: Tensor) -> Tensor:
    return torch.where(maps > 0, maps, 0.3 * maps)


def centre(maps: Tensor, axes: tuple[int, ...] = (2, 3)) -> Tensor:
    deviations = (maps.var(axes, correction=0, keepdim=True) + 1e-5).sqrt()
    return (maps - maps.mean(axes, keepdim=True)) / deviations


def test_the_networks_of_the_published_width_have_the_described_weights():
    with torch.device("meta"):
        method = build_method("hi_cmd", None, 206)
    assert method.prototypes[0].fuse.out_channels == 256
    assert (method.width, method.trunk_width) == (2048, 1024)
    assert [len(each.judges) for each in method.discriminators] == [3, 3]
    first = 9 * (3 * 32 + 32 * 64 + 64 * 64 + 64 * 128)
    paths = 4 * 128 * 64 + 3 * 9 * 64 * 64 + 256 * 256 + 256
    assert count(method.prototypes) == 2 * (first + 4 * 2 * 9 * 128 * 128 + paths)
    assert count(method.attributes) == 2 * 23_508_032
    mixers = 8 * (512 * 512 + 512 + 512 * 512 + 512 + 512 * 512 + 512)
    blocks = 4 * 2 * 9 * 256 * 256
    draw = 25 * (256 * 128 + 128 * 64) + 2 * (128 + 64) + 2 * (9 * 64 * 64 + 64) + 3 * 64 + 3
    assert count(method.decoder) == mixers + blocks + draw
    judge = 3 * 32 + 32 + 3 * (9 * 32 * 32 + 32) + 9 * 32 * 64 + 64 + 4 * 2 * (9 * 64 * 64 + 64) + 64 + 1
    assert count(method.discriminators) == 2 * 3 * judge
    assert count(method.trunk) == 1_219_584 + 7_098_368  # of torchvision's layer2 and layer3
    assert count(method.head) == 2048 * 2048 + 2 * 2048 + 2048 * 206 + 206 + 2048 * 1024 + 1024


def test_a_prototype_is_found_by_convolutions_residual_blocks_and_paths_that_see_farther(rng):
    encoder, pictures = PrototypeEncoder(16, 1, (1, 2, 3)), torch.randn(2, 3, 32, 20, generator=rng)
    maps = pictures
    for stage, stride in zip(encoder.layers[:4], (2, 1, 1, 2), strict=True):
        maps = leaky(centre(convolve(maps, stage[0], 1, stride)))
    first, second = encoder.layers[4].convolutions
    maps = maps + centre(convolve(leaky(centre(convolve(maps, first, 1))), second, 1))
    paths = [leaky(centre(convolve(maps, encoder.paths[0][0], 0)))]
    for path, dilation in zip(encoder.paths[1:], (1, 2, 3), strict=True):
        near = leaky(centre(convolve(maps, path[0][0], 0)))
        paths.append(leaky(centre(convolve(near, path[1][0], dilation, dilation=dilation))))
    expected = convolve(torch.cat(paths, 1), encoder.fuse, 0)
    assert expected.shape == (2, 16, 8, 5)
    torch.testing.assert_close(encoder(pictures), expected, rtol=1e-4, atol=1e-5)


def test_each_quarter_of_a_code_drives_a_residual_block_of_the_decoder(rng):
    decoder = Decoder(8, 16, 5)
    prototypes, codes = torch.randn(2, 8, 4, 3, generator=rng), torch.randn(2, 16, generator=rng)
    maps = prototypes
    for number in range(4):
        statistics = []
        for mixers in (decoder.deviations, decoder.means):
            values = codes[:, 4 * number : 4 * number + 4]
            for layer in (0, 2):
                values = leaky(values @ mixers[number][layer].weight.T + mixers[number][layer].bias)
            values = values @ mixers[number][4].weight.T + mixers[number][4].bias
            statistics.append(values[:, :, None, None])
        deviations, means = statistics
        first, second = decoder.blocks[number].convolutions
        inner = leaky(centre(convolve(maps, first, 1)) * deviations[:, :8] + means[:, :8])
        maps = maps + centre(convolve(inner, second, 1)) * deviations[:, 8:] + means[:, 8:]
    for place in (0, 4):
        maps = maps.repeat_interleave(2, 2).repeat_interleave(2, 3)
        maps = leaky(centre(convolve(maps, decoder.draw[place + 1], 2), (1, 2, 3)))
    for place in (8, 10):
        maps = leaky(convolve(maps, decoder.draw[place], 1))
    expected = convolve(maps, decoder.draw[12], 0)
    assert expected.shape == (2, 3, 16, 12)
    torch.testing.assert_close(decoder(prototypes, codes), expected, rtol=1e-4, atol=1e-5)


def test_a_discriminator_is_convolutions_and_residual_blocks_without_norms(rng):
    judge, maps = ResidualDiscriminator(4, 1), torch.randn(2, 3, 16, 12, generator=rng)
    found = judge(maps)
    for stage, pad, stride in zip(list(judge)[:5], (0, 1, 1, 1, 1), (1, 1, 2, 1, 2), strict=True):
        maps = leaky(convolve(maps, stage[0], pad, stride))
    first, second = judge[5].convolutions
    maps = maps + convolve(leaky(convolve(maps, first, 1)), second, 1)
    torch.testing.assert_close(found, convolve(maps, judge[6], 0))
    assert found.shape == (2, 1, 4, 3)


def test_parts_of_codes_are_exchanged_by_quarters():
    own, other = torch.arange(32.0)[None], 100 + torch.arange(32.0)[None]
    style = [*range(4), *range(8, 12), *range(16, 20), *range(24, 28)]
    pose = [4, 5, 12, 13, 20, 21, 28, 29]
    for share, parts in ((STYLE, style), (STYLE_AND_POSE, style + pose)):
        expected = [100 + place if place in parts else place for place in range(32)]
        assert exchange(own, other, share)[0].tolist() == expected
    styles, rest = split_code(own)
    assert styles[0].tolist() == style
    assert rest[0].tolist() == [place for place in range(32) if place not in style]


def slow_triplet(anchors, labels, others, other_labels, margin):
    terms = []
    for row, label in zip(anchors, labels.tolist(), strict=True):
        named = zip(others, other_labels.tolist(), strict=True)
        cosines = [(row @ other / row.norm() / other.norm(), name) for other, name in named]
        p = min(cosine for cosine, name in cosines if name == label)
        n = max(cosine for cosine, name in cosines if name != label)
        terms.append((n - p + margin).clamp(min=0) + (1 + n) ** 2 + (1 - p) ** 2)
    return sum(terms) / len(terms)


def test_triplets_of_cosines_are_also_drawn_to_the_ends(rng):
    others = torch.randn(7, 4, generator=rng, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 2])
    picked = torch.tensor([5, 0, 3])
    found = pulled_triplet(others[picked], labels[picked], others, labels, margin=0.5)
    torch.testing.assert_close(found, slow_triplet(others[picked], labels[picked], others, labels, 0.5))
    perfect = torch.tensor([[1.0, 0.0], [2.0, 0.0], [-3.0, 0.0]])
    assert pulled_triplet(perfect[:2], torch.zeros(2), perfect, torch.tensor([0, 0, 1]), margin=0.5) == 0


def test_the_gradient_penalty_is_that_of_the_scores_derivative_and_teaches_the_judge(rng):
    class Judge(nn.Module):
        def __init__(self):
            super().__init__()
            self.factors = nn.Parameter(torch.tensor([2.0, -3.0]))

        def forward(self, pictures):
            return tuple(factor * pictures.square() / 2 for factor in self.factors)

    judge, pictures = Judge(), torch.randn(5, 3, 4, 2, generator=rng)
    with torch.no_grad():
        scores, penalty = penalise_gradients(judge, pictures)
    assert len(scores) == 2
    squares = sum(picture.square().sum() for picture in pictures) / 5
    torch.testing.assert_close(penalty, (2.0**2 + 3.0**2) * squares)
    (learnt,) = torch.autograd.grad(penalty, [judge.factors])
    torch.testing.assert_close(learnt, torch.tensor([4.0, -6.0]) * squares)
    assert not pictures.requires_grad


def apart(ours, theirs):
    return (ours - theirs).abs().mean()


def judged(scores, target):
    return sum((each - target).square().mean() for each in scores)


def swap(own, other, share):
    """Quarter by quarter, the first `share` eighths."""
    mixed = own.clone()
    quarter = own.shape[1] // 4
    for start in range(0, own.shape[1], quarter):
        mixed[:, start : start + quarter * share // 8] = other[:, start : start + quarter * share // 8]
    return mixed


def slow_losses(method, batch, people):
    """Every loss from its formula; pairs are those of `people`, sorted by brightness."""
    pictures = method.normalise(batch.images)
    visible, infrared = method.prototypes
    attribute_v, attribute_n = (lambda x, net=net: net(x).mean((2, 3)) for net in method.attributes)
    rows = {}
    for modality in (0, 1):
        ordered = sorted(range(12), key=lambda row: pictures[row].mean().item())
        own = [row for row in ordered if batch.modalities[row] == modality]
        rows[modality] = [row for person in people for row in own if batch.labels[row] == person]
        rows[modality + 2] = [row for row in own if row not in rows[modality]]
    a, b = pictures[rows[0]], pictures[rows[1]]
    every = [(batch.modalities == modality).nonzero()[:, 0] for modality in (0, 1)]
    codes = torch.zeros(12, method.width)  # those of a modality share a batch
    for own, find in zip(every, (attribute_v, attribute_n), strict=True):
        codes[own] = find(pictures[own])
    code_a, code_b = codes[rows[0]], codes[rows[1]]
    proto_a, proto_b = visible(a), infrared(b)
    draw = method.decoder
    style_a, style_b = swap(code_a, code_b, 4), swap(code_b, code_a, 4)
    again_a, again_b = draw(proto_a, style_a), draw(proto_b, style_b)
    x_ba, x_ab = draw(proto_b, style_a), draw(proto_a, style_b)
    far_ba, far_ab = draw(proto_b, swap(code_a, code_b, 6)), draw(proto_a, swap(code_b, code_a, 6))
    found_ba, found_ab = attribute_v(x_ba), attribute_n(x_ab)
    cycle_a = draw(infrared(x_ab), swap(found_ba, found_ab, 4))
    cycle_b = draw(visible(x_ba), swap(found_ab, found_ba, 4))
    d_v, d_n = method.discriminators

    half = method.width // 8
    is_style = (torch.arange(method.width) // half) % 2 == 0
    style, rest = (lambda code, mask=mask: code[:, mask] for mask in (is_style, ~is_style))
    expected = {
        "reconstruction": 50 * (apart(again_a, a) + apart(again_b, b)),
        "cross": 50 * (apart(x_ba, a) + apart(x_ab, b)),
        "cycle": 50 * (apart(cycle_a, a) + apart(cycle_b, b)),
        "codes": 10
        * (
            apart(rest(found_ba), rest(code_a))
            + apart(rest(found_ab), rest(code_b))
            + apart(style(found_ba), style(code_b))
            + apart(style(found_ab), style(code_a))
        ),
        "prior": rest(code_a).square().mean() + rest(code_b).square().mean(),
        "adversarial": 20
        * (judged(d_v(x_ba), 1) + judged(d_v(far_ba), 1) + judged(d_n(x_ab), 1) + judged(d_n(far_ab), 1)),
        "visible_discriminator": 20 * (2 * judged(d_v(a), 1) + judged(d_v(x_ba), 0) + judged(d_v(far_ba), 0)),
        "infrared_discriminator": 20 * (2 * judged(d_n(b), 1) + judged(d_n(x_ab), 0) + judged(d_n(far_ab), 0)),
    }
    penalty = 0.0
    for judge, real in ((d_v, a), (d_n, b)):
        for size in range(2):
            for picture in real:
                seen = picture[None].detach().requires_grad_()
                penalty += torch.autograd.grad(judge(seen)[size].sum(), seen)[0].square().sum() / len(real)
    expected["penalty"] = 0.01 * penalty

    shown_v, shown_n = torch.cat([a, x_ba, pictures[rows[2]]]), torch.cat([b, x_ab, pictures[rows[3]]])
    pooled = method.trunk(torch.cat([visible(shown_v), infrared(shown_n)])).mean((2, 3))
    styles = torch.cat([style(attribute_v(shown_v)), style(attribute_n(shown_n))])
    pairs, places = len(a), {}
    for name, start in (("a", 0), ("x_ba", pairs), ("b", len(shown_v)), ("x_ab", len(shown_v) + pairs)):
        places[name] = list(range(start, start + pairs))
    joined = [(row, row) for row in range(len(pooled))]
    for one, other in (("a", "x_ba"), ("x_ba", "a"), ("b", "x_ab"), ("x_ab", "b")):
        joined += list(zip(places[one], places[other], strict=True))
    vectors = torch.stack([
        torch.cat([0.5 * pooled[p] / pooled[p].norm(), 0.5 * styles[s] / styles[s].norm()]) for p, s in joined
    ])  # fmt: skip
    people_v, people_n = (
        torch.cat([batch.labels[rows[m]], batch.labels[rows[m]], batch.labels[rows[m + 2]]]) for m in (0, 1)
    )
    shown = torch.cat([people_v, people_n])
    labels = shown[[p for p, _ in joined]]
    recognised = method.head(vectors)
    expected["id"] = functional.cross_entropy(recognised.logits, labels)
    mixed = [range(len(shown) + 2 * pairs * m, len(shown) + 2 * pairs * (m + 1)) for m in (0, 1)]
    expected["triplet"] = sum(
        slow_triplet(recognised.compared[anchors], labels[anchors], recognised.compared, labels, 0.5)
        for anchors in (places["a"] + places["x_ba"] + [*mixed[0]], places["b"] + places["x_ab"] + [*mixed[1]])
    )
    return expected


def test_each_loss_is_that_of_its_formula():
    method, batch = build(pairs=2), make_batch()
    torch.manual_seed(1)
    people = torch.randperm(3)[:2].tolist()
    expected = slow_losses(method, batch, people)
    output, found = run(method, batch), {}
    for turn in turns_of(method):
        torch.manual_seed(1)
        found |= turn.losses(output, batch)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert value > 0, name
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


def test_who_is_a_pair_is_chance_and_not_the_order_of_the_batch():
    method, batch = build(pairs=1), make_batch()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(2))
    seen = set()
    with torch.no_grad():
        for seed in range(6):
            torch.manual_seed(seed)
            output = run(method, batch)
            rows = method._find_pairs(output, batch).rows
            assert len(rows[0]) == len(rows[1]) == 2
            seen |= set(batch.labels[torch.cat(rows)].tolist())
        assert seen == {0, 1, 2}
        losses = []
        for each in (batch, batch.select(order)):
            torch.manual_seed(0)
            losses.append(method.network_losses(run(method, each), each))
    for name, loss in losses[0].items():
        torch.testing.assert_close(loss, losses[1][name], rtol=1e-3, atol=1e-5)


def test_pictures_that_have_no_partner_are_further_ones():
    modalities = torch.tensor([0, 0, 0, 1, 1, 0, 1, 1, 1, 0, 1, 0])  # of the three people 3 + 1, 1 + 3 and 2 + 2
    method, batch = build(), make_batch(modalities=modalities)
    pairs = method._find_pairs(run(method, batch), batch)
    assert torch.equal(batch.labels[pairs.rows[0]], batch.labels[pairs.rows[1]])
    assert [len(rows) for rows in (*pairs.rows, *pairs.further)] == [6, 6, 0, 2]
    assert batch.labels[pairs.further[1]].tolist() == [1, 1]
    assert all(torch.isfinite(loss) for loss in method.losses(run(method, batch), batch).values())


def test_each_turn_s_losses_reach_what_it_trains_and_nothing_else():
    method, batch = build(), make_batch()
    groups = method.parameter_groups()
    assert {turn.name: turn.groups for turn in turns_of(method)} == {
        "discriminators": ("discriminators",),
        "network": NETWORK,
    }
    alone = {}
    for turn in turns_of(method):
        weights = [each for name in turn.groups for each in groups[name]]
        others = [each for name in groups if name not in turn.groups for each in groups[name]]
        total = sum(turn.losses(run(method, batch), batch).values())
        gradients = torch.autograd.grad(total, weights + others, allow_unused=True)
        alone |= dict(zip(weights, gradients, strict=False))
        leaks = [gradient for gradient in gradients[len(weights) :] if gradient is not None]
        assert bool(leaks) is (turn.name == "network"), "drawn pictures are judged; real ones learn nothing from it"
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    Stepper(method, turns_of(method), [], "fp32", None, scaler).step([batch], lambda *_: None, lambda losses: None)
    for weight, gradient in alone.items():
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-2, atol=1e-3)


def test_the_network_answers_the_discriminators_that_have_just_stepped():
    method, batch = build(), make_batch()
    section = load_recipe("hi_cmd_synth", ["optimiser.own.discriminators.lr=0.1"]).optimiser
    optimisers = build_optimisers(method, method.parameter_groups(), section, turns_of(method), fused=False)
    turns = [each.turn for each in optimisers]
    assert turns == ["discriminators", "network", "network", "network"]
    before = method.network_losses(run(method, batch), batch)["adversarial"].item()
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    stepper = Stepper(method, turns_of(method), optimisers, "fp32", None, scaler)
    told = stepper.step([batch], lambda *_: None, lambda losses: None)
    assert abs(told["adversarial"] - before) > 0.1 * before


def test_people_are_not_asked_of_the_decoder():
    method, batch = build(), make_batch()
    losses = method.network_losses(run(method, batch), batch)
    groups = method.parameter_groups()
    for name in ("id", "triplet"):
        decoder = torch.autograd.grad(
            losses[name], list(method.decoder.parameters()), allow_unused=True, retain_graph=True
        )
        assert set(decoder) == {None}
        for group in ("attributes", "backbone", "mixing"):
            gradients = torch.autograd.grad(losses[name], groups[group], allow_unused=True, retain_graph=True)
            assert any(gradient is not None and gradient.any() for gradient in gradients), group


def test_only_what_people_are_asked_of_loses_rectangles():
    batch, found = make_batch(), []
    for probability in (0.0, 1.0):
        method = build(erasing_probability=probability)
        with torch.no_grad():
            found.append(method.network_losses(run(method, batch), batch))
    changed = {name for name, loss in found[0].items() if not torch.equal(loss, found[1][name])}
    assert changed == {"id", "triplet"}
    method.eval()
    with torch.no_grad():
        first, second = (method.network_losses(run(method, batch), batch) for _ in range(2))
    assert first == second, "chance is for training alone"


@pytest.mark.parametrize(("value", "kept"), [(1.5, 1.0), (-0.25, 0.0), (0.75, 0.75)])
def test_the_share_of_the_prototype_stays_within_its_bounds(value, kept):
    method, batch = build(), make_batch()
    method.mixing.data.fill_(value)
    method.eval()
    with torch.no_grad():
        found = run(method, batch).logits
        assert method.mixing.item() == value, "a search changes nothing"
        run(method.train(), batch)
        assert method.mixing.item() == kept
        method.eval()
        for norm in (module for module in method.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.reset_running_stats()  # training moved them
        torch.testing.assert_close(run(method, batch).logits, found)


def test_the_second_encoders_begin_as_copies_and_learn_by_themselves(tmp_path, rng):
    method = build()
    for first, second in (method.attributes, method.prototypes):
        for one, other in zip(first.parameters(), second.parameters(), strict=True):
            assert torch.equal(one, other)
            assert one is not other
    torch.manual_seed(1)
    network, _ = build_backbone("test_resnet")
    safetensors.torch.save_file(network.state_dict(), tmp_path / "weights.safetensors")
    method.load_pretrained(str(tmp_path / "weights.safetensors"))
    method.eval()
    network.eval()
    pictures, maps = torch.randn(2, 3, 32, 16, generator=rng), torch.randn(2, 32, 8, 4, generator=rng)
    with torch.no_grad():
        for encoder in method.attributes:
            torch.testing.assert_close(encoder(pictures), network(pictures))
        torch.testing.assert_close(method.trunk(maps), network.layer3(network.layer2(maps)))


def test_a_picture_is_searched_with_what_the_encoders_of_its_modality_find(rng):
    method, batch = build().eval(), make_batch()
    with torch.no_grad():
        for part in (method.attributes[1], method.prototypes[1]):
            for weights in part.parameters():
                weights.add_(0.1 * torch.randn(weights.shape, generator=rng))
        found = method.embed(batch.images, batch.modalities, batch.camids)
        for row in (0, 1, 2, 3):
            modality = batch.modalities[row]
            seen = method.normalise(batch.images[row : row + 1])
            pooled = method.trunk(method.prototypes[modality](seen)).mean((2, 3))
            style, _ = split_code(method.attributes[modality](seen).mean((2, 3)))
            joined = torch.cat([0.5 * functional.normalize(pooled), 0.5 * functional.normalize(style)], 1)
            expected = functional.normalize(method.head(joined).embedding)[0]
            torch.testing.assert_close(found[row], expected, rtol=1e-3, atol=1e-5)
        assert not torch.allclose(found, method.embed(batch.images, 1 - batch.modalities, batch.camids), atol=1e-3)


def test_in_training_mode_only_the_losses_classify():
    method, batch = build(), make_batch()
    with pytest.raises(TrainingError, match=r"hi_cmd: in training mode .* call eval\(\)"):
        run(method, batch).logits  # noqa: B018
    method.eval()
    with torch.no_grad():
        together, rows = run(method, batch).logits, batch.modalities == 1
        torch.testing.assert_close(run(method, batch.select(rows)).logits, together[rows], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("labels", "modalities", "message"),
    [
        (torch.zeros(12, dtype=torch.int64), None, "hi_cmd: the batch shows one identity only"),
        (None, torch.arange(12) // 4 % 2, "hi_cmd: 3 of 3 people of the batch are there in one modality only"),
        (None, torch.zeros(12, dtype=torch.int64), "hi_cmd: 3 of 3 people of the batch are there in one modality only"),
    ],
)
def test_a_batch_without_pairs_or_negatives_is_refused(labels, modalities, message):
    method, batch = build(), make_batch(labels, modalities)
    output = run(method, batch)
    for turn in turns_of(method):
        with pytest.raises(TrainingError, match=message):
            turn.losses(output, batch)


@pytest.mark.parametrize(
    ("size", "options", "message"),
    [
        ((34, 16), {}, r"data.size \[34, 16\]: a decoder of hi_cmd needs sides that 4 divides"),
        ((32, 16), {"dilations": (1, 2, 4)}, r"method.dilations \[1, 2, 4\] reach beyond .* write less than 4"),
        ((32, 16), {"discriminator_scales": 3}, "method.discriminator_scales 3 leave nothing of pictures of 16 pixels"),
        ((32, 16), {"backbone": "densenet121"}, "backbone densenet121: has no separate stem and four stages"),
    ],
)
def test_options_that_do_not_go_together_are_refused(size, options, message):
    with pytest.raises(RecipeError, match=message):
        build(size, **options)


def test_the_training_s_numbers_are_those_of_the_description():
    for data, thousands in (("sysu", 200), ("regdb", 100), ("llcm", 200)):
        recipe = load_recipe(f"hi_cmd_{data}")
        assert recipe.data.size == (256, 128)
        assert [each["name"] for each in recipe.augment] == ["flip"]
        assert (recipe.sampler.options["ids"], recipe.sampler.options["pictures"]) == (4, 1)
        assert (recipe.sampler.options["steps"], recipe.schedule.epochs) == (1000, thousands)
        drop = thousands // 4
        rates = [compute_lr_factor(recipe.schedule, epoch) for epoch in (0, drop - 1, drop, 2 * drop, 4 * drop - 1)]
        assert rates == [1, 1, 0.5, 0.25, 0.125]
        optimiser = recipe.optimiser
        assert (optimiser.name, optimiser.lr, optimiser.nesterov, optimiser.weight_decay) == ("sgd", 1e-3, True, 1e-4)
        assert optimiser.group_lr == {"mixing": 1e-5}
        for name in ("attributes", "generators", "discriminators"):
            own = optimiser.own[name]
            assert (own.name, own.lr, own.betas, own.weight_decay) == ("adam", 1e-4, (0.5, 0.999), 1e-4)
        assert recipe.method.options == {}
        assert not recipe.evaluation.mirror
