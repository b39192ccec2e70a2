"""The packaged model, its card, its recipe and the measurement that the card quotes belong together."""

import json
import re
import statistics
from pathlib import Path

from tapetum.inference.identity import identify
from tapetum.runs import packaged
from tapetum.runs.header import find_checkpoint, read_header
from tapetum.runs.recipe import check_recipe, load_recipe

ROOT = Path(__file__).parents[2]
RESULTS = json.loads((ROOT / "docs/results/lite0.json").read_bytes())
CARD = (packaged.FOLDER / f"{packaged.DEFAULT}.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in CARD.splitlines() if line.startswith("|")]
CLIPS = {"six people": "one-by-one-person-detection.mp4", "store": "store-aisle-detection.mp4"}
LIGHTS = {"as it is": "as it is", "darkened by the sensor model": "darkened"}
SCENES = {  # the card's words -> the file's, and the pair of modalities whose calibration error is told
    "eight cameras at night, visible": ("eight cameras, night600", "visible-visible"),
    "24 places by night and day, visible in visible": ("a city, city_vis_to_vis", "visible-visible"),
    "the same, infrared in visible": ("a city, city_nir_to_vis", "visible-infrared"),
    "the same, visible in infrared": ("a city, city_vis_to_nir", "visible-infrared"),
    "the same, infrared in infrared": ("a city, city_nir_to_nir", "infrared-infrared"),
    "the same, all in all": ("a city, city_mixed", "visible-visible"),
}


def spread(values: list[float]) -> str:
    """As the card writes seeds."""
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


def test_the_card_s_figures_on_generated_scenes_are_those_measured() -> None:
    told = [row for row in ROWS if row[0] in SCENES]
    assert {row[0] for row in told} == set(SCENES)
    for scene, model, *figures in told:
        place, pair = SCENES[scene]
        measured = RESULTS["rows"][place][model]
        assert figures == [
            spread(measured[name]) for name in ("rank1", "mean_ap", f"calibration_error {pair}")
        ], (scene, model)  # fmt: skip


def test_the_card_s_figures_on_real_clips_are_those_measured() -> None:
    told = [row for row in ROWS if row[0].partition(", ")[0] in CLIPS]
    assert len(told) == len(CLIPS) * len(LIGHTS) * len(RESULTS["models"])
    for clip, model, *figures in told:
        people, _, light = clip.partition(", ")
        measured = RESULTS["rows"][f"{CLIPS[people]}, {LIGHTS[light]}"][model]
        assert figures == [
            f"{measured['rank1']:.1f}",
            f"{measured['mean_ap']:.1f}",
            f"{measured['one person']:.2f} / {measured['two people']:.2f}",
        ], (clip, model)


def test_what_was_measured_and_calibrated_is_the_model_that_is_shipped() -> None:
    model = identify(Path(packaged.DEFAULT))
    assert model.id == RESULTS["models"][packaged.DEFAULT]["model"]
    assert model.facts["checkpoint"] == model.calibration["model"]["checkpoint"]


def test_the_shipped_weights_were_trained_by_the_recipe_that_is_shipped() -> None:
    kept = read_header(find_checkpoint(Path(packaged.DEFAULT))).recipe
    assert check_recipe(kept, "of the weights") == load_recipe("lite0", [])


def test_the_card_says_of_what_it_began_with_what_notice_says() -> None:
    notice = " ".join((ROOT / "NOTICE").read_text(encoding="utf-8").split())
    caveat = notice[notice.index("ImageNet's pictures are") :].rstrip(".")
    assert dict(row for row in ROWS if len(row) == 2)["licence"] == f"Apache-2.0. {caveat}"


def test_the_card_names_the_pictures_and_people_of_the_recipe() -> None:
    recipe = read_header(find_checkpoint(Path(packaged.DEFAULT))).recipe
    (trained_on,) = (row[1] for row in ROWS if row[0] == "trained on")
    people, places = recipe["data"]["scene"]["num_train_people"], recipe["data"]["scene"]["cameras"]
    assert re.match(rf"{people:,} generated people, seen by night and by day at {places} places", trained_on)
    assert dict(row for row in ROWS if len(row) == 2)["pictures"].startswith("{} x {},".format(*recipe["data"]["size"]))
