"""Pictures that nobody should have to fear: each is answered by a clear 4xx, or by a search; never by a 500."""

import json
import struct
import threading
import zlib
from io import BytesIO
from typing import Any, BinaryIO

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from PIL import Image

from service.conftest import a_picture, service_of
from tapetum.searching.crops import tell_kind
from tapetum.service import uploads
from tapetum.service.errors import PictureError, TooLargeError
from tapetum.service.uploads import clean_label, decode_pictures

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow's remarks about damaged files
JPEG = a_picture(3, (96, 48))


def a_png(picture: Any) -> bytes:
    return cv2.imencode(".png", picture)[1].tobytes()


NOISE = np.random.default_rng(5).integers(0, 255, (80, 40, 3)).astype(np.uint8)
PNG = a_png(NOISE)


def by_pillow(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    file = BytesIO()
    Image.fromarray(NOISE).convert(mode).save(file, kind, **options)
    return file.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_of_size(width: int, height: int) -> bytes:
    """A few bytes that claim to be a large picture."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def png_with(name: bytes, content: bytes) -> bytes:
    return PNG[:33] + chunk(name, content) + PNG[33:]


def jpeg_with(*segments: tuple[int, bytes]) -> bytes:
    inside = b"".join(bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body for marker, body in segments)
    return JPEG[:2] + inside + JPEG[2:]


def jpeg_of_size(width: int, height: int) -> bytes:
    place = JPEG.index(b"\xff\xc0")
    return JPEG[: place + 5] + struct.pack(">HH", height, width) + JPEG[place + 9 :]


def exif(entries: list[tuple[int, int, int, bytes]], after: bytes = b"", following: int = 0) -> bytes:
    table = b"".join(struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + table + struct.pack("<I", following) + after


ENDLESS = exif([(0x8769, 4, 1, struct.pack("<I", 8))], following=8)  # its folders point to themselves
HUGE_COUNT = exif([(0x0112, 3, 0xFFFFFFFF, b"\x01\0\0\0"), (0x010F, 2, 0xFFFFFFF0, struct.pack("<I", 26))])
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
POLYGLOT = b"GIF89a/*" + b"\0" * 20 + b"*/=1;</script><html><body onload=alert(1)>"
ANIMATED = BytesIO()
Image.fromarray(NOISE).save(
    ANIMATED, "WEBP", save_all=True, append_images=[Image.fromarray(NOISE[::-1].copy())], lossless=True
)
TIFF = by_pillow("TIFF")
BOMB = zlib.compress(b"\0" * 50_000_000)

REFUSED = {
    "nothing": b"",
    "one byte": b"\xff",
    "text named jpg": b"this is no picture at all, but somebody called it one\n" * 10,
    "svg": SVG,
    "svg after a blank": b"  \n" + SVG,
    "gif and html": POLYGLOT,
    "gif": by_pillow("GIF", "P"),
    "html": b"<html><script>alert(1)</script></html>",
    "pdf": b"%PDF-1.7\n" + b"\0" * 100,
    "zip": b"PK\3\4" + b"\0" * 100,
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    "icon": b"\0\0\1\0\1\0" + b"\0" * 100,
    "movie named jpg": b"\0\0\0\x18ftypmp42" + b"\0" * 100,
    "jpeg mark alone": b"\xff\xd8\xff",
    "png mark alone": b"\x89PNG\r\n\x1a\n",
    "png header alone": PNG[:33],
    "png with a wrong checksum": PNG[:29] + b"\0\0\0\0" + PNG[33:],
    "png of 20000 x 20000": png_of_size(20_000, 20_000),
    "png of 2 billion x 2 billion": png_of_size(2**31 - 1, 2**31 - 1),
    "png without width": png_of_size(0, 10),
    "jpeg of 65500 x 65500": jpeg_of_size(65_500, 65_500),
    "jpeg without height": jpeg_of_size(48, 0),
    "bmp mark alone": b"BM",
    "bmp of a wrong size": b"BM" + struct.pack("<IHHIIiiHH", 100, 0, 0, 54, 40, 2**30, 2**30, 1, 24) + b"\0" * 60,
    "bmp upside down and huge": b"BM" + struct.pack("<IHHIIiiHH", 99, 0, 0, 54, 40, 9, -(2**31), 1, 24) + b"\0" * 60,
    "webp mark alone": b"RIFF\x10\0\0\0WEBPVP8 ",
    "tiff whose directory is elsewhere": b"II*\0\xff\xff\xff\xff",
    "tiff that points to itself": b"II*\0\x08\0\0\0" + b"\0\0" + b"\x08\0\0\0",
    "tiff cut off": TIFF[: len(TIFF) // 2],
} | {f"jpeg cut off at {place}": JPEG[:place] for place in (4, 20, 200, 400, len(JPEG) // 2, len(JPEG) - 2)}

TAKEN = {  # a picture is in there, and nothing of the rest is used or kept
    "jpeg": JPEG,
    "png": PNG,
    "webp": by_pillow("WEBP"),
    "bmp": by_pillow("BMP"),
    "tiff": TIFF,
    "grey jpeg": by_pillow("JPEG", "L"),
    "cmyk jpeg": by_pillow("JPEG", "CMYK"),
    "progressive jpeg": by_pillow("JPEG", progressive=True),
    "16-bit png": a_png(NOISE.astype(np.uint16) * 257),
    "png with palette": by_pillow("PNG", "P"),
    "png with alpha": by_pillow("PNG", "RGBA"),
    "animated webp": ANIMATED.getvalue(),
    "jpeg with a page behind it": JPEG + b"<html><script>alert(1)</script></html>",
    "jpeg with a zip behind it": JPEG + b"PK\3\4" + b"\0" * 1000,
    "jpeg with a page in a comment": jpeg_with((0xFE, b"<script>alert(1)</script>")),
    "jpeg with a megabyte of exif": jpeg_with(*[(0xE1, b"Exif\0\0" + b"\0" * 65_000)] * 16),
    "jpeg with endless exif": jpeg_with((0xE1, ENDLESS)),
    "jpeg with exif of four billion": jpeg_with((0xE1, HUGE_COUNT)),
    "jpeg with random exif": jpeg_with((0xE1, b"Exif\0\0" + NOISE.tobytes()[:5000])),
    "png with a text bomb": png_with(b"zTXt", b"Comment\0\0" + BOMB),
    "png with a profile bomb": png_with(b"iCCP", b"profile\0\0" + BOMB),
    "png with random exif": png_with(b"eXIf", NOISE.tobytes()[:5000]),
}


def send(client: TestClient, *pictures: bytes, name: str = "person.jpg", **options: Any) -> Response:
    files = [("pictures", (name, content, "image/jpeg")) for content in pictures]
    return client.post("/api/v1/search/pictures", files=files, data={"options": json.dumps({"k": 1} | options)})


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_picture_is_refused_in_one_line(client: TestClient, name: str) -> None:
    answer = send(client, REFUSED[name])
    assert answer.status_code in (413, 415), answer.text
    message = answer.json()["error"]
    assert message.startswith("person.jpg: ")
    assert "; send " in message
    assert "\n" not in message
    assert "skip-corrupt" not in message


@pytest.mark.parametrize("name", TAKEN)
def test_a_picture_is_searched_with_whatever_else_is_in_the_file(client: TestClient, name: str) -> None:
    answer = send(client, TAKEN[name])
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_random_damage_never_breaks_the_service(client: TestClient, kind: str) -> None:
    rng = np.random.default_rng(11)
    whole = by_pillow(kind)
    for _ in range(40):
        damaged = bytearray(whole)
        for place in rng.integers(4, len(damaged), rng.integers(1, 12)):
            damaged[place] = rng.integers(256)
        answer = send(client, bytes(damaged[: rng.integers(len(damaged) // 2, len(damaged) + 1)]))
        assert answer.status_code in (200, 400, 413, 415), answer.text


def test_a_bomb_is_not_unpacked() -> None:
    import tracemalloc

    tracemalloc.start()
    with pytest.raises(TooLargeError, match="20000 x 20000"):
        decode_pictures([("bomb.png", BytesIO(png_of_size(20_000, 20_000)))])
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_many_pictures_together_have_a_limit_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MOST_PIXELS", 2 * 80 * 40)
    decode_pictures([(label, BytesIO(PNG)) for label in "ab"])
    with pytest.raises(TooLargeError, match="send a smaller picture"):
        decode_pictures([(label, BytesIO(PNG)) for label in "abc"])


def test_a_file_name_does_not_decide_what_is_wrong_with_a_picture() -> None:
    with pytest.raises(PictureError, match=r"pixels\.jpg: .*; send another picture"):
        decode_pictures([("pixels.jpg", BytesIO(JPEG[:200]))])


def test_an_upload_is_read_only_when_a_thread_takes_it(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def look(sent: list[tuple[str, BinaryIO]]) -> Any:
        seen.append((threading.current_thread().name, [(label, file.tell()) for label, file in sent]))
        return decode_pictures(sent)

    monkeypatch.setattr("tapetum.service.searches.decode_pictures", look)
    assert send(client, JPEG).status_code == 200
    ((thread, files),) = seen
    assert thread.startswith("search")
    assert files == [("person.jpg", 0)]


def test_a_form_has_limits_of_its_own(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = send(client, *[JPEG] * 17)
    assert answer.status_code == 400
    assert "at most 16 pictures" in answer.json()["error"]
    many = client.post(
        "/api/v1/search/pictures", data={f"field{n}": "x" for n in range(1001)}, files={"pictures": JPEG}
    )
    assert many.status_code == 400
    large = client.post("/api/v1/search/pictures", data={"options": "x" * 300_000}, files={"pictures": JPEG})
    assert large.status_code == 400
    monkeypatch.setattr(uploads, "MOST_PICTURE_BYTES", 1000)
    assert send(client, JPEG).status_code == 413


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "multipart/form-data"),
        (b"", "multipart/form-data; boundary="),
        (b"--x\r\nno form at all", "multipart/form-data; boundary=x"),
        (b"--x\r\nContent-Disposition: form-data\r\n\r\nnameless\r\n--x--\r\n", "multipart/form-data; boundary=x"),
        (b"pictures=text", "application/x-www-form-urlencoded"),
        (b"{}", "application/json"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"--x--", "multipart/form-data; boundary=x; charset=no-such-charset"),
    ],
)
def test_a_damaged_form_is_a_clear_error(client: TestClient, content: bytes, kind: str) -> None:
    answer = client.post("/api/v1/search/pictures", content=content, headers={"content-type": kind})
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("{", "options: Invalid JSON"),
        ("[]", "options: Input should be"),
        ('{"k": "many"}', "options.k"),
        ('{"boxes": [[0, 0, 10, 10], null]}', "boxes: 2 for 1 pictures"),
        ('{"boxes": [[0, 0, 1000, 10]]}', "does not lie in its"),
        ('{"boxes": [[0, 0, 99999999999999999999, 10]]}', "does not lie in its"),
        ('{"modality": "thermal"}', "options.modality"),
        ('{"k": 1, "k2": 1}', "options.k2"),
        ("[" * 100_000, "options: Invalid JSON"),
    ],
)
def test_options_are_checked_field_by_field(client: TestClient, options: str, words: str) -> None:
    files = {"pictures": ("person.jpg", JPEG, "image/jpeg")}
    answer = client.post("/api/v1/search/pictures", files=files, data={"options": options})
    assert 400 <= answer.status_code < 500
    assert words in answer.json()["error"]


def test_a_box_in_a_frame_is_the_person(client: TestClient) -> None:
    frame = np.zeros((200, 300, 3), np.uint8)
    frame[20:100, 50:90] = NOISE
    whole = send(client, a_png(frame)).json()
    assert "wider than a person" in whole["error"]
    first = send(client, a_png(frame), boxes=[[50, 20, 40, 80]], group="none").json()["queries"][0]["found"][0]
    second = send(client, PNG, group="none").json()["queries"][0]["found"][0]
    assert first["row"]["id"] == second["row"]["id"]
    assert first["similarity"] == pytest.approx(second["similarity"], abs=1e-4)


def test_several_pictures_are_one_person_or_each_their_own(client: TestClient) -> None:
    assert len(send(client, JPEG, PNG).json()["queries"]) == 1
    assert len(send(client, JPEG, PNG, separate=True).json()["queries"]) == 2


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\anna\\person.jpg", "person.jpg"),
        ("\x1b[31mred\n.jpg", "[31mred.jpg"),
        ("", "picture"),
        (None, "picture"),
        ("a" * 500, "a" * 100),
    ],
)
def test_a_file_name_is_only_a_label(name: str | None, shown: str) -> None:
    assert clean_label(name) == shown


def test_what_was_searched_with_is_kept_small(client: TestClient) -> None:
    large = a_picture(1, (2000, 1000))
    done = send(client, large).json()["search"]
    kept = service_of(client).searches.find(done, "owner").pictures[0][0]
    assert tell_kind(kept) == "image/jpeg"
    assert len(kept) < 100_000
