"""Pictures from files to arrays: one decoder and one resize for training, extraction and service.

Rules, the same everywhere:

- A picture becomes uint8 RGB. A single channel is repeated; 16 bits are scaled by their full range (65535 becomes 255,
  whatever the brightest value used is); an alpha channel is dropped, not blended.
- An EXIF orientation is applied, and `picture_size` speaks of the picture as applied.
- The size is read from the header and checked before anything is decoded.
- A JPEG or PNG that ends early is an error, not a picture with a grey rest.

The resize filter is part of a trained model. Backend "cv2" is the default; "pil" gives Pillow's filters, with which
most published checkpoints were trained.
"""

import struct
from io import BytesIO
from pathlib import Path
from typing import Literal, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from tapetum.core.atomic import write_bytes
from tapetum.core.errors import DataError

Picture = NDArray[np.uint8]  # (H, W, 3) RGB
Interpolation = Literal["bicubic", "bilinear", "lanczos"]
Backend = Literal["cv2", "pil"]

MAX_PIXELS = 50_000_000
MAX_BYTES = 256 * 2**20
_CV2_FILTER = {"bicubic": cv2.INTER_CUBIC, "bilinear": cv2.INTER_LINEAR, "lanczos": cv2.INTER_LANCZOS4}
_PIL_FILTER = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*")
_TIFF_BITS, _TIFF_FORMAT = 258, 339  # tags: bits of a number, and its kind
_TIFF_KINDS = {2: "int", 3: "float", 5: "complex int", 6: "complex"}  # others are without a sign
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0..SOF15; without DHT, JPG, DAC
_ORIENTATION_TAG = 0x0112


