"""PCB in both forms, refined parts and their second stage, and within IDF; at published size in test_pcb_whole.py."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.errors import CheckpointError, RecipeError
from tapetum.core.types import Batch
from tapetum.layers.backbones import build_backbone
from tapetum.losses.distillation import distillation
from tapetum.methods import build_method, convert_from, convert_to, pcb
from tapetum.runs.convert import export_checkpoint, import_checkpoint
from tapetum.runs.recipe import Recipe, load_recipe
from tapetum.training.train import train

PARTS, WIDTH, REDUCED, NUM_IDS = 3, 96, 16, 3  # WIDTH is that of the backbone for tests
FORMS = [{"reduction": "each"}, {"reduction": "shared"}, {"reduction": "shared", "pooling": "refined"}]
LAYOUT = "pcb-rpp-official"


def build(**options: object) -> nn.Module:
    torch.manual_seed(0)
    return build_method("pcb", pcb.SMALL | {"parts": PARTS} | options, NUM_IDS)


def make_batch() -> Batch:
    labels = torch.arange(6) // 2
    images = torch.rand(6, 3, 192, 64, generator=torch.Generator().manual_seed(3))  # maps of 6 x 2
    return Batch(images, labels, labels, labels, torch.zeros_like(labels))


def run(method: nn.Module, batch: Batch):
    return method(batch.images, batch.modalities, batch.camids)


def settled(**options: object) -> nn.Module:
    """In evaluation mode, norms with the statistics of a batch and weights that are not one."""
    method = build(**options)
    for module in method.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
            nn.init.normal_(module.weight, 0.5, 0.2)
    with torch.no_grad():
        run(method.train(), make_batch())
    return method.eval()


def unit(vector: Tensor) -> Tensor:
    return vector / vector.norm()


# Parts


def test_refined_parts_equal_a_slow_loop_over_places(rng: torch.Generator) -> None:
    maps = torch.randn(2, 12, 3, 2, generator=rng, dtype=torch.float64)
    pooling = pcb.PartClassifier(12, PARTS, channels=4, dropout=0.0).double()
    nn.init.normal_(pooling.shares.bias)
    found = pooling(maps)
    weight, bias = pooling.shares.weight.detach().flatten(1), pooling.shares.bias.detach()
    for picture in range(2):
        grouped = [maps[picture, 3 * group : 3 * group + 3].mean(0) for group in range(4)]
        centred = torch.stack([group - group.mean() for group in grouped])  # (4, 3, 2)
        expected = torch.zeros(PARTS, 12, dtype=torch.float64)
        for row in range(3):
            for column in range(2):
                scores = [float(weight[part] @ centred[:, row, column] + bias[part]) for part in range(PARTS)]
                total = sum(math.exp(score) for score in scores)
                for part in range(PARTS):
                    share = math.exp(scores[part]) / total
                    expected[part] += PARTS * share * maps[picture, :, row, column] / 6
        torch.testing.assert_close(found[picture], expected)


def test_a_place_belongs_to_all_parts_together_once_so_that_their_mean_is_the_average_of_the_map() -> None:
    maps = torch.randn(2, WIDTH, 5, 2)
    pooling = pcb.PartClassifier(WIDTH, PARTS, channels=REDUCED, dropout=0.0)
    torch.testing.assert_close(pooling.compute_shares(maps).sum(1), torch.ones(2, 5, 2))
    torch.testing.assert_close(pooling(maps).mean(1), maps.mean((2, 3)))


@pytest.mark.parametrize("pooling", ["stripes", "refined"])
def test_what_a_fusion_reads_is_the_average_of_all_places(pooling: str) -> None:
    method, batch = settled(pooling=pooling), make_batch()
    with torch.no_grad():
        maps = method.branch.backbone(method.normalise(batch.images))
        assert maps.shape[2:] == (6, 2)
        torch.testing.assert_close(run(method, batch).feature, maps.mean((2, 3)))


def test_refined_parts_are_computed_in_float32_under_autocast(rng: torch.Generator) -> None:
    maps, pooling = torch.rand(2, WIDTH, 6, 2, generator=rng), pcb.PartClassifier(WIDTH, 3, channels=16, dropout=0.0)
    with torch.autocast("cpu", torch.bfloat16):
        inside = pooling(maps)
    assert torch.equal(inside, pooling(maps))


def test_refined_pooling_wants_groups_of_equal_size() -> None:
    with pytest.raises(RecipeError, match=r"method\.part_width: 20 does not divide the backbone's 96 channels"):
        build(pooling="refined", part_width=20)


def test_a_backbone_without_feature_maps_is_refused() -> None:
    with pytest.raises(RecipeError, match="backbone test_vit: gives tokens where feature maps are needed"):
        build(backbone="test_vit")
    method = build()
    method.branch.backbone = nn.Sequential(method.branch.backbone, nn.Flatten())
    with pytest.raises(RecipeError, match="is no map of 96 channels"):
        run(method, make_batch())


# Heads and losses


def test_each_part_has_a_reduction_norm_and_classifier_of_its_own() -> None:
    method, batch = settled(), make_batch()
    with torch.no_grad():
        output = run(method, batch)
        maps = method.branch.backbone(method.normalise(batch.images))
        for part, block in enumerate(method.head.blocks):
            stripe = maps[:, :, 2 * part : 2 * part + 2].mean((2, 3))
            torch.testing.assert_close(output.parts[:, part], stripe)
            reduced = block.norm(stripe @ block.reduce.weight.T + block.reduce.bias)
            torch.testing.assert_close(output.embedding[:, REDUCED * part : REDUCED * (part + 1)], reduced)
            torch.testing.assert_close(output.logits[part], block.classifier(reduced))
    assert len({id(block.reduce.weight) for block in method.head.blocks}) == PARTS


def test_a_shared_reduction_norms_all_parts_together_and_has_a_relu_behind() -> None:
    method, batch = build(reduction="shared").train(), make_batch()
    output, head = run(method, batch), method.head
    rows = output.parts.flatten(0, 1) @ head.reduce.weight.flatten(1).T  # all parts of all pictures
    normed = (rows - rows.mean(0)) / (rows.var(0, unbiased=False) + head.norm.eps).sqrt()
    reduced = normed.view(6, PARTS, REDUCED)
    torch.testing.assert_close(output.embedding, reduced.flatten(1), rtol=1e-4, atol=1e-5)
    assert reduced.min() < -0.1
    for part, classifier in enumerate(head.classifiers):
        expected = reduced[:, part].clamp(min=0) @ classifier.weight.T + classifier.bias
        torch.testing.assert_close(output.logits[part], expected, rtol=1e-4, atol=1e-5)
    assert head.reduce.bias is None


@pytest.mark.parametrize("form", FORMS)
def test_the_loss_is_the_sum_of_the_parts_cross_entropies(form: dict[str, str]) -> None:
    method, batch = build(**form).train(), make_batch()
    output = run(method, batch)
    output.logits.retain_grad()
    found = output.logits.detach().double()
    losses = method.losses(output, batch)
    expected = 0.0
    for part in range(PARTS):
        for picture, label in enumerate(batch.labels.tolist()):
            scores = found[part, picture]
            expected += float(scores.exp().sum().log() - scores[label]) / len(batch)
    assert losses.keys() == {"id"}
    assert losses["id"].item() == pytest.approx(expected, rel=1e-6)
    losses["id"].backward()
    targets = functional.one_hot(batch.labels, NUM_IDS)
    torch.testing.assert_close(output.logits.grad, (output.logits.detach().softmax(2) - targets) / len(batch))


def test_layumis_form_drops_before_and_behind_the_reduction_and_the_authors_before_it() -> None:
    batch = make_batch()
    for form, places in (({}, 1 + PARTS), ({"reduction": "shared"}, 1), (FORMS[2], 2)):
        method = build(dropout=0.5, **form).train()
        dropped = [module for module in method.modules() if isinstance(module, nn.Dropout) and module.p == 0.5]
        assert len(dropped) == places
        output = run(method, batch)
        assert not torch.equal(run(method, batch).logits, output.logits)
        torch.testing.assert_close(output.parts.mean(1), output.feature)  # never what is searched with


# The vector for search


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mirror", [False, True])
def test_parts_are_summed_with_the_mirror_scaled_one_by_one_and_joined_channel_by_channel(
    form: dict[str, str], mirror: bool
) -> None:
    batch = make_batch()
    for place, width in (("backbone", WIDTH), ("head", REDUCED)):
        method = settled(test_feature=place, **form)
        with torch.no_grad():
            vectors = method.embed(batch.images, batch.modalities, batch.camids, mirror=mirror)
            parts = torch.zeros(6, PARTS, width)
            for images in (batch.images, batch.images.flip(3))[: 1 + mirror]:
                output = method(images, batch.modalities, batch.camids)
                parts += output.parts if place == "backbone" else output.embedding.view(6, PARTS, width)
        assert vectors.shape == (6, PARTS * width)
        for picture in range(6):
            for channel in (0, 5, width - 1):
                for part in range(PARTS):
                    expected = unit(parts[picture, part])[channel] / PARTS**0.5
                    assert vectors[picture, PARTS * channel + part].item() == pytest.approx(expected.item(), abs=1e-6)


def test_a_map_with_fewer_rows_than_parts_gives_them_all_a_part() -> None:
    method, images = build(parts=6).eval(), torch.rand(2, 3, 64, 32)
    nowhere = torch.zeros(2, dtype=torch.int64)
    with torch.no_grad():
        parts = method(images, nowhere, nowhere).parts
        rows = method.branch.backbone(method.normalise(images)).mean(3).transpose(1, 2)
    assert rows.shape[1] == 2
    torch.testing.assert_close(parts, rows.repeat_interleave(3, 1))


# The second stage


def test_what_finds_parts_is_a_group_of_its_own() -> None:
    assert build().parameter_groups().keys() == {"backbone", "head"}
    method = build(pooling="refined")
    groups = method.parameter_groups()
    assert groups.keys() == {"backbone", "head", "part_classifier"}
    assert [tuple(each.shape) for each in groups["part_classifier"]] == [(PARTS, REDUCED, 1, 1), (PARTS,)]


@pytest.fixture
def tiny_pcb(tiny_recipe: Callable[..., Recipe]) -> Callable[..., Recipe]:
    """Of the small network; settings are changes to it."""
    network = f"method={{name: pcb, backbone: test_resnet, last_stride: 2, part_width: 16, parts: {PARTS}}}"

    def make(*settings: str) -> Recipe:
        return tiny_recipe(overrides=[network, "sampler.steps=2", "schedule.epochs=1", *settings])

    return make


def test_the_second_stage_begins_with_the_first_and_lets_the_part_classifier_learn_alone(
    tiny_pcb: Callable[..., Recipe], tmp_path: Path
) -> None:
    first = train(tiny_pcb(), tmp_path / "first").folder
    begins = ["method.pooling=refined", f"init.weights={first.root}", "optimiser.frozen={backbone: 1, head: 1}"]
    alone = load_file(train(tiny_pcb(*begins), tmp_path / "second").folder.last)
    together = load_file(train(tiny_pcb(*begins, "schedule.epochs=2"), tmp_path / "longer").folder.last)
    before = load_file(first.last)
    added = alone.keys() - before.keys()
    assert added == {"branch.part_classifier.shares.weight", "branch.part_classifier.shares.bias"}
    assert all(torch.equal(alone[name], value) for name, value in before.items())  # statistics of the norms, too
    assert alone["branch.part_classifier.shares.bias"].any()  # zero, as it was made
    weights = [name for name in before if name.endswith(("conv1.weight", "classifier.weight"))]
    assert len(weights) > PARTS
    assert not any(torch.equal(together[name], before[name]) for name in weights)
    back = load_file(train(tiny_pcb(f"init.weights={tmp_path / 'second'}"), tmp_path / "back").folder.last)
    assert back.keys() == before.keys()


def test_a_second_stage_of_the_other_form_is_refused(tiny_pcb: Callable[..., Recipe], tmp_path: Path) -> None:
    first = train(tiny_pcb(), tmp_path / "first").folder
    settings = ["method.pooling=refined", "method.reduction=shared", f"init.weights={first.root}"]
    with pytest.raises(CheckpointError, match=r"unknown tensor\(s\), first 'head.blocks.0"):
        train(tiny_pcb(*settings), tmp_path / "second")
    with pytest.raises(CheckpointError, match="there is no such weights file"):
        train(tiny_pcb("method.pooling=refined", f"init.weights={tmp_path / 'nowhere'}"), tmp_path / "third")


def test_the_training_numbers_are_those_of_the_fact_sheet() -> None:
    recipes = {name: load_recipe(f"pcb_{name}") for name in ("night600", "market1501", "shared_market1501")}
    for name, recipe in recipes.items():
        shared = name.startswith("shared")
        assert recipe.data.size == ((384, 128) if shared else (384, 192))
        assert recipe.data.interpolation == ("bilinear" if shared else "bicubic")
        assert recipe.augment == [{"name": "flip", "probability": 0.5}]
        assert recipe.sampler.global_batch == (64 if shared else 32)
        rate = 0.1 if shared else 0.02
        assert (recipe.optimiser.lr, recipe.optimiser.group_lr) == (rate, {"backbone": pytest.approx(rate / 10)})
        assert (recipe.optimiser.momentum, recipe.optimiser.nesterov, recipe.optimiser.weight_decay) == (
            0.9,
            True,
            5e-4,
        )
        assert (recipe.schedule.epochs, recipe.schedule.step, recipe.schedule.gamma) == (60, 40, 0.1)
        assert recipe.evaluation.mirror is not shared
    refined = load_recipe("pcb_rpp_market1501")
    assert refined.method.options == recipes["shared_market1501"].method.options | {"pooling": "refined"}
    assert refined.data == recipes["shared_market1501"].data
    assert refined.init.weights == "runs/pcb_shared_market1501"


# The authors' checkpoints


def released_by_the_authors(*, refined: bool) -> dict[str, Tensor]:
    """Made without our code: torchvision's ResNet-50, whose classifier is kept unused, and the names of the release."""
    torch.manual_seed(5)
    backbone, _ = build_backbone("resnet50", last_stride=1)
    state = {f"base.{name}": tensor for name, tensor in backbone.state_dict().items()}
    shapes = {"base.fc.weight": (1000, 2048), "base.fc.bias": (1000,), "local_conv.weight": (32, 2048, 1, 1)}
    shapes |= {f"feat_bn2d.{name}": (32,) for name in ("weight", "bias", "running_mean", "running_var")}
    shapes |= {f"instance{part}.weight": (7, 32) for part in range(6)}
    shapes |= {f"instance{part}.bias": (7,) for part in range(6)}
    shapes |= {"local_mask.weight": (6, 32, 1, 1), "local_mask.bias": (6,)} if refined else {}
    state |= {name: torch.rand(shape) for name, shape in shapes.items()}
    return state | {"feat_bn2d.num_batches_tracked": torch.tensor(7)}


