from pathlib import Path

import pytest

from tapetum.core.errors import RecipeError
from tapetum.engine.recipe import known_keys, list_recipes, load_recipe, parse_yaml, write_yaml


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method.distilation_weight=0.1", "method.distilation_weight is unknown; did you mean distillation_weight?"),
        ("augment.erasing.probabilty=0.1", "augment.erasing.probabilty is unknown; did you mean probability?"),
        ("schedule.epoch=3", "schedule.epoch is unknown; did you mean epochs?"),
        ("epochs=3", "epochs is unknown; did you mean schedule.epochs?"),
        ("nonsense=3", "nonsense is unknown; known: about, augment, data"),
        ("method.name=idff", "'idff' is unknown; did you mean idf?"),
        ("init.weight=random", "init.weight is unknown; did you mean weights?"),
    ],
)
def test_an_unknown_key_at_any_depth_is_refused_with_the_nearest_name(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=r"^recipe idf_official\.yaml: ") as caught:
        load_recipe("idf_official", [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("schedule.epochs=ten", "schedule.epochs is 'ten', expected integer"),
        ("schedule.epochs=2.5", "schedule.epochs is 2.5, expected integer"),
        ("schedule.epochs=true", "schedule.epochs is True, expected integer"),
        ("schedule.epochs=0", "schedule.epochs is 0, expected greater than or equal to 1"),
        ("optimiser.lr=fast", "optimiser.lr is 'fast', expected number"),
        ("optimiser.group_lr.backbone=-1", "optimiser.group_lr.backbone is -1, expected greater than 0"),
        ("data.size=[1, 2, 3]", "data.size is [1, 2, 3], expected at most 2 items"),
        ("data.root=3", "data.root is 3, expected string"),
        ("training.precision=fp8", "training.precision is 'fp8', expected 'fp32', 'bf16', 'fp16' or 'auto'"),
        ("sampler=null", "sampler is None, expected a section (key: value)"),
        ("sampler.ids=4", "sampler: uniform needs batch, and neither ids nor pictures"),
        ("sampler={name: cross_modality, ids: 4}", "sampler: cross_modality needs ids and pictures, and no batch"),
        ("sampler={name: cross_modality, batch: 48, ids: 6, pictures: 4}", "no batch (it is 2 x ids x pictures)"),
        ("sampler.unpaired=drop", "sampler: unpaired is for cross_modality, not for uniform; remove it"),
        ("sampler={name: cross_modal, batch: 8}", "expected 'uniform', 'pk' or 'cross_modality'"),
        ("augment.grayscale=1.5", "augment.grayscale is 1.5, expected less than or equal to 1"),
        ("data.interpolation=cubic", "expected 'bicubic', 'bilinear' or 'lanczos'"),
        ("selection.rule=best", "expected 'holdout', 'last' or 'best_on_test'"),
        ("schedule.step=null", "schedule: step needs the number of epochs between two drops"),
        ("schedule.name=multistep", "schedule: multistep needs schedule.milestones"),
        ("selection.ids=1.5", "selection.ids is 1.5, expected a fraction below 1 or a whole number"),
        ("method.curve_width=wide", "method.curve_width: 'wide' is of type str; expected int"),
        ("name=a/b", "name is 'a/b', must be a plain name"),
    ],
)
def test_a_wrong_type_or_value_names_key_value_and_what_was_expected(override: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("idf_official", [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_misspelt_key_in_a_file_is_named_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nmethod: {name: ide}\nsampler: {batch: 8}\nschedule: {epochs: 1, stepp: 3}\n")
    with pytest.raises(RecipeError, match=r"recipe mine.yaml: schedule.stepp is unknown; did you mean step\?"):
        load_recipe(path)


def test_a_missing_section_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nmethod: {name: ide}\nschedule: {epochs: 1, step: 3}\n")
    with pytest.raises(RecipeError, match=r"recipe mine.yaml: sampler is missing; add it"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [1", "line 1: expected"),
        ("name: a\nname: b\n", "name is written twice"),
        ("- a\n- b\n", "holds list, expected a mapping"),
        ("name: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
    ],
)
def test_text_that_is_no_plain_mapping_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=r"recipe bad.yaml") as caught:
        load_recipe(path)
    assert message in str(caught.value)


def test_a_recipe_that_does_not_exist_names_the_nearest_one() -> None:
    with pytest.raises(RecipeError, match=r"no such file or recipe; did you mean idf_official\?"):
        load_recipe("idf_oficial")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(RecipeError, match="give a UTF-8 YAML file"):
        load_recipe(path)


@pytest.mark.parametrize("override", ["epochs", "=3", "a..b=3", "name.first=x"])
def test_an_override_of_another_form_is_refused(override: str) -> None:
    with pytest.raises(RecipeError, match="--set"):
        load_recipe("idf_official", [override])


def test_overrides_apply_in_order_and_read_as_yaml() -> None:
    recipe = load_recipe(
        "idf_official",
        ["optimiser.lr=1e-3", "optimiser.lr=2e-3", "data.scene.cameras=5", "sampler={name: pk, ids: 4, pictures: 2}"],
    )
    assert recipe.optimiser.lr == 0.002
    assert recipe.data.scene == {"cameras": 5}
    assert recipe.sampler.global_batch == 8


def test_scientific_notation_without_a_point_is_a_number() -> None:
    assert parse_yaml("[1e-4, 5E3, -2e+1, 1.5e-2]", "x") == [1e-4, 5e3, -20.0, 0.015]


def test_the_resolved_recipe_reads_back_as_itself(tmp_path: Path) -> None:
    for name in list_recipes():
        recipe = load_recipe(name)
        path = tmp_path / f"{name}.yaml"
        path.write_text(write_yaml(recipe))
        assert load_recipe(path) == recipe


def test_known_keys_reach_every_depth() -> None:
    keys = set(known_keys())
    assert {"seed", "optimiser.lr", "augment.erasing.area", "evaluation.rerank.k1"} <= keys


@pytest.mark.parametrize(
    ("sampler", "pictures"),
    [
        ("{batch: 7}", 7),
        ("{name: pk, ids: 6, pictures: 4}", 24),
        ("{name: cross_modality, ids: 6, pictures: 4, unpaired: drop}", 48),
    ],
)
def test_the_global_batch_counts_every_picture_of_both_modalities(sampler: str, pictures: int) -> None:
    assert load_recipe("idf_official", [f"sampler={sampler}"]).sampler.global_batch == pictures
