"""Picture files to vectors: decoded ahead in threads while the model computes."""

from collections.abc import Sequence

from tapetum.core.types import EmbeddingSet, Record
from tapetum.data.loader import Progress, build_eval_loader
from tapetum.inference.embeddings import collect_embeddings
from tapetum.inference.sessions import BATCH, Model


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
    embeddings = collect_embeddings(
        loader, lambda batch: model.session.run(batch.images, batch.modalities, batch.camids), progress=progress
    )
    return embeddings, loader.skipped
