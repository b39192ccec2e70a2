"""What everything that looks at pictures counts and writes in one way: lightness, and JPEG files."""

import cv2
import numpy as np
from numpy.typing import NDArray

from tapetum.core.errors import OutputError

LIGHTNESS_WEIGHTS = (0.299, 0.587, 0.114)  # of red, green, blue: mean lightness as the light levels are counted


def encode_jpeg(picture: NDArray[np.uint8], quality: int) -> bytes:
    """The bytes of the JPEG file.

    Args:
        picture: (H, W, 3) uint8 RGB.
    Raises:
        OutputError: the picture cannot be encoded.
    """
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise OutputError(f"picture of {picture.shape} cannot be encoded as JPEG: check its height and width")
    return bytes(data)
