"""The bias of a gallery's search towards the modality of the query."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from gallery_rows import DIMENSION, MODEL, a_row
from tapetum.core.types import Modality
from tapetum.gallery.opening import open_gallery
from tapetum.searching import modality_bias
from tapetum.searching.modality_bias import measure_modality_bias

PEOPLE, CAMERAS = 12, 4


def build(folder: Path, pull: float) -> None:
    """People under four cameras, one of them infrared; `pull` draws the pictures of one modality together."""
    noise = torch.Generator().manual_seed(3)
    kinds = functional.normalize(torch.randn(2, DIMENSION, generator=noise))
    rows, vectors = [], []
    for number in range(PEOPLE * CAMERAS * 2):
        person, camera = number // 2 % PEOPLE, number // 2 // PEOPLE
        kind = Modality.INFRARED if camera == 0 else Modality.VISIBLE
        seen = replace(
            a_row(number).sighting, camera=f"c{camera}", modality=kind, tracklet=f"c{camera}-{person}", quality=0.5
        )
        rows.append(replace(a_row(number), sighting=seen))
        vectors.append(torch.randn(DIMENSION, generator=noise) / DIMENSION**0.5 + pull * kinds[int(kind)])
    with open_gallery(folder, create=MODEL) as store:
        store.upsert(rows, torch.stack(vectors))


def test_without_a_pull_each_kind_is_found_by_its_share(tmp_path: Path) -> None:
    build(tmp_path / "g", 0.0)
    with open_gallery(tmp_path / "g") as store:
        found = {each.modality: each for each in measure_modality_bias(store)}
    assert list(found) == [Modality.VISIBLE]  # the only infrared camera has no other one to be found under
    visible = found[Modality.VISIBLE]
    assert visible.searches == PEOPLE * (CAMERAS - 1)  # one of each tracklet
    assert visible.share == pytest.approx(2 / 3)
    assert visible.bias == pytest.approx(1, abs=0.3)


def test_the_pull_of_a_modality_shows(tmp_path: Path) -> None:
    build(tmp_path / "g", 3.0)
    with open_gallery(tmp_path / "g") as store:
        (visible,) = measure_modality_bias(store)
        assert (visible.first, visible.bias) == (1.0, pytest.approx(1.5))
        assert str(visible) == (
            "visible: 66.7% of what was searched is visible, and 100.0% of the nearest are: "
            "1.50 times its share (36 searches)"
        )
        (fewer,) = measure_modality_bias(store, "camera in ('c0', 'c1', 'c2')")
        assert (fewer.searches, fewer.share) == (2 * PEOPLE, 0.5)


def test_the_nearest_is_the_slow_loops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path / "g", 0.4)
    monkeypatch.setattr(modality_bias, "MOST_SEARCHES", 10_000)
    with open_gallery(tmp_path / "g") as store:
        (visible,) = measure_modality_bias(store)
        rows = store.find()
        vectors = torch.as_tensor(store.fetch([row.sighting.id for row in rows]).vectors)
    own = seen = 0
    for row, vector in zip(rows, vectors, strict=True):
        first = row.sighting.id == min(
            each.sighting.id for each in rows if each.sighting.tracklet == row.sighting.tracklet
        )
        if row.sighting.modality == Modality.VISIBLE and first:
            others = [n for n, each in enumerate(rows) if each.sighting.camera != row.sighting.camera]
            nearest = max(others, key=lambda n: float(vectors[n] @ vector))
            seen += 1
            own += rows[nearest].sighting.modality == Modality.VISIBLE
    assert (visible.searches, visible.first) == (seen, pytest.approx(own / seen))


def test_of_many_tracklets_the_same_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path / "g", 0.4)
    monkeypatch.setattr(modality_bias, "MOST_SEARCHES", 5)
    with open_gallery(tmp_path / "g") as store:
        first, second = measure_modality_bias(store), measure_modality_bias(store)
    assert first == second
    assert first[0].searches == 5


def test_one_kind_or_one_camera_leaves_nothing_to_measure(tmp_path: Path) -> None:
    build(tmp_path / "g", 1.0)
    with open_gallery(tmp_path / "g") as store:
        assert measure_modality_bias(store, "modality == visible") == []
        assert measure_modality_bias(store, "camera == 'c0'") == []
