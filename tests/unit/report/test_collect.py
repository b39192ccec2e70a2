"""From evaluations and embeddings to what a report shows."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tapetum.core.protocol import Protocol
from tapetum.core.types import EmbeddingSet
from tapetum.core.vectors import normalise
from tapetum.data.image_io import write_picture
from tapetum.evaluation.metrics import Evaluation, Sides, evaluate
from tapetum.inference.filling import drop_filling
from tapetum.layers.unit_sums import join_unit_sums
from tapetum.report.collect import (
    choose_queries,
    collect_distances,
    collect_maps,
    collect_pairs,
    collect_rank_lists,
    read_curves,
)
from tapetum.runs.history import write_history

PROTOCOL = Protocol(name="toy")


class Scene:
    """Eight people under three cameras as points with noise; camera 3 is so dark that its vectors are pure noise."""

    def __init__(self, folder: Path) -> None:
        rng = torch.Generator().manual_seed(0)
        people = torch.randn(8, 16, generator=rng)
        pids, camids = torch.arange(8).repeat_interleave(6), torch.arange(1, 4).repeat_interleave(2).repeat(8)
        noise = torch.randn(48, 16, generator=rng)
        vectors = torch.where((camids == 3).unsqueeze(1), noise, people[pids] + 0.5 * noise)
        paths = []
        for row in range(48):
            path = folder / f"{row}.png"
            value = 5 if camids[row] == 3 else 60
            write_picture(path, np.full((16, 8, 3), value, np.uint8))
            paths.append(path)
        everything = EmbeddingSet(normalise(vectors), tuple(paths), pids, camids, torch.zeros(48, dtype=torch.int64))
        self.query = everything.select(torch.arange(0, 48, 2))
        self.gallery = everything.select(torch.arange(1, 48, 2))
        self.evaluation: Evaluation = evaluate(self.query, self.gallery, PROTOCOL)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("scene"))


class Brightener(nn.Module):
    """The smallest method with an enhancer."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(2.0))

    def enhance(self, images: Tensor) -> Tensor:
        return images * self.gain


def test_curves_hold_losses_and_looks_at_held_out_people_but_no_rates(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    rows = [
        {"epoch": 1.0, "loss": 3.0, "loss_identity": 2.0, "lr_head": 0.1, "seconds": 4.0},
        {"epoch": 2.0, "loss": 2.0, "loss_identity": 1.0, "lr_head": 0.1, "seconds": 4.0, "holdout_mean_ap": 0.5},
    ]
    write_history(file, rows)
    curves = read_curves(file)
    assert list(curves) == ["epoch", "loss, all terms", "loss: identity", "held-out people: mAP"]
    assert curves["loss: identity"].tolist() == [2.0, 1.0]
    assert np.isnan(curves["held-out people: mAP"][0])
    assert read_curves(tmp_path / "none.csv") == {}


def test_a_rank_list_says_of_each_answer_whether_it_shows_the_person(scene: Scene) -> None:
    lists = collect_rank_lists("IDE+", Sides(scene.query, scene.gallery, PROTOCOL), [5, 0], depth=4)
    assert [ranking.caption for ranking in lists] == ["person 1, camera 3", "person 0, camera 1"]
    for ranking, row in zip(lists, (5, 0), strict=True):
        pid, camid = int(scene.query.pids[row]), int(scene.query.camids[row])
        assert len(ranking.answers) == 4
        assert ranking.note == f"AP {100 * float(scene.evaluation.per_query_ap[row]):.1f} %"
        for answer in ranking.answers:
            assert answer.right == answer.caption.startswith(f"person {pid},")
            assert answer.caption != f"person {pid}, camera {camid}", "junk stands in the list"
        similarities = [answer.similarity or 0.0 for answer in ranking.answers]
        assert similarities == sorted(similarities, reverse=True)


def test_a_rank_list_ends_where_the_gallery_ends(scene: Scene) -> None:
    few = scene.gallery.select(torch.tensor([0, 4]))
    (ranking,) = collect_rank_lists("IDE+", Sides(scene.query, few, PROTOCOL), [3], depth=10)
    assert len(ranking.answers) == 2


def test_queries_are_chosen_from_easy_to_hard_and_only_once(scene: Scene) -> None:
    chosen = choose_queries([scene.evaluation, scene.evaluation], 5)
    precisions = scene.evaluation.per_query_ap[torch.tensor(chosen)].tolist()
    assert precisions == sorted(precisions, reverse=True)
    assert precisions[0] == float(scene.evaluation.per_query_ap.max())
    assert precisions[-1] == float(scene.evaluation.per_query_ap.min())
    assert len(set(choose_queries([scene.evaluation], 1000))) == len(scene.query)


def test_pairs_show_the_picture_as_the_enhancer_makes_it_and_need_one(scene: Scene) -> None:
    method = Brightener()
    method.train()
    (pair,) = collect_pairs(
        method, [scene.query.paths[0]], size=(32, 16), captions=["a"], originals=[scene.query.paths[2]]
    )
    assert pair.night.shape == pair.enhanced.shape == (32, 16, 3)
    assert int(pair.night[0, 0, 0]) == 60
    assert int(pair.enhanced[0, 0, 0]) == 120
    assert pair.original is not None
    assert int(pair.original[0, 0, 0]) == 5
    assert method.training
    assert collect_pairs(nn.Linear(1, 1), [scene.query.paths[0]], size=(32, 16)) == ()
    nn.init.ones_(method.gain)
    assert collect_pairs(method, [scene.query.paths[0]], size=(32, 16)) == (), "it changes nothing"


def test_figures_of_pictures_that_may_meet_their_own_modality_go_without_filling(rng: torch.Generator) -> None:
    """Of two networks that agree on nobody, half of each vector is filling, alike in all pictures of a modality."""
    parts = functional.normalize(torch.randn(2, 24, 32, generator=rng), dim=2)
    pids, modalities = torch.arange(24) % 4, torch.arange(24) // 12
    filled = EmbeddingSet(
        join_unit_sums(parts, modalities), tuple(Path(f"{row}.png") for row in range(24)), pids, pids, modalities
    )
    infrared, visible = filled.select(modalities == 1), filled.select(modalities == 0)
    test = Sides(infrared, visible, PROTOCOL, filling=2)
    bare = Sides(drop_filling(infrared, 2), drop_filling(visible, 2), PROTOCOL)
    for collect in (collect_distances, collect_maps):
        found, expected = (collect({"DART": each})["DART"] for each in (test, bare))
        for name, value in vars(expected).items():
            np.testing.assert_array_equal(vars(found)[name], value, err_msg=name)
    points = collect_maps({"DART": test})["DART"].points
    assert not np.allclose(points, collect_maps({"DART": Sides(infrared, visible, PROTOCOL)})["DART"].points)
