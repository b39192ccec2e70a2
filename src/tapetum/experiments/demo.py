"""The demo: a night scene, the baseline and IDF or other methods trained on it, evaluated, searched, and a report.

Every stage leaves finished files, so an interrupted demo goes on where it stopped when it is called again.
"""

import json
import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch

from tapetum.core.atomic import make_folder
from tapetum.core.errors import OutputError
from tapetum.core.processor import describe_processor
from tapetum.data.catalog import Dataset
from tapetum.data.image_io import read_picture
from tapetum.data.lighting import PictureStatistics, light_levels, measure_pictures, size_levels
from tapetum.data.threads import Progress
from tapetum.evaluation.card import Card
from tapetum.evaluation.metrics import Sides
from tapetum.evaluation.rerank import RerankOptions
from tapetum.experiments.board import Board, Stage
from tapetum.experiments.calibrated import (
    Outcome,
    calibrate_methods,
    label_checks,
    note_missing,
    other_settings,
    summarise_calibrations,
)
from tapetum.experiments.published import TABLE_V
from tapetum.experiments.real_clip import CLIP_WEIGHT, check_clip, run_clip
from tapetum.experiments.start import decide_scratch, describe_start, start_overrides
from tapetum.experiments.trainable import (
    COMMANDS,
    COUNTS,
    VISIBLE,
    choose_methods,
    join_words,
    list_run_names,
    run_name,
)
from tapetum.gallery.embedding_search import search
from tapetum.inference.evaluate import Evaluated, evaluate_run
from tapetum.report.build import build_report
from tapetum.report.collect import (
    choose_queries,
    collect_pairs,
    collect_searches,
    collect_worst_queries,
    read_curves,
)
from tapetum.report.content import EnhancedPair, PublishedRow, RealClip, ReportContent, Result
from tapetum.runs.checkpoint import load_checkpoint
from tapetum.runs.recipe import Recipe, check_recipe, load_recipe, scene_options
from tapetum.runs.run_folder import RunFolder, write_json
from tapetum.runs.sources import open_scene
from tapetum.synth.scene import SceneOptions
from tapetum.training.train import train

METHODS = ("ide", "idf")  # the baseline first
QUANTITIES = ("rank1", "rank5", "rank10", "mean_ap", "mean_inp")
PRINTED = {"IDE+": ("MB", "MB"), "IDF": ("MB+IEB+IDM w/ IFD", "MB+IEB+IDM (w/ IFD)")}  # label -> row, key in Table V
NOT_COMPARABLE = "real night pictures, pretrained: not comparable with the rows above"
GENERATE, GENERATE_OTHERS = "generate the night scene", "generate people to calibrate with"
TRY_CLIP, WRITE = "try the real clip", "write the report"
SEARCHES = 4
PAIRS = 6
SAMPLES = 12
FILES = ("statistics.npz", "metrics.json", "searches.json", "report.html")
GENERATED = (
    "The pictures are generated: figures tell methods apart under known conditions, they do not say how a method does "
    "on a real street."
)
Outcomes = TypeVar("Outcomes")  # of evaluating one method


@dataclass(frozen=True)
class Weights:
    """Seconds of a demo's stages with its usual people on two CPU cores; only the proportions matter.

    Attributes:
        epochs: recipe -> of one epoch; `epoch` of the others, a guess: the board goes by the pace that it sees.
    """

    generate: float
    epochs: Mapping[str, float]
    epoch: float
    evaluate: float
    others: float
    calibrate: float
    report: float


WEIGHTS = Weights(35, {"ide_synth": 8.0, "idf_synth": 18.0}, 12, evaluate=12, others=18, calibrate=32, report=8)


@dataclass(frozen=True)
class DemoOptions:
    """Settings of the demo.

    Attributes:
        out: folder of everything it writes.
        people: for training, and as many others for testing.
        methods: short names, the baseline first (see `tapetum.experiments.trainable`).
        clip: a real video to try the trained methods on.
        overrides: "key.key=value" for all recipes.
        from_scratch: use no ImageNet weights, though their package be installed.
    """

    LAYOUT: ClassVar[str] = VISIBLE  # of its scene
    USUAL_PEOPLE: ClassVar[int] = 60

    out: Path
    seed: int = 2021
    people: int = USUAL_PEOPLE
    epochs: int = 12
    methods: tuple[str, ...] = METHODS
    clip: Path | None = None
    overrides: tuple[str, ...] = ()
    from_scratch: bool = False

    @property
    def recipes(self) -> dict[str, str]:
        """Label -> recipe, the baseline first."""
        return choose_methods(self.methods, self.LAYOUT)

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
        words = ["tapetum", COMMANDS[self.LAYOUT], "--out", str(self.out)]
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name not in ("out", "overrides", "from_scratch") and value != each.default:
                words.append(f"--{each.name}")
                words += [] if value is True else [",".join(value) if isinstance(value, tuple) else str(value)]
        words += ["--from-scratch"] * self.scratch
        return shlex.join([*words, *(word for override in self.overrides for word in ("--set", override))])

    def scene(self) -> dict[str, Any]:
        """Settings of the generated scene."""
        return scene_settings(self.people, self.seed)

    def others(self) -> dict[str, Any]:
        """Settings of the people to calibrate with."""
        return other_settings(self.scene())

    def recipe(self, name: str) -> Recipe:
        """A method's recipe on this scene."""
        scene = f"data.root={json.dumps(str(self.out / 'scene'))}"  # so that other commands find the pictures
        start = start_overrides(name, scratch=self.scratch)
        changes = [scene, f"seed={self.seed}", f"schedule.epochs={self.epochs}", *start, *self.overrides]
        return load_recipe(name, changes)


