"""OSNet against what torchreid computes (tests/golden/networks/osnet.npz), and its released checkpoints."""

from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from golden.networks.fill import pictures, uniform
from golden_files import FOLDER
from tapetum.core.errors import CheckpointError, RecipeError
from tapetum.core.method import TrainingFacts
from tapetum.core.types import Batch
from tapetum.core.vectors import normalise
from tapetum.methods import build_method, convert_from, convert_to, osnet
from tapetum.methods._official import to_theirs
from tapetum.runs.checkpoint import Header, load_checkpoint, save_checkpoint
from tapetum.runs.convert import export_checkpoint, import_checkpoint
from tapetum.runs.recipe import load_recipe
from tapetum.training.optimisation import build_optimisers
from tapetum.training.stepping import turns_of

NETWORKS = {  # torchreid's names
    "osnet_x1_0": (1.0, "plain"),
    "osnet_x0_75": (0.75, "plain"),
    "osnet_x0_5": (0.5, "plain"),
    "osnet_x0_25": (0.25, "plain"),
    "osnet_ibn_x1_0": (1.0, "ibn"),
    "osnet_ain_x1_0": (1.0, "ain"),
}
COMPUTED = ("osnet_x1_0", "osnet_x0_25", "osnet_ibn_x1_0", "osnet_ain_x1_0")
PUBLISHED_MILLIONS = (2.2, 1.3, 0.6, 0.2, 2.2, 2.2)  # of weights, in torchreid's list of models
SEED, CLASSES = 11, 7  # of the golden cases
LAYOUT = "osnet-official"


@cache
def read_golden(name: str) -> dict[str, np.ndarray]:
    """What torchreid has and gives of a network, by "cfg/NAME" and "out/NAME"."""
    with np.load(FOLDER / "networks" / "osnet.npz") as arrays:
        return {key.removeprefix(f"{name}/"): arrays[key] for key in arrays.files if key.startswith(f"{name}/")}


