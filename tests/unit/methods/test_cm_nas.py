"""CM-NAS's losses against slow loops from their formulas, its norms, the moving average, and our search.

At published size it stands in test_cm_nas_whole.py.
"""

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.errors import CheckpointError, RecipeError, TrainingError
from tapetum.core.types import Batch
from tapetum.layers.modality_norms import MixedNorm, SplitNorm
from tapetum.methods import build_method, cm_nas, convert_from, convert_to, small_options, write_options
from tapetum.methods.cm_nas import four_way_triplet, modality_discrepancy, read_config, similarity_difference
from tapetum.runs.convert import export_checkpoint, import_checkpoint
from tapetum.runs.recipe import check_recipe, load_recipe, plain_recipe
from tapetum.runs.sources import augment_options
from tapetum.training.optimisation import build_optimisers, compute_lr_factor
from tapetum.training.stepping import Stepper, turns_of

NUM_IDS = 6
LABELS = torch.tensor([2, 0, 7, 0, 2, 2, 7, 0, 2, 7, 0, 7])
MODALITIES = torch.tensor([0, 1, 0, 0, 1, 1, 1, 1, 0, 1, 0, 0])
ROWS = torch.tensor([5, 9, 3, 2, 7, 6, 10, 4, 8, 1, 0, 11])


def build(num_pictures: int = 0, **options: object) -> nn.Module:
    torch.manual_seed(3)
    settings = small_options("cm_nas") | options
    return build_method("cm_nas", settings, NUM_IDS, num_pictures=num_pictures).train()


