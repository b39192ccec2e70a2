"""Runs that need no training: tiny networks whose batch norms have seen pictures."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tapetum.core.seeding import numpy_generator
from tapetum.core.types import Modality, Record
from tapetum.data.catalog import Dataset, open_dataset
from tapetum.data.datasets import llcm
from tapetum.data.layout import write_sample_picture
from tapetum.methods import build_method
from tapetum.runs.checkpoint import Header, save_checkpoint
from tapetum.runs.recipe import load_recipe

TINY = {
    "ide": ("ide_night600", {"backbone": "test_resnet", "width": 16}),
    "idf": ("idf_synth", {"extractor_options": {"backbone": "test_resnet", "width": 16}, "curve_width": 4}),
    "student": (
        "student_synth",
        {"extractor_options": {"backbone": "test_resnet", "width": 16}, "teacher": {"curve_width": 4}},
    ),
    "bnneck": ("bnneck_synth", {"backbone": "test_resnet", "last_stride": 2}),
    "agw": ("agw_market1501", {"backbone": "test_resnet", "last_stride": 2}),
    "two_stream": ("two_stream_llcm", {"backbone": "test_resnet", "last_stride": 2}),
    "agw_vi": ("agw_llcm", {"backbone": "test_resnet", "last_stride": 2}),
    "pcb": ("pcb_night600", {"backbone": "test_resnet", "last_stride": 2, "part_width": 16}),
    "transreid": ("transreid_night600", {"backbone": "test_vit", "drop_path": 0.0}),
    "mmn": ("mmn_llcm", {"backbone": "test_resnet", "last_stride": 2, "generator_input": "plain"}),
    "align_gan": (
        "align_gan_llcm",
        {
            "backbone": "test_resnet",
            "last_stride": 2,
            "encoder_size": (96, 48),
            "generator_width": 4,
            "generator_blocks": 1,
            "discriminator_width": 2,
            "discriminator_layers": 3,
            "weight_std": 0.2,
        },
    ),
    "hi_cmd": (
        "hi_cmd_llcm",
        {
            "backbone": "test_resnet",
            "dilations": (1, 2, 3),
            "prototype_blocks": 1,
            "mixer_width": 4,
            "width": 16,
            "triplet_width": 8,
            "discriminator_width": 2,
            "discriminator_blocks": 0,
            "discriminator_scales": 2,
        },
    ),
    "deen": ("deen_llcm", {"backbone": "test_resnet", "last_stride": 2, "illumination": "branch", "curve_width": 4}),
}
NUM_IDS = 5
SIZE, CAMIDS = (64, 32), (1, 2, 4)
MakeRun = Callable[..., Path]


def settle(network: nn.Module) -> None:
    """Batch norms with the statistics of one batch, and none of them silent."""
    generator = torch.Generator().manual_seed(3)
    images = nn.functional.interpolate(torch.rand(16, 3, 8, 4, generator=generator), size=SIZE, mode="bilinear")
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
        nn.init.normal_(norm.weight, 0.5, 0.2, generator=generator)
    with torch.no_grad():
        network.train()(images, torch.arange(16) % 2, torch.zeros(16, dtype=torch.int64))
    network.eval()


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> MakeRun:
    """A checkpoint file of a method; made once."""
    made: dict[str, Path] = {}

    def make(method: str) -> Path:
        if method not in made:
            source, options = TINY[method]
            mirror = method not in ("idf", "deen", "transreid", "mmn")  # whose graphs are long enough
            changes = [f"data.size={list(SIZE)}", f"evaluation.mirror={str(mirror).lower()}"]
            recipe = load_recipe(source, [*changes, "evaluation.precision=fp32"])
            torch.manual_seed(1)
            network = build_method(method, options, NUM_IDS, camids=CAMIDS, size=SIZE)
            settle(network)
            made[method] = tmp_path_factory.mktemp(method) / "best.safetensors"
            content = recipe.model_dump(mode="json")
            save_checkpoint(made[method], network, Header(method, options, NUM_IDS, content, camids=CAMIDS, size=SIZE))
        return made[method]

    return make


@pytest.fixture(scope="session")
def make_artefact(make_run: MakeRun, tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """A folder with an exported model; made once, as is the ONNX file that OpenVINO's way begins with."""
    from tapetum.inference import export

    made: dict[tuple[str, str], Path] = {}

    def make(method: str, runtime: str) -> Path:
        if (method, runtime) not in made:
            folder = tmp_path_factory.mktemp("artefacts") / f"{method}_{runtime}"
            with pytest.MonkeyPatch.context() as patch:
                if runtime == "openvino":
                    between = make(method, "onnx") / "network.onnx"
                    patch.setattr(export, "write_onnx", lambda *given: shutil.copy(between, given[2]))
                export.export_run(make_run(method), runtime, folder)
            made[method, runtime] = folder
        return made[method, runtime]

    return make


@pytest.fixture(scope="session")
def crossed(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """LLCM's layout with six testing people, three pictures each under two cameras of both modalities."""
    root = tmp_path_factory.mktemp("llcm")
    rng = numpy_generator(3)
    entries = []
    for pid, camid, modality, index in np.ndindex(8, 2, 2, 3):
        split = "train" if pid < 2 else "test"
        path = llcm.picture_path(split, pid + 1, camid + 1, index, Modality(modality))
        write_sample_picture(root / path, rng)
        entries.append(Record(path, pid + 1, camid + 1, Modality(modality), split))
    llcm.write_index(root, entries)
    return open_dataset("llcm", root)
