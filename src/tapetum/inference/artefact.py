"""An exported model: a folder with the network's file and ``artefact.json``, which says all that its user must know.

The folder is written whole or not at all. Every file's digest stands in ``artefact.json`` and is checked on opening.
"""

import dataclasses
import json
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from tapetum.core.atomic import flush, make_folder, write_bytes
from tapetum.core.digest import digest_file
from tapetum.core.errors import CheckpointError, OutputError, TapetumError
from tapetum.data.image_io import Backend, Interpolation

WILD = "*?[]"  # in a file's name, would stand for others where files are fetched by patterns
FORMAT = 1
CARD = "artefact.json"
PROBE = "probe.safetensors"
Runtime = Literal["onnx", "openvino", "torchscript"]
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)


class ArtefactError(CheckpointError):
    """An exported model is damaged, of another version, or needs something that is not there."""


class ExportError(TapetumError):
    """A model cannot be exported, or what came out differs from it."""


@dataclass(frozen=True)
class ModelSettings:
    """How a model sees pictures: two models with equal weights and equal settings give comparable vectors.

    Attributes:
        method, options: the network.
        interpolation, backend: the resize filter.
        mirror: each picture is joined with its mirror, inside the model.
        normalisation: what the model does to pictures by itself, by name; nothing is left to its user.
        metric: by which vectors are compared; they have unit length.
    """

    method: str
    options: Mapping[str, Any]
    size: tuple[int, int]
    interpolation: Interpolation
    backend: Backend
    mirror: bool
    normalisation: str
    colours: str = "RGB"
    value_range: tuple[float, float] = (0.0, 1.0)
    metric: str = "cosine"


@dataclass(frozen=True)
class Artefact:
    """What ``artefact.json`` says.

    Attributes:
        model: id, see `tapetum.inference.model_id`; the same for a run and everything exported from it.
        dimension: length of a vector.
        files: name -> SHA-256 of every other file of the folder.
        precision: of the stored weights.
        opset: of an ONNX file, or of that from which the OpenVINO files were made.
        calibration: what `tapetum calibrate` found beside the run, as `to_content` of
            `tapetum.evaluation.calibration` gives it; without pairs where it did not run for this model.
    """

    model: str
    runtime: Runtime
    settings: ModelSettings
    dimension: int
    files: Mapping[str, str]
    precision: str = "fp32"
    opset: int | None = None
    check: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=lambda: {"pairs": {}})
    versions: Mapping[str, str] = field(default_factory=dict)
    format: int = FORMAT


def is_artefact(place: Path) -> bool:
    """Whether a folder claims to be an exported model; it may be damaged."""
    return (place / CARD).is_file()


def read_artefact(folder: Path, *, check_files: bool = True) -> Artefact:
    """What an exported model says about itself, after checking that its files are those that were written.

    Args:
        check_files: false reads ``artefact.json`` alone.
    Raises:
        ArtefactError: no artefact, damaged, or of another version.
    """
    path = folder / CARD
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ArtefactError(f"{path}: cannot be read ({error.strerror}); make it with `tapetum export`") from None
    except ValueError as error:
        raise ArtefactError(f"{path}: damaged ({error}); export the model again") from None
    artefact = _parse(content, path)
    for name, digest in artefact.files.items() if check_files else ():
        _check_file(folder / name, digest)
    return artefact


def write_artefact(folder: Path, artefact: Artefact) -> None:
    """Write ``artefact.json``."""
    write_bytes(folder / CARD, to_json(dataclasses.asdict(artefact)))


def replace_calibration(folder: Path, calibration: Mapping[str, Any]) -> Artefact:
    """Store a calibration in an artefact; everything else stays.

    Args:
        calibration: plain values: {"pairs": {...}}.
    """
    artefact = dataclasses.replace(read_artefact(folder), calibration=dict(calibration))
    write_artefact(folder, artefact)
    return artefact


def check_is_free(folder: Path) -> None:
    """Refuse a place where something lies already.

    Raises:
        OutputError: it is a file, or a folder with something in it.
    """
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        raise OutputError(f"{folder}: is there already; remove it or choose another folder")


@contextmanager
def writing_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` when the block ends well, and vanishes otherwise.

    Raises:
        OutputError: something lies there, or it cannot be written.
    """
    check_is_free(folder)
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    make_folder(temporary)
    try:
        yield temporary
        for path in (*temporary.iterdir(), temporary):
            flush(path)
        temporary.replace(folder)
        flush(folder.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{folder}: cannot be written ({reason}); free space or choose another folder") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def to_json(content: Mapping[str, Any]) -> bytes:
    """Plain values in the one way that digests and files have them."""
    return (json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False, default=list) + "\n").encode()


def _parse(content: Any, path: Path) -> Artefact:
    version = content.get("format") if isinstance(content, dict) else None
    if not isinstance(version, int):
        raise ArtefactError(f"{path}: no artefact of this project (it names no format); make it with `tapetum export`")
    if version != FORMAT:
        remedy = "update tapetum" if version > FORMAT else "export the model again"
        raise ArtefactError(f"{path}: format {version}, this version reads {FORMAT}; {remedy}")
    try:
        settings = dict(content["settings"])
        height, width = (int(side) for side in settings["size"])
        low, high = (float(value) for value in settings["value_range"])
        settings |= {"size": (height, width), "value_range": (low, high)}
        artefact = Artefact(**content | {"settings": ModelSettings(**settings)})
        names = [*dict(artefact.files)]
        pairs = dict(artefact.calibration)["pairs"]
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(f"{path}: damaged ({error!r}); export the model again") from None
    if artefact.runtime not in RUNTIMES:
        raise ArtefactError(f"{path}: runtime {artefact.runtime!r} is unknown; known: {', '.join(RUNTIMES)}")
    strange = [name for name in names if Path(name).name != name or set(name) & set(WILD)]
    if strange or PROBE not in names or not isinstance(pairs, dict) or artefact.dimension < 1:
        raise ArtefactError(f"{path}: damaged (files {names}); export the model again")
    return artefact


def _check_file(path: Path, expected: str) -> None:
    try:
        digest = digest_file(path)
    except OSError as error:
        raise ArtefactError(f"{path}: cannot be read ({error.strerror}); use another copy of the artefact") from None
    if digest != expected:
        raise ArtefactError(f"{path}: is not the file that was exported (another SHA-256); use another copy")
