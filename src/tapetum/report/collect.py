"""From evaluations, embeddings and logs to the plain values of a report."""

import typing
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tapetum.core.method import Enhancer
from tapetum.core.protocol import Protocol
from tapetum.core.types import EmbeddingSet, Modality
from tapetum.data.image_io import Backend, Interpolation, read_picture, resize
from tapetum.evaluation.metrics import Evaluation
from tapetum.evaluation.pair_distances import PairDistances, compute_pair_distances
from tapetum.evaluation.projection import choose_people, compute_map
from tapetum.evaluation.ranking import top_k
from tapetum.evaluation.slices import worst_queries
from tapetum.plots.embedding import NAMES as MODALITIES
from tapetum.plots.embedding import EmbeddingMap
from tapetum.report.content import Array, EnhancedPair, Picture, QueryRanking, RankedPicture
from tapetum.report.sides import join_sides, split_by_modality
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
    """The losses and the looks at held-out people or the test set of one run, for the training curves.

    Args:
        metrics_csv: the run's ``logs/metrics.csv``.
    Returns:
        "epoch" and each quantity to (E,) values, NaN in epochs without one; nothing where no epoch is complete.
    """
    rows = read_history(metrics_csv)
    columns = dict.fromkeys(name for row in rows for name in row)
    shown = [name for name in columns if name.startswith(("loss", "holdout_", "test_"))]
    names = {
        name: NAMES.get(name, f"loss: {name.removeprefix('loss_').replace('_', ' ')}") for name in ["epoch", *shown]
    }
    return {title: np.array([row.get(name, np.nan) for row in rows]) for name, title in names.items() if rows}


class Tested(typing.Protocol):
    """The pictures of one method's test."""

    @property
    def query(self) -> EmbeddingSet:
        """The searching set."""

    @property
    def gallery(self) -> EmbeddingSet:
        """The searched set, in full."""

    @property
    def protocol(self) -> Protocol:
        """The rules."""


class Searched(Tested, typing.Protocol):
    """One method's test, e.g. what `tapetum.inference.evaluate.evaluate_run` returns."""

    @property
    def evaluation(self) -> Evaluation:
        """Of all queries."""


def collect_distances(tests: Mapping[str, Tested]) -> dict[str, PairDistances]:
    """Distances of every infrared to every visible picture; of queries to the gallery where there is one modality.

    Args:
        tests: label -> test.
    Raises:
        ProtocolError: a side is empty.
    """
    return {
        label: compute_pair_distances(*split_by_modality(test.query, test.gallery, test.protocol))
        for label, test in tests.items()
    }


def collect_maps(
    tests: Mapping[str, Tested], *, people: int = 20, pictures: int = 30, seed: int = 0
) -> dict[str, EmbeddingMap]:
    """Maps of some people's embeddings, of the same pictures for every method.

    Args:
        tests: label -> test; those of the same pictures show the same ones.
        people: shown at most.
        pictures: of a person in a modality at most.
        seed: of the choice and of the optimisation.
    Raises:
        ProtocolError: nobody has pictures in all modalities, or there are fewer than four pictures.
    """
    found = {}
    for label, test in tests.items():
        both = join_sides(test.query, test.gallery)
        without = tuple(test.protocol.ignored_pids)
        shown = both.select(choose_people(both, people=people, pictures=pictures, seed=seed, without=without))
        points = compute_map(shown.vectors, seed=seed)
        found[label] = EmbeddingMap(points, shown.pids.numpy(), shown.modalities.numpy())
    return found


def collect_searches(tests: Mapping[str, Searched], *, count: int = 6) -> tuple[QueryRanking, ...]:
    """The same queries searched by every method, from easy to hard.

    Args:
        tests: label -> test; all of the same query pictures in the same order.
        count: queries at most.
    Raises:
        DataError: a picture cannot be read.
    """
    rows = choose_queries([test.evaluation for test in tests.values()], count)
    by_method = [
        collect_rank_lists(label, test.query, test.gallery, test.protocol, rows=rows, evaluation=test.evaluation)
        for label, test in tests.items()
    ]
    return tuple(ranking for of_one_query in zip(*by_method, strict=True) for ranking in of_one_query)


