"""Vision transformers as backbones: timm's networks and the published ones, for pictures of any fitting size."""

from functools import partial

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from golden.networks.fill import Case
from golden_files import FOLDER, read_case
from tapetum.core.errors import CheckpointError, RecipeError
from tapetum.layers.backbones import Tokens, build_any_backbone, load_backbone
from tapetum.layers.tokens import TokenBackbone, resize_positions
from tapetum.methods import build_method

KINDS = {  # one of each kind of plain vision transformer that timm knows -> its tokens before the patches
    "test_vit": 1,
    "deit_tiny_distilled_patch16_224": 2,
    "vit_small_patch14_reg4_dinov2": 5,
    "vit_xsmall_patch16_clip_224": 1,
    "vit_small_patch16_dinov3": 5,
    "vit_small_patch16_rope_mixed_224": 1,
    "eva02_tiny_patch14_224": 1,
}


@pytest.mark.parametrize(("name", "num_prefix"), KINDS.items())
def test_tokens_are_those_of_timms_own_network(name: str, num_prefix: int, rng: torch.Generator) -> None:
    with torch.device("meta"):
        side = timm.create_model(name).patch_embed.patch_size[0]
    size = (4 * side, 2 * side)
    ours, gives = build_any_backbone(name, size=size)
    assert isinstance(gives, Tokens)
    theirs = timm.create_model(name, img_size=size, num_classes=0).eval()
    fitted = theirs.load_state_dict(ours.state_dict(), strict=False)
    assert not fitted.unexpected_keys
    assert all(key.startswith("attn_pool.") for key in fitted.missing_keys)
    images = torch.rand(2, 3, *size, generator=rng)
    with torch.no_grad():
        tokens, expected = ours.eval()(images), theirs.fc_norm(theirs.forward_features(images))
    torch.testing.assert_close(tokens, expected)
    assert (gives.grid, gives.num_prefix) == ((4, 2), num_prefix)
    assert tokens.shape == (2, num_prefix + 8, gives.width)


