"""The demo across modalities: a night scene under visible and near-infrared cameras, DEEN or others beside a baseline.

Every method is trained on the same pictures and evaluated in both directions by LLCM's rules, with ten drawn galleries
each. Like the first demo it goes on where it was stopped.
"""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tapetum.core.atomic import make_folder
from tapetum.core.types import Modality
from tapetum.data.catalog import Dataset
from tapetum.data.lighting import measure_pictures
from tapetum.evaluation.card import Card
from tapetum.evaluation.metrics import Sides
from tapetum.experiments.board import Board, Stage
from tapetum.experiments.calibrated import (
    GENERATE_OTHERS,
    Outcome,
    calibrate_methods,
    label_checks,
    note_missing,
    other_settings,
    summarise_calibrations,
)
from tapetum.experiments.demo import (
    GENERATE,
    QUANTITIES,
    SEARCHES,
    make_scene,
    pair_queries,
    picture_facts,
    repeat_options,
    repeat_overrides,
    sample_pictures,
    scene_settings,
    search_galleries,
    train_methods,
)
from tapetum.experiments.start import decide_scratch, describe_start, start_overrides
from tapetum.experiments.trainable import ACROSS, choose_methods, join_words, list_run_names, run_name
from tapetum.inference.evaluate import Evaluated, evaluate_run
from tapetum.report.build import build_report
from tapetum.report.collect import (
    choose_queries,
    collect_across,
    collect_searches,
    collect_worst_queries,
    read_curves,
)
from tapetum.report.content import ReportContent, Result
from tapetum.runs.recipe import Recipe, load_recipe, scene_options
from tapetum.runs.run_folder import RunFolder, write_json

DIRECTIONS = {"IR→VIS": "llcm_revised_nir_to_vis", "VIS→IR": "llcm_revised_vis_to_nir"}  # figures show the first
METHODS = ("two_stream", "agw", "deen")  # the baseline first
ENHANCED = "idf_deen"
PEOPLE = 160  # to train on: with fewer a method learns them by heart
TESTED = 4  # people to train on for each one to test with
# Seconds an epoch of so many people, two cores.
WEIGHTS = {"two_stream_synth": 11.5, "agw_synth": 12.5, "deen_synth": 25.0, "idf_deen_synth": 33.0}
WEIGHT = 15.0  # of the others, a guess
PEOPLE_ON_MAP = 20


