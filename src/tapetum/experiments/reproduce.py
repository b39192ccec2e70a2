"""The papers' tables and figures, row by row: train, evaluate, print ours beside theirs.

Each row and seed has a run folder of its own, so a table goes on where it was interrupted. On the generated scene the
rows run with recipes made for it; the paper's figures are then shown for the order of the rows only.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tapetum.core.errors import RecipeError, TapetumError, nearest_name
from tapetum.data.catalog import Dataset, fingerprint
from tapetum.data.darken import darken_dataset
from tapetum.data.datasets.synth import NAME as SYNTH
from tapetum.data.rewrite import JPEG_QUALITY, rewrite_dataset
from tapetum.enhancers import Enhance, build_enhancer
from tapetum.evaluation.card import Card
from tapetum.experiments.board import Board, Stage
from tapetum.experiments.paper_page import render_table, summarise, write_bars
from tapetum.experiments.paper_rows import Domain, PaperRow, Rewriting
from tapetum.experiments.paper_tables import GAMMA, TABLES, rows_of
from tapetum.inference.evaluate import Evaluated, evaluate_run
from tapetum.runs.checkpoint import is_checkpoint
from tapetum.runs.header import find_checkpoint
from tapetum.runs.progress import PictureProgress
from tapetum.runs.recipe import DataSection, Recipe, load_recipe, scene_options
from tapetum.runs.run_folder import RunFolder, write_json, write_text
from tapetum.runs.sources import CACHE, list_protocols, open_data
from tapetum.training.train import check_same_data, check_same_recipe, train

REWRITE = "write pictures for"

SCENE = "data.scene"
NETWORKS = {"zero_dce": "DCE-Net", "enlighten_gan": "EnlightenGAN"}  # methods that brighten, as a reader knows them


@dataclass(frozen=True)
class Brightening:
    """A network that a row needs first.

    Attributes:
        recipe: what trains it; None where its weights are given.
        place: its run, or the file of the weights.
    """

    name: str
    recipe: Recipe | None
    place: Path


@dataclass(frozen=True)
class Plan:
    """One training of a row: its recipe on the training and on the testing pictures, and what must be made first.

    Attributes:
        source: pictures that are written anew into the root of `recipe`; None takes them as they are.
    """

    row: PaperRow
    seed: int
    folder: Path
    recipe: Recipe
    tested: Recipe
    brightening: Brightening | None = None
    source: DataSection | None = None

    @property
    def protocol(self) -> str | None:
        """What to test by; a recipe names a protocol of the data set it trains on, so another one has its usual."""
        return self.tested.evaluation.protocol if self.tested.data.name == self.recipe.data.name else None

    def stages(self) -> list[Stage]:
        """Titles and weights for the board."""
        first = self.brightening
        parts = {} if first is None or first.recipe is None else {self.first_part: 0.5 * first.recipe.schedule.epochs}
        parts |= {} if self.source is None else {REWRITE: 1.0}
        parts |= {"train": float(self.recipe.schedule.epochs), "test": 1.0}
        return [Stage(self.title(part), weight) for part, weight in parts.items()]

    @property
    def first_part(self) -> str:
        """Name of the stage that trains what brightens."""
        return f"train {NETWORKS[self.brightening.name]} for" if self.brightening else ""

    def title(self, part: str) -> str:
        """Of one of the stages."""
        return f"{part} {self.row.label}, seed {self.seed}"


def row_recipe(row: PaperRow, domain: Domain, roots: Mapping[str, str | None], overrides: Sequence[str]) -> Recipe:
    """The recipe of a row with its pictures filled in.

    Args:
        overrides: "key.key=value", applied last.
    """
    if domain.data not in roots:
        raise RecipeError(f"row {row.label!r} needs --data {domain.data}=ROOT; add it, or choose rows with --only")
    data = [f"data.name={domain.data}", f"data.root={json.dumps(roots[domain.data])}", *domain.overrides]
    return load_recipe(str(row.recipe), [*data, *row.overrides, *overrides])


def run_table(
    table: str,
    roots: Mapping[str, str | None],
    out: Path,
    *,
    seeds: Sequence[int] = (),
    overrides: Sequence[str] = (),
    only: Sequence[str] = (),
    zero_dce: Path | None = None,
    enlighten_gan: Path | None = None,
    cache: Path = CACHE,
    quiet: bool = False,
) -> dict[str, Any]:
    """Run a table's rows, or go on with them, and write ``TABLE.json`` and ``TABLE.md``.

    Args:
        roots: dataset -> root; {"synth": None} runs the rows on the generated scene.
        seeds: of the trainings; none takes each recipe's own.
        overrides: "key.key=value" for every recipe.
        only: parts of the labels of the rows wanted; none takes all.
        zero_dce: weights of the curve network for Table III; None trains one on the training pictures.
        enlighten_gan: those of EnlightenGAN; None trains one on the generated scene, and is refused on real pictures.
    Raises:
        RecipeError: a recipe cannot be made, or a run folder holds a run of another recipe or of other pictures.
        KeyboardInterrupt: stopped by the user; the same call goes on.
    """
    scene = SYNTH in roots
    printed, rows = TABLES.get(table), choose_rows(table, rows_of(table, scene=scene), only)
    if (
        printed
        and printed.scenes
        and scene
        and (roots[SYNTH] is not None or any(o.startswith("data.scene=") for o in overrides))
    ):
        raise RecipeError(
            f"{table} makes scenes of its own; give --data synth without a root, and set parts of all scenes "
            "as data.scene.KEY=VALUE"
        )
    weights = {"zero_dce": zero_dce, "enlighten_gan": enlighten_gan}
    plans = [  # every recipe is checked before the first training starts
        make_plan(row, seed, roots, out, overrides, weights=weights, first_seed=next(iter(seeds), None))
        for row in rows
        if row.recipe is not None
        for seed in (seeds or [row_recipe(row, row.train_on, roots, overrides).seed])
    ]
    for plan in plans:
        check_protocol(plan)
    check_begun(plans, cache)
    results: dict[str, list[Card]] = {row.label: [] for row in rows}
    board = Board([stage for plan in plans for stage in plan.stages()], quiet=quiet)
    with board.showing():
        for plan in plans:
            dataset = train_plan(plan, board, cache)
            results[plan.row.label].append(evaluate_plan(plan, dataset, board, cache).card)
            content = summarise(table, rows, results, scene)
            write_json(out / f"{table}.json", content)  # after every row, so that a stop loses nothing
            write_text(out / f"{table}.md", render_table(content))
            if TABLES[table].figure:
                write_bars(out / f"{table}.svg", content)
    return content


def choose_rows(table: str, rows: Sequence[PaperRow], only: Sequence[str]) -> list[PaperRow]:
    """The rows whose label is one of some texts or, where no label is, holds it; all where none is given.

    The case of letters does not matter.

    Raises:
        RecipeError: there are none.
    """
    labels = {row.label.lower() for row in rows}
    exact = {part.lower() for part in only} & labels
    parts = [part.lower() for part in only if part.lower() not in exact]
    chosen = [
        row
        for row in rows
        if not only or row.label.lower() in exact or any(part in row.label.lower() for part in parts)
    ]
    if not chosen:
        known = ", ".join(row.label for row in rows)
        raise RecipeError(f"--only {' '.join(only)!r} fits no row of {table}; rows: {known}")
    return chosen


def train_plan(plan: Plan, board: Board, cache: Path) -> Dataset:
    """The stages before the test; what is finished stays as it is.

    Returns:
        The training pictures' data set.
    Raises:
        TapetumError: as `train` and `open_data` say; the message begins with the row's label.
    """
    with _naming(plan.row):
        first = plan.brightening
        if first is not None and first.recipe is not None:
            board.begin(plan.title(plan.first_part))
            train(first.recipe, first.place, reporter=board, cache=cache)
            board.finish_stage()
        if plan.source is not None:
            board.begin(plan.title(REWRITE))
            _rewrite(plan, open_data(plan.source, cache=cache, progress=board.pictures).dataset.root, board.pictures)
            board.finish_stage()
        board.begin(plan.title("train"))
        dataset = open_data(plan.recipe.data, cache=cache, progress=board.pictures).dataset
        finished = bool(RunFolder(plan.folder).read_facts().get("finished"))
        train(plan.recipe, plan.folder, dataset=dataset, reporter=board, cache=cache)
        board.finish_stage(at_once=finished)
        return dataset


def evaluate_plan(
    plan: Plan, dataset: Dataset, board: Board, cache: Path, progress: PictureProgress | None = None
) -> Evaluated:
    """The last stage.

    Args:
        dataset: of the training pictures.
        progress: called with (done, total) pictures beside the board.
    Raises:
        TapetumError: as `evaluate_run` and `open_data` say; the message begins with the row's label.
    """
    row = plan.row

    def tell(done: int, total: int) -> None:
        board.pictures(done, total)
        if progress is not None:
            progress(done, total)

    board.begin(plan.title("test"))
    with _naming(row):
        target = open_data(plan.tested.data, cache=cache).dataset if plan.tested.data != plan.recipe.data else dataset
        place = None if row.test_on == row.train_on else plan.folder / f"evaluation_{_slug(row.test_on.title)}"
        mirror = plan.tested.evaluation.mirror  # which may have changed since the training
        (found,) = evaluate_run(plan.folder, [plan.protocol], dataset=target, mirror=mirror, out=place, progress=tell)
    board.finish_stage()
    return found


@contextlib.contextmanager
def _naming(row: PaperRow) -> Iterator[None]:
    """Errors say of which row they are: a table has many, and few messages name even the method."""
    try:
        yield
    except TapetumError as error:
        raise type(error)(f"row {row.label!r}: {error}") from error


def _rewrite(plan: Plan, source: Path, progress: PictureProgress) -> None:
    """Write a row's pictures; those that an earlier sitting or another row has written stay."""
    rewriting, target = plan.row.train_on.rewriting, Path(str(plan.recipe.data.root))
    if rewriting is None:
        return
    if rewriting.by == "gamma":
        darken_dataset(source, target, model="gamma", gamma=GAMMA, progress=progress)
        return
    brighten, facts = _build_enhancer(rewriting, plan.brightening)
    rewrite_dataset(
        source,
        target,
        lambda picture: (brighten(picture), JPEG_QUALITY),
        verb="enhance",
        settings=facts,
        progress=progress,
    )


