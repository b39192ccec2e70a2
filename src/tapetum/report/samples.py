"""From datasets to the pictures of a figure: which people, which of their pictures, in which order."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from tapetum.core.errors import DataError
from tapetum.core.seeding import numpy_generator
from tapetum.core.types import Modality, Record
from tapetum.data.catalog import numbers_anew
from tapetum.data.image_io import read_picture
from tapetum.data.lighting import measure_picture
from tapetum.data.stats import each_once
from tapetum.data.threads import Progress, map_in_threads
from tapetum.plots.samples import Samples
from tapetum.runs.recipe import DataSection
from tapetum.runs.sources import NamedRoot, label_roots, open_data

LOOKED_AT = 4  # times as many people as are shown, so that dark and bright ones are among them

Camera = tuple[Modality, int]
Person = tuple[bool, int]  # whether training numbers people anew and this is one of them; the pid


def collect_samples(
    sources: Sequence[NamedRoot],
    *,
    people: int = 4,
    cameras: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Samples]:
    """Some people of each dataset and a picture of each under each camera, the darkest person first.

    Those whom the most of the cameras shown have seen come into question; of these, more are drawn than shown, and
    those shown are spread evenly from dark to bright. No distractors, and nobody twice.

    Args:
        people: at most, of each dataset.
        cameras: at most, those that saw the most people; of a visible-infrared dataset half of each modality.
        progress: called with (done, total) where pictures are generated.
    Raises:
        DataError: a dataset or a picture cannot be read.
        RecipeError: a dataset or an option of it is unknown.
    """
    sheets = []
    for label, source in zip(label_roots(sources), sources, strict=True):
        root = None if source.root is None else str(source.root)
        section = DataSection(name=source.name, root=root, options=dict(source.options))
        dataset = open_data(section, progress=progress).dataset
        anew = numbers_anew(dataset)
        sheets.append(_choose(label, dataset.records, anew, people, cameras, numpy_generator(seed, "samples")))
    return sheets


def _choose(
    label: str, records: Sequence[Record], anew: bool, people: int, cameras: int, rng: np.random.Generator
) -> Samples:
    def person_of(record: Record) -> Person:
        return anew and record.split == "train", record.pid

    wanted = {person_of(record) for record in records if record.pid >= 0 and record.split != "gallery"}
    places: dict[Person, dict[Camera, list[Record]]] = {person: {} for person in sorted(wanted)}
    for record in each_once(records):
        if person_of(record) in places:
            places[person_of(record)].setdefault((record.modality, record.camid), []).append(record)
    if not places:
        raise DataError(f"{label}: nobody in it trains or is searched for; show another dataset")
    shown = _choose_cameras([list(seen) for seen in places.values()], cameras)
    coverage = {person: sum(camera in seen for camera in shown) for person, seen in places.items()}
    lot = [list(places)[row] for row in rng.permutation(len(places))]
    seen_by_some = [person for person in lot if coverage[person]]
    ranked = sorted(seen_by_some, key=lambda person: -coverage[person])
    least = coverage[ranked[:people][-1]]
    candidates = [person for person in ranked if coverage[person] >= least][: LOOKED_AT * people]
    drawn = {person: [_draw(places[person].get(camera, []), rng) for camera in shown] for person in candidates}
    lightness = {person: _measure(row) for person, row in drawn.items()}
    order = sorted(candidates, key=lambda person: float(np.nanmean(lightness[person])))
    rows = np.unique(np.linspace(0, len(order) - 1, min(people, len(order))).round().astype(int))
    chosen = [order[row] for row in rows]
    return Samples(
        title=label,
        people=[f"person {pid}" for _, pid in chosen],
        cameras=[f"camera {camid}" + (" infrared" if modality else "") for modality, camid in shown],
        pictures=[[None if record is None else read_picture(record.path) for record in drawn[who]] for who in chosen],
        lightness=[lightness[who] for who in chosen],
    )


def _choose_cameras(seen: Sequence[Sequence[Camera]], count: int) -> list[Camera]:
    """Those that saw the most people, by modality and number."""
    people = Counter(camera for cameras in seen for camera in cameras)
    chosen: list[Camera] = []
    kinds = sorted({modality for modality, _ in people})
    for place, kind in enumerate(kinds):
        share = count // len(kinds) + (place < count % len(kinds))
        own = sorted((camera for camera in people if camera[0] is kind), key=lambda camera: (-people[camera], camera))
        chosen += own[:share]
    return sorted(chosen)


def _draw(records: Sequence[Record], rng: np.random.Generator) -> Record | None:
    return records[int(rng.integers(len(records)))] if records else None


def _measure(row: Sequence[Record | None]) -> list[float]:
    there = [record for record in row if record is not None]
    values = iter(map_in_threads(lambda record: measure_picture(read_picture(record.path))[0], there, 2))
    return [np.nan if record is None else next(values) for record in row]
