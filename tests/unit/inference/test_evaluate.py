import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tapetum.core.errors import CheckpointError, DataError, ProtocolError, RecipeError
from tapetum.core.seeding import numpy_generator
from tapetum.data.catalog import Dataset, fingerprint, open_dataset
from tapetum.data.datasets import regdb
from tapetum.data.datasets.synth import SCENE_FILE
from tapetum.data.loose import list_pictures
from tapetum.evaluation.calibration import Calibration, PairCalibration, read_calibration, write_calibration
from tapetum.evaluation.camera_norm import normalise_cameras
from tapetum.evaluation.card import diff_cards, read_card
from tapetum.evaluation.metrics import evaluate
from tapetum.evaluation.rerank import RerankOptions
from tapetum.evaluation.slices import first_wrong_rows
from tapetum.evaluation.thresholds import Tail
from tapetum.inference import evaluate as module
from tapetum.inference.calibrate import calibrate_run, held_out_records
from tapetum.inference.embedder import Embedder
from tapetum.inference.evaluate import Evaluated, evaluate_run
from tapetum.inference.pack import pack_checkpoint
from tapetum.report.runs import collect_content, find_test, read_test
from tapetum.runs.header import read_header
from tapetum.runs.recipe import Recipe
from tapetum.runs.run_folder import RunFolder
from tapetum.runs.sources import list_split, open_scene
from tapetum.searching.pictures import search_pictures
from tapetum.training.train import train

Build = Callable[..., Recipe]


def evaluate_one(place: Path, protocol: str | None = None, **settings: Any) -> Evaluated:
    (result,) = evaluate_run(place, [protocol], **settings)
    return result


