"""DART's mixture, draws and losses against the release's numbers, scikit-learn and slow loops.

Its networks are AGW's; a step with these losses is compared with the release in tests/unit/methods/test_dart_whole.py.
"""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from torch.nn import functional

from tapetum.core.errors import CheckpointError, RecipeError, TrainingError
from tapetum.core.types import Batch
from tapetum.core.vectors import normalise
from tapetum.data.sampler import build_sampler, name_pictures, read_sampling
from tapetum.methods import build_method, convert_from, convert_to, dart, small_options
from tapetum.methods._official import to_theirs
from tapetum.methods.dart import Positives, clean_probabilities, draw_positives, robust_triplet, scale_views
from tapetum.runs.convert import export_checkpoint, import_checkpoint
from tapetum.runs.recipe import load_recipe
from tapetum.training.optimisation import build_optimisers, compute_lr_factor
from tapetum.training.stepping import Stepper, turns_of

NUM_IDS, PICTURES = 4, 16


def make_batch(epoch=1, step=0):
    """Of four people two visible pictures in two views and two infrared ones; rows are no positions."""
    labels = torch.arange(NUM_IDS).repeat_interleave(6)
    views = torch.tensor([0, 1, 0, 1, 0, 0]).repeat(NUM_IDS)
    modalities = torch.tensor([0, 0, 0, 0, 1, 1]).repeat(NUM_IDS)
    rows = torch.tensor([3, 3, 1, 1, 0, 2]).repeat(NUM_IDS) + 4 * labels
    images = torch.rand(len(labels), 3, 64, 32, generator=torch.Generator().manual_seed(3))
    return Batch(images, labels, labels, torch.zeros_like(labels), modalities, rows, views, epoch, step)


def shuffle(count):
    return torch.randperm(count, generator=torch.Generator().manual_seed(4))


def small(num_pictures=PICTURES, **options):
    torch.manual_seed(1)
    return build_method("dart", small_options("dart") | options, NUM_IDS, num_pictures=num_pictures)


def run(method, batch):
    return method(batch.images, batch.modalities, batch.camids)


# Which names are believed


@pytest.mark.parametrize(("wrong", "apart"), [(0.2, 0.7), (0.5, 0.4), (0.02, 0.3), (0.0, 0.0)])
def test_the_mixture_is_scikit_learns_where_that_begins_with_the_best_division(wrong, apart):
    rng = np.random.default_rng(5)
    losses = np.abs(rng.normal(0.1, 0.05, 300)) + apart * (rng.random(300) < wrong)
    losses = (losses - losses.min()) / np.ptp(losses)
    found, deviations = clean_probabilities(torch.from_numpy(losses)).numpy(), []
    for seed in range(6):
        theirs = GaussianMixture(2, max_iter=100, tol=1e-2, reg_covar=5e-4, random_state=seed).fit(losses[:, None])
        expected = theirs.predict_proba(losses[:, None])[:, theirs.means_.argmin()]
        deviations.append(np.abs(found - expected).max())
    assert min(deviations) < 1e-9


def test_the_best_division_is_that_of_all(rng):
    for values in (torch.rand(40, generator=rng).double(), torch.tensor([0.0, 0.5, 0.5, 0.5, 1.0]).double()):
        spreads = {
            float(value): sum(float(((part - part.mean()) ** 2).sum()) for part in (values[low], values[~low]))
            for value in values.unique()[:-1]
            if (low := values <= value) is not None
        }
        assert spreads[float(dart._best_division(values))] == pytest.approx(min(spreads.values()))


def test_where_the_losses_are_alike_every_name_is_believed():
    for losses in (torch.full((7,), 0.25), torch.zeros(1), torch.zeros(0)):
        assert torch.equal(clean_probabilities(losses), torch.ones_like(losses))
    two = clean_probabilities(torch.tensor([0.0, 1.0, 0.0, 0.0]))
    assert torch.equal(two >= 0.5, torch.tensor([True, False, True, True]))


