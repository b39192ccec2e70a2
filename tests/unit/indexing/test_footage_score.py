from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from gallery_rows import NIGHT
from plain_model import DIMENSION, plain_model
from tapetum.core.errors import DataError
from tapetum.core.sighting import Sighting
from tapetum.core.types import Modality
from tapetum.data.generate import generate_video
from tapetum.footage.detect import BackgroundDetector
from tapetum.footage.sources import find_sources
from tapetum.footage.truth import Truth
from tapetum.gallery.schema import Row, Run
from tapetum.gallery.store import Store
from tapetum.indexing.footage_score import measure_search, score_footage
from tapetum.indexing.index import index_sources, open_gallery_for
from tapetum.synth.scene import SceneOptions
from tapetum.synth.video import VideoOptions

PEOPLE = {1: (100, 50), 2: (200, 50), 3: (300, 50)}  # left, top in every frame; 40 x 100
TRUTH = Truth(
    boxes={frame: np.array([(x, y, x + 40, y + 100) for x, y in PEOPLE.values()], np.float32) for frame in range(4)},
    pids={frame: np.array(list(PEOPLE), np.int64) for frame in range(4)},
    visible={frame: np.ones(3, np.float32) for frame in range(4)},
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_gallery_for(tmp_path / "night", plain_model(), tmp_path) as opened:
        yield opened


def add(store: Store, camera: str, frame: int, left: int, direction: int) -> None:
    name = f"{camera}-{frame}-{left}"
    box = (left - 2, 48, 44, 104)
    seen = Sighting(
        name, f"{camera}.mp4", camera, NIGHT, frame, box, f"{camera}-{left}", Modality.VISIBLE, 30.0, 0.5, "", ""
    )
    store.upsert([Row(seen, Run("stripes-1", "torch", "fp32"))], torch.eye(DIMENSION)[direction][None])


def test_a_search_counts_the_same_person_elsewhere_and_leaves_out_who_is_nowhere_else(store: Store) -> None:
    for camera in ("a", "b"):
        for frame in (0, 1):
            add(store, camera, frame, 100, 0)  # looks the same under both cameras
            add(store, camera, frame, 200, 1 if camera == "a" else 2)  # does not
    add(store, "a", 0, 300, 3)  # is nowhere else
    add(store, "b", 0, 500, 1)  # is nobody, and looks like person 2 under camera a
    score = measure_search(store, {"a.mp4": TRUTH, "b.mp4": TRUTH})
    assert (score.crops, score.shown, score.people) == (10, 9, 3)
    assert (score.other_camera.queries, score.other_camera.rank1) == (8, 0.5)
    assert score.other_camera.chance == pytest.approx((4 * 2 / 5 + 4 * 2 / 5) / 8)
    assert (score.other_tracklet.queries, score.other_tracklet.rank1) == (8, 0.5)
    assert measure_search(store, {"a.mp4": TRUTH}).other_camera.queries == 0


def test_generated_video_is_scored_from_the_frames_to_the_search(tmp_path: Path, store: Store) -> None:
    scene = SceneOptions(num_train_people=0, num_test_people=2, cameras=2)
    generate_video(
        tmp_path / "in", scene, seconds=5, video=VideoOptions(size=(160, 288), zoom=2.5, people=(1, 2)), workers=1
    )
    sources = find_sources([tmp_path / "in"])
    index_sources(sources, store, plain_model(), BackgroundDetector())
    score = score_footage(sources, store, BackgroundDetector())
    assert set(score.following) == {source.name for source in sources}
    assert score.search.crops == store.count() > 10
    assert score.search.shown > 0.3 * score.search.crops
    assert max(each.people_found for each in score.following.values()) == 1
    lines = score.lines()
    assert lines[0].split()[:4] == ["source", "people", "recall", "precision"]
    assert lines[-1].startswith("among all other cameras: rank-1 ")
    with pytest.raises(DataError, match="no video has ground truth"):
        score_footage([], store, BackgroundDetector())
