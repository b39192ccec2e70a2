"""The tables of the IDF paper and of DEEN's poster, row by row: train, evaluate, print ours beside theirs.

Each row and seed has a run folder of its own, so a table goes on where it was interrupted. On the generated scene the
rows run with recipes made for it; the paper's figures are then shown for the order of the rows only.
"""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path
from typing import Any

from tapetum.core.errors import RecipeError, nearest_name
from tapetum.evaluation.card import Card
from tapetum.experiments.board import Board, Stage
from tapetum.experiments.published import DEEN_TABLE_4, TABLE_III, TABLE_V, TABLE_VI, TABLE_VII, Published
from tapetum.inference.evaluate import evaluate_run
from tapetum.runs.recipe import Recipe, load_recipe
from tapetum.runs.run_folder import RunFolder, write_json, write_text
from tapetum.runs.sources import CACHE, list_protocols, open_data
from tapetum.training.train import train

QUANTITIES = {"rank1": "R-1", "rank5": "R-5", "rank10": "R-10", "mean_ap": "mAP"}
SYNTH = "synth"
SCENES: dict[str, dict[str, float]] = {  # each has other people, cameras and nights; C is also darker and harder
    "A": {},
    "B": {"identity_seed": 1, "camera_seed": 1, "time_seed": 1},
    "C": {"identity_seed": 2, "camera_seed": 2, "time_seed": 2, "light_scale": 0.7, "difficulty": 1.2},
}


@dataclass(frozen=True)
class Domain:
    """Pictures to train or test on.

    Attributes:
        overrides: changes that these pictures bring to a recipe beyond name and root.
    """

    data: str
    overrides: tuple[str, ...] = ()
    title: str = ""


@dataclass(frozen=True)
class PaperRow:
    """One row of a table.

    Attributes:
        run: name of the run folder; rows with the same one share a training.
        published: the paper's row; None where the paper has none.
        enhancer: recipe of a curve network that is trained first and brightens this row's pictures.
    """

    label: str
    run: str
    recipe: str
    train_on: Domain
    test_on: Domain
    overrides: tuple[str, ...] = ()
    published: Published | None = None
    enhancer: str | None = None


def _table3(scene: bool) -> list[PaperRow]:
    domain, twin = (Domain(SYNTH), "synth") if scene else (Domain("night600"), "night600")
    plain, enhanced = "IDE+", "IDE+ w/ DCE"
    return [
        PaperRow(plain, "ide", f"ide_{twin}", domain, domain, published=TABLE_III[plain]),
        PaperRow(
            enhanced,
            "ide_dce",
            f"ide_dce_{twin}",
            domain,
            domain,
            published=TABLE_III[enhanced],
            enhancer=f"zero_dce_{twin}",
        ),
    ]


def _table5(scene: bool) -> list[PaperRow]:
    domain, twin = (Domain(SYNTH), "synth") if scene else (Domain("night600"), "night600")
    recipes = {
        "MB": "ide",
        "MB+MB (w/ cat)": "mb_mb",
        "IEB": "ieb",
        "MB+IEB (w/ cat)": "mb_ieb",
        "MB+IEB+IDM": "mb_ieb_idm",
        "MB+IEB+IDM (w/ IFD)": "idf",
    }
    return [
        PaperRow(
            label, name, _idf(scene) if name == "idf" else f"{name}_{twin}", domain, domain, published=TABLE_V[label]
        )
        for label, name in recipes.items()
    ]


def _table6(scene: bool) -> list[PaperRow]:
    domain = Domain(SYNTH) if scene else Domain("night600")
    return [
        PaperRow(
            f"lambda1 {reconstruction}, lambda2 {distillation}",
            f"idf_rec{reconstruction}_kd{distillation}",
            _idf(scene),
            domain,
            domain,
            (f"method.reconstruction_weight={reconstruction}", f"method.distillation_weight={distillation}"),
            row,
        )
        for (reconstruction, distillation), row in TABLE_VI.items()
    ]


