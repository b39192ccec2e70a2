<<<<<<< HEAD
"""Benchmarks, small: those for other machines start when one is there; what was tried gives equal numbers."""
=======
"""Benchmarks of which a test can say more than that they ran: which methods are measured, and on other machines."""
>>>>>>> w-bench

import json
from pathlib import Path

import pytest
<<<<<<< HEAD
import torch
from benchmarks import bench_tried, device
from benchmarks.tried_networks import Joined, fold_norms, join_expansion, pair_networks
from torch import nn

from tapetum.methods import build_method, small_options

SIZE = (64, 32)
=======
from benchmarks import __main__ as command
from benchmarks import bench_methods, device

from tapetum.core.errors import RecipeError
from tapetum.methods import small_options
from tapetum.runs.recipe import list_recipes, load_recipe
>>>>>>> w-bench


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


<<<<<<< HEAD
@pytest.fixture
def one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_tried, "ROUNDS", 1)


def norms_of(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.mark.usefixtures("one_round")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ide", small_options("ide")),
        ("ide", {"backbone": "tf_efficientnet_lite0"}),
        ("deen", small_options("deen")),
        ("deen", {"backbone": "resnet26"}),  # wide enough for Winograd's filtering, which takes no bias
    ],
)
def test_folding_norms_into_convolutions_changes_no_vector(name: str, options: dict[str, object]) -> None:
    method = bench_tried.settle(build_method(name, options, bench_tried.NUM_IDS), SIZE)
    assert len(norms_of(fold_norms(method))) < len(norms_of(method)) / 10  # test_resnet's deep stem keeps one
    row = bench_tried.measure_folding(name, method, bench_tried.draw(2, SIZE), bf16=False)
    assert 0 < row["difference"] <= 1e-4


@pytest.mark.usefixtures("one_round")
def test_the_1x1_of_an_expansion_can_be_joined_to_the_stage_behind_it_with_all_gradients() -> None:
    options = {"backbone": "resnet26", "dropout": 0.0}
    method = bench_tried.settle(build_method("deen", options, bench_tried.NUM_IDS), SIZE).train()
    maps = torch.randn(2, 1024, 4, 2)
    sides = method, join_expansion(method, fixed=False)
    plain, joined = (bench_tried.learn_expanded(each, maps, bf16=False) for each in sides)
    assert bench_tried.distance(joined, plain) <= 1e-3
    fixed = join_expansion(method, fixed=True)
    stage = method.network.stages[3]  # type: ignore[index, union-attr]
    seen = fixed.network.stages[3](fixed.expansion(maps))
    assert bench_tried.distance([seen], [stage(method.expansion(maps))]) <= 1e-4  # type: ignore[operator]


def test_a_stage_that_begins_with_3x3_convolutions_takes_no_1x1_in() -> None:
    method = build_method("deen", small_options("deen"), bench_tried.NUM_IDS)
    with pytest.raises(ValueError, match="1x1"):
        Joined(method.network.stages[3][0].conv1, method.expansion, fixed=True)  # type: ignore[index, union-attr, arg-type]


@pytest.mark.usefixtures("one_round")
def test_two_extractors_in_one_network_of_two_groups_give_what_each_gives() -> None:
    rows = list(bench_tried.measure_pair("test_resnet", bench_tried.draw(2, SIZE), bf16=False))
    assert [row["difference"] <= 1e-4 for row in rows] == [True, True]


def test_a_pair_keeps_the_statistics_of_both() -> None:
    first, second = (nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)) for _ in range(2))
    second(torch.rand(2, 3, 4, 4))
    pair = pair_networks(first, second)
    expected = torch.cat([each[1].running_mean for each in (first, second)])  # type: ignore[misc]
    torch.testing.assert_close(norms_of(pair)[0].running_mean, expected)


@pytest.mark.usefixtures("one_round")
def test_the_weight_gradient_by_columns_is_that_of_the_convolution() -> None:
    maps, gradient = (torch.randn(2, 4, 6, 5) for _ in range(2))
    expected = bench_tried.convolve_backward(maps, gradient, torch.zeros(4, 4, 3, 3))
    torch.testing.assert_close(bench_tried.multiply_columns(maps, gradient), expected)
    assert bench_tried.measure_columns("small", 16, 8, 4, batch=2)["ratio"] > 0


def test_a_way_that_gives_other_numbers_is_refused() -> None:
    ones = [torch.ones(3)]
    with pytest.raises(AssertionError, match=r"half: differs by 5\.0e-01"):
        bench_tried.check("half", [torch.full((3,), 0.5)], ones)
=======
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
>>>>>>> w-bench