@pytest.mark.parametrize("refined", [False, True])
def test_the_authors_checkpoint_converts_there_and_back(refined: bool, tmp_path: Path) -> None:
    state = released_by_the_authors(refined=refined)
    torch.save({"state_dict": state, "epoch": 20, "best_top1": 0.0}, tmp_path / "checkpoint.pth.tar")
    header = import_checkpoint(LAYOUT, tmp_path / "checkpoint.pth.tar", tmp_path / "ours.safetensors")
    assert (header.num_ids, header.options["parts"], header.options["part_width"]) == (7, 6, 32)
    assert (header.options["reduction"], header.options["pooling"] == "refined") == ("shared", refined)
    assert header.recipe["data"]["size"] == [384, 128]
    assert not header.recipe["evaluation"]["mirror"]
    export_checkpoint(LAYOUT, tmp_path / "ours.safetensors", tmp_path / "theirs.pth.tar")
    written = torch.load(tmp_path / "theirs.pth.tar", weights_only=True)
    assert written.keys() == {"state_dict", "epoch", "best_top1"}  # what its second stage reads
    assert written["state_dict"].keys() == state.keys()
    for name, tensor in written["state_dict"].items():
        expected = torch.zeros_like(state[name]) if name.startswith("base.fc.") else state[name]
        assert torch.equal(tensor, expected), name


