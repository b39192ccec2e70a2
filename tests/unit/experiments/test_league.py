"""A league: rows, runs that go on or are refused, and what it says about differences."""

import json
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from tapetum.cli.main import app
from tapetum.core.errors import DataError, RecipeError
from tapetum.data.datasets.synth import NAME as SYNTH
from tapetum.experiments import league
from tapetum.experiments.league import FAMILIES, LeagueOptions, league_rows, run_league, tabulate_kept
from tapetum.experiments.league_measures import count_work
from tapetum.experiments.league_table import render_league, summarise
from tapetum.inference.embedder import Embedder
from tapetum.inference.evaluate import evaluate_run
from tapetum.runs.recipe import load_recipe

SPLITS = {"train": ("bounding_box_train",), "test": ("bounding_box_test", "query_3")}  # folders of the visible layout
SMALL = (
    "data.scene.size=[64, 32]",
    "data.size=[64, 32]",
    "schedule.warmup_epochs=0",
    "sampler.steps=2",
    "evaluation.batch=4",
)


def options(out: Path, **changes: Any) -> LeagueOptions:
    usual: dict[str, Any] = {
        "people": 8,
        "test_people": 4,
        "cameras": 2,
        "epochs": 1,
        "seeds": (1, 2),
        "only": ("IDE+", "PCB"),
        "overrides": SMALL,
        "from_scratch": True,
    }
    return LeagueOptions(out, **{**usual, **changes})


def only_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows whose labels hold IDE+ are IDF's, too: leave the two first."""
    family = FAMILIES["visible"]
    monkeypatch.setitem(FAMILIES, "visible", replace(family, entries=family.entries[:2]))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_row_has_the_same_pictures_steps_and_epochs(family: str, tmp_path: Path) -> None:
    rows = league_rows(LeagueOptions(tmp_path, family))
    recipes = [load_recipe(row.recipe, [*row.train_on.overrides, *row.overrides]) for row in rows]
    assert len({row.run for row in rows}) == len({row.label for row in rows}) == len(rows)
    assert len({json.dumps(recipe.data.scene, sort_keys=True) for recipe in recipes}) == 1
    assert len({(recipe.data.size, recipe.schedule.epochs) for recipe in recipes}) == 1
    assert len({recipe.sampler.options["steps"] for recipe in recipes}) == 1
    assert {recipe.selection.rule for recipe in recipes} == {"last"}
    assert {(recipe.evaluation.mirror, recipe.evaluation.camera_norm) for recipe in recipes} == {(True, "none")}
    assert len({recipe.evaluation.protocol for recipe in recipes}) == 1
    assert {recipe.sampler.global_batch for recipe in recipes} <= {32, 48}  # CAJ shows visible pictures twice


