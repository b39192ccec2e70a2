"""Training identities set aside for choosing weights, so that the test set is never looked at."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tapetum.core.errors import TrainingError
from tapetum.core.protocol import Protocol
from tapetum.core.seeding import numpy_generator
from tapetum.core.types import Record

PROTOCOL = Protocol(
    name="holdout",
    junk="same_pid_same_camid",
    ap="step",
    unmatched="drop",
    source="Tapetum: training identities set aside, one query for each camera a person was seen by",
)


@dataclass(frozen=True)
class Holdout:
    """Training records in three parts.

    Attributes:
        train: what remains to train on.
        query: the first picture of each held-out person under each camera.
        gallery: every picture of the held-out people; the junk rule takes the query itself out.
    """

    train: tuple[Record, ...]
    query: tuple[Record, ...]
    gallery: tuple[Record, ...]


def split_holdout(records: Sequence[Record], ids: float, seed: int) -> Holdout:
    """Set identities aside, at random but always the same ones for the same seed.

    Args:
        records: training pictures.
        ids: a fraction of the identities below 1 (at least two are taken), or a whole number of them.
        seed: of the run.
    Raises:
        TrainingError: too few identities, or no held-out person was seen by two cameras.
    """
    pids = sorted({record.pid for record in records})
    count = max(2, round(ids * len(pids))) if ids < 1 else int(ids)
    if count > len(pids) - 2:
        raise TrainingError(
            f"selection.ids = {ids:g} would set {count} of {len(pids)} identities aside and leave fewer than 2 "
            "to train on; lower it, or use selection.rule = last"
        )
    order = numpy_generator(seed, "holdout").permutation(len(pids))
    chosen = {pids[row] for row in order[:count]}
    aside = sorted((r for r in records if r.pid in chosen), key=lambda r: (r.pid, r.camid, r.path.name))
    first = {(record.pid, record.camid): record for record in reversed(aside)}
    cameras = {pid: len({record.camid for record in aside if record.pid == pid}) for pid in chosen}
    if max(cameras.values()) < 2:
        raise TrainingError(
            f"none of the {count} identities set aside was seen by two cameras, so they cannot be searched for; "
            "raise selection.ids or use selection.rule = last"
        )
    return Holdout(
        train=tuple(record for record in records if record.pid not in chosen),
        query=tuple(replace(first[key], split="query") for key in sorted(first)),
        gallery=tuple(replace(record, split="gallery") for record in aside),
    )
