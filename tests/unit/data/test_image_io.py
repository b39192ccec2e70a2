import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tapetum.core.errors import DataError
from tapetum.data import image_io
from tapetum.data.image_io import (
    Interpolation,
    brightest_of_16_bits,
    check_picture,
    picture_size,
    read_picture,
    resize,
    write_picture,
)


def sample(height: int = 40, width: int = 30) -> np.ndarray:
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(0, 255, (6, 5, 3), dtype=np.uint8), (width, height))


def save(path: Path, picture: np.ndarray, **options: object) -> Path:
    Image.fromarray(picture).save(path, **options)
    return path


def test_png_comes_back_unchanged_as_rgb(tmp_path: Path) -> None:
    picture = sample()
    read = read_picture(save(tmp_path / "a.png", picture))
    assert np.array_equal(read, picture)
    assert read.dtype == np.uint8
    assert read.flags.c_contiguous


@pytest.mark.parametrize("ending", ["jpg", "png", "bmp", "webp", "tif"])
def test_size_is_read_from_the_header_of_every_format(tmp_path: Path, ending: str) -> None:
    path = save(tmp_path / f"a.{ending}", sample(41, 23))
    assert picture_size(path) == (41, 23) == read_picture(path).shape[:2]


def test_progressive_jpeg_with_a_comment_is_understood(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", sample(41, 23), progressive=True, comment=b"\xff\xd9" * 20)
    assert picture_size(path) == (41, 23) == read_picture(path).shape[:2]


UPRIGHT = {  # EXIF orientation -> from a picture as stored to the picture as meant
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored.transpose(1, 0, 2), 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(
    ("ending", "options"),
    [
        ("jpg", {"quality": 95}),
        ("png", {}),
        ("webp", {"lossless": True}),
        ("tif", {}),
        ("tiff", {"compression": "tiff_lzw"}),
        ("tiff", {"compression": "jpeg"}),
    ],
)
def test_orientation_is_applied_to_picture_and_size_in_every_format_that_has_one(
    tmp_path: Path, ending: str, options: dict, orientation: int
) -> None:
    plain = read_picture(save(tmp_path / f"plain.{ending}", sample(40, 24), **options))
    exif = Image.Exif()
    exif[0x0112] = orientation
    said = {"tiffinfo": {0x0112: orientation}} if ending.startswith("tif") else {"exif": exif}
    path = save(tmp_path / f"a.{ending}", sample(40, 24), **said, **options)
    expected = UPRIGHT[orientation](plain)
    assert picture_size(path) == expected.shape[:2] == ((40, 24) if orientation < 5 else (24, 40))
    assert np.array_equal(read_picture(path), expected)


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientation_of_sixteen_bits_of_inks_and_after_the_data_of_a_png_counts_too(
    tmp_path: Path, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    deep = Image.fromarray(sample(40, 24)[..., 0].astype(np.uint16) * 200)
    deep.save(tmp_path / "plain.tif")
    deep.save(tmp_path / "deep.tif", tiffinfo={0x0112: orientation}, compression="tiff_lzw")
    inks = Image.fromarray(sample(40, 24)).convert("CMYK")
    inks.save(tmp_path / "plain.jpg")
    inks.save(tmp_path / "inks.jpg", exif=exif)
    save(tmp_path / "plain.png", sample(40, 24))
    content = (tmp_path / "plain.png").read_bytes()
    (tmp_path / "late.png").write_bytes(content[:-12] + png_chunk(b"eXIf", exif.tobytes()[6:]) + content[-12:])
    for name, plain in (("deep.tif", "plain.tif"), ("inks.jpg", "plain.jpg"), ("late.png", "plain.png")):
        expected = UPRIGHT[orientation](read_picture(tmp_path / plain))
        assert picture_size(tmp_path / name) == expected.shape[:2]
        assert np.array_equal(read_picture(tmp_path / name), expected)


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_orientation_that_does_not_exist_turns_nothing(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for ending in ("jpg", "png", "webp"):
        path = save(tmp_path / f"a.{ending}", sample(40, 24), exif=exif)
        assert picture_size(path) == read_picture(path).shape[:2] == (40, 24)


def test_single_channel_is_repeated(tmp_path: Path) -> None:
    grey = sample()[..., 0]
    read = read_picture(save(tmp_path / "a.png", grey))
    assert np.array_equal(read, np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("ending", ["png", "tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled_by_their_full_range_whatever_is_used_of_it(
    tmp_path: Path, ending: str, channels: int
) -> None:
    deep = np.linspace(0, 65535, 12 * 10).astype(np.uint16).reshape(12, 10)
    for picture in (deep, deep // 64):
        stored = picture if channels == 1 else np.repeat(picture[..., None], 3, axis=2)
        cv2.imwrite(str(tmp_path / f"a.{ending}"), stored)
        read = read_picture(tmp_path / f"a.{ending}")
        assert read.dtype == np.uint8
        assert np.array_equal(read, np.repeat(np.rint(picture / 257)[..., None], 3, axis=2))
        assert brightest_of_16_bits(tmp_path / f"a.{ending}") == picture.max()
    assert read.max() == 4  # 1023 of 65535: nearly black, as 'tapetum data check' says


def test_pictures_of_eight_bits_have_no_sixteen_bit_maximum(tmp_path: Path) -> None:
    for ending in ("png", "jpg", "tiff", "bmp"):
        cv2.imwrite(str(tmp_path / f"a.{ending}"), sample())
        assert brightest_of_16_bits(tmp_path / f"a.{ending}") is None
        grey = sample()[..., 0]
        cv2.imwrite(str(tmp_path / f"grey.{ending}"), grey)
        read = read_picture(tmp_path / f"grey.{ending}")
        assert np.array_equal(read[..., 0], read[..., 1])
        assert np.array_equal(read[..., 0], read[..., 2])


def test_numbers_that_are_neither_eight_nor_sixteen_bits_are_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.pfm"), np.full((6, 4), 0.5, np.float32))
    with pytest.raises(DataError, match=r"a\.pfm: holds numbers of type float32; convert it to 8 bits"):
        read_picture(tmp_path / "a.pfm")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["float32", "float64", "int32", "uint32", "int16", "int8"])
def test_a_tiff_of_other_numbers_is_refused_for_its_type_and_nothing_else_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str, channels: int
) -> None:
    path = tmp_path / "warm.tiff"
    cv2.imwrite(str(path), np.ones((6, 4, channels), kind))
    for read in (read_picture, brightest_of_16_bits, picture_size):
        with pytest.raises(DataError, match=rf"warm\.tiff: holds numbers of type {kind}; convert it to 8 bits"):
            read(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kept", [4, 8, 9, 60, 150, 1000])
def test_every_short_beginning_of_a_tiff_is_refused(tmp_path: Path, kept: int) -> None:
    cv2.imwrite(str(tmp_path / "a.tiff"), sample())
    (tmp_path / "a.tiff").write_bytes((tmp_path / "a.tiff").read_bytes()[:kept])
    with pytest.raises(DataError, match="--skip-corrupt"):
        read_picture(tmp_path / "a.tiff")


def test_alpha_is_dropped_and_not_blended(tmp_path: Path) -> None:
    picture = sample()
    faint = np.concatenate([picture, np.full((*picture.shape[:2], 1), 10, np.uint8)], axis=2)
    assert np.array_equal(read_picture(save(tmp_path / "a.png", faint)), picture)


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_truncated_picture_is_refused_by_name(tmp_path: Path, ending: str) -> None:
    whole = save(tmp_path / f"whole.{ending}", sample(200, 100)).read_bytes()
    path = tmp_path / f"cut.{ending}"
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(DataError, match=rf"cut\.{ending}: .*--skip-corrupt"):
        read_picture(path)


@pytest.mark.parametrize("ending", ["jpg", "png"])
@pytest.mark.parametrize("kept", [1, 3, 10, 30, 100])
def test_every_short_beginning_of_a_picture_is_refused(tmp_path: Path, ending: str, kept: int) -> None:
    path = save(tmp_path / f"a.{ending}", sample(200, 100))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match="--skip-corrupt"):
        read_picture(path)


@pytest.mark.parametrize("content", [b"hello, this is no picture at all", b"", b"\xff\xd8\xff", b"GIF89a" + bytes(4)])
def test_file_that_is_no_picture_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "fake.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"fake\.jpg"):
        read_picture(path)


def test_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.jpg: cannot be read"):
        read_picture(tmp_path / "gone.jpg")


def noisy(height: int = 120, width: int = 60) -> np.ndarray:
    """So much to say that damage anywhere meets something."""
    noise = np.random.default_rng(1).integers(-20, 20, (height, width, 3))
    return np.clip(sample(height, width).astype(int) + noise, 0, 255).astype(np.uint8)


def zeros_within(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(40) + content[middle + 40 :]


def cut_out(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + content[middle + 200 :]


def end_mark_too_early(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3] + b"\xff\xd9"


def without_the_last_scan(content: bytes) -> bytes:
    return content[: content.rfind(b"\xff\xda")] + b"\xff\xd9"


def wrong_restart_mark(content: bytes) -> bytes:
    place = content.find(b"\xff\xd2")
    return content[: place + 1] + b"\xd5" + content[place + 2 :]


JPEG_KINDS = {
    "colour": [],
    "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    "restarts": [cv2.IMWRITE_JPEG_RST_INTERVAL, 2],
    "full colours": [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444],
    "half colours": [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422],
    "best": [cv2.IMWRITE_JPEG_QUALITY, 100],
}


def jpeg(kind: str, picture: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), JPEG_KINDS[kind])[1].tobytes()


@pytest.mark.parametrize("kind", JPEG_KINDS)
@pytest.mark.parametrize("size", [(120, 60), (1, 1), (17, 31), (8, 129)])
def test_a_jpeg_is_decoded_to_the_same_pixels_as_ever(tmp_path: Path, kind: str, size: tuple[int, int]) -> None:
    content = jpeg(kind, noisy(*size))
    (tmp_path / "a.jpg").write_bytes(content)
    (tmp_path / "grey.jpg").write_bytes(cv2.imencode(".jpg", noisy(*size)[..., 0], JPEG_KINDS[kind])[1].tobytes())
    for path in tmp_path.iterdir():  # models were trained with OpenCV's decoder
        expected = cv2.cvtColor(cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        assert np.array_equal(read_picture(path), expected)


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        *((kind, damage) for kind in JPEG_KINDS for damage in (zeros_within, cut_out, end_mark_too_early)),
        ("restarts", wrong_restart_mark),
        ("progressive", without_the_last_scan),
    ],
)
def test_a_jpeg_that_lost_data_but_not_its_end_mark_is_refused_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str, damage: Callable[[bytes], bytes]
) -> None:
    content = damage(jpeg(kind, noisy()))
    assert content.endswith(b"\xff\xd9")
    path = tmp_path / "torn.jpg"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"torn\.jpg: the picture is damaged \(.+\); replace it or use --skip-corrupt"):
        read_picture(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("padding", [b"\0", bytes(3), bytes(15)])
def test_zero_bytes_before_the_end_mark_of_a_jpeg_are_no_damage(tmp_path: Path, padding: bytes) -> None:
    content = jpeg("colour", noisy())
    (tmp_path / "plain.jpg").write_bytes(content)
    (tmp_path / "padded.jpg").write_bytes(content[:-2] + padding + content[-2:])
    assert np.array_equal(read_picture(tmp_path / "padded.jpg"), read_picture(tmp_path / "plain.jpg"))
    (tmp_path / "more.jpg").write_bytes(content[:-2] + bytes(100) + content[-2:])
    with pytest.raises(DataError, match=r"more\.jpg: the picture is damaged \(.*extraneous bytes"):
        read_picture(tmp_path / "more.jpg")


def test_a_jpeg_of_an_unknown_revision_and_with_something_after_its_end_is_no_damage(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = jpeg("colour", noisy())
    (tmp_path / "plain.jpg").write_bytes(content)
    place = content.index(b"JFIF\0") + 5
    (tmp_path / "odd.jpg").write_bytes(content[:place] + b"\x05" + content[place + 1 :] + b"of a camera's maker")
    assert np.array_equal(read_picture(tmp_path / "odd.jpg"), read_picture(tmp_path / "plain.jpg"))
    assert capfd.readouterr().err == ""


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@pytest.mark.parametrize("damage", [zeros_within, cut_out, lambda content: content[:-12]])
def test_a_png_that_lost_data_is_refused_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], damage: Callable[[bytes], bytes]
) -> None:
    path = save(tmp_path / "torn.png", noisy())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"torn\.png: the picture is damaged \(.+\); replace it or use --skip-corrupt"):
        read_picture(path)
    assert capfd.readouterr().err == ""


def test_a_png_with_odd_notes_is_whole_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = save(tmp_path / "plain.png", noisy()).read_bytes()
    profile = png_chunk(b"iCCP", b"odd\0\0" + zlib.compress(b"no profile"))
    torn = png_chunk(b"tEXt", b"Comment\0torn")[:-4] + b"\0\0\0\0"
    (tmp_path / "odd.png").write_bytes(content[:33] + profile + torn + content[33:])
    assert np.array_equal(read_picture(tmp_path / "odd.png"), noisy())
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "jpeg"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_compressed_tiff_that_lost_data_is_refused_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], compression: str, mode: str
) -> None:
    path = tmp_path / "torn.tif"
    Image.fromarray(noisy(200, 100)).convert(mode).save(path, compression=compression)
    content, place = bytearray(path.read_bytes()), path.stat().st_size // 2
    content[place : place + 300] = np.random.default_rng(2).integers(0, 256, 300, dtype=np.uint8).tobytes()
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"torn\.tif: the picture is damaged \(.+\); replace it or use --skip-corrupt"):
        read_picture(path)
    assert capfd.readouterr().err == "" or compression == "tiff_lzw"  # of LZW Pillow's libtiff prints a line itself