def test_a_file_of_an_old_pytorch_without_step_counters_is_read_and_one_that_lacks_some_is_not() -> None:
    state = released_by_the_authors(refined=True)
    old = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    found, expected = convert_from(LAYOUT, old).state, convert_from(LAYOUT, state).state
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], torch.tensor(0) if name.endswith("num_batches_tracked") else tensor), name
    for broken, message in (
        ({name: tensor for name, tensor in state.items() if name != "feat_bn2d.num_batches_tracked"}, "1 missing"),
        ({name: tensor for name, tensor in state.items() if name != "local_mask.bias"}, r"first 'local_mask\.bias'"),
        (state | {"instance7.bias": torch.zeros(7)}, r"1 unknown tensor\(s\), first 'instance7\.bias'"),
    ):
        with pytest.raises(CheckpointError, match=message):
            convert_from(LAYOUT, broken)


def test_layumis_heads_have_no_place_in_the_authors_layout() -> None:
    with torch.device("meta"):
        state = build_method("pcb", {}, 7).state_dict()
    with pytest.raises(CheckpointError, match=r"'head\.blocks\.0\.reduce\.weight' has no place in the released layout"):
        convert_to(LAYOUT, {}, state)


# Within IDF


def build_idf(**options: object) -> nn.Module:
    extractor = {"extractor": "pcb", "extractor_options": pcb.SMALL | {"parts": PARTS}}
    torch.manual_seed(0)
    return build_method("idf", extractor | {"curve_width": 4, "normalisation": "imagenet"} | options, NUM_IDS)


