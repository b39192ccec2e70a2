"""What visible methods compute otherwise than plainly, and TransReID's artefacts; their speeds are in `methods`.

With equal values asserted, what avoids work: TransReID's fused attention against products that are written out, in
extraction and in a training step; ABD-Net's power iterations, which never form M M^T, against forming it. And what
avoids none: torch's attention for ABD-Net's position attention. TransReID's artefacts are compared with PyTorch in
speed; `tapetum export`, which makes them, asserts equal vectors.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.measure import alternate, build_row
from tapetum.core.types import Batch
from tapetum.inference.export import export_run
from tapetum.inference.sessions import open_model
from tapetum.layers.attention import PositionAttention
from tapetum.losses.spectral_gap import spectral_gap
from tapetum.methods import build_method
from tapetum.runs.checkpoint import Header, save_checkpoint
from tapetum.runs.recipe import load_recipe

PEOPLE = 60
CAMIDS = (1, 2, 3, 4, 5, 6)
SIZE, BATCH = (256, 128), 8
ROUNDS = 2
SMALL_VIT = {"backbone": "deit_small_patch16_224"}  # for artefacts: the published one is four times as large


def build(options: dict[str, Any] | None = None) -> Any:
    torch.manual_seed(0)
    return build_method("transreid", options or {}, PEOPLE, camids=CAMIDS, size=SIZE).eval()


def draw_batch() -> Batch:
    images = torch.rand(BATCH, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(BATCH) // 2
    cameras = torch.tensor(CAMIDS)[torch.arange(BATCH) % len(CAMIDS)]
    return Batch(images, labels, labels, cameras, torch.zeros_like(labels))


def run() -> Iterator[dict[str, Any]]:
    """Rows one by one."""
    yield measure_attention()
    yield measure_attention_step()
    yield measure_position_attention()
    yield measure_gaps("OF: maps of 2048 x 8 x 1024 places", 8, 2048, 1024)
    yield measure_gaps("OW: 16 weights of 512 x 4608", 16, 512, 4608)
    yield from measure_artefacts()


def measure_attention() -> dict[str, Any]:
    method, batch = build(), draw_batch()

    def fused() -> Tensor:
        with torch.no_grad():
            vectors: Tensor = method.embed(batch.images, batch.modalities, batch.camids)
            return vectors

    def plainly() -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            return fused()

    torch.testing.assert_close(fused(), plainly(), rtol=0, atol=1e-5)
    seconds = alternate({"ours": fused, "peer": plainly}, ROUNDS)
    name = "TransReID extraction, float32: fused attention, against its products written out"
    return build_row(name, BATCH / seconds["ours"], BATCH / seconds["peer"], "pictures/s")


def measure_attention_step() -> dict[str, Any]:
    """Forward, losses and backward; nothing is dropped, so that both sides compute the same."""
    method, batch = build({"drop_path": 0.0}).train(), draw_batch()
    parameters = [each for each in method.parameters() if each.requires_grad]

    def fused() -> list[Tensor]:
        output = method(batch.images, batch.modalities, batch.camids)
        total = torch.stack(list(method.losses(output, batch).values())).sum()
        return [total, *torch.autograd.grad(total, parameters)]

    def plainly() -> list[Tensor]:
        with sdpa_kernel(SDPBackend.MATH):
            return fused()

    for ours, theirs in zip(fused(), plainly(), strict=True):
        scale = max(float(theirs.abs().max()), 1e-3)
        torch.testing.assert_close(ours / scale, theirs / scale, rtol=0, atol=1e-3)
    seconds = alternate({"ours": fused, "peer": plainly}, ROUNDS)
    name = "TransReID training step, float32: fused attention, against its products written out"
    return build_row(name, BATCH / seconds["ours"], BATCH / seconds["peer"], "pictures/s")


def measure_position_attention() -> dict[str, Any]:
    """ABD-Net's, of the maps of one half of its pictures; torch's own on the same queries, keys and values."""
    torch.manual_seed(0)
    attention = PositionAttention(512)
    torch.nn.init.ones_(attention.gamma)
    maps = torch.rand(BATCH, 512, 12, 8, requires_grad=True)

    def plainly() -> Tensor:
        attended: Tensor = attention(maps)
        return attended

    def by_torch() -> Tensor:
        parts = (attention.query, attention.key, attention.value)
        query, key, value = (part(maps).flatten(2).mT[:, None] for part in parts)
        heard = functional.scaled_dot_product_attention(query, key, value, scale=1.0)  # its own would be 1 / 8
        return attention.gamma * heard[:, 0].mT.reshape(maps.shape) + maps

    torch.testing.assert_close(plainly(), by_torch(), rtol=0, atol=1e-5)
    sides = {"ours": lambda: plainly().sum().backward(), "peer": lambda: by_torch().sum().backward()}
    seconds = alternate(sides, rounds=20)
    name = "ABD-Net's position attention with gradients: products written out, against torch's attention"
    return build_row(name, seconds["ours"], seconds["peer"], "s")


def gap_plainly(matrices: Tensor, starts: Tensor) -> Tensor:
    """The release's way: M M^T is formed, and multiplied."""
    squares = matrices @ matrices.mT
    values: list[Tensor] = []
    for start in starts:
        shift = values[0][:, None, None] if values else 0.0
        shifted = squares - shift * torch.eye(squares.shape[-1])
        vector = functional.normalize(shifted @ start[:, None], dim=-2)
        values.append((vector.mT @ shifted @ vector).flatten())
    return -values[1]  # the largest, minus the smallest of the shifted and the largest


def measure_gaps(what: str, count: int, rows: int, columns: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(count, rows, columns, generator=generator).requires_grad_()
    starts = torch.rand(2, rows, generator=generator)
    torch.testing.assert_close(spectral_gap(matrices, starts), gap_plainly(matrices, starts), rtol=1e-3, atol=1e-2)
    sides = {
        "ours": lambda: spectral_gap(matrices, starts).sum().backward(),
        "peer": lambda: gap_plainly(matrices, starts).sum().backward(),
    }
    seconds = alternate(sides, rounds=3)
    return build_row(f"ABD-Net's {what}, with gradients: against forming M M^T", seconds["ours"], seconds["peer"], "s")


def measure_artefacts() -> Iterator[dict[str, Any]]:
    network = build(SMALL_VIT)
    recipe = load_recipe("transreid_market1501", ["method.backbone=deit_small_patch16_224"])
    header = Header("transreid", SMALL_VIT, PEOPLE, recipe.model_dump(mode="json"), camids=CAMIDS, size=SIZE)
    batch = draw_batch()
    with tempfile.TemporaryDirectory() as folder:
        run_file = Path(folder) / "run.safetensors"
        save_checkpoint(run_file, network, header)
        for runtime in ("onnx", "openvino"):
            export_run(run_file, runtime, Path(folder) / runtime)
        models = {"PyTorch": open_model(run_file, precision="fp32")} | {
            runtime: open_model(Path(folder) / runtime) for runtime in ("onnx", "openvino")
        }
        sides: dict[str, Callable[[], object]] = {
            name: lambda model=model: model.describe(batch.images, batch.modalities, batch.camids)
            for name, model in models.items()
        }
        seconds = alternate(sides, rounds=4)
        for runtime in ("onnx", "openvino"):
            name = f"TransReID extraction, DeiT-S, by {runtime}: against PyTorch in float32"
            yield build_row(name, BATCH / seconds[runtime], BATCH / seconds["PyTorch"], "pictures/s")
