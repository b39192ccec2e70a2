"""What clients send: forms and pictures, looked at before anything is decoded."""

from pathlib import Path
from typing import BinaryIO

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from tapetum.core.errors import DataError, LargePictureError
from tapetum.data.image_io import Picture, decode_picture
from tapetum.searching.crops import tell_kind
from tapetum.service.errors import PictureError, ServiceError, TooLargeError

MOST_PICTURES = 16  # of one search
MOST_FIELDS = 1000  # the page has one for each camera that is ticked
MOST_FIELD_BYTES = 256 * 1024
MOST_PICTURE_BYTES = 16 * 2**20
MOST_PICTURE_PIXELS = 25_000_000
MOST_PIXELS = 50_000_000  # of all pictures of one search
MOST_UPLOAD_BYTES = 64 * 2**20  # of a form with pictures
MOST_BODY_BYTES = 2**20  # of any other request
FORM = "tapetum.form"  # in a request's scope: what is to be closed
FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")


def is_form(request: Request) -> bool:
    """Whether a request carries a form."""
    return content_type(request) in FORMS


def content_type(request: Request) -> str:
    """What a request says its body is, in small letters and without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_form(request: Request) -> FormData:
    """The form of a request; a second call gives the same one. It is closed when the request is answered.

    Raises:
        ServiceError: no form, or more parts than allowed.
    """
    if not is_form(request):
        raise ServiceError(f"send a form ({FORMS[0]})")
    try:
        form = await request.form(max_files=MOST_PICTURES, max_fields=MOST_FIELDS, max_part_size=MOST_FIELD_BYTES)
    except HTTPException as error:
        if error.status_code == 400:  # what the parser says: too many parts, too large a part, a damaged form
            raise ServiceError(f"the form cannot be read ({error.detail}); at most {MOST_PICTURES} pictures") from None
        raise
    request.scope[FORM] = form
    return form


def find_pictures(form: FormData, name: str = "pictures") -> list[tuple[str, BinaryIO]]:
    """The pictures of a form, neither read nor decoded: file name and open file of each.

    Large ones lie on the disk, so that many requests that wait for a thread do not fill the memory.

    Args:
        name: of the form's field.
    Raises:
        TooLargeError: one has too many bytes.
        PictureError: one is empty, or the field holds text.
    """
    pictures = []
    for part in form.getlist(name):
        if not isinstance(part, UploadFile):
            raise PictureError(f"{name}: holds text; send a file")
        label = clean_label(part.filename)
        if (part.size or 0) > MOST_PICTURE_BYTES:
            raise TooLargeError(f"{label}: larger than {MOST_PICTURE_BYTES // 2**20} MiB; send a smaller picture")
        if not part.size and not part.filename:  # a browser's empty file field
            continue
        pictures.append((label, part.file))
    return pictures


def decode_pictures(uploads: list[tuple[str, BinaryIO]]) -> list[Picture]:
    """Decode pictures that a client sent, in order.

    Args:
        uploads: label and open file of each.
    Raises:
        PictureError: no picture, of another kind, damaged.
        TooLargeError: too many pixels, in one or in all.
    """
    pictures = []
    left = MOST_PIXELS
    for label, file in uploads:
        pictures.append(decode_upload(label, file.read(), min(left, MOST_PICTURE_PIXELS)))
        left -= pictures[-1].shape[0] * pictures[-1].shape[1]
    return pictures


def decode_upload(label: str, content: bytes, max_pixels: int = MOST_PICTURE_PIXELS) -> Picture:
    """Decode one picture that a client sent.

    Returns:
        (H, W, 3) uint8.
    Raises:
        PictureError: no picture, of another kind, damaged.
        TooLargeError: too many pixels.
    """
    if not content:
        raise PictureError(f"{label}: the file is empty; send another picture")
    if tell_kind(content) is None:
        raise PictureError(f"{label}: no JPEG, PNG, WebP, BMP or TIFF; send a picture of one of these kinds")
    try:
        return decode_picture(content, Path(label), max_pixels=max_pixels)
    except LargePictureError as error:
        raise TooLargeError(f"{_reason(error)}; send a smaller picture") from None
    except DataError as error:
        raise PictureError(f"{_reason(error)}; send another picture") from None


def clean_label(name: str | None) -> str:
    """A file name as it may be shown and logged: no folders, no signs that move a cursor."""
    last = (name or "").replace("\\", "/").rpartition("/")[2]
    label = "".join(letter for letter in last if letter.isprintable())[:100].strip()
    return label or "picture"


def _reason(error: DataError) -> str:
    """What is wrong, without the remedy, which is not for clients."""
    return str(error).partition(";")[0]
