"""The demo across modalities: a night scene under visible and near-infrared cameras, DEEN or others beside a baseline.

Every method is trained on the same pictures and evaluated in both directions by LLCM's rules, with ten drawn galleries
each. Like the first demo it goes on where it was stopped.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from tapetum.core.types import Modality
from tapetum.data.catalog import Dataset
from tapetum.data.threads import Progress
from tapetum.evaluation.card import Card
from tapetum.evaluation.metrics import Sides
from tapetum.experiments.calibrated import note_missing
from tapetum.experiments.demo import (
    GENERATED,
    QUANTITIES,
    DemoOptions,
    Results,
    Told,
    Weights,
    collect_common,
    run_stages,
    summarise_card,
    summarise_options,
)
from tapetum.experiments.trainable import ACROSS, choose_methods, join_words, list_run_names
from tapetum.inference.evaluate import Evaluated, evaluate_run
from tapetum.report.collect import collect_across
from tapetum.report.content import ReportContent, Result
from tapetum.runs.recipe import Recipe
from tapetum.synth.scene import SceneOptions

DIRECTIONS = {"IR→VIS": "llcm_revised_nir_to_vis", "VIS→IR": "llcm_revised_vis_to_nir"}  # figures show the first
METHODS = ("two_stream", "agw", "deen")  # the baseline first
ENHANCED = "idf_deen"
TESTED = 4  # people to train on for each one to test with
EPOCHS = {"two_stream_synth": 11.5, "agw_synth": 12.5, "deen_synth": 25.0, "idf_deen_synth": 33.0}
WEIGHTS = Weights(18, EPOCHS, 15, evaluate=5, others=15, calibrate=12, report=20)
PEOPLE_ON_MAP = 20
Directions = dict[str, Evaluated]  # direction -> its evaluation


@dataclass(frozen=True)
class InfraredDemoOptions(DemoOptions):
    """Settings of the demo across modalities, beyond those of the first.

    Attributes:
        people: for training; a quarter as many others, four at least, are for testing.
        enhanced: also train DEEN whose visible pictures also enter brightened, as in IDF.
    """

    LAYOUT: ClassVar[str] = ACROSS
    USUAL_PEOPLE: ClassVar[int] = 160  # to train on: with fewer a method learns them by heart

    people: int = USUAL_PEOPLE
    epochs: int = 8
    methods: tuple[str, ...] = METHODS
    enhanced: bool = False

    @property
    def recipes(self) -> dict[str, str]:
        """Label -> recipe, the baseline first."""
        added = [ENHANCED] if self.enhanced and ENHANCED not in self.methods else []
        return choose_methods([*self.methods, *added], ACROSS)

    def scene(self) -> dict[str, Any]:
        """Settings of the generated scene."""
        testing = max(4, self.people // TESTED)
        return {"layout": ACROSS, **super().scene(), "num_test_people": testing, "pictures_per_camera": 2}


def list_folders() -> list[str]:
    """Every folder that the demo may make in its own."""
    return ["scene", "others", *list_run_names(ACROSS)]


def run_infrared_demo(options: InfraredDemoOptions, *, quiet: bool = False) -> dict[str, Any]:
    """Run the demo across modalities, or go on with it; gives what ``metrics.json`` holds.

    Raises:
        TapetumError: the folder holds something else or cannot be written, or a stage failed.
        KeyboardInterrupt: stopped by the user; the same call goes on.
    """

    def evaluate(place: Path, dataset: Dataset, progress: Progress) -> Directions:
        tests = evaluate_run(place, list(DIRECTIONS.values()), dataset=dataset, progress=progress)
        return dict(zip(DIRECTIONS, tests, strict=True))

    return run_stages(options, WEIGHTS, evaluate, _tell, quiet=quiet)


def undrawn(there: Evaluated, back: Evaluated) -> Sides:
    """Every testing picture: those of the gallery, of which trials take some, are the queries on the way back."""
    return Sides(there.query, back.query, replace(there.protocol, trials=1, drawn=None), filling=there.filling)


def _tell(results: Results[Directions]) -> Told:
    """Numbers per method and direction with protocol and trials, and the report."""
    tests, dataset = results.tests, results.dataset
    sides = {label: undrawn(*ways.values()) for label, ways in tests.items()}
    metrics = {
        **summarise_options(results),
        "chance": {way: test.card.chance for way, test in next(iter(tests.values())).items()},
        "protocols": dict(DIRECTIONS),
        "methods": {  # seconds: of training
            label: {
                "seconds": results.seconds[label],
                **{way: _numbers(test.card) for way, test in ways.items()},
            }
            for label, ways in tests.items()
        },
    }

    def describe_scene(scene: SceneOptions, queries_per_camera: int) -> dict[str, Any]:  # noqa: ARG001
        return {
            "cameras (visible / infrared)": f"{scene.cameras} / {len(scene.paired_cameras)}",
            "training pictures (visible / infrared)": _count(dataset, "train"),
            "testing pictures (visible / infrared)": _count(dataset, "test"),
        }

    distances, maps = collect_across(sides, people=PEOPLE_ON_MAP)
    visible = {label: tests[label]["VIS→IR"] for label in reversed(list(tests))}  # queries to be shown brightened
    options = results.options
    content = ReportContent(
        title="A night across visible and infrared",
        lead=(
            "Generated people under visible cameras in the dark and under near-infrared ones. Every method learnt from "
            "some people's pictures in both kinds of light; others, whom it has never seen, are searched in one kind "
            "with a picture of the other."
            + (" DEEN expands each embedding into several, so that the two kinds meet." if "DEEN" in tests else "")
        ),
        results=tuple(
            Result(
                f"{label}, {way}",
                ways[way].card,
                seconds=results.seconds[label],
                note="baseline" if place == 0 else "",
                method=label,
            )
            for way in DIRECTIONS
            for place, (label, ways) in enumerate(tests.items())
        ),
        distances=distances,
        maps=maps,
        notes=(
            GENERATED,
            "One seed a method. The deviation is that of the drawn galleries, not that of trainings: a difference "
            "within the intervals is no difference.",
            "The weights are those of the last epoch. Learning rate and number of people were chosen on the scene of "
            "seed 2021; another seed's people had no part in any choice. Searches, distances and maps show every "
            "testing picture, not one trial's draw.",
            describe_training({label: options.recipe(name) for label, name in options.recipes.items()}),
            *note_missing(results.calibrations),
        ),
        **collect_common(results, sides, visible, describe_scene),
    )
    return metrics, sides, content


def _numbers(card: Card) -> dict[str, Any]:
    names = (*QUANTITIES, "rank20")
    return {
        **summarise_card(card, names),
        "trials": card.num_trials,
        "deviation": {name: card.trials["deviation"][name] for name in names},
    }


def describe_training(recipes: Mapping[str, Recipe]) -> str:
    """What is alike in all trainings, and in which it is not."""
    others = [
        label for label, recipe in recipes.items() if all(change["name"] != "grayscale" for change in recipe.augment)
    ]
    if not others:
        return (
            "Every method is trained with grey pictures among the coloured ones and tested with the mirror, as DEEN is "
            "in its release, so that network and losses alone tell them apart."
        )
    return (
        "Every method is tested with the mirror, as DEEN is in its release. All are trained with grey pictures among "
        f"the coloured ones, but {join_words(others)} with changes to the pictures that are part of the method."
    )


def _count(dataset: Dataset, split: str) -> str:
    modalities = [record.modality for record in dataset.records if record.split == split]
    return " / ".join(str(modalities.count(modality)) for modality in Modality)
