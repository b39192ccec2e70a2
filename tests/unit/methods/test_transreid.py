"""TransReID against what its release gives, in parts, as a small network and whole; and its cameras."""

from dataclasses import asdict
from functools import cache, partial
from pathlib import Path

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from golden_files import list_cases, read_case
from golden_networks import Whole, read_whole, take_step
from tapetum.core.errors import CheckpointError, RecipeError
from tapetum.core.method import TrainingFacts
from tapetum.core.types import UNKNOWN_CAMERA, Batch
from tapetum.core.vectors import normalise
from tapetum.layers.backbones import Tokens, build_any_backbone
from tapetum.layers.branch import HeadOutput
from tapetum.layers.tokens import TokenBackbone
from tapetum.losses.triplet import batch_hard_triplet
from tapetum.methods import absent_at_start, build_method, convert_from, convert_to, transreid
from tapetum.methods._official import to_theirs
from tapetum.runs.checkpoint import Header, load_checkpoint, save_checkpoint, start_from
from tapetum.runs.convert import export_checkpoint, import_checkpoint
from tapetum.runs.recipe import load_recipe
from tapetum.training.optimisation import build_optimisers, set_learning_rates
from tapetum.training.stepping import turns_of

LAYOUT = "transreid-official"
SIZE, CAMIDS, NUM_IDS = (64, 32), (2, 3, 7), 4
NUM_TENSORS = {(True, True): 211, (False, True): 210, (False, False): 158}  # with cameras, with parts


def build(num_ids: int = NUM_IDS, **options) -> nn.Module:
    torch.manual_seed(3)
    return build_method("transreid", transreid.SMALL | options, num_ids, camids=CAMIDS, size=SIZE)


def make_batch(size: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(size) // 2
    camids = torch.tensor(CAMIDS).repeat(size)[:size]
    return Batch(torch.rand(size, 3, *SIZE, generator=generator), labels, labels, camids, torch.zeros_like(labels))


@pytest.mark.parametrize("name", list_cases("modules_transreid", "order"))
def test_patches_are_shuffled_as_in_the_release(golden, name: str) -> None:
    case = golden("modules_transreid", name)
    numbers = (int(case.cfg[key]) for key in ("tokens", "shift", "groups"))
    assert torch.equal(transreid.jigsaw_order(*numbers) + 1, case.out["order"])


def test_stretches_of_any_number_of_groups_are_filled_up_with_the_last_but_one_patch() -> None:
    assert transreid.jigsaw_order(7, 1, 3).tolist() == [0, 3, 6, 1, 4, 5, 2, 5, 5]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """The small network of the golden case with its weights; the fifth of its cameras is called 50."""

    def build_small(name: str, **others) -> tuple[TokenBackbone, Tokens]:
        norm = partial(nn.LayerNorm, eps=1e-6)
        network = VisionTransformer(SIZE, 16, embed_dim=24, depth=3, num_heads=3, mlp_ratio=2, norm_layer=norm)
        tokens = TokenBackbone(network, name, SIZE, patch_stride=others["patch_stride"])
        return tokens, Tokens(24, tokens.grid, 1)

    monkeypatch.setattr(transreid, "build_any_backbone", build_small)
    monkeypatch.setattr(transreid, "DEPTH", 3)
    camids = (10, 20, 30, 40, 50, 60)
    method = transreid.Method(transreid.Options(normalisation="none"), TrainingFacts(5, camids, SIZE))
    state = read_case("modules_transreid", "transreid_eval_before").param
    own = method.state_dict()
    names = zip(own, to_theirs(own, transreid.renaming(method.options)), strict=True)
    method.load_state_dict({ours: state[theirs] for ours, theirs in names})
    return method


@pytest.mark.parametrize("name", ["transreid_eval_before", "transreid_eval_after"])
def test_a_small_network_gives_the_vectors_of_the_release(small, golden, assert_matches, name: str) -> None:
    case = golden("modules_transreid", name)
    (images,) = case.leaves("x")
    output = small.eval()(images, 0 * case.inputs["cam"], 10 * (1 + case.inputs["cam"]))
    found = output.embedding
    if name.endswith("before"):
        found = output.whole_and_parts
    (found * case.inputs["probe_y"]).sum().backward()
    assert_matches(found, case.out["y"], 2e-4)
    assert_matches(images.grad, case.grad["x"], 1e-3)


def test_a_small_network_trains_as_the_release_does(small, golden, assert_matches) -> None:
    case = golden("modules_transreid", "transreid_train")
    (images,) = case.leaves("x")
    output = small.train()(images, 0 * case.inputs["cam"], 10 * (1 + case.inputs["cam"]))
    features = [output.feature, *output.parts.unbind(1)]
    found = {f"feature_{number}": feature for number, feature in enumerate(features)}
    found |= {f"logits_{number}": scores for number, scores in enumerate(output.logits)}
    sum((value * case.inputs[f"probe_{name}"]).sum() for name, value in found.items()).backward()
    for name, value in found.items():
        assert_matches(value, case.out[name], 2e-4)
    assert_matches(images.grad, case.grad["x"], 1e-3)
    for number, neck in enumerate(small.head.necks):
        for statistic in ("running_mean", "running_var"):
            expected = case.out[f"after.bottleneck{f'_{number}' if number else ''}.{statistic}"]
            assert_matches(getattr(neck.norm, statistic), expected, 2e-4)


def test_losses_are_half_the_wholes_and_half_the_mean_of_the_parts() -> None:
    method, batch = build().train(), make_batch()
    output = method(batch.images, batch.modalities, batch.camids)
    losses = method.losses(output, batch)
    identity = [functional.cross_entropy(scores, batch.labels) for scores in output.logits]
    metric = [batch_hard_triplet(each, batch.labels, margin=None) for each in (output.feature, *output.parts.unbind(1))]
    assert output.logits.shape == (5, 8, NUM_IDS)
    expected = {
        "id_global": identity[0] / 2,
        "id_local": sum(identity[1:]) / 4 / 2,
        "triplet_global": metric[0] / 2,
        "triplet_local": sum(metric[1:]) / 4 / 2,
    }
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)


