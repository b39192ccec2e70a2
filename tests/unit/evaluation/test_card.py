import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tapetum.core.errors import DataError, OutputError
from tapetum.core.protocol import Protocol
from tapetum.core.types import EmbeddingSet, Modality
from tapetum.evaluation.card import Card, build_card, describe_diff, diff_cards, read_card, write_card
from tapetum.evaluation.metrics import evaluate
from tapetum.evaluation.rerank import RerankOptions
from tapetum.evaluation.slices import by_camera_pair

Sides = tuple[EmbeddingSet, EmbeddingSet]
Build = Callable[..., Card]
NIGHT = Protocol("night600", ap="trapezoid", unmatched="count", ties="larger_index_first")
LIGHT = ["low"] * 50 + ["medium"] * 30


@pytest.fixture
def build(searched: Sides) -> Build:
    query, gallery = searched

    def make(protocol: Protocol = NIGHT, **changes: Any) -> Card:
        facts: dict[str, Any] = {
            "method": "idf",
            "recipe": {"name": "idf_scene", "method": {"name": "idf"}},
            "checkpoint": {"chosen_by": "best mAP on held-out identities", "epoch": 12},
            "data": {"name": "scene", "fingerprint": "abc"},
            "mirror": True,
            "seed": 7,
            "seconds": 1.5,
            "labels": {"light": LIGHT},
            "draws": 100,
        }
        return build_card(evaluate(query, gallery, protocol), **(facts | changes))

    return make


def test_a_card_says_everything_about_its_number(build: Build, searched: Sides) -> None:
    options = RerankOptions(k1=8, k2=3)
    card = build(
        reranked=evaluate(*searched, NIGHT, rerank=options),
        rerank=options,
        slices={"camera pair": by_camera_pair(*searched, NIGHT)},
    )
    found = evaluate(*searched, NIGHT)
    assert (card.rules.name, card.rules.ap, card.rules.cmc, card.seed) == ("night600", "trapezoid", "pictures", 7)
    assert card.rules.unmatched == "count"
    numbers = card.metrics
    assert numbers["mean_ap"] == numbers["mean_ap_trapezoid"] == found.metrics.mean_ap
    assert numbers["mean_ap_step"] == pytest.approx(float(found.per_query_ap_step.mean()))
    assert numbers["mean_ap_step"] > numbers["mean_ap_trapezoid"]
    assert [numbers[name] for name in ("rank1", "rank5", "rank10")] == [found.metrics.rank(k) for k in (1, 5, 10)]
    assert numbers["cmc"] == found.metrics.cmc.tolist()
    assert card.bootstrap["mean_ap"]["low"] < numbers["mean_ap"] < card.bootstrap["mean_ap"]["high"]
    assert 0 < card.chance["mean_ap"] < numbers["mean_ap"]
    assert card.rerank["k1"] == 8
    assert card.reranked["mean_ap"] != numbers["mean_ap"]
    assert card.trials["count"] == 1
    assert {"tapetum", "python", "torch", "numpy"} <= set(card.versions)
    low = card.slices["light"]["low"]
    assert low["num_queries"] == 50
    assert low["mean_ap_interval"]["low"] < low["mean_ap"] < low["mean_ap_interval"]["high"]
    assert len(card.slices["camera pair"]) == 12


def test_trials_stand_in_the_card_with_mean_and_deviation(searched: Sides) -> None:
    query, gallery = searched
    protocol = Protocol("drawn", trials=2, gallery_modality=Modality.VISIBLE)
    trials = [evaluate(query, gallery.select(torch.arange(400) % 2 == trial), protocol) for trial in (0, 1)]
    card = build_card(
        trials, method="ide", recipe={}, checkpoint={}, data={}, mirror=False, seed=0, seconds=0.0, draws=50,
        labels={"light": LIGHT},
    )  # fmt: skip
    each = [trial["mean_ap"] for trial in card.trials["each"]]
    assert card.metrics["mean_ap"] == pytest.approx(sum(each) / 2)
    assert card.trials["deviation"]["mean_ap"] > 0
    assert card.rules.gallery_modality == Modality.VISIBLE
    assert card.metrics["num_queries"] == 80  # of one trial
    assert card.slices["light"]["low"]["num_queries"] == 50


