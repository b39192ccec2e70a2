"""What a run over footage did, counted and named."""

from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tapetum.footage.origin import ORIGINS, CameraFact, Origin

_MOST_NAMED = 1000  # problems, doubts and what was passed over kept by name; more are counted
_MOST_SOURCES = 10_000  # whose facts are kept
_FIRST = 5  # names printed of many


@dataclass(frozen=True)
class Problem:
    """Something that went wrong without ending the run."""

    source: str
    message: str  # one line: place, value, remedy


@dataclass(frozen=True)
class SourceFacts:
    """What a source is taken for, and what said so."""

    source: str  # its name
    kind: str  # "crops", "frames" or "video"
    files: int  # that it consists of
    cameras: tuple[CameraFact, ...]  # whose they are
    # when it begins, seconds since 1970-01-01 UTC; None where each of its pictures has its own time
    start: float | None
    start_from: Origin | None  # what said so
    zone_written: bool  # whether every time's zone is known
    doubts: tuple[str, ...]  # why a camera or a time may be another


@dataclass
class FootageReport:
    """Counts of a run; a run adds to it, so that one report can go through many sources."""

    detector: str = ""  # name of the detector; a fallback says that it is one
    sources: int = 0  # sources begun in this run
    finished_before: int = 0  # sources that an earlier run had finished, and that were passed over
    failed: int = 0  # sources of which nothing could be read
    without_person: list[str] = field(default_factory=list)  # names of sources in which nobody was found
    # sources in which somebody was found and nobody followed for long enough, each with how many boxes and the remedy
    kept_nobody: list[Problem] = field(default_factory=list)
    frames: int = 0  # frames and pictures looked at
    detections: int = 0  # boxes found in them
    tracklets: int = 0  # walks that were kept
    dropped_tracklets: int = 0  # walks too short, or of something that never walked
    dropped_detections: int = 0  # boxes of these
    crops: int = 0  # crops written
    refused: Counter[str] = field(default_factory=Counter)  # why crops were not kept -> how many
    remarks: Counter[str] = field(default_factory=Counter)  # remark -> crops that have it
    time_origins: Counter[Origin] = field(default_factory=Counter)  # origin of the times -> crops
    dark_frames: int = 0  # frames too dark to see anybody in
    undetectable_frames: int = 0  # frames so dark that detectors miss most people: silence there is no absence
    undetectable: list[str] = field(default_factory=list)  # names of sources of which most frames are so dark
    doubtful_modality: int = 0  # crops of grey pictures under a single tint, whose modality is a guess
    num_problems: int = 0  # how many there were
    problems: list[Problem] = field(default_factory=list)  # the first thousand of them
    # of sources "read", "finished" before and "failed" -> how many; a file of which a part was left out was read
    files: Counter[str] = field(default_factory=Counter)
    # why files were passed over -> how many; a folder that cannot be looked at counts none
    passed_over: Counter[str] = field(default_factory=Counter)
    # the first thousand files and folders that were passed over, each with the reason
    passed: list[Problem] = field(default_factory=list)
    camera_origins: Counter[Origin] = field(default_factory=Counter)  # what said which camera it was -> sources
    start_origins: Counter[Origin] = field(default_factory=Counter)  # what said when it begins -> sources
    facts: list[SourceFacts] = field(default_factory=list)  # of the first ten thousand sources
    num_doubts: int = 0  # how many doubts there are about cameras and times
    doubts: list[Problem] = field(default_factory=list)  # the first thousand of them
    zones_assumed: int = 0  # sources with times whose zone is not known

    def note(self, source: str, message: str) -> None:
        """Count and keep a problem."""
        self.num_problems += 1
        if len(self.problems) < _MOST_NAMED:
            self.problems.append(Problem(source, message))

    def pass_over(self, name: str, reason: str, files: int = 1) -> None:
        """Count and keep what was not looked at."""
        self.passed_over[reason] += files
        if len(self.passed) < _MOST_NAMED:
            self.passed.append(Problem(name, reason))

    def tell(self, facts: SourceFacts) -> None:
        """Count and keep what a source is taken for."""
        self.camera_origins.update({each.origin for each in facts.cameras})
        if facts.start_from is not None:
            self.start_origins[facts.start_from] += 1
        self.zones_assumed += not facts.zone_written
        for doubt in facts.doubts:
            self.doubt(facts.source, doubt)
        if len(self.facts) < _MOST_SOURCES:
            self.facts.append(facts)

    def doubt(self, source: str, message: str) -> None:
        """Count and keep why a camera or a time may be another."""
        self.num_doubts += 1
        if len(self.doubts) < _MOST_NAMED:
            self.doubts.append(Problem(source, message))

    def add(self, other: "FootageReport") -> None:
        """Take over what another run did."""
        for name, value in vars(other).items():
            if isinstance(value, int):
                setattr(self, name, getattr(self, name) + value)
            elif isinstance(value, Counter):
                getattr(self, name).update(value)
        self.detector = self.detector or other.detector
        self.without_person += other.without_person
        self.kept_nobody += other.kept_nobody
        self.undetectable += other.undetectable
        for mine, theirs, most in (
            (self.problems, other.problems, _MOST_NAMED),
            (self.passed, other.passed, _MOST_NAMED),
            (self.doubts, other.doubts, _MOST_NAMED),
            (self.facts, other.facts, _MOST_SOURCES),
        ):
            mine += theirs[: most - len(mine)]  # type: ignore[operator]

    def lines(self) -> list[str]:
        """For people, one fact a line."""
        lines = [
            f"detector: {self.detector or 'none was needed'}",
            f"sources: {self.sources} read, {self.finished_before} finished before, {self.failed} unreadable, "
            f"{len(self.without_person)} without a person"
            + f", {len(self.kept_nobody)} of which nobody was kept"
            * bool(self.kept_nobody),
            f"files: {self.files['read']} read, {self.files['finished']} finished before, {self.files['failed']} "
            f"unreadable, {self.passed_over.total()} passed over",
            f"frames and pictures: {self.frames}; detections: {self.detections}",
            f"tracklets: {self.tracklets} kept, {self.dropped_tracklets} dropped; crops: {self.crops}",
        ]
        lines += [f"{remark}: {count} crops" for remark, count in self.remarks.most_common()]
        lines += [f"not kept, {reason}: {count} crops" for reason, count in self.refused.most_common()]
        if self.time_origins["mtime"]:
            lines.append(f"time is only that of writing the file: {self.time_origins['mtime']} crops")
        lines += self.fact_lines()
        if self.dark_frames:
            lines.append(f"too dark to see anybody in: {self.dark_frames} frames")
        if self.doubtful_modality:
            lines.append(f"modality in doubt, grey under a single tint: {self.doubtful_modality} crops")
        if self.undetectable_frames:
            lines.append(f"too dark to detect: {self.undetectable_frames} frames; who was there is not known")
        dark = set(self.undetectable)
        lines += [
            f"nobody found: {name}" + (", but it is too dark to detect; somebody may be there" * (name in dark))
            for name in self.without_person
        ]
        lines += [f"nobody kept: {each.source}: {each.message}" for each in self.kept_nobody]
        lines += [problem.message for problem in self.problems]
        if self.num_problems > len(self.problems):
            lines.append(f"and {self.num_problems - len(self.problems)} more problems")
        return lines

    def fact_lines(self) -> list[str]:
        """What said which camera it was and when, what is in doubt, and what was passed over."""
        lines = [
            f"{what}: " + ", ".join(f"{count} from {ORIGINS[origin]}" for origin, count in origins.most_common())
            for what, origins in (
                ("cameras of sources", self.camera_origins),
                ("starts of sources", self.start_origins),
            )
            if origins
        ]
        if self.zones_assumed:
            lines.append(f"no zone is written, --utc-offset is taken: {self.zones_assumed} sources")
        lines += [f"in doubt, {doubt}: {_name_some(names)}" for doubt, names in _group(self.doubts).items()]
        if self.num_doubts > len(self.doubts):
            lines.append(f"and {self.num_doubts - len(self.doubts)} more doubts")
        places = _group(self.passed)
        lines += [
            f"passed over: {f'{count} files' if count else 'folders'} {reason}"
            + (f": {_name_some(places[reason])}" if reason in places else "")
            for reason, count in self.passed_over.items()
        ]
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = vars(self) | {name: dict(getattr(self, name)) for name in _COUNTERS}
        return plain | {name: [asdict(each) for each in plain[name]] for name in _LISTS}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "FootageReport":
        """A report from its plain values."""
        plain = content | {name: Counter(content[name]) for name in _COUNTERS}
        plain |= {name: [Problem(**each) for each in content[name]] for name in _PROBLEMS}
        plain["facts"] = [
            SourceFacts(**each | {"cameras": tuple(CameraFact(**camera) for camera in each["cameras"])})
            for each in content["facts"]
        ]
        plain["facts"] = [replace(facts, doubts=tuple(facts.doubts)) for facts in plain["facts"]]
        return cls(**plain)


_COUNTERS = ("remarks", "refused", "time_origins", "files", "passed_over", "camera_origins", "start_origins")
_PROBLEMS = ("problems", "passed", "doubts", "kept_nobody")
_LISTS = (*_PROBLEMS, "facts")


def _group(problems: list[Problem]) -> dict[str, list[str]]:
    sources: dict[str, list[str]] = {}
    for each in problems:
        sources.setdefault(each.message, []).append(each.source)
    return sources


def _name_some(names: list[str]) -> str:
    more = f" and {len(names) - _FIRST} more" if len(names) > _FIRST else ""
    return ", ".join(names[:_FIRST]) + more