def test_losses_are_scaled_view_by_view_over_the_pictures_that_were_seen():
    losses = torch.tensor([[2.0, 9.0], [4.0, 9.0], [3.0, 0.0], [100.0, 0.0]])
    seen = torch.tensor([[True, True], [True, True], [True, False], [False, False]])
    found = scale_views(losses, seen)
    torch.testing.assert_close(found[seen], torch.tensor([0.0, 0.0, 1.0, 0.0, 0.5]))


class Looked:
    """The beginning of an epoch whose training pictures are some batches."""

    def __init__(self, epoch, batches, views=2):
        self.views = views
        self.epoch, self.losses, self.batches, self.augmented = epoch, {}, batches, None

    def pictures(self, *, augmented=False):
        self.augmented = augmented
        yield from self.batches

    def gather(self, rows, values, views=None):
        found = torch.zeros(PICTURES, self.views, *values.shape[1:])
        found[rows, views] = values
        return found


@pytest.mark.parametrize("look", ["evaluation", "training"])
def test_before_an_epoch_each_network_judges_every_view_by_modality(look):
    method, batch = small(look=look), make_batch()
    first, second = batch.select(torch.arange(12)), batch.select(torch.arange(12, 24))
    start = Looked(1, [first, second])
    statistics = [value.clone() for name, value in method.state_dict().items() if "running_mean" in name]
    with torch.no_grad():
        method.eval()
        method.begin_epoch(start)
    assert start.augmented
    now = [value for name, value in method.state_dict().items() if "running_mean" in name]
    assert all(map(torch.equal, statistics, now)) == (look == "evaluation")
    if look == "training":
        return
    losses = torch.zeros(2, PICTURES, 2)
    for part in (first, second):
        with torch.no_grad():
            scores = run(method, part).scores
        for number in (0, 1):
            each = functional.cross_entropy(scores[number], part.labels, reduction="none")
            losses[number, part.rows, part.views] = each
    for number in (0, 1):
        plain, changed = (batch.modalities == 0) & (batch.views == 0), batch.views == 1
        streams = [losses[number, batch.rows[kind], batch.views[kind]] for kind in (plain, changed)]
        scaled = torch.cat([(each - each.min()) / (each.max() - each.min()) for each in streams])
        found = method.clean[number]
        both = torch.cat([found[batch.rows[plain], 0], found[batch.rows[changed], 1]])
        torch.testing.assert_close(both, clean_probabilities(scaled))
        infrared = batch.rows[batch.modalities == 1]
        each = losses[number, infrared, 0]
        each = (each - each.min()) / (each.max() - each.min())
        torch.testing.assert_close(found[infrared, 0], clean_probabilities(each))
        assert torch.equal(found[infrared, 1], torch.ones(8))  # there is no such view


def test_every_view_of_a_picture_is_judged_however_many_there_are():
    torch.manual_seed(1)
    method = build_method("dart", small_options("dart"), NUM_IDS, num_pictures=PICTURES, num_views=3)
    two = make_batch()
    third = two.select(two.views == 1)
    third = dataclasses.replace(third, images=third.images.flip(3), views=torch.full_like(third.views, 2))
    batch = Batch(**{
        name: torch.cat([value, getattr(third, name)]) if isinstance(value, torch.Tensor) else value
        for name, value in vars(two).items()
    })  # fmt: skip
    with torch.no_grad():
        method.eval()
        method.begin_epoch(Looked(1, [batch], views=3))
    seen = method.clean[:, third.rows, 2]
    assert ((seen >= 0) & (seen <= 1)).all()
    assert not torch.equal(seen, torch.ones_like(seen))
    losses = method.train().losses(run(method, batch), batch)
    method.clean[:, third.rows, 2] = 0.0
    assert method.losses(run(method, batch), batch)["id_1"] < losses["id_1"]


def test_nothing_is_judged_before_the_end_of_the_warm_up():
    method = small(warmup_epochs=2)
    start = Looked(1, [])
    method.begin_epoch(start)
    assert start.augmented is None


# The triplets


