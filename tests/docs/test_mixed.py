"""The figures of a gallery of both modalities in docs/protocols.md are those that were measured."""

import json
import re
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs/results"
METHODS = {"two-stream": "two_stream", "MCLNet": "mclnet", "DEEN": "deen"}
PAGE = (ROOT / "docs/protocols.md").read_text(encoding="utf-8")


def read_measured():
    scenes = json.loads((RESULTS / "mixed.json").read_text(encoding="utf-8"))["scenes"]
    runs = json.loads((RESULTS / "mixed_runs.json").read_text(encoding="utf-8"))["runs"]
    return list(scenes.values()), runs


def read_table(head):
    """The rows of the page's table whose head begins so: their first cell -> the others."""
    (table,) = re.findall(rf"^{re.escape(head)}.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, flags=re.MULTILINE)
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()]
    assert len({name for name, *_ in rows}) == len(rows)
    return {name: cells for name, *cells in rows}


def write(ends, *, bold=True):
    """A difference and its interval as the page writes them."""
    text = "{:.1f} ({:.1f} to {:.1f})".format(*(round(end, 1) + 0.0 for end in ends))
    return f"**{text}**" if bold and (ends[1] > 0 or ends[2] < 0) else text


def test_what_the_means_gain_is_of_three_trainings_of_each_method_and_of_three_scenes():
    scenes, runs = read_measured()
    rows = {label: [runs[f"{name}_seed{seed}"] for seed in (1, 2, 3)] for label, name in METHODS.items()}
    assert read_table("| three seeds of |") == {
        label: [
            ", ".join(write(each["differences"][f"{way} less as it is"][quantity]) for each in some)
            for way in ("modality", "centre")
            for quantity in ("rank1", "mean_ap")
        ]
        for label, some in {**rows, "the three scenes": scenes}.items()
    }


def test_the_three_scenes_figures_are_those_that_were_measured():
    scenes, _ = read_measured()
    names = {"as it is": "as it is", "modality": "`--camera-norm modality`", "centre": "`--camera-norm centre`"}
    measured = {}
    for way, name in {**names, "calibrated": "`--rank calibrated`"}.items():
        found = [scene["ways"][way] for scene in scenes]
        cells = [", ".join(f"{each[quantity]:.1f}" for each in found) for quantity in ("rank1", "mean_ap")]
        cells += [", ".join(f"{each[kind]['modality_bias']:.2f}" for each in found) for kind in ("visible", "infrared")]
        measured[name] = cells
    assert read_table("| seeds 11, 12, 13 |") == measured


def test_the_three_scenes_differences_are_those_that_were_measured():
    scenes, _ = read_measured()
    assert read_table("| calibrated less |") == {
        name: [
            ", ".join(write(scene["differences"][f"calibrated less {way}"][quantity], bold=False) for scene in scenes)
            for quantity in ("rank1", "mean_ap")
        ]
        for way, name in {"as it is": "as it is", "modality": "`modality`", "centre": "`centre`"}.items()
    }


def test_how_many_right_pictures_are_among_the_first_twenty_is_what_was_measured():
    scenes = [scene["first 20 answers"] for scene in read_measured()[0]]

    def cells(quantity):
        pair = [", ".join(f"{each[quantity][rank]:.1f}" for each in scenes) for rank in ("similarity", "calibrated")]
        differences = [each[quantity]["difference"] for each in scenes]
        return [*pair, ", ".join(write(ends, bold=False) for ends in differences) if np.any(differences) else "none"]

    assert read_table("| | `--rank similarity` |") == {
        "all right pictures": cells("found"),
        "those of the other modality": cells("across"),
        "the first answer is right": cells("rank1"),
    }
