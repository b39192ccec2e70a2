"""ABD-Net against what its release gives, in parts and whole; its epochs, its checkpoints, and IDF on top of it."""

import copy
import dataclasses
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from golden.networks.fill import uniform
from golden_networks import Whole, read_whole, take_step
from tapetum.core.errors import CheckpointError, RecipeError
from tapetum.core.types import Batch
from tapetum.core.vectors import normalise
from tapetum.layers.attention import ChannelAttention, PositionAttention
from tapetum.layers.branch import RegularisesWeights
from tapetum.losses.triplet import batch_hard_triplet
from tapetum.methods import abd_net, build_method, convert_from, convert_to
from tapetum.methods._official import to_theirs
from tapetum.runs.checkpoint import load_checkpoint
from tapetum.runs.convert import export_checkpoint, import_checkpoint
from tapetum.runs.recipe import load_recipe
from tapetum.training.optimisation import build_optimisers, compute_lr_factor
from tapetum.training.stepping import freeze, turns_of

LAYOUT = "abd-net-official"
NUM_IDS, SIZE = 4, (64, 32)
EPOCH = 33  # of the golden step: the release's 23, behind ten in which the trunk stands still


def build(**options) -> nn.Module:
    torch.manual_seed(3)
    return build_method("abd_net", abd_net.SMALL | options, NUM_IDS, size=SIZE)


def make_batch(size: int = 8, epoch: int = 0, step: int = 0) -> Batch:
    labels = torch.arange(size) // 2
    images = torch.rand(size, 3, *SIZE, generator=torch.Generator().manual_seed(5))
    return Batch(images, labels, labels, labels, torch.zeros_like(labels), epoch=epoch, step=step)


def run(method: nn.Module, batch: Batch):
    return method(batch.images, batch.modalities, batch.camids)


def losses_of(method: nn.Module, batch: Batch) -> dict[str, Tensor]:
    return method.losses(run(method, batch), batch)


@pytest.mark.parametrize("kind", ["identity", "cam", "pam"])
def test_a_head_for_a_strip_equals_the_originals(golden, assert_matches, kind: str) -> None:
    case = golden("abd_net", f"abd_head_{kind}_eval")
    attention = {"identity": nn.Identity(), "cam": ChannelAttention(), "pam": PositionAttention(16)}[kind]
    head = abd_net.MapHead(32, attention, 0.1).eval()
    own = head.state_dict()
    theirs = dict(zip(own, to_theirs(own, abd_net.PARTS_OF_HEAD), strict=True))
    head.load_state_dict({ours: case.param[name] for ours, name in theirs.items()})
    (x,) = case.leaves("x")
    y = head(x)
    (y * case.inputs["probe_y"]).sum().backward()
    assert_matches(y, case.out["y"], 2e-4)
    assert_matches(x.grad, case.grad["x"], 1e-3)
    for name, weights in head.named_parameters():
        if name != "attention.key.bias":  # zero but for rounding: a softmax takes it away
            assert_matches(weights.grad, case.grad[f"param.{theirs[name]}"], 1e-3)


@pytest.fixture(scope="module")
def whole() -> Whole:
    """As the release has it, with no dropout."""
    return read_whole("abd_net", LAYOUT, changed={"ow_scope": "direct", "dropout": 0.0, "map_dropout": 0.0})


