"""What a similarity means: the probability of one person, and thresholds with a stated rate of false alarms.

Both are fitted (`evaluation.fitting`) on pairs of people that the model was never trained on, for each pair of
modalities by itself. Stored is the evidence (how much likelier a similarity is for one person than for two), so that
any prior can be put to it.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from tapetum.core.atomic import make_folder, write_bytes
from tapetum.core.errors import CheckpointError, ProtocolError
from tapetum.evaluation.thresholds import PAIR_NAMES, Array, Tail, bin_centres

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
Level = Union[float, Array, "Tensor"]
_SLOPE = 1e-6  # of the evidence where its curve is flat: far below any step of it, far above what float64 rounds


@dataclass(frozen=True)
class PairCalibration:
    """What was fitted for one pair of modalities."""

    similarities: tuple[float, ...]  # ascending; the curve is straight in between and flat outside
    probabilities: tuple[float, ...]  # of one person, were it as likely as not beforehand; inside 0..1
    comparisons: Tail  # by the rate of false alarms of one comparison of two people
    searches: Mapping[int, Tail]  # gallery size in pictures -> by the rate of one search for a stranger
    counts: Mapping[str, int]  # people, pairs and searches behind it


@dataclass(frozen=True)
class Calibration:
    """Turns similarities of one model into probabilities and decisions."""

    model: Mapping[str, Any]  # facts that two sets of vectors must agree on to be compared; of the model it belongs to
    data: Mapping[str, Any]  # of what people: dataset, fingerprint, which half of them
    protocol: str  # whose junk was left out
    seed: int  # of the cut into halves
    prior: float  # probability before looking that a pair shows one person, where nobody says otherwise
    method: str  # of the fit
    rates: tuple[float, ...]  # of false alarms, that the check states
    pairs: Mapping[str, PairCalibration]  # name of a pair of modalities -> what was fitted
    checked: Mapping[str, Any] = field(
        default_factory=dict
    )  # name -> what it was worth on the other half of the people

    @property
    def caveat(self) -> str:
        """What a reader of its numbers must know; empty where it was fitted on pictures that cameras took."""
        generated = self.data.get("generated", self.data.get("name") == "synth")  # earlier ones have the name alone
        return "a guess where pictures show real people, as the calibration is of generated ones" if generated else ""

    @property
    def digest(self) -> str:
        """A name for all of it, as its file bears it."""
        return str(to_content(self)["digest"])

    def probability(self, similarity: Level, pair: str, *, prior: float | None = None) -> Any:
        """The probability that two pictures show one person: a float, or float64 values in an array's shape.

        Args:
            similarity: cosine, or an array of them.
            pair: of which modalities, e.g. "visible-infrared".
            prior: the same before looking; None takes the calibration's own.
        Raises:
            ProtocolError: no such pair was fitted, or the prior is not inside 0..1.
        """
        prior = self.prior if prior is None else prior
        check_prior(prior)
        probabilities = _probabilities(self._pair(pair), np.asarray(similarity, dtype=np.float64), prior)
        return float(probabilities) if np.ndim(probabilities) == 0 else probabilities

    def evidence(self, similarity: Level, pair: str) -> Array:
        """What a ranking may compare across pairs of modalities: log-odds of one person at even odds beforehand.

        Within a pair the order of similarities stays: flat stretches of the curve rise by a hair.

        Args:
            similarity: cosine, or an array of them.
        Raises:
            ProtocolError: no such pair was fitted.
        """
        own, values = self._pair(pair), np.asarray(similarity, dtype=np.float64)
        probabilities = np.interp(values, own.similarities, own.probabilities)
        evidence: Array = np.log(probabilities) - np.log1p(-probabilities) + _SLOPE * values
        return evidence

    def check_ranks(self, pairs: Collection[str]) -> None:
        """Refuse a ranking by `evidence` in which some entries would have no place.

        Args:
            pairs: of modalities, that occur between who searches and what is searched.
        Raises:
            ProtocolError: one of them was not fitted.
        """
        missing = [pair for pair in sorted(pairs) if pair not in self.pairs]
        if missing:
            raise ProtocolError(
                f"rank calibrated: {', '.join(missing)} is not calibrated, so that such answers have no place among "
                "the others; run `tapetum calibrate` with people seen in both modalities, or rank by similarity"
            )

    def threshold(self, rate: float, pair: str, *, gallery: int | None = None) -> float:
        """The similarity from which a match is declared; above 1 where even a copy would be a false alarm.

        Args:
            rate: of false alarms: of comparisons of two people, or of searches for somebody who is not there.
            gallery: pictures in the searched gallery; None asks for single comparisons. A gallery larger than those
                calibrated is taken as several, whose false alarms add up.
        Raises:
            ProtocolError: no such pair was fitted, or it has too few people for so low a rate.
        """
        own = self._pair(pair)
        tail, parts = _tail_for(own, gallery)
        if not 0 < rate <= 1:
            raise ProtocolError(f"false-alarm rate {rate:g}: must be above 0 and at most 1")
        if rate < self.lowest_rate(pair, gallery=gallery) * (1 - 1e-9):
            lowest = self.lowest_rate(pair, gallery=gallery)
            what = "comparisons" if gallery is None else f"searches in {gallery} pictures"
            can = f"ask for {lowest:.3g} or more" if lowest <= 1 else "ask for a rate of single comparisons"
            raise ProtocolError(
                f"{pair}: {own.counts['people']} people are too few for a false-alarm rate of {rate:g} of {what}; "
                f"{can}, or calibrate with more people"
            )
        return tail.threshold(max(rate / parts, tail.lowest))

    def lowest_rate(self, pair: str, *, gallery: int | None = None) -> float:
        """The lowest rate that `threshold` can answer for; above 1 where there is none.

        Raises:
            ProtocolError: no such pair was fitted.
        """
        tail, parts = _tail_for(self._pair(pair), gallery)
        return tail.lowest * parts

    def check_model(self, facts: Mapping[str, Any], place: str = "calibration") -> None:
        """Refuse to speak about the similarities of another model than that with these facts.

        Args:
            place: where this calibration lies, for the message.
        Raises:
            ProtocolError: a fact differs.
        """
        for name, value in self.model.items():
            if facts.get(name) != value:
                raise ProtocolError(
                    f"{place}: made for {name} {value!r}, the model in use has {facts.get(name)!r}; its similarities "
                    "mean something else: run `tapetum calibrate` for this model"
                )

    def _pair(self, pair: str) -> PairCalibration:
        if pair not in self.pairs:
            known = ", ".join(self.pairs)
            raise ProtocolError(
                f"{pair}: not calibrated, the people looked at had no such pairs; there is {known}: calibrate with "
                "data that has both modalities"
            )
        return self.pairs[pair]


def check_prior(prior: float) -> None:
    """Refuse a prior that no evidence could change.

    Raises:
        ProtocolError: it is not inside 0..1.
    """
    if not 0 < prior < 1:
        raise ProtocolError(f"prior {prior:g}: must lie inside 0..1, e.g. 0.5, or 0.01 for one person in a hundred")


def _tail_for(calibration: PairCalibration, gallery: int | None) -> tuple[Tail, int]:
    """The thresholds to look in, and into how many galleries of that size the asked one is taken apart."""
    if gallery is None:
        return calibration.comparisons, 1
    sizes = sorted(size for size, tail in calibration.searches.items() if tail.rates)
    if not sizes:
        return Tail((), ()), 1
    enough = [size for size in sizes if size >= gallery]
    size = enough[0] if enough else sizes[-1]
    return calibration.searches[size], max(1, -(-gallery // size))


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration as JSON, whole or not at all; folders above it are made.

    Raises:
        OutputError: it cannot be written.
    """
    make_folder(path.parent)
    write_bytes(path, (json.dumps(to_content(calibration), indent=1, ensure_ascii=False) + "\n").encode())


