import os
import subprocess
import sys
from pathlib import Path

import pytest

from tapetum.core.errors import OutputError
from tapetum.runs.run_folder import RunFolder, write_json

HOLD = """
import sys, time
from pathlib import Path
from tapetum.runs.run_folder import RunFolder
with RunFolder(Path(sys.argv[1])).held():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_in_use_names_the_process_and_is_free_once_that_was_killed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder.root)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match=f"in use by another run \\(process {owner.pid}\\)"), folder.held():
            pass
        owner.kill()
    with folder.held():
        assert (folder.root / ".lock").read_text().strip() == str(os.getpid())


def test_holding_a_folder_twice_in_one_process_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with folder.held(), pytest.raises(OutputError, match="in use"), folder.held():
        pass


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"), RunFolder(tmp_path / "file" / "run").held():
        pass


@pytest.mark.parametrize("failing", ["fcntl.flock", "os.write"])
def test_a_disk_that_offers_no_locks_or_is_full_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(failing, fail)
    held = RunFolder(tmp_path / "run").held()
    with pytest.raises(OutputError, match=r"\.lock: cannot be locked \(No locks available\); choose"):
        held.__enter__()


def test_what_a_killed_writer_left_is_removed_by_the_next_holder_and_nothing_else(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.last.parent.mkdir()
    leftover = folder.last.with_name(".last.safetensors.00ab12ef.safetensors")
    leftover.write_bytes(b"half")
    folder.last.write_bytes(b"whole")
    foreign = [tmp_path / name for name in (".env.local", ".recipe.yaml.old.yaml", ".x.00ab12ef")]
    for path in foreign:
        path.write_text("a user's")
    (tmp_path / ".x.d").mkdir()
    with folder.held():
        assert not leftover.exists()
    assert all(path.read_text() == "a user's" for path in foreign)
    assert folder.last.read_bytes() == b"whole"


def test_facts_are_empty_before_a_run_and_damaged_ones_are_an_error(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.read_facts() == {}
    write_json(folder.facts, {"finished": False})
    assert folder.read_facts() == {"finished": False}
    folder.facts.write_text("{")
    with pytest.raises(OutputError, match=r"run.json: cannot be read"):
        folder.read_facts()
