"""The front door: help at once, one line for what the user can mend."""

import errno
import subprocess
import sys
from collections.abc import Callable

import pytest

import tapetum
from tapetum.cli import main as module
from tapetum.core.errors import DataError


def test_help_loads_no_heavy_library() -> None:
    code = (
        "import sys; sys.argv = ['tapetum', '--help']\n"
        "from tapetum.cli.main import run\n"
        "try:\n    run()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'lightning', 'cv2', 'matplotlib', 'pydantic', 'numpy', 'av'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("demo", "train", "evaluate", "reproduce", "data", "report"):
        assert f"  {name} " in done.stdout


def test_searching_loads_nothing_of_training_or_drawing() -> None:
    code = (
        "import sys\n"
        "import tapetum.gallery.lance, tapetum.investigation.case, tapetum.investigation.find\n"
        "heavy = {'lightning', 'sklearn', 'matplotlib', 'timm', 'torchvision', 'openvino', 'onnxruntime'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "command",
    ["index", "search", "serve", "users list", "audit verify", "gallery info", "gallery delete", "gallery keep"],
)
def test_the_folder_of_a_milvus_gallery_has_one_name_in_every_command(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["tapetum", *command.split(), "--help"])
    with pytest.raises(SystemExit):
        module.run()
    assert "--folder" in capsys.readouterr().out


def test_the_version_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["tapetum", "--version"])
    with pytest.raises(SystemExit) as end:
        module.run()
    assert end.value.code == 0
    assert capsys.readouterr().out == f"tapetum {tapetum.__version__}\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (DataError("/nights: no picture; give another folder"), "tapetum: /nights: no picture; give another folder\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/nights/a.jpg"),
            "tapetum: /nights/a.jpg: the disk is full; free some space and run the same command again\n",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/nights"),
            "tapetum: /nights: permission denied; choose another folder or change its permissions\n",
        ),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, line: str
) -> None:
    monkeypatch.setattr(module, "app", raising(error))
    with pytest.raises(SystemExit) as end:
        module.run()
    assert end.value.code == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", line)


def test_a_mistake_of_ours_stays_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "app", raising(OSError(errno.EBADF, "Bad file descriptor")))
    with pytest.raises(OSError, match="Bad file descriptor"):
        module.run()


def raising(error: Exception) -> Callable[[], None]:
    def app() -> None:
        raise error

    return app
