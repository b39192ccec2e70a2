"""What a run over footage did, counted and named."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from tapetum.footage.facts import ORIGINS, CameraFact, Origin

_MOST_NAMED = 1000  # problems, doubts and what was passed over kept by name; more are counted
_MOST_SOURCES = 10_000  # whose facts are kept
_FIRST = 5  # names printed of many


@dataclass(frozen=True)
class Problem:
    """Something that went wrong without ending the run.

    Attributes:
        source: name of the source.
        message: one line: place, value, remedy.
    """

    source: str
    message: str


@dataclass(frozen=True)
class SourceFacts:
    """What a source is taken for, and what said so.

    Attributes:
        source: its name.
        kind: "crops", "frames" or "video".
        files: that it consists of.
        cameras: whose they are.
        start: when it begins, seconds since 1970-01-01 UTC; None where each of its pictures has its own time.
        start_from: what said so.
        zone_written: whether every time's zone is known.
        doubts: why a camera or a time may be another.
    """

    source: str
    kind: str
    files: int
    cameras: tuple[CameraFact, ...]
    start: float | None
    start_from: Origin | None
    zone_written: bool
    doubts: tuple[str, ...]


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
        files: of sources "read", "finished" before and "failed" -> how many; a file of which a part was left out was
            read.
        passed_over: why files were passed over -> how many; a folder that cannot be looked at counts none.
        passed: the first thousand files and folders that were passed over, each with the reason.
        camera_origins: what said which camera it was -> sources.
        start_origins: what said when it begins -> sources.
        facts: of the first ten thousand sources.
        num_doubts: how many doubts there are about cameras and times.
        doubts: the first thousand of them.
        zones_assumed: sources with times whose zone is not known.
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
    time_origins: Counter[Origin] = field(default_factory=Counter)
    dark_frames: int = 0
    doubtful_modality: int = 0
    num_problems: int = 0
    problems: list[Problem] = field(default_factory=list)
    files: Counter[str] = field(default_factory=Counter)
    passed_over: Counter[str] = field(default_factory=Counter)
    passed: list[Problem] = field(default_factory=list)
    camera_origins: Counter[Origin] = field(default_factory=Counter)
    start_origins: Counter[Origin] = field(default_factory=Counter)
    facts: list[SourceFacts] = field(default_factory=list)
    num_doubts: int = 0
    doubts: list[Problem] = field(default_factory=list)
    zones_assumed: int = 0

    def note(self, source: str, message: str) -> None:
        """Count and keep a problem.

        Args:
            source: name of the source.
            message: one line.
        """
        self.num_problems += 1
        if len(self.problems) < _MOST_NAMED:
            self.problems.append(Problem(source, message))

    def pass_over(self, name: str, reason: str, files: int = 1) -> None:
        """Count and keep what was not looked at.

        Args:
            name: of the file or folder.
            reason: why.
            files: how many those are.
        """
        self.passed_over[reason] += files
        if len(self.passed) < _MOST_NAMED:
            self.passed.append(Problem(name, reason))

    def tell(self, facts: SourceFacts) -> None:
        """Count and keep what a source is taken for.

        Args:
            facts: of the source.
        """
        self.camera_origins.update({each.origin for each in facts.cameras})
        if facts.start_from is not None:
            self.start_origins[facts.start_from] += 1
        self.zones_assumed += not facts.zone_written
        for doubt in facts.doubts:
            self.doubt(facts.source, doubt)
        if len(self.facts) < _MOST_SOURCES:
            self.facts.append(facts)

    def doubt(self, source: str, message: str) -> None:
        """Count and keep why a camera or a time may be another.

        Args:
            source: name of the source.
            message: one line.
        """
        self.num_doubts += 1
        if len(self.doubts) < _MOST_NAMED:
            self.doubts.append(Problem(source, message))

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
        for mine, theirs, most in (
            (self.problems, other.problems, _MOST_NAMED),
            (self.passed, other.passed, _MOST_NAMED),
            (self.doubts, other.doubts, _MOST_NAMED),
            (self.facts, other.facts, _MOST_SOURCES),
        ):
            mine += theirs[: most - len(mine)]  # type: ignore[operator]

    def lines(self) -> list[str]:
        """For people, one fact a line."""
        told = [
            f"detector: {self.detector or 'none was needed'}",
            f"sources: {self.sources} read, {self.finished_before} finished before, {self.failed} unreadable, "
            f"{len(self.without_person)} without a person",
            f"files: {self.files['read']} read, {self.files['finished']} finished before, {self.files['failed']} "
            f"unreadable, {self.passed_over.total()} passed over",
            f"frames and pictures: {self.frames}; detections: {self.detections}",
            f"tracklets: {self.tracklets} kept, {self.dropped_tracklets} dropped; crops: {self.crops}",
        ]
        told += [f"{remark}: {count} crops" for remark, count in self.remarks.most_common()]
        told += [f"not kept, {reason}: {count} crops" for reason, count in self.refused.most_common()]
        if self.time_origins["mtime"]:
            told.append(f"time is only that of writing the file: {self.time_origins['mtime']} crops")
        told += self.fact_lines()
        if self.dark_frames:
            told.append(f"too dark to see anybody in: {self.dark_frames} frames")
        if self.doubtful_modality:
            told.append(f"modality in doubt, grey under a single tint: {self.doubtful_modality} crops")
        told += [f"nobody found: {name}" for name in self.without_person]
        told += [problem.message for problem in self.problems]
        if self.num_problems > len(self.problems):
            told.append(f"and {self.num_problems - len(self.problems)} more problems")
        return told

    def fact_lines(self) -> list[str]:
        """What said which camera it was and when, what is in doubt, and what was passed over."""
        told = [
            f"{what}: " + ", ".join(f"{count} from {ORIGINS[origin]}" for origin, count in origins.most_common())
            for what, origins in (
                ("cameras of sources", self.camera_origins),
                ("starts of sources", self.start_origins),
            )
            if origins
        ]
        if self.zones_assumed:
            told.append(f"no zone is written, --utc-offset is taken: {self.zones_assumed} sources")
        told += [f"in doubt, {doubt}: {_name_some(names)}" for doubt, names in _group(self.doubts).items()]
        if self.num_doubts > len(self.doubts):
            told.append(f"and {self.num_doubts - len(self.doubts)} more doubts")
        passed = _group(self.passed)
        told += [
            f"passed over: {f'{count} files' if count else 'folders'} {reason}"
            + (f": {_name_some(passed[reason])}" if reason in passed else "")
            for reason, count in self.passed_over.items()
        ]
        return told

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = dict(vars(self))
        plain |= {name: dict(plain[name]) for name in _COUNTERS}
        return plain | {name: [asdict(each) for each in plain[name]] for name in _LISTS}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "FootageReport":
        """A report from its plain values.

        Args:
            content: of `to_dict`.
        """
        plain = dict(content)
        plain |= {name: Counter(content[name]) for name in _COUNTERS}
        plain |= {name: [Problem(**each) for each in content[name]] for name in _LISTS if name != "facts"}
        plain["facts"] = [
            SourceFacts(
                **{
                    **each,
                    "cameras": tuple(CameraFact(**camera) for camera in each["cameras"]),
                    "doubts": tuple(each["doubts"]),
                }
            )
            for each in content["facts"]
        ]
        return cls(**plain)


_COUNTERS = ("remarks", "refused", "time_origins", "files", "passed_over", "camera_origins", "start_origins")
_LISTS = ("problems", "passed", "doubts", "facts")


def _group(named: list[Problem]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for each in named:
        grouped.setdefault(each.message, []).append(each.source)
    return grouped


def _name_some(names: list[str]) -> str:
    more = f" and {len(names) - _FIRST} more" if len(names) > _FIRST else ""
    return ", ".join(names[:_FIRST]) + more
