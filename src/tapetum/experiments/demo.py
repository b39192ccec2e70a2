"""The demo: a night scene, the baseline and IDF trained on it, evaluated, calibrated, searched, and a report.

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
from tapetum.gallery.index import search
from tapetum.inference.evaluate import Evaluated, evaluate_run
from tapetum.report.build import build_report
from tapetum.report.collect import (
    Tested,
    choose_queries,
    collect_pairs,
    collect_searches,
    collect_worst_queries,
    read_curves,
)
from tapetum.report.content import EnhancedPair, Picture, PublishedRow, RealClip, ReportContent, Result
from tapetum.runs.checkpoint import load_checkpoint
from tapetum.runs.recipe import DataSection, Recipe, load_recipe, scene_options
from tapetum.runs.run_folder import RunFolder, write_json
from tapetum.runs.sources import open_scene
from tapetum.training.train import train

METHODS = {"IDE+": "ide_synth", "IDF": "idf_synth"}  # label -> recipe; the baseline first
QUANTITIES = ("rank1", "rank5", "rank10", "mean_ap", "mean_inp")
GENERATE = "generate the night scene"
SEARCHES = 4
PAIRS = 6
SAMPLES = 12
FOLDERS = ("scene", "ide", "idf", "others", "real")
FILES = ("statistics.npz", "metrics.json", "searches.json", "report.html")


@dataclass(frozen=True)
class DemoOptions:
    """Settings of the demo.

    Attributes:
        out: folder of everything it writes.
        seed: of scene and trainings.
        people: for training, and as many others for testing.
        epochs: of each training.
        clip: a real video to try the trained methods on; None for none.
        overrides: "key.key=value" for both recipes.
        from_scratch: use no ImageNet weights, though their package be installed.
    """

    out: Path
    seed: int = 2021
    people: int = 60
    epochs: int = 12
    clip: Path | None = None
    overrides: tuple[str, ...] = field(default=())
    from_scratch: bool = False

    @property
    def runs(self) -> dict[str, Path]:
        """Label -> run folder."""
        return {label: self.out / name.removesuffix("_synth") for label, name in METHODS.items()}

    @property
    def scratch(self) -> bool:
        """Whether the trainings start from scratch."""
        return decide_scratch(self.from_scratch, self.runs.values())

    @property
    def start(self) -> str:
        """What the trainings start from, for a reader."""
        return describe_start(next(iter(METHODS.values())), scratch=self.scratch)

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
        """A method's recipe on this scene.

        Args:
            name: of the recipe.
        """
        scene = f"data.root={json.dumps(str(self.out / 'scene'))}"  # so that other commands find the pictures
        start = start_overrides(name, scratch=self.scratch)
        changes = [scene, f"seed={self.seed}", f"schedule.epochs={self.epochs}", *start, *self.overrides]
        return load_recipe(name, changes)


def run_demo(options: DemoOptions, *, quiet: bool = False) -> dict[str, Any]:
    """Run the demo, or go on with it.

    Args:
        options: its settings.
        quiet: show no progress.
    Returns:
        What ``metrics.json`` holds.
    Raises:
        TapetumError: the folder holds something else or cannot be written, or a stage failed.
        KeyboardInterrupt: stopped by the user; the same call goes on.
    """
    if options.clip is not None:
        check_clip(options.clip)  # before the trainings, not after them
    make_folder(options.out)
    recipes = {label: options.recipe(name) for label, name in METHODS.items()}
    share = options.people / 60
    stages = [Stage(GENERATE, 35 * share)]
    stages += [
        Stage(f"train {label}", weight * share * options.epochs) for label, weight in zip(METHODS, (8, 18), strict=True)
    ]
    stages += [Stage(f"evaluate {label}", 12 * share) for label in METHODS]
    stages += [Stage(GENERATE_OTHERS, 18 * share), *(Stage(f"calibrate {label}", 32 * share) for label in METHODS)]
    stages += [Stage("try the real clip", CLIP_WEIGHT)] if options.clip else []
    stages += [Stage("write the report", 8)]
    board = Board(stages, quiet=quiet)
    with board.showing():
        runs = options.runs
        dataset = make_scene(options.scene(), options.out / "scene", board)
        seconds = train_methods(recipes, runs, dataset, board)

        found = {}
        for label in METHODS:
            board.begin(f"evaluate {label}")
            found[label] = evaluate_run(runs[label], dataset=dataset, rerank=RerankOptions(), progress=board.pictures)
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
    """A demo's stage that makes pictures.

    Args:
        settings: of the scene.
        root: where it lies or shall lie.
        board: which shows the progress.
        title: of the stage.
    """
    board.begin(title)
    begun = time.monotonic()
    dataset = open_scene(settings, root, progress=board.pictures)
    board.finish_stage(at_once=time.monotonic() - begun < 1)
    return dataset


def train_methods(
    recipes: Mapping[str, Recipe], runs: Mapping[str, Path], dataset: Dataset, board: Board
) -> dict[str, float]:
    """A demo's stages "train ...", one a method; those that are finished are left as they are.

    Args:
        recipes: label -> recipe, in order.
        runs: label -> run folder.
        dataset: for all of them.
        board: which shows the progress.
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
    """Settings of a generated scene.

    Args:
        people: for training, and as many others for testing.
        seed: of people, cameras and time.
    """
    seeds = dict.fromkeys(("identity_seed", "camera_seed", "time_seed"), seed)
    return {"num_train_people": people, "num_test_people": people, **seeds}


def repeat_options(options: Any, default: Any) -> list[str]:
    """The words of a command that repeat a demo's folder and what differs from the defaults.

    Args:
        options: a demo's, with out, seed, people and epochs.
        default: the same with defaults.
    """
    words = ["--out", str(options.out)]
    for name in ("seed", "people", "epochs"):
        if getattr(options, name) != getattr(default, name):
            words += [f"--{name}", str(getattr(options, name))]
    return words