def test_without_parts_there_is_one_classifier_and_each_loss_counts_whole() -> None:
    method, batch = (
        build(jigsaw=False, sie=False, patch_stride=None, triplet_margin=0.3, triplet_weight=2.0),
        make_batch(),
    )
    output = method(batch.images, batch.modalities, batch.camids)
    losses = method.losses(output, batch)
    assert (output.parts, output.logits.shape) == (None, (8, NUM_IDS))
    assert losses.keys() == {"id", "triplet"}
    torch.testing.assert_close(losses["id"], functional.cross_entropy(output.logits, batch.labels))
    torch.testing.assert_close(losses["triplet"], 2 * batch_hard_triplet(output.feature, batch.labels, margin=0.3))
    assert method.embed(batch.images, batch.modalities, batch.camids).shape == (8, 64)


def test_the_plain_network_is_timms_transformer_and_its_class_token() -> None:
    method, batch = build(jigsaw=False, sie=False, patch_stride=None).eval(), make_batch()
    whole, _ = build_any_backbone("test_vit", size=SIZE, pooling="class")
    theirs = {
        name.replace("branch.whole.block", "blocks.5")
        .replace("branch.whole.", "")
        .replace("branch.backbone.", ""): value
        for name, value in method.state_dict().items()
        if name.startswith("branch.")
    }
    whole.load_state_dict(theirs)
    with torch.no_grad():
        vectors = method.embed(batch.images, batch.modalities, batch.camids)
        expected = normalise(whole.eval()(2 * batch.images - 1)[:, 0])
    torch.testing.assert_close(vectors, expected)


def test_the_vector_for_search_is_before_the_necks_or_behind_them() -> None:
    batch = make_batch()
    for place in ("backbone", "head"):
        method = build(test_feature=place).train()
        method(batch.images, batch.modalities, batch.camids)  # so that the necks change something
        with torch.no_grad():
            output = method.eval()(batch.images, batch.modalities, batch.camids)
            vectors = method.embed(batch.images, batch.modalities, batch.camids)
        parts = output.parts.flatten(1) / 4
        raw = output.embedding if place == "head" else torch.cat([output.feature, parts], 1)
        torch.testing.assert_close(vectors, normalise(raw))
        assert vectors.shape == (8, 5 * 64)


