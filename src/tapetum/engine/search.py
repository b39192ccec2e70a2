"""Who looks like the person on this picture?"""

from collections.abc import Sequence
from pathlib import Path

from tapetum.core.types import EmbeddingSet, Match
from tapetum.engine.describer import Describer
from tapetum.engine.sources import list_pictures
from tapetum.gallery.index import search


def search_pictures(
    describer: Describer, pictures: Sequence[Path], gallery: EmbeddingSet, k: int = 10
) -> list[list[Match]]:
    """The k gallery pictures most similar to each picture.

    Args:
        describer: the checkpoint.
        pictures: the queries.
        gallery: made by the same checkpoint.
        k: answers a query.
    Raises:
        DataError: a picture is missing or damaged.
        ProtocolError: the gallery's vectors have another length.
    """
    queries, _ = describer.describe(list_pictures(pictures, split="query"))
    return search(queries.vectors, gallery, k)