@pytest.mark.slow
def test_a_whole_published_network_gives_its_own_tokens_block_by_block(tmp_path) -> None:
    case = Case(FOLDER / "networks" / "transreid_vit_baseline.npz")
    state = {key: torch.from_numpy(value) for key, value in case.state_dict().items()}
    torch.save({k.removeprefix("base."): v for k, v in state.items() if k.startswith("base.")}, tmp_path / "vit.pth")
    network, _ = build_any_backbone("vit_base_patch16_224", size=(256, 128))
    load_backbone(network, "vit_base_patch16_224", str(tmp_path / "vit.pth"))
    network.eval()
    images = torch.from_numpy(case.normalised(case.pictures("eval", "visible")))
    with torch.no_grad():
        found = {"patches": network.patch_embed.proj(images).flatten(2).transpose(1, 2)}
        tokens = network.embed(images)
        for number, block in enumerate(network.blocks):
            tokens = network.run_blocks(tokens, [block], first=number)
            found[f"block{number}"] = tokens
        found["norm"] = network.norm(tokens)
    for name in ("patches", "block0", "block5", "block10", "norm"):
        part = found[name][:, :: found[name].shape[1] // 12, :: found[name].shape[2] // 24]
        for seen, kind in ((found[name][:, 0], "first"), (part, "patch")):
            expected = torch.from_numpy(case.arrays[f"eval/out/{name}.{kind}"])
            assert (seen - expected).abs().max() <= 1e-4 * expected.abs().max(), (name, kind)


def test_overlapping_patches_added_embeddings_and_copied_blocks_give_the_published_global_branch() -> None:
    case = read_case("modules_transreid", "transreid_eval_before")
    base = {name.removeprefix("base."): value for name, value in case.param.items() if name.startswith("base.")}
    norm = partial(nn.LayerNorm, eps=1e-6)
    small = VisionTransformer((64, 32), 16, embed_dim=24, depth=3, num_heads=3, mlp_ratio=2, norm_layer=norm)
    network = TokenBackbone(small, "small", (64, 32), patch_stride=12)
    assert network.grid == (5, 2)
    cameras = base.pop("sie_embed")
    network.load_state_dict({name: value for name, value in base.items() if not name.startswith("fc.")})
    network.blocks[2].load_state_dict(
        {name.removeprefix("b1.0."): value for name, value in case.param.items() if name.startswith("b1.0.")}
    )
    last = {name.removeprefix("b1.1."): value for name, value in case.param.items() if name.startswith("b1.1.")}
    network.norm.load_state_dict(last)
    with torch.no_grad():
        tokens = network.embed(case.inputs["x"]) + 3 * cameras[case.inputs["cam"]]
        shared = network.run_blocks(tokens, network.blocks[:2])
        seen = network.norm(network.run_blocks(shared, network.blocks[2:], first=2))[:, 0]
    expected = case.out["y"][:, :24]
    assert (seen - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_positions_are_resized_as_the_published_code_does() -> None:
    case = read_case("modules_transreid", "position_resize_4x4_to_7x3")
    torch.testing.assert_close(resize_positions(case.inputs["old"], 1, (7, 3)), case.out["new"])


def test_a_file_for_square_pictures_fills_another_grid_and_its_classifier_is_left_out(tmp_path) -> None:
    trained = timm.create_model("test_vit")  # 160 x 160: 10 x 10 patches
    torch.save(trained.state_dict(), tmp_path / "vit.pth")
    network, gives = build_any_backbone("test_vit", size=(64, 32), patch_stride=12)
    load_backbone(network, "test_vit", str(tmp_path / "vit.pth"))
    assert gives.grid == (5, 2)
    state = trained.state_dict()
    assert torch.equal(network.pos_embed, resize_positions(state["pos_embed"], 1, (5, 2)))
    assert torch.equal(network.blocks[0].attn.qkv.weight, state["blocks.0.attn.qkv.weight"])
    torch.save(network.state_dict(), tmp_path / "own.pth")
    load_backbone(network, "test_vit", str(tmp_path / "own.pth"))
    assert torch.equal(network.pos_embed, resize_positions(state["pos_embed"], 1, (5, 2)))


def test_positions_of_no_square_grid_are_refused(tmp_path) -> None:
    state = timm.create_model("test_vit").state_dict()
    torch.save(state | {"pos_embed": torch.zeros(1, 1 + 12, 64)}, tmp_path / "odd.pth")
    network, _ = build_any_backbone("test_vit", size=(64, 32))
    with pytest.raises(CheckpointError, match=r"odd.pth for backbone test_vit: tensor 'pos_embed' is \(1, 13, 64\)"):
        load_backbone(network, "test_vit", str(tmp_path / "odd.pth"))


@pytest.mark.parametrize(
    ("size", "stride", "message"),
    [
        ((60, 32), None, r"16 x 16 do not fit pictures of 60 x 32; use data.size \[48, 32\] or \[64, 32\]"),
        ((60, 40), 16, r"use data.size \[48, 32\] or \[64, 48\]"),
        ((64, 8), 12, r"do not fit pictures of 64 x 8; use data.size \[64, 16\]"),
        ((64, 32), 20, r"patch_stride 20 is out of range for patches of 16 x 16; use 1 to 16"),
    ],
)
def test_patches_that_do_not_fit_the_pictures_are_refused_with_sizes_that_do(size, stride, message) -> None:
    with pytest.raises(RecipeError, match=message):
        build_any_backbone("test_vit", size=size, patch_stride=stride)


def test_pictures_of_another_size_than_the_network_is_for_are_refused() -> None:
    network, _ = build_any_backbone("test_vit", size=(64, 32))
    with pytest.raises(RecipeError, match=r"built for pictures of 64 x 32, got 32 x 32; set data.size: \[64, 32\]"):
        network(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("test_vit", {"last_stride": 1}, "last_stride 1 is for convolutional networks"),
        ("test_resnet", {"patch_stride": 12}, "are for vision transformers"),
        ("test_resnet", {"pooling": "class"}, "are for vision transformers"),
        ("vit_base_patch16_siglip_224", {"pooling": "class"}, "has no class token; use pooling: average"),
        ("swin_tiny_patch4_window7_224", {}, "takes pictures of 224 x 224 alone, these are 64 x 32"),
        ("vit_tiny_r_s16_p8_224", {}, "takes pictures of 224 x 224 alone"),
    ],
)
def test_what_a_kind_of_network_cannot_do_is_refused(name, settings, message) -> None:
    with torch.device("meta"), pytest.raises(RecipeError, match=message):
        build_any_backbone(name, size=(64, 32), **settings)


@pytest.mark.parametrize("pooling", ["average", "class"])
def test_tokens_are_pooled_to_the_class_token_or_to_the_mean_of_the_patches(pooling, rng) -> None:
    tokens = torch.rand(2, 9, 4, generator=rng).bfloat16()
    pooled = Tokens(4, (4, 2), 1, pooling).pool(tokens)
    assert torch.equal(pooled, tokens[:, 0].float() if pooling == "class" else tokens[:, 1:].float().mean(1))


@pytest.mark.parametrize("method", ["ide", "bnneck"])
def test_single_branches_describe_pictures_by_a_vision_transformer(method, rng) -> None:
    options = {"backbone": "test_vit", "last_stride": 2, "patch_stride": 12, "pooling": "class"}
    network = build_method(method, options, 3, size=(64, 32)).eval()
    zeros = torch.zeros(2, dtype=torch.int64)
    with torch.no_grad():
        vectors = network.embed(torch.rand(2, 3, 64, 32, generator=rng), zeros, zeros)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
    assert network.branch.width == 64


def test_idf_takes_a_vision_transformer_as_its_extractor(rng) -> None:
    options = {"extractor_options": {"backbone": "test_vit", "width": 8}, "curve_width": 4}
    network = build_method("idf", options, 3, size=(64, 32)).eval()
    zeros = torch.zeros(2, dtype=torch.int64)
    with torch.no_grad():
        assert network.embed(torch.rand(2, 3, 64, 32, generator=rng), zeros, zeros).shape == (2, 24)


def test_a_method_that_needs_maps_refuses_a_vision_transformer() -> None:
    with pytest.raises(RecipeError, match="backbone test_vit: gives tokens where feature maps are needed"):
        build_method("two_stream", {"backbone": "test_vit", "last_stride": 2}, 3)


def test_drop_path_rises_from_the_first_block_to_the_last() -> None:
    network, _ = build_any_backbone("test_vit", size=(64, 32), drop_path=0.1)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in network.blocks]
    assert rates == pytest.approx([0.1 * n / (len(rates) - 1) for n in range(len(rates))])
