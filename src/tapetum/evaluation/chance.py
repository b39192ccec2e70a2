"""What a ranking drawn by lot would reach under the same protocol, in closed form."""

from dataclasses import dataclass

import torch
from torch import Tensor

from tapetum.evaluation.metrics import Evaluation


@dataclass(frozen=True)
class Chance:
    """Expected fractions of a random ranking."""

    rank1: float
    mean_ap: float  # by the protocol's AP rule
    cmc: Tensor | None  # (R,); None where the CMC counts identities: no closed form exists beyond rank 1


def chance_level(evaluation: Evaluation) -> Chance:
    """Expected rank1 and mean AP when every order of each query's ranking is equally likely.

    With M matches among N ranked entries the chance of a match at any rank is M/N, and of two matches at two given
    ranks M(M-1)/(N(N-1)). Summed over ranks, the expected precision at a match is
    [H_N + (M-1)/(N-1) (N - H_N)] / N with H_N = 1 + 1/2 + ... + 1/N ("step"); one rank before, it is M/N, and
    "trapezoid" is the mean of the two. No match stands in the first k ranks with chance C(N-M, k) / C(N, k).
    """
    counted = evaluation.counted
    matches, entries = evaluation.num_matches[counted].double(), evaluation.num_ranked[counted].double()
    rank1 = matches / entries.clamp(min=1)
    harmonic = torch.digamma(entries + 1) - torch.digamma(torch.ones((), dtype=torch.float64))
    others = (matches - 1) / (entries - 1).clamp(min=1)
    average_precision = (harmonic + others * (entries - harmonic)) / entries.clamp(min=1)
    average_precision = torch.where(matches > 0, average_precision, 0.0)
    if evaluation.metrics.protocol.ap == "trapezoid":
        average_precision = (average_precision + rank1) / 2
    cmc = None
    if evaluation.metrics.protocol.cmc == "pictures":
        ranks = torch.arange(1, len(evaluation.metrics.cmc) + 1, dtype=torch.float64)
        others_than_matches, entries = (entries - matches).unsqueeze(1), entries.unsqueeze(1)
        missed = torch.exp(
            torch.lgamma(others_than_matches + 1)
            - torch.lgamma((others_than_matches - ranks).clamp(min=0) + 1)
            + torch.lgamma((entries - ranks).clamp(min=0) + 1)
            - torch.lgamma(entries + 1)
        )
        missed = torch.where(ranks <= others_than_matches, missed, 0.0)
        cmc = torch.where(matches.unsqueeze(1) > 0, 1 - missed, 0.0).mean(0)
    return Chance(rank1=float(rank1.mean()), mean_ap=float(average_precision.mean()), cmc=cmc)
