"""`tapetum serve` under load: 32 clients on loopback against a process of its own, with a real network as model.

The clients search by row, by uploaded picture, browse and fetch crops, each as soon as its last answer has come. Rows
say requests/s, the median and the 95th percentile of the time to an answer, errors, and the process's memory.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import httpx
import numpy as np
import torch
from torch.nn import functional

from benchmarks.measure import build_row
from tapetum.core.sighting import Sighting
from tapetum.core.types import Modality
from tapetum.gallery.opening import open_gallery
from tapetum.gallery.schema import ModelInfo, Row, Run
from tapetum.inference.sessions import Model, open_model
from tapetum.methods import build_method
from tapetum.runs.checkpoint import Header, save_checkpoint
from tapetum.runs.recipe import load_recipe

CLIENTS = 32
SECONDS = 60.0
WARM_SECONDS = 5.0
ROWS = 20_000
CAMERAS = 8
READY_SECONDS = 60.0
REFUSED, WAIT_SECONDS = 503, 1.0  # too much at once; a client that is told so waits before it asks again


@dataclass(frozen=True)
class Load:
    """What the clients saw.

    Attributes:
        seconds: of each answer after warming up.
        errors: what went wrong, one line each.
        refused: how often a client was told to try again later after warming up, and waited.
        wall_seconds: from first to last.
        mib_start: resident memory of the server after warming up.
        mib_end: the same at the end.
    """

    seconds: list[float]
    errors: list[str]
    refused: int
    wall_seconds: float
    mib_start: float
    mib_end: float

    def percentile(self, share: float) -> float:
        """Seconds under which so many percent of the answers came."""
        return float(np.percentile(self.seconds, share))


def a_picture(seed: int) -> bytes:
    """A JPEG of a crop's size."""
    rng = np.random.default_rng(seed)
    stripes = cv2.resize(rng.integers(0, 255, (16, 8, 3)).astype(np.uint8), (96, 240), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".jpg", stripes)[1].tobytes()


def make_model(folder: Path) -> Path:
    """A ResNet-18 that learned nothing: it computes as long as one that did."""
    recipe = load_recipe("ide_night600", ["data.size=[128, 64]"])
    options = {"backbone": "resnet18"}
    network = build_method("ide", options, 10)
    save_checkpoint(folder / "best.safetensors", network, Header("ide", options, 10, recipe.model_dump(mode="json")))
    return folder / "best.safetensors"


def make_gallery(folder: Path, place: Path, model: Model, rows: int) -> None:
    """Random unit vectors with a few hundred crops."""
    generator = torch.Generator().manual_seed(0)
    info = ModelInfo(model.id, model.dimension, "for a benchmark", str(place))
    with open_gallery(folder, create=info) as store:
        (folder / "crops" / "c").mkdir(parents=True)
        for number in range(256):
            (folder / "crops" / "c" / f"{number}.jpg").write_bytes(a_picture(number))
        blank = Sighting("", "night.mp4", "", 0.0, 0, (0, 0, 96, 240), "", Modality.VISIBLE, 40.0, 0.8, "", "")
        for first in range(0, rows, 5000):
            made = [
                replace(
                    blank,
                    id=f"row{number}",
                    camera=f"c{number % CAMERAS}",
                    time=1_795_291_200.0 + number,
                    frame=number,
                    tracklet=f"t{number // 8}",
                    modality=Modality(number % 2),
                    crop=f"crops/c/{number % 256}.jpg",
                )
                for number in range(first, min(first + 5000, rows))
            ]
            vectors = functional.normalize(torch.randn(len(made), model.dimension, generator=generator))
            store.upsert([Row(each, Run(model.id, model.runtime, model.precision)) for each in made], vectors)
        store.compact()


