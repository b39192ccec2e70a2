"""Fixtures that several test packages share; heavy imports stay inside."""

import gc
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores: a second thread each would wait for the others
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

if TYPE_CHECKING:
    from tapetum.runs.recipe import Recipe

# A network of 0.2 million weights on pictures of 32 x 16: a training of a few steps takes a second.
TINY = (
    "data.size=[32, 16]",
    "data.workers=0",
    "data.backend=cv2",
    "data.cache=memory",
    "init.weights=random",
    "training.precision=fp32",
    "training.accelerator=cpu",
    "evaluation.precision=fp32",
    "selection.rule=last",
)
TINY_IDE = ("method.backbone=test_resnet", "method.width=16")
TINY_IDF = ("method.extractor_options={backbone: test_resnet, width: 16}", "method.curve_width=4")


def pytest_sessionstart() -> None:
    """A suite that was started in the background ignores Ctrl-C, which some tests send."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Nothing that is imported or collected is garbage: it is not looked for meanwhile."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Night600's flat layout with eight training and four testing people under two cameras, four pictures each."""
    import cv2

    from tapetum.data.datasets.night600 import picture_path

    root = tmp_path_factory.mktemp("people")
    rng = np.random.default_rng(7)
    colours = rng.integers(20, 120, (12, 8, 1, 3))
    for pid, camid, index in np.ndindex(12, 2, 4):
        stripes = np.clip(colours[pid] + rng.integers(-12, 12, (8, 4, 3)) - 10 * camid, 0, 255).astype(np.uint8)
        picture = cv2.imencode(".png", cv2.resize(stripes, (16, 32), interpolation=cv2.INTER_NEAREST))[1].tobytes()
        splits = ["train"] if pid < 8 else ["gallery", "query"] if index == 0 else ["gallery"]
        for split in splits:
            path = root / picture_path(split, pid, camid + 1, index)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(picture)
    return root


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder for caches is not the user's own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAPETUM_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def kept_memory() -> None:
    """What a test frees serves the next one without the system in between, as in the program itself."""
    from tapetum.core.memory import keep_freed_memory

    keep_freed_memory()


@pytest.fixture(scope="session", autouse=True)
def streets() -> Iterator[None]:
    """Scenes of the same cameras share their streets, each of which costs as much as ten small pictures."""
    from tapetum.synth import scene

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene, "build_street", lru_cache(maxsize=16)(scene.build_street))
        yield


@pytest.fixture(scope="module")
def coarse_streets() -> Iterator[None]:
    """Streets of few pixels, where it does not matter what is behind the people: 0.01 s in the place of 0.2 s each."""
    from tapetum.synth import background, scene

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene, "build_street", lru_cache(maxsize=16)(partial(background.build_street, size=(135, 240))))
        yield


@pytest.fixture
def quick_milvus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Milvus's client asks after 10 ms, not after 500, whether a table that it made is there."""
    import time
    from types import SimpleNamespace

    grpc_handler = pytest.importorskip("pymilvus.client.grpc_handler")
    clock = SimpleNamespace(time=time.time, sleep=lambda seconds: time.sleep(min(seconds, 0.01)))
    monkeypatch.setattr(grpc_handler, "time", clock)


@pytest.fixture(scope="session")
def one_thread() -> Iterator[None]:
    """Small networks are fastest, and busy machines least in the way, with one thread."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


STRANGER = '''
"""A method from outside, without batch norm and dropout: a batch in parts is the same sum as the whole."""
from dataclasses import dataclass
import torch
from torch import nn
from torch.nn import functional

@dataclass(frozen=True)
class Options:
    width: int = 6

@dataclass(frozen=True)
class Output:
    feature: torch.Tensor
    logits: torch.Tensor

class Method(nn.Module):
    def __init__(self, options, facts):
        super().__init__()
        self.num_ids = facts.num_ids
        self.reduce = nn.Linear(3 * 8 * 4, options.width)
        self.classifier = nn.Linear(options.width, facts.num_ids)

    def forward(self, images, modalities, camids):
        feature = self.reduce(functional.adaptive_avg_pool2d(images, (8, 4)).flatten(1)).tanh()
        return Output(feature, self.classifier(feature))

    def losses(self, output, batch):
        return {"id": functional.cross_entropy(output.logits, batch.labels)}

    def embed(self, images, modalities, camids, *, mirror=False):
        feature = self.forward(images, modalities, camids).feature
        if mirror:
            feature = feature + self.forward(images.flip(3), modalities, camids).feature
        return functional.normalize(feature.float())

    def parameter_groups(self):
        return {"backbone": list(self.reduce.parameters()), "head": list(self.classifier.parameters())}

    def load_pretrained(self, source):
        pass
'''


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Dotted name of a method that is not part of the package."""
    folder = tmp_path_factory.mktemp("stranger")
    (folder / "their_package").mkdir()
    (folder / "their_package" / "__init__.py").write_text("")
    (folder / "their_package" / "plain.py").write_text(STRANGER)
    sys.path.insert(0, str(folder))
    yield "their_package.plain"
    sys.path.remove(str(folder))


@pytest.fixture(scope="session")
def tiny_recipe(people: Path, one_thread: None) -> "Callable[..., Recipe]":
    """A recipe small enough for a test: eight steps of eight pictures an epoch, two epochs."""

    def build(name: str = "ide_night600", overrides: Sequence[str] = ()) -> "Recipe":
        from tapetum.runs.recipe import load_recipe

        method = TINY_IDE if name.startswith("ide_night600") else TINY_IDF
        small = ("sampler.batch=8", "schedule.epochs=2", "schedule.step=1")
        return load_recipe(name, [*TINY, *method, *small, f"data.root={people}", *overrides])

    return build
