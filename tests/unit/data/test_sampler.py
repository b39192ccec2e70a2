from collections import Counter
from typing import Any

import numpy as np
import pytest

import golden_files
from tapetum.core.discovery import list_names, load
from tapetum.core.errors import DataError, RecipeError
from tapetum.core.options import describe_options
from tapetum.data.sampler import PACKAGE, BatchSampler, build_sampler, read_sampling, write_sampling
from tapetum.data.samplers.cross_modality import find_paired

GOLDEN = golden_files.load("samplers")
BEFORE = golden_files.load("batches_before")
LABELS = np.repeat(np.arange(9), [7, 4, 2, 1, 9, 4, 5, 3, 6])
VISIBLE, INFRARED = 0, 1
MIXED_LABELS = np.concatenate([LABELS, np.repeat(np.arange(9), [1, 3, 2, 4, 5, 1, 1, 2, 8])])
MIXED_MODALITIES = np.repeat([VISIBLE, INFRARED], [len(LABELS), len(MIXED_LABELS) - len(LABELS)])


def uniform(count: int, batch: int, *, seed: int = 0, **share: int) -> BatchSampler:
    return build_sampler(read_sampling({"batch": batch}), np.zeros(count, np.int64), seed=seed, **share)


def pk(labels: np.ndarray, ids: int, pictures: int, *, seed: int = 0, **share: int) -> BatchSampler:
    return build_sampler(read_sampling({"name": "pk", "ids": ids, "pictures": pictures}), labels, seed=seed, **share)


def cross(labels: np.ndarray, modalities: np.ndarray, ids: int, pictures: int, **others: Any) -> BatchSampler:
    options = {key: others.pop(key) for key in ("unpaired", "views", "steps") if key in others}
    sampling = read_sampling({"name": "cross_modality", "ids": ids, "pictures": pictures, **options})
    return build_sampler(sampling, labels, modalities, **({"seed": 0} | others))


def once(labels: np.ndarray, modalities: np.ndarray, ids: int, pictures: int, **others: Any) -> BatchSampler:
    options = {key: others.pop(key) for key in ("unpaired", "steps") if key in others}
    sampling = read_sampling({"name": "cross_modality_once", "ids": ids, "pictures": pictures, **options})
    return build_sampler(sampling, labels, modalities, **({"seed": 0} | others))


def lots(ids: int, pictures: int, **others: Any) -> BatchSampler:
    options = {key: others.pop(key) for key in ("lots", "shuffled_epochs", "steps", "views") if key in others}
    sampling = read_sampling({"name": "cross_modality_lots", "ids": ids, "pictures": pictures, **options})
    return build_sampler(sampling, MIXED_LABELS, MIXED_MODALITIES, **({"seed": 0} | others))


def each(seed: int = 3, **share: int) -> list[BatchSampler]:
    return [
        uniform(len(LABELS), 8, seed=seed, **share),
        pk(LABELS, 4, 2, seed=seed, **share),
        mixed(2, 4, seed=seed, **share),
        lots(2, 4, seed=seed, **share),
        once(MIXED_LABELS, MIXED_MODALITIES, 2, 4, unpaired="drop", seed=seed, **share),
    ]


def mixed(ids: int = 4, pictures: int = 2, *, seed: int = 3, **others: Any) -> BatchSampler:
    return cross(MIXED_LABELS, MIXED_MODALITIES, ids, pictures, seed=seed, **others)


@pytest.mark.parametrize("name", ["uniform", "pk", "cross_modality"])
def test_recipes_of_before_draw_the_batches_of_before(name: str) -> None:
    section = {
        "uniform": {"name": "uniform", "batch": 8},
        "pk": {"name": "pk", "ids": 4, "pictures": 2, "steps": 9},
        "cross_modality": {"name": "cross_modality", "ids": 4, "pictures": 2},
    }[name]
    for rank in range(2):
        sampler = build_sampler(read_sampling(section), MIXED_LABELS, MIXED_MODALITIES, seed=3, rank=rank, world=2)
        drawn = np.stack([part.rows[part.positions] for part in with_epoch(sampler, 2)])
        assert np.array_equal(drawn, BEFORE[f"sampler/{name}/rows/{rank}"])


