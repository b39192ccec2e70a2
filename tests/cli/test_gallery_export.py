"""``tapetum gallery export``: one command from a gallery, a search or an evaluation to other programs."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from gallery_rows import MODEL, some_rows, some_vectors
from tapetum.core.protocol import Protocol
from tapetum.evaluation.bootstrap import QUANTITIES
from tapetum.evaluation.card import Card, write_card
from tapetum.gallery.opening import open_gallery
from tapetum.runs.run_folder import RunFolder

Call = Callable[[str], tuple[int, str, str]]


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("galleries") / "night"
    with open_gallery(folder, create=MODEL) as store:
        store.upsert(some_rows(6), some_vectors(6))
    return folder


@pytest.mark.parametrize(
    ("words", "said", "files"),
    [
        ("--to {to}.csv", "6 sightings", {"out.csv"}),
        ("--to {to}.parquet --embeddings --filter 'frame < 2'", "2 sightings", {"out.parquet"}),
        (
            "--to {to} --as projector",
            "6 embeddings",
            {f"out/{name}" for name in ("vectors.tsv", "metadata.tsv", "sprite.png", "projector_config.pbtxt")},
        ),
        ("--to {to} --as fiftyone", "6 embeddings", {"out/samples.json", "out/metadata.json"}),
    ],
)
def test_a_gallery_goes_to_other_programs(
    call: Call, gallery: Path, tmp_path: Path, words: str, said: str, files: set[str]
) -> None:
    status, out, err = call(f"tapetum gallery export --gallery {gallery} " + words.format(to=tmp_path / "out"))
    assert (status, err) == (0, "")
    assert out.startswith(f"{said} written to {tmp_path / 'out'}")
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == files


def test_results_of_several_runs_stand_in_one_table(call: Call, tmp_path: Path) -> None:
    numbers = dict.fromkeys(QUANTITIES, 0.5)
    for name, reranked in (("a", None), ("b", numbers | {"mean_ap": 0.75})):
        card = Card(Protocol("night600"), numbers | {"num_queries": 9}, method=name, reranked=reranked)
        RunFolder(tmp_path / name).evaluation.mkdir(parents=True)
        write_card(RunFolder(tmp_path / name).evaluation / "night600.json", card)
    runs = f"--results {tmp_path / 'a'} --results {tmp_path / 'b' / 'evaluation' / 'night600.json'}"
    status, out, err = call(f"tapetum gallery export {runs} --to {tmp_path / 'results.csv'}")
    assert (status, out, err) == (0, f"3 results written to {tmp_path / 'results.csv'}\n", "")
    with (tmp_path / "results.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["method"], line["reranked"], line["mean_ap"], line["queries"]) for line in lines] == [
        ("a", "False", "0.5", "9"),
        ("b", "False", "0.5", "9"),
        ("b", "True", "0.75", "9"),
    ]
    assert lines[0]["mean_ap_low"] == ""  # this card has no interval


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--gallery {gallery} --to {to}", "a table is Parquet or CSV; give a name that ends in .parquet or .csv"),
        ("--gallery {gallery} --to {to} --as projektor", "--as 'projektor' is unknown; did you mean projector?"),
        ("--to {to}.csv", "gallery: which one is not said"),
        ("--results {gallery} --to {to}.csv", "holds no result; evaluate it first: tapetum evaluate"),
        ("--results {gallery}/gallery.json --to {to}.csv", "is JSON but no result card"),
        ("--answers {gallery}/none.json --to {to}.csv", "none.json: cannot be read"),
        ("--answers {gallery}/gallery.json --to {to}.csv", "gallery.json: holds no answers of a search"),
        ("--answers a --gallery {gallery} --to {to}.csv", "--answers and --gallery are two things"),
        ("--gallery {gallery} --filter 'colour == 3' --to {to}.csv", "colour"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    call: Call, gallery: Path, tmp_path: Path, words: str, says: str
) -> None:
    status, out, err = call("tapetum gallery export " + words.format(gallery=gallery, to=tmp_path / "out"))
    assert (status, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())