def test_both_losses_are_the_releases(golden, assert_matches):
    case = golden("dart", "step")
    features, logits = case.leaves("feats", "logits")
    labels, clean, threshold = case.inputs["labels"], case.inputs["clean"], case.cfg["threshold"].item()
    weighted = (clean * dart.label_losses(logits[None], labels)[0]).mean()
    assert_matches(weighted, case.out["loss_id"], 1e-5)
    believed, draws = clean >= threshold, Positives(case.inputs["first"], case.inputs["again"])
    assert int(believed.sum()) == case.out["anchors"]
    margin = case.cfg["margin"].item()
    loss = robust_triplet(features, case.inputs["predicted"], labels, believed, draws, margin=margin)
    assert_matches(loss, case.out["loss_triplet"], 1e-4)


def slow_triplet(features, predicted, labels, believed, draws, margin, kinds):
    def distance(i, j):
        return max(float((features[i] - features[j]).norm()), 1e-6)

    hinges, count = [], len(labels)
    for i in range(count):
        if not believed[i] or draws.first[i] < 0:
            continue
        p = int(draws.first[i])
        others = sorted((j for j in range(count) if labels[j] != labels[i]), key=lambda j: distance(i, j))
        n = others[0]
        mistaken = bool(predicted[n] == labels[i])
        near, far = distance(i, p), distance(i, n)
        kind = (bool(believed[p]), bool(believed[n]), mistaken)
        kinds.add(kind)
        if kind == (True, False, True):
            behind = others[1:11]
            sure = [j for j in behind if believed[j]]
            near, far = (near + far) / 2, distance(i, (sure or behind[-1:] or [n])[0])
        elif kind == (False, False, True):
            near, far = far, near
        elif not kind[0]:
            near, far = distance(i, int(draws.again[i])), (near + far) / 2
        hinges.append(max(near - far + margin, 0))
    return sum(hinges) / max(len(hinges), 1)


def test_triplets_are_those_of_a_slow_loop_in_every_branch(rng):
    kinds = set()
    for trial in range(12):
        batch = make_batch(step=trial)
        batch = batch.select(torch.randperm(24, generator=rng)[: 8 + trial])
        features = torch.randn(len(batch), 3, generator=rng, dtype=torch.float64)
        predicted = torch.randint(0, 2, (len(batch),), generator=rng)
        believed = torch.rand(len(batch), generator=rng) < (0.15 if trial == 0 else 0.5)
        draws = draw_positives(batch, believed, trial)
        found = robust_triplet(features, predicted, batch.labels, believed, draws, margin=1.5)
        expected = slow_triplet(features, predicted, batch.labels, believed, draws, 1.5, kinds)
        assert float(found) == pytest.approx(expected, rel=1e-6), trial
    assert len(kinds) == 8


def test_without_an_anchor_the_triplets_are_zero_and_of_one_person_they_are_refused(rng):
    batch = make_batch()
    features = torch.randn(24, 3, generator=rng, requires_grad=True)
    nobody = torch.zeros(24, dtype=torch.bool)
    loss = robust_triplet(features, batch.labels, batch.labels, nobody, draw_positives(batch, nobody, 0))
    loss.backward()
    assert loss == 0
    assert not features.grad.any()
    one = batch.select(batch.labels == 1)
    draws = draw_positives(one, ~nobody[:6], 0)
    with pytest.raises(TrainingError, match="dart: the batch shows one identity only; use the sampler cross_modality"):
        robust_triplet(features[:6], one.labels, one.labels, ~nobody[:6], draws)


