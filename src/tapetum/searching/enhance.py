"""A night picture made brighter for the eye, and the name of what made it so.

It is for people who compare pictures. What a search compares is never taken from here.
"""

import numpy as np

from tapetum.core.method import Enhancer, NamesEnhancement
from tapetum.data.image_io import Picture, resize
from tapetum.enhancers import enhance_by
from tapetum.inference.model import Model
from tapetum.inference.torch_sessions import TorchSession

LARGEST_HEIGHT = 512  # pixels; a larger picture is made smaller first, so that its time is bounded
PLAIN = "plain brightening: stretched to the full range, then the square root of each value"
_BRIGHTEST_SHARE = 99.5  # percentile that becomes white: a lamp in the picture must not decide


def enhance(model: Model, picture: Picture) -> Picture:
    """The picture as the model's own light enhancement sees it, or plainly brightened where it has none.

    Only a run opened by PyTorch still has its enhancement apart; an exported artefact is one piece.

    Args:
        picture: (H, W, 3) uint8 RGB.
    Returns:
        The picture, at most `LARGEST_HEIGHT` high; `name_enhancement` says by what it was enhanced.
    """
    height, width = picture.shape[:2]
    if height > LARGEST_HEIGHT:
        picture = resize(picture, (LARGEST_HEIGHT, max(1, round(width * LARGEST_HEIGHT / height))))
    session = _enhancing(model)
    return brighten(picture) if session is None else enhance_by(session.network, picture, session.device)


def name_enhancement(model: Model) -> str:
    """By what `enhance` makes a picture brighter, for people."""
    session = _enhancing(model)
    if session is None:
        return PLAIN
    network = session.network
    name = network.enhancement if isinstance(network, NamesEnhancement) else "enhancement"
    return f"{name} of the model ({model.settings.method})"


def _enhancing(model: Model) -> TorchSession | None:
    """The model's session where its network brightens pictures."""
    session = model.session
    if not isinstance(session, TorchSession) or not isinstance(session.network, Enhancer):
        return None
    is_ablation = isinstance(session.network, NamesEnhancement) and session.network.enhancement is None
    return None if is_ablation else session


def brighten(picture: Picture) -> Picture:
    """A dark picture, (H, W, 3) uint8 RGB, stretched to the full range, its dark half lifted."""
    white = max(1.0, float(np.percentile(picture, _BRIGHTEST_SHARE)))
    levels = np.sqrt(np.minimum(np.arange(256) / white, 1)) * 255
    bright: Picture = np.rint(levels).astype(np.uint8)[picture]
    return bright
