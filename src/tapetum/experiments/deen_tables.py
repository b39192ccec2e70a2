"""The tables of DEEN's poster: methods on SYSU-MM01, RegDB and LLCM, and the ablation."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from tapetum.data.datasets.synth import NAME as SYNTH
from tapetum.experiments.paper_rows import Domain, PaperRow
from tapetum.experiments.published import Published
from tapetum.experiments.published_deen import (
    CORRECTED_IR_TO_VIS,
    CORRECTED_VIS_TO_IR,
    POSTER_IR_TO_VIS,
    POSTER_VIS_TO_IR,
    TABLE_2_INDOOR,
    TABLE_2_IR_TO_VIS,
    TABLE_2_SYSU,
    TABLE_2_VIS_TO_IR,
    TABLE_4,
)
from tapetum.runs.recipe import list_recipes

# Label of the poster -> what this method's recipes begin with; None where we found no public code and had no copy of
# the paper: these rows are shown as printed.
METHODS = {
    "BDTR": "bdtr",
    "D2RL": None,
    "Hi-CMD": "hi_cmd",
    "JSIA-ReID": "jsia",
    "AlignGAN": "align_gan",
    "X-Modality": None,
    "DDAG": "ddag",
    "DDAG*": "ddag_star",
    "AGW": "agw",
    "LbA": "lba",
    "LbA*": "lba_star",
    "AGW*": "agw_star",
    "NFS": None,
    "CM-NAS": "cm_nas",
    "MCLNet": "mclnet",
    "FMCNet": None,
    "SMCL": None,
    "DART": "dart",
    "CAJ": "caj",
    "MPANet": "mpanet",
    "MMN": "mmn",
    "MRCN": None,
    "DCLNet": "dclnet",
    "MAUM": None,
    "DEEN": "deen",
}

# Changes to a method's recipes of real pictures: Caffe's AlexNet, with which BDTR begins, is no download.
SETTINGS = {"BDTR": ("method.backbone=resnet50",)}


@dataclass(frozen=True)
class _PosterColumn:
    """One test of each method, which shares its training with the other columns of the same pictures.

    Attributes:
        recipes: what the recipes for these pictures end with.
        printed: the poster's figures by method.
        methods: those that have a row where they can run, though the poster print nothing of them here.
    """

    title: str
    train_on: Domain
    protocol: str
    recipes: str
    printed: Mapping[str, Published]
    methods: Iterable[str]

    @property
    def test_on(self) -> Domain:
        overrides = (*self.train_on.overrides, f"evaluation.protocol={self.protocol}")
        return replace(self.train_on, overrides=overrides, title=self.title)

    def rows(self) -> list[PaperRow]:
        """In the order of the poster, then what it lacks; on the scene a star, which is erasing, has no row."""
        scene = self.train_on.data == SYNTH
        labels = [label for label in dict.fromkeys([*self.printed, *self.methods]) if not (scene and label[-1] == "*")]
        recipes = {label: find_recipe(label, SYNTH if scene else self.recipes) for label in labels}
        return [
            PaperRow(
                f"{self.title}: {label}",
                f"{METHODS[label]}_{self.recipes}",
                recipe,
                self.train_on,
                self.test_on,
                () if scene else SETTINGS.get(label, ()),
                self.printed.get(label),
            )
            for label, recipe in recipes.items()
            if recipe or label in self.printed
        ]


def find_recipe(label: str, ending: str) -> str | None:
    """The recipe of a method on some pictures; None where nothing can be run."""
    name = f"{METHODS[label]}_{ending}"
    return name if name in list_recipes() else None


def deen_table2(scene: bool) -> list[PaperRow]:
    """Table 2: SYSU-MM01 with its two galleries, RegDB in both directions."""
    # Most of these releases draw SYSU-MM01's galleries by a seed; MPANet's, AlignGAN's and Hi-CMD's do not.
    sysu = (
        Domain(SYNTH, ("data.scene.layout=sysu_mm01",))
        if scene
        else Domain("sysu_mm01", ("data.options.permutations=seed",))
    )
    regdb = Domain(SYNTH, ("data.scene.layout=regdb",)) if scene else Domain("regdb")
    methods = TABLE_2_SYSU  # all twenty; the other columns lack some
    columns = (
        _PosterColumn("SYSU-MM01 all-search", sysu, "sysu_all_single", "sysu", TABLE_2_SYSU, methods),
        _PosterColumn("SYSU-MM01 indoor", sysu, "sysu_indoor_single", "sysu", TABLE_2_INDOOR, methods),
        _PosterColumn("RegDB VIS→IR", regdb, "regdb_vis_to_ir", "regdb", TABLE_2_VIS_TO_IR, methods),
        _PosterColumn("RegDB IR→VIS", regdb, "regdb_ir_to_vis", "regdb", TABLE_2_IR_TO_VIS, methods),
    )
    return [row for column in columns for row in column.rows()]


def deen_table3(scene: bool) -> list[PaperRow]:
    """Table 3: LLCM in both directions, as printed on the poster and as its authors corrected it.

    All methods with a recipe have rows, the poster's ten or not.
    """
    domain = Domain(SYNTH if scene else "llcm")
    script = "llcm_revised_vis_to_nir_released_script"
    columns = [
        _PosterColumn("corrected, IR→VIS", domain, "llcm_revised_nir_to_vis", "llcm", CORRECTED_IR_TO_VIS, METHODS),
        _PosterColumn("corrected, VIS→IR", domain, "llcm_revised_vis_to_nir", "llcm", {}, METHODS),
        _PosterColumn("corrected, VIS→IR by the released script", domain, script, "llcm", CORRECTED_VIS_TO_IR, METHODS),
    ]
    if not scene:  # whose pictures are of no release
        columns += [
            _PosterColumn("poster, IR→VIS", domain, "llcm_original_nir_to_vis", "llcm", POSTER_IR_TO_VIS, METHODS),
            _PosterColumn("poster, VIS→IR", domain, "llcm_original_vis_to_nir", "llcm", POSTER_VIS_TO_IR, METHODS),
        ]
    return [row for column in columns for row in column.rows()]


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


def deen_table4(scene: bool) -> list[PaperRow]:
    """Table 4: DEEN's parts, on LLCM and on SYSU-MM01."""
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
            published = TABLE_4["llcm" if scene else domain.data, number]
            if scene:
                rows.append(PaperRow(label, stem, "deen_synth", domain, domain, part.off, published))
            else:
                run = f"{stem}_{domain.data}"
                rows.append(PaperRow(label, run, part.recipe, domain, domain, published=published))
    return rows