def test_a_card_survives_the_disk(build: Build, tmp_path: Path) -> None:
    card = build()
    write_card(tmp_path / "card.json", card)
    assert read_card(tmp_path / "card.json") == card
    assert [path.name for path in tmp_path.iterdir()] == ["card.json"]


def test_an_older_card_is_read_and_what_it_lacks_is_empty(tmp_path: Path) -> None:
    rules = {"name": "llcm", "query_modality": "infrared", "junk_camera_pairs": [[3, 2]], "ap": "trapezoid"}
    (tmp_path / "old.json").write_text(json.dumps({"format": 1, "rules": rules, "metrics": {"rank1": 0.5}}))
    card = read_card(tmp_path / "old.json")
    assert card.rules == Protocol("llcm", query_modality=Modality.INFRARED, junk_camera_pairs=((3, 2),), ap="trapezoid")
    assert (card.metrics, card.num_trials, card.deviation("rank1"), card.reranked) == ({"rank1": 0.5}, 1, None, None)


def test_a_card_on_the_disk_holds_its_rules_in_full_and_in_brief(build: Build, tmp_path: Path) -> None:
    write_card(tmp_path / "card.json", build())
    content = json.loads((tmp_path / "card.json").read_text())
    assert (content["format"], content["protocol"], content["ap"], content["cmc"]) == (
        1, "night600", "trapezoid", "pictures",
    )  # fmt: skip
    assert content["rules"]["query_modality"] is None
    assert "worst_queries" not in content


def test_files_that_are_no_card_are_named(tmp_path: Path, build: Build) -> None:
    with pytest.raises(DataError, match=r"gone\.json: cannot be read"):
        read_card(tmp_path / "gone.json")
    (tmp_path / "torn.json").write_text('{"metrics": {')
    with pytest.raises(DataError, match=r"torn\.json: is not JSON"):
        read_card(tmp_path / "torn.json")
    (tmp_path / "other.json").write_text(json.dumps({"hello": 1}))
    with pytest.raises(DataError, match=r"other\.json: is JSON but no result card"):
        read_card(tmp_path / "other.json")
    (tmp_path / "newer.json").write_text(json.dumps({"metrics": {}, "rules": {"name": "a", "unheard_of": 1}}))
    with pytest.raises(DataError, match=r"newer\.json: its rules cannot be read \(.*unheard_of"):
        read_card(tmp_path / "newer.json")
    with pytest.raises(OutputError, match=r"card\.json: cannot be written"):
        write_card(tmp_path / "missing" / "card.json", build())


def test_a_difference_is_sorted_into_protocol_data_model_and_numbers(build: Build) -> None:
    step = Protocol("night600_step")
    a, b = build(), build(step, mirror=False, seed=8, data={"name": "scene", "fingerprint": "xyz"})
    groups = diff_cards(a, b)
    names = {group: [difference.name for difference in found] for group, found in groups.items()}
    assert names["protocol"] == ["mirror", "rules.ap", "rules.name", "rules.ties", "rules.unmatched"]
    assert names["data"] == ["data.fingerprint"]
    assert names["model"] == ["seed"]
    assert "metrics.mean_ap" in names["numbers"]
    text = describe_diff(groups, "first", "second")
    assert text.startswith("The numbers are not of one kind: protocol and data differ.")
    assert "first: trapezoid   second: step" in text


def test_two_methods_by_one_protocol_on_the_same_pictures_are_a_fair_comparison(build: Build) -> None:
    verdict = describe_diff(diff_cards(build(), build(method="ide", seed=8))).splitlines()[0]
    assert verdict.startswith("The numbers are of one kind: protocol and data are the same")
    for change, cause in (({"mirror": False}, "protocol differs"), ({"data": {"name": "other"}}, "data differ")):
        verdict = describe_diff(diff_cards(build(), build(method="ide", **change))).splitlines()[0]
        assert verdict == f"The numbers are not of one kind: {cause}."


def test_a_card_does_not_differ_from_itself(build: Build) -> None:
    groups = diff_cards(build(), build())
    assert not any(groups.values())
    assert describe_diff(groups).splitlines()[0] == "Protocol, data and model are the same."


def test_reranking_counts_as_a_difference_of_protocol(build: Build, searched: Sides) -> None:
    options = RerankOptions()
    with_it = build(rerank=options, reranked=evaluate(*searched, NIGHT, rerank=options))
    names = [difference.name for difference in diff_cards(build(), with_it)["protocol"]]
    assert "rerank.k1" in names