def _table7(scene: bool) -> list[PaperRow]:
    if scene:
        scenes = [
            Domain(SYNTH, tuple(f"data.scene.{key}={value}" for key, value in settings.items()), f"scene {name}")
            for name, settings in SCENES.items()
        ]
        return [
            PaperRow(f"{a.title} to {b.title}", f"idf_{a.title.replace(' ', '_')}", _idf(scene), a, b, ())
            for a, b in permutations(scenes, 2)
        ]
    domains = {"night600": Domain("night600", title="Night600")} | {
        f"knight_{subset}": Domain("knight", (f"data.options.subset={subset}",), f"Knight ({subset})")
        for subset in ("c13", "c12", "c23")
    }
    return [
        PaperRow(
            f"{domains[a].title} to {domains[b].title}", f"idf_{a}", _idf(scene), domains[a], domains[b], published=row
        )
        for (a, b), row in TABLE_VII.items()
    ]


def _idf(scene: bool) -> str:
    return "idf_synth" if scene else "idf_official"


@dataclass(frozen=True)
class _Ablation:
    """A row of DEEN's ablation.

    Attributes:
        recipe: on LLCM; on the night scene it is DEEN's with `off`.
        off: settings that switch parts of DEEN off.
    """

    label: str
    recipe: str
    off: tuple[str, ...] = ()


_NO_DEE, _NO_MFA = "method.expansion=false", "method.aggregation=false"
_NO_CPM, _NO_ORT = "method.cpm_weight=0.0", "method.orthogonality_weight=0.0"
DEEN_ROWS = (
    _Ablation("baseline", "deen_baseline_llcm", (_NO_DEE, _NO_MFA)),
    _Ablation("DEE", "deen_dee_llcm", (_NO_CPM, _NO_ORT, _NO_MFA)),
    _Ablation("DEE, CPM", "deen_dee_cpm_llcm", (_NO_ORT, _NO_MFA)),
    _Ablation("DEE, ort", "deen_dee_ort_llcm", (_NO_CPM, _NO_MFA)),
    _Ablation("DEE, CPM, ort", "deen_dee_cpm_ort_llcm", (_NO_MFA,)),
    _Ablation("MFA", "deen_mfa_llcm", (_NO_DEE,)),
    _Ablation("DEE, CPM, ort, MFA", "deen_llcm"),
)


def _deen_table4(scene: bool) -> list[PaperRow]:
    # The poster's figures are of the pictures as first released.
    llcm = Domain("llcm", ("evaluation.protocol=llcm_original_nir_to_vis",), "LLCM IR→VIS")
    # The release erases larger parts of SYSU-MM01's pictures, draws its galleries by a seed, and changes nothing else.
    sysu = Domain(
        "sysu_mm01", ("augment.erasing.area=[0.2, 0.8]", "data.options.permutations=seed"), "SYSU-MM01 all-search"
    )
    rows = []
    for domain in [Domain(SYNTH)] if scene else [llcm, sysu]:
        for number, part in enumerate(DEEN_ROWS, start=1):
            label = f"{domain.title} {number}: {part.label}".strip()
            stem = part.recipe.removesuffix("_llcm")
            published = DEEN_TABLE_4["llcm" if scene else domain.data, number]
            if scene:
                rows.append(PaperRow(label, stem, "deen_synth", domain, domain, part.off, published))
            else:
                run = f"{stem}_{domain.data}"
                rows.append(PaperRow(label, run, part.recipe, domain, domain, published=published))
    return rows


@dataclass(frozen=True)
class PaperTable:
    """A printed table.

    Attributes:
        paper: where it is printed.
        pictures: what its figures were counted on.
        rows: its rows; given True, those on the generated scene.
        remark: what holds for the printed table as a whole.
    """

    paper: str
    title: str
    pictures: str
    rows: Callable[[bool], list[PaperRow]]
    remark: str = ""


IDF_PAPER, DEEN_POSTER = "IDF paper (TMM 2023)", "DEEN poster (CVPR 2023)"
TABLES: dict[str, PaperTable] = {
    "table3": PaperTable(
        IDF_PAPER, "Table III, offline enhancement (rows that IDE+ and DCE-Net make)", "Night600", _table3
    ),
    "table5": PaperTable(IDF_PAPER, "Table V, ablation", "Night600", _table5),
    "table6": PaperTable(
        IDF_PAPER,
        "Table VI, weights of reconstruction (lambda1) and distillation (lambda2); the paper prints R-1",
        "Night600",
        _table6,
    ),
    "table7": PaperTable(IDF_PAPER, "Table VII, trained on one dataset and tested on another", "Night600", _table7),
    "deen-table4": PaperTable(
        DEEN_POSTER,
        "Table 4, ablation on LLCM (infrared queries, visible gallery) and SYSU-MM01 (all-search)",
        "LLCM, infrared queries",
        _deen_table4,
        "Paper: LLCM's figures are of the pictures as first released; the authors have corrected them since",
    ),
}


