"""Makes the drawn figures of the pages again: two_stream, footage, ranking and similarities of docs/_static, as SVG.

    python docs/drawings.py

Each is a function that gives an SVG as text, to the same letter on every machine. `ranking` reads the table of its
page; `similarities` draws its numbers by a seed and fits them with the program's own calibration.
"""

from html import escape
from pathlib import Path

import numpy as np

from tapetum.core.atomic import write_bytes
from tapetum.evaluation.calibration import Calibration
from tapetum.evaluation.fitting import fit_pair
from tapetum.evaluation.open_set import SearchCounts
from tapetum.evaluation.thresholds import BINS, similarity_edges
from tapetum.evaluation.verification import PairCounts
from tapetum.plots.style import GRID, INK, MUTED, RIGHT, SERIES, WRONG

DOCS = Path(__file__).parent
DASHES = 'stroke-dasharray="4 3"'


class Drawing:
    """Lines of an SVG on white; a place is (x, y) in pixels from the upper left corner."""

    def __init__(self, width: int, height: int) -> None:
        self._size = width, height
        self._lines: list[str] = []

    def line(self, path: str, *, colour: str = INK, width: float = 1.3, arrow: bool = False, extra: str = "") -> None:
        """A path of SVG's own letters, perhaps with an arrow at its end."""
        end = ' marker-end="url(#arrow)"' if arrow else ""
        extra = f" {extra}" if extra else ""
        self._lines.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width:g}"{end}{extra}/>')

    def area(self, path: str, colour: str, opacity: float = 1) -> None:
        """What a closed path surrounds."""
        self._lines.append(f'<path d="{path}" fill="{colour}" fill-opacity="{opacity:g}"/>')

    def box(
        self,
        left: float,
        top: float,
        width: float,
        height: float,
        text: str = "",
        *,
        colour: str = INK,
        extra: str = "",
    ) -> None:
        """A rounded frame with words in its middle, lines parted by line breaks."""
        extra = f" {extra}" if extra else ""
        place = f'x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" rx="5"'
        self._lines.append(f'<rect {place} fill="white" stroke="{colour}" stroke-width="1.3"{extra}/>')
        lines = text.split("\n")
        for number, each in enumerate(lines):
            self.text(left + width / 2, top + height / 2 + 4.5 + 16 * (number - (len(lines) - 1) / 2), each)

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: float = 13,
        colour: str = INK,
        anchor: str = "middle",
        extra: str = "",
    ) -> None:
        """Words whose line of writing is at y."""
        if words:
            style = f'font-size="{size:g}" fill="{colour}" text-anchor="{anchor}"{f" {extra}" if extra else ""}'
            self._lines.append(f'<text x="{x:g}" y="{y:g}" {style}>{escape(words)}</text>')

    def person(self, x: float, foot: float, height: float, colour: str = MUTED) -> None:
        """Somebody standing at (x, foot)."""
        head, half = height * 0.13, height * 0.17
        self._lines.append(
            f'<circle cx="{x:g}" cy="{foot - height + head:g}" r="{head:g}" fill="{colour}"/>'
            f'<rect x="{x - half:g}" y="{foot - height * 0.7:g}" width="{2 * half:g}" height="{height * 0.7:g}" '
            f'rx="{half * 0.7:g}" fill="{colour}"/>'
        )

    def svg(self) -> str:
        """All of it."""
        width, height = self._size
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
                f'height="{height}" font-family="DejaVu Sans, Verdana, sans-serif">',
                '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
                f'orient="auto"><path d="M0 0 8 4 0 8z" fill="{INK}"/></marker></defs>',
                f'<rect width="{width}" height="{height}" fill="white"/>',
                *self._lines,
                "</svg>\n",
            ]
        )


