"""DDAG: part attention and graph against golden arrays and slow loops, the graph's weight, and the whole network."""

import copy
import dataclasses
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from golden_networks import Whole, read_whole, take_step, watch
from tapetum.core.errors import CheckpointError, TrainingError
from tapetum.core.types import Batch, Modality
from tapetum.core.vectors import normalise
from tapetum.losses.triplet import batch_hard_triplet
from tapetum.methods import build_method, build_options, convert_from, convert_to, small_options
from tapetum.methods.ddag import GraphAttention, PartAttention, attend
from tapetum.runs.recipe import load_recipe
from tapetum.training.optimisation import build_optimisers, compute_lr_factor
from tapetum.training.stepping import Stepper, turns_of

LAYOUT = "ddag-official"
NUM_IDS = 3


def make_batch() -> Batch:
    labels = torch.tensor([2, 0, 1, 0, 2, 1, 0, 1])
    images = torch.rand(8, 3, 64, 32, generator=torch.Generator().manual_seed(3))
    return Batch(images, labels, labels, labels, torch.tensor([0, 1, 0, 0, 1, 1, 1, 0]), torch.arange(8))


def small(**options: object) -> torch.nn.Module:
    torch.manual_seed(1)
    return build_method("ddag", small_options("ddag") | options, NUM_IDS)


def run(method: torch.nn.Module, batch: Batch):
    return method(batch.images, batch.modalities, batch.camids)


# The part attention


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_part_attention_equals_the_original(golden, assert_matches, mode):
    case = golden("ddag", f"ddag_part_attention_{mode}")
    parts = PartAttention(16, 3).train(mode == "train")
    names = {"fc1.0": "query", "fc2": "key", "fc3": "value", "bottleneck": "norm", "gate": "gate"}
    ours = {name: next(name.replace(a, b, 1) for a, b in names.items() if name.startswith(a)) for name in case.param}
    parts.load_state_dict({ours[name]: value for name, value in case.param.items()})
    maps, embedding = case.leaves("x", "feat")
    attended = parts(maps, embedding)
    (attended * case.inputs["probe_y"]).sum().backward()
    assert_matches(attended, case.out["y"], 2e-4)
    assert_matches(maps.grad, case.grad["x"], 1e-3)
    assert_matches(embedding.grad, case.grad["feat"], 1e-3)
    gradients = dict(parts.named_parameters())
    largest = max(float(value.abs().max()) for name, value in case.grad.items() if name.startswith("param."))
    for name, expected in case.grad.items():
        if name.startswith("param."):
            found = gradients[ours[name.removeprefix("param.")]].grad
            # Those of fc2's and fc3's biases are zero but for rounding.
            assert (found - expected).abs().max() <= 1e-3 * max(float(expected.abs().max()), 1e-3 * largest), name
    if mode == "train":
        for statistic in ("running_mean", "running_var"):
            assert_matches(getattr(parts.norm, statistic), case.out[f"after.bottleneck.{statistic}"], 2e-4)


