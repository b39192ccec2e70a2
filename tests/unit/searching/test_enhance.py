from dataclasses import replace

import numpy as np
import pytest
import torch

from tapetum.inference.artefact import ModelSettings
from tapetum.inference.sessions import Model
from tapetum.inference.torch_sessions import TorchSession
from tapetum.methods import build_method
from tapetum.searching.enhance import LARGEST_HEIGHT, PLAIN, brighten, enhance, name_enhancement

IDF = {"extractor_options": {"backbone": "test_resnet", "width": 16}, "curve_width": 4, "input_scale": 1.0}


def a_model(options: dict, method: str = "idf") -> Model:
    torch.manual_seed(0)
    network = build_method(method, options, 3)
    settings = ModelSettings(method, options, (64, 32), "bicubic", "cv2", False, "none")
    return Model("one", settings, "torch", 48, TorchSession(network, "fp32", torch.device("cpu"), False))


@pytest.fixture
def night() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 30, (61, 33, 3), dtype=np.uint8)


def test_a_model_with_dce_net_shows_what_its_own_network_makes(one_thread: None, night: np.ndarray) -> None:
    model = a_model(IDF)
    shown = enhance(model, night)
    images = torch.from_numpy(night).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        expected = model.session.network.enhance(images)[0].permute(1, 2, 0).numpy() * 255  # type: ignore[attr-defined]
    assert shown.dtype == np.uint8
    assert shown.shape == night.shape
    assert np.abs(shown - expected).max() <= 0.51
    assert name_enhancement(model) == "DCE-Net of the model (idf)"


class Stranger(torch.nn.Module):
    """A network that brightens and does not say by what."""

    def enhance(self, images: torch.Tensor) -> torch.Tensor:
        return images * 2


@pytest.mark.parametrize(
    ("method", "options", "name"),
    [
        ("enlighten_gan", {"width": 2}, "EnlightenGAN of the model (enlighten_gan)"),
        ("zero_dce", {}, "DCE-Net of the model (zero_dce)"),
        ("theirs", None, "enhancement of the model (theirs)"),
    ],
)
def test_the_name_of_what_enhances_is_the_networks_own(
    one_thread: None, monkeypatch: pytest.MonkeyPatch, method: str, options: dict | None, name: str
) -> None:
    torch.manual_seed(0)
    network = Stranger() if options is None else build_method(method, options, 3)
    monkeypatch.setattr(network, "enhance", lambda _: pytest.fail("a name needs no picture"))
    settings = ModelSettings(method, options or {}, (64, 32), "bicubic", "cv2", False, "none")
    session = TorchSession(network, "fp32", torch.device("cpu"), False)
    assert name_enhancement(Model("one", settings, "torch", 48, session)) == name


def test_a_model_without_one_gets_a_plain_brightening_that_says_so(one_thread: None, night: np.ndarray) -> None:
    without = a_model(IDF | {"streams": "night_twice"})
    plain = a_model({"backbone": "test_resnet", "width": 16}, "ide")
    for model in (without, plain, replace(plain, session=object())):  # the last: an artefact, which is one piece
        assert name_enhancement(model) == PLAIN
        assert np.array_equal(enhance(model, night), brighten(night))


def test_brightening_keeps_the_order_of_values_and_ignores_one_lamp(night: np.ndarray) -> None:
    shown = brighten(night)
    assert shown.mean() > 4 * night.mean()
    assert shown.max() == 255
    assert ((night[:, :, 0] < night[:, :, 1]) <= (shown[:, :, 0] <= shown[:, :, 1])).all()
    lamp = night.copy()
    lamp[:2, :2] = 255
    assert np.abs(brighten(lamp)[5:].astype(int) - shown[5:]).max() <= 2
    assert (brighten(np.zeros_like(night)) == 0).all()
    white = np.full_like(night, 255)
    assert (brighten(white) == 255).all()


def test_a_large_picture_is_made_smaller_so_that_its_time_is_bounded(one_thread: None) -> None:
    large = np.zeros((1024, 300, 3), np.uint8)
    assert enhance(a_model(IDF), large).shape == (LARGEST_HEIGHT, 150, 3)
