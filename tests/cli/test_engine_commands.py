"""``tapetum train``, ``evaluate``, ``extract``, ``search`` and ``convert``, run as a user would."""

import errno
import json
import os
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from tapetum.cli import main
from tapetum.core.seeding import numpy_generator
from tapetum.data.datasets import regdb
from tapetum.data.datasets.llcm import write_miniature
from tapetum.methods import ide
from tapetum.runs.recipe import Recipe, list_recipes, load_recipe, plain_recipe, write_yaml
from tapetum.runs.run_folder import RunFolder
from tapetum.training.train import train

COMMANDS = ("train", "evaluate", "extract", "search", "convert")


class Outcome:
    """What a command left: exit status and the two streams."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


Call = Callable[[str], Outcome]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command line through the front door, as the installed program does."""

    def run(command: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main.run()
        streams = capsys.readouterr()
        code = left.value.code
        return Outcome(code if isinstance(code, int) else 0, streams.out, streams.err)

    return run


def assert_refused(outcome: Outcome, *parts: str) -> None:
    assert outcome.status == 2, outcome.out + outcome.err
    assert outcome.err.startswith("tapetum: ")
    assert outcome.err.count("\n") == 1
    for part in parts:
        assert part in outcome.err


@pytest.fixture(scope="module")
def trained(tiny_recipe: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory of a user who has trained runs/ide."""
    place = tmp_path_factory.mktemp("commands")
    recipe = tiny_recipe(overrides=["schedule.epochs=1", "sampler.steps=2"])
    train(recipe, place / "runs" / "ide")
    (place / "recipe.yaml").write_text(write_yaml(recipe))
    (place / "empty").mkdir()
    before = Path.cwd()
    os.chdir(place)
    yield place
    os.chdir(before)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_of_the_command(command: str) -> None:
    text = CliRunner().invoke(main.app, [command, "--help"]).output
    assert re.search(rf"Example: tapetum {command} ", text)


def test_a_recipe_trains_into_the_folder_and_says_what_to_do_next(call: Call, trained: Path, tmp_path: Path) -> None:
    outcome = call(f"tapetum train recipe.yaml --set schedule.epochs=2 --out {tmp_path / 'run'} --quiet")
    assert outcome.status == 0, outcome.err
    assert "last complete epoch, 2 of 2" in outcome.out
    assert outcome.out.endswith(f"next: tapetum evaluate {tmp_path / 'run'}\n")
    again = call(f"tapetum train recipe.yaml --set schedule.epochs=2 --out {tmp_path / 'run'} --quiet")
    assert again.out == outcome.out


def test_the_resolved_recipe_is_printed_and_nothing_else_happens(call: Call, people: Path, tmp_path: Path) -> None:
    outcome = call(f"tapetum train idf_official --data night600={people} --set optimiser.lr=1e-3 --print-config")
    assert outcome.status == 0
    path = tmp_path / "printed.yaml"
    path.write_text(outcome.out)
    wanted = load_recipe("idf_official", [f"data.root={people}", "optimiser.lr=0.001"])
    assert plain_recipe(load_recipe(path)) == plain_recipe(wanted)
    assert not Path("runs/idf_official").exists()


def test_the_recipes_of_the_package_are_listed_a_line_each(call: Call) -> None:
    outcome = call("tapetum train --list")
    assert (outcome.status, outcome.err) == (0, "")
    head, *lines = outcome.out.splitlines()
    assert re.split(r"  +", head) == ["recipe", "method", "data set", "what it is"]
    assert [line.split()[0] for line in lines] == list_recipes()
    cells = {line.split()[0]: re.split(r"  +", line, maxsplit=3) for line in lines}
    for name in ("deen_llcm", "agw_synth"):
        recipe = load_recipe(name)
        layout = recipe.data.scene.get("layout")
        source = f"{recipe.data.name} as {layout}" if layout else recipe.data.name
        assert cells[name] == [name, recipe.method.name, source, recipe.about]


def test_the_night_scene_in_place_of_a_visible_infrared_dataset_keeps_its_layout(call: Call, tmp_path: Path) -> None:
    outcome = call("tapetum train agw_regdb --data synth --set data.scene.num_train_people=9 --print-config")
    assert outcome.status == 0, outcome.err
    (tmp_path / "printed.yaml").write_text(outcome.out)
    data = load_recipe(tmp_path / "printed.yaml").data
    assert (data.name, data.options, data.scene) == ("synth", {}, {"layout": "regdb", "num_train_people": 9})


def test_an_evaluation_prints_the_numbers_with_their_rules_and_the_card(call: Call, trained: Path) -> None:
    outcome = call("tapetum evaluate runs/ide --rerank --quiet")
    assert outcome.status == 0, outcome.err
    assert re.match(r"rank1 \d+\.\d\d  rank5 .*mean_inp .*\(percent\)\nre-ranked rank1 ", outcome.out)
    assert "protocol night600, AP trapezoid, 8 queries, chance mAP" in outcome.out
    assert outcome.out.endswith("runs/ide/evaluation/night600_rerank.json\n")
    assert Path("runs/ide/evaluation/night600_rerank.json").is_file()


def test_an_evaluation_says_that_camera_statistics_were_taken_out(call: Call, trained: Path) -> None:
    said = "camera norm standard, from the unlabelled test pictures\n"
    one = call("tapetum evaluate runs/ide --camera-norm standard --quiet")
    assert one.status == 0, one.err
    assert said in one.out
    assert one.out.endswith("runs/ide/evaluation/night600_camera_standard.json\n")
    two = call("tapetum evaluate runs/ide --camera-norm standard --protocol night600 --protocol night600_step --quiet")
    assert said in two.out


def test_an_evaluation_among_look_alikes_says_how_often_one_is_taken_for_the_person(
    call: Call, trained: Path, tmp_path: Path
) -> None:
    tiny = "--people 4 --cameras 2 --pictures 2 --set lookalikes=2 --set size=[48,24] --workers 1 --quiet"
    assert call(f"tapetum data generate {tmp_path / 'alike'} {tiny}").status == 0
    outcome = call(f"tapetum evaluate runs/ide --data synth={tmp_path / 'alike'} --out {tmp_path / 'out'} --quiet")
    assert outcome.status == 0, outcome.err
    pattern = r"^16 queries with a look-alike in the gallery: rank1 \S+  mean_ap \S+, first wrong answer one for \S+  "
    assert re.search(pattern, outcome.out, re.MULTILINE)


def test_several_protocols_stand_in_one_table(call: Call, trained: Path) -> None:
    outcome = call("tapetum evaluate runs/ide --protocol night600 --protocol night600_step --quiet")
    assert outcome.status == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[0].split() == ["protocol", "rank-1", "rank-10", "rank-20", "mAP", "mINP", "queries", "trials"]
    assert [line.split()[0] for line in lines[1:3]] == ["night600", "night600_step"]
    assert [line.split()[-1] for line in lines[1:3]] == ["1", "1"]
    assert lines[-2:] == ["runs/ide/evaluation/night600.json", "runs/ide/evaluation/night600_night600_step.json"]


def test_trials_of_regdb_are_averaged_and_none_is_tested_on_people_that_it_was_trained_on(
    call: Call, trained: Path, tmp_path: Path
) -> None:
    regdb.write_miniature(tmp_path / "RegDB", numpy_generator(0))
    sampler = "--set 'sampler={name: cross_modality, ids: 2, pictures: 2, steps: 1}'"
    for trial in (1, 2):
        out = tmp_path / f"run_{trial}"
        chosen = f"--data regdb={tmp_path / 'RegDB'} --set data.options.trial={trial}"
        assert call(f"tapetum train recipe.yaml {chosen} {sampler} --out {out} --quiet").status == 0
        assert call(f"tapetum evaluate {out} --protocol all --quiet").status == 0
    refused = call(f"tapetum evaluate {tmp_path / 'run_1'} --set data.options.trial=2 --quiet")
    assert_refused(
        refused, "data.options.trial = 1", "some of those trained on would be tested: keep 1, or take weights"
    )
    cards = [tmp_path / f"run_{trial}" / "evaluation" / "regdb_regdb_ir_to_vis.json" for trial in (1, 2)]
    averaged = call(f"tapetum report average {cards[0]} {cards[1]}")
    assert averaged.status == 0, averaged.err
    assert "over 2 trainings of ide on regdb (trial 1, 2; seed 2021), protocol regdb_ir_to_vis" in averaged.out
    across = call(f"tapetum report average {cards[0]} {cards[1].with_name('regdb_regdb_vis_to_ir.json')}")
    assert_refused(across, "differs from", "rules.")


def test_both_readings_of_llcm_stand_side_by_side_with_their_deviation(
    call: Call, trained: Path, tmp_path: Path
) -> None:

    write_miniature(tmp_path / "llcm", numpy_generator(0))
    outcome = call(f"tapetum evaluate runs/ide --data llcm={tmp_path / 'llcm'} --protocol all --quiet")
    assert outcome.status == 0, outcome.err
    rows = [re.split(r"  +", line) for line in outcome.out.splitlines()[:4]]
    assert [row[0] for row in rows[1:]] == [
        f"llcm_revised_{name}" for name in ("nir_to_vis", "vis_to_nir", "vis_to_nir_released_script")
    ]
    assert all(re.fullmatch(r"\d+\.\d\d ±\d+\.\d\d", cell) for row in rows[1:] for cell in row[1:6])
    drawn = [f"10, {side} drawn by the released codes' seeded choice" for side in ("galleries", "galleries", "queries")]
    assert [row[-1] for row in rows[1:]] == drawn
    single = call(f"tapetum evaluate runs/ide --data llcm={tmp_path / 'llcm'} --quiet")
    assert "(over 10 trials, galleries drawn by the released codes' seeded choice)" in single.out


def test_another_dataset_protocol_and_mirror_are_options_of_an_evaluation(
    call: Call, trained: Path, people: Path
) -> None:
    outcome = call(
        f"tapetum evaluate runs/ide --data night600={people} --protocol night600_step --no-mirror "
        "--set data.options.holdout_first=true --quiet"
    )
    assert outcome.status == 0, outcome.err
    assert "night600_holdout-first-True_night600_step_no_mirror.json" in outcome.out


def test_an_evaluation_on_another_folder_of_the_data_set_says_what_stays(
    call: Call, trained: Path, people: Path, tmp_path: Path
) -> None:
    shutil.copytree(people, tmp_path / "b")
    first, *_, last = sorted((tmp_path / "b" / "query_3").iterdir())
    shutil.copy(last, first)
    a = call(f"tapetum evaluate runs/ide --data night600={people} --out {tmp_path / 'out'} --quiet")
    assert (a.status, a.err) == (0, "")
    b = call(f"tapetum evaluate runs/ide --data night600={tmp_path / 'b'} --out {tmp_path / 'out'} --quiet")
    assert b.status == 0
    assert re.search(r"/out/night600_[0-9a-f]{8}\.json\n$", b.out)
    assert (
        f"{tmp_path / 'out' / 'night600.json'}: is of other pictures than those in {tmp_path / 'b'}, and stays" in b.err
    )


def test_a_gallery_is_extracted_and_searched(call: Call, trained: Path, people: Path) -> None:
    assert call(f"tapetum extract runs/ide night600={people} --out g.safetensors --quiet").out == (
        "g.safetensors: 32 pictures, 16 numbers each\n"
    )
    picture = sorted((people / "bounding_box_test").iterdir())[3]
    for gallery in ("g.safetensors", f"night600={people}", str(people / "bounding_box_test")):
        outcome = call(f"tapetum search runs/ide --query {picture} --query {picture} --gallery {gallery} -k 2 --quiet")
        assert outcome.status == 0, outcome.err
        lines = outcome.out.splitlines()
        assert len(lines) == 6
        assert lines[0] == f"query {picture}"
        assert re.match(r"   1  1\.0000  person .*" + picture.name, lines[1])


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ("train idf_oficial", ["recipe idf_oficial", "did you mean idf_official?"]),
        ("train recipe.yaml --set schedule.epoch=1", ["schedule.epoch is unknown; did you mean epochs?"]),
        ("train recipe.yaml --set schedule.epochs=ten", ["schedule.epochs is 'ten', expected integer"]),
        ("train recipe.yaml --data night600=/nonexistent --out new", ["/nonexistent does not exist"]),
        ("train recipe.yaml --data night600", ["data.root is not given"]),
        ("train recipe.yaml --data nigt600=/nonexistent --out new", ["did you mean night600?"]),
        ("train recipe.yaml --set sampler.batch=8 --out recipe.yaml/run", ["recipe.yaml"]),
        ("train recipe.yaml --set seed=1 --out runs/ide", ["runs/ide holds a run with seed = 2021, now it is 1"]),
        ("train recipe.yaml --set sampler={name:\\ pk,\\ ids:\\ 9,\\ pictures:\\ 2} --out new", ["fewer than P = 9"]),
        ("train recipe.yaml --data night600=empty --out new", ["empty", "night600"]),
        ("train recipe.yaml --data night600=runs --out new", ["runs", "night600"]),
        ("evaluate runs/ide --set schedule.epochs=3", ["--set schedule.epochs=3", "only data.name, data.root"]),
        ("evaluate runs/ide --set data.size=[8,4]", ["takes data.size from the checkpoint"]),
        (
            "evaluate runs/ide --camera-norm mean",
            ["--camera-norm is 'mean', expected none, centre, standard, modality"],
        ),
        ("evaluate runs/ide --rank calibratd", ["--rank calibratd: is unknown; did you mean calibrated?"]),
        (
            "evaluate runs/ide --rank calibrated",
            ["there is no runs/ide/calibration.json; run `tapetum calibrate runs/ide`"],
        ),
        ("evaluate runs/ide --calibration c.json", ["--calibration c.json: only --rank calibrated takes one"]),
        ("evaluate runs/ide --precision foo", ["--precision is 'foo', expected fp32, bf16, fp16 or auto"]),
        ("extract runs/ide empty --out x", ["empty: no picture in this folder or below it"]),
        ("evaluate runs/nothing", ["runs/nothing: no such run folder or checkpoint file"]),
        ("evaluate recipe.yaml", ["recipe.yaml: not a readable safetensors file"]),
        ("evaluate runs/ide --protocol night60", ["protocol 'night60' is unknown; did you mean night600?"]),
        (
            "train recipe.yaml --set init.weights=runs/ide --set 'method={name: zero_dce}' "
            "--set optimiser.group_lr={} --out new",
            ["last.safetensors: method is 'ide', expected 'zero_dce'"],
        ),
        (
            "train recipe.yaml --set init.weights=runs/ide --set 'selection={rule: holdout, ids: 3}' --out new",
            ["runs/ide: was trained on 3 of the people whom night600 in", " holds out or tests (pid "],
        ),
        ("extract runs/ide folder --out x", ["data.root is not given"]),
        ("search runs/ide --query no.jpg --gallery recipe.yaml", ["recipe.yaml: cannot be read as embeddings"]),
        ("convert --from idf-official recipe.yaml out.safetensors", ["recipe.yaml"]),
        ("convert --to idf-official runs/ide out.pth", ["idf-official"]),
    ],
)
def test_bad_input_is_one_line_with_place_value_and_remedy_and_status_2(
    call: Call, trained: Path, command: str, parts: list[str]
) -> None:
    before = set(trained.rglob("*"))
    assert_refused(call(f"tapetum {command}"), *parts)
    assert set(trained.rglob("*")) - before <= {trained / "runs" / "ide" / ".lock"}


def test_a_picture_too_large_to_decode_is_refused_by_name(
    call: Call, trained: Path, people: Path, tmp_path: Path
) -> None:
    shutil.copytree(people, tmp_path / "data")
    header = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    victim = sorted((tmp_path / "data" / "bounding_box_train").iterdir())[5]
    victim.write_bytes(png)
    command = f"tapetum train recipe.yaml --data night600={tmp_path / 'data'} --out {tmp_path / 'run'} --quiet"
    assert_refused(call(command), victim.name, "20000")
    assert_refused(call(f"tapetum extract runs/ide {victim} --out {tmp_path / 'x'} --quiet"), victim.name, "20000")
    assert not (tmp_path / "x").exists()


def test_a_second_run_into_one_folder_is_refused(call: Call, trained: Path, tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run").held():
        assert_refused(call(f"tapetum train recipe.yaml --out {tmp_path / 'run'}"), "in use by another run (process ")
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def test_a_full_disk_leaves_no_half_file_and_the_training_goes_on_later(
    call: Call, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    command = f"tapetum train recipe.yaml --out {tmp_path / 'run'} --quiet"
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        assert_refused(call(command), "cannot be written (No space left on device); free space")
    assert not (tmp_path / "run").exists()
    assert call(command).status == 0


def test_a_loss_that_is_not_a_number_ends_a_training_with_one_line(
    call: Call, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ide.Method, "losses", lambda *_: {"id": torch.tensor(float("nan"), requires_grad=True)})
    outcome = call(f"tapetum train recipe.yaml --out {tmp_path / 'run'} --quiet")
    assert_refused(outcome, "loss id became nan in epoch 1, step 1; no epoch was complete")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_damaged_pictures_are_named_or_with_skip_corrupt_left_out_and_counted(
    call: Call, trained: Path, people: Path, tmp_path: Path
) -> None:
    shutil.copytree(people, tmp_path / "data")
    victim = sorted((tmp_path / "data" / "query_3").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:50])
    command = f"tapetum evaluate runs/ide --data night600={tmp_path / 'data'} --out {tmp_path / 'out'} --quiet"
    assert_refused(call(command), victim.name)
    outcome = call(f"{command} --skip-corrupt")
    assert outcome.status == 0
    assert outcome.err.startswith("1 damaged pictures left out, first: ")
    assert victim.name in outcome.err
    assert "7 queries" in outcome.out
    assert "without 1 damaged pictures of the dataset, which count for nobody" in outcome.out
    (card,) = (tmp_path / "out").glob("*.json")
    assert json.loads(card.read_text())["data"]["damaged"] == 1


def test_convert_wants_one_direction(call: Call, trained: Path) -> None:
    for options in ("", "--from idf-official --to idf-official"):
        outcome = call(f"tapetum convert {options} a b")
        assert outcome.status == 2
        assert "give either --from LAYOUT or --to LAYOUT" in outcome.err


def test_a_checkpoint_of_the_same_method_and_people_is_where_a_training_begins(
    call: Call, trained: Path, tmp_path: Path
) -> None:
    rate = "optimiser.lr=1e-12 --set optimiser.group_lr={}"
    outcome = call(
        f"tapetum train recipe.yaml --set init.weights=runs/ide --set {rate} --out {tmp_path / 'run'} --quiet"
    )
    assert outcome.status == 0, outcome.err
    before, after = (load_file(RunFolder(place).last) for place in (Path("runs/ide"), tmp_path / "run"))
    name = next(name for name in before if name.startswith("branch.") and name.endswith("weight"))
    torch.testing.assert_close(after[name], before[name])


def test_ctrl_c_while_pictures_are_prepared_leaves_a_hint_and_status_130(
    call: Call, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tapetum.runs.sources.open_data", interrupt)
    outcome = call(f"tapetum train recipe.yaml --out {tmp_path / 'run'} --quiet")
    assert outcome.status == 130
    assert outcome.err == "tapetum: stopped before the training began; the same command goes on\n"


@pytest.mark.slow
def test_ctrl_c_leaves_a_state_a_hint_and_status_130(trained: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from tapetum.cli.main import run; run()"]
    command += ["train", "recipe.yaml", "--set", "schedule.epochs=500", "--out", str(tmp_path / "run")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        state = tmp_path / "run" / "state" / "resume.pt"
        give_up = time.monotonic() + 120
        while not state.is_file() and process.poll() is None and time.monotonic() < give_up:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "the same command goes on from" in err.splitlines()[-1]
    assert (tmp_path / "run" / "checkpoints" / "last.safetensors").is_file()
