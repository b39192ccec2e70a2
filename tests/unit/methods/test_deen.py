import copy
import dataclasses
import itertools

import pytest
import timm
import torch
from benchmarks.literal_deen import LiteralDEEN
from torch import nn
from torch.nn import functional

from tapetum.core.errors import CheckpointError, RecipeError
from tapetum.core.method import Enhancer
from tapetum.core.types import Batch, Modality
from tapetum.losses.cpm import centre_pair_mining
from tapetum.losses.orthogonality import orthogonality
from tapetum.losses.triplet import batch_hard_triplet
from tapetum.methods import build_method, build_options, convert_from, convert_to
from tapetum.methods.deen import TEST_WEIGHTS, join_parts
from two_stream_literal import leave_out_what_is_never_used

SMALL = {"backbone": "test_resnet", "last_stride": 2, "dropout": 0.0}  # timm's smallest: widths 32, 32, 48, 192, 96
SYSU, REGDB = {"num_ids": 5, "expand_after": 3}, {"num_ids": 5, "expand_after": 2}
DCE = {"curve_smoothness", "exposure", "colour", "spatial"}


def make_batch(size=8, seed=3):
    labels = torch.arange(size) // 4
    images = torch.rand(size, 3, 64, 32, generator=torch.Generator().manual_seed(seed))
    return Batch(images, labels, labels, labels, torch.arange(size) % 2)


def build(**options):
    torch.manual_seed(11)
    return build_method("deen", SMALL | options, 3)


def run(method, batch):
    return method(batch.images, batch.modalities, batch.camids)


def embed(method, batch, **options):
    with torch.no_grad():
        return method.eval().embed(batch.images, batch.modalities, batch.camids, **options)


def settle(method, batch):
    """Let a new network's norms take up what they see, as training would, and open the norms that start silent."""
    for module in method.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.momentum = 1.0
            if not module.weight.any():
                nn.init.uniform_(module.weight, 0.2, 0.6)
    with torch.no_grad():
        run(method.train(), batch)
    return method


# Data flow


def test_computing_the_stages_again_changes_neither_gradients_nor_statistics():
    batch, methods = make_batch(), [build(recompute=stages) for stages in (3, 0)]
    for method in methods:
        output = run(method.train(), batch)
        sum(method.losses(output, batch).values()).backward()
    expected, found = ({name: p.grad for name, p in method.named_parameters()} for method in methods)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient is None or torch.equal(gradient, found[name]), name
    states = [method.state_dict() for method in methods]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_with_recomputing_the_inner_maps_of_the_early_stages_are_not_kept():
    kept = []
    batch = make_batch()
    for stages in (3, 2, 0):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t):
            run(build(recompute=stages).train(), batch)
        kept.append(sum(sizes))
    assert kept[0] < kept[1] < kept[2]
    assert kept[0] < 0.7 * kept[2]


def test_each_modality_goes_through_its_own_stem_and_all_through_one_trunk():
    method, batch = settle(build(), make_batch()).eval(), make_batch()
    other = copy.deepcopy(method)
    with torch.no_grad():
        next(other.network.stems[Modality.INFRARED].parameters()).mul_(-1)
        first, second = run(method, batch).features, run(other, batch).features
    visible = batch.modalities == Modality.VISIBLE
    assert torch.equal(first[:, visible], second[:, visible])
    assert not torch.allclose(first[:, ~visible], second[:, ~visible], rtol=1e-3)


