"""Models that come with the package, known by name: no training, no download."""

from pathlib import Path

from tapetum.core.errors import OutputError, nearest_name

FOLDER = Path(__file__).parents[1] / "packaged"
LICENCE = "apache-2.0"  # of all of them, as the package's, in the hub's spelling
DEFAULT = "tapetum-lite0"  # what `tapetum index` takes for a new gallery, see docs/lite0.md


def locate(place: Path) -> Path:
    """Where a model lies: in the package, if it is named after one there and nothing of that name lies here."""
    return FOLDER / f"{place}.safetensors" if is_packaged(place) else place


def is_packaged(place: Path) -> bool:
    """Whether a place is the name of a model in the package; what lies here under that name comes first."""
    return len(place.parts) == 1 and not place.exists() and (FOLDER / f"{place}.safetensors").is_file()


def is_present(place: Path) -> bool:
    """Whether something lies at a place, here or in the package."""
    return place.exists() or is_packaged(place)


def name_of(place: Path) -> str:
    """How a place is remembered: a packaged model by its name, good on every machine; others by where they lie."""
    return str(place) if is_packaged(place) else str(place.resolve())


def read_card(place: Path) -> str:
    """What stands on the card of a packaged model, in Markdown, below its title."""
    text = (FOLDER / f"{place}.md").read_text(encoding="utf-8")
    return text.partition("\n")[2].strip()


def advise(place: Path) -> str:
    """What to do where no model lies at a place: the name that was meant, or how a model is had."""
    hint = nearest_name(str(place), [path.stem for path in FOLDER.glob("*.safetensors")])
    meant = f"{hint} Else " if hint.startswith("did you mean") else ""
    return f"{meant}take {DEFAULT}, which comes with the package, or train one with `tapetum train`"


def refuse_packaged(place: Path, what: str) -> None:
    """Nothing is written into the package, whose folder others share.

    Args:
        what: and the option that says where else it may go.
    Raises:
        OutputError: the place is a packaged model.
    """
    if is_packaged(place):
        raise OutputError(f"{place}: comes with the package, into which nothing is written; {what}")