@pytest.mark.parametrize("form", FORMS)
def test_idf_takes_it_as_its_extractor_and_fuses_the_averages_of_both_maps(form: dict[str, str]) -> None:
    method, batch = build_idf(extractor_options=pcb.SMALL | {"parts": PARTS} | form).train(), make_batch()
    assert type(method.heads["f"]) is type(method.heads["e"])
    output = run(method, batch)
    assert output.joined.shape == (6, 2 * WIDTH)
    assert {name: tuple(made.logits.shape) for name, made in output.heads.items()} == {
        "e": (PARTS, 6, NUM_IDS),
        "v": (PARTS, 6, NUM_IDS),
        "f": (1, 6, NUM_IDS),
    }
    losses = method.losses(output, batch)
    assert {"id_enhanced", "id_night", "id_fused", "reconstruction", "distillation", "exposure"} <= losses.keys()
    expected = functional.cross_entropy(output.heads["f"].logits[0], batch.labels)
    torch.testing.assert_close(losses["id_fused"], expected)
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(weights.grad).all() for weights in method.parameters() if weights.requires_grad)


def test_the_fused_head_teaches_the_mean_of_the_parts_classifiers() -> None:
    method, batch = build_idf().train(), make_batch()
    for head in method.heads.values():
        for classifier in (module for name, module in head.named_modules() if name.endswith("classifier")):
            nn.init.normal_(classifier.weight)
    output = run(method, batch)
    (teacher,) = output.heads["f"].logits
    students = [output.heads[name].logits.mean(0) for name in ("e", "v")]
    expected = 0.1 * sum(distillation(student, teacher) for student in students)
    assert expected > 0.001
    torch.testing.assert_close(method.losses(output, batch)["distillation"], expected)
    torch.testing.assert_close(output.logits, teacher)


@pytest.mark.parametrize(("feature", "width"), [("head", 2 * PARTS * REDUCED + REDUCED), ("backbone", 3 * WIDTH)])
def test_idf_searches_with_reduced_parts_or_with_averages(feature: str, width: int) -> None:
    method, batch = build_idf(test_feature=feature).eval(), make_batch()
    with torch.no_grad():
        assert method.embed(batch.images, batch.modalities, batch.camids, mirror=True).shape == (6, width)


def test_idf_decides_the_feature_for_search_itself() -> None:
    with pytest.raises(RecipeError, match=r"extractor_options\.test_feature: is decided for both branches"):
        build_idf(extractor_options=pcb.SMALL | {"test_feature": "head"})
