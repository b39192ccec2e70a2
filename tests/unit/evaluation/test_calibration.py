import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm

from tapetum.core.errors import CheckpointError, ProtocolError
from tapetum.evaluation.calibration import (
    Calibration,
    PairCalibration,
    from_content,
    probabilities_of_bins,
    read_calibration,
    to_content,
    write_calibration,
)
from tapetum.evaluation.fitting import METHODS, Method, fit_pair
from tapetum.evaluation.open_set import SearchCounts
from tapetum.evaluation.thresholds import BINS, Tail
from tapetum.evaluation.verification import PairCounts, compute_reliability, find_bins, rates_above

PAIR = "visible-visible"
SAME, DIFFERENT = norm(0.55, 0.12), norm(0.1, 0.15)  # similarities of pairs of one person, and of two
MODEL = {"checkpoint": "0123456789abcdef", "mirror": False}


def draw(seed: int, same: int = 20_000, different: int = 400_000, people: int = 400) -> PairCounts:
    rng = np.random.default_rng(seed)
    histograms = [
        np.bincount(find_bins(torch.from_numpy(kind.rvs(count, random_state=rng).clip(-1, 1))).numpy(), minlength=BINS)
        for kind, count in ((SAME, same), (DIFFERENT, different))
    ]
    return PairCounts(histograms[0], histograms[1], people, people)


def searches_of(counts: PairCounts) -> SearchCounts:
    """A gallery of one picture: a search is a comparison."""
    return SearchCounts({1: counts.different / counts.different.sum()}, counts.same, 4000, counts.people)


def calibrate(counts: PairCounts, method: Method = "isotonic", prior: float = 0.5) -> Calibration:
    fitted = fit_pair(counts, searches_of(counts), PAIR, method=method, rates=(0.1, 0.01, 0.001))
    return Calibration(MODEL, {"name": "drawn"}, "test", 0, prior, method, (0.1, 0.01, 0.001), {PAIR: fitted})


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return calibrate(draw(0))


@pytest.mark.parametrize("prior", [0.5, 0.05, 0.001])
def test_the_probability_is_the_true_one_at_every_prior(calibration: Calibration, prior: float) -> None:
    similarities = np.linspace(-0.2, 0.8, 101)
    for_one, for_two = prior * SAME.pdf(similarities), (1 - prior) * DIFFERENT.pdf(similarities)
    truth = for_one / (for_one + for_two)
    found = calibration.probability(similarities, PAIR, prior=prior)
    often = for_one + for_two
    assert np.average(np.abs(found - truth), weights=often) < 0.01
    assert np.abs(found - truth).max() < (0.06 if prior > 0.01 else 0.15)
    assert (np.diff(found) >= 0).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("prior", [0.5, 0.05])
def test_on_other_people_the_calibration_error_is_at_most_five_percent(method: Method, prior: float) -> None:
    for seed in range(3):
        fitted = calibrate(draw(seed), method).pairs[PAIR]
        error = compute_reliability(draw(seed + 100), probabilities_of_bins(fitted, prior), prior).error
        assert error <= 0.05


def test_on_other_people_false_alarms_come_as_often_as_stated_within_a_fifth() -> None:
    for seed in range(5):
        calibration, others = calibrate(draw(seed)), draw(seed + 100)
        for rate in (0.1, 0.01, 0.001):
            threshold = calibration.threshold(rate, PAIR)
            assert rates_above(others.different, [threshold])[0] == pytest.approx(rate, rel=0.2)
            assert DIFFERENT.sf(threshold) == pytest.approx(rate, rel=0.2)
        assert calibration.threshold(0.1, PAIR, gallery=1) == pytest.approx(calibration.threshold(0.1, PAIR), abs=2e-4)


def test_a_probability_is_a_float_for_a_float_and_keeps_the_shape_of_an_array(calibration: Calibration) -> None:
    assert isinstance(calibration.probability(0.5, PAIR), float)
    tensor = torch.tensor([[0.1, 0.5], [0.9, -1.0]])
    found = calibration.probability(tensor, PAIR)
    assert found.shape == (2, 2)
    assert found[0, 1] == pytest.approx(calibration.probability(0.5, PAIR), abs=1e-6)


def test_nothing_is_certain_or_impossible_because_it_was_not_seen() -> None:
    few = calibrate(draw(0, same=60, different=1000, people=10))
    assert 0.9 < few.probability(1.0, PAIR) < 1
    assert 0 < few.probability(-1.0, PAIR) < 0.1


