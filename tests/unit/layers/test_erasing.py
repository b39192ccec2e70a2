"""Rectangles that pictures lose on their device."""

import torch

from tapetum.layers.erasing import erase


def test_a_picture_loses_one_rectangle_of_an_allowed_size_and_place():
    torch.manual_seed(0)
    pictures = torch.ones(400, 3, 40, 20)
    erased = erase(pictures, 1.0)
    assert torch.equal(pictures, torch.ones_like(pictures)), "not in place"
    lost = erased == 0
    assert torch.equal(lost, lost[:, :1].expand_as(lost)), "of all channels alike"
    assert torch.equal(erased[~lost], pictures[~lost])
    down, across = lost[:, 0].any(2), lost[:, 0].any(1)
    assert torch.equal(lost[:, 0], down[:, :, None] & across[:, None])
    for sides in (down.int(), across.int()):
        assert torch.equal(sides.diff(dim=1, prepend=torch.zeros(400, 1).int()).clamp(min=0).sum(1), torch.ones(400))
    heights, widths = down.sum(1), across.sum(1)
    share = heights * widths / 800
    assert 0.01 < share.min() < 0.05
    assert 0.35 < share.max() < 0.45
    aspects = heights / widths
    assert 0.2 < aspects.min() < 0.6
    assert 2.5 < aspects.max() < 4.5
    assert lost[:, 0, 0].any()
    assert lost[:, 0, -1].any()
    assert lost[:, 0, :, 0].any()
    assert lost[:, 0, :, -1].any()


def test_no_picture_loses_a_whole_row_or_column():
    torch.manual_seed(0)
    for size in ((4, 40), (40, 4)):  # sides that rectangles often fill
        lost = erase(torch.ones(400, 1, *size), 1.0)[:, 0] == 0
        assert lost.any()
        assert not lost.all(1).any()
        assert not lost.all(2).any()


def test_as_many_pictures_lose_one_as_the_probability_says():
    torch.manual_seed(0)
    pictures = torch.rand(1000, 1, 16, 8) + 1
    share = (erase(pictures, 0.3) != pictures).flatten(1).any(1).float().mean().item()
    assert abs(share - 0.3) < 0.05
    assert torch.equal(erase(pictures, 0.0), pictures)
