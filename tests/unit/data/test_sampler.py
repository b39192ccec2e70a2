from collections import Counter

import numpy as np
import pytest

import golden_files
from tapetum.core.errors import DataError, RecipeError
from tapetum.data.sampler import PKSampler, Sampler, SamplerOptions, UniformSampler, build_sampler

GOLDEN = golden_files.load("samplers")
LABELS = np.repeat(np.arange(9), [7, 4, 2, 1, 9, 4, 5, 3, 6])


def both(**share: int) -> list[Sampler]:
    return [
        UniformSampler(len(LABELS), 8, seed=3, **share),
        PKSampler(LABELS, 4, 2, seed=3, **share),
    ]


def test_uniform_shows_each_picture_at_most_once_and_leaves_the_incomplete_batch_out() -> None:
    sampler = UniformSampler(45, 8, seed=0)
    rows = sampler.batches(0).ravel()
    assert len(sampler) == 5
    assert len(rows) == 40 == len(set(rows.tolist()))
    assert not np.array_equal(rows, np.sort(rows))


def test_every_pk_batch_holds_p_people_with_k_pictures_side_by_side() -> None:
    for epoch in range(20):
        for batch in PKSampler(LABELS, 4, 2, seed=1).batches(epoch):
            people = LABELS[batch].reshape(4, 2)
            assert (people == people[:, :1]).all()
            assert len(set(people[:, 0].tolist())) == 4


def test_people_with_enough_pictures_are_drawn_without_repetition() -> None:
    sampler = PKSampler(LABELS, 4, 2, seed=1)
    for epoch in range(20):
        seen = Counter(sampler.batches(epoch).ravel().tolist())
        repeated = {int(LABELS[row]) for row, count in seen.items() if count > 1}
        assert repeated <= {3}  # the only one with a single picture