@pytest.mark.parametrize("ending", ["tif", "webp", "bmp"])
@pytest.mark.parametrize("missing", [1, 20, 1000])
def test_other_formats_that_end_early_are_refused_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], ending: str, missing: int
) -> None:
    path = save(tmp_path / f"cut.{ending}", noisy())
    path.write_bytes(path.read_bytes()[:-missing])
    with pytest.raises(DataError, match=rf"cut\.{ending}: .*replace it or use --skip-corrupt"):
        read_picture(path)
    assert capfd.readouterr().err == ""


def test_odd_tags_of_a_tiff_print_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    faint = np.concatenate([noisy(), np.full((120, 60, 1), 10, np.uint8)], axis=2)
    Image.fromarray(faint).save(tmp_path / "a.tif", tiffinfo={338: (0, 0, 0), 65000: "of a camera's maker"})
    assert read_picture(tmp_path / "a.tif").shape == (120, 60, 3)
    assert capfd.readouterr().err == ""


def png_that_claims(width: int, height: int) -> bytes:
    """A whole PNG of a few bytes whose header promises a huge picture."""

    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + png_chunk(b"IDAT", zlib.compress(bytes(100))) + png_chunk(b"IEND", b"")


def test_picture_of_20000_by_20000_is_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(png_that_claims(20000, 20000))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded before the size was checked"))
    with pytest.raises(DataError, match=r"huge\.png: 20000 x 20000 pixels exceed the limit of 50000000; .*remove|cut"):
        read_picture(path)


