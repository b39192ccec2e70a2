"""The drawn figures of the pages are what the code draws, and show what their pages say."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def read_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_drawings", DOCS / "drawings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


drawings = read_module()


@pytest.mark.parametrize("name", sorted(drawings.FIGURES))
def test_a_drawn_figure_is_what_the_code_draws(name: str) -> None:
    """`python docs/drawings.py` draws them again."""
    assert (DOCS / f"_static/{name}.svg").read_text(encoding="utf-8") == drawings.FIGURES[name]()


@pytest.mark.parametrize("name", sorted(drawings.FIGURES))
def test_a_drawn_figure_is_shown_once_with_words_for_who_does_not_see_it(name: str) -> None:
    texts = [page.read_text(encoding="utf-8") for page in sorted(DOCS.glob("*.md"))]
    shown = [alt for text in texts for alt in re.findall(rf"{{figure}} _static/{name}\.svg\n:alt: (.+)\n", text)]
    assert len(shown) == 1
    assert len(shown[0]) > 60


@pytest.mark.parametrize("name", sorted(drawings.FIGURES))
def test_no_word_of_a_drawn_figure_lies_outside_of_it(name: str) -> None:
    root = ElementTree.fromstring(drawings.FIGURES[name]())
    width, height = (float(root.attrib[side]) for side in ("width", "height"))
    for text in root.iter("{http://www.w3.org/2000/svg}text"):
        length = 0.56 * float(text.attrib["font-size"]) * len(text.text or "")  # of a letter on average, in ems
        share = {"start": 0.0, "middle": 0.5, "end": 1.0}[text.attrib["text-anchor"]]
        left = float(text.attrib["x"]) - share * length
        assert left >= 0, text.text
        assert left + length <= width, text.text
        assert 0 < float(text.attrib["y"]) < height, text.text


def test_the_ranking_has_a_rank_for_each_entry_but_the_two_that_are_crossed_out() -> None:
    rows = drawings.read_ranking()
    assert [rank for *_, rank in rows] == ["", "1", "", "2", "3", "4", "5", "6"]
    texts = [text.text for text in ElementTree.fromstring(drawings.ranking()).iter("{http://www.w3.org/2000/svg}text")]
    assert [text for text in texts if text and text.startswith("rank")] == [f"rank {n}" for n in range(1, 7)]
    assert texts.count("taken out") == 2
    assert texts.count("match") == 3


def test_one_percent_of_the_drawn_pairs_of_two_people_reach_the_threshold() -> None:
    same, different, calibration = drawings.draw_pairs()
    threshold = calibration.threshold(0.01, "visible-visible")
    assert (different >= threshold).mean() == pytest.approx(0.01, rel=0.02)
    assert f"threshold {threshold:.2f}" in drawings.similarities()
    assert f"{100 * (same >= threshold).mean():.0f} % of one" in drawings.similarities()
