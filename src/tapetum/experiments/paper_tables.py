"""The tables and figures of the IDF paper and of DEEN's poster: which rows they have and what makes each.

On the generated scene the rows run with recipes made for it, on pictures that stand in for the paper's.
"""

from dataclasses import replace
from itertools import permutations

from tapetum.core.errors import RecipeError, nearest_name
from tapetum.data.datasets.synth import NAME as SYNTH
from tapetum.experiments.deen_tables import deen_table2, deen_table3, deen_table4
from tapetum.experiments.paper_rows import Domain, PaperRow, PaperTable, Rewriting
from tapetum.experiments.published import (
    KNIGHT_REID,
    TABLE_II,
    TABLE_III,
    TABLE_IV,
    TABLE_V,
    TABLE_VI,
    TABLE_VII,
)

COUNTED = {  # tables of data sets, of which nothing is trained -> what the command needs
    "table1": "--data night600=ROOT --data knight=ROOT,subset=c12 --data market1501=ROOT",
    "deen-table1": "--data regdb=ROOT --data sysu_mm01=ROOT --data llcm=ROOT",
}
LEAGUE = "league"  # no table of a paper, see `tapetum.experiments.league`
SCENES: dict[str, dict[str, float]] = {  # each has other people, cameras and nights; C is also darker and harder
    "A": {},
    "B": {"identity_seed": 1, "camera_seed": 1, "time_seed": 1},
    "C": {"identity_seed": 2, "camera_seed": 2, "time_seed": 2, "light_scale": 0.7, "difficulty": 1.2},
}
DAY = "data.scene.light=day"  # the same people under the same cameras
GAMMA = 3.0  # of Market1501-N, as `tapetum data darken` has it; the paper does not state its own


def _night(scene: bool) -> Domain:
    """Night600, or the scene that stands in for it."""
    return Domain(SYNTH) if scene else Domain("night600")


# Label -> recipe on Night600 and on the scene.
TABLE_II_RECIPES = {
    "BoT": ("bot_night600", "bot_synth"),
    "ABD-Net": ("abd_net_night600", "abd_net_synth"),
    "IDE+PCB-Net": ("pcb_night600", "pcb_synth"),
    "IDE+": ("ide_night600", "ide_synth"),
    "IDF_IDE+": ("idf_official", "idf_synth"),
    "AGW": ("agw_night600", "agw_visible_synth"),
    "IDF_AGW": ("idf_agw_night600", "idf_agw_synth"),
    "TransReID": ("transreid_night600", "transreid_synth"),
    "IDF_TransReID": ("idf_transreid_night600", "idf_transreid_synth"),
}


def _table2(scene: bool) -> list[PaperRow]:
    domain = _night(scene)
    return [
        PaperRow(label, _run_name(label), recipes[scene], domain, domain, published=TABLE_II[label])
        for label, recipes in TABLE_II_RECIPES.items()
    ]


def _run_name(label: str) -> str:
    return label.lower().replace("+", "plus").replace("-", "_")


def _table3(scene: bool) -> list[PaperRow]:
    domain, twin = _night(scene), "synth" if scene else "night600"
    # On real pictures EnlightenGAN's training needs a file of VGG-16, so its weights are given.
    ways = {
        "Ada Gamma": Rewriting("ada_gamma"),
        "En-GAN": Rewriting("enlighten_gan", "enlighten_gan_synth" if scene else None),
        "DCE": Rewriting("zero_dce", f"zero_dce_{twin}"),
    }
    rows = []
    for method, short in (("IDE+", "ide"), ("AGW", "agw")):
        recipe = TABLE_II_RECIPES[method][scene]
        rows.append(PaperRow(method, short, recipe, domain, domain, published=TABLE_III[method]))
        for way, rewriting in ways.items():
            label, bright = f"{method} w/ {way}", replace(domain, rewriting=rewriting)
            run = f"{short}_on_{rewriting.by}"
            rows.append(PaperRow(label, run, recipe, bright, bright, published=TABLE_III[label]))
    inside = PaperRow("IDE+ w/ DCE inside", "ide_dce", f"ide_dce_{twin}", domain, domain, enhancer=f"zero_dce_{twin}")
    return [*rows, inside]


