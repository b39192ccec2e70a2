"""Recordings that cannot both be right: those of one camera that lie over each other in time."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from tapetum.core.errors import DataError
from tapetum.footage.clock import format_time

_AT_A_CUT = 10.0  # seconds that recorders keep in both files, or that their starts are rounded by; or
_SHARE = 0.5  # of the shorter recording
_FIRST = 3  # names told of many


@dataclass(frozen=True, order=True)
class Recording:
    """From when to when a camera recorded."""

    camera: str
    start: float  # seconds since 1970-01-01 UTC
    name: str  # of its source
    seconds: float  # how long it is; 0 where nobody knows

    @property
    def end(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return self.start + self.seconds


def refuse_one_start(videos: Iterable[Recording]) -> None:
    """Refuse the start that an operator gave where several videos of one camera would begin at it.

    Raises:
        DataError: there are such videos.
    """
    for camera, own in groupby(sorted(set(videos)), key=lambda video: video.camera):
        names = [video.name for video in own]
        if len(names) > 1:
            some = ", ".join(names[:_FIRST]) + (", ..." if len(names) > _FIRST else "")
            raise DataError(
                f"--start: is one time, and camera {camera} has {len(names)} videos ({some}); index each with its own "
                "--start, or let their names say it (--path-pattern); several cameras need their names (--camera)"
            )


def doubt_overlaps(recordings: Iterable[Recording]) -> dict[Recording, str]:
    """A doubt on each recording that lies over another one of its camera: a start or a camera is wrong."""
    doubts: dict[Recording, str] = {}
    for camera, own in groupby(sorted(set(recordings)), key=lambda recording: recording.camera):
        for cluster in _clusters(list(own)):
            begins, ends = format_time(cluster[0].start), format_time(max(each.end for each in cluster))
            alike = len({each.start for each in cluster}) == 1
            where = f"all begin at {begins}" if alike else f"lie over each other between {begins} and {ends}"
            doubt = f"{len(cluster)} recordings of camera {camera} {where}, which one camera cannot do"
            remedy = "say their starts (--start, --path-pattern) or cameras (--camera)"
            doubts |= dict.fromkeys(cluster, f"{doubt}; {remedy}")
    return doubts


def _clusters(recordings: Sequence[Recording]) -> list[list[Recording]]:
    """Those of two and more that lie over each other, in a row.

    Args:
        recordings: of one camera, by their start.
    """
    clusters: list[list[Recording]] = []
    for recording in recordings:
        if clusters and any(_lie_over(earlier, recording) for earlier in _latest(clusters[-1])):
            clusters[-1].append(recording)
        else:
            clusters.append([recording])
    return [cluster for cluster in clusters if len(cluster) > 1]


def _latest(cluster: Sequence[Recording]) -> tuple[Recording, Recording]:
    """The last to begin and the last to end: what lies over any of them does over one of these."""
    return cluster[-1], max(cluster, key=lambda recording: recording.end)


def _lie_over(earlier: Recording, later: Recording) -> bool:
    overlap = min(earlier.end, later.end) - later.start
    return earlier.start == later.start or overlap > min(_AT_A_CUT, _SHARE * min(earlier.seconds, later.seconds))