def two_stream() -> str:
    """Data flow of the two-stream baseline and of AGW."""
    drawing = Drawing(860, 270)
    for top, name in ((40, "visible"), (150, "infrared")):
        drawing.text(14, top + 22.5, name, anchor="start")
        drawing.line(f"M74 {top + 18} H94", arrow=True)
        drawing.box(96, top, 84, 36, f"stem {name[0]}")
    drawing.box(208, 72, 316, 104, colour=MUTED, extra=DASHES)
    drawing.text(366, 64, "trunk, shared by both modalities", size=12, colour=MUTED)
    drawing.line("M180 58 H192 L216 104", arrow=True)
    drawing.line("M180 168 H192 L216 122", arrow=True)
    for number in range(4):
        drawing.box(218 + 76 * number, 95, 66, 36, f"stage {number + 1}")
        drawing.line(f"M{284 + 76 * number} 113 H{292 + 76 * number if number < 3 else 544}", arrow=True)
    drawing.line("M296 138 v7 h138 v-7", colour=MUTED)
    drawing.text(365, 163, "AGW: non-local blocks", size=12, colour=MUTED)
    drawing.box(546, 95, 74, 36, "pooling")
    drawing.text(583, 80, "average", size=12, colour=MUTED)
    drawing.text(583, 147, "AGW: generalised", size=11, colour=MUTED)
    drawing.text(583, 161, "mean", size=11, colour=MUTED)
    drawing.line("M620 113 H664", arrow=True)
    drawing.text(642, 106, "f", extra='font-style="italic"')
    drawing.box(666, 95, 56, 36, "neck")
    drawing.line("M722 113 H758", arrow=True)
    drawing.box(760, 88, 90, 50, "vector for\nsearch")
    drawing.line("M642 113 V206", arrow=True, extra=DASHES)
    drawing.box(560, 208, 148, 50, "triplets; AGW:\nweighted triplets")
    drawing.line("M740 113 V206", arrow=True, extra=DASHES)
    drawing.box(718, 208, 132, 50, "classifier,\ncross-entropy")
    drawing.line("M14 222 H44", arrow=True)
    drawing.text(52, 226.5, "pictures and features", size=12, colour=MUTED, anchor="start")
    drawing.line("M14 244 H44", arrow=True, extra=DASHES)
    drawing.text(52, 248.5, "to a loss, in training alone", size=12, colour=MUTED, anchor="start")
    return drawing.svg()


def footage() -> str:
    """From a recording to a row of a gallery, in six pictures."""
    drawing = Drawing(860, 232)
    steps = (
        ("recording", "a file, or a folder", "of files"),
        ("source", "which camera, from", "which moment on"),
        ("frames", "looked at; a detector", "draws boxes"),
        ("tracklet", "one person, one camera,", "without a break"),
        ("crop", "the best are kept,", "with their quality"),
        ("row", "what is known, and", "the model's vector"),
    )
    places = [72 + 143 * number for number in range(len(steps))]
    for x, (name, *words) in zip(places, steps, strict=True):
        drawing.text(x, 164, name, size=14, extra='font-weight="bold"')
        for number, each in enumerate(words):
            drawing.text(x, 186 + 16 * number, each, size=11, colour=MUTED)
    for x in places[:-1]:
        drawing.line(f"M{x + 58} 85 H{x + 84}", arrow=True)
    recording, source, frames, tracklet, crop, row = places

    drawing.box(recording - 48, 55, 96, 60)
    drawing.area(f"M{recording - 10} 70 L{recording + 16} 85 L{recording - 10} 100 Z", MUTED)
    drawing.box(source - 48, 55, 96, 60)
    drawing.text(source, 81, "cam3", size=12)
    drawing.text(source, 99, "21:00:00 Z", size=12)
    for shift in (12, 6, 0):
        drawing.box(frames - 50 + shift, 61 - shift, 88, 60)
    drawing.person(frames - 26, 115, 40)
    drawing.person(frames + 12, 112, 34)
    drawing.line(_outline(frames - 37, 70, 22, 48), colour=RIGHT, width=1.6)
    drawing.line(_outline(frames + 2, 74, 20, 41), colour=RIGHT, width=1.6)
    for number in range(4):
        drawing.box(tracklet - 48 + 24 * number, 58, 24, 54)
        drawing.person(tracklet - 36 + 24 * number, 107, 34 + 3 * number)
    drawing.box(crop - 24, 40, 48, 90, colour=RIGHT)
    drawing.person(crop, 124, 78)
    cells = ("camera, time", "tracklet, box", "light, quality", "vector")
    for number, each in enumerate(cells):
        drawing.box(row - 50, 41 + 22 * number, 100, 22, colour=RIGHT if each == "vector" else INK)
        drawing.text(row, 56 + 22 * number, each, size=11)
    return drawing.svg()


