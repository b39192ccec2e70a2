"""A league: methods on the same generated pictures with the same budget, and which differences between them are real.

Every row and seed has a run folder of its own. Seed 1 of all rows comes first, so that a league that was stopped
compares already; the table is written after every run. What is known of a finished run fits into a small file, which
can be kept elsewhere: rows that several machines trained make one table.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tapetum.core.atomic import make_folder
from tapetum.core.errors import DataError, RecipeError, nearest_name
from tapetum.core.memory import forget_peak, read_peak
from tapetum.core.protocol import MIXED
from tapetum.data.catalog import fingerprint
from tapetum.data.datasets.synth import NAME as SYNTH
from tapetum.experiments.board import Board
from tapetum.experiments.league_measures import (
    Speedometer,
    describe_mixed,
    describe_testing,
    describe_training,
    list_queries,
)
from tapetum.experiments.league_table import check_result, render_league, summarise, write_figure
from tapetum.experiments.paper_plans import Plan, check_protocol, make_plan, naming_row
from tapetum.experiments.paper_rows import Domain, PaperRow
from tapetum.experiments.paper_tables import LEAGUE
from tapetum.experiments.reproduce import choose_rows, evaluate_as_asked, evaluate_plan, train_plan
from tapetum.experiments.start import PRETRAINED, describe_start, start_overrides
from tapetum.experiments.trainable import ACROSS, VISIBLE, run_name
from tapetum.layers.weight_packages import is_installed
from tapetum.methods import build_options
from tapetum.runs.recipe import load_recipe, scene_options
from tapetum.runs.run_folder import RunFolder, write_json, write_text
from tapetum.runs.sources import CACHE, list_protocols, open_data
from tapetum.training.train import check_same_data, check_same_recipe

SEEDS = (1, 2, 3)
BATCH = 32  # pictures of a step in every recipe of the scene; CAJ shows the visible ones of them twice
RESULT = "league.json"  # in each run folder, and the whole's in the league's
PARTS = {"training", "testing", "queries"}  # of a result that is complete


@dataclass(frozen=True)
class Entry:
    """A method of a league.

    Attributes:
        settings: overrides of its recipe, for the league's short budget.
        folder: of its runs, where another entry has the same recipe.
    """

    label: str
    recipe: str
    settings: tuple[str, ...] = ()
    folder: str = ""


@dataclass(frozen=True)
class Family:
    """Methods that search by the same pictures.

    Attributes:
        layout: of the scene.
        scene: its settings beyond people and cameras.
        settings: overrides of every recipe, before those of its entry.
    """

    entries: tuple[Entry, ...]
    layout: str
    cameras: int
    people: int
    test_people: int
    epochs: int
    scene: dict[str, Any] = field(default_factory=dict)
    settings: tuple[str, ...] = ()


FLOAT32 = ("training.precision=fp32", "evaluation.precision=fp32")  # on every CPU: machines' rows share one table
MIRROR = "evaluation.mirror=true"  # for all, though BoT, AGW and TransReID publish without: it alone gives points
# What IDE+ and IDF train with. The recipes with triplets take Adam at a third of that rate, as published, and have
# hardly begun where the others are done; chosen on seed 7, which no table uses (docs/league.md has the losses).
ADAMW = ("optimiser.name=adamw", "optimiser.lr=0.001", "optimiser.weight_decay=0.01")
FAMILIES = {
    "visible": Family(
        (
            Entry("IDE+", "ide_synth"),
            Entry("PCB", "pcb_synth"),
            Entry("BoT", "bot_synth", ADAMW),
            Entry("AGW", "agw_visible_synth", ADAMW),
            # Its release holds the trunk still for ten epochs. Without them triplets of its weight, and a packaged stem
            # that is pulled to orthogonality, keep every class at chance.
            Entry("ABD-Net", "abd_net_synth", (*ADAMW, "method.triplet_weight=0.01", "method.ow_weight=0.000001")),
            Entry("TransReID", "transreid_synth"),
            Entry("IDF_IDE+", "idf_synth"),
            Entry("IDF_AGW", "idf_agw_synth", ADAMW),
            Entry("IDF_TransReID", "idf_transreid_synth"),
            Entry("student", "student_synth"),
        ),
        VISIBLE,
        cameras=12,
        people=60,
        test_people=120,
        epochs=6,
        scene={"pictures_per_camera": 2},
        settings=("schedule.warmup_epochs=1", MIRROR, *FLOAT32),
    ),
    "infrared": Family(
        (
            Entry("two-stream", "two_stream_synth"),
            Entry("AGW", "agw_synth"),
            Entry("CAJ", "caj_synth"),
            Entry("MCLNet", "mclnet_synth"),
            Entry("DDAG", "ddag_synth"),
            Entry("LbA", "lba_synth"),
            # At their published weight, terms on distances draw MMN's, DCLNet's and MPANet's features to one point
            # before they tell anybody apart, and every class stays at chance; so it does at MPANet's head, of seven
            # features side by side, at the rate of the others (seed 7; docs/league.md has the losses).
            Entry("MMN", "mmn_synth", ("method.triplet_weight=0.1",)),
            Entry("DART", "dart_synth"),
            Entry("MPANet", "mpanet_synth", ("method.centre_weight=0.1", "optimiser.group_lr={head: 0.0005}")),
            Entry("CM-NAS", "cm_nas_synth"),
            Entry("DCLNet", "dclnet_synth", ("method.centre_weight=0.1",)),
            Entry("BDTR", "bdtr_synth"),
            Entry("AlignGAN", "align_gan_synth", ("method.warmup_epochs=1",)),  # as large a share as the recipe's
            Entry("JSIA-ReID", "jsia_synth"),
            Entry("Hi-CMD", "hi_cmd_synth"),
            Entry("DEEN", "deen_synth"),
            # Why DEEN is below the two-stream network, its baseline, in this budget: docs/league.md.
            Entry("DEEN, shortcut (ours)", "deen_synth", ("method.expansion_shortcut=true",), "deen_shortcut"),
        ),
        ACROSS,
        cameras=6,
        people=300,
        test_people=80,
        epochs=6,
        # Visible pictures as light as low-light ones of a campus (a mean of 80 of 255, not 20), and clothes that look
        # in infrared somewhat as they do by light: people who can be found, so that methods can differ.
        scene={"pictures_per_camera": 2, "light_scale": 4.0, "infrared_likeness": 0.6},
        settings=(MIRROR, *FLOAT32),
    ),
}


@dataclass(frozen=True)
class LeagueOptions:
    """Settings of a league; a number that is not given is the family's.

    Attributes:
        people: to train on.
        test_people: others, to search for.
        seeds: of the trainings.
        only: parts of the labels of the rows wanted; none takes all.
        overrides: "key.key=value" for every recipe, applied last.
        from_scratch: use no ImageNet weights, though their package be installed.
        kept: folder of small files, one a finished run; a run found there is not trained again.
    """

    out: Path
    family: str = "visible"
    people: int | None = None
    test_people: int | None = None
    cameras: int | None = None
    epochs: int | None = None
    seeds: tuple[int, ...] = SEEDS
    only: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    from_scratch: bool = False
    kept: Path | None = None

    @property
    def rules(self) -> Family:
        """The family that is asked for.

        Raises:
            RecipeError: there is no such one.
        """
        if self.family not in FAMILIES:
            raise RecipeError(f"--family {self.family!r} is unknown; {nearest_name(self.family, FAMILIES)}")
        return FAMILIES[self.family]

    @property
    def scratch(self) -> bool:
        """Whether every training starts from scratch."""
        return self.from_scratch or not is_installed(PRETRAINED)

    @property
    def scene(self) -> dict[str, Any]:
        """Settings of the generated scene."""
        rules = self.rules
        settings = {
            **({} if rules.layout == VISIBLE else {"layout": rules.layout}),
            "num_train_people": self.people or rules.people,
            "num_test_people": self.test_people or rules.test_people,
            "cameras": self.cameras or rules.cameras,
            **rules.scene,
        }
        changes = [text for text in self.overrides if text.startswith("data.scene")]
        recipe = rules.entries[0].recipe  # any: the overrides are for all
        return load_recipe(recipe, [f"data.scene={json.dumps(settings)}", *changes]).data.scene

    @property
    def counts(self) -> dict[str, int]:
        """How many pictures the scene has."""
        settings, _ = scene_options(self.scene)
        views = (settings.cameras_per_person or settings.cameras) + len(settings.paired_cameras)
        of_person = views * settings.pictures_per_camera
        return {
            "training_pictures": settings.num_train_people * of_person,
            "testing_pictures": settings.num_test_people * of_person,
        }

    @property
    def steps(self) -> int:
        """Of an epoch, the same for every method: as many as the training pictures fill."""
        return max(1, self.counts["training_pictures"] // BATCH)

    @property
    def starts(self) -> dict[str, str]:
        """Label -> what its networks start from."""
        return {
            entry.label: describe_start({entry.label: entry.recipe}, scratch=self.scratch)
            for entry in self.rules.entries
        }


def league_rows(options: LeagueOptions) -> list[PaperRow]:
    """The rows of a family on its scene, with the same number of steps each."""
    rules = options.rules
    domain = Domain(SYNTH, (f"data.scene={json.dumps(options.scene)}",))
    budget = (f"schedule.epochs={options.epochs or rules.epochs}", f"sampler.steps={options.steps}")
    return [
        PaperRow(
            entry.label,
            entry.folder or run_name(entry.recipe),
            entry.recipe,
            domain,
            domain,
            (*budget, *rules.settings, *entry.settings, *start_overrides(entry.recipe, scratch=options.scratch)),
        )
        for entry in rules.entries
    ]


def run_league(options: LeagueOptions, *, cache: Path = CACHE, quiet: bool = False) -> dict[str, Any]:
    """Run a league, or go on with it, and write ``league.json``, ``league.md`` and ``league.svg`` after every run.

    Raises:
        RecipeError: a setting cannot work, or a run folder holds a run of another recipe or of other pictures.
        DataError: a result cannot be read, or one that was kept is of other settings.
        KeyboardInterrupt: stopped by the user; the same call goes on.
    """
    plans = _make_plans(options)
    for plan in plans:
        check_protocol(plan)
        if RunFolder(plan.folder).holds_training:
            check_same_recipe(RunFolder(plan.folder), plan.recipe)
    make_folder(options.out)
    board = Board([stage for plan in plans for stage in plan.stages()], quiet=quiet)
    content: dict[str, Any] = {}
    with board.showing():
        board.begin(plans[0].title("train"))
        dataset = open_data(plans[0].recipe.data, cache=cache, progress=board.pictures).dataset
        pictures = fingerprint(dataset.records)
        for plan in plans:  # before the first training, which may take hours
            if RunFolder(plan.folder).holds_training:
                check_same_data(RunFolder(plan.folder), dataset, pictures)
        kept = {plan.folder: _read_kept(plan, options) for plan in plans}  # all: one of other settings is refused
        read = {plan.folder: _read_result(RunFolder(plan.folder), plan) or kept[plan.folder] for plan in plans}
        done = {folder: known for folder, known in read.items() if known.keys() >= PARTS}
        for plan in plans:
            if plan.folder in done and not RunFolder(plan.folder).holds_training:  # trained elsewhere
                for part in ("train", "test"):
                    board.begin(plan.title(part))
                    board.finish_stage(at_once=True)
            else:
                done[plan.folder] = _run(plan, board, cache)
            _keep(done[plan.folder], plan, options)
            results = [done[each.folder] for each in plans if each.folder in done]
            content = _summarise(results, plans, options, pictures)
            write_json(options.out / RESULT, content)
            write_text(options.out / "league.md", render_league(content))
            write_figure(options.out / "league.svg", content)
    return content


def tabulate_kept(options: LeagueOptions) -> dict[str, Any]:
    """The content of ``league.json`` as far as small results are kept; nothing is generated or trained.

    Raises:
        RecipeError: a setting cannot work.
        DataError: a file cannot be read or is of other settings, or there is none.
    """
    plans = _make_plans(options)
    read = [known for plan in plans if (known := _read_kept(plan, options))]
    if not read:
        raise DataError(f"{options.kept}: no result of the {options.family} family; run the league with --kept first")
    pictures = next((known["data"] for known in read if known.get("data")), "")
    return _summarise(read, plans, options, pictures)


def _make_plans(options: LeagueOptions) -> list[Plan]:
    """Seed 1 of all rows comes first."""
    if options.kept is not None and options.kept.exists() and not options.kept.is_dir():
        raise RecipeError(f"--kept {options.kept}: is a file; name a folder, which holds a small file for each run")
    rows, roots = choose_rows(LEAGUE, league_rows(options), options.only), {SYNTH: str(options.out / "scene")}
    return [
        make_plan(row, seed, roots, options.out, options.overrides)
        for seed in dict.fromkeys(options.seeds)
        for row in rows
    ]


def _summarise(
    results: Sequence[Mapping[str, Any]], plans: Sequence[Plan], options: LeagueOptions, pictures: str
) -> dict[str, Any]:
    return summarise(
        results,
        family=options.family,
        pictures=pictures,
        scene={**options.scene, **options.counts},
        starts=options.starts,
        planned=Counter(plan.row.label for plan in plans),
        mixed=_name_mixed(plans[0]),
    )


def _name_mixed(plan: Plan) -> str | None:
    """The protocol of its scene that has one gallery of both modalities; None where the scene has one modality."""
    return next((name for name in list_protocols(plan.tested.data) if name.endswith(MIXED)), None)


def _run(plan: Plan, board: Board, cache: Path) -> dict[str, Any]:
    """One row and seed: what an earlier sitting left, completed."""
    folder = RunFolder(plan.folder)
    known = _read_result(folder, plan)
    finished, counted = folder.read_facts().get("finished"), forget_peak()
    dataset = train_plan(plan, board, cache)
    if "training" not in known:
        peak = read_peak() if counted and not finished else None
        known = {**_name_run(folder, plan), "training": describe_training(folder, plan, peak)}
        write_json(folder.root / RESULT, known)
    at_once = known.keys() >= PARTS
    if at_once:
        board.begin(plan.title("test"))
    else:
        meter = Speedometer()
        found = evaluate_plan(plan, dataset, board, cache, meter)
        known |= {"testing": describe_testing(found, plan, meter), "queries": list_queries(found)}
        write_json(folder.root / RESULT, known)
    mixed = _name_mixed(plan)
    if mixed is not None and "mixed" not in known["testing"]:
        # Takes what the test above kept of the pictures, and describes the few that no drawn gallery had.
        with naming_row(plan.row):
            found = evaluate_as_asked(plan, mixed, dataset, progress=board.pictures)
        known["testing"]["mixed"] = describe_mixed(found)
        write_json(folder.root / RESULT, known)
    board.finish_stage(at_once=at_once)
    return known


def _name_run(folder: RunFolder, plan: Plan) -> dict[str, Any]:
    """What a result belongs to: a run that is removed and trained again has ended at another time."""
    facts = folder.read_facts()
    return {
        "label": plan.row.label,
        "recipe": plan.row.recipe,
        "seed": plan.seed,
        "protocol": plan.protocol,
        "data": facts.get("data"),
        "ended": facts.get("ended"),
        "settings": _name_settings(plan),
    }


def _read_result(folder: RunFolder, plan: Plan) -> dict[str, Any]:
    """What an earlier sitting measured of this very training; a test by other settings is left out."""
    try:
        content: dict[str, Any] = dict(json.loads((folder.root / RESULT).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{folder.root / RESULT}: cannot be read ({error}); delete this file") from None
    asked = _name_run(folder, plan)
    settings = asked.pop("settings")
    if any(content.get(key) != value for key, value in asked.items()):
        return {}
    if content.get("settings") != settings:  # of the test: those of the training were compared before
        kept = {key: value for key, value in content.items() if key not in ("testing", "queries")}
        return {**kept, "settings": settings}
    return content


def _kept_file(plan: Plan, folder: Path, family: str) -> Path:
    return folder / f"{family}-{plan.folder.name}.json"


def _name_settings(plan: Plan) -> str:
    """A digest of all that decides a run: not where its pictures lie, nor how many threads read them.

    The method's options are told with their defaults: where one changes, what was kept is of other settings.
    """
    settings = plan.recipe.model_dump(mode="json")
    for key in ("root", "workers"):
        settings["data"].pop(key)
    method = plan.recipe.method
    settings["method"] = {"name": method.name, **vars(build_options(method.name, method.options))}
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=dict).encode()).hexdigest()[:16]


def _read_kept(plan: Plan, options: LeagueOptions) -> dict[str, Any]:
    """What another sitting or machine measured by the same settings; nothing where none did.

    Raises:
        DataError: the file cannot be read or lacks something that a table takes from it, or is of other settings.
    """
    if options.kept is None:
        return {}
    path = _kept_file(plan, options.kept, options.family)
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        alike = content["settings"] == _name_settings(plan)
        if alike:
            check_result(content)
    except FileNotFoundError:
        return {}
    except (OSError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error!r}); delete this file") from None
    if not alike:
        raise DataError(
            f"{path}: was measured by other settings than this league has for {plan.row.label}; delete it to train the "
            "row again, or name another folder with --kept"
        )
    return content


def _keep(known: dict[str, Any], plan: Plan, options: LeagueOptions) -> None:
    """Write what is known of a run, of its queries what the people gave in all: as much as the comparison looks at."""
    queries = known["queries"]
    if options.kept is None or "counts" in queries:  # it was read from there
        return
    path = _kept_file(plan, options.kept, options.family)
    pids, place = np.unique(queries["pids"], return_inverse=True)
    counts = np.bincount(place)
    means = {
        name: [round(float(value), 6) for value in np.bincount(place, weights=queries[name]) / counts]
        for name in ("mean_ap", "rank1")
    }
    by_person = {"pids": pids.tolist(), "counts": counts.tolist(), **means}
    make_folder(options.kept)
    write_json(path, {**known, "queries": by_person})
