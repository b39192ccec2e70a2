"""The report as a reader's browser meets it: whole, safe, self-contained, accessible, bounded."""

import dataclasses
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tapetum.core.errors import OutputError
from tapetum.core.protocol import Protocol
from tapetum.core.types import EmbeddingSet
from tapetum.core.vectors import normalise
from tapetum.evaluation.card import Card, build_card, from_content
from tapetum.evaluation.metrics import evaluate
from tapetum.evaluation.pair_distances import BINS, PairDistances
from tapetum.plots.embedding import EmbeddingMap
from tapetum.report import content as plain
from tapetum.report.build import build_report, render_report
from tapetum.report.content import Breakdown, EnhancedPair, QueryRanking, RankedPicture, RealClip, ReportContent, Result

VOID = {"meta", "link", "img", "input", "br", "hr"}
HOSTILE = "<script>alert(1)</script>\"'&"


class Page(HTMLParser):
    """Checks nesting while reading, and remembers what the tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()} closes another element"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style",):
            self.words.append(data)

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@dataclasses.dataclass(frozen=True)
class Statistics:
    lightness: NDArray[np.float64]
    height: NDArray[np.float64]
    red: NDArray[np.float64]
    green: NDArray[np.float64]
    blue: NDArray[np.float64]


def picture(seed: int, height: int = 64, width: int = 32) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 50, (height, width, 3), dtype=np.uint8)


def card(mean_ap: float) -> Card:
    return from_content(card_content(mean_ap))


def card_content(mean_ap: float) -> dict[str, Any]:
    """A card with round numbers."""
    row = {"rank1": mean_ap + 0.1, "rank5": mean_ap + 0.2, "rank10": mean_ap + 0.3, "mean_ap": mean_ap, "mean_inp": 0.1}
    slices = {
        "light": {"low": {**row, "num_queries": 30, "mean_ap_interval": {"low": mean_ap - 0.1, "high": mean_ap + 0.1}}},
        "camera_pair": {
            f"camera 1 to camera {i}": {**row, "mean_ap": i / 100, "num_queries": 10} for i in range(2, 40)
        },
    }
    slices["light"]["high"] = {**row, "mean_ap": mean_ap + 0.2, "num_queries": 12, "mean_ap_interval": None}
    return {
        "format": 1,
        "protocol": "night600",
        "rules": {"name": "night600", "ap": "trapezoid", "cmc": "pictures"},
        "metrics": {**row, "mean_ap_step": mean_ap + 0.015, "cmc": list(np.linspace(mean_ap + 0.1, 0.9, 20))},
        "trials": {"count": 1, "deviation": dict.fromkeys(row, 0.0)},
        "bootstrap": {"level": 0.95, "draws": 100, "mean_ap": {"low": mean_ap - 0.02, "high": mean_ap + 0.02}},
        "chance": {"rank1": 0.02, "mean_ap": 0.03},
        "rerank": {"k1": 20},
        "reranked": {**row, "mean_ap": mean_ap + 0.055, "mean_ap_step": mean_ap + 0.077},
        "mirror": True,
        "checkpoint": {"chosen_by": "best mAP on 6 held-out training identities"},
        "data": {"fingerprint": "00112233", "name": HOSTILE},
        "seed": 3,
        "slices": slices,
    }


def ranking(method: str, query: int = 0) -> QueryRanking:
    answers = tuple(
        RankedPicture(picture(100 + rank), right=rank % 3 == 0, caption=f"person {rank}", similarity=0.9 - rank / 20)
        for rank in range(12)
    )
    return QueryRanking(method, picture(query), answers, caption=f"person {query} {HOSTILE}", note="AP 0.25")


def full_content() -> ReportContent:
    rng = np.random.default_rng(0)
    light = rng.gamma(3, 7, 200)
    results = (Result("IDE+", card(0.3), seconds=75.0, note="baseline"), Result("IDF", card(0.4), seconds=200.0))
    pairs = tuple(EnhancedPair(picture(i), picture(i + 1), f"pair {i}") for i in range(3))
    return ReportContent(
        title=f"Night {HOSTILE}",
        command="tapetum demo --out runs/demo",
        lead="Two methods.",
        facts={"people": 60, "pictures": 12345, "name": HOSTILE},
        results=results,
        curves={"IDF": {"epoch": np.arange(5.0), "loss/identity": np.linspace(3, 1, 5)}},
        rank_lists=(ranking("IDE+"), ranking("IDF"), ranking("IDF", query=1)),
        pairs=pairs,
        worst_queries=(ranking("IDF", query=2),),
        pictures=Statistics(light, rng.normal(150, 40, 200), light, light, light),
        samples=((picture(7), "camera 1"),),
        real=RealClip(
            name=HOSTILE,
            facts={"people": 6},
            as_is=results,
            darkened=results,
            rank_lists=(ranking("IDF", query=3),),
            pairs=(dataclasses.replace(pairs[0], original=picture(9)),),
            command="make demo-real CLIP=clip.mp4",
            note="Six people.",
        ),
        published=(plain.PublishedRow("IDF_IDE+", "Table II, Night600", 13.63, 30.05, 38.95, 6.63),),
        notes=("One run each of <i> `idf_synth`.",),
    )


def across(mean_ap: float, query: str, gallery: str) -> Card:
    """A card of ten drawn galleries in one direction."""
    found = card_content(mean_ap)
    name = f"llcm_{query}_to_{gallery}"
    found["rules"] = {
        "name": name,
        "ap": "step",
        "cmc": "identities",
        "query_modality": query,
        "gallery_modality": gallery,
    }
    found |= {"protocol": name, "reranked": None, "recipe": {"name": "somebody"}}
    found["metrics"]["rank20"] = mean_ap + 0.4
    deviation = dict.fromkeys(("rank1", "rank5", "rank10", "rank20", "mean_inp"), 0.011) | {"mean_ap": 0.022}
    found["trials"] = {"count": 10, "deviation": deviation}
    return from_content(found)


def content_across() -> ReportContent:
    places = np.linspace(0, 2, BINS + 1)
    counts = np.bincount(np.arange(300, 500), minlength=BINS)
    distances = PairDistances(places, counts, np.roll(counts, 300), 0.4, 0.7)
    points = EmbeddingMap(np.eye(4)[:, :2], np.array([1, 1, 2, 2]), np.array([0, 1, 0, 1]))
    ways = (("infrared", "visible", 0.0), ("visible", "infrared", 0.05))
    return ReportContent(
        title="Across",
        command="tapetum demo-ir",
        results=tuple(
            Result(f"{label}, {query}", across(mean_ap + more, query, gallery), seconds=60.0, method=label)
            for query, gallery, more in ways
            for label, mean_ap in (("AGW", 0.3), ("DEEN", 0.4))
        ),
        rank_lists=(dataclasses.replace(ranking("DEEN"), modality="infrared"),),
        distances={"AGW": distances, "DEEN": distances},
        maps={"DEEN": points},
    )


@pytest.fixture(scope="module")
def text() -> str:
    return render_report(full_content())


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_the_page_is_well_formed_and_names_its_language_and_its_viewport(page: Page, text: str) -> None:
    assert text.startswith("<!DOCTYPE html>")
    assert page.attributes("html") == [{"lang": "en"}]
    assert any(meta.get("name") == "viewport" for meta in page.attributes("meta"))
    assert [tag for tag, _ in page.tags].count("main") == 1


def test_the_page_asks_nobody_for_anything(page: Page, text: str) -> None:
    assert not re.search(r"https?:", text)
    assert not re.search(r"@import|url\((?!#)", text)
    assert not page.attributes("script")
    for _, attributes in page.tags:
        for name in ("src", "href"):
            address = attributes.get(name)
            assert address is None or address.startswith(("data:", "#")), address
        assert not [name for name in attributes if name.startswith("on")], "an event handler is a script"


def test_every_picture_and_figure_has_words_in_its_place(page: Page) -> None:
    assert page.attributes("img")
    assert all((image.get("alt") or "").strip() for image in page.attributes("img"))
    figures = [attributes for _, attributes in page.tags if attributes.get("role") == "img"]
    shown = [drawing for drawing in page.attributes("svg") if drawing.get("aria-hidden") != "true"]
    assert len(figures) == len(shown) > 0
    assert all(len(attributes.get("aria-label") or "") > 20 for attributes in figures)


def test_headings_descend_one_level_at_a_time(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_links_and_labels_lead_to_elements_that_exist_once(page: Page) -> None:
    identifiers = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    for _, attributes in page.tags:
        for name in ("href", "aria-labelledby"):
            target = attributes.get(name)
            if target and not target.startswith("data:"):
                assert target.removeprefix("#") in identifiers


def test_a_skip_link_comes_first_and_leads_to_the_results(page: Page) -> None:
    first = page.attributes("a")[0]
    assert (first["href"], first["class"]) == ("#main", "skip")


def test_names_from_outside_cannot_become_markup(text: str, page: Page) -> None:
    assert "<script" not in text
    assert HOSTILE in page.text


def test_cells_of_a_stacked_table_know_their_column(page: Page) -> None:
    cells = [cell for cell in page.attributes("td") if cell.get("role") == "cell"]
    assert cells
    assert all(cell.get("data-label") for cell in cells)


def test_numbers_stand_with_their_circumstances(page: Page) -> None:
    for expected in (
        "night600",
        "trapezoid",
        "40.0",
        "38.0 to 42.0",
        "3 min 20 s",
        "+10.0 points mAP to IDE+",
        "12,345",
    ):
        assert expected in page.text, expected
    assert "tapetum demo --out runs/demo" in page.text
    assert "A random ranking would reach 3.0 % mAP and 2.0 % rank-1" in page.text
    assert "One run each of <i> idf_synth ." in page.text


def test_the_other_ap_rule_and_the_re_ranked_numbers_stand_in_the_table(page: Page) -> None:
    assert "step 41.5" in page.text
    assert "IDF re-ranked" in page.text
    assert "45.5" in page.text
    assert "step 47.7" in page.text


def test_slices_come_from_the_cards_and_many_slices_are_listed_only_where_it_fails(page: Page) -> None:
    assert "By light" in page.text
    labels = [attributes.get("aria-label") or "" for _, attributes in page.tags if attributes.get("role") == "img"]
    assert any("low (30 queries): IDE+ 30.0 % (20.0 to 40.0), IDF 40.0 % (30.0 to 50.0)" in label for label in labels)
    assert not any("camera 1 to camera 39" in label for label in labels)
    assert "camera 1 to camera 2" in page.text
    headings = page.text[page.text.index("Worst slices") :]
    assert headings.index("camera 1 to camera 2 ") < headings.index("camera 1 to camera 3 ")


def test_a_report_can_bring_its_own_breakdown_chance_and_worst_slices() -> None:
    own = Breakdown("Noise", ("low", "high"), (30, 0), {"IDF": np.array([0.3, np.nan])})
    worst = plain.WorstSlice("IDF", f"clip {HOSTILE}", 12, 0.05, 0.1, (0.02, 0.09))
    content = ReportContent(
        title="Own",
        command="tapetum demo",
        results=(Result("IDF", card(0.4)),),
        chance={"mean_ap": 0.111},
        breakdowns=(own,),
        worst_slices=(worst,),
    )
    page = Page(render_report(content))
    assert "By noise" in page.text
    assert "By light" not in page.text
    assert "11.1 % mAP" in page.text
    assert f"clip {HOSTILE}" in page.text
    assert "camera 1 to camera 2 " not in page.text[: page.text.index("Make it again", 500)]


def test_a_card_of_the_evaluation_can_be_reported() -> None:
    rng = torch.Generator().manual_seed(0)
    pids, camids = torch.arange(30) % 6, torch.arange(30) % 4
    side = EmbeddingSet(
        normalise(torch.randn(30, 8, generator=rng)),
        (Path("a.jpg"),) * 30,
        pids,
        camids,
        torch.zeros(30, dtype=torch.int64),
    )
    built = build_card(
        evaluate(side, side, Protocol(name="toy", ap="trapezoid")),
        method="ide",
        recipe={"name": "ide_synth"},
        checkpoint={"chosen_by": "last epoch"},
        data={"name": "synth", "fingerprint": "ab"},
        mirror=False,
        seed=7,
        seconds=1.0,
        labels={"light": ["low", "high"] * 15},
        draws=50,
    )
    page = Page(render_report(ReportContent(title="Real card", command="x", results=(Result("IDE+", built, 3725.0),))))
    for expected in ("toy", "trapezoid", "step ", "1 h 2 min", "By light", "last epoch", "bootstrap.draws"):
        assert expected in page.text, expected


def test_right_and_wrong_answers_are_told_by_class_and_by_sign_and_at_most_ten_are_shown(page: Page) -> None:
    alts = [image["alt"] or "" for image in page.attributes("img")]
    assert [alt for alt in alts if alt.startswith("rank 1, right")]
    assert [alt for alt in alts if alt.startswith("rank 2, wrong")]
    assert not [alt for alt in alts if alt.startswith("rank 11")]
    answers = [attributes for attributes in page.attributes("li") if attributes.get("class") in ("right", "wrong")]
    assert len(answers) == 50
    assert page.words.count("✓") > 0
    assert page.words.count("✗") > 0


def test_rankings_of_one_query_by_several_methods_share_a_frame(page: Page) -> None:
    frames = list(page.attributes("article"))
    assert len(frames) == 2 + 1 + 1  # two queries searched, one worst query, one of the clip


def test_across_modalities_one_table_has_a_row_a_method_and_its_numbers_in_both_directions() -> None:
    page = Page(render_report(content_across()))
    caption = "both directions, percent, mean ± deviation of 10 trials; llcm_infrared_to_visible and llcm_visible_to_"
    assert caption in page.text
    columns = [cell["data-label"] for cell in page.attributes("td") if "IR→VIS" in (cell.get("data-label") or "")]
    assert columns[:5] == [f"IR→VIS {name}" for name in ("rank-1", "rank-10", "rank-20", "mAP", "mINP")]
    start = page.text.index(caption)
    row = page.text[page.text.index("DEEN", start) :]
    there = "50.0 ± 1.1 70.0 ± 1.1 80.0 ± 1.1 40.0 ± 2.2 10.0 ± 1.1"
    back = "55.0 ± 1.1 75.0 ± 1.1 85.0 ± 1.1 45.0 ± 2.2 10.0 ± 1.1"
    assert row.startswith(f"DEEN {there} {back} 1 min")
    assert "Tiles and figures are those of IR→VIS, llcm_infrared_to_visible." in page.text
    tiles = [attributes for attributes in page.attributes("div") if attributes.get("class") == "tile"]
    assert len(tiles) == 2, "a tile a method, not one a result"


def test_across_modalities_the_page_shows_distances_map_and_the_modality_of_a_query() -> None:
    page = Page(render_report(content_across()))
    headings = [title for title in page.words if title.endswith((": distances of all pairs", ": map of embeddings"))]
    assert headings == ["AGW: distances of all pairs", "DEEN: distances of all pairs", "DEEN: map of embeddings"]
    assert "One person 0.400, two people 0.700 on average; 0.0 % of the areas overlap." in page.text
    assert "2 people, 2 visible pictures and 2 infrared pictures" in page.text
    assert "query infrared 1" in page.text
    assert any((image["alt"] or "").startswith("query, infrared: person 0") for image in page.attributes("img"))


def checked() -> dict[str, Any]:
    """What the check of a calibration found, in the shape of `tapetum.inference.calibrate`."""
    row = {"observed": 0.0123, "observed_interval": [0.01, 0.02], "found": 0.456, "found_interval": [0.4, 0.5]}
    return {
        "people": 30,
        "calibration_error": 0.031,
        "calibration_error_interval": [0.02, 0.05],
        "reliability": {"predicted": [0.1, None], "observed": [0.2, None], "share": [1.0, 0.0]},
        "verification": {"rates": [0.01, 1.0], "values": [0.4, 1.0]},
        "open_set": {"gallery": 1200, "rates": [0.1, 1.0], "values": [0.5, 0.0]},
        "thresholds": [
            {"gallery": None, "rate": 0.01, "threshold": 0.7654, **row},
            {"gallery": 1200, "rate": 0.1, "threshold": 0.8, **row},
        ],
    }


def test_the_check_of_a_calibration_has_a_section_with_three_figures_and_every_threshold() -> None:
    content = ReportContent(title="Sure", command="tapetum", calibrations={f"IDF{HOSTILE}": checked()})
    text = render_report(content)
    page = Page(text)
    assert [attributes.get("id") for attributes in page.attributes("section")] == ["calibration", "again"]
    for heading in ("Probability said and seen", "Comparisons of two pictures", "Whole searches"):
        assert heading in page.words
    assert "comparisons 1 0.765 1.23 1 to 2 45.6 40 to 50" in page.text
    assert "searches in 1,200 pictures 10 0.800" in page.text
    assert "<script>" not in text
    alone = {**checked(), "thresholds": []}
    page = Page(render_report(ReportContent(title="Few", command="tapetum", calibrations={"IDF": alone})))
    assert "no rate is supported by so few people" in str(page.tags)


def test_results_of_one_modality_stay_as_they_were(page: Page) -> None:
    assert "Every measure, percent" in page.text
    assert "both directions" not in page.text
    assert "across" not in [attributes.get("id") for attributes in page.attributes("section")]


def test_published_figures_are_marked_as_the_papers(page: Page) -> None:
    assert "the paper's own figures on its own data, not ours" in page.text
    assert "13.63" in page.text


def test_empty_sections_are_left_out() -> None:
    page = Page(render_report(ReportContent(title="Empty", command="tapetum demo")))
    assert [attributes.get("id") for attributes in page.attributes("section")] == ["again"]
    assert not page.attributes("img")
    assert not page.attributes("input")


def test_large_pictures_are_made_smaller_so_that_the_page_stays_small() -> None:
    pairs = tuple(EnhancedPair(picture(i, 1024, 512), picture(i, 1024, 512)) for i in range(5))
    text = render_report(ReportContent(title="Large", command="tapetum demo", pairs=pairs))
    assert len(text) < 500_000


def test_a_full_report_stays_below_a_megabyte_and_comes_out_the_same_twice(text: str) -> None:
    assert len(text) < 1_000_000
    assert render_report(full_content()) == text


def test_a_report_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "new" / "report.html"
    build_report(out, ReportContent(title="First", command="tapetum demo"))
    before = out.read_text()

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OutputError, match=r"report\.html.*No space left"):
        build_report(out, ReportContent(title="Second", command="tapetum demo"))
    assert out.read_text() == before
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]
