"""Benchmarks of which a test can say more than that they ran: which methods are measured, and on other machines."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from benchmarks import __main__ as command
from benchmarks import bench_footage, bench_limit, bench_load, bench_methods, device, mixed, workers
from benchmarks.growth import __main__ as growth

from tapetum.core.errors import RecipeError
from tapetum.core.threads import WAITING
from tapetum.experiments.league import LeagueOptions, run_league
from tapetum.methods import build_method as build
from tapetum.methods import small_options
from tapetum.runs.recipe import list_recipes, load_recipe


@pytest.mark.slow
def test_what_is_run_on_a_gpu_runs_on_a_cpu_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "CACHE", tmp_path / "data")
    monkeypatch.setattr(device, "ROUNDS", 2)
    extract = device.Subject.extract

    def fail_of_deen(subject: device.Subject) -> None:
        if subject.recipe.method.name == "deen":
            raise torch.OutOfMemoryError("out of memory\nsecond line")
        extract(subject)

    monkeypatch.setattr(device.Subject, "extract", fail_of_deen)
    out = tmp_path / "device.json"
    assert device.main(["--small", "--steps", "2", "--out", str(out)]) == 1
    content = json.loads(out.read_text())
    assert content["small"] is True
    assert content["evaluation"]["seconds"] > 0
    assert list(content["rows"]) == ["IDF", "DEEN", "TransReID"]
    for label, by_precision in content["rows"].items():
        assert list(by_precision) == ["bf16"]
        row = by_precision["bf16"]
        assert row["training_pictures_per_second"] > 0
        assert row["loading_share"] > 0
        assert row["loading_share_without_cache"] > 0
        assert row["cudnn_benchmark"] is False
        assert row["peak_bytes"] is None or row["peak_bytes"] > 2**20
        if label == "DEEN":
            assert row["failed"] == "extract: OutOfMemoryError: out of memory"
            assert "extraction_pictures_per_second" not in row
            continue
        assert "failed" not in row
        assert (row["recompute"], row["mirror"]) == (None, label == "IDF")
        assert row["extraction_precision"] == "bf16"
        assert row["extraction_pictures_per_second"] > 0
        assert row["extraction_from_files_per_second"] > 0
        assert row["evaluation_seconds"] > 0


def test_the_script_for_a_gpu_refuses_a_cpu_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(device.torch.cuda, "is_available", lambda: False)
    out = tmp_path / "device.json"
    assert device.main(["--out", str(out)]) == 2
    assert capsys.readouterr().out.count("\n") == 1
    assert not out.exists()


def test_bf16_comes_before_fp16_and_each_recipe_keeps_its_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "choose_device", lambda _: torch.device("cuda"))
    asked = []
    monkeypatch.setattr(device, "measure", lambda recipe, *_: asked.append(recipe) or {})
    rows = [(label, precision) for label, precision, _ in device.run(["IDF", "DEEN", "TransReID"], 150, small=False)]
    assert rows == [(label, precision) for precision in ("bf16", "fp16") for label in ("IDF", "DEEN", "TransReID")]
    assert [recipe.schedule.warmup_epochs for recipe in asked] == [0, 9, 5] * 2
    assert {recipe.data.workers for recipe in asked} == {device.count_cores()}


def test_every_method_that_has_a_scene_recipe_is_measured_once() -> None:
    families = bench_methods.list_subjects()
    assert [names[0] for names in families.values()] == ["deen", "ide"]
    measured = [load_recipe(f"{name}_synth") for names in families.values() for name in names]
    networks = [bench_methods.describe_network(recipe) for recipe in measured]
    scenes = [load_recipe(name) for name in list_recipes() if name.endswith("_synth")]
    assert len(set(networks)) == len(networks)
    assert set(networks) == {bench_methods.describe_network(recipe) for recipe in scenes}
    assert {recipe.method.name for recipe in measured} == {recipe.method.name for recipe in scenes}
    assert {"idf_agw", "idf_transreid", "idf_pcb", "student", "enlighten_gan"} <= set(families["visible"])


def shrink(name: str) -> list[str]:
    """Overrides for a network and pictures that a test can wait for."""
    method = load_recipe(f"{name}_synth").method
    options = small_options(method.name)
    if "extractor" in method.options:
        options["extractor_options"] = small_options(method.options["extractor"])
    return ["data.size=[64, 32]", *(f"method.{option}={json.dumps(value)}" for option, value in options.items())]


@pytest.mark.parametrize("name", ["ddag", "caj"])  # one that looks at its pictures first, one of several views
def test_a_small_method_is_measured(name: str, one_thread: None) -> None:
    found = bench_methods.measure(name, "fp32", shrink(name))
    assert found.batch == (24 if name == "caj" else 16)
    assert len(found.steps) == len(found.extractions) == bench_methods.STEPS
    assert min(*found.steps, *found.extractions) > 0
    assert found.peak is None or found.peak > 2**26


@pytest.mark.slow
def test_every_method_can_be_measured(one_thread: None) -> None:
    for names in bench_methods.list_subjects().values():
        for name in names:
            assert min(bench_methods.measure(name, "bf16", shrink(name)).steps) > 0, name


def test_methods_take_turns_and_are_compared_with_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = []

    class Here:
        def __init__(self, *_: object, **__: object) -> None: ...
        def __enter__(self) -> "Here":
            return self

        def __exit__(self, *_: object) -> None: ...
        def submit(self, work: object, name: str, precision: str) -> "Here":
            turns.append((name, precision))
            return self

        def result(self) -> bench_methods.Found:
            seconds = 2.0 if turns[-1][0] == "ddag" else 1.0
            return bench_methods.Found(16, (seconds,) * 3, (seconds / 4,) * 3, int(seconds * 2**30))

    monkeypatch.setattr(bench_methods, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(bench_methods, "has_fast_bf16", lambda device: False)
    rows = list(bench_methods.run(["ddag"]))
    assert turns == [("deen", "fp32"), ("ddag", "fp32")] * bench_methods.ROUNDS
    told = [(row["name"].partition(",")[0], row["ours"], row["peer"], row["ratio"]) for row in rows]
    assert told == [
        ("deen training step", 16.0, None, None),
        ("deen extraction", 64.0, None, None),
        ("deen peak memory", 1.0, None, None),
        ("ddag training step", 8.0, 16.0, 0.5),
        ("ddag extraction", 32.0, 64.0, 0.5),
        ("ddag peak memory", 2.0, 1.0, 0.5),
    ]


def test_a_name_that_no_method_has_is_refused_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"--only dadg: no such method; did you mean ddag\?"):
        next(bench_methods.run(["dadg"]))


def test_only_picks_methods_and_is_refused_where_there_are_none_to_pick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "RESULT", tmp_path / "bench.json")
    given = []
    monkeypatch.setattr(bench_methods, "run", lambda only: given.append(only) or [])
    assert command.main(["synth", "--only", "ddag"]) == 2
    assert "synth: takes no --only" in capsys.readouterr().out
    assert command.main(["methods", "--only", "ddag", "--only", "lba"]) == 0
    assert given == [["ddag", "lba"]]


def test_long_benchmarks_run_when_named_whole_or_all_together() -> None:
    long = set(filter(command.is_long, command.list_all()))
    assert {"deen_published", "gallery", "load", "methods", "tried"} <= long
    assert not long & set(command.list_benchmarks())
    assert set(command.list_benchmarks(["long"])) == long
    assert command.list_benchmarks(["deen"]) == ["deen"]
    assert command.list_benchmarks(["deen_published", "synth"]) == ["deen_published", "synth"]
    assert command.list_benchmarks(["load"]) == ["load", "loader"]


def test_help_and_the_page_say_which_are_long(capsys: pytest.CaptureFixture[str]) -> None:
    long = set(filter(command.is_long, command.list_all()))
    page = (Path(__file__).parents[1] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \| \*long:\*", page, re.MULTILINE)) == long
    with pytest.raises(SystemExit):
        command.main(["--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert f"Long ones: {', '.join(sorted(long))}." in printed
    assert "`growth`" in printed
    assert "`device`" in printed


def test_growth_and_the_script_for_a_gpu_run_when_they_are_named_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "RESULT", tmp_path / "bench.json")
    called: list[list[str]] = []

    def measure(words: list[str]) -> int:
        called.append(words)
        return 2 if words[0] == "index" else 0

    monkeypatch.setattr(growth, "main", measure)
    monkeypatch.setattr(device, "main", lambda words: called.append(["device", *words]))
    assert command.main(["growth", "device"]) == 1
    assert [words[0] for words in called] == ["evaluation", "gallery", "index", "service", "device"]
    assert called[0] == ["evaluation", "--out", str(tmp_path / "growth_evaluation.json")]
    assert "broken: growth" in capsys.readouterr().out
    assert not (tmp_path / "bench.json").exists()


def test_a_run_of_short_ones_keeps_the_rows_of_long_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "RESULT", tmp_path / "bench.json")
    row = {"ours": 1.0, "peer": None, "ratio": None, "unit": "s", "target": None, "note": ""}
    (tmp_path / "bench.json").write_text(json.dumps([{"name": "of a long one", **row}]))
    monkeypatch.setattr(command, "load", lambda name: SimpleNamespace(run=lambda: [{"name": name, **row}]))
    assert command.main([]) == 0
    assert [each["name"] for each in json.loads((tmp_path / "bench.json").read_text())] == [
        "of a long one",
        *command.list_benchmarks(),
    ]
    assert command.main(["long"]) == 0
    names = [each["name"] for each in json.loads((tmp_path / "bench.json").read_text())]
    assert names[0] == "of a long one"
    assert sorted(names[1:]) == command.list_all()


def test_threads_wait_as_the_programs_do_before_torch_is_loaded_and_no_earlier_checkout_is_told() -> None:
    code = (
        "import os, sys, pathlib\n"
        "import benchmarks.__main__, benchmarks.growth.__main__\n"
        "from benchmarks import workers\n"
        "assert 'torch' not in sys.modules\n"
        "workers.wait_as_the_program()\n"
        "print(os.environ['OMP_WAIT_POLICY'])\n"
        "print(workers.environment_for(workers.ROOT / 'src').get('OMP_WAIT_POLICY'))\n"
        "print(workers.environment_for(pathlib.Path('before/src')).get('OMP_WAIT_POLICY'))\n"
    )
    kept = {name: value for name, value in os.environ.items() if name not in WAITING}
    environment = {**kept, "PYTHONPATH": workers.environment_for(workers.ROOT / "src")["PYTHONPATH"]}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["passive", "passive", "None"]
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "OMP_WAIT_POLICY": "active"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split() == ["active"] * 3


def test_shares_of_a_products_rate_say_what_was_asked_and_missed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_limit, "ROUNDS", 1)
    monkeypatch.setattr(bench_limit, "SIDE", 256)
    small = bench_limit.Subject("IDE+", "ide", (64, 32), (3, 2))
    options = small_options("ide")
    monkeypatch.setattr(
        bench_limit, "build_method", lambda name, _, *given, **named: build(name, options, *given, **named)
    )
    rows = list(bench_limit.measure(small))
    assert ", batch 8: " in rows[0]["name"]
    assert ", batch 6: " in next(bench_limit.measure(small, *small.published))["name"]
    assert {row["target"] for row in rows} == {0.8}
    assert {subject.name: subject.target for subject in bench_limit.SUBJECTS if subject.target != 0.8} == {
        "transreid": 0.9
    }
    recipes = {"idf": "idf_official", "deen": "deen_llcm"}
    for subject in bench_limit.SUBJECTS:
        recipe = load_recipe(recipes.get(subject.name, f"{subject.name}_night600"))
        people, pictures = subject.published
        assert recipe.sampler.global_batch == people * pictures * len(subject.modalities)
        assert recipe.data.size == subject.size
    assert "billion multiply-adds a picture" in rows[0]["note"]
    assert f"the product's rate: {rows[0]['peer']:.0f} GFLOP/s" in rows[0]["note"]
    command.print_row({**rows[0], "ratio": 0.7})
    assert "asked 0.8x: MISSED" in capsys.readouterr().out


def test_a_process_that_cannot_start_says_why(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    package = tmp_path / "src" / "tapetum"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('too old for this')\n")
    with (
        pytest.raises(workers.NotPreparedError, match=r"ended with status 1 \(RuntimeError: too old for this\)"),
        workers.worker("benchmarks.tried_work", source=tmp_path / "src"),
    ):
        pass
    assert "Traceback" in capfd.readouterr().err


def test_an_earlier_checkout_that_cannot_start_is_left_out_and_the_row_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: dict[str, Any] = {
        "": 1.0,
        "whole": {"seconds": 1.0, "cpu": 1.0, "frames": 10, "rows": ["a"], "sum": [0.0]},
        "stages": {"decode": 0.5, "detect": 0.8},
    }

    @contextmanager
    def worker(*_: str, source: Path = workers.ROOT / "src", **__: object) -> Iterator[workers.Ask]:
        if source == tmp_path:
            raise workers.NotPreparedError("it ended with status 1 (too old for this)")
        yield answers.__getitem__

    monkeypatch.setenv("TAPETUM_BEFORE", str(tmp_path))
    for benchmark in (bench_load, bench_footage):
        monkeypatch.setattr(benchmark, "worker", worker)
    monkeypatch.setattr(bench_load, "busy_process", nullcontext)
    loaded = list(bench_load.measure("index", tmp_path, rounds=1))
    watched = list(bench_footage.measure(tmp_path, "a clip", "background", tmp_path, 10, 1))
    for rows in (loaded, watched):
        assert not any("commit before" in row["name"] for row in rows)
        assert rows[0]["note"].endswith("; the commit before is left out: it ended with status 1 (too old for this)")


@pytest.mark.slow
def test_what_the_means_of_modalities_and_cameras_gain_is_measured_for_a_league_s_runs(tmp_path: Path) -> None:
    small = ("data.scene.size=[64, 32]", "schedule.warmup_epochs=0", "sampler.steps=2", *shrink("two_stream"))
    options = LeagueOptions(
        tmp_path,
        "infrared",
        people=8,
        test_people=8,
        cameras=4,
        epochs=1,
        seeds=(1,),
        only=("two-stream",),
        overrides=small,
        from_scratch=True,
    )
    (row,) = run_league(options, cache=tmp_path, quiet=True)["rows"]
    out = tmp_path / "mixed.json"
    mixed.main(["--runs", str(tmp_path), "--only", "two_stream", "--json", str(out)])
    content = json.loads(out.read_text())
    assert content["command"].endswith("--only two_stream")
    (measured,) = content["runs"].values()
    assert list(content["runs"]) == ["two_stream_seed1"]
    usual = measured["ways"]["as it is"]
    assert usual["mean_ap"] == pytest.approx(100 * row["mixed"]["mean_ap"]["mean"], abs=1e-4)
    for kind, bias in row["mixed"]["modality_bias"].items():
        assert usual[kind]["modality_bias"] == pytest.approx(bias["mean"], abs=1e-4)
    gain = measured["ways"]["centre"]["mean_ap"] - usual["mean_ap"]
    assert measured["differences"]["centre less as it is"]["mean_ap"][0] == pytest.approx(gain, abs=1e-3)
    mixed.main(["--runs", str(tmp_path), "--only", "deen", "--json", str(out)])
    assert json.loads(out.read_text())["runs"] == {}