@dataclass(frozen=True)
class InfraredDemoOptions:
    """Settings of the demo across modalities.

    Attributes:
        people: for training; a quarter as many others, four at least, are for testing.
        enhanced: also train DEEN whose visible pictures also enter brightened, as in IDF.
        overrides: "key.key=value" for all recipes.
        from_scratch: use no ImageNet weights, though their package be installed.
        methods: short names, the baseline first (see `tapetum.experiments.trainable`).
    """

    out: Path
    seed: int = 2021
    people: int = PEOPLE
    epochs: int = 8
    enhanced: bool = False
    overrides: tuple[str, ...] = field(default=())
    from_scratch: bool = False
    methods: tuple[str, ...] = METHODS

    @property
    def recipes(self) -> dict[str, str]:
        """Label -> recipe, the baseline first."""
        added = [ENHANCED] if self.enhanced and ENHANCED not in self.methods else []
        return choose_methods([*self.methods, *added], ACROSS)

    @property
    def runs(self) -> dict[str, Path]:
        """Label -> run folder."""
        return {label: self.out / run_name(name) for label, name in self.recipes.items()}

    @property
    def scratch(self) -> bool:
        """Whether the trainings start from scratch."""
        return decide_scratch(self.from_scratch, self.out)

    @property
    def start(self) -> str:
        """What the trainings start from, for a reader."""
        return describe_start(self.recipes, scratch=self.scratch)

    @property
    def command(self) -> str:
        """What makes the same again."""
        words = ["tapetum", "demo-ir", *repeat_options(self, InfraredDemoOptions(self.out))]
        words += ["--enhanced"] * self.enhanced
        words += ["--from-scratch"] * self.scratch
        return shlex.join([*words, *repeat_overrides(self.overrides)])

    def scene(self) -> dict[str, Any]:
        """Settings of the generated scene."""
        settings = scene_settings(self.people, self.seed)
        return {
            "layout": ACROSS,
            **settings,
            "num_test_people": max(4, self.people // TESTED),
            "pictures_per_camera": 2,
        }

    def others(self) -> dict[str, Any]:
        """Settings of the people to calibrate with."""
        return other_settings(self.scene())

    def recipe(self, name: str) -> Recipe:
        """A method's recipe on this scene."""
        scene = f"data.root={json.dumps(str(self.out / 'scene'))}"  # so that other commands find the pictures
        start = start_overrides(name, scratch=self.scratch)
        changes = [scene, f"seed={self.seed}", f"schedule.epochs={self.epochs}", *start, *self.overrides]
        return load_recipe(name, changes)


def list_folders() -> list[str]:
    """Every folder that the demo may make in its own."""
    return ["scene", "others", *list_run_names(ACROSS)]


def run_infrared_demo(options: InfraredDemoOptions, *, quiet: bool = False) -> dict[str, Any]:
    """Run the demo across modalities, or go on with it."""
    recipes = {label: options.recipe(name) for label, name in options.recipes.items()}
    make_folder(options.out)
    runs = options.runs
    share = options.people / PEOPLE
    stages = [Stage(GENERATE, 18 * share)]
    stages += [
        Stage(f"train {label}", WEIGHTS.get(name, WEIGHT) * share * options.epochs)
        for label, name in options.recipes.items()
    ]
    stages += [Stage(f"evaluate {label}", 5 * share) for label in recipes]
    stages += [Stage(GENERATE_OTHERS, 15 * share), *(Stage(f"calibrate {label}", 12 * share) for label in recipes)]
    stages += [Stage("write the report", 20)]
    board = Board(stages, quiet=quiet)
    with board.showing():
        dataset = make_scene(options.scene(), options.out / "scene", board)
        seconds = train_methods(recipes, runs, dataset, board)
        found: dict[str, dict[str, Evaluated]] = {}
        for label, place in runs.items():
            board.begin(f"evaluate {label}")
            names = list(DIRECTIONS.values())
            tests = evaluate_run(place, names, dataset=dataset, progress=board.pictures)
            found[label] = dict(zip(DIRECTIONS, tests, strict=True))
            board.finish_stage()
        others = make_scene(options.others(), options.out / "others", board, title=GENERATE_OTHERS)
        calibrations = calibrate_methods(runs, others, board)
        board.begin("write the report")
        metrics = summarise(options, found, seconds, calibrations)
        sides = {label: undrawn(*ways.values()) for label, ways in found.items()}
        rows = choose_queries([side.evaluation for side in sides.values()], SEARCHES)
        write_json(options.out / "searches.json", search_galleries(sides, rows))
        write_json(options.out / "metrics.json", metrics)
        build_report(options.out / "report.html", _collect(options, dataset, runs, found, sides, seconds, calibrations))
        board.finish_stage()
    return metrics


def undrawn(there: Evaluated, back: Evaluated) -> Sides:
    """Every testing picture: those of the gallery, of which trials take some, are the queries on the way back."""
    return Sides(there.query, back.query, replace(there.protocol, trials=1, drawn=None))


def summarise(
    options: InfraredDemoOptions,
    found: Mapping[str, Mapping[str, Evaluated]],
    seconds: Mapping[str, float],
    calibrations: Mapping[str, Outcome],
) -> dict[str, Any]:
    """The numbers of ``metrics.json``: fractions, per method and direction, with protocol, trials and seed."""
    first = next(iter(found.values()))
    return {
        "command": options.command,
        "seed": options.seed,
        "start": options.start,
        "scene": options.scene(),
        "chance": {way: evaluated.card.chance for way, evaluated in first.items()},
        "protocols": dict(DIRECTIONS),
        "methods": {  # seconds: of training
            label: {
                "seconds": seconds[label],
                **{way: _numbers(evaluated.card) for way, evaluated in ways.items()},
            }
            for label, ways in found.items()
        },
        "calibration": summarise_calibrations(calibrations),
    }


def _numbers(card: Card) -> dict[str, Any]:
    names = (*QUANTITIES, "rank20")
    return {
        **{name: card.metrics[name] for name in names},
        "mean_ap_step": card.metrics["mean_ap_step"],
        "mean_ap_trapezoid": card.metrics["mean_ap_trapezoid"],
        "trials": card.num_trials,
        "deviation": {name: card.trials["deviation"][name] for name in names},
        "num_queries": card.metrics["num_queries"],
        "protocol": card.rules.name,
        "ap": card.rules.ap,
        "seed": card.seed,
        "recipe": card.recipe["name"],
    }


def _collect(
    options: InfraredDemoOptions,
    dataset: Dataset,
    runs: Mapping[str, Path],
    found: Mapping[str, Mapping[str, Evaluated]],
    tests: Mapping[str, Sides],
    seconds: Mapping[str, float],
    calibrations: Mapping[str, Outcome],
) -> ReportContent:
    results = tuple(
        Result(
            f"{label}, {way}",
            ways[way].card,
            seconds=seconds[label],
            note="baseline" if place == 0 else "",
            method=label,
        )
        for way in DIRECTIONS
        for place, (label, ways) in enumerate(found.items())
    )
    statistics = measure_pictures(dataset.records, cache_file=options.out / "statistics.npz")
    settings, _ = scene_options(options.scene())
    distances, maps = collect_across(tests, people=PEOPLE_ON_MAP)
    last = list(tests)[-1]
    return ReportContent(
        title="A night across visible and infrared",
        command=options.command,
        lead=(
            "Generated people under visible cameras in the dark and under near-infrared ones. Every method learnt from "
            "some people's pictures in both kinds of light; others, whom it has never seen, are searched in one kind "
            "with a picture of the other."
            + (" DEEN expands each embedding into several, so that the two kinds meet." if "DEEN" in found else "")
        ),
        facts={
            "people (training / testing)": f"{settings.num_train_people} / {settings.num_test_people}",
            "people to calibrate with": options.others()["num_test_people"],
            "cameras (visible / infrared)": f"{settings.cameras} / {len(settings.paired_cameras)}",
            "training pictures (visible / infrared)": _count(dataset, "train"),
            "testing pictures (visible / infrared)": _count(dataset, "test"),
            **picture_facts(statistics),
            "networks start from": options.start,
            "seed": options.seed,
            "epochs": options.epochs,
        },
        results=results,
        curves={label: read_curves(RunFolder(place).metrics) for label, place in runs.items()},
        calibrations=label_checks(calibrations),
        rank_lists=collect_searches(tests, count=SEARCHES),
        worst_queries=collect_worst_queries(last, tests[last], count=SEARCHES),
        pairs=pair_queries(runs, {label: ways["VIS→IR"] for label, ways in found.items()}),
        distances=distances,
        maps=maps,
        pictures=statistics,
        samples=sample_pictures(dataset),
        notes=(
            "The pictures are generated: figures tell methods apart under known conditions, they do not say how a "
            "method does on a real street.",
            "One seed a method. The deviation is that of the drawn galleries, not that of trainings: a difference "
            "within the intervals is no difference.",
            "The weights are those of the last epoch. Learning rate and number of people were chosen on the scene of "
            "seed 2021; another seed's people had no part in any choice. Searches, distances and maps show every "
            "testing picture, not one trial's draw.",
            describe_training({label: options.recipe(name) for label, name in options.recipes.items()}),
            *note_missing(calibrations),
        ),
    )


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