def test_uniform_shows_each_picture_at_most_once_and_leaves_the_incomplete_batch_out() -> None:
    sampler = uniform(45, 8, seed=0)
    rows = sampler.batches(0).ravel()
    assert len(sampler) == 5
    assert len(rows) == 40 == len(set(rows.tolist()))
    assert not np.array_equal(rows, np.sort(rows))


def test_every_pk_batch_holds_p_people_with_k_pictures_side_by_side() -> None:
    for epoch in range(20):
        for batch in pk(LABELS, 4, 2, seed=1).batches(epoch):
            people = LABELS[batch].reshape(4, 2)
            assert (people == people[:, :1]).all()
            assert len(set(people[:, 0].tolist())) == 4


def test_people_with_enough_pictures_are_drawn_without_repetition() -> None:
    sampler = pk(LABELS, 4, 2, seed=1)
    for epoch in range(20):
        seen = Counter(sampler.batches(epoch).ravel().tolist())
        repeated = {int(LABELS[row]) for row, count in seen.items() if count > 1}
        assert repeated <= {3}  # the only one with a single picture


def test_a_person_with_fewer_than_k_pictures_is_drawn_with_repetition_until_there_are_k() -> None:
    small = {label: np.flatnonzero(label == LABELS).tolist() for label in (2, 3, 7)}  # 2, 1 and 3 pictures
    seen: dict[int, set[int]] = {label: set() for label in small}
    for epoch in range(30):
        for rows in pk(LABELS, 4, 4, seed=2).batches(epoch).reshape(-1, 4):
            if (label := int(LABELS[rows[0]])) in small:
                assert set(rows.tolist()) <= set(small[label])
                seen[label] |= set(rows.tolist())
    assert {label: sorted(rows) for label, rows in seen.items()} == small


