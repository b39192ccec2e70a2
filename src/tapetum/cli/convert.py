"""``tapetum convert``: checkpoints from and to the layouts of released code."""

from pathlib import Path
from typing import Annotated

import typer


def command(
    source: Annotated[Path, typer.Argument(help="Checkpoint to read (a released file, or one of ours with --to).")],
    target: Annotated[Path, typer.Argument(help="File to write.")],
    from_layout: Annotated[str | None, typer.Option("--from", help="Layout of SOURCE, e.g. idf-official.")] = None,
    to_layout: Annotated[str | None, typer.Option("--to", help="Layout of TARGET, e.g. idf-official.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="With --from: data.options.KEY=VALUE, how the pictures were read, e.g. data.options.trial=3 of RegDB; "
            "or method.config=DIGITS of CM-NAS; repeatable.",
        ),
    ] = None,
) -> None:
    """Convert a checkpoint of released code, or back; features stay the same.

    Layouts: docs/training.md, "Official checkpoints".

    Example: tapetum convert --from idf-official net_119.pth idf_night600.safetensors

    Example: tapetum convert --from agw-vi-official best.t agw_regdb_3.safetensors --set data.options.trial=3
    """
    if (from_layout is None) == (to_layout is None):
        raise typer.BadParameter("give either --from LAYOUT or --to LAYOUT, e.g. --from idf-official")
    if set_ and to_layout is not None:
        raise typer.BadParameter("--set goes with --from; leave it out")
    from tapetum.runs.convert import export_checkpoint, import_checkpoint, list_other_layouts

    if from_layout is not None:
        header = import_checkpoint(from_layout, source, target, set_ or [])
        typer.echo(f"{target}: {header.method}, {header.num_ids} identities")
        others = list_other_layouts(from_layout, source)
        if others:
            typer.echo(
                f"this file fits as well: {', '.join(others)}; these share all tensors, so that only whoever made it "
                "can say which it is"
            )
    else:
        export_checkpoint(str(to_layout), source, target)
        typer.echo(f"{target}: written in layout {to_layout}")
