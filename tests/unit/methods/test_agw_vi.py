"""AGW against the golden arrays, and both two-stream methods against a literal network of the released layout."""

import dataclasses

import pytest
import torch
from torch.nn import functional

import two_stream_literal as literal
from tapetum.core.errors import CheckpointError, RecipeError
from tapetum.core.types import Batch
from tapetum.core.vectors import normalise
from tapetum.layers.bnneck import BNNeck
from tapetum.layers.branch import HeadOutput
from tapetum.layers.pooling import pool_gem
from tapetum.losses.weighted_triplet import weighted_triplet
from tapetum.methods import agw_vi, build_method, build_options, convert_from, convert_to
from tapetum.methods._official import Renaming, to_theirs

LAYOUT = "agw-vi-official"
NUM_IDS = 3
UNUSED = 2 * (318 - 6) + 6  # of the stems' ResNets all but conv1 and bn1; of the trunk's those


@pytest.fixture(scope="module")
def released() -> literal.Released:
    """With running statistics of its own pictures, and non-local blocks that do something."""
    torch.manual_seed(11)
    network = literal.Released(NUM_IDS, agw=True).train()
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
            torch.nn.init.normal_(module.weight, 1.0, 0.1)
            if name != "bottleneck":
                torch.nn.init.normal_(module.bias, std=0.1)
    torch.nn.init.normal_(network.classifier.weight, std=0.05)
    with torch.no_grad():
        run_literal(network, make_batch())
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.1
    return network.eval()


@pytest.fixture(scope="module")
def converted(released: literal.Released) -> torch.nn.Module:
    found = convert_from(LAYOUT, released.state_dict())
    method = build_method(found.method, found.options, found.num_ids)
    method.load_state_dict(found.state)
    return method.eval()


def make_batch() -> Batch:
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(8) // 2 % NUM_IDS
    images = torch.rand(8, 3, 64, 32, generator=generator)
    return Batch(images, labels, labels, labels, torch.arange(8) % 2)


def visible_first(batch: Batch) -> torch.Tensor:
    """Rows of the batch in the order of the released code."""
    return batch.modalities.argsort(stable=True)


def run_literal(network: literal.Released, batch: Batch):
    images = literal.normalise_pictures(batch.images)
    return network(images[batch.modalities == 0], images[batch.modalities == 1])


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_pooling_and_neck_equal_the_original(golden, assert_matches, mode):
    case = golden("modules_other", f"agw_vi_neck_{mode}")
    neck = BNNeck(10, 4).train(mode == "train")
    neck.load_state_dict({name.replace("bottleneck", "norm"): value for name, value in case.param.items()})
    visible, infrared = case.leaves("visible", "infrared")
    output = neck(pool_gem(torch.cat([visible, infrared])))
    if mode == "train":
        probed = {"pooled": output.feature, "logits": output.logits}
    else:
        probed = {"pooled_l2": normalise(output.feature), "bn_l2": normalise(output.embedding)}
    sum((value * case.inputs[f"probe_{name}"]).sum() for name, value in probed.items()).backward()
    for name, value in probed.items():
        assert_matches(value, case.out[name], 2e-4)
    assert_matches(visible.grad, case.grad["visible"], 1e-3)
    assert_matches(infrared.grad, case.grad["infrared"], 1e-3)
    assert_matches(neck.norm.weight.grad, case.grad["param.bottleneck.weight"], 1e-3)
    if mode == "train":
        assert_matches(neck.classifier.weight.grad, case.grad["param.classifier.weight"], 1e-3)
        for statistic in ("running_mean", "running_var"):
            assert_matches(getattr(neck.norm, statistic), case.out[f"after.bottleneck.{statistic}"], 2e-4)


def test_features_of_a_released_checkpoint_are_the_same(released, converted):
    batch = make_batch()
    with torch.no_grad():
        pooled, normed, _ = run_literal(released, batch)
        output = converted(batch.images, batch.modalities, batch.camids)
        vectors = converted.embed(batch.images, batch.modalities, batch.camids)
    rows = visible_first(batch)
    torch.testing.assert_close(normalise(output.feature)[rows], normalise(pooled), rtol=0, atol=1e-4)
    torch.testing.assert_close(vectors[rows], normalise(normed), rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["agw_vi", "two_stream"])