@pytest.mark.slow
def test_a_league_compares_every_pair_goes_on_and_trains_again_what_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_two(monkeypatch)
    order: list[str] = []
    trained = league.train_plan

    def stop_after_three(plan: Any, *rest: Any) -> Any:
        order.append(plan.folder.name)
        if len(order) == 4:
            raise KeyboardInterrupt
        return trained(plan, *rest)

    monkeypatch.setattr(league, "train_plan", stop_after_three)
    with pytest.raises(KeyboardInterrupt):
        run_league(options(tmp_path), cache=tmp_path, quiet=True)
    assert order == ["ide_seed1", "pcb_seed1", "ide_seed2", "pcb_seed2"]  # all rows before the second seed
    half = json.loads((tmp_path / "league.json").read_text())
    assert [row["seeds"] for row in half["rows"]] == [[1, 2], [1]]
    assert half["pairs"][0]["real"] is None
    assert "1 runs of these rows are still to come" in (tmp_path / "league.md").read_text()
    order[:] = ["", ""]
    with pytest.raises(KeyboardInterrupt):  # in the second run, after the table was written anew
        run_league(options(tmp_path), cache=tmp_path, quiet=True)
    assert json.loads((tmp_path / "league.json").read_text()) == half

    monkeypatch.setattr(league, "train_plan", trained)
    content = run_league(options(tmp_path), cache=tmp_path, quiet=True)
    assert [row["seeds"] for row in content["rows"]] == [[1, 2], [1, 2]]
    (pair,) = content["pairs"]
    means = [row["mean_ap"]["mean"] for row in content["rows"]]
    assert pair["mean_ap"]["difference"] == pytest.approx(means[0] - means[1], abs=1e-5)
    assert pair["real"] == (pair["mean_ap"]["low"] > 0 or pair["mean_ap"]["high"] < 0)
    assert content == json.loads((tmp_path / "league.json").read_text())
    for split, count in (("train", "training_pictures"), ("test", "testing_pictures")):
        folders = [tmp_path / "scene" / name for name in SPLITS[split]]
        assert content["scene"][count] == len({path.name for folder in folders for path in folder.iterdir()})
    assert (tmp_path / "league.svg").read_text().count("IDE+") >= 2
    for row in content["rows"]:
        assert row["mean_ap"]["deviation"] is not None
        assert row["training_pictures_per_second"] > 0
        assert row["extraction_pictures_per_second"] > 0
        assert (row["epochs"], row["steps_an_epoch"], row["batch"]) == (1, 2, 32)
        assert "from scratch" in row["start"]

    weights = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/checkpoints/last.safetensors")}
    assert len(weights) == 4
    unmirrored = run_league(
        options(tmp_path, overrides=(*SMALL, "evaluation.mirror=false")), cache=tmp_path, quiet=True
    )
    assert [row["mirror"] for row in (*content["rows"], *unmirrored["rows"])] == [True, True, False, False]
    for one, other in zip(content["rows"], unmirrored["rows"], strict=True):
        assert one["multiply_adds"] == 2 * other["multiply_adds"]
        assert one["training_pictures_per_second"] == other["training_pictures_per_second"]
    assert all(path.stat().st_mtime_ns == time for path, time in weights.items())
    assert run_league(options(tmp_path), cache=tmp_path, quiet=True)["pairs"] == content["pairs"]  # tested again, alike
    shutil.rmtree(tmp_path / "pcb_seed1")
    again = run_league(options(tmp_path), cache=tmp_path, quiet=True)
    moved = {path.parts[-3] for path, time in weights.items() if path.stat().st_mtime_ns != time}
    assert moved == {"pcb_seed1"}
    assert again["pairs"] == content["pairs"]  # the same weights from the same seed

    monkeypatch.setattr(league, "train_plan", lambda *_: pytest.fail("a training was begun"))
    with pytest.raises(RecipeError, match=r"ide_seed1 holds a run with optimiser.lr = 0.001, now it is 0.5; .*--out"):
        run_league(options(tmp_path, overrides=(*SMALL, "optimiser.lr=0.5")), cache=tmp_path, quiet=True)
    with pytest.raises(RecipeError, match=r"ide_seed1 holds a run with data.scene.num_test_people = 4, now it is 5"):
        run_league(options(tmp_path, test_people=5), cache=tmp_path, quiet=True)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_entry_of_a_family_is_trained_tested_and_compared(
    family: str, small_networks: None, tmp_path: Path
) -> None:
    cameras = 2 if family == "visible" else 4  # two of them infrared
    content = run_league(
        options(tmp_path, family=family, cameras=cameras, seeds=(1,), only=()), cache=tmp_path, quiet=True
    )
    labels = [entry.label for entry in FAMILIES[family].entries]
    assert [row["label"] for row in content["rows"]] == labels
    assert [row["seeds"] for row in content["rows"]] == [[1]] * len(labels)
    assert {(row["epochs"], row["steps_an_epoch"]) for row in content["rows"]} == {(1, 2)}
    assert all(0 < row["mean_ap"]["mean"] <= 1 for row in content["rows"])
    if family == "visible":
        assert content["mixed"] is None
    else:
        assert content["mixed"]["runs_without"] == 0
        assert all(0 < row["mixed"]["mean_ap"]["mean"] <= 1 for row in content["rows"])
    assert {tuple(pair["rows"]) for pair in content["pairs"]} == set(combinations(labels, 2))
    assert "to come" not in (tmp_path / "league.md").read_text()


