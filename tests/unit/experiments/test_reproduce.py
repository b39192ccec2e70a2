"""Tables of the papers: rows, recipes, and ours kept apart from theirs."""

import json
from pathlib import Path

import pytest

from tapetum.core.errors import RecipeError
from tapetum.experiments import reproduce
from tapetum.experiments.published import DEEN_TABLE_4, TABLE_V, TABLE_VI
from tapetum.experiments.reproduce import TABLES, render_table, row_recipe, rows_of, run_table
from tapetum.methods import build_options
from tapetum.runs.recipe import list_recipes, load_recipe

REAL = {
    "night600": "/data/Night600",
    "knight": "/data/Knight",
    "llcm": "/data/LLCM",
    "sysu_mm01": "/data/SYSU-MM01",
}
SCENE = {"synth": None}
TINY_SCENE = "data.scene={num_train_people: 4, num_test_people: 3, cameras: 2, size: [64, 32]}"
TINY = [TINY_SCENE, "data.size=[64, 32]", "schedule.epochs=1", "schedule.warmup_epochs=0", "sampler.batch=8"]


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("scene", [False, True], ids=["paper", "scene"])
def test_every_row_has_a_recipe_that_can_be_read(table: str, scene: bool) -> None:
    rows = rows_of(table, scene=scene)
    counts = {"table3": 2, "table5": 6, "table6": 25, "table7": 6, "deen-table4": 7 if scene else 14}
    assert len(rows) == counts[table]
    assert len({row.label for row in rows}) == len(rows)
    for row in rows:
        assert row.recipe in list_recipes()
        weights = ("method.enhancer_weights=curves.safetensors",) if row.enhancer else ()
        recipe = row_recipe(row, row.train_on, SCENE if scene else REAL, weights)
        assert recipe.data.name == row.train_on.data


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
        assert row.published == DEEN_TABLE_4[row.train_on.data if not scene else "llcm", number % 7 + 1]


def test_rows_of_deens_ablation_differ_in_the_method_alone_and_on_sysu_in_the_erasing() -> None:
    recipes = [row_recipe(row, row.train_on, REAL, ()) for row in rows_of("deen-table4", scene=False)]
    for first, second in zip(recipes[:7], recipes[7:], strict=True):
        assert [first.augment[-1][key] for key in ("name", "area")] == ["erasing", [0.02, 0.4]]
        assert [second.augment[-1][key] for key in ("name", "area")] == ["erasing", [0.2, 0.8]]
        assert first.method == second.method
        assert (second.data.name, second.data.size) == ("sysu_mm01", first.data.size)
    complete, usual = recipes[-1].model_dump(), load_recipe("deen_sysu").model_dump()
    assert [key for key in usual if complete[key] != usual[key]] == ["name", "about", "data"]
    assert complete["data"] | {"root": None, "options": {}} == usual["data"]
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


def test_a_missing_root_is_named_with_the_remedy() -> None:
    with pytest.raises(RecipeError, match="needs --data night600=ROOT"):
        row_recipe(rows_of("table5", scene=False)[0], rows_of("table5", scene=False)[0].train_on, {}, ())


def test_an_unknown_table_is_named_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"table8.*table"):
        rows_of("table8", scene=False)


def test_a_filter_that_fits_no_row_names_the_rows(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"fits no row of table5; rows: MB, MB\+MB"):
        run_table("table5", SCENE, tmp_path, only=["nothing"])


@pytest.mark.slow
def test_rows_of_deens_ablation_run_on_a_scene_with_both_modalities(tmp_path: Path) -> None:
    scene = "data.scene={layout: llcm, num_train_people: 4, num_test_people: 3, cameras: 2, size: [64, 32]}"
    small = [scene, "data.size=[64, 32]", "schedule.epochs=1", "schedule.warmup_epochs=0", "sampler.steps=1"]
    small += ["sampler.ids=2", "sampler.pictures=2", "method.backbone=test_resnet", "method.last_stride=2"]
    content = run_table(
        "deen-table4", SCENE, tmp_path, overrides=small, only=["1: ", "7: "], cache=tmp_path / "data", quiet=True
    )
    baseline, complete = content["rows"]
    assert (baseline["label"], complete["label"]) == ("1: baseline", "7: DEE, CPM, ort, MFA")
    assert baseline["protocol"].startswith("llcm_")
    assert complete["paper_percent"] == {"rank1": 54.9, "rank5": None, "rank10": None, "mean_ap": 62.9}
    assert "Paper: LLCM, infrared queries" in (tmp_path / "deen-table4.md").read_text()


@pytest.mark.slow
def test_rows_run_on_the_scene_and_a_second_call_trains_nothing(tmp_path: Path) -> None:
    content = run_table(
        "table3", SCENE, tmp_path / "table3", seeds=[1, 2], overrides=TINY, cache=tmp_path / "data", quiet=True
    )
    plain, enhanced = content["rows"]
    assert plain["seeds"] == enhanced["seeds"] == [1, 2]
    assert plain["ours_percent"]["mean_ap"]["deviation"] is not None
    assert (tmp_path / "table3" / "zero_dce_seed1" / "checkpoints" / "last.safetensors").is_file()
    assert json.loads((tmp_path / "table3" / "table3.json").read_text())["rows"] == content["rows"]
    weights = tmp_path / "table3" / "ide_dce_seed2" / "checkpoints" / "last.safetensors"
    written = weights.stat().st_mtime_ns
    again = run_table(
        "table3", SCENE, tmp_path / "table3", seeds=[1, 2], overrides=TINY, cache=tmp_path / "data", quiet=True
    )
    assert again["rows"] == content["rows"]
    assert weights.stat().st_mtime_ns == written


def test_the_rendered_table_keeps_ours_and_the_papers_apart() -> None:
    content = {
        "paper": "IDF paper (TMM 2023)",
        "title": "Table V, ablation",
        "pictures": "generated",
        "paper_pictures": "Night600",
        "paper_remark": "Paper: printed in small type",
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
    text = render_table(content)
    assert "R-1 ours" in text
    assert "R-1 paper" in text
    assert "| MB | 50.00 ± 1.50 |" in text
    assert "| 7.75 | 20.09 | 27.43 | 3.38 | 1, 2 |" in text
    assert "Paper: Night600. Compare the order of the rows, never the figures" in text
    assert text.startswith("IDF paper (TMM 2023), Table V, ablation; percent")
    assert text.rstrip().endswith("Paper: printed in small type.")
