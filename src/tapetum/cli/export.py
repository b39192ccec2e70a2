"""``tapetum export``: a run's model for other runtimes, or small."""

from pathlib import Path
from typing import Annotated

import typer

from tapetum.cli._choices import Mirror


def command(
    run: Annotated[Path, typer.Argument(help="Run folder or checkpoint file.")],
    to: Annotated[
        str, typer.Option("--to", help="Runtime: onnx, openvino or torchscript; or weights: a small file for PyTorch.")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder to write, absent or empty; with --to weights a file, NAME.safetensors.")
    ],
    mirror: Mirror = None,
    opset: Annotated[int, typer.Option(min=18, help="Of ONNX.")] = 20,
) -> None:
    """Write a self-contained model: pixels in, unit vectors out; compared with PyTorch before it is written.

    With --to weights: the run's checkpoint in float16 and without its classifiers, to be searched with or trained on.

    Example: tapetum export runs/ide_synth --to onnx --out runs/ide_synth_onnx

    Example: tapetum export runs/ide_synth --to weights --out ide.safetensors
    """
    from tapetum.core.errors import RecipeError
    from tapetum.inference.export import export_run
    from tapetum.inference.pack import pack_checkpoint

    if to == "weights":
        if mirror is not None:
            raise RecipeError("--to weights: a checkpoint keeps its recipe's choice of mirror; leave --mirror away")
        packed = pack_checkpoint(run, out)
        typer.echo(
            f"{out}: {packed.bytes / 1e6:.1f} MB, of {packed.header.origin['trained_on_ids']} identities' training; "
            f"smallest cosine of a vector to before {packed.min_cosine:.6f}"
        )
        return
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
