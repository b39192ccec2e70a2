"""``tapetum report`` and ``tapetum plot``, run as a user would on two small finished runs."""

import json
import re
import shlex
import shutil
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner, Result

from tapetum.cli import plot, report
from tapetum.core.errors import TapetumError
from tapetum.core.protocol import Protocol
from tapetum.core.types import EmbeddingSet
from tapetum.core.vectors import normalise
from tapetum.data.catalog import open_dataset
from tapetum.data.datasets import market1501
from tapetum.evaluation.calibration import Calibration, write_calibration
from tapetum.evaluation.card import read_card
from tapetum.inference.calibrate import CalibrationOptions, calibrate_embeddings
from tapetum.inference.evaluate import evaluate_run
from tapetum.inference.identity import calibration_path
from tapetum.report.runs import find_card
from tapetum.report.sides import Sides
from tapetum.runs.recipe import Recipe
from tapetum.runs.sources import open_scene
from tapetum.training.train import train

app = typer.Typer(rich_markup_mode=None)
app.add_typer(plot.app, name="plot")
app.add_typer(report.app, name="report")


def call(command: str) -> Result:
    return CliRunner().invoke(app, shlex.split(command))


def output(command: str) -> str:
    result = call(command)
    assert result.exit_code == 0, f"{command}: {result.output} {result.exception!r}"
    return result.output


def complaint(command: str) -> str:
    error = call(command).exception
    assert isinstance(error, TapetumError), repr(error)
    assert "\n" not in str(error)
    return str(error)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Callable[..., Recipe]) -> Path:
    """A folder with trained and evaluated runs, under the names that the help's examples use."""
    place = tmp_path_factory.mktemp("place")
    own = {"ide_synth": ("ide_night600", 1), "idf_synth": ("idf_paper", 1), "ide_synth_seed2": ("ide_night600", 2)}
    for name, (recipe, seed) in own.items():
        settings = ["schedule.epochs=2", "sampler.steps=2", f"seed={seed}"]
        train(tiny_recipe(recipe, settings), place / "runs" / name)
        evaluate_run(place / "runs" / name, draws=20)
        write_calibration(calibration_path(place / "runs" / name), drawn_calibration(seed))
    small = {"num_train_people": 2, "num_test_people": 2, "cameras": 2, "pictures_per_camera": 2, "size": [32, 16]}
    open_scene(small, place / "runs" / "scene")
    return place


def drawn_calibration(seed: int) -> Calibration:
    """Of forty people drawn by lot: the test people of these runs are too few."""
    rng = torch.Generator().manual_seed(seed)
    pids = torch.arange(40).repeat_interleave(2)
    vectors = normalise(torch.randn(40, 16, generator=rng)[pids] + torch.randn(80, 16, generator=rng))
    paths = tuple(Path(f"{row}.jpg") for row in range(80))
    crowd = EmbeddingSet(vectors, paths, pids, torch.arange(80) % 2, torch.zeros_like(pids))
    halves = crowd.select(pids < 20), crowd.select(pids >= 20)
    options = CalibrationOptions(draws=20)
    return calibrate_embeddings(*halves, Protocol("drawn"), options=options, model={}, data={}, seed=seed)[0]