def shapes_of(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of torchreid's tensors, in its order."""
    arrays = read_golden(name)
    pairs = zip(arrays["cfg/keys"], arrays["cfg/shapes"], strict=True)
    return {str(key): tuple(int(size) for size in shape if size) for key, shape in pairs}


def fill_by_formula(name: str, shape: tuple[int, ...]) -> Tensor:
    """The weights that the golden case was computed with."""
    if name.endswith("num_batches_tracked"):
        return torch.zeros((), dtype=torch.int64)
    values = torch.from_numpy(uniform(name, int(np.prod(shape)), SEED).astype(np.float32)).reshape(shape)
    if name.endswith("running_var"):
        return 1 + 0.5 * values
    if len(shape) > 1:
        return values * float(np.float32((6 / np.prod(shape[1:])) ** 0.5))
    return 1 + 0.5 * values if name.endswith("weight") else 0.2 * values


@cache
def released_state(name: str) -> dict[str, Tensor]:
    return {key: fill_by_formula(key, shape) for key, shape in shapes_of(name).items()}


def make_batch() -> Batch:
    images = torch.from_numpy(pictures("osnet", SEED, [0, 0, 1, 1], 256, 128)).float() / 255
    labels = torch.tensor([3, 3, 5, 5])
    return Batch(images, labels, labels, labels, torch.zeros_like(labels))


def run(method: nn.Module, batch: Batch):
    return method(batch.images, batch.modalities, batch.camids)


def build_converted(name: str) -> nn.Module:
    found = convert_from(LAYOUT, released_state(name))
    method = build_method("osnet", found.options, found.num_ids)
    method.load_state_dict(found.state)
    return method


# The network


@pytest.mark.parametrize("name", COMPUTED)
def test_a_network_gives_the_vectors_scores_and_gradients_of_torchreid(name: str, assert_matches) -> None:
    batch, method = make_batch(), build_converted(name).eval()
    expected = {key: torch.from_numpy(value) for key, value in read_golden(name).items() if key.startswith("out/")}
    with torch.no_grad():
        output = run(method, batch)
        vectors = method.embed(batch.images, batch.modalities, batch.camids)
    assert_matches(output.feature, expected["out/pooled"], 1e-4)
    assert_matches(output.embedding, expected["out/embedding"], 1e-4)
    assert_matches(vectors, functional.normalize(expected["out/embedding"]), 1e-4)

    output = run(method.train(), batch)
    (loss,) = method.losses(output, batch).values()
    loss.backward()
    assert_matches(output.logits, expected["out/scores"], 1e-3)
    assert_matches(loss, expected["out/loss"], 1e-4)
    gradients = to_theirs(
        {ours: weights.grad for ours, weights in method.named_parameters()}, osnet.renaming(method.options)
    )
    parameters = [str(key) for key in read_golden(name)["cfg/parameters"]]
    assert set(gradients) == set(parameters)
    norms = torch.stack([gradients[key].double().norm() for key in parameters])
    assert_matches(norms, expected["out/grad_norms"], 1e-2)


@pytest.mark.parametrize("instance", ["nowhere", "inside", "behind"])
def test_a_block_equals_the_sum_of_its_gated_scales_written_out(instance, rng: torch.Generator) -> None:
    block = osnet.OmniScaleBlock(16, 64, instance).double().eval()
    for weights in block.parameters():
        nn.init.normal_(weights, 0.1, 0.3, generator=rng)
    maps = torch.randn(2, 16, 5, 4, generator=rng, dtype=torch.float64)

    def through(part: osnet.NormedConvolution, given: Tensor) -> Tensor:
        mixed = torch.einsum("oi,bihw->bohw", part.conv.weight[:, :, 0, 0], given)
        return scaled(part.norm, mixed)

    def scaled(norm: nn.Module, given: Tensor) -> Tensor:
        mean, variance = given.new_zeros(given.shape[1]), given.new_ones(given.shape[1])
        if isinstance(norm, nn.InstanceNorm2d):
            mean, variance = given.mean((2, 3)), given.var((2, 3), unbiased=False)
        normed = (given - mean[..., None, None]) / (variance[..., None, None] + norm.eps).sqrt()
        return normed * norm.weight[:, None, None] + norm.bias[:, None, None]

    reduced = through(block.reduce, maps).clamp(min=0)
    total = torch.zeros_like(reduced)
    for scale in block.scales:
        seen = reduced
        for light in scale:
            mixed = functional.pad(torch.einsum("oi,bihw->bohw", light.point.weight[:, :, 0, 0], seen), (1, 1, 1, 1))
            spread = torch.zeros_like(seen)
            for row in range(3):
                for column in range(3):
                    factor = light.depth.weight[:, 0, row, column]
                    spread += factor[:, None, None] * mixed[:, :, row : row + 5, column : column + 4]
            seen = scaled(light.norm, spread).clamp(min=0)
        narrow, widen = block.gate.narrow, block.gate.widen
        hidden = (seen.mean((2, 3)) @ narrow.weight[:, :, 0, 0].T + narrow.bias).clamp(min=0)
        shares = 1 / (1 + (-(hidden @ widen.weight[:, :, 0, 0].T + widen.bias)).exp())
        total += shares[..., None, None] * seen
    summed = through(block.expand, total) + through(block.shortcut, maps)
    if instance == "behind":
        summed = scaled(block.norm, summed)
    torch.testing.assert_close(block(maps), summed.clamp(min=0))
    assert isinstance(block.expand.norm, nn.InstanceNorm2d) == (instance == "inside")


@pytest.mark.parametrize(("name", "millions"), [*zip(NETWORKS, PUBLISHED_MILLIONS, strict=True)])
def test_a_network_has_as_many_weights_at_search_as_the_release_says(name: str, millions: float) -> None:
    width, form = NETWORKS[name]
    with torch.device("meta"):
        method = build_method("osnet", {"width": width, "form": form}, 751)
    searched = sum(weights.numel() for key, weights in method.named_parameters() if ".classifier." not in key)
    assert round(searched / 1e6, 1) == millions
    assert osnet.name_network(method.options) == name


@pytest.mark.parametrize("form", ["ibn", "ain"])
def test_a_form_with_instance_norms_trains_and_describes_each_picture_by_itself(form: str) -> None:
    torch.manual_seed(0)
    method = build_method("osnet", osnet.SMALL | {"form": form}, CLASSES)
    batch = make_batch()
    method.losses(run(method.train(), batch), batch)["id"].backward()
    assert all(torch.isfinite(weights.grad).all() for weights in method.parameters())
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        together = method.eval().embed(batch.images, batch.modalities, batch.camids)
        turned = method.embed(batch.images[order], batch.modalities, batch.camids)
    torch.testing.assert_close(turned, together[order], rtol=1e-4, atol=1e-5)


def test_the_search_feature_is_the_embedding_or_the_pooled_map() -> None:
    batch = make_batch()
    for place, length in (("head", 512), ("backbone", 128)):
        torch.manual_seed(0)
        method = build_method("osnet", osnet.SMALL | {"test_feature": place}, CLASSES).eval()
        with torch.no_grad():
            output = run(method, batch)
            raw = output.embedding if place == "head" else output.feature
            assert raw.shape == (4, length)
            assert torch.equal(method.embed(batch.images, batch.modalities, batch.camids), normalise(raw))


def test_idf_takes_it_as_an_extractor() -> None:
    options = {"extractor": "osnet", "extractor_options": osnet.SMALL, "curve_width": 4, "normalisation": "imagenet"}
    method, batch = build_method("idf", options, CLASSES), make_batch()
    losses = method.losses(run(method, batch), batch)
    assert {"id_enhanced", "id_night", "id_fused"} <= losses.keys()
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_a_width_that_is_no_multiple_of_a_quarter_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"method\.width: 0\.3 is no multiple of 0\.25; the published ones are 1,"):
        build_method("osnet", {"width": 0.3}, 3)
    with pytest.raises(RecipeError, match=r"method\.width: 0\.1 is out of range; use a number from 0\.25"):
        build_method("osnet", {"width": 0.1}, 3)