def test_all_three_embeddings_come_in_the_order_of_the_batch():
    method, batch = settle(build(), make_batch()).eval(), make_batch()
    with torch.no_grad():
        together = run(method, batch)
        for i in (0, 5):
            alone = run(method, batch.select(torch.tensor([i])))
            torch.testing.assert_close(alone.features[:, 0], together.features[:, i], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(alone.embeddings[:, 0], together.embeddings[:, i], rtol=1e-4, atol=1e-4)
    assert together.features.shape == together.embeddings.shape == (3, 8, 96)
    assert together.scores.shape == (3, 8, 3)
    assert torch.equal(together.logits, together.scores[0])
    assert not torch.allclose(together.features[1], together.features[2], rtol=1e-2)


def test_the_neck_takes_its_statistics_over_all_embeddings_together():
    method, batch = build(), make_batch()
    method.neck.norm.momentum = 1.0
    output = run(method, batch)
    torch.testing.assert_close(method.neck.norm.running_mean, output.features.flatten(0, 1).mean(0))


def test_a_stage_takes_up_what_the_aggregation_before_it_made():
    method, batch = settle(build(), make_batch()).eval(), make_batch()
    seen = []
    for block in method.aggregation:
        block.register_forward_hook(lambda _, inputs, output: seen.append((*inputs, output)))
    with torch.no_grad():
        run(method, batch)
    assert len(seen) == 3
    for (_, _, made), (_, low, _) in itertools.pairwise(seen):
        assert torch.equal(low, made)


def test_the_variant_for_regdb_expands_a_stage_earlier_and_has_no_fourth():
    method, batch = build(expand_after=2), make_batch()
    assert len(method.network.stages) == 3
    assert len(method.aggregation) == 2
    assert method.expansion.branches[0].out.out_channels == 48
    assert run(method, batch).features.shape == (3, 8, 192)


def test_the_published_numbers_of_parameters_are_those_in_use():
    for num_ids, expand_after, count in ((395, 3, 42_037_792), (713, 3, 42_689_056), (206, 2, 13_094_176)):
        with torch.device("meta"):
            method = build_method("deen", {"expand_after": expand_after}, num_ids)
        assert sum(weights.numel() for weights in method.parameters()) == count


def test_pictures_whose_maps_have_no_two_halves_are_refused_with_the_remedy():
    batch = make_batch()
    narrow = dataclasses.replace(batch, images=batch.images[:, :, :48, :16])  # 3 x 1 behind the third stage
    with pytest.raises(RecipeError, match=r"has no two halves; choose a data.size whose height or width"):
        run(build(), narrow)
    assert torch.isfinite(run(build(aggregation=False), narrow).features).all()


@pytest.mark.parametrize(("size", "expand_after"), [((62, 31), 3), ((48, 48), 2), ((48, 16), 2)])
def test_pictures_of_other_sizes_pass_where_their_maps_have_two_halves(size, expand_after):
    batch = make_batch()
    images = functional.interpolate(batch.images, size)
    output = run(build(expand_after=expand_after), dataclasses.replace(batch, images=images))
    assert torch.isfinite(output.features).all()


# Losses


def test_the_losses_are_the_weighted_ones_of_the_released_code():
    method, batch = build(), make_batch()
    output = run(method, batch)
    losses = method.losses(output, batch)
    labels = batch.labels.repeat(3)
    expected = {
        "id": functional.cross_entropy(output.scores.flatten(0, 1), labels),
        "triplet": batch_hard_triplet(output.features.flatten(0, 1), labels, margin=0.3),
        "cpm": 0.8 * centre_pair_mining(output.features, batch.labels, batch.modalities),
        "orthogonality": 0.01 * orthogonality(output.features),
    }
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"expansion": False, "aggregation": False}, {"id", "triplet"}),
        ({"cpm_weight": 0.0, "orthogonality_weight": 0.0, "aggregation": False}, {"id", "triplet"}),
        ({"orthogonality_weight": 0.0, "aggregation": False}, {"id", "triplet", "cpm"}),
        ({"cpm_weight": 0.0, "aggregation": False}, {"id", "triplet", "orthogonality"}),
        ({"aggregation": False}, {"id", "triplet", "cpm", "orthogonality"}),
        ({"expansion": False}, {"id", "triplet"}),
        ({}, {"id", "triplet", "cpm", "orthogonality"}),
    ],
)
def test_each_row_of_the_ablation_has_its_losses_and_every_parameter_a_gradient(options, expected):
    method, batch = build(**options), make_batch()
    output = run(method, batch)
    losses = method.losses(output, batch)
    assert losses.keys() == expected
    torch.stack(list(losses.values())).sum().backward()
    assert all(weights.grad is not None for weights in method.parameters() if weights.requires_grad)
    groups = 3 if options.get("expansion", True) else 1
    assert output.features.shape == (groups, 8, 96)
    assert embed(method, batch).shape == (8, 2 * groups * 96 + 2)


def test_each_reading_changes_its_own_term_only():
    method, batch = build(), make_batch()
    output = run(method, batch)
    expected = method.losses(output, batch)
    readings = {
        "cpm_form": ("poster", "cpm"),
        "cpm_sides": ("sum", "cpm"),
        "cpm_margin": (0.7, "cpm"),
        "orthogonality_pairs": ("all", "orthogonality"),
        "ort_normalise": (True, "orthogonality"),
        "triplet_margin": (None, "triplet"),
        "id_weight": (0.5, "id"),
    }
    options = method.options
    for option, (value, term) in readings.items():
        method.options = dataclasses.replace(options, **{option: value})
        losses = method.losses(output, batch)
        assert {name for name in losses if not torch.equal(losses[name], expected[name])} == {term}, option


