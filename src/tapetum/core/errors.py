"""Errors a person can act on: each names the place, the value and the remedy, in one line.

The command line prints the message and leaves with status 2; nothing is printed and carried on.
"""

import difflib
from collections.abc import Iterable


class TapetumError(Exception):
    """Base of everything the project raises on purpose."""


class DataError(TapetumError):
    """A dataset, a picture or a video is missing, damaged or laid out in another way than expected."""


class LargePictureError(DataError):
    """A picture has more pixels than are decoded."""


class RecipeError(TapetumError):
    """A recipe or an option has an unknown key, a wrong type or a value that cannot work."""


class MethodError(RecipeError):
    """A method's file breaks the contract of `tapetum.core.method`: a part is missing, or gives what it should not."""


class CheckpointError(TapetumError):
    """A checkpoint is damaged or belongs to another method, class count or version."""


class ProtocolError(TapetumError):
    """An evaluation cannot be carried out by its protocol."""


class TrainingError(TapetumError):
    """Training cannot go on (loss became NaN, too few identities, ...)."""


class GalleryError(TapetumError):
    """A gallery cannot be opened, belongs to another model or version, or refuses a row or a question."""


class MissingGalleryError(GalleryError):
    """There is no gallery at that place yet."""


class FilterError(GalleryError):
    """A filter names an unknown field, compares what cannot be compared, or cannot be read."""


class MissingLibraryError(TapetumError):
    """A library of an optional part is not installed."""


class OutputError(TapetumError):
    """A result cannot be written (folder not writable, disk full, in use by another run)."""


class InUseError(OutputError):
    """Another process holds what this one wants to write."""


def first_line(error: BaseException) -> str:
    """What another library's error says, short enough to stand in a line of ours; its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def nearest_name(name: str, known: Iterable[str]) -> str:
    """A "did you mean ...?" clause for a misspelt name, or the list of known names."""
    choices = sorted(known)
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(choices)}"