@pytest.mark.slow
def test_the_vector_for_search_and_the_maps_before_it_are_the_releases(whole) -> None:
    case, method = whole.case, whole.method.eval()
    branch, strips = method.branch, method.head.strips
    places = {
        "layer1": branch.backbone.layer1,
        "shallow_cam": branch.shallow,
        "layer3": branch.backbone.layer3,
        "global_layer4": branch.backbone.layer4,
        "abd_layer4": branch.strip_stage,
        "reduction": strips.reduction,
        "map_before": strips.heads["plain"],
        "map_cam": strips.heads["channel"],
        "map_pam": strips.heads["position"],
        "map_after": strips.merge,
    }
    maps: dict[str, list[Tensor]] = {name: [] for name in places}
    hooks = [
        place.register_forward_hook(lambda module, inputs, output, name=name: maps[name].append(output))
        for name, place in places.items()
    ]
    images = whole.pictures("eval", "visible")
    nowhere = torch.zeros(len(images), dtype=torch.int64)
    with torch.no_grad():
        output = method(images, nowhere, nowhere)
        for hook in hooks:
            hook.remove()
        vectors = method.embed(images, nowhere, nowhere, mirror=True)
    made = {name: found[0] for name, found in maps.items() if len(found) == 1}
    made |= {
        f"{name}_{strip}": value for name, found in maps.items() if len(found) > 1 for strip, value in enumerate(found)
    }
    whole.near_maps(made)
    whole.near("eval/feature", output.embedding)
    whole.near("eval/logits", output.logits.transpose(0, 1))
    expected = normalise(torch.from_numpy(case.arrays["eval/out/embedding"]))
    assert (vectors - expected).abs().max() <= case.tolerance("eval/embedding") * expected.abs().max()