@pytest.fixture
def here(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory is a copy of the place with the runs."""
    shutil.copytree(runs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def examples() -> list[str]:
    """Every example in the help of every command of the two groups."""
    found = []
    for group in (plot.app, report.app):
        found += [group.info.epilog or "", *((command.callback.__doc__ or "") for command in group.registered_commands)]
    lines = [match for text in found for match in re.findall(r"Example: tapetum (.*)", text)]
    assert len(lines) == 2 + len(plot.app.registered_commands) + len(report.app.registered_commands)
    return sorted(set(lines))


@pytest.mark.slow
@pytest.mark.parametrize("command", examples())
def test_the_example_in_the_help_works(command: str, here: Path) -> None:
    said = output(command)
    if "--out" in command:
        out = Path(shlex.split(command)[-1])
        assert out.stat().st_size > 1000
        assert said.splitlines()[-1] == f"{out}: written"


def test_a_report_of_two_runs_shows_both_their_searches_and_what_makes_it_again(here: Path) -> None:
    output("report build runs/ide_synth runs/idf_synth --out out/report.html --title 'Two <runs>'")
    page = (here / "out" / "report.html").read_text()
    assert "<h1>Two &lt;runs&gt;</h1>" in page
    for expected in (
        "ide_night600",
        "idf_paper",
        "tapetum report build runs/ide_synth runs/idf_synth --out out/report.html",
        'id="searches"',
        'id="enhancement"',
        'id="failures"',
        'id="training"',
        "loss: exposure",
        "By light, size",
    ):
        assert expected in page, expected
    assert [path.name for path in (here / "out").iterdir()] == ["report.html"]


def test_a_report_without_the_embeddings_has_tables_but_no_searches(here: Path) -> None:
    for path in here.glob("runs/*/evaluation/*.safetensors"):
        path.unlink()
    output("report build runs/ide_synth --out report.html")
    page = (here / "report.html").read_text()
    assert 'id="results"' in page
    assert 'id="searches"' not in page


def test_a_difference_names_the_fields_in_which_two_results_differ(here: Path) -> None:
    said = output("report diff runs/ide_synth runs/idf_synth")
    assert "protocol: same" in said
    assert "data: same" in said
    assert re.search(r"method\s+runs/ide_synth: ide\s+runs/idf_synth: idf", said)
    same = output("report diff runs/ide_synth runs/ide_synth")
    assert "Protocol, data and model are the same." in same


def test_several_cards_of_a_run_stand_beside_each_other_but_a_difference_wants_one(here: Path) -> None:
    (card,) = (here / "runs/ide_synth/evaluation").glob("*.json")
    content = json.loads(card.read_text())
    content["rules"]["ap"] = "step"
    card.with_name("other.json").write_text(json.dumps(content))
    said = output("plot cmc runs/ide_synth --out cmc.svg")
    assert "ide_synth night600" in said
    assert "ide_synth other" in said
    message = complaint("report diff runs/ide_synth runs/idf_synth")
    assert "holds 2 result cards (night600.json, other.json)" in message
    assert "rules.ap" in output(f"report diff {card} {card.with_name('other.json')}")


def test_the_words_of_a_figure_are_printed_for_whoever_cannot_see_it(here: Path) -> None:
    assert "mAP" in output("plot slices runs/idf_synth --by camera --out slices.svg")
    assert "Rank lists. person" in output("plot ranking runs/idf_synth --count 2 --depth 3 --out ranking.png")
    assert "goes from" in output("plot curves runs/idf_synth --quantity exposure --out curves.pdf")
    assert "pairs of one person at a mean of" in output("plot distances runs/ide_synth --out distances.svg")
    assert "; idf_paper: " in output("plot cmc runs/ide_synth runs/idf_synth --out cmc.png")
    assert "3 people, " in output("plot embedding runs/idf_synth --people 3 --pictures 4 --out map.svg")
    said = output("plot activation runs/ide_synth runs/idf_synth --pictures 2 --out activation.svg")
    assert "ide_night600: Grad-CAM at branch.backbone" in said
    assert "idf_paper, enhanced: Grad-CAM at second.backbone" in said
    assert "2 night pictures" in output("plot enhancement runs/idf_synth --count 2 --out enhancement.png")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("report build runs/none", "runs/none: no such run folder or result card"),
        ("report diff runs/ide_synth runs/none", "tapetum evaluate runs/none"),
        ("plot cmc runs/ide_synth --out cmc.bmp", "cmc.bmp: a figure cannot be written as .bmp; use .png, .svg, .pdf"),
        (
            "plot slices runs/ide_synth --by lihgt",
            "--by lihgt: no such slices in the result cards; did you mean light?",
        ),
        ("plot curves runs/ide_synth --quantity exposrue", "--quantity exposrue: nothing logged is called so"),
        ("plot curves runs/none", "no complete epoch"),
        ("plot enhancement runs/ide_synth", "its method has no enhancer"),
        (
            "plot activation runs/ide_synth --layer branch.backbone.layer5",
            "ide_night600: layer branch.backbone.layer5: the network has none of this name; did you mean",
        ),
        ("plot activation runs/ide_synth --layer head", "ide_night600: layer head: gives no maps"),
        ("plot activation runs/ide_synth --split qeury", "split 'qeury' is unknown; did you mean query?"),
        ("plot activation runs/ide_synth --query 0001.jpg", "picture 0001.jpg: night600 has none of this name"),
        ("plot activation runs/none", "no such run folder"),
        ("plot samples --data synht=runs/scene", "did you mean synth?"),
        ("plot samples --data synth=runs/scene --data synth=runs/scene", "synth (scene) is given 2 times"),
        ("plot samples --data market1501", "data.root is not given"),
        ("plot distances runs/ide_synth --protocol nihgt600", "protocol 'nihgt600' is unknown; did you mean night600?"),
        ("plot embedding runs/idf_synth --data night600=none", "none"),
    ],
)
def test_a_mistake_is_answered_in_one_line_with_place_value_and_remedy(command: str, words: str, here: Path) -> None:
    before = {path for path in here.rglob("*") if path.is_file()}
    assert words in complaint(command)
    assert {path for path in here.rglob("*") if path.is_file()} == before


def test_a_figure_of_other_rules_or_pictures_describes_what_was_not_kept(here: Path) -> None:
    said = output("plot distances runs/ide_synth --out kept.svg")
    again = output("plot distances runs/ide_synth --protocol night600_step --quiet --out rules.svg")
    assert again.splitlines()[0] == said.splitlines()[0]
    for path in here.glob("runs/ide_synth/evaluation/*.safetensors"):
        path.unlink()
    anew = output("plot distances runs/ide_synth --protocol night600 --quiet --out anew.svg")
    assert anew.splitlines()[0] == said.splitlines()[0]
    assert not list(here.glob("runs/ide_synth/evaluation/*.safetensors"))


@pytest.mark.parametrize("figure", ["distances", "embedding"])
def test_two_runs_stand_side_by_side_under_letters(here: Path, figure: str) -> None:
    output(f"plot {figure} runs/ide_synth runs/idf_synth --out both.svg")
    drawn = (here / "both.svg").read_text()
    assert "(a) ide_night600" in drawn
    assert "(b) idf_paper" in drawn


@pytest.mark.parametrize("figure", ["ranking", "distances", "embedding"])
def test_runs_on_other_pictures_do_not_stand_side_by_side(
    here: Path, monkeypatch: pytest.MonkeyPatch, figure: str
) -> None:
    find = plot._tests

    def shorten_second(*given: Any, **settings: Any) -> dict[str, Sides]:
        (name, test), (other, second) = find(*given, **settings).items()
        return {name: test, other: replace(second, query=second.query.select(torch.arange(2)))}

    monkeypatch.setattr(plot, "_tests", shorten_second)
    message = complaint(f"plot {figure} runs/ide_synth runs/idf_synth --out runs/both.png")
    assert f"plot {figure}: idf_paper was tested on other pictures than ide_night600" in message
    assert not (here / "runs" / "both.png").exists()


def test_runs_on_equal_pictures_in_two_folders_stand_side_by_side_and_on_changed_ones_do_not(
    here: Path, people: Path
) -> None:
    shutil.copytree(people, here / "copy")
    shutil.rmtree(here / "runs/ide_synth/evaluation")
    evaluate_run(here / "runs/ide_synth", dataset=open_dataset("night600", here / "copy"), draws=20)
    for figure in ("ranking", "distances", "embedding"):
        output(f"plot {figure} runs/idf_synth runs/ide_synth --out both.svg")
        assert "ide_night600" in Path("both.svg").read_text()
    output("report build runs/idf_synth runs/ide_synth --out report.html")
    assert "No rank lists of" not in Path("report.html").read_text()
    first, *_, last = sorted((here / "copy" / "query_3").iterdir())
    shutil.copy(last, first)
    assert "ide_night600 was tested on other pictures than" in complaint("plot ranking runs/idf_synth runs/ide_synth")
    first.unlink()
    assert f"{first}: cannot be read" in complaint("plot ranking runs/idf_synth runs/ide_synth")
    output("report build runs/idf_synth runs/ide_synth --out report.html")
    assert f"No rank lists of ide_night600: {first}: cannot be read" in Path("report.html").read_text()


def test_a_figure_of_pictures_that_are_described_now_takes_out_the_recipe_s_camera_norm(
    here: Path, tiny_recipe: Callable[..., Recipe]
) -> None:
    settings = ["schedule.epochs=1", "sampler.steps=2", "evaluation.camera_norm=centre"]
    train(tiny_recipe("ide_night600", settings), here / "runs/centred")
    evaluate_run(here / "runs/centred", draws=20)
    kept = output("plot distances runs/centred --out kept.svg").splitlines()[0]
    assert output("plot distances runs/centred --protocol night600 --quiet --out anew.svg").splitlines()[0] == kept


def test_a_run_that_was_not_evaluated_is_told_to_be(here: Path) -> None:
    shutil.rmtree(here / "runs/ide_synth/evaluation")
    assert "make one with `tapetum evaluate runs/ide_synth`" in complaint("plot ranking runs/ide_synth")


def test_embeddings_that_are_gone_are_named(here: Path) -> None:
    for path in here.glob("runs/idf_synth/evaluation/*.safetensors"):
        path.unlink()
    assert "the embeddings beside the result cards are gone" in complaint("plot ranking runs/idf_synth")


def test_a_damaged_card_is_named(here: Path) -> None:
    (card,) = (here / "runs/ide_synth/evaluation").glob("*.json")
    card.write_text("{")
    assert f"{card.relative_to(here)}: is not JSON" in complaint("report build runs/ide_synth")


def test_an_average_over_seeds_says_over_what_and_can_be_written_down(here: Path) -> None:
    said = output("report average runs/ide_synth runs/ide_synth_seed2 --out out/mean.json").splitlines()
    first, second = (read_card(find_card(Path("runs") / name)) for name in ("ide_synth", "ide_synth_seed2"))
    values = [card.metrics["mean_ap"] for card in (first, second)]
    assert f"mean_ap {50 * sum(values):.2f} ±{100 * statistics.stdev(values):.2f}" in said[0]
    assert said[1] == (
        "mean and deviation over 2 trainings of ide on night600 (seed 1, 2), protocol night600, AP trapezoid"
    )
    assert said[2] == "out/mean.json: written"
    written = json.loads(Path("out/mean.json").read_text())
    assert written["metrics"]["mean_ap"] == pytest.approx(sum(values) / 2)
    assert written["seeds"] == [1, 2]


def test_results_of_several_methods_or_one_result_twice_are_not_averaged(here: Path) -> None:
    assert "idf_synth/evaluation/night600.json: differs from" in complaint(
        "report average runs/ide_synth runs/idf_synth"
    )
    assert "is named twice" in complaint("report average runs/ide_synth runs/ide_synth/evaluation/night600.json")
    assert "needs two result cards or more, found 1" in complaint("report average runs/ide_synth")


def test_pictures_of_trained_people_are_asked_for_their_class_and_others_for_another_picture(here: Path) -> None:
    trained = output("plot activation runs/ide_synth --split train --pictures 3 --out train.png")
    assert trained.count("class score") == 3
    tested = output("plot activation runs/ide_synth --pictures 3 --out test.png")
    assert len(re.findall(r"cosine -?[01]\.\d\d, to camera [12]", tested)) == 3
    assert tested == output("plot activation runs/ide_synth --pictures 3 --out test.png")
    name = re.search(r"root: (.*)", (here / "runs/ide_synth/recipe.yaml").read_text())
    assert name
    root = name[1].strip()
    other = output(f"plot activation runs/ide_synth --data night600={root} --split train --pictures 1 --out a.png")
    assert "class score" in other
    market1501.write_miniature(here / "market", np.random.default_rng(0))
    both = output(f"plot activation runs/ide_synth --data night600={root} --data market1501=market --out b.png")
    assert "market1501, ide_night600: Grad-CAM" in both
    held_out = f"--data night600={root},holdout_first=true --data night600={root}"
    twice = output(f"plot activation runs/ide_synth {held_out} --split train --pictures 2 --out c.png")
    assert "night600 (holdout_first=True), ide_night600: Grad-CAM" in twice
    assert "night600, ide_night600: Grad-CAM" in both


def test_a_picture_is_shown_by_its_name(here: Path) -> None:
    said = output("plot activation runs/ide_synth --pictures 1 --seed 4 --out drawn.png")
    person, camera = re.findall(r"person (\d+), camera (\d)", said)[0]
    root = re.search(r"root: (.*)", (here / "runs/ide_synth/recipe.yaml").read_text())[1].strip()  # type: ignore[index]
    (file,) = Path(root).glob(f"query*/{int(person):04d}_c{camera}_*")
    again = output(f"plot activation runs/ide_synth --query {file.name} --out named.png")
    assert f"person {person}, camera {camera}" in again
    assert again.count("cosine") == 1