def test_what_was_kept_is_of_other_settings_where_a_method_s_default_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = league.league_rows(options(tmp_path))[0]
    plan = league.make_plan(row, 1, {SYNTH: str(tmp_path)}, tmp_path, ())
    before = league._name_settings(plan)
    assert league._name_settings(replace(plan, folder=tmp_path / "elsewhere")) == before
    readers = league.make_plan(row, 1, {SYNTH: str(tmp_path / "there")}, tmp_path, ("data.workers=7",))
    assert league._name_settings(readers) == before
    build = league.build_options
    monkeypatch.setattr(league, "build_options", lambda *method: replace(build(*method), width=3))
    assert league._name_settings(plan) != before


@pytest.mark.slow
def test_results_that_were_kept_make_the_same_table_without_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_two(monkeypatch)
    first = run_league(options(tmp_path / "here", kept=tmp_path / "kept"), cache=tmp_path, quiet=True)
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == [
        "visible-ide_seed1.json", "visible-ide_seed2.json", "visible-pcb_seed1.json", "visible-pcb_seed2.json",
    ]  # fmt: skip
    monkeypatch.setattr(league, "train_plan", lambda *_: pytest.fail("a training was begun"))
    second = run_league(options(tmp_path / "there", kept=tmp_path / "kept"), cache=tmp_path, quiet=True)
    assert second["rows"] == first["rows"]
    for one, other in zip(first["pairs"], second["pairs"], strict=True):
        assert one["real"] == other["real"]
        for end in ("difference", "low", "high"):
            assert one["mean_ap"][end] == pytest.approx(other["mean_ap"][end], abs=2e-6)
    unmirrored = (*SMALL, "evaluation.mirror=false")  # which the run folders alone would allow
    with pytest.raises(DataError, match=r"visible-ide_seed1\.json: was measured by other settings than .* for IDE\+"):
        run_league(options(tmp_path / "here", kept=tmp_path / "kept", overrides=unmirrored), cache=tmp_path, quiet=True)
    changed = options(tmp_path / "there", kept=tmp_path / "kept", overrides=(*SMALL, "optimiser.lr=0.5"))
    with pytest.raises(DataError, match=r"visible-ide_seed1\.json: was measured by other settings than .* for IDE\+"):
        run_league(changed, cache=tmp_path, quiet=True)
    (tmp_path / "kept" / "visible-ide_seed1.json").write_text("{")
    with pytest.raises(DataError, match=r"visible-ide_seed1\.json: cannot be read .* delete this file"):
        run_league(options(tmp_path / "there", kept=tmp_path / "kept"), cache=tmp_path, quiet=True)


@pytest.mark.slow
def test_a_run_of_other_pictures_is_refused_before_the_first_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_two(monkeypatch)
    run_league(options(tmp_path, seeds=(1,), only=("PCB",)), cache=tmp_path, quiet=True)
    facts = tmp_path / "pcb_seed1" / "run.json"
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"data": "elsewhere"}))
    monkeypatch.setattr(league, "train_plan", lambda *_: pytest.fail("a training was begun"))
    with pytest.raises(RecipeError, match=r"pcb_seed1 was begun with other pictures .*choose another --out"):
        run_league(options(tmp_path, seeds=(1,)), cache=tmp_path, quiet=True)


