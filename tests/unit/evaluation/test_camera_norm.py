"""Camera statistics taken out of vectors: against a slow loop, what it repairs, what it refuses."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from tapetum.core.errors import ProtocolError
from tapetum.core.protocol import Protocol
from tapetum.core.types import UNKNOWN_CAMERA, EmbeddingSet, Modality
from tapetum.evaluation.camera_norm import CameraNorm, normalise_cameras
from tapetum.evaluation.metrics import evaluate

Make = Callable[..., EmbeddingSet]


def in_loops(query: EmbeddingSet, gallery: EmbeddingSet, how: CameraNorm) -> list[list[float]]:
    """The definition, number by number."""
    pictures = [
        (int(side.camids[row]), int(side.modalities[row]), side.vectors[row].tolist())
        for side in (query, gallery)
        for row in range(len(side))
    ]
    result = []
    for camid, modality, vector in pictures:
        own = [other for c, m, other in pictures if (c, m) == (camid, modality)]
        changed = []
        for place, value in enumerate(vector):
            mean = sum(other[place] for other in own) / len(own)
            spread = math.sqrt(sum((other[place] - mean) ** 2 for other in own) / len(own))
            changed.append((value - mean) / (spread if how == "standard" else 1))
        length = math.sqrt(sum(value**2 for value in changed))
        result.append([value / length for value in changed])
    return result


@pytest.fixture
def sides(make_set: Make) -> tuple[EmbeddingSet, EmbeddingSet]:
    rng = np.random.default_rng(4)
    query = make_set(rng.integers(1, 9, 30), rng.integers(1, 4, 30), noise=0.6, seed=1)
    gallery = make_set(rng.integers(1, 9, 60), rng.integers(1, 4, 60), noise=0.6, seed=2)
    infrared = torch.arange(60) % 2 * int(Modality.INFRARED)
    return query, replace(gallery, modalities=infrared)


@pytest.mark.parametrize("how", ["centre", "standard"])
def test_it_is_what_a_slow_loop_says(sides: tuple[EmbeddingSet, EmbeddingSet], how: CameraNorm) -> None:
    before = [side.vectors.clone() for side in sides]
    query, gallery = normalise_cameras(*sides, how)
    expected = torch.tensor(in_loops(*sides, how))
    torch.testing.assert_close(torch.cat([query.vectors, gallery.vectors]), expected, atol=1e-5, rtol=1e-4)
    assert torch.equal(query.pids, sides[0].pids)
    assert gallery.paths == sides[1].paths
    assert all(torch.equal(side.vectors, old) for side, old in zip(sides, before, strict=True)), "what was given stays"


def test_none_gives_back_what_it_was_given(sides: tuple[EmbeddingSet, EmbeddingSet]) -> None:
    assert normalise_cameras(*sides, "none") == sides


@pytest.mark.parametrize("how", ["centre", "standard"])
def test_a_shift_that_each_camera_gives_to_all_its_vectors_no_longer_hides_who_is_who(
    make_set: Make, how: CameraNorm
) -> None:
    rng = np.random.default_rng(8)
    pids = np.repeat(np.arange(1, 21), 4)
    shifts = torch.from_numpy(rng.normal(0, 1.0, (3, 32))).float()

    def seen(seed: int, camids: np.ndarray) -> EmbeddingSet:
        plain = make_set(pids, camids, noise=0.4, seed=seed)
        shift = torch.nn.functional.pad(shifts, (0, max(0, plain.vectors.shape[1] - 32)))[:, : plain.vectors.shape[1]]
        vectors = torch.nn.functional.normalize(plain.vectors + shift[plain.camids], dim=1)
        return replace(plain, vectors=vectors)

    query, gallery = seen(1, np.full(80, 1)), seen(2, np.full(80, 2))
    mixed = replace(gallery, camids=torch.arange(80) % 2 + 1)
    before = evaluate(query, mixed, Protocol("p")).metrics.mean_ap
    after = evaluate(*normalise_cameras(query, gallery, how), Protocol("p")).metrics.mean_ap
    assert after > before
    assert after > 0.6


def test_a_camera_of_few_pictures_and_pictures_of_no_camera_are_refused(
    sides: tuple[EmbeddingSet, EmbeddingSet],
) -> None:
    query, gallery = sides
    camids = query.camids.clone()
    camids[:3] = 9
    with pytest.raises(ProtocolError, match=r"camera 9 \(visible\) has 3 test pictures; the statistics need 8 or more"):
        normalise_cameras(replace(query, camids=camids), gallery, "centre")
    camids[:3] = UNKNOWN_CAMERA
    with pytest.raises(ProtocolError, match="of 3 pictures the camera is not known; take none"):
        normalise_cameras(replace(query, camids=camids), gallery, "standard")
    few = replace(query.select(torch.arange(3)), modalities=torch.ones(3, dtype=torch.int64))
    with pytest.raises(ProtocolError, match="the infrared cameras have 3 test pictures; the statistics need 8 or more"):
        normalise_cameras(few, replace(gallery, modalities=torch.zeros_like(gallery.modalities)), "modality")