@dataclass(frozen=True)
class Results(Generic[Outcomes]):
    """What the stages of a demo gave.

    Attributes:
        tests: label of a method -> its evaluation.
        seconds: label -> training time, all sittings together.
        calibrations: label -> its calibration, or why there is none.
        real: the same methods on a real clip.
    """

    options: DemoOptions
    dataset: Dataset
    tests: Mapping[str, Outcomes]
    seconds: Mapping[str, float]
    calibrations: Mapping[str, Outcome]
    real: RealClip | None


Told = tuple[dict[str, Any], Mapping[str, Sides], ReportContent]  # metrics, label -> sides to search in, report


def run_demo(options: DemoOptions, *, quiet: bool = False) -> dict[str, Any]:
    """Run the demo, or go on with it; gives what ``metrics.json`` holds.

    Raises:
        TapetumError: the folder holds something else or cannot be written, or a stage failed.
        KeyboardInterrupt: stopped by the user; the same call goes on.
    """

    def evaluate(place: Path, dataset: Dataset, progress: Progress) -> Evaluated:
        (test,) = evaluate_run(place, dataset=dataset, rerank=RerankOptions(), progress=progress)
        return test

    return run_stages(options, WEIGHTS, evaluate, _tell, quiet=quiet)


def run_stages(
    options: DemoOptions,
    weights: Weights,
    evaluate: Callable[[Path, Dataset, Progress], Outcomes],
    tell: Callable[[Results[Outcomes]], Told],
    *,
    quiet: bool,
) -> dict[str, Any]:
    """The stages of a demo; what is finished is left as it is. Gives its metrics.

    Args:
        evaluate: a run on the scene.
        tell: what its files hold.
    """
    if options.clip is not None:
        check_clip(options.clip)  # before the trainings, not after them
    recipes = {label: options.recipe(name) for label, name in options.recipes.items()}
    make_folder(options.out)
    share = options.people / options.USUAL_PEOPLE
    stages = [Stage(GENERATE, weights.generate * share)]
    stages += [
        Stage(f"train {label}", weights.epochs.get(name, weights.epoch) * share * options.epochs)
        for label, name in options.recipes.items()
    ]
    stages += [Stage(f"evaluate {label}", weights.evaluate * share) for label in recipes]
    stages += [Stage(GENERATE_OTHERS, weights.others * share)]
    stages += [Stage(f"calibrate {label}", weights.calibrate * share) for label in recipes]
    stages += [Stage(TRY_CLIP, CLIP_WEIGHT)] if options.clip else []
    stages += [Stage(WRITE, weights.report)]
    board = Board(stages, quiet=quiet)

    def make_scene(settings: Mapping[str, Any], folder: str, title: str) -> Dataset:
        board.begin(title)
        begun = time.monotonic()
        scene = open_scene(settings, options.out / folder, progress=board.pictures)
        board.finish_stage(at_once=time.monotonic() - begun < 1)
        return scene

    with board.showing():
        runs = options.runs
        dataset = make_scene(options.scene(), "scene", GENERATE)
        seconds: dict[str, float] = {}
        for label, recipe in recipes.items():
            board.begin(f"train {label}")
            finished = bool(RunFolder(runs[label]).read_facts().get("finished"))
            seconds[label] = train(recipe, runs[label], dataset=dataset, reporter=board).seconds
            board.finish_stage(at_once=finished)
        tests: dict[str, Outcomes] = {}
        for label, place in runs.items():
            board.begin(f"evaluate {label}")
            tests[label] = evaluate(place, dataset, board.pictures)
            board.finish_stage()
        calibrations = calibrate_methods(runs, make_scene(options.others(), "others", GENERATE_OTHERS), board)
        real = None
        if options.clip is not None:
            board.begin(TRY_CLIP)
            out = options.out / "real" / options.clip.stem
            real = run_clip(options.clip, runs, out, command=options.command, progress=board.pictures)
            board.finish_stage()
        board.begin(WRITE)
        metrics, sides, content = tell(Results(options, dataset, tests, seconds, calibrations, real))
        rows = choose_queries([each.evaluation for each in sides.values()], SEARCHES)
        write_json(options.out / "searches.json", search_galleries(sides, rows))
        write_json(options.out / "metrics.json", metrics)
        build_report(options.out / "report.html", content)
        board.finish_stage()
    return metrics


