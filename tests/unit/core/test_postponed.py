import importlib
import sys
import threading
from pathlib import Path

import pytest

from tapetum.core.postponed import postpone

NAME = "late_package"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that notes each run of its own file; its modules do without it."""
    folder = tmp_path / NAME
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "import time\nimport runs\nruns.seen.append(1)\nfrom late_package.part import VALUE\n"
        "time.sleep(0.05)\nMORE = 3\n"
    )
    (folder / "part.py").write_text("VALUE = 2\n")
    (tmp_path / "runs.py").write_text("seen = []\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in (NAME, f"{NAME}.part", "runs"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield folder  # type: ignore[misc]
    for name in (NAME, f"{NAME}.part", "runs"):
        sys.modules.pop(name, None)


def runs() -> int:
    return len(importlib.import_module("runs").seen)


def test_modules_of_a_postponed_package_are_imported_without_running_it(package: Path) -> None:
    postpone(NAME)
    part = importlib.import_module(f"{NAME}.part")
    assert (part.VALUE, runs()) == (2, 0)


def test_whoever_asks_it_for_a_name_finds_the_real_package_which_ran_once(package: Path) -> None:
    postpone(NAME)
    late = importlib.import_module(NAME)
    assert runs() == 0
    assert (late.MORE, late.VALUE, runs()) == (3, 2, 1)
    with pytest.raises(AttributeError, match="module 'late_package' has no attribute 'nothing'"):
        late.nothing  # noqa: B018
    assert runs() == 1
    assert sys.modules[NAME] is late


def test_several_threads_that_ask_at_once_run_it_once(package: Path) -> None:
    postpone(NAME)
    late = importlib.import_module(NAME)
    found: list[int] = []
    asking = [threading.Thread(target=lambda: found.append(late.MORE)) for _ in range(8)]
    for each in asking:
        each.start()
    for each in asking:
        each.join()
    assert (found, runs()) == ([3] * 8, 1)


def test_a_package_that_answers_for_names_itself_goes_on_doing_so(package: Path) -> None:
    file = package / "__init__.py"
    file.write_text(file.read_text() + "def __getattr__(name):\n    return name.upper()\n")
    postpone(NAME)
    late = importlib.import_module(NAME)
    assert (late.MORE, late.other, late.VALUE, runs()) == (3, "OTHER", 2, 1)


def test_a_package_that_fails_is_tried_again_by_the_next_import(package: Path) -> None:
    whole = (package / "__init__.py").read_text()
    (package / "__init__.py").write_text("raise ValueError('broken')\n")
    postpone(NAME)
    with pytest.raises(ValueError, match="broken"):
        importlib.import_module(NAME).MORE  # noqa: B018
    (package / "__init__.py").write_text(whole + "# another size, so that no compiled file is taken for it\n")
    importlib.invalidate_caches()
    assert importlib.import_module(NAME).MORE == 3


def test_what_is_imported_already_missing_or_no_package_is_left_alone(package: Path) -> None:
    before = importlib.import_module(NAME)
    postpone(NAME)
    assert sys.modules[NAME] is before
    postpone("a_package_that_nobody_has")
    postpone("a_package_that_nobody_has.inside")
    assert "a_package_that_nobody_has" not in sys.modules
    sys.modules.pop("runs")
    postpone("runs")
    assert "runs" not in sys.modules
