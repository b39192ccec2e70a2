"""Start weights that vision transformers learned from people without labels, by files made up in the released layouts.

No file of these releases was at hand: names and shapes are those of their code, values are random.
"""

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.errors import CheckpointError, RecipeError
from tapetum.layers.backbones import build_any_backbone, load_backbone
from tapetum.layers.tokens import TokenBackbone
from tapetum.methods import build_method, convert_from, convert_to, transreid

WIDTH, DEPTH, HIDDEN, PATCH = 64, 6, 192, 16  # of timm's test_vit
SIZE, GRID = (64, 32), (4, 2)
IDS = 751
# Widths of the published transformers, whose depth is 12 and whose hidden layers are four times as wide.
PUBLISHED = {"vit_small_patch16_224": 384, "vit_base_patch16_224": 768}


def block_shapes(width: int, depth: int, hidden: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    layers = {
        "norm1": (width,),
        "attn.qkv": (3 * width, width),
        "attn.proj": (width, width),
        "norm2": (width,),
        "mlp.fc1": (hidden, width),
        "mlp.fc2": (width, hidden),
    }
    for number in range(depth):
        for layer, shape in layers.items():
            shapes |= {f"blocks.{number}.{layer}.weight": shape, f"blocks.{number}.{layer}.bias": shape[:1]}
    return shapes | {"norm.weight": (width,), "norm.bias": (width,)}


def stem_shapes() -> dict[str, tuple[int, ...]]:
    """Of "ICS": three convolutions of 64 channels, the first two with norms of halves."""
    shapes: dict[str, tuple[int, ...]] = {}
    for number, (channels, kernel) in {0: (3, 7), 3: (64, 3), 6: (64, 3)}.items():
        shapes[f"conv.{number}.weight"] = (64, channels, kernel, kernel)
        norm = f"conv.{number + 1}."
        if number < 6:
            shapes |= {f"{norm}IN.weight": (32,), f"{norm}IN.bias": (32,)}
        batch, half = (f"{norm}BN.", 32) if number < 6 else (norm, 64)
        shapes |= {f"{batch}{each}": (half,) for each in ("weight", "bias", "running_mean", "running_var")}
        shapes[f"{batch}num_batches_tracked"] = ()
    return {f"patch_embed.{name}": shape for name, shape in shapes.items()}


def transformer_shapes(
    release: str, width: int = WIDTH, depth: int = DEPTH, hidden: int = HIDDEN, places: int = 8
) -> dict[str, tuple[int, ...]]:
    """Of "TransReID-SSL", the same with "ICS", or "PASS"."""
    token = (1, 1, width)
    shapes: dict[str, tuple[int, ...]] = {"cls_token": token, "pos_embed": (1, 1 + places, width)}
    shapes |= {"patch_embed.proj.weight": (width, 3, PATCH, PATCH), "patch_embed.proj.bias": (width,)}
    if release == "ICS":
        shapes["patch_embed.proj.weight"] = (width, 64, PATCH // 2, PATCH // 2)
        shapes |= stem_shapes() | {"fc.weight": (1000, width), "fc.bias": (1000,)}
    if release == "PASS":
        names = [*(f"part_token{part}" for part in (1, 2, 3)), "cls_pos", *(f"part{part}_pos" for part in (1, 2, 3))]
        shapes |= dict.fromkeys(names, token) | {"pos_embed": (1, places, width)}
    return shapes | block_shapes(width, depth, hidden)


def draw(shapes: dict[str, tuple[int, ...]], seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(shape, generator=generator) if shape else torch.tensor(3)  # a variance is positive
        for name, shape in shapes.items()
    }


def as_training_saves_it(state: dict[str, Tensor]) -> dict[str, Any]:
    """A checkpoint of DINO's training, with both networks and the arguments that it was started with."""
    head = {"head.mlp.0.weight": torch.zeros(8, WIDTH), "head.last_layer.weight_g": torch.zeros(4, 1)}
    named = {f"module.backbone.{name}": tensor for name, tensor in state.items()}
    teacher = named | {f"module.{name}": tensor for name, tensor in head.items()}
    rest = {"optimizer": {"param_groups": [{"lr": 0.1}]}, "epoch": 100, "args": argparse.Namespace(arch="vit_small")}
    return {"student": {name: torch.zeros_like(tensor) for name, tensor in teacher.items()}, "teacher": teacher} | rest


def build(size: tuple[int, int] = SIZE, **options: Any) -> TokenBackbone:
    network, _ = build_any_backbone("test_vit", size=size, pooling="class", **options)
    assert isinstance(network, TokenBackbone)
    return network


@pytest.mark.parametrize("form", ["plain", "module.", "module.backbone.", "training"])
def test_weights_come_from_a_teacher_of_any_wrapping(form: str, tmp_path: Path) -> None:
    state = draw(transformer_shapes("TransReID-SSL"))
    saved: dict[str, Any] = as_training_saves_it(state)
    if form != "training":
        saved = {form.replace("plain", "") + name: tensor for name, tensor in state.items()}
    torch.save(saved, tmp_path / "vit_small_lup.pth")
    network = build()
    load_backbone(network, "test_vit", str(tmp_path / "vit_small_lup.pth"))
    own = network.state_dict()
    assert own.keys() == state.keys()
    assert all(torch.equal(own[name], tensor) for name, tensor in state.items())


def test_of_pass_the_tokens_of_parts_are_left_out_and_the_class_position_comes_first(tmp_path: Path) -> None:
    state = draw(transformer_shapes("PASS"))
    torch.save(state, tmp_path / "pass_vit_small_full.pth")
    network = build()
    load_backbone(network, "test_vit", str(tmp_path / "pass_vit_small_full.pth"))
    own = network.state_dict()
    assert torch.equal(own["pos_embed"], torch.cat((state["cls_pos"], state["pos_embed"]), 1))
    assert own.keys() == {name for name in state if "part" not in name and name != "cls_pos"}
    assert all(torch.equal(own[name], state[name]) for name in own.keys() - {"pos_embed"})


@pytest.mark.parametrize("release", ["TransReID-SSL", "PASS"])
def test_positions_of_pictures_twice_as_high_as_wide_are_resized_as_such(release: str, tmp_path: Path) -> None:
    state = draw(transformer_shapes(release))
    torch.save(state, tmp_path / "start.pth")
    network = build((96, 48), patch_stride=8)
    assert network.grid == (11, 5)
    load_backbone(network, "test_vit", str(tmp_path / "start.pth"))
    places = state["pos_embed"][0, -8:].view(*GRID, WIDTH).permute(2, 0, 1)[None]
    resized = functional.interpolate(places, (11, 5), mode="bilinear", align_corners=False)
    assert network.pos_embed is not None
    torch.testing.assert_close(network.pos_embed[0, 1:], resized[0].flatten(1).T)
    first = state["cls_pos"][0, 0] if release == "PASS" else state["pos_embed"][0, 0]
    assert torch.equal(network.pos_embed[0, 0], first)


@pytest.mark.parametrize("release", ["TransReID-SSL", "ICS", "PASS"])
@pytest.mark.parametrize(("name", "width"), PUBLISHED.items())
def test_files_of_published_sizes_fit_the_published_backbones(
    release: str, name: str, width: int, tmp_path: Path
) -> None:
    shapes = transformer_shapes(release, width, 12, 4 * width, places=128)
    state = {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}  # one number each in the file
    torch.save(state, tmp_path / "start.pth")
    stem = "ics" if release == "ICS" else "patches"
    with torch.device("meta"):  # drawing weights that are not kept takes seconds
        network, _ = build_any_backbone(name, size=(256, 128), pooling="class", stem=stem)
    network.to_empty(device="cpu")
    with torch.no_grad():
        for weights in network.parameters():
            weights.fill_(1)
    load_backbone(network, name, str(tmp_path / "start.pth"))
    assert not any(weights.any() for weights in network.parameters())


def swin_shapes(prefix: str) -> dict[str, tuple[int, ...]]:
    return {
        f"{prefix}stages.0.blocks.0.attn.w_msa.relative_position_bias_table": (169, 3),
        f"{prefix}norm3.bias": (768,),
    }


@pytest.mark.parametrize("prefix", ["", "backbone.", "module.backbone."])
def test_a_swin_transformer_is_refused_by_what_it_is(prefix: str, tmp_path: Path) -> None:
    torch.save({"teacher": draw(swin_shapes(prefix))}, tmp_path / "swin_tiny.pth")
    with pytest.raises(
        CheckpointError, match=r"swin_tiny\.pth .*: is a Swin transformer, as SOLIDER's are, .*; supply a pl"
    ):
        load_backbone(build(), "test_vit", str(tmp_path / "swin_tiny.pth"))


def test_a_file_with_a_stem_asks_for_the_stem_and_one_of_another_width_is_refused(tmp_path: Path) -> None:
    torch.save(draw(transformer_shapes("ICS")), tmp_path / "ics.pth")
    with pytest.raises(CheckpointError, match=r"begins with convolutions, this network otherwise; .* with stem: ics"):
        load_backbone(build(), "test_vit", str(tmp_path / "ics.pth"))
    torch.save(draw(transformer_shapes("PASS", width=48)), tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"tensor 'pos_embed' is \(1, 9, 48\), no square grid for tokens of 64"):
        load_backbone(build((96, 48)), "test_vit", str(tmp_path / "other.pth"))


# The stem of convolutions


def test_a_stem_equals_its_layers_written_out(tmp_path: Path) -> None:
    state = draw(transformer_shapes("ICS"))
    torch.save(state, tmp_path / "ics.pth")
    network = build(stem="ics").eval()
    load_backbone(network, "test_vit", str(tmp_path / "ics.pth"))
    named = {name.removeprefix("patch_embed."): tensor for name, tensor in state.items() if "patch_embed" in name}
    images = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(2))
    maps = images
    for number, stride in ((0, 2), (3, 1), (6, 1)):
        weights = named[f"conv.{number}.weight"]
        maps = functional.conv2d(maps, weights, stride=stride, padding=weights.shape[-1] // 2)
        norm, start = f"conv.{number + 1}.", 32 if number < 6 else 0
        instance = maps[:, :start]
        if start:
            spread = (instance.var((2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
            instance = (instance - instance.mean((2, 3), keepdim=True)) / spread
            instance = instance * named[f"{norm}IN.weight"][:, None, None] + named[f"{norm}IN.bias"][:, None, None]
            norm += "BN."
        mean, variance, factor, bias = (
            named[norm + each][:, None, None] for each in ("running_mean", "running_var", "weight", "bias")
        )
        others = (maps[:, start:] - mean) / (variance + 1e-5).sqrt() * factor + bias
        maps = torch.cat((instance, others), 1).clamp(min=0)
    patches = functional.conv2d(maps, named["proj.weight"], named["proj.bias"], stride=8).flatten(2).transpose(1, 2)
    expected = torch.cat((state["cls_token"].expand(2, -1, -1), patches), 1) + state["pos_embed"]
    with torch.no_grad():
        torch.testing.assert_close(network.embed(images), expected, rtol=1e-4, atol=1e-4)


def test_patches_behind_a_stem_do_not_overlap() -> None:
    with pytest.raises(
        RecipeError, match="behind the stem ics patches do not overlap, but patch_stride is 12; set it to"
    ):
        build(stem="ics", patch_stride=12)
    assert build(stem="ics", patch_stride=16).grid == GRID
    with pytest.raises(RecipeError, match="are for vision transformers"):
        build_any_backbone("test_resnet", size=SIZE, stem="ics")


@pytest.fixture
def plain() -> nn.Module:
    torch.manual_seed(0)
    options = transreid.SMALL | {"patch_stride": None, "stem": "ics", "sie": False, "jigsaw": False}
    return build_method("transreid", options, 3, size=SIZE)


def test_a_plain_network_trains_from_such_weights(plain: nn.Module, tmp_path: Path) -> None:
    state = draw(transformer_shapes("ICS"))
    torch.save(as_training_saves_it(state), tmp_path / "checkpoint.pth")
    plain.load_pretrained(str(tmp_path / "checkpoint.pth"))
    assert torch.equal(plain.branch.backbone.patch_embed.conv[4].IN.weight, state["patch_embed.conv.4.IN.weight"])
    last = f"blocks.{DEPTH - 1}.mlp.fc2.weight"
    assert torch.equal(plain.branch.whole.block.mlp.fc2.weight, state[last])


# Networks of TransReID-SSL trained for re-identification


@pytest.mark.parametrize(
    ("release", "size", "places", "width"),
    [
        ("TransReID-SSL", (256, 128), 128, 384),
        ("TransReID-SSL", (384, 128), 192, 768),
        ("ICS", (384, 128), 192, 384),
        ("ICS", (256, 128), 128, 768),
    ],
)
def test_a_trained_network_of_transreid_ssl_is_read_as_transreid(
    release: str, size: tuple[int, int], places: int, width: int
) -> None:
    shapes = transformer_shapes(release, width, 12, 4 * width, places=places)
    shapes |= {"fc.weight": (1000, width), "fc.bias": (1000,)}
    named = {f"base.{name}": shape for name, shape in shapes.items()} | {"classifier.weight": (IDS, width)}
    named |= {f"bottleneck.{each}": (width,) for each in ("weight", "bias", "running_mean", "running_var")}
    named["bottleneck.num_batches_tracked"] = ()
    state = {name: torch.empty(shape, device="meta") for name, shape in named.items()}
    assert len(state) == (180 if release == "ICS" else 158)
    found = convert_from("transreid-official", state)
    assert (found.num_ids, found.size, found.options["patch_stride"]) == (IDS, size, 16)
    assert found.options["stem"] == ("ics" if release == "ICS" else "patches")
    assert (found.options["sie"], found.options["jigsaw"]) == (False, False)
    written = convert_to("transreid-official", found.options, found.state)
    assert {name: tuple(tensor.shape) for name, tensor in written.items()} == named


def test_a_trained_network_of_pass_is_refused_by_what_it_is() -> None:
    shapes = {f"base.{name}": shape for name, shape in transformer_shapes("PASS").items()}
    state = draw(shapes | {"classifier.weight": (IDS, WIDTH)})
    with pytest.raises(
        CheckpointError, match=r"is PASS's network, which searches with tokens of parts .*init\.weights=FI"
    ):
        convert_from("transreid-official", state)
