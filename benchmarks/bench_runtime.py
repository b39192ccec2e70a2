"""JPEG files to vectors, end to end: against the same model alone, and against the straightforward way.

The model is IDE+ with ResNet-50 at 256 x 128, random weights, vectors joined with the mirror's on every side. It is
opened as a run (PyTorch) and as artefacts of `tapetum export`, each in the precision it chooses by itself. "The model
alone" computes pictures that are in memory already, in the same batches. The straightforward way opens, resizes and
normalises picture by picture with Pillow and torchvision, and computes batches of four in fp32 in the default memory
layout. All sides take turns in one run. First, each runtime's vectors must be those of the network itself.

How much there is to win depends on the CPU: large matrix products are timed as well, because no runtime computes a
network much faster than that. Where bf16 is twice as fast as fp32 (AVX-512 without AMX), arithmetic of 16 bits cannot
be eight times as fast as the straightforward way.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision import transforms

from benchmarks.bench_loader import write_pictures
from benchmarks.measure import alternate, build_row
from tapetum.core.types import UNKNOWN_CAMERA, Record
from tapetum.data.pictures import PictureOptions, read_resized
from tapetum.data.transforms import to_float, to_tensor
from tapetum.inference.artefact import ArtefactError
from tapetum.inference.export import export_run
from tapetum.inference.model import BATCH, Model
from tapetum.inference.sessions import open_model
from tapetum.layers.products import counting_flops
from tapetum.methods import build_method
from tapetum.runs.checkpoint import Header, save_checkpoint
from tapetum.runs.recipe import load_recipe

PICTURES = 64
ROUNDS = 3
NAIVE_BATCH = 4
NUM_IDS = 100
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def save_run(place: Path, size: tuple[int, int], backbone: str) -> nn.Module:
    """A checkpoint as a training would leave it, and its network."""
    torch.manual_seed(0)
    options = {"backbone": backbone}
    network = build_method("ide", options, NUM_IDS)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0  # one batch settles the statistics
    images = nn.functional.interpolate(torch.rand(16, 3, 12, 6), size=size, mode="bilinear")
    kinds = torch.zeros(16, dtype=torch.int64)
    with torch.no_grad():
        network.train()(images, kinds, kinds)
    recipe = load_recipe("ide_night600", [f"data.size={list(size)}", "evaluation.mirror=true", "data.backend=cv2"])
    save_checkpoint(place, network, Header("ide", options, NUM_IDS, recipe.model_dump(mode="json")))
    return network.eval()


def open_all(folder: Path, run: Path) -> Iterator[Model]:
    """The run itself and its artefacts, as far as the libraries are there."""
    yield open_model(run)
    for runtime in ("onnx", "openvino"):
        try:
            export_run(run, runtime, folder / runtime)
        except ArtefactError as error:
            print(f"    {runtime} is left out: {error}", flush=True)
            continue
        yield open_model(folder / runtime)


def compute_plainly(network: Any, size: tuple[int, int], records: list[Record]) -> torch.Tensor:
    """What a short script does."""
    change = transforms.Compose(
        [
            transforms.Resize(size, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, DEVIATION),
        ]
    )
    vectors = []
    with torch.no_grad():
        for start in range(0, len(records), NAIVE_BATCH):
            part = records[start : start + NAIVE_BATCH]
            images = torch.stack([change(Image.open(record.path).convert("RGB")) for record in part])
            kinds = torch.zeros(len(part), dtype=torch.int64)
            vector = 0.0
            for shown in (images, images.flip(3)):  # normalised already, so past the method's own normalisation
                vector = vector + network.head(network.branch(shown, kinds, kinds)).embedding
            vectors.append(nn.functional.normalize(vector))
    return torch.cat(vectors)


def compute_alone(model: Model, images: torch.Tensor) -> None:
    """Pictures in memory to vectors."""
    kinds = np.zeros(len(images), dtype=np.int64)
    cameras = np.full_like(kinds, UNKNOWN_CAMERA)
    for start in range(0, len(images), BATCH):
        rows = slice(start, start + BATCH)
        model.session.run(images[rows].numpy(), kinds[rows], cameras[rows])


def check_equal(model: Model, network: Any, images: torch.Tensor) -> float:
    """Smallest cosine of a runtime's vectors to the network's own."""
    kinds = torch.zeros(len(images), dtype=torch.int64)
    with torch.no_grad():
        expected = network.embed(images, kinds, kinds, mirror=True)
    cosine = float((model.describe(images, 0) * expected).sum(1).min())
    if cosine < 0.999:
        raise AssertionError(f"{model.runtime}: cosine {cosine} to the network's vectors")
    return cosine


def count_operations(network: Any, images: torch.Tensor) -> float:
    """Floating-point operations of one picture and its mirror, in 10^9."""
    kinds = torch.zeros(len(images), dtype=torch.int64)
    with torch.no_grad(), counting_flops() as counter:
        network.embed(images, kinds, kinds, mirror=True)
    return counter.get_total_flops() / len(images) / 1e9


def measure_product(kind: torch.dtype, size: int = 2048) -> float:
    """10^9 operations a second of a large matrix product."""
    factor = torch.rand(size, size).to(kind)
    seconds = alternate({"product": lambda: factor @ factor}, 5)["product"]
    return 2 * size**3 / seconds / 1e9


def run(
    pictures: int = PICTURES, size: tuple[int, int] = (256, 128), backbone: str = "resnet50", rounds: int = ROUNDS
) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pictures").mkdir()
        records = write_pictures(folder / "pictures")[:pictures]
        network = save_run(folder / "run.safetensors", size, backbone)
        options = PictureOptions(size=size)
        images = torch.cat([to_tensor(to_float(read_resized(r.path, options)[None])) for r in records])
        images = images.contiguous(memory_format=torch.channels_last)
        models = {f"{model.runtime} {model.precision}": model for model in open_all(folder, folder / "run.safetensors")}
        cosines = {key: check_equal(model, network, images[:8]) for key, model in models.items()}
        sides: dict[str, Callable[[], object]] = {"plain": partial(compute_plainly, network, size, records)}
        for key, model in models.items():
            sides[f"{key} files"] = partial(model.describe_records, records)
            sides[f"{key} alone"] = partial(compute_alone, model, images)
        rates = {side: len(records) / seconds for side, seconds in alternate(sides, rounds).items()}
        operations = count_operations(network, images[:2])
    products = {kind: measure_product(getattr(torch, kind)) for kind in ("float32", "bfloat16")}
    fastest = max(models, key=lambda key: rates[f"{key} files"])
    for key in models:
        what = f"JPEG to vector, {key}"
        note = f"smallest cosine to the network's own vectors {cosines[key]:.6f}"
        files, alone = rates[f"{key} files"], rates[f"{key} alone"]
        yield build_row(f"{what}: against the model alone", files, alone, "pictures/s", target=0.8, note=note)
        target = 8.0 if key == fastest else None
        theirs = operations * rates["plain"]
        note = (
            f"{operations:.1f} GFLOP a picture: {operations * files:.0f} GFLOP/s, the peer {theirs:.0f}; "
            f"a large product here: {products['float32']:.0f} in fp32, {products['bfloat16']:.0f} in bf16"
        )
        yield build_row(
            f"{what}: against Pillow, fp32, batch 4",
            files,
            rates["plain"],
            "pictures/s",
            target=target,
            note=note if target else "",
        )