def test_multiply_adds_count_the_mirror_and_attention(tmp_path: Path) -> None:
    from tapetum.core.method import TrainingFacts
    from tapetum.methods import build_method
    from tapetum.runs.checkpoint import Header, save_checkpoint

    settings = {"backbone": "vit_tiny_patch16_224"}
    facts = TrainingFacts(num_ids=3, size=(128, 64))
    network = build_method("ide", settings, 3, size=(128, 64))
    save_checkpoint(tmp_path / "run.safetensors", network, Header("ide", settings, facts.num_ids, size=facts.size))
    once, twice = (count_work(tmp_path / "run.safetensors", mirror=mirror)["multiply_adds"] for mirror in (False, True))
    assert twice == 2 * once
    tokens, width, blocks = 1 + 8 * 4, 192, 12
    attention = blocks * 2 * tokens**2 * width  # of the products of tokens among themselves
    products = blocks * tokens * width * width * (3 + 1 + 4 + 4)
    patches = 8 * 4 * 3 * 16**2 * width
    assert once == pytest.approx(attention + products + patches, rel=0.02)
    assert once > products + patches + attention // 2


def run(label: str, seed: int, precisions: list[float]) -> dict[str, Any]:
    """What a run folder keeps."""
    return {
        "label": label,
        "recipe": "ide_synth",
        "seed": seed,
        "training": {
            "epochs": 1,
            "steps": 2,
            "batch": 8,
            "seconds": 1.0,
            "pictures_per_second": 10.0 * seed,
            "peak_memory_bytes": None,
            "precision": "fp32",
            "threads": 1,
            "machine": "a machine",
            "load": [0.5, 0.5, 0.5],
        },
        "testing": {
            "metrics": dict.fromkeys(("rank1", "rank5", "rank10", "mean_ap", "mean_inp"), sum(precisions) / 4),
            "chance": {"rank1": 0.1, "mean_ap": 0.1},
            "protocol": "night600",
            "ap": "trapezoid",
            "checkpoint": "last epoch",
            "mirror": True,
            "precision": "fp32",
            "pictures_per_second": None,
            "parameters": 4_000_000,
            "multiply_adds": 33_000_000,
        },
        "queries": {"pids": [1, 1, 2, 3], "mean_ap": precisions, "rank1": [0.0] * 4},
    }


def with_mixed(result: dict[str, Any], mean_ap: float, first: float) -> dict[str, Any]:
    """The same, tested in a gallery of both modalities, too.

    Args:
        first: for what part of the queries a picture of their own modality is the nearest one.
    """
    shares = {"visible": 0.6, "infrared": 0.4}
    mixed = {
        "protocol": "llcm_mixed",
        "metrics": {"rank1": 0.5, "mean_ap": mean_ap},
        "chance": {"rank1": 0.02, "mean_ap": 0.03},
        "infrared_share": 0.4,
        "modality": {
            name: {"own_modality_first": first, "own_modality_share": share, "modality_bias": first / share}
            for name, share in shares.items()
        },
    }
    return result | {"testing": result["testing"] | {"mixed": mixed}}


def summarise_visible(runs: list[dict[str, Any]], labels: list[str], mixed: str | None = None) -> dict[str, Any]:
    """Of a scene with the fingerprint "here"."""
    return summarise(
        runs,
        family="visible",
        pictures="here",
        scene={
            "num_train_people": 3,
            "num_test_people": 3,
            "cameras": 2,
            "training_pictures": 9,
            "testing_pictures": 9,
        },
        starts=dict.fromkeys(labels, "nothing"),
        planned=dict.fromkeys(labels, 2),
        mixed=mixed,
    )


@pytest.mark.parametrize("there", [["here", "here"], ["here", None], ["here", "before"], ["before", "before"]])
def test_the_table_names_every_run_of_other_pictures_than_the_scene_s(there: list[str | None]) -> None:
    runs = [run("one", seed, [0.8, 0.8, 0.7, 0.9]) for seed in (1, 2)]
    for each, fingerprint in zip(runs, there, strict=True):
        each |= {"data": fingerprint} if fingerprint else {}  # a file that does not tell is not doubted
    strangers = [
        f"one by seed {seed}" for seed, fingerprint in zip((1, 2), there, strict=True) if fingerprint == "before"
    ]
    text = render_league(summarise_visible(runs, ["one"]))
    said = f"pictures**: {', '.join(strangers)}, on pictures with the fingerprint before; this scene's is here"
    assert (said in text) == ("Not the same pictures" in text) == bool(strangers)


