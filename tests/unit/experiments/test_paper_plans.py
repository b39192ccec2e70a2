"""What is known of a table before its first training, and RegDB's divisions."""

import functools
import json
from pathlib import Path

import pytest
import timm
from torch import Tensor

from tapetum.cli.main import app
from tapetum.cli.reproduce import _read_numbers
from tapetum.core.errors import CheckpointError, DataError, RecipeError
from tapetum.core.seeding import numpy_generator
from tapetum.data.catalog import load_dataset_module
from tapetum.experiments import reproduce
from tapetum.experiments.paper_plans import check_plans, check_starts, make_plans
from tapetum.experiments.paper_tables import TABLES, rows_of
from tapetum.experiments.reproduce import choose_rows, run_table
from tapetum.layers import backbones
from tapetum.runs.recipe import load_recipe
from tapetum.runs.sources import list_protocols
from tapetum.training.start_weights import check_start

NAMES = ("night600", "knight", "market1501", "rgbnt201", "llcm", "sysu_mm01", "regdb")
SCENE = {"synth": None}
BEGUN = "a training was begun"
MPANET = ("SYSU-MM01 all-search: MPANet", "SYSU-MM01 indoor: MPANet")


@functools.cache
def fake_imagenet(name: str) -> dict[str, Tensor]:
    """Tensors as the hub has them, without numbers: every call is made where networks are built so."""
    settings = {} if backbones.gives_tokens(name) else {"global_pool": ""}
    return dict(timm.create_model(name, num_classes=0, **settings).state_dict())


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """ImageNet weights can be had, and no training begins."""
    monkeypatch.setattr(backbones, "_fetch_imagenet", fake_imagenet)
    monkeypatch.setattr(reproduce, "train", refuse)


def refuse(*_: object, **__: object) -> None:
    raise AssertionError(BEGUN)


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """A miniature of each data set that the tables need."""
    places = {}
    for name in NAMES:
        places[name] = str(tmp_path_factory.mktemp(name))
        load_dataset_module(name).write_miniature(Path(places[name]), numpy_generator(1, name))
    return dict(places)


@pytest.mark.parametrize("table", TABLES)
def test_every_training_on_real_pictures_has_a_network_start_weights_and_a_protocol(table: str, hub: None) -> None:
    rows = [row for row in rows_of(table, scene=False) if row.recipe]
    if table == "table6":  # whose rows differ in two numbers
        rows = rows[:2]
    given = {name: Path(f"{name}.pth") for name in ("zero_dce", "enlighten_gan")} if table == "table3" else {}
    plans = make_plans(rows, dict.fromkeys(NAMES, "/data"), Path("out"), (), weights={**given, "zero_dce": None})
    check_starts(plans)
    for plan in plans:
        known = list_protocols(plan.tested.data)
        assert (plan.protocol or load_dataset_module(plan.tested.data.name).DEFAULT_PROTOCOL) in known
        assert plan.recipe.init.weights == "imagenet"


def test_bdtr_runs_on_real_pictures_from_a_network_whose_weights_can_be_had(hub: None) -> None:
    with pytest.raises(CheckpointError, match="Caffe's weights cannot be fetched"):
        check_start(load_recipe("bdtr_sysu", ["data.root=/data"]))
    for table in ("deen-table2", "deen-table3"):
        rows = choose_rows(table, rows_of(table, scene=False), ["BDTR"])
        plans = make_plans(rows, dict.fromkeys(NAMES, "/data"), Path("out"), ())
        assert {plan.recipe.method.options["backbone"] for plan in plans} == {"resnet50"}
        assert "BDTR on real pictures is of two ResNet-50" in TABLES[table].remark
        alexnet = make_plans(rows, dict.fromkeys(NAMES, "/data"), Path("out"), ["method.backbone=alexnet"])
        assert {plan.recipe.method.options["backbone"] for plan in alexnet} == {"alexnet"}