def read_calibration(path: Path) -> Calibration:
    """Read what `write_calibration` wrote.

    Raises:
        CheckpointError: there is none, it is damaged, or a newer version wrote it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no calibration; make one with `tapetum calibrate`") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); run `tapetum calibrate` again") from None
    return from_content(content, str(path))


def to_content(calibration: Calibration) -> dict[str, Any]:
    """A calibration as plain values, with a digest over them; for a file of its own or inside an artefact."""
    content = {"format": FORMAT, **json.loads(json.dumps(asdict(calibration)))}  # keys become text, tuples lists
    return {**content, "digest": _digest(content)}


def from_content(content: Any, place: str) -> Calibration:
    """A calibration from the plain values of `to_content`.

    Args:
        place: where they come from, for the message.
    Raises:
        CheckpointError: they are damaged, or of a newer version.
    """
    if not isinstance(content, dict) or "format" not in content:
        raise CheckpointError(f"{place}: is no calibration; run `tapetum calibrate` again")
    if content["format"] != FORMAT:
        raise CheckpointError(f"{place}: format {content['format']}, this version reads {FORMAT}; update tapetum")
    values = {name: value for name, value in content.items() if name != "digest"}
    if content.get("digest") != _digest(values):
        raise CheckpointError(
            f"{place}: damaged, its digest is not that of what it holds; run `tapetum calibrate` again"
        )
    values.pop("format")
    try:
        pairs = {name: _pair_from(values["pairs"][name]) for name in PAIR_NAMES if name in values["pairs"]}
        return Calibration(**{**values, "rates": tuple(values["rates"]), "pairs": pairs})
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{place}: damaged ({error!r}); run `tapetum calibrate` again") from None


def _pair_from(content: Mapping[str, Any]) -> PairCalibration:
    return PairCalibration(
        tuple(content["similarities"]),
        tuple(content["probabilities"]),
        _tail_from(content["comparisons"]),
        {int(size): _tail_from(tail) for size, tail in content["searches"].items()},
        dict(content["counts"]),
    )


def _tail_from(content: Mapping[str, Any]) -> Tail:
    return Tail(tuple(content["rates"]), tuple(content["thresholds"]))


def _digest(content: Mapping[str, Any]) -> str:
    """A name for plain values, 16 hexadecimal digits."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def probabilities_of_bins(calibration: PairCalibration, prior: float) -> Array:
    """The probability said at the middle of each bin, (BINS,)."""
    return _probabilities(calibration, bin_centres(), prior)


def _probabilities(calibration: PairCalibration, similarities: Array, prior: float) -> Array:
    values = np.interp(similarities, calibration.similarities, calibration.probabilities)
    for_one = prior * values
    return for_one / (for_one + (1 - prior) * (1 - values))
