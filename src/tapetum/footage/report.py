"""What a run over footage did, counted and named."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

_MOST_NAMED = 1000  # problems kept by name; more are counted


@dataclass(frozen=True)
class Problem:
    """Something that went wrong without ending the run.

    Attributes:
        source: name of the source.
        message: one line: place, value, remedy.
    """

    source: str
    message: str


@dataclass
class FootageReport:
    """Counts of a run; a run adds to it, so that one report can go through many sources.

    Attributes:
        detector: name of the detector; a fallback says that it is one.
        sources: sources begun in this run.
        finished_before: sources that an earlier run had finished, and that were passed over.
        failed: sources of which nothing could be read.
        without_person: names of sources in which nobody was found.
        frames: frames and pictures looked at.
        detections: boxes found in them.
        tracklets: walks that were kept.
        dropped_tracklets: walks too short, or of something that never walked.
        crops: crops written.
        refused: why crops were not kept -> how many.
        remarks: remark -> crops that have it.
        time_origins: origin of the times -> crops.
        dark_frames: frames too dark to see anybody in.
        doubtful_modality: crops of grey pictures under a single tint, whose modality is a guess.
        num_problems: how many there were.
        problems: the first thousand of them.
    """

    detector: str = ""
    sources: int = 0
    finished_before: int = 0
    failed: int = 0
    without_person: list[str] = field(default_factory=list)
    frames: int = 0
    detections: int = 0
    tracklets: int = 0
    dropped_tracklets: int = 0
    crops: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    remarks: Counter[str] = field(default_factory=Counter)
    time_origins: Counter[str] = field(default_factory=Counter)
    dark_frames: int = 0
    doubtful_modality: int = 0
    num_problems: int = 0
    problems: list[Problem] = field(default_factory=list)

    def note(self, source: str, message: str) -> None:
        """Count and keep a problem.

        Args:
            source: name of the source.
            message: one line.
        """
        self.num_problems += 1
        if len(self.problems) < _MOST_NAMED:
            self.problems.append(Problem(source, message))

    def add(self, other: "FootageReport") -> None:
        """Take over what another run did.

        Args:
            other: its counts.
        """
        for name, value in vars(other).items():
            if isinstance(value, int):
                setattr(self, name, getattr(self, name) + value)
            elif isinstance(value, Counter):
                getattr(self, name).update(value)
        self.detector = self.detector or other.detector
        self.without_person += other.without_person
        self.problems += other.problems[: _MOST_NAMED - len(self.problems)]

    def lines(self) -> list[str]:
        """For people, one fact a line."""
        told = [
            f"detector: {self.detector or 'none was needed'}",
            f"sources: {self.sources} read, {self.finished_before} finished before, {self.failed} unreadable, "
            f"{len(self.without_person)} without a person",
            f"frames and pictures: {self.frames}; detections: {self.detections}",
            f"tracklets: {self.tracklets} kept, {self.dropped_tracklets} dropped; crops: {self.crops}",
        ]
        told += [f"{remark}: {count} crops" for remark, count in self.remarks.most_common()]
        told += [f"not kept, {reason}: {count} crops" for reason, count in self.refused.most_common()]
        if self.time_origins["mtime"]:
            told.append(f"time is only that of writing the file: {self.time_origins['mtime']} crops")
        if self.dark_frames:
            told.append(f"too dark to see anybody in: {self.dark_frames} frames")
        if self.doubtful_modality:
            told.append(f"modality in doubt, grey under a single tint: {self.doubtful_modality} crops")
        told += [f"nobody found: {name}" for name in self.without_person]
        told += [problem.message for problem in self.problems]
        if self.num_problems > len(self.problems):
            told.append(f"and {self.num_problems - len(self.problems)} more problems")
        return told

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = {name: value for name, value in vars(self).items() if name != "problems"}
        plain |= {name: dict(plain[name]) for name in ("remarks", "refused", "time_origins")}
        return plain | {"problems": [vars(problem) for problem in self.problems]}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "FootageReport":
        """A report from its plain values.

        Args:
            content: of `to_dict`.
        """
        counters = {name: Counter(content[name]) for name in ("remarks", "refused", "time_origins")}
        problems = [Problem(**problem) for problem in content["problems"]]
        return cls(**{**content, **counters, "problems": problems})
