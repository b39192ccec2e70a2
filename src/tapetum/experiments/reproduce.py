"""The papers' tables and figures, row by row: train, evaluate, print ours beside theirs.

Each row, seed and trial has a run folder of its own, so a table goes on where it was interrupted. On the generated
scene the rows run with recipes made for it; the paper's figures are then shown for the order of the rows only.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tapetum.core.errors import RecipeError
from tapetum.data.catalog import Dataset
from tapetum.data.darken import darken_dataset
from tapetum.data.datasets.synth import NAME as SYNTH
from tapetum.data.rewrite import JPEG_QUALITY, rewrite_dataset
from tapetum.enhancers import Enhance, build_enhancer
from tapetum.evaluation.card import Card
from tapetum.evaluation.rerank import RerankOptions
from tapetum.experiments.board import Board
from tapetum.experiments.paper_page import render_table, summarise, write_bars
from tapetum.experiments.paper_plans import REWRITE, Brightening, Plan, check_plans, make_plans, naming_row
from tapetum.experiments.paper_rows import PaperRow, Rewriting
from tapetum.experiments.paper_tables import GAMMA, TABLES, rows_of
from tapetum.inference.evaluate import Evaluated, evaluate_run
from tapetum.runs.checkpoint import is_checkpoint
from tapetum.runs.progress import PictureProgress
from tapetum.runs.run_folder import RunFolder, write_json, write_text
from tapetum.runs.sources import CACHE, open_data
from tapetum.training.train import train


def run_table(
    table: str,
    roots: Mapping[str, str | None],
    out: Path,
    *,
    seeds: Sequence[int] = (),
    trials: Sequence[int] = (),
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
        trials: of rows on RegDB, whose people are divided in ten ways: each is trained apart; none takes the recipe's.
        overrides: "key.key=value" for every recipe.
        only: parts of the labels of the rows wanted; none takes all.
        zero_dce: weights of the curve network for Table III; None trains one on the training pictures.
        enlighten_gan: those of EnlightenGAN; None trains one on the generated scene, and is refused on real pictures.
    Raises:
        TapetumError: a recipe cannot be made, a run folder holds a run of another recipe or of other pictures, or
            pictures or start weights cannot be had: all before the first training.
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
    plans = make_plans(rows, roots, out, overrides, seeds=seeds, trials=trials, weights=weights)
    check_plans(plans, cache)
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
    with naming_row(plan.row):
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
    with naming_row(row):
        target = open_data(plan.tested.data, cache=cache).dataset if plan.tested.data != plan.recipe.data else dataset
        place = None if row.test_on == row.train_on else plan.folder / f"evaluation_{_slug(row.test_on.title)}"
        found = evaluate_as_asked(plan, plan.protocol, target, out=place, progress=tell)
    board.finish_stage()
    return found


def evaluate_as_asked(
    plan: Plan, protocol: str | None, dataset: Dataset, *, out: Path | None = None, progress: PictureProgress
) -> Evaluated:
    """Test a plan's run by what is asked for now, which may have changed since the training.

    Args:
        out: as of `evaluate_run`.
    Raises:
        TapetumError: as `evaluate_run` says.
    """
    asked = plan.tested.evaluation
    (found,) = evaluate_run(
        plan.folder,
        [protocol],
        dataset=dataset,
        mirror=asked.mirror,
        rerank=None if asked.rerank is None else RerankOptions(**asked.rerank.model_dump()),
        camera_norm=asked.camera_norm,
        precision=asked.precision,
        out=out,
        progress=progress,
    )
    return found


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


def _slug(title: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in title.lower()).strip("_")