def scene_settings(people: int, seed: int) -> dict[str, Any]:
    """Settings of a generated scene with people for training, and as many others for testing."""
    seeds = dict.fromkeys(("identity_seed", "camera_seed", "time_seed"), seed)
    return {"num_train_people": people, "num_test_people": people, **seeds}


def summarise_options(results: Results[Any]) -> dict[str, Any]:
    """What the ``metrics.json`` of every demo holds."""
    options = results.options
    return {
        "command": options.command,
        "seed": options.seed,
        "start": options.start,
        "machine": describe_processor(),
        "scene": options.scene(),
        "calibration": summarise_calibrations(results.calibrations),
    }


def summarise_card(card: Card, quantities: Sequence[str]) -> dict[str, Any]:
    """The numbers of a card that every demo keeps."""
    return {
        **{name: card.metrics[name] for name in (*quantities, "mean_ap_step", "mean_ap_trapezoid", "num_queries")},
        "bootstrap": dict(card.bootstrap),
        "protocol": card.rules.name,
        "ap": card.rules.ap,
        "seed": card.seed,
        "recipe": card.recipe["name"],
    }


def search_galleries(tests: Mapping[str, Sides], queries: Sequence[int]) -> dict[str, Any]:
    """A few queries against the whole gallery, as ``tapetum search`` answers them: no rule of a protocol applies."""
    rows = torch.tensor(queries, dtype=torch.int64)
    return {
        label: [
            {"query": path.name, "matches": [{**asdict(match), "path": match.path.name} for match in matches]}
            for path, matches in zip(
                test.query.select(rows).paths, search(test.query.vectors[rows], test.gallery, 10), strict=True
            )
        ]
        for label, test in tests.items()
    }