KNIGHT_SUBSETS = {"c12": "cam1-cam2", "c23": "cam2-cam3", "c13": "cam1-cam3"}  # in the order of Table IV


def _table4(scene: bool) -> list[PaperRow]:
    rows = []
    for number, (subset, title) in enumerate(KNIGHT_SUBSETS.items()):
        if scene:  # two cameras of a street of their own
            settings = ("layout=knight", "cameras=2", f"camera_seed={number}")
            domain = Domain(SYNTH, tuple(f"data.scene.{setting}" for setting in settings))
        else:
            domain = Domain("knight", (f"data.options.subset={subset}",))
        for method, short in ((KNIGHT_REID, ""), ("IDE+", "ide"), ("IDF_IDE+", "idf")):
            recipe = TABLE_II_RECIPES[method][scene] if short else None
            published = TABLE_IV[subset, method]
            rows.append(
                PaperRow(f"{title}: {method}", f"{short}_{subset}", recipe, domain, domain, published=published)
            )
    return rows


def _figure1(scene: bool) -> list[PaperRow]:
    # One rule of AP for all bars. The gamma-darkened day is a data set of its own, to train and to test on.
    if scene:
        step = "evaluation.protocol=night600_step"
        day = Domain(SYNTH, (DAY, step), "day")
        domains = [Domain(SYNTH, (step,), "night"), replace(day, title="day darkened"), day]
    else:
        day = Domain("market1501", ("evaluation.protocol=market1501",), "Market-1501")
        domains = [
            Domain("night600", ("evaluation.protocol=night600_step",), "Night600"),
            replace(day, title="Market1501-N"),
            day,
        ]
    domains[1] = replace(domains[1], rewriting=Rewriting("gamma"))
    rows = []
    for method in ("BoT", "ABD-Net", "IDE+PCB-Net", "AGW", "TransReID"):
        at_night, on_scene = TABLE_II_RECIPES[method]
        for place, domain in zip(("night", "darkened", "day"), domains, strict=True):
            real = at_night if domain.data == "night600" else at_night.replace("night600", "market1501")
            rows.append(
                PaperRow(
                    f"{method} on {domain.title}",
                    f"{_run_name(method)}_{place}",
                    on_scene if scene else real,
                    domain,
                    domain,
                    group=domain.title,
                    series=method,
                )
            )
    return rows


def _figure8(scene: bool) -> list[PaperRow]:
    rows = []
    spectra = (("RGB", "visible", "rgb_to_rgb"), ("NI", "near-infrared", "infrared_to_infrared"))
    for spectrum, title, protocol in spectra:
        settings = (f"data.options.spectra=[{spectrum}]", f"evaluation.protocol=rgbnt201_{protocol}")
        domain = Domain(SYNTH, ("data.scene.layout=rgbnt201", *settings)) if scene else Domain("rgbnt201", settings)
        recipe = TABLE_II_RECIPES["AGW"][scene]
        rows.append(
            PaperRow(f"AGW, {title}", f"agw_{spectrum.lower()}", recipe, domain, domain, group=title, series="AGW")
        )
    return rows


def _table5(scene: bool) -> list[PaperRow]:
    domain, twin = _night(scene), "synth" if scene else "night600"
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
    domain = _night(scene)
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