def read_ranking() -> list[tuple[int, int, str, str]]:
    """(pid, camera, what it is, rank or nothing) of the rows of the table in protocols.md, from the nearest on."""
    text = (DOCS / "protocols.md").read_text(encoding="utf-8")
    lines = text.split("| place | pid | camera |")[1].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines]
    return [(int(pid), int(camera), what, rank) for _, pid, camera, what, rank in cells]


def ranking() -> str:
    """The eight-row table of protocols.md as a list of pictures, what a protocol takes out crossed out."""
    drawing = Drawing(860, 224)
    colours = {7: SERIES[0], 4: SERIES[3], 9: SERIES[2], 0: SERIES[4]}
    drawing.text(52, 22, "query", size=13, extra='font-weight="bold"')
    drawing.text(158, 22, "gallery, nearest first", size=13, anchor="start", extra='font-weight="bold"')
    drawing.box(18, 36, 68, 106)
    drawing.person(52, 136, 90, colours[7])
    drawing.text(52, 110, "7", size=14, colour="white")
    drawing.text(52, 160, "camera 1", size=11)
    drawing.line("M98 89 H140", arrow=True)
    for number, (pid, camera, what, rank) in enumerate(read_ranking()):
        left, x = 158 + 87 * number, 192 + 87 * number
        kind = what.split(":")[-1].strip() if rank else what.split(":")[0]  # match, wrong, junk, ignored
        colour = {"match": RIGHT, "wrong": WRONG}.get(kind, MUTED)
        drawing.box(left, 36, 68, 106, colour=colour, extra=DASHES if kind == "wrong" else "")
        if pid < 0:
            drawing.line(_outline(x - 16, 62, 32, 54), colour=MUTED, extra=DASHES)
        else:
            drawing.person(x, 136, 90, colours[pid])
        drawing.text(x, 110, str(pid), size=14, colour=MUTED if pid < 0 else "white")
        drawing.text(x, 160, f"camera {camera}", size=11)
        if rank:
            mark = f"M{x - 4} 168 l4 5 l7 -11" if kind == "match" else f"M{x - 4} 162 l9 9 m0 -9 l-9 9"
            drawing.line(f"{mark.replace('168', '174').replace('162', '168')}", colour=colour, width=2)
            drawing.text(x, 196, kind if what == kind else f"{what.split(':')[0]}", size=11, colour=colour)
            drawing.text(x, 214, f"rank {rank}", size=12, extra='font-weight="bold"')
        else:
            drawing.area(f"M{left} 36 h68 v106 h-68 Z", "white", 0.55)
            drawing.line(f"M{left - 4} 146 L{left + 72} 32 M{left - 4} 32 L{left + 72} 146", width=2.4)
            drawing.text(x, 196, kind, size=11, colour=MUTED)
            drawing.text(x, 214, "taken out", size=11, colour=MUTED)
    return drawing.svg()


