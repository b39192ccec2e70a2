"""RGBNT201: 201 people under four cameras, each picture at once in visible, near-infrared and thermal light.

Source: Zheng et al., "Robust Multi-Modality Person Re-identification", AAAI 2021; public loaders for the folders and
names. The counts are a third party's, not verified here. A file has one name in the folders of all spectra.
Every testing picture is a query and in the gallery; a person's pictures under the query's camera are junk, the query's
own picture among them.

A record is visible or infrared, and the data set has two kinds of infrared: `spectra` says which are read. The IDF
paper (figure 8) trains and tests within visible light and within near-infrared; across them are protocols of ours.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tapetum.core.errors import DataError, RecipeError, nearest_name
from tapetum.core.protocol import Protocol, mixed_protocol
from tapetum.core.types import Modality, Record
from tapetum.data.layout import (
    Counts,
    find_base,
    list_pictures,
    parse_records,
    require_pictures,
    require_split,
    write_sample_picture,
    wrong_layout,
)

NAME = "rgbnt201"
OBTAIN = "RGBNT201 is given out by its authors (Zheng et al., AAAI 2021); unpack it and give its folder"
SPLITS = ("train", "test")
CAMERAS = {Modality.VISIBLE: (1, 2, 3, 4), Modality.INFRARED: (1, 2, 3, 4)}
SPECTRA = {"RGB": Modality.VISIBLE, "NI": Modality.INFRARED, "TI": Modality.INFRARED}
_SHORT = {Modality.VISIBLE: "rgb", Modality.INFRARED: "infrared"}


def _protocol(name: str, query: Modality, gallery: Modality) -> Protocol:
    within = "public loaders: query and gallery are the whole test"
    source = within if query == gallery else f"{within}; across spectra a rule of ours"
    return Protocol(name, query_modality=query, gallery_modality=gallery, source=source)


PROTOCOLS = {
    name: _protocol(name, query, gallery)
    for query, gallery in (
        (Modality.VISIBLE, Modality.VISIBLE),
        (Modality.INFRARED, Modality.INFRARED),
        (Modality.VISIBLE, Modality.INFRARED),
        (Modality.INFRARED, Modality.VISIBLE),
    )
    for name in [f"rgbnt201_{_SHORT[query]}_to_{_SHORT[gallery]}"]
} | {"rgbnt201_mixed": mixed_protocol("rgbnt201")}
DEFAULT_PROTOCOL = "rgbnt201_rgb_to_rgb"
PUBLISHED = {  # of one spectrum
    f"{split} {modality.name.lower()}": counts
    for split, counts in (("train", Counts(3951, 171, certain=False)), ("test", Counts(836, 30, certain=False)))
    for modality in Modality
}
LAYOUTS = ("train_171/ and test/, in each RGB/, NI/ and TI/ with files such as 000001_cam1_0_01.jpg",)
FOLDERS = {"train": "train_171", "test": "test"}
FILE_NAME = re.compile(r"(\d+)_cam(\d)")


def read_records(
    root: Path, *, spectra: Sequence[str] = ("RGB", "NI"), failures: list[Path] | None = None
) -> list[Record]:
    """Records of train and test, each sorted by path.

    Args:
        spectra: which are read, RGB first where it is among them; at most one of NI and TI, since both are infrared.
    """
    for spectrum in spectra:
        if spectrum not in SPECTRA:
            raise RecipeError(f"{NAME}: spectrum {spectrum!r} is unknown; {nearest_name(str(spectrum), SPECTRA)}")
    if isinstance(spectra, str) or not spectra or len({SPECTRA[each] for each in spectra}) < len(spectra):
        raise RecipeError(
            f"{NAME}: spectra are {spectra!r}; write one or two of RGB and either NI or TI, e.g. [RGB, NI]"
        )
    base = find_base(root, dataset=NAME, names=("rgbnt201",), obtain=OBTAIN)
    if not all((base / folder).is_dir() for folder in FOLDERS.values()):
        raise wrong_layout(base, dataset=NAME, layouts=LAYOUTS)
    records: list[Record] = []
    for split in SPLITS:
        parsed = [
            record
            for spectrum in spectra
            for record in parse_records(
                _list_spectrum(base / FOLDERS[split], spectrum, spectra),
                split=split,
                dataset=NAME,
                failures=failures,
                pattern=FILE_NAME,
                modality=SPECTRA[spectrum],
                like="000001_cam1_0_01.jpg",
            )
        ]
        records += sorted(parsed, key=lambda record: record.path)
    require_pictures(records, base, dataset=NAME, failures=failures)
    return records


def _list_spectrum(folder: Path, spectrum: str, spectra: Sequence[str]) -> list[Path]:
    """Pictures of one spectrum; complains where there is none."""
    paths = list_pictures(folder / spectrum) if (folder / spectrum).is_dir() else []
    if not paths:
        others = ", ".join(other for other in spectra if other != spectrum)
        remedy = f", or read the others alone (spectra: [{others}])" if others else ""
        raise DataError(f"{NAME}: no picture in {folder / spectrum}; unpack that spectrum there{remedy}")
    return paths


def read_lone(root: Path) -> list[tuple[Path, tuple[str, ...]]]:
    """Pictures of which another spectrum that is there has no file of that name, and those spectra.

    A folder without any picture counts as a spectrum that is not there.
    """
    base = find_base(root, dataset=NAME, names=("rgbnt201",), obtain=OBTAIN)
    lone = []
    for folder in FOLDERS.values():
        places = {spectrum: base / folder / spectrum for spectrum in SPECTRA}
        paths = {spectrum: list_pictures(place) for spectrum, place in places.items() if place.is_dir()}
        names = {spectrum: {path.name for path in found} for spectrum, found in paths.items() if found}
        for path in sorted(path for found in paths.values() for path in found):
            absent = tuple(spectrum for spectrum, there in names.items() if path.name not in there)
            lone += [(path, absent)] if absent else []
    return lone


def picture_path(split: str, pid: int, camid: int, index: int, modality: Modality = Modality.VISIBLE) -> Path:
    """Where this layout keeps a picture, relative to the root; infrared ones as near-infrared.

    Raises:
        DataError: there is no such split or camera.
    """
    require_split(split, SPLITS, dataset=NAME)
    if camid not in CAMERAS[modality]:
        raise DataError(f"{NAME}: has {modality.name.lower()} cameras 1, 2, 3, 4, not {camid}; choose among them")
    spectrum = "RGB" if modality == Modality.VISIBLE else "NI"
    return Path(FOLDERS[split]) / spectrum / f"{pid:06d}_cam{camid}_0_{index:02d}.jpg"


def scene_defaults(cameras: int | None = None) -> dict[str, Any]:
    """Settings of a night scene in this layout: at every place a visible and a near-infrared camera of one number."""
    places = 4 if cameras is None else cameras
    return {
        "num_train_people": 80,
        "num_test_people": 30,
        "cameras": places,
        "pictures_per_camera": 4,
        "paired_cameras": tuple(range(1, places + 1)),
        "infrared_band": "near",
        "infrared_likeness": 0.6,
    }


def write_miniature(root: Path, rng: np.random.Generator) -> None:
    """Two training and three testing people under four cameras, in visible, near-infrared and thermal light."""
    for pid, camid, index in np.ndindex(5, 4, 2):
        path = root / picture_path("train" if pid < 2 else "test", pid + 1, camid + 1, index)
        for spectrum in SPECTRA:
            write_sample_picture(path.parents[1] / spectrum / path.name, rng)