def test_the_table_says_what_is_real_what_is_not_and_what_nobody_can_say() -> None:
    runs = [run("good", seed, [0.8, 0.8, 0.7, 0.9]) for seed in (1, 2)]
    runs += [run("like", seed, [0.8, 0.8, 0.7, 0.9]) for seed in (1, 2)]
    runs += [run("bad", seed, [0.1, 0.1, 0.2, 0.1]) for seed in (1, 2)]
    runs += [run("once", 1, [0.5, 0.5, 0.5, 0.5])]
    labels = ["good", "like", "bad", "once"]
    content = summarise_visible(runs, labels)
    verdicts = {tuple(pair["rows"]): pair["real"] for pair in content["pairs"]}
    assert verdicts["good", "bad"] is True
    assert verdicts["good", "like"] is False
    assert verdicts["bad", "once"] is None
    text = render_league(content)
    assert "| good |  | +0.0 none | +67.5 real | +30.0 one seed |" in text
    assert "| bad | -67.5 real |" in text
    assert "33" in text
    assert "0.033 (with its mirror)" in text
    assert "| good | 80.0 ± 0.0 |" in text
    assert "**Not complete**: 1 runs of these rows are still to come.\n" in text
    content["open"] = ["later", "never"]
    assert "still to come; of later, never there is nothing yet.\n" in render_league(content)


def test_speeds_on_a_cpu_whose_generation_was_not_noted_are_said_to_order_nothing() -> None:
    told, untold = run("one", 1, [0.8] * 4), run("two", 1, [0.7] * 4)
    told["training"]["machine"] = "AMD EPYC (family 25, model 17, avx512_bf16)"
    untold["training"]["machine"] = "AMD EPYC"
    said = "**Of AMD EPYC, 1 threads, fp32 the CPU's generation was not noted**: "
    assert said in render_league(summarise_visible([told, untold], ["one", "two"]))
    assert "was not noted" not in render_league(summarise_visible([told], ["one"]))


def test_the_table_of_both_modalities_is_of_the_runs_that_were_tested_in_such_a_gallery() -> None:
    runs = [run(label, seed, [0.8, 0.8, 0.7, 0.9]) for label in ("both", "some", "before") for seed in (1, 2)]
    assert "both modalities" not in render_league(summarise_visible(runs, ["both", "some", "before"]))
    runs[0], runs[1] = with_mixed(runs[0], 0.30, 0.9), with_mixed(runs[1], 0.32, 0.6)
    runs[3] = with_mixed(runs[3], 0.25, 0.6)
    content = summarise_visible(runs, ["both", "some", "before"], mixed="llcm_mixed")
    assert content["mixed"]["runs_without"] == 3
    assert [row["mixed"] and row["mixed"]["seeds"] for row in content["rows"]] == [[1, 2], [2], None]
    text = render_league(content)
    assert "protocol llcm_mixed." in text
    assert "40.0 % of the pictures are infrared." in text
    assert "so no bias can be above 1.67 and 2.50. Chance: rank-1 2.00, mAP 3.00." in text
    assert "**3 runs were kept before this was measured**" in text
    spread = "75.0 ± 21.2"  # of 0.9 and 0.6
    assert f"| both | 50.0 ± 0.0 | 31.0 ± 1.4 | {spread} | {spread} | 1.25 ± 0.35 | 1.88 ± 0.53 | 1, 2 |" in text
    assert "| some | 50.0 | 25.0 | 60.0 | 60.0 | 1.00 | 1.50 | 2 |" in text
    assert "| before | – | – | – | – | – | – | – |" in text


def test_where_no_run_was_tested_in_a_gallery_of_both_modalities_the_table_says_so() -> None:
    runs = [run("before", seed, [0.8, 0.8, 0.7, 0.9]) for seed in (1, 2)]
    text = render_league(summarise_visible(runs, ["before"], mixed="llcm_mixed"))
    assert "**2 runs were kept before this was measured**" in text
    assert "of the pictures are infrared" not in text
    assert "| before | – | – | – | – | – | – | – |" in text


