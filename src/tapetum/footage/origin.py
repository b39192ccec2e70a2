"""What said who took a recording and when; `footage.facts` decides between them."""

from dataclasses import dataclass
from typing import Literal

Origin = Literal["option", "pattern", "metadata", "name", "folder", "mtime"]
ORIGINS: dict[Origin, str] = {  # for people
    "option": "option",
    "pattern": "path pattern",
    "metadata": "metadata",
    "name": "file name",
    "folder": "folder",
    "mtime": "file's time of writing",
}
GUESSED_TIME = "time guessed: file's time of writing"
GUESSED_CHANGE = "time guessed: EXIF says only when the picture was changed"


@dataclass(frozen=True)
class CameraFact:
    """Which camera it was."""

    camera: str  # its name in a gallery; letters, digits, '.', '_' and '-'
    written: str  # its name as it is written
    origin: Origin  # what says so
    site: str = ""  # what else stands around it: the same name at two sites may be two cameras
