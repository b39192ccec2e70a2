"""A run in use together with its recipe, which decides how pictures are read and computed: for tests of a method."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tapetum.core.errors import ProtocolError
from tapetum.core.method import part_for_search
from tapetum.core.types import EmbeddingSet, Record
from tapetum.data.threads import Progress
from tapetum.inference.checkpoints import open_checkpoint
from tapetum.inference.embeddings import read_embeddings, save_embeddings
from tapetum.inference.filling import drop_filling, filling_of
from tapetum.inference.identity import checkpoint_facts
from tapetum.runs.checkpoint import load_checkpoint
from tapetum.runs.recipe import check_recipe


class Embedder:
    """The weights of a run folder or a checkpoint file, as its recipe opens them.

    Args:
        mirror: join each picture with its mirror; None takes the recipe's choice.
        precision: arithmetic; None takes the recipe's choice.
    Raises:
        CheckpointError: no checkpoint, or it is damaged.
        RecipeError: the checkpoint does not hold a whole recipe.
    """

    def __init__(self, place: Path, *, mirror: bool | None = None, precision: str | None = None) -> None:
        self.checkpoint = load_checkpoint(place)
        self.recipe = check_recipe(self.checkpoint.header.recipe, f"in {self.checkpoint.path}")
        self.model = open_checkpoint(
            self.checkpoint,
            place,
            precision=precision or self.recipe.evaluation.precision,
            device=self.recipe.training.accelerator,
            mirror=mirror,
            setting="--precision" if precision else "evaluation.precision",
            measured=True,
            filled=True,
        )
        self.filling = filling_of(part_for_search(self.checkpoint.network))
        self.device = torch.device(self.model.session.device)
        self.mirror = self.model.settings.mirror
        self.precision = self.model.precision
        made_by = checkpoint_facts(self.checkpoint.path, self.model.settings)
        self.digest: str = made_by["checkpoint"]
        self.facts: dict[str, Any] = {**made_by, "precision": self.precision, "device": self.device.type}

    def describe(
        self,
        records: Sequence[Record],
        *,
        skip_corrupt: bool = False,
        progress: Progress | None = None,
        filled: bool = False,
    ) -> tuple[EmbeddingSet, list[str]]:
        """As `Model.describe_records`, with the recipe's batches and threads.

        Args:
            filled: give vectors for pairs across modalities alone, see `tapetum.inference.filling`.
        """
        embeddings, damaged = self.model.describe_records(
            records,
            batch_size=self.recipe.evaluation.batch,
            num_workers=self.recipe.data.workers,
            skip_corrupt=skip_corrupt,
            progress=progress,
        )
        return (embeddings if filled else drop_filling(embeddings, self.filling)), damaged

    def save(self, path: Path, embeddings: EmbeddingSet) -> None:
        """Write embeddings of `describe` with what is known about their making.

        Raises:
            OutputError: it cannot be written.
        """
        save_embeddings(path, embeddings, self.facts)

    def read(self, path: Path) -> EmbeddingSet:
        """Embeddings of `save` that this checkpoint made in the same way.

        Raises:
            DataError: it is no such file.
            ProtocolError: its vectors were made by another checkpoint or in another way.
        """
        embeddings, facts = read_embeddings(path)
        for name, value in self.facts.items():
            if facts.get(name) != value:
                raise ProtocolError(
                    f"{path}: {name} is {facts.get(name)!r}, the queries' is {value!r}; "
                    "extract the gallery with the same checkpoint and settings"
                )
        return embeddings
