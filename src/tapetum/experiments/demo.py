"""The demo: a night scene, the baseline and IDF or other methods trained on it, evaluated, searched, and a report.

Every stage leaves finished files, so an interrupted demo goes on where it stopped when it is called again.
"""

import json
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from tapetum.core.atomic import make_folder
from tapetum.core.errors import OutputError
from tapetum.data.catalog import Dataset
from tapetum.data.image_io import read_picture
from tapetum.data.lighting import PictureStatistics, light_levels, measure_pictures, size_levels
from tapetum.evaluation.card import Card
from tapetum.evaluation.metrics import Sides
from tapetum.evaluation.rerank import RerankOptions
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
from tapetum.experiments.published import TABLE_V
from tapetum.experiments.real_clip import CLIP_WEIGHT, check_clip, run_clip
from tapetum.experiments.start import decide_scratch, describe_start, start_overrides
from tapetum.experiments.trainable import COUNTS, VISIBLE, choose_methods, join_words, list_run_names, run_name
from tapetum.gallery.index import search
from tapetum.inference.evaluate import Evaluated, evaluate_run
from tapetum.plots.style import Picture
from tapetum.report.build import build_report
from tapetum.report.collect import (
    choose_queries,
    collect_pairs,
    collect_searches,
    collect_worst_queries,
    read_curves,
)
from tapetum.report.content import EnhancedPair, PublishedRow, RealClip, ReportContent, Result
from tapetum.runs.checkpoint import Checkpoint, load_checkpoint
from tapetum.runs.recipe import Recipe, check_recipe, load_recipe, scene_options
from tapetum.runs.run_folder import RunFolder, write_json
from tapetum.runs.sources import open_scene
from tapetum.training.train import train

METHODS = ("ide", "idf")  # the baseline first
# Seconds an epoch of 60 people, two cores.
WEIGHTS = {"ide_synth": 8.0, "idf_synth": 18.0}
WEIGHT = 12.0  # of the others, a guess: the board goes by the pace that it sees
QUANTITIES = ("rank1", "rank5", "rank10", "mean_ap", "mean_inp")
PRINTED = {"IDE+": ("MB", "MB"), "IDF": ("MB+IEB+IDM w/ IFD", "MB+IEB+IDM (w/ IFD)")}  # label -> row, key in Table V
NOT_COMPARABLE = "real night pictures, pretrained: not comparable with the rows above"
GENERATE = "generate the night scene"
SEARCHES = 4
PAIRS = 6
SAMPLES = 12
FILES = ("statistics.npz", "metrics.json", "searches.json", "report.html")


@dataclass(frozen=True)
class DemoOptions:
    """Settings of the demo.

    Attributes:
        people: for training, and as many others for testing.
        clip: a real video to try the trained methods on; None for none.
        overrides: "key.key=value" for all recipes.
        from_scratch: use no ImageNet weights, though their package be installed.
        methods: short names, the baseline first (see `tapetum.experiments.trainable`).
    """

    out: Path
    seed: int = 2021
    people: int = 60
    epochs: int = 12
    clip: Path | None = None
    overrides: tuple[str, ...] = field(default=())
    from_scratch: bool = False
    methods: tuple[str, ...] = METHODS

    @property
    def recipes(self) -> dict[str, str]:
        """Label -> recipe, the baseline first."""
        return choose_methods(self.methods, VISIBLE)

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
        words = ["tapetum", "demo", *repeat_options(self, DemoOptions(self.out))]
        if self.clip is not None:
            words += ["--clip", str(self.clip)]
        words += ["--from-scratch"] * self.scratch
        return shlex.join([*words, *repeat_overrides(self.overrides)])

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


def run_demo(options: DemoOptions, *, quiet: bool = False) -> dict[str, Any]:
    """Run the demo, or go on with it."""
    if options.clip is not None:
        check_clip(options.clip)  # before the trainings, not after them
    recipes = {label: options.recipe(name) for label, name in options.recipes.items()}
    make_folder(options.out)
    share = options.people / 60
    stages = [Stage(GENERATE, 35 * share)]
    stages += [
        Stage(f"train {label}", WEIGHTS.get(name, WEIGHT) * share * options.epochs)
        for label, name in options.recipes.items()
    ]
    stages += [Stage(f"evaluate {label}", 12 * share) for label in recipes]
    stages += [Stage(GENERATE_OTHERS, 18 * share), *(Stage(f"calibrate {label}", 32 * share) for label in recipes)]
    stages += [Stage("try the real clip", CLIP_WEIGHT)] if options.clip else []
    stages += [Stage("write the report", 8)]
    board = Board(stages, quiet=quiet)
    with board.showing():
        runs = options.runs
        dataset = make_scene(options.scene(), options.out / "scene", board)
        seconds = train_methods(recipes, runs, dataset, board)

        found = {}
        for label in recipes:
            board.begin(f"evaluate {label}")
            (found[label],) = evaluate_run(
                runs[label], dataset=dataset, rerank=RerankOptions(), progress=board.pictures
            )
            board.finish_stage()

        others = make_scene(options.others(), options.out / "others", board, title=GENERATE_OTHERS)
        calibrations = calibrate_methods(runs, others, board)

        real = None
        if options.clip is not None:
            board.begin("try the real clip")
            real = run_clip(
                options.clip,
                runs,
                options.out / "real" / options.clip.stem,
                command=options.command,
                progress=board.pictures,
            )
            board.finish_stage()

        board.begin("write the report")
        metrics = summarise(options, found, seconds, calibrations, real)
        rows = choose_queries([each.evaluation for each in found.values()], SEARCHES)
        write_json(options.out / "searches.json", search_galleries(found, rows))
        write_json(options.out / "metrics.json", metrics)
        build_report(options.out / "report.html", _collect(options, dataset, runs, found, seconds, calibrations, real))
        board.finish_stage()
    return metrics


