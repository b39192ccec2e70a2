"""Enhancers alone and over a whole data set."""

import colorsys
import math
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tapetum.core.discovery import list_names
from tapetum.core.errors import CheckpointError, DataError, MethodError, RecipeError
from tapetum.core.method import TrainingFacts
from tapetum.data.rewrite import rewrite_dataset
from tapetum.enhancers import ada_gamma, build_enhancer
from tapetum.layers.attention_unet import AttentionUNet
from tapetum.layers.curve_net import CurveNet
from tapetum.methods import zero_dce

PLAIN = ("ada_gamma", "clahe")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Untrained networks, as files."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    networks = {"zero_dce": CurveNet(), "enlighten_gan": AttentionUNet()}
    for name, network in networks.items():
        save_file(network.state_dict(), folder / f"{name}.safetensors")
    return {name: str(folder / f"{name}.safetensors") for name in networks}


def picture_of(low: int, high: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (24, 12, 3), dtype=np.uint8)


def slow_ada_gamma(picture: np.ndarray, tau: float) -> np.ndarray:
    """From the formulas, a pixel at a time, through HSV."""
    pixels = [colorsys.rgb_to_hsv(*(channel / 255 for channel in pixel)) for pixel in picture.reshape(-1, 3).tolist()]
    values = [v for _, _, v in pixels]
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))
    gamma = -math.log2(deviation) if 4 * deviation <= 1 / tau else math.exp((1 - (mean + deviation)) / 2)
    result = []
    for h, s, v in pixels:
        power = v**gamma
        if mean < 0.5:
            k = power + (1 - power) * mean**gamma
            power = power / (1 + (k - 1)) if k else 0.0
        result.append([round(255 * channel) for channel in colorsys.hsv_to_rgb(h, s, power)])
    return np.array(result).reshape(picture.shape)


@pytest.mark.parametrize(("low", "high"), [(0, 120), (20, 40), (100, 255), (180, 200), (0, 256)])
@pytest.mark.parametrize("tau", [3.0, 1.5])
def test_adaptive_gamma_is_what_the_formulas_say(low: int, high: int, tau: float) -> None:
    picture = picture_of(low, high)
    difference = ada_gamma.correct(picture, tau).astype(int) - slow_ada_gamma(picture, tau)
    assert np.abs(difference).max() <= 1  # of rounding on the way through HSV


@pytest.mark.parametrize("level", [0, 90, 255])
def test_a_picture_of_one_lightness_stays_as_it_is(level: int) -> None:
    picture = np.full((8, 4, 3), level, np.uint8)
    assert np.array_equal(ada_gamma.correct(picture), picture)


@pytest.mark.parametrize("name", PLAIN)
def test_a_dark_picture_becomes_brighter_and_keeps_size_and_type(name: str) -> None:
    picture = picture_of(0, 60)
    before = picture.copy()
    bright = build_enhancer(name)[0](picture)
    assert bright.shape == picture.shape
    assert bright.dtype == np.uint8
    assert bright.mean() > 1.1 * picture.mean()
    assert np.array_equal(picture, before), "what is given stays"


@pytest.mark.parametrize(
    "picture",
    [np.zeros((8, 4), np.uint8), np.zeros((8, 4, 3), np.uint16), np.zeros((8, 4, 4), np.uint8)],
    ids=["grey", "16 bits", "four channels"],
)
@pytest.mark.parametrize("name", [*PLAIN, "zero_dce", "enlighten_gan"])
def test_what_is_no_picture_of_bytes_is_refused(name: str, picture: np.ndarray, weights: dict[str, str]) -> None:
    options = {"weights": weights[name]} if name in weights else {}
    with pytest.raises(DataError, match=rf"enhancer {name}: a picture is .*; give \(H, W, 3\) uint8 RGB"):
        build_enhancer(name, options)[0](picture)


@pytest.mark.parametrize("name", [*PLAIN, "zero_dce", "enlighten_gan"])
def test_grey_files_and_files_of_sixteen_bits_become_bright_pictures_of_bytes(
    name: str, weights: dict[str, str], tmp_path: Path
) -> None:
    source, target = tmp_path / "night", tmp_path / "bright"
    source.mkdir()
    coloured = picture_of(0, 60)
    grey, deep = coloured[..., 0], coloured.astype(np.uint16) * 257
    stored = {
        "colour.png": coloured,
        "grey.png": grey,
        "grey.jpg": grey,
        "deep.png": deep,
        "deep_grey.png": deep[..., 0],
    }
    for file, pixels in stored.items():
        assert cv2.imwrite(str(source / file), pixels[..., ::-1] if pixels.ndim == 3 else pixels)
    brighten, facts = build_enhancer(name, {"weights": weights[name]} if name in weights else {})
    result = rewrite_dataset(source, target, lambda picture: (brighten(picture), 95), verb="enhance", settings=facts)
    assert (result.written, result.skipped) == (len(stored), ())
    made = {file: cv2.imread(str(target / file), cv2.IMREAD_UNCHANGED) for file in stored}
    assert all(pixels.shape == (24, 12, 3) and pixels.dtype == np.uint8 for pixels in made.values())
    assert np.array_equal(made["deep.png"], made["colour.png"])  # full range against full range
    assert np.array_equal(made["deep_grey.png"], made["grey.png"])
    assert np.array_equal(made["colour.png"][..., ::-1], brighten(coloured))
    if name in PLAIN:
        assert made["grey.png"].mean() > 1.1 * grey.mean()