@pytest.mark.slow
def test_a_training_step_with_the_recipe_is_the_releases(whole, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses with both kinds of orthogonality, gradients, running statistics, and how far each weight moves."""

    def fixed(name: str, count: int, batch: Batch, *, normal: bool) -> Tensor:
        drawn = torch.from_numpy(uniform(f"{'of' if normal else 'ow'} start", count, case.info["seed"])).float()
        return (drawn if normal else (drawn + 1) / 2).expand(2, -1)

    monkeypatch.setattr(abd_net, "draw_starts", fixed)
    case, method = whole.case, copy.deepcopy(whole.method).train()
    recipe = load_recipe("abd_net_market1501")
    labels = torch.from_numpy(case.arrays["train/in/labels"])
    images = whole.pictures("train", "images")
    batch = Batch(images, labels, labels, labels, torch.zeros_like(labels), epoch=EPOCH)

    losses = losses_of(method, batch)
    assert losses.keys() == {"id", "triplet", "of", "ow"}
    total = torch.stack(list(losses.values())).sum()
    (optimiser,) = build_optimisers(method, method.parameter_groups(), recipe.optimiser, turns_of(method))
    decays = {group["weight_decay"] for group in optimiser.inner.param_groups}
    assert decays == set(case.arrays["train/cfg/weight_decay"])
    step = take_step(method, total, recipe, EPOCH)

    for name, value in losses.items():
        whole.near(f"train/loss.{name}", value)
    whole.near("train/loss.total", total)
    whole.check_step(step)
    whole.check_statistics(method)


def turned(released: dict[str, Tensor]) -> dict[str, Tensor]:
    """With the branches numbered the other way."""
    other = {"branches.0.": "branches.1.", "branches.1.": "branches.0."}
    return {other.get(name[:11], name[:11]) + name[11:]: value for name, value in released.items()}


def test_a_released_checkpoint_comes_in_however_its_branches_are_numbered(whole) -> None:
    released = whole.released
    assert len(released) == 450
    gamma = "common_branch.shallow_cam._cam_module.gamma"
    former = gamma.replace("_cam_module", "_cam_module_abc")
    renamed = {former if name == gamma else name: value for name, value in released.items()}
    for given in (released, turned(released), released | {former: released[gamma]}, renamed, turned(renamed)):
        settled = abd_net.settle_names(given)
        assert settled.keys() == released.keys()
        assert all(settled[name] is value for name, value in released.items())


@pytest.mark.slow
def test_a_released_file_comes_in_and_goes_out_with_equal_tensors_numbered_as_published(whole, tmp_path: Path) -> None:
    released, saved = whole.released, whole.case.checkpoint(torch.from_numpy)
    saved["state_dict"] = {f"module.{name}": value for name, value in turned(released).items()}
    file = tmp_path / whole.case.info["checkpoint"]["file"]
    torch.save(saved, file)  # with scores of NumPy's beside the tensors
    header = import_checkpoint(LAYOUT, file, tmp_path / "ours.safetensors")
    assert (header.method, header.num_ids) == ("abd_net", 300)
    assert header.recipe["data"] == load_recipe("abd_net_market1501").model_dump(mode="json")["data"]
    loaded = load_checkpoint(tmp_path / "ours.safetensors").network.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in whole.method.state_dict().items())
    export_checkpoint(LAYOUT, tmp_path / "ours.safetensors", tmp_path / "theirs.pth")
    again = torch.load(tmp_path / "theirs.pth", weights_only=True)
    assert again.keys() == {"state_dict", "rank1", "epoch"}
    assert again["state_dict"].keys() == released.keys()
    assert all(torch.equal(again["state_dict"][name], value) for name, value in released.items())


def test_a_file_of_another_network_is_refused(whole) -> None:
    released = whole.released
    fewer = {name: value for name, value in released.items() if name != "branches.1.1.sum_conv.1.bias"}
    neither = {name: value for name, value in released.items() if not name.startswith("branches.1.1.reduction")}
    for broken, message in (
        (released | {"extra.weight": torch.zeros(1)}, r"1 unknown tensor\(s\), first 'extra.weight'"),
        (fewer, r"1 missing tensor\(s\), first 'branches.1.1.sum_conv.1.bias'"),
        (neither, "no tensor 'branches.1.1.reduction.0.weight'"),
        ({name: v for name, v in released.items() if ".classifiers." not in name}, "no strip's classifier"),
        (released | {"branches.1.1.classifiers.1.bias": torch.zeros(3)}, r"classifiers.1.bias' is \(3,\)"),
    ):
        with pytest.raises(CheckpointError, match=message):
            convert_from(LAYOUT, broken)


def test_another_network_does_not_fit_the_released_layout() -> None:
    for options in ({"backbone": "resnet18"}, {"last_stride": 2}):
        with torch.device("meta"):
            state = build_method("abd_net", options, 3).state_dict()
        with pytest.raises(CheckpointError, match="has no place in the released layout"):
            convert_to(LAYOUT, options, state)


def test_losses_are_means_over_the_whole_and_the_strips() -> None:
    method, batch = build(of_weight=0.0, ow_weight=0.0, triplet_weight=0.7, parts=2).train(), make_batch()
    output = run(method, batch)
    losses = method.losses(output, batch)
    assert output.logits.shape == (3, 8, NUM_IDS)
    assert output.embedding.shape == (8, 3 * 16)
    identity = [functional.cross_entropy(each, batch.labels, label_smoothing=0.1) for each in output.logits]
    features = [output.embedding[:, start : start + 16] for start in (0, 16, 32)]
    metric = [batch_hard_triplet(each, batch.labels, margin=1.2) for each in features]
    assert losses.keys() == {"id", "triplet"}
    torch.testing.assert_close(losses["id"], sum(identity) / 3)
    torch.testing.assert_close(losses["triplet"], 0.7 * sum(metric) / 3)
    assert losses_of(build(of_weight=0.0, ow_weight=0.0, triplet_weight=0.0).train(), batch).keys() == {"id"}


def gap(matrix: Tensor, starts: Tensor) -> Tensor:
    product = matrix @ matrix.T
    eigenvalues = []
    for start, shift in ((starts[0], 0.0), (starts[1], None)):
        shifted = product - torch.eye(len(product)) * (eigenvalues[0] if shift is None else 0.0)
        x = shifted @ start
        eigenvalues.append((x @ shifted @ x) / (x @ x) + (eigenvalues[0] if shift is None else 0.0))
    return eigenvalues[0] - eigenvalues[1]


def test_orthogonality_of_features_equals_a_slow_loop_over_positions_maps_and_pictures() -> None:
    method, batch = build(of_weight=1e-3, of_shallow=0.1).train(), make_batch(epoch=2, step=5)
    batch = dataclasses.replace(batch, images=functional.interpolate(batch.images, scale_factor=2))
    with torch.no_grad():
        output = run(method, batch)
        found = method.losses(output, batch)["of"]
    positions = {"plain": 2, "channel": 2, "position": 2, "merged": 2, "shallow": 1}
    assert len(output.maps) == sum(positions.values())
    expected = 0.0
    for position, count in positions.items():
        for name in [each for each in output.maps if each.startswith(position)]:
            maps = output.maps[name].flatten(2)
            starts = abd_net.draw_starts(name, maps.shape[1], batch, normal=True)
            of_map = sum(float(gap(picture, starts)) for picture in maps) * 1e-3 / (len(batch) / 32)
            expected += of_map / count * (0.1 if position == "shallow" else 1.0)
    assert float(found) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("scope", ["all", "direct"])
def test_orthogonality_of_weights_equals_a_slow_loop_over_convolutions(scope: str) -> None:
    method, batch = build(ow_scope=scope).train(), make_batch()
    branch = method.branch
    convolutions = {name: module for name, module in branch.named_modules() if isinstance(module, nn.Conv2d)}
    stem = {name: module for name, module in convolutions.items() if name.startswith("backbone.conv1")}
    assert stem
    assert {"backbone.layer4.0.conv1", "strip_stage.0.conv1"} < convolutions.keys()
    if scope == "direct":
        convolutions = stem
    expected = 0.0
    for module in convolutions.values():
        weight = module.weight.detach().flatten(1)
        starts = abd_net.draw_starts("weights", len(weight), batch, normal=False)
        expected += 10 * 1e-3 * float(gap(weight, starts)) ** 2
    found = branch.weight_losses(batch)
    assert found.keys() == {"ow"}
    assert float(found["ow"].detach()) == pytest.approx(expected, rel=1e-4)


def test_orthogonality_begins_in_the_epochs_that_the_options_say() -> None:
    method = build(of_from=3, ow_from=1).train()
    for epoch, names in enumerate([{"id", "triplet"}, *2 * [{"id", "triplet", "ow"}], {"id", "triplet", "ow", "of"}]):
        assert losses_of(method, make_batch(epoch=epoch)).keys() == names
    never = build(of_weight=0.0, ow_weight=0.0).train()
    assert losses_of(never, make_batch(epoch=50)).keys() == {"id", "triplet"}


def test_starts_of_power_iterations_differ_by_step_and_purpose_and_not_by_call() -> None:
    first, later = make_batch(), make_batch(step=1)
    drawn = abd_net.draw_starts("plain_0", 6, first, normal=True)
    assert drawn.shape == (2, 6)
    assert torch.equal(drawn, abd_net.draw_starts("plain_0", 6, first, normal=True))
    for other in (
        abd_net.draw_starts("plain_0", 6, later, normal=True),
        abd_net.draw_starts("plain_1", 6, first, normal=True),
        abd_net.draw_starts("plain_0", 6, make_batch(epoch=1), normal=True),
    ):
        assert not torch.equal(drawn, other)
    uniform_ones = abd_net.draw_starts("weights", 500, first, normal=False)
    assert (uniform_ones.min() >= 0, uniform_ones.max() < 1, uniform_ones.mean() > 0.4) == (True, True, True)


def test_more_iterations_see_a_wider_gap() -> None:
    few, many = (build(power_iterations=count).train() for count in (1, 20))
    batch = make_batch()
    with torch.no_grad():
        assert few.branch.weight_losses(batch)["ow"] < many.branch.weight_losses(batch)["ow"]


def test_the_vector_for_search_is_of_whole_and_strips_or_the_pooled_map() -> None:
    batch = make_batch()
    for place, width in (("head", 3 * 16), ("backbone", 96)):
        method = build(test_feature=place).eval()
        with torch.no_grad():
            output = run(method, batch)
            vectors = method.embed(batch.images, batch.modalities, batch.camids)
            mirrored = run(method, dataclasses.replace(batch, images=batch.images.flip(3)))
            both = method.embed(batch.images, batch.modalities, batch.camids, mirror=True)
        raw, other = ((each.embedding if place == "head" else each.feature) for each in (output, mirrored))
        assert vectors.shape == (8, width) == raw.shape
        torch.testing.assert_close(vectors, normalise(raw))
        torch.testing.assert_close(both, normalise(raw + other))
        assert not output.maps, "maps are for losses; outside a training they would cost memory"


def test_each_kind_of_attention_can_be_left_out() -> None:
    method = build(shallow_attention=False, channel_attention=False, position_attention=False, parts=1).train()
    batch = make_batch()
    output = run(method, batch)
    assert output.maps.keys() == {"plain_0", "merged_0", "shallow"}
    assert output.logits.shape == (2, 8, NUM_IDS)
    assert not any(isinstance(module, ChannelAttention | PositionAttention) for module in method.modules())
    sum(method.losses(output, batch).values()).backward()
    assert all(weights.grad is not None for weights in method.parameters())


def test_strips_of_a_map_that_cannot_be_divided_evenly_cover_all_its_rows() -> None:
    torch.manual_seed(1)
    strips = abd_net.StripsHead(abd_net.Options(**abd_net.SMALL), 8, NUM_IDS).train()
    _, _, maps = strips(torch.rand(4, 8, 5, 2))
    assert [maps[f"plain_{number}"].shape[2] for number in (0, 1)] == [3, 2]


def test_more_strips_than_rows_are_refused() -> None:
    build(parts=2)  # of 64 / 32 rows
    with pytest.raises(RecipeError, match=r"method\.parts: 3 strips of a map of 2 row\(s\); use fewer"):
        build(parts=3)


def test_an_efficientnet_is_a_trunk_too() -> None:
    method, batch = build(backbone="test_efficientnet").train(), make_batch()
    losses = losses_of(method, batch)
    sum(losses.values()).backward()
    assert losses.keys() == {"id", "triplet", "ow", "of"}
    assert all(weights.grad is not None for weights in method.parameters())


def test_filters_that_see_different_channels_are_orthogonal_as_they_are() -> None:
    branch, batch = build(backbone="test_efficientnet").train().branch, make_batch()
    depthwise = [module for module in branch.modules() if isinstance(module, nn.Conv2d) and module.groups > 1]
    before = branch.weight_losses(batch)["ow"]
    assert depthwise
    with torch.no_grad():
        for module in depthwise:
            module.weight.mul_(torch.linspace(1, 9, len(module.weight)).view(-1, 1, 1, 1))
    assert torch.equal(branch.weight_losses(batch)["ow"], before)


def test_both_copies_of_the_last_stage_start_from_the_same_pretrained_weights(tmp_path: Path) -> None:
    method, other = build(), build_method("abd_net", abd_net.SMALL, NUM_IDS, size=SIZE)
    state = {
        name: torch.rand_like(v) if v.is_floating_point() else v
        for name, v in method.branch.backbone.state_dict().items()
    }
    torch.save(state, tmp_path / "trained.pth")
    other.load_pretrained(str(tmp_path / "trained.pth"))
    own = other.branch.strip_stage.state_dict()
    assert own
    for name, value in own.items():
        assert torch.equal(value, state[f"layer4.{name}"]), name


def test_new_layers_start_as_the_release_starts_them() -> None:
    torch.manual_seed(0)
    strips = abd_net.StripsHead(abd_net.Options(), 512, 50)
    convolution, norm, _ = strips.heads["plain"].before
    assert float(convolution.weight.detach().std()) == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.02)
    assert float(norm.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert float(norm.weight.detach().mean()) == pytest.approx(1, rel=0.01)
    assert float(strips.classifiers[0].weight.detach().std()) == pytest.approx(0.01, rel=0.05)
    biases = [value for name, value in strips.named_parameters() if name.endswith("bias")]
    assert len(biases) == 7 + 3 + 3 + 1 + 2
    assert not any(value.any() for value in biases)
    assert not strips.heads["channel"].attention.gamma.any()


@pytest.mark.parametrize("data", ["night600", "market1501"])
def test_the_recipe_trains_the_new_layers_alone_for_ten_epochs_and_then_all_as_published(data: str) -> None:
    recipe = load_recipe(f"abd_net_{data}")
    assert recipe.data.size == (384, 128)
    assert (recipe.schedule.epochs, recipe.optimiser.frozen) == (90, {"backbone": 10})
    assert (recipe.optimiser.name, recipe.optimiser.lr, recipe.optimiser.weight_decay) == ("adam", 3e-4, 5e-4)
    for epoch, factor in {0: 1, 9: 1, 10: 1, 29: 1, 30: 0.1, 49: 0.1, 50: 0.01, 89: 0.01}.items():
        assert compute_lr_factor(recipe.schedule, epoch) == pytest.approx(factor), epoch
    assert (recipe.sampler.options["ids"], recipe.sampler.options["pictures"], recipe.sampler.global_batch) == (
        16,
        4,
        64,
    )
    assert [entry["name"] for entry in recipe.augment] == ["resize_crop", "flip", "erasing"]
    with torch.device("meta"):
        method = build_method("abd_net", recipe.method.options, 300, size=recipe.data.size)
    freeze(method, method.parameter_groups(), ["backbone"])
    moving = to_theirs({name: v for name, v in method.named_parameters() if v.requires_grad}, abd_net.RENAMING)
    words = {name.split(".")[3] for name in moving}
    assert all(name.startswith("branches.") for name in moving)
    assert words == {"fc", "classifier", "reduction", "sum_conv", "classifiers"} | {
        f"{each}_module" for each in ("before", "cam", "pam")
    }
    still = to_theirs({name: v for name, v in method.named_parameters() if not v.requires_grad}, abd_net.RENAMING)
    assert {name.split(".")[0] for name in still} == {"common_branch", "branches"}
    assert all(name.startswith("common_branch.") or ".0.backbone." in name for name in still)
    assert not any(module.training for module in method.branch.modules()), "statistics of what is frozen stand still"
    assert method.head.training
    options = method.options
    assert options.ow_scope == "direct", "the release's, though the default is the paper's"
    assert (options.ow_from, options.of_from) == (10, EPOCH), "no orthogonality while the trunk stands still"


def test_idf_takes_it_as_its_extractor_and_each_branch_keeps_its_own_weights_orthogonal() -> None:
    options = {"extractor": "abd_net", "extractor_options": abd_net.SMALL, "curve_width": 4}
    method = build_method("idf", options | {"normalisation": "imagenet"}, NUM_IDS, size=SIZE).train()
    batch = make_batch()
    assert isinstance(method.second, RegularisesWeights)
    losses = losses_of(method, batch)
    own = [float(branch.weight_losses(batch)["ow"].detach()) for branch in (method.second, method.night)]
    assert [float(losses[f"ow_{branch}"].detach()) for branch in ("enhanced", "night")] == own
    assert own[0] != own[1]
    named = {f"{loss}_{branch}" for loss in ("id", "triplet", "of", "ow") for branch in ("enhanced", "night")}
    assert named | {"id_fused", "triplet_fused"} <= losses.keys()
    assert "of_fused" not in losses
    sum(losses.values()).backward()
    assert all(weights.grad is not None for weights in method.parameters() if weights.requires_grad)
    with torch.no_grad():
        vectors = method.eval().embed(batch.images, batch.modalities, batch.camids)
    assert vectors.shape == (8, 3 * 16 + 3 * 16 + 16)


def test_idf_on_one_shared_extractor_counts_its_weights_once() -> None:
    options = {"extractor": "abd_net", "extractor_options": abd_net.SMALL, "curve_width": 4, "share_streams": True}
    losses = losses_of(build_method("idf", options, NUM_IDS, size=SIZE).train(), make_batch())
    assert "ow_enhanced" in losses
    assert "ow_night" not in losses


def test_options_survive_a_checkpoint_as_plain_values() -> None:
    options = build(of_from=4).options
    assert abd_net.Options(**asdict(options)) == options
