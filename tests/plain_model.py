"""A model for tests that needs no weights: a person is the mean colours of eight stripes, and somebody counts them."""

import torch
from torch.nn import functional

from tapetum.core.arrays import Real, Whole
from tapetum.inference.artefact import ModelSettings
from tapetum.inference.sessions import Model

SIZE = (32, 16)
DIMENSION = 48


class Stripes:
    """A session that counts what it computes."""

    precision, device = "fp32", "cpu"

    def __init__(self) -> None:
        self.pictures = 0

    def run(self, images: Real, modalities: Whole, camids: Whole) -> Real:
        self.pictures += len(images)
        stripes = functional.adaptive_avg_pool2d(torch.from_numpy(images), (8, 2)).flatten(1)
        kinds = torch.from_numpy(modalities)[:, None]
        return functional.normalize(stripes - stripes.mean(1, keepdim=True) + 1e-3 * kinds).numpy()


def plain_model(name: str = "stripes-1") -> Model:
    settings = ModelSettings("stripes", {}, SIZE, "bilinear", "cv2", mirror=False, normalisation="none")
    return Model(name, settings, "torch", DIMENSION, Stripes())


def pictures_seen(model: Model) -> int:
    assert isinstance(model.session, Stripes)
    return model.session.pictures
