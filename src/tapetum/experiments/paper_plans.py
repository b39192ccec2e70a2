"""What a table of a paper will do, row by row, and whether it can: known before the first training starts."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tapetum.core.errors import RecipeError, TapetumError, nearest_name
from tapetum.data.catalog import Dataset, fingerprint
from tapetum.data.datasets.synth import NAME as SYNTH
from tapetum.experiments.board import Stage
from tapetum.experiments.paper_rows import Domain, PaperRow
from tapetum.runs.header import find_checkpoint
from tapetum.runs.recipe import DataSection, Recipe, load_recipe, scene_options
from tapetum.runs.run_folder import RunFolder
from tapetum.runs.sources import check_reading, divide_people, list_protocols, open_data
from tapetum.training.start_weights import check_start
from tapetum.training.train import check_same_data, check_same_recipe

FIRST_TRIAL = 1  # of a data set whose people are divided in several ways: the recipes' own, left out of names
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
    def sections(self) -> list[DataSection]:
        """The pictures that must be there: in place of those that are written anew, what they are made of."""
        return [self.recipe.data, self.tested.data] if self.source is None else [self.source]

    @property
    def trial(self) -> int | None:
        """Which division of its people a data set is trained on; None where it has one only."""
        return divide_people(self.recipe.data).get("trial")

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
        trial = "" if self.trial is None else f", trial {self.trial}"
        return f"{part} {self.row.label}{trial}, seed {self.seed}"


def row_recipe(row: PaperRow, domain: Domain, roots: Mapping[str, str | None], overrides: Sequence[str]) -> Recipe:
    """The recipe of a row with its pictures filled in.

    Args:
        overrides: "key.key=value", applied last.
    """
    if domain.data not in roots:
        raise RecipeError(f"row {row.label!r} needs --data {domain.data}=ROOT; add it, or choose rows with --only")
    data = [f"data.name={domain.data}", f"data.root={json.dumps(roots[domain.data])}", *domain.overrides]
    return load_recipe(str(row.recipe), [*data, *row.overrides, *overrides])


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
    recipe = row_recipe(row, train_on, roots, own)
    trial = divide_people(recipe.data).get("trial", FIRST_TRIAL)
    return Plan(
        row=row,
        seed=seed,
        folder=out / f"{row.run}{'' if trial == FIRST_TRIAL else f'_trial{trial}'}_seed{seed}",
        recipe=recipe,
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


@contextlib.contextmanager
def naming_row(row: PaperRow) -> Iterator[None]:
    """Errors say of which row they are: a table has many, and few messages name even the method."""
    try:
        yield
    except TapetumError as error:
        raise type(error)(f"row {row.label!r}: {error}") from error


def make_plans(
    rows: Sequence[PaperRow],
    roots: Mapping[str, str | None],
    out: Path,
    overrides: Sequence[str],
    *,
    seeds: Sequence[int] = (),
    trials: Sequence[int] = (),
    weights: Mapping[str, Path | None] | None = None,
) -> list[Plan]:
    """All trainings of some rows, in order; a row that only shows what is printed has none.

    Args:
        overrides: "key.key=value" for every recipe.
        seeds: of the trainings; none takes each recipe's own.
        trials: divisions of the people, for rows whose data set has several; none takes the recipe's own.
        weights: as of `make_plan`.
    Raises:
        RecipeError: as of `make_plan`, or no row can be run, or no row's data set has trials.
    """
    plans = []
    for row in rows:
        if row.recipe is None:
            continue
        usual = row_recipe(row, row.train_on, roots, overrides)
        divided = trials and "trial" in divide_people(usual.data)
        for trial in [f"data.options.trial={trial}" for trial in trials] if divided else [None]:
            changes = [*overrides, *([] if trial is None else [trial])]
            plans += [
                make_plan(row, seed, roots, out, changes, weights=weights, first_seed=next(iter(seeds), None))
                for seed in seeds or [usual.seed]
            ]
    if not plans:
        raise RecipeError("none of these rows can be run, they are shown as printed; choose others with --only")
    if trials and not any(plan.trial for plan in plans):
        raise RecipeError("--trials: no data set of these rows is divided in several ways; leave it out")
    return plans


def check_plans(plans: Sequence[Plan], cache: Path) -> None:
    """What can be known of all rows before the first training: else one says so after hours of the ones before.

    Raises:
        TapetumError: as the checks below say.
    """
    for plan in plans:
        check_protocol(plan)
        with naming_row(plan.row):
            for section in plan.sections:
                check_reading(section)
    check_pictures(plans)
    check_begun(plans, cache)
    check_starts(plans)


def check_protocol(plan: Plan) -> None:
    """The testing pictures have the protocol that is asked for."""
    known = list_protocols(plan.tested.data)
    if plan.protocol is not None and plan.protocol not in known:
        raise RecipeError(
            f"row {plan.row.label!r}: {plan.tested.data.name} has no protocol {plan.protocol!r} "
            f"({nearest_name(plan.protocol, known)}); correct it, or choose the rows of one data set with --only"
        )


def check_pictures(plans: Sequence[Plan]) -> None:
    """Real pictures lie where the command says, in a layout that is read; scenes are generated when their turn comes.

    Raises:
        DataError: they do not; the message begins with the row's label.
        RecipeError: a reading option has a value that the data set does not take.
    """
    opened = set()
    for plan in plans:
        for section in plan.sections:
            name = section.model_dump_json()
            if section.name != SYNTH and name not in opened:
                opened.add(name)
                with naming_row(plan.row):
                    open_data(section.model_copy(update={"skip_corrupt": False}))  # which would decode them all


def check_starts(plans: Sequence[Plan]) -> None:
    """Every network that is still to be trained can be built and has its start weights.

    Not looked at: a row's network of which a part is trained first.

    Raises:
        RecipeError: it cannot be built; the message begins with the row's label.
        CheckpointError: the weights cannot be had, or do not fit.
    """
    checked = set()
    for plan in plans:
        trained_first = plan.brightening.recipe if plan.brightening else None
        pending = [] if trained_first and plan.row.enhancer else [(plan.folder, plan.recipe)]
        if plan.brightening and trained_first:
            pending.append((plan.brightening.place, trained_first))
        for folder, recipe in pending:
            start = recipe.model_dump_json(include={"method", "init"}), recipe.data.size
            if start not in checked and not RunFolder(folder).holds_training:
                checked.add(start)
                with naming_row(plan.row):
                    check_start(recipe)


def check_begun(plans: Sequence[Plan], cache: Path) -> None:
    """What earlier sittings left is of these recipes and pictures: else a row says so after hours of the ones before.

    Pictures that a table writes anew are its own, and not looked at.

    Raises:
        RecipeError: it is not; the message begins with the row's label.
    """
    begun = {plan.folder: plan for plan in plans if RunFolder(plan.folder).holds_training}
    for folder, plan in begun.items():
        with naming_row(plan.row):
            check_same_recipe(RunFolder(folder), plan.recipe)
    opened: dict[str, tuple[Dataset, str]] = {}
    for folder, plan in begun.items():
        if plan.source is not None:
            continue
        name = plan.recipe.data.model_dump_json()
        with naming_row(plan.row):
            if name not in opened:
                dataset = open_data(plan.recipe.data, cache=cache).dataset
                opened[name] = dataset, fingerprint(dataset.records)
            check_same_data(RunFolder(folder), *opened[name])