def repeat_overrides(overrides: Iterable[str]) -> list[str]:
    """The words of a command that repeat changes to the recipes.

    Args:
        overrides: "key.key=value".
    """
    return [word for override in overrides for word in ("--set", override)]


def summarise(
    options: DemoOptions,
    found: Mapping[str, Evaluated],
    seconds: Mapping[str, float],
    calibrations: Mapping[str, Outcome],
    real: RealClip | None = None,
) -> dict[str, Any]:
    """The numbers of ``metrics.json``: fractions, per method and light level, with protocol and seed.

    Args:
        options: of the demo.
        found: label -> its evaluation.
        seconds: label -> training time.
        calibrations: label -> its calibration, or why there is none.
        real: the same methods on a real clip.
    """
    first = next(iter(found.values())).card
    content: dict[str, Any] = {
        "command": options.command,
        "seed": options.seed,
        "start": options.start,
        "scene": options.scene(),
        "chance": first["chance"],
        "protocol": first["protocol"],
        "protocol_source": first["rules"]["source"],
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


def _numbers(card: Mapping[str, Any]) -> dict[str, Any]:
    levels = card["slices"]["light"]
    return {
        **{name: card["metrics"][name] for name in QUANTITIES},
        "mean_ap_step": card["metrics"]["mean_ap_step"],
        "mean_ap_trapezoid": card["metrics"]["mean_ap_trapezoid"],
        "reranked_mean_ap": card["reranked"]["mean_ap"] if card["reranked"] else None,
        "num_queries": card["metrics"]["num_queries"],
        "per_light": {
            level: {name: levels[level][name] for name in (*QUANTITIES, "num_queries")}
            for level in ("low", "medium", "high")
            if level in levels
        },
        "protocol": card["protocol"],
        "ap": card["ap"],
        "seed": card["seed"],
        "recipe": card["recipe"]["name"],
    }


def search_galleries(found: Mapping[str, Tested], queries: Sequence[int]) -> dict[str, Any]:
    """A few queries against the whole gallery, as ``tapetum search`` answers them: no rule of a protocol applies.

    Args:
        found: label -> both sides.
        queries: their rows.
    """
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
    idf = list(found)[-1]
    statistics = measure_pictures(dataset.records, cache_file=options.out / "statistics.npz")
    settings, queries_per_camera = scene_options(options.scene())
    return ReportContent(
        title="A night with Tapetum",
        command=options.command,
        lead=(
            "Two methods were trained on generated night pictures of some people and tested on others "
            "whom they have never seen: the baseline IDE+, and IDF, which looks at each picture twice, as it is and "
            "brightened by a network trained along."
        ),
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
        pairs=pair_queries(runs[idf], found[idf], options.recipe(METHODS[idf]).data),
        worst_queries=collect_worst_queries(idf, found[idf], count=SEARCHES),
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
            for label, row, remark in (
                ("IDE+ (row MB)", TABLE_V["MB"], "real night pictures, pretrained: not comparable with the rows above"),
                ("IDF (row MB+IEB+IDM w/ IFD)", TABLE_V["MB+IEB+IDM (w/ IFD)"], "likewise"),
            )
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


def picture_facts(statistics: PictureStatistics) -> dict[str, str]:
    """What a report says about light and size of its pictures.

    Args:
        statistics: of all of them.
    """
    return {
        "light (low / medium / high)": _shares(light_levels(statistics.lightness), ("low", "medium", "high")),
        "size (small / medium / big)": _shares(size_levels(statistics.height), ("small", "medium", "big")),
    }


def _shares(levels: Any, names: tuple[str, ...]) -> str:
    return " / ".join(f"{100 * float((levels == name).mean()):.0f} %" for name in names)


def pair_queries(place: Path, evaluated: Evaluated, data: DataSection) -> tuple[EnhancedPair, ...]:
    """Some query pictures beside their enhancement, from the darkest to the brightest; nothing without an enhancer.

    Args:
        place: run folder of the method.
        evaluated: whose queries are shown.
        data: of the method's recipe.
    """
    statistics: PictureStatistics = evaluated.statistics
    order = statistics.lightness.argsort(kind="stable")
    rows = [int(order[round(place * (len(order) - 1) / (PAIRS - 1))]) for place in range(PAIRS)]
    checkpoint = load_checkpoint(place)
    paths = [evaluated.query.paths[row] for row in rows]
    return collect_pairs(
        checkpoint.network,
        paths,
        size=data.size,
        captions=[f"lightness {statistics.lightness[row]:.0f} of 255" for row in rows],
        interpolation=data.interpolation,
        backend=data.backend,
    )


def sample_pictures(dataset: Dataset) -> tuple[tuple[Picture, str], ...]:
    """Pictures of a few training people under different cameras.

    Args:
        dataset: of the demo.
    """
    records = dataset.split("train")
    step = max(1, len(records) // SAMPLES)
    chosen = records[::step][:SAMPLES]
    return tuple((read_picture(record.path), f"person {record.pid}, camera {record.camid}") for record in chosen)


def check_out(out: Path, folders: Iterable[str] = FOLDERS) -> None:
    """Refuse a folder that holds something which is not this demo.

    Args:
        out: folder given by the user.
        folders: that the demo makes.
    Raises:
        OutputError: it holds other things.
    """
    known = {*folders, *FILES}
    if out.is_dir():
        strange = sorted(entry.name for entry in out.iterdir() if entry.name not in known and entry.name[0] != ".")
        if strange:
            raise OutputError(f"{out}: holds {strange[0]}, which this demo does not write; choose another --out")
