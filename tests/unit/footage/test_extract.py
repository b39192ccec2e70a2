import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from listed_sightings import read_all_sightings
from street_clip import COLOURS, street, write_clip, write_street
from tapetum.core.errors import DataError, OutputError, RecipeError
from tapetum.core.locks import locked
from tapetum.core.sighting import Sighting
from tapetum.core.types import Modality
from tapetum.data.image_io import read_picture
from tapetum.footage import crops, people
from tapetum.footage.decode import Limits
from tapetum.footage.detect import BackgroundDetector, Detections
from tapetum.footage.extract import extract_all, extract_sightings, read_sightings, source_key
from tapetum.footage.facts import SourceOptions
from tapetum.footage.options import ExtractOptions
from tapetum.footage.quality import TOO_SMALL
from tapetum.footage.report import FootageReport
from tapetum.footage.sources import Source, find_sources

START = 1795208400.0  # 2026-11-20T21:00:00Z
CLIP = Path(
    os.environ.get("TAPETUM_CLIP", Path(__file__).parents[4] / "shared" / "data" / "one-by-one-person-detection.mp4")
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_street(tmp_path_factory.mktemp("clip") / "cam3_2026-11-20T21-00-00.mp4")


@pytest.fixture
def source(clip: Path) -> Source:
    return find_sources([clip])[0]


def by_tracklet(sightings: list[Sighting]) -> list[list[Sighting]]:
    found: dict[str, list[Sighting]] = defaultdict(list)
    for sighting in sightings:
        found[sighting.tracklet].append(sighting)
    return list(found.values())


class Nobody:
    """A detector that finds nobody."""

    name, key, moving_only = "nobody", "nobody", False

    def start(self) -> None: ...

    def detect(self, picture: np.ndarray) -> Detections:
        return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))


class Everybody(Nobody):
    """A detector that finds one person who stands still, in every frame."""

    name, key = "everybody", "everybody"

    def detect(self, picture: np.ndarray) -> Detections:
        return Detections(np.array([[40, 20, 70, 100]], np.float32), np.ones(1, np.float32))


