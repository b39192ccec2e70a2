from pathlib import Path
from typing import Any

import pytest

from tapetum.core.errors import RecipeError
from tapetum.methods import build_options
from tapetum.runs.recipe import (
    check_recipe,
    describe_recipes,
    known_keys,
    list_recipes,
    load_recipe,
    plain_recipe,
    write_yaml,
)
from tapetum.runs.recipe_text import parse_yaml


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method.distilation_weight=0.1", "method.distilation_weight is unknown; did you mean distillation_weight?"),
        ("augment.erasing.probabilty=0.1", "augment.2 (erasing).probabilty is unknown; did you mean probability?"),
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
        ("sampler.ids=4", "sampler.ids is unknown; known: batch, steps, views"),
        ("sampler={name: cross_modality, ids: 4}", "sampler.pictures is missing; add it"),
        (
            "sampler={name: cross_modality, batch: 48, ids: 6, pictures: 4}",
            "sampler.batch is unknown; known: ids, label_noise",
        ),
        ("sampler.unpaired=drop", "sampler.unpaired is unknown; known: batch, steps, views"),
        ("sampler={name: cross_modal, batch: 8}", "sampler 'cross_modal' is unknown; did you mean cross_modality?"),
        (
            "augment.grayscale=1.5",
            "augment.0 (grayscale).probability: 1.5 is out of range; use a number from 0, up to 1",
        ),
        ("data.interpolation=cubic", "expected 'bicubic', 'bilinear' or 'lanczos'"),
        ("selection.rule=best", "expected 'holdout', 'last' or 'best_on_test'"),
        ("schedule.step=null", "schedule: step needs the number of epochs between two drops"),
        ("schedule.name=multistep", "schedule: multistep needs schedule.milestones"),
        (
            "schedule={epochs: 9, name: linear, milestones: [3, 5]}",
            "schedule: linear falls from one epoch on, schedule.milestones has 2; leave one",
        ),
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
        ("[" * 100_000, "is nested too deeply to be a recipe"),
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
    with pytest.raises(RecipeError, match=r"no such file or recipe; `tapetum train --list` names all$"):
        load_recipe("quite_another")
    with pytest.raises(RecipeError, match=r"no such file or recipe; did you mean idf_official\?"):
        load_recipe("idf_oficial")


def test_each_recipe_of_the_package_is_described_by_its_own_words_in_one_line() -> None:
    lines = describe_recipes()
    assert [line.name for line in lines] == list_recipes()
    assert all(line.about and "\n" not in line.about for line in lines)


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
        again = load_recipe(path)
        assert plain_recipe(again) == plain_recipe(recipe)
        assert again.method.options.keys() == vars(build_options(recipe.method.name)).keys()
        assert again.model_copy(update={"method": recipe.method}) == recipe


def test_known_keys_reach_every_depth() -> None:
    keys = set(known_keys())
    assert {
        "seed",
        "optimiser.lr",
        "augment.erasing.area",
        "augment.flip.view",
        "sampler.unpaired",
        "evaluation.rerank.k1",
    } <= keys


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("augment.flip=0.3", {"flip": ("probability", 0.3)}),
        ("augment.flip.probability=0.3", {"flip": ("probability", 0.3)}),
        ("augment.2.probability=0.3", {"erasing": ("probability", 0.3)}),
        ("augment.pad=4", {"pad_crop": ("pad", 4)}),
        ("augment.erasing.area=[0.2, 0.8]", {"erasing": ("area", [0.2, 0.8])}),
        ("augment.erasing={probability: 0.2}", {"erasing": ("probability", 0.2)}),
        ("augment.grayscale=0.5", {"grayscale": ("probability", 0.5)}),
        ("augment.colour_jitter=[0.1, 0.1, 0.1, 0.0]", {"colour_jitter": ("strength", [0.1, 0.1, 0.1, 0.0])}),
        ("augment={pad: 4, flip: 0.3}", {"pad_crop": ("pad", 4), "flip": ("probability", 0.3)}),
        ("augment=[{name: gamma, gamma: [1, 2]}]", {"gamma": ("gamma", [1.0, 2.0])}),
    ],
)
@pytest.mark.parametrize("form", ["list", "mapping"])
def test_an_override_finds_its_operation_in_a_list_and_in_the_mapping_of_before(
    override: str, expected: dict, form: str, tmp_path: Path
) -> None:
    section = {
        "list": "[{name: pad_crop, pad: 10}, {name: flip, probability: 0.5}, {name: erasing, probability: 0.5}]",
        "mapping": "{pad: 10, flip: 0.5, erasing: {probability: 0.5}}",
    }[form]
    path = write_recipe(tmp_path, f"augment: {section}")
    entries = {entry["name"]: entry for entry in load_recipe(path, [override]).augment}
    for name, (option, value) in expected.items():
        assert entries[name][option] == value
    order = ["gamma", "colour_jitter", "grayscale", "pad_crop", "flip", "erasing"]
    assert list(entries) == [name for name in order if name in entries]


