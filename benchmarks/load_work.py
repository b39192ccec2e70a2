"""What `bench_load` measures, in a process of its own: one piece of work, as often as it is asked for.

Command line: KIND FOLDER, of `WORK` and what `bench_load.prepare` made. The answer is the work's rate.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks.workers import answer, wait_as_the_program

STEPS, WARM_STEPS = 8, 2  # of a training
PICTURES = 128
SEARCHES = 20

Work = Callable[[], float]


@contextmanager
def training(folder: Path) -> Iterator[Work]:
    """IDE+ with ResNet-18 at 128 x 64 on the scene in fp32, pictures/s from the third step on."""
    from tapetum.data.catalog import open_dataset
    from tapetum.runs.progress import Silence
    from tapetum.runs.recipe import load_recipe
    from tapetum.training.train import train

    class Clock(Silence):
        def __init__(self) -> None:
            self.times: list[float] = []

        def step(self, *, epoch: int, loss: float, images_per_second: float) -> None:  # noqa: ARG002
            self.times.append(time.perf_counter())

    settings = ["schedule.epochs=1", "schedule.warmup_epochs=0", f"sampler.steps={STEPS}", "training.precision=fp32"]
    recipe, dataset = load_recipe("ide_synth", settings), open_dataset("synth", folder / "scene")

    def work() -> float:
        clock = Clock()
        with tempfile.TemporaryDirectory() as place:
            train(recipe, Path(place) / "run", dataset=dataset, reporter=clock)
        return 32 * (STEPS - WARM_STEPS) / (clock.times[-1] - clock.times[WARM_STEPS - 1])

    yield work


@contextmanager
def extraction(place: Path, scene: Path) -> Iterator[Work]:
    """Pictures/s from files to vectors."""
    from tapetum.data.catalog import open_dataset
    from tapetum.inference.sessions import open_model

    model = open_model(place)
    records = list(open_dataset("synth", scene).records)[:PICTURES]

    def work() -> float:
        begin = time.perf_counter()
        model.describe_records(records)
        return len(records) / (time.perf_counter() - begin)

    yield work


@contextmanager
def indexing(folder: Path) -> Iterator[Work]:
    """Frames/s of a generated video into a fresh gallery, by the fallback."""
    from benchmarks.footage_work import index_whole
    from tapetum.footage.detectors import build_detector
    from tapetum.footage.options import ExtractOptions
    from tapetum.footage.sources import find_sources
    from tapetum.inference.sessions import open_model

    (source,) = find_sources(folder.glob("video/*.mp4"))
    detector, model = build_detector("background"), open_model(folder / "artefact")

    def work() -> float:
        done = index_whole(source, detector, model, ExtractOptions())
        return float(done["frames"] / done["seconds"])

    yield work


@contextmanager
def serving(folder: Path) -> Iterator[Work]:
    """Answers/s of one client that searches by pictures, one after the other."""
    from benchmarks import bench_service

    with (
        bench_service.serving(folder / "gallery") as (_, url, token),
        httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=60) as client,
    ):
        for _ in range(100):
            try:
                client.get("api/v1/health/ready").raise_for_status()
                break
            except httpx.ConnectError:
                time.sleep(0.1)

        def work() -> float:
            begin = time.perf_counter()
            for number in range(SEARCHES):
                files = {"pictures": ("person.jpg", bench_service.a_picture(number), "image/jpeg")}
                client.post("api/v1/search/pictures", files=files, data={"options": '{"k": 10}'}).raise_for_status()
            return SEARCHES / (time.perf_counter() - begin)

        yield work


WORK = {
    "training": training,
    "extraction, PyTorch": lambda folder: extraction(folder / "best.safetensors", folder / "scene"),
    "extraction, OpenVINO": lambda folder: extraction(folder / "artefact", folder / "scene"),
    "index": indexing,
    "serve": serving,
}


def main() -> None:
    wait_as_the_program()
    kind, folder = sys.argv[1:]
    with WORK[kind](Path(folder)) as work:
        work()
        answer(lambda _: work())


if __name__ == "__main__":
    main()
