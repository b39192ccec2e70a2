"""``tapetum index`` and ``tapetum gallery``, run as a user would."""

import errno
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from gallery_rows import files_with
from street_clip import street, write_clip, write_street
from tapetum.cli import main
from tapetum.footage import crops
from tapetum.gallery.opening import open_gallery
from tapetum.runs import packaged

Call = Callable[[str], tuple[int, str, str]]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_street(tmp_path_factory.mktemp("clip") / "cam3_2026-11-20T21-00-00.mp4")


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    return tmp_path / "my night"


def where(gallery: Path) -> str:
    return shlex.quote(str(gallery))


def test_a_video_is_indexed_searched_told_about_and_erased(
    call: Call, clip: Path, trained: Path, gallery: Path, tmp_path: Path
) -> None:
    place = where(gallery)
    status, out, err = call(
        f"tapetum index {clip} --gallery {place} --model {trained} --camera yard --start 2026-11-20T21:00:00+01:00 "
        f"--modality infrared --run 'first night' --rate 5 --precision fp32 --report {tmp_path / 'report.json'}"
    )
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("detector: background subtraction (MOG2, fallback for static cameras")
    assert any(line.startswith("rows: ") and line.endswith(f" in {gallery}") for line in lines)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["added"] == report["rows"] > 8
    assert (report["footage"]["time_origins"], report["run"]) == ({"option": report["rows"]}, "first night")
    assert report["footage"]["frames"] < 80  # of 145
    assert lines[-1].startswith("next: tapetum search --gallery ")
    status, out, _ = call(lines[-1].removeprefix("next: "))
    assert status == 0
    assert out

    status, out, err = call(
        f"tapetum index {clip} --gallery {place} --camera yard --start 2026-11-20T20:00:00Z "
        "--modality infrared --rate 5"
    )
    assert (status, err) == (0, "")
    assert f"rows: 0 added, {report['rows']} known before" in out

    _, out, _ = call(f"tapetum gallery info {place}")
    assert f"{report['rows']} rows, 2026-11-20T20:00:" in out
    assert f"infrared: {report['rows']} rows\nrun first night: {report['rows']} rows\n" in out
    assert f"opened from {trained}\n" in out
    assert "search: every row is compared\nkept: for ever\n" in out

    status, _, err = call(f"tapetum gallery delete {place} --filter 'kamera == \"yard\"' --yes")
    assert (status, err) == (2, "tapetum: filter: unknown field 'kamera'; did you mean camera?\n")
    with open_gallery(gallery) as store:
        gone = store.find(limit=2)
        names = " or ".join(f'id == "{row.sighting.id}"' for row in gone)
    status, out, err = call(f"tapetum gallery delete {place} --filter {shlex.quote(names)} --yes")
    assert (status, out) == (0, f"{gallery}: 2 sightings erased, {report['rows'] - 2} left\n")
    for row in gone:
        assert not files_with(gallery, row.sighting.id.encode())
        assert not (gallery / row.sighting.crop).exists()
    _, out, _ = call(f"tapetum gallery info {place}")
    assert out.endswith("erased so far: 2 sightings\n")

    status, out, _ = call(f"tapetum gallery compact {place}")
    assert out == f"{gallery}: {report['rows'] - 2} rows; search: every row is compared\n"
    status, out, _ = call(f"tapetum gallery keep {place} --days 0.001 --yes")
    assert out == f"{gallery}: keeps 0.001 days; {report['rows'] - 2} sightings erased, 0 left\n"
    status, out, _ = call(f"tapetum gallery keep {place} --forever")
    assert out == f"{gallery}: keeps everything; 0 sightings erased, 0 left\n"
    assert call(f"tapetum gallery info {place}")[1].count("no rows; 0 tracklets") == 1


