"""Pictures from files to arrays: one decoder and one resize for training, extraction and service.

Rules, the same everywhere:

- A picture becomes uint8 RGB. A single channel is repeated; 16 bits are scaled by their full range (65535 becomes 255,
  whatever the brightest value used is); an alpha channel is dropped, not blended.
- An EXIF orientation is applied, in JPEG, PNG, TIFF and WebP, and `picture_size` speaks of the picture as applied.
- The size is read from the header and checked before anything is decoded.
- A picture that lost data is an error, not a picture with a grey or torn rest, even where its end mark is there. Found
  is what a format lets one find: missing data in all of them; changed data in PNG (by its checksums), and in JPEG and
  compressed TIFF where they no longer decode to the end that they should. WebP, BMP and plain TIFF have no such marks.
- Decoders print nothing: what they say of a picture is in the error, beside its name.

The resize filter is part of a trained model. Backend "cv2" is the default; "pil" gives Pillow's filters, with which
most published checkpoints were trained.
"""

import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, cast

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from tapetum.core.atomic import write_bytes
from tapetum.core.errors import DataError, LargePictureError
from tapetum.data.jpeg_scans import lacks_scans

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
_Decoded = NDArray[np.uint8] | NDArray[np.uint16]
_JPEG_SIGNATURE, _PNG_SIGNATURE = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
_LARGE_TILE = 1 << 22  # pixels
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two with 64-bit addresses
_TIFF_KINDS = {2: "int", 3: "float", 5: "complex int", 6: "complex"}  # others are without a sign
_ORIENTATION = 0x0112  # the tag of EXIF and of TIFF
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _CHANNELS, _FORMAT = 256, 257, 258, 259, 262, 277, 339  # of TIFF
_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES, _JPEG_TABLES = 273, 279, 324, 325, 347
_TAGS = (
    *(_ORIENTATION, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _CHANNELS, _FORMAT),
    *(_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES, _JPEG_TABLES),
)
_BLACK_IS_ZERO, _UNCOMPRESSED, _JPEG_WITHIN, _DEFLATED = 1, 1, 7, (8, 32946)
_PNG_PICTURE = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT"})
_PLAIN_MODES = ("1", "L", "LA", "P", "RGB")
_HARMLESS = ("Warning: unknown JFIF revision", "Unknown Adobe color transform", "Invalid SOS parameters")
_MOST_PADDING = 15  # bytes: cameras fill the end of a JPEG to a multiple of 16 at most
_DAMAGE = (OSError, ValueError, SyntaxError, LookupError, TypeError, EOFError, struct.error, zlib.error)
_FLIPS = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}  # orientation -> axis as in OpenCV; from 5 on after a transposition
_MOST_EXIF = 2**16  # bytes of a segment
_PILLOW = threading.Lock()  # the filters of warnings belong to the process,
_OPENCV_LOG = threading.Lock()  # and so does the level of a log


@dataclass(frozen=True)
class _Stored:
    """A picture of which only the header was read."""

    size: tuple[int, int]  # (height, width), upright
    decode: Callable[[], _Decoded]  # gives (H, W, 3) RGB in 8 or 16 bits, upright, or a `DataError` where data is lost


