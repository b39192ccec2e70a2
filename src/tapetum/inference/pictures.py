"""Picture files to vectors: decoded ahead in threads while the model computes."""

from collections.abc import Sequence

from tapetum.core.types import EmbeddingSet, Record
from tapetum.data.loader import EvalLoader
from tapetum.data.pictures import PictureOptions
from tapetum.data.threads import Progress
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
    options = PictureOptions(settings.size, settings.interpolation, settings.backend, num_workers=num_workers)
    loader = EvalLoader(records, options, batch_size=BATCH, skip_corrupt=skip_corrupt)
    embeddings = collect_embeddings(
        loader, lambda batch: model.session.run(batch.images, batch.modalities, batch.camids), progress=progress
    )
    return embeddings, loader.skipped
