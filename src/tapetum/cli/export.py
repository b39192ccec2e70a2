"""``tapetum export``: a run's model for other runtimes."""

from pathlib import Path
from typing import Annotated

import typer

from tapetum.cli._choices import Mirror


def command(
    run: Annotated[Path, typer.Argument(help="Run folder or checkpoint file.")],
    to: Annotated[str, typer.Option("--to", help="Runtime: onnx, openvino or torchscript.")],
    out: Annotated[Path, typer.Option(help="Folder to write; absent or empty.")],
    mirror: Mirror = None,
    opset: Annotated[int, typer.Option(min=18, help="Of ONNX.")] = 20,
) -> None:
    """Write a self-contained model: pixels in, unit vectors out; compared with PyTorch before it is written.

    Example: tapetum export runs/ide_synth --to onnx --out runs/ide_synth_onnx
    """
    from tapetum.inference.export import export_run

    artefact = export_run(run, to, out, mirror=mirror, opset=opset)
    check = artefact.check
    batches = ", ".join(map(str, check["batches"]))
    typer.echo(
        f"as PyTorch in batches of {batches}: largest difference {check['max_difference']:.1e}, "
        f"smallest cosine {check['min_cosine']:.7f}"
    )
    pairs = ", ".join(artefact.calibration["pairs"]) or "none; `tapetum calibrate` makes one before an export"
    typer.echo(f"calibration: {pairs}")
    typer.echo(f"{out}: {artefact.runtime}, {artefact.dimension} numbers a picture, model {artefact.model}")
