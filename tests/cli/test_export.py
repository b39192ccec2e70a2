"""``tapetum export``, run as a user would."""

import json
import re
from collections.abc import Callable
from pathlib import Path

from typer.testing import CliRunner

from tapetum.cli import main

Call = Callable[[str], tuple[int, str, str]]


def test_help_shows_an_example() -> None:
    text = CliRunner().invoke(main.app, ["export", "--help"]).output
    assert re.search(r"Example: tapetum export ", text)


def test_a_trained_run_is_exported_and_says_how_near_it_is(call: Call, trained: Path, tmp_path: Path) -> None:
    status, out, err = call(f"tapetum export {trained} --to torchscript --out {tmp_path / 'model'} --no-mirror")
    assert (status, err) == (0, "")
    assert re.match(
        r"as PyTorch in batches of 1, 2, 7, 32: largest difference \d\.\de-\d+, smallest cosine 1\.0000000\n", out
    )
    assert re.search(rf"{tmp_path / 'model'}: torchscript, 16 numbers a picture, model [0-9a-f]{{16}}\n$", out)
    assert "\ncalibration: none; `tapetum calibrate` makes one before an export\n" in out
    card = json.loads((tmp_path / "model" / "artefact.json").read_text())
    assert card["settings"]["mirror"] is False
    again, _, complaint = call(f"tapetum export {trained} --to torchscript --out {tmp_path / 'model'}")
    assert again == 2
    assert "is there already; remove it or choose another folder" in complaint


def test_mistakes_are_one_line_and_status_2(call: Call, trained: Path, tmp_path: Path) -> None:
    for command, message in (
        (f"tapetum export {trained} --to tflite --out {tmp_path / 'a'}", "--to 'tflite' is unknown; known: onnx"),
        (f"tapetum export {tmp_path / 'no'} --to onnx --out {tmp_path / 'a'}", "no such run folder or checkpoint file"),
    ):
        status, _, err = call(command)
        assert status == 2
        assert err.startswith("tapetum: ")
        assert err.count("\n") == 1
        assert message in err
    assert not (tmp_path / "a").exists()
