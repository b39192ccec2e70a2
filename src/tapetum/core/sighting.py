"""What an index knows about one crop: who took it, when, where, and how well a person can be told on it."""

from dataclasses import dataclass

from tapetum.core.types import Modality

Box = tuple[int, int, int, int]  # left, top, width, height in pixels of the frame


@dataclass(frozen=True)
class Sighting:
    """One crop of one person, before it has an embedding.

    Attributes:
        id: names the crop in its gallery; a hash of source, frame and box, so that the same footage gives the same id.
        source: the file or folder it comes from, as the operator named it.
        camera: name of the camera; letters, digits, '.', '_' and '-'.
        time: seconds since 1970-01-01 UTC.
        frame: number of the frame in its source, from 0; 0 for a loose picture.
        box: the crop in its frame; the whole picture for a loose one.
        tracklet: names the walk through one camera's view that it belongs to.
        modality: visible or infrared.
        light: mean lightness, 0..255.
        quality: 0..1, how well a person can be told on it.
        remark: why quality is low, e.g. "too dark to match"; empty otherwise.
        crop: path of the picture relative to the gallery's folder.
    """

    id: str
    source: str
    camera: str
    time: float
    frame: int
    box: Box
    tracklet: str
    modality: Modality
    light: float
    quality: float
    remark: str
    crop: str