def test_the_reading_of_the_gradient_changes_gradients_only():
    batch = make_batch()
    values, gradients = [], []
    for detach in (True, False):
        method = build(cpm_detach=detach, cpm_margin=5.0)
        loss = method.losses(run(method, batch), batch)["cpm"]
        loss.backward()
        values.append(loss.detach())
        gradients.append(method.expansion.branches[0].out.weight.grad)
    assert torch.equal(*values)
    assert not torch.allclose(*gradients)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"dropout": 1.0}, "method.dropout: 1.0 is out of range"),
        ({"cpm_margin": -1.0}, "method.cpm_margin: -1.0 is out of range"),
        ({"id_weight": 0.0, "triplet_weight": 0.0}, "method.id_weight: 0 leaves nothing"),
        ({"cpm_weight": -1.0}, "method.cpm_weight: -1.0 is out of range; use a number from 0"),
        ({"id_weight": -1.0}, "method.id_weight: -1.0 is out of range"),
        ({"triplet_weight": -0.5}, "method.triplet_weight: -0.5 is out of range"),
        ({"orthogonality_weight": -0.01}, "method.orthogonality_weight: -0.01 is out of range"),
        ({"exposure_weight": -10.0}, "method.exposure_weight: -10.0 is out of range"),
        ({"curve_width": 0}, "method.curve_width: 0 is out of range"),
        ({"curve_scale": 0.0}, "method.curve_scale: 0.0 is out of range"),
        ({"expand_after": 4}, "method.expand_after: 4 is none of 3, 2|method.expand_after: 4 is none of 2, 3"),
        ({"cpm_form": "paper"}, "method.cpm_form: 'paper' is none of"),
    ],
)
def test_options_that_cannot_work_are_refused(options, complaint):
    with pytest.raises(RecipeError, match=complaint):
        build_options("deen", SMALL | options)


# The vector for search


@pytest.mark.parametrize(("score", "out"), [("sum", "sim_sum"), ("bn_heavy", "sim_01")])
def test_the_joined_vector_equals_the_fusion_of_six_similarity_matrices(golden, score, out):
    case = golden("metrics_cross_modality", "deen_fusion")
    weights = torch.tensor(TEST_WEIGHTS[score], dtype=torch.float64).repeat_interleave(3)
    sides = {
        side: torch.cat((case.inputs[f"{side}_pool"], case.inputs[f"{side}_bn"]))  # (6, N, 16)
        for side in ("q", "g")
    }
    squares = {side: weights @ parts.square().sum(2) for side, parts in sides.items()}
    largest = float(torch.cat(list(squares.values())).max())
    query, gallery = (
        join_parts(parts, weights, largest - squares[side], torch.full((parts.shape[1],), modality), largest)
        for modality, (side, parts) in enumerate(sides.items())
    )
    torch.testing.assert_close(query @ gallery.T * largest, case.out[out], rtol=1e-12, atol=1e-12)
    for vectors in (query, gallery):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors), dtype=torch.float64))


@pytest.mark.parametrize("score", ["sum", "bn_heavy"])
@pytest.mark.parametrize("mirror", [False, True])
def test_the_inner_product_across_modalities_is_the_released_sum_of_six_similarities(score, mirror):
    method, batch = settle(build(test_score=score), make_batch()).eval(), make_batch(10)
    with torch.no_grad():
        passes = [run(method, batch)]
        if mirror:
            passes.append(run(method, dataclasses.replace(batch, images=batch.images.flip(3))))

    def add_up(vectors):
        return sum(v / v.norm(dim=1, keepdim=True) for v in vectors)

    before = [add_up([output.features[e] for output in passes]) for e in range(3)]
    behind = [add_up([output.embeddings[e] for output in passes]) for e in range(3)]
    by_hand = {"sum": (1.0, 1.0), "bn_heavy": (0.1, 0.9)}[score]
    expected = sum(by_hand[0] * p @ p.T + by_hand[1] * q @ q.T for p, q in zip(before, behind, strict=True))
    largest = 3 * sum(by_hand) * (4 if mirror else 1)

    vectors = embed(method, batch, mirror=mirror)
    assert vectors.shape == (10, 6 * 96 + 2)
    across = batch.modalities[:, None] != batch.modalities[None, :]
    torch.testing.assert_close((vectors @ vectors.T * largest)[across], expected[across], rtol=1e-5, atol=1e-5)