def test_huge_picture_of_another_format_is_refused_too(tmp_path: Path) -> None:
    small = io.BytesIO()
    Image.fromarray(sample(8, 8)).save(small, "BMP")
    content = bytearray(small.getvalue())
    content[18:26] = struct.pack("<ii", 20000, 20000)
    path = tmp_path / "huge.bmp"
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"huge\.bmp"):
        read_picture(path)


def gradients() -> np.ndarray:
    y, x = np.mgrid[:8, :6]
    return np.stack([(y * 37 + x * 11) % 256, (y * x * 13) % 256, (255 - y * 9 - x * 31) % 256], -1).astype(np.uint8)


@pytest.mark.parametrize(
    ("backend", "interpolation", "size", "corner"),
    [
        ("cv2", "bicubic", (5, 4), [[[11, 1, 247], [27, 5, 200]], [[71, 5, 232], [88, 41, 185]]]),
        ("cv2", "bicubic", (12, 9), [[[0, 0, 255], [1, 0, 243]], [[14, 0, 254], [20, 2, 239]]]),
        ("cv2", "bicubic", (3, 2), [[[43, 11, 216], [76, 46, 123]], [[140, 46, 192], [174, 129, 100]]]),
        ("cv2", "bilinear", (5, 4), [[[14, 1, 244], [30, 7, 198]], [[73, 6, 230], [89, 43, 183]]]),
        ("cv2", "lanczos", (5, 4), [[[10, 1, 248], [28, 5, 198]], [[72, 4, 233], [90, 44, 183]]]),
        ("pil", "lanczos", (5, 4), [[[14, 1, 244], [30, 7, 199]], [[72, 6, 230], [89, 43, 185]]]),
        ("pil", "bicubic", (5, 4), [[[15, 1, 243], [31, 7, 199]], [[72, 7, 229], [88, 41, 185]]]),
        ("pil", "bilinear", (3, 2), [[[55, 18, 206], [82, 54, 129]], [[144, 57, 185], [167, 120, 108]]]),
    ],
)
def test_resize_filter_stays_what_models_were_trained_with(
    backend: str, interpolation: str, size: tuple[int, int], corner: list
) -> None:
    resized = resize(gradients(), size, interpolation=interpolation, backend=backend)
    assert resized.shape == (*size, 3)
    assert np.abs(resized[:2, :2].astype(int) - np.array(corner)).max() <= 1


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos"])
def test_pil_backend_equals_pillow_exactly(interpolation: Interpolation) -> None:
    picture = sample(90, 50)
    expected = np.asarray(Image.fromarray(picture).resize((32, 64), Image.Resampling[interpolation.upper()]))
    assert np.array_equal(resize(picture, (64, 32), interpolation=interpolation, backend="pil"), expected)