def test_losses_and_gradients_of_a_training_step_are_those_of_the_literal_network(name):
    """In float64, where nothing but a difference of the formulas is left of rounding."""
    torch.manual_seed(12)
    reference = literal.Released(NUM_IDS, agw=name == "agw_vi").train()
    literal.leave_out_what_is_never_used(reference)
    reference.double()
    if name == "agw_vi":
        for block in (*reference.NL_2, *reference.NL_3):
            torch.nn.init.normal_(block.W[1].weight, std=0.5)
    torch.nn.init.normal_(reference.classifier.weight, std=0.05)
    method = build_method(name, None, NUM_IDS).double().train()
    state, own = reference.state_dict(), method.state_dict()
    method.load_state_dict({ours: state[theirs] for ours, theirs in zip(own, renamed(own), strict=True)})

    batch = make_batch()
    batch = dataclasses.replace(batch, images=batch.images[:, :, ::2, ::2].double())
    labels = batch.labels[visible_first(batch)]
    pooled, _, logits = run_literal(reference, batch)
    metric = literal.weighted_triplet if name == "agw_vi" else literal.hard_triplet
    expected = {"id": functional.cross_entropy(logits, labels), "triplet": metric(pooled, labels)}
    found = method.losses(run_in_float64(method, batch), batch)
    assert found.keys() == expected.keys()
    for part, value in expected.items():
        torch.testing.assert_close(found[part], value, rtol=1e-9, atol=0)

    sum(expected.values()).backward()
    sum(found.values()).backward()
    ours = renamed({key: p.grad for key, p in method.named_parameters() if p.grad is not None})
    theirs = {key: p.grad for key, p in reference.named_parameters() if p.grad is not None}
    assert ours.keys() == theirs.keys()
    for key, gradient in theirs.items():
        # A bias before a batch norm has no effect: both gradients are rounding noise beside the weight's.
        scale = theirs[key.replace("W.0.bias", "W.0.weight")].abs().max()
        assert (ours[key] - gradient).abs().max() <= 1e-7 * max(float(scale), 1e-6), key
    buffers = renamed(method.state_dict())
    for key, value in reference.named_buffers():
        if key in buffers:
            torch.testing.assert_close(buffers[key], value)


def run_in_float64(method: torch.nn.Module, batch: Batch) -> HeadOutput:
    """Pooling and neck give float32 whatever comes in, so their parts are called one by one."""
    maps = method.compute_maps(method.normalise(batch.images), batch.modalities)
    feature = pool_gem(maps) if method.options.pooling == "gem" else maps.mean((2, 3))
    embedding = method.head.norm(feature)
    return HeadOutput(feature, embedding, method.head.classifier(embedding))


def renamed(values: dict[str, torch.Tensor], renaming: Renaming = agw_vi.RENAMING) -> dict[str, torch.Tensor]:
    return to_theirs(values, renaming)


def test_a_checkpoint_goes_into_the_released_layout_and_back(released, converted):
    theirs = convert_to(LAYOUT, {}, converted.state_dict())
    with torch.device("meta"):
        again = literal.Released(NUM_IDS, agw=True)
    again.load_state_dict(theirs, assign=True)  # strict: the same tensors, the same shapes
    assert len(theirs) == 3 * 318 + 5 * 13 + 6
    before = released.state_dict()
    same = [torch.equal(theirs[name], before[name]) for name in theirs]
    assert len(same) - sum(same) <= UNUSED
    assert all(torch.equal(theirs[name], before[name]) for name in renamed(converted.state_dict()))
    again = convert_from(LAYOUT, theirs)
    assert (again.method, again.num_ids) == ("agw_vi", NUM_IDS)
    assert all(torch.equal(value, again.state[name]) for name, value in converted.state_dict().items())