def test_a_feature_of_zeros_still_gives_a_vector_of_unit_length():
    method, batch = settle(build(), make_batch()), make_batch(2)
    with torch.no_grad():
        method.expansion.branches[0].out.weight.zero_()
        method.expansion.branches[0].out.bias.zero_()
        method.network.stages[3].apply(lambda m: nn.init.zeros_(m.bias) if isinstance(m, nn.BatchNorm2d) else None)
        method.network.stages[3].apply(lambda m: nn.init.zeros_(m.weight) if isinstance(m, nn.BatchNorm2d) else None)
    for mirror in (False, True):
        torch.testing.assert_close(embed(method, batch, mirror=mirror).norm(dim=1), torch.ones(2))


# IDF meets DEEN


def lit(**options):
    return build(illumination="branch", curve_width=4, **options)


def test_at_the_start_the_illumination_branch_changes_nothing():
    batch = make_batch()
    plain, method = build(), lit()
    method.load_state_dict(plain.state_dict(), strict=False)
    with torch.no_grad():
        expected, output = run(plain, batch), run(method, batch)
    assert torch.equal(output.features, expected.features)
    assert torch.equal(output.scores, expected.scores)


def test_the_illumination_branch_brightens_visible_pictures_only():
    method, batch = settle(lit(), make_batch()).eval(), make_batch()
    plain = build().eval()
    plain.load_state_dict({n: t for n, t in method.state_dict().items() if n in plain.state_dict()})
    with torch.no_grad():
        output, without = run(method, batch), run(plain, batch)
        visible = batch.modalities == Modality.VISIBLE
        assert torch.equal(output.enhanced, method.enhancer(batch.images[visible])[0])
    assert torch.equal(output.pictures, batch.images[visible])
    torch.testing.assert_close(output.features[:, ~visible], without.features[:, ~visible], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(output.features[:, visible], without.features[:, visible], rtol=1e-2)


def test_the_illumination_branch_has_its_losses_its_group_and_gradients():
    method, batch = settle(lit(), make_batch()), make_batch()
    losses = method.losses(run(method, batch), batch)
    assert losses.keys() == {"id", "triplet", "cpm", "orthogonality"} | DCE
    losses["id"].backward()
    assert all(weights.grad.abs().sum() > 0 for weights in method.enhancer.parameters())
    assert method.parameter_groups().keys() == {"backbone", "head", "enhancer"}
    assert method.parameter_groups()["enhancer"] == list(method.enhancer.parameters())
    off = {f"{name}_weight": 0.0 for name in DCE}
    method = lit(**off)
    assert not method.losses(run(method, batch), batch).keys() & DCE


def test_a_batch_without_visible_pictures_passes_the_illumination_branch():
    method, batch = lit().eval(), make_batch()
    infrared = dataclasses.replace(batch, modalities=torch.ones_like(batch.modalities))
    output = run(method, infrared)
    assert len(output.pictures) == len(output.enhanced) == 0
    assert not method.losses(output, infrared).keys() & DCE
    assert torch.isfinite(embed(method, infrared, mirror=True)).all()


def test_enhance_shows_what_the_second_stem_sees():
    batch = make_batch()
    method = lit().eval()
    with torch.no_grad():
        expected = method.enhancer(batch.images)[0].clamp(0, 1)
        assert torch.equal(method.enhance(batch.images), expected)
        another = copy.deepcopy(method)
        another.enhancer.e_conv7.weight.mul_(2)
        assert not torch.equal(another.enhance(batch.images), expected)
    assert isinstance(method, Enhancer)
    assert not isinstance(build(), Enhancer)


def test_pretrained_weights_fill_both_visible_stems(tmp_path):
    state = timm.create_model("test_resnet", num_classes=0).state_dict()
    torch.save(state, tmp_path / "backbone.pth")
    method = lit()
    method.load_pretrained(str(tmp_path / "backbone.pth"))
    for stem in (*method.network.stems, method.bright_stem):
        assert torch.equal(next(stem.parameters()), state["conv1.0.weight"])


# Checkpoints of the released code


def build_released(num_ids, expand_after):
    """A released network with random weights, settled norms and open non-local blocks."""
    torch.manual_seed(5)
    network = LiteralDEEN(num_ids, expand_after)
    network.DEE.dropout.p = 0.0
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            nn.init.uniform_(module.weight, 0.3, 0.7)
            nn.init.normal_(module.bias, std=0.1)
            module.momentum = 1.0
    network.bottleneck.bias.data.zero_()
    with torch.no_grad():
        network.train()(*normalised(make_pairs(1)))
    return network


def make_pairs(seed, height=64):
    """Two identities, two visible and two infrared pictures of each, in the released order."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(4, 3, height, 32, generator=generator), torch.rand(4, 3, height, 32, generator=generator)


def normalised(pairs):
    mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return [(pictures - mean) / deviation for pictures in pairs]


@pytest.fixture(
    scope="module", params=[pytest.param(3, id="sysu_and_llcm", marks=pytest.mark.slow), pytest.param(2, id="regdb")]
)
def released(request):
    return build_released(5, request.param)


def convert(network, **changes):
    converted = convert_from("deen-official", network.state_dict())
    method = build_method(converted.method, converted.options | changes, converted.num_ids)
    method.load_state_dict(converted.state)
    return method


@pytest.fixture(scope="module")
def converted(released):
    """The method with the released weights; whoever changes it takes a copy."""
    return convert(released, dropout=0.0)


def make_official_batch(seed, height=64):
    """The same pictures for both: ours in another order."""
    pairs = make_pairs(seed, height)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(9))
    labels = torch.tensor([3, 3, 1, 1, 3, 3, 1, 1])
    modalities = torch.arange(8) // 4
    return pairs, order, Batch(torch.cat(pairs)[order], labels[order], labels, labels, modalities[order]), labels


def test_a_released_checkpoint_gives_the_released_features(released, converted):
    pairs, order, batch, _ = make_official_batch(2)
    method = converted.eval()
    with torch.no_grad():
        pooled, behind, scores = released.eval()(*normalised(pairs))
        output = run(method, batch)
    for ours, theirs in ((output.features, pooled), (output.embeddings, behind), (output.scores, scores)):
        expected = theirs.view(3, 8, -1)[:, order]
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.slow
def test_a_training_step_has_the_released_losses_and_gradients(released, converted):
    """In float64, where nothing but a difference of the formulas is left of rounding, flipped ReLUs included."""
    pairs, _, batch, labels = make_official_batch(4, height=32)
    theirs, ours = (copy.deepcopy(network).train() for network in (released, converted))
    leave_out_what_is_never_used(theirs)
    theirs, ours = theirs.double(), ours.double()
    batch = dataclasses.replace(batch, images=batch.images.double())
    pooled, _, scores = theirs(*normalised([pictures.double() for pictures in pairs]))
    expected = theirs.losses(pooled, scores, labels[:4], people=2)
    sum(expected.values()).backward()
    losses = ours.losses(run(ours, batch), batch)
    torch.stack(list(losses.values())).sum().backward()
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-10, atol=0)
        assert value > 0, name

    gradients = {name: weights.grad for name, weights in theirs.named_parameters() if weights.grad is not None}
    gradients["bottleneck.bias"] = torch.zeros_like(theirs.bottleneck.bias)  # held fixed, by them through the optimiser
    own = {name: torch.zeros_like(value) for name, value in ours.state_dict().items()}
    own |= {name: weights.grad for name, weights in ours.named_parameters() if weights.grad is not None}
    named = convert_to("deen-official", ours.options.__dict__, own)
    for name, value in gradients.items():
        # A bias before a batch norm has no effect: both gradients are rounding noise beside the weight's.
        scale = gradients[name.replace("W.0.bias", "W.0.weight")].abs().max()
        assert (named[name] - value).abs().max() <= 1e-9 * scale, name


def is_unused(name, *, regdb):
    if name.startswith("base_resnet.base."):
        return name.split(".")[2] in ("conv1", "bn1", *(["layer4"] if regdb else []))
    return name.startswith(("thermal_module", "visible_module")) and name.split(".")[2] not in ("conv1", "bn1")


def test_a_released_checkpoint_converts_back_exactly_with_zeros_for_what_is_never_used(released, converted):
    official, method = released.state_dict(), converted
    assert len(official) == (1022 if released.regdb else 1048)
    back = convert_to("deen-official", method.options.__dict__, method.state_dict())
    assert back.keys() == official.keys()
    unused = [name for name in official if is_unused(name, regdb=released.regdb)]
    assert len(unused) == (690 if released.regdb else 630)
    for name, tensor in back.items():
        assert tensor.shape == official[name].shape, name
        assert tensor.dtype == official[name].dtype, name
        assert torch.equal(tensor, torch.zeros_like(tensor) if name in unused else official[name]), name
    again = convert_from("deen-official", back)
    assert all(torch.equal(again.state[name], tensor) for name, tensor in method.state_dict().items())


@pytest.fixture(scope="module")
def shapes():
    with torch.device("meta"):
        return {variant: LiteralDEEN(7, variant).state_dict() for variant in (3, 2)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda s: s.pop("MFA2.CNL.g.bias"), r"1 missing tensor\(s\), first 'MFA2.CNL.g.bias'"),
        (lambda s: s.update({"MFA4.CNL.g.bias": s["bottleneck.bias"]}), r"1 unknown tensor\(s\), first 'MFA4.CNL.g.b"),
        (
            lambda s: s.update({"base_resnet.base.fc.bias": s["bottleneck.bias"]}),
            "unknown .*'base_resnet.base.fc.bias'",
        ),
        (lambda s: s.pop("DEE.FC1.weight"), "there is no tensor 'DEE.FC1.weight'"),
        (
            lambda s: s.update({"bottleneck.weight": torch.ones(1024)}),
            r"'bottleneck.weight' is \(1024,\) where the network needs \(2048,\).*variant for SYSU-MM01 and LLCM",
        ),
        (lambda s: s.update({"DEE.FC1.weight": torch.ones(512, 128, 1, 1)}), "read as the variant for RegDB"),
    ],
)
def test_a_checkpoint_that_is_not_quite_in_the_released_layout_is_refused_by_name(shapes, change, complaint):
    state = dict(shapes[3])
    change(state)
    with pytest.raises(CheckpointError, match=complaint):
        convert_from("deen-official", state)


def test_the_tensors_that_are_never_used_may_be_missing(shapes):
    state = {
        name: tensor
        for name, tensor in shapes[3].items()
        if not name.startswith(
            ("thermal_module.thermal.layer", "visible_module.visible.layer", "base_resnet.base.conv1")
        )
    }
    converted = convert_from("deen-official", state)
    assert converted.num_ids == 7
    assert converted.options["expand_after"] == 3


def test_another_network_has_no_place_in_the_released_layout():
    for options in ({}, {"expansion": False}, {"illumination": "branch", "curve_width": 4}):
        with pytest.raises(CheckpointError, match=r"released layout|deen-official"):
            convert_to("deen-official", SMALL | options, build(**options).state_dict())


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"backbone": "resnet18"}, "method.backbone: 'resnet18' has no place .* layout; only 'resnet50' fits it"),
        ({"expansion": False}, "method.expansion: False has no place"),
        ({"aggregation": False}, "method.aggregation: False has no place"),
        ({"illumination": "branch"}, "method.illumination: 'branch' has no place"),
        ({"expansion_shortcut": True}, "method.expansion_shortcut: True has no place"),
    ],
)
def test_an_export_names_the_option_by_which_a_network_is_not_the_released_one(options, complaint):
    with torch.device("meta"):
        state = build_method("deen", options, 5).state_dict()
    with pytest.raises(CheckpointError, match=complaint):
        convert_to("deen-official", options, state)


def test_training_can_start_from_a_released_checkpoint_but_not_from_the_other_variants(released, tmp_path):
    used = {n: t for n, t in released.state_dict().items() if not is_unused(n, regdb=released.regdb)}
    torch.save({"net": used, "epoch": 3}, tmp_path / "best.t")
    own = 2 if released.regdb else 3
    method = build_method("deen", {"expand_after": own}, 9)
    classes = method.neck.classifier.weight.clone()
    method.load_pretrained(str(tmp_path / "best.t"))
    assert torch.equal(method.neck.classifier.weight, classes)
    assert torch.equal(method.expansion.branches[1].out.bias, released.DEE.FC2.bias)
    with torch.device("meta"):
        other = build_method("deen", {"expand_after": 5 - own}, 9)
        small = build_method("deen", {"expand_after": own, "backbone": "resnet18"}, 9)
        ours = build_method("deen", {"expand_after": own, "expansion_shortcut": True}, 9)
    names = ("RegDB", "SYSU-MM01 and LLCM") if own == 2 else ("SYSU-MM01 and LLCM", "RegDB")
    with pytest.raises(CheckpointError, match=f"of the variant for {names[0]}, this network is the one for {names[1]}"):
        other.load_pretrained(str(tmp_path / "best.t"))
    with pytest.raises(CheckpointError, match=r"best\.t"):
        small.load_pretrained(str(tmp_path / "best.t"))
    with pytest.raises(CheckpointError, match="whose expansion has no shortcut"):
        ours.load_pretrained(str(tmp_path / "best.t"))
