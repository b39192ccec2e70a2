"""What stands around the package (workflows, container, citation) names things that are there."""

import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from tapetum import __version__
from tapetum.cli.main import app
from tapetum.service.api import HEALTH
from tapetum.service.server import GRACE_SECONDS

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
YAML = [*WORKFLOWS, *sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ROOT / ".pre-commit-config.yaml"]
YAML += [ROOT / ".readthedocs.yaml", ROOT / "compose.yaml", ROOT / "CITATION.cff"]


def words(command: str) -> Any:
    """The command of ours that a line calls; each of its options is one."""
    found: Any = typer.main.get_command(app)
    parts = shlex.split(command)
    while hasattr(found, "commands"):
        found = found.commands[parts.pop(0)]
    known = {name for option in found.params for name in option.opts}
    assert {part for part in parts if part.startswith("--")} <= known, command
    return found


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_each_file_is_yaml(path: Path) -> None:
    assert yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_ends_in_time_calls_what_make_knows_and_takes_actions_that_nobody_can_change(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    jobs = yaml.safe_load(path.read_text())["jobs"].values()
    assert all(job["timeout-minutes"] <= 45 for job in jobs)
    steps = [step for job in jobs for step in job["steps"]]
    runs = [step["run"] for step in steps if "run" in step]
    assert runs
    for line in (line for run in runs for line in run.strip().splitlines()):
        first, *others = line.split()
        assert (first == "make" and others[0] in targets) or (first.startswith(".") and (ROOT / first).is_file()), line
    lines = [line for line in path.read_text().splitlines() if "uses:" in line]
    assert len(lines) == sum("uses" in step for step in steps)
    assert all(re.search(r" uses: [\w./-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+$", line) for line in lines)


def test_nothing_is_published_that_did_not_pass_what_every_change_must() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())["jobs"]
    assert jobs["publish"]["needs"] == "test"
    assert {"run": ".ci/run"} in jobs["test"]["steps"]
    assert "id-token" not in jobs["test"].get("permissions", {})


def test_what_builds_the_package_is_of_the_versions_that_were_tested() -> None:
    versions = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines())
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert {re.split(r"[<>=]", each)[0] for each in build} <= set(versions)
    variables = "PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt"
    for name in ("Makefile", "Dockerfile", ".readthedocs.yaml"):
        assert variables in (ROOT / name).read_text(), name


def test_the_oldest_torch_that_is_tested_is_the_oldest_that_is_allowed() -> None:
    text = (ROOT / ".github" / "workflows" / "test.yml").read_text()
    for name in ("torch", "torchvision"):
        (allowed,) = (each for each in PROJECT["dependencies"] if re.fullmatch(rf"{name}>=[\d.]+", each))
        assert f"{name}=={allowed.partition('>=')[2]}.*" in text


def test_the_oldest_and_the_newest_python_that_are_promised_are_tested() -> None:
    promised = [text.rpartition(" ")[2] for text in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", text)]
    text = (ROOT / ".github" / "workflows" / "test.yml").read_text()
    tested = re.findall(r'python(?:-version)?: "(3\.\d+)"', text)
    for end in (min, max):
        assert end(tested, key=minor) == end(promised, key=minor)
    assert PROJECT["requires-python"] == f">={min(promised, key=minor)}"


def minor(version: str) -> int:
    return int(version.partition(".")[2])


def test_the_container_copies_what_is_there_and_installs_extras_that_exist() -> None:
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    copied = {
        name for line in lines if line.startswith("COPY ") and "--from" not in line for name in line.split()[1:-1]
    }
    shown = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied
    assert copied <= shown
    assert all((ROOT / name).exists() for name in copied)
    (extras,) = re.findall(r'\.whl\)\[([a-z,]+)\]"', "\n".join(lines))
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    users = [line.split()[1] for line in lines if line.startswith("USER")]
    assert users == ["tapetum"]  # not root


def test_what_a_container_fetches_lies_in_its_volume_and_its_stop_is_heard_by_a_first_process() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    (cache,) = (line.partition("XDG_CACHE_HOME=")[2] for line in lines if line.startswith("ENV "))
    (volume,) = (line.split()[1] for line in lines if line.startswith("VOLUME"))
    assert Path(cache).is_relative_to(volume)
    assert "STOPSIGNAL SIGINT" in lines  # Python hears it; SIGTERM it leaves to the kernel, which spares process 1


def test_compose_serves_by_options_that_exist_and_publishes_on_this_machine_alone() -> None:
    text = (ROOT / "compose.yaml").read_text()
    service = yaml.safe_load(text)["services"]["tapetum"]
    assert words(service["command"]).name == "serve"
    for command in re.findall(r"run --rm tapetum (.*)", text):
        words(command)
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert int(service["stop_grace_period"].removesuffix("s")) > GRACE_SECONDS
    (address,) = re.findall(r"http://127\.0\.0\.1:8000(/[a-z0-9/]+)", service["healthcheck"]["test"][-1])
    assert address in HEALTH
    compile(service["healthcheck"]["test"][-1], "health check", "exec")


def test_the_commands_that_compose_names_begin_with_a_gallery_because_a_user_needs_one() -> None:
    for path in (ROOT / "compose.yaml", ROOT / "docs" / "site.md"):
        commands = re.findall(r"compose run --rm tapetum (\w+)", path.read_text())
        assert commands.index("index") < commands.index("users")


def test_citation_and_package_are_of_one_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert citation["license"] == PROJECT["license"]
    assert all((ROOT / name).is_file() for name in PROJECT["license-files"])


def test_what_security_promises_is_said_on_pages_that_are_there() -> None:
    pages = re.findall(r"\]\(([^)]+)\)", (ROOT / "SECURITY.md").read_text())
    assert pages
    assert all((ROOT / page).is_file() for page in pages)


@pytest.mark.skipif(not (ROOT / ".git").exists() or not shutil.which("git"), reason="needs what git tracks")
def test_the_source_distribution_holds_what_is_tracked_and_so_passes_its_own_tests(tmp_path: Path) -> None:
    told = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tracked = {name for name in told.split("\0") if name and (ROOT / name).is_file()}
    for name in tracked:
        place = tmp_path / "tracked" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, place)
    code = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=tmp_path / "tracked",
        capture_output=True,
        check=True,
        timeout=120,
    )
    (built,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(built) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    made = {"PKG-INFO", "setup.cfg"} | {name for name in names if name.startswith("src/tapetum.egg-info/")}
    assert names - made == tracked