def collect_common(
    results: Results[Any],
    sides: Mapping[str, Sides],
    brightened: Mapping[str, Evaluated],
    describe_scene: Callable[[SceneOptions, int], Mapping[str, Any]],
) -> dict[str, Any]:
    """What the report of every demo shows, as arguments of `ReportContent`.

    Args:
        sides: label -> what is searched in.
        brightened: label -> evaluation, whose queries are shown beside their enhancement.
        describe_scene: cameras and pictures, from the scene and the queries of a person under a camera.
    """
    options, dataset = results.options, results.dataset
    statistics = measure_pictures(dataset.records, cache_file=options.out / "statistics.npz")
    scene, queries_per_camera = scene_options(options.scene())
    last = list(sides)[-1]
    records = dataset.split("train")
    return {
        "command": options.command,
        "facts": {
            "people (training / testing)": f"{scene.num_train_people} / {scene.num_test_people}",
            "people to calibrate with": options.others()["num_test_people"],
            **describe_scene(scene, queries_per_camera),
            "light (low / medium / high)": _shares(light_levels(statistics.lightness), ("low", "medium", "high")),
            "size (small / medium / big)": _shares(size_levels(statistics.height), ("small", "medium", "big")),
            "networks start from": options.start,
            "seed": options.seed,
            "epochs": options.epochs,
        },
        "curves": {label: read_curves(RunFolder(place).metrics) for label, place in options.runs.items()},
        "calibrations": label_checks(results.calibrations),
        "rank_lists": collect_searches(sides, count=SEARCHES),
        "worst_queries": collect_worst_queries(last, sides[last], count=SEARCHES),
        "pairs": next(
            filter(None, (_pair_queries(options.runs[label], brightened[label]) for label in brightened)), ()
        ),
        "pictures": statistics,
        "samples": tuple(
            (read_picture(record.path), f"person {record.pid}, camera {record.camid}")
            for record in records[:: max(1, len(records) // SAMPLES)][:SAMPLES]
        ),
        "real": results.real,
    }


def _shares(levels: Any, names: tuple[str, ...]) -> str:
    return " / ".join(f"{100 * float((levels == name).mean()):.0f} %" for name in names)


def _pair_queries(run: Path, evaluated: Evaluated) -> tuple[EnhancedPair, ...]:
    """Some queries, from the darkest to the brightest, beside their enhancement; none where a method has none."""
    checkpoint = load_checkpoint(run)
    statistics: PictureStatistics = evaluated.statistics
    order = statistics.lightness.argsort(kind="stable")
    rows = [int(order[round(place * (len(order) - 1) / (PAIRS - 1))]) for place in range(PAIRS)]
    data = check_recipe(checkpoint.header.recipe, f"in {checkpoint.path}").data
    return collect_pairs(
        checkpoint.network,
        [evaluated.query.paths[row] for row in rows],
        size=data.size,
        captions=[f"lightness {statistics.lightness[row]:.0f} of 255" for row in rows],
        interpolation=data.interpolation,
        backend=data.backend,
    )


def _tell(results: Results[Evaluated]) -> Told:
    """Numbers per method and light level, and the report."""
    tests, dataset, real = results.tests, results.dataset, results.real
    first = next(iter(tests.values())).card
    metrics = {
        **summarise_options(results),
        "chance": first.chance,
        "protocol": first.rules.name,
        "protocol_source": first.rules.source,
        "methods": {  # seconds: of training
            label: {**_numbers(test.card), "seconds": results.seconds[label]} for label, test in tests.items()
        },
    }
    if real is not None:
        metrics["real"] = {
            "clip": real.name,
            "facts": dict(real.facts),
            "chance": dict(real.chance),
            "as_is": {result.label: _numbers(result.card) for result in real.as_is},
            "darkened": {result.label: _numbers(result.card) for result in real.darkened},
        }

    def describe_scene(scene: SceneOptions, queries_per_camera: int) -> dict[str, Any]:
        pictures = " / ".join(str(len(dataset.split(split))) for split in ("train", "query", "gallery"))
        return {
            "cameras": scene.cameras,
            "pictures (training / query / gallery)": pictures,
            "queries of a person under a camera": queries_per_camera,
        }

    brightened = {label: tests[label] for label in reversed(list(tests))}  # the last method that has an enhancer
    printed = {f"{label} (row {row})": TABLE_V[key] for label, (row, key) in PRINTED.items() if label in tests}
    content = ReportContent(
        title="A night with Tapetum",
        lead=introduce(list(tests)),
        results=tuple(
            Result(label, test.card, seconds=results.seconds[label], note="baseline" if place == 0 else "")
            for place, (label, test) in enumerate(tests.items())
        ),
        published=tuple(
            PublishedRow(
                label,
                "IDF paper (TMM 2023), Table V, Night600",
                rank1=row.rank1,
                rank5=row.rank5,
                rank10=row.rank10,
                mean_ap=row.mean_ap,
                remark=remark,
            )
            for (label, row), remark in zip(printed.items(), (NOT_COMPARABLE, "likewise"), strict=False)
        ),
        notes=(
            GENERATED,
            "One seed a method: a difference inside the intervals is no difference. "
            "`tapetum reproduce table5 --data synth --seeds 1,2,3` trains several.",
            "The weights are those of the last epoch; the testing people had no part in any choice.",
            *note_missing(results.calibrations),
        ),
        **collect_common(results, tests, brightened, describe_scene),
    )
    return metrics, tests, content


def _numbers(card: Card) -> dict[str, Any]:
    levels = card.slices["light"]
    return {
        **summarise_card(card, QUANTITIES),
        "reranked_mean_ap": card.reranked["mean_ap"] if card.reranked else None,
        "per_light": {
            level: {name: levels[level][name] for name in (*QUANTITIES, "num_queries")}
            for level in ("low", "medium", "high")
            if level in levels
        },
    }


def introduce(labels: Sequence[str]) -> str:
    """The first sentences of a report; the baseline comes first."""
    one = len(labels) == 1
    count = COUNTS[len(labels)] if len(labels) < len(COUNTS) else str(len(labels))
    names = ", and ".join(labels) if len(labels) == 2 else join_words(labels)
    baseline = "" if one else "the baseline "
    looks = "looks at each picture twice, as it is and brightened by a network trained along"
    ends = f", which {looks}." if labels[-1] == "IDF" else f". IDF {looks}." if "IDF" in labels else "."
    return (
        f"{count} {'method was' if one else 'methods were'} trained on generated night pictures of some people and "
        f"tested on others whom {'it has' if one else 'they have'} never seen: {baseline}{names}{ends}"
    )


def list_folders() -> list[str]:
    """Every folder that the demo may make in its own."""
    return ["scene", "others", "real", *list_run_names(VISIBLE)]


def check_out(out: Path, folders: Iterable[str]) -> None:
    """Refuse a folder that holds something which is not this demo.

    Args:
        folders: that the demo makes.
    """
    known = {*folders, *FILES}
    if out.is_dir():
        strange = sorted(entry.name for entry in out.iterdir() if entry.name not in known and entry.name[0] != ".")
        if strange:
            raise OutputError(f"{out}: holds {strange[0]}, which this demo does not write; choose another --out")
