"""MCLNet: its network is AGW's, its losses are slow loops' from the formulas, and two plain optimisers step alike."""

import copy
import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.errors import CheckpointError, RecipeError, TrainingError
from tapetum.core.types import Batch
from tapetum.layers.bnneck import BNNeck
from tapetum.losses.weighted_triplet import weighted_triplet
from tapetum.methods import build_method, convert_from, convert_to, mclnet, small_options
from tapetum.methods.mclnet import aggregate_marginally
from tapetum.runs.recipe import load_recipe
from tapetum.runs.sources import augment_options
from tapetum.training.optimisation import build_optimisers, compute_lr_factor
from tapetum.training.stepping import Stepper, phases_of, turns_of

NUM_IDS, CAMIDS = 3, (2, 5, 7)
# Of a size at which all terms of the small network's losses count.
NEAR = {"id_centre_weight": 0.01, "camera_centre_weight": 0.02, "centre_margin": 0.5, "centre_separation": 300.0}


def build(camids: tuple[int, ...] = CAMIDS, **options: object) -> nn.Module:
    torch.manual_seed(3)
    return build_method("mclnet", small_options("mclnet") | options, NUM_IDS, camids=camids).train()


def make_batch(seed: int = 5) -> Batch:
    """Of each person two visible and two infrared pictures, in no order; a camera sees one modality, but for one."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(12, generator=generator)
    labels, modalities = torch.arange(12) // 4, torch.arange(12) % 2
    camids = torch.tensor(CAMIDS)[torch.tensor([0, 1, 2, 1] * 3)]
    images = functional.interpolate(torch.rand(12, 3, 8, 4, generator=generator), scale_factor=8)
    return Batch(images, labels, labels + 40, camids, modalities).select(order)


def run(method: nn.Module, batch: Batch):
    return method(batch.images, batch.modalities, batch.camids)


def square_length(values: Tensor) -> Tensor:
    return values.square().sum()


def slow_aggregation(x: Tensor, y: Tensor, c: Tensor, *, sigma: float, rho: float, weight: float | None) -> Tensor:
    """From the formula, one picture and one class after the other."""
    count, classes = len(x), sorted(set(y.tolist()))
    pull = sum(square_length(x[i] - c[y[i]]) for i in range(count)) / count
    near = torch.zeros((), dtype=x.dtype)
    for k in classes:
        members = [i for i in range(count) if y[i] == k]
        near = near + (weight or len(members)) * min(square_length(x[i] - c[k]) for i in members) / count
    apart = [min(square_length(c[y[i]] - c[j]) for j in range(len(c)) if j != y[i]) for i in range(count)]
    return (pull - near - sigma).clamp(min=0) + (rho - sum(apart) / count).clamp(min=0)


@pytest.mark.parametrize(
    ("classes", "weight"),
    [
        ([0, 0, 0, 0, 2, 2, 2, 2], 4.0),  # people: 2 K of each
        ([0, 0, 0, 0, 2, 2, 2, 2], 3.0),
        ([1, 0, 1, 1, 0, 1, 3, 1], None),  # cameras: as many as there are
    ],
)
@pytest.mark.parametrize(("sigma", "rho"), [(0.5, 200.0), (1e4, 200.0), (0.5, 1.0), (0.5, 18.0)])
def test_aggregation_is_the_slow_loop_s_with_the_same_gradients(classes, weight, sigma, rho):
    generator = torch.Generator().manual_seed(1)
    y = torch.tensor(classes)
    x, c = (torch.randn(n, 16, generator=generator, dtype=torch.float64).requires_grad_() for n in (8, 5))
    found = aggregate_marginally(x, y, c, margin=sigma, separation=rho, nearest_weight=weight)
    expected = slow_aggregation(x, y, c, sigma=sigma, rho=rho, weight=weight)
    assert (found > 0) == (sigma < 100 or rho > 100)
    torch.testing.assert_close(found, expected)
    for leaf in (x, c):
        ours, theirs = (torch.autograd.grad(loss, leaf, retain_graph=True)[0] for loss in (found, expected))
        torch.testing.assert_close(ours, theirs)


def test_at_the_release_s_batch_counting_pictures_is_its_weight_of_eight():
    generator = torch.Generator().manual_seed(2)
    x, c = torch.randn(64, 32, generator=generator), torch.randn(20, 32, generator=generator)
    y = (torch.arange(64) // 8 * 2)[torch.randperm(64, generator=generator)]
    counted = aggregate_marginally(x, y, c, margin=8.0, separation=4500.0)
    torch.testing.assert_close(
        counted, aggregate_marginally(x, y, c, margin=8.0, separation=4500.0, nearest_weight=8.0)
    )
    assert counted != aggregate_marginally(x, y, c, margin=8.0, separation=4500.0, nearest_weight=7.0)


def test_a_single_centre_has_no_other_to_keep_away_from():
    x, c = torch.tensor([[0.0, 3.0], [1.0, 0.0]]), torch.zeros(1, 2)
    found = aggregate_marginally(x, torch.zeros(2, dtype=torch.int64), c, margin=0.5, separation=4500.0)
    torch.testing.assert_close(found, torch.tensor((9 + 1) / 2 - 1 - 0.5))


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_pooling_and_neck_equal_agw_s_golden_values(golden, assert_matches, monkeypatch, mode):
    case = golden("modules_other", f"agw_vi_neck_{mode}")
    method = build()
    method.head = BNNeck(10, 4)
    method.head.load_state_dict({name.replace("bottleneck", "norm"): value for name, value in case.param.items()})
    maps = torch.cat([case.inputs["visible"], case.inputs["infrared"]])
    monkeypatch.setattr(method, "compute_maps", lambda images, modalities: maps)
    batch = make_batch().select(torch.arange(6))
    if mode == "train":
        output = run(method, batch)
        assert_matches(output.feature, case.out["pooled"], 2e-4)
        assert_matches(output.logits, case.out["logits"], 2e-4)
    for feature, name in (("backbone", "pooled_l2"), ("head", "bn_l2")):
        if mode == "eval":
            method.options = dataclasses.replace(method.options, test_feature=feature)
            found = method.eval().embed(batch.images, batch.modalities, batch.camids)
            assert_matches(found, case.out[name], 2e-4)


def test_without_training_cameras_it_is_agw_s_network_which_embeds_and_does_not_train():
    ours, agw = build(camids=()), build_method("agw_vi", small_options("agw_vi"), NUM_IDS)
    agw.load_state_dict(ours.state_dict())  # strict: the same tensors
    batch = make_batch()
    found, expected = (
        method.eval().embed(batch.images, batch.modalities, batch.camids, mirror=True) for method in (ours, agw)
    )
    assert torch.equal(found, expected)
    with pytest.raises(TrainingError, match=r"mclnet: this network was built without training cameras, .* only embeds"):
        ours.losses(run(ours.train(), batch), batch)


def test_each_loss_is_that_of_its_formula():
    method, batch = build(**NEAR), make_batch()
    output = run(method, batch)
    found = method.losses(output, batch)
    confuser = method.confuser
    hidden = output.feature @ confuser.reduce.weight.T + confuser.reduce.bias
    scores = hidden @ confuser.score.weight.T + confuser.score.bias
    scores = (scores - scores.mean(0)) / (scores.var(0, unbiased=False) + 1e-5).sqrt()
    logarithms = (scores * confuser.norm.weight + confuser.norm.bias).log_softmax(1)
    truth = [logarithms[i, m] for i, m in enumerate(batch.modalities.tolist())]
    places = torch.tensor([CAMIDS.index(camid) for camid in batch.camids.tolist()])
    aggregations = {
        name: slow_aggregation(
            output.embedding, classes, method.centres[name].points, sigma=0.5, rho=300.0, weight=weight
        )
        for name, classes, weight in (("id", batch.labels, 4.0), ("camera", places, None))
    }
    expected = {
        "modality": -sum(truth) / 12,
        "id": functional.cross_entropy(output.logits, batch.labels),
        "triplet": weighted_triplet(output.feature, batch.labels),
        "confusion": -(0.5 * logarithms).sum(1).mean(),
        "id_centres": 0.01 * aggregations["id"],
        "camera_centres": 0.02 * aggregations["camera"],
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert value > 0, name
        torch.testing.assert_close(found[name], value, msg=name)


def test_neither_turn_s_losses_reach_what_the_other_trains():
    method, batch = build(centres="learned", **NEAR), make_batch()
    output = run(method, batch)
    before = copy.deepcopy(method.confuser.state_dict())
    network = sum(method.network_losses(output, batch).values())
    assert all(torch.equal(value, before[name]) for name, value in method.confuser.state_dict().items())
    groups = method.parameter_groups()
    reached = torch.autograd.grad(network, groups["confuser"], allow_unused=True, retain_graph=True)
    assert set(reached) == {None}
    others = [weights for name, members in groups.items() if name != "confuser" for weights in members]
    assert None not in torch.autograd.grad(network, others, allow_unused=True, retain_graph=True)
    confuser = sum(method.confuser_losses(output, batch).values())
    assert set(torch.autograd.grad(confuser, others, allow_unused=True, retain_graph=True)) == {None}
    assert None not in torch.autograd.grad(confuser, groups["confuser"])
    assert method.confuser.norm.num_batches_tracked == 1  # one look at the batch, as in the release


@pytest.mark.parametrize("centres", ["fixed", "learned"])
def test_steps_of_both_turns_are_those_of_two_plain_optimisers(centres):
    method = build(centres=centres, **NEAR)
    plain = copy.deepcopy(method)
    section = load_recipe("mclnet_sysu").optimiser
    optimisers = build_optimisers(method, method.parameter_groups(), section, turns_of(method))
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    stepper = Stepper(method, turns_of(method), optimisers, "fp32", None, scaler)

    sgd = {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
    confuser = list(plain.confuser.parameters())
    head = [plain.head.norm.weight, plain.head.classifier.weight]
    points = [plain.centres[name].points for name in ("id", "camera")] if centres == "learned" else []
    apart = {id(weights) for weights in (*confuser, *head, *points, plain.head.norm.bias)}
    backbone = [weights for weights in plain.parameters() if id(weights) not in apart]
    theirs = torch.optim.SGD(confuser, lr=0.1, **sgd)
    others = torch.optim.SGD([{"params": backbone, "lr": 0.01}, {"params": head + points, "lr": 0.1}], **sgd)
    for seed in (1, 2):
        batch = make_batch(seed)
        told = stepper.step([batch], lambda phase, part: None, lambda losses: None)
        output = run(plain, batch)
        scores = plain.confuser(output.feature)  # once, for both
        judged = functional.cross_entropy(scores, functional.one_hot(batch.modalities, 2).float())
        places = torch.tensor([CAMIDS.index(camid) for camid in batch.camids.tolist()])
        terms = {
            "id": functional.cross_entropy(output.logits, batch.labels),
            "triplet": weighted_triplet(output.feature, batch.labels),
            "confusion": functional.cross_entropy(scores, torch.full((12, 2), 0.5)),
        }
        for name, classes, weight, share in (("id", batch.labels, 4.0, 0.01), ("camera", places, None, 0.02)):
            loss = slow_aggregation(
                output.embedding, classes, plain.centres[name].points, sigma=0.5, rho=300.0, weight=weight
            )
            terms[f"{name}_centres"] = share * loss
        gradients = torch.autograd.grad(judged, confuser, retain_graph=True)
        for weights, gradient in zip(confuser, gradients, strict=True):
            weights.grad = gradient
        moved = [*backbone, *head, *points]
        for weights, gradient in zip(moved, torch.autograd.grad(sum(terms.values()), moved), strict=True):
            weights.grad = gradient
        theirs.step()
        others.step()
        for name, value in (terms | {"modality": judged}).items():
            assert told[name] == pytest.approx(float(value.detach()), rel=1e-4), (seed, name)
    expected, before = plain.state_dict(), build(centres=centres, **NEAR).state_dict()
    for name, value in method.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")
    moved = {name: float((value - before[name]).abs().max()) for name, value in method.state_dict().items()}
    assert all(
        moved[name] > 1e-3 for name in ("network.stems.0.0.0.weight", "head.classifier.weight", "confuser.score.weight")
    )
    assert (moved["centres.id.points"] > 1e-3) == (moved["centres.camera.points"] > 1e-3) == (centres == "learned")


@pytest.mark.parametrize(("turn", "phases"), [("shared", 1), ("first", 2)])
def test_the_network_answers_the_confuser_as_it_was_or_as_it_has_become(turn, phases):
    method, batch = build(confuser_turn=turn), make_batch()
    assert len(phases_of(turns_of(method))) == phases
    section = load_recipe("mclnet_sysu").optimiser
    optimisers = build_optimisers(method, method.parameter_groups(), section, turns_of(method))
    plain = copy.deepcopy(method)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    stepper = Stepper(method, turns_of(method), optimisers, "fp32", None, scaler)
    told = stepper.step([batch], lambda phase, part: None, lambda losses: None)
    output = run(plain, batch)
    as_it_was = plain.network_losses(output, batch)["confusion"].item()
    plain.confuser_losses(output, batch)["modality"].backward()
    confuser = plain.confuser.parameters()
    torch.optim.SGD(confuser, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4).step()
    as_it_is = plain.network_losses(output, batch)["confusion"].item()
    assert as_it_was != pytest.approx(as_it_is, rel=1e-3)
    assert told["confusion"] == pytest.approx(as_it_was if turn == "shared" else as_it_is, rel=1e-5)


def test_cameras_count_by_their_place_whatever_the_data_set_calls_them():
    method, renamed = build(**NEAR), build(camids=(0, 1, 2), **NEAR)
    batch = make_batch()
    others = torch.tensor([CAMIDS.index(camid) for camid in batch.camids.tolist()])
    losses = method.losses(run(method, batch), batch)
    again = renamed.losses(run(renamed, batch), dataclasses.replace(batch, camids=others))
    assert all(torch.equal(losses[name], again[name]) for name in losses)
    with pytest.raises(TrainingError, match="mclnet: camera 9 has no centre, the network was built for 2, 5, 7"):
        method.losses(run(method, batch), dataclasses.replace(batch, camids=torch.full_like(batch.camids, 9)))


def test_fixed_centres_are_no_weights_and_learned_ones_a_group_of_their_own():
    assert "centres" not in build().parameter_groups()
    learned = build(centres="learned")
    assert [points.shape[0] for points in learned.parameter_groups()["centres"]] == [NUM_IDS, len(CAMIDS)]
    assert build().state_dict().keys() == learned.state_dict().keys()
    own = {"centres": {"name": "sgd", "lr": 0.5, "momentum": 0, "weight_decay": 0}}
    overrides = ["method.centres=learned", f"optimiser.own.centres={own['centres']}"]
    recipe = load_recipe("mclnet_sysu", overrides)
    optimisers = build_optimisers(learned, learned.parameter_groups(), recipe.optimiser, turns_of(learned))
    found = {group["name"]: (each.turn, group["lr"]) for each in optimisers for group in each.inner.param_groups}
    assert found.pop("confuser") == ("confuser", 0.1)
    assert found == {"backbone": ("network", 0.01), "head": ("network", 0.1), "centres": ("network", 0.5)}


@pytest.mark.slow
def test_a_checkpoint_of_the_release_is_agw_s_and_goes_both_ways():
    with torch.device("meta"):
        agw = build_method("agw_vi", {}, NUM_IDS).state_dict()
    numbered = {name: torch.full(value.shape, n, dtype=value.dtype) for n, (name, value) in enumerate(agw.items(), 1)}
    theirs = convert_to("agw-vi-official", {}, numbered)
    found = convert_from("mclnet-official", theirs)
    assert (found.method, found.num_ids) == ("mclnet", NUM_IDS)
    with torch.device("meta"):
        bare, trained = (build_method("mclnet", found.options, NUM_IDS, camids=c).state_dict() for c in ((), CAMIDS))
    assert {name: value.shape for name, value in found.state.items()} == {n: v.shape for n, v in bare.items()}
    beside = {name: torch.ones(value.shape) for name, value in trained.items() if name not in bare}
    assert all(name.startswith(("confuser.", "centres.")) for name in beside)
    assert len(beside) == 9 + 2
    again = convert_to("mclnet-official", found.options, found.state | beside)
    assert again.keys() == theirs.keys()
    assert all(torch.equal(again[name], value) for name, value in theirs.items())
    with pytest.raises(CheckpointError, match=r"mclnet-official checkpoint: 1 unknown tensor\(s\), first 'D.weight'"):
        convert_from("mclnet-official", theirs | {"D.weight": torch.zeros(2)})
    with pytest.raises(CheckpointError), torch.device("meta"):
        convert_to("mclnet-official", {}, build_method("mclnet", {"backbone": "resnet18"}, NUM_IDS).state_dict())


def test_the_recipes_numbers_are_those_of_the_fact_sheet():
    rates = {0: 0.1, 4: 0.5, 9: 1.0, 19: 1.0, 20: 0.1, 49: 0.1, 50: 0.01, 200: 0.01}
    for data in ("sysu", "regdb", "llcm"):
        recipe = load_recipe(f"mclnet_{data}")
        assert mclnet.Options() == mclnet.Options(**recipe.method.options)
        assert recipe.data.size == (288, 144)
        crop, flip, erasing = augment_options(recipe)
        assert (crop.name, crop.options.pad, flip.name, flip.where.probability) == ("pad_crop", 10, "flip", 0.5)
        assert (erasing.name, erasing.where.probability, erasing.options.area) == ("erasing", 0.8, (0.1, 0.8))
        assert (erasing.options.fill, erasing.options.normalisation) == ((0.4914, 0.4822, 0.4465), "imagenet")
        assert (recipe.sampler.options["ids"], recipe.sampler.options["pictures"]) == (8, 4)
        assert (recipe.optimiser.lr, recipe.optimiser.group_lr) == (0.1, {"backbone": 0.01})
        own = recipe.optimiser.own["confuser"]
        assert (own.name, own.lr, own.momentum, own.nesterov, own.weight_decay) == ("sgd", 0.1, 0.9, True, 5e-4)
        assert not own.scheduled
        assert recipe.schedule.epochs == 201
        for epoch, rate in rates.items():
            assert compute_lr_factor(recipe.schedule, epoch) == pytest.approx(rate), epoch
    options = mclnet.Options()
    assert (options.confusion_weight, options.id_centre_weight, options.camera_centre_weight) == (1.0, 5e-4, 5e-4)
    assert (options.centre_margin, options.centre_separation, options.confuser_width) == (8.0, 4500.0, 128)
    assert (options.pooling, options.non_local, options.centres) == ("gem", (0, 2, 3, 0), "fixed")


def test_settings_that_cannot_work_are_refused():
    for options, message in (
        ({"confusion_weight": -1.0}, r"method\.confusion_weight: -1\.0 is out of range"),
        ({"centres": "moving"}, r"method\.centres: 'moving' is none of 'fixed', 'learned'"),
        ({"nearest_weight": 0.0}, r"method\.nearest_weight: 0\.0 is out of range; use a number above 0"),
        ({"confuser_turn": "last"}, r"method\.confuser_turn: 'last' is none of 'shared', 'first'"),
        ({"triplet_weight": -1.0}, r"method\.triplet_weight: -1\.0"),
    ):
        with pytest.raises(RecipeError, match=message):
            build(**options)