def test_resize_to_the_same_size_gives_the_picture_itself() -> None:
    picture = sample()
    assert resize(picture, (40, 30)) is picture


def test_written_picture_is_read_back(tmp_path: Path) -> None:
    picture = sample()
    write_picture(tmp_path / "a.png", picture)
    write_picture(tmp_path / "a.jpg", picture)
    assert np.array_equal(read_picture(tmp_path / "a.png"), picture)
    assert np.abs(read_picture(tmp_path / "a.jpg").astype(int) - picture).mean() < 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jpg", "a.png"]


def test_unknown_ending_is_refused_when_writing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.xyz"):
        write_picture(tmp_path / "a.xyz", sample())


def with_segment(content: bytes, payload: bytes) -> bytes:
    """A JPEG with an application's segment before all others."""
    return content[:2] + b"\xff\xe2" + (len(payload) + 2).to_bytes(2, "big") + payload + content[2:]


@pytest.mark.parametrize("kind", ["colour", "progressive", "restarts"])
def test_marks_within_a_segment_or_behind_the_end_are_no_marks(tmp_path: Path, kind: str) -> None:
    picture = noisy(64, 48)
    plain, small = jpeg(kind, picture), jpeg("progressive", noisy(8, 8))
    (tmp_path / "plain.jpg").write_bytes(plain)
    before = [with_segment(plain, b"ICC\xff\xc2 and more"), with_segment(plain, small)]
    behind = [plain + small, plain + b"\xff\xc2"]  # as phones write photographs that move
    for number, content in enumerate([*before, *behind]):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(content)
        assert np.array_equal(read_picture(path), read_picture(tmp_path / "plain.jpg")), number


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((8, 4, 3), np.float32),
        np.zeros((8, 4, 3), np.uint16),
        np.zeros((8, 4), np.uint8),
        np.zeros((8, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        "a.jpg",
    ],
)
def test_what_is_no_picture_in_memory_is_refused_with_what_it_is(picture: object) -> None:
    with pytest.raises(DataError, match=r"row 3: is (\w+ of shape \(.*\)|str); give \(height, width, 3\) uint8"):
        check_picture(picture, "row 3")