def test_start_weights_that_cannot_be_had_stop_a_table_before_its_first_training(
    roots: dict[str, str | None], tmp_path: Path, hub: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    alexnet = ["method.backbone=alexnet"]
    with pytest.raises(CheckpointError, match=r"^row 'SYSU-MM01 all-search: BDTR': backbone alexnet: Caffe's weights"):
        run_table("deen-table2", roots, tmp_path, overrides=alexnet, only=["BDTR"], quiet=True)
    with pytest.raises(CheckpointError, match=r"^row 'MB': nowhere\.pth: there is no such weights file"):
        run_table("table5", roots, tmp_path, overrides=["init.weights=nowhere.pth"], quiet=True)

    def fetch(name: str) -> dict[str, Tensor]:
        if name.startswith("vit"):
            raise CheckpointError(f"backbone {name}: cannot be fetched")
        return fake_imagenet(name)

    monkeypatch.setattr(backbones, "_fetch_imagenet", fetch)
    with pytest.raises(CheckpointError, match=r"^row 'TransReID': backbone vit_base_patch16_224: cannot be fetched"):
        run_table("table2", roots, tmp_path, quiet=True)
    assert not any(tmp_path.iterdir())


def test_options_and_roots_of_a_later_data_set_are_checked_before_the_first_training(
    roots: dict[str, str | None], tmp_path: Path, hub: None
) -> None:
    by_file = ["data.options.permutations=file"]
    for given in (roots, SCENE):
        with pytest.raises(RecipeError, match=r"^row 'RegDB VIS→IR: MPANet': \w+: option 'permutations' is unknown"):
            run_table("deen-table2", given, tmp_path, overrides=by_file, only=["MPANet"], quiet=True)
    with pytest.raises(AssertionError, match=BEGUN):  # the rows on SYSU-MM01 alone can
        run_table("deen-table2", roots, tmp_path, overrides=by_file, only=MPANET, quiet=True)
    with pytest.raises(DataError, match=r"^row 'RegDB VIS→IR: MPANet': .*nowhere"):
        run_table("deen-table2", {**roots, "regdb": "nowhere"}, tmp_path, only=["MPANet"], quiet=True)
    with pytest.raises(RecipeError, match=r"^row 'RegDB VIS→IR: MPANet': regdb: trial is 11"):
        run_table("deen-table2", roots, tmp_path, trials=[1, 11], only=["MPANet"], quiet=True)
    with pytest.raises(RecipeError, match="they are shown as printed"):
        run_table("deen-table2", roots, tmp_path, only=["MAUM"], quiet=True)


def test_each_trial_of_regdb_has_a_run_of_its_own_and_the_first_the_usual_name(
    roots: dict[str, str | None], hub: None
) -> None:
    rows = choose_rows("deen-table2", rows_of("deen-table2", scene=False), ["CAJ"])
    plans = make_plans(rows, roots, Path("out"), (), seeds=[1, 2], trials=[1, 3])
    check_plans(plans, Path("data"))
    names = [plan.folder.name for plan in plans]
    sysu = ["caj_sysu_seed1", "caj_sysu_seed2"]
    regdb = ["caj_regdb_seed1", "caj_regdb_seed2", "caj_regdb_trial3_seed1", "caj_regdb_trial3_seed2"]
    assert names == [*sysu, *sysu, *regdb, *regdb]
    for plan in plans[4:]:
        assert plan.trial == (3 if "trial3" in plan.folder.name else 1)
        assert plan.recipe.data.options["trial"] == plan.tested.data.options["trial"] == plan.trial
    titles = [stage.title for plan in plans for stage in plan.stages()]
    assert len(set(titles)) == len(titles)
    assert titles[-1] == "test RegDB IR→VIS: CAJ, trial 3, seed 2"
    (by_hand,) = make_plans(rows[2:3], roots, Path("out"), ["data.options.trial=3"], seeds=[1])
    assert by_hand.folder.name == "caj_regdb_trial3_seed1"
    with pytest.raises(RecipeError, match="--trials: no data set of these rows is divided in several ways"):
        make_plans(rows[:2], roots, Path("out"), (), trials=[1, 2])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["deen-table2", "--trials", "1-x"], r"--trials '1-x': '1-x' is no whole number; write e\.g\. --trials 1-10"),
        (["deen-table2", "--seeds", "1, two"], r"--seeds '1, two': 'two' is no whole number; write e\.g\. --seeds 1,2"),
        (["deen-table4", "--trials", "1-3"], "--trials: no data set of these rows is divided in several ways"),
        (["league", "--trials", "1-3"], "--trials is of the papers' tables on RegDB"),
    ],
)
def test_trials_that_cannot_be_are_refused_by_the_command(words: list[str], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        app(["reproduce", *words, "--data", "synth", "--quiet"], standalone_mode=False)


def test_ranges_of_numbers_are_counted_out_once() -> None:
    assert _read_numbers("--trials", "1-3, 2,7", "1-10") == [1, 2, 3, 7]
    assert _read_numbers("--seeds", "", "1,2,3") == []


@pytest.mark.slow
def test_the_cell_of_several_trials_is_their_mean(small_networks: None, tmp_path: Path) -> None:
    parts = ("num_train_people=8", "num_test_people=4", "pictures_per_camera=2", "size=[64, 32]")
    short = [f"data.scene.{part}" for part in parts]
    short += ["data.size=[64, 32]", "schedule.epochs=1", "schedule.warmup_epochs=0", "sampler.steps=1"]
    short += ["sampler.ids=4", "sampler.pictures=2"]
    content = run_table(
        "deen-table2", SCENE, tmp_path / "out", trials=[1, 2, 3], overrides=short, only=["RegDB VIS→IR: CAJ"],
        cache=tmp_path / "data", quiet=True,
    )  # fmt: skip
    (row,) = content["rows"]
    assert (row["seeds"], row["trials"]) == ([2021], [1, 2, 3])
    runs = [f"caj_regdb{part}_seed2021" for part in ("", "_trial2", "_trial3")]
    cards = [json.loads(next((tmp_path / "out" / run).glob("evaluation*/*.json")).read_text()) for run in runs]
    assert [card["data"]["division"]["trial"] for card in cards] == [1, 2, 3]
    assert len({card["data"]["pictures"]["query"] for card in cards}) == 3
    found = [100 * card["metrics"]["mean_ap"] for card in cards]
    assert row["ours_percent"]["mean_ap"]["mean"] == pytest.approx(sum(found) / 3)
    assert "| 2021; trial 1, 2, 3 |" in (tmp_path / "out" / "deen-table2.md").read_text(encoding="utf-8")
