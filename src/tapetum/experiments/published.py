"""The figures that the IDF paper (TMM 2023) prints. They are theirs, never ours; DEEN's stand in `published_deen`.

Percent as printed. The paper does not say by which AP rule a row was counted; it is inferred from the code behind
the row: IDE+, PCB in layumi's form and IDF on IDE+ have the trapezoid, all others the step. Decimals are a hint, no
rule: the code behind Table II's rows with one decimal has the step rule, but so has that of ABD-Net, which the paper
prints with two, and Table IV prints one for methods whose code has the trapezoid.
"""

from dataclasses import dataclass

from tapetum.core.protocol import APRule


@dataclass(frozen=True)
class Published:
    """One printed row.

    Attributes:
        rank1, rank5, rank10, rank20, mean_ap: percent, None where the paper prints none.
        remark: what is odd about the row.
        ap: the rule of its mAP, by inference; None where nothing tells.
    """

    rank1: float
    rank5: float | None = None
    rank10: float | None = None
    mean_ap: float | None = None
    remark: str = ""
    ap: APRule | None = None
    rank20: float | None = None


@dataclass(frozen=True)
class PublishedDataset:
    """A data set as a paper counts it.

    Attributes:
        cameras: as printed, visible and infrared ones apart where the paper does so.
        viewpoint, labelling: "-" where the paper does not say.
        glimmer: it has pictures taken in faint light.
    """

    ids: int
    cameras: int | str
    pictures: int
    viewpoint: str = "-"
    labelling: str = "-"
    glimmer: bool = False


TABLE_I = {  # which is printed sideways; data sets that can be read here under their names here
    "night600": PublishedDataset(600, 8, 28813, "parallel/downward", "Detectron2/hand", glimmer=True),
    "knight": PublishedDataset(937, 3, 315354, "downward", "hand", glimmer=False),
    "i-LIDS": PublishedDataset(119, 2, 476, "downward", "hand", glimmer=False),
    "VIPeR": PublishedDataset(632, 2, 1264, "parallel", "hand", glimmer=False),
    "CUHK01": PublishedDataset(971, 2, 3884, "downward", "hand", glimmer=False),
    "CUHK03": PublishedDataset(1467, 6, 14097, "downward", "DPM/hand", glimmer=False),
    "market1501": PublishedDataset(1501, 6, 32217, "parallel", "hand", glimmer=False),
    "MARS": PublishedDataset(1261, 6, 1119003, "downward", "DPM/GMMCP", glimmer=False),
}


def _trapezoid(rank1: float, rank5: float, rank10: float, mean_ap: float, remark: str = "") -> Published:
    return Published(rank1, rank5, rank10, mean_ap, remark, "trapezoid")


def _step(rank1: float, rank5: float, rank10: float, mean_ap: float) -> Published:
    return Published(rank1, rank5, rank10, mean_ap, ap="step")


TABLE_II = {
    "BoT": _step(11.20, 22.60, 30.60, 5.40),
    "ABD-Net": _step(14.36, 29.59, 40.00, 7.23),
    "IDE+PCB-Net": _trapezoid(12.84, 26.47, 35.14, 6.09),
    "IDE+": _trapezoid(7.75, 20.09, 27.43, 3.38),
    "IDF_IDE+": _trapezoid(13.63, 30.05, 38.95, 6.63),
    "AGW": _step(12.50, 24.40, 30.90, 6.10),
    "IDF_AGW": _step(16.00, 29.30, 38.10, 8.90),
    "TransReID": _step(16.00, 31.10, 39.90, 8.40),
    "IDF_TransReID": _step(17.20, 34.40, 43.80, 9.20),
}

TABLE_III = {
    "IDE+": _trapezoid(7.75, 20.09, 27.43, 3.38),
    "IDE+ w/ Ada Gamma": _trapezoid(8.81, 20.05, 28.07, 3.59),
    "IDE+ w/ En-GAN": _trapezoid(8.44, 20.69, 28.12, 3.54),
    "IDE+ w/ DCE": _trapezoid(9.08, 21.61, 29.40, 3.71),
    "AGW": _step(12.50, 24.40, 30.90, 6.10),
    "AGW w/ Ada Gamma": _step(13.40, 24.20, 32.40, 6.10),
    "AGW w/ En-GAN": _step(12.60, 24.80, 33.50, 5.40),
    "AGW w/ DCE": _step(10.60, 22.40, 30.50, 4.70),
}

KNIGHT_REID = "Knight_Re-ID"  # the method of the data set's own paper, which our sources do not describe
TABLE_IV = {  # subset of Knight, method
    ("c12", KNIGHT_REID): Published(11.7, 16.7, 23.2, 8.3),
    ("c12", "IDE+"): _trapezoid(14.6, 22.8, 27.3, 10.0),
    ("c12", "IDF_IDE+"): _trapezoid(17.6, 24.4, 28.2, 12.2),
    ("c23", KNIGHT_REID): Published(14.3, 22.5, 26.7, 10.2),
    ("c23", "IDE+"): _trapezoid(19.2, 25.7, 29.3, 13.5),
    ("c23", "IDF_IDE+"): _trapezoid(19.9, 27.3, 31.4, 14.8),
    ("c13", KNIGHT_REID): Published(6.3, 16.5, 23.4, 5.5),
    ("c13", "IDE+"): _trapezoid(5.8, 10.6, 13.6, 5.8),
    ("c13", "IDF_IDE+"): _trapezoid(7.7, 13.2, 17.1, 6.2),
}

TABLE_V = {
    "MB": _trapezoid(7.75, 20.09, 27.43, 3.38),
    "MB+MB (w/ cat)": _trapezoid(9.26, 21.56, 29.86, 3.80),
    "IEB": _trapezoid(10.73, 24.08, 32.62, 4.42),
    "MB+IEB (w/ cat)": _trapezoid(10.00, 21.93, 31.19, 4.47),
    "MB+IEB+IDM": _trapezoid(13.03, 27.75, 36.79, 6.48),
    "MB+IEB+IDM (w/ IFD)": _trapezoid(13.63, 30.05, 38.95, 6.63),
}

WEIGHTS = (0.1, 0.3, 0.5, 0.7, 0.9)
_TABLE_VI_RANK1 = (
    (13.63, 12.80, 13.21, 11.74, 11.84),
    (11.88, 11.01, 12.57, 11.38, 12.39),
    (12.62, 13.12, 12.65, 11.38, 12.13),
    (11.29, 11.42, 12.56, 11.92, 11.78),
    (11.51, 12.76, 12.05, 11.18, 10.93),
)
TABLE_VI = {
    (reconstruction, distillation): Published(_TABLE_VI_RANK1[row][column])
    for row, reconstruction in enumerate(WEIGHTS)
    for column, distillation in enumerate(WEIGHTS)
}

TABLE_VII = {
    ("knight_c13", "night600"): _trapezoid(0.23, 0.60, 0.60, 0.89, "suspect as printed: R-5 = R-10, mAP above R-k"),
    ("knight_c12", "night600"): _trapezoid(1.38, 4.45, 6.74, 0.53),
    ("knight_c23", "night600"): _trapezoid(1.42, 4.00, 7.02, 0.55),
    ("night600", "knight_c13"): _trapezoid(1.95, 4.89, 7.34, 2.56),
    ("night600", "knight_c12"): _trapezoid(2.12, 4.06, 5.74, 1.38),
    ("night600", "knight_c23"): _trapezoid(2.49, 5.61, 8.09, 1.50),
}