def test_a_larger_gallery_than_those_calibrated_counts_as_several() -> None:
    tail = Tail((0.01, 0.1, 1.0), (0.9, 0.6, -1.0))
    fitted = PairCalibration((0.0, 1.0), (0.1, 0.9), tail, {100: tail}, {"people": 300})
    calibration = Calibration(MODEL, {}, "test", 0, 0.5, "isotonic", (0.1,), {PAIR: fitted})
    assert calibration.threshold(0.1, PAIR, gallery=40) == pytest.approx(0.6)
    assert calibration.threshold(0.1, PAIR, gallery=1000) == pytest.approx(0.9)
    assert calibration.lowest_rate(PAIR, gallery=1001) == pytest.approx(0.11)
    with pytest.raises(ProtocolError, match=r"300 people are too few .* searches in 1001 pictures; ask for 0.11"):
        calibration.threshold(0.1, PAIR, gallery=1001)


def test_too_low_rates_unknown_pairs_and_impossible_priors_are_refused(calibration: Calibration) -> None:
    with pytest.raises(ProtocolError, match=r"400 people are too few for a false-alarm rate of 1e-07 of comparisons"):
        calibration.threshold(1e-7, PAIR)
    with pytest.raises(ProtocolError, match="above 0 and at most 1"):
        calibration.threshold(0, PAIR)
    with pytest.raises(ProtocolError, match="infrared-infrared: not calibrated"):
        calibration.probability(0.5, "infrared-infrared")
    for prior in (0, 1, 1.5):
        with pytest.raises(ProtocolError, match="must lie inside"):
            calibration.probability(0.5, PAIR, prior=prior)


def test_too_few_people_are_refused() -> None:
    few = draw(0, same=50, different=1000, people=4)
    with pytest.raises(ProtocolError, match=r"4 people of one half .* at least 5"):
        fit_pair(few, searches_of(few), PAIR)


@pytest.mark.parametrize("method", METHODS)
def test_a_model_that_tells_nobody_apart_is_refused(method: Method) -> None:
    counts = draw(0)
    for same in (counts.different // 20, np.roll(counts.different, 1000)):  # alike, and the wrong way round
        with pytest.raises(ProtocolError, match="a similarity says nothing"):
            fit_pair(replace(counts, same=same), searches_of(counts), PAIR, method=method)


def test_an_unknown_method_is_refused() -> None:
    counts = draw(0, same=100, different=1000)
    with pytest.raises(ProtocolError, match="method 'spline' is unknown"):
        fit_pair(counts, searches_of(counts), PAIR, method="spline")  # type: ignore[arg-type]


def test_what_is_written_is_read_again(calibration: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "run" / "calibration.json"
    write_calibration(path, calibration)
    again = read_calibration(path)
    assert again == calibration
    assert again.threshold(0.01, PAIR) == calibration.threshold(0.01, PAIR)
    assert list(path.parent.iterdir()) == [path]
    assert from_content(to_content(calibration), "artefact") == calibration


def test_another_model_is_refused_by_the_fact_that_differs(calibration: Calibration) -> None:
    calibration.check_model({**MODEL, "device": "cuda"})
    with pytest.raises(ProtocolError, match=r"x.json: made for mirror False, the model in use has True"):
        calibration.check_model({**MODEL, "mirror": True}, "x.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "damaged"),
        (lambda _: "[1, 2]", "is no calibration"),
        (lambda text: text.replace('"prior": 0.5', '"prior": 0.6'), "its digest is not that of what it holds"),
        (lambda text: text.replace('"format": 1', '"format": 2'), "format 2, this version reads 1; update"),
    ],
)
def test_a_damaged_or_newer_file_is_refused(
    calibration: Calibration, tmp_path: Path, change: "type[str]", message: str
) -> None:
    path = tmp_path / "calibration.json"
    write_calibration(path, calibration)
    path.write_text(change(path.read_text()))
    with pytest.raises(CheckpointError, match=message):
        read_calibration(path)


def test_a_file_without_what_is_needed_is_refused_though_its_digest_is_right(calibration: Calibration) -> None:
    from tapetum.evaluation import calibration as module

    content = {name: value for name, value in to_content(calibration).items() if name not in ("digest", "seed")}
    content["digest"] = module._digest(content)
    with pytest.raises(CheckpointError, match="damaged"):
        from_content(json.loads(json.dumps(content)), "x.json")


def test_a_missing_file_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no calibration; make one with `tapetum calibrate`"):
        read_calibration(tmp_path / "calibration.json")
