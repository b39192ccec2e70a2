from pathlib import Path

import numpy as np
import pytest

from tapetum.core.errors import OutputError
from tapetum.core.types import Record
from tapetum.data import lighting
from tapetum.data.image_io import write_picture
from tapetum.data.lighting import estimate_noise, light_levels, measure_pictures, size_levels

RNG = np.random.default_rng(0)


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Record]:
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "cache"))
    made = []
    for number, (value, height) in enumerate([(10, 60), (40, 150), (120, 240)]):
        picture = np.zeros((height, height // 2, 3), np.uint8)
        picture[..., 0], picture[..., 1], picture[..., 2] = value, value // 2, value // 5
        path = tmp_path / "pictures" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        write_picture(path, picture)
        made.append(Record(path, number, 1))
    return made


def test_measures_are_those_of_the_picture(records: list[Record]) -> None:
    measured = measure_pictures(records)
    assert measured.red.tolist() == [10, 40, 120]
    assert measured.green.tolist() == [5, 20, 60]
    assert measured.blue.tolist() == [2, 8, 24]
    assert np.allclose(measured.lightness, 0.299 * measured.red + 0.587 * measured.green + 0.114 * measured.blue)
    assert measured.height.tolist() == [60, 150, 240]
    assert measured.width.tolist() == [30, 75, 120]
    assert np.allclose(
        measured.noise, 0, atol=1e-6
    )  # of 255; the grey of a plain picture is rounded differently by CPU
    assert len(measured) == 3


@pytest.mark.parametrize(
    ("lightness", "level"),
    [(0, "low"), (25.49, "low"), (25.5, "medium"), (51, "medium"), (51.01, "high"), (255, "high")],
)
def test_light_levels_have_the_paper_s_bounds(lightness: float, level: str) -> None:
    assert light_levels(lightness).item() == level


@pytest.mark.parametrize(
    ("height", "level"), [(1, "small"), (99, "small"), (100, "medium"), (200, "medium"), (201, "big")]
)
def test_size_levels_have_the_paper_s_bounds(height: int, level: str) -> None:
    assert size_levels(height).item() == level


def test_levels_of_many_pictures_come_at_once() -> None:
    assert light_levels(np.array([[3.0, 30.0], [60.0, 51.0]])).tolist() == [["low", "medium"], ["high", "medium"]]
    assert size_levels(np.array([50.0, 150.0, 250.0])).tolist() == ["small", "medium", "big"]


@pytest.mark.parametrize("deviation", [2.0, 8.0])
def test_noise_is_found_on_a_slope_and_edges_add_little(deviation: float) -> None:
    slope = np.linspace(60, 180, 128)[None, :, None] + np.zeros((256, 1, 3))
    slope[100:180, 30:90] += 40  # a person
    noise = RNG.normal(0, deviation, (256, 128, 1)).repeat(3, axis=2)
    noisy = np.clip(np.rint(slope + noise), 0, 255).astype(np.uint8)
    clean = np.rint(slope).astype(np.uint8)
    assert estimate_noise(noisy) == pytest.approx(deviation, rel=0.25)
    assert estimate_noise(clean) < 0.7
    assert estimate_noise(noisy[:2]) == 0.0


def test_measurements_are_kept_and_belong_to_their_pictures(
    records: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "kept" / "m.npz"
    first = measure_pictures(records, cache_file=cache)
    with monkeypatch.context() as patch:
        patch.setattr(lighting, "read_picture", lambda path: pytest.fail("measured again"))
        again = measure_pictures(records, cache_file=cache)
    assert np.array_equal(first.lightness, again.lightness)
    assert np.array_equal(first.noise, again.noise)
    turned = measure_pictures(records[::-1], cache_file=cache)
    assert turned.height.tolist() == [240, 150, 60]


def test_pictures_are_measured_once_whoever_asks(
    records: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = measure_pictures(records)
    monkeypatch.setattr(lighting, "read_picture", lambda path: pytest.fail("measured again"))
    assert np.array_equal(measure_pictures(records).noise, first.noise)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_folder_for_caches_that_cannot_be_written_is_no_reason_to_stop(records: list[Record], tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file stands here")
    assert measure_pictures(records).height.tolist() == [60, 150, 240]
    with pytest.raises(OutputError, match="the folder cannot be made"):
        measure_pictures(records, cache_file=tmp_path / "cache" / "m.npz")


def test_damaged_measurements_are_made_anew(records: list[Record], tmp_path: Path) -> None:
    cache = tmp_path / "m.npz"
    first = measure_pictures(records, cache_file=cache)
    for damage in (cache.read_bytes()[:200], b"", b"nonsense"):
        cache.write_bytes(damage)
        assert np.array_equal(measure_pictures(records, cache_file=cache).lightness, first.lightness)


@pytest.mark.parametrize("num_workers", [0, 3])
def test_number_of_workers_changes_nothing(records: list[Record], num_workers: int) -> None:
    seen: list[tuple[int, int]] = []
    measured = measure_pictures(records, num_workers=num_workers, progress=lambda *state: seen.append(state))
    assert measured.height.tolist() == [60, 150, 240]
    assert seen[-1] == (3, 3)
