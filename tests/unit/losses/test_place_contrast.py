"""The contrast of places against a slow loop over pairs and places, and its memory."""

import pytest
import torch

from tapetum.losses import place_contrast
from tapetum.losses.place_contrast import contrast_places

PAIRS = (torch.tensor([0, 0, 2]), torch.tensor([1, 3, 3]))


def make_maps(rng, *, dtype=torch.float64):
    maps = torch.randn(4, 5, 3, 2, generator=rng, dtype=dtype)
    parts = torch.tensor(
        [[[1, 1], [0, 2], [3, 3]], [[1, 0], [2, 2], [0, 0]], [[4, 0], [0, 2], [3, 1]], [[1, 1], [1, 3], [3, 0]]]
    )
    return maps, parts


def loop(maps, parts, pairs, temperature):
    terms = []
    for first, second in zip(*(rows.tolist() for rows in pairs), strict=True):
        for one, other in ((first, second), (second, first)):
            for y in range(3):
                for x in range(2):
                    own = int(parts[one, y, x])
                    if own == 0 or own not in parts[other].flatten().tolist():
                        continue
                    matched, total = 0.0, 0.0
                    for v in range(3):
                        for u in range(2):
                            a, b = maps[one, :, y, x], maps[other, :, v, u]
                            weight = (a @ b / (a.norm() * b.norm()) / temperature).exp()
                            total = total + weight
                            matched = matched + weight * float(parts[other, v, u] == own)
                    terms.append(-(matched / total).log())
    return torch.stack(terms).mean()


@pytest.mark.parametrize("entries", [1, 2 * 36, place_contrast.ENTRIES])
@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_value_and_gradient_are_the_slow_loops_whatever_the_chunk(rng, monkeypatch, entries, temperature):
    monkeypatch.setattr(place_contrast, "ENTRIES", entries)
    maps, parts = make_maps(rng)
    maps.requires_grad_()
    expected = loop(maps, parts, PAIRS, temperature)
    found = contrast_places(maps, parts, PAIRS, temperature=temperature)
    torch.testing.assert_close(found, expected)
    ours, slow = (torch.autograd.grad(loss, maps)[0] for loss in (found, expected))
    assert slow.abs().max() > 1e-3
    torch.testing.assert_close(ours, slow)


def test_float32_at_the_coldest_temperature_is_close_to_float64(rng):
    maps, parts = make_maps(rng)
    exact = contrast_places(maps, parts, PAIRS, temperature=place_contrast.COLDEST)
    found = contrast_places(maps.float(), parts, PAIRS, temperature=place_contrast.COLDEST)
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("part", [0, 1])
def test_where_no_part_is_shared_or_all_is_background_it_is_zero_with_a_gradient(rng, part):
    maps, _ = make_maps(rng)
    maps.requires_grad_()
    parts = torch.full((4, 3, 2), part)
    parts[1::2] *= 2
    loss = contrast_places(maps, parts, PAIRS, temperature=0.05)
    loss.backward()
    assert loss == 0
    assert not maps.grad.any()


def test_places_of_zeros_have_a_finite_gradient(rng):
    maps, parts = make_maps(rng)
    maps[0] = 0
    maps.requires_grad_()
    contrast_places(maps, parts, PAIRS, temperature=0.05).backward()
    assert torch.isfinite(maps.grad).all()


def test_of_a_pair_nothing_but_its_two_rows_is_kept_for_the_gradient(rng):
    maps, parts = make_maps(rng, dtype=torch.float32)
    maps.requires_grad_()

    def count_kept(times):
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()), lambda kept: kept):
            contrast_places(maps, parts, tuple(rows.repeat(times) for rows in PAIRS), temperature=0.05)
        return sum(kept)

    assert count_kept(40) - count_kept(1) <= 39 * 2 * len(PAIRS[0])