OTHER_NETWORKS = (
    "BDTR on real pictures is of two ResNet-50 unless --set says otherwise, the paper's of two AlexNet; CM-NAS of its "
    "configuration `stem` unless --set method.config names another, the paper's of the one that its search found, "
    "which is not in its release"
)
OWN_DCE = (
    "Without --zero-dce, pictures w/ DCE are brightened by a network that was trained here, with a quarter of its "
    "release's steps; whose weights the paper took is not said"
)
IDF_PAPER, DEEN_POSTER = "IDF paper (TMM 2023)", "DEEN poster (CVPR 2023)"
TABLES: dict[str, PaperTable] = {
    "table2": PaperTable(IDF_PAPER, "Table II, methods on Night600", "Night600", _table2),
    "table3": PaperTable(IDF_PAPER, "Table III, offline enhancement", "Night600", _table3, OWN_DCE),
    "table4": PaperTable(
        IDF_PAPER,
        "Table IV, methods on the three subsets of Knight",
        "Knight",
        _table4,
        f"{KNIGHT_REID}: as published by others and shown as printed, not run here",
        scenes=True,
    ),
    "table5": PaperTable(IDF_PAPER, "Table V, ablation", "Night600", _table5),
    "table6": PaperTable(
        IDF_PAPER,
        "Table VI, weights of reconstruction (lambda1) and distillation (lambda2); the paper prints R-1",
        "Night600",
        _table6,
    ),
    "table7": PaperTable(
        IDF_PAPER, "Table VII, trained on one dataset and tested on another", "Night600", _table7, scenes=True
    ),
    "figure1": PaperTable(
        IDF_PAPER,
        "Figure 1, methods on a real night, on a day darkened by gamma and on the day",
        "Night600, Market-1501",
        _figure1,
        "The paper draws five methods and prints no figures; which five, and its gamma, our source does not say",
        scenes=True,
        figure=True,
    ),
    "figure8": PaperTable(
        IDF_PAPER,
        "Figure 8, AGW within visible light and within near-infrared",
        "RGBNT201",
        _figure8,
        "The paper draws the bars and prints no figures",
        figure=True,
    ),
    "deen-table2": PaperTable(
        DEEN_POSTER,
        "Table 2, methods on SYSU-MM01 (single shot) and RegDB",
        "SYSU-MM01, RegDB",
        deen_table2,
        "Rows without a recipe are shown as printed, not run here; RegDB's printed figures are, as its protocol says, "
        "means of ten divisions, each trained apart, and ours of the first, or of those that --trials names; "
        + OTHER_NETWORKS,
        scenes=True,
        quantities=("rank1", "rank10", "rank20", "mean_ap"),
    ),
    "deen-table3": PaperTable(
        DEEN_POSTER,
        "Table 3, methods on LLCM; * with random erasing",
        "LLCM",
        deen_table3,
        "'poster' is of the pictures as first released, 'corrected' of those that the authors ask to cite since; that "
        "the second half of their table is VIS→IR by the released script is inferred; " + OTHER_NETWORKS,
        quantities=("rank1", "rank10", "rank20", "mean_ap"),
    ),
    "deen-table4": PaperTable(
        DEEN_POSTER,
        "Table 4, ablation on LLCM (infrared queries, visible gallery) and SYSU-MM01 (all-search)",
        "LLCM, infrared queries",
        deen_table4,
        "Paper: LLCM's figures are of the pictures as first released; the authors have corrected them since",
    ),
}


def find_table(name: str) -> PaperTable:
    """A table by its name.

    Raises:
        RecipeError: there is none of that name, or it trains nothing and so has no rows.
    """
    if name in COUNTED:
        raise RecipeError(
            f"table {name!r} counts data sets and trains nothing; it is `tapetum reproduce {name} {COUNTED[name]}`"
        )
    if name not in TABLES:
        raise RecipeError(f"table {name!r} is unknown; {nearest_name(name, [*COUNTED, *TABLES, LEAGUE])}")
    return TABLES[name]


def rows_of(table: str, *, scene: bool) -> list[PaperRow]:
    """The rows of a table.

    Raises:
        RecipeError: as `find_table` says.
    """
    return find_table(table).rows(scene)