def test_the_recipe_has_the_numbers_in_the_name_of_the_published_file() -> None:
    recipe = load_recipe("osnet_market1501")  # osnet_x1_0_market_256x128_amsgrad_ep150_stp60_lr0.0015_b64_fb10_...
    assert recipe.data.size == (256, 128)
    assert (recipe.optimiser.name, recipe.optimiser.amsgrad, recipe.optimiser.lr) == ("adam", True, 0.0015)
    assert (recipe.schedule.epochs, recipe.schedule.step, recipe.sampler.global_batch) == (150, 60, 64)
    assert recipe.optimiser.frozen == {"backbone": 10, "reduction": 10}
    assert [entry["name"] for entry in recipe.augment] == ["flip"]
    method = build_method("osnet", osnet.SMALL, 3)
    (optimiser,) = build_optimisers(method, method.parameter_groups(), recipe.optimiser, turns_of(method))
    assert all(group["amsgrad"] and group["weight_decay"] == 5e-4 for group in optimiser.inner.param_groups)


# Released checkpoints


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_has_the_tensors_of_torchreid_by_name_and_shape(name: str) -> None:
    width, form = NETWORKS[name]
    with torch.device("meta"):
        method = build_method("osnet", {"width": width, "form": form}, CLASSES)
        written = convert_to(LAYOUT, asdict(method.options), method.state_dict())
    assert {key: tuple(tensor.shape) for key, tensor in written.items()} == shapes_of(name)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("osnet_x0_25", "plain"),
        ("osnet_ibn_x1_0", "with prefix"),
        ("osnet_ain_x1_0", "as a training saves it"),
        ("osnet_x0_25", "without steps"),
    ],
)
def test_a_released_checkpoint_comes_in_and_goes_out_with_equal_tensors(name: str, form: str, tmp_path: Path) -> None:
    state = released_state(name)
    saved: dict[str, object] = dict(state)
    if form == "with prefix":
        saved = {f"module.{key}": value for key, value in state.items()}
    elif form == "as a training saves it":
        rest = {"epoch": 150, "rank1": np.float64(0.942), "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]}}
        saved = {"state_dict": state, **rest}
    elif form == "without steps":
        saved = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    torch.save(saved, tmp_path / "theirs.pth")
    header = import_checkpoint(LAYOUT, tmp_path / "theirs.pth", tmp_path / "ours.safetensors")
    assert (header.method, header.num_ids) == ("osnet", CLASSES)
    assert (header.options["width"], header.options["form"]) == NETWORKS[name]
    assert (header.recipe["data"]["size"], header.recipe["data"]["interpolation"]) == ([256, 128], "bilinear")
    export_checkpoint(LAYOUT, tmp_path / "ours.safetensors", tmp_path / "again.pth")
    again = torch.load(tmp_path / "again.pth", weights_only=True)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[key], value) for key, value in state.items())


