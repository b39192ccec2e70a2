"""The figures of a gallery of both modalities in docs/protocols.md are those that were measured."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs/results"
METHODS = {"two-stream": "two_stream", "MCLNet": "mclnet", "DEEN": "deen"}
PAGE = (ROOT / "docs/protocols.md").read_text(encoding="utf-8")


def read_measured():
    scenes = json.loads((RESULTS / "mixed.json").read_text(encoding="utf-8"))["scenes"]
    runs = json.loads((RESULTS / "mixed_runs.json").read_text(encoding="utf-8"))["runs"]
    return list(scenes.values()), runs


def write(ends, *, bold=True):
    """A difference and its interval as the page writes them."""
    text = "{:.1f} ({:.1f} to {:.1f})".format(*(round(end, 1) + 0.0 for end in ends))
    return f"**{text}**" if bold and (ends[1] > 0 or ends[2] < 0) else text


def test_what_the_means_gain_is_of_three_trainings_of_each_method_and_of_three_scenes():
    scenes, runs = read_measured()
    rows = {label: [runs[f"{name}_seed{seed}"] for seed in (1, 2, 3)] for label, name in METHODS.items()}
    for label, some in {**rows, "the three scenes": scenes}.items():
        cells = [
            ", ".join(write(each["differences"][f"{way} less as it is"][quantity]) for each in some)
            for way in ("modality", "centre")
            for quantity in ("rank1", "mean_ap")
        ]
        assert f"| {label} | {' | '.join(cells)} |" in PAGE


def test_the_three_scenes_figures_and_differences_are_those_that_were_measured():
    scenes, _ = read_measured()
    names = {"as it is": "as it is", "modality": "`--camera-norm modality`", "centre": "`--camera-norm centre`"}
    for way, name in {**names, "calibrated": "`--rank calibrated`"}.items():
        found = [scene["ways"][way] for scene in scenes]
        cells = [", ".join(f"{each[quantity]:.1f}" for each in found) for quantity in ("rank1", "mean_ap")]
        cells += [", ".join(f"{each[kind]['modality_bias']:.2f}" for each in found) for kind in ("visible", "infrared")]
        assert f"| {name} | {' | '.join(cells)} |" in PAGE
    for way, name in {"as it is": "as it is", "modality": "`modality`", "centre": "`centre`"}.items():
        cells = [
            ", ".join(write(scene["differences"][f"calibrated less {way}"][quantity], bold=False) for scene in scenes)
            for quantity in ("rank1", "mean_ap")
        ]
        assert f"| {name} | {' | '.join(cells)} |" in PAGE