@pytest.mark.parametrize("count", [1, 3, 4])
def test_the_part_attention_equals_a_slow_loop_over_pictures_and_parts(rng, count):
    torch.manual_seed(2)
    parts = PartAttention(5, count).double().eval()
    parts.gate.data.copy_(torch.randn(count, generator=rng))
    maps = torch.randn(2, 5, 7, 3, generator=rng, dtype=torch.float64)
    embedding = torch.randn(2, 5, generator=rng, dtype=torch.float64)

    def project(layer: torch.nn.Conv2d, vector: Tensor) -> Tensor:
        return layer.weight[:, :, 0, 0] @ vector + layer.bias

    expected = embedding.clone()
    for i in range(2):
        stripes = [
            maps[i, :, 7 * p // count : -(-7 * (p + 1) // count)].mean((1, 2)) for p in range(count)
        ]  # neighbours share a row where the height is not divisible
        gate = parts.gate.softmax(0)
        for p in range(count):
            scores = [project(parts.query, stripes[p]) @ project(parts.key, stripes[q]) for q in range(count)]
            weights = torch.stack(scores).softmax(0)
            for q in range(count):
                expected[i] += gate[p] * weights[q] * project(parts.value, stripes[q])
    norm = parts.norm
    expected = (expected - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight
    torch.testing.assert_close(parts(maps, embedding), expected, rtol=1e-10, atol=1e-12)


# The graph


@pytest.mark.parametrize("name", ["elu", "linear"])
def test_an_attention_over_the_graph_equals_the_original(golden, assert_matches, name):
    case = golden("ddag", f"ddag_graph_attention_{name}")
    (nodes,) = case.leaves("x")
    weights, scores = (case.param[key].clone().requires_grad_() for key in ("W", "a"))
    heard = attend(nodes, weights[None], scores.T, case.inputs["adj"] > 0)[0]
    found = functional.elu(heard) if name == "elu" else heard
    (found * case.inputs["probe_y"]).sum().backward()
    assert_matches(found, case.out["y"], 2e-4)
    assert_matches(nodes.grad, case.grad["x"], 1e-3)
    assert_matches(weights.grad, case.grad["param.W"], 1e-3)
    assert_matches(scores.grad, case.grad["param.a"], 1e-3)


def slow_graph(graph: GraphAttention, features: Tensor, labels: list[int]) -> Tensor:
    def listen(nodes: list[Tensor], head: torch.nn.Module) -> list[Tensor]:
        hidden, heard = [node @ head.weight for node in nodes], []
        for i, label in enumerate(labels):
            mine = [j for j, other in enumerate(labels) if other == label]
            scores = [torch.cat([hidden[i], hidden[j]]) @ head.score[:, 0] for j in mine]
            weights = torch.stack([score if score > 0 else 0.2 * score for score in scores]).softmax(0)
            heard.append(sum(weight * hidden[j] for weight, j in zip(weights, mine, strict=True)))
        return [torch.where(value > 0, value, value.exp() - 1) for value in heard]

    heads = [listen(list(features), head) for head in graph.heads]
    nodes = [torch.cat(parts) for parts in zip(*heads, strict=True)]
    return torch.stack(listen(nodes, graph.out[0])).log_softmax(1)


def test_the_graph_equals_a_slow_loop_over_pictures_and_neighbours(rng):
    torch.manual_seed(4)
    graph = GraphAttention(6, 4, heads=3, hidden=5, dropout=0.4).double().eval()
    features = torch.randn(7, 6, generator=rng, dtype=torch.float64)
    labels = torch.tensor([1, 3, 1, 0, 1, 3, 1])  # one of them has nobody but itself
    found = graph(features, labels)
    torch.testing.assert_close(found, slow_graph(graph, features, labels.tolist()), rtol=1e-10, atol=1e-12)
    order = torch.randperm(7, generator=rng)
    torch.testing.assert_close(graph(features[order], labels[order]), found[order], rtol=1e-10, atol=1e-12)


def test_in_training_a_share_of_features_and_attention_is_left_out(rng):
    torch.manual_seed(4)
    graph = GraphAttention(6, 4, heads=3, hidden=5, dropout=0.4)
    features, labels = torch.randn(7, 6, generator=rng), torch.tensor([1, 3, 1, 0, 1, 3, 1])
    assert not torch.equal(graph.train()(features, labels), graph(features, labels))
    assert torch.equal(graph.eval()(features, labels), graph(features, labels))


def test_a_batch_of_one_identity_is_refused_and_one_of_one_modality_is_not():
    method, batch = small(triplet_weight=0.0).train(), make_batch()
    alone = dataclasses.replace(batch, labels=torch.zeros_like(batch.labels))
    with pytest.raises(TrainingError, match=r"ddag: the batch shows one identity only, .* method\.graph_weight to 0$"):
        method.losses(run(method, alone), alone)
    ungraphed = small(triplet_weight=0.0, graph_weight=0.0).train()
    assert ungraphed.losses(run(ungraphed, alone), alone).keys() == {"id", "part"}
    visible = batch.select(batch.modalities == Modality.VISIBLE)
    assert torch.stack(list(method.losses(run(method, visible), visible).values())).isfinite().all()


# The weight of the graph's term


@dataclasses.dataclass
class Start:
    """The beginning of an epoch, of which DDAG asks for the losses alone."""

    losses: dict[str, float]
    epoch: int = 1


@pytest.mark.parametrize(("fixed", "first", "later"), [(None, 0.0, 1 / (1 + 2.0 + 0.5 + 1.5)), (0.15, 0.15, 0.15)])
def test_the_graph_counts_the_more_the_smaller_the_other_losses_were_in_the_epoch_before(fixed, first, later):
    method, batch = small(graph_weight=fixed).train(), make_batch()
    output = run(method, batch)
    plain = -slow_graph(method.graph, output.feature, batch.labels.tolist()).gather(1, batch.labels[:, None]).mean()
    method.begin_epoch(Start({}, epoch=0))
    assert method.losses(output, batch)["graph"].item() == pytest.approx(first * plain.item(), rel=1e-5)
    method.begin_epoch(Start({"id": 2.0, "triplet": 0.5, "part": 1.5, "graph": 9.0}))
    assert method.losses(output, batch)["graph"].item() == pytest.approx(later * plain.item(), rel=1e-5)
    assert "graph_weight" not in method.state_dict()  # it belongs to a training


def test_each_other_loss_is_that_of_its_formula():
    method, batch = small(triplet_weight=0.7, part_weight=0.4, label_smoothing=0.1).train(), make_batch()
    output = run(method, batch)
    losses = method.losses(output, batch)
    assert losses.keys() == {"id", "triplet", "part", "graph"}
    for name, embedding, weight in (("id", output.embedding, 1.0), ("part", output.attended, 0.4)):
        scores = (embedding @ method.head.classifier.weight.T).log_softmax(1)  # one classifier for both
        target = 0.9 * functional.one_hot(batch.labels, NUM_IDS) + 0.1 / NUM_IDS
        torch.testing.assert_close(losses[name], -weight * (target * scores).sum(1).mean())
    torch.testing.assert_close(losses["triplet"], 0.7 * batch_hard_triplet(output.feature, batch.labels))


@pytest.mark.parametrize(("which", "width"), [("part", 96), ("head", 96), ("backbone", 96), ("both", 2 * 96)])
def test_each_test_feature_is_the_vector_of_its_place(which, width):
    method, batch = small(test_feature=which).eval(), make_batch()
    with torch.no_grad():
        output = run(method, batch)
        vectors = method.embed(batch.images, batch.modalities, batch.camids)
    places = {"part": output.attended, "head": output.embedding, "backbone": output.feature}
    assert vectors.shape == (8, width)
    if which != "both":
        torch.testing.assert_close(vectors, normalise(places[which]))


def test_a_training_step_in_bf16_and_channels_last_moves_every_group():
    method = small().train().to(memory_format=torch.channels_last)
    batch = make_batch()
    batch = dataclasses.replace(batch, images=batch.images.contiguous(memory_format=torch.channels_last))
    method.begin_epoch(Start({"id": 1.0}))
    groups = method.parameter_groups()
    optimisers = build_optimisers(method, groups, load_recipe("ddag_sysu").optimiser, turns_of(method))
    before = {name: weights.detach().clone() for name, weights in method.named_parameters()}
    stepper = Stepper(method, turns_of(method), optimisers, "bf16", None, torch.amp.GradScaler("cpu", enabled=False))
    told = stepper.step([batch], lambda phase, part: None, lambda losses: None)
    assert all(math.isfinite(value) for value in told.values())
    moved = {name for name, weights in method.named_parameters() if not torch.equal(weights, before[name])}
    for part in (
        "network.stems.0.",
        "network.stems.1.",
        "network.stages.3.",
        "head.",
        "parts.",
        "graph.heads.",
        "graph.out.",
    ):
        assert any(name.startswith(part) for name in moved), part


# The whole network


@pytest.fixture(scope="module")
def whole() -> Whole:
    return read_whole("ddag", LAYOUT, used_only=True)


@pytest.mark.slow
def test_a_released_checkpoint_comes_in_and_goes_out_with_equal_tensors(whole):
    found = convert_from(LAYOUT, whole.released)  # without what is never used
    assert (found.method, found.num_ids) == ("ddag", 395)
    written = convert_to(LAYOUT, found.options, found.state)
    assert {name: tuple(value.shape) for name, value in written.items()} == whole.case.shapes
    assert all(torch.equal(written[name], value) for name, value in whole.released.items())
    assert not any(written[name].any() for name in written.keys() - whole.released.keys())
    for broken, message in (
        (written | {"wpa.fc4.weight": torch.zeros(1)}, r"ddag-official checkpoint: 1 unknown tensor\(s\)"),
        ({n: v for n, v in written.items() if n != "out_att.a"}, r"1 missing tensor\(s\), first 'out_att\.a'"),
        (written | {"DEE.FC1.weight": torch.zeros(1)}, r"1 unknown tensor\(s\), first 'DEE\.FC1\.weight'"),
    ):
        with pytest.raises(CheckpointError, match=message):
            convert_from(LAYOUT, broken)
    with pytest.raises(
        CheckpointError, match=r"caj-official.*\(this file has the layout ddag-official; give --from that"
    ):
        convert_from("caj-official", written)
    with pytest.raises(CheckpointError, match=r"method\.pooling: 'gem' has no place in the released layout"):
        convert_to(LAYOUT, found.options | {"pooling": "gem"}, found.state)


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
    whole.near(f"eval/{side}.layer4.mean", output.feature)
    whole.near(f"eval/{side}_bn", normalise(output.embedding))
    whole.near(f"eval/{side}_embedding", normalise(output.attended))
    assert method.options.test_feature == "part"


@pytest.mark.slow
def test_a_training_step_is_the_releases(whole):
    """Losses, gradients, running statistics and rates, from a batch in another order than the release's."""
    method = copy.deepcopy(whole.method).train()
    method.graph.dropout = 0.0
    method.graph_weight.fill_(0.15)
    theirs = whole.batch()
    order = torch.randperm(len(theirs), generator=torch.Generator().manual_seed(0))
    batch = theirs.select(order)
    output = run(method, batch)
    losses = method.losses(output, batch)
    assert losses.keys() == {"id", "triplet", "part", "graph"}
    total = torch.stack(list(losses.values())).sum()
    whole.near("train/extra.graph_log_probability", method.graph(output.feature, batch.labels), order)
    step = take_step(method, total, load_recipe("ddag_sysu"), epoch=1.0)
    for name, value in (losses | {"total": total}).items():
        whole.near(f"train/loss.{name}", value)
    whole.check_weights("grad", step.gradients)
    whole.check_rates(step.rates)
    whole.check_statistics(method, unused=106)


def test_the_recipes_numbers_are_those_of_the_fact_sheet():
    rates = {0: 0.1, 4: 0.5, 9: 1.0, 19: 1.0, 20: 0.1, 49: 0.1, 50: 0.01, 80: 0.01}
    for data in ("sysu", "regdb", "llcm"):
        recipe = load_recipe(f"ddag_{data}")
        assert recipe.data.size == (288, 144)
        assert [entry["name"] for entry in recipe.augment] == ["pad_crop", "flip"]  # nothing is erased
        assert (recipe.sampler.options["ids"], recipe.sampler.options["pictures"]) == (8, 4)
        assert (recipe.optimiser.lr, recipe.optimiser.group_lr) == (0.1, {"backbone": 0.01})
        assert (recipe.schedule.epochs, recipe.evaluation.mirror) == (81, False)
        for epoch, rate in rates.items():
            assert math.isclose(compute_lr_factor(recipe.schedule, epoch), rate), epoch
    options = build_options("ddag")
    assert (options.parts, options.graph_heads, options.graph_width, options.graph_dropout) == (3, 4, 512, 0.2)
    assert (options.pooling, options.triplet_margin, options.graph_weight) == ("average", 0.3, None)