def jpeg_strip(tmp_path: Path, side: int) -> bytes:
    """A TIFF of 16 x 16 pixels whose one strip is a JPEG of another size."""
    path = tmp_path / "strip.tif"
    Image.fromarray(np.zeros((side, side, 3), np.uint8)).save(path, compression="jpeg", tiffinfo={278: side})
    content = bytearray(path.read_bytes())
    (where,) = struct.unpack_from("<I", content, 4)
    for entry in range(where + 2, where + 2 + 12 * struct.unpack_from("<H", content, where)[0], 12):
        tag, kind = struct.unpack_from("<HH", content, entry)
        if tag in (256, 257, 278):
            struct.pack_into("<H" if kind == 3 else "<I", content, entry + 8, 16)
    return bytes(content)


def test_a_small_tiff_that_holds_a_huge_picture_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, unpacked = tmp_path / "bomb.tif", []
    path.write_bytes(jpeg_strip(tmp_path, 3000))
    monkeypatch.setattr("simplejpeg.decode_jpeg", lambda *given: unpacked.append(given))
    with pytest.raises(DataError, match=r"bomb\.tif: the picture is damaged \(its parts hold more than"):
        read_picture(path)
    assert not unpacked


def test_strips_that_all_are_one_piece_of_data_are_refused_once_they_hold_too_much(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tif"
    Image.fromarray(np.zeros((2000, 2000, 3), np.uint8)).save(
        path, compression="tiff_adobe_deflate", tiffinfo={278: 2000}
    )
    with Image.open(path) as image:
        (start,), (length,) = image.tag_v2[273], image.tag_v2[279]
    tags = {256: 2000, 257: 2000, 259: 8, 273: (start,) * 1000, 279: (length,) * 1000}
    with pytest.raises(DataError, match="its parts hold more than"):
        image_io._check_parts(path, path.read_bytes(), tags, most=2000 * 2000 * 3 * 2)
