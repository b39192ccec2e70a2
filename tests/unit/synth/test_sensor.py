"""The sensor: statistics of its noise, the exact gamma formula, darkening to a wanted level."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapetum.core.errors import RecipeError
from tapetum.core.pixels import encode_jpeg
from tapetum.synth.sensor import (
    DarkenOptions,
    SensorOptions,
    capture,
    darken_picture,
    denoise,
    develop,
    gamma_darken,
    mean_lightness,
)

CLEAN = SensorOptions(full_well_electrons=1000, read_noise_electrons=0, bits=16)


def electrons(mean: float, options: SensorOptions = CLEAN, seed: int = 0) -> np.ndarray:
    light = np.full((300, 300, 3), mean / options.full_well_electrons, np.float32)
    return capture(light, options, np.random.default_rng(seed)) * options.full_well_electrons / options.gain


@pytest.mark.parametrize("mean", [0.05, 1.0, 7.3, 15.99, 16.0, 40.0, 500.0])
def test_photon_noise_has_the_mean_and_the_variance_of_a_poisson_process(mean: float) -> None:
    counts = electrons(mean)
    assert counts.mean() == pytest.approx(mean, rel=0.01)
    assert counts.var() == pytest.approx(mean, rel=0.04)


def test_few_photons_come_in_whole_numbers_with_the_probabilities_of_the_poisson_distribution() -> None:
    counts = electrons(1.5)
    assert np.abs(counts - np.rint(counts)).max() < 0.02  # the 16-bit converter's step
    shares = np.bincount(np.rint(counts).astype(int).ravel(), minlength=6)[:6] / counts.size
    factorial = np.array([1, 1, 2, 6, 24, 120])
    assert shares == pytest.approx(np.exp(-1.5) * 1.5 ** np.arange(6) / factorial, abs=0.003)


def test_read_noise_is_there_without_any_light() -> None:
    options = replace(CLEAN, read_noise_electrons=3.0, black_level=0.05)
    dark = electrons(0.0, options) - 0.05 * options.full_well_electrons
    assert dark.mean() == pytest.approx(0, abs=0.05)
    assert dark.std() == pytest.approx(3.0, rel=0.02)


def test_a_row_shares_its_banding_noise() -> None:
    options = replace(CLEAN, row_noise_electrons=2.0, black_level=0.05)
    rows = electrons(0.0, options)
    assert rows.std(axis=(1, 2)).max() < 0.02
    assert rows.mean(axis=(1, 2)).std() == pytest.approx(2.0, rel=0.15)


def test_gain_amplifies_signal_and_noise_alike_and_saturates() -> None:
    options = replace(CLEAN, gain=4.0)
    light = np.full((200, 200, 3), 0.05, np.float32)
    raw = capture(light, options, np.random.default_rng(0))
    assert raw.mean() == pytest.approx(0.2, rel=0.02)
    assert raw.std() == pytest.approx(4 * np.sqrt(50) / 1000, rel=0.03)
    assert capture(light * 10, options, np.random.default_rng(0)).max() == 1


def test_the_converter_has_as_many_levels_as_its_bits() -> None:
    light = np.random.default_rng(0).uniform(0, 1, (64, 64, 3)).astype(np.float32)
    raw = capture(light, replace(CLEAN, bits=4), np.random.default_rng(0))
    assert raw * 15 == pytest.approx(np.rint(raw * 15), abs=1e-5)
    assert len(np.unique(np.rint(raw * 15))) == 16


def test_development_is_black_level_white_balance_and_gamma() -> None:
    options = SensorOptions(black_level=0.1, white_balance=(1.5, 1.0, 0.5), gamma=2.2, bits=16)
    raw = np.full((2, 2, 3), 0.325, np.float32)  # a quarter of the range above the pedestal
    expected = [round(255 * (0.25 * gain) ** (1 / 2.2)) for gain in options.white_balance]
    assert np.abs(develop(raw, options)[0, 0].astype(int) - expected).max() <= 1


def test_a_darker_exposure_loses_signal_to_noise_ratio() -> None:
    light = np.full((128, 128, 3), 0.5, np.float32)
    ratios = []
    for exposure in (1.0, 0.1, 0.01):
        options = SensorOptions(exposure=exposure, gain=1 / exposure)
        picture = develop(capture(light, options, np.random.default_rng(0)), options).astype(float)
        ratios.append(picture.mean() / picture.std())
    assert ratios[0] > 2 * ratios[1] > 4 * ratios[2]


def test_denoising_calms_colour_more_than_lightness() -> None:
    rng = np.random.default_rng(0)
    noisy = np.clip(rng.normal(80, 20, (64, 64, 3)), 0, 255).astype(np.uint8)
    before, after = (cv2.cvtColor(p, cv2.COLOR_RGB2YCrCb).astype(float) for p in (noisy, denoise(noisy, 0.7)))
    kept = after.std(axis=(0, 1)) / before.std(axis=(0, 1))
    assert kept[1:].max() < kept[0] < 1
    assert denoise(noisy, 0) is noisy


@given(gamma=st.floats(0.2, 8))
@settings(max_examples=25)
def test_gamma_darkening_is_the_formula_rounded(gamma: float) -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    assert np.array_equal(gamma_darken(values, gamma), np.rint(255 * (values / 255.0) ** gamma).astype(np.uint8))


@pytest.mark.parametrize("level", [8.0, 20.0, 45.0])
def test_darkening_reaches_the_wanted_lightness_and_depends_on_its_stream_alone(level: float) -> None:
    day = cv2.resize(np.random.default_rng(0).integers(0, 255, (8, 4, 3), dtype=np.uint8), (64, 128))
    options = DarkenOptions(lightness=(level, level))
    night = darken_picture(day, options, np.random.default_rng(1))
    assert mean_lightness(night) == pytest.approx(level, rel=0.2)
    assert np.array_equal(night, darken_picture(day, options, np.random.default_rng(1)))
    assert not np.array_equal(night, darken_picture(day, options, np.random.default_rng(2)))


def test_darkening_loses_what_a_gamma_keeps() -> None:
    day = cv2.resize(np.random.default_rng(0).integers(0, 255, (8, 4, 3), dtype=np.uint8), (64, 128))
    options = DarkenOptions(lightness=(10, 10), tint=0, falloff=0)
    night = darken_picture(day, options, np.random.default_rng(1))
    gamma = gamma_darken(day, 3.0)
    flat = day.astype(float).ravel()
    assert np.corrcoef(flat, gamma.ravel())[0, 1] > np.corrcoef(flat, night.ravel())[0, 1] + 0.1


def test_jpeg_bytes_decode_to_nearly_the_same_picture() -> None:
    picture = cv2.resize(np.random.default_rng(0).integers(0, 255, (8, 4, 3), dtype=np.uint8), (64, 128))
    decoded = cv2.imdecode(np.frombuffer(encode_jpeg(picture, 95), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(decoded.astype(int) - picture).mean() < 4
    assert len(encode_jpeg(picture, 30)) < len(encode_jpeg(picture, 95))


@pytest.mark.parametrize(
    ("field", "value"),
    [("gain", 0), ("bits", 1), ("denoise", 2), ("jpeg_quality", 0), ("white_balance", (1, 0, 1)), ("black_level", 1)],
)
def test_an_impossible_setting_is_named(field: str, value: object) -> None:
    with pytest.raises(RecipeError, match=f"sensor: {field} is .*must be"):
        replace(SensorOptions(), **{field: value})


def test_an_impossible_darkness_is_named() -> None:
    with pytest.raises(RecipeError, match="lightness"):
        DarkenOptions(lightness=(30, 20))