def collect_worst_queries(label: str, test: Searched, *, count: int = 4) -> tuple[QueryRanking, ...]:
    """The queries with the lowest average precision, and what was found instead.

    Args:
        label: of the method.
        test: its test.
        count: queries at most.
    Raises:
        DataError: a picture cannot be read.
    """
    rows = worst_queries(test.evaluation, count).tolist()
    return collect_rank_lists(label, test.query, test.gallery, test.protocol, rows=rows, evaluation=test.evaluation)


def collect_across(
    tests: Mapping[str, Tested], *, people: int = 20
) -> tuple[dict[str, PairDistances], dict[str, EmbeddingMap]]:
    """Distances and maps of tests with pictures of both modalities; nothing where there is one.

    Args:
        tests: label -> test.
        people: shown on the maps at most.
    """
    across = {label: test for label, test in tests.items() if crosses_modalities(test.query, test.gallery)}
    return collect_distances(across), collect_maps(across, people=people)


def choose_queries(evaluations: Sequence[Evaluation], count: int) -> list[int]:
    """Queries from easy to hard: evenly spread over the order of their average precision, meaned over the methods.

    Args:
        evaluations: of the same queries by one or several methods.
        count: how many at most.
    Returns:
        Row numbers in the query set as given.
    """
    first = evaluations[0]
    candidates = first.matched.nonzero().squeeze(1)
    mean = torch.stack([evaluation.per_query_ap for evaluation in evaluations]).mean(0)[candidates]
    order = mean.argsort(descending=True, stable=True)
    places = np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int))
    chosen: list[int] = first.query_rows[candidates[order[torch.from_numpy(places)]]].tolist()
    return chosen


def collect_rank_lists(
    label: str,
    query: EmbeddingSet,
    gallery: EmbeddingSet,
    protocol: Protocol,
    *,
    rows: Sequence[int],
    evaluation: Evaluation | None = None,
    depth: int = 10,
) -> tuple[QueryRanking, ...]:
    """Searches with some of the queries, pictures included.

    Args:
        label: of the method.
        query: the searching set.
        protocol: the rules; junk is left out.
        rows: queries wanted, in this order.
        evaluation: of all queries; adds each query's AP to its note.
        depth: answers of each.
    Raises:
        DataError: a picture cannot be read.
    """
    chosen = query.select(torch.tensor(list(rows), dtype=torch.int64))
    found = top_k(chosen, gallery, protocol, depth)
    across = crosses_modalities(query, gallery)
    notes = {} if evaluation is None else _notes(evaluation)
    lists = []
    for place, row in enumerate(found.query_rows.tolist()):
        answers = tuple(
            RankedPicture(read_picture(gallery.paths[entry]), right, _caption(gallery, entry), similarity)
            for entry, right, similarity in zip(
                found.gallery_rows[place].tolist(),
                found.right[place].tolist(),
                found.similarities[place].tolist(),
                strict=True,
            )
            if entry >= 0
        )
        lists.append(
            QueryRanking(
                label,
                read_picture(chosen.paths[row]),
                answers,
                _caption(chosen, row),
                notes.get(list(rows)[row], ""),
                MODALITIES[Modality(int(chosen.modalities[row]))] if across else "",
            )
        )
    return tuple(lists)


def crosses_modalities(query: EmbeddingSet, gallery: EmbeddingSet) -> bool:
    """Whether a test has pictures of both modalities.

    Args:
        query: the searching set.
    """
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
        network: a method, on any device.
        paths: night pictures.
        size: (height, width) that the method was trained with.
        captions: one a picture, or none.
        originals: the pictures before they were darkened, one a picture, or none.
        interpolation: of the method's recipe.
        backend: of the method's recipe.
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
    return tuple(
        EnhancedPair(
            night[place],
            bright[place],
            captions[place] if captions else "",
            read(originals[place]) if originals else None,
        )
        for place in range(len(night))
    )


def _notes(evaluation: Evaluation) -> dict[int, str]:
    """Query row -> its AP in words."""
    values = zip(evaluation.query_rows.tolist(), evaluation.per_query_ap.tolist(), strict=True)
    return {row: f"AP {100 * value:.1f} %" for row, value in values}


def _caption(embeddings: EmbeddingSet, row: int) -> str:
    return f"person {int(embeddings.pids[row])}, camera {int(embeddings.camids[row])}"
