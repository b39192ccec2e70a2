"""Evaluation protocols as data: who is query, who is gallery, what is junk, which CMC and AP are meant.

One evaluator (`tapetum.evaluation`) reads them all; every reported number names its protocol.
"""

from dataclasses import dataclass
from typing import Literal

from tapetum.core.types import Modality, Record

JunkRule = Literal["same_pid_same_camid", "none"]
CMCRule = Literal["pictures", "identities"]
APRule = Literal["step", "trapezoid"]
UnmatchedRule = Literal["drop", "count"]
TieRule = Literal["smaller_index_first", "larger_index_first"]
Side = Literal["query", "gallery"]


@dataclass(frozen=True)
class Protocol:
    """The rules of one evaluation.

    Attributes:
        name: as reported beside every number, e.g. "night600" or "llcm_nir_to_vis".
        query_modality, gallery_modality: restrict a side to one modality; None takes every picture of that side.
        query_camids, gallery_camids: restrict a side to some cameras, in the order in which galleries are drawn; None
            takes every camera.
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
        shots: pictures drawn of a person under a camera.
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

    def admits(self, record: Record, side: Side) -> bool:
        """Whether a picture belongs to a side, before anything is drawn.

        Args:
            record: of a test picture.
        """
        if record.split not in (side, "test"):
            return False
        modality = self.query_modality if side == "query" else self.gallery_modality
        camids = self.query_camids if side == "query" else self.gallery_camids
        return (modality is None or record.modality == modality) and (camids is None or record.camid in camids)
