"""What a short command imports, each in a process of its own: seconds of a search are mostly those of imports."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tapetum.gallery.opening import open_gallery
from tapetum.gallery.snapshot import FILE
from tapetum.inference.export import export_run
from tapetum.runs.recipe import Recipe
from tapetum.training.train import train

pytestmark = pytest.mark.slow
# Of networks and their training, and what only statistics and figures need.
NEVER = ("torch", "torchvision", "timm", "lightning", "sklearn", "scipy.optimize", "matplotlib", "onnxruntime", "ray")
TABLE = ("lancedb", "pyarrow", "pandas")
PICTURES = ("cv2", "av", "openvino")
NAMESPACE = "lance_namespace_urllib3_client.api.table_api"


@dataclass(frozen=True)
class Place:
    """A gallery that was indexed by an exported model, and what is in it."""

    gallery: Path
    crops: Path
    run: Path
    tracklet: str


def run(*words: str) -> tuple[str, set[str]]:
    """A command's output, and the modules that its process had in the end."""
    code = (
        "import sys\n"
        "from tapetum.cli.main import run\n"
        f"sys.argv = {['tapetum', *words]!r}\n"
        "try:\n    run()\nexcept SystemExit as end:\n    assert not end.code\n"
        "print(*sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *lines, modules = done.stdout.splitlines()
    return "\n".join(lines), set(modules.split())


@pytest.fixture(scope="module")
def place(tiny_recipe: Callable[..., Recipe], people: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("start")
    train(tiny_recipe(overrides=["schedule.epochs=1", "sampler.steps=2", "data.size=[64, 32]"]), folder / "run")
    export_run(folder / "run", "openvino", folder / "artefact")
    crops = folder / "yard"
    crops.mkdir()
    for number, picture in enumerate(sorted((people / "bounding_box_test").iterdir())[:6]):
        (crops / f"{number}{picture.suffix}").write_bytes(picture.read_bytes())
    told, modules = run("index", str(crops), "--gallery", str(folder / "night"), "--model", str(folder / "artefact"))
    assert "rows: 6 added" in told
    assert (modules & {*NEVER, NAMESPACE}) == set()
    with open_gallery(folder / "night") as store:
        tracklet = store.columns(["tracklet"])["tracklet"][0]
    return Place(folder / "night", crops, folder / "run", tracklet)


def test_facts_of_a_gallery_need_neither_networks_nor_its_table_nor_pictures(place: Place) -> None:
    told, modules = run("gallery", "info", str(place.gallery))
    assert "all: 6 rows" in told
    assert not modules & {*NEVER, *TABLE, *PICTURES}


@pytest.mark.parametrize("by", ["tracklet", "row"])
def test_a_search_for_what_is_in_the_gallery_opens_no_model_and_no_table(place: Place, by: str) -> None:
    with open_gallery(place.gallery) as store:
        asked = place.tracklet if by == "tracklet" else store.columns(["id"])["id"][0]
    told, modules = run("search", "--gallery", str(place.gallery), f"--{by}", asked)
    assert "   1  " in told
    assert not modules & {*NEVER, *TABLE, "openvino", "av"}


def test_a_search_by_a_picture_needs_the_library_of_its_artefact_alone(place: Place) -> None:
    picture = sorted(place.crops.iterdir())[0]
    told, modules = run("search", "--gallery", str(place.gallery), "--query", str(picture), "-k", "1")
    assert f"query {picture}" in told
    assert "   1  1.0000  yard" in told
    assert "openvino" in modules
    assert not modules & {*NEVER, *TABLE, "av", "tapetum.synth.scene", "openvino_telemetry"}


def test_without_the_rows_beside_the_blocks_the_table_gives_the_same_answers(place: Place) -> None:
    search = ("search", "--gallery", str(place.gallery), "--tracklet", place.tracklet)
    quick, _ = run(*search)
    kept = place.gallery / "exact" / FILE
    away = kept.with_name("away")
    kept.rename(away)
    try:
        told, modules = run(*search)
    finally:
        away.rename(kept)
    assert told == quick
    assert "lancedb" in modules
    assert (modules & {*NEVER, NAMESPACE}) == set()


def test_the_clients_of_a_namespace_service_are_there_for_who_asks_for_them(place: Place) -> None:
    code = (
        "import sys\n"
        "from tapetum.gallery.lance import connect\n"
        f"table = connect({str(place.gallery)!r}).open_table('rows')\n"
        "assert table.count_rows() == 6\n"
        f"assert {NAMESPACE!r} not in sys.modules\n"
        "import lancedb\n"
        "remote = lancedb.connect('db://somewhere', api_key='key', region='eu')\n"
        "assert type(remote).__name__ == 'RemoteDBConnection'\n"
        "from lance_namespace_urllib3_client import ApiClient, TableApi, __version__\n"
        f"assert {NAMESPACE!r} in sys.modules and __version__\n"
        "assert TableApi(ApiClient()).api_client is not None\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def of_a_run(place: Place, tmp_path: Path) -> tuple[Path, str]:
    """A gallery that was made with a run, and a tracklet of it."""
    gallery = tmp_path / "night"
    run("index", str(place.crops), "--gallery", str(gallery), "--model", str(place.run), "--quiet")
    with open_gallery(gallery) as store:
        return gallery, store.columns(["tracklet"])["tracklet"][0]


def test_a_gallery_that_was_made_with_a_run_is_searched_without_pytorch_too(of_a_run: tuple[Path, str]) -> None:
    gallery, tracklet = of_a_run
    told, modules = run("search", "--gallery", str(gallery), "--tracklet", tracklet)
    assert "run `tapetum calibrate" in told  # its model was found and told by its weights, and is not calibrated
    assert "holds another model" not in told
    assert not modules & {*NEVER, *TABLE}
