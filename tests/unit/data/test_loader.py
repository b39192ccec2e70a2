import threading
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tapetum.core.errors import DataError, OutputError
from tapetum.core.types import Batch, Modality, Record
from tapetum.data import loader as module
from tapetum.data import pictures as picture_module
from tapetum.data.catalog import open_dataset
from tapetum.data.datasets import night600
from tapetum.data.image_io import read_picture, resize
from tapetum.data.loader import EvalLoader, TrainLoader, class_labels
from tapetum.data.pictures import PictureOptions, default_cache_dir, drop_corrupt
from tapetum.data.sampler import Sampling, read_sampling
from tapetum.data.threads import map_in_threads
from tapetum.data.transforms import read_operations

SIZE = (32, 16)
AUGMENT = read_operations([{"name": "pad_crop", "pad": 3}, {"name": "flip"}, {"name": "erasing", "fill": "noise"}])
PICTURES = PictureOptions(SIZE, num_workers=0)
PK = read_sampling({"name": "pk", "ids": 2, "pictures": 2, "steps": 3})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("night600")
    night600.write_miniature(folder, np.random.default_rng(0))
    return folder


@pytest.fixture
def train(root: Path) -> list[Record]:
    return open_dataset("night600", root).split("train")


def build(train: list[Record], **changes: object) -> TrainLoader:
    names = {field.name for field in fields(PictureOptions)}
    pictures = replace(PICTURES, **{name: value for name, value in changes.items() if name in names})
    others: dict = {"augment": AUGMENT, "sampler": PK, "seed": 5} | changes
    return TrainLoader(train, pictures, **{name: value for name, value in others.items() if name not in names})


def collect(loader: TrainLoader, epochs: int = 2) -> list[Batch]:
    batches = []
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        batches += list(loader)
    return batches


def same(one: list[Batch], other: list[Batch]) -> bool:
    fields = ("images", "labels", "pids", "camids", "modalities")
    return len(one) == len(other) and all(
        torch.equal(getattr(a, name), getattr(b, name)) for a, b in zip(one, other, strict=True) for name in fields
    )


def test_training_batch_has_the_shapes_and_ranges_of_the_contract(train: list[Record]) -> None:
    loader = build(train)
    batch = next(iter(loader))
    assert batch.images.shape == (4, 3, *SIZE)
    assert batch.images.dtype == torch.float32
    assert 0 <= batch.images.min() <= batch.images.max() <= 1
    assert batch.labels.dtype == batch.pids.dtype == batch.camids.dtype == batch.modalities.dtype == torch.int64
    assert [loader.pids[label] for label in batch.labels.tolist()] == batch.pids.tolist()
    assert len(loader.pids) == 2
    assert len(loader) == 3


@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_batches_depend_neither_on_workers_nor_on_the_cache(
    train: list[Record], tmp_path: Path, cache: str, num_workers: int
) -> None:
    expected = collect(build(train))
    assert same(collect(build(train, cache=cache, cache_dir=tmp_path, num_workers=num_workers)), expected)


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("sampler", [PK, read_sampling({"batch": 4})])
def test_processes_together_hold_the_batch_of_one_process(train: list[Record], world: int, sampler: Sampling) -> None:
    alone = build(train, sampler=sampler)
    shares = [build(train, sampler=sampler, rank=rank, world=world) for rank in range(world)]
    for number, whole in enumerate(alone):
        for share in shares:
            part = list(share)[number]
            positions = list(share.sampler)[number].positions
            assert torch.equal(part.images, whole.images[positions])
            assert torch.equal(part.labels, whole.labels[positions])


def test_loader_goes_on_in_the_middle_of_an_epoch(train: list[Record]) -> None:
    whole = build(train)
    whole.set_epoch(4)
    restored = build(train)
    restored.set_epoch(4)
    restored.sampler.start_batch = 1
    assert same(list(restored), list(whole)[1:])


