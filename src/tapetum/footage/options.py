"""How footage becomes crops: the options of an extraction."""

from dataclasses import asdict, dataclass, field

from tapetum.core.errors import RecipeError
from tapetum.core.types import Modality
from tapetum.footage.decode import Limits
from tapetum.footage.quality import QualityOptions
from tapetum.footage.track import FEW, TrackerOptions

_FIRST_BAD_PACKETS = 200  # the limit of the first galleries


@dataclass(frozen=True)
class ExtractOptions:
    """How footage becomes crops; every field but `workers` is part of a source's key."""

    crops_per_tracklet: int = 8  # at most
    every_seconds: float = 0.5  # least time between two of them, about
    margin: float = 0.05  # added on each side of a box, as a fraction of it
    min_detections: int = 3  # tracklets with fewer are dropped; see `follow.is_walk` where few frames are looked at
    min_seconds: float = 0.5  # and shorter ones, but for folders of frames
    min_travel: float = 0.5  # of its own height that a tracklet must move, where the detector takes what moves
    least_quality_share: float = 0.5  # of its best crop's quality; others of a tracklet are left out
    max_people: int = 100  # boxes used of one frame, the best first
    max_crop_height: int = 1024  # pixels; higher crops are stored shrunk to that
    rate: float | None = None  # most frames a second that are looked at; None looks at all
    jpeg_quality: int = 95  # of stored crops
    modality: Modality | None = None  # of everything; None decides by each frame
    workers: int = 2  # threads that decode loose pictures
    tracker: TrackerOptions = field(default_factory=TrackerOptions)
    quality: QualityOptions = field(default_factory=QualityOptions)
    limits: Limits = field(default_factory=Limits)

    def deciding(self) -> dict[str, object]:
        """What decides which crops come out: all but the number of workers.

        At a low rate earlier versions lost people, so that footage which they finished is looked at again.
        """
        few = {"few": 1} if self.rate is not None and 1 / self.rate > FEW else {}
        stated = asdict(self)
        # a limit that was raised would name all footage anew, also what never reaches it
        usual = stated["limits"]["max_bad_packets"] == Limits.max_bad_packets
        limits = stated["limits"] | ({"max_bad_packets": _FIRST_BAD_PACKETS} if usual else {})
        return {**stated, "limits": limits, "workers": 0, **few}

    def __post_init__(self) -> None:
        for name, holds, rule in (
            ("crops_per_tracklet", self.crops_per_tracklet >= 1, "1 or more"),
            ("every_seconds", self.every_seconds > 0, "above 0"),
            ("margin", 0 <= self.margin <= 1, "in 0..1"),
            ("max_people", self.max_people >= 1, "1 or more"),
            ("max_crop_height", self.max_crop_height >= 16, "16 or more"),
            ("rate", self.rate is None or self.rate > 0, "above 0"),
            ("jpeg_quality", 1 <= self.jpeg_quality <= 100, "in 1..100"),
        ):
            if not holds:
                raise RecipeError(f"footage: {name} is {getattr(self, name)}; it must be {rule}")