def test_pk_stops_when_fewer_than_p_people_have_a_group_left() -> None:
    for epoch in range(30):
        batches = pk(LABELS, 4, 2, seed=5).batches(epoch)
        groups = np.maximum(np.bincount(LABELS) // 2, 1)
        used = np.bincount(LABELS[batches.ravel()], minlength=9) // 2
        assert ((groups - used) >= 0).all()
        assert ((groups - used) > 0).sum() < 4


@pytest.mark.parametrize("case", [0, 1])
def test_pk_lengths_are_those_of_the_published_sampler(case: int) -> None:
    labels = GOLDEN[f"pk_sampler_{case}/in/labels"]
    pictures = int(GOLDEN[f"pk_sampler_{case}/cfg/instances"])
    ids = int(GOLDEN[f"pk_sampler_{case}/cfg/batch"]) // pictures
    sampler = pk(labels, ids, pictures, seed=0)
    lengths = {sampler.batches(epoch).size for epoch in range(200)}
    # the golden lengths are examples from 20 epochs: each of them must occur, none may exceed the estimate
    assert set(GOLDEN[f"pk_sampler_{case}/out/possible_lengths_seen"].tolist()) <= lengths
    assert max(lengths) <= int(GOLDEN[f"pk_sampler_{case}/out/estimated_length"])


def test_people_are_drawn_equally_often_whatever_their_place() -> None:
    labels = np.repeat(np.arange(10), 2)
    sampler = pk(labels, 3, 2, seed=0)
    drawn = np.bincount(np.concatenate([labels[sampler.batches(e).ravel()] for e in range(400)]), minlength=10) / 2
    expected = 400 * 9 / 10
    assert np.abs(drawn - expected).max() < 5 * np.sqrt(expected * 0.1)


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("kind", [0, 1, 2, 3])
def test_one_two_and_four_processes_draw_the_same_global_batches(kind: int, world: int) -> None:
    alone = each()[kind].batches(2)
    shares = [list(with_epoch(each(rank=rank, world=world)[kind], 2)) for rank in range(world)]
    for number, batch in enumerate(alone):
        parts = [share[number] for share in shares]
        positions = np.concatenate([part.positions for part in parts])
        assert sorted(positions.tolist()) == list(range(len(batch)))
        assert all(np.array_equal(part.rows, batch) for part in parts)
        assert len({len(part.positions) for part in parts}) == 1


def with_epoch(sampler: BatchSampler, epoch: int) -> BatchSampler:
    sampler.set_epoch(epoch)
    return sampler


def test_processes_receive_whole_people_where_the_people_can_be_shared() -> None:
    sampler = pk(LABELS, 4, 2, seed=0, rank=1, world=2)
    part = next(iter(sampler))
    assert part.positions.tolist() == [2, 3, 6, 7]
    odd = pk(np.repeat(np.arange(5), 4), 3, 4, seed=0, rank=1, world=2)
    assert next(iter(odd)).positions.tolist() == [1, 3, 5, 7, 9, 11]


def test_parts_share_out_a_process_s_pictures_one_after_the_other() -> None:
    whole = {tuple(part.positions) for rank in range(4) for part in [next(iter(each(rank=rank, world=4)[0]))]}
    in_two = each(rank=0, world=2, parts=2)[0], each(rank=1, world=2, parts=2)[0]
    assert [len(sampler) for sampler in in_two] == [10, 10]
    assert {tuple(part.positions) for sampler in in_two for part in list(sampler)[:2]} == whole


@pytest.mark.parametrize("kind", [0, 1, 2, 3])
def test_sampler_is_put_back_to_any_batch_of_any_epoch(kind: int) -> None:
    full = [part.rows.tolist() for part in with_epoch(each()[kind], 7)]
    restored = with_epoch(each()[kind], 7)
    restored.start_batch = 2
    assert [part.rows.tolist() for part in restored] == full[2:]
    assert [part.number for part in restored] == list(range(2, len(full)))


@pytest.mark.parametrize("kind", [0, 1, 2, 3])
def test_epochs_and_seeds_differ_and_repeat(kind: int) -> None:
    one, again = each()[kind], each()[kind]
    assert np.array_equal(one.batches(4), again.batches(4))
    assert not np.array_equal(one.batches(0)[0], one.batches(1)[0])
    other = each(seed=99)[kind]
    assert not np.array_equal(one.batches(0)[0], other.batches(0)[0])


@pytest.mark.parametrize(("name", "size"), [("uniform", 8), ("pk", 8), ("cross_modality", 16)])
@pytest.mark.parametrize("steps", [1, 3, 17])
def test_a_number_of_steps_cuts_an_epoch_or_goes_round_again(name: str, size: int, steps: int) -> None:
    sizes = {"batch": 8} if name == "uniform" else {"ids": 4, "pictures": 2}
    sampling = read_sampling({"name": name, "steps": steps, **sizes})
    sampler = build_sampler(sampling, MIXED_LABELS, MIXED_MODALITIES, seed=0)
    assert len(sampler) == steps == len(list(sampler))
    assert sampler.batches(0).shape == (steps, size)
    assert len({tuple(batch) for batch in sampler.batches(0).tolist()}) == steps


def test_fewer_identities_than_p_are_refused_with_both_numbers() -> None:
    for build in (lambda: pk(LABELS, 16, 4, seed=0), lambda: mixed(16, 4)):
        with pytest.raises(DataError, match=r"9 training identities are fewer than P = 16 \(sampler.ids\); lower"):
            build()


def test_fewer_pictures_than_a_batch_are_refused_with_both_numbers() -> None:
    with pytest.raises(DataError, match="5 training pictures do not fill a batch of 8"):
        uniform(5, 8, seed=0)


def test_batch_that_cannot_be_shared_evenly_is_refused() -> None:
    with pytest.raises(RecipeError, match="batch of 9 cannot be shared by 2 processes"):
        uniform(50, 9, seed=0, world=2)
    with pytest.raises(RecipeError, match="3 x 3 cannot be shared by 2 processes"):
        pk(LABELS, 3, 3, seed=0, world=2)
    with pytest.raises(RecipeError, match="3 x 3 pairs cannot be shared by 2 processes x 1 parts; choose"):
        mixed(3, 3, world=2)
    with pytest.raises(RecipeError, match="rank 2 of 2"):
        uniform(50, 8, seed=0, rank=2, world=2)


@pytest.mark.parametrize("case", [0, 1, 2])
def test_cross_modality_epochs_and_batches_are_those_of_the_published_sampler(case: int) -> None:
    def read(name: str) -> np.ndarray:
        return np.asarray(GOLDEN[f"cross_modality_sampler_{case}/{name}"])

    visible, infrared = read("in/visible_labels"), read("in/infrared_labels")
    labels = np.concatenate([visible, infrared])
    modalities = np.repeat([VISIBLE, INFRARED], [len(visible), len(infrared)])
    ids, pictures = int(read("cfg/identities_per_batch")), int(read("cfg/images_per_identity"))
    sampler = cross(labels, modalities, ids, pictures, seed=0)
    assert len(sampler) == read("out/batches") == read("out/batches_with_full_loader_batch")
    batches = sampler.batches(0)
    assert batches.size == 2 * read("out/index_length") == 2 * read("out/iterated_length")
    groups = labels[batches].reshape(len(batches), ids, 2, pictures)
    people = groups[:, :, 0, 0]
    assert [len(set(row)) for row in people.tolist()] == read("out/identities_per_batch").tolist()
    assert (groups[:, :, 0] == people[..., None]).all() == read("out/same_identity_inside_group")
    assert (groups[:, :, 0] == groups[:, :, 1]).all() == read("out/same_identity_in_both_modalities")
    of_one_person = np.sort(batches.reshape(-1, pictures), axis=1)
    assert (of_one_person[:, 1:] == of_one_person[:, :-1]).any() == read("out/repeats_occur_inside_group")


def test_cross_modality_batches_hold_k_visible_and_then_k_infrared_pictures_of_each_person() -> None:
    for epoch in range(20):
        batches = mixed().batches(epoch).reshape(-1, 4, 2, 2)
        assert (MIXED_MODALITIES[batches] == np.array([[VISIBLE], [INFRARED]])).all()
        assert (MIXED_LABELS[batches] == MIXED_LABELS[batches[:, :, :1, :1]]).all()


def test_an_epoch_is_as_long_as_the_larger_modality_has_pictures_whichever_it_is() -> None:
    swapped = cross(MIXED_LABELS, 1 - MIXED_MODALITIES, 4, 2, seed=0)
    assert len(mixed()) == len(swapped) == 41 // 8 + 1


def test_a_person_with_fewer_than_k_pictures_is_drawn_with_replacement() -> None:
    batches = np.concatenate([mixed(4, 8).batches(epoch).reshape(-1, 8) for epoch in range(30)])
    groups = MIXED_LABELS * 2 + MIXED_MODALITIES
    for group in range(18):
        owned = np.flatnonzero(groups == group)
        drawn = batches[groups[batches[:, 0]] == group]
        assert len(drawn)
        assert set(drawn.ravel().tolist()) == set(owned.tolist())


def test_people_and_pictures_are_drawn_equally_often() -> None:
    labels = np.tile(np.repeat(np.arange(6), 4), 2)
    sampler = cross(labels, np.repeat([0, 1], 24), 2, 3, seed=0)
    rows = np.concatenate([sampler.batches(epoch).ravel() for epoch in range(800)])
    expected = len(rows) / 48
    # a person's pictures come in groups, so the counts scatter more than single draws would
    assert np.abs(np.bincount(rows, minlength=48) - expected).max() < 8 * np.sqrt(expected)


@pytest.mark.parametrize(("ids", "pictures"), [(4, 2), (6, 4), (3, 4), (2, 4)])
@pytest.mark.parametrize(("world", "parts"), [(1, 1), (2, 1), (1, 2), (2, 2), (1, 4)])
def test_every_slice_holds_pairs_of_both_modalities_of_several_people(
    ids: int, pictures: int, world: int, parts: int
) -> None:
    shares = [list(mixed(ids, pictures, rank=rank, world=world, parts=parts)) for rank in range(world)]
    seen = []
    for part in (part for share in shares for part in share[:parts]):
        rows = part.rows[part.positions]
        by_modality = [np.sort(MIXED_LABELS[rows[MIXED_MODALITIES[rows] == m]]) for m in (VISIBLE, INFRARED)]
        assert np.array_equal(*by_modality)
        assert len(by_modality[0]) == ids * pictures // (world * parts)
        assert len(set(by_modality[0].tolist())) >= 2
        if ids >= 2 * world * parts and ids % (world * parts) == 0:
            assert set(Counter(by_modality[0].tolist()).values()) == {pictures}  # whole people
        seen += part.positions.tolist()
    assert sorted(seen) == list(range(2 * ids * pictures))


def test_one_modality_alone_is_refused_with_the_remedy() -> None:
    options = read_sampling({"name": "cross_modality", "ids": 2, "pictures": 2})
    with pytest.raises(DataError, match=r"needs visible and infrared .* all 41 are visible; add the infrared ones, or"):
        build_sampler(options, LABELS, seed=0)
    with pytest.raises(DataError, match="all 41 are infrared; add the visible ones"):
        build_sampler(options, LABELS, np.ones(len(LABELS), np.int64), seed=0)
    with pytest.raises(DataError, match="none of 4 training identities has pictures in both modalities; check"):
        find_paired([0, 1, 2, 3], [0, 0, 1, 1], "drop")


@pytest.mark.parametrize(
    ("ids", "pictures", "world", "parts", "words"),
    [
        (2, 2, 1, 4, r"4 slices \(training\.devices 1 x accumulate 4\).*set sampler\.ids to 8, or lower training\.acc"),
        (2, 4, 2, 4, r"8 slices \(training\.devices 2 x accumulate 4\).*sampler\.ids to 16, or lower training\.acc"),
        (1, 4, 1, 1, r"sampler\.ids 1 with sampler\.pictures 4 is a batch of one person.*set sampler\.ids to 2$"),
    ],
)
def test_a_slice_that_would_show_one_person_is_refused_before_anything_is_drawn(
    ids: int, pictures: int, world: int, parts: int, words: str
) -> None:
    with pytest.raises(RecipeError, match=words):
        cross(MIXED_LABELS, MIXED_MODALITIES, ids, pictures, seed=0, world=world, parts=parts)


def test_people_of_one_modality_only_are_named_or_left_out() -> None:
    labels = np.array([0, 0, 1, 1, 2, 5, 6, 7, 8, 9, 10])
    modalities = np.array([0, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0])
    with pytest.raises(
        DataError,
        match=r"7 of 9 training identities have pictures in one modality only: 2 \(infrared\), 5 \(visible\), "
        r"6 \(visible\), 7 \(visible\), 8 \(visible\), \.\.\.; set sampler\.unpaired to drop",
    ):
        cross(labels, modalities, 2, 2, seed=0)
    sampler = cross(labels, modalities, 2, 2, unpaired="drop", seed=0)
    assert set(sampler.batches(0).ravel().tolist()) <= {0, 1, 2, 3}
    assert len(sampler) == 2 // 4 + 1  # pictures that are left out make an epoch no longer
    assert find_paired(labels, modalities, "drop").tolist() == [True] * 4 + [False] * 7
    with pytest.raises(DataError, match="2 training identities are fewer than P = 3"):
        cross(labels, modalities, 3, 2, unpaired="drop", seed=0)


def test_each_visible_picture_is_there_in_two_views_side_by_side() -> None:
    plain, doubled = mixed(), mixed(views=[2, 1])
    assert np.array_equal(plain.batches(1), doubled.batches(1))
    for one, two in zip(with_epoch(plain, 1), with_epoch(doubled, 1), strict=True):
        assert set(one.views.tolist()) == {0}
        assert np.array_equal(two.rows[two.views == 0], one.rows)
        second = np.flatnonzero(two.views == 1)
        assert np.array_equal(two.rows[second], two.rows[second - 1])
        assert (MIXED_MODALITIES[two.rows[second]] == VISIBLE).all()
        assert len(second) == 8
        assert np.array_equal(two.positions, np.arange(24))


@pytest.mark.parametrize("kind", [0, 1, 2])
@pytest.mark.parametrize(("world", "parts"), [(2, 1), (1, 2), (2, 2)])
def test_slices_keep_the_views_of_a_picture_together_and_hold_each_once(kind: int, world: int, parts: int) -> None:
    sections = [
        {"batch": 8, "views": [3, 3]},
        {"name": "pk", "ids": 4, "pictures": 2, "views": [3, 3]},
        {"name": "cross_modality", "ids": 8, "pictures": 2, "views": [3, 1]},
    ]
    seen, sizes = [], set()
    for rank in range(world):
        sampler = build_sampler(
            read_sampling(sections[kind]), MIXED_LABELS, MIXED_MODALITIES, seed=3, rank=rank, world=world, parts=parts
        )
        for part in list(sampler)[:parts]:
            views = part.views[part.positions]
            starts = part.positions[views == 0]
            expected = [3 if kind < 2 or MIXED_MODALITIES[row] == VISIBLE else 1 for row in part.rows[starts]]
            together = [start + view for start, count in zip(starts, expected, strict=True) for view in range(count)]
            assert part.positions.tolist() == together
            seen += part.positions.tolist()
            sizes.add(len(part.positions))
    assert sorted(seen) == list(range(len(part.rows)))
    assert len(sizes) == 1


def test_views_that_would_make_slices_of_different_sizes_are_refused() -> None:
    sampling = read_sampling({"batch": 8, "views": [2, 1]})
    with pytest.raises(
        RecipeError, match=r"uniform leaves the modalities .* 2 slices would differ in size; take cross_m"
    ):
        build_sampler(sampling, MIXED_LABELS, MIXED_MODALITIES, seed=0, world=2)
    assert build_sampler(sampling, LABELS, seed=0, world=2)
    assert build_sampler(sampling, MIXED_LABELS, MIXED_MODALITIES, seed=0)


@pytest.mark.parametrize(
    ("section", "pictures"),
    [
        ({"batch": 7}, 7),
        ({"name": "pk", "ids": 6, "pictures": 4}, 24),
        ({"name": "pk", "ids": 6, "pictures": 4, "views": [2, 2]}, 48),
        ({"name": "cross_modality", "ids": 6, "pictures": 4, "unpaired": "drop"}, 48),
        ({"name": "cross_modality", "ids": 6, "pictures": 4, "views": [2, 1]}, 72),
        ({"name": "cross_modality_lots", "ids": 6, "pictures": 4, "views": [2, 1], "lots": 3}, 216),
    ],
)
def test_the_global_batch_counts_every_view_of_every_picture(section: dict, pictures: int) -> None:
    sampling = read_sampling(section)
    assert sampling.global_batch == pictures
    assert read_sampling(write_sampling(sampling)) == sampling


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"name": "unifrm", "batch": 8}, "sampler 'unifrm' is unknown; did you mean uniform?"),
        (
            {"name": 3},
            "sampler.name is 3, expected a name; known: cross_modality, cross_modality_lots, cross_modality_once, "
            "lookalikes, pk, uniform",
        ),
        ({"batch": 8, "step": 3}, "sampler.step is unknown; did you mean steps?"),
        ({"batch": 0}, "sampler.batch: 0 is out of range; use a number from 1"),
        ({"batch": 8, "views": [0, 1]}, "sampler.views: 0 is out of range"),
        ({"batch": 8, "views": 2}, "sampler.views: 2 is of type int"),
        ({"name": "pk", "ids": 4}, "sampler.pictures is missing; add it"),
    ],
)
def test_an_unknown_sampler_or_option_is_refused_with_place_value_and_remedy(section: dict, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_sampling(section)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", list_names(PACKAGE))
def test_the_options_of_a_sampler_explain_themselves(name: str) -> None:
    assert all(text for *_, text in describe_options(load(PACKAGE, name).Options))


def test_each_lot_of_a_step_is_a_batch_of_p_times_k_of_its_own() -> None:
    batches = lots(3, 2, lots=3, shuffled_epochs=0).batches(1).reshape(-1, 3, 3, 2, 2)  # step, lot, person, modality, K
    assert len(batches) == len(mixed(3, 2).batches(1))
    people = MIXED_LABELS[batches]
    assert (people == people[..., :1, :1]).all()
    assert (MIXED_MODALITIES[batches] == np.array([VISIBLE, INFRARED])[:, None]).all()
    drawn = [Counter(map(tuple, np.sort(people[:, lot, :, 0, 0], axis=1).tolist())) for lot in range(3)]
    assert drawn[0] != drawn[1] != drawn[2]
    together = (people[:, 0, :, 0, 0][:, :, None] == people[:, 1, :, 0, 0][:, None, :]).any(2).mean()
    assert 0.1 < together < 0.6, "somebody is in the other lot too by chance: three of nine people"


def test_the_first_epochs_are_of_all_pictures_and_in_every_lot_alike() -> None:
    sampler = lots(3, 2, shuffled_epochs=2)
    for epoch in (0, 1):
        batches = sampler.batches(epoch).reshape(-1, 2, 3, 2, 2)
        assert np.array_equal(batches[:, 0], batches[:, 1])
        assert len(batches) == 7  # of 41 visible pictures six each
        for modality in (VISIBLE, INFRARED):
            own = np.flatnonzero(modality == MIXED_MODALITIES)
            counts = Counter(batches[:, 0, :, modality].ravel().tolist())
            assert set(counts) == set(own.tolist())
            assert max(counts.values()) - min(counts.values()) <= 1
        pairs = MIXED_LABELS[batches[:, 0]]
        assert (pairs[:, :, 0] == pairs[:, :, 1]).mean() < 0.4, "who stands side by side is chance"
    assert not np.array_equal(sampler.batches(0), sampler.batches(1))
    assert (np.ptp(MIXED_LABELS[sampler.batches(2).reshape(-1, 2, 3, 4)], axis=3) == 0).all()


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize(("world", "parts"), [(2, 1), (1, 2), (2, 2)])
def test_every_slice_has_as_much_of_each_lot(epoch: int, world: int, parts: int) -> None:
    whole = next(iter(with_epoch(lots(8, 2, views=[2, 1]), epoch)))
    assert np.array_equal(whole.lots, np.repeat([0, 1], 48))
    seen = []
    for rank in range(world):
        sampler = lots(8, 2, views=[2, 1], rank=rank, world=world, parts=parts)
        for part in list(with_epoch(sampler, epoch))[:parts]:
            assert np.array_equal(part.rows, whole.rows)
            for lot in (0, 1):
                own = part.positions[part.lots[part.positions] == lot]
                assert len(own) == 48 // (world * parts)
                counts = Counter(zip(MIXED_MODALITIES[part.rows[own]], part.views[own], strict=True))
                assert len(set(counts.values())) == 1
                assert len(counts) == 3
            seen += part.positions.tolist()
    assert sorted(seen) == list(range(96))


def test_a_slice_of_a_lot_that_would_show_one_person_is_refused() -> None:
    with pytest.raises(
        RecipeError, match=r"sampler\.ids 2 with sampler\.pictures 1 leaves one person to some of 2 slices"
    ):
        lots(2, 1, world=2)


LOOKALIKES = {"name": "lookalikes", "ids": 6, "pictures": 2}


def test_people_who_are_dressed_alike_come_together() -> None:
    labels = np.repeat(np.arange(12), 6)
    outfits = np.repeat([0, 0, 7, 7, 3, 3, 5, 5, 9, 9, 8, 8], 6)
    sampler = build_sampler(read_sampling(LOOKALIKES), labels, outfits=outfits, seed=1)
    sampler.set_epoch(2)
    batches = sampler.batches(2)
    assert len(batches) >= 4
    partners = set()
    for rows in batches:
        assert len(set(rows.tolist())) == 12
        people = labels[rows].reshape(6, 2)
        assert (people[:, 0] == people[:, 1]).all()
        worn = Counter(outfits[rows[::2]].tolist())
        assert set(worn.values()) == {2}, "both people of a pair, or none"
        partners.add(frozenset(worn))
    assert len(partners) > 1
    again = build_sampler(read_sampling(LOOKALIKES), labels, outfits=outfits, seed=1)
    assert np.array_equal(again.batches(2), batches)


def test_a_group_is_cut_where_p_is_no_multiple_and_those_of_unknown_clothes_stand_alone() -> None:
    labels, outfits = np.repeat(np.arange(9), 4), np.repeat([4, 4, 4, 6, 6, 6, -1, -1, -1], 4)
    sampler = build_sampler(read_sampling({**LOOKALIKES, "ids": 4}), labels, outfits=outfits, seed=3)
    batches = np.concatenate([sampler.batches(epoch) for epoch in range(5)])
    found = [Counter(outfits[rows[::2]].tolist()) for rows in batches]
    assert all(sum(worn.values()) == 4 for worn in found)
    assert any(3 in worn.values() for worn in found), "a whole group"
    first = [outfits[sampler.batches(epoch)[0]][::2] for epoch in range(20)]
    cut = [sum(0 < (worn == group).sum() < 3 for group in (4, 6)) for worn in first]
    assert max(cut) <= 1, "while everybody has pictures left, one group at most is cut"


def test_without_people_in_the_same_clothes_the_sampler_says_what_to_take() -> None:
    for outfits in (None, np.repeat([-1, -1, 5], 4)):
        with pytest.raises(DataError, match=r"no two training identities .* dressed alike; take sampler pk, or"):
            build_sampler(read_sampling({**LOOKALIKES, "ids": 2}), np.repeat(np.arange(3), 4), outfits=outfits, seed=0)


@pytest.mark.parametrize(
    "section", [{"batch": 12}, {"name": "pk", "ids": 4, "pictures": 3}, {**LOOKALIKES, "ids": 4, "pictures": 3}]
)
def test_a_sampler_that_knows_no_modalities_draws_people_of_one_modality_as_everybody(section: dict[str, Any]) -> None:
    labels, outfits = np.repeat(np.arange(4), 3), np.repeat([1, 1, 2, 2], 3)
    modalities = np.where(labels == 3, INFRARED, np.where(labels == 2, VISIBLE, np.arange(12) % 2))
    batch = build_sampler(read_sampling(section), labels, modalities, outfits=outfits, seed=0).batches(0)[0]
    assert sorted(batch.tolist()) == list(range(12))


def test_no_picture_comes_twice_where_each_is_drawn_once_and_pairs_are_as_many_as_the_rarer_modality_has() -> None:
    labels, modalities = np.repeat([0, 1, 2, 0, 1, 2], [9, 5, 4, 4, 7, 6]), np.repeat([VISIBLE, INFRARED], [18, 17])
    sampler = once(labels, modalities, 2, 2)
    seen: Counter[int] = Counter()
    for epoch in range(40):
        batches = sampler.batches(epoch)
        rows = batches.ravel()
        assert len(set(rows.tolist())) == len(rows)
        people, kinds = (each[batches].reshape(len(batches), 2, 2, 2) for each in (labels, modalities))
        assert (people == people[:, :, :1, :1]).all()  # a person's four side by side,
        assert (kinds == np.array([VISIBLE, INFRARED])[:, None]).all()  # visible ones first
        assert (people[:, 0, 0, 0] != people[:, 1, 0, 0]).all()
        assert len(batches) in (2, 3)  # each has two groups: 4, 5 and 4 pictures of the rarer modality
        seen.update(rows.tolist())
    assert len(seen) == len(labels)  # over epochs all come


def test_whoever_lacks_pictures_of_both_modalities_is_drawn_again_and_of_one_named_or_left_out() -> None:
    labels = np.repeat([5, 6, 7, 8, 9, 5, 6, 7, 8], [2, 4, 4, 4, 4, 1, 4, 2, 4])
    modalities = np.repeat([VISIBLE, INFRARED], [18, 11])
    with pytest.raises(DataError, match=r"1 of 5 .* in one modality only: 9 \(visible\); set sampler\.unpaired"):
        once(labels, modalities, 2, 3)
    both = labels != 9
    with pytest.raises(DataError, match=r"1 of 4 .*sampler\.pictures = 3 .*: 7 \(infrared\); set sampler\.unpaired"):
        once(labels[both], modalities[both], 2, 3)
    sampler = once(labels, modalities, 3, 3, unpaired="drop")
    batches = sampler.batches(0)
    assert len(batches) == 1
    assert Counter(labels[batches[0]].tolist()) == {5: 6, 6: 6, 8: 6}
    with pytest.raises(DataError, match="3 training identities are fewer than P = 4"):
        once(labels, modalities, 4, 3, unpaired="drop")