@pytest.fixture(scope="module")
def run(tiny_recipe: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("evaluate") / "run"
    train(tiny_recipe(overrides=["schedule.epochs=1"]), root)
    return root


def test_a_card_holds_every_circumstance_of_its_numbers(run: Path, people: Path) -> None:
    found = evaluate_one(run, rerank=RerankOptions(k1=3, k2=2), draws=50)
    assert found.path == RunFolder(run).evaluation / "night600_rerank.json"
    card = read_card(found.path)
    assert card.rules.name == "night600"
    assert card.rules.ap == "trapezoid"
    assert card.mirror is True
    assert card.rerank["k1"] == 3
    assert 0 < card.metrics["rank1"] <= 1
    assert card.reranked["num_queries"] == card.metrics["num_queries"] == 8
    assert card.checkpoint["chosen_by"] == "last complete epoch, 1 of 1"
    assert card.checkpoint["precision"] == "fp32"
    assert card.data["query"] == 8
    assert card.data["gallery"] == 32
    assert len(card.data["fingerprint"]) == 16
    assert card.recipe["sampler"]["batch"] == 8
    assert card.seed == 2021
    assert set(card.slices) == {"camera", "camera_pair", "light", "size", "noise"}
    for name in ("camera", "light", "size", "noise"):
        levels = card.slices[name].values()
        assert sum(level["num_queries"] for level in levels) == 8
        assert all(
            level["mean_ap_interval"]["low"] <= level["mean_ap"] <= level["mean_ap_interval"]["high"]
            for level in levels
        )
    assert set(card.slices["camera"]) == {"camera 1", "camera 2"}
    worst = card.worst_queries
    assert [entry["ap"] for entry in worst] == sorted(entry["ap"] for entry in worst)


def test_camera_norm_is_on_the_card_and_in_its_name_and_leaves_what_is_kept_as_it_is(run: Path, tmp_path: Path) -> None:
    usual = evaluate_one(run, out=tmp_path, draws=10)
    kept = {path.name: path.read_bytes() for path in tmp_path.glob("*.safetensors")}
    centred = evaluate_one(run, camera_norm="centre", out=tmp_path, draws=10)
    assert centred.path.name == "night600_camera_centre.json"
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.safetensors")} == kept
    assert (read_card(usual.path).camera_norm, read_card(centred.path).camera_norm) == ("none", "centre")
    for camid in (1, 2):
        both = torch.cat([side.vectors[side.camids == camid] for side in (centred.query, centred.gallery)])
        assert torch.linalg.norm(both, dim=1).sub(1).abs().max() < 1e-5
    assert not torch.allclose(centred.query.vectors, usual.query.vectors)
    expected = normalise_cameras(usual.query, usual.gallery, "centre")
    assert torch.equal(centred.query.vectors, expected[0].vectors)
    assert "camera_norm" in {each.name for each in diff_cards(usual.card, centred.card)["protocol"]}


def test_who_wears_the_same_clothes_makes_a_slice_and_a_figure(run: Path, people: Path, tmp_path: Path) -> None:
    plain = open_dataset("night600", people)
    records = tuple(replace(each, outfit={8: 1, 9: 1, 10: 2}.get(each.pid, -1)) for each in plain.records)
    found = evaluate_one(run, dataset=replace(plain, records=records), out=tmp_path, draws=10)
    levels = read_card(found.path).slices["lookalikes"]
    assert {name: level["num_queries"] for name, level in levels.items()} == {
        "look-alike in the gallery": 4,
        "no look-alike": 4,
    }
    wrong = first_wrong_rows(found.query, found.gallery, found.protocol)
    asked = torch.isin(found.query.pids, torch.tensor([8, 9]))
    share = torch.isin(found.gallery.pids[wrong[asked]], torch.tensor([8, 9])).double().mean()
    assert levels["look-alike in the gallery"]["first_wrong_lookalike"] == pytest.approx(float(share))
    assert "first_wrong_lookalike" not in levels["no look-alike"]


def test_other_options_and_precision_have_cards_and_embeddings_of_their_own(
    run: Path, people: Path, tmp_path: Path
) -> None:
    own = Embedder(run).recipe.data
    usual = evaluate_one(run, data=own, out=tmp_path, draws=10)
    other = own.model_copy(update={"options": {"holdout_first": True}})
    options = evaluate_one(
        run, dataset=open_dataset("night600", people, options=other.options), data=other, out=tmp_path, draws=10
    )
    precise = evaluate_one(run, precision="bf16", out=tmp_path, draws=10)
    assert [found.path.stem for found in (usual, options, precise)] == [
        "night600", "night600_holdout-first-True", "night600_bf16",
    ]  # fmt: skip
    folder = RunFolder(tmp_path / "copy")
    shutil.copytree(tmp_path, folder.evaluation, ignore=shutil.ignore_patterns("copy"))
    kept = [read_test(folder, found.card) for found in (usual, options, precise)]
    for found, test in zip((usual, options, precise), kept, strict=True):
        assert test is not None
        assert torch.equal(test.query.vectors, found.query.vectors)
    foreign = replace(usual.card, checkpoint={**usual.card.checkpoint, "digest": "0" * 16})
    with pytest.raises(ProtocolError, match="of other weights, pictures or precision than the result card of night600"):
        read_test(folder, foreign)


def test_what_was_found_on_one_folder_of_a_data_set_stays_when_another_is_tested(
    run: Path, people: Path, tmp_path: Path
) -> None:
    shutil.copytree(people, tmp_path / "b")
    first, *_, last = sorted((tmp_path / "b" / "query_3").iterdir())
    shutil.copy(last, first)
    roots = {"a": open_dataset("night600", people), "b": open_dataset("night600", tmp_path / "b")}
    folder = RunFolder(tmp_path / "run")

    def on(root: str, **settings: Any) -> Evaluated:
        return evaluate_one(run, dataset=roots[root], out=folder.evaluation, draws=10, **settings)

    a = on("a")
    before = {path.name: path.read_bytes() for path in folder.evaluation.iterdir()}
    b, digits = on("b"), on("b").card.data["fingerprint"][:8]
    assert (a.path.name, a.stranger) == ("night600.json", None)
    assert (b.path.name, b.stranger) == (f"night600_{digits}.json", a.path)
    assert {path.name: path.read_bytes() for path in folder.evaluation.iterdir() if path.name in before} == before
    other_rules = on("b", rerank=RerankOptions(k1=3, k2=2))
    assert other_rules.path.name == f"night600_{digits}_rerank.json", "though there is no such card of the first"
    assert other_rules.stranger == folder.evaluation / "night600_query.safetensors"
    assert {path.name: path.read_bytes() for path in folder.evaluation.iterdir() if path.name in before} == before
    for each in (a, b):
        kept = read_test(folder, read_card(each.path))
        assert kept is not None
        assert kept.query.paths == each.query.paths
        assert torch.equal(kept.query.vectors, each.query.vectors)
    assert not torch.equal(a.query.vectors, b.query.vectors)
    assert on("a").path == a.path
    assert len(list(folder.evaluation.glob("*.json"))) == 3


def test_the_difference_of_two_cards_names_what_was_changed(run: Path) -> None:
    a = read_card(evaluate_one(run, draws=10).path)
    b = read_card(evaluate_one(run, protocol="night600_step", mirror=False, draws=10).path)
    groups = diff_cards(a, b)
    assert {difference.name for difference in groups["protocol"]} >= {"rules.ap", "mirror"}
    assert groups["data"] == []
    assert groups["model"] == []


def test_another_dataset_may_be_evaluated_and_gets_its_own_card(run: Path, people: Path, tmp_path: Path) -> None:
    from tapetum.data.datasets.market1501 import write_miniature

    write_miniature(tmp_path, numpy_generator(0))
    found = evaluate_one(run, dataset=open_dataset("market1501", tmp_path), draws=10)
    assert found.path.name.startswith("market1501")
    assert found.card.data["name"] == "market1501"
    assert found.card.recipe["data"]["name"] == "night600"


def test_a_checkpoint_file_alone_is_evaluated_beside_itself_or_where_told(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(RunFolder(run).last.read_bytes())
    assert evaluate_one(path, draws=10).path == tmp_path / "mine.evaluation" / "night600.json"
    assert evaluate_one(path, out=tmp_path / "there", draws=10).path == tmp_path / "there" / "night600.json"


def test_what_cannot_be_evaluated_is_refused(run: Path, people: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such run folder"):
        evaluate_one(tmp_path / "nothing")
    with pytest.raises(RecipeError, match="protocol 'night60' is unknown"):
        evaluate_one(run, protocol="night60")
    shutil.copytree(people, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "query_3")
    (tmp_path / "data" / "query_3").mkdir()
    with pytest.raises(DataError, match="no picture of split 'query'"):
        evaluate_one(run, dataset=open_dataset("night600", tmp_path / "data"), out=tmp_path / "out")
    victim = sorted((people / "query_3").iterdir())[0]
    (tmp_path / "data" / "query_3" / victim.name).write_bytes(victim.read_bytes()[:30])
    with pytest.raises(DataError, match=victim.name):
        evaluate_one(run, dataset=open_dataset("night600", tmp_path / "data"), out=tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.json"))


def test_a_picture_of_the_gallery_finds_itself_first(run: Path, people: Path) -> None:
    embedder = Embedder(run)
    gallery, _ = embedder.describe(list_split(open_dataset("night600", people), "gallery"))
    picture = gallery.paths[5]
    answers = search_pictures(embedder, [picture, gallery.paths[0]], gallery, k=3)
    assert [len(found) for found in answers] == [3, 3]
    assert answers[0][0].path == picture
    assert answers[0][0].similarity == pytest.approx(1, abs=1e-5)
    assert [match.rank for match in answers[1]] == [1, 2, 3]


def test_vectors_of_another_making_are_not_searched(run: Path, people: Path, tmp_path: Path) -> None:
    records = list_pictures([people / "query_3"])
    assert all(record.pid == -1 for record in records)
    embedder = Embedder(run)
    embeddings, _ = embedder.describe(records)
    embedder.save(tmp_path / "g.safetensors", embeddings)
    assert torch.equal(Embedder(run).read(tmp_path / "g.safetensors").vectors, embeddings.vectors)
    with pytest.raises(ProtocolError, match="mirror is True, the queries' is False"):
        Embedder(run, mirror=False).read(tmp_path / "g.safetensors")
    with pytest.raises(ProtocolError, match="precision is 'fp32', the queries' is 'bf16'"):
        Embedder(run, precision="bf16").read(tmp_path / "g.safetensors")


def test_the_card_is_plain_json_without_paths_of_the_machine(run: Path, people: Path) -> None:
    found = evaluate_one(run, draws=10)
    content = json.loads(found.path.read_text())
    content["recipe"]["data"].pop("root")  # the recipe says where its pictures were
    assert str(people) not in json.dumps(content)
    assert module.WORST == 10


LLCM = [f"llcm_revised_{name}" for name in ("nir_to_vis", "vis_to_nir", "vis_to_nir_released_script")]


def test_drawn_galleries_stand_on_the_card_with_their_source_and_every_trial(
    run: Path, crossed: Dataset, tmp_path: Path
) -> None:
    found = evaluate_one(run, dataset=crossed, out=tmp_path, draws=50)
    card = read_card(found.path)
    assert card.galleries == "galleries drawn by the released codes' seeded choice"
    assert card.num_trials == len(card.trials["each"]) == 10
    each = [trial["mean_ap"] for trial in card.trials["each"]]
    assert card.metrics["mean_ap"] == pytest.approx(np.mean(each))
    assert card.trials["deviation"]["mean_ap"] == pytest.approx(np.std(each, ddof=1))
    assert card.metrics["num_queries"] == card.data["query"] == 36
    assert set(card.slices["camera_pair"]) == {"camera 1 to camera 2", "camera 2 to camera 1"}
    assert sum(level["num_queries"] for level in card.slices["light"].values()) == 36
    assert all(
        level["mean_ap_interval"]["low"] <= level["mean_ap"] <= level["mean_ap_interval"]["high"]
        for level in card.slices["camera"].values()
    )
    assert card.bootstrap["mean_ap"]["low"] < card.metrics["mean_ap"] < card.bootstrap["mean_ap"]["high"]
    assert card.chance["rank1"] == pytest.approx(1 / 11)  # one of twelve, without the own camera
    assert len(found.gallery) <= card.data["gallery"] == 36
    alone = evaluate(found.query, found.gallery.select(found.drawn[4]), crossed.protocol())
    assert torch.equal(alone.per_query_ap, found.trials[4].per_query_ap)
    means = torch.stack([trial.per_query_ap for trial in found.trials]).mean(0)
    assert [worst["ap"] for worst in card.worst_queries] == pytest.approx(means.sort().values[:10].tolist())


def test_all_protocols_are_those_that_differ_and_a_mixed_gallery_tells_of_its_modalities(
    run: Path, crossed: Dataset, tmp_path: Path
) -> None:
    found = evaluate_run(run, ["all"], dataset=crossed, out=tmp_path, draws=10)
    assert [each.card.rules.name for each in found] == [*LLCM, "llcm_mixed"]
    assert all("modality" not in each.card.slices for each in found[:-1])
    mixed = found[-1]
    assert set(mixed.query.modalities.tolist()) == set(mixed.gallery.modalities.tolist()) == {0, 1}
    levels = read_card(mixed.path).slices["modality"]
    assert set(levels) == {"visible", "infrared"}
    for level in levels.values():
        assert level["modality_bias"] == pytest.approx(level["own_modality_first"] / level["own_modality_share"])


def calibration_of(run: Path, folder: Path, **data: object) -> Path:
    """A calibration by hand, of a run's model; `data` says of what people."""
    model = {name: value for name, value in Embedder(run).facts.items() if name != "device"}
    steep, flat = (
        PairCalibration((-1.0, 1.0), ends, Tail((), ()), {}, {"people": 99}) for ends in ((0.01, 0.99), (0.4, 0.6))
    )
    pairs = {"visible-visible": flat, "visible-infrared": steep, "infrared-infrared": flat}
    path = folder / "calibration.json"
    write_calibration(path, Calibration(model, data, "p", 7, 0.5, "isotonic", (0.1,), pairs))
    return path


def test_a_calibrated_ranking_is_on_the_card_and_in_its_name(run: Path, crossed: Dataset, tmp_path: Path) -> None:
    file = calibration_of(run, tmp_path, name="others", people="test")
    options: dict[str, Any] = {"dataset": crossed, "out": tmp_path / "cards", "draws": 10}
    usual = evaluate_one(run, "llcm_mixed", **options)
    ranked = evaluate_one(run, "llcm_mixed", rank="calibrated", calibration=file, **options)
    digest = read_calibration(file).digest
    assert json.loads(file.read_text())["digest"] == digest
    assert ranked.path.name == f"{usual.path.stem}_calibrated_{digest}.json"
    card = read_card(ranked.path)
    facts = {"people": {"name": "others", "people": "test"}, "seed": 7, "method": "isotonic", "digest": digest}
    assert card.calibration == facts
    assert read_card(usual.path).calibration is None
    assert read_test(RunFolder(run), card) is None, "figures by plain similarity would show another ranking"
    alone = evaluate(ranked.query, ranked.gallery, ranked.protocol, calibration=read_calibration(file))
    assert torch.equal(ranked.evaluation.per_query_ap, alone.per_query_ap)
    bias = [each.card.slices["modality"]["infrared"]["own_modality_first"] for each in (usual, ranked)]
    assert bias[1] < bias[0]
    differing = {each.name for each in diff_cards(usual.card, ranked.card)["protocol"]}
    assert any(name.startswith("calibration") for name in differing)
    drawn = evaluate_one(run, rank="calibrated", calibration=file, **options)
    assert torch.equal(drawn.trials[0].per_query_ap, evaluate_one(run, **options).trials[0].per_query_ap), "one pair"


def test_rankings_by_two_calibrations_of_the_same_people_are_two_cards_of_two_protocols(
    run: Path, crossed: Dataset, tmp_path: Path
) -> None:
    own = calibration_of(run, tmp_path, name="others")
    other = tmp_path / "logistic.json"
    write_calibration(other, replace(read_calibration(own), method="logistic"))
    shutil.copytree(run, tmp_path / "run")
    shutil.copy(own, tmp_path / "run" / "calibration.json")
    options: dict[str, Any] = {"dataset": crossed, "draws": 10, "rank": "calibrated"}
    cards = [
        evaluate_one(tmp_path / "run", "llcm_mixed", calibration=file, **options)
        for file in (None, tmp_path / "run" / "calibration.json", other)
    ]
    assert cards[0].path == cards[1].path != cards[2].path
    assert cards[0].path.name.endswith("_calibrated.json")
    differing = {each.name for each in diff_cards(cards[0].card, cards[2].card)["protocol"]}
    assert differing == {"calibration.digest", "calibration.method"}


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ({"name": "others"}, {"camera_norm": "centre"}, "camera_norm centre makes others; add --camera-norm none, or"),
        ({"name": "others"}, {"rerank": RerankOptions()}, "rerank makes others; leave --rerank out, or"),
        ({"name": "others"}, {"calibration": None}, "there is no .*; run `tapetum calibrate .* on other people"),
        ({"name": "llcm", "people": "test"}, {}, "calibrated on test people of llcm, who are tested; run"),
    ],
)
def test_a_calibrated_ranking_that_cannot_be_is_refused(
    run: Path, crossed: Dataset, tmp_path: Path, data: dict[str, object], options: dict[str, Any], message: str
) -> None:
    settings = {"calibration": calibration_of(run, tmp_path, **data), **options}
    with pytest.raises(ProtocolError, match=message):
        evaluate_one(run, "llcm_mixed", dataset=crossed, out=tmp_path / "cards", rank="calibrated", **settings)


def test_a_report_takes_the_first_card_that_is_not_calibrated_and_says_where_there_is_none(
    run: Path, crossed: Dataset, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation"))
    file = calibration_of(run, tmp_path, name="others")
    options: dict[str, Any] = {"dataset": crossed, "draws": 10}
    evaluate_one(tmp_path / "run", LLCM[0], rank="calibrated", calibration=file, **options)
    reason = "every result card is ranked by a calibration, and only single pictures ranked by similarity are drawn"
    with pytest.raises(DataError, match=f"{reason}; add that with `tapetum evaluate "):
        find_test(tmp_path / "run")
    content = collect_content([tmp_path / "run"], title="One", command="tapetum report build", searches=1)
    assert content.rank_lists == content.worst_queries == ()
    assert [reason in note for note in content.notes] == [True]

    plain = evaluate_one(tmp_path / "run", LLCM[0], **options)
    plain.path.rename(plain.path.with_name("z.json"))
    result, kept = find_test(tmp_path / "run")
    assert (result.note, kept.query.paths) == ("z", plain.query.paths)
    content = collect_content([tmp_path / "run"], title="One", command="tapetum report build", searches=1)
    assert content.notes == ()
    assert content.rank_lists
    assert content.worst_queries


def test_a_recipe_s_own_re_ranking_is_left_out_of_a_calibrated_ranking_and_its_camera_norm_can_be(
    crossed: Dataset, tiny_recipe: Build, tmp_path: Path
) -> None:
    set_by_recipe = ["schedule.epochs=1", "evaluation.rerank={k1: 5, k2: 2}", "evaluation.camera_norm=standard"]
    train(tiny_recipe(overrides=set_by_recipe), tmp_path / "run")
    file = calibration_of(tmp_path / "run", tmp_path, name="others")
    options: dict[str, Any] = {"dataset": crossed, "draws": 10, "rank": "calibrated", "calibration": file}
    with pytest.raises(ProtocolError, match="camera_norm standard makes others; add --camera-norm none"):
        evaluate_one(tmp_path / "run", "llcm_mixed", **options)
    card = evaluate_one(tmp_path / "run", "llcm_mixed", camera_norm="none", **options).card
    assert (card.rerank, card.reranked, card.camera_norm) == (None, None, "none")


def test_a_generated_scene_is_told_from_others_of_its_name_by_its_pictures(
    run: Path, crossed: Dataset, tmp_path: Path
) -> None:
    scene = replace(crossed, root=tmp_path)
    (tmp_path / SCENE_FILE).write_text("{}")
    options: dict[str, Any] = {"dataset": scene, "out": tmp_path / "cards", "draws": 10, "rank": "calibrated"}
    pictures = fingerprint(held_out_records(crossed, crossed.protocol("llcm_mixed"), [], own=False))
    same = calibration_of(run, tmp_path, name="llcm", people="test", fingerprint=pictures)
    with pytest.raises(ProtocolError, match="who are tested"):
        evaluate_one(run, "llcm_mixed", calibration=same, **options)
    other = calibration_of(run, tmp_path, name="llcm", people="test", fingerprint="0123456789abcdef")
    assert evaluate_one(run, "llcm_mixed", calibration=other, **options).card.calibration is not None


@pytest.mark.parametrize("whose", ["test", "holdout"])
def test_a_calibration_on_the_tested_people_of_a_scene_is_refused_whatever_its_pictures_look_like(
    run: Path, crossed: Dataset, tmp_path: Path, whose: str
) -> None:
    settings = {"identity_seed": 5, "num_train_people": 10, "num_test_people": 4, "light_scale": 8.0}
    (tmp_path / SCENE_FILE).write_text(json.dumps({"dataset": "llcm", "options": settings}))
    options: dict[str, Any] = {"dataset": replace(crossed, root=tmp_path), "out": tmp_path / "cards", "draws": 10}
    cases = [(5, [11, 15], True), (5, [14, 30], True), (5, [15, 30], False), (5, [1, 11], False), (6, [11, 15], False)]
    for seed, pids, refused in cases:
        facts = {"identity_seed": seed, "pids": pids, "fingerprint": "0123456789abcdef", "people": whose}
        file = calibration_of(run, tmp_path, name="llcm", **facts)
        if refused:
            with pytest.raises(ProtocolError, match="who are tested"):
                evaluate_one(run, "llcm_mixed", calibration=file, rank="calibrated", **options)
        else:
            evaluate_one(run, "llcm_mixed", calibration=file, rank="calibrated", **options)


def test_another_source_of_galleries_is_a_difference_of_protocol(run: Path, crossed: Dataset, tmp_path: Path) -> None:
    drawn = {}
    for record in crossed.side("gallery"):
        drawn.setdefault((record.camid, record.pid), []).append(int(record.path.stem[-5]))
    orders = {key: np.tile(np.array(numbers)[::-1], (10, 1)) for key, numbers in drawn.items()}
    assert all(0 in order for order in orders.values())  # the frames are counted from 0 here
    seeded = evaluate_one(run, dataset=crossed, out=tmp_path / "a", draws=10).card
    ordered = replace(crossed, permutations=orders, permutation_file="rand_perm_cam.mat")
    permuted = evaluate_one(run, dataset=ordered, out=tmp_path / "b", draws=10).card
    assert permuted.galleries == "rand_perm_cam.mat"
    assert permuted.trials["deviation"]["mean_ap"] == pytest.approx(0)  # every trial takes the same here
    groups = diff_cards(seeded, permuted)
    assert [difference.name for difference in groups["protocol"]] == ["galleries"]
    assert groups["data"] == groups["model"] == []


def test_people_whom_the_weights_were_trained_on_are_not_tested(run: Path, people: Path, tmp_path: Path) -> None:
    dataset = open_dataset("night600", people)
    known = [each for each in dataset.split("train") if each.pid < 2]
    both = [replace(each, split=split) for each in known for split in ("query", "gallery")]
    mixed = replace(dataset, records=(*dataset.records, *both))
    with pytest.raises(DataError, match=r"was trained on 2 of the people whom night600 in .* tests \(pid 0, 1\); read"):
        evaluate_one(run, dataset=mixed, out=tmp_path, draws=10)
    assert not list(tmp_path.iterdir())
    assert evaluate_one(run, dataset=replace(mixed, name="others"), out=tmp_path, draws=10).path.is_file()


def test_weights_that_began_as_another_run_s_are_tested_on_nobody_of_that_run_either(
    run: Path, tiny_recipe: Build, people: Path, tmp_path: Path
) -> None:
    dataset = open_dataset("night600", people)
    others = replace(dataset, records=tuple(each for each in dataset.records if each.pid not in (0, 1)))
    checkpoint = train(tiny_recipe(overrides=["schedule.epochs=1"]), tmp_path / "first").checkpoint
    packed = pack_checkpoint(checkpoint, tmp_path / "packed.safetensors").path  # fits another number of people
    began = tiny_recipe(overrides=["schedule.epochs=1", f"init.weights={packed}"])
    result = train(began, tmp_path / "second", dataset=others)
    header = read_header(result.checkpoint)
    assert not {0, 1} & {*header.pids}
    assert [{0, 1} <= {*each["pids"]} for each in header.trainings] == [True, False]
    first = [replace(each, split=split) for each in dataset.split("train") for split in ("query", "gallery")]
    both = replace(dataset, records=(*others.records, *(each for each in first if each.pid < 2)))
    with pytest.raises(DataError, match=r"was trained on 2 of the people whom night600 in .* tests \(pid 0, 1\); read"):
        evaluate_one(tmp_path / "second", dataset=both, draws=10)
    with pytest.raises(DataError, match=r"was trained on 2 of the people"):  # before a step is taken
        train(began, tmp_path / "third", dataset=both)
    assert not (tmp_path / "third").exists()


def test_the_model_of_the_package_is_tested_on_nobody_of_the_scene_that_it_was_trained_on(tmp_path: Path) -> None:
    few = {"num_train_people": 2, "num_test_people": 4, "cameras": 2, "pictures_per_camera": 1}
    seen = open_scene(few, tmp_path / "seen")
    with pytest.raises(DataError, match=r"was trained on 4 of the people .* by another identity_seed"):
        evaluate_run(Path("tapetum-lite0"), dataset=seen, out=tmp_path, draws=10)
    with pytest.raises(DataError, match=r"no test people that the run was not trained on"):
        calibrate_run(Path("tapetum-lite0"), dataset=seen, out=tmp_path / "calibration.json")
    strangers = open_scene({**few, "identity_seed": 17}, tmp_path / "strangers")
    assert evaluate_one(Path("tapetum-lite0"), dataset=strangers, out=tmp_path, draws=10).path.is_file()


CROSSED = ["sampler={name: cross_modality, ids: 2, pictures: 2, steps: 1}", "schedule.epochs=1"]


@pytest.fixture(scope="module")
def divided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RegDB's miniature: four people, in ten divisions."""
    root = tmp_path_factory.mktemp("divided")
    regdb.write_miniature(root, numpy_generator(0))
    return root


def test_another_division_of_the_people_than_was_trained_on_is_not_tested(
    tiny_recipe: Build, divided: Path, tmp_path: Path
) -> None:
    settings = [*CROSSED, "data.name=regdb", f"data.root={divided}"]
    recipe = tiny_recipe(overrides=[*settings, "data.options={trial: 3}"])
    checkpoint = train(recipe, tmp_path / "run").checkpoint
    other = recipe.data.model_copy(update={"options": {"trial": 2}})
    second = open_dataset("regdb", divided, options=other.options)
    words = r"trained with data\.options\.trial = 3; regdb with trial = 2 .* would be tested: keep 3, or take weights"
    for place in (tmp_path / "run", checkpoint):
        with pytest.raises(RecipeError, match=words):
            evaluate_one(place, dataset=second, data=other, draws=10)
    first = recipe.data.model_copy(update={"options": {}})
    with pytest.raises(RecipeError, match=r"= 3; regdb with trial = 1 "):
        evaluate_one(tmp_path / "run", dataset=open_dataset("regdb", divided), data=first, draws=10)
    assert not (tmp_path / "run" / "evaluation").exists()
    card = evaluate_one(tmp_path / "run", draws=10).card
    assert (card.data["division"], card.data["options"]) == ({"trial": 3}, {})
    further = [*settings, "data.options={trial: 4}", f"init.weights={checkpoint}"]
    with pytest.raises(RecipeError, match=r"trained with data\.options\.trial = 3; regdb with trial = 4 "):
        train(tiny_recipe(overrides=further), tmp_path / "further")


def test_weights_of_other_pictures_may_be_tested_on_any_division(run: Path, divided: Path, tmp_path: Path) -> None:
    dataset = open_dataset("regdb", divided, options={"trial": 7})
    assert evaluate_one(run, dataset=dataset, out=tmp_path, draws=10).card.data["division"] == {"trial": 7}


def test_reading_options_other_than_the_usual_ones_stand_on_the_card(run: Path, people: Path, tmp_path: Path) -> None:
    for given, expected in (({"holdout_first": False}, {}), ({"holdout_first": True}, {"holdout_first": True})):
        card = evaluate_one(run, dataset=open_dataset("night600", people, options=given), out=tmp_path, draws=10).card
        assert (card.data["options"], card.data["division"]) == (expected, {})