def _build_enhancer(rewriting: Rewriting, network: Brightening | None) -> tuple[Enhance, dict[str, Any]]:
    """What `tapetum data enhance` would take: a run or a checkpoint of ours, or a file that a release gives."""
    if network is None:
        return build_enhancer(rewriting.by)
    if network.place.is_dir() or is_checkpoint(network.place):
        return build_enhancer(str(network.place.absolute()))  # a path even where the folder has an enhancer's name
    return build_enhancer(network.name, {"weights": str(network.place)})


def make_plan(
    row: PaperRow,
    seed: int,
    roots: Mapping[str, str | None],
    out: Path,
    overrides: Sequence[str],
    *,
    weights: Mapping[str, Path | None] | None = None,
    first_seed: int | None = None,
) -> Plan:
    """A row's training by one seed.

    Args:
        overrides: "key.key=value" for every recipe.
        weights: name of a network that brightens -> its weights; None trains it.
        first_seed: of a network whose pictures the trainings of all seeds share; None is its recipe's own.
    Raises:
        RecipeError: a recipe cannot be made, or weights are missing that must be given.
    """
    given = weights or {}
    changes = [*overrides, f"seed={seed}"]
    brightening, source = None, None
    train_on, test_on = row.train_on, row.test_on
    own = changes
    if row.enhancer is not None:
        brightening = _plan_network(row, "zero_dce", row.enhancer, roots, out, changes, given.get("zero_dce"))
        place = brightening.place
        if brightening.recipe is not None:
            place = RunFolder(place).last
        elif place.is_dir():
            place = find_checkpoint(place)
        row = replace(row, overrides=(*row.overrides, f"method.enhancer_weights={json.dumps(str(place))}"))
    elif train_on.rewriting is not None:
        rewriting = train_on.rewriting
        source = row_recipe(row, train_on, roots, changes).data
        if rewriting.by in NETWORKS:
            shared = [*overrides, *([] if first_seed is None else [f"seed={first_seed}"])]
            brightening = _plan_network(
                row, rewriting.by, rewriting.recipe, roots, out, shared, given.get(rewriting.by)
            )
        roots = {**roots, train_on.data: str(out / rewriting.folder)}
        train_on = test_on = _without_scene(train_on)  # the pictures lie there, whatever scene they were made of
        own = [change for change in changes if not change.startswith(SCENE)]
    return Plan(
        row=row,
        seed=seed,
        folder=out / f"{row.run}_seed{seed}",
        recipe=row_recipe(row, train_on, roots, own),
        tested=row_recipe(row, test_on, roots, own),
        brightening=brightening,
        source=source,
    )