def test_pk_stops_when_fewer_than_p_people_have_a_group_left() -> None:
    for epoch in range(30):
        batches = PKSampler(LABELS, 4, 2, seed=5).batches(epoch)
        groups = np.maximum(np.bincount(LABELS) // 2, 1)
        used = np.bincount(LABELS[batches.ravel()], minlength=9) // 2
        assert ((groups - used) >= 0).all()
        assert ((groups - used) > 0).sum() < 4


@pytest.mark.parametrize("case", [0, 1])
def test_pk_lengths_are_those_of_the_published_sampler(case: int) -> None:
    labels = GOLDEN[f"pk_sampler_{case}/in/labels"]
    pictures = int(GOLDEN[f"pk_sampler_{case}/cfg/instances"])
    ids = int(GOLDEN[f"pk_sampler_{case}/cfg/batch"]) // pictures
    sampler = PKSampler(labels, ids, pictures, seed=0)
    lengths = {sampler.batches(epoch).size for epoch in range(200)}
    # the golden lengths are examples from 20 epochs: each of them must occur, none may exceed the estimate
    assert set(GOLDEN[f"pk_sampler_{case}/out/possible_lengths_seen"].tolist()) <= lengths
    assert max(lengths) <= int(GOLDEN[f"pk_sampler_{case}/out/estimated_length"])


def test_people_are_drawn_equally_often_whatever_their_place() -> None:
    labels = np.repeat(np.arange(10), 2)
    sampler = PKSampler(labels, 3, 2, seed=0)
    drawn = np.bincount(np.concatenate([labels[sampler.batches(e).ravel()] for e in range(400)]), minlength=10) / 2
    expected = 400 * 9 / 10
    assert np.abs(drawn - expected).max() < 5 * np.sqrt(expected * 0.1)


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("kind", [0, 1])
def test_one_two_and_four_processes_draw_the_same_global_batches(kind: int, world: int) -> None:
    alone = both()[kind].batches(2)
    shares = [list(with_epoch(both(rank=rank, world=world)[kind], 2)) for rank in range(world)]
    for number, batch in enumerate(alone):
        parts = [share[number] for share in shares]
        positions = np.concatenate([part.positions for part in parts])
        assert sorted(positions.tolist()) == list(range(8))
        assert all(np.array_equal(part.rows, batch) for part in parts)
        assert len({len(part.positions) for part in parts}) == 1


def with_epoch(sampler: Sampler, epoch: int) -> Sampler:
    sampler.set_epoch(epoch)
    return sampler


def test_processes_receive_whole_people_where_the_people_can_be_shared() -> None:
    sampler = PKSampler(LABELS, 4, 2, seed=0, rank=1, world=2)
    part = next(iter(sampler))
    assert part.positions.tolist() == [2, 3, 6, 7]
    odd = PKSampler(np.repeat(np.arange(5), 4), 3, 4, seed=0, rank=1, world=2)
    assert next(iter(odd)).positions.tolist() == [1, 3, 5, 7, 9, 11]


def test_parts_share_out_a_process_s_pictures_one_after_the_other() -> None:
    whole = {tuple(part.positions) for rank in range(4) for part in [next(iter(both(rank=rank, world=4)[0]))]}
    in_two = both(rank=0, world=2, parts=2)[0], both(rank=1, world=2, parts=2)[0]
    assert [len(sampler) for sampler in in_two] == [10, 10]
    assert {tuple(part.positions) for sampler in in_two for part in list(sampler)[:2]} == whole


@pytest.mark.parametrize("kind", [0, 1])
def test_sampler_is_put_back_to_any_batch_of_any_epoch(kind: int) -> None:
    full = [part.rows.tolist() for part in with_epoch(both()[kind], 7)]
    restored = with_epoch(both()[kind], 7)
    restored.start_batch = 2
    assert [part.rows.tolist() for part in restored] == full[2:]
    assert [part.number for part in restored] == list(range(2, len(full)))


@pytest.mark.parametrize("kind", [0, 1])
def test_epochs_and_seeds_differ_and_repeat(kind: int) -> None:
    one, again = both()[kind], both()[kind]
    assert np.array_equal(one.batches(4), again.batches(4))
    assert not np.array_equal(one.batches(0)[0], one.batches(1)[0])
    other = build_sampler(SamplerOptions(name=("uniform", "pk")[kind], batch=8, ids=4, pictures=2), LABELS, seed=99)
    assert not np.array_equal(one.batches(0)[0], other.batches(0)[0])


@pytest.mark.parametrize("name", ["uniform", "pk"])
@pytest.mark.parametrize("steps", [1, 3, 17])
def test_a_number_of_steps_cuts_an_epoch_or_goes_round_again(name: str, steps: int) -> None:
    options = SamplerOptions(name=name, batch=8, ids=4, pictures=2, steps=steps)  # type: ignore[arg-type]
    sampler = build_sampler(options, LABELS, seed=0)
    assert len(sampler) == steps == len(list(sampler))
    assert sampler.batches(0).shape == (steps, 8)


def test_fewer_identities_than_p_are_refused_with_both_numbers() -> None:
    with pytest.raises(DataError, match=r"9 training identities are fewer than P = 16 \(sampler.ids\); lower"):
        PKSampler(LABELS, 16, 4, seed=0)


def test_fewer_pictures_than_a_batch_are_refused_with_both_numbers() -> None:
    with pytest.raises(DataError, match="5 training pictures do not fill a batch of 8"):
        UniformSampler(5, 8, seed=0)


def test_batch_that_cannot_be_shared_evenly_is_refused() -> None:
    with pytest.raises(RecipeError, match="batch of 9 cannot be shared by 2 processes"):
        UniformSampler(50, 9, seed=0, world=2)
    with pytest.raises(RecipeError, match="3 x 3 cannot be shared by 2 processes"):
        PKSampler(LABELS, 3, 3, seed=0, world=2)
    with pytest.raises(RecipeError, match="rank 2 of 2"):
        UniformSampler(50, 8, seed=0, rank=2, world=2)
