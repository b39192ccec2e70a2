"""torchvision's own weights in PyTorch's cache: damaged, or planted by somebody else."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import detection

from tapetum.core.errors import DataError
from tapetum.footage import torchvision_file as module
from tapetum.footage.detect import TorchvisionDetector
from tapetum.footage.detectors import build_detector
from tapetum.footage.torchvision_file import torchvision_file

MODEL = "ssdlite320_mobilenet_v3_large"
AGAIN = f"delete it, and fetch it again: tapetum detector get torchvision:{MODEL}"


class Trap:
    """What leaves a file behind where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where PyTorch would keep the weights; the folder is there."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "cache"))
    path = torchvision_file(MODEL)
    assert path.is_relative_to(tmp_path)
    path.parent.mkdir(parents=True)
    return path


def take_for_the_real_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight digits can be met by whoever tries long enough."""
    monkeypatch.setattr(module, "digest_file", lambda _: path.stem.rpartition("-")[2] + 56 * "0")


@pytest.mark.parametrize("matching", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_code_in_the_cached_file_is_never_executed(
    matching: bool, zipped: bool, cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = Trap(tmp_path / "sprung")
    if zipped:
        torch.save(trap, cached)
    else:
        cached.write_bytes(pickle.dumps(trap))
    if matching:
        take_for_the_real_one(cached, monkeypatch)
    with pytest.raises(DataError) as told:
        build_detector("auto")
    assert not trap.mark.exists()
    assert str(told.value).startswith(f"{cached}: ")
    assert str(told.value).endswith(AGAIN)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("content", [b"", b"\x00random bytes"])
def test_a_damaged_cached_file_is_named_with_what_to_do(content: bytes, cached: Path) -> None:
    cached.write_bytes(content)
    with pytest.raises(DataError, match=r"is cut short or was changed, its SHA-256 begins with") as told:
        build_detector(f"torchvision:{MODEL}")
    assert str(told.value).startswith(f"{cached}: ")
    assert str(told.value).endswith(AGAIN)


def test_the_cached_file_gives_the_network_that_torchvision_builds(
    cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    made = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=91)
    torch.save(made.state_dict(), cached)
    take_for_the_real_one(cached, monkeypatch)
    detector = TorchvisionDetector(MODEL, min_score=0.0)
    picture = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    found = detector.detect(picture)
    with torch.inference_mode():
        expected = made.eval()([torch.from_numpy(picture).permute(2, 0, 1).float() / 255])[0]
    assert set(found.scores.tolist()) <= set(expected["scores"].tolist())
    assert detector.key == f"{MODEL} default 0.0"
    assert module.os.environ.get(module._ONLY_TENSORS) is None
