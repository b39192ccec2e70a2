"""Does a calibration keep its word on people it was not fitted on?

A thousand generated people whom no method was trained on or tested with, drawn as the demos draw those they calibrate
with, are cut by lot into a half to fit on and a half to check on, several times over. "Ours" is how far the check of
the first cut is from what was promised, "peer" is how far it may be; the note has the rate itself with its interval
and in how many cuts the bound holds. The methods are those of `make demo` and `make demo-ir`, where these were run.

Then walks: an answer of a search is a walk of several pictures. Three more scenes, of other people at other moments
under the same cameras, say what becomes of that calibration where a walk is as similar as its best picture, and where
it is as similar as its mean vector; and how often the tests of a picture to search with are right.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from benchmarks.measure import build_row
from tapetum.core.types import EmbeddingSet, Record
from tapetum.core.vectors import normalise
from tapetum.data.catalog import Dataset
from tapetum.data.image_io import Picture, resize
from tapetum.evaluation.calibration import Calibration
from tapetum.evaluation.thresholds import BINS, bin_centres
from tapetum.evaluation.verification import PairCounts, compute_reliability, find_bins
from tapetum.experiments import demo, demo_infrared
from tapetum.footage.doubt import doubt_picture
from tapetum.inference.calibrate import CalibrationOptions, calibrate_embeddings, held_out_records, split_people
from tapetum.inference.embedder import Embedder
from tapetum.runs.sources import open_scene
from tapetum.synth import scene as scenes
from tapetum.synth.scene import Scene, SceneOptions

PEOPLE = 1000
CUTS = 5
ERROR = 5.0  # percent that said and seen probability may differ
AWAY = 20.0  # percent of the wanted rate that the seen one may be away
SMALLEST = 0.01  # percent; nothing is exact
CACHE = Path("runs") / "bench-calibration"

SCENES = (1, 2, 3)  # seeds of people and moments; the cameras stay those that the calibration is of
WALKERS = 60  # in each
LONGEST_WALK = 6  # pictures; a walk has 1 to so many, by lot
WALKS = 100  # in a searched gallery
LISTED = 20  # answers
LOOKED_AT = 3  # walks looked at for each answer
RATE = 0.1  # of searches
GALLERIES = (WALKS, round(WALKS * (LONGEST_WALK + 1) / 2))  # pictures: as many as walks, and as many as those have
PAIR = "visible-visible"


DOUBTED = 200  # generated pictures of people in each scene, and a third as many of each bad kind
MOST_DOUBTED = 2.0  # percent


def run() -> Iterator[dict[str, Any]]:
    yield from measure_doubts()
    demos = (demo.DemoOptions(Path("runs/demo")), demo_infrared.InfraredDemoOptions(Path("runs/demo-ir")))
    here = {options.out.name: options.others() for options in demos}
    runs = {
        options.out.name: {label: place for label, place in options.runs.items() if place.is_dir()} for options in demos
    }
    if not any(runs.values()):
        note = "runs holds no demo whose methods could be calibrated; type `make demo` or `make demo-ir` first"
        yield build_row("calibration", None, None, "percent", note=note)
    for name, places in runs.items():
        if not places:
            continue
        people = open_scene({**here[name], "num_test_people": PEOPLE}, CACHE / name)
        for label, place in places.items():
            embedder = Embedder(place)
            found = calibrate(embedder, people)
            for pair in found[0].checked:
                yield from check(f"calibration: {label}, {pair}", pair, found)
            if name == "demo":
                yield from measure_walks(label, embedder, found[0], here[name])


def calibrate(embedder: Embedder, people: Dataset) -> list[Calibration]:
    """A calibration from each cut of the people."""
    rules = people.protocol(embedder.recipe.evaluation.protocol)
    records = held_out_records(people, rules, embedder.checkpoint.header.pids)
    embeddings, _ = embedder.describe(records)
    found = []
    for cut in range(CUTS):
        halves = [
            embeddings.select(torch.isin(embeddings.pids, torch.tensor(pids))) for pids in split_people(records, cut)
        ]
        draws = CalibrationOptions().draws if cut == 0 else 2  # intervals of the first alone
        options = CalibrationOptions(draws=draws, galleries=GALLERIES)
        calibration, _ = calibrate_embeddings(halves[0], halves[1], rules, options=options, model={}, data={}, seed=cut)
        found.append(calibration)
    return found


def check(title: str, pair: str, found: Sequence[Calibration]) -> Iterator[dict[str, Any]]:
    """A row for the calibration error, and one for each stated rate of false alarms."""
    checks = [each.checked[pair] for each in found if pair in each.checked]
    errors = [100 * check["calibration_error"] for check in checks]
    low, high = (100 * end for end in checks[0]["calibration_error_interval"])
    kept = sum(error <= ERROR for error in errors)
    note = (
        f"fitted on {found[0].pairs[pair].counts['people']} people, checked on {checks[0]['people']} others; "
        f"{low:.1f} to {high:.1f} %; at most {ERROR:g} % in {kept} of {len(errors)} cuts"
    )
    yield build_row(f"{title}: probability, said less seen", errors[0], ERROR, "percent", target=1, note=note)
    for row in checks[0]["thresholds"]:
        what = "comparisons" if row["gallery"] is None else f"searches in {row['gallery']}"
        same = [other for check in checks for other in check["thresholds"] if names(other) == names(row)]
        away = [100 * abs(other["observed"] / other["rate"] - 1) for other in same]
        low, high = (100 * end for end in row["observed_interval"])
        note = (
            f"seen {100 * row['observed']:.3g} % ({low:.3g} to {high:.3g}), found {100 * row['found']:.3g} %; "
            f"within {AWAY:g} % of the wanted rate in {sum(each <= AWAY for each in away)} of {len(away)} cuts"
        )
        name = f"{title}: {100 * row['rate']:g} % of {what}, seen less wanted"
        yield build_row(name, max(SMALLEST, away[0]), AWAY, "percent", target=1, note=note)


def measure_doubts() -> Iterator[dict[str, Any]]:
    """How often good pictures are called doubtful, and how often bad ones are, in percent: the mean of three scenes."""
    shares: dict[str, list[float]] = {}
    for seed in SCENES:
        rng = np.random.default_rng(seed)
        for kind, pictures in draw_questions(seed, rng).items():
            shares.setdefault(kind, []).append(100 * float(np.mean([bool(doubt_picture(each)) for each in pictures])))
    for kind, found in shares.items():
        ours = max(SMALLEST, float(np.mean(found)))
        note = f"scenes {', '.join(f'{each:.1f}' for each in found)} %"
        target = {"peer": MOST_DOUBTED, "target": 1} if kind == "one person" else {"peer": None}
        yield build_row(f"questions called doubtful: {kind}", ours, unit="percent", note=note, **target)


def draw_questions(seed: int, rng: np.random.Generator) -> dict[str, list[Picture]]:
    """Pictures of one person, and of the kinds that are none; no scene here was looked at when limits were chosen."""
    scene = Scene(SceneOptions(identity_seed=seed, camera_seed=seed, time_seed=seed))

    def draw(count: int) -> list[Picture]:
        return [scene.picture(*map(int, rng.integers((1, 1, 0), (120, 9, 3)))) for _ in range(count)]

    good = draw(DOUBTED)
    with patch.object(scenes, "paint_person", lambda *_: None):
        nobody = draw(DOUBTED // 3)
    pairs = [rng.choice(DOUBTED, 2, replace=False) for _ in range(DOUBTED // 3)]
    stacked = [stack(good[upper], good[lower]) for upper, lower in pairs]
    noise = []
    for number in range(DOUBTED // 3):
        size = (int(rng.integers(64, 256)), int(rng.integers(40, 80)), 1 if number % 2 else 3)
        drawn = np.clip(rng.normal(rng.uniform(20, 200), rng.uniform(5, 80), size), 0, 255).astype(np.uint8)
        noise.append(np.broadcast_to(drawn, (*size[:2], 3)))
    return {
        "one person": good,
        "two people, one above the other": stacked,
        "the same, pressed into the shape of one": [squeeze(each) for each in stacked],
        "noise": noise,
        "the street without anybody": nobody,
    }


def stack(upper: Picture, lower: Picture) -> Picture:
    """Two pictures of one width, one above the other."""
    width = min(upper.shape[1], lower.shape[1])
    parts = [resize(each, (round(each.shape[0] * width / each.shape[1]), width)) for each in (upper, lower)]
    return np.concatenate(parts)


def squeeze(picture: Picture) -> Picture:
    return resize(picture, (picture.shape[0] // 2, picture.shape[1]))


def names(row: Mapping[str, Any]) -> tuple[int | None, float]:
    return row["gallery"], row["rate"]


def measure_walks(
    label: str, embedder: Embedder, calibration: Calibration, settings: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """What an answer's similarity should be: a row for each choice, the mean of the three scenes."""
    seen: dict[str, list[dict[str, float]]] = {}
    for seed in SCENES:
        dataset = open_scene(walking(settings, seed), CACHE / f"walks-{seed}")
        rules = dataset.protocol(embedder.recipe.evaluation.protocol)
        records = held_out_records(dataset, rules, embedder.checkpoint.header.pids)
        embeddings, _ = embedder.describe(cut_walks(records, np.random.default_rng(seed)))
        for title, figures in try_walks(embeddings, calibration).items():
            seen.setdefault(title, []).append(figures)
    for title, rows in seen.items():
        note = "; ".join(f"{what} {', '.join(f'{row[what]:.1f}' for row in rows)} %" for what in rows[0])
        for what, most in (("false alarms", 100 * RATE), ("error of the probability", ERROR)):
            ours = max(SMALLEST, float(np.mean([row[what] for row in rows])))
            yield build_row(f"walks: {label}, {title}: {what}", ours, most, "percent", target=1, note=note)


