from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tapetum.core.errors import CheckpointError, RecipeError
from tapetum.methods import build_method, convert_to, ide, official_formats, small_options
from tapetum.runs.checkpoint import Header, save_checkpoint
from tapetum.runs.convert import export_checkpoint, import_checkpoint, list_other_layouts
from tapetum.runs.recipe import check_recipe, load_recipe


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in the layout of the IDF release, with few classes and a narrow embedding."""
    torch.manual_seed(0)
    options = {"extractor_options": {"width": 16}}
    network = build_method("idf", options, 3)
    path = tmp_path_factory.mktemp("released") / "net_119.pth"
    torch.save(convert_to("idf-official", options, network.state_dict()), path)
    return path


@pytest.fixture(scope="module")
def released_ide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of the baseline."""
    options = {"width": 16}
    path = tmp_path_factory.mktemp("released_ide") / "net_last.pth"
    torch.save(convert_to("ide-official", options, build_method("ide", options, 3).state_dict()), path)
    return path


@pytest.fixture(scope="module")
def exported_agw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AGW of as many people as LLCM trains on, after 12 epochs, in the layout of the release."""
    torch.manual_seed(2)
    folder = tmp_path_factory.mktemp("agw")
    header = Header("agw_vi", {}, 713, epoch=12)
    save_checkpoint(folder / "ours.safetensors", build_method("agw_vi", {}, 713), header)
    export_checkpoint("agw-vi-official", folder / "ours.safetensors", folder / "llcm_agw_best.t")
    return folder / "llcm_agw_best.t"


def test_a_released_checkpoint_comes_in_and_goes_out_unchanged(released: Path, tmp_path: Path) -> None:
    header = import_checkpoint("idf-official", released, tmp_path / "ours.safetensors")
    assert (header.method, header.num_ids) == ("idf", 3)
    assert "net_119.pth" in header.chosen_by
    assert header.recipe["data"]["backend"] == "pil"
    export_checkpoint("idf-official", tmp_path / "ours.safetensors", tmp_path / "theirs.pth")
    before, after = (torch.load(path, weights_only=True) for path in (released, tmp_path / "theirs.pth"))
    assert len(after) == 689
    assert all(torch.equal(before[name], after[name]) for name in before if ".fc." not in name)


def test_each_layout_brings_the_recipe_of_its_own_method(released_ide: Path, tmp_path: Path) -> None:
    header = import_checkpoint("ide-official", released_ide, tmp_path / "ours.safetensors")
    recipe, usual = check_recipe(header.recipe, "converted"), load_recipe("ide_night600")
    assert (recipe.name, recipe.method.name) == ("ide_official", "ide")
    assert (recipe.data, recipe.optimiser, recipe.sampler) == (usual.data, usual.optimiser, usual.sampler)


@pytest.mark.slow
def test_a_visible_infrared_release_keeps_scores_beside_the_tensors(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = build_method("agw_vi", {}, 3)
    theirs = convert_to("agw-vi-official", {}, network.state_dict())
    used = {name: value for name, value in theirs.items() if ".layer" not in name or name.startswith("base_resnet")}
    saved = {"net": used, "cmc": np.array([0.5, 0.75]), "mAP": np.float64(0.5), "mINP": 0.25, "epoch": 7}
    torch.save(saved, tmp_path / "sysu_agw_best.t")
    header = import_checkpoint("agw-vi-official", tmp_path / "sysu_agw_best.t", tmp_path / "ours.safetensors")
    assert (header.method, header.num_ids, header.recipe["data"]["size"]) == ("agw_vi", 3, [288, 144])
    assert header.recipe["data"]["interpolation"] == "lanczos"
    export_checkpoint("agw-vi-official", tmp_path / "ours.safetensors", tmp_path / "theirs.t")
    again = torch.load(tmp_path / "theirs.t", weights_only=True)
    assert again.keys() == saved.keys(), "test scripts of the release print what lies beside the tensors"
    assert (again["cmc"].tolist(), again["mAP"], again["mINP"], again["epoch"]) == ([0.0] * 20, 0.0, 0.0, 0)
    assert again["net"].keys() == theirs.keys()
    assert all(torch.equal(again["net"][name], value) for name, value in used.items())


@pytest.mark.parametrize(
    ("layout", "beside"),
    [
        ("lba-official", {"cmc", "mAP", "mINP"}),
        ("ddag-official", {"cmc", "mAP"}),
        ("dart-official", {"cmc", "mAP", "mINP", "optimizer"}),
    ],
)
def test_an_export_has_beside_the_tensors_what_the_file_of_that_release_has(layout: str, beside: set[str]) -> None:
    form = official_formats()[layout]
    assert (form.key, form.scores.keys()) == ("net", beside)


def test_an_export_says_after_how_many_epochs_its_weights_were_taken(exported_agw: Path) -> None:
    assert torch.load(exported_agw, weights_only=True, mmap=True)["epoch"] == 12


def give_recipe(monkeypatch: pytest.MonkeyPatch, recipe: str) -> None:
    """Three people are those of some data set."""
    monkeypatch.setitem(
        ide.OFFICIAL_FORMATS, "ide-official", replace(ide.OFFICIAL_FORMATS["ide-official"], recipe=recipe)
    )


def test_where_the_number_of_identities_tells_the_data_set_its_recipe_is_brought(
    released_ide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [(form.recipe, name) for form in official_formats().values() for name in form.recipes_by_ids.values()]
    for recipe, name in pairs:
        usual, chosen = load_recipe(recipe), load_recipe(name)
        assert chosen.method.name == usual.method.name
        assert chosen.data.name != usual.data.name
    family = [form for form in official_formats().values() if load_recipe(form.recipe).data.name == "sysu_mm01"]
    assert len(family) >= 8
    for form in family:
        assert {load_recipe(name).data.name for name in form.recipes_by_ids.values()} == {"regdb", "llcm"}, form.layout
    give_recipe(monkeypatch, "ide_synth")
    header = import_checkpoint("ide-official", released_ide, tmp_path / "ours.safetensors")
    assert header.recipe["data"]["name"] == "synth"


def test_agw_weights_of_llcm_are_said_to_be_trained_with_the_erasing_of_the_only_release(
    exported_agw: Path, tmp_path: Path
) -> None:
    header = import_checkpoint("agw-vi-official", exported_agw, tmp_path / "ours.safetensors")
    star, plain = load_recipe("agw_star_llcm"), load_recipe("agw_llcm")
    recipe = check_recipe(header.recipe, "converted")
    assert (recipe.augment, recipe.data) == (star.augment, star.data)
    names = [[entry["name"] for entry in each.augment] for each in (recipe, plain)]
    assert names == [["pad_crop", "flip", "erasing"], ["pad_crop", "flip"]]
    assert recipe.augment[2]["probability"] == 0.5
    assert plain.model_copy(update={"name": star.name, "about": star.about, "augment": star.augment}) == star


def test_the_division_of_the_people_that_a_release_was_trained_on_must_be_told(
    released_ide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_recipe(monkeypatch, "agw_regdb")
    source, target = released_ide, tmp_path / "ours.safetensors"
    with pytest.raises(RecipeError, match=r"net_last\.pth: .* regdb trains on, .*; add --set data\.options\.trial=V"):
        import_checkpoint("ide-official", source, target)
    with pytest.raises(RecipeError, match="does not say which was trained on"):
        import_checkpoint("ide-official", source, target, ["data.options={}"])
    with pytest.raises(RecipeError, match=r"--set optimiser\.lr: .* only data\.options can be set"):
        import_checkpoint("ide-official", source, target, ["optimiser.lr=1"])
    assert not target.exists()
    header = import_checkpoint("ide-official", source, target, ["data.options.trial=3"])
    assert header.recipe["data"]["options"] == {"trial": 3}


def test_a_file_or_layout_that_does_not_fit_is_refused(released: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"checkpoint layout 'idf-oficial' is unknown; did you mean idf-official\?"):
        import_checkpoint("idf-oficial", released, tmp_path / "out")
    with pytest.raises(CheckpointError, match="no such weights file"):
        import_checkpoint("idf-official", tmp_path / "nothing.pth", tmp_path / "out")
    with pytest.raises(CheckpointError):
        import_checkpoint("ide-official", released, tmp_path / "out")
    options = {"backbone": "test_resnet", "width": 16}
    save_checkpoint(tmp_path / "other", build_method("ide", options, 3), Header("ide", options, 3))
    with pytest.raises(CheckpointError):
        export_checkpoint("idf-official", tmp_path / "other", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_of_another_method_is_called_by_its_name_when_it_is_exported(tmp_path: Path) -> None:
    options = small_options("ddag")
    save_checkpoint(tmp_path / "ddag", build_method("ddag", options, 3), Header("ddag", options, 3))
    with pytest.raises(CheckpointError, match=r"ddag: holds the method 'ddag' and does not fit lba-official: "):
        export_checkpoint("lba-official", tmp_path / "ddag", tmp_path / "out")


def test_a_checkpoint_of_ours_is_called_by_its_method_where_a_released_one_is_wanted(tmp_path: Path) -> None:
    options = small_options("ddag")
    save_checkpoint(tmp_path / "ours.safetensors", build_method("ddag", options, 3), Header("ddag", options, 3))
    for layout in ("ide-official", "dart-official"):
        with pytest.raises(CheckpointError, match=r"s\.safetensors: holds Tapetum's method 'ddag' and needs no --from"):
            import_checkpoint(layout, tmp_path / "ours.safetensors", tmp_path / "again.safetensors")
    assert not (tmp_path / "again.safetensors").exists()


def test_a_file_of_two_layouts_is_known_to_fit_both(released: Path, exported_agw: Path, tmp_path: Path) -> None:
    assert list_other_layouts("agw-vi-official", exported_agw) == ["caj-official", "mclnet-official"]
    assert list_other_layouts("idf-official", released) == []
    torch.save(convert_to("lba-official", {}, build_method("lba", {}, 3).state_dict()), tmp_path / "best.t")
    assert list_other_layouts("two-stream-official", tmp_path / "best.t") == ["lba-official"]
