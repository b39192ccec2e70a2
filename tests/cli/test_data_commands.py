"""The commands under ``tapetum data``, as a user would type them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from tapetum.cli.data import app
from tapetum.core.errors import DataError, MethodError, OutputError, RecipeError
from tapetum.data.catalog import load_dataset_module
from tapetum.data.datasets import folder, knight, market1501, night600
from tapetum.data.datasets.knight import PUBLISHED_SUBSETS
from tapetum.data.image_io import read_picture
from tapetum.data.layout import write_sample_picture
from tapetum.layers.attention_unet import AttentionUNet
from tapetum.runs.recipe import Recipe
from tapetum.training.train import train

Call = Callable[[str], tuple[int, str, str]]
TINY = ["--people", "2", "--cameras", "2", "--set", "size=[48,24]", "--workers", "1"]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def ran(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
    return result.output


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("generated") / "scene"
    ran("generate", root, *TINY)
    return root


@pytest.mark.parametrize("command", ["generate", "darken", "enhance", "check", "stats", "crop-video"])
def test_help_of_every_command_shows_an_example_of_it(command: str) -> None:
    assert f"Example: tapetum data {command} " in ran(command, "--help")


def test_generated_scene_is_whole_and_measured(scene: Path, tmp_path: Path) -> None:
    output = ran("check", "synth", scene)
    assert "no problem found" in output
    assert re.search(r"^train +12 +2 +2 +6 +-$", output, re.MULTILINE)
    output = ran("stats", "synth", scene, "--out", tmp_path / "stats")
    assert "light low" in output
    numbers = json.loads((tmp_path / "stats" / "stats.json").read_text())
    assert numbers["pictures"] == sum(numbers["light"]["levels"].values())
    assert (tmp_path / "stats" / "stats.png").read_bytes().startswith(b"\x89PNG")


def test_generate_writes_another_dataset_s_layout(tmp_path: Path) -> None:
    ran("generate", tmp_path / "m", "--layout", "market1501", "--seed", "4", *TINY)
    assert "no problem" not in ran_with_status(1, "check", "market1501", tmp_path / "m")
    assert len(list((tmp_path / "m" / "bounding_box_train").iterdir())) == 12


def test_generate_by_day_shows_the_same_people_brighter(scene: Path, tmp_path: Path) -> None:
    ran("generate", tmp_path / "day", "--light", "day", *TINY)
    night, day = (json.loads((root / "scene.json").read_text()) for root in (scene, tmp_path / "day"))
    assert day["people"] == night["people"]
    assert [picture["path"] for picture in day["pictures"]] == [picture["path"] for picture in night["pictures"]]
    pairs = zip(day["pictures"], night["pictures"], strict=True)
    assert all(ours["lightness"] > 1.5 * theirs["lightness"] for ours, theirs in pairs)
    result = run("generate", tmp_path / "dusk", "--light", "dusk", *TINY)
    assert str(result.exception) == "data.scene.light is 'dusk', expected 'night', 'day' or 'both'"


def ran_with_status(status: int, *arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == status, f"{result.output}\n{result.exception!r}"
    return result.output


def test_misspelt_scene_setting_is_answered_with_the_nearest_name(tmp_path: Path) -> None:
    result = run("generate", tmp_path / "s", "--set", "camera_sed=3")
    assert isinstance(result.exception, RecipeError)
    assert "did you mean camera_seed" in str(result.exception)
    result = run("generate", tmp_path / "s", "--set", "camera_seed")
    assert isinstance(result.exception, RecipeError)
    assert "KEY=VALUE" in str(result.exception)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("model", ["sensor", "gamma"])
def test_darken_writes_a_darker_copy_and_goes_on(tmp_path: Path, model: str) -> None:
    folder.write_miniature(tmp_path / "day", np.random.default_rng(0))
    assert "30 pictures darkened, 0 there before" in ran(
        "darken", tmp_path / "day", tmp_path / "night", "--model", model
    )
    assert "0 pictures darkened, 30 there before" in ran(
        "darken", tmp_path / "day", tmp_path / "night", "--model", model
    )
    name = "train/0000_c1_000000.jpg"
    assert read_picture(tmp_path / "night" / name).mean() < read_picture(tmp_path / "day" / name).mean()


def test_enhance_writes_a_brighter_copy_and_goes_on(tmp_path: Path) -> None:
    folder.write_miniature(tmp_path / "day", np.random.default_rng(0))
    ran("darken", tmp_path / "day", tmp_path / "night", "--model", "gamma")
    words = ("enhance", tmp_path / "night", tmp_path / "bright", "--with", "ada_gamma")
    assert "30 pictures brightened, 0 there before" in ran(*words)
    name = "train/0000_c1_000000.jpg"
    (tmp_path / "bright" / name).unlink()
    assert "1 pictures brightened, 29 there before" in ran(*words)
    assert read_picture(tmp_path / "bright" / name).mean() > read_picture(tmp_path / "night" / name).mean()
    ran("check", "folder", tmp_path / "bright")
    assert "was begun with other settings" in str(run(*words, "--set", "tau=2").exception)
    assert "lies inside" in str(run("enhance", tmp_path / "night", tmp_path / "night", "--with", "clahe").exception)
    assert "is unknown; did you mean ada_gamma" in str(run(*words[:-1], "ada-gamma").exception)


def test_a_run_that_brightens_is_an_enhancer_and_one_that_does_not_is_told_so(
    tiny_recipe: Callable[..., Recipe], trained: Path, tmp_path: Path
) -> None:
    folder.write_miniature(tmp_path / "night", np.random.default_rng(0))
    changes = [
        "method={name: zero_dce, curve_width: 4}",
        "optimiser.group_lr={}",
        "schedule.epochs=1",
        "sampler.steps=1",
    ]
    train(tiny_recipe(overrides=changes), tmp_path / "run")
    words = ("enhance", tmp_path / "night", tmp_path / "bright", "--with")
    assert "30 pictures brightened" in ran(*words, tmp_path / "run")
    error = run("enhance", tmp_path / "night", tmp_path / "other", "--with", trained).exception
    assert isinstance(error, MethodError)
    assert "ide brightens no pictures; give a run of zero_dce, enlighten_gan or idf, or one of ada_gamma" in str(error)
    assert not (tmp_path / "other").exists()


def test_enlighten_gan_brightens_a_data_set_by_the_release_s_file(tmp_path: Path) -> None:
    folder.write_miniature(tmp_path / "night", np.random.default_rng(0))
    words = ("enhance", tmp_path / "night", tmp_path / "bright", "--with", "enlighten_gan")
    assert "its weights are not named; write --set weights=FILE" in str(run(*words).exception)
    assert not (tmp_path / "bright").exists()
    torch.manual_seed(0)
    state = {f"module.{name}": value for name, value in AttentionUNet().state_dict().items()}
    torch.save(state, tmp_path / "200_net_G_A.pth")
    words = (*words, "--set", f"weights={tmp_path / '200_net_G_A.pth'}")
    assert "30 pictures brightened, 0 there before" in ran(*words)
    assert "0 pictures brightened, 30 there before" in ran(*words)
    ran("check", "folder", tmp_path / "bright")


def test_unknown_darkening_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    result = run("darken", tmp_path, tmp_path / "night", "--model", "gama")
    assert isinstance(result.exception, RecipeError)
    assert "did you mean gamma" in str(result.exception)


def test_check_lists_the_problems_and_leaves_with_status_one(tmp_path: Path) -> None:
    folder.write_miniature(tmp_path, np.random.default_rng(0))
    (tmp_path / "train" / "0000_c1_000000.jpg").write_text("no picture")
    output = ran_with_status(1, "check", "folder", tmp_path)
    assert "problem: 1 unreadable pictures" in output
    assert "0000_c1_000000.jpg" in output


def test_check_passes_reading_options_on(tmp_path: Path) -> None:
    night600.write_miniature(tmp_path, np.random.default_rng(0))
    output = ran_with_status(1, "check", "night600", tmp_path, "--option", "holdout_first=true")
    assert re.search(r"^val +2 ", output, re.MULTILINE)
    assert "published 14462 of 300" in output
    assert "query pictures are in the gallery too" in output


def test_damaged_picture_stops_stats_or_is_counted(tmp_path: Path) -> None:
    folder.write_miniature(tmp_path / "d", np.random.default_rng(0))
    damaged = tmp_path / "d" / "gallery" / "0002_c1_000001.jpg"
    damaged.write_bytes(damaged.read_bytes()[:-10])
    strict = run("stats", "folder", tmp_path / "d", "--out", tmp_path / "s")
    assert isinstance(strict.exception, DataError)
    assert "0002_c1_000001.jpg" in str(strict.exception)
    assert not (tmp_path / "s" / "stats.json").exists()
    lenient = run("stats", "folder", tmp_path / "d", "--out", tmp_path / "s", "--skip-corrupt")
    assert lenient.exit_code == 0
    assert "1 damaged pictures left out" in lenient.output
    assert json.loads((tmp_path / "s" / "stats.json").read_text())["pictures"] == 29


def test_unwritable_output_is_named(tmp_path: Path) -> None:
    folder.write_miniature(tmp_path / "d", np.random.default_rng(0))
    (tmp_path / "file").write_text("x")
    for arguments in (
        ("stats", "folder", tmp_path / "d", "--out", tmp_path / "file" / "s"),
        ("darken", tmp_path / "d", tmp_path / "file" / "n"),
    ):
        result = run(*arguments)
        assert isinstance(result.exception, OutputError)
        assert str(tmp_path / "file") in str(result.exception)


def test_crop_video_names_a_missing_clip(tmp_path: Path) -> None:
    result = run("crop-video", tmp_path / "gone.mp4", tmp_path / "crops")
    assert isinstance(result.exception, DataError)
    assert "gone.mp4" in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("check night600 gone", ("night600: root gone does not exist", "agreement")),
        ("check night600 .", ("no known layout", "bounding_box_train", "train_all")),
        ("stats nigth600 .", ("did you mean night600?",)),
        ("darken gone night", ("gone does not exist",)),
    ],
)
def test_a_mistake_is_one_line_and_status_two(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, complaint = call(f"tapetum data {arguments}")
    assert status == 2, complaint
    assert complaint.startswith("tapetum: ")
    assert len(complaint.splitlines()) == 1
    assert all(word in complaint for word in words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_ctrl_c_while_workers_start_ends_without_a_traceback(tmp_path: Path) -> None:
    root = tmp_path / "scene"
    command = [sys.executable, "-c", "from tapetum.cli.main import run; run()", "data", "generate", str(root)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0)
    deadline = time.monotonic() + 60
    while not root.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.5)  # the workers' common parent is importing
    os.killpg(process.pid, signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in complaint


def test_a_scene_in_a_visible_infrared_layout_is_checked_and_measured_by_modality(tmp_path: Path) -> None:
    small = ["--people", "2", "--pictures", "2", "--set", "size=[32,16]", "--workers", "1"]
    assert "next: tapetum data stats regdb" in ran("generate", tmp_path / "scene", "--layout", "regdb", *small)
    output = ran("check", "synth", tmp_path / "scene")
    assert re.search(r"^test infrared +\d+ +2 +\d ", output, re.MULTILINE)
    assert "no problem found" in output
    output = ran("stats", "regdb", tmp_path / "scene", "--out", tmp_path / "stats")
    assert re.search(r"^train visible +\d+ of 2 people$", output, re.MULTILINE)
    assert re.search(r"^camera \d infrared ", output, re.MULTILINE)


def test_several_datasets_stand_side_by_side_in_one_table_and_one_figure(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, module in (("n", night600), ("k", knight), ("m", market1501)):
        (tmp_path / name).mkdir()
        module.write_miniature(tmp_path / name, rng)
    ran("darken", tmp_path / "m", tmp_path / "m-night", "--model", "gamma")
    more = (f"knight={tmp_path / 'k'},subset=c12", f"market1501={tmp_path / 'm'}", f"market1501={tmp_path / 'm-night'}")
    beside = [word for each in more for word in ("--beside", each)]
    out = tmp_path / "out"
    said = ran("stats", "night600", tmp_path / "n", "--out", out, *beside)
    table = (out / "datasets.md").read_text()
    assert table in said
    rows = {row["dataset"]: row for row in json.loads((out / "datasets.json").read_text())}
    assert list(rows) == ["night600", "knight (subset=c12)", "market1501 (m)", "market1501 (m-night)"]
    assert (rows["night600"]["ids"], rows["night600"]["cameras"], rows["night600"]["pictures"]) == (5, 2, 31)
    assert rows["market1501 (m)"]["ids"] == 5  # without the distractor
    assert rows["night600"]["paper"]["pictures"] == 28813
    assert "| night600 | 5 | 2 | 31 |" in table
    assert "| 600 | 8 | 28,813 | parallel/downward | Detectron2/hand | yes |" in table
    nothing_counted = " | ".join(["-"] * 8)
    assert f"| MARS | {nothing_counted} | 1261 | 6 | 1,119,003 | downward | DPM/GMMCP | no |" in table
    assert len(re.findall(r"^\|", table, re.MULTILINE)) == 2 + 4 + 5  # the other five of the paper's eight
    assert rows["market1501 (m-night)"]["mean_lightness"] < rows["market1501 (m)"]["mean_lightness"]
    assert (out / "datasets.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(out.glob("measurements-*.npz"))) == 4
    again = ran("stats", "night600", tmp_path / "n", "--out", out, *beside)
    assert again == said
    assert not (out / "stats.json").exists()


@pytest.mark.parametrize(
    ("table", "names", "printed"),
    [
        ("table1", ("night600", "market1501"), "| 600 | 8 | 28,813 | parallel/downward |"),
        ("deen-table1", ("regdb", "sysu_mm01", "llcm"), "| 1064 | 9 / 9 | 46,767 |"),
    ],
)
def test_the_papers_first_tables_count_the_datasets_given_as_stats_does(
    call: Call, tmp_path: Path, table: str, names: tuple[str, ...], printed: str
) -> None:
    for name in names:
        (tmp_path / name).mkdir()
        load_dataset_module(name).write_miniature(tmp_path / name, np.random.default_rng(0))
    data = " ".join(f"--data {name}={tmp_path / name}" for name in names)
    status, said, err = call(f"tapetum reproduce {table} {data} --out {tmp_path / 'out'} --quiet")
    assert status == 0, err
    text = (tmp_path / "out" / f"{table}.md").read_text()
    assert text in said
    assert printed in text
    first, *others = names
    beside = [word for name in others for word in ("--beside", f"{name}={tmp_path / name}")]
    assert text in ran("stats", first, tmp_path / first, "--out", tmp_path / "stats", *beside)
    assert [row["dataset"] for row in json.loads((tmp_path / "out" / f"{table}.json").read_text())] == list(names)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("table1", "--data is missing; add e.g. --data night600=ROOT"),
        ("deen-table1 --data regdb=. --zero-dce w.pth", "takes no --zero-dce; leave it out"),
        ("table1 --data night600=. --people 3", "takes no --people; leave it out"),
        ("table1 --data synth", "synth: its folder is not given; write synth=ROOT"),
    ],
)
def test_a_table_that_only_counts_says_what_it_lacks_or_has_no_use_for(
    call: Call, tmp_path: Path, words: str, message: str
) -> None:
    status, _, err = call(f"tapetum reproduce {words} --out {tmp_path / 'out'}")
    assert status == 2
    assert message in err


@pytest.mark.parametrize("subset", ["c12", "c13", "c23"])
def test_each_subset_of_knight_and_a_night_twin_are_checked_and_measured(tmp_path: Path, subset: str) -> None:
    rng = np.random.default_rng(0)
    for pid, camid, index in np.ndindex(4, 3, 2):
        write_sample_picture(tmp_path / "k" / "Person" / f"{pid + 1:04d}" / f"cam{camid + 1}_{index:06d}.jpg", rng)
    said = ran_with_status(1, "check", "knight", tmp_path / "k", "--option", f"subset={subset}")
    assert f"total: 16 pictures of 4 people; published {PUBLISHED_SUBSETS[subset]['total'].pictures}" in said
    ran("stats", "knight", tmp_path / "k", "--option", f"subset={subset}", "--out", tmp_path / "s")
    assert json.loads((tmp_path / "s" / "stats.json").read_text())["pictures"] == 16
    ran("darken", tmp_path / "k", tmp_path / "k-night", "--model", "gamma")
    ran("stats", "knight", tmp_path / "k-night", "--option", f"subset={subset}", "--out", tmp_path / "s2")


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        ("market1501", "market1501: its folder is not given; write market1501=ROOT"),
        ("=.", "is not of the form NAME=ROOT"),
        ("makret1501=.", "did you mean market1501?"),
        ("knight=.,subest=c13", "knight: option 'subest' is unknown; did you mean subset?"),
    ],
)
def test_a_dataset_beside_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path, beside: str, message: str) -> None:
    night600.write_miniature(tmp_path, np.random.default_rng(0))
    result = run("stats", "night600", tmp_path, "--beside", beside, "--out", tmp_path / "out")
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