def _without_scene(domain: Domain) -> Domain:
    return replace(domain, overrides=tuple(text for text in domain.overrides if not text.startswith(SCENE)))


def _plan_network(
    row: PaperRow,
    name: str,
    recipe: str | None,
    roots: Mapping[str, str | None],
    out: Path,
    overrides: Sequence[str],
    weights: Path | None,
) -> Brightening:
    """A network that brightens: given, or trained on the pictures as they are."""
    if weights is not None:
        return Brightening(name, None, weights)
    if recipe is None:
        option = name.replace("_", "-")
        raise RecipeError(
            f"row {row.label!r} needs --{option} FILE: a release's weights, or the run of `tapetum train "
            f"{name}_night600`; give it, or choose rows with --only"
        )
    plain = replace(row, recipe=recipe, overrides=())
    resolved = row_recipe(plain, row.train_on, roots, overrides)
    if resolved.data.name == SYNTH and "day_cameras" in resolved.method.options:  # the scene may have other cameras
        scene, _ = scene_options(resolved.data.scene)
        by_day = list(scene.camids[scene.cameras :])
        resolved = row_recipe(plain, row.train_on, roots, [*overrides, f"method.day_cameras={by_day}"])
    return Brightening(name, resolved, out / f"{name}_seed{resolved.seed}")