def walking(settings: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """A scene of other people than any method has seen, some moments each under the same cameras."""
    people = {"num_test_people": WALKERS, "identity_seed": seed, "time_seed": seed}
    return {**settings, **people, "pictures_per_camera": LONGEST_WALK}


def cut_walks(records: Sequence[Record], rng: np.random.Generator) -> list[Record]:
    """Walks of one picture up to the longest, by lot."""
    left: dict[tuple[int, int], int] = {}
    kept = []
    for record in (records[place] for place in rng.permutation(len(records))):
        walk = record.pid, record.camid
        left[walk] = left.get(walk, int(rng.integers(1, LONGEST_WALK + 1))) - 1
        if left[walk] >= 0:
            kept.append(record)
    return kept


def try_walks(rows: EmbeddingSet, calibration: Calibration) -> dict[str, dict[str, float]]:
    """False alarms, people found, and how far probabilities are off, in percent, for each choice and kind of query."""
    _, walks = torch.unique(rows.pids * (int(rows.camids.max()) + 1) + rows.camids, return_inverse=True)
    count = int(walks.max()) + 1
    first = torch.full((count,), len(walks)).scatter_reduce(0, walks, torch.arange(len(walks)), "amin")
    pids, camids = rows.pids[first], rows.camids[first]
    means = normalise(torch.zeros(count, rows.vectors.shape[1]).index_add_(0, walks, normalise(rows.vectors)))
    same = pids.unsqueeze(1) == pids
    own = same & (camids.unsqueeze(1) != camids)
    pictures = round(WALKS * len(walks) / count)
    told: dict[str, dict[str, float]] = {}
    for asked, vectors in (("one picture", normalise(rows.vectors[first])), ("a walk's mean", means)):
        alike = vectors @ normalise(rows.vectors).T
        best = torch.full((count, count), -1.0).scatter_reduce(1, walks.expand(count, -1), alike, "amax")
        mean = vectors @ means.T
        for title, similarity in (("best picture", best), ("mean vector", mean)):
            probability = calibration.probability(bin_centres(), PAIR)
            same_bins, other_bins = (
                torch.bincount(find_bins(similarity[mask]), minlength=BINS).numpy() for mask in (own, ~same)
            )
            pairs = PairCounts(same_bins, other_bins, len(pids.unique()), len(pids.unique()))
            error = 100 * compute_reliability(pairs, probability, 0.5).error
            ranked = similarity.masked_fill(same & ~own, -2)
            rank1 = 100 * float(own.gather(1, ranked.argmax(1, keepdim=True)).double().mean())
            for counted, gallery in (("pictures", pictures), ("walks", WALKS)):
                threshold = calibration.threshold(RATE, PAIR, gallery=gallery)
                reached = (similarity >= threshold) & ~same
                alarms = 1 - none_drawn((~same).sum(1), reached.sum(1), WALKS)
                told[f"{asked}, {title}, counted by {counted}"] = {
                    "false alarms": 100 * float(alarms.mean()),
                    "found": 100 * float(((similarity >= threshold) & own).any(1).double().mean()),
                    "error of the probability": error,
                    "rank-1": rank1,
                }
        near = best.masked_fill(same & ~own, -2).topk(LOOKED_AT * LISTED, dim=1).indices
        right = mean.masked_fill(same & ~own, -2).topk(LISTED, dim=1).indices
        kept = (right.unsqueeze(2) == near.unsqueeze(1)).any(2)
        told[f"{asked}, mean vector, counted by pictures"]["of the right list"] = 100 * float(kept.double().mean())
    return told


def none_drawn(available: Tensor, reached: Tensor, size: int) -> Tensor:
    """C(M - K, n) / C(M, n): a gallery of n walks, drawn from M, holds none of the K that reach the threshold."""
    whole, above = available.double(), reached.double()
    left = whole - above - size
    logarithm = (whole - above + 1).lgamma() - (left.clamp(min=0) + 1).lgamma()
    logarithm = logarithm - (whole + 1).lgamma() + (whole - size + 1).lgamma()
    return torch.where(left >= 0, logarithm.exp(), 0.0)