def read_picture(path: Path, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode one picture.

    Args:
        path: the file.
        max_pixels: larger pictures are refused before decoding.
    Returns:
        (H, W, 3) uint8 RGB, contiguous.
    Raises:
        DataError: missing, no picture, truncated or too large; the message names the file.
    """
    return decode_picture(_read_content(path), path, max_pixels=max_pixels)


def decode_picture(content: bytes, path: Path, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode one picture that is in memory.

    Args:
        content: of the file.
        path: its name, for messages.
        max_pixels: larger pictures are refused before decoding.
    Returns:
        (H, W, 3) uint8 RGB, contiguous.
    Raises:
        DataError: no picture, truncated or too large; the message names the file.
    """
    _check_size(path, _read_header(path, content), max_pixels)
    _check_complete(path, content)
    decoded = _decode(path, content)
    if decoded.dtype == np.uint16:
        decoded = ((decoded.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return cast(Picture, cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB))


def brightest_of_16_bits(path: Path) -> int | None:
    """The largest value of a picture stored in 16 bits; None where it has eight.

    Infrared cameras often use 12 or 14 of 16 bits: scaled by the full range such a picture is nearly black.

    Args:
        path: the file.
    Raises:
        DataError: as for `read_picture`.
    """
    content = _read_content(path)
    if content.startswith(b"\xff\xd8") or (content.startswith(_PNG_SIGNATURE) and content[24:25] != b"\x10"):
        return None
    _check_size(path, _read_header(path, content), MAX_PIXELS)
    decoded = _decode(path, content)
    return int(decoded.max()) if decoded.dtype == np.uint16 else None


def picture_size(path: Path) -> tuple[int, int]:
    """(height, width) from the header alone.

    Args:
        path: the file.
    Raises:
        DataError: missing, or no picture.
    """
    return _read_header(path, _read_content(path))


def resize(
    picture: Picture,
    size: tuple[int, int],
    *,
    interpolation: Interpolation = "bicubic",
    backend: Backend = "cv2",
) -> Picture:
    """Resize one picture.

    Args:
        picture: (H, W, 3) uint8.
        size: (height, width) wanted.
        interpolation: "bicubic", "bilinear" or "lanczos" (eight pixels wide in OpenCV, six in Pillow).
        backend: "cv2" takes the plain filter, and the mean over areas where both sides shrink to half or less (the
            plain filter would skip pixels); "pil" widens its filter with the shrinking.
    Returns:
        (*size, 3) uint8; the picture itself where it has that size already.
    """
    height, width = picture.shape[:2]
    if (height, width) == tuple(size):
        return picture
    target = (size[1], size[0])  # both libraries say (width, height)
    if backend == "pil":
        return np.asarray(Image.fromarray(picture).resize(target, _PIL_FILTER[interpolation]))
    shrinks = height >= 2 * size[0] and width >= 2 * size[1]
    chosen = cv2.INTER_AREA if shrinks else _CV2_FILTER[interpolation]
    return cast(Picture, cv2.resize(picture, target, interpolation=chosen))


def write_picture(path: Path, picture: Picture, *, jpeg_quality: int = 95) -> None:
    """Encode by the name's ending and write whole or not at all.

    Args:
        path: where; the folder exists.
        picture: (H, W, 3) uint8 RGB.
        jpeg_quality: 0..100, for JPEG.
    Raises:
        DataError: the ending names no known format.
    """
    try:
        options = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality] if path.suffix.lower() in (".jpg", ".jpeg") else []
        ok, encoded = cv2.imencode(path.suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
    except cv2.error:
        ok = False
    if not ok:
        raise DataError(f"{path}: pictures ending in {path.suffix!r} cannot be written; use .jpg or .png")
    write_bytes(path, encoded.tobytes())


def without_option(error: DataError) -> str:
    """What is wrong with a picture, for commands that have no --skip-corrupt.

    Args:
        error: of `read_picture`.
    """
    return str(error).replace(" or use --skip-corrupt", "")


def _decode(path: Path, content: bytes) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """(H, W, 3) BGR in 8 or 16 bits."""
    try:
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error:
        decoded = None
    if decoded is None:
        raise DataError(f"{path}: the picture is damaged and cannot be decoded; replace it or use --skip-corrupt")
    if decoded.dtype not in (np.uint8, np.uint16):
        raise _wrong_numbers(path, str(decoded.dtype))
    return cast("NDArray[np.uint8] | NDArray[np.uint16]", decoded)


def _wrong_numbers(path: Path, kind: str) -> DataError:
    return DataError(f"{path}: holds numbers of type {kind}; convert it to 8 bits or use --skip-corrupt")


def _read_content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); correct the path or its permissions") from None
    if len(content) > MAX_BYTES:
        raise DataError(
            f"{path}: larger than {MAX_BYTES // 2**20} MiB, no person crop; remove it or use --skip-corrupt"
        )
    if not content:
        raise DataError(f"{path}: the file is empty; replace it or use --skip-corrupt")
    return content


def _check_size(path: Path, size: tuple[int, int], max_pixels: int) -> None:
    height, width = size
    if height * width > max_pixels:
        raise DataError(
            f"{path}: {width} x {height} pixels exceed the limit of {max_pixels}; "
            f"cut the person out, replace the picture or use --skip-corrupt"
        )


def _read_header(path: Path, content: bytes) -> tuple[int, int]:
    """(height, width) as the picture will be decoded; JPEG and PNG by hand (fast, no pixel touched)."""
    if content.startswith(_PNG_SIGNATURE) and len(content) >= 24:
        width, height = struct.unpack(">II", content[16:24])
        return height, width
    if content.startswith(b"\xff\xd8"):
        size, _ = _scan_jpeg(content)
        if size:
            return size
    if content.startswith(_TIFF_SIGNATURES):
        _check_numbers_of_tiff(path, content)
    return _read_header_by_pillow(path, content)


def _check_numbers_of_tiff(path: Path, content: bytes) -> None:
    """Refuse all but 8 and 16 bits without a sign before a decoder sees them: decoders call such files damaged."""
    order = "<" if content.startswith(b"II") else ">"
    found = {_TIFF_BITS: 1, _TIFF_FORMAT: 1}  # where a file says nothing
    try:
        (start,) = struct.unpack_from(f"{order}I", content, 4)
        (count,) = struct.unpack_from(f"{order}H", content, start)
        entries = content[start + 2 : start + 2 + 12 * count]
        for tag, _, length, value in struct.iter_unpack(f"{order}HHI4s", entries):
            if tag in found:  # one 16-bit number a channel: here where two have room, else elsewhere
                place, within = (value, 0) if length <= 2 else (content, struct.unpack(f"{order}I", value)[0])
                (found[tag],) = struct.unpack_from(f"{order}H", place, within)
    except struct.error:
        return  # damaged, as the readers will say
    bits, kind = found[_TIFF_BITS], _TIFF_KINDS.get(found[_TIFF_FORMAT], "uint")
    if bits > 16 or kind != "uint":
        raise _wrong_numbers(path, f"{kind}{bits}")


def _read_header_by_pillow(path: Path, content: bytes) -> tuple[int, int]:
    try:
        with Image.open(BytesIO(content)) as picture:
            width, height = picture.size
            turned = picture.getexif().get(_ORIENTATION_TAG, 1) in (5, 6, 7, 8)
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: too many pixels ({error}); replace it or use --skip-corrupt") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, struct.error):
        raise DataError(f"{path}: not a picture, or damaged; replace it or use --skip-corrupt") from None
    return (width, height) if turned else (height, width)


def _scan_jpeg(content: bytes) -> tuple[tuple[int, int] | None, int]:
    """Walk the segments of a JPEG: ((height, width) or None, position of the first scan or -1)."""
    position, size, turned = 2, None, False
    while position + 4 <= len(content):
        if content[position] != 0xFF:
            return size, -1
        marker = content[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a body
            position += 2
            continue
        (length,) = struct.unpack(">H", content[position + 2 : position + 4])
        body = content[position + 4 : position + 2 + length]
        if marker in _FRAME_MARKERS and len(body) >= 5:
            size = struct.unpack(">HH", body[1:5])
        elif marker == 0xE1 and body.startswith(b"Exif\0\0"):
            turned = _is_turned(body)
        elif marker == 0xDA:
            return (size[::-1] if turned and size else size), position
        position += 2 + length
    return None, -1


def _is_turned(exif: bytes) -> bool:
    """Whether an EXIF block says that height and width change places."""
    reader = Image.Exif()
    try:
        reader.load(exif)
        return reader.get(_ORIENTATION_TAG, 1) in (5, 6, 7, 8)
    except (OSError, ValueError, SyntaxError, struct.error):
        return False


def _check_complete(path: Path, content: bytes) -> None:
    """A decoder fills the rest of a truncated picture with grey and says nothing; so look for the end mark."""
    if content.startswith(b"\xff\xd8"):
        _, scan = _scan_jpeg(content)
        # within a scan 0xFF is always followed by 0x00 or a restart mark, so this finds the true end
        complete = scan >= 0 and content.find(b"\xff\xd9", scan) >= 0
    elif content.startswith(_PNG_SIGNATURE):
        complete = content.rfind(b"IEND") >= 0
    else:
        complete = True
    if not complete:
        raise DataError(f"{path}: the picture is truncated ({len(content)} bytes); replace it or use --skip-corrupt")
