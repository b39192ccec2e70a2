"""Who meets whom across modalities: all pairs, or one each by lot."""

import pytest
import torch

from tapetum.core.errors import TrainingError
from tapetum.core.lots import draw_tickets
from tapetum.core.types import Batch
from tapetum.losses.pairs import pair_across

LABELS, MODALITIES = torch.tensor([5, 2, 5, 5, 2, 9, 5, 5]), torch.tensor([1, 0, 0, 1, 0, 1, 0, 0])


def make_batch(step: int = 0) -> Batch:
    """Of ten people three visible pictures and four infrared ones."""
    labels = torch.arange(10).repeat_interleave(7)
    modalities = torch.tensor([0, 0, 0, 1, 1, 1, 1]).repeat(10)
    rows = 3 * torch.arange(len(labels)) + 1
    return Batch(torch.zeros(len(labels), 3, 1, 1), labels, labels, labels, modalities, rows, step=step)


def by_lot(batch: Batch) -> set[tuple[int, int]]:
    """Pairs of rows among the training pictures."""
    seen, met = pair_across(batch.labels, batch.modalities, lots=draw_tickets(batch), owner="mmn.middle_weight")
    return set(zip(batch.rows[seen].tolist(), batch.rows[met].tolist(), strict=True))


def test_all_pairs_are_found_by_label_and_modality():
    seen, met = pair_across(LABELS, MODALITIES, owner="mmn.middle_weight")
    pairs = list(zip(seen.tolist(), met.tolist(), strict=True))
    assert pairs == [(2, 0), (2, 3), (6, 0), (6, 3), (7, 0), (7, 3)]


def test_who_is_left_out_is_in_no_pair_and_counts_for_no_place():
    left_out = torch.arange(len(LABELS)) == 2
    seen, met = pair_across(LABELS, MODALITIES, left_out=left_out, owner="mmn.middle_weight")
    assert list(zip(seen.tolist(), met.tolist(), strict=True)) == [(6, 0), (6, 3), (7, 0), (7, 3)]
    lots = torch.tensor([7, 0, 0, 3, 0, 0, 4, 9])
    seen, met = pair_across(LABELS, MODALITIES, lots=lots, left_out=left_out, owner="mmn.middle_weight")
    assert list(zip(seen.tolist(), met.tolist(), strict=True)) == [(6, 3), (7, 0)]


def test_by_lot_every_picture_is_in_one_pair_of_its_person_as_far_as_they_last():
    batch = make_batch()
    pairs = by_lot(batch)
    assert len(pairs) == len({visible for visible, _ in pairs}) == len({infrared for _, infrared in pairs}) == 30
    place = {int(row): place for place, row in enumerate(batch.rows)}
    assert all(batch.labels[place[visible]] == batch.labels[place[infrared]] for visible, infrared in pairs)


def test_lots_are_other_ones_in_another_step_and_the_same_in_another_order():
    batch = make_batch()
    assert by_lot(batch.select(torch.randperm(len(batch), generator=torch.Generator().manual_seed(0)))) == by_lot(batch)
    assert by_lot(make_batch(step=1)) != by_lot(batch)


def test_over_many_steps_everybody_meets_everybody_equally_often():
    times = torch.zeros(3, 4)
    for step in range(200):
        for visible, infrared in by_lot(make_batch(step)):
            times[(visible - 1) // 3 % 7, (infrared - 1) // 3 % 7 - 3] += 1
    expected = times.sum() / times.numel()  # 500, of a binomial deviation of 19
    assert (times - expected).abs().max() < 5 * 19.4


def test_of_equal_tickets_the_earlier_place_comes_first():
    lots = torch.zeros_like(LABELS)
    seen, met = pair_across(LABELS, MODALITIES, lots=lots, owner="mmn.middle_weight")
    assert list(zip(seen.tolist(), met.tolist(), strict=True)) == [(2, 0), (6, 3)]


def test_nobody_in_both_modalities_names_the_method_and_what_to_set():
    with pytest.raises(TrainingError, match=r"mmn: nobody in the batch has both .*method\.middle_weight to 0"):
        pair_across(LABELS, torch.zeros_like(LABELS), owner="mmn.middle_weight")