def test_positives_are_drawn_evenly_from_a_persons_other_pictures_whatever_the_order_of_the_batch():
    counts, again_itself = torch.zeros(24, 24), 0
    nobody = torch.zeros(24, dtype=torch.bool)
    for step in range(400):
        batch = make_batch(step=step)
        draws = draw_positives(batch, nobody, 0)
        counts[torch.arange(24), draws.first] += 1
        again_itself += int((draws.again == torch.arange(24)).sum())
        order = shuffle(24)
        again = draw_positives(batch.select(order), nobody, 0)
        assert torch.equal(order[again.first], draws.first[order])
        assert torch.equal(order[again.again], draws.again[order])
    same = batch.labels[:, None] == batch.labels[None, :]
    assert not counts[~same].any()
    assert not counts.diagonal().any()
    others = counts[same & ~torch.eye(24, dtype=torch.bool)]  # 80 expected, deviation 8
    assert others.min() > 80 - 40
    assert others.max() < 80 + 40
    assert again_itself / (400 * 24) == pytest.approx(1 / 6, abs=0.02)  # one of the person's six pictures
    never = draw_positives(batch, nobody, 0, redraw_anchor=False).again
    assert not (never == torch.arange(24)).any()
    other = [
        draw_positives(make_batch(epoch, step), nobody, salt).first for epoch, step, salt in ((2, 0, 0), (1, 1, 0))
    ]
    other.append(draw_positives(make_batch(), nobody, 1).first)
    first = draw_positives(make_batch(), nobody, 0).first
    assert not any(torch.equal(first, each) for each in other)


def test_the_first_of_five_draws_that_is_believed_is_taken():
    batch = make_batch()
    half = torch.arange(24) % 2 == 0
    believed_share = 0.0
    for step in range(200):
        again = draw_positives(dataclasses.replace(batch, step=step), half, 0).again
        believed_share += float(half[again].float().mean()) / 200
    assert believed_share == pytest.approx(1 - 0.5**5, abs=0.01)
    alone = batch.select(torch.tensor([0, 6, 7]))
    found = draw_positives(alone, torch.ones(3, dtype=torch.bool), 0)
    assert found.first.tolist() == [-1, 2, 1]
    assert found.again[0] == 0


# The method


def test_each_network_learns_by_what_the_other_thinks():
    batch = make_batch()
    method = small(triplet_weight=0.5, triplet_margin=2.0, threshold=0.4, redraw_anchor=False).train()
    method.clean.copy_(torch.rand(method.clean.shape, generator=torch.Generator().manual_seed(6)))
    output = run(method, batch)
    found = method.losses(output, batch)
    expected = {}
    for number in (0, 1):
        weights = method.clean[1 - number, batch.rows, batch.views]
        each = functional.cross_entropy(output.scores[number], batch.labels, reduction="none")
        believed = weights >= 0.4
        draws = draw_positives(batch, believed, number, redraw_anchor=False)
        predicted = output.scores[number].argmax(1)
        triplets = robust_triplet(output.features[number], predicted, batch.labels, believed, draws, margin=2.0)
        expected |= {f"id_{number + 1}": (weights * each).sum() / 24, f"triplet_{number + 1}": 0.5 * triplets}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=name)
    order = shuffle(24)
    shuffled = batch.select(order)
    again = method.losses(dart.Output(*(part[:, order] for part in vars(output).values())), shuffled)
    for name, value in expected.items():
        torch.testing.assert_close(again[name], value, rtol=1e-4, atol=1e-6, msg=name)
    early = method.losses(output, dataclasses.replace(batch, epoch=0))
    assert early.keys() == {"id_1", "id_2"}
    torch.testing.assert_close(early["id_1"], functional.cross_entropy(output.scores[0], batch.labels))
    bare = small(triplet_weight=0.0)
    assert bare.losses(run(bare, batch), batch).keys() == {"id_1", "id_2"}


def in_two_lots(batch=None):
    """The pictures of some people for the first network, those of others for the second, in no order."""
    batch = batch or make_batch()
    order = shuffle(24)
    return dataclasses.replace(batch, lots=(batch.labels >= 2).long()).select(order)


