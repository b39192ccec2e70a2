"""The README's lines of footage, made small, in an environment that has nothing but an installed wheel.

Run by that environment's Python in an empty folder: `make test-wheel` does so, and a test does with linked
distributions. It leaves with 0 where every line did what the README says of it.
"""

import csv
import os
import re
import shlex
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import cv2

README = Path(__file__).resolve().parents[2] / "README.md"
SMALLER = {"--video": "12", "--people": "3", "--cameras": "2", "--set": "infrared_cameras=[2]"}
FEWER_SECONDS = 300  # for a line that took ten on two cores


def read_lines() -> list[list[str]]:
    """Words of the commands below "Find a person in footage"."""
    section = README.read_text(encoding="utf-8").split("## Find a person in footage")[1]
    lines = section.split("```console\n")[1].split("```")[0].splitlines()
    return [make_small(shlex.split(line)[1:]) for line in lines]


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


def main() -> None:
    generate, index, search, serve = read_lines()
    run(["--version"])
    run(generate)
    first, last = cut_person(Path(generate[2]), Path("person.jpg"))
    assert re.search(r"rows: [1-9]\d* added", run(index))
    answers = re.findall(r"^ +\d+ .*?2026-11-20T21:00:(\d\d)Z", run(search), re.MULTILINE)
    assert answers, "nobody was found"
    assert first - 1 <= int(answers[0]) <= last + 1, "the first answer is of a time at which the person was not there"
    assert "<html" in ask_page(serve)
    print("the README's lines work here")


if __name__ == "__main__":
    main()
