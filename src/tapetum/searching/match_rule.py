"""Is it that person? What a calibration says about the answers of a search."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from tapetum.core.errors import ProtocolError
from tapetum.core.types import Modality
from tapetum.evaluation.calibration import Calibration, check_prior
from tapetum.evaluation.thresholds import pair_name

ROUNDING = 1e-9  # of a probability


class MatchThreshold(NamedTuple):
    """From which similarity an answer is a match, where query and answer are of a pair of modalities."""

    pair: str
    threshold: float


@dataclass(frozen=True)
class MatchRule:
    """What a calibration says about the answers of a search.

    A match is at least as probable as any answer that is none, also where both are of different pairs of modalities.

    Attributes:
        prior: probability before looking that a pair shows one person.
        rate: of false alarms.
        by_search: the rate is of searches for somebody who is not in the gallery, not of single comparisons.
        bars: modality of the query and of the answer -> from where on it is a match.
        pictures: in the searched gallery.
        uncalibrated: names of pairs that occur and about which the calibration says nothing.
    """

    calibration: Calibration
    prior: float
    rate: float
    by_search: bool
    bars: dict[tuple[Modality, Modality], MatchThreshold]
    pictures: int
    uncalibrated: tuple[str, ...] = ()

    @cached_property
    def level(self) -> float:
        """The probability that every match has at least: the greatest that a pair of modalities has at its bar."""
        bars = self.bars.values()
        return max(float(self.calibration.probability(bar.threshold, bar.pair, prior=self.prior)) for bar in bars)

    def probability(self, similarity: float, query: Modality, answer: Modality) -> float | None:
        """The probability that an answer shows the person searched for; None where such a pair is not calibrated."""
        bar = self.bars.get((query, answer))
        return None if bar is None else float(self.calibration.probability(similarity, bar.pair, prior=self.prior))

    def accepts(self, similarity: float, query: Modality, answer: Modality) -> bool | None:
        """Whether an answer is a match; None where such a pair is not calibrated."""
        bar = self.bars.get((query, answer))
        probability = self.probability(similarity, query, answer)
        if bar is None or probability is None:
            return None
        return similarity >= bar.threshold and probability >= self.level - ROUNDING

    @property
    def words(self) -> str:
        """From where on, and how often that is wrong."""
        several = len(self.bars) > 1 or self.uncalibrated
        parts = [f"{min(bar.threshold, 1):.4f}" + (f" ({bar.pair})" if several else "") for bar in self.bars.values()]
        of = (
            f"searches in {self.pictures:,} pictures for somebody who is not there"
            if self.by_search
            else "comparisons of two people"
        )
        text = f"{' and '.join(dict.fromkeys(parts))}, which {100 * self.rate:.3g} % of {of} reach"
        if len({bar.pair for bar in self.bars.values()}) > 1:
            text += f", and with a probability of {100 * self.level:.4g} % or more"
        return text + (f"; {', '.join(self.uncalibrated)} is not calibrated" if self.uncalibrated else "")


@dataclass(frozen=True)
class ProbabilityRule:
    """What a calibration that supports no rate of false alarms says of answers: which is how probable, none a match."""

    calibration: Calibration  # of every pair of modalities that occurs

    def probability(self, similarity: float, query: Modality, answer: Modality) -> float:
        """The probability that an answer shows the person searched for, by the calibration's own prior."""
        return float(self.calibration.probability(similarity, pair_name(query, answer)))

    def accepts(self, similarity: float, query: Modality, answer: Modality) -> None:
        """Nothing: there is no threshold."""


Rule = MatchRule | ProbabilityRule


def build_match_rule(
    calibration: Calibration,
    sizes: Mapping[Modality, int],
    *,
    modalities: Collection[Modality] = (Modality.VISIBLE,),
    rate: float | None = None,
    prior: float | None = None,
) -> MatchRule:
    """Thresholds for a gallery.

    Where there are several pairs of modalities, in the gallery or in the query, each gets its share of the rate, for
    either can give the false alarm.

    Args:
        sizes: pictures that are searched, of each modality.
        modalities: of the query.
        rate: of searches for somebody who is not there that give a match all the same; None takes the lowest rate that
            the calibration states and supports for such a gallery, else for single comparisons.
        prior: None takes the calibration's own.
    Raises:
        ProtocolError: no calibration for such pairs, or too few people for the rate.
    """
    sides = {
        (one, other): pair_name(one, other) for one in sorted(set(modalities)) for other in Modality if sizes.get(other)
    }
    pairs = {side: pair for side, pair in sides.items() if pair in calibration.pairs}
    missing = tuple(dict.fromkeys(pair for pair in sides.values() if pair not in calibration.pairs))
    if missing and not pairs:
        calibration.lowest_rate(missing[0])  # says what there is, and what to do
    share = max(1, len(pairs))

    def supported(stated_rate: float, *, by_search: bool) -> bool:
        lowest = (
            calibration.lowest_rate(pair, gallery=sizes[answer] if by_search else None)
            for (_, answer), pair in pairs.items()
        )
        return stated_rate / (share if by_search else 1) >= max(lowest, default=0.0)

    by_search = True
    if rate is None:
        choices = (
            (stated_rate, kind)
            for kind in (True, False)
            for stated_rate in sorted(calibration.rates)
            if supported(stated_rate, by_search=kind)
        )
        rate, by_search = next(choices, (None, False))
        if rate is None:
            raise ProtocolError(
                f"{', '.join(pairs.values())}: the calibration supports none of its rates; calibrate with more people"
            )
    part = rate / share if by_search else rate
    bars = {
        side: MatchThreshold(pair, calibration.threshold(part, pair, gallery=sizes[side[1]] if by_search else None))
        for side, pair in pairs.items()
    }
    prior = calibration.prior if prior is None else prior
    check_prior(prior)
    return MatchRule(calibration, prior, rate, by_search, bars, sum(sizes.values()), missing)
