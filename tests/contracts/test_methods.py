"""One battery over every method in `tapetum.methods`: a new method file is tested without a line of test code.

A method whose default network is big names options of a small one itself, as ``SMALL``.
"""

import dataclasses
from collections.abc import Iterator

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.discovery import list_names, load
from tapetum.core.errors import RecipeError
from tapetum.core.method import Enhancer, Method
from tapetum.core.types import Batch
from tapetum.methods import build_method, build_options, method_options, small_options, views_of
from tapetum.training.stepping import Stepper, in_float32, turns_of

NUM_IDS = 5
SIZE, CAMIDS, PICTURES = (64, 32), (0, 1, 2), 10
METHODS = list_names("tapetum.methods")
ENHANCERS = [name for name in METHODS if hasattr(load("tapetum.methods", name).Method, "enhance")]
LARGEST = 5_000_000  # weights of a network for tests


def build(name: str, seed: int = 7) -> nn.Module:
    torch.manual_seed(seed)
    return build_method(name, small_options(name), NUM_IDS, camids=CAMIDS, size=SIZE, num_pictures=PICTURES)


def make_batch(seed: int = 0, size: int = PICTURES, views: tuple[int, int] = (1, 1)) -> Batch:
    """Two pictures of each person, one of each modality, with as many views as a method expects."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(size) // 2 % NUM_IDS
    batch = Batch(
        images=0.2 * functional.interpolate(torch.rand(size, 3, 8, 4, generator=generator), scale_factor=8),
        labels=labels,
        pids=100 + labels,
        camids=torch.arange(size) % 3,
        modalities=torch.arange(size) % 2,
        rows=torch.arange(size),
    )
    counts = torch.tensor(views)[batch.modalities]
    repeated = batch.select(torch.arange(size).repeat_interleave(counts))
    numbers = torch.cat([torch.arange(count) for count in counts.tolist()])
    return dataclasses.replace(
        repeated, images=repeated.images * (1 - 0.1 * numbers[:, None, None, None]), views=numbers
    )


def training_batch(name: str, seed: int = 0) -> Batch:
    return make_batch(seed, views=views_of(name))


def learn(method: nn.Module, batch: Batch) -> None:
    """The gradients of a step; each turn's stay within its groups."""
    stepper = Stepper(method, turns_of(method), [], "fp32", None, torch.amp.GradScaler("cpu", enabled=False))
    stepper.step([batch], lambda phase, part: None, lambda losses: None)


def reorder(batch: Batch, order: Tensor) -> Batch:
    return batch.select(order)


def run(method: nn.Module, batch: Batch):
    return method(batch.images, batch.modalities, batch.camids)


def embed(method: nn.Module, batch: Batch, *, mirror: bool = False) -> Tensor:
    with torch.no_grad():
        return method.embed(batch.images, batch.modalities, batch.camids, mirror=mirror)


def tensors_of(output: object) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif dataclasses.is_dataclass(output):
        for field in dataclasses.fields(output):
            yield from tensors_of(getattr(output, field.name))
    elif isinstance(output, dict):
        for value in output.values():
            yield from tensors_of(value)


@pytest.fixture(scope="module", params=METHODS)
def shared(request) -> nn.Module:
    """Built once for the tests that change nothing but batch statistics."""
    method = build(request.param)
    method.name = request.param
    method.train()
    for module in method.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0  # one batch settles the statistics, whatever the pictures' range
    with torch.no_grad():
        run(method, make_batch())
    return method.eval()


def test_there_are_the_methods_of_this_version():
    assert set(METHODS) >= {
        "abd_net", "agw", "agw_vi", "align_gan", "bdtr", "bot", "caj", "cm_nas", "dart", "dclnet", "ddag", "deen",
        "enlighten_gan", "hi_cmd", "ide", "idf", "jsia", "lba", "mclnet", "mmn", "mpanet", "osnet", "pcb", "student",
        "transreid", "two_stream", "zero_dce",
    }  # fmt: skip


def test_a_method_has_the_common_interface(shared):
    assert isinstance(shared, Method)
    assert shared.num_ids == NUM_IDS


@pytest.mark.parametrize("name", METHODS)
def test_the_options_are_a_frozen_dataclass_with_a_default_for_each_field(name):
    options = method_options(name)
    assert dataclasses.is_dataclass(options)
    assert options.__dataclass_params__.frozen
    assert build_options(name) == options()


def test_the_network_for_tests_is_small(shared):
    assert sum(weights.numel() for weights in shared.parameters()) < LARGEST


@pytest.mark.parametrize("name", METHODS)
def test_options_survive_a_round_trip_through_plain_values(name):
    options = build_options(name, small_options(name))
    assert build_options(name, dataclasses.asdict(options)) == options


@pytest.mark.parametrize("name", METHODS)
def test_an_unknown_option_is_refused_with_its_name(name):
    with pytest.raises(RecipeError, match=r"method\.no_such_option is unknown"):
        build_method(name, {"no_such_option": 1}, NUM_IDS)


@pytest.mark.parametrize("name", METHODS)
def test_the_file_names_its_source_and_how_it_differs(name):
    documentation = load("tapetum.methods", name).__doc__
    assert "Source:" in documentation
    assert "Differs:" in documentation


def test_the_output_is_a_frozen_dataclass_of_one_type_in_training_and_evaluation(shared):
    batch = training_batch(shared.name)
    with torch.no_grad():
        in_evaluation = run(shared.eval(), batch)
        in_training = run(shared.train(), batch)
    shared.eval()
    assert type(in_evaluation).__dataclass_params__.frozen
    assert type(in_evaluation) is type(in_training)
    if "head" in shared.parameter_groups():  # else it trains without labels, as an enhancer alone does
        assert in_evaluation.logits.shape[-2:] == (len(batch), NUM_IDS)
        assert in_evaluation.logits.ndim <= 3  # of one classifier or of several


