"""Market-1501: 1501 people under six cameras by day (Zheng et al., ICCV 2015).

Source: the dataset's readme; torchreid states the same training and query counts, and 15,913 in the gallery, without
junk.
Junk boxes (pid -1) stay in the gallery and the protocol ignores them; distractors (pid 0) count as wrong answers.
"""

from pathlib import Path

import numpy as np

from tapetum.core.errors import DataError
from tapetum.core.types import Modality, Record
from tapetum.data.layout import (
    Counts,
    find_base,
    list_pictures,
    parse_records,
    require_pictures,
    visible_only,
    visible_protocol,
    write_sample_picture,
    wrong_layout,
)

NAME = "market1501"
OBTAIN = "its authors offer it (zheng-lab.cecs.anu.edu.au/Project/project_reid.html); unpack it and give its folder"
PROTOCOLS = {
    "market1501": visible_protocol(
        "market1501", ap="step", source="torchreid, BoT, AGW, TransReID: AP at each hit, queries without match dropped"
    ),
    "market1501_trapezoid": visible_protocol(
        "market1501_trapezoid",
        ap="trapezoid",
        source="Market-1501 toolkit and layumi: trapezoidal AP, every query counts",
    ),
}
DEFAULT_PROTOCOL = "market1501"
PUBLISHED = {"train": Counts(12936, 751), "query": Counts(3368, 750), "gallery": Counts(19732, None)}
LAYOUTS = ("bounding_box_train/, query/ and bounding_box_test/ with files such as 0001_c1s1_000151_01.jpg",)
CAMERAS = {Modality.VISIBLE: (1, 2, 3, 4, 5, 6)}
FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test", "multi_query": "gt_bbox"}


def read_records(root: Path, *, multi_query: bool = False, failures: list[Path] | None = None) -> list[Record]:
    """Records of train, query, gallery (and multi_query), each sorted by file name."""
    names = ("market-1501-v15.09.15", "market-1501", "market1501")
    base = find_base(root, dataset=NAME, names=names, obtain=OBTAIN)
    splits = [split for split in FOLDERS if multi_query or split != "multi_query"]
    if not all((base / FOLDERS[split]).is_dir() for split in splits):
        layouts = (f"{LAYOUTS[0]}, and gt_bbox/ for multi_query",) if multi_query else LAYOUTS
        raise wrong_layout(base, dataset=NAME, layouts=layouts)
    records = [
        record
        for split in splits
        for record in parse_records(list_pictures(base / FOLDERS[split]), split=split, dataset=NAME, failures=failures)
    ]
    require_pictures(records, base, dataset=NAME, failures=failures)
    return records


def picture_path(split: str, pid: int, camid: int, index: int, modality: Modality = Modality.VISIBLE) -> Path:
    """Where this layout keeps a picture, relative to the root.

    Raises:
        DataError: there is no such camera.
    """
    visible_only(modality, dataset=NAME)
    if camid not in CAMERAS[Modality.VISIBLE]:
        raise DataError(f"{NAME}: has cameras 1 to {len(CAMERAS[Modality.VISIBLE])}, not {camid}; choose among them")
    person = "-1" if pid < 0 else f"{pid:04d}"
    return Path(FOLDERS[split]) / f"{person}_c{camid}s1_{index:06d}_00.jpg"


def write_miniature(root: Path, rng: np.random.Generator) -> None:
    """Two training and three testing people under two cameras, a junk box, a distractor."""
    for pid, camid, index in np.ndindex(5, 2, 3):
        split = "train" if pid < 2 else ("query" if index == 0 else "gallery")
        write_sample_picture(root / picture_path(split, pid + 1, camid + 1, index), rng)
    write_sample_picture(root / picture_path("gallery", -1, 1, 0), rng)
    write_sample_picture(root / picture_path("gallery", 0, 2, 0), rng)
