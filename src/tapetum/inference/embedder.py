"""A checkpoint in use: pictures in, vectors out, always read and computed in one way."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tapetum.core.errors import ProtocolError
from tapetum.core.types import EmbeddingSet, Record
from tapetum.data.loader import EvalLoader
from tapetum.data.threads import Progress
from tapetum.inference.embeddings import extract, read_embeddings, save_embeddings
from tapetum.inference.precision import choose_device, resolve_precision
from tapetum.runs.checkpoint import load_checkpoint
from tapetum.runs.recipe import check_recipe
from tapetum.runs.sources import picture_options


class Embedder:
    """The chosen weights of a run, or a checkpoint file, with its own way of reading pictures.

    Args:
        place: a run folder or a checkpoint file.
        mirror: join each picture with its mirror; None takes the recipe's choice.
        precision: arithmetic; None takes the recipe's choice.
    Raises:
        CheckpointError: no checkpoint, or it is damaged.
        RecipeError: the checkpoint does not hold a whole recipe.
    """

    def __init__(self, place: Path, *, mirror: bool | None = None, precision: str | None = None) -> None:
        self.checkpoint = load_checkpoint(place)
        self.recipe = check_recipe(self.checkpoint.header.recipe, f"in {self.checkpoint.path}")
        self.device = choose_device(self.recipe.training.accelerator)
        self.checkpoint.network.to(self.device)
        self.mirror = self.recipe.evaluation.mirror if mirror is None else mirror
        setting = "--precision" if precision else "evaluation.precision"
        self.precision = resolve_precision(precision or self.recipe.evaluation.precision, self.device, setting)
        self.digest = _digest(self.checkpoint.path)

    @property
    def facts(self) -> dict[str, Any]:
        """What must be equal for two sets of vectors to be compared."""
        data = self.recipe.data
        return {
            "checkpoint": self.digest,
            "precision": self.precision,
            "mirror": self.mirror,
            "device": self.device.type,
            "size": list(data.size),
            "interpolation": data.interpolation,
            "backend": data.backend,
        }

    def describe(
        self, records: Sequence[Record], *, skip_corrupt: bool = False, progress: Progress | None = None
    ) -> tuple[EmbeddingSet, list[str]]:
        """Embeddings of pictures, and one message for each damaged one that was left out.

        Args:
            skip_corrupt: leave damaged pictures out instead of stopping.
            progress: called with (done, total) pictures.
        Raises:
            DataError: no picture, or a damaged one.
        """
        pictures = replace(picture_options(self.recipe.data), cache="none")  # each picture is read once
        batch = self.recipe.evaluation.batch
        loader = EvalLoader(records, pictures, batch_size=batch, skip_corrupt=skip_corrupt)
        embeddings = extract(
            self.checkpoint.network,
            loader,
            precision=self.precision,
            mirror=self.mirror,
            device=self.device,
            progress=progress,
        )
        return embeddings, loader.skipped

    def save(self, path: Path, embeddings: EmbeddingSet) -> None:
        """Write embeddings with what is known about their making.

        Args:
            embeddings: from `describe`.
        Raises:
            OutputError: it cannot be written.
        """
        save_embeddings(path, embeddings, self.facts)

    def read(self, path: Path) -> EmbeddingSet:
        """Embeddings that this checkpoint made in the same way.

        Args:
            path: a file of `save`.
        Raises:
            DataError: it is no such file.
            ProtocolError: its vectors were made by another checkpoint or in another way.
        """
        embeddings, found = read_embeddings(path)
        for name, value in self.facts.items():
            if found.get(name) != value:
                raise ProtocolError(
                    f"{path}: {name} is {found.get(name)!r}, the queries' is {value!r}; "
                    "extract the gallery with the same checkpoint and settings"
                )
        return embeddings


def _digest(path: Path) -> str:
    """A name for the content of a file, 16 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
