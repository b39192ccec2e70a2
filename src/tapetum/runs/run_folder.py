"""The folder of one run: what lies where, one writer at a time, and files that are whole or absent."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tapetum.core.atomic import make_folder, write_bytes
from tapetum.core.errors import OutputError
from tapetum.core.locks import locked


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps its things."""

    root: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.root / "recipe.yaml"

    @property
    def facts(self) -> Path:
        """What is known about the run: data fingerprint, versions, machine, whether it is finished."""
        return self.root / "run.json"

    @property
    def best(self) -> Path:
        """Weights of the epoch that did best on the held-out training identities."""
        return self.root / "checkpoints" / "best.safetensors"

    @property
    def last(self) -> Path:
        """Weights of the last complete epoch."""
        return self.root / "checkpoints" / "last.safetensors"

    @property
    def state(self) -> Path:
        """Everything needed to go on with an unfinished training; gone once it is finished."""
        return self.root / "state" / "resume.pt"

    @property
    def metrics(self) -> Path:
        """One line an epoch: every loss, learning rates, speed, accuracy on the held-out identities."""
        return self.root / "logs" / "metrics.csv"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files: every loss at every step."""
        return self.root / "logs" / "tensorboard"

    @property
    def evaluation(self) -> Path:
        """Result cards and the embeddings they were computed from."""
        return self.root / "evaluation"

    @property
    def holds_training(self) -> bool:
        """Whether there is something to go on from, or a result; a run that failed before has left words only."""
        return any(file.is_file() for file in (self.best, self.last, self.state))

    def read_facts(self) -> dict[str, Any]:
        """`facts`, or nothing where the run has not begun."""
        try:
            content = json.loads(self.facts.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise OutputError(f"{self.facts}: cannot be read ({error}); delete the folder to start afresh") from None
        return content if isinstance(content, dict) else {}

    @contextlib.contextmanager
    def taken_back(self, unless: Callable[[], bool]) -> Iterator[None]:
        """Take back what a beginning training writes here, where it fails by an error.

        Args:
            unless: asked then; a training that has come so far leaves its words.
        """
        words = {file: file.read_bytes() if file.is_file() else None for file in (self.recipe, self.facts)}
        before = set(self.tensorboard.rglob("*"))
        folders = [folder for folder in (self.tensorboard, self.tensorboard.parent) if not folder.exists()]
        try:
            yield
        except Exception:
            if not unless():
                for file in sorted(set(self.tensorboard.rglob("*")) - before):
                    file.unlink()
                for file, content in words.items():
                    if content is None:
                        file.unlink(missing_ok=True)
                    else:
                        write_bytes(file, content)
                for folder in folders:
                    with contextlib.suppress(OSError):  # not there, or somebody else's file is in it
                        folder.rmdir()
            raise

    def remove_leftovers(self) -> None:
        """Delete temporary files of a writer that was killed; only for whoever holds the folder."""
        for path in (self.recipe, self.facts, self.best, self.last, self.state, self.metrics):
            for leftover in path.parent.glob(f".{path.name}.{'[0-9a-f]' * 8}{path.suffix}"):
                leftover.unlink(missing_ok=True)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for one writer, and clear away what a killed one has left.

        A folder that was made for a writer who then fails before writing anything vanishes again.
        """
        new, lock = not self.root.exists(), self.root / ".lock"
        make_folder(self.root)
        with locked(lock, f"{self.root}: in use by another run"):
            self.remove_leftovers()
            try:
                yield
            except BaseException:
                if new and list(self.root.iterdir()) == [lock]:
                    with contextlib.suppress(OSError):
                        lock.unlink()
                        self.root.rmdir()
                raise


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Indented JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, content: str) -> None:
    """UTF-8 text, whole or not at all."""
    make_folder(path.parent)
    write_bytes(path, content.encode())