def test_evaluation_keeps_the_order_and_the_last_batch(root: Path) -> None:
    records = open_dataset("night600", root).split("gallery")
    loader = EvalLoader(records, PictureOptions(SIZE), batch_size=8)
    batches = list(loader)
    assert [len(batch) for batch in batches] == [8, 8, 3]
    assert len(loader) == 3
    assert torch.cat([batch.pids for batch in batches]).tolist() == [record.pid for record in records]
    assert torch.cat([batch.camids for batch in batches]).tolist() == [record.camid for record in records]
    assert set(torch.cat([batch.labels for batch in batches]).tolist()) == {-1}
    expected = resize(read_picture(records[9].path), SIZE)
    assert np.array_equal((batches[1].images[1].permute(1, 2, 0) * 255).round().numpy(), expected)


def test_class_index_is_the_place_among_the_sorted_people(tmp_path: Path) -> None:
    records = [Record(tmp_path / "x.jpg", pid, 1) for pid in (40, 7, 40, 300)]
    labels, pids = class_labels(records)
    assert labels.tolist() == [1, 0, 1, 2]
    assert pids == [7, 40, 300]


def test_pictures_are_decoded_once_with_a_memory_cache(train: list[Record], monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[Path] = []

    def counting(path: Path) -> np.ndarray:
        decoded.append(path)
        return read_picture(path)

    monkeypatch.setattr(picture_module, "read_picture", counting)
    collect(build(train, cache="memory"), epochs=5)
    assert sorted(decoded) == sorted(record.path for record in train)


def test_disk_cache_is_read_again_and_repaired_when_cut_short(
    train: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = collect(build(train, cache="disk", cache_dir=tmp_path))
    (file,) = tmp_path.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(picture_module, "read_picture", lambda path: pytest.fail("decoded although the cache is there"))
        assert same(collect(build(train, cache="disk", cache_dir=tmp_path)), expected)
    file.write_bytes(file.read_bytes()[:500])
    assert same(collect(build(train, cache="disk", cache_dir=tmp_path)), expected)
    build(train, cache="disk", cache_dir=tmp_path, size=(16, 8))
    build(train, cache="disk", cache_dir=tmp_path, interpolation="bilinear")
    build(train[::-1], cache="disk", cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


def test_interrupted_disk_cache_leaves_no_file(
    train: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(path: Path) -> np.ndarray:
        raise KeyboardInterrupt

    monkeypatch.setattr(picture_module, "read_picture", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(train, cache="disk", cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_stops_the_disk_cache_with_one_line_and_no_file(train: list[Record], tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="file size limits are a POSIX thing")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot be written .*; free space or choose another folder"):
            build(train, cache="disk", cache_dir=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "here"))
    assert default_cache_dir() == tmp_path / "here"
    monkeypatch.delenv("TAPETUM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache_dir() == tmp_path / "xdg" / "tapetum"


def test_memory_cache_that_cannot_fit_is_refused_with_the_remedy(
    train: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_module, "_MEMORY_SHARE", 0.0)
    with pytest.raises(DataError, match=r"set data\.cache to disk or none"):
        build(train, cache="memory")


def corrupt(train: list[Record], tmp_path: Path) -> list[Record]:
    damaged = tmp_path / "0001_c1_000099.jpg"
    damaged.write_bytes(train[0].path.read_bytes()[:-20])
    return [*train[:3], Record(damaged, train[0].pid, 1), *train[3:]]


@pytest.mark.parametrize("cache", ["none", "memory"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_damaged_picture_stops_the_loader_by_name(
    train: list[Record], tmp_path: Path, cache: str, num_workers: int
) -> None:
    records = corrupt(train, tmp_path)
    with pytest.raises(DataError, match=r"0001_c1_000099\.jpg: the picture is damaged"):
        list(EvalLoader(records, PictureOptions(SIZE, cache=cache, num_workers=num_workers)))  # type: ignore[arg-type]


def test_damaged_picture_is_left_out_and_counted_when_asked(train: list[Record], tmp_path: Path) -> None:
    loader = EvalLoader(corrupt(train, tmp_path), PICTURES, skip_corrupt=True)
    assert same(list(loader), list(EvalLoader(train, PICTURES)))
    assert len(loader.skipped) == 1
    assert "0001_c1_000099.jpg" in loader.skipped[0]


def test_fewer_identities_than_p_are_refused_before_anything_is_decoded(
    train: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(picture_module, "read_picture", lambda path: pytest.fail("decoded"))
    with pytest.raises(DataError, match="2 training identities are fewer than P = 4"):
        build(train, sampler=read_sampling({"name": "pk", "ids": 4, "pictures": 2}), cache="memory")


@pytest.fixture
def mixed(train: list[Record]) -> list[Record]:
    """Every second picture of each person under each camera counts as infrared."""
    return [replace(record, modality=Modality(row % 2)) for row, record in enumerate(train)]


@pytest.mark.parametrize(("world", "parts"), [(1, 1), (2, 1), (1, 2)])
def test_every_part_of_a_cross_modality_batch_shows_its_people_in_both_modalities(
    mixed: list[Record], world: int, parts: int
) -> None:
    sampler = read_sampling({"name": "cross_modality", "ids": 2, "pictures": 2, "steps": 3})
    loaders = [build(mixed, sampler=sampler, rank=rank, world=world, parts=parts) for rank in range(world)]
    batches = [batch for loader in loaders for batch in collect(loader, epochs=1)]
    assert len(batches) == 3 * world * parts
    for batch in batches:
        assert len(batch) == 8 // (world * parts)
        visible, infrared = (sorted(batch.pids[batch.modalities == m].tolist()) for m in Modality)
        assert visible == infrared
        assert len(set(visible)) == 2


def test_people_of_one_modality_are_named_by_pid_or_get_no_class(mixed: list[Record]) -> None:
    pids = sorted({record.pid for record in mixed})
    mixed += [replace(record, pid=pids[-1] + 1) for record in mixed if record.pid == pids[-1]]
    pids.append(pids[-1] + 1)
    records = [r for r in mixed if r.pid != pids[0] or r.modality == Modality.VISIBLE]
    sampler = read_sampling({"name": "cross_modality", "ids": 2, "pictures": 2})
    with pytest.raises(DataError, match=rf"1 of {len(pids)} .* in one modality only: {pids[0]} \(visible\); set"):
        build(records, sampler=sampler)
    loader = build(records, sampler=replace(sampler, options=replace(sampler.options, unpaired="drop")))
    assert loader.pids == pids[1:]
    assert len(loader.pids) == len(pids) - 1


def test_names_that_are_wrong_on_purpose_are_drawn_and_learnt_beside_the_true_pids(mixed: list[Record]) -> None:
    sampler = read_sampling({"name": "cross_modality", "ids": 2, "pictures": 2, "label_noise": 0.3, "label_seed": 4})
    loader = build(mixed, sampler=sampler)
    labels, pids = class_labels(mixed)
    assert loader.pids == pids
    for modality in (0, 1):
        own = np.array([record.modality == modality for record in mixed])
        assert (loader.labels != labels)[own].sum() == round(0.3 * own.sum())
    wrong = 0
    for batch in [*collect(loader, epochs=3), *loader.all_pictures(0, 8)]:
        assert torch.equal(batch.labels, torch.from_numpy(loader.labels)[batch.rows])
        true = torch.from_numpy(labels)[batch.rows]
        assert torch.equal(batch.pids, torch.tensor(pids)[true])
        wrong += int((batch.labels != true).sum())
    assert wrong
    alone = [record for record in mixed if record.pid == mixed[0].pid]
    with pytest.raises(DataError, match="label_noise needs two training identities, there is one; set it to 0"):
        build(alone, sampler=sampler)


VIEWS = read_sampling({"name": "cross_modality", "ids": 2, "pictures": 2, "steps": 3, "views": [2, 1]})
BY_VIEW = read_operations(
    [
        {"name": "pad_crop", "pad": 3},
        {"name": "erasing", "fill": "noise", "probability": 0.9},
        {"name": "channel_exchange", "view": 1, "modality": "visible", "normalisation": "none"},
    ]
)


def test_each_view_of_a_picture_is_changed_by_itself_and_a_batch_says_which_it_is(mixed: list[Record]) -> None:
    (batch, *_) = build(mixed, sampler=VIEWS, augment=BY_VIEW)
    assert len(batch) == 12
    second = batch.views == 1
    assert batch.views.tolist() == [
        1
        if place
        and batch.rows[place] == batch.rows[place - 1]
        and batch.views[place - 1] == 0
        and batch.modalities[place] == 0
        else 0
        for place in range(12)
    ]
    assert second.sum() == 4
    assert (batch.modalities[second] == Modality.VISIBLE).all()
    grey = (batch.images == batch.images[:, :1]).flatten(1).all(1)
    assert torch.equal(grey, second)
    first = batch.images[:-1][second[1:]]  # the view before each second one
    assert not torch.equal(first.mean(1), batch.images[second].mean(1))
    assert torch.equal(batch.pids, torch.tensor([mixed[row].pid for row in batch.rows.tolist()]))


@pytest.mark.parametrize(("world", "parts"), [(2, 1), (1, 2)])
def test_slices_of_a_batch_with_views_are_those_of_one_process(mixed: list[Record], world: int, parts: int) -> None:
    whole = next(iter(build(mixed, sampler=VIEWS, augment=BY_VIEW)))
    for rank in range(world):
        loader = build(mixed, sampler=VIEWS, augment=BY_VIEW, rank=rank, world=world, parts=parts)
        for sampled, part in list(zip(loader.sampler, loader, strict=True))[:parts]:
            for name in ("images", "rows", "views", "labels", "modalities"):
                assert torch.equal(getattr(part, name), getattr(whole, name)[sampled.positions])


def test_views_of_a_picture_are_decoded_once(mixed: list[Record], monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[Path] = []

    def counting(path: Path) -> np.ndarray:
        decoded.append(path)
        return read_picture(path)

    monkeypatch.setattr(picture_module, "read_picture", counting)
    batch = next(iter(build(mixed, sampler=VIEWS, augment=BY_VIEW)))
    assert len(batch) == 12
    assert len(decoded) <= 8


def test_a_batch_says_of_which_lot_each_picture_is(mixed: list[Record]) -> None:
    section = {"name": "cross_modality_lots", "ids": 2, "pictures": 2, "steps": 3, "views": [2, 1]}
    for batch in collect(build(mixed, sampler=read_sampling(section), augment=BY_VIEW), epochs=2):
        assert batch.lots.tolist() == [0] * 12 + [1] * 12
        same = torch.equal(batch.rows[:12], batch.rows[12:])
        assert same == (batch.epoch == 0)
        assert not torch.equal(batch.images[:12], batch.images[12:])
    assert set(next(iter(build(mixed, sampler=VIEWS))).lots.tolist()) == {0}


def test_a_changed_walk_mixes_the_modalities_in_another_order_each_epoch(mixed: list[Record]) -> None:
    fewer = [record for row, record in enumerate(mixed) if row % 4 != 3]  # half as many infrared ones
    orders = []
    for epoch in (0, 1):
        for world in (1, 2):
            loaders = [build(fewer, sampler=VIEWS, augment=BY_VIEW, rank=rank, world=world) for rank in range(world)]
            batches = [batch for loader in loaders for batch in loader.all_pictures(epoch, 12, augmented=True)]
            assert sorted(torch.cat([batch.rows[batch.views == 0] for batch in batches]).tolist()) == [
                *range(len(fewer))
            ]
            for batch in batches:
                visible = int(((batch.modalities == 0) & (batch.views == 0)).sum())
                infrared = int((batch.modalities == 1).sum())
                assert abs(visible - 2 * infrared) <= 2
            if world == 1:
                orders.append(torch.cat([batch.rows[batch.views == 0] for batch in batches]).tolist())
    assert orders[0] != orders[1]
    assert sorted(orders[0]) != orders[0]


def test_a_walk_over_all_pictures_gives_each_picture_as_it_is_in_order(mixed: list[Record]) -> None:
    loader = build(mixed, sampler=VIEWS, augment=BY_VIEW)
    batches = list(loader.all_pictures(3, 5))
    assert torch.cat([batch.rows for batch in batches]).tolist() == list(range(len(mixed)))
    assert {batch.epoch for batch in batches} == {3}
    assert {len(batch) for batch in batches[:-1]} == {5}
    plain = torch.cat([batch.images for batch in EvalLoader(mixed, PICTURES, batch_size=8)])
    assert torch.equal(torch.cat([batch.images for batch in batches]), plain)
    labels = torch.cat([batch.labels for batch in batches])
    assert torch.equal(labels, torch.from_numpy(loader.labels))
    assert set(torch.cat([batch.views for batch in batches]).tolist()) == {0}


@pytest.mark.parametrize("block", [4, 64])
def test_what_a_changed_walk_makes_of_a_picture_depends_on_the_seed_and_the_epoch_alone(
    mixed: list[Record], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)

    def walk(size: int, world: int = 1, epoch: int = 0, **others: object) -> Batch:
        shares = [build(mixed, sampler=VIEWS, augment=BY_VIEW, rank=r, world=world, **others) for r in range(world)]
        found = [batch for share in shares for batch in share.all_pictures(epoch, size, augmented=True)]
        fields = ("images", "labels", "pids", "camids", "modalities", "rows", "views")
        together = Batch(*(torch.cat([getattr(batch, name) for batch in found]) for name in fields))
        return together.select(torch.argsort(together.rows, stable=True))

    whole = walk(100)
    counts = [2 if record.modality == Modality.VISIBLE else 1 for record in mixed]
    assert whole.rows.tolist() == [row for row, count in enumerate(counts) for _ in range(count)]
    assert whole.views.tolist() == [view for count in counts for view in range(count)]
    grey = (whole.images == whole.images[:, :1]).flatten(1).all(1)
    assert torch.equal(grey, whole.views == 1)
    for other in (walk(1), walk(7), walk(3, world=2), walk(5, num_workers=2)):
        assert torch.equal(other.images, whole.images)
        assert torch.equal(other.rows, whole.rows)
    assert not torch.equal(walk(100, epoch=1).images, whole.images)
    assert not torch.equal(walk(100, seed=6).images, whole.images)


def test_no_picture_at_all_is_refused() -> None:
    with pytest.raises(DataError, match="no training picture"):
        build([])
    with pytest.raises(DataError, match="no picture to read"):
        EvalLoader([], PICTURES)


def test_progress_reaches_the_total(train: list[Record]) -> None:
    seen: list[tuple[int, int]] = []
    drop_corrupt(train, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(len(train), len(train))]


def test_threads_keep_the_order_and_stay_within_bounds() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def slow(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002 * (number % 3))
        with lock:
            running -= 1
        return number * number

    taken: list[int] = []

    def items() -> object:
        for number in range(40):
            taken.append(number)
            yield number

    results = map_in_threads(slow, items(), 3, ahead=2)  # type: ignore[arg-type]
    first = next(results)
    assert first == 0
    assert len(taken) <= 3 * 2
    assert [first, *results] == [number * number for number in range(40)]
    assert most <= 3


def test_error_in_a_thread_comes_out_in_its_place_and_ends_the_threads() -> None:
    def fail_at_five(number: int) -> int:
        if number == 5:
            raise ValueError("five")
        return number

    results = map_in_threads(fail_at_five, range(100), 2)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="five"):
        next(results)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tapetum-data")]


def test_abandoned_iteration_ends_its_threads(train: list[Record]) -> None:
    batches = iter(build(train, num_workers=2))
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tapetum-data")]


def test_batches_are_pinned_for_a_gpu_alone_and_hold_the_same(
    train: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned: list[int] = []

    def pin_memory(tensor: torch.Tensor) -> torch.Tensor:
        pinned.append(id(tensor))
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    plain = [collect(build(train)), list(build(train).all_pictures(0, 4, augmented=True))]
    plain += [list(build(train).all_pictures(0, 4)), list(EvalLoader(train, PICTURES))]
    assert not pinned
    for_gpu = build(train, pinned=True)
    given = [collect(for_gpu), list(for_gpu.all_pictures(0, 4, augmented=True)), list(for_gpu.all_pictures(0, 4))]
    given.append(list(EvalLoader(train, PICTURES, pinned=True)))
    assert all(map(same, given, plain))
    assert len(pinned) == 8 * sum(map(len, given))