def read_picture(path: Path, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode one picture.

    Args:
        max_pixels: larger pictures are refused before decoding.
    Returns:
        (H, W, 3) uint8 RGB, contiguous.
    Raises:
        DataError: missing, no picture or damaged, and as a `LargePictureError` too large; the message names the file.
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
        DataError: no picture or damaged, and as a `LargePictureError` too large; the message names the file.
    """
    file = _open(path, content)
    _check_size(path, file.size, max_pixels)
    pixels = file.decode()
    if pixels.dtype == np.uint16:
        pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return cast(Picture, pixels)


def brightest_of_16_bits(path: Path) -> int | None:
    """The largest value of a picture stored in 16 bits; None where it has eight.

    Infrared cameras often use 12 or 14 of 16 bits: scaled by the full range such a picture is nearly black.

    Raises:
        DataError: as for `read_picture`.
    """
    content = _read_content(path)
    if content.startswith(_JPEG_SIGNATURE) or (content.startswith(_PNG_SIGNATURE) and content[24:25] != b"\x10"):
        return None
    file = _open(path, content)
    _check_size(path, file.size, MAX_PIXELS)
    pixels = file.decode()
    return int(pixels.max()) if pixels.dtype == np.uint16 else None


def picture_size(path: Path) -> tuple[int, int]:
    """(height, width) from the header alone.

    Raises:
        DataError: missing, or no picture.
    """
    return _open(path, _read_content(path)).size


def resize(
    picture: Picture,
    size: tuple[int, int],
    *,
    interpolation: Interpolation = "bicubic",
    backend: Backend = "cv2",
) -> Picture:
    """Resize one picture.

    Args:
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
    cv2_filter = cv2.INTER_AREA if shrinks else _CV2_FILTER[interpolation]
    return cast(Picture, cv2.resize(picture, target, interpolation=cv2_filter))


def check_picture(picture: Any, place: str) -> None:
    """Refuse what is no picture in memory: floats would become black, and 16 bits wrap.

    Raises:
        DataError: it is no (h, w, 3) uint8 array.
    """
    kind, shape = getattr(picture, "dtype", None), tuple(getattr(picture, "shape", ()))
    if kind != np.uint8 or len(shape) != 3 or shape[-1] != 3 or 0 in shape:
        what = f"{kind} of shape {shape}" if kind is not None else type(picture).__name__
        raise DataError(f"{place}: is {what}; give (height, width, 3) uint8 in the order red, green, blue")


def write_picture(path: Path, picture: Picture, *, jpeg_quality: int = 95) -> None:
    """Encode by the name's ending and write whole or not at all.

    Args:
        path: where; the folder exists.
        jpeg_quality: 0..100, for JPEG.
    Raises:
        DataError: the ending names no known format.
    """
    try:
        options = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality] if path.suffix.lower() in (".jpg", ".jpeg") else []
        ok, content = cv2.imencode(path.suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
    except cv2.error:
        ok = False
    if not ok:
        raise DataError(f"{path}: pictures ending in {path.suffix!r} cannot be written; use .jpg or .png")
    write_bytes(path, content.tobytes())


def without_option(error: DataError) -> str:
    """What is wrong with a picture, for commands that have no --skip-corrupt."""
    return str(error).replace(" or use --skip-corrupt", "")


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
        raise LargePictureError(
            f"{path}: {width} x {height} pixels exceed the limit of {max_pixels}; "
            f"cut the person out, replace the picture or use --skip-corrupt"
        )


def _damaged(path: Path, why: object) -> DataError:
    return DataError(f"{path}: the picture is damaged ({why}); replace it or use --skip-corrupt")


def _no_picture(path: Path) -> DataError:
    return DataError(f"{path}: not a picture, or damaged; replace it or use --skip-corrupt")


def _open(path: Path, content: bytes) -> _Stored:
    if content.startswith(_JPEG_SIGNATURE):
        return _open_jpeg(path, content)
    if content.startswith(_PNG_SIGNATURE):
        return _open_png(path, content)
    if content.startswith(_TIFF_SIGNATURES):
        return _open_tiff(path, content)
    return _open_other(path, content)


def _open_other(path: Path, content: bytes) -> _Stored:
    picture = _open_by_pillow(path, content)
    orientation = _orientation_of(picture.info.get("exif", b"")) if picture.format in ("WEBP", "JPEG") else 1
    size = _upright_size(picture.height, picture.width, orientation)

    def decode() -> _Decoded:
        if picture.format == "WEBP":
            return _upright(_decode_by_opencv(path, content), orientation)
        return _upright(
            (_decode_by_pillow if picture.format == "JPEG" else _decode_in_silence)(path, content), orientation
        )

    return _Stored(size, decode)


def _open_jpeg(path: Path, content: bytes) -> _Stored:
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content, strict=False)
    except (ValueError, KeyError):  # damaged, or a sampling of the colours for which the library has no name
        return _open_other(path, content)
    start = content.find(b"Exif\0\0")
    orientation = _orientation_of(content[start : start + _MOST_EXIF]) if start > 0 else 1
    size = _upright_size(int(height), int(width), orientation)
    return _Stored(size, lambda: _upright(_decode_jpeg(path, content, colours), orientation))


def _decode_jpeg(path: Path, content: bytes, colours: str) -> _Decoded:
    """(H, W, 3) RGB. libjpeg makes up whatever a scan lacks, with a warning: strict decoding makes it an error."""
    inks = colours in ("CMYK", "YCCK")
    space = "CMYK" if inks else "RGB"
    try:
        pixels = simplejpeg.decode_jpeg(content, space)
    except ValueError as error:
        if str(error).startswith(_HARMLESS):
            return _decode_by_pillow(path, content)
        try:
            pixels = simplejpeg.decode_jpeg(_unpadded(content), space)
        except ValueError:
            raise _damaged(path, error) from None
    if lacks_scans(content):
        raise _damaged(path, "scans are missing")
    return cast(_Decoded, _decode_by_opencv(path, content) if inks else pixels)