def write_recipe(folder: Path, *lines: str) -> Path:
    path = folder / "mine.yaml"
    rest = [line for line in ("sampler: {batch: 8}",) if not any(each.startswith("sampler") for each in lines)]
    path.write_text("\n".join(["name: mine", "method: {name: ide}", "schedule: {epochs: 1, step: 3}", *rest, *lines]))
    return path


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("augment.flp=0.3", "augment.flp is unknown; did you mean flip?"),
        ("augment.gamma.gamma=[1, 2]", "its place among the others is not known; set all: augment=[{name: ...}, ...]"),
        ("augment.9.pad=1", "there are 4 operations, counted from 0 (pad_crop, flip, erasing, erasing)"),
        ("augment.erasing.probability=0.3", "erasing is there 2 times; write augment.2 or augment.3 for erasing"),
        ("augment.erasing=0.3", "erasing is there 2 times"),
        ("augment.pad_crop=3", "name the option too, e.g. augment.pad_crop.probability=3"),
        ("augment=flip", "augment is 'flip', expected operations; write a list, one operation a line"),
        ("augment={padd: 3}", "augment.padd is unknown; did you mean pad?"),
        ("augment={erasing: 0.5}", "augment.erasing is 0.5, expected a section (key: value)"),
    ],
)
def test_an_override_that_cannot_be_placed_says_what_to_write(override: str, message: str, tmp_path: Path) -> None:
    twice = "[{name: pad_crop}, {name: flip}, {name: erasing}, {name: erasing, view: 0}]"
    with pytest.raises(RecipeError, match=r"^recipe mine\.yaml: ") as caught:
        load_recipe(write_recipe(tmp_path, f"augment: {twice}"), [override])
    assert message in str(caught.value)


def test_an_operation_goes_where_it_stood_before_only_among_those_of_before(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, "augment: [{name: flip}, {name: channel_exchange}]")
    with pytest.raises(RecipeError, match="augment has no erasing, and its place among the others is not known"):
        load_recipe(path, ["augment.erasing.probability=0.5"])


def test_a_recipe_of_before_means_what_it_meant_and_is_that_of_its_list(tmp_path: Path) -> None:
    nothing = "{pad: 0, grayscale: 0.0, flip: 0.0, erasing: {probability: 0.0, fill: black}, colour_jitter: null}"
    assert load_recipe(write_recipe(tmp_path, f"augment: {nothing}")).augment == []
    said_nothing = load_recipe(write_recipe(tmp_path)).augment
    assert said_nothing == [{"name": "flip", "probability": 0.5}]
    (_, erasing) = load_recipe(write_recipe(tmp_path, "augment: {erasing: {probability: 0.5}}")).augment
    assert erasing["aspect"] == [0.3, 3.3333]  # its default then; the file's own is 1 / 0.3
    resolved = "{name: uniform, batch: 8, ids: null, pictures: null, steps: null, unpaired: error}"
    section = load_recipe(write_recipe(tmp_path, f"sampler: {resolved}")).sampler
    assert section == load_recipe(write_recipe(tmp_path)).sampler


@pytest.mark.parametrize(
    ("operation", "good"), [("view: 1, modality: visible", True), ("view: 1, modality: infrared", False)]
)
def test_a_recipe_is_refused_whose_operation_names_a_view_that_the_sampler_does_not_give(
    operation: str, good: bool, tmp_path: Path
) -> None:
    path = write_recipe(
        tmp_path,
        "sampler: {name: cross_modality, ids: 4, pictures: 2, views: [2, 1]}",
        f"augment: [{{name: channel_exchange, {operation}}}]",
    )
    if good:
        assert load_recipe(path).sampler.global_batch == 24
    else:
        with pytest.raises(RecipeError, match=r"recipe mine.yaml: augment.0 \(channel_exchange\): view 1 of infrared"):
            load_recipe(path)


@pytest.mark.parametrize(("views", "remedy"), [([1, 1], [2, 1]), ([1, 3], [2, 3]), ([2, 1], None), ([3, 2], None)])
def test_a_recipe_is_refused_whose_sampler_gives_fewer_views_than_its_method_needs(
    views: list[int], remedy: list[int] | None
) -> None:
    settings = ["augment=[]", f"sampler.views={views}"]
    if remedy is None:
        assert load_recipe("caj_synth", settings).sampler.options["views"] == views
        return
    with pytest.raises(RecipeError) as caught:
        load_recipe("caj_synth", settings)
    assert str(caught.value) == (
        f"recipe caj_synth.yaml: sampler.views is {views}, but method caj needs 2 of each visible and 1 of each "
        f"infrared picture; set sampler.views to {remedy}"
    )


def test_a_method_file_whose_views_are_no_two_counts_is_told_what_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "wrong_views"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "single.py").write_text("from tapetum.methods.ide import Method, Options\nVIEWS = 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RecipeError, match=r"method 'wrong_views\.single': VIEWS is 2 .*; write .* VIEWS = \(2, 1\)"):
        load_recipe("ide_synth", ["method={name: wrong_views.single}"])


@pytest.mark.parametrize(("before", "stages"), [(True, 3), (False, 0), (2, 2)])
def test_what_was_a_switch_once_means_the_number_that_it_stood_for(before: Any, stages: int) -> None:
    recipe = load_recipe("deen_sysu", [f"method.recompute={str(before).lower()}"])
    assert build_options("deen", recipe.method.options).recompute == stages


def test_what_checkpoints_and_run_folders_of_before_hold_is_the_same_recipe() -> None:
    recipe = load_recipe("idf_official")
    content = recipe.model_dump(mode="json")
    erasing = {"probability": 0.5, "area": [0.02, 0.4], "aspect": [0.3, 3.3333], "aspect_scale": "uniform"}
    augment = {"pad": 10, "grayscale": 0.0, "flip": 0.5, "erasing": {**erasing, "fill": "black"}, "colour_jitter": None}
    sampler = {"name": "uniform", "batch": 32, "ids": None, "pictures": None, "steps": None, "unpaired": "error"}
    assert check_recipe(content | {"augment": augment, "sampler": sampler}, "run/recipe.yaml") == recipe


@pytest.mark.parametrize("override", ["optimiser.lr=.inf", "training.gradient_clip=.inf", "optimiser.momentum=.nan"])
def test_a_number_that_is_not_finite_is_refused(override: str) -> None:
    with pytest.raises(RecipeError, match=rf"{override.partition('=')[0]}.*finite number"):
        load_recipe("idf_official", [override])
