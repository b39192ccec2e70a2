"""What an indexing did, filled while it goes on."""

from dataclasses import dataclass, field
from typing import Any

from tapetum.footage.report import FootageReport

ERASED_BEFORE = "erased from this gallery before"


@dataclass
class IndexReport:
    """What a run did; it is filled while the run goes on."""

    footage: FootageReport = field(default_factory=FootageReport)
    gallery: str = ""  # as the operator named it
    run: str = ""
    model: str = ""  # its id
    runtime: str = ""  # what computed the embeddings
    precision: str = ""  # of that arithmetic
    added: int = 0  # rows stored
    known: int = 0  # sightings that the gallery had already
    copies: int = 0  # of these, seen by the same footage under another name: also one that this run brought
    corrected: int = 0  # rows that it had with another camera, time or modality than the operator states now
    dropped: int = 0  # rows erased at the end because the gallery does not keep anything so old
    rows: int = 0  # in the gallery at the end
    recall: float | None = None  # of the approximate index, where compacting built one
    stopped: bool = False  # whether the run was asked to end before all was read
    seconds: float = 0.0

    @property
    def erased(self) -> int:
        """Sightings that were erased from the gallery before and stay away."""
        return self.footage.refused[ERASED_BEFORE]

    def lines(self) -> list[str]:
        """For people, one fact a line."""
        lines = self.footage.lines()
        same = f", {self.copies} the same as those of a copy" * bool(self.copies)
        known = self.known - self.copies
        lines.append(f"rows: {self.added} added, {known} known before{same}; {self.rows} in {self.gallery}")
        if self.corrected:
            lines.append(f"corrected: {self.corrected} rows have the camera, time or modality that was stated now")
        if self.dropped:
            lines.append(f"erased because they are too old to be kept: {self.dropped} rows")
        if self.recall is not None:
            lines.append(f"approximate index: finds {100 * self.recall:.1f} % of the ten nearest rows without a filter")
        if self.stopped:
            lines.append("stopped before the end; the same command goes on from here")
        lines.append(f"took {self.seconds:.1f} s")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return vars(self) | {"footage": self.footage.to_dict(), "erased": self.erased}