def make_scene(settings: Mapping[str, Any], root: Path, board: Board, *, title: str = GENERATE) -> Dataset:
    """A demo's stage that makes pictures."""
    board.begin(title)
    begun = time.monotonic()
    dataset = open_scene(settings, root, progress=board.pictures)
    board.finish_stage(at_once=time.monotonic() - begun < 1)
    return dataset


def train_methods(
    recipes: Mapping[str, Recipe], runs: Mapping[str, Path], dataset: Dataset, board: Board
) -> dict[str, float]:
    """A demo's stages "train ...", one a method; those that are finished are left as they are.

    Returns:
        Label -> seconds of training, all sittings together.
    """
    seconds = {}
    for label, recipe in recipes.items():
        board.begin(f"train {label}")
        finished = bool(RunFolder(runs[label]).read_facts().get("finished"))
        seconds[label] = train(recipe, runs[label], dataset=dataset, reporter=board).seconds
        board.finish_stage(at_once=finished)
    return seconds


def scene_settings(people: int, seed: int) -> dict[str, Any]:
    """Settings of a generated scene."""
    seeds = dict.fromkeys(("identity_seed", "camera_seed", "time_seed"), seed)
    return {"num_train_people": people, "num_test_people": people, **seeds}


def repeat_options(options: Any, default: Any) -> list[str]:
    """The words of a command that repeat a demo's folder and what differs from the defaults."""
    words = ["--out", str(options.out)]
    for name in ("seed", "people", "epochs", "methods"):
        value = getattr(options, name)
        if value != getattr(default, name):
            words += [f"--{name}", ",".join(value) if name == "methods" else str(value)]
    return words


def repeat_overrides(overrides: Iterable[str]) -> list[str]:
    """The words of a command that repeat changes to the recipes."""
    return [word for override in overrides for word in ("--set", override)]


def summarise(
    options: DemoOptions,
    found: Mapping[str, Evaluated],
    seconds: Mapping[str, float],
    calibrations: Mapping[str, Outcome],
    real: RealClip | None = None,
) -> dict[str, Any]:
    """The numbers of ``metrics.json``: fractions, per method and light level, with protocol and seed."""
    first = next(iter(found.values())).card
    content: dict[str, Any] = {
        "command": options.command,
        "seed": options.seed,
        "start": options.start,
        "scene": options.scene(),
        "chance": first.chance,
        "protocol": first.rules.name,
        "protocol_source": first.rules.source,
        "methods": {  # seconds: of training
            label: {**_numbers(evaluated.card), "seconds": seconds[label]} for label, evaluated in found.items()
        },
        "calibration": summarise_calibrations(calibrations),
    }
    if real is not None:
        content["real"] = {
            "clip": real.name,
            "facts": dict(real.facts),
            "chance": dict(real.chance),
            **{
                name: {result.label: _numbers(result.card) for result in results}
                for name, results in (("as_is", real.as_is), ("darkened", real.darkened))
            },
        }
    return content


def _numbers(card: Card) -> dict[str, Any]:
    levels = card.slices["light"]
    return {
        **{name: card.metrics[name] for name in QUANTITIES},
        "mean_ap_step": card.metrics["mean_ap_step"],
        "mean_ap_trapezoid": card.metrics["mean_ap_trapezoid"],
        "reranked_mean_ap": card.reranked["mean_ap"] if card.reranked else None,
        "num_queries": card.metrics["num_queries"],
        "per_light": {
            level: {name: levels[level][name] for name in (*QUANTITIES, "num_queries")}
            for level in ("low", "medium", "high")
            if level in levels
        },
        "protocol": card.rules.name,
        "ap": card.rules.ap,
        "seed": card.seed,
        "recipe": card.recipe["name"],
    }