def describe(method: nn.Module, images: Tensor, camid: int) -> Tensor:
    camids = torch.full((len(images),), camid)
    with torch.no_grad():
        return method.embed(images, torch.zeros_like(camids), camids)


def test_a_camera_is_found_by_its_camid_whatever_its_number() -> None:
    method = build().eval()
    vectors = method.branch.cameras.vectors.detach()
    assert torch.equal(method.branch.cameras(torch.tensor([7, 2, 3])), vectors[[2, 0, 1]])
    images = make_batch().images
    assert not torch.allclose(describe(method, images, 2), describe(method, images, 3), atol=1e-4)


@pytest.mark.parametrize("camid", [UNKNOWN_CAMERA, 0, 1, 99])
def test_a_camera_that_was_not_trained_counts_as_the_mean_of_those_that_were(camid: int) -> None:
    method, images = build().eval(), make_batch().images
    found = describe(method, images, camid)
    for known in CAMIDS:
        assert not torch.allclose(found, describe(method, images, known), atol=1e-4)
    cameras = method.branch.cameras.vectors
    with torch.no_grad():
        cameras[:] = cameras.mean(0, keepdim=True)
    torch.testing.assert_close(found, describe(method, images, CAMIDS[0]))


def test_only_the_vectors_of_the_cameras_in_the_batch_learn() -> None:
    method, batch = build().train(), make_batch()
    camids = torch.full_like(batch.camids, CAMIDS[1])
    losses = method.losses(method(batch.images, batch.modalities, camids), batch)
    sum(losses.values()).backward()
    moved = method.branch.cameras.vectors.grad.abs().sum((1, 2)) > 0
    assert moved.tolist() == [False, True, False]