def make_batch(people: int = NUM_IDS, seed: int = 5) -> Batch:
    """Of each person a visible and an infrared picture, in no order."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(2 * people, generator=generator)
    labels, modalities = torch.arange(2 * people) // 2, torch.arange(2 * people) % 2
    images = functional.interpolate(torch.rand(2 * people, 3, 8, 4, generator=generator), scale_factor=8)
    return Batch(images, labels, labels + 40, modalities + 1, modalities, torch.arange(2 * people)).select(order)


def run(method: nn.Module, batch: Batch):
    return method(batch.images, batch.modalities, batch.camids)


def step(method: nn.Module, batch: Batch, optimisers=()) -> dict[str, float]:
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    stepper = Stepper(method, turns_of(method), optimisers, "fp32", None, scaler)
    return stepper.step([batch], lambda phase, part: None, lambda losses: None)


def features(rng: torch.Generator) -> Tensor:
    return torch.randn(12, 5, generator=rng, dtype=torch.float64)


# The losses


def test_triplets_are_the_slow_loop_over_anchors_of_each_modality_among_each_modality(rng):
    x = features(rng)
    terms = []
    for first in (0, 1):
        for second in (0, 1):
            hinges = []
            for a in range(12):
                if MODALITIES[a] == first:
                    others = [b for b in range(12) if MODALITIES[b] == second]
                    distances = {b: (x[a] - x[b]).norm() for b in others}
                    farthest = max(d for b, d in distances.items() if LABELS[b] == LABELS[a])
                    nearest = min(d for b, d in distances.items() if LABELS[b] != LABELS[a])
                    hinges.append((farthest - nearest + 0.4).clamp(min=0))
            terms.append(torch.stack(hinges).mean())
    expected = torch.stack(terms).mean()
    assert expected > 0.1
    torch.testing.assert_close(four_way_triplet(x, LABELS, MODALITIES, margin=0.4), expected)


def test_similarities_are_the_slow_loop_over_pairs_of_people_s_pictures_whatever_the_order(rng):
    x = features(rng)
    lines = sorted(range(12), key=lambda i: (LABELS[i], ROWS[i]))
    visible, infrared = ([i for i in lines if MODALITIES[i] == modality] for modality in (0, 1))
    tables = []
    for own in (visible, infrared):
        table = torch.tensor([[float((x[a] * x[b]).sum()) for b in own] for a in own], dtype=torch.float64)
        tables.append(torch.stack([line / line.square().sum().sqrt() for line in table]))
    terms = [(tables[0][i, j] - tables[1][i, j]) ** 2 for i in range(6) for j in range(6)]
    torch.testing.assert_close(similarity_difference(x, LABELS, MODALITIES, ROWS), torch.stack(terms).mean())
    order = torch.randperm(12, generator=rng)
    found = similarity_difference(x[order], LABELS[order], MODALITIES[order], ROWS[order])
    torch.testing.assert_close(found, torch.stack(terms).mean())


def test_the_discrepancy_is_the_slow_loop_over_people_with_any_number_of_pictures(rng):
    x = features(rng)[:11]
    units = [row / row.norm() for row in x]

    def mean_kernel(first: list[int], second: list[int]) -> Tensor:
        return torch.stack([(units[a] * units[b]).sum() ** 2 for a in first for b in second]).mean()

    terms = []
    for label in (0, 2, 7):
        seen, felt = ([i for i in range(11) if LABELS[i] == label and MODALITIES[i] == m] for m in (0, 1))
        terms.append(mean_kernel(seen, seen) + mean_kernel(felt, felt) - 2 * mean_kernel(seen, felt))
    torch.testing.assert_close(modality_discrepancy(x, LABELS[:11], MODALITIES[:11]), torch.stack(terms).mean())


def test_the_terms_are_those_of_the_formulas_with_their_weights():
    weights = {"triplet_weight": 0.3, "similarity_weight": 0.5, "discrepancy_weight": 0.7, "triplet_margin": 0.9}
    method, batch = build(**weights), make_batch()
    output = run(method, batch)
    found = method.losses(output, batch)
    about = (batch.labels, batch.modalities)
    expected = {
        "id": functional.cross_entropy(output.logits, batch.labels),
        "triplet": 0.3 * four_way_triplet(output.feature, *about, margin=0.9),
        "similarity": 0.5 * similarity_difference(output.embedding, *about, batch.rows),
        "discrepancy": 0.7 * modality_discrepancy(output.embedding, *about),
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=name)
    plain = build(triplet_weight=0.0, similarity_weight=0.0, discrepancy_weight=0.0)
    assert plain.losses(output, batch).keys() == {"id"}


def test_a_batch_that_cannot_be_compared_is_refused_in_one_line():
    method, batch = build(), make_batch()
    one_sided = (batch.labels > 2) | (batch.modalities == 1)
    more = torch.cat([torch.arange(12), (batch.modalities == 0).nonzero()[0]])
    for part, message in (
        (batch.select(batch.labels == 1), "cm_nas: the batch shows one identity only; set sampler.name"),
        (batch.select(one_sided), "cm_nas: the batch shows 3 of 6 people in one modality only; set sampler.name"),
        (batch.select(more), "cm_nas: somebody in the batch has more pictures of one modality than of the other"),
    ):
        method.eval()  # so that a batch norm sees any part
        with pytest.raises(TrainingError, match=message) as caught:
            method.losses(run(method, part), part)
        assert "\n" not in str(caught.value)


# The norms


def test_a_split_norm_is_a_norm_of_each_modality_s_pictures_in_training_and_in_evaluation():
    method, batch = build(config="separate"), make_batch()
    switch = method.backbone.layer2[0].bn1
    assert isinstance(switch, SplitNorm)
    alone = {kind: nn.BatchNorm2d(switch.visible.num_features) for kind in ("visible", "infrared")}
    for seed, kind in enumerate(alone):
        nn.init.uniform_(alone[kind].weight, 0.5, 1.5, generator=torch.Generator().manual_seed(seed))
        switch.get_submodule(kind).load_state_dict(alone[kind].state_dict())
    known: dict[str, Tensor] = {}
    switch.register_forward_hook(lambda module, inputs, output: known.update(maps=inputs[0], normed=output.clone()))
    run(method, batch)
    count = int((batch.modalities == 0).sum())
    maps, normed = known["maps"], known["normed"]
    torch.testing.assert_close(normed[:count], alone["visible"](maps[:count]))
    torch.testing.assert_close(normed[count:], alone["infrared"](maps[count:]))
    torch.testing.assert_close(switch.visible.running_var, alone["visible"].running_var)
    method.eval()
    run(method, batch)
    maps, normed = known["maps"], known["normed"]
    for i, modality in enumerate(batch.modalities.tolist()):  # in the order of the batch
        norm = alone[("visible", "infrared")[modality]].eval()
        torch.testing.assert_close(normed[i], norm(maps[i : i + 1])[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet"])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_norms_of_equal_modalities_are_the_shared_one_s_network(backbone, mode, tmp_path):
    shared, apart = (build(backbone=backbone, config=config) for config in ("shared", "separate"))
    torch.save(shared.backbone.state_dict(), tmp_path / "weights.pth")
    apart.load_pretrained(str(tmp_path / "weights.pth"))
    apart.head.load_state_dict(shared.head.state_dict())
    batch = make_batch()
    visible = dataclasses.replace(batch, modalities=torch.zeros_like(batch.modalities))
    for method in (shared, apart):
        method.train(mode == "train")
    torch.testing.assert_close(run(apart, visible).logits, run(shared, visible).logits, rtol=1e-4, atol=1e-5)
    differ = not torch.allclose(run(apart, batch).logits, run(shared, batch).logits, rtol=1e-3, atol=1e-4)
    assert differ == (mode == "train")


def test_digits_count_the_norms_of_a_stage_s_shortcut_first():
    with torch.device("meta"):
        names = build_method("cm_nas", {}, 2).norms
    assert len(names) == 53
    assert names[:6] == ["bn1", "layer1.0.downsample.1", *(f"layer1.0.bn{n}" for n in (1, 2, 3)), "layer1.1.bn1"]
    assert names[11] == "layer2.0.downsample.1"
    assert names[-1] == "layer4.2.bn3"


@pytest.mark.parametrize(
    ("config", "found"),
    [("shared", "111"), ("separate", "000"), ("stem", "011"), ("1 0,1\n", "101"), ("010", "010")],
)
def test_a_configuration_is_a_word_or_digits(config, found):
    assert read_config(config, 3) == [digit == "1" for digit in found]


def test_of_a_file_of_digits_the_digits_stand_in_the_written_recipe_and_in_the_checkpoint(tmp_path):
    path = tmp_path / "config.txt"
    path.write_text("1, 0\n1 1\n")
    recipe = load_recipe("cm_nas_synth", [f"method.config=file:{path}"])
    written = plain_recipe(recipe)
    kept = write_options("cm_nas", recipe.method.options)
    path.unlink()
    assert written["method"]["config"] == kept["config"] == "1 0 1 1"
    assert plain_recipe(check_recipe(written, "again")) == written


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"method\.config: file:\S*txt cannot be read \(No such file or directory\); name a file of digits"),
        (b"\xff\xfe1", r"method\.config: file:\S*txt cannot be read \(it is no text\); name a file of digits"),
        (b"stem", r"file:\S*digits\.txt holds not digits 0 and 1 alone; write one for each norm"),
        (b" \n", r"file:\S*digits\.txt holds not digits 0 and 1 alone; write one for each norm"),
    ],
)
def test_a_file_without_digits_is_refused_by_its_name(content, message, tmp_path):
    path = tmp_path / "digits.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError, match=message):
        build(config=f"file:{path}")


def test_settings_that_cannot_work_are_refused():
    for options, message in (
        (
            {"config": "most"},
            r"method\.config: 'most' is no row of the digits 0 and 1, and none of shared, separate, stem",
        ),
        ({"config": ""}, r"method\.config: '' is no row of the digits"),
        ({"config": "0101"}, r"method\.config: has 4 digits, the backbone has \d\d norms; write one for each"),
        ({"average_decay": 1.0}, r"method\.average_decay: 1\.0 is out of range"),
    ):
        with pytest.raises(RecipeError, match=message):
            build(**options)


def test_a_bfloat16_step_on_channels_last_pictures_gives_finite_gradients():
    method, batch = build(config="separate"), make_batch()
    method.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        output = run(method, dataclasses.replace(batch, images=batch.images.to(memory_format=torch.channels_last)))
    torch.stack(list(method.losses(output, batch).values())).sum().backward()
    assert all(torch.isfinite(weights.grad).all() for weights in method.parameters() if weights.requires_grad)


# The moving average


@dataclasses.dataclass(frozen=True)
class Beginning:
    epoch: int


def test_the_average_follows_each_step_and_overwrites_the_weights_every_so_many_epochs():
    method = build(num_pictures=12, average_decay=0.9, average_every=2)
    for module in method.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.0  # statistics stand still, so that a step's weights are all that moves
    optimiser = torch.optim.SGD([weights for weights in method.parameters() if weights.requires_grad], lr=0.01)
    batch = make_batch()

    def values() -> Tensor:
        return torch.cat([value.flatten() for value in method.state_dict().values() if value.is_floating_point()])

    slow, overwritten = values(), []
    for epoch in range(5):
        before = values()
        method.begin_epoch(Beginning(epoch))
        torch.testing.assert_close(method.average, slow)
        overwritten.append(not torch.equal(values(), before))
        assert not overwritten[-1] or torch.equal(values(), method.average)
        for number in range(2):
            for _ in range(2):  # parts of one step, which move the average once
                part = dataclasses.replace(batch, epoch=epoch, step=number)
                torch.stack(list(method.losses(run(method, part), part).values())).sum().backward()
            optimiser.step()
            slow = 0.9 * slow + 0.1 * values()
    assert overwritten == [False, False, True, False, True]
    assert "average" not in method.state_dict()


def test_outside_a_training_and_without_a_decay_nothing_is_averaged():
    for method in (build(), build(num_pictures=12, average_decay=0.0)):
        assert len(method.average) == 0
        before = method.head.classifier.weight.clone()
        method.begin_epoch(Beginning(2))
        assert torch.equal(method.head.classifier.weight, before)


# Our search


def test_a_mixed_norm_is_its_balance_s_share_of_both():
    method, batch = build(config="search"), make_batch()
    switch = method.backbone.layer2[0].bn1
    assert isinstance(switch, MixedNorm)
    known: dict[str, Tensor] = {}
    switch.register_forward_hook(lambda module, inputs, output: known.update(maps=inputs[0], normed=output.clone()))
    switch.balance.data.fill_(1.5)
    run(method, batch)
    count, maps = 6, known["maps"]
    apart = torch.cat([switch.visible(maps[:count]), switch.infrared(maps[count:])])
    share = 1 / (1 + torch.tensor(-1.5).exp())
    torch.testing.assert_close(known["normed"], share * switch.shared(maps) + (1 - share) * apart)


def test_switches_learn_from_people_of_whom_the_network_learns_nothing():
    method, batch = build(config="search"), make_batch()
    groups = method.parameter_groups()
    assert len(groups["switches"]) == len(method.norms)
    output = run(method, batch)
    found = method.losses(output, batch)
    withheld = batch.labels % 2 == 1
    about = (batch.labels[withheld], batch.modalities[withheld])
    expected = 5 * similarity_difference(output.embedding[withheld], *about, batch.rows[withheld])
    torch.testing.assert_close(found["switches_similarity"], expected)
    torch.testing.assert_close(found["id"], functional.cross_entropy(output.logits[~withheld], batch.labels[~withheld]))
    (gradient,) = torch.autograd.grad(
        sum(method.network_losses(output, batch).values()), output.logits, retain_graph=True
    )
    assert torch.equal(gradient.abs().sum(1) > 0, ~withheld)
    (gradient,) = torch.autograd.grad(sum(method.switch_losses(output, batch).values()), output.embedding)
    assert torch.equal(gradient.abs().sum(1) > 0, withheld)


def test_a_search_finds_digits_that_a_network_can_be_built_with():
    method, batch = build(config="search"), make_batch()
    section = load_recipe("cm_nas_synth").optimiser
    optimisers = build_optimisers(method, method.parameter_groups(), section, turns_of(method))
    before = [balance.item() for balance in method.parameter_groups()["switches"]]
    told = step(method, batch, optimisers)
    names = ("triplet", "similarity", "discrepancy")
    assert told.keys() == {"id", *names, *(f"switches_{name}" for name in names)}
    balances = [balance.item() for balance in method.parameter_groups()["switches"]]
    assert all(now != old for now, old in zip(balances, before, strict=True))
    digits = method.found_config()
    assert [digit == "1" for digit in digits.split()] == [balance >= 0 for balance in balances]
    assert 0 < digits.count("1") < len(balances)
    assert build(config=digits).norms == method.norms
    with pytest.raises(TrainingError, match=r"method\.config is 'stem'; only a network of 'search' finds digits"):
        build().found_config()


def test_switches_are_drawn_apart_where_norms_of_each_modality_take_back_what_sets_the_modalities_apart():
    """Infrared pictures are visible ones in other numbers, or are like them: then the first switch hardly cares."""
    pulls = {}
    for scale, shift in ((0.3, 0.5), (1.0, 0.0)):
        gradients = []
        for seed in range(3):
            generator = torch.Generator().manual_seed(seed)
            torch.manual_seed(seed)
            method = build_method("cm_nas", small_options("cm_nas") | {"config": "search"}, 32).train()
            people = torch.rand(32, 3, 8, 4, generator=generator)
            for _ in range(2):
                labels = torch.randperm(32, generator=generator)[:8].repeat_interleave(4)
                images = people[labels] + 0.3 * torch.rand(32, 3, 8, 4, generator=generator)
                images = functional.interpolate(images, scale_factor=4) / 1.3
                modalities = torch.arange(32) % 2
                images = torch.where((modalities == 1)[:, None, None, None], scale * images + shift, images)
                batch = Batch(images, labels, labels, modalities, modalities, torch.arange(32))
                losses = method.switch_losses(run(method, batch), batch)
                first = method.parameter_groups()["switches"][0]
                gradients.append(torch.autograd.grad(sum(losses.values()), first)[0])
        pulls[scale] = float(torch.stack(gradients).mean())
    assert pulls[0.3] > 0.03  # descending, the shared norm loses
    assert abs(pulls[1.0]) < 0.01


@pytest.mark.parametrize("people", [1, 2])
def test_a_batch_that_shows_fewer_than_two_withheld_people_teaches_the_switches_nothing(people):
    method, batch = build(config="search"), make_batch(people)
    losses = method.losses(run(method, batch), batch)
    assert all(value == 0 and value.requires_grad for name, value in losses.items() if name.startswith("switches_"))
    assert losses["id"] > 0


# Checkpoints and recipes


@pytest.mark.slow
def test_files_of_other_networks_and_networks_that_search_do_not_fit_the_layout(tmp_path):
    with torch.device("meta"):
        mpanet = convert_to("mpanet-official", {}, build_method("mpanet", {}, 5).state_dict())
        searching = build_method("cm_nas", {"config": "search"}, 5)
    with pytest.raises(CheckpointError, match=r"cm-nas-official checkpoint: .*has the layout mpanet-official"):
        convert_from("cm-nas-official", mpanet)
    with pytest.raises(CheckpointError, match=r"method\.config: 'search' has no place in the released layout"):
        convert_to("cm-nas-official", {"config": "search"}, searching.state_dict())
    with torch.device("meta"):
        own = build_method("cm_nas", {}, 5).state_dict()
    untrained = {name: torch.zeros(value.shape, dtype=value.dtype) for name, value in own.items()}  # no step counted
    torch.save({"model": convert_to("cm-nas-official", {"config": "stem"}, untrained)}, tmp_path / "untold.pth")
    (tmp_path / "config.txt").write_text("0 " * 53)
    told = [f"method.config=file:{tmp_path / 'config.txt'}"]
    header = import_checkpoint("cm-nas-official", tmp_path / "untold.pth", tmp_path / "ours.safetensors", told)
    assert (header.options["config"], header.num_ids) == (" ".join("0" * 53), 5)
    export_checkpoint("cm-nas-official", tmp_path / "ours.safetensors", tmp_path / "theirs.pth")
    written = torch.load(tmp_path / "theirs.pth", weights_only=True, mmap=True)
    assert written.keys() == {"epoch", "model", "ema", "optimizer"}
    assert len(written["model"]) == 854


def test_the_recipes_numbers_are_those_of_the_fact_sheet():
    for data, decay, every in (("sysu", 0.997, 2), ("llcm", 0.997, 2), ("regdb", 0.968, 10)):
        recipe = load_recipe(f"cm_nas_{data}")
        options = cm_nas.Options(**recipe.method.options)
        assert (options.average_decay, options.average_every, options.triplet_margin) == (decay, every, 0.4)
        assert (options.similarity_weight, options.discrepancy_weight) == (5.0, 0.05)
        assert (recipe.data.size, recipe.schedule.epochs) == ((256, 128), 120)
        assert (recipe.sampler.options["ids"], recipe.sampler.options["pictures"]) == (16, 4)
        rule = recipe.optimiser
        assert (rule.name, rule.lr, rule.group_lr, rule.betas) == ("adam", 0.01, {"backbone": 0.001}, (0.5, 0.999))
        assert rule.weight_decay == 5e-4
        for epoch, factor in {0: 0.01, 5: 0.505, 10: 1, 39: 1, 40: 0.1, 69: 0.1, 70: 0.01, 119: 0.01}.items():
            assert compute_lr_factor(recipe.schedule, epoch) == pytest.approx(factor), epoch
        crop, flip, erasing = augment_options(recipe)
        assert (crop.options.pad, flip.where.probability, erasing.where.probability) == (10, 0.5, 0.5)
        assert (erasing.options.fill, erasing.options.normalisation) == ((0.485, 0.456, 0.406), "imagenet")