def test_of_two_lots_each_network_sees_and_learns_its_own():
    batch, method = in_two_lots(), small(triplet_margin=2.0).train()
    method.clean.copy_(torch.rand(method.clean.shape, generator=torch.Generator().manual_seed(6)))
    found = method.losses(method.forward_batch(batch), batch)
    alike = small(triplet_margin=2.0).train()
    alike.clean.copy_(method.clean)
    for number in (0, 1):
        own = batch.select(batch.lots == number)
        one_lot = dataclasses.replace(own, lots=torch.zeros_like(own.lots))
        expected = alike.losses(alike.forward_batch(one_lot), one_lot)
        for name in (f"id_{number + 1}", f"triplet_{number + 1}"):
            torch.testing.assert_close(found[name], expected[name])
    moving = [weights for weights in method.networks[1].parameters() if weights.requires_grad]
    assert not any(gradient.any() for gradient in torch.autograd.grad(found["id_1"], moving))
    seen = [dict(network.named_buffers()) for network in method.networks]
    alone = small().train()
    for number, network in enumerate(alone.networks):
        own = batch.select(batch.lots == number)
        network(own.images, own.modalities, own.camids)
        for name, buffer in network.named_buffers():
            torch.testing.assert_close(seen[number][name], buffer)


def test_the_order_of_two_lots_changes_nothing():
    batch, values = in_two_lots(), []
    for there in (batch, batch.select(shuffle(24))):
        method = small(triplet_margin=2.0).train()
        values.append(method.losses(method.forward_batch(there), there))
    for name, value in values[0].items():
        torch.testing.assert_close(values[1][name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_a_step_of_two_lots_is_that_of_the_engine():
    batch, method = in_two_lots(), small().train()
    expected = {name: loss.item() for name, loss in method.losses(method.forward_batch(batch), batch).items()}
    again = small().train()
    stepper = Stepper(again, turns_of(again), [], "fp32", None, torch.amp.GradScaler("cpu", enabled=False))
    found = stepper.step([batch], lambda phase, part: None, lambda losses: None)
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("lots", [[0] * 10 + [1] * 14, [0] * 8 + [1] * 8 + [2] * 8, [1] * 24])
def test_lots_that_are_not_two_of_one_size_are_refused(lots):
    batch = dataclasses.replace(make_batch(), lots=torch.tensor(lots))
    with pytest.raises(
        TrainingError, match=r"^dart: the batch has lots of \[.*\] pictures, .* set sampler\.lots to 2, or"
    ):
        small().forward_batch(batch)


def test_pictures_that_nothing_is_known_of_are_refused_after_the_warm_up():
    batch = make_batch()
    nameless = dataclasses.replace(batch, rows=torch.full_like(batch.rows, -1))
    for method, there in ((small(num_pictures=0), batch), (small(), nameless)):
        output = run(method, there)
        assert method.losses(output, dataclasses.replace(there, epoch=0))
        with pytest.raises(TrainingError, match="dart: this network was built without training pictures, or the batch"):
            method.losses(output, there)


def test_both_networks_begin_alike_but_for_their_heads_where_weights_are_given(tmp_path):
    method = small()
    first, second = (dict(network.named_parameters()) for network in method.networks)
    assert not torch.equal(first["network.stems.0.0.0.weight"], second["network.stems.0.0.0.weight"])
    assert not torch.equal(first["head.classifier.weight"], second["head.classifier.weight"])
    groups = method.parameter_groups()
    assert groups.keys() == {"backbone", "head"}
    assert len(groups["head"]) == 4


@pytest.mark.parametrize("mirror", [False, True])
def test_the_similarity_of_two_pictures_is_the_inner_product_of_the_networks_mean_vectors(mirror):
    batch, method = make_batch(), small().eval()
    visible, infrared = batch.select(batch.modalities == 0), batch.select(batch.modalities == 1)
    means, vectors = [], []
    with torch.no_grad():
        for side in (visible, infrared):
            pictures = (side.images, side.images.flip(3))[: 1 + mirror]
            there = (side.modalities, side.camids)
            unit = [normalise(each) for images in pictures for each in method(images, *there).embeddings]
            means.append(torch.stack(unit).mean(0))
            vectors.append(method.embed(side.images, *there, mirror=mirror))
    torch.testing.assert_close(vectors[0] @ vectors[1].T, means[0] @ means[1].T)


def test_a_step_in_bfloat16_and_channels_last_learns_nearly_what_one_in_float32_does():
    batch, found = make_batch(), {}
    for precision in ("fp32", "bf16"):
        method = small().train().to(memory_format=torch.channels_last)
        there = dataclasses.replace(batch, images=batch.images.contiguous(memory_format=torch.channels_last))
        recipe = load_recipe("dart_sysu")
        optimisers = build_optimisers(method, method.parameter_groups(), recipe.optimiser, turns_of(method))
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        stepper = Stepper(method, turns_of(method), optimisers, precision, None, scaler)
        found[precision] = stepper.step([there], lambda phase, part: None, lambda losses: None)
    for name, value in found["fp32"].items():
        assert found["bf16"][name] == pytest.approx(value, rel=0.1), name


# Names that are wrong on purpose


def sampling(**options):
    return read_sampling({"name": "cross_modality", "ids": 4, "pictures": 4, "views": [2, 1], **options})


LABELS = np.repeat(np.arange(10), 30)
MODALITIES = np.tile([0, 0, 1], 100)


def test_noise_gives_a_stated_share_of_each_modality_another_name_by_its_own_seed():
    found = name_pictures(sampling(label_noise=0.2), LABELS, MODALITIES)
    wrong = found != LABELS
    assert [int(wrong[modality == MODALITIES].sum()) for modality in (0, 1)] == [40, 20]
    assert set(found.tolist()) == set(range(10))
    shifts = np.bincount((found - LABELS)[wrong] % 10, minlength=10)
    assert shifts[0] == 0
    assert (shifts[1:] > 0).all()
    assert np.array_equal(found, name_pictures(sampling(label_noise=0.2, ids=5), LABELS, MODALITIES))
    assert not np.array_equal(found, name_pictures(sampling(label_noise=0.2, label_seed=1), LABELS, MODALITIES))
    assert name_pictures(sampling(), LABELS, MODALITIES) is LABELS
    assert name_pictures(read_sampling({"batch": 4}), LABELS, MODALITIES) is LABELS


def test_whom_the_noise_leaves_in_one_modality_only_is_not_drawn():
    labels, modalities = np.repeat(np.arange(20), 2), np.tile([0, 1], 20)  # one picture a modality, drawn four times
    options = sampling(label_noise=0.3)
    named = name_pictures(options, labels, modalities)
    paired = {label for label in range(20) if set(modalities[named == label]) == {0, 1}}
    assert 4 <= len(paired) < 20
    batches = build_sampler(options, named, modalities, seed=0).batches(0)
    assert set(named[batches].ravel()) <= paired
    assert batches.shape[1] == 4 * 4 * 2


def test_people_with_one_picture_a_modality_have_pairs_where_it_is_drawn_several_times():
    labels, modalities = np.repeat(np.arange(4), 2), np.tile([0, 1], 4)
    sampled = next(iter(build_sampler(sampling(pictures=3), labels, modalities, seed=0)))
    rows, views = torch.from_numpy(sampled.rows), torch.from_numpy(sampled.views)
    names = torch.from_numpy(labels)[rows]
    assert len(rows) == 4 * (3 * 2 + 3)
    images = torch.rand(len(rows), 3, 64, 32, generator=torch.Generator().manual_seed(3))
    batch = Batch(images, names, names, 0 * names, torch.from_numpy(modalities)[rows], rows, views, epoch=3)
    method = small(num_pictures=8).train()
    losses = method.losses(run(method, batch), batch)
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    positives = draw_positives(batch, torch.ones(len(rows), dtype=torch.bool), 0).first
    assert torch.equal(names[positives], names)
    assert not (positives == torch.arange(len(rows))).any()


# Checkpoints, recipes, settings


@pytest.mark.slow
def test_a_released_checkpoint_is_two_files_and_goes_both_ways(tmp_path):
    with torch.device("meta"):
        ours = build_method("dart", {}, NUM_IDS).state_dict()  # names and shapes: two networks are 140 million numbers
    theirs = convert_to("dart-official", {}, ours)
    assert len(theirs) == 2 * 1030
    assert {name.partition(".")[0] for name in theirs} == {"net1", "net2"}
    found = convert_from("dart-official", theirs)
    assert (found.method, found.num_ids) == ("dart", NUM_IDS)
    assert {name: value.shape for name, value in found.state.items()} == {n: v.shape for n, v in ours.items()}
    assert to_theirs({"networks.1.head.norm.bias": torch.ones(1)}, dart.RENAMING).keys() == {"net2.bottleneck.bias"}
    one = {name.removeprefix("net1."): value for name, value in theirs.items() if name.startswith("net1.")}
    with pytest.raises(CheckpointError, match=r"unknown tensor.*this file has the layout dart-official; give --from"):
        convert_from("agw-vi-official", one)
    with pytest.raises(CheckpointError, match=r"no tensor 'net1\.classifier\.weight'"):
        convert_from("dart-official", {"net1.classifier.bias": torch.zeros(2)})
    with pytest.raises(
        CheckpointError, match=r"x\.t: a dart-official checkpoint is 2 files side by side, named for exa"
    ):
        import_checkpoint("dart-official", tmp_path / "x.t", tmp_path / "ours.safetensors")
    torch.save({"net": {"classifier.weight": torch.zeros(2, 2)}}, tmp_path / "dart_net1.t")
    with pytest.raises(CheckpointError, match=r"dart_net2\.t: there is no such weights file"):
        import_checkpoint("dart-official", tmp_path / "dart_net1.t", tmp_path / "ours.safetensors")
    assert not (tmp_path / "ours.safetensors").exists()
    with pytest.raises(CheckpointError, match=r"nowhere"):
        export_checkpoint("dart-official", tmp_path / "nowhere", tmp_path / "made_net1.t")
    assert [path.name for path in tmp_path.iterdir()] == ["dart_net1.t"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "layouts"),
    [
        ("agw_vi", "agw-vi-official or caj-official or mclnet-official"),
        ("ddag", "ddag-official"),
        ("lba", "lba-official or two-stream-official"),
        ("mmn", "mmn-official"),
        ("mpanet", "mpanet-official"),
        ("deen", "deen-official"),
    ],
)
def test_two_files_of_another_method_are_no_files_of_dart_and_are_called_by_their_layout(method, layouts):
    with torch.device("meta"):
        one = convert_to(layouts.split(" ")[0], {}, build_method(method, {}, NUM_IDS).state_dict())
    both = {f"{file}.{name}": tensor for file in dart.FILES for name, tensor in one.items()}
    with pytest.raises(
        CheckpointError, match=rf"dart-official checkpoint: .*\(this file has the layout {layouts}; give"
    ):
        convert_from("dart-official", both)


def test_the_recipes_numbers_are_those_of_the_fact_sheet():
    rates = {0: 0.1, 9: 1.0, 19: 1.0, 20: 0.1, 50: 0.01, 99: 0.01}
    for data in ("sysu", "regdb", "llcm"):
        recipe, caj = load_recipe(f"dart_{data}"), load_recipe(f"caj_{data}")
        assert dart.Options(look="training") == dart.Options(**recipe.method.options)
        for section in ("data", "augment"):
            assert getattr(recipe, section) == getattr(caj, section), section
        assert recipe.sampler.name == "cross_modality_lots"
        own = {"lots": 2, "shuffled_epochs": dart.Options().warmup_epochs}
        assert recipe.sampler.options == caj.sampler.options | own
        assert recipe.schedule.epochs == 100
        assert not recipe.evaluation.mirror
        for epoch, rate in rates.items():
            assert compute_lr_factor(recipe.schedule, epoch) == pytest.approx(rate), epoch
    options = dart.Options()
    assert (options.warmup_epochs, options.triplet_margin, options.threshold) == (1, 0.3, 0.5)
    assert (options.pooling, options.non_local, options.redraw_anchor) == ("gem", (0, 2, 3, 0), True)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("threshold", 1.5, r"method\.threshold: 1\.5 is out of range"),
        ("warmup_epochs", -1, r"method\.warmup_epochs: -1 is out of range"),
        ("look", "asleep", r"method\.look: 'asleep' is none of 'evaluation', 'training'"),
    ],
)
def test_settings_that_cannot_work_are_refused(option, value, message):
    with pytest.raises(RecipeError, match=message):
        small(**{option: value})
