"""What a training is validated on while it runs: people set aside, or, where a recipe says so, the test set itself.

Held-out people of a visible-infrared data set are searched for across the modalities, as its protocol is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tapetum.core.errors import TrainingError
from tapetum.core.protocol import Protocol, Side
from tapetum.core.seeding import numpy_generator
from tapetum.core.types import Modality, Record
from tapetum.data.catalog import Dataset
from tapetum.evaluation.trials import Drawing

PROTOCOL = Protocol(
    name="holdout",
    junk="same_pid_same_camid",
    ap="step",
    unmatched="drop",
    source="Tapetum: training identities set aside, one query for each camera a person was seen by",
)
BOTH = {Modality.VISIBLE, Modality.INFRARED}


@dataclass(frozen=True)
class Validation:
    """Pictures on which epochs are evaluated."""

    query: tuple[Record, ...]  # may be in the gallery, too: junk rules take them out of their own ranking
    gallery: tuple[Record, ...]
    protocol: Protocol  # without anything left to draw
    at_test: bool = False


def split_holdout(
    records: Sequence[Record], ids: float, seed: int, protocol: Protocol = PROTOCOL
) -> tuple[list[Record], Validation]:
    """Set identities aside, at random but always the same ones for the same seed.

    The first picture of each held-out person under each camera searches in every picture of these people; where the
    protocol wants two modalities, in those of the other one.

    Args:
        ids: a fraction of the identities below 1 (at least two are taken), or a whole number of them.
        protocol: of the test; its modalities decide who searches in what, and where they differ its junk rules hold.
    Returns:
        The records that remain to train on, and the others.
    Raises:
        TrainingError: too few identities, or no held-out person can be searched for.
    """
    pids = sorted({record.pid for record in records})
    count = max(2, round(ids * len(pids))) if ids < 1 else int(ids)
    if count > len(pids) - 2:
        raise TrainingError(
            f"selection.ids = {ids:g} would set {count} of {len(pids)} identities aside and leave fewer than 2 "
            "to train on; lower it, or use selection.rule = last"
        )
    order = numpy_generator(seed, "holdout").permutation(len(pids))
    held_out = {pids[row] for row in order[:count]}
    aside = sorted((r for r in records if r.pid in held_out), key=lambda r: (r.pid, r.camid, r.path.name))
    across = {protocol.query_modality, protocol.gallery_modality} == BOTH
    rules = replace(PROTOCOL, query_modality=protocol.query_modality, gallery_modality=protocol.gallery_modality)
    if across:  # within one modality a query is in its own gallery, so its camera is junk
        rules = replace(rules, junk=protocol.junk, junk_camera_pairs=protocol.junk_camera_pairs)
    query = [replace(r, split="query") for r in aside if rules.query_modality in (None, r.modality)]
    gallery = tuple(replace(r, split="gallery") for r in aside if rules.gallery_modality in (None, r.modality))
    first = {(record.pid, record.camid): record for record in reversed(query)}
    query = [first[key] for key in sorted(first)]
    if not _any_match(query, gallery, rules):
        seen = "seen by two cameras"
        if across:
            seen = f"seen in both modalities by cameras that protocol {protocol.name} compares"
        raise TrainingError(
            f"none of the {count} identities set aside was {seen}, so they cannot be searched for; "
            "raise selection.ids or use selection.rule = last"
        )
    return [r for r in records if r.pid not in held_out], Validation(tuple(query), gallery, rules)


def validate_on_test(dataset: Dataset, protocol: Protocol) -> Validation:
    """The test set by the first of a protocol's trials.

    Raises:
        ProtocolError: nothing can be drawn.
        TrainingError: a side is empty.
    """
    sides: dict[Side, list[Record]] = {
        "query": dataset.side("query", protocol.name),
        "gallery": dataset.side("gallery", protocol.name),
    }
    for side, records in sides.items():
        if not records:
            raise TrainingError(
                f"{dataset.name}: selection.rule = best_on_test, but {dataset.root} has no {side} picture for protocol "
                f"{protocol.name}; complete it, or use selection.rule = last"
            )
    if protocol.drawn is not None:
        records = sides[protocol.drawn]
        drawing = Drawing(
            np.array([record.pid for record in records], dtype=np.int64),
            np.array([record.camid for record in records], dtype=np.int64),
            [record.path.name for record in records],
            protocol,
            dataset.permutations,
        )
        sides[protocol.drawn] = [records[row] for row in drawing.draw(0).tolist()]
    rules = replace(protocol, drawn=None, trials=1)
    return Validation(tuple(sides["query"]), tuple(sides["gallery"]), rules, at_test=True)


def _any_match(query: Sequence[Record], gallery: Sequence[Record], rules: Protocol) -> bool:
    """Whether some query's person is in the gallery under a camera that no rule takes out."""
    cameras: dict[int, set[int]] = {}
    for record in gallery:
        cameras.setdefault(record.pid, set()).add(record.camid)
    return any(
        not rules.person_junk(record.camid, theirs) for record in query for theirs in cameras.get(record.pid, ())
    )
