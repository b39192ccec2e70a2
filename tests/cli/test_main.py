"""The front door: help at once, one line for what the user can mend."""

import ast
import errno
import importlib
import inspect
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import typer

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
    monkeypatch.setattr(module, "program", lambda words: raising(error))
    with pytest.raises(SystemExit) as end:
        module.run()
    assert end.value.code == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", line)


def test_a_mistake_of_ours_stays_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "program", lambda words: raising(OSError(errno.EBADF, "Bad file descriptor")))
    with pytest.raises(OSError, match="Bad file descriptor"):
        module.run()


@pytest.mark.parametrize(
    "words", ["search", "gallery info", "gallery", "data generate", "index", "plot embedding", "serve"]
)
def test_the_part_of_the_program_that_is_asked_for_says_what_the_whole_says(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = []
    for part in (module.program(words.split()), module.app):
        assert (part is module.app) == (len(told) == 1)
        monkeypatch.setattr(sys, "argv", ["tapetum", *words.split(), "--help"])
        with pytest.raises(SystemExit) as end:
            part()
        told.append((end.value.code, capsys.readouterr()))
    assert told[0] == told[1]
    assert f"tapetum {words}" in told[0][1].out


def test_words_that_are_no_command_are_answered_by_the_whole_program() -> None:
    for words in ([], ["--help"], ["--version"], ["serach"], ["--version", "search"]):
        assert module.program(words) is module.app


def raising(error: Exception) -> Callable[[], None]:
    def app() -> None:
        raise error

    return app


def all_commands() -> Iterator[tuple[str, Callable[..., object]]]:
    """Every subcommand: its words, and the function behind it."""

    def walk(app: typer.Typer, words: str) -> Iterator[tuple[str, Callable[..., object]]]:
        for each in app.registered_commands:
            assert each.callback is not None
            yield f"{words} {each.name or each.callback.__name__}".strip(), each.callback
        for group in app.registered_groups:
            assert group.typer_instance is not None
            yield from walk(group.typer_instance, f"{words} {group.name or ''}".strip())

    yield from walk(module.app, "")


def shows_progress(command: Callable[..., object]) -> set[str]:
    """What a command calls, itself or by its file's helpers, that draws a bar or takes somebody who is told."""
    place = sys.modules[command.__module__]
    trees = {each.name: each for each in ast.parse(inspect.getsource(place)).body if isinstance(each, ast.FunctionDef)}
    waiting, seen, found = [command.__name__], set[str](), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in trees:
            continue
        seen.add(name)
        for node in ast.walk(trees[name]):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tapetum"):
                for each in node.names:
                    thing = getattr(importlib.import_module(node.module), each.name, None)
                    if callable(thing) and not isinstance(thing, type):
                        told = {"progress", "reporter", "board", "quiet"} & set(inspect.signature(thing).parameters)
                        found |= {each.name} if told else set()
            elif isinstance(node, ast.Name):
                waiting.append(node.id)
                found |= {node.id} & {"Progress", "ProgressBar", "showing_pictures"}
    return found


def test_every_command_that_shows_progress_can_be_quiet() -> None:
    shown = {}
    for words, command in all_commands():
        if shows_progress(command):
            shown[words] = "quiet" in inspect.signature(command).parameters
    assert [words for words, can in shown.items() if not can] == []
    assert {"data generate", "data darken", "data check", "data stats", "train", "index", "search"} <= set(shown)


@pytest.mark.parametrize("command", ["info", "delete --filter 'time > 0'", "keep --forever", "compact"])
def test_a_gallery_is_named_alike_in_every_command_and_once(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(words: str) -> str:
        monkeypatch.setattr("sys.argv", ["tapetum", *shlex.split(f"gallery {command} {words}")])
        with pytest.raises(SystemExit) as end:
            module.run()
        assert end.value.code == 2
        return capsys.readouterr().err

    assert said("runs/none") == said("--gallery runs/none") == said("runs/none --gallery runs/none")
    assert said("runs/none").startswith("tapetum: runs/none: ")
    assert "runs/a and --gallery runs/b are two" in said("runs/a --gallery runs/b")
    assert "name it, e.g. --gallery galleries/night" in said("")
