"""A model for tests that needs no weights: a person is the mean colours of eight stripes, and somebody counts them."""

import torch
from torch import Tensor
from torch.nn import functional

from tapetum.inference.artefact import ModelSettings
from tapetum.inference.sessions import Model

SIZE = (32, 16)
DIMENSION = 48


class Stripes:
    """A session that counts what it computes."""

    precision, device = "fp32", "cpu"

    def __init__(self) -> None:
        self.pictures = 0

    def run(self, images: Tensor, modalities: Tensor, camids: Tensor) -> Tensor:
        self.pictures += len(images)
        stripes = functional.adaptive_avg_pool2d(images, (8, 2)).flatten(1)
        return functional.normalize(stripes - stripes.mean(1, keepdim=True) + 1e-3 * modalities[:, None])


def plain_model(name: str = "stripes-1") -> Model:
    settings = ModelSettings("stripes", {}, SIZE, "bilinear", "cv2", mirror=False, normalisation="none")
    return Model(name, settings, "torch", DIMENSION, Stripes())


def pictures_seen(model: Model) -> int:
    assert isinstance(model.session, Stripes)
    return model.session.pictures


def vector_of(pictures: torch.Tensor) -> torch.Tensor:
    nothing = torch.zeros(len(pictures), dtype=torch.int64)
    return Stripes().run(pictures, nothing, nothing)