def _unpadded(content: bytes) -> bytes:
    """A JPEG without the few zero bytes that some cameras write before the end mark; they replace nothing."""
    end = content.rfind(b"\xff\xd9")
    data = content[:end].rstrip(b"\0")
    if data.endswith(b"\xff"):  # its zero byte belongs to it
        data += b"\0"
    return data + content[end:] if end - len(data) <= _MOST_PADDING else content


def _open_png(path: Path, content: bytes) -> _Stored:
    if content[12:16] != b"IHDR" or len(content) < 33:
        raise _no_picture(path)
    width, height = struct.unpack_from(">II", content, 16)
    exif = next((content[start + 8 : end - 4] for kind, start, end in _png_chunks(content) if kind == b"eXIf"), b"")
    orientation = _orientation_of(exif)
    size = _upright_size(height, width, orientation)
    return _Stored(size, lambda: _upright(_decode_png(path, content), orientation))


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of the chunks that are there in full, the last one being IEND in a whole file."""
    start = len(_PNG_SIGNATURE)
    while start + 12 <= len(content):
        kind = content[start + 4 : start + 8]
        end: int = start + 12 + struct.unpack_from(">I", content, start)[0]
        if end > len(content):
            return
        yield kind, start, end
        if kind == b"IEND":
            return
        start = end


def _decode_png(path: Path, content: bytes) -> _Decoded:
    """(H, W, 3) RGB from the chunks that make the picture; libpng would print its opinion of the others."""
    view, kept, kind, other = memoryview(content), [memoryview(_PNG_SIGNATURE)], b"", False
    for kind, start, end in _png_chunks(content):
        if kind not in _PNG_PICTURE and kind[0] & 0x20:  # a small first letter: the picture can be had without it
            other = True
        elif zlib.crc32(view[start + 4 : end - 4]) != struct.unpack_from(">I", content, end - 4)[0]:
            raise _damaged(path, "a checksum does not fit")
        else:
            kept.append(view[start:end])
    if kind != b"IEND":
        raise _damaged(path, f"truncated after {len(content)} bytes")
    return _decode_by_opencv(path, b"".join(kept) if other else content)


def _open_tiff(path: Path, content: bytes) -> _Stored:
    """The libraries turn a TIFF themselves; any numbers but 8 and 16 bits without a sign are refused by their type."""
    tags = _read_tags(path, content)
    try:
        bits, kind = max(tags.get(_BITS, (1,))), _TIFF_KINDS.get(max(tags.get(_FORMAT, (1,))), "uint")
        size = _upright_size(int(tags[_HEIGHT]), int(tags[_WIDTH]), tags.get(_ORIENTATION, 1))
    except _DAMAGE:
        raise _no_picture(path) from None
    if bits > 16 or kind != "uint":
        raise _wrong_numbers(path, f"{kind}{bits}")
    return _Stored(size, lambda: _decode_tiff(path, content, tags, bits))


def _decode_tiff(path: Path, content: bytes, tags: Mapping[int, Any], bits: int) -> _Decoded:
    """(H, W, 3) RGB. OpenCV goes on where compressed data breaks off or is wrong, so others look at it first."""
    compression = tags.get(_COMPRESSION, _UNCOMPRESSED)
    if compression == _UNCOMPRESSED:
        return _decode_in_silence(path, content)
    if compression in (_JPEG_WITHIN, *_DEFLATED) and tags.get(_CHANNELS, 1) != 2:
        _check_parts(path, content, tags, most=tags[_WIDTH] * tags[_HEIGHT] * tags.get(_CHANNELS, 1) * 2)
        return _decode_in_silence(path, content)
    return _decode_by_pillow(path, content, plain=bits <= 8 or tags.get(_PHOTOMETRIC) == _BLACK_IS_ZERO)


def _read_tags(path: Path, content: bytes) -> dict[int, Any]:
    try:
        with _PILLOW, warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            directory = ImageFileDirectory_v2(content[:16] if content[:4] in _TIFF_SIGNATURES[2:] else content[:8])
            file = BytesIO(content)
            file.seek(directory.next)
            directory.load(file)
            return {tag: directory[tag] for tag in _TAGS if tag in directory}
    except _DAMAGE:
        raise _no_picture(path) from None


def _check_parts(path: Path, content: bytes, tags: Mapping[int, Any], *, most: int) -> None:
    """Unpack the strips or tiles of a TIFF: deflated, of `most` bytes, or each a JPEG without its tables.

    All together may hold four times what the picture does, as tiles at its edges do, and a large tile more: a file of a
    few hundred bytes can tell of more than a machine has.
    """
    pixels, unpacked = tags[_WIDTH] * tags[_HEIGHT], 0
    tables = tags.get(_JPEG_TABLES, b"")[:-2] or _JPEG_SIGNATURE
    try:
        starts, lengths = (tags[_STRIPS], tags[_STRIP_BYTES]) if _STRIPS in tags else (tags[_TILES], tags[_TILE_BYTES])
        for start, length in zip(starts, lengths, strict=True):
            if tags[_COMPRESSION] == _JPEG_WITHIN:
                part = tables + content[start + 2 : start + length]
                height, width, colours, _ = simplejpeg.decode_jpeg_header(part, strict=False)
                inks = colours in ("CMYK", "YCCK")
                unpacked += height * width
                _refuse_bomb(unpacked, 4 * pixels + _LARGE_TILE)
                simplejpeg.decode_jpeg(part, "CMYK" if inks else "RGB")
            else:
                inflate = zlib.decompressobj()
                unpacked += len(inflate.decompress(content[start : start + length], most))
                _refuse_bomb(unpacked, 4 * most + 8 * _LARGE_TILE)
                if not inflate.eof:
                    raise ValueError("data is missing")
    except _DAMAGE as error:
        raise _damaged(path, error) from None


def _refuse_bomb(unpacked: int, most: int) -> None:
    if unpacked > most:
        raise ValueError(f"its parts hold more than {most} where they may")


def _open_by_pillow(path: Path, content: bytes) -> Image.Image:
    """Read a header; what Pillow warns of (odd tags, many pixels) is decided by us, and printed by nobody."""
    try:
        with _PILLOW, warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            return Image.open(BytesIO(content))
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: too many pixels ({error}); replace it or use --skip-corrupt") from None
    except (UnidentifiedImageError, *_DAMAGE):
        raise _no_picture(path) from None


def _decode_by_pillow(path: Path, content: bytes, *, plain: bool = True) -> _Decoded:
    """(H, W, 3) RGB in 8 or 16 bits. What is not `plain` is for OpenCV, after Pillow saw no damage."""
    picture = _open_by_pillow(path, content)
    try:
        picture.load()
    except _DAMAGE as error:
        raise _damaged(path, error) from None
    if plain and picture.mode in _PLAIN_MODES:
        return np.asarray(picture.convert("RGB"))
    if plain and picture.mode == "I;16":
        return cast(_Decoded, cv2.cvtColor(np.asarray(picture, np.uint16), cv2.COLOR_GRAY2RGB))
    return _decode_in_silence(path, content)


def _decode_in_silence(path: Path, content: bytes) -> _Decoded:
    """(H, W, 3) RGB, turned as a TIFF says. OpenCV logs its opinion of a file without the name, of some formats."""
    with _OPENCV_LOG:
        before = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        try:
            return _decode_by_opencv(path, content, turned=content.startswith(_TIFF_SIGNATURES))
        finally:
            cv2.utils.logging.setLogLevel(before)


def _decode_by_opencv(path: Path, content: bytes, *, turned: bool = False) -> _Decoded:
    """(H, W, 3) RGB in 8 or 16 bits, as stored or `turned` as the file says."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | (0 if turned else cv2.IMREAD_IGNORE_ORIENTATION)
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise _damaged(path, "it cannot be decoded")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise _wrong_numbers(path, str(pixels.dtype))
    return cast(_Decoded, cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


def _orientation_of(exif: bytes) -> int:
    """1..8 as an EXIF block says; 1 where it says nothing that makes sense."""
    if not exif:
        return 1
    reader = Image.Exif()
    try:
        with _PILLOW, warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            reader.load(exif)
            value = reader.get(_ORIENTATION, 1)
    except _DAMAGE:
        return 1
    return int(value) if value in range(1, 9) else 1


def _upright_size(height: int, width: int, orientation: int) -> tuple[int, int]:
    return (width, height) if orientation >= 5 else (height, width)


def _upright(picture: _Decoded, orientation: int) -> _Decoded:
    """A picture as stored, turned and mirrored as its EXIF orientation says."""
    if orientation >= 5:
        picture = cast(_Decoded, cv2.transpose(picture))
    if orientation in _FLIPS:
        picture = cast(_Decoded, cv2.flip(picture, _FLIPS[orientation]))
    return picture
