from pathlib import Path

import pytest
import torch
from torch.nn import functional

from tapetum.core.discovery import list_names
from tapetum.core.types import EmbeddingSet
from tapetum.inference.filling import drop_filling, filling_of, meet, without_filling
from tapetum.inference.identity import FILLING_METHODS
from tapetum.inference.probe import compare
from tapetum.inference.torch_sessions import TorchSession
from tapetum.layers.unit_sums import join_unit_sums
from tapetum.methods import build_method, find_method

SMALL = {
    "dart": {"backbone": "test_resnet", "last_stride": 2},
    "mmn": {"backbone": "test_resnet", "last_stride": 2, "stripes": 2},
    "deen": {"backbone": "test_resnet", "last_stride": 2},
}


def embeddings(vectors: torch.Tensor, modalities: torch.Tensor) -> EmbeddingSet:
    count = len(vectors)
    numbers = torch.arange(count)
    return EmbeddingSet(vectors, tuple(Path(str(number)) for number in range(count)), numbers, numbers, modalities)


def test_a_stranger_of_the_same_modality_does_not_pass_the_person_by_what_both_lack(rng: torch.Generator) -> None:
    """Two networks that tell everybody apart, each in directions of its own: half of every sum is filling."""
    people, width = 8, 64
    parts = functional.normalize(torch.randn(2, people, width, generator=rng), dim=2).repeat(1, 2, 1)
    modalities = torch.arange(2).repeat_interleave(people)
    filled = join_unit_sums(parts, modalities)
    person, other, same = filled[0] @ filled[people], filled[0] @ filled[1 : people - 1].T, filled[0] @ filled[0]
    assert person < other.max() < same  # the same person in infrared stands behind visible strangers
    both = embeddings(filled, modalities)
    *sides, left = meet(both, both, 2)
    first, second = (each.vectors for each in sides)
    assert left == 0
    assert first.shape == (2 * people, width)
    torch.testing.assert_close(first.norm(dim=1), torch.ones(2 * people))
    assert first[0] @ second[people] > 0.99 > (first[0] @ second[1 : people - 1].T).max()


def test_across_modalities_alone_vectors_stay_as_they_are(rng: torch.Generator) -> None:
    vectors = functional.normalize(torch.randn(6, 5, generator=rng), dim=1)
    visible, infrared = torch.zeros(3, dtype=torch.int64), torch.ones(3, dtype=torch.int64)
    query, gallery = embeddings(vectors[:3], infrared), embeddings(vectors[3:], visible)
    assert meet(query, gallery, 2) == (query, gallery, 2)
    assert meet(query, query, 0) == (query, query, 0)
    *sides, left = meet(query, embeddings(vectors[3:], infrared), 2)
    assert ([each.vectors.shape for each in sides], left) == ([(3, 3), (3, 3)], 0)
    assert drop_filling(query, 0) is query


@pytest.mark.parametrize("name", SMALL)
def test_what_a_gallery_gets_is_the_method_s_sum_at_unit_length_without_its_filling(
    name: str, rng: torch.Generator
) -> None:
    network = build_method(name, SMALL[name], 4, size=(32, 16)).eval()
    images, modalities = torch.rand(6, 3, 32, 16, generator=rng), torch.arange(6) % 2
    cameras = torch.zeros(6, dtype=torch.int64)
    inputs = (images.numpy(), modalities.numpy(), cameras.numpy())
    filled, bare = (
        torch.from_numpy(TorchSession(network, "fp32", torch.device("cpu"), True, filled=each).run(*inputs))
        for each in (True, False)
    )
    assert filling_of(network) == 2
    with torch.no_grad():
        torch.testing.assert_close(network.embed(images, modalities, cameras, mirror=True), filled)
    torch.testing.assert_close(bare, functional.normalize(filled[:, :-2], dim=1))
    torch.testing.assert_close(without_filling(filled, 2), bare)
    lengths = filled[:, :-2].norm(dim=1, keepdim=True)
    across = modalities[:, None] != modalities
    torch.testing.assert_close((bare @ bare.T * lengths * lengths.T)[across], (filled @ filled.T)[across])


def test_a_picture_of_which_the_network_says_nothing_has_zeros_and_is_alike_to_itself() -> None:
    filled = torch.tensor([[0.6, 0.0, 0.8, 0.0], [2e-6, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    bare = without_filling(filled, 2)
    assert bare.tolist() == [[1, 0], [0, 0], [0, 0]]
    assert compare(bare, bare) == (0, 1)
    assert compare(torch.eye(2), torch.tensor([[1.0, 0.0], [0.0, 0.0]]))[1] == 0


def test_the_methods_with_filling_are_those_that_calibrations_know_of() -> None:
    filled = {name for name in list_names("tapetum.methods") if hasattr(find_method(name)[0].Method, "filling")}
    assert filled == set(FILLING_METHODS) == set(SMALL)