def test_embeddings_are_float32_rows_of_unit_length(shared):
    for mirror in (False, True):
        vectors = embed(shared, make_batch(), mirror=mirror)
        assert vectors.dtype == torch.float32
        assert vectors.ndim == 2
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(10))


def test_embeddings_of_different_pictures_differ(shared):
    vectors = embed(shared, make_batch())
    assert torch.pdist(vectors).min() > 1e-5


def test_an_embedding_depends_on_its_own_picture_only(shared):
    batch = make_batch()
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    together = embed(shared, batch)
    torch.testing.assert_close(embed(shared, reorder(batch, order)), together[order], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(embed(shared, reorder(batch, order[:3])), together[order[:3]], rtol=1e-4, atol=1e-5)


def test_with_mirror_a_picture_and_its_mirror_have_one_embedding(shared):
    batch = make_batch()
    mirrored = dataclasses.replace(batch, images=batch.images.flip(3))
    torch.testing.assert_close(
        embed(shared, batch, mirror=True), embed(shared, mirrored, mirror=True), rtol=1e-4, atol=1e-5
    )
    assert not torch.allclose(embed(shared, batch), embed(shared, mirrored), rtol=1e-4, atol=1e-5)


def test_losses_are_named_finite_scalars_whatever_the_order_of_the_batch(shared):
    batch = training_batch(shared.name)
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        shared.train()
        losses = shared.losses(run(shared, batch), batch)
        shuffled = reorder(batch, order)
        again = shared.losses(run(shared, shuffled), shuffled)
        shared.eval()
    assert losses
    assert losses.keys() == again.keys()
    for name, loss in losses.items():
        assert loss.shape == (), name
        assert loss.dtype == torch.float32, name
        assert torch.isfinite(loss), name
        torch.testing.assert_close(loss, again[name], rtol=1e-3, atol=1e-5)


def assert_gradients_are_finite(method: nn.Module) -> None:
    for parameter, weights in method.named_parameters():
        if weights.requires_grad:
            assert weights.grad is not None, f"{parameter} has no gradient"
            assert torch.isfinite(weights.grad).all(), parameter


@pytest.mark.parametrize("name", METHODS)
def test_of_black_and_of_white_pictures_every_trained_parameter_gets_a_finite_gradient(name):
    method, batch = build(name).train(), training_batch(name)
    for level in (0.0, 1.0):
        method.zero_grad()
        learn(method, dataclasses.replace(batch, images=torch.full_like(batch.images, level)))
        assert_gradients_are_finite(method)


@pytest.mark.parametrize("name", METHODS)
def test_two_steps_have_finite_gradients_change_every_group_and_leave_everything_finite(name):
    method = build(name).train()
    groups = method.parameter_groups()
    before = {group: [weights.detach().clone() for weights in members] for group, members in groups.items()}
    optimiser = torch.optim.SGD([weights for members in groups.values() for weights in members], lr=1e-3)
    for seed in (0, 1):
        optimiser.zero_grad()
        learn(method, training_batch(name, seed))
        assert_gradients_are_finite(method)
        optimiser.step()
    for group, members in groups.items():
        changed = [not torch.equal(now, old) for now, old in zip(members, before[group], strict=True)]
        assert any(changed), group
    assert all(torch.isfinite(value).all() for value in method.state_dict().values())


def test_the_groups_hold_every_trained_parameter_once(shared):
    grouped = [id(weights) for members in shared.parameter_groups().values() for weights in members]
    trained = [id(weights) for weights in shared.parameters() if weights.requires_grad]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == set(trained)


def test_a_saved_state_gives_the_same_embeddings_in_a_fresh_network(shared, tmp_path):
    safetensors.torch.save_file(shared.state_dict(), tmp_path / "state.safetensors")
    fresh = build(shared.name, seed=8)
    fresh.load_state_dict(safetensors.torch.load_file(tmp_path / "state.safetensors"))
    assert torch.equal(embed(shared, make_batch(3)), embed(fresh.eval(), make_batch(3)))


def test_bfloat16_channels_last_keeps_losses_and_embeddings_in_float32(shared):
    batch = make_batch()
    expected = embed(shared, batch)
    shared.to(memory_format=torch.channels_last)
    there = dataclasses.replace(batch, images=batch.images.contiguous(memory_format=torch.channels_last))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = run(shared, there)
        vectors = shared.embed(there.images, there.modalities, there.camids)
    losses = shared.losses(in_float32(output), there)
    shared.to(memory_format=torch.contiguous_format)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(10))
    assert (vectors * expected).sum(1).min() > 0.98


@pytest.mark.parametrize("name", ENHANCERS)
def test_a_method_that_enhances_gives_pictures_in_0_to_1_of_the_same_size(name):
    method, images = build(name).eval(), make_batch().images
    assert isinstance(method, Enhancer)
    with torch.no_grad():
        enhanced = method.enhance(images)
    assert enhanced.shape == images.shape
    assert enhanced.dtype == torch.float32
    assert enhanced.min() >= 0
    assert enhanced.max() <= 1


@pytest.mark.parametrize("name", METHODS)
def test_no_identity_to_train_on_is_refused(name):
    with pytest.raises(RecipeError, match="num_ids is 0"):
        build_method(name, None, 0)