def rows_of(table: str, *, scene: bool) -> list[PaperRow]:
    """The rows of a table."""
    if table not in TABLES:
        raise RecipeError(f"table {table!r} is unknown; {nearest_name(table, TABLES)}")
    return TABLES[table].rows(scene)


@dataclass(frozen=True)
class _Plan:
    """One training of a row: its recipe on the training and on the testing pictures, and what must be trained first."""

    row: PaperRow
    seed: int
    folder: Path
    recipe: Recipe
    tested: Recipe
    enhancer: Recipe | None
    enhancer_folder: Path

    @property
    def protocol(self) -> str | None:
        """What to test by; a recipe names a protocol of the data set it trains on, so another one has its usual."""
        return self.tested.evaluation.protocol if self.tested.data.name == self.recipe.data.name else None

    def stages(self) -> list[Stage]:
        """Titles and weights for the board."""
        parts = {} if self.enhancer is None else {"train DCE-Net for": 0.5 * self.enhancer.schedule.epochs}
        parts |= {"train": float(self.recipe.schedule.epochs), "test": 1.0}
        return [Stage(self.title(part), weight) for part, weight in parts.items()]

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
    return load_recipe(row.recipe, [*data, *row.overrides, *overrides])


def run_table(
    table: str,
    roots: Mapping[str, str | None],
    out: Path,
    *,
    seeds: Sequence[int] = (),
    overrides: Sequence[str] = (),
    only: Sequence[str] = (),
    zero_dce: Path | None = None,
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
    Raises:
        KeyboardInterrupt: stopped by the user; the same call goes on.
    """
    scene = SYNTH in roots
    if (
        scene
        and table == "table7"
        and (roots[SYNTH] is not None or any(o.startswith("data.scene=") for o in overrides))
    ):
        raise RecipeError(
            "table7 makes three scenes of its own; give --data synth without a root, and set parts of all scenes "
            "as data.scene.KEY=VALUE"
        )
    rows = [
        row
        for row in rows_of(table, scene=scene)
        if not only or any(part.lower() in row.label.lower() for part in only)
    ]
    if not rows:
        labels = ", ".join(row.label for row in rows_of(table, scene=scene))
        raise RecipeError(f"--only {' '.join(only)!r} fits no row of {table}; rows: {labels}")
    plans = [  # every recipe is checked before the first training starts
        _make_plan(row, seed, roots, out, overrides, zero_dce)
        for row in rows
        for seed in (seeds or [row_recipe(row, row.train_on, roots, overrides).seed])
    ]
    for plan in plans:
        _check_protocol(plan)
    results: dict[str, list[Card]] = {row.label: [] for row in rows}
    board = Board([stage for plan in plans for stage in plan.stages()], quiet=quiet)
    with board.showing():
        for plan in plans:
            row, recipe = plan.row, plan.recipe
            if plan.enhancer is not None:
                board.begin(plan.title("train DCE-Net for"))
                train(plan.enhancer, plan.enhancer_folder, reporter=board, cache=cache)
                board.finish_stage()
            board.begin(plan.title("train"))
            dataset = open_data(recipe.data, cache=cache, progress=board.pictures).dataset
            train(recipe, plan.folder, dataset=dataset, reporter=board, cache=cache)
            board.finish_stage()
            board.begin(plan.title("test"))
            target = open_data(plan.tested.data, cache=cache).dataset if plan.tested.data != recipe.data else dataset
            place = None if row.test_on == row.train_on else plan.folder / f"evaluation_{_slug(row.test_on.title)}"
            (found,) = evaluate_run(plan.folder, [plan.protocol], dataset=target, out=place, progress=board.pictures)
            results[row.label].append(found.card)
            board.finish_stage()
            content = _summarise(table, rows, results, scene)
            write_json(out / f"{table}.json", content)  # after every row, so that a stop loses nothing
            write_text(out / f"{table}.md", render_table(content))
    return content


def _make_plan(
    row: PaperRow,
    seed: int,
    roots: Mapping[str, str | None],
    out: Path,
    overrides: Sequence[str],
    zero_dce: Path | None,
) -> _Plan:
    changes = [*overrides, f"seed={seed}"]
    enhancer, enhancer_folder = None, out / f"zero_dce_seed{seed}"
    if row.enhancer is not None:
        weights = zero_dce or RunFolder(enhancer_folder).last
        row = replace(row, overrides=(*row.overrides, f"method.enhancer_weights={json.dumps(str(weights))}"))
        if zero_dce is None:
            enhancer = row_recipe(replace(row, recipe=str(row.enhancer), overrides=()), row.train_on, roots, changes)
    return _Plan(
        row=row,
        seed=seed,
        folder=out / f"{row.run}_seed{seed}",
        recipe=row_recipe(row, row.train_on, roots, changes),
        tested=row_recipe(row, row.test_on, roots, changes),
        enhancer=enhancer,
        enhancer_folder=enhancer_folder,
    )


def _check_protocol(plan: _Plan) -> None:
    """The testing pictures have the protocol that is asked for."""
    known = list_protocols(plan.tested.data)
    if plan.protocol is not None and plan.protocol not in known:
        raise RecipeError(
            f"row {plan.row.label!r}: {plan.tested.data.name} has no protocol {plan.protocol!r} "
            f"({nearest_name(plan.protocol, known)}); correct it, or choose the rows of one data set with --only"
        )


def _slug(title: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in title.lower()).strip("_")


def _summarise(
    table: str, rows: Sequence[PaperRow], results: Mapping[str, Sequence[Card]], scene: bool
) -> dict[str, Any]:
    """Mean and deviation over seeds for each row, beside the paper's figures."""
    printed = TABLES[table]
    content: dict[str, Any] = {
        "table": table,
        "paper": printed.paper,
        "title": printed.title,
        "pictures": "generated" if scene else "real",
        "paper_pictures": printed.pictures,
        "paper_remark": printed.remark,
        "rows": [],
    }
    for row in rows:
        cards = results[row.label]
        if not cards:
            continue
        ours = {}
        for name in QUANTITIES:
            values = [100 * float(card.metrics[name]) for card in cards]
            ours[name] = {
                "mean": statistics.fmean(values),
                "deviation": statistics.stdev(values) if len(values) > 1 else None,
            }
        content["rows"].append(
            {
                "label": row.label,
                "recipe": row.recipe,
                "ours_percent": ours,
                "seeds": [card.seed for card in cards],
                "protocol": cards[0].rules.name,
                "ap": cards[0].rules.ap,
                "checkpoint": cards[0].checkpoint["chosen_by"],
                "paper_percent": None
                if row.published is None
                else {name: getattr(row.published, name) for name in QUANTITIES},
                "paper_remark": row.published.remark if row.published else "",
            }
        )
    return content


def render_table(content: Mapping[str, Any]) -> str:
    """A table as Markdown: ours and the paper's in columns of their own."""
    names = list(QUANTITIES.values())
    header = ["row", *(f"{name} ours" for name in names), *(f"{name} paper" for name in names), "seeds"]
    lines = [f"{content['paper']}, {content['title']}; percent", ""]
    if content["pictures"] == "generated":
        place = content["paper_pictures"]
        lines += [f"Ours: generated night scene. Paper: {place}. Compare the order of the rows, never the figures.", ""]
    lines += ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for row in content["rows"]:
        ours = [_cell(row["ours_percent"][name]["mean"], row["ours_percent"][name]["deviation"]) for name in QUANTITIES]
        paper = [_cell((row["paper_percent"] or {}).get(name)) for name in QUANTITIES]
        cells = [row["label"], *ours, *paper, ", ".join(map(str, row["seeds"]))]
        lines.append("| " + " | ".join(cells) + " |")
    remarks = [f"Paper, {row['label']}: {row['paper_remark']}." for row in content["rows"] if row["paper_remark"]]
    remarks += [f"{content['paper_remark']}."] if content["paper_remark"] else []
    rules = sorted({f"protocol {row['protocol']}, AP {row['ap']}, {row['checkpoint']}" for row in content["rows"]})
    return "\n".join([*lines, "", *(f"Ours: {rule}." for rule in rules), *remarks, ""])


def _cell(value: float | None, deviation: float | None = None) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if deviation is None else f"{value:.2f} ± {deviation:.2f}"