def search_galleries(found: Mapping[str, Sides], queries: Sequence[int]) -> dict[str, Any]:
    """A few queries against the whole gallery, as ``tapetum search`` answers them: no rule of a protocol applies."""
    rows = torch.tensor(queries, dtype=torch.int64)
    return {
        label: [
            {"query": path.name, "matches": [{**asdict(match), "path": match.path.name} for match in matches]}
            for path, matches in zip(
                test.query.select(rows).paths, search(test.query.vectors[rows], test.gallery, 10), strict=True
            )
        ]
        for label, test in found.items()
    }


def _collect(
    options: DemoOptions,
    dataset: Dataset,
    runs: Mapping[str, Path],
    found: Mapping[str, Evaluated],
    seconds: Mapping[str, float],
    calibrations: Mapping[str, Outcome],
    real: RealClip | None,
) -> ReportContent:
    results = tuple(
        Result(label, evaluated.card, seconds=seconds[label], note="baseline" if place == 0 else "")
        for place, (label, evaluated) in enumerate(found.items())
    )
    last = list(found)[-1]
    statistics = measure_pictures(dataset.records, cache_file=options.out / "statistics.npz")
    settings, queries_per_camera = scene_options(options.scene())
    printed = {f"{label} (row {row})": TABLE_V[key] for label, (row, key) in PRINTED.items() if label in found}
    return ReportContent(
        title="A night with Tapetum",
        command=options.command,
        lead=introduce(list(found)),
        facts={
            "people (training / testing)": f"{settings.num_train_people} / {settings.num_test_people}",
            "people to calibrate with": options.others()["num_test_people"],
            "cameras": settings.cameras,
            "pictures (training / query / gallery)": " / ".join(
                str(len(dataset.split(split))) for split in ("train", "query", "gallery")
            ),
            "queries of a person under a camera": queries_per_camera,
            **picture_facts(statistics),
            "networks start from": options.start,
            "seed": options.seed,
            "epochs": options.epochs,
        },
        results=results,
        curves={label: read_curves(RunFolder(place).metrics) for label, place in runs.items()},
        calibrations=label_checks(calibrations),
        rank_lists=collect_searches(found, count=SEARCHES),
        pairs=pair_queries(runs, found),
        worst_queries=collect_worst_queries(last, found[last], count=SEARCHES),
        pictures=statistics,
        samples=sample_pictures(dataset),
        real=real,
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
            "The pictures are generated: figures tell methods apart under known conditions, they do not say how a "
            "method does on a real street.",
            "One seed a method: a difference inside the intervals is no difference. "
            "`tapetum reproduce table5 --data synth --seeds 1,2,3` trains several.",
            "The weights are those of the last epoch; the testing people had no part in any choice.",
            *note_missing(calibrations),
        ),
    )


def introduce(labels: Sequence[str]) -> str:
    """The first sentences of a report."""
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


def picture_facts(statistics: PictureStatistics) -> dict[str, str]:
    """What a report says about light and size of its pictures."""
    return {
        "light (low / medium / high)": _shares(light_levels(statistics.lightness), ("low", "medium", "high")),
        "size (small / medium / big)": _shares(size_levels(statistics.height), ("small", "medium", "big")),
    }


def _shares(levels: Any, names: tuple[str, ...]) -> str:
    return " / ".join(f"{100 * float((levels == name).mean()):.0f} %" for name in names)


def pair_queries(runs: Mapping[str, Path], found: Mapping[str, Evaluated]) -> tuple[EnhancedPair, ...]:
    """Some query pictures beside what the last method with an enhancer makes of them; nothing where none has one.

    Args:
        found: label -> evaluation, whose queries are shown, from the darkest to the brightest.
    """
    pairs = (_pair_queries(load_checkpoint(runs[label]), found[label]) for label in reversed(list(runs)))
    return next(filter(None, pairs), ())


def _pair_queries(checkpoint: Checkpoint, evaluated: Evaluated) -> tuple[EnhancedPair, ...]:
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


def sample_pictures(dataset: Dataset) -> tuple[tuple[Picture, str], ...]:
    """Pictures of a few training people under different cameras."""
    records = dataset.split("train")
    step = max(1, len(records) // SAMPLES)
    chosen = records[::step][:SAMPLES]
    return tuple((read_picture(record.path), f"person {record.pid}, camera {record.camid}") for record in chosen)


def list_folders() -> list[str]:
    """Every folder that the demo may make in its own."""
    return ["scene", "others", "real", *list_run_names(VISIBLE)]


def check_out(out: Path, folders: Iterable[str]) -> None:
    """Refuse a folder that holds something which is not this demo."""
    known = {*folders, *FILES}
    if out.is_dir():
        strange = sorted(entry.name for entry in out.iterdir() if entry.name not in known and entry.name[0] != ".")
        if strange:
            raise OutputError(f"{out}: holds {strange[0]}, which this demo does not write; choose another --out")