def test_cameras_that_nobody_named_are_asked_for() -> None:
    with pytest.raises(RecipeError, match=r"method.sie: true, but it is not known .* or set method.sie: false"):
        build_method("transreid", transreid.SMALL, NUM_IDS, size=SIZE)
    build_method("transreid", transreid.SMALL | {"sie": False}, NUM_IDS, size=SIZE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parts": 11}, r"method.parts: 11 is more than the 10 patches"),
        ({"shift": 11}, r"method.shift: 11 is more than the 10 patches"),
        ({"groups": 11}, r"method.groups: 11 is more than the 10 patches"),
        ({"shift": 0}, r"method.shift: 0 is out of range"),
        ({"backbone": "resnet18"}, "for vision transformers"),
        ({"backbone": "vit_small_patch16_rope_mixed_224"}, r"jigsaw: true, but vit_small_patch16_rope_mixed_224 turns"),
        ({"patch_stride": 20}, "patch_stride 20 is out of range"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build(**options)


def test_both_copies_of_the_last_block_start_from_the_trained_one(tmp_path: Path) -> None:
    trained = timm.create_model("test_vit").state_dict()
    torch.save(trained, tmp_path / "vit.pth")
    method = build()
    method.load_pretrained("none")
    cameras = method.branch.cameras.vectors.detach().clone()
    method.load_pretrained(str(tmp_path / "vit.pth"))
    for last in (method.branch.whole, method.branch.local):
        assert torch.equal(last.block.attn.qkv.weight, trained["blocks.5.attn.qkv.weight"])
        assert torch.equal(last.norm.weight, trained["norm.weight"])
    assert torch.equal(method.branch.backbone.blocks[4].mlp.fc1.weight, trained["blocks.4.mlp.fc1.weight"])
    assert torch.equal(method.branch.backbone.patch_embed.proj.weight, trained["patch_embed.proj.weight"])
    assert torch.equal(method.branch.cameras.vectors, cameras)


def test_blocks_are_left_out_more_often_the_later_they_come() -> None:
    method = build(drop_path=0.1)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in method.branch.backbone.blocks]
    rates += [last.block.drop_path1.drop_prob for last in (method.branch.whole, method.branch.local)]
    assert rates == pytest.approx([0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.1])


def test_the_published_schedule_gives_the_first_epochs_rates() -> None:
    for data in ("night600", "market1501"):
        recipe = load_recipe(f"transreid_{data}")
        method = build()
        (optimiser,) = build_optimisers(method, method.parameter_groups(), recipe.optimiser, turns_of(method))
        for epoch, (rate, of_biases) in {
            0: (0.001664, 0.003264),
            4: (0.0079659, 0.0159315),
            119: (1.6e-5, 1.6e-5),
        }.items():
            set_learning_rates(optimiser.inner, recipe.schedule, epoch)
            rates = {group["name"]: group["lr"] for group in optimiser.inner.param_groups}
            assert rates.keys() == {"backbone", "backbone_bias", "head"}
            assert rates["backbone"] == rates["head"] == pytest.approx(rate, rel=1e-4)
            assert rates["backbone_bias"] == pytest.approx(of_biases, rel=1e-4)
        assert all(group["weight_decay"] == 1e-4 for group in optimiser.inner.param_groups)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third network beside those of the release, of as many tensors and a quarter of the weights."""
    monkeypatch.setattr(transreid, "BACKBONES", transreid.BACKBONES | {192: "deit_tiny_patch16_224"})


@cache
def make_released(
    *, sie: bool, jigsaw: bool, stride: int | None = None, size: tuple[int, int] = TrainingFacts.size
) -> dict[str, Tensor]:
    options = {"backbone": "deit_tiny_patch16_224", "sie": sie, "jigsaw": jigsaw}
    options["patch_stride"] = stride or (12 if jigsaw else 16)
    with torch.device("meta"):
        method = build_method("transreid", options, NUM_IDS, camids=(1, 2, 3) if sie else (), size=size)
    generator = torch.Generator().manual_seed(7)
    state = {name: torch.rand(value.shape, generator=generator) for name, value in method.state_dict().items()}
    return convert_to(LAYOUT, asdict(method.options), state)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize(("sie", "jigsaw"), NUM_TENSORS)
@pytest.mark.slow
def test_a_released_checkpoint_comes_in_and_goes_out_unchanged(sie: bool, jigsaw: bool, tmp_path: Path) -> None:
    released = make_released(sie=sie, jigsaw=jigsaw)
    assert len(released) == NUM_TENSORS[sie, jigsaw]
    dead = tuple(("base.fc.", "base.blocks.11.", "base.norm.")[: 3 if jigsaw else 1])
    given = {f"module.{name}": value + 1 if name.startswith(dead) else value for name, value in released.items()}
    torch.save(given, tmp_path / "transformer_120.pth")
    header = import_checkpoint(LAYOUT, tmp_path / "transformer_120.pth", tmp_path / "ours.safetensors")
    assert (header.method, header.num_ids, header.size) == ("transreid", NUM_IDS, (256, 128))
    assert header.camids == ((1, 2, 3) if sie else ())
    assert header.recipe["name"] == "transreid_official"
    method = load_checkpoint(tmp_path / "ours.safetensors").network
    assert (method.branch.cameras is None, method.branch.local is None) == (not sie, not jigsaw)
    export_checkpoint(LAYOUT, tmp_path / "ours.safetensors", tmp_path / "theirs.pth")
    written = torch.load(tmp_path / "theirs.pth", weights_only=True)
    assert written.keys() == released.keys()
    for name, value in written.items():
        assert torch.equal(value, released[name].to(value.dtype)), name
        assert not name.startswith(dead) or not value.any()


@pytest.mark.slow
@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize(("stride", "size"), [(16, (256, 128)), (11, (256, 128)), (12, (384, 128))])
def test_a_released_checkpoint_with_parts_tells_stride_and_size_by_its_patches(
    stride: int, size: tuple[int, int], tmp_path: Path
) -> None:
    released = make_released(sie=True, jigsaw=True, stride=stride, size=size)
    torch.save(released, tmp_path / "transformer_120.pth")
    header = import_checkpoint(LAYOUT, tmp_path / "transformer_120.pth", tmp_path / "ours.safetensors")
    assert (header.size, header.options["patch_stride"]) == (size, stride)
    method = load_checkpoint(tmp_path / "ours.safetensors").network
    patches = released["base.pos_embed"].shape[1] - 1
    assert method.branch.order.shape == (4, patches // 4)
    assert describe(method, torch.rand(1, 3, *size), 1).shape == (1, 5 * 192)
    export_checkpoint(LAYOUT, tmp_path / "ours.safetensors", tmp_path / "theirs.pth")
    assert torch.load(tmp_path / "theirs.pth", weights_only=True).keys() == released.keys()


@pytest.mark.parametrize(
    ("change", "camids", "message"),
    [
        ({"patch_stride": 8}, CAMIDS, r"'branch.backbone.pos_embed' is \(1, 11, 64\) where .* \(1, 22, 64\)"),
        ({}, (1, 2), r"'branch.cameras.vectors' is \(3, 1, 64\) where .* \(2, 1, 64\)"),
        ({"sie": False}, (), r"1 unknown tensor\(s\), first 'branch.cameras.vectors'"),
        ({"jigsaw": False}, CAMIDS, r"unknown tensor\(s\), first 'branch.local.block"),
    ],
)
def test_no_training_begins_with_weights_of_another_stride_or_other_cameras(
    change: dict[str, object], camids: tuple[int, ...], message: str, tmp_path: Path
) -> None:
    file = tmp_path / "begun.safetensors"
    save_checkpoint(file, build(), Header("transreid", transreid.SMALL, NUM_IDS, camids=CAMIDS, size=SIZE))
    network = build_method("transreid", transreid.SMALL | change, NUM_IDS, camids=camids, size=SIZE)
    with pytest.raises(CheckpointError, match=rf"begun.safetensors: .*{message}.*; supply a file of this network"):
        start_from(network, load_checkpoint(file), absent_at_start("transreid"))


@pytest.mark.slow
@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("base.fc.bias"), r"1 missing tensor\(s\), first 'base.fc.bias'"),
        (lambda state: state.pop("b2.1.weight"), "b2.1.weight"),
        (lambda state: state.update({"b3.weight": torch.zeros(1)}), "b3.weight"),
        (lambda state: state.update({"base.pos_embed": torch.zeros(1, 100, 192)}), "99 patches of 192 channels"),
        (lambda state: state.pop("classifier.weight"), "there is no tensor 'classifier.weight'"),
    ],
)
def test_a_file_of_another_layout_is_refused(change, message: str) -> None:
    state = dict(make_released(sie=True, jigsaw=True))
    change(state)
    with pytest.raises(CheckpointError, match=message):
        convert_from(LAYOUT, state)


def test_a_network_that_was_not_released_does_not_go_out() -> None:
    method = build()
    with pytest.raises(CheckpointError, match="of none of its networks"):
        convert_to(LAYOUT, asdict(method.options), method.state_dict())


def test_idf_sees_through_its_eyes() -> None:
    options = {
        "extractor": "transreid",
        "extractor_options": transreid.SMALL,
        "curve_width": 4,
        "normalisation": "half",
    }
    method = build_method("idf", options, NUM_IDS, camids=CAMIDS, size=SIZE).train()
    batch = make_batch()
    output = method(batch.images, batch.modalities, batch.camids)
    losses = method.losses(output, batch)
    parts = ("id_global", "id_local", "triplet_global", "triplet_local")
    expected = {f"{loss}_{branch}" for loss in parts for branch in ("enhanced", "night")} | {
        "id_fused",
        "triplet_fused",
    }
    assert expected <= losses.keys()
    sum(losses.values()).backward()
    assert all(weights.grad is not None for weights in method.parameters() if weights.requires_grad)
    method.eval()
    with torch.no_grad():
        vectors = method.embed(batch.images, batch.modalities, batch.camids)
        elsewhere = method.embed(batch.images, batch.modalities, batch.camids.flip(0))
    assert vectors.shape == (8, (5 + 5 + 1) * 64)
    assert not torch.allclose(vectors, elsewhere, atol=1e-4)


def test_idf_searches_with_parts_before_the_necks_where_it_is_asked_for_them() -> None:
    options = {"extractor": "transreid", "extractor_options": transreid.SMALL, "curve_width": 4}
    torch.manual_seed(3)
    method = build_method("idf", {**options, "test_feature": "parts"}, NUM_IDS, camids=CAMIDS, size=SIZE).train()
    batch = make_batch()
    method(batch.images, batch.modalities, batch.camids)  # so that the necks change something
    with torch.no_grad():
        output = method.eval()(batch.images, batch.modalities, batch.camids)
        vectors = method.embed(batch.images, batch.modalities, batch.camids)
    enhanced, night, fused = (output.heads[name] for name in "evf")
    streams = [vector for head in (enhanced, night) for vector in (head.feature, head.parts.flatten(1) / 4)]
    torch.testing.assert_close(vectors, normalise(torch.cat([*streams, fused.feature], 1)))
    assert torch.equal(fused.feature, output.features["f"])
    assert vectors.shape == (8, (5 + 5 + 1) * 64)
    assert not torch.allclose(
        vectors, normalise(torch.cat([output.heads[name].embedding for name in "evf"], 1)), atol=1e-2
    )


def read_images(whole: Whole, kind: str, name: str) -> tuple[Tensor, Tensor]:
    """Pictures and camids; the file counts cameras from 0."""
    images, cameras = whole.pictures(kind, name), whole.case.arrays.get(f"{kind}/in/cameras")
    return images, torch.full((len(images),), UNKNOWN_CAMERA) if cameras is None else torch.from_numpy(cameras) + 1


def check_tokens(whole: Whole, name: str, tokens: Tensor) -> None:
    whole.near(f"eval/{name}.first", tokens[:, 0])
    whole.near(f"eval/{name}.patch", tokens[:, :: tokens.shape[1] // 12, :: tokens.shape[2] // 24])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["transreid", "transreid_no_sie", "transreid_vit_baseline"])
def test_a_whole_published_network_gives_its_values_and_takes_its_step(name: str) -> None:
    whole = read_whole(name, LAYOUT, changed={"drop_path": 0.0})
    case, method = whole.case, whole.method.eval()
    images, camids = read_images(whole, "eval", "visible")
    with torch.no_grad():
        output = method(images, 0 * camids, camids)
        whole.near("eval/embedding", method.embed(images, 0 * camids, camids))
        branch = method.branch
        tokens = branch.backbone.embed(method.normalise(images))
        if branch.cameras is not None:
            tokens = tokens + 3 * branch.cameras(camids)
        for number, block in enumerate(branch.backbone.blocks):
            tokens = branch.backbone.run_blocks(tokens, [block], first=number)
            if number in (0, 5, 10):
                check_tokens(whole, f"block{number}", tokens)
        behind = branch.whole.norm(branch.whole.block(tokens))
        check_tokens(whole, "global_branch" if branch.local is not None else "norm", behind)
    whole.near("eval/feature_before", output.whole_and_parts)
    whole.near("eval/feature_after", output.embedding)

    images, camids = read_images(whole, "train", "images")
    labels = torch.from_numpy(case.arrays["train/in/labels"])
    recipe = load_recipe("transreid_night600")
    method.train()
    batch = Batch(images, labels, labels, camids, 0 * labels)
    losses = method.losses(method(images, batch.modalities, camids), batch)
    named = {key.removeprefix("train/out/loss.") for key in case.arrays if key.startswith("train/out/loss.")}
    assert losses.keys() == named - {"total"}
    for loss, value in losses.items():
        whole.near(f"train/loss.{loss}", value)
    total = sum(losses.values())
    whole.near("train/loss.total", total)
    whole.check_step(take_step(method, total, recipe))
    whole.check_statistics(method)


def test_a_head_for_other_parts_is_refused() -> None:
    head = transreid.Head(4, NUM_IDS, parts=2)
    with pytest.raises(ValueError, match="zip"):
        head(transreid.Features(torch.zeros(2, 4), torch.zeros(2, 3, 4)))
    assert isinstance(head(transreid.Features(torch.zeros(2, 4), torch.zeros(2, 2, 4))), HeadOutput)
