"""Evaluation protocols as data: who is query, who is gallery, what is junk, which CMC and AP are meant.

One evaluator (`tapetum.evaluation`) reads them all; every reported number names its protocol.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from tapetum.core.types import Modality, Record

if TYPE_CHECKING:
    from torch import Tensor

JunkRule = Literal["same_pid_same_camid", "none"]
CMCRule = Literal["pictures", "identities"]
APRule = Literal["step", "trapezoid"]
UnmatchedRule = Literal["drop", "count"]
TieRule = Literal["smaller_index_first", "larger_index_first"]
Side = Literal["query", "gallery"]
Cameras = TypeVar("Cameras", "Tensor", int)


@dataclass(frozen=True)
class Protocol:
    """The rules of one evaluation.

    Attributes:
        name: as reported beside every number, e.g. "night600" or "llcm_nir_to_vis".
        query_modality, gallery_modality: None takes pictures of any.
        query_camids, gallery_camids: in the order in which galleries are drawn; None takes every camera.
        junk: gallery entries that are taken out of a query's ranking. "same_pid_same_camid": the query's person
            under the query's camera. "none": nothing.
        junk_camera_pairs: (query camera, gallery camera) whose entries are taken out as well, whoever they show, e.g.
            because both cameras stand in one place.
        ignored_pids: gallery pids that are taken out of every ranking (-1: badly detected boxes).
        cmc: "pictures" counts ranks over pictures; "identities" keeps each identity's best picture only.
        ap: "step" takes the precision at each hit; "trapezoid" averages it with the one a rank before.
        unmatched: a query without a match is left out ("drop") or stays in the denominator with zero ("count").
        ties: order of equal distances.
        trials: galleries drawn and averaged; 1 where the dataset fixes the gallery.
        drawn: the side of which each trial draws `shots` pictures per person and camera; None draws nothing.
        max_rank: stored length of the CMC curve.
        source: where the rules were read.
    """

    name: str
    query_modality: Modality | None = None
    gallery_modality: Modality | None = None
    query_camids: tuple[int, ...] | None = None
    gallery_camids: tuple[int, ...] | None = None
    junk: JunkRule = "same_pid_same_camid"
    junk_camera_pairs: tuple[tuple[int, int], ...] = ()
    ignored_pids: tuple[int, ...] = (-1,)
    cmc: CMCRule = "pictures"
    ap: APRule = "step"
    unmatched: UnmatchedRule = "drop"
    ties: TieRule = "smaller_index_first"
    trials: int = 1
    drawn: Side | None = None
    shots: int = 1
    max_rank: int = 50
    source: str = ""

    def limits(self, side: Side) -> tuple[Modality | None, tuple[int, ...] | None]:
        """Modality and cameras of a side; None where any will do."""
        if side == "query":
            return self.query_modality, self.query_camids
        return self.gallery_modality, self.gallery_camids

    def admits(self, record: Record, side: Side) -> bool:
        """Whether a test picture belongs to a side, before anything is drawn."""
        modality, camids = self.limits(side)
        fits = (modality is None or record.modality == modality) and (camids is None or record.camid in camids)
        return fits and record.split in (side, "test")

    def admitted(self, side: Side, modalities: "Tensor", camids: "Tensor") -> "Tensor":
        """(N,) bool, which of N pictures `admits` takes, whatever their split; numbers are (N,) int64."""
        modality, cameras = self.limits(side)
        fits = camids == camids  # true throughout
        if modality is not None:
            fits &= modalities == int(modality)
        if cameras is not None:
            fits &= _is_among(camids, cameras)
        return fits

    def ranks(self, pids: "Tensor") -> "Tensor":
        """(N,) bool, which gallery entries stand in any ranking: those of people who are not ignored."""
        return ~_is_among(pids, self.ignored_pids)

    def camera_junk(self, query_camids: Cameras, camids: Cameras) -> Cameras:
        """Bool, pairs of cameras that are taken out whoever they show; shapes are broadcast, two numbers give one."""
        junk = (query_camids == camids) & False
        for ours, theirs in self.junk_camera_pairs:
            junk |= (query_camids == ours) & (camids == theirs)
        return junk

    def person_junk(self, query_camids: Cameras, camids: Cameras) -> Cameras:
        """Bool, pairs of one person's pictures that are taken out; as in `camera_junk`."""
        junk = self.camera_junk(query_camids, camids)
        return junk | (query_camids == camids) if self.junk == "same_pid_same_camid" else junk


def _is_among(numbers: "Tensor", few: Iterable[int]) -> "Tensor":
    """Bool, which numbers are one of a few."""
    found = numbers != numbers  # false throughout
    for each in few:
        found |= numbers == each
    return found


MIXED = "_mixed"  # ends the names of such protocols


def mixed_protocol(dataset: str) -> Protocol:
    """Pictures of both modalities search among pictures of both, each test picture among all others.

    A published protocol across modalities has a gallery of one. What cameras see in a night is a gallery of both, in
    which a vector that holds much of its modality finds that before it finds the person.
    """
    return Protocol(f"{dataset}{MIXED}", source="ours: a gallery of both modalities, as a night's footage makes it")