def test_deleting_asks_first(
    call: Call, clip: Path, trained: Path, gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(f"tapetum index {clip} --gallery {where(gallery)} --model {trained} --quiet --no-compact")
    with open_gallery(gallery) as store:
        count = store.count()
    asked: list[str] = []

    def say_no(question: str, **options: bool) -> None:
        asked.append(question)
        raise main.typer.Abort(options)

    monkeypatch.setattr("typer.confirm", say_no)
    status, _, _ = call(f"tapetum gallery delete {where(gallery)} --filter 'camera == \"cam3\"'")
    assert status == 1
    assert call(f"tapetum gallery keep {where(gallery)} --days 0.001")[0] == 1
    assert asked == [f"erase {count} of {count} sightings in {gallery} for good?"] * 2
    assert call(f"tapetum gallery keep {where(gallery)} --days 100000")[0] == 0  # nothing is that old
    assert call(f"tapetum gallery delete {where(gallery)} --filter 'camera == \"none\"'")[0] == 0
    assert len(asked) == 2
    with open_gallery(gallery) as store:
        assert store.count() == count


def test_a_new_gallery_takes_the_packaged_model_and_remembers_it_by_name(
    call: Call, clip: Path, trained: Path, gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(packaged, "FOLDER", tmp_path / "package")
    call(f"tapetum export {trained} --to weights --out package/{packaged.DEFAULT}.safetensors")
    status, _, _ = call(f"tapetum index {clip} --gallery {where(gallery)} --quiet --no-compact")
    assert status == 0
    assert f"opened from {packaged.DEFAULT}\n" in call(f"tapetum gallery info {where(gallery)}")[1]
    (tmp_path / "package").rename(tmp_path / "elsewhere")
    status, _, err = call(f"tapetum index {clip} --gallery {where(gallery)}")
    assert (status, err.startswith(f"tapetum: {gallery}: its model (")) == (2, True)
    assert err.endswith("where nothing is now; say where it is: --model MODEL\n")
    copy = f"elsewhere/{packaged.DEFAULT}.safetensors"
    assert call(f"tapetum index {clip} --gallery {where(gallery)} --model {copy}")[0] == 0


def test_footage_that_cannot_be_read_is_named_and_nothing_at_all_is_status_1(
    call: Call, clip: Path, trained: Path, gallery: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "broken.mp4").write_bytes(b"no video")
    (folder / "notes.txt").write_text("hello")
    command = f"tapetum index {folder} --gallery {where(gallery)} --model {trained} --no-compact"
    status, out, _ = call(command)
    assert status == 1
    assert "passed over: 1 files that are neither picture nor video" in out
    assert "broken.mp4: cannot be opened as a video" in out
    shutil.copy(clip, folder / "cam1.mp4")
    assert call(command)[0] == 0


@pytest.mark.usefixtures("quick_milvus")
def test_the_search_to_begin_with_names_the_folder_and_no_password(trained: Path, call: Call, tmp_path: Path) -> None:
    pytest.importorskip("milvus_lite", reason="Milvus Lite is not installed")
    cv2.imwrite(str(tmp_path / "person.png"), np.random.default_rng(0).integers(0, 255, (64, 32, 3), np.uint8))
    address = f"milvus://{tmp_path}/site.db/night"
    folder = where(tmp_path / "crops of it")
    _, out, _ = call(
        f"tapetum index {tmp_path / 'person.png'} --kind crops --gallery {address} --folder {folder} --model {trained}"
    )
    following = out.splitlines()[-1].removeprefix("next: ")
    assert following.startswith(f"tapetum search --gallery {address} --tracklet ")
    assert (
        call(following)[1].splitlines()[-1] == "no row is left beside the query itself and what was excluded around it"
    )


def test_mistakes_are_one_line_and_status_2(call: Call, clip: Path, trained: Path, gallery: Path) -> None:
    for options, complaint in (
        ("--start yesterday", "--start yesterday: is no date and time; write e.g. 2026-11-20T21:00:00+01:00"),
        ("--modality infrarde", "--modality infrarde: is unknown; did you mean infrared?"),
        ("--kind crop", "sources: kind is 'crop'; did you mean crops?"),
        ("--detector yolo.onnx", "detector yolo.onnx: is no file and no known name; give FILE.onnx,"),
        ("--detector torchvision:fcos", "detector 'fcos' is unknown; "),
        ("--person-class 0", "detector auto: layout and person class are for ONNX and TFLite files; leave them out"),
        ("--detector-weights x.pth", "detector auto: weights are for torchvision:NAME; leave them out"),
        ("--rate 0", "footage: rate is 0.0; it must be above 0"),
        ("--keep-days 0", "indexing: keep 0.0 days; want more than 0"),
        ("--run 'first\tnight'", "indexing: run='first\\tnight' has control characters; remove them"),
        ("--score", "no video has ground truth (NAME.csv) beside it;"),
    ):
        status, _, err = call(f"tapetum index {clip} --gallery {where(gallery)} --model {trained} --quiet {options}")
        assert status == 2, options
        assert err.startswith(f"tapetum: {complaint}"), options
    status, _, err = call(f"tapetum index nowhere.mp4 --gallery {where(gallery)} --model {trained}")
    assert (status, err) == (2, "tapetum: nowhere.mp4: does not exist; give a video, a picture or a folder of them\n")
    status, _, err = call(f"tapetum gallery keep {where(gallery)}")
    assert (status, err) == (2, "tapetum: gallery keep: say either --days N or --forever\n")


def test_a_full_disk_says_what_is_safe_and_how_to_go_on(
    call: Call, clip: Path, trained: Path, gallery: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    report = gallery.parent / "report.json"
    with monkeypatch.context() as patch:
        patch.setattr(crops, "flush", fail)
        status, out, err = call(f"tapetum index {clip} --gallery {where(gallery)} --model {trained} --report {report}")
    assert status == 2
    assert (out.startswith("detector: "), out.count("\n")) == (True, 1)
    assert err.startswith("ended early: 0 rows were added and stay; the same command goes on from there\ntapetum: ")
    assert "No space left on device" in err
    told = json.loads(report.read_text())
    assert told["added"] == 0
    assert "No space left on device" in told["ended_early"]


def test_a_data_sets_pictures_are_indexed_with_their_cameras(
    call: Call, people: Path, trained: Path, gallery: Path
) -> None:
    status, out, _ = call(f"tapetum index night600={people} --gallery {where(gallery)} --model {trained} --no-compact")
    assert status == 0
    assert out.startswith("detector: none was needed\n")
    with open_gallery(gallery) as store:
        assert set(store.columns(["camera"])["camera"]) == {"c1", "c2"}
        assert np.ptp(store.columns(["modality"])["modality"]) == 0


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """The tree of a recorder with folders for date, hour and camera; beside it what is left in doubt."""
    root = tmp_path / "recordings"
    paths = ("2026-11-20/21/front_door/00.10", "2026-11-20/21/двор/00.10", "2026-11-21/21/front_door/30.20", "cam9")
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        write_clip(root / f"{path}.mp4", [street(frame) for frame in range(number, 85)])
    (root / "notes.txt").write_text("x")
    return root


def test_a_dry_run_says_what_each_source_would_be_taken_for_and_needs_no_model(
    call: Call, recordings: Path, gallery: Path, tmp_path: Path
) -> None:
    (recordings / "cam9.mp4").rename(recordings / "gate.mp4")
    crop = np.zeros((64, 32, 3), np.uint8)
    for name in ("cam4_2026-11-20_09-00-00_PM.jpg", "cam4_2026-11-20_21-00-05.jpg"):
        cv2.imwrite(str(recordings / name), crop)
    status, out, err = call(f"tapetum index {recordings} --dry-run --report {tmp_path / 'report.json'}")
    assert (status, err) == (0, "")
    assert not gallery.exists()
    table = [line.split("  ") for line in out.splitlines()]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in table]
    assert cells[0] == ["kind", "files", "camera", "from", "start", "from", "source"]
    door = ["video", "1", "front_door", "folder", "2026-11-20T21:00:10Z", "folder"]
    assert [*door, str(recordings / "2026-11-20" / "21" / "front_door" / "00.10.mp4")] in cells
    crops = ["crops", "2", "cam4", "file name", "2026-11-20T21:00:00Z to 2026-11-20T21:00:05Z", "file name"]
    assert [*crops, str(recordings)] in cells
    assert ["in doubt: camera guessed: the file's whole name"] in cells
    assert ["in doubt: time guessed: file's time of writing"] in cells
    assert any("(двор)" in line and line.count("2026-11-20T21:00:10Z") for line in out.splitlines())
    assert f"passed over: 1 files that are neither picture nor video: {recordings / 'notes.txt'}" in out.splitlines()
    report = json.loads((tmp_path / "report.json").read_text())
    assert [each["kind"] for each in report["facts"]] == ["video"] * 1 + ["crops"] + ["video"] * 3
    assert report["num_doubts"] == 2
    assert report["passed_over"] == {"that are neither picture nor video": 1}


def test_a_pattern_says_what_cannot_be_guessed_and_a_wrong_one_is_one_line(
    call: Call, recordings: Path, gallery: Path
) -> None:
    pattern = "'{date}/{hour}/{camera}/{minute}.{second}'"
    (recordings / "cam9.mp4").unlink()
    status, out, _ = call(f"tapetum index {recordings} --dry-run --path-pattern {pattern}")
    assert status == 0
    assert out.count("path pattern") == 3 * 2 + 2
    for wrong, complaint in (
        (
            "{date}/{hours}/{camera}",
            "path pattern '{date}/{hours}/{camera}': field {hours} is unknown; did you mean hour?",
        ),
        ("{camera}/{camera}", "path pattern '{camera}/{camera}': has {camera} twice; write {any} for one of them"),
        ("{camera}_{date}", f"{recordings}/2026-11-20/21/front_door/00.10.mp4: does not fit the path pattern"),
    ):
        for options in ("--dry-run", f"--gallery {where(gallery)}"):
            status, _, err = call(f"tapetum index {recordings} {options} --path-pattern '{wrong}'")
            assert (status, err.count("\n")) == (2, 1)
            assert err.startswith(f"tapetum: {complaint}")
    status, _, err = call(f"tapetum index {recordings}")
    assert (status, err.startswith("tapetum: index: no gallery is named; add --gallery FOLDER, or --dry-run")) == (
        2,
        True,
    )
    assert not gallery.exists()


def test_a_recorders_tree_is_two_cameras_and_the_gallery_tells_where_their_names_and_times_come_from(
    call: Call, recordings: Path, trained: Path, gallery: Path, tmp_path: Path
) -> None:
    command = f"tapetum index {recordings} --gallery {where(gallery)} --model {trained} --rate 5 --no-compact --quiet"
    status, out, _ = call(f"{command} --report {tmp_path / 'report.json'}")
    assert status == 0
    lines = out.splitlines()
    assert "files: 4 read, 0 finished before, 0 unreadable, 1 passed over" in lines
    assert "cameras of sources: 3 from folder, 1 from file name" in lines
    assert f"in doubt, time guessed: file's time of writing: {recordings / 'cam9.mp4'}" in lines
    facts = json.loads((tmp_path / "report.json").read_text())["footage"]["facts"]
    assert {each["start_from"] for each in facts} == {"folder", "mtime"}
    heads = [json.loads(path.read_text().splitlines()[0]) for path in (gallery / "sources").glob("*.jsonl")]
    assert {head["cameras"][0]["written"] for head in heads} == {"cam9", "front_door", "двор"}
    assert {head["start"] for head in heads if head["start_origin"] == "folder"} == {
        "2026-11-20T21:00:10Z",
        "2026-11-21T21:30:20Z",
    }
    told = call(f"tapetum gallery info {where(gallery)}")[1].splitlines()
    cameras = [line for line in told if line.startswith("camera ")]
    assert [line.split()[1].strip(":").split("-")[0] for line in cameras] == ["cam9", "camera", "front_door"]
    assert cameras[0].endswith("; camera from the file name; time guessed: file's time of writing")
    assert " (written двор): " in cameras[1]
    assert cameras[2].endswith("; camera from the folder; time from the folder")
    assert ": 2 sources" not in "".join(told)
    assert "finished before" in call(command)[1]

    moved = recordings / "2026-11-22" / "21" / "gate" / "cam9.mp4"  # the same name at another place
    moved.parent.mkdir(parents=True)
    shutil.copy(recordings / "cam9.mp4", moved)
    out = call(f"tapetum index {moved} --gallery {where(gallery)} --rate 5 --no-compact --quiet")[1]
    assert re.search(rf"camera cam9 was found at '.*' before and is at 'gate' now; taken as one: {moved}\n", out)
