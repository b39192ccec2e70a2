"""From evaluations, embeddings and logs to the plain values of a report."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tapetum.core.method import Enhancer
from tapetum.core.types import EmbeddingSet, Modality
from tapetum.data.image_io import Backend, Interpolation, read_picture, resize
from tapetum.evaluation.metrics import Evaluation, Sides
from tapetum.evaluation.pair_distances import PairDistances, compute_pair_distances
from tapetum.evaluation.projection import choose_people, compute_map
from tapetum.evaluation.ranking import top_k
from tapetum.evaluation.slices import worst_queries
from tapetum.plots.embedding import NAMES as MODALITIES
from tapetum.plots.embedding import EmbeddingMap
from tapetum.plots.style import Array, Picture
from tapetum.report.content import EnhancedPair, QueryRanking, RankedPicture
from tapetum.report.sides import bare_sides, join_sides, split_by_modality
from tapetum.runs.history import read_history

NAMES = {
    "epoch": "epoch",
    "loss": "loss, all terms",
    "holdout_mean_ap": "held-out people: mAP",
    "holdout_rank1": "held-out people: rank-1",
    "test_mean_ap": "test set: mAP",
    "test_rank1": "test set: rank-1",
}


def read_curves(metrics_csv: Path) -> dict[str, Array]:
    """The losses of one run and its numbers on held-out people or the test set, from ``logs/metrics.csv``.

    Returns:
        "epoch" and each quantity to (E,) values, NaN in epochs without one; nothing where no epoch is complete.
    """
    rows = read_history(metrics_csv)
    names = dict.fromkeys(
        ["epoch", *(name for row in rows for name in row if name.startswith(("loss", "holdout_", "test_")))]
    )
    titles = {name: NAMES.get(name, f"loss: {name.removeprefix('loss_').replace('_', ' ')}") for name in names}
    return {title: np.array([row.get(name, np.nan) for row in rows]) for name, title in titles.items() if rows}


def collect_distances(tests: Mapping[str, Sides]) -> dict[str, PairDistances]:
    """Distances of every infrared to every visible picture; of queries to the gallery where there is one modality.

    Raises:
        ProtocolError: a side is empty.
    """
    bare = {label: bare_sides(test) for label, test in tests.items()}
    return {
        label: compute_pair_distances(*split_by_modality(test.query, test.gallery, test.protocol))
        for label, test in bare.items()
    }


def collect_maps(
    tests: Mapping[str, Sides], *, people: int = 20, pictures: int = 30, seed: int = 0
) -> dict[str, EmbeddingMap]:
    """Maps of some people's embeddings, of the same pictures for every method.

    Args:
        people: at most.
        pictures: of a person in a modality at most.
        seed: of the choice and of the optimisation.
    Raises:
        ProtocolError: nobody has pictures in all modalities, or there are fewer than four pictures.
    """
    maps = {}
    for label, test in tests.items():
        bare = bare_sides(test)
        both = join_sides(bare.query, bare.gallery)
        without = test.protocol.ignored_pids
        some = both.select(choose_people(both, people=people, pictures=pictures, seed=seed, without=without))
        points = compute_map(some.vectors, seed=seed)
        maps[label] = EmbeddingMap(points, some.pids.numpy(), some.modalities.numpy())
    return maps


def collect_searches(tests: Mapping[str, Sides], *, count: int = 6) -> tuple[QueryRanking, ...]:
    """The same queries, a few from easy to hard, searched by every method.

    Args:
        tests: label -> test; all of the same query pictures in the same order.
    Raises:
        DataError: a picture cannot be read.
    """
    rows = choose_queries([test.evaluation for test in tests.values()], count)
    by_method = [collect_rank_lists(label, test, rows) for label, test in tests.items()]
    return tuple(ranking for of_one_query in zip(*by_method, strict=True) for ranking in of_one_query)


def collect_worst_queries(label: str, test: Sides, *, count: int = 4) -> tuple[QueryRanking, ...]:
    """The queries with the lowest average precision, and what was found instead.

    Raises:
        DataError: a picture cannot be read.
    """
    return collect_rank_lists(label, test, worst_queries(test.evaluation, count).tolist())


def collect_across(
    tests: Mapping[str, Sides], *, people: int = 20
) -> tuple[dict[str, PairDistances], dict[str, EmbeddingMap]]:
    """Distances and maps of tests with pictures of both modalities; nothing where there is one."""
    across = {label: test for label, test in tests.items() if crosses_modalities(test.query, test.gallery)}
    return collect_distances(across), collect_maps(across, people=people)


def choose_queries(evaluations: Sequence[Evaluation], count: int) -> list[int]:
    """Rows, in the query set as given, of queries from easy to hard.

    They are evenly spread over the order of their average precision, meaned over the methods' evaluations.
    """
    first = evaluations[0]
    candidates = first.matched.nonzero().squeeze(1)
    mean = torch.stack([evaluation.per_query_ap for evaluation in evaluations]).mean(0)[candidates]
    order = mean.argsort(descending=True, stable=True)
    places = np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int))
    rows: list[int] = first.query_rows[candidates[order[torch.from_numpy(places)]]].tolist()
    return rows


def collect_rank_lists(label: str, test: Sides, rows: Sequence[int], *, depth: int = 10) -> tuple[QueryRanking, ...]:
    """Searches with some of the queries, in their order, pictures included.

    Args:
        depth: answers of each; junk is left out.
    Raises:
        DataError: a picture cannot be read.
    """
    gallery, queries = test.gallery, test.query.select(torch.tensor(rows, dtype=torch.int64))
    ranks = top_k(queries, gallery, test.protocol, depth)
    across = crosses_modalities(test.query, gallery)
    evaluation = test.evaluation
    precisions = dict(zip(evaluation.query_rows.tolist(), evaluation.per_query_ap.tolist(), strict=True))
    lists = []
    for place, row in enumerate(ranks.query_rows.tolist()):
        columns = (each[place].tolist() for each in (ranks.gallery_rows, ranks.right, ranks.similarities))
        answers = tuple(
            RankedPicture(read_picture(gallery.paths[entry]), right, _caption(gallery, entry), similarity)
            for entry, right, similarity in zip(*columns, strict=True)
            if entry >= 0
        )
        lists.append(
            QueryRanking(
                label,
                read_picture(queries.paths[row]),
                answers,
                _caption(queries, row),
                f"AP {100 * precisions[rows[row]]:.1f} %",
                MODALITIES[Modality(int(queries.modalities[row]))] if across else "",
            )
        )
    return tuple(lists)


def crosses_modalities(query: EmbeddingSet, gallery: EmbeddingSet) -> bool:
    """Whether a test has pictures of both modalities."""
    return len(torch.unique(torch.cat([query.modalities, gallery.modalities]))) > 1


def collect_pairs(
    network: nn.Module,
    paths: Sequence[Path],
    *,
    size: tuple[int, int],
    captions: Sequence[str] = (),
    originals: Sequence[Path] = (),
    interpolation: Interpolation = "bicubic",
    backend: Backend = "cv2",
) -> tuple[EnhancedPair, ...]:
    """Night pictures beside what a method's enhancer makes of them; nothing where it has none, or changes none.

    Args:
        network: a method.
        paths: night pictures.
        size: (height, width) that the method was trained with, as `interpolation` and `backend`.
        captions: one a picture, or none.
        originals: the pictures before they were darkened, one a picture, or none.
    Raises:
        DataError: a picture cannot be read.
    """
    if not isinstance(network, Enhancer) or not paths:
        return ()

    def read(path: Path) -> Picture:
        return resize(read_picture(path), size, interpolation=interpolation, backend=backend)

    night = [read(path) for path in paths]
    images = torch.from_numpy(np.stack(night)).permute(0, 3, 1, 2).float() / 255
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        enhanced = network.enhance(images.to(device)).float().cpu()
    network.train(was_training)
    bright = (enhanced.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    if np.array_equal(bright, night):  # an ablation of IDF without its curve network
        return ()
    before: list[Picture | None] = [read(path) for path in originals] or [None] * len(night)
    columns = (night, bright, captions or [""] * len(night), before)
    return tuple(EnhancedPair(*pair) for pair in zip(*columns, strict=True))


def _caption(embeddings: EmbeddingSet, row: int) -> str:
    return f"person {int(embeddings.pids[row])}, camera {int(embeddings.camids[row])}"
