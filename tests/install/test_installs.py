"""The wheel in environments with the core alone, with the gallery, with everything: what is there works, and what is
missing is named in a line.

An environment is a folder of links to those installed distributions that the wheel's own metadata asks for, so that no
network is needed and nothing else can be imported.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from unit.inference.conftest import make_run  # noqa: F401  (a fixture)

ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]

OPTIONAL = ("lightning", "tensorboard", "lancedb", "matplotlib", "av")
WALKED = ("TAPETUM_CLIP", "TAPETUM_DETECTOR_PACKAGE")  # of walk.py
SECONDS = 480
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: what an earlier build left beside the sources, of files that are gone, would get into it."""
    folder, copy = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("sources")
    shutil.copytree(ROOT / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, copy / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*command, str(copy)], check=True, timeout=240)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """An environment with some extras, and how to run its Python in a folder."""

    def make(*extras: str) -> Run:
        site = tmp_path_factory.mktemp("site")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(site)
        (about,) = site.glob("*.dist-info")
        own = metadata.PathDistribution(about)
        for name in required(own, extras):
            link(metadata.distribution(name), site)

        def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
            environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": str(site)}
            environment |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
            environment |= {name: os.environ[name] for name in WALKED if name in os.environ}
            command = [sys._base_executable, "-S", *arguments]  # type: ignore[attr-defined]
            return subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
            )

        return run

    return make


def required(own: metadata.Distribution, extras: tuple[str, ...]) -> set[str]:
    """Names of all distributions that an installation would bring."""
    names: set[str] = set()
    left = [(own, frozenset(extras))]
    done = set()
    while left:
        distribution, wanted = left.pop()
        for text in distribution.requires or ():
            asked = Requirement(text)
            if asked.marker and not any(asked.marker.evaluate({"extra": extra}) for extra in (*wanted, "")):
                continue
            name, of = canonicalize_name(asked.name), frozenset(asked.extras)
            if (name, of) in done:
                continue
            done.add((name, of))
            if name == "tapetum":
                left.append((own, of))
                continue
            names.add(name)
            left.append((metadata.distribution(name), of))
    return names


def link(distribution: metadata.Distribution, site: Path) -> None:
    """Its top-level files and folders; folders that several distributions share are linked as a whole."""
    for top in {Path(str(file)).parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
        place = Path(str(distribution.locate_file(top)))
        if place.exists() and not (site / top).exists():
            (site / top).symlink_to(place)


def tapetum(run: Run, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return run("-m", "tapetum", *words, folder=folder)


def assert_asks_for(extra: str, result: subprocess.CompletedProcess[str]) -> None:
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert f"pip install 'tapetum[{extra}]'" in result.stderr


def test_the_core_alone_makes_pictures_embeds_evaluates_and_names_what_it_lacks(
    install: Callable[..., Run],
    make_run: Callable[[str], Path],  # noqa: F811
    people: Path,
    tmp_path: Path,
) -> None:
    run = install()
    checkpoint = make_run("ide")
    missing = (
        "import importlib.util as u; print([n for n in ('lightning', 'tensorboard', 'lancedb', 'matplotlib', 'av') "
    )
    assert run("-c", missing + "if u.find_spec(n)])", folder=tmp_path).stdout == "[]\n"
    made = tapetum(run, tmp_path, "data", "generate", "scene", "--people", "2", "--cameras", "2", "--workers", "1")
    assert made.returncode == 0, made.stderr
    told = tapetum(run, tmp_path, "evaluate", str(checkpoint), "--data", f"night600={people}", "--out", "card")
    assert told.returncode == 0, told.stderr
    assert "mAP" in told.stdout
    code = f"import tapetum; m = tapetum.load_model({str(checkpoint)!r}); print(tapetum.embed(m, []).shape[0])"
    assert run("-c", code, folder=tmp_path).stdout == "0\n"
    assert_asks_for("train", tapetum(run, tmp_path, "train", "ide_synth", "--out", "run", "--data", "synth=scene"))
    assert not (tmp_path / "run").exists()
    assert_asks_for("plot", tapetum(run, tmp_path, "report", "build", str(checkpoint)))
    assert_asks_for("footage", tapetum(run, tmp_path, "index", "scene", "--gallery", "g", "--model", str(checkpoint)))
    assert_asks_for("serve", tapetum(run, tmp_path, "serve", "--gallery", "g"))


def test_the_gallery_s_extra_indexes_and_searches(
    install: Callable[..., Run],
    make_run: Callable[[str], Path],  # noqa: F811
    people: Path,
    tmp_path: Path,
) -> None:
    run = install("gallery")
    indexed = tapetum(run, tmp_path, "index", str(people), "--gallery", "g", "--model", str(make_run("ide")))
    assert indexed.returncode == 0, indexed.stderr
    picture = next(path for path in sorted(people.rglob("*")) if path.is_file())
    found = tapetum(run, tmp_path, "search", "--gallery", "g", "--query", str(picture), "-k", "2")
    assert found.returncode == 0, found.stderr
    assert " 1." in found.stdout or "1 " in found.stdout
    assert_asks_for("train", tapetum(run, tmp_path, "train", "ide_synth", "--out", "run"))


def test_with_everything_each_module_can_be_imported(install: Callable[..., Run], tmp_path: Path) -> None:
    code = (
        "import importlib, pkgutil, tapetum\n"
        "walk = pkgutil.walk_packages(tapetum.__path__, 'tapetum.')\n"
        "names = [name for _, name, _ in walk if '__main__' not in name]\n"
        "[importlib.import_module(name) for name in names]\n"
        "print(len(names))"
    )
    told = install("all")("-W", "ignore", "-c", code, folder=tmp_path)
    assert told.returncode == 0, told.stderr
    assert int(told.stdout) > 200


@pytest.mark.timeout(2 * SECONDS)
def test_the_readme_s_lines_find_a_drawn_person_in_drawn_footage(install: Callable[..., Run], tmp_path: Path) -> None:
    told = install("all")(str(ROOT / "tests" / "install" / "walk.py"), folder=tmp_path)
    assert told.returncode == 0, told.stdout + told.stderr
    print(told.stdout)
    assert told.stdout.endswith("the README's lines work here\n")
