"""Tables of the papers: rows, recipes, and ours kept apart from theirs."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tapetum.core.errors import RecipeError
from tapetum.data.catalog import open_dataset
from tapetum.data.lighting import measure_pictures
from tapetum.experiments import reproduce
from tapetum.experiments.board import Board
from tapetum.experiments.paper_page import render_table
from tapetum.experiments.paper_plans import Plan, make_plan, row_recipe
from tapetum.experiments.paper_rows import PaperRow
from tapetum.experiments.paper_tables import TABLES, rows_of
from tapetum.experiments.published import KNIGHT_REID, TABLE_II, TABLE_III, TABLE_IV, TABLE_V, TABLE_VI
from tapetum.experiments.published_deen import TABLE_4
from tapetum.experiments.reproduce import choose_rows, run_table
from tapetum.methods import build_options
from tapetum.runs.recipe import list_recipes, load_recipe, write_yaml
from tapetum.runs.run_folder import RunFolder, write_json, write_text
from tapetum.runs.sources import list_protocols

REAL = {
    "night600": "/data/Night600",
    "knight": "/data/Knight",
    "market1501": "/data/Market-1501",
    "rgbnt201": "/data/RGBNT201",
    "llcm": "/data/LLCM",
    "sysu_mm01": "/data/SYSU-MM01",
    "regdb": "/data/RegDB",
}
SCENE = {"synth": None}
TINY_SCENE = "data.scene={num_train_people: 4, num_test_people: 3, cameras: 2, size: [64, 32]}"
SHORT = ["data.size=[64, 32]", "schedule.epochs=1", "schedule.warmup_epochs=0"]
TINY = [TINY_SCENE, *SHORT, "sampler.batch=8"]
PARTS = ("num_train_people=8", "num_test_people=4", "cameras=2", "size=[64, 32]")
QUICK = [*SHORT, "sampler.steps=2", *(f"data.scene.{part}" for part in PARTS)]


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("scene", [False, True], ids=["paper", "scene"])
def test_every_row_has_a_recipe_that_can_be_read(table: str, scene: bool) -> None:
    rows = rows_of(table, scene=scene)
    counts = {
        "table2": 9,
        "table3": 9,
        "table4": 9,
        "table5": 6,
        "table6": 25,
        "table7": 6,
        "figure1": 15,
        "figure8": 2,
        "deen-table2": 76,
        "deen-table3": 47 if scene else 92,
        "deen-table4": 7 if scene else 14,
    }
    assert len(rows) == counts[table]
    assert len({row.label for row in rows}) == len(rows)
    for row in rows:
        if row.recipe is None:
            continue
        assert row.recipe in list_recipes()
        weights = ("method.enhancer_weights=curves.safetensors",) if row.enhancer else ()
        recipe = row_recipe(row, row.train_on, SCENE if scene else REAL, weights)
        assert recipe.data.name == row.train_on.data
        assert recipe.evaluation.protocol in {None, *list_protocols(recipe.data)}


@pytest.mark.parametrize("scene", [False, True], ids=["paper", "scene"])
def test_the_first_tables_have_the_papers_rows_and_each_runs_by_the_ap_of_its_own_code(scene: bool) -> None:
    for table, printed in (("table2", TABLE_II), ("table3", TABLE_III)):
        rows = [row for row in rows_of(table, scene=scene) if row.published]
        assert [row.label for row in rows] == list(printed)
        assert [row.published for row in rows] == list(printed.values())
        if not scene:
            rules = [row_recipe(row, row.test_on, REAL, ()).evaluation.protocol or "night600" for row in rows]
            assert [rule == "night600_step" for rule in rules] == [row.ap == "step" for row in printed.values()]
    rows = rows_of("table4", scene=scene)
    assert [row.published for row in rows] == list(TABLE_IV.values())
    assert [row.recipe is None for row in rows] == [method == KNIGHT_REID for _, method in TABLE_IV]
    assert (TABLE_II["IDE+"].rank1, TABLE_III["AGW w/ DCE"].mean_ap) == (7.75, 4.70)
    assert TABLE_II["IDE+"] == TABLE_III["IDE+"] == TABLE_V["MB"]
    assert TABLE_II["IDF_IDE+"] == TABLE_V["MB+IEB+IDM (w/ IFD)"]


def test_the_subsets_of_knight_are_those_of_the_papers_table() -> None:
    rows = [row for row in rows_of("table4", scene=False) if row.recipe]
    subsets = [row_recipe(row, row.train_on, REAL, ()).data.options["subset"] for row in rows]
    assert subsets == ["c12", "c12", "c23", "c23", "c13", "c13"]
    scenes = [
        row_recipe(row, row.train_on, SCENE, ()).data.scene for row in rows_of("table4", scene=True) if row.recipe
    ]
    assert {scene["camera_seed"] for scene in scenes} == {0, 1, 2}


def plan(row: PaperRow, roots: dict[str, str | None], *overrides: str, **weights: Path) -> Plan:
    return make_plan(row, 1, roots, Path("out"), overrides, weights=weights, first_seed=1)


def test_brightened_pictures_are_written_once_for_both_methods_and_all_seeds() -> None:
    rows = {row.label: row for row in rows_of("table3", scene=False)}
    given = {"zero_dce": Path("Epoch99.pth"), "enlighten_gan": Path("200_net_G_A.pth")}
    plans = {label: plan(row, REAL, **given) for label, row in rows.items()}
    assert len({each.folder for each in plans.values()}) == len(rows)
    for way, folder in (("Ada Gamma", "ada_gamma"), ("En-GAN", "enlighten_gan"), ("DCE", "zero_dce")):
        for method in ("IDE+", "AGW"):
            each = plans[f"{method} w/ {way}"]
            assert each.recipe.data.root == each.tested.data.root == f"out/pictures_{folder}"
            assert each.source is not None
            assert each.source.root == REAL["night600"]
            assert each.recipe.method == plans[method].recipe.method
    assert plans["IDE+"].source is None
    assert plans["IDE+ w/ DCE inside"].recipe.data.root == REAL["night600"]
    trained = [plan(rows[f"{method} w/ DCE"], REAL).brightening for method in ("IDE+", "AGW")]
    assert trained[0] == trained[1]
    assert trained[0] is not None
    assert trained[0].place == Path("out/zero_dce_seed1")
    with pytest.raises(
        RecipeError, match=r"row 'AGW w/ En-GAN' needs --enlighten-gan FILE: .* choose rows with --only"
    ):
        plan(rows["AGW w/ En-GAN"], REAL)


def test_the_first_figure_has_a_real_night_a_day_and_that_day_darkened() -> None:
    for roots, scene in ((REAL, False), (SCENE, True)):
        night, darkened, day = (plan(row, roots) for row in rows_of("figure1", scene=scene)[:3])
        assert (night.source, day.source) == (None, None)
        assert darkened.source == day.recipe.data
        assert darkened.recipe.data.root == "out/pictures_gamma"
        assert darkened.recipe.data.scene == {}
        assert len({each.recipe.method.model_dump_json() for each in (night, darkened, day)}) == 1
    assert day.recipe.data.scene == {"light": "day"}
    assert len({row.series for row in rows_of("figure1", scene=True)}) == 5


def test_a_table_that_makes_its_scenes_takes_no_other(tmp_path: Path) -> None:
    for table in ("table4", "table7", "figure1"):
        with pytest.raises(RecipeError, match=f"{table} makes scenes of its own; give --data synth without a root"):
            run_table(table, {"synth": "/scene"}, tmp_path)
        with pytest.raises(RecipeError, match=f"{table} makes scenes of its own"):
            run_table(table, SCENE, tmp_path, overrides=[TINY_SCENE])


def test_rows_that_differ_in_the_weights_differ_in_their_recipes() -> None:
    recipes = {
        (recipe.method.options["reconstruction_weight"], recipe.method.options["distillation_weight"])
        for recipe in (row_recipe(row, row.train_on, REAL, ()) for row in rows_of("table6", scene=False))
    }
    assert recipes == set(TABLE_VI)


def test_rows_of_the_cross_domain_table_share_the_training_of_one_domain() -> None:
    rows = rows_of("table7", scene=False)
    assert len({row.run for row in rows}) == 4
    assert all(row.train_on != row.test_on for row in rows)


def test_the_scenes_of_the_cross_domain_table_differ_in_people_cameras_and_nights() -> None:
    rows = rows_of("table7", scene=True)
    trained = {row.train_on.title: row_recipe(row, row.train_on, SCENE, ()).data.scene for row in rows}
    assert list(trained) == ["scene A", "scene B", "scene C"]
    for stream in ("identity", "camera", "time"):
        assert [scene.get(f"{stream}_seed", 0) for scene in trained.values()] == [0, 1, 2]
    assert len({(row.train_on.title, row.test_on.title) for row in rows}) == 6, "each on each of the others"
    assert len({row.run for row in rows}) == 3
    for row in rows:
        assert row_recipe(row, row.test_on, SCENE, ()).data.scene == trained[row.test_on.title]


DEEN_PARTS = {  # number of the row -> DEE, CPM, orthogonality, MFA
    1: (False, False, False, False),
    2: (True, False, False, False),
    3: (True, True, False, False),
    4: (True, False, True, False),
    5: (True, True, True, False),
    6: (False, False, False, True),
    7: (True, True, True, True),
}


@pytest.mark.parametrize("scene", [False, True], ids=["paper", "scene"])
def test_each_row_of_deens_ablation_has_the_parts_that_the_poster_ticks(scene: bool) -> None:
    roots = SCENE if scene else REAL
    for number, row in enumerate(rows_of("deen-table4", scene=scene)):
        method = row_recipe(row, row.train_on, roots, ()).method
        assert method.name == "deen"
        options = build_options("deen", method.options)
        expansion, centres, orthogonality, aggregation = DEEN_PARTS[number % 7 + 1]
        assert options.expansion == expansion
        assert options.aggregation == aggregation
        if expansion:  # without it there is nothing that the two losses could be taken of
            assert (options.cpm_weight > 0, options.orthogonality_weight > 0) == (centres, orthogonality)
        assert row.published == TABLE_4[row.train_on.data if not scene else "llcm", number % 7 + 1]


def test_rows_of_deens_ablation_differ_in_the_method_alone_and_on_sysu_in_the_erasing() -> None:
    recipes = [row_recipe(row, row.train_on, REAL, ()) for row in rows_of("deen-table4", scene=False)]
    for first, second in zip(recipes[:7], recipes[7:], strict=True):
        assert [first.augment[-1][key] for key in ("name", "area")] == ["erasing", [0.02, 0.4]]
        assert [second.augment[-1][key] for key in ("name", "area")] == ["erasing", [0.2, 0.8]]
        assert first.method == second.method
        assert (second.data.name, second.data.size) == ("sysu_mm01", first.data.size)
    complete, usual = recipes[-1].model_dump(), load_recipe("deen_sysu").model_dump()
    assert [key for key in usual if complete[key] != usual[key]] == ["name", "about", "data"]
    assert complete["data"] | {"root": None} == usual["data"]
    for same in ("augment", "sampler", "optimiser", "schedule", "selection", "evaluation"):
        assert len({str(getattr(recipe, same)) for recipe in recipes[:7]}) == 1


def test_deens_ablation_is_tested_on_the_release_and_the_draws_of_its_figures() -> None:
    recipes = [row_recipe(row, row.test_on, REAL, ()) for row in rows_of("deen-table4", scene=False)]
    assert {recipe.evaluation.protocol for recipe in recipes[:7]} == {"llcm_original_nir_to_vis"}
    assert {recipe.evaluation.protocol for recipe in recipes[7:]} == {None}
    assert [recipe.data.options for recipe in recipes] == [{}] * 7 + [{"permutations": "seed"}] * 7


def test_a_protocol_that_a_row_does_not_have_is_refused_before_the_first_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*_: object, **__: object) -> None:
        raise AssertionError("a training was begun")

    monkeypatch.setattr(reproduce, "train", train)
    chosen = "evaluation.protocol=llcm_original_nir_to_vis"
    with pytest.raises(
        RecipeError, match=r"row 'SYSU-MM01 all-search 1: baseline': sysu_mm01 has no protocol 'llcm_.*"
    ):
        run_table("deen-table4", REAL, tmp_path, overrides=[chosen], quiet=True)
    with pytest.raises(RecipeError, match=r"synth has no protocol 'bogus' .*rows of one data set with --only"):
        run_table("deen-table4", SCENE, tmp_path, overrides=["evaluation.protocol=bogus"], quiet=True)
    with pytest.raises(RecipeError, match=r"row 'MB': synth has no protocol 'night60' \(did you mean night600\?\)"):
        run_table("table5", SCENE, tmp_path, overrides=["evaluation.protocol=night60"], only=["MB"], quiet=True)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "facts", "said"),
    [
        ([], {"data": "elsewhere"}, r"was begun with other pictures .*choose another --out"),
        (["optimiser.lr=0.5"], {}, r"holds a run with optimiser\.lr = 0\.5.*choose another --out"),
    ],
    ids=["pictures", "recipe"],
)
def test_a_later_rows_folder_of_another_run_is_refused_before_the_first_training(
    changes: list[str], facts: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = ["num_train_people=2", "num_test_people=2", "pictures_per_camera=1", "size=[64, 32]"]
    tiny = [f"data.scene.{part}" for part in scene]
    row = next(row for row in rows_of("deen-table2", scene=True) if row.label == "RegDB VIS→IR: MMN")
    before = make_plan(row, 2021, SCENE, tmp_path, [*tiny, *changes])
    run = RunFolder(before.folder)
    write_text(run.recipe, write_yaml(before.recipe))
    write_json(run.facts, facts)
    write_text(run.last, "weights")
    monkeypatch.setattr(reproduce, "train", lambda *_, **__: pytest.fail("a training was begun"))
    with pytest.raises(RecipeError, match=rf"^row 'RegDB .*: MMN': .*mmn_regdb_seed2021 {said}"):
        run_table("deen-table2", SCENE, tmp_path, overrides=tiny, cache=tmp_path / "data", quiet=True)


def test_a_missing_root_is_named_with_the_remedy() -> None:
    with pytest.raises(RecipeError, match="needs --data night600=ROOT"):
        row_recipe(rows_of("table5", scene=False)[0], rows_of("table5", scene=False)[0].train_on, {}, ())


def test_an_unknown_table_is_named_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"table8.*table"):
        rows_of("table8", scene=False)


@pytest.mark.parametrize(("table", "needed"), [("table1", "night600=ROOT"), ("deen-table1", "regdb=ROOT")])
def test_a_table_that_only_counts_has_no_rows_and_names_its_command(table: str, needed: str) -> None:
    with pytest.raises(RecipeError, match=rf"trains nothing; it is `tapetum reproduce {table} --data {needed} --data"):
        rows_of(table, scene=True)


def test_a_row_that_cannot_be_trained_is_named(tmp_path: Path) -> None:
    small = [f"data.scene.{part}" for part in PARTS if not part.startswith("cameras")]
    with pytest.raises(RecipeError, match=r"^row 'RegDB VIS→IR: Hi-CMD': method\.dilations .* of 32 pixels"):
        run_table(
            "deen-table2",
            SCENE,
            tmp_path,
            overrides=[*small, "data.size=[64, 32]"],
            only=["RegDB VIS→IR: Hi-CMD"],
            cache=tmp_path / "data",
            quiet=True,
        )


def test_a_filter_that_fits_no_row_names_the_rows(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"fits no row of table5; rows: MB, MB\+MB"):
        run_table("table5", SCENE, tmp_path, only=["nothing"])


def test_a_whole_label_names_its_row_alone_and_a_part_every_row_that_holds_it() -> None:
    rows = rows_of("table2", scene=True)
    chosen = {text: [row.label for row in choose_rows("table2", rows, [text])] for text in ("ide+", "IDE")}
    assert chosen["ide+"] == ["IDE+"]
    assert chosen["IDE"] == ["IDE+PCB-Net", "IDE+", "IDF_IDE+"]


# Of the poster's methods those whose code and paper are not public; they are shown as printed.
AS_PRINTED = {"D2RL", "X-Modality", "NFS", "FMCNet", "SMCL", "MRCN", "MAUM"}


def test_the_rows_of_the_poster_that_cannot_run_are_those_without_public_code() -> None:
    for table in ("deen-table2", "deen-table3"):
        for scene in (False, True):
            rows = rows_of(table, scene=scene)
            assert all(row.recipe is None for row in rows if row.label.rpartition(": ")[2] in AS_PRINTED)
            for row in rows:
                if row.recipe is not None:  # of one training, tested in several ways
                    recipes = {other.recipe for other in rows if other.run == row.run}
                    trained_on = {other.train_on for other in rows if other.run == row.run}
                    assert (len(recipes), len(trained_on)) == (1, 1)


@pytest.mark.parametrize("scene", [False, True], ids=["paper", "scene"])
def test_a_method_that_can_run_has_a_row_in_each_column_though_the_paper_prints_none(scene: bool) -> None:
    for table in ("deen-table2", "deen-table3"):
        columns: dict[str, set[str]] = {}
        for row in rows_of(table, scene=scene):
            title, _, method = row.label.rpartition(": ")
            assert row.recipe or row.published
            columns.setdefault(title, set()).update([method] if row.recipe else [])
        run = set.union(*columns.values())
        assert all(methods == run for methods in columns.values())
        assert len(run) == {"deen-table2": 14, "deen-table3": 15 if scene else 18}[table]
    rows = {row.label: row for row in rows_of("deen-table3", scene=scene)}
    assert rows["corrected, IR→VIS: MPANet"].published is None
    assert rows["corrected, IR→VIS: MRCN"].recipe is None


def test_the_readme_says_how_many_of_the_posters_rows_run() -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    found = re.search(r"(\d+) of the (\d+) in Table 2 and all (\d+) in Table 3", readme)
    assert found is not None
    second, third = (
        [row for row in rows_of(table, scene=False) if row.published and row.label.startswith(column)]
        for table, column in (("deen-table2", "SYSU-MM01 all-search"), ("deen-table3", "poster, IR→VIS"))
    )
    runs = [sum(row.recipe is not None for row in rows) for rows in (second, third)]
    assert [int(number) for number in found.groups()] == [runs[0], len(second), runs[1]]
    assert runs[1] == len(third)


def test_the_posters_figures_stand_in_their_columns() -> None:
    printed = {row.label: row.published for row in rows_of("deen-table2", scene=False)}
    found = printed["RegDB IR→VIS: LbA"]
    assert found is not None
    assert (found.rank1, found.rank10, found.rank20, found.mean_ap) == (67.5, None, None, 72.4)
    assert found.remark.startswith("suspect as printed")
    printed = {row.label: row.published for row in rows_of("deen-table3", scene=False)}
    assert printed["corrected, VIS→IR: DEEN"] is None
    by_script, poster = (printed[f"{title}: DEEN"] for title in (
        "corrected, VIS→IR by the released script", "poster, VIS→IR"
    ))  # fmt: skip
    assert by_script is not None
    assert poster is not None
    assert (by_script.rank1, by_script.mean_ap, poster.mean_ap) == (69.21, 55.52, 65.8)


@pytest.mark.slow
def test_rows_run_on_the_scene_and_a_second_call_trains_nothing(tmp_path: Path) -> None:
    only, run = ["IDE+ w/ Ada", "IDE+ w/ D"], tmp_path / "table3"
    content = run_table(
        "table3", SCENE, run, seeds=[1, 2], only=only, overrides=TINY, cache=tmp_path / "data", quiet=True
    )
    plain, enhanced, inside = content["rows"]
    assert plain["seeds"] == enhanced["seeds"] == inside["seeds"] == [1, 2]
    assert json.loads((run / "pictures_ada_gamma" / "enhance.json").read_text())["complete"]
    light = {
        name: measure_pictures(open_dataset("synth", place).split("query")).lightness.mean()
        for name, place in (
            ("night", next((tmp_path / "data").glob("synth-*"))),
            ("bright", run / "pictures_ada_gamma"),
        )
    }
    assert light["bright"] > 1.2 * light["night"]
    assert not list(run.glob("pictures_zero_dce_*"))  # one for both seeds
    assert plain["ours_percent"]["mean_ap"]["deviation"] is not None
    assert (tmp_path / "table3" / "zero_dce_seed1" / "checkpoints" / "last.safetensors").is_file()
    assert json.loads((tmp_path / "table3" / "table3.json").read_text())["rows"] == content["rows"]
    weights = tmp_path / "table3" / "ide_dce_seed2" / "checkpoints" / "last.safetensors"
    written = weights.stat().st_mtime_ns
    again = run_table(
        "table3", SCENE, run, seeds=[1, 2], only=only, overrides=TINY, cache=tmp_path / "data", quiet=True
    )
    assert again["rows"] == content["rows"]
    assert weights.stat().st_mtime_ns == written


@pytest.mark.slow
def test_a_table_stopped_within_a_training_and_within_a_test_ends_as_an_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(out: Path) -> dict[str, Any]:
        changes = [*TINY, "schedule.epochs=2"]
        return run_table(
            "table5", SCENE, out, only=["MB", "IEB"], overrides=changes, cache=tmp_path / "data", quiet=True
        )

    def choose_two(table: str, *, scene: bool) -> list[PaperRow]:
        return [row for row in rows_of(table, scene=scene) if row.label in ("MB", "IEB")]

    monkeypatch.setattr(reproduce, "rows_of", choose_two)
    whole = run(tmp_path / "whole")
    step, tested = Board.step, reproduce.evaluate_run
    second = tmp_path / "stopped" / "ieb_seed2021"
    steps = 0

    def press_within_the_second_training(board: Board, **facts: Any) -> None:
        nonlocal steps
        steps += (second / "recipe.yaml").is_file()
        step(board, **facts)
        if steps == 3:
            signal.raise_signal(signal.SIGINT)

    def press_within_the_second_test(folder: Path, *rest: Any, **named: Any) -> Any:
        if folder == second:
            raise KeyboardInterrupt
        return tested(folder, *rest, **named)

    monkeypatch.setattr(Board, "step", press_within_the_second_training)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped")
    assert steps == 3
    assert not RunFolder(second).read_facts()["finished"]
    half = json.loads((tmp_path / "stopped" / "table5.json").read_text())
    assert half["rows"] == whole["rows"][:1]
    monkeypatch.setattr(Board, "step", step)
    monkeypatch.setattr(reproduce, "evaluate_run", press_within_the_second_test)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped")
    assert RunFolder(second).read_facts()["finished"]
    assert json.loads((tmp_path / "stopped" / "table5.json").read_text()) == half
    monkeypatch.setattr(reproduce, "evaluate_run", tested)
    weights = {path: path.stat().st_mtime_ns for path in (tmp_path / "stopped").glob("*/checkpoints/*.safetensors")}
    assert run(tmp_path / "stopped") == whole
    assert all(path.stat().st_mtime_ns == time for path, time in weights.items())
    for name in ("table5.json", "table5.md"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("table", [table for table in TABLES if not table.startswith("deen")])
def test_all_rows_of_the_idf_papers_tables_run_on_the_scene(table: str, small_networks: None, tmp_path: Path) -> None:
    content = run_table(table, SCENE, tmp_path, overrides=QUICK, cache=tmp_path / "data", quiet=True)
    rows = rows_of(table, scene=True)
    assert [row["label"] for row in content["rows"]] == [row.label for row in rows]
    for row in content["rows"]:
        assert ("ours_percent" in row) == (row["recipe"] is not None)
        assert len(row["seeds"]) == (row["recipe"] is not None)
    trained = {path.parent.name for path in tmp_path.glob("*/recipe.yaml")}
    networks = {"zero_dce_seed2021", "enlighten_gan_seed2021"} if table == "table3" else set()
    assert len(trained - networks) == len({row.run for row in rows if row.recipe})  # a training for each, no second one
    assert networks <= trained
    text = (tmp_path / f"{table}.md").read_text()
    if table == "table4":
        assert f"| cam2-cam3: {KNIGHT_REID} | not run | not run | not run | not run | 14.30 | 22.50 |" in text
        assert {row["protocol"] for row in content["rows"] if row["recipe"]} == {"knight"}
    if table == "table7":
        tests = {path.parent.name + path.name for path in tmp_path.glob("*/evaluation_*")}
        assert tests == {f"idf_scene_{a}_seed2021evaluation_scene_{b}" for a, b in permutations_of_scenes()}
    if table == "figure1":
        assert {row["ap"] for row in content["rows"]} == {"step"}
        assert (tmp_path / "pictures_gamma" / "darken.json").is_file()
    if table == "figure8":
        protocols = [f"rgbnt201_{within}" for within in ("rgb_to_rgb", "infrared_to_infrared")]
        assert [row["protocol"] for row in content["rows"]] == protocols
    if table.startswith("figure"):
        assert content["rows"][0]["paper_percent"] is None
        drawn = (tmp_path / f"{table}.svg").read_text()
        assert all(row["group"] in drawn and row["series"] in drawn for row in content["rows"])
    else:
        assert not (tmp_path / f"{table}.svg").exists()


def permutations_of_scenes() -> list[tuple[str, str]]:
    """Trained on the first, tested on the second, as folders of runs have them."""
    return [(a, b) for a in "ABC" for b in "abc" if a.lower() != b]


def test_the_rendered_table_keeps_ours_and_the_papers_apart() -> None:
    content = {
        "paper": "IDF paper (TMM 2023)",
        "title": "Table V, ablation",
        "pictures": "generated",
        "paper_pictures": "Night600",
        "paper_remark": "Paper: printed in small type",
        "quantities": ["rank1", "rank5", "rank10", "mean_ap"],
        "rows": [
            {
                "label": "MB",
                "ours_percent": {
                    name: {"mean": 50.0, "deviation": 1.5} for name in ("rank1", "rank5", "rank10", "mean_ap")
                },
                "paper_percent": {
                    name: getattr(TABLE_V["MB"], name) for name in ("rank1", "rank5", "rank10", "mean_ap")
                },
                "paper_remark": "",
                "protocol": "synth",
                "ap": "trapezoid",
                "checkpoint": "last epoch",
                "seeds": [1, 2],
            }
        ],
    }
    content["rows"].append({**content["rows"][0], "label": "ours alone", "paper_percent": None})
    text = render_table(content)
    assert f"| ours alone |{' 50.00 ± 1.50 |' * 4}{' not in the paper |' * 4} 1, 2 |" in text
    assert "R-1 ours" in text
    assert "R-1 paper" in text
    assert "| MB | 50.00 ± 1.50 |" in text
    assert "| 7.75 | 20.09 | 27.43 | 3.38 | 1, 2 |" in text
    assert "Paper: Night600. Compare the order of the rows, never the figures" in text
    assert text.startswith("IDF paper (TMM 2023), Table V, ablation; percent")
    assert text.rstrip().endswith("Paper: printed in small type.")
