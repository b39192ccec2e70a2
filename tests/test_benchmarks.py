"""Benchmarks of which a test can say more than that they ran: which methods are measured, and on other machines."""

import json
from pathlib import Path

import pytest
from benchmarks import __main__ as command
from benchmarks import bench_methods, device

from tapetum.core.errors import RecipeError
from tapetum.methods import small_options
from tapetum.runs.recipe import list_recipes, load_recipe


@pytest.mark.slow
def test_what_is_run_on_a_gpu_runs_on_a_cpu_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "CACHE", tmp_path / "data")
    device.main(["--small", "--steps", "2", "--out", str(tmp_path / "device.json")])
    content = json.loads((tmp_path / "device.json").read_text())
    assert content["small"] is True
    assert list(content["rows"]) == ["IDF", "DEEN", "TransReID"]
    for by_precision in content["rows"].values():
        assert "bf16" in by_precision
        for row in by_precision.values():
            assert row["training_pictures_per_second"] > 0
            assert row["extraction_pictures_per_second"] > 0
            assert row["loading_share"] > 0
            assert row["evaluation_seconds"] > 0
            assert row["peak_bytes"] is None or row["peak_bytes"] > 2**20


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
