"""Night600: 600 people under eight cameras at night (Lu et al., IDF, IEEE TMM 2023).

Source: the paper's Table I and section on data; two public loaders for the flat layout; the IDF release for the tree.
The 2,180 query pictures are also part of the 14,351 gallery pictures (the three counts give the total of 28,813 only
so). The junk rule makes this harmless; nothing is taken out here.
"""

from pathlib import Path

import numpy as np

from tapetum.core.types import Modality, Record
from tapetum.data.layout import (
    Counts,
    find_base,
    list_pictures,
    list_pictures_by_folder,
    parse_records,
    require_pictures,
    visible_only,
    visible_protocol,
    write_sample_picture,
    wrong_layout,
)

NAME = "night600"
OBTAIN = (
    "Night600 is sent by its authors after a signed agreement (github.com/Alexadlu/IDF); unpack it and give its folder"
)
PROTOCOLS = {
    "night600": visible_protocol(
        "night600",
        ap="trapezoid",
        source="IDF release, evaluate_gpu.py: trapezoidal AP, every query in the denominator",
    ),
    "night600_step": visible_protocol(
        "night600_step",
        ap="step",
        source="torchreid, BoT, AGW, TransReID: AP at each hit, queries without match dropped",
    ),
}
DEFAULT_PROTOCOL = "night600"
QUERIES_STAY_IN_GALLERY = True  # as the published counts have it
PUBLISHED = {"train": Counts(14462, 300), "query": Counts(2180, 300), "gallery": Counts(14351, 300)}
LAYOUTS = (
    "bounding_box_train/, query_3/ and bounding_box_test/ with files such as 0001_c3_000025.jpg",
    "train_all/ (or train/ and val/), query/ and gallery/ with a folder for each person (0001/0001_c3_000025.jpg)",
)


def read_records(root: Path, *, holdout_first: bool = False, failures: list[Path] | None = None) -> list[Record]:
    """Records of either layout: train, query, gallery, each sorted by file name.

    Args:
        holdout_first: give the first picture of each training person the split "val", as the released IDF code's
            folder preparation does (300 pictures fewer to train on), or what lies in a folder ``val`` that it made;
            otherwise all of them are "train".
    """
    base = find_base(root, dataset=NAME, names=("night600", "pytorch_2180"), obtain=OBTAIN)
    if (base / "bounding_box_test").is_dir():  # a scene may have nobody to train on
        folders = {"train": "bounding_box_train", "query": "query_3", "gallery": "bounding_box_test"}
        if not (base / "query_3").is_dir() and (base / "query").is_dir():
            folders["query"] = "query"
        files = {split: list_pictures(base / name) for split, name in folders.items() if (base / name).is_dir()}
    elif (base / "gallery").is_dir() and ((base / "train").is_dir() or (base / "train_all").is_dir()):
        training = ("train_all",) if (base / "train_all").is_dir() else ("train", "val")
        pictures = [
            path for name in training if (base / name).is_dir() for path in list_pictures_by_folder(base / name)
        ]
        files = {"train": sorted(pictures, key=lambda path: (path.parent.name, path.name))}
        files |= {name: list_pictures_by_folder(base / name) for name in ("query", "gallery") if (base / name).is_dir()}
    else:
        raise wrong_layout(base, dataset=NAME, layouts=LAYOUTS)
    if "query" not in files:
        raise wrong_layout(base, dataset=NAME, layouts=LAYOUTS)
    records = [
        record
        for split, paths in files.items()
        for record in parse_records(paths, split=split, dataset=NAME, failures=failures)
    ]
    require_pictures(records, base, dataset=NAME, failures=failures)
    return _hold_out_first(records, base / "val") if holdout_first else records


def _hold_out_first(records: list[Record], made: Path) -> list[Record]:
    """What the release held out becomes "val", known by its folder; without one, each person's first picture by name.

    Which picture came first was the order of a directory on its machine, which is no order of names.
    """
    held_out = {(path.parent.name, path.name) for path in list_pictures_by_folder(made)} if made.is_dir() else set()
    seen: set[int] = set()
    result = []
    for record in records:
        first = record.split == "train" and (
            (record.path.parent.name, record.path.name) in held_out if held_out else record.pid not in seen
        )
        if first:
            seen.add(record.pid)
        split = "val" if first else record.split
        result.append(Record(record.path, record.pid, record.camid, record.modality, split))
    return result


def picture_path(split: str, pid: int, camid: int, index: int, modality: Modality = Modality.VISIBLE) -> Path:
    """Where the flat layout keeps a picture, relative to the root."""
    visible_only(modality, dataset=NAME)
    folder = {"train": "bounding_box_train", "query": "query_3", "gallery": "bounding_box_test"}[split]
    person = "-1" if pid < 0 else f"{pid:04d}"
    return Path(folder) / f"{person}_c{camid}_{index:06d}.jpg"


def write_miniature(root: Path, rng: np.random.Generator) -> None:
    """Two training and three testing people under two cameras; the queries are part of the gallery, as published."""
    for pid, camid, index in np.ndindex(5, 2, 3):
        split = "train" if pid < 2 else "gallery"
        path = root / picture_path(split, pid, camid + 1, index)
        write_sample_picture(path, rng)
        if split == "gallery" and index == 0:
            copy = root / picture_path("query", pid, camid + 1, index)
            copy.parent.mkdir(exist_ok=True)
            copy.write_bytes(path.read_bytes())
    write_sample_picture(root / picture_path("gallery", -1, 1, 0), rng)
