"""Who looks like the person on this picture, among the pictures of a data set or a folder?"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tapetum.core.types import EmbeddingSet, Match, Modality
from tapetum.data.loose import list_pictures
from tapetum.gallery.embedding_search import search
from tapetum.inference.embedder import Embedder


def search_pictures(
    embedder: Embedder,
    pictures: Sequence[Path],
    gallery: EmbeddingSet,
    k: int = 10,
    *,
    modality: Modality = Modality.VISIBLE,
) -> list[list[Match]]:
    """The k gallery pictures most similar to each picture.

    Args:
        gallery: made by the same checkpoint.
        modality: of the queries.
    Raises:
        DataError: a picture is missing or damaged.
        ProtocolError: the gallery's vectors have another length.
    """
    records = [replace(record, modality=modality) for record in list_pictures(pictures, split="query")]
    queries, _ = embedder.describe(records)
    return search(queries.vectors, gallery, k)


def count_modalities(gallery: EmbeddingSet) -> dict[Modality, int]:
    """Pictures of each modality."""
    return {each: int((gallery.modalities == int(each)).sum()) for each in Modality}