def broken(state: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    if kind == "unknown":
        return state | {"conv6.conv.weight": torch.zeros(1)}
    if kind == "missing":
        return {key: value for key, value in state.items() if key != "conv5.bn.bias"}
    if kind == "another width":  # its first layer says one width, the rest another
        return state | {"conv1.conv.weight": torch.zeros(64, 3, 7, 7)}
    if kind == "no width":
        return state | {"conv1.conv.weight": torch.zeros(24, 3, 7, 7)}
    if kind == "ImageNet":
        return state | {"classifier.weight": torch.zeros(1000, 512), "classifier.bias": torch.zeros(1000)}
    return {"conv1.weight": torch.zeros(64, 3, 7, 7)}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("unknown", r"1 unknown tensor\(s\), first 'conv6\.conv\.weight'.*\(the file was taken for osnet_x0_25\)"),
        ("missing", r"1 missing tensor\(s\), first 'conv5\.bn\.bias'"),
        (
            "another width",
            r"tensor 'conv1\.bn\.weight' is \(16,\) where .* \(64,\).*\(the file was taken for osnet_x1_0\)",
        ),
        ("no width", r"first layer has 24 channels; OSNet's have 64, 48, 32 or 16 \(x1_0, x0_75, x0_5, x0_25\)"),
        ("ImageNet", r"has ImageNet's 1000 classes: osnet_x0_25 .* train from it with init\.weights=FILE"),
        ("another network", r"osnet-official checkpoint: there is no tensor 'conv1\.conv\.weight'"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_what_it_is(kind: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        convert_from(LAYOUT, broken(released_state("osnet_x0_25"), kind))


# Start weights


def save_imagenet(name: str, path: Path) -> dict[str, Tensor]:
    """In the layout of torchreid's ImageNet weights, whose classifier has 1000 classes."""
    state = broken(released_state(name), "ImageNet")
    torch.save(state, path)
    return state


def test_a_training_starts_from_imagenet_weights_with_the_reduction_and_a_classifier_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "osnet_x0_25_imagenet.pth"
    state = save_imagenet("osnet_x0_25", path)
    torch.manual_seed(0)
    method = build_method("osnet", osnet.SMALL, CLASSES)
    before = method.head.classifier.weight.detach().clone()
    method.load_pretrained(str(path))
    assert torch.equal(method.branch.backbone.stem.conv.weight, state["conv1.conv.weight"])
    assert torch.equal(method.head.reduce.weight, state["fc.0.weight"])
    assert torch.equal(method.head.norm.running_mean, state["fc.1.running_mean"])
    assert torch.equal(method.head.classifier.weight, before)
    branch = osnet.Branch(osnet.Options(**osnet.SMALL), TrainingFacts(3))
    branch.load_pretrained(str(path))
    for name, value in branch.backbone.state_dict().items():
        assert torch.equal(value, method.branch.backbone.state_dict()[name]), name
    method.load_pretrained("none")


def test_start_weights_of_another_width_or_form_are_refused_by_their_name(tmp_path: Path) -> None:
    path = tmp_path / "start.pth"
    save_imagenet("osnet_x0_25", path)
    message = r"start\.pth: is osnet_x0_25, where osnet_x1_0 is built; set method\.width: 0\.25 and method\.form: plain"
    with pytest.raises(CheckpointError, match=message):
        build_method("osnet", {}, 3).load_pretrained(str(path))
    save_imagenet("osnet_ain_x1_0", path)
    with pytest.raises(CheckpointError, match=r"is osnet_ain_x1_0, where osnet_ibn_x1_0 is built; .*method\.form: ain"):
        build_method("osnet", {"form": "ibn"}, 3).load_pretrained(str(path))


def test_imagenet_weights_are_not_fetched_and_the_file_to_supply_is_named() -> None:
    for source in ("imagenet", "package"):
        with pytest.raises(CheckpointError, match=r"fetch torchreid's osnet_x0_5_imagenet\.pth and pass the file with"):
            build_method("osnet", {"width": 0.5}, 3).load_pretrained(source)


def test_a_checkpoint_of_ours_keeps_width_and_form(tmp_path: Path) -> None:
    options = {"width": 0.25, "form": "ain"}
    save_checkpoint(tmp_path / "ours.safetensors", build_method("osnet", options, 3), Header("osnet", options, 3))
    assert osnet.name_network(load_checkpoint(tmp_path / "ours.safetensors").method.options) == "osnet_ain_x0_25"