@pytest.mark.slow
def test_an_infrared_league_also_searches_a_gallery_of_both_modalities_and_finished_runs_are_tested_again(
    small_networks: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described: list[str] = []
    describe = Embedder.describe

    def count(self: Embedder, records: Any, **rest: Any) -> Any:
        described.extend(record.path.name for record in records)
        return describe(self, records, **rest)

    monkeypatch.setattr(Embedder, "describe", count)
    wanted = options(
        tmp_path / "out", family="infrared", cameras=4, seeds=(1,), only=("two-stream",), kept=tmp_path / "kept"
    )
    first = run_league(wanted, cache=tmp_path, quiet=True)
    assert len(described) == len(set(described)) == first["scene"]["testing_pictures"]  # once for both protocols
    folder, kept = tmp_path / "out" / "two_stream_seed1", tmp_path / "kept" / "infrared-two_stream_seed1.json"
    (found,) = evaluate_run(folder, ["llcm_mixed"], out=tmp_path / "cards")
    levels = found.card.slices["modality"]
    (row,) = first["rows"]
    assert row["mixed"]["mean_ap"]["each"] == [found.card.metrics["mean_ap"]]
    for name in ("own_modality_first", "modality_bias"):
        assert {level: row["mixed"][name][level]["each"] for level in levels} == {
            level: [figures[name]] for level, figures in levels.items()
        }
    assert first["mixed"]["infrared_share"] == pytest.approx(3 / 7)  # three of the four cameras have an infrared twin
    page = (tmp_path / "out" / "league.md").read_text()
    assert "protocol llcm_mixed." in page
    assert "kept before this was measured" not in page

    written = kept.read_bytes()
    weights = (folder / "checkpoints" / "last.safetensors").stat().st_mtime_ns
    content = json.loads((folder / "league.json").read_text())
    del content["testing"]["mixed"]
    (folder / "league.json").write_text(json.dumps(content))
    described.clear()
    again = run_league(wanted, cache=tmp_path, quiet=True)
    assert (again["rows"], again["mixed"]) == (first["rows"], first["mixed"])
    assert described == []  # what the first test kept was enough
    assert (folder / "checkpoints" / "last.safetensors").stat().st_mtime_ns == weights
    assert kept.read_bytes() == written


def test_what_is_kept_makes_a_table_without_a_scene(tmp_path: Path) -> None:
    wanted = options(tmp_path, kept=tmp_path, only=("IDE+", "PCB", "student"))
    with pytest.raises(DataError, match=r"no result of the visible family; run the league with --kept first"):
        tabulate_kept(wanted)
    plans = league._make_plans(wanted)
    for plan in plans:
        if plan.row.label == "IDE+" or (plan.row.label, plan.seed) == ("PCB", 1):
            about = {"data": "here", "settings": league._name_settings(plan)}
            league._keep(run(plan.row.label, plan.seed, [0.8, 0.8, 0.7, 0.9]) | about, plan, wanted)
    content = tabulate_kept(wanted)
    assert [(row["label"], row["seeds"]) for row in content["rows"]] == [("IDE+", [1, 2]), ("PCB", [1])]
    assert content["open"] == ["student"]
    assert (content["scene"]["training_pictures"], content["scene"]["testing_pictures"]) == (32, 16)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


@pytest.mark.parametrize(
    "lost",
    ["training", "testing", "queries", "label", "testing.ap", "testing.metrics.mean_inp", "queries.rank1", "pids"],
)
def test_what_is_kept_and_lacks_a_part_is_called_damaged_before_anything_is_trained(tmp_path: Path, lost: str) -> None:
    wanted = options(tmp_path / "out", kept=tmp_path / "kept", only=("PCB",), seeds=(1,))
    (plan,) = league._make_plans(wanted)
    about = {"data": "here", "settings": league._name_settings(plan)}
    league._keep(run("PCB", 1, [0.8, 0.8, 0.7, 0.9]) | about, plan, wanted)
    tabulate_kept(wanted)
    (file,) = (tmp_path / "kept").iterdir()
    content = part = json.loads(file.read_text())
    *way, last = lost.split(".")
    for name in way:
        part = part[name]
    if last == "pids":
        content["queries"]["counts"].pop()
    else:
        del part[last]
    file.write_text(json.dumps(content))
    message = r"visible-pcb_seed1\.json: cannot be read .*; delete this file"
    with pytest.raises(DataError, match=message):
        tabulate_kept(wanted)
    with pytest.raises(DataError, match=message):
        league._read_kept(plan, wanted)


def test_a_file_in_the_place_of_the_folder_for_what_is_kept_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "kept.json"
    file.write_text("{}")
    for begin in (run_league, tabulate_kept):
        with pytest.raises(RecipeError, match=r"--kept .*kept\.json: is a file; name a folder"):
            begin(options(tmp_path / "out", kept=file))
    assert not (tmp_path / "out").exists()


def test_the_command_refuses_what_is_not_its_own() -> None:
    from typer.testing import CliRunner

    runner = CliRunner()
    for words, said in (
        (["league", "--data", "night600=/data"], "a league makes its scene itself"),
        (["league", "--data", "synth=/data"], "a league makes its scene itself"),
        (["league", "--data", "synth", "--family", "visble"], "did you mean visible?"),
        (["table5", "--data", "synth", "--people", "8"], "--people is of `tapetum reproduce league`"),
    ):
        done = runner.invoke(app, ["reproduce", *words])
        assert done.exit_code != 0
        assert said in str(done.exception), words


def test_a_finished_run_is_tested_again_by_other_settings_and_kept_as_what_it_gave(tmp_path: Path) -> None:
    one = {"only": ("PCB",), "seeds": (1,)}
    plain = run_league(options(tmp_path / "out", **one), cache=tmp_path, quiet=True)
    centred = options(
        tmp_path / "out", **one, kept=tmp_path / "kept", overrides=(*SMALL, "evaluation.camera_norm=centre")
    )
    found = run_league(centred, cache=tmp_path, quiet=True)
    figures = [content["rows"][0]["mean_ap"]["each"] for content in (plain, found)]
    assert figures[0] != figures[1]
    kept = tmp_path / "kept" / "visible-pcb_seed1.json"
    assert [json.loads(kept.read_text())["testing"]["metrics"]["mean_ap"]] == figures[1]
    kept.write_text(kept.read_text().replace('"testing"', '"testing" ').replace('"ended": "', '"ended": "0'))
    assert run_league(centred, cache=tmp_path, quiet=True)["rows"] == found["rows"]
    assert '"ended": "0' not in kept.read_text()  # what the run folder says replaces what was kept of it


@pytest.mark.slow
def test_a_gallery_of_both_modalities_is_searched_by_what_is_asked_for_now(
    small_networks: None, tmp_path: Path
) -> None:
    def league_of(folder: str, *changes: str, **settings: Any) -> dict[str, Any]:
        one = options(tmp_path / folder, family="infrared", cameras=4, seeds=(1,), only=("two-stream",), **settings)
        return run_league(replace(one, overrides=(*SMALL, *changes)), cache=tmp_path, quiet=True)

    before = league_of("old")
    again = league_of("old", "evaluation.camera_norm=modality", kept=tmp_path / "kept")
    fresh = league_of("new", "evaluation.camera_norm=modality")
    (old,), (anew,), (expected,) = (content["rows"] for content in (before, again, fresh))
    assert anew["mixed"] == expected["mixed"] != old["mixed"]
    kept = json.loads((tmp_path / "kept" / "infrared-two_stream_seed1.json").read_text())
    assert [kept["testing"]["mixed"]["metrics"]["mean_ap"]] == expected["mixed"]["mean_ap"]["each"]
