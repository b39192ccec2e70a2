"""Ray runs in processes of its own, on loopback, and only in the slow tests."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from plain_model import plain_model
from tapetum.core.errors import GalleryError, MissingGalleryError, RecipeError
from tapetum.footage.sources import find_sources
from tapetum.gallery.opening import open_gallery
from tapetum.indexing import ray_cluster
from tapetum.indexing.index import IndexOptions, index_sources, open_gallery_for
from tapetum.inference.sessions import open_model
from tapetum.methods import build_method
from tapetum.runs.checkpoint import Header, save_checkpoint
from tapetum.runs.recipe import load_recipe

SCRIPT = """
import json, os, subprocess, sys
from functools import partial
from pathlib import Path
from ray.cluster_utils import Cluster
from tapetum.core.errors import TapetumError
from tapetum.footage.detect import BackgroundDetector
from tapetum.footage.facts import SourceOptions
from tapetum.footage.sources import find_sources
from tapetum.indexing.index import open_gallery_for
from tapetum.indexing.ray_cluster import index_on_ray
from tapetum.inference.sessions import open_model

crops, gallery, model = map(Path, sys.argv[1:])
loading = partial(open_model, model, precision="fp32")
here = find_sources([crops])
frames = find_sources([crops], SourceOptions(kind="frames"))
node = {"num_cpus": 2, "node_ip_address": "127.0.0.1", "object_store_memory": 80 * 2**20}
cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
cluster.add_node(**node)
told = {}
try:
    own = loading()
    with open_gallery_for(gallery, own, model) as store:
        index = partial(index_on_ray, cluster.address, store=store, model=own, load_model=loading, actors=2)
        seen = []
        hear = lambda *given: seen.append(given)
        report = index(sources=here, build_detector=BackgroundDetector, name=["here"], progress=hear)
        told |= report.to_dict() | {"last": seen[-1]}
        again = index(sources=here, build_detector=BackgroundDetector, name=["here"])
        told["again"] = [again.added, again.known]
        try:
            index(sources=frames, build_detector=type(None), name=["frames"])
        except TapetumError as error:
            told["error"] = [type(error).__name__, str(error)]
    print("TOLD " + json.dumps(told), flush=True)  # before the cluster's end, which may take this process with it
finally:
    cluster.shutdown()
"""

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install 'tapetum[ray]'"
)


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    path = tmp_path_factory.mktemp("model") / "best.safetensors"
    torch.manual_seed(0)
    options = {"backbone": "test_resnet", "width": 16}
    recipe = load_recipe("ide_night600", ["data.size=[32, 16]", "evaluation.precision=fp32"])
    save_checkpoint(
        path, build_method("ide", options, 5).eval(), Header("ide", options, 5, recipe.model_dump(mode="json"))
    )
    return path


@pytest.fixture
def crops(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    for folder in range(4):
        (tmp_path / "footage" / f"cam{folder}").mkdir(parents=True)
        for number in range(10):
            picture = rng.integers(60, 200, (48, 20, 3), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / "footage" / f"cam{folder}" / f"{number:04d}.png"), picture)
    return tmp_path / "footage"


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_cluster_of_two_nodes_brings_what_one_process_brings(crops: Path, run_file: Path, tmp_path: Path) -> None:
    model = open_model(run_file, precision="fp32")
    with open_gallery_for(tmp_path / "alone", model, run_file) as store:
        index_sources(find_sources([crops]), store, model, None)
        rows = store.find()
        vectors = store.fetch([row.sighting.id for row in rows]).vectors
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), str(crops), str(tmp_path / "shared"), str(run_file)]
    settings = {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else Ray takes 127.0.0.1 for this machine's other address
        "RAY_ENABLE_AUTO_CONNECT": "0",  # as `connect` sets it; the script imports Ray before
    }
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=False, timeout=300)
    lines = [line for line in done.stdout.splitlines() if line.startswith("TOLD ")]
    assert lines, f"code {done.returncode}\n{done.stdout}{done.stderr}"
    told = json.loads(lines[0].removeprefix("TOLD "))
    assert (told["added"], told["rows"], told["last"], told["again"]) == (40, 40, [40, 40], [0, 40])
    assert told["error"][0] == "RecipeError", told["error"]
    assert "no detector is given" in told["error"][1]
    with open_gallery(tmp_path / "shared") as shared:
        assert shared.find() == rows
        found = shared.fetch([row.sighting.id for row in rows]).vectors
    torch.testing.assert_close(found, vectors, atol=1e-5, rtol=0)


def test_without_ray_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(ray_cluster.importlib, "import_module", missing)
    with pytest.raises(RecipeError, match=r"pip install 'tapetum\[ray\]'"):
        ray_cluster.connect("127.0.0.1:1")


def test_what_went_wrong_on_a_node_is_told_as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    maker = ray_cluster.ShardMaker(
        str(tmp_path / "nowhere"), None, pytest.fail, pytest.fail, IndexOptions(), ["here"], []
    )
    told = maker({"shard": np.array(["one"])})
    with pytest.raises(MissingGalleryError, match="no gallery is there"):
        ray_cluster._check("head:1", *told["error"], *told["message"])
    ray_cluster._check("head:1", "", "")


def test_what_no_check_has_foreseen_on_a_node_is_told_with_its_kind() -> None:
    with pytest.raises(GalleryError, match=r"--ray head:1: a shard could not be made \(ZeroDivisionError: by zero\); "):
        ray_cluster._check("head:1", "ZeroDivisionError", "by zero")


@pytest.mark.parametrize(
    ("device", "resources", "actors", "expected"),
    [
        ("cuda", {"CPU": 8.0, "GPU": 2.0}, 3, 0.5),
        ("cuda", {"CPU": 8.0, "GPU": 4.0}, 2, 1.0),
        ("cuda:1", {"GPU": 1.0}, 4, 0.25),
        ("cuda", {"GPU": 3.0}, 16, 0.1666),
        ("cuda", {"CPU": 8.0}, 3, None),
        ("cpu", {"CPU": 8.0, "GPU": 2.0}, 3, None),
    ],
)
def test_actors_share_the_gpus_of_the_cluster_where_the_model_computes_on_one(
    device: str, resources: dict[str, float], actors: int, expected: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = plain_model()
    monkeypatch.setattr(model.session, "device", device)
    assert ray_cluster.share_of_gpu(model, resources, actors) == expected