@contextmanager
def serving(gallery: Path) -> Iterator[tuple[int, str, str]]:
    """A server in a process of its own: its id, its address and the owner's token."""
    command = [sys.executable, "-m", "tapetum", "serve", "--gallery", str(gallery), "--port", "0"]
    command += ["--requests-per-minute", "1000000000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        for line in process.stdout or ():
            found = re.search(r"(http://\S+/)login#token=(\S+)", line)
            if found:
                yield process.pid, found[1], found[2]
                break
        else:
            raise RuntimeError("the server did not start")
    finally:
        process.terminate()
        process.communicate(timeout=60)


def read_mib(process: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def ask(client: httpx.AsyncClient, rng: np.random.Generator, rows: int) -> httpx.Response:
    """One request: half of them searches by row, the rest pictures, pages and crops."""
    row, kind = int(rng.integers(rows)), float(rng.random())
    where = {"cameras": [f"c{row % CAMERAS}"]} if kind < 0.25 else {}
    if kind < 0.5:
        return await client.post("api/v1/search", json={"rows": [f"row{row}"], "where": where})
    if kind < 0.7:
        files = {"pictures": ("person.jpg", a_picture(row), "image/jpeg")}
        return await client.post("api/v1/search/pictures", files=files, data={"options": json.dumps({"k": 10})})
    if kind < 0.8:
        return await client.post("api/v1/browse", json={"offset": row, "limit": 20})
    return await client.get(f"api/v1/rows/row{row}/crop")


async def load(process: int, url: str, token: str, *, clients: int, seconds: float, warm: float, rows: int) -> Load:
    """Let clients ask, each one request after the other."""
    times: list[float] = []
    errors: list[str] = []
    refusals: list[float] = []
    begun = time.perf_counter() + warm
    ended = begun + seconds

    async def one(number: int) -> None:
        rng = np.random.default_rng(number)
        async with httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=60) as client:
            while (start := time.perf_counter()) < ended:
                try:
                    answer = await ask(client, rng, rows)
                    if answer.status_code == REFUSED:
                        refusals.append(start)
                        await asyncio.sleep(WAIT_SECONDS)
                        continue
                    if answer.status_code != 200:
                        errors.append(f"{answer.status_code} {answer.text[:200]}")
                except httpx.HTTPError as error:
                    errors.append(repr(error))
                if start >= begun:
                    times.append(time.perf_counter() - start)

    async def watch() -> float:
        await asyncio.sleep(warm)
        return read_mib(process)

    first, *_ = await asyncio.gather(watch(), *(one(number) for number in range(clients)))
    refused = sum(start >= begun for start in refusals)
    return Load(times, errors, refused, time.perf_counter() - begun, first, read_mib(process))


def measure(*, clients: int = CLIENTS, seconds: float = SECONDS, warm: float = WARM_SECONDS, rows: int = ROWS) -> Load:
    """Make a gallery, serve it, load it."""
    with TemporaryDirectory() as folder:
        place = make_model(Path(folder))
        make_gallery(Path(folder) / "night", place, open_model(place), rows)
        with serving(Path(folder) / "night") as (process, url, token):
            with httpx.Client(base_url=url, timeout=60) as client:
                begun = time.perf_counter()
                while True:  # it has said its address; the first answer may take a moment
                    try:
                        client.get("api/v1/health/ready").raise_for_status()
                        break
                    except httpx.ConnectError:
                        if time.perf_counter() - begun > READY_SECONDS:
                            raise
                        time.sleep(0.1)
            return asyncio.run(load(process, url, token, clients=clients, seconds=seconds, warm=warm, rows=rows))


def run() -> list[dict[str, Any]]:
    """32 clients for a minute."""
    found = measure()
    name = f"serve: {CLIENTS} clients, {SECONDS:.0f} s, {ROWS} rows, ResNet-18"
    mix = "50 % searches by row, 20 % by picture, 10 % pages, 20 % crops"
    growth = f"memory {found.mib_start:.0f} MiB after warming up, {found.mib_end:.0f} MiB at the end"
    errors = f"{len(found.errors)} errors" + (f", e.g. {found.errors[0]}" if found.errors else "")
    errors += f", told to try again: {found.refused}"
    rate = len(found.seconds) / found.wall_seconds
    return [
        build_row(f"{name}, requests", rate, None, "answers/s", note=f"{errors}; {mix}"),
        build_row(f"{name}, median", found.percentile(50), None, "s"),
        build_row(f"{name}, 95th percentile", found.percentile(95), None, "s"),
        build_row(f"{name}, memory growth", (found.mib_end - found.mib_start) / 1024, None, "GiB", note=growth),
    ]