def test_two_people_are_two_tracklets_with_time_camera_box_and_crop(source: Source, tmp_path: Path) -> None:
    report, seen = FootageReport(), []
    detector = BackgroundDetector()
    sightings = list(
        extract_sightings(source, tmp_path, detector, report=report, progress=lambda *state: seen.append(state))
    )
    first, second = by_tracklet(sightings)
    for tracklet, who, (begin, end) in ((first, 0, (20, 60)), (second, 1, (85, 125))):
        assert 2 <= len(tracklet) <= 8
        for sighting in tracklet:
            assert sighting.camera == "cam3"
            assert begin <= sighting.frame < end
            assert sighting.time == pytest.approx(START + sighting.frame / 10)
            assert sighting.modality == Modality.VISIBLE
            picture = read_picture(tmp_path / sighting.crop)
            assert picture.shape[:2] == (sighting.box[3], sighting.box[2])
            middle = picture[picture.shape[0] // 2, picture.shape[1] // 2].astype(int)
            assert np.abs(middle - COLOURS[who]).max() < 40
            assert 0 < sighting.quality <= 1
            assert 0 < sighting.light < 255
    assert len({sighting.id for sighting in sightings}) == len(sightings) == report.crops
    assert (report.sources, report.frames, report.tracklets) == (1, 145, 2)
    assert "fallback" in "\n".join(report.lines())
    assert seen[-1] == (140, 145)


def test_a_finished_source_is_passed_over_and_its_list_can_be_read(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = BackgroundDetector()
    made = list(extract_sightings(source, tmp_path, detector))
    monkeypatch.setattr(people, "follow_frames", lambda *_: pytest.fail("read again"))
    report = FootageReport()
    assert list(extract_sightings(source, tmp_path, BackgroundDetector(), report=report)) == []
    assert (report.finished_before, report.sources) == (1, 0)
    assert list(read_sightings(source, tmp_path, detector)) == made
    assert list(read_all_sightings(tmp_path)) == made


def test_the_same_footage_gives_the_same_ids_wherever_it_lies(source: Source, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / source.path.name
    other.parent.mkdir()
    other.write_bytes(source.path.read_bytes())
    (copy,) = find_sources([other])
    detector = BackgroundDetector()
    first = list(extract_sightings(source, tmp_path / "a", detector))
    second = list(extract_sightings(copy, tmp_path / "b", detector))
    assert [sighting.id for sighting in first] == [sighting.id for sighting in second]
    assert [sighting.crop for sighting in first] == [sighting.crop for sighting in second]
    for sighting in first:
        assert (tmp_path / "a" / sighting.crop).read_bytes() == (tmp_path / "b" / sighting.crop).read_bytes()
    assert source_key(source, detector, ExtractOptions(margin=0.2)) != source_key(source, detector, ExtractOptions())
    assert source_key(source, detector, ExtractOptions(workers=7)) == source_key(source, detector, ExtractOptions())


@pytest.mark.parametrize("start", [0.1, 1795262380.094208, 1795262381.3337])
def test_the_start_decides_nothing_but_the_time(clip: Path, tmp_path: Path, start: float) -> None:
    """Gaps and stretches of exactly their limit are common, and large numbers round differently."""
    found = {
        begin: list(
            extract_sightings(find_sources([clip], SourceOptions(start=begin))[0], tmp_path, BackgroundDetector())
        )
        for begin in (START, start)
    }
    assert [(each.id, each.frame, each.box) for each in found[start]] == [
        (each.id, each.frame, each.box) for each in found[START]
    ]
    assert found[start][0].time - start == pytest.approx(found[START][0].time - START, abs=1e-5)


def test_a_run_that_stops_in_between_leaves_whole_crops_and_no_list_and_goes_on(source: Source, tmp_path: Path) -> None:
    running = extract_sightings(source, tmp_path, BackgroundDetector())
    first = next(running)
    assert (tmp_path / first.crop).is_file()
    running.close()
    assert list(read_all_sightings(tmp_path)) == []
    left = tmp_path / Path(first.crop).parent / ".half.jpg"
    left.write_bytes(b"half")
    again = list(extract_sightings(source, tmp_path, BackgroundDetector()))
    assert again[0] == first
    assert not left.exists()
    assert {str(path.relative_to(tmp_path)) for path in (tmp_path / "crops").rglob("*.jpg")} == {
        sighting.crop for sighting in again
    }


def test_a_full_disk_ends_the_run_and_loses_nothing(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush, room = crops.flush, iter(range(3))

    def flush_while_there_is_room(path: Path) -> None:
        if next(room, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        flush(path)

    monkeypatch.setattr(crops, "flush", flush_while_there_is_room)
    with pytest.raises(OutputError, match="No space left"):
        list(extract_sightings(source, tmp_path, BackgroundDetector(), report=FootageReport()))
    monkeypatch.setattr(crops, "flush", flush)
    assert len(list((tmp_path / "crops").rglob("*.jpg"))) == 3
    complete = list(extract_sightings(source, tmp_path, BackgroundDetector()))
    assert len(complete) > 3
    assert list(read_all_sightings(tmp_path)) == complete


KILLED = """
import sys
from pathlib import Path
from tapetum.footage.detect import BackgroundDetector
from tapetum.footage.extract import extract_all
from tapetum.footage.sources import find_sources
for sighting in extract_all(find_sources([sys.argv[1]]), Path(sys.argv[2]), BackgroundDetector()):
    print(sighting.crop, flush=True)
"""


@pytest.mark.slow
def test_kill_9_at_any_moment_leaves_no_half_crop_and_the_next_run_completes(clip: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for number in range(3):
        (folder / f"cam{number}.mp4").write_bytes(clip.read_bytes() + bytes(number))
    command = [sys.executable, "-c", KILLED, str(folder), str(out)]
    for _ in range(3):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(int(rng.integers(1, 6))):
                process.stdout.readline()
            time.sleep(float(rng.uniform(0, 0.05)))
            process.send_signal(signal.SIGKILL)
        for path in (out / "crops").rglob("[!.]*.jpg"):
            read_picture(path)
        for sighting in read_all_sightings(out):
            assert (out / sighting.crop).is_file()
    sources = find_sources([folder])
    list(extract_all(sources, out, BackgroundDetector()))
    complete = list(read_all_sightings(out))
    list(extract_all(sources, tmp_path / "undisturbed", BackgroundDetector()))
    assert complete == list(read_all_sightings(tmp_path / "undisturbed"))
    assert not [path for path in out.rglob(".*") if path.suffix != ".lock"]


def test_a_broken_file_is_named_and_counted_and_the_run_goes_on(clip: Path, tmp_path: Path) -> None:
    places = tmp_path / "places"
    places.mkdir()
    (places / "a.mp4").write_bytes(b"no video")
    write_clip(places / "b.mp4", [street(frame, empty=True) for frame in range(30)])
    shutil.copy(clip, places / "c.mp4")
    report, out = FootageReport(), tmp_path / "out"
    seen: list[tuple[int, int]] = []
    sources = find_sources([places])
    sightings = list(
        extract_all(sources, out, BackgroundDetector(), report=report, progress=lambda *state: seen.append(state))
    )
    assert len(by_tracklet(sightings)) == 2
    assert (report.sources, report.failed, report.num_problems) == (3, 1, 1)
    assert report.without_person == [str(places / "b.mp4")]
    assert "a.mp4: cannot be opened as a video" in report.problems[0].message
    assert seen[-1] == (175, 175)
    told = "\n".join(report.lines())
    assert "nobody found" in told
    assert "time is only that of writing the file" in told
    again = FootageReport()
    assert list(extract_all(sources, out, BackgroundDetector(), report=again)) == []
    assert (again.finished_before, again.failed) == (2, 1)
    with pytest.raises(DataError, match=r"a\.mp4"):
        list(extract_sightings(find_sources([places / "a.mp4"])[0], out, BackgroundDetector()))


def test_who_stands_still_is_kept_with_a_trained_detector_only(source: Source, tmp_path: Path) -> None:
    (tracklet,) = by_tracklet(list(extract_sightings(source, tmp_path, Everybody())))
    assert len(tracklet) == 8
    assert np.ptp([sighting.frame for sighting in tracklet]) > 80
    moving = Everybody()
    moving.key, moving.moving_only = "moving", True
    report = FootageReport()
    assert list(extract_sightings(source, tmp_path, moving, report=report)) == []
    assert report.dropped_tracklets == 1


def test_modality_can_be_said_and_large_crops_are_shrunk(source: Source, tmp_path: Path) -> None:
    options = ExtractOptions(modality=Modality.INFRARED, max_crop_height=40)
    for sighting in extract_sightings(source, tmp_path, Everybody(), options=options):
        assert sighting.modality == Modality.INFRARED
        assert read_picture(tmp_path / sighting.crop).shape[0] == 40
        assert sighting.box[3] > 80


def test_a_folder_of_frames_needs_no_second_look_at_each_person(tmp_path: Path) -> None:
    folder = tmp_path / "cam4"
    folder.mkdir()
    for number in range(6):
        cv2.imwrite(str(folder / f"{number}.png"), street(40 + number)[..., ::-1])
    options = SourceOptions(start=START, frames_per_second=0.1)  # ten seconds between two: everybody is new
    sightings = list(extract_all(find_sources([folder], options), tmp_path / "out", Everybody()))
    assert len(by_tracklet(sightings)) == 6
    assert {sighting.camera for sighting in sightings} == {"cam4"}
    with pytest.raises(RecipeError, match="no detector is given"):
        list(extract_all(find_sources([folder], options), tmp_path / "out", None))


def test_who_is_seen_before_the_start_of_a_folder_of_frames_is_kept(tmp_path: Path) -> None:
    """The first picture's time is an hour late, and the times of the others come before it."""
    folder = tmp_path / "cam4"
    folder.mkdir()
    for number, clock in enumerate(["230000", *(f"21000{second}" for second in range(1, 6))]):
        cv2.imwrite(str(folder / f"{number}_20261120_{clock}.png"), street(40 + number)[..., ::-1])
    (source,) = find_sources([folder], SourceOptions(kind="frames"))
    found = list(extract_sightings(source, tmp_path / "out", Everybody()))
    assert [each.time - START for each in sorted(found, key=lambda each: each.frame)] == [0, 1, 2, 3, 4, 5]


def test_loose_crops_are_taken_as_they_are_and_broken_ones_named(tmp_path: Path) -> None:
    folder = tmp_path / "crops"
    folder.mkdir()
    person = cv2.resize(street(40)[20:100, 68:92], (48, 128))
    cv2.imwrite(str(folder / "c1_a_2026-11-20T21-00-00.jpg"), person[..., ::-1])
    grey = np.repeat(person.mean(2, keepdims=True), 3, 2).astype(np.uint8)
    cv2.imwrite(str(folder / "c2_b.png"), cv2.resize(grey, (16, 40)))
    cv2.imwrite(str(folder / "c2_c.bmp"), person[::-1, :, ::-1])
    (folder / "c3_d.jpg").write_bytes(b"broken")
    report, out = FootageReport(), tmp_path / "out"
    found = list(extract_all(find_sources([folder]), out, None, report=report))
    assert [(each.camera, each.frame, each.box[2:]) for each in found] == [
        ("c1", 0, (48, 128)),
        ("c2", 0, (16, 40)),
        ("c2", 0, (48, 128)),
    ]
    assert [each.modality for each in found] == [Modality.VISIBLE, Modality.INFRARED, Modality.VISIBLE]
    assert found[0].time == START
    assert TOO_SMALL in found[1].remark
    assert (out / found[0].crop).read_bytes() == (folder / "c1_a_2026-11-20T21-00-00.jpg").read_bytes()
    assert Path(found[2].crop).suffix == ".jpg"
    assert len({each.tracklet for each in found}) == 3
    broken, tinted = (each.message for each in report.problems)
    assert broken.endswith("c3_d.jpg: not a picture, or damaged; replace it")
    assert "modality of 2 crops is in doubt" in tinted  # the street's lamp is one hue everywhere
    assert report.time_origins == {"name": 1, "mtime": 2}


def test_huge_pictures_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    folder = tmp_path / "crops"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), np.zeros((300, 100, 3), np.uint8))
    report = FootageReport()
    options = ExtractOptions(limits=Limits(max_pixels=10_000))
    assert list(extract_all(find_sources([folder]), tmp_path / "out", None, options=options, report=report)) == []
    assert "exceed the limit of 10000" in report.problems[0].message


def test_two_runs_on_one_source_are_told_apart(source: Source, tmp_path: Path) -> None:
    detector = BackgroundDetector()
    (tmp_path / "sources").mkdir()
    lock = tmp_path / "sources" / f".{source_key(source, detector, ExtractOptions())}.lock"
    with (
        locked(lock, "held"),
        pytest.raises(OutputError, match="another run is reading this source"),
    ):
        list(extract_sightings(source, tmp_path, detector, report=FootageReport()))


def test_a_folder_that_cannot_be_written_and_a_damaged_list_are_named(source: Source, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="the folder cannot be made"):
        list(extract_sightings(source, tmp_path / "file", Nobody(), report=FootageReport()))
    list(extract_sightings(source, tmp_path, Nobody()))
    (path,) = (tmp_path / "sources").glob("[!.]*.jsonl")
    assert list(read_all_sightings(tmp_path)) == []
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(DataError, match="ends too early; delete it"):
        list(read_all_sightings(tmp_path))
    path.write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        list(read_all_sightings(tmp_path))


def test_options_that_cannot_work_are_named() -> None:
    for name, value in (("crops_per_tracklet", 0), ("rate", 0.0), ("jpeg_quality", 0), ("margin", 2.0)):
        with pytest.raises(RecipeError, match=f"footage: {name} is {value}"):
            replace(ExtractOptions(), **{name: value})


@pytest.mark.slow
@pytest.mark.skipif(not CLIP.is_file(), reason=f"the real clip is not at {CLIP}; set TAPETUM_CLIP to try it")
def test_six_people_of_the_real_clip_are_six_tracklets(tmp_path: Path) -> None:
    report = FootageReport()
    (source,) = find_sources([CLIP])
    assert source.start_origin == "metadata"
    sightings = list(extract_sightings(source, tmp_path, BackgroundDetector(), report=report))
    tracklets = by_tracklet(sightings)
    assert len(tracklets) == 6
    assert source.start is not None
    spans = [(each[0].time - source.start, each[-1].time - source.start) for each in tracklets]
    # when each of the six appears and is gone, as seen on a contact sheet
    expected = [(6.6, 20.0), (23.2, 44.0), (50.9, 70.0), (75.1, 87.0), (92.7, 120.0), (124.5, 136.5)]
    for (begin, end), (appears, gone) in zip(spans, expected, strict=True):
        assert appears - 1 <= begin < end <= gone
        assert end - begin > 0.6 * (gone - appears)
    heights = np.array([sighting.box[3] for sighting in sightings])
    assert np.median(heights) > 350
    assert {sighting.modality for sighting in sightings} == {Modality.VISIBLE}
    for tracklet in tracklets:  # crops of one person look alike: clothes against those of the others
        assert len(tracklet) >= 5
    means = [
        np.array([_clothes(read_picture(tmp_path / sighting.crop)) for sighting in tracklet]) for tracklet in tracklets
    ]
    halves = [(each[: len(each) // 2].mean(0), each[len(each) // 2 :].mean(0)) for each in means]
    distances = np.array([[np.linalg.norm(first - second) for _, second in halves] for first, _ in halves])
    assert (distances.argmin(1) == np.arange(6)).mean() >= 0.5


def _clothes(crop: np.ndarray) -> np.ndarray:
    """Mean colours of the middle of trunk and legs."""
    height, width = crop.shape[:2]
    middle = crop[:, width // 3 : 2 * width // 3].astype(float)
    return np.concatenate([middle[height // 4 : height // 2].mean((0, 1)), middle[height // 2 :].mean((0, 1))])


def test_options_as_they_are_usually_name_footage_as_the_first_galleries_did() -> None:
    usual = json.dumps(ExtractOptions().deciding(), sort_keys=True, default=str)
    assert hashlib.sha256(usual.encode()).hexdigest()[:16] == "5c174c140577612a"
    assert ExtractOptions(limits=Limits(max_bad_packets=5)).deciding() != ExtractOptions().deciding()