def test_a_relatives_network_of_the_same_tensors_goes_into_the_layout_too(converted):
    options = dataclasses.asdict(build_options("caj"))
    theirs = convert_to(LAYOUT, options, converted.state_dict())
    expected = convert_to(LAYOUT, {}, converted.state_dict())
    assert theirs.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in theirs.items())
    with pytest.raises(CheckpointError, match=r"idf-official|no place"):
        convert_to("idf-official", options, converted.state_dict())


@pytest.mark.slow
def test_what_the_released_code_never_uses_may_be_absent_and_nothing_else(released):
    state = released.state_dict()
    lean = {name: value for name, value in state.items() if not name.startswith("visible_module.visible.layer")}
    assert len(lean) < len(state)
    assert convert_from(LAYOUT, lean).num_ids == NUM_IDS
    for broken, message in (
        (state | {"extra.weight": torch.zeros(1)}, r"1 unknown tensor\(s\), first 'extra.weight'"),
        (without(state, "NL_3.2.g.0.weight"), r"1 missing tensor\(s\), first 'NL_3.2.g.0.weight'"),
        (state | {"NL_2.0.theta.weight": torch.zeros(256, 512, 1, 1)}, r"NL_2.0.theta.weight' is \(256, 512, 1, 1\)"),
        (without(state, "classifier.weight"), "no tensor 'classifier.weight'"),
    ):
        with pytest.raises(CheckpointError, match=message):
            convert_from(LAYOUT, broken)


def without(state, name):
    return {key: value for key, value in state.items() if key != name}


def test_another_network_does_not_fit_the_released_layout():
    for options in ({"backbone": "resnet18"}, {"non_local_width": "half"}, {"non_local": [0, 0, 0, 0]}):
        with torch.device("meta"):
            state = build_method("agw_vi", options, NUM_IDS).state_dict()
        with pytest.raises(CheckpointError):
            convert_to(LAYOUT, options, state)


@pytest.mark.parametrize(("backbone", "expected"), [("resnet50", [0, 2, 3, 0]), ("resnet18", [0, 2, 2, 0])])
def test_non_local_blocks_follow_the_last_residual_blocks(backbone, expected):
    method = build_method("agw_vi", {"backbone": backbone}, NUM_IDS).eval()
    assert [len(blocks) for blocks in method.non_local] == expected
    calls = []
    for kind, lists in (("residual", method.network.stages), ("non_local", method.non_local)):
        for stage, blocks in enumerate(lists):
            for number, block in enumerate(blocks):
                block.register_forward_hook(lambda *_, call=(kind, stage, number): calls.append(call))
    with torch.no_grad():
        method.compute_maps(torch.zeros(1, 3, 32, 16), torch.zeros(1, dtype=torch.int64))
    for stage, count in enumerate(expected):
        before = len(method.network.stages[stage]) - count
        wanted = [("residual", number) for number in range(before)]
        for number in range(count):
            wanted += [("residual", before + number), ("non_local", number)]
        assert [(kind, number) for kind, where, number in calls if where == stage] == wanted


def test_the_triplet_term_is_the_weighted_one_with_the_numerics_asked_for():
    batch = make_batch()
    for numerics in ("released", "stable"):
        options = {"backbone": "test_resnet", "last_stride": 2, "triplet_numerics": numerics, "triplet_weight": 0.5}
        method = build_method("agw_vi", options, NUM_IDS)
        output = method(batch.images, batch.modalities, batch.camids)
        expected = 0.5 * weighted_triplet(output.feature, batch.labels, numerics=numerics)
        torch.testing.assert_close(method.losses(output, batch)["triplet"], expected)


def test_settings_that_cannot_work_are_refused():
    for options, message in (
        ({"non_local": [0, -2, 3, 0]}, r"method\.non_local: -2 is out of range"),
        ({"non_local_width": "third"}, r"method\.non_local_width: 'third' is none of 'one', 'half'"),
        ({"triplet_weight": -1.0}, r"method\.triplet_weight: -1\.0"),
    ):
        with pytest.raises(RecipeError, match=message):
            build_method("agw_vi", {"backbone": "test_resnet", "last_stride": 2} | options, NUM_IDS)