def check_protocol(plan: Plan) -> None:
    """The testing pictures have the protocol that is asked for."""
    known = list_protocols(plan.tested.data)
    if plan.protocol is not None and plan.protocol not in known:
        raise RecipeError(
            f"row {plan.row.label!r}: {plan.tested.data.name} has no protocol {plan.protocol!r} "
            f"({nearest_name(plan.protocol, known)}); correct it, or choose the rows of one data set with --only"
        )


def check_begun(plans: Sequence[Plan], cache: Path) -> None:
    """What earlier sittings left is of these recipes and pictures: else a row says so after hours of the ones before.

    Pictures that a table writes anew are its own, and not looked at.

    Raises:
        RecipeError: it is not; the message begins with the row's label.
    """
    begun = {plan.folder: plan for plan in plans if RunFolder(plan.folder).holds_training}
    for folder, plan in begun.items():
        with _naming(plan.row):
            check_same_recipe(RunFolder(folder), plan.recipe)
    opened: dict[str, tuple[Dataset, str]] = {}
    for folder, plan in begun.items():
        if plan.source is not None:
            continue
        name = plan.recipe.data.model_dump_json()
        with _naming(plan.row):
            if name not in opened:
                dataset = open_data(plan.recipe.data, cache=cache).dataset
                opened[name] = dataset, fingerprint(dataset.records)
            check_same_data(RunFolder(folder), *opened[name])


def _slug(title: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in title.lower()).strip("_")