def similarities() -> str:
    """Drawn similarities of pairs of one person and of two; the fitted probability at two priors; a threshold."""
    same, different, calibration = draw_pairs()
    drawing, pair = Drawing(860, 400), "visible-visible"
    left, width, low, high = 64, 760, -0.4, 1.0

    def across(similarity: float) -> float:
        return left + width * (similarity - low) / (high - low)

    def up(share: float, bottom: float, height: float) -> float:
        return bottom - height * share

    edges = np.linspace(low, high, 71)
    shares = [np.histogram(values, edges, density=True)[0] for values in (same, different)]
    top = 1.05 * max(float(each.max()) for each in shares)
    for values, colour, name, x in zip(
        shares, (RIGHT, WRONG), ("pairs of one person", "pairs of two people"), (0.66, -0.37), strict=True
    ):
        steps = [
            f"L{across(a):.1f} {up(v / top, 190, 160):.1f} H{across(b):.1f}"
            for a, b, v in zip(edges, edges[1:], values, strict=False)
        ]
        outline = f"M{across(low):.1f} 190 {' '.join(steps)} V190"
        drawing.area(f"{outline} Z", colour, 0.35)
        drawing.line(outline, colour=colour)
        drawing.text(across(x), 64, name, colour=colour, anchor="start")
    drawing.text(
        left, 20, "How often: each histogram has an area of one", size=13, anchor="start", extra='font-weight="bold"'
    )
    drawing.text(left, 220, "Probability of one person, fitted", size=13, anchor="start", extra='font-weight="bold"')
    for share in (0, 0.5, 1):
        y = up(share, 360, 120)
        drawing.line(f"M{left} {y:g} H{left + width}", colour=GRID, width=1)
        drawing.text(left - 8, y + 4, f"{100 * share:.0f} %", size=11, colour=MUTED, anchor="end")
    drawing.line(f"M{left} 190 H{left + width}", colour=MUTED, width=1)
    for tick in np.arange(-0.4, 1.01, 0.2):
        for y in (190, 360):
            drawing.line(f"M{across(tick):.1f} {y} v4", colour=MUTED, width=1)
        drawing.text(across(tick), 376, f"{tick + 0.0:.1f}".replace("-0.0", "0.0"), size=11, colour=MUTED)
    drawing.text(left + width / 2, 394, "similarity", size=12, colour=MUTED)
    levels = np.linspace(low, high, 281)
    for prior, dashes, x, share in ((0.5, "", 0.06, 0.62), (0.01, DASHES, 0.56, 0.62)):
        curve = calibration.probability(levels, pair, prior=prior)
        points = [f"{across(s):.1f} {up(p, 360, 120):.1f}" for s, p in zip(levels, curve, strict=True)]
        drawing.line(f"M{' L'.join(points)}", colour=SERIES[2], width=1.8, extra=dashes)
        drawing.text(across(x), up(share, 360, 120), f"prior {prior:g}", colour=SERIES[2], anchor="start", size=12)
    threshold = calibration.threshold(0.01, pair)
    x = across(threshold)
    drawing.line(f"M{x:.1f} 34 V360", width=1.6, extra='stroke-dasharray="2 3"')
    found = float((same >= threshold).mean())
    drawing.text(
        x + 8,
        40,
        f"threshold {threshold:.2f}: 1 % of two people reach it, {100 * found:.0f} % of one",
        size=12,
        anchor="start",
    )
    return drawing.svg()


def draw_pairs() -> tuple[np.ndarray, np.ndarray, Calibration]:
    """Similarities of pairs of one person and of two, drawn by a seed, and the calibration that is fitted to them."""
    generator = np.random.default_rng(7)
    same = np.clip(generator.normal(0.48, 0.15, 4_000), -1, 1)
    different = np.clip(generator.normal(0.06, 0.12, 400_000), -1, 1)
    counts = [np.histogram(each, similarity_edges()[::-1])[0][::-1] for each in (same, different)]
    nobody = SearchCounts({}, np.zeros(BINS, dtype=np.int64), 0, 0)
    fitted = fit_pair(PairCounts(counts[0], counts[1], 300, 300), nobody, "visible-visible", rates=(0.01,))
    return same, different, Calibration({}, {}, "none", 7, 0.5, "isotonic", (0.01,), {"visible-visible": fitted})


def _outline(left: float, top: float, width: float, height: float) -> str:
    return f"M{left:g} {top:g} h{width:g} v{height:g} h{-width:g} Z"


FIGURES = {"two_stream": two_stream, "footage": footage, "ranking": ranking, "similarities": similarities}


def main() -> None:
    """Write each figure."""
    for name, draw in FIGURES.items():
        write_bytes(DOCS / f"_static/{name}.svg", draw().encode())


if __name__ == "__main__":
    main()
