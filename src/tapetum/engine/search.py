"""Who looks like the person on this picture, and is it that person?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tapetum.core.errors import ProtocolError
from tapetum.core.types import EmbeddingSet, Match, Modality
from tapetum.engine.describer import Describer
from tapetum.engine.sources import list_pictures
from tapetum.evaluation.calibration import Calibration
from tapetum.evaluation.verification import pair_name
from tapetum.gallery.index import search


def search_pictures(
    describer: Describer,
    pictures: Sequence[Path],
    gallery: EmbeddingSet,
    k: int = 10,
    *,
    modality: Modality = Modality.VISIBLE,
) -> list[list[Match]]:
    """The k gallery pictures most similar to each picture.

    Args:
        describer: the checkpoint.
        pictures: the queries.
        gallery: made by the same checkpoint.
        k: answers a query.
        modality: of the queries.
    Raises:
        DataError: a picture is missing or damaged.
        ProtocolError: the gallery's vectors have another length.
    """
    records = [replace(record, modality=modality) for record in list_pictures(pictures, split="query")]
    queries, _ = describer.describe(records)
    return search(queries.vectors, gallery, k)


@dataclass(frozen=True)
class Bar:
    """From which similarity an answer is a match, in the part of a gallery that is of one modality.

    Attributes:
        pair: of query and answers.
        threshold: the similarity.
    """

    pair: str
    threshold: float


@dataclass(frozen=True)
class Judge:
    """What a calibration says about the answers of a search.

    Attributes:
        calibration: of the model in use.
        prior: probability before looking that a pair shows one person.
        rate: of false alarms.
        by_search: the rate is of searches for somebody who is not in the gallery, not of single comparisons.
        bars: modality of an answer -> from where on it is a match.
        modalities: picture -> modality.
    """

    calibration: Calibration
    prior: float
    rate: float
    by_search: bool
    bars: dict[Modality, Bar]
    modalities: dict[Path, Modality]

    def probability(self, match: Match) -> float:
        """The probability that an answer shows the person searched for.

        Args:
            match: an answer.
        """
        bar = self.bars[self.modalities[match.path]]
        return float(self.calibration.probability(match.similarity, bar.pair, prior=self.prior))

    def accepts(self, match: Match) -> bool:
        """Whether an answer is a match.

        Args:
            match: an answer.
        """
        return match.similarity >= self.bars[self.modalities[match.path]].threshold

    @property
    def words(self) -> str:
        """From where on, and how often that is wrong."""
        parts = [
            f"{min(bar.threshold, 1):.4f}" + (f" ({bar.pair})" if len(self.bars) > 1 else "")
            for bar in self.bars.values()
        ]
        pictures = f"in {len(self.modalities):,} pictures"
        of = f"searches {pictures} for somebody who is not there" if self.by_search else "comparisons of two people"
        return f"{' and '.join(parts)}, which {100 * self.rate:.3g} % of {of} reach"


def build_judge(
    calibration: Calibration,
    gallery: EmbeddingSet,
    *,
    modality: Modality = Modality.VISIBLE,
    rate: float | None = None,
    prior: float | None = None,
) -> Judge:
    """Thresholds for a gallery.

    In a gallery of two modalities each part gets half of the rate, for either can give the false alarm.

    Args:
        calibration: of the model that made the gallery.
        gallery: the searched set.
        modality: of the queries.
        rate: of searches for somebody who is not there that give a match all the same; None takes the lowest rate that
            the calibration states and supports for such a gallery, else for single comparisons.
        prior: None takes the calibration's own.
    Raises:
        ProtocolError: no calibration for such pairs, or too few people for the rate.
    """
    sizes = {each: int((gallery.modalities == int(each)).sum()) for each in Modality}
    pairs = {each: pair_name(modality, each) for each, size in sizes.items() if size}
    share = len(pairs)

    def supported(wanted: float, *, by_search: bool) -> bool:
        lowest = (
            calibration.lowest_rate(pair, gallery=sizes[each] if by_search else None) for each, pair in pairs.items()
        )
        return wanted / (share if by_search else 1) >= max(lowest, default=0.0)

    by_search = True
    if rate is None:
        choices = [
            (wanted, kind)
            for kind in (True, False)
            for wanted in sorted(calibration.rates)
            if supported(wanted, by_search=kind)
        ]
        if not choices:
            raise ProtocolError(
                f"{', '.join(pairs.values())}: the calibration supports none of its rates; calibrate with more people"
            )
        rate, by_search = choices[0]
    part = rate / share if by_search else rate
    bars = {
        each: Bar(pair, calibration.threshold(part, pair, gallery=sizes[each] if by_search else None))
        for each, pair in pairs.items()
    }
    modalities = dict(zip(gallery.paths, map(Modality, gallery.modalities.tolist()), strict=True))
    chosen = calibration.prior if prior is None else prior
    judge = Judge(calibration, chosen, rate, by_search, bars, modalities)
    for pair in pairs.values():
        calibration.probability(1.0, pair, prior=chosen)  # refuses a prior that cannot be
    return judge