def test_weights_of_zero_dce_give_the_method_s_own_pictures_and_are_named_by_their_content(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = zero_dce.Method(zero_dce.Options(), TrainingFacts(1)).eval()
    file = tmp_path / "curves.safetensors"
    save_file(network.enhancer.state_dict(), file)
    enhance, facts = build_enhancer("zero_dce", {"weights": str(file)})
    picture = picture_of(0, 80)
    with torch.inference_mode():
        expected = network.enhance(torch.from_numpy(picture / np.float32(255)).permute(2, 0, 1)[None])
    found = enhance(picture).astype(float)
    assert np.abs(found - 255 * expected[0].permute(1, 2, 0).numpy()).max() <= 0.51
    state = {name: value + 0.1 for name, value in network.enhancer.state_dict().items()}
    save_file(state, file)
    assert build_enhancer("zero_dce", {"weights": str(file)})[1] != facts


def test_weights_of_enlighten_gan_as_released_give_its_network_s_pictures_of_any_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = AttentionUNet().eval()
    network.conv10.weight.data *= 50  # fresh weights change hardly anything
    file = tmp_path / "200_net_G_A.pth"
    torch.save({f"module.{name}": value for name, value in network.state_dict().items()}, file)
    picture = picture_of(0, 80)[:, :11]
    images = torch.from_numpy(picture / np.float32(255)).permute(2, 0, 1)[None]
    made = []
    for options in ({}, {"align_corners": True}, {"largest_width": 10}):
        enhance, facts = build_enhancer("enlighten_gan", {"weights": str(file), **options})
        for name, value in ({"align_corners": False, "largest_width": 2200} | options).items():
            assert facts[name] == value
            setattr(network, name, value)
        with torch.inference_mode():
            expected = network.enhance(images)
        found = enhance(picture)
        assert np.abs(found.astype(float) - 255 * expected[0].permute(1, 2, 0).numpy()).max() <= 0.51
        made.append(found)
    assert not np.array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])


def test_a_mistake_names_the_enhancer_and_the_remedy(tmp_path: Path) -> None:
    for name, options, kind, message in (
        ("ada_gama", {}, RecipeError, "did you mean ada_gamma"),
        ("ada_gamma", {"tua": 3}, RecipeError, "enhancer ada_gamma.tua is unknown; did you mean tau"),
        ("ada_gamma", {"tau": 0}, RecipeError, "enhancer ada_gamma.tau"),
        ("zero_dce", {}, CheckpointError, "its weights are not named; write --set weights=FILE"),
        ("zero_dce", {"weights": "gone.pth"}, CheckpointError, "gone.pth is no file"),
        ("enlighten_gan", {}, CheckpointError, "its weights are not named; write --set weights=FILE"),
        ("enlighten_gan", {"weights": "gone.pth"}, CheckpointError, "gone.pth is no file"),
        ("enlighten_gan", {"largest_width": 0}, RecipeError, "enhancer enlighten_gan.largest_width"),
        (str(tmp_path), {}, CheckpointError, "checkpoint"),
        (str(tmp_path), {"tau": 3}, RecipeError, "a run brings its own settings; leave out tau"),
    ):
        with pytest.raises(kind, match=message):
            build_enhancer(name, options)


def test_a_folder_named_like_an_enhancer_hides_it_only_where_it_is_written_as_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ada_gamma").mkdir()
    assert build_enhancer("ada_gamma")[1]["enhancer"] == "ada_gamma"
    for path in ("./ada_gamma", str(tmp_path / "ada_gamma")):
        with pytest.raises(CheckpointError, match="no checkpoint at"):
            build_enhancer(path)


STRANGER = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Options:
    lift: int = 10

def build(options):
    return lambda picture: picture{change}
"""


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    def write(change: str) -> str:
        package = tmp_path / "lamps"
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "lift.py").write_text(STRANGER.format(change=change))
        monkeypatch.syspath_prepend(str(tmp_path))
        for name in [name for name in sys.modules if name.split(".")[0] == "lamps"]:
            monkeypatch.delitem(sys.modules, name)
        return "lamps.lift"

    return write


def test_a_stranger_s_enhancer_works_by_its_dotted_name(stranger: Callable[[str], str]) -> None:
    enhance, facts = build_enhancer(stranger(" + options.lift"), {"lift": 7})
    assert facts == {"enhancer": "lamps.lift", "lift": 7}
    assert np.array_equal(enhance(picture_of(0, 9)), picture_of(0, 9) + 7)


def test_one_that_changes_size_or_type_is_told_so(stranger: Callable[[str], str]) -> None:
    enhance, _ = build_enhancer(stranger("[:3]"))
    with pytest.raises(MethodError, match=r"lamps.lift: made \(3, 12, 3\) uint8 of \(24, 12, 3\); it must keep"):
        enhance(picture_of(0, 9))


def test_a_file_without_a_part_is_told_which(stranger: Callable[[str], str], tmp_path: Path) -> None:
    name = stranger("")
    (tmp_path / "lamps" / "lift.py").write_text("")
    with pytest.raises(RecipeError, match="its file has no Options; add a frozen dataclass"):
        build_enhancer(name)


def test_every_enhancer_is_tested_here() -> None:
    assert sorted([*PLAIN, "enlighten_gan", "zero_dce"]) == list_names("tapetum.enhancers")
