"""Picture files to vectors: decoded ahead in threads while the model computes."""

from collections.abc import Sequence

import torch

from tapetum.core.types import EmbeddingSet, Record
from tapetum.data.loader import Progress, build_eval_loader
from tapetum.runtime.sessions import BATCH, Model


def describe_records(
    model: Model,
    records: Sequence[Record],
    *,
    num_workers: int = 2,
    skip_corrupt: bool = False,
    progress: Progress | None = None,
) -> tuple[EmbeddingSet, list[str]]:
    """Embeddings of picture files, and one message for each damaged one that was left out.

    Args:
        model: opened.
        records: the pictures.
        num_workers: threads that decode; 0 decodes in the caller.
        skip_corrupt: leave damaged pictures out instead of stopping.
        progress: called with (done, total) pictures.
    Raises:
        DataError: no picture, or a damaged one.
    """
    settings = model.settings
    loader = build_eval_loader(
        records,
        size=settings.size,
        batch_size=BATCH,
        num_workers=num_workers,
        interpolation=settings.interpolation,
        backend=settings.backend,
        skip_corrupt=skip_corrupt,
    )
    vectors, pids, camids, modalities = [], [], [], []
    done = 0
    for batch in loader:
        vectors.append(model.session.run(batch.images, batch.modalities))
        pids.append(batch.pids)
        camids.append(batch.camids)
        modalities.append(batch.modalities)
        done += len(batch)
        if progress:
            progress(done, len(loader.records))
    embeddings = EmbeddingSet(
        vectors=torch.cat(vectors),
        paths=tuple(record.path for record in loader.records),
        pids=torch.cat(pids),
        camids=torch.cat(camids),
        modalities=torch.cat(modalities),
    )
    return embeddings, loader.skipped
