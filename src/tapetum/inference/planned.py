"""What a test by a protocol asks of a dataset, before any picture is described: who searches whom, what is drawn."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from operator import eq

import numpy as np
import torch

from tapetum.core.errors import DataError, ProtocolError
from tapetum.core.protocol import Protocol, Side
from tapetum.core.types import Record
from tapetum.data.catalog import Dataset, fingerprint
from tapetum.evaluation.trials import SEEDED, Drawing, order_rows

SIDES: tuple[Side, Side] = ("query", "gallery")
TEST = "test"  # of records whose side a protocol decides


def choose_protocols(dataset: Dataset, names: Sequence[str | None]) -> list[Protocol]:
    """Protocols by name, each once; None is the default.

    Args:
        names: "all" stands for each that differs from the others in a rule; among equals the one named most like the
            default stays (e.g. that of the same release).
    Raises:
        RecipeError: the dataset has no such protocol.
    """
    protocols: dict[str, Protocol] = {}
    for name in names:
        if name != "all":
            rules = dataset.protocol(name)
            protocols.setdefault(rules.name, rules)
            continue
        usual = dataset.default_protocol
        alike = sorted(dataset.protocols, key=lambda each: -sum(takewhile(bool, map(eq, each, usual))))
        best: dict[Protocol, str] = {}
        for each in alike:
            best.setdefault(replace(dataset.protocols[each], name="", source=""), each)
        protocols |= {name: each for name, each in dataset.protocols.items() if name in best.values()}
    return list(protocols.values())


@dataclass(frozen=True)
class PlannedTest:
    """What one protocol asks of a dataset."""

    rules: Protocol
    records: dict[Side, list[Record]]  # of the drawn side those that some trial takes
    whole: dict[Side, list[Record]]  # before anything is drawn
    fingerprints: dict[Side, str]  # of the whole sides
    drawn: tuple[torch.Tensor, ...] | None = None  # (n,) int64 a trial, numbers among the records of the drawn side
    galleries: str | None = None  # what was drawn, and how


def plan_test(dataset: Dataset, rules: Protocol) -> PlannedTest:
    """Who searches whom, and what each trial draws.

    Raises:
        DataError: a side has no picture.
        ProtocolError: the galleries cannot be drawn.
    """
    if rules.trials > 1 and rules.drawn is None:
        raise ProtocolError(
            f"protocol {rules.name} wants {rules.trials} trials and draws nothing; choose a protocol of one trial"
        )
    whole = {side: _list_side(dataset, rules, side) for side in SIDES}
    fingerprints = {side: fingerprint(records) for side, records in whole.items()}
    if rules.drawn is None:
        return PlannedTest(rules, whole, whole, fingerprints)
    permutations = dataset.permutations if rules.drawn == "gallery" else None
    records = whole[rules.drawn]
    pids, camids = np.array([(record.pid, record.camid) for record in records], dtype=np.int64).T
    trials = Drawing(pids, camids, [record.path.name for record in records], rules, permutations).draw_all()
    union = torch.unique(torch.cat(trials))
    place = torch.empty(len(records), dtype=torch.int64)
    place[union] = torch.arange(len(union))
    seeded = f"{'queries' if rules.drawn == 'query' else 'galleries'} {SEEDED}"
    return PlannedTest(
        rules,
        {**whole, rules.drawn: [records[row] for row in union.tolist()]},
        whole,
        fingerprints,
        tuple(place[rows] for rows in trials),
        seeded if permutations is None else dataset.permutation_file,
    )


def _list_side(dataset: Dataset, rules: Protocol, side: Side) -> list[Record]:
    """The records of one side, where the protocol decides on sides in the order of the released codes."""
    records = dataset.side(side, rules.name)
    modality, camids = rules.limits(side)
    if not records:
        counts = Counter(
            f"{record.split} {record.modality.name.lower()}" if record.split == TEST else record.split
            for record in dataset.records
        )
        known = ", ".join(f"{n} {name}" for name, n in sorted(counts.items()))
        what = f"no picture of split {side!r}" if modality is None else f"no {modality.name.lower()} picture as {side}"
        raise DataError(
            f"{dataset.name}: {what} for protocol {rules.name} in {dataset.root}; it has {known}: complete it, "
            "or choose another protocol"
        )
    if not all(record.split == TEST for record in records):
        return records
    pids, cameras = np.array([(record.pid, record.camid) for record in records], dtype=np.int64).T
    order = order_rows(pids, cameras, [record.path.name for record in records], camids)
    return [records[row] for row in order.tolist()]
